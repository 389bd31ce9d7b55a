import { once } from 'node:events'
import { existsSync, readFileSync, statSync } from 'node:fs'
import { createServer } from 'node:http'
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { Webhook } from 'standardwebhooks'
import { describe, expect, it } from 'vitest'
import type { HubConfig, HubEvent } from '../../index.ts'
import { apiKey, checkConfig, defineConfig, echo, local, rest, sse, webhook } from '../../index.ts'
import { checkTaken, isPublic, postCallback } from '../../core/callback.ts'
import { signWebhook, verifyWebhook } from '../../core/signature.ts'
import { DeliveryPostponed, DeliveryRefused, deliverySchedule, Outbox } from '../../core/outbox.ts'
import { Secret } from '../../core/settings.ts'
import type { Delivery, DeliveryState } from '../../core/store.ts'
import { pluginContext } from '../fakes/turn.ts'
import type { TestHub } from '../support/hub.ts'
import { jsonOf, startHub } from '../support/hub.ts'

const secret = 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw'
const sender = new Webhook(secret)

const headersFor = (body: string, id = `msg_${crypto.randomUUID()}`, at = new Date()) => ({
  'content-type': 'application/json',
  'webhook-id': id,
  'webhook-timestamp': String(Math.floor(at.getTime() / 1000)),
  'webhook-signature': sender.sign(id, at, body),
})
const post = (hub: TestHub, body: string, headers: Record<string, string>, name = 'crm') =>
  fetch(`${hub.url}/api/v1/webhooks/${name}`, { method: 'POST', body, headers })
const deliverTo = (hub: TestHub, message: Record<string, unknown>, id?: string) => {
  const body = JSON.stringify(message)
  return post(hub, body, headersFor(body, id))
}

interface Received {
  readonly headers: IncomingMessage['headers']
  readonly body: string
}

/** Receives deliveries and answers as the test says; the vendor's own package checks each signature. */
async function receiver(answer: (count: number, response: ServerResponse) => void = (_, response) => response.end()) {
  const received: Received[] = []
  const waiting: (() => void)[] = []
  const take = async (request: IncomingMessage, response: ServerResponse) => {
    const chunks = await Array.fromAsync(request)
    received.push({ headers: request.headers, body: Buffer.concat(chunks as Buffer[]).toString() })
    answer(received.length, response)
    for (const wake of waiting.splice(0)) wake()
  }
  const server = createServer((request, response) => void take(request, response))
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/in`,
    received,
    async atLeast(count: number): Promise<{ type: string; timestamp: string; data: Record<string, unknown> }[]> {
      while (received.length < count) await new Promise<void>((resolve) => waiting.push(resolve))
      return received.map(({ headers, body }) => sender.verify(body, headers as Record<string, string>) as never)
    },
    async [Symbol.asyncDispose]() {
      server.close()
      server.closeAllConnections()
    },
  }
}

const hubWith = (bots: HubConfig['bots'], callback?: string) =>
  startHub({
    bots,
    channels: {
      rest: rest(),
      sse: sse(),
      crm: webhook({ bot: 'bot', secret, allowPrivate: true, ...(callback ? { callback } : {}) }),
    },
  })

describe('signatures', () => {
  it('are those of the published vector', () => {
    const id = 'msg_p5jXN8AQM9LWM0D4loKWxJek'
    const at = 1_614_265_330_000
    const body = '{"test": 2432232314}'
    const headers = signWebhook(new Secret(secret), id, at, body)
    expect(headers['webhook-signature']).toBe('v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=')
    expect(headers['webhook-signature']).toBe(sender.sign(id, new Date(at), body))
    expect(verifyWebhook([new Secret(secret)], { ...headers }, Buffer.from(body), at + 60_000)).toBe(id)
  })

  it.each([
    ['a byte of the body is other', (headers: Record<string, string>) => headers, 'other'],
    ['it is another id', (headers: Record<string, string>) => ({ ...headers, 'webhook-id': 'msg_2' }), undefined],
    ['it is six minutes old', () => headersFor('{"text":"x"}', 'msg_1', new Date(Date.now() - 360_000)), undefined],
    ['it is six minutes early', () => headersFor('{"text":"x"}', 'msg_1', new Date(Date.now() + 360_000)), undefined],
    [
      'the timestamp is no number',
      (headers: Record<string, string>) => ({ ...headers, 'webhook-timestamp': '1e9' }),
      undefined,
    ],
    [
      'it is of an unknown version',
      (headers: Record<string, string>) => ({
        ...headers,
        'webhook-signature': headers['webhook-signature']!.replace('v1', 'v9'),
      }),
      undefined,
    ],
    [
      'it is one of ten thousand',
      (headers: Record<string, string>) => ({
        ...headers,
        'webhook-signature': 'v1,eA== '.repeat(500) + headers['webhook-signature'],
      }),
      undefined,
    ],
    ['it is missing', (headers: Record<string, string>) => ({ ...headers, 'webhook-signature': '' }), undefined],
  ])('are refused with 401 when %s, and nothing is kept', async (_, change, other) => {
    await using hub = await hubWith({ bot: echo() })
    const body = '{"text":"x"}'
    const response = await post(hub, other === undefined ? body : '{"text":"y"}', change(headersFor(body, 'msg_1')))
    expect(response.status).toBe(401)
    expect(await response.json()).toMatchObject({ error: { code: 'bad_signature' } })
    expect(await (await hub.api('/bots/bot/conversations')).json()).toEqual({ items: [] })
    expect((await hub.hub.audit.page({ limit: 9 })).items).toMatchObject([{ what: 'credential refused' }])
  })

  // From test/fixtures/webhook/ed25519.sh, which signs with OpenSSL.
  const ed25519 = {
    private: 'whsk_nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=',
    public: 'whpk_11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=',
    signature: 'v1a,fldxM4gAKugP6nnt1hdz3sgGfZ6d99nzrMFnZOELIxbzEHoVmAb2ADpkJK7zgPePmPsle0zV9jSeGlHFG2NVAw==',
  }

  it('may be those of a key pair, as OpenSSL makes them', () => {
    const id = 'msg_p5jXN8AQM9LWM0D4loKWxJek'
    const at = 1_614_265_330_000
    const body = '{"test": 2432232314}'
    const headers = signWebhook(new Secret(ed25519.private), id, at, body)
    expect(headers['webhook-signature']).toBe(ed25519.signature)
    for (const key of [ed25519.public, ed25519.private]) {
      expect(verifyWebhook([new Secret(key)], { ...headers }, Buffer.from(body), at)).toBe(id)
    }
    const longer = `whsk_${Buffer.concat([ed25519.private, ed25519.public].map((key) => Buffer.from(key.slice(5), 'base64'))).toString('base64')}`
    expect(signWebhook(new Secret(longer), id, at, body)).toEqual(headers)
    const refuses = (change: Record<string, string>, text = body) =>
      expect(() =>
        verifyWebhook([new Secret(ed25519.public)], { ...headers, ...change }, Buffer.from(text), at),
      ).toThrow('does not match')
    refuses({}, `${body} `)
    refuses({ 'webhook-id': 'msg_2' })
    refuses({ 'webhook-signature': headers['webhook-signature'].replace('v1a,', 'v1,') })
    refuses({ 'webhook-signature': 'v1a,AAAA' })
    // A public key is known to all: it is no shared secret.
    const forged = new Webhook(btoa(ed25519.public)).sign(id, new Date(at), body)
    refuses({ 'webhook-signature': forged })
  })

  it('go out under every secret while one is replaced, and under none that is only a public key', async () => {
    await using crm = await receiver()
    const other = 'whsec_bmV3LXNlY3JldC1uZXctc2VjcmV0'
    await using hub = await startHub({
      bots: { bot: echo() },
      channels: {
        crm: webhook({
          bot: 'bot',
          secret: [other, secret, ed25519.private, ed25519.public],
          callback: crm.url,
          allowPrivate: true,
        }),
      },
    })
    await deliverTo(hub, { text: 'x' })
    await crm.atLeast(1)
    const { headers, body } = crm.received[0]!
    new Webhook(other).verify(body, headers as Record<string, string>)
    verifyWebhook([new Secret(ed25519.public)], headers, Buffer.from(body), Date.now())
    expect(String(headers['webhook-signature']).split(' ')).toHaveLength(3)
    const check = (given: string) => () =>
      checkConfig(
        defineConfig({
          bots: { bot: echo() },
          channels: { crm: webhook({ bot: 'bot', secret: given, callback: 'https://example.com/' }) },
        }),
      )
    expect(check(ed25519.public)).toThrow('a public key (whpk_…) cannot sign')
    expect(check('whsk_c2hvcnQ=')).toThrow('is no Ed25519 key')
  })

  it.each([
    '127.0.0.1:9',
    'localhost',
    '[::1]',
    '0x7f.1',
    '2130706433',
    '[::ffff:127.0.0.1]',
    '10.1',
    '169.254.169.254',
  ])('go to no private address that nobody has allowed: %s', (host) => {
    const callback = `http://${host}/`
    const check = (more: object) => () =>
      checkConfig(
        defineConfig({ bots: { bot: echo() }, channels: { crm: webhook({ bot: 'bot', callback, ...more }) } }),
      )
    expect(check({})).toThrow('callback: is on this machine or in a private network')
    expect(check({ allowPrivate: true })).not.toThrow()
  })

  it('are good once: what was caught on its way and sent again is the turn it was, though that is forgotten', async () => {
    let runs = 0
    await using hub = await hubWith({ bot: local(() => `run ${++runs}`) })
    const body = JSON.stringify({ text: 'pay', conversation: 'c', id: 'own' })
    const headers = headersFor(body, 'msg_1')
    const send = async (text = body, given = headers) => {
      const response = await post(hub, text, given)
      return [response.status, (await jsonOf<{ turn?: string }>(response)).turn] as const
    }
    const first = await send()
    expect(first[0]).toBe(202)
    await hub.api(`/turns/${first[1]}?wait=5`)
    await fetch(`${hub.url}/api/v1/bots/bot/conversations/c`, { method: 'DELETE' })
    expect(await send()).toEqual(first)
    expect(await (await hub.api('/bots/bot/conversations')).json()).toEqual({ items: [] })
    expect(runs).toBe(1)
    // One id names one message, whatever id the body has.
    const second = JSON.stringify({ text: 'pay', conversation: 'd', id: 'a' })
    expect((await send(second, headersFor(second, 'msg_2')))[0]).toBe(202)
    const changed = JSON.stringify({ text: 'pay', conversation: 'd', id: 'b' })
    expect((await send(changed, headersFor(changed, 'msg_2')))[0]).toBe(422)
    expect(runs).toBe(2)
  })

  it('may be any of several secrets while one is replaced', async () => {
    await using hub = await startHub({
      bots: { bot: echo() },
      channels: { crm: webhook({ bot: 'bot', secret: ['whsec_bmV3LXNlY3JldC1uZXctc2VjcmV0', secret] }) },
    })
    expect((await deliverTo(hub, { text: 'x' })).status).toBe(202)
  })
})

describe('coming in', () => {
  it('is acknowledged once it is durable and before the bot answers', async () => {
    const opened = Promise.withResolvers<void>()
    await using hub = await hubWith({
      bot: local(async () => {
        await opened.promise
        return 'at last'
      }),
    })
    const response = await deliverTo(hub, { text: 'hello', conversation: 'c', user: 'ada', payload: { a: 1 } })
    expect(response.status).toBe(202)
    const { turn } = await jsonOf<{ turn: string }>(response)
    expect(await (await hub.api(`/turns/${turn}`)).json()).toMatchObject({ status: 'running', conversation: 'c' })
    opened.resolve()
    expect(await (await hub.api(`/turns/${turn}?wait=5`)).json()).toMatchObject({
      status: 'completed',
      text: 'at last',
    })
  })

  it('is the same turn when the platform sends it again, under its webhook-id or the id of its body', async () => {
    let runs = 0
    await using hub = await hubWith({ bot: local(() => `run ${++runs}`) })
    const turns = []
    for (const [message, id] of [
      [{ text: 'x' }, 'msg_1'],
      [{ text: 'x' }, 'msg_1'],
      [{ text: 'x', id: 'own' }, 'msg_2'],
      [{ text: 'x', id: 'own' }, 'msg_3'],
    ] as const) {
      turns.push((await jsonOf<{ turn: string }>(await deliverTo(hub, message, id))).turn)
    }
    expect([turns[0] === turns[1], turns[2] === turns[3], turns[0] === turns[2]]).toEqual([true, true, false])
    const other = await deliverTo(hub, { text: 'other words' }, 'msg_1')
    expect([other.status, await other.json()]).toMatchObject([422, { error: { code: 'idempotency_mismatch' } }])
    expect(runs).toBe(2)
  })

  it.each([
    ['{"text":', 400, 'bad_json'],
    ['{"words":"x"}', 422, 'invalid_request'],
    [JSON.stringify({ text: 'x'.repeat(1_100_000) }), 413, 'payload_too_large'],
  ])('is refused with its code when the body is not a message', async (body, status, code) => {
    await using hub = await hubWith({ bot: echo() })
    const response = await post(hub, body, headersFor(body))
    expect([response.status, await response.json()]).toMatchObject([status, { error: { code } }])
  })

  it('acts as the key it names, for the sender the platform names', async () => {
    const auth = [apiKey({ name: 'crm', key: 'key-of-the-crm-0123', trusted: true })]
    await using hub = await startHub({
      auth,
      bots: { bot: local(({ principal }) => JSON.stringify([principal.key, principal.user])) },
      channels: { rest: rest(), crm: webhook({ bot: 'bot', as: 'crm', secret }) },
    })
    const { turn } = await jsonOf<{ turn: string }>(await deliverTo(hub, { text: 'x', user: 'ada' }))
    const read = await hub.api(`/turns/${turn}?wait=5`, undefined, { authorization: 'Bearer key-of-the-crm-0123' })
    expect(await read.json()).toMatchObject({ text: '["crm","ada"]' })
    const problems = (as?: string) => () =>
      checkConfig(
        defineConfig({
          auth,
          bots: { bot: echo() },
          channels: { crm: webhook({ bot: 'bot', secret, ...(as ? { as } : {}) }) },
        }),
      )
    expect(problems()).toThrow('channels.crm: say which API key it acts as, for example as: "crm"')
    expect(problems('crn')).toThrow('channels.crm: there is no API key called "crn"; did you mean "crm"?')
  })

  it('without a secret makes one at the first start, shows it then and keeps it to itself', async () => {
    const config = { bots: { bot: echo() }, channels: { crm: webhook({ bot: 'bot' }) } }
    await using first = await startHub(config)
    const file = join(first.folder, 'data', 'webhook-crm.secret')
    const made = readFileSync(file, 'utf8').trim()
    expect(made).toMatch(/^whsec_/)
    expect(first.hub.notices).toEqual([expect.stringContaining(made)])
    expect(statSync(file).mode & 0o777).toBe(0o600)
    expect(JSON.stringify(first.log)).not.toContain(made)
    const body = '{"text":"x"}'
    const at = new Date()
    const signed = new Webhook(made).sign('msg_1', at, body)
    expect((await post(first, body, { ...headersFor(body, 'msg_1', at), 'webhook-signature': signed })).status).toBe(
      202,
    )
    await first.hub.stop(0)
    await using second = await startHub(config, { folder: first.folder })
    expect(second.hub.notices).toEqual([])
    expect(existsSync(file)).toBe(true)
  })
})

describe('going out', () => {
  it('brings the answer, signed, with the turn as everybody sees it', async () => {
    await using crm = await receiver()
    await using hub = await hubWith({ bot: echo() }, crm.url)
    const { turn } = await jsonOf<{ turn: string }>(await deliverTo(hub, { text: 'hello' }))
    const [delivery] = await crm.atLeast(1)
    expect(delivery).toEqual({
      type: 'turn.completed',
      timestamp: expect.stringMatching(/Z$/),
      data: await (await hub.api(`/turns/${turn}`)).json(),
    })
    expect(delivery!.data).toMatchObject({ turn, status: 'completed', text: 'hello' })
  })

  it('brings failures, cancellations and questions alike, each under an id of its own', async () => {
    await using crm = await receiver()
    const bot = local(async function* ({ message, answers }): AsyncGenerator<string | HubEvent> {
      if (message.text === 'fail') throw new Error('x')
      if (answers) yield 'allowed'
      else yield { type: 'consent.requested', calls: [{ call: 'c', tool: 't', input: {}, alreadyAllowed: false }] }
    })
    await using hub = await hubWith({ bot }, crm.url)
    await deliverTo(hub, { text: 'fail' })
    expect((await crm.atLeast(1))[0]).toMatchObject({ type: 'turn.failed', data: { error: { code: 'bot_failed' } } })
    const { turn } = await jsonOf<{ turn: string }>(await deliverTo(hub, { text: 'ask', conversation: 'c' }))
    expect((await crm.atLeast(2))[1]).toMatchObject({
      type: 'turn.waiting',
      data: { turn, waiting: { for: 'consent' } },
    })
    await hub.api(`/turns/${turn}/consent`, { decisions: [{ call: 'c', result: 'allow_once' }] })
    expect((await crm.atLeast(3))[2]).toMatchObject({ type: 'turn.completed', data: { turn, text: 'allowed' } })
    const again = await jsonOf<{ turn: string }>(await deliverTo(hub, { text: 'ask again', conversation: 'c' }))
    await crm.atLeast(4)
    await hub.api(`/turns/${again.turn}/cancel`, {})
    expect((await crm.atLeast(5))[4]).toMatchObject({ type: 'turn.cancelled', data: { turn: again.turn } })
    expect(new Set(crm.received.map(({ headers }) => headers['webhook-id'])).size).toBe(5)
  })

  it('tells of a message that could not run: it was taken with 202, and its turn failed', async () => {
    await using crm = await receiver()
    const asks = local(async function* (): AsyncGenerator<HubEvent> {
      yield { type: 'consent.requested', calls: [{ call: 'c', tool: 't', input: {}, alreadyAllowed: false }] }
    })
    await using hub = await hubWith({ bot: asks }, crm.url)
    await deliverTo(hub, { text: 'first', conversation: 'c' })
    await crm.atLeast(1)
    const second = await deliverTo(hub, { text: 'second', conversation: 'c' })
    expect(second.status).toBe(202)
    const { turn } = await jsonOf<{ turn: string }>(second)
    expect((await crm.atLeast(2))[1]).toMatchObject({
      type: 'turn.failed',
      data: { turn, status: 'failed', error: { code: 'turn_waiting' } },
    })
  })

  it('is owed to a copy that attaches to a turn begun elsewhere, live or ended', async () => {
    await using crm = await receiver()
    const opened = Promise.withResolvers<void>()
    let runs = 0
    const bot = local(async () => {
      runs += 1
      await opened.promise
      return 'once'
    })
    await using hub = await hubWith({ bot }, crm.url)
    const begun = hub.ask('bot', 'x', { conversation: 'c', id: 'm1' })
    await expect.poll(() => runs).toBe(1)
    const { turn } = await jsonOf<{ turn: string }>(await deliverTo(hub, { text: 'x', conversation: 'c', id: 'm1' }))
    opened.resolve()
    expect((await begun).turn).toBe(turn)
    expect((await crm.atLeast(1))[0]).toMatchObject({ data: { turn, text: 'once' } })
    await hub.ask('bot', 'y', { conversation: 'c', id: 'm2' })
    await deliverTo(hub, { text: 'y', conversation: 'c', id: 'm2' })
    expect((await crm.atLeast(2))[1]).toMatchObject({ type: 'turn.completed', data: { text: 'once' } })
    expect(runs).toBe(2)
  })

  it('survives a restart: what was not delivered is, under the same id', async () => {
    let up = false
    await using crm = await receiver((_, response) => response.writeHead(up ? 204 : 500).end())
    const config = {
      bots: { bot: echo() },
      channels: { rest: rest(), crm: webhook({ bot: 'bot', secret, callback: crm.url, allowPrivate: true }) },
    }
    await using first = await startHub(config)
    await deliverTo(first, { text: 'hello' })
    await crm.atLeast(1)
    await expect.poll(() => first.log.some((line) => line['msg'] === 'a delivery failed')).toBe(true)
    await first.hub.stop(0)
    up = true
    const { default: Database } = await import('better-sqlite3')
    const database = new Database(join(first.folder, 'hub.db'))
    database.exec('UPDATE outbox SET next_at = 0')
    database.close()
    await using second = await startHub(config, { folder: first.folder })
    await crm.atLeast(2)
    expect(crm.received[0]!.headers['webhook-id']).toBe(crm.received[1]!.headers['webhook-id'])
    await expect
      .poll(async () => (await (await fetch(`${second.url}/metrics`)).text()).includes('bothub_outbox_pending 0'))
      .toBe(true)
  })

  it('follows no redirect and reaches no address that is not public, unless it is allowed to', async () => {
    await using elsewhere = await receiver()
    await using crm = await receiver((_, response) => response.writeHead(307, { location: elsewhere.url }).end())
    await using redirected = await hubWith({ bot: echo() }, crm.url)
    await deliverTo(redirected, { text: 'x' })
    await crm.atLeast(1)
    await expect.poll(() => redirected.log.some((line) => line['msg'] === 'a delivery failed')).toBe(true)
    expect(elsewhere.received).toHaveLength(0)
    expect(crm.received).toHaveLength(1)
    const private_ = [
      '10.1.2.3',
      '172.16.0.1',
      '192.168.1.1',
      '169.254.169.254',
      '100.64.0.1',
      '0.0.0.0',
      '224.0.0.1',
      'fe80::1',
      'fd00::1',
      '::',
      '64:ff9b::7f00:1',
      '2002:7f00:1::',
    ]
    expect(private_.filter((address) => isPublic(address))).toEqual([])
    expect(['8.8.8.8', '2606:4700::1111'].filter((address) => !isPublic(address))).toEqual([])
  })
})

describe('the outbox', () => {
  /** An outbox over one delivery, on a clock that only the test moves. */
  function rig(deliver: (attempt: number, id: string) => unknown) {
    let now = 1_000_000
    let row: Delivery & { state: string; nextAt: number } = {
      id: 'd1',
      lane: 'channel:crm',
      turn: 't',
      type: 'turn.completed',
      at: now,
      attempts: 0,
      state: 'pending',
      nextAt: now,
    }
    const settled: DeliveryState[] = []
    const waiting: (() => void)[] = []
    const outbox = new Outbox({
      clock: { now: () => now, sleep: async () => {} },
      logger: pluginContext().logger,
      deliverer: () => async (delivery) => void (await deliver(delivery.attempts, delivery.id)),
      store: {
        async dueDeliveries(at, underWay) {
          const due = row.state === 'pending' && row.nextAt <= at && !underWay.includes(row.id)
          return { due: due ? [row] : [] }
        },
        async settleDelivery(_, state) {
          settled.push(state)
          row = {
            ...row,
            attempts: row.attempts + 1,
            state: state.state,
            nextAt: 'retryAt' in state ? state.retryAt : 0,
          }
          for (const wake of waiting.splice(0)) wake()
        },
      },
    })
    return {
      outbox,
      settled,
      async next() {
        const done = new Promise<void>((resolve) => waiting.push(resolve))
        if (row.nextAt > now) now = row.nextAt
        outbox.wake()
        await done
        return { row, now }
      },
    }
  }

  it('keeps the schedule of Standard Webhooks, with jitter on top, and gives up after it', async () => {
    const { outbox, next, settled } = rig(() => {
      throw new Error('500')
    })
    const pauses = []
    for (let attempt = 0; attempt <= deliverySchedule.length; attempt++) {
      const { row, now } = await next()
      pauses.push(row.nextAt - now)
    }
    expect(settled.at(-1)).toMatchObject({ state: 'failed' })
    expect(settled).toHaveLength(10)
    for (const [index, pause] of deliverySchedule.entries()) {
      expect(pauses[index]! / pause).toBeGreaterThanOrEqual(1)
      expect(pauses[index]! / pause).toBeLessThanOrEqual(1.1)
    }
    await outbox.stop(0)
  })

  it.each<readonly [does: string, answer: Parameters<typeof receiver>[0], pauses: readonly number[] | undefined]>([
    ['fails', (_, response) => response.writeHead(500).end(), deliverySchedule],
    ['hangs up', (_, response) => response.destroy(), deliverySchedule],
    ['redirects', (_, response) => response.writeHead(307, { location: '/elsewhere' }).end(), deliverySchedule],
    // A minute is later than the first pause, and earlier than all others.
    [
      'answers 429 with a minute',
      (_, response) => response.writeHead(429, { 'retry-after': '60' }).end(),
      [60_000, ...deliverySchedule.slice(1)],
    ],
    ['answers 410', (_, response) => response.writeHead(410).end(), undefined],
  ])('keeps to the schedule for a receiver that %s, under one id', async (_, answer, pauses) => {
    await using crm = await receiver(answer)
    const signal = AbortSignal.timeout(60_000)
    const { outbox, next, settled } = rig(async (__, id) => {
      const headers = { ...signWebhook(new Secret(secret), id, Date.now(), '{}') }
      checkTaken(await postCallback(crm.url, headers, '{}', { allowPrivate: true, signal }), Date.now())
    })
    const taken: number[] = []
    while (settled.length === 0 || settled.at(-1)!.state === 'pending') {
      const { row, now } = await next()
      if (row.state === 'pending') taken.push(row.nextAt - now)
    }
    expect(settled.at(-1)).toMatchObject({ state: pauses ? 'failed' : 'refused' })
    expect(taken).toHaveLength(pauses?.length ?? 0)
    for (const [index, pause] of (pauses ?? []).entries()) {
      expect(taken[index]! / pause).toBeGreaterThanOrEqual(1)
      expect(taken[index]! / pause).toBeLessThanOrEqual(1.1)
    }
    expect(crm.received.map(({ headers }) => headers['webhook-id'])).toEqual(settled.map(() => 'd1'))
    await outbox.stop(0)
  })

  it('stops at once for a receiver that wants no more', async () => {
    const { outbox, next, settled } = rig(() => {
      throw new DeliveryRefused('410')
    })
    await next()
    expect(settled).toEqual([{ state: 'refused', error: '410' }])
    await outbox.stop(0)
  })

  it('comes again when a receiver says, where that is later than planned, and within a day', async () => {
    const asked = [60, 60, 30 * 86_400].map((seconds) => seconds * 1000)
    const { outbox, next } = rig((attempt) => {
      throw new DeliveryPostponed('429', asked[attempt]!)
    })
    for (const expected of [60_000, 300_000, 86_400_000]) {
      const { row, now } = await next()
      expect((row.nextAt - now) / expected).toBeGreaterThanOrEqual(1)
      expect((row.nextAt - now) / expected).toBeLessThanOrEqual(1.1)
    }
    await outbox.stop(0)
  })

  it('counts a delivery that arrives at last', async () => {
    const { outbox, next, settled } = rig((attempts) => {
      if (attempts < 2) throw new Error('500')
    })
    for (let count = 0; count < 3; count++) await next()
    expect(settled.map(({ state }) => state)).toEqual(['pending', 'pending', 'delivered'])
    await outbox.stop(0)
  })
})
