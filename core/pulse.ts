import { setImmediate, setTimeout } from 'node:timers'

/**
 * Does what comes in between together: at once after a rest, and then at most every so often. What many streams ask for
 * costs less in one go, where the code and what it works on are still at hand.
 */
export class Pulse {
  readonly #everyMs: () => number
  #work: (() => void)[] = []
  #last = Number.NEGATIVE_INFINITY

  /** `everyMs` says how long it is, at least, from one beat to the next. */
  constructor(everyMs: () => number) {
    this.#everyMs = everyMs
  }

  /** Does something at the next beat, behind all that was asked for before. */
  next(work: () => void): void {
    this.#work.push(work)
    if (this.#work.length > 1) return
    const waitMs = this.#last + this.#everyMs() - performance.now()
    if (waitMs >= 1) setTimeout(this.#beat, waitMs)
    else setImmediate(this.#beat)
  }

  readonly #beat = (): void => {
    const work = this.#work
    this.#work = []
    this.#last = performance.now()
    for (const each of work) each()
  }
}
