import { afterEach, describe, expect, it, vi } from 'vitest'
import { localPrincipal } from '../../core/auth.ts'
import { systemClock } from '../../core/clock.ts'
import { local } from '../../index.ts'
import type { TestHub } from '../support/hub.ts'
import { startHub } from '../support/hub.ts'

afterEach(() => vi.useRealTimers())

/** Says something every 50 s, as often as it is told. */
const slow = local(async function* ({ message, signal }) {
  for (let count = Number(message.text); count > 0; count--) {
    await systemClock.sleep(50_000, signal)
    yield 'still here '
  }
})

/** Sends a message and lets time pass, ten seconds at a step, until its turn has ended. */
async function passing({ hub }: TestHub, text: string) {
  const { turn } = await hub.dispatcher.send(localPrincipal(), { bot: 'slow', text, channel: 'test', detached: true })
  for (;;) {
    const seen = await hub.dispatcher.view(turn.id)
    if (seen.status !== 'running') return seen
    await vi.advanceTimersByTimeAsync(10_000)
    await new Promise((resolve) => setImmediate(resolve))
  }
}

describe('a turn that makes progress', () => {
  it('is cut by nothing shorter than its deadline: twelve minutes are fine', async () => {
    await using hub = await startHub({ bots: { slow } })
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'Date'] })
    const turn = await passing(hub, '15')
    vi.useRealTimers()
    expect(turn).toMatchObject({ status: 'completed' })
    expect(turn.text.split('still').length).toBe(16)
  })

  it('ends at its deadline of 30 minutes, with what it said kept', async () => {
    await using hub = await startHub({ bots: { slow } })
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'Date'] })
    const turn = await passing(hub, '100')
    vi.useRealTimers()
    expect(turn).toMatchObject({ status: 'failed', error: { code: 'deadline_exceeded' } })
    expect(turn.text).toContain('still here')
  })
})
