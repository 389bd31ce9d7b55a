import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { inspect } from 'node:util'
import { afterEach, describe, expect, it, vi } from 'vitest'
import { z } from 'zod'
import { redact, Secret, secret } from '../../core/settings.ts'
import {
  jwt,
  checkConfig,
  defineConfig,
  defineProvider,
  echo,
  env,
  history,
  rest,
  secretFile,
  sqlite,
  sse,
  webhook,
  websocket,
  sseBot,
} from '../../index.ts'

const base = { bots: { support: echo() }, channels: { rest: rest() } }

const vendor = defineProvider({
  manifest: { name: 'vendor' },
  options: z.strictObject({
    apiKey: secret(),
    retries: z.int().default(1),
    deep: z.strictObject({ colour: z.string() }).optional(),
  }),
  create: () => ({ async *respond() {} }),
})

const problemsOf = (config: unknown): string[] => {
  try {
    checkConfig(config)
  } catch (error) {
    return (error as Error).message
      .split('\n')
      .slice(1)
      .map((line) => line.replace('  - ', ''))
  }
  return []
}

afterEach(() => vi.unstubAllEnvs())

describe('a config that is right', () => {
  it('gets the store, the middleware and the address by default', () => {
    const checked = checkConfig(defineConfig(base))
    expect(checked.listen).toEqual({ host: '127.0.0.1', port: 9527 })
    expect(checked.store.name).toBe('sqlite')
    expect(checked.store.options).toEqual({ file: 'data/hub.db', lockTimeoutMs: 5000 })
    expect(checked.use.map((each) => each.name)).toEqual(['history', 'retry'])
  })

  it('lets the command line beat the config', () => {
    const config = defineConfig({ ...base, listen: { port: 1 } })
    expect(checkConfig(config, { port: 2 }).listen.port).toBe(2)
  })

  it('takes a secret from the environment or a file and never prints it', () => {
    const folder = mkdtempSync(join(tmpdir(), 'bothub-'))
    writeFileSync(join(folder, 'key'), 'canary-in-a-file\n')
    vi.stubEnv('VENDOR_KEY', 'canary-in-the-environment')
    for (const [key, value] of [
      [env('VENDOR_KEY'), 'canary-in-the-environment'],
      [secretFile(join(folder, 'key')), 'canary-in-a-file'],
      [env('NOT_SET', 'canary-fallback'), 'canary-fallback'],
    ] as const) {
      const checked = checkConfig(defineConfig({ ...base, bots: { support: vendor({ apiKey: key }) } }))
      const { apiKey } = checked.bots.get('support')!.provider.options as { apiKey: Secret }
      expect(apiKey.reveal()).toBe(value)
      for (const print of [String(apiKey), JSON.stringify({ apiKey }), inspect(apiKey)]) {
        expect(print).not.toContain('canary')
      }
      expect(redact(`Bearer ${value}`)).toBe('Bearer [secret]')
    }
    rmSync(folder, { recursive: true })
  })
})

const ofFunction = z.strictObject({ run: z.custom<() => string>().default(() => () => 'x') })
const never = () => {
  throw new Error('it is not built')
}

describe('a config with problems', () => {
  it.each([
    [{ auth: 'secret' }, 'auth: must be a list such as `[apiKey({ … })]`, or a function `(request) => …`'],
    [{ auth: ['secret'] }, 'auth.0: must be `apiKey({ … })`, `jwt({ … })` or a function `(request) => …`'],
    [{ auth: [jwt] }, 'auth.0: must be `apiKey({ … })`, `jwt({ … })` or a function `(request) => …`'],
    [
      { use: [history] },
      'use.0: must be a middleware: a function `(turn, next) => …` or a factory call such as `history()`',
    ],
    [{ bots: { support: (sseBot as () => unknown)() } }, 'bots.support: sse-bot(): url: is missing'],
    [
      {
        channels: {
          crm: webhook({ bot: 'support', as: 'crm', secret: 'whsec_0123456789', callback: 'crm.test/hook' }),
        },
      },
      'channels.crm: webhook(): callback: must be a URL',
    ],
    [{ console: true }, 'console: must be `consolePage()` or `false`'],
    [{ keep: { events: 'long' } }, "keep.events: must be whole ms or, for example, '30s', '5m' or '7d'"],
    [{ onTurnEnd: [{ name: 'meter', run: 'it' }] }, 'onTurnEnd.0.run: must be a function'],
    [
      { bots: { support: { provider: echo(), onAbandon: 'stop' } } },
      "bots.support.onAbandon: must be 'continue' or, for example, { cancelAfter: '10s' }",
    ],
    [
      { bots: { support: { provider: echo(), onAbandon: { cancelAfter: -1 } } } },
      'bots.support.onAbandon.cancelAfter: must be at least 0',
    ],
    [
      { bots: { support: { provider: echo(), onAbandon: { cancelAftr: '10s' } } } },
      'bots.support.onAbandon: unknown option "cancelAftr"; did you mean "cancelAfter"?',
    ],
    [
      { bots: { support: vendor({ apiKey: 5 } as never) } },
      'bots.support: vendor(): apiKey: must be a string, `env(…)` or `secretFile(…)`',
    ],
  ])('says what could be there in place of what is', (change, problem) => {
    expect(problemsOf(defineConfig({ ...base, ...change } as never))).toContain(problem)
  })

  it('names every problem at once, where it is and what was probably meant', () => {
    const problems = problemsOf({
      store: sqlite({ fil: 'x' } as never),
      listen: { prot: 1 },
      bots: { support: vendor({ apiKey: env('NOT_SET'), retires: 3 } as never) },
      channels: { rest: rest() },
      chanels: {},
    })
    expect(problems).toEqual([
      'listen: unknown option "prot"; did you mean "port"?',
      'the config: unknown option "chanels"; did you mean "channels"?',
      'bots.support: vendor(): apiKey: the environment variable NOT_SET is not set. Set it, or write it into `.env` beside the config, and start the hub again.',
      'bots.support: vendor(): unknown option "retires"; did you mean "retries"?',
      'store: sqlite(): unknown option "fil"; did you mean "file"?',
    ])
  })

  it.each([
    ['sse-bot', sseBot({ url: 'https://bots.example.com', tokn: 'x' } as never), 'token'],
    [
      'made-up',
      defineProvider({ manifest: { name: 'made-up' }, options: ofFunction, create: never })({ x: 1 } as never),
      '',
    ],
  ])('names an option that %s does not have, although its schema has functions in it', (name, spec, meant) => {
    const [problem] = problemsOf(defineConfig({ ...base, bots: { a: spec } }))
    expect(problem).toContain(`bots.a: ${name}(): unknown option`)
    expect(problem).toContain(meant && `did you mean "${meant}"`)
  })

  it('looks into bots, channels and their names', () => {
    const problems = problemsOf({
      store: sqlite({ fil: 'x' } as never),
      bots: {
        support: vendor({ apiKey: env('NOT_SET'), retires: 3 } as never),
        sales: { provider: echo(), prifile: {} },
        deep: { provider: vendor({ apiKey: 'x', deep: { color: 'red' } } as never) },
        'bad name': echo(),
      },
      channels: { rest: rest({ bots: ['suport'] as never }), ws: websocket({ bot: 'sale' as never }) },
    })
    expect(problems).toEqual([
      'bots.support: vendor(): apiKey: the environment variable NOT_SET is not set. Set it, or write it into `.env` beside the config, and start the hub again.',
      'bots.support: vendor(): unknown option "retires"; did you mean "retries"?',
      'bots.sales: unknown option "prifile"; did you mean "profile"?',
      'bots.deep.provider: vendor(): deep.colour: is missing',
      'bots.deep.provider: vendor(): deep: unknown option "color"; did you mean "colour"?',
      expect.stringContaining("bots.bad name: a bot's name has letters"),
      'channels.rest: there is no bot called "suport"; did you mean "support"?',
      'channels.ws: there is no bot called "sale"; did you mean "sales"?',
      'store: sqlite(): unknown option "fil"; did you mean "file"?',
    ])
  })

  it.each([
    ['not an object', 'x'],
    ['no bots', { ...base, store: sqlite(), bots: {} }],
    ['no channels', { ...base, store: sqlite(), channels: {} }],
    ['a factory that was not called', { ...base, store: sqlite(), bots: { support: echo } }],
    ['a channel where a bot belongs', { ...base, store: sqlite(), bots: { support: rest() } }],
    ['a port out of range', { ...base, store: sqlite(), listen: { port: 70_000 } }],
    ['a path with a slash at its end', { ...base, store: sqlite(), channels: { rest: rest({ path: '/x/' }) } }],
    ['a middleware that is none', { ...base, store: sqlite(), use: ['retry'] }],
    ['an address beyond loopback', { ...base, store: sqlite(), listen: { host: '0.0.0.0' } }],
  ])('says what is wrong with %s', (_, config) => {
    const problems = problemsOf(config)
    expect(problems).toHaveLength(1)
    expect(problems[0]!.length).toBeGreaterThan(10)
  })

  it('refuses two channels on one path, but for rest and sse', async () => {
    const { startHub } = await import('../support/hub.ts')
    await using fine = await startHub({ bots: { support: echo() }, channels: { rest: rest(), sse: sse() } })
    expect((await fine.ask('support', 'hi')).text).toBe('hi')
    await expect(startHub({ bots: { support: echo() }, channels: { a: rest(), b: rest() } })).rejects.toMatchObject({
      code: 'config_invalid',
      message: expect.stringContaining(
        'channels.b: POST /api/v1/bots/{}/messages json is already served by channels.a',
      ),
    })
    await using apart = await startHub({ bots: { support: echo() }, channels: { a: rest(), b: rest({ path: '/b' }) } })
    const response = await fetch(`${apart.url}/b/api/v1/bots`)
    expect(await response.json()).toMatchObject({ bots: [{ bot: 'support' }] })
  })
})
