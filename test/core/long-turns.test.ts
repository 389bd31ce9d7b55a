import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, describe, expect, it, vi } from 'vitest'
import { localPrincipal } from '../../core/auth.ts'
import { systemClock } from '../../core/clock.ts'
import { defineProvider, local } from '../../index.ts'
import { z } from 'zod'
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

/** The same, of a bot that can go on after a restart. */
const resuming = defineProvider({
  manifest: { name: 'resuming', resumes: true },
  options: z.strictObject({}),
  create: () => ({
    async *respond({ signal }) {
      yield { type: 'upstream', cursor: 'there' }
      for (;;) {
        await systemClock.sleep(50_000, signal)
        yield { type: 'message.delta', message: 'm', text: 'still here ' }
      }
    },
  }),
})()

const send = async ({ hub }: TestHub, text: string) =>
  (await hub.dispatcher.send(localPrincipal(), { bot: 'slow', text, channel: 'test', detached: true })).turn.id

/**
 * Lets time pass until a turn does not run any more, or for so long. It passes in steps, and goes on while the disk is
 * waited for: with small ones it is seen more exactly when a turn ended.
 */
async function passing({ hub }: TestHub, turn: string, forMs = Infinity, stepMs = 10_000) {
  const from = Date.now()
  for (;;) {
    const seen = await hub.dispatcher.view(turn)
    if (seen.status !== 'running' || Date.now() - from >= forMs) return seen
    await vi.advanceTimersByTimeAsync(stepMs)
    await new Promise((resolve) => setImmediate(resolve))
  }
}

describe('a turn that makes progress', () => {
  it('is cut by nothing shorter than its deadline: twelve minutes are fine', async () => {
    await using hub = await startHub({ bots: { slow } })
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'Date'] })
    const turn = await passing(hub, await send(hub, '15'))
    vi.useRealTimers()
    expect(turn).toMatchObject({ status: 'completed' })
    expect(turn.text.split('still').length).toBe(16)
  })

  it('ends at its deadline of 30 minutes, with what it said kept', async () => {
    await using hub = await startHub({ bots: { slow } })
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'Date'] })
    const turn = await passing(hub, await send(hub, '100'))
    vi.useRealTimers()
    expect(turn).toMatchObject({ status: 'failed', error: { code: 'deadline_exceeded' } })
    expect(turn.text).toContain('still here')
  })

  it('has one deadline for all the processes it runs in', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'bothub-'))
    const config = { bots: { slow: resuming } }
    const first = await startHub(config, { folder })
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'Date'] })
    const from = Date.now()
    const id = await send(first, 'x')
    expect(await passing(first, id, 1_200_000)).toMatchObject({ status: 'running' })
    const now = Date.now()
    vi.useRealTimers()
    await first[Symbol.asyncDispose]()
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'Date'], now })
    await using second = await startHub(config, { folder })
    const turn = await passing(second, id, Infinity, 500)
    const tookMs = Date.now() - from
    vi.useRealTimers()
    expect(turn).toMatchObject({ status: 'failed', error: { code: 'deadline_exceeded' } })
    expect(tookMs).toBeGreaterThanOrEqual(1_800_000)
    expect(tookMs).toBeLessThan(1_830_000)
    rmSync(folder, { recursive: true, force: true })
  })
})
