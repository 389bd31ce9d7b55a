import type { Clock } from './clock.ts'
import type { Logger } from './log.ts'
import type { AuditEntry, AuditItem, Page, PageOptions, Store } from './store.ts'

const refusedWindowMs = 1000

/** Writes entries to the store's audit table and, with `audit: true`, to the log. */
export class Audit {
  readonly #store: Pick<Store, 'audit' | 'audited'>
  readonly #clock: Clock
  readonly #logger: Logger
  readonly #refused = new Map<string, { entry: AuditEntry; count: number }>()
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

  #flushRefused(): void {
    clearTimeout(this.#timer)
    this.#timer = undefined
    for (const { entry, count } of this.#refused.values()) {
      this.record({ ...entry, details: { ...entry.details, count } })
    }
    this.#refused.clear()
  }

  /** The newest entries, oldest first. */
  async page(options: PageOptions): Promise<Page<AuditItem>> {
    await this.flush()
    return this.#store.audited(options)
  }

  /** Resolves when everything recorded is stored. */
  async flush(): Promise<void> {
    this.#flushRefused()
    await this.#writing
  }
}
