import { setTimeout } from 'node:timers/promises'
import { describe, expect, it } from 'vitest'
import { busyness, Pulse } from '../../core/pulse.ts'

const beat = (pulse: Pulse) => new Promise<number>((resolve) => pulse.next(() => resolve(performance.now())))

describe('a pulse', () => {
  it('does together, in their order, what is asked for before it beats', async () => {
    const pulse = new Pulse(() => 0)
    const done: number[] = []
    for (const number of [1, 2, 3]) pulse.next(() => done.push(number))
    expect(done).toEqual([])
    await beat(pulse)
    expect(done).toEqual([1, 2, 3])
  })

  it('beats at once after a rest, and then no sooner than it may', async () => {
    const pulse = new Pulse(() => 30)
    const asked = performance.now()
    const first = await beat(pulse)
    const second = await beat(pulse)
    // A timer of Node may be up to a millisecond early.
    expect(second - first).toBeGreaterThan(28)
    expect(first - asked).toBeLessThan(second - first)
  })

  it('keeps what is asked for during a beat for the next one', async () => {
    const pulse = new Pulse(() => 0)
    const done: string[] = []
    const last = Promise.withResolvers<void>()
    pulse.next(() => {
      done.push('first')
      pulse.next(() => {
        done.push('third')
        last.resolve()
      })
    })
    pulse.next(() => done.push('second'))
    await last.promise
    expect(done).toEqual(['first', 'second', 'third'])
  })
})

describe('the time between beats', () => {
  /** Asks as beats do, each after the loop has worked and rested for so long. */
  async function askedOften(everyMs: () => number, workMs: number, restMs: number): Promise<number> {
    let last = 0
    for (let beats = 0; beats < 60; beats++) {
      const until = performance.now() + workMs
      while (performance.now() < until);
      await setTimeout(restMs)
      last = everyMs()
    }
    return last
  }

  it('is short while the process has time to spare', async () => {
    expect(await askedOften(busyness(3, 20), 0, 2)).toBe(3)
  })

  it('is longer the less of it there is, and never longer than it may be', async () => {
    const everyMs = busyness(3, 20)
    expect(await askedOften(everyMs, 20, 0)).toBeGreaterThan(10)
    expect(everyMs()).toBeLessThanOrEqual(20)
    expect(await askedOften(everyMs, 0, 2)).toBe(3)
  })
})
