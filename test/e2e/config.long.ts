import { execFileSync } from 'node:child_process'
import { existsSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { describe, expect, it, vi } from 'vitest'
import type { Run, RunOptions } from '../support/program.ts'
import { deploy, launch, run, startProgram } from '../support/program.ts'

// Programs are started here, on a machine that may be busy.
vi.setConfig({ testTimeout: 60_000, hookTimeout: 60_000 })

const canary = 'canary-0123456789abcdef'

const withConfig = (body: string): string => `
import { apiKey, asgard, consent, coze, defineConfig, echo, env, rest, sqlite, sse, websocket } from 'bothub'
export default defineConfig(${body})
`

/** Runs `bothub start` to its end. It prints its reason, and neither a stack nor a secret. */
async function fails(config: string, args: readonly string[] = [], options: RunOptions = {}) {
  using deployment = deploy(config)
  return await ended(run(['start', '--port', '0', '--config', deployment.config, ...args], options))
}

async function ended(running: Run) {
  const code = await running.exited
  const output = running.output()
  expect(output).not.toMatch(/^\s+at /m)
  expect(output).not.toContain(canary)
  expect(output).not.toContain('listens on')
  return { code, output }
}

interface Problem {
  readonly what: string
  readonly config: string
  /** What is said about it. */
  readonly said: readonly RegExp[]
  readonly args?: readonly string[]
}

const problems: readonly Problem[] = [
  {
    what: 'a secret that is not set',
    config: `{
      auth: [apiKey({ name: 'crm', key: env('CRM_KEY') })],
      bots: { support: asgard({ namespace: 'n', botProviderName: 'b' }) }, channels: { rest: rest() },
    }`,
    said: [/auth\[0\].*CRM_KEY/, /bots\.support.*BOT_PROVIDER_API_KEY/],
  },
  {
    what: 'a misspelt option of a plugin',
    config: `{ bots: { echo: echo() }, channels: { rest: rest({ orgins: ['*'] }) } }`,
    said: [/channels\.rest/, /orgins/, /did you mean "origins"\?/],
  },
  {
    what: 'a bot that a channel names and nobody knows',
    config: `{ bots: { support: echo() }, channels: { ws: websocket({ bot: 'suport' }), rest: rest({ bots: ['sales'] }) } }`,
    said: [/channels\.ws/, /did you mean "support"\?/, /channels\.rest.*"sales"/],
  },
  {
    what: 'two channels at one place',
    config: `{ bots: { echo: echo() }, channels: { one: rest(), two: rest() } }`,
    said: [/channels\.two/, /channels\.one/, /path/],
  },
  {
    what: 'a host beyond loopback on the command line',
    config: `{ bots: { echo: echo() }, channels: { rest: rest() } }`,
    said: [/"0\.0\.0\.0"/, /auth/],
    args: ['--host', '0.0.0.0'],
  },
]

describe.concurrent('a config with a problem ends the program with 78 and a sentence', () => {
  it.each(problems)('$what', async ({ config, said, args }) => {
    const { code, output } = await fails(withConfig(config), args)
    expect(code, output).toBe(78)
    for (const part of said) expect(output).toMatch(part)
  })

  it('every problem at once', async () => {
    const { code, output } = await fails(
      withConfig(`{
        listen: { prot: 1 },
        bots: {
          one: echo({ pices: 3 }),
          two: asgard({ namespace: 'n', botProviderName: 'b' }),
          four: coze({ botId: '7', token: '${canary}', parametres: {} }),
        },
        channels: { ws: websocket({ bot: 'three' }), rest: rest({ pth: '/x' }) },
      }`),
    )
    expect(code, output).toBe(78)
    expect(output).toMatch(/The config has \d problems:/)
    for (const part of [
      /prot/,
      /bots\.one/,
      /bots\.two/,
      /did you mean "parameters"/,
      /channels\.ws/,
      /channels\.rest/,
    ])
      expect(output).toMatch(part)
  })

  it('a config that is no module', async () => {
    const { code, output } = await fails("import { rest } from 'bothub'\nexport default {{ nonsense\n")
    expect(code, output).toBe(78)
    expect(output).toMatch(/hub\.config\.ts cannot be loaded: ./)
  })

  it('a config that throws while it loads', async () => {
    const { code, output } = await fails("throw new Error('the config is not ready')\n")
    expect(code, output).toBe(78)
    expect(output).toContain('the config is not ready')
  })

  it('a config that exports nothing', async () => {
    const { code, output } = await fails('export const config = {}\n')
    expect(code, output).toBe(78)
    expect(output).toContain('export default')
  })

  it('a config file that is not there', async () => {
    const { code, output } = await ended(run(['start', '--config', '/nowhere/hub.config.ts']))
    expect(code, output).toBe(78)
    expect(output).toContain('/nowhere/hub.config.ts')
  })

  it('a port that is none', async () => {
    const running = run(['start', '--port', '65536'])
    expect(await running.exited).not.toBe(0)
    expect(running.output()).toContain('a port is a number from 0 to 65535')
    expect(running.output()).not.toMatch(/^\s+at /m)
  })

  it('a HUB_PORT that is none', async () => {
    using deployment = deploy()
    const { code, output } = await ended(run(['start', '--config', deployment.config], { env: { HUB_PORT: 'x' } }))
    expect(code, output).toBe(78)
    expect(output).toContain('HUB_PORT')
  })

  it('a port that is taken', async () => {
    const other = createServer()
    other.listen(0, '127.0.0.1')
    await once(other, 'listening')
    const { port } = other.address() as AddressInfo
    using deployment = deploy()
    const { code, output } = await ended(run(['start', '--port', String(port), '--config', deployment.config]))
    other.close()
    expect(code, output).toBe(78)
    expect(output).toContain(`Port ${port} on 127.0.0.1 is taken.`)
    expect(output).toMatch(/choose a port: npx bothub start --port \d+\n/)
  })

  it('a command that is none', async () => {
    const { code, output } = await ended(run(['strat']))
    expect([code, output]).toEqual([1, 'There is no command "strat"; did you mean "start"?\n'])
  })
})

describe.concurrent('the program', () => {
  it('does not start as a second hub on the same store, and the first goes on', async () => {
    const config = withConfig(
      `{ store: sqlite({ lockTimeoutMs: 100 }), bots: { echo: echo() }, channels: { rest: rest() } }`,
    )
    using deployment = deploy(config)
    await using first = await startProgram(deployment)
    const { code, output } = await ended(run(['start', '--port', '0', '--config', deployment.config]))
    expect([1, 78]).toContain(code)
    expect(output).toMatch(/Another hub has .*hub\.db open\. Stop it/)
    const answer = await first.api('/bots/echo/messages', { text: 'still here' })
    expect(await answer.json()).toMatchObject({ status: 'completed', text: 'still here' })
  })

  it('does not start on a store that is no database, and leaves the file as it was', async () => {
    using deployment = deploy(
      withConfig(`{ store: sqlite({ file: 'hub.db' }), bots: { echo: echo() }, channels: { rest: rest() } }`),
    )
    const text = 'This is somebody’s letter and no database. '.repeat(100)
    const file = join(deployment.folder, 'hub.db')
    writeFileSync(file, text)
    const { code, output } = await ended(run(['start', '--port', '0', '--config', deployment.config]))
    expect([1, 78]).toContain(code)
    expect(output).toContain('hub.db')
    expect(execFileSync('cat', [file], { encoding: 'utf8' })).toBe(text)
  })

  it('takes the port of a flag before HUB_PORT, and that before the config', async () => {
    const config = withConfig(`{ listen: { port: 1 }, bots: { echo: echo() }, channels: { rest: rest() } }`)
    using deployment = deploy(config)
    // Ports 1 and 2 may not be listened on by all; 0 is a free one.
    const running = run(['start', '--port', '0', '--config', deployment.config], { env: { HUB_PORT: '2' } })
    const [, port] = await running.printed(/listens on http:\/\/127\.0\.0\.1:(\d+) /)
    running.signal('SIGTERM')
    expect(await running.exited).toBe(0)
    expect(Number(port)).toBeGreaterThan(2)
  })

  it('prints a line per channel with its address, and no secret', async () => {
    const config = withConfig(`{
      auth: [apiKey({ name: 'crm', key: env('CRM_KEY') })],
      bots: { echo: echo() }, channels: { rest: rest(), events: sse(), socket: websocket() },
    }`)
    using deployment = deploy(config)
    await using program = await startProgram(deployment, { env: { CRM_KEY: canary } })
    const { host } = new URL(program.url)
    expect(program.output()).toMatch(new RegExp(`^ {2}rest +POST http://${host}/api/v1/bots/`, 'm'))
    expect(program.output()).toMatch(new RegExp(`^ {2}events +POST http://${host}/api/v1/bots/`, 'm'))
    expect(program.output()).toMatch(new RegExp(`^ {2}socket +ws://${host}/api/v1/ws$`, 'm'))
    expect((await program.api('/bots')).status).toBe(401)
    expect((await program.api('/bots', undefined, { 'x-api-key': `${canary}!` })).status).toBe(401)
    expect((await program.api('/bots', undefined, { 'x-api-key': canary })).status).toBe(200)
    await program.stop()
    expect(program.output()).not.toContain(canary)
  })
})

const oldNode = '/usr/bin/node'
const majorOf = (node: string): number =>
  existsSync(node)
    ? Number(execFileSync(node, ['-p', 'process.versions.node.split(".")[0]'], { encoding: 'utf8' }))
    : Infinity

describe.skipIf(majorOf(oldNode) >= 24)('an old Node (skipped where the system has none)', () => {
  it('is told what to do, before anything is loaded that it could not run', async () => {
    const { code, output } = await ended(run(['start'], { node: oldNode }))
    expect(code).toBe(78)
    expect(output).toMatch(/^bothub needs Node\.js 24 or newer, and this is v\d+/)
    expect(output).toContain('npm install && npm start')
  })
})

describe('npm start', () => {
  it('passes its arguments and signals on to the hub', async () => {
    using deployment = deploy()
    const npm = launch('npm', ['start', '--', '--port', '0', '--config', deployment.config], {
      PATH: process.env['PATH'] ?? '',
      HOME: deployment.folder,
    })
    const [, url] = await npm.printed(/listens on (http:\S+)/)
    expect((await fetch(`${url}/readyz`)).status).toBe(200)
    npm.signal('SIGTERM')
    await npm.exited
    expect(npm.output()).toContain('Stopping:')
    await expect(fetch(`${url}/readyz`)).rejects.toThrow('fetch failed')
  })
})
