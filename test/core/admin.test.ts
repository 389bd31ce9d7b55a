import { describe, expect, it } from 'vitest'
import type { HubConfig, TurnObject } from '../../index.ts'
import { apiKey, asgard, consent, demoBot, local, retry } from '../../index.ts'
import { HubError } from '../../core/errors.ts'
import { gatedBot } from '../fakes/gated-bot.ts'
import { jsonOf, startHub } from '../support/hub.ts'
import type { TestHub } from '../support/hub.ts'

const keys = { crm: 'key-of-the-crm-0123', ops: 'key-of-the-operator-01', narrow: 'key-of-a-narrow-admin' }
const as = (key: keyof typeof keys) => ({ authorization: `Bearer ${keys[key]}` })
const auth = [
  apiKey({ name: 'crm', key: keys.crm, trusted: true }),
  apiKey({ name: 'ops', key: keys.ops, admin: true }),
  apiKey({ name: 'narrow', key: keys.narrow, admin: true, bots: ['other'] }),
] as const

const start = (config: Partial<HubConfig> & Pick<HubConfig, 'bots'>) =>
  startHub({ auth, ...config, bots: { other: local(() => 'other'), ...config.bots } })

const ask = async (hub: TestHub, text: string, more: Record<string, unknown> = {}): Promise<TurnObject> =>
  jsonOf(await hub.api('/bots/bot/messages', { text, conversation: 'c', user: 'ada', ...more }, as('crm')))

const look = async <Answer>(hub: TestHub, path: string, key: keyof typeof keys = 'ops'): Promise<Answer> => {
  const response = await hub.api(`/admin${path}`, undefined, as(key))
  expect(`${path} ${response.status}`).toBe(`${path} 200`)
  return jsonOf(response)
}

interface List {
  readonly items: readonly Readonly<Record<string, unknown>>[]
  readonly before?: string
}

interface Timeline {
  readonly status: string
  readonly events: number
  readonly upstream: Readonly<Record<string, string>>
  readonly phases: readonly { readonly phase: string; readonly from: string; readonly to?: string }[]
  readonly firstDeltaAt?: string
  readonly stalls: readonly { readonly from: string; readonly to?: string; readonly after: number }[]
}

const paths = (turn: string, conversation: string) => [
  '/turns',
  `/turns/${turn}`,
  `/turns/${turn}/events`,
  '/conversations',
  `/conversations/${conversation}`,
  `/conversations/${conversation}/messages`,
  '/audit',
]

const echoes = { bot: local(({ message }) => message.text) }

const conversationOf = async (hub: TestHub): Promise<string> =>
  String((await look<List>(hub, '/conversations')).items.at(-1)!['id'])

describe("the operator's routes", () => {
  it('are for admins, and say so to others', async () => {
    await using hub = await start({ bots: echoes })
    const { turn } = await ask(hub, 'hello')
    for (const path of paths(turn, await conversationOf(hub))) {
      expect((await hub.api(`/admin${path}`)).status).toBe(401)
      const refused = await hub.api(`/admin${path}`, undefined, as('crm'))
      expect([refused.status, await refused.json()]).toMatchObject([403, { error: { code: 'forbidden' } }])
    }
  })

  it('are open on a hub without auth, as everything there is', async () => {
    await using hub = await startHub({ bots: echoes })
    const { turn } = await hub.ask('bot', 'hello', { conversation: 'c' })
    const { items } = await jsonOf<List>(await hub.api('/admin/conversations'))
    for (const path of paths(turn, String(items[0]!['id']))) {
      const answer = await hub.api(`/admin${path}`)
      expect([path, answer.status, answer.headers.get('cache-control')]).toEqual([path, 200, 'no-store'])
    }
  })

  it('show turns, records and conversations of everybody, page by page', async () => {
    await using hub = await start({ bots: echoes })
    const turns: string[] = []
    for (const user of ['ada', 'bob', 'ada']) turns.push((await ask(hub, `of ${user}`, { user })).turn)
    const first = await look<List>(hub, '/turns?limit=2')
    expect(first.items.map(({ turn }) => turn)).toEqual(turns.slice(1))
    expect(first.items[0]).toMatchObject({ bot: 'bot', key: 'crm', user: 'bob', channel: 'rest', status: 'completed' })
    const second = await look<List>(hub, `/turns?limit=2&before=${first.before}`)
    expect(second).toMatchObject({ items: [{ turn: turns[0] }] })
    expect(second.before).toBeUndefined()
    expect((await look<List>(hub, '/turns?status=failed')).items).toEqual([])
    expect((await look<List>(hub, '/turns?bot=other')).items).toEqual([])

    expect((await look<List>(hub, '/conversations')).items).toMatchObject([{ user: 'ada' }, { user: 'bob' }])
    const bobs = await look<List>(hub, '/conversations?of=bob')
    expect(bobs.items).toMatchObject([{ bot: 'bot', key: 'crm', user: 'bob', name: 'c' }])
    const said = await look<List>(hub, `/conversations/${String(bobs.items[0]!['id'])}/messages?limit=1`)
    expect(said).toMatchObject({ items: [{ role: 'bot', text: 'of bob', turn: turns[1] }] })
    const before = await look<List>(
      hub,
      `/conversations/${String(bobs.items[0]!['id'])}/messages?limit=1&before=${said.before}`,
    )
    expect(before.items).toMatchObject([{ role: 'user', text: 'of bob' }])
  })

  it('show an admin of some bots nothing of the others', async () => {
    await using hub = await start({ bots: echoes })
    const { turn } = await ask(hub, 'hello')
    await jsonOf(await hub.api('/bots/other/messages', { text: 'hello', user: 'ada' }, as('crm')))
    const id = await conversationOf(hub)
    const items = (await look<List>(hub, '/conversations')).items
    const mine = items.find(({ bot }) => bot === 'bot')!
    expect(id).not.toBe('')
    for (const [path, code] of [
      [`/turns/${turn}`, 'unknown_turn'],
      [`/turns/${turn}/events`, 'unknown_turn'],
      [`/conversations/${String(mine['id'])}`, 'unknown_conversation'],
      [`/conversations/${String(mine['id'])}/messages`, 'unknown_conversation'],
    ]) {
      const hidden = await hub.api(`/admin${path}`, undefined, as('narrow'))
      expect([hidden.status, await hidden.json()]).toMatchObject([404, { error: { code } }])
    }
    for (const path of ['/turns', '/conversations']) {
      expect((await look<List>(hub, path, 'narrow')).items.map(({ bot }) => bot)).toEqual(['other'])
    }
  })

  it('do not know what is not there, nor cursors of nowhere', async () => {
    await using hub = await start({ bots: echoes })
    for (const [path, status, code] of [
      ['/turns/turn_none', 404, 'unknown_turn'],
      ['/turns/turn_none/events', 404, 'unknown_turn'],
      ['/conversations/conv_none/messages', 404, 'unknown_conversation'],
      ['/nothing', 404, 'not_found'],
      ['/turns?before=x', 422, 'invalid_request'],
      ['/turns?limit=1000', 422, 'invalid_request'],
      ['/turns?status=lost', 422, 'invalid_request'],
      ["/conversations?before=' OR 1", 422, 'invalid_request'],
      ['/audit?what=all', 422, 'invalid_request'],
    ] as const) {
      const answer = await hub.api(`/admin${path}`, undefined, as('ops'))
      expect([path, answer.status, await answer.json()]).toMatchObject([path, status, { error: { code } }])
    }
    const posted = await hub.api('/admin/turns', {}, as('ops'))
    expect([posted.status, posted.headers.get('allow')?.split(', ').toSorted()]).toEqual([405, ['GET', 'HEAD']])
  })

  it('write down who looks at what, once for who asks again and again', async () => {
    await using hub = await start({ bots: echoes })
    const { turn } = await ask(hub, 'hello')
    const id = await conversationOf(hub)
    for (let round = 0; round < 3; round += 1) {
      for (const path of paths(turn, id)) await look(hub, path)
    }
    await look(hub, '/turns', 'narrow')
    await hub.api('/outbox', undefined, as('ops'))
    const { items } = await look<List>(hub, '/audit?what=admin%20read')
    expect(items.map(({ by, details }) => [by, details])).toEqual([
      ['ops', { of: 'conversations' }],
      ['ops', { of: 'turns' }],
      ['ops', { of: 'turn', turn }],
      ['ops', { of: 'events', turn }],
      ['ops', { of: 'conversation', conversation: id }],
      ['ops', { of: 'records', conversation: id }],
      ['ops', { of: 'audit' }],
      ['narrow', { of: 'turns' }],
      ['ops', { of: 'outbox' }],
    ])
    const page = await look<List>(hub, '/audit?limit=2')
    expect(page).toMatchObject({ items: [{ by: 'narrow' }, { by: 'ops' }], before: expect.any(String) })
    expect((await look<List>(hub, '/audit?what=operator%20spoke')).items).toEqual([])
  })

  it('show what lives: what is queued, and which try is under way', async () => {
    const bot = gatedBot()
    await using hub = await start({ bots: { bot: bot.provider } })
    const asked = [ask(hub, 'one'), bot.began('one').then(() => ask(hub, 'two'))]
    const statuses = async () => {
      const { items } = await look<List>(hub, '/turns?live=true')
      return items.map(({ status, attempt }) => [status, attempt])
    }
    await expect.poll(statuses).toEqual([
      ['running', 1],
      ['queued', undefined],
    ])
    const [, queued] = (await look<List>(hub, '/turns?live=true')).items
    const waiting = await look<Timeline>(hub, `/turns/${String(queued!['turn'])}`)
    expect(waiting.phases).toEqual([{ phase: 'queued', from: queued!['createdAt'] }])
    for (const text of ['one', 'two']) bot.finish(text)
    await Promise.all(asked)
    expect(await statuses()).toEqual([])
    const done = await look<Timeline>(hub, `/turns/${String(queued!['turn'])}`)
    expect(done.phases.map(({ phase, to }) => [phase, to !== undefined])).toEqual([
      ['queued', true],
      ['attempt', true],
    ])
  })
})

describe('the timeline of a turn', () => {
  it('has its attempts with their errors, the pauses between them, and its first words', async () => {
    let tries = 0
    const busy = local(async function* () {
      tries += 1
      if (tries < 3) throw new HubError('upstream_rate_limited', { notStarted: true })
      yield 'at last'
    })
    await using hub = await start({ bots: { bot: { provider: busy, use: [retry({ retries: 3, baseMs: 1 })] } } })
    const { turn } = await ask(hub, 'hello')
    const timeline = await look<Timeline>(hub, `/turns/${turn}`)
    expect(timeline.phases).toMatchObject([
      { phase: 'attempt', attempt: 1, error: 'upstream_rate_limited', to: expect.any(String) },
      { phase: 'backoff', to: expect.any(String) },
      { phase: 'attempt', attempt: 2, error: 'upstream_rate_limited' },
      { phase: 'backoff' },
      { phase: 'attempt', attempt: 3, to: expect.any(String) },
    ])
    expect(Date.parse(timeline.firstDeltaAt!)).toBeGreaterThanOrEqual(Date.parse(timeline.phases[0]!.from))
    expect(timeline.stalls).toEqual([])
    const events = await look<{ items: { at: string; event: { type: string } }[] }>(hub, `/turns/${turn}/events`)
    expect(events.items.map(({ event }) => event.type).slice(0, 3)).toEqual([
      'turn.started',
      'attempt.failed',
      'attempt.failed',
    ])
    expect(events.items.map(({ at }) => at)).toEqual(events.items.map(({ at }) => at).toSorted())
  })

  it('has its waits, what its upstream calls it, and pages of its events', async () => {
    await using hub = await start({ bots: { bot: { provider: asgard({ simulated: true }), use: [consent()] } } })
    const { turn, waiting } = await ask(hub, '/consent')
    const open = await look<Timeline>(hub, `/turns/${turn}`)
    expect(open.phases).toMatchObject([{ phase: 'attempt' }, { phase: 'waiting' }])
    expect(open.phases[1]!.to).toBeUndefined()
    expect(open.upstream['channel']).toMatch(/\S/)
    const decisions = waiting!.calls.map(({ call }) => ({ call, result: 'allow_once' }))
    await jsonOf(await hub.api(`/turns/${turn}/consent`, { decisions }, as('crm')))
    const done = await look<Timeline>(hub, `/turns/${turn}`)
    expect(done.phases.map(({ phase }) => phase)).toEqual(['attempt', 'waiting', 'attempt'])
    expect(done.phases.every(({ to }) => to !== undefined)).toBe(true)
    const seen: number[] = []
    for (let after: number | undefined = 0; after !== undefined;) {
      const page: { items: { event: { seq: number } }[]; after?: number } = await look(
        hub,
        `/turns/${turn}/events?limit=3&after=${after}`,
      )
      seen.push(...page.items.map(({ event }) => event.seq))
      after = page.after
    }
    expect(seen).toEqual(Array.from({ length: done.events }, (_, index) => index + 1))
  })

  it('has no more than the hub kept, where its events were compacted', async () => {
    await using hub = await start({ bots: { bot: local(demoBot) }, keep: { events: '1ms' } })
    const { turn } = await ask(hub, 'hello')
    await expect
      .poll(async () => {
        await hub.sweep()
        return (await look<{ compacted: boolean }>(hub, `/turns/${turn}`)).compacted
      })
      .toBe(true)
    expect(await look<Timeline>(hub, `/turns/${turn}`)).toMatchObject({
      status: 'completed',
      phases: [{ phase: 'attempt', attempt: 1, to: expect.any(String) }],
      stalls: [],
    })
  })
})
