import { describe, expect, it } from 'vitest'
import { Pulse } from '../../core/pulse.ts'

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
