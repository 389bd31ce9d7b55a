import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it, vi } from 'vitest'
import { startAsgardSimulator } from '../../plugins/asgard/simulator.ts'
import { deploy, run } from '../support/program.ts'

// Programs are started here, on a machine that may be busy.
vi.setConfig({ testTimeout: 60_000 })

describe.concurrent('bothub check', () => {
  it('says what a config serves, tries the keys, deletes what it asked, and writes nothing', async () => {
    const platform = await startAsgardSimulator()
    const { url, namespace, botProviderName, apiKey } = platform
    const bot = (key: string) =>
      `asgard({ edgeServerHost: '${url}', namespace: '${namespace}', botProviderName: '${botProviderName}', apiKey: '${key}' })`
    using deployment = deploy(`
import { apiKey, asgard, defineConfig, rest, webhook, websocket } from 'bothub'
export default defineConfig({
  auth: [apiKey({ name: 'crm', key: 'the-key-of-the-crm-0001' })],
  bots: { right: ${bot(apiKey)}, wrong: ${bot('a-wrong-key-0001')}, play: asgard({ simulated: true }) },
  channels: { rest: rest({ path: '/hub' }), ws: websocket(), hook: webhook({ bot: 'play', as: 'crm' }) },
})`)
    const running = run(['check', '--config', deployment.config, '--live'])
    expect(await running.exited).toBe(1)
    const said = running.output()
    expect(said).toMatch(/^ {2}play +asgard\(\), simulated +history → retry$/m)
    expect(said).toMatch(/^Routes on 127\.0\.0\.1:9527, for callers with a key or token$/m)
    expect(said).toMatch(/^ {2}rest +POST +\/hub\/api\/v1\/bots\/:bot\/messages +json$/m)
    expect(said).toMatch(/^ {2}ws +WS +\/api\/v1\/ws$/m)
    expect(said).toMatch(/^ {2}right {2}answers after [\d.]+ s: "/m)
    expect(said).toMatch(/^ {2}wrong {2}fails after .*upstream_auth/m)
    expect(said).not.toMatch(/^ {2}play {2}answers/m)
    expect(said).not.toContain('-0001')
    expect(platform.requests.filter(({ method }) => method === 'DELETE')).not.toHaveLength(0)
    expect(existsSync(join(deployment.folder, 'data'))).toBe(false)
    await platform.close()
  })

  it('names every problem and ends with 78', async () => {
    using deployment = deploy(`
import { defineConfig, echo, rest } from 'bothub'
export default defineConfig({ listen: { prot: 1 }, bots: { one: echo({ pices: 3 }) }, channels: { rest: rest() } })`)
    const running = run(['check', '--config', deployment.config])
    expect(await running.exited).toBe(78)
    expect(running.output()).toMatch(/The config has 2 problems:[^]*prot[^]*bots\.one[^]*pices/)
  })

  it('finds what shows only when the channels are built', async () => {
    using deployment = deploy(`
import { defineConfig, echo, rest } from 'bothub'
export default defineConfig({ bots: { one: echo() }, channels: { rest: rest(), again: rest() } })`)
    const running = run(['check', '--config', deployment.config])
    expect(await running.exited).toBe(78)
    expect(running.output()).toMatch(/channels\.again[^]*already served by channels\.rest/)
  })
})
