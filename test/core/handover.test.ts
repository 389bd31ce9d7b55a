import { describe, expect, it } from 'vitest'
import type { HubConfig, NumberedEvent, TurnObject } from '../../index.ts'
import { apiKey, echo, history, local, rest, sse, webhook, websocket } from '../../index.ts'
import { jsonOf, startHub } from '../support/hub.ts'
import type { TestHub } from '../support/hub.ts'
import { openReceiver } from '../suites/receiver.ts'
import { connectSocket } from '../support/socket.ts'

const keys = {
  crm: 'key-of-the-crm-0123',
  ops: 'key-of-the-operator-01',
}
const as = (key: keyof typeof keys) => ({ authorization: `Bearer ${keys[key]}` })
const auth = [
  apiKey({ name: 'crm', key: keys.crm, trusted: true }),
  apiKey({ name: 'ops', key: keys.ops, admin: true }),
] as const

const start = (config: Partial<HubConfig> & Pick<HubConfig, 'bots'>) => startHub({ auth, ...config })

const ask = async (hub: TestHub, text: string, more: Record<string, unknown> = {}): Promise<TurnObject> =>
  jsonOf(await hub.api('/bots/bot/messages', { text, conversation: 'c', user: 'ada', ...more }, as('crm')))

/** The `conv_…` id of Ada's conversation. */
async function idOf(hub: TestHub): Promise<string> {
  const { items } = await jsonOf<{ items: { id: string }[] }>(
    await hub.api('/bots/bot/conversations?user=ada', undefined, as('crm')),
  )
  return items[0]!.id
}
const take = async (hub: TestHub, id: string) => hub.api(`/conversations/${id}/handover`, {}, as('ops'))
const giveBack = (hub: TestHub, id: string) =>
  fetch(`${hub.url}/api/v1/conversations/${id}/handover`, { method: 'DELETE', headers: as('ops') })
const speak = (hub: TestHub, id: string, text: string, more = {}) =>
  hub.api(`/conversations/${id}/messages`, { text, ...more }, as('ops'))

describe('a conversation that an operator has taken', () => {
  it('keeps what its user says, and ends each turn at once without a bot', async () => {
    let runs = 0
    await using hub = await start({ bots: { bot: local(() => `run ${++runs}`) } })
    await ask(hub, 'hello')
    const id = await idOf(hub)
    const taken = await take(hub, id)
    expect([taken.status, await taken.json()]).toEqual([
      200,
      { conversation: id, bot: 'bot', name: 'c', user: 'ada', takenBy: 'ops' },
    ])
    const kept = await ask(hub, 'is anybody there?', { id: 'm2' })
    expect(kept).toMatchObject({ status: 'completed', text: '', messages: [], handedOver: true })
    const events = await (
      await hub.api(`/turns/${kept.turn}/events`, undefined, { ...as('crm'), accept: 'text/event-stream' })
    ).text()
    expect(events).toContain('"type":"turn.completed","text":"","handedOver":true')
    // The same message again is the same turn.
    expect((await ask(hub, 'is anybody there?', { id: 'm2' })).turn).toBe(kept.turn)
    expect((await giveBack(hub, id)).status).toBe(204)
    expect((await ask(hub, 'and now?')).text).toBe('run 2')
    expect(runs).toBe(2)
    expect((await hub.hub.audit.page({ limit: 9 })).items).toMatchObject([
      { what: 'conversation handed over', by: 'ops', details: { conversation: id } },
      { what: 'conversation given back', by: 'ops' },
    ])
  })

  it('stops what its bot is busy with, also what waits behind that', async () => {
    let runs = 0
    const bot = local(async ({ signal }) => {
      runs += 1
      await new Promise((resolve) => signal.addEventListener('abort', resolve, { once: true }))
      return 'too late'
    })
    await using hub = await start({ bots: { bot } })
    const asked = [ask(hub, 'one'), ask(hub, 'two')]
    await expect.poll(() => runs).toBe(1)
    const metrics = async () => (await fetch(`${hub.url}/metrics`, { headers: as('ops') })).text()
    await expect.poll(metrics).toContain('bothub_queue_depth 1')
    await take(hub, await idOf(hub))
    expect((await Promise.all(asked)).map(({ status }) => status)).toEqual(['cancelled', 'cancelled'])
    expect(runs).toBe(1)
  })

  it('lets the operator read it and speak, as turns that everybody who follows it gets', async () => {
    await using hub = await start({ bots: { bot: echo() } })
    await ask(hub, 'hello')
    const id = await idOf(hub)
    await take(hub, id)
    const follower = await fetch(`${hub.url}/api/v1/bots/bot/conversations/c/events?user=ada`, { headers: as('crm') })
    const spoken = await speak(hub, id, 'Ada, this is Bob.', { id: 'bob-1' })
    expect(spoken.status).toBe(200)
    const turn = await jsonOf<TurnObject>(spoken)
    expect(turn).toMatchObject({ status: 'completed', text: 'Ada, this is Bob.', bot: 'bot', conversation: 'c' })
    expect(await (await speak(hub, id, 'Ada, this is Bob.', { id: 'bob-1' })).json()).toEqual(turn)
    const seen: NumberedEvent[] = []
    let rest_ = ''
    for await (const chunk of follower.body!.pipeThrough(new TextDecoderStream())) {
      rest_ += chunk
      const lines = rest_.split('\n')
      rest_ = lines.pop()!
      for (const line of lines) if (line.startsWith('data: ')) seen.push(JSON.parse(line.slice(6)) as NumberedEvent)
      if (seen.some(({ type }) => type === 'turn.completed')) break
    }
    expect(seen).toMatchObject([
      { seq: 1, type: 'turn.started', turn: turn.turn, by: 'operator', message: 'bob-1' },
      { seq: 2, type: 'message.started' },
      { seq: 3, type: 'message.delta', text: 'Ada, this is Bob.' },
      { seq: 4, type: 'message.completed', text: 'Ada, this is Bob.' },
      { seq: 5, type: 'turn.completed', text: 'Ada, this is Bob.' },
    ])
    await ask(hub, 'hello Bob')
    const records = await jsonOf<{ items: { role: string; text: string }[] }>(
      await hub.api(`/conversations/${id}/messages`, undefined, as('ops')),
    )
    expect(records.items.map(({ role, text }) => [role, text])).toEqual([
      ['user', 'hello'],
      ['bot', 'hello'],
      ['operator', 'Ada, this is Bob.'],
      ['user', 'hello Bob'],
    ])
  })

  it('tells its bot afterwards what the operator and the user have said', async () => {
    const bot = local(({ history: said }) => JSON.stringify(said.map(({ role, text }) => [role, text])))
    await using hub = await start({ bots: { bot }, use: [history()] })
    await ask(hub, 'hello')
    const id = await idOf(hub)
    await take(hub, id)
    await ask(hub, 'a refund, please')
    await speak(hub, id, 'Granted.')
    await giveBack(hub, id)
    const { text } = await ask(hub, 'what was granted?')
    expect(JSON.parse(text)).toEqual([
      ['user', 'hello'],
      ['bot', '[]'],
      ['user', 'a refund, please'],
      ['operator', 'Granted.'],
    ])
  })

  it('reaches the sockets that spoke in it, and the callback of its webhook', async () => {
    await using receiver = await openReceiver()
    const secret = 'whsec_c2VjcmV0LXNlY3JldA=='
    await using hub = await startHub({
      bots: { bot: echo() },
      channels: {
        rest: rest(),
        sse: sse(),
        websocket: websocket(),
        crm: webhook({ bot: 'bot', secret, callback: receiver.url, allowPrivate: true }),
      },
    })
    using socket = await connectSocket(hub.url)
    await socket.chat({ agentId: 'bot', sessionId: 's', message: 'hello' })
    const { items } = await jsonOf<{ items: { id: string }[] }>(await hub.api('/bots/bot/conversations'))
    const id = items[0]!.id
    await hub.hub.dispatcher.send(
      { key: 'local', trusted: true, admin: true, bypassConsent: true },
      { bot: 'bot', text: 'by webhook', channel: 'crm', conversation: id, owed: true },
    )
    await receiver.moreThan(0, AbortSignal.timeout(10_000))
    await hub.api(`/conversations/${id}/handover`, {})
    const { turn } = await jsonOf<TurnObject>(await hub.api(`/conversations/${id}/messages`, { text: 'Bob here' }))
    const last = await socket.frame((frame) => frame.turn === turn && frame.done === true)
    expect(last).toMatchObject({ sessionId: 's', agentId: 'bot' })
    expect(JSON.stringify(socket.frames)).toContain('Bob here')
    await receiver.moreThan(1, AbortSignal.timeout(10_000))
    expect(JSON.parse(receiver.callbacks[1]!.body)).toMatchObject({
      type: 'turn.completed',
      data: { turn, text: 'Bob here' },
    })
  })

  it('is still taken after a restart', async () => {
    await using first = await start({ bots: { bot: echo() } })
    await ask(first, 'hello')
    await take(first, await idOf(first))
    await first.hub.stop(0)
    await using second = await startHub({ auth, bots: { bot: echo() } }, { folder: first.folder })
    expect(await ask(second, 'hello?')).toMatchObject({ handedOver: true })
  })
})

describe('hand-over', () => {
  it('is for admins, by the id of a conversation there is, and words only while it lasts', async () => {
    await using hub = await start({ bots: { bot: echo() } })
    await ask(hub, 'hello')
    const id = await idOf(hub)
    const codes = async (path: string, key: keyof typeof keys, body?: unknown) => {
      const answer = await hub.api(path, body, as(key))
      return [answer.status, (await jsonOf<{ error: { code: string } }>(answer)).error.code]
    }
    expect(await codes(`/conversations/${id}/handover`, 'crm', {})).toEqual([403, 'forbidden'])
    expect(await codes(`/conversations/${id}/messages`, 'crm', { text: 'x' })).toEqual([403, 'forbidden'])
    expect(await codes(`/conversations/${id}/messages`, 'crm')).toEqual([403, 'forbidden'])
    for (const name of ['c', 'conv_nobodys']) {
      expect(await codes(`/conversations/${name}/handover`, 'ops', {})).toEqual([404, 'unknown_conversation'])
    }
    expect(await codes(`/conversations/${id}/messages`, 'ops', { text: 'x' })).toEqual([409, 'not_handed_over'])
    expect(await codes(`/conversations/${id}/messages`, 'ops')).toEqual([409, 'not_handed_over'])
    await take(hub, id)
    expect(await codes(`/conversations/${id}/messages`, 'ops', { text: '' })).toEqual([422, 'invalid_request'])
    expect((await giveBack(hub, 'conv_nobodys')).status).toBe(404)
  })
})
