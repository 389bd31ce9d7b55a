import type { Clock } from './clock.ts'
import type { Logger } from './log.ts'
import type { Store } from './store.ts'

const sweepEveryMs = 10 * 60_000
/** Turns a commit touches, so that a sweep never holds up live ones for long. */
const batch = 200

/** How long what is kept. */
export interface RetentionOptions {
  readonly store: Pick<Store, 'compact' | 'prune'>
  readonly clock: Clock
  readonly logger: Logger
  /** How long the events of a turn can be replayed after its end, in ms. */
  readonly eventsMs: number
  /** How long a message's id is known after its turn's end, in ms. */
  readonly messageIdsMs: number
}

/** Takes away, now and then, what is no longer promised: events of old turns, then the turns themselves. */
export class Retention {
  readonly #options: RetentionOptions
  readonly #timer: NodeJS.Timeout
  #sweeping: Promise<void>
  #stopped = false

  constructor(options: RetentionOptions) {
    this.#options = options
    this.#timer = setInterval(() => void (this.#sweeping = this.sweep()), sweepEveryMs).unref()
    this.#sweeping = this.sweep()
  }

  /** Looks once through everything. */
  async sweep(): Promise<void> {
    const { store, clock, logger, eventsMs, messageIdsMs } = this.#options
    try {
      const compacted = await this.#untilNone(() => store.compact(clock.now() - eventsMs, batch))
      const pruned = await this.#untilNone(() => store.prune(clock.now() - messageIdsMs, batch))
      if (compacted + pruned > 0) logger.info({ compacted, pruned }, 'old turns taken away')
    } catch (error) {
      logger.error({ err: error }, 'old turns could not be taken away')
    }
  }

  async #untilNone(step: () => Promise<number>): Promise<number> {
    let all = 0
    while (!this.#stopped) {
      const count = await step()
      all += count
      if (count < batch) break
      await new Promise((resolve) => setImmediate(resolve))
    }
    return all
  }

  async stop(): Promise<void> {
    this.#stopped = true
    clearInterval(this.#timer)
    await this.#sweeping
  }
}
