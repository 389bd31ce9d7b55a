import { describe, expect, it, vi } from 'vitest'
import type { TurnObject } from '../../index.ts'
import { jsonOf } from '../support/hub.ts'
import { deploy, run, startProgram } from '../support/program.ts'

// Programs are started here, on a machine that may be busy.
vi.setConfig({ testTimeout: 60_000, hookTimeout: 60_000 })

describe('bothub simulate', () => {
  it('runs an upstream for a hub in another process, reached by the line it prints', async () => {
    const upstreams = ['asgard', 'coze', 'openai'].map((vendor) => run(['simulate', vendor, '--port', '0']))
    const hints = await Promise.all(
      upstreams.map(async (each) => (await each.printed(/listens on http:\/\/127\.0\.0\.1:\d+\n {2}(.+)\n/))[1]!),
    )
    using deployment = deploy(`
import { asgard, coze, defineConfig, openai, rest } from 'bothub'
const bots = { one: ${hints[0]}, two: ${hints[1]}, three: ${hints[2]} }
export default defineConfig({ bots, channels: { rest: rest() } })
`)
    await using program = await startProgram(deployment)
    for (const bot of ['one', 'two', 'three']) {
      const answer = await program.api(`/bots/${bot}/messages`, { text: 'my name is Ada' })
      const turn = await jsonOf<TurnObject>(answer)
      expect([bot, turn.status, turn.text]).toEqual([bot, 'completed', expect.stringContaining('Ada')])
    }
    for (const each of upstreams) {
      each.signal('SIGTERM')
      expect(await each.exited).toBe(0)
    }
  })

  it('knows which upstreams there are', async () => {
    const running = run(['simulate', 'cose'])
    expect(await running.exited).toBe(78)
    expect(running.output()).toMatch(/"cose"[^]*asgard, coze, openai/)
  })
})
