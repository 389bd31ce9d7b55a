import { describe, expect, it, vi } from 'vitest'
import { startAsgardSimulator } from '../../plugins/asgard/simulator.ts'
import { startCozeSimulator } from '../../plugins/coze/simulator.ts'
import { launch } from '../support/program.ts'
import { live } from './live.ts'

// Ten checks are made one after the other, on a machine that may be busy.
vi.setConfig({ testTimeout: 60_000 })

const needed = {
  coze: ['COZE_API_TOKEN', 'COZE_BOT_ID', 'COZE_BASE_URL'],
  asgard: ['NAMESPACE', 'BOT_PROVIDER_NAME', 'BOT_PROVIDER_API_KEY', 'EDGE_SERVER_HOST'],
}

/** Tries a platform with nothing in the environment but what is given. */
async function tryIt(vendor: string, given: Readonly<Record<string, string>>) {
  for (const name of Object.values(needed).flat()) vi.stubEnv(name, given[name])
  vi.stubEnv('LIVE_LONG_QUESTION', '/slow')
  try {
    const told: string[] = []
    const code = await live(vendor, (text) => told.push(text))
    return { code, output: told.join('') }
  } finally {
    vi.unstubAllEnvs()
  }
}

describe('npm run live', () => {
  it('tries a Coze bot in ten ways, and shows no key', async () => {
    const simulator = await startCozeSimulator({ token: 'pat_live_test_token' })
    try {
      const env = { COZE_API_TOKEN: simulator.token, COZE_BOT_ID: simulator.botId, COZE_BASE_URL: simulator.url }
      const { code, output } = await tryIt('coze', env)
      expect(output).toContain('coze: 10 passed, 0 skipped, 0 failed, of 10\n')
      expect(code).toBe(0)
      expect(output).not.toContain(simulator.token)
    } finally {
      await simulator.close()
    }
  })

  it('tries an Asgard bot in the same ways', async () => {
    const simulator = await startAsgardSimulator()
    try {
      const { code, output } = await tryIt('asgard', {
        EDGE_SERVER_HOST: simulator.url,
        NAMESPACE: simulator.namespace,
        BOT_PROVIDER_NAME: simulator.botProviderName,
        BOT_PROVIDER_API_KEY: simulator.apiKey,
      })
      expect(output).toContain('asgard: 10 passed, 0 skipped, 0 failed, of 10\n')
      expect(code).toBe(0)
    } finally {
      await simulator.close()
    }
  })

  it('says what failed, with what the log knows of it, and shows no key', async () => {
    const simulator = await startCozeSimulator()
    try {
      const env = { COZE_API_TOKEN: 'pat_not_this_one', COZE_BOT_ID: '7', COZE_BASE_URL: simulator.url }
      const { code, output } = await tryIt('coze', env)
      expect(code).toBe(1)
      expect(output).toMatch(/answers a question +FAILED .*upstream_auth/)
      expect(output).toContain('access token invalid')
      expect(output).toMatch(/says whose fault a wrong key is +passed/)
      expect(output).not.toContain('pat_not_this_one')
    } finally {
      await simulator.close()
    }
  })

  it('names the variables it needs, and the platforms it knows', async () => {
    const asgard = await tryIt('asgard', {})
    expect(asgard.code).toBe(78)
    for (const name of needed.asgard) expect(asgard.output).toContain(name)
    const other = await tryIt('cose', {})
    expect(other.code).toBe(64)
    expect(other.output).toContain('npm run live -- asgard | coze')
  })

  it('exits with 78 when they are not set', async () => {
    const running = launch(process.execPath, ['test/live/run.ts', 'coze'], { PATH: process.env['PATH'] ?? '' })
    expect(await running.exited).toBe(78)
    for (const name of needed.coze) expect(running.output()).toContain(name)
  })
})
