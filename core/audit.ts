import type { Clock } from './clock.ts'
import type { Logger } from './log.ts'
import type { AuditEntry, AuditItem, AuditSearch, Page, Store } from './store.ts'

const refusedWindowMs = 1000
/** How long the next look of the same admin at the same thing is the same look: a page asks every few seconds. */
const lookMs = 600_000
/** So many looks are known again. */
const maxLooks = 1000

/** Writes entries to the store's audit table and, with `audit: true`, to the log. */
export class Audit {
  readonly #store: Pick<Store, 'audit' | 'audited'>
  readonly #clock: Clock
  readonly #logger: Logger
  readonly #refused = new Map<string, { entry: AuditEntry; count: number }>()
  readonly #looks = new Map<string, number>()
  #timer: NodeJS.Timeout | undefined
  #writing: Promise<void> = Promise.resolve()

  constructor(store: Pick<Store, 'audit' | 'audited'>, clock: Clock, logger: Logger) {
    this.#store = store
    this.#clock = clock
    this.#logger = logger
  }

  readonly record = (entry: AuditEntry): void => {
    const { what, details, ...rest } = entry
    this.#logger.info({ audit: true, ...rest, ...details }, what)
    const at = this.#clock.now()
    this.#writing = this.#writing
      .then(() => this.#store.audit(entry, at))
      .catch((error: unknown) =>
        this.#logger.error({ err: error, audit: true, what }, 'an audit entry could not be stored'),
      )
  }

  /** Counts refusals of one kind for a second, so that guessing keys does not fill the disk. */
  refused(why: string, from: string): void {
    const key = JSON.stringify([why, from])
    const known = this.#refused.get(key)
    if (known) known.count += 1
    else if (this.#refused.size < 1000) {
      this.#refused.set(key, { entry: { what: 'credential refused', by: 'unknown', details: { why, from } }, count: 1 })
    }
    this.#timer ??= setTimeout(() => this.#flushRefused(), refusedWindowMs).unref()
  }

  /** Writes down what an admin looks at; once in ten minutes for the same thing, so that a page may ask again and again. */
  looked(entry: Omit<AuditEntry, 'what'>): void {
    const key = JSON.stringify(entry)
    const now = this.#clock.now()
    const last = this.#looks.get(key)
    if (last !== undefined && now - last < lookMs) return
    if (this.#looks.size >= maxLooks) this.#looks.clear()
    this.#looks.set(key, now)
    this.record({ what: 'admin read', ...entry })
  }

  #flushRefused(): void {
    clearTimeout(this.#timer)
    this.#timer = undefined
    for (const { entry, count } of this.#refused.values()) {
      this.record({ ...entry, details: { ...entry.details, count } })
    }
    this.#refused.clear()
  }

  /** The newest entries, oldest first. */
  async page(options: AuditSearch): Promise<Page<AuditItem>> {
    await this.flush()
    return this.#store.audited(options)
  }

  /** Resolves when everything recorded is stored. */
  async flush(): Promise<void> {
    this.#flushRefused()
    await this.#writing
  }
}
