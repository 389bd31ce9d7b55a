import type { Clock } from '../../core/clock.ts'
import { systemClock } from '../../core/clock.ts'

/** A clock on which every pause is over in some milliseconds, and has taken the time it should have. */
export interface HastyClock extends Clock {
  /** The pauses so far, in ms. */
  readonly sleeps: readonly number[]
  /** Puts it forward. */
  pass(ms: number): void
}

export function hastyClock(): HastyClock {
  const sleeps: number[] = []
  let ahead = 0
  return {
    sleeps,
    pass: (ms) => void (ahead += ms),
    now: () => systemClock.now() + ahead,
    async sleep(ms, signal) {
      sleeps.push(ms)
      await systemClock.sleep(Math.min(ms, 5), signal)
      ahead += Math.max(0, ms - 5)
    },
  }
}
