import type { Clock } from './clock.ts'
import { faultPoint } from './fault-points.ts'
import type { Logger } from './log.ts'
import type { Delivery, DeliveryState, Lane, Store } from './store.ts'

/** Pauses after the first try, in ms: 5 s, 5 min, 30 min, 2, 5, 10, 14, 20 and 24 h, as Standard Webhooks advises. */
export const deliverySchedule: readonly number[] = [
  5000,
  ...[5, 30].map((minutes) => minutes * 60_000),
  ...[2, 5, 10, 14, 20, 24].map((hours) => hours * 3_600_000),
]
/** Deliveries under way at once in one lane: a dead one slows nobody else. */
const laneWidth = 4
const maxTimerMs = 60_000
/** Of what is kept of a failure, in characters. */
const maxReasonLength = 300

/** Brings one thing to whom it is owed, or throws to be called again later. */
export type Deliverer = (delivery: Delivery, signal: AbortSignal) => Promise<void>

/** What an outbox carries from and to. */
export interface OutboxOptions {
  readonly store: Pick<Store, 'dueDeliveries' | 'settleDelivery'>
  readonly clock: Clock
  readonly logger: Logger
  /** Called for what became of each try. */
  readonly onTried?: (lane: Lane, outcome: DeliveryState['state']) => void
  /** `undefined` for a lane that the config has no more: its deliveries stay until it is back. */
  deliverer(lane: Lane): Deliverer | undefined
}

/**
 * A receiver that wants no more; thrown by a deliverer, it ends the delivery without another try, and closes its lane:
 * nothing more is sent there until an operator has it tried again.
 */
export class DeliveryRefused extends Error {
  override readonly name = 'DeliveryRefused'
}

/** Somebody who is not to be reached any more; thrown by a deliverer, it ends this delivery without another try. */
export class DeliveryImpossible extends Error {
  override readonly name = 'DeliveryImpossible'
}

/** A receiver that says when to come again; thrown by a deliverer, the next try is not before that. */
export class DeliveryPostponed extends Error {
  override readonly name = 'DeliveryPostponed'
  readonly retryAfterMs: number

  constructor(message: string, retryAfterMs: number) {
    super(message)
    this.retryAfterMs = Math.min(retryAfterMs, maxPauseMs)
  }
}

/** What a receiver may say to be left alone for, at most, so that a wrong header loses nothing. */
const maxPauseMs = 24 * 3_600_000

/** Carries what is owed out of the store, at least once each, however often the hub is restarted. */
export class Outbox {
  readonly #options: OutboxOptions
  readonly #underWay = new Map<string, { readonly lane: Lane; readonly done: Promise<void> }>()
  readonly #stopping = new AbortController()
  #timer: NodeJS.Timeout | undefined
  #looking = false
  #lookAgain = false

  constructor(options: OutboxOptions) {
    this.#options = options
  }

  /** Looks for what is due now; called whenever something may have become so. */
  wake(): void {
    if (this.#stopping.signal.aborted) return
    this.#lookAgain = true
    if (this.#looking) return
    this.#looking = true
    void this.#look()
  }

  async #look(): Promise<void> {
    const { store, clock, logger } = this.#options
    while (this.#lookAgain && !this.#stopping.signal.aborted) {
      this.#lookAgain = false
      try {
        const { due, nextAt } = await store.dueDeliveries(clock.now(), [...this.#underWay.keys()])
        for (const delivery of due) this.#begin(delivery)
        this.#wakeAt(nextAt)
      } catch (error) {
        logger.error({ err: error }, 'the outbox could not be read')
        this.#wakeAt(clock.now() + 1000)
      }
    }
    // In the same step as the last look at `#lookAgain`, so that no call to wake falls between the two.
    this.#looking = false
  }

  #wakeAt(at: number | undefined): void {
    clearTimeout(this.#timer)
    if (at === undefined) return
    // Clocks jump: nothing is slept for longer than a minute.
    const ms = Math.min(Math.max(0, at - this.#options.clock.now()), maxTimerMs)
    this.#timer = setTimeout(() => this.wake(), ms).unref()
  }

  #begin(delivery: Delivery): void {
    const deliver = this.#options.deliverer(delivery.lane)
    const busy = [...this.#underWay.values()].filter(({ lane }) => lane === delivery.lane).length
    if (!deliver || busy >= laneWidth || this.#underWay.has(delivery.id)) return
    const done = this.#attempt(delivery, deliver).finally(() => {
      this.#underWay.delete(delivery.id)
      this.wake()
    })
    this.#underWay.set(delivery.id, { lane: delivery.lane, done })
  }

  async #attempt(delivery: Delivery, deliver: Deliverer): Promise<void> {
    const { clock, logger } = this.#options
    const where = { delivery: delivery.id, lane: delivery.lane, type: delivery.type }
    try {
      await deliver(delivery, this.#stopping.signal)
      faultPoint('delivery.before-mark')
      await this.#settle(delivery, { state: 'delivered' })
    } catch (error) {
      if (this.#stopping.signal.aborted) return
      const state = whatNow(delivery, error, clock.now())
      if (state.state === 'pending') {
        const retryAt = new Date(state.retryAt).toISOString()
        logger.warn({ ...where, attempt: delivery.attempts + 1, retryAt, err: error }, 'a delivery failed')
      } else logger.error({ ...where, err: error }, 'a delivery was given up')
      await this.#settle(delivery, state).catch(() => {})
    }
  }

  async #settle({ id, lane }: Delivery, state: DeliveryState): Promise<void> {
    await this.#options.store.settleDelivery(id, state)
    this.#options.onTried?.(lane, state.state)
  }

  /** Starts no more deliveries and waits for those under way, at most `graceMs`; the rest stays for the next start. */
  async stop(graceMs: number): Promise<void> {
    const timer = setTimeout(() => this.#stopping.abort(), graceMs)
    clearTimeout(this.#timer)
    this.#looking = true
    await Promise.all(Array.from(this.#underWay.values(), ({ done }) => done))
    clearTimeout(timer)
    this.#stopping.abort()
  }
}

function whatNow({ attempts }: Delivery, cause: unknown, now: number): DeliveryState {
  const error = reasonOf(cause)
  if (cause instanceof DeliveryRefused) return { state: 'refused', error }
  if (cause instanceof DeliveryImpossible) return { state: 'failed', error }
  const planned = deliverySchedule[attempts]
  if (planned === undefined) return { state: 'failed', error }
  const pause = cause instanceof DeliveryPostponed ? Math.max(planned, cause.retryAfterMs) : planned
  // Jitter on top, so that what failed together does not come back together.
  return { state: 'pending', error, retryAt: now + Math.round(pause * (1 + Math.random() * 0.1)) }
}

/** What operators are told of a failure: its own words, and those of what is behind it. */
function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error).slice(0, maxReasonLength)
  const behind = error.cause instanceof Error ? `: ${error.cause.message}` : ''
  return `${error.message}${behind}`.slice(0, maxReasonLength)
}
