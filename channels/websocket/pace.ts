import type { Clock } from '../../core/clock.ts'

/** Lets things through at a rate, with bursts of up to a second's worth; what is too early waits. */
export class Pace {
  readonly #intervalMs: number
  readonly #burstMs: number
  readonly #clock: Clock
  /** When the next one would be due if all had come evenly, ms since the epoch. */
  #due = 0

  constructor(perSecond: number, clock: Clock) {
    this.#intervalMs = 1000 / perSecond
    this.#burstMs = Math.max(1000, this.#intervalMs)
    this.#clock = clock
  }

  /** Resolves when the next one may pass; false when the signal aborted before that. */
  async next(signal: AbortSignal): Promise<boolean> {
    const now = this.#clock.now()
    // Never later than now: a clock that was set back must not hold anything up.
    this.#due = Math.min(Math.max(this.#due, now - this.#burstMs), now) + this.#intervalMs
    const waitMs = this.#due - now
    if (waitMs <= 0) return true
    return this.#clock.sleep(waitMs, signal).then(
      () => true,
      () => false,
    )
  }
}
