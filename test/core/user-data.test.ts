import { describe, expect, it } from 'vitest'
import { apiKey, asgard, consent, echo, local } from '../../index.ts'
import { jsonOf, startHub } from '../support/hub.ts'
import type { TestHub } from '../support/hub.ts'

const keys = { crm: 'key-of-the-crm-0123', shop: 'key-of-the-shop-0123', ops: 'key-of-the-operator-01' }
const as = (key: keyof typeof keys) => ({ authorization: `Bearer ${keys[key]}` })
const auth = [
  apiKey({ name: 'crm', key: keys.crm, trusted: true }),
  apiKey({ name: 'shop', key: keys.shop, trusted: true }),
  apiKey({ name: 'ops', key: keys.ops, admin: true }),
] as const

const start = () =>
  startHub({
    auth,
    bots: {
      bot: echo(),
      asgard: { provider: asgard({ simulated: true }), use: [consent()] },
      titled: local(async function* () {
        yield { type: 'conversation.updated', title: 'A title' }
        yield { type: 'message.delta', message: 'm', text: 'yes' }
      }),
    },
  })

const ask = async (hub: TestHub, bot: string, user: string, text: string, key: 'crm' | 'shop' = 'crm') =>
  jsonOf<{ turn: string; status: string }>(
    await hub.api(`/bots/${bot}/messages`, { text, user, conversation: 'c' }, as(key)),
  )

type Line = Readonly<Record<string, unknown>> & { readonly type: string }

async function exported(hub: TestHub, path: string): Promise<readonly Line[]> {
  const answer = await hub.api(`/admin/users/${path}`, undefined, as('ops'))
  expect([answer.status, answer.headers.get('content-type')]).toEqual([200, 'application/x-ndjson'])
  const lines = (await answer.text()).split('\n')
  return lines.filter((line) => line !== '').map((line) => JSON.parse(line) as Line)
}

const erase = (hub: TestHub, path: string, key: keyof typeof keys = 'ops') =>
  fetch(`${hub.url}/api/v1/admin/users/${path}`, { method: 'DELETE', headers: as(key) })

const of = (lines: readonly Line[], type: string) => lines.filter((line) => line.type === type)

describe('what is kept of a user', () => {
  it('is exported whole, and nothing of anybody else', async () => {
    await using hub = await start()
    const { turn } = await ask(hub, 'titled', 'ada/1', 'hello')
    await ask(hub, 'bot', 'bob', 'a secret of bob')
    await ask(hub, 'bot', 'ada/1', 'by the shop', 'shop')
    const form = new FormData()
    form.append('conversation', 'files')
    form.append('file', new Blob(['hello'], { type: 'text/plain' }), 'hello.txt')
    await fetch(`${hub.url}/api/v1/bots/asgard/files?user=ada%2F1`, { method: 'POST', body: form, headers: as('crm') })

    const lines = await exported(hub, 'ada%2F1')
    expect(of(lines, 'conversation')).toMatchObject([
      { bot: 'asgard', name: 'files', key: 'crm', user: 'ada/1' },
      { bot: 'bot', key: 'shop' },
      { bot: 'titled', key: 'crm', title: 'A title', createdAt: expect.stringMatching(/^2.*Z$/) },
    ])
    expect(of(lines, 'file')).toMatchObject([{ name: 'hello.txt', bytes: 5, mime: 'text/plain' }])
    expect(of(lines, 'record').map(({ role, text }) => [role, text])).toEqual([
      ['user', 'by the shop'],
      ['bot', 'by the shop'],
      ['user', 'hello'],
      ['bot', 'yes'],
    ])
    expect(of(lines, 'turn')[1]).toMatchObject({ id: turn, message: { text: 'hello' }, result: { text: 'yes' } })
    expect(of(lines, 'event').filter((line) => line['turn'] === turn)[0]).toMatchObject({
      at: expect.any(String),
      event: { seq: 1, type: 'turn.started' },
    })
    expect(JSON.stringify(lines)).not.toContain('bob')
    expect(of(await exported(hub, 'ada%2F1?key=shop'), 'conversation')).toMatchObject([{ key: 'shop' }])
    expect(await exported(hub, 'nobody')).toEqual([])
  })

  it('is erased whole, with what waits, and nothing of anybody else; the audit table says so', async () => {
    await using hub = await start()
    const { turn, status } = await ask(hub, 'asgard', 'ada', '/consent')
    expect(status).toBe('waiting')
    const { turn: kept } = await ask(hub, 'bot', 'bob', 'mine')
    await ask(hub, 'bot', 'ada', 'by the shop', 'shop')
    expect(await jsonOf(await erase(hub, 'ada?key=shop'))).toEqual({ conversations: 1 })
    expect(of(await exported(hub, 'ada'), 'conversation')).toHaveLength(1)
    expect(await jsonOf(await erase(hub, 'ada'))).toEqual({ conversations: 1 })
    expect(await exported(hub, 'ada')).toEqual([])
    expect((await hub.api(`/turns/${turn}`, undefined, as('crm'))).status).toBe(404)
    expect((await hub.api(`/turns/${kept}`, undefined, as('crm'))).status).toBe(200)
    const { items } = await hub.hub.audit.page({ limit: 20, what: 'user erased' })
    expect(items).toMatchObject([
      { by: 'ops', details: { user: 'ada', key: 'shop', conversations: 1 } },
      { by: 'ops', details: { user: 'ada', conversations: 1 } },
    ])
    // The platform is told, as of every deletion.
    await expect
      .poll(async () => (await jsonOf<{ items: object[] }>(await hub.api('/outbox', undefined, as('ops')))).items)
      .toEqual([])
  })

  it('is for admins only', async () => {
    await using hub = await start()
    await ask(hub, 'bot', 'ada', 'hello')
    expect((await erase(hub, 'ada', 'crm')).status).toBe(403)
    expect((await hub.api('/admin/users/ada', undefined, as('crm'))).status).toBe(403)
    expect(of(await exported(hub, 'ada'), 'conversation')).toHaveLength(1)
  })
})
