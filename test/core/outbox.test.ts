import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import Database from 'better-sqlite3'
import { describe, expect, it } from 'vitest'
import type { EndedTurn, HubConfig, TurnHook } from '../../index.ts'
import { apiKey, checkConfig, defineConfig, echo, local, rest, webhook } from '../../index.ts'
import type { OutboxReach } from '../../core/outbox-reach.ts'
import { reachOutbox } from '../../core/outbox-reach.ts'
import { jsonOf, startHub } from '../support/hub.ts'
import type { TestHub } from '../support/hub.ts'

interface Outbox {
  readonly items: readonly {
    readonly id: string
    readonly lane: string
    readonly state: string
    readonly turn: string
  }[]
  readonly closed: readonly string[]
}

const outboxOf = async (hub: TestHub): Promise<Outbox> => jsonOf(await hub.api('/outbox'))

/** Answers every POST with the status that is due. */
async function receiver(statusOf: (count: number) => number) {
  const ids: unknown[] = []
  const server = createServer((request, response) => {
    ids.push(request.headers['webhook-id'])
    request.resume().on('end', () => response.writeHead(statusOf(ids.length), { 'retry-after': '90' }).end())
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/`,
    ids,
    async [Symbol.asyncDispose]() {
      server.close()
      server.closeAllConnections()
    },
  }
}

const calling = (urls: Readonly<Record<string, string>>): HubConfig['channels'] => ({
  rest: rest(),
  ...Object.fromEntries(
    Object.entries(urls).map(([name, callback]) => [
      name,
      webhook({ bot: 'bot', secret: `whsec_${btoa(`secret of ${name}`)}`, callback, allowPrivate: true }),
    ]),
  ),
})

/** Has a channel owe the end of a turn, without the signatures that are tried elsewhere. */
async function owe(hub: TestHub, channel: string, text = 'hello'): Promise<string> {
  const { turn } = await hub.hub.dispatcher.send(
    { key: 'local', trusted: true, admin: true, bypassConsent: true },
    { bot: 'bot', text, channel, owed: true },
  )
  return turn.id
}

describe('onTurnEnd', () => {
  /** Hooks that keep what they are told, with whatever they do beside it. */
  const told = (act: (turn: EndedTurn, count: number) => unknown = () => {}) => {
    const turns: EndedTurn[] = []
    const hook: TurnHook = {
      name: 'meter',
      async run(turn) {
        turns.push(turn)
        await act(turn, turns.length)
      },
    }
    return { turns, hook }
  }

  it('is run for every turn that ends, however it does, and for none that waits', async () => {
    const { turns, hook } = told()
    const bot = local(async function* ({ message }) {
      if (message.text === 'fail') throw new Error('no')
      if (message.text !== 'ask') yield { type: 'usage', inputTokens: 1, outputTokens: 2, totalTokens: 3 } as const
      if (message.text !== 'ask') return yield 'words'
      yield { type: 'consent.requested', calls: [{ call: 'c', tool: 't', input: {}, alreadyAllowed: false }] } as const
    })
    await using hub = await startHub({ bots: { bot }, onTurnEnd: [hook] })
    const good = await hub.ask('bot', 'hello', { user: 'ada', conversation: 'c' })
    const bad = await hub.ask('bot', 'fail')
    const asked = await hub.ask('bot', 'ask')
    await expect.poll(() => turns.length).toBe(2)
    await hub.api(`/turns/${asked.turn}/cancel`, {})
    await expect.poll(() => turns.length).toBe(3)
    expect(turns[0]).toEqual({
      turn: good.turn,
      status: 'completed',
      bot: 'bot',
      key: 'local',
      user: 'ada',
      channel: 'rest',
      conversation: { id: expect.stringMatching(/^conv_/), name: 'c' },
      message: good.message,
      text: 'words',
      usage: { inputTokens: 1, outputTokens: 2, totalTokens: 3 },
      createdAt: expect.any(Number),
      endedAt: expect.any(Number),
    })
    expect(turns.slice(1)).toMatchObject([
      { turn: bad.turn, status: 'failed', error: { code: 'bot_failed' } },
      { turn: asked.turn, status: 'cancelled' },
    ])
    await expect.poll(async () => (await outboxOf(hub)).items).toEqual([])
  })

  it('is tried again after a failure, by the same turn, and never in the way of the answer', async () => {
    const { turns, hook } = told((_, count) => {
      if (count === 1) throw new Error('the meter is broken')
    })
    const never: TurnHook = { name: 'never', timeout: 30, run: () => new Promise(() => {}) }
    await using hub = await startHub({ bots: { bot: echo() }, onTurnEnd: [hook, never] })
    const { turn, status } = await hub.ask('bot', 'hello')
    expect(status).toBe('completed')
    await expect
      .poll(() => hub.log.filter((line) => line['msg'] === 'a delivery failed').map((line) => line['lane']))
      .toEqual(['hook:meter', 'hook:never'])
    const { items } = await outboxOf(hub)
    expect(items).toMatchObject(['meter', 'never'].map((name) => ({ lane: `hook:${name}`, state: 'pending', turn })))
    expect(await (await fetch(`${hub.url}/metrics`)).text()).toContain(
      'bothub_deliveries_total{lane="hook:meter",outcome="pending"} 1',
    )
    expect(await (await hub.api('/outbox/retry', { lane: 'hook:meter' })).json()).toEqual({ retried: 1 })
    await expect.poll(() => turns.length).toBe(2)
    expect(turns[0]).toEqual(turns[1])
    await expect.poll(async () => (await outboxOf(hub)).items.map(({ lane }) => lane)).toEqual(['hook:never'])
  })

  it('counts a turn once in a table with the turn as its key, though it was told twice', async () => {
    const costs = new Database(':memory:')
    costs.exec('CREATE TABLE costs (turn TEXT PRIMARY KEY, tokens INTEGER)')
    const { turns, hook } = told(({ turn }, count) => {
      costs.prepare('INSERT INTO costs VALUES (?, 3) ON CONFLICT DO NOTHING').run(turn)
      // What is written but not acknowledged is the case that at least once is about.
      if (count === 1) throw new Error('cut off behind the commit')
    })
    await using hub = await startHub({ bots: { bot: echo() }, onTurnEnd: [hook] })
    await hub.ask('bot', 'hello')
    await expect.poll(() => hub.log.some((line) => line['msg'] === 'a delivery failed')).toBe(true)
    await hub.api('/outbox/retry', {})
    await expect.poll(() => turns.length).toBe(2)
    expect(costs.prepare('SELECT COUNT(*) AS rows, SUM(tokens) AS tokens FROM costs').get()).toEqual({
      rows: 1,
      tokens: 3,
    })
    costs.close()
  })

  it('is run after a restart for what ended before it, and without its words where they were deleted', async () => {
    const failing = told(() => {
      throw new Error('not yet')
    })
    await using first = await startHub({ bots: { bot: echo() }, onTurnEnd: [failing.hook] })
    const { turn } = await first.ask('bot', 'hello', { conversation: 'c' })
    await expect.poll(() => first.log.some((line) => line['msg'] === 'a delivery failed')).toBe(true)
    await first.api('/bots/bot/conversations/c')
    await fetch(`${first.url}/api/v1/bots/bot/conversations/c`, { method: 'DELETE' })
    await first.hub.stop(0)
    const { turns, hook } = told()
    await using second = await startHub({ bots: { bot: echo() }, onTurnEnd: [hook] }, { folder: first.folder })
    await second.api('/outbox/retry', {})
    await expect.poll(() => turns.length).toBe(1)
    expect(turns[0]).toMatchObject({ turn, status: 'completed' })
    expect(turns[0]).not.toHaveProperty('text')
  })

  it('has a name of its own and a function, or the config says so', () => {
    const check = (onTurnEnd: unknown) => () =>
      checkConfig({ ...defineConfig({ bots: { bot: echo() }, channels: { rest: rest() } }), onTurnEnd })
    const run = () => {}
    expect(
      check([
        { name: 'a', run },
        { name: 'a', run },
      ]),
    ).toThrow('onTurnEnd: has two of one name')
    expect(check([{ name: 'a' }])).toThrow('onTurnEnd')
    expect(check([{ name: 'a', run, timeuot: '1s' }])).toThrow('did you mean "timeout"?')
  })
})

describe('a receiver', () => {
  it('that is gone (410) is left alone until an operator says otherwise, and no other is', async () => {
    await using gone = await receiver((count) => (count === 1 ? 410 : 204))
    await using other = await receiver(() => 204)
    await using hub = await startHub({ bots: { bot: echo() }, channels: calling({ gone: gone.url, other: other.url }) })
    const first = await owe(hub, 'gone')
    await expect.poll(async () => (await outboxOf(hub)).closed).toEqual(['channel:gone'])
    const second = await owe(hub, 'gone')
    await owe(hub, 'other')
    await expect.poll(() => other.ids.length).toBe(1)
    expect(await outboxOf(hub)).toMatchObject({
      items: [
        { turn: first, state: 'failed', error: expect.stringContaining('410') as string },
        { turn: second, state: 'pending' },
      ],
    })
    expect(gone.ids).toHaveLength(1)
    await hub.api('/outbox/retry', { lane: 'channel:gone' })
    await expect.poll(() => gone.ids.length).toBe(3)
    expect(gone.ids[0]).toContain(first)
    expect(new Set(gone.ids)).toEqual(new Set([gone.ids[0], expect.stringContaining(second)]))
    await expect.poll(async () => outboxOf(hub)).toEqual({ items: [], closed: [] })
    expect((await hub.hub.audit.page({ limit: 9, what: 'outbox retried' })).items).toMatchObject([
      { what: 'outbox retried', by: 'local' },
    ])
  })

  it('that says when to come again (429) is not called before', async () => {
    await using busy = await receiver(() => 429)
    await using hub = await startHub({ bots: { bot: echo() }, channels: calling({ busy: busy.url }) })
    const before = Date.now()
    await owe(hub, 'busy')
    const failed = () => hub.log.find((line) => line['msg'] === 'a delivery failed')
    await expect.poll(failed).toBeDefined()
    expect(Date.parse(String(failed()!['retryAt']))).toBeGreaterThanOrEqual(before + 90_000)
    const at = async () => (await jsonOf<{ items: { nextAt: string }[] }>(await hub.api('/outbox'))).items[0]?.nextAt
    await expect.poll(at).toBe(failed()!['retryAt'])
  })
})

describe('bothub outbox', () => {
  const admin = 'key-of-the-operator-01'
  const config = (callback: string, extra: Partial<HubConfig> = {}): HubConfig =>
    defineConfig({
      auth: [apiKey({ name: 'ops', key: admin, admin: true }), apiKey({ name: 'crm', key: 'key-of-the-crm-0123' })],
      bots: { bot: echo() },
      channels: {
        crm: webhook({ bot: 'bot', as: 'crm', secret: 'whsec_c2VjcmV0LXNlY3JldA==', callback, allowPrivate: true }),
      },
      ...extra,
    })
  const told = async (reach: OutboxReach) => (await reach.list()).items.map(({ lane, state }) => `${lane} ${state}`)

  it('reaches the hub that runs as one of its admins, and the store where none does', async () => {
    await using gone = await receiver(() => 410)
    await using hub = await startHub(config(gone.url))
    await owe(hub, 'crm')
    await expect.poll(() => hub.log.some((line) => line['msg'] === 'a delivery was given up')).toBe(true)
    const { port } = new URL(hub.url)
    const checked = checkConfig({ ...config(gone.url), listen: { port: Number(port) } })
    await using running = await reachOutbox(checked, hub.folder)
    await expect.poll(() => told(running)).toEqual(['channel:crm failed'])
    expect((await running.list()).closed).toEqual(['channel:crm'])
    expect(await running.retry({ lane: 'channel:crm' })).toBe(1)
    await expect.poll(() => gone.ids.length).toBe(2)
    await expect.poll(() => told(running)).toEqual(['channel:crm failed'])
    await expect(running.retry({ lane: 'nonsense' })).rejects.toThrow('must be channel:NAME')
    for (const [key, status] of [
      ['key-of-the-crm-0123', 403],
      ['wrong', 401],
    ] as const) {
      expect((await hub.api('/outbox', undefined, { authorization: `Bearer ${key}` })).status).toBe(status)
      expect((await hub.api('/outbox/retry', {}, { authorization: `Bearer ${key}` })).status).toBe(status)
    }
    const noAdmin = checkConfig({
      ...config(gone.url),
      auth: [apiKey({ name: 'crm', key: 'x-key-of-crm' })],
      listen: { port: Number(port) },
    })
    await expect(reachOutbox(noAdmin, hub.folder)).rejects.toThrow('Give one of them `admin: true`')
    await hub.hub.stop(0)
    await using stopped = await reachOutbox(checked, hub.folder)
    expect(await told(stopped)).toEqual(['channel:crm failed'])
    expect(await stopped.retry({ ids: [String(gone.ids[0])] })).toBe(1)
    expect(await stopped.list()).toMatchObject({ items: [{ state: 'pending' }], closed: [] })
  })
})
