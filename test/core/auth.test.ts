import type { webcrypto } from 'node:crypto'
import { once } from 'node:events'
import { exportJWK, generateKeyPair, SignJWT, exportSPKI } from 'jose'
import { describe, expect, it } from 'vitest'
import type { HubEvent } from '../../index.ts'
import {
  apiKey,
  checkConfig,
  consent,
  defineConfig,
  defineProvider,
  echo,
  jwt,
  local,
  rest,
  sse,
  websocket,
} from '../../index.ts'
import { z } from 'zod'
import type { TestHub } from '../support/hub.ts'
import { jsonOf, readEvents, startHub } from '../support/hub.ts'
import { startUpstream } from '../support/upstream.ts'

const keyA = 'canary-key-of-a-0123'
const keyB = 'canary-key-of-b-0123'
const bearer = (key: string) => ({ authorization: `Bearer ${key}` })

/** Asks before it says anything. */
const asking = local(async function* (turn): AsyncGenerator<string | HubEvent> {
  if (turn.answers) yield 'allowed'
  else yield { type: 'consent.requested', calls: [{ call: 'c1', tool: 'mail', input: {}, alreadyAllowed: false }] }
})
/** Tells whom it talks to. */
const who = local(({ principal }) => JSON.stringify([principal.key, principal.user ?? null]))
const filing = defineProvider({
  manifest: { name: 'filing', files: true },
  options: z.strictObject({}),
  create: () => ({
    async *respond({ message }) {
      yield { type: 'message.delta', message: 'm', text: message.files.map((file) => file.name).join() }
    },
    async upload({ stream }) {
      for await (const _ of stream) continue
      return 'upstream'
    },
  }),
})

const closed = () =>
  startHub({
    auth: [
      apiKey({ name: 'a', key: keyA, bots: ['echo', 'asking', 'who', 'filing'] }),
      apiKey({ name: 'b', key: keyB, trusted: true }),
      (request) => (request.headers['x-guest'] ? { key: 'guest', bots: ['echo'] } : undefined),
    ],
    bots: { echo: echo(), asking, who, filing: filing(), hidden: echo() },
  })

describe('a key that could be guessed', () => {
  it('is named where people read it, and never shown', async () => {
    const auth = [
      apiKey({ name: 'narrow', key: 'fifteen-letters' }),
      apiKey({ name: 'wide', key: 'sixteen-letters!' }),
      jwt({ secret: 'short' }),
    ]
    await using hub = await startHub({ auth, bots: { echo: echo() } })
    expect(hub.hub.notices).toEqual([expect.stringMatching(/"narrow" has fewer than 16 .* openssl rand/)])
    expect(hub.hub.notices.join()).not.toContain('fifteen-letters')
  })
})

describe('who is let in', () => {
  it('refuses a request without a key, and one with a wrong one, which it writes down', async () => {
    await using hub = await closed()
    for (const [headers, message] of [
      [{}, 'Send a key of this hub'],
      [bearer('canary-wrong-key-x'), 'does not know the key or token that was sent'],
      [{ 'x-api-key': 'canary-wrong-key-x' }, 'does not know the key or token that was sent'],
      [{ authorization: 'Basic eA==' }, 'Send a key of this hub'],
    ] as const) {
      const response = await hub.api('/bots', undefined, headers)
      expect(response.status).toBe(401)
      expect(response.headers.get('www-authenticate')).toBe('Bearer')
      expect(await response.json()).toMatchObject({
        error: { code: 'unauthorized', message: expect.stringContaining(message) },
      })
    }
    expect((await fetch(`${hub.url}/healthz`)).status).toBe(200)
    await hub.hub.stop(0)
    expect(hub.log).toContainEqual(
      expect.objectContaining({ audit: true, msg: 'credential refused', count: 2, why: 'wrong key or token' }),
    )
    expect(JSON.stringify(hub.log)).not.toContain('canary')
  })

  it('takes a key in either header, and asks the next authenticator when one does not know the caller', async () => {
    await using hub = await closed()
    for (const [headers, key] of [
      [bearer(keyA), 'a'],
      [{ 'x-api-key': keyA }, 'a'],
      [bearer(keyB), 'b'],
    ] as const) {
      const response = await hub.api('/bots/who/messages', { text: 'x' }, headers)
      expect(JSON.parse((await jsonOf<{ text: string }>(response)).text)).toEqual([key, null])
    }
    const guest = await hub.api('/bots', undefined, { 'x-guest': '1' })
    expect(await guest.json()).toMatchObject({ bots: [{ bot: 'echo' }] })
  })

  it('lets only a trusted key say for whom it asks', async () => {
    await using hub = await closed()
    const users = async (key: string) => {
      const ways: [string, Record<string, unknown>, Record<string, string>][] = [
        ['', { user: 'ada' }, {}],
        ['?user=ada', {}, {}],
        ['', {}, { 'x-hub-user': 'ada' }],
      ]
      const seen = []
      for (const [query, body, headers] of ways) {
        const response = await hub.api(
          `/bots/who/messages${query}`,
          { text: 'x', ...body },
          { ...bearer(key), ...headers },
        )
        seen.push((JSON.parse((await jsonOf<{ text: string }>(response)).text) as unknown[])[1])
      }
      return seen
    }
    expect(await users(keyB)).toEqual(['ada', 'ada', 'ada'])
    expect(await users(keyA)).toEqual([null, null, null])
  })

  it('shows a key only the bots it may use', async () => {
    await using hub = await closed()
    const listed = await jsonOf<{ bots: { bot: string }[] }>(await hub.api('/bots', undefined, bearer(keyA)))
    expect(listed.bots.map(({ bot }) => bot)).toEqual(['echo', 'asking', 'who', 'filing'])
    const hidden = await hub.api('/bots/hidden/messages', { text: 'x' }, bearer(keyA))
    expect(hidden.status).toBe(404)
    expect(await hidden.text()).not.toContain('"hidden"?')
  })

  it('refuses a bypass of consent to a key without that right', async () => {
    await using hub = await closed()
    const response = await hub.api('/bots/asking/messages', { text: 'x', bypassConsent: true }, bearer(keyB))
    expect(response.status).toBe(403)
    expect(await response.json()).toMatchObject({ error: { code: 'bypass_forbidden' } })
  })
})

describe('tokens', () => {
  const sign = async (
    claims: Record<string, unknown>,
    key: webcrypto.CryptoKey | Uint8Array,
    alg = 'RS256',
    kid?: string,
  ) => new SignJWT(claims).setProtectedHeader({ alg, ...(kid ? { kid } : {}) }).sign(key)

  it('make their subject the key and the user, whichever way they are checked', async () => {
    const { publicKey, privateKey } = await generateKeyPair('RS256', { extractable: true })
    const jwks = JSON.stringify({ keys: [{ ...(await exportJWK(publicKey)), kid: 'k', alg: 'RS256' }] })
    await using issuer = await startUpstream((_, response) => response.end(jwks))
    const secret = 'canary-shared-secret-of-the-issuer-0'
    const pem = await exportSPKI(publicKey)
    for (const [auth, token] of [
      [jwt({ jwks: issuer.url, audience: 'hub' }), await sign({ sub: 'ada', aud: 'hub' }, privateKey, 'RS256', 'k')],
      [jwt({ publicKey: pem, audience: 'hub' }), await sign({ sub: 'ada', aud: 'hub' }, privateKey)],
      [
        jwt({ secret, audience: 'hub' }),
        await sign({ sub: 'ada', aud: 'hub' }, new TextEncoder().encode(secret), 'HS256'),
      ],
    ] as const) {
      await using hub = await startHub({ auth: [auth], bots: { who } })
      const response = await hub.api('/bots/who/messages?user=eve', { text: 'x' }, bearer(token))
      expect(JSON.parse((await jsonOf<{ text: string }>(response)).text)).toEqual(['jwt:ada', 'ada'])
    }
  })

  it('are refused when they are expired, for somebody else, without a subject, unsigned or signed by another', async () => {
    const { publicKey, privateKey } = await generateKeyPair('RS256', { extractable: true })
    const other = await generateKeyPair('RS256')
    const pem = await exportSPKI(publicKey)
    await using hub = await startHub({ auth: [jwt({ publicKey: pem, audience: 'hub', issuer: 'me' })], bots: { who } })
    const good = { sub: 'ada', aud: 'hub', iss: 'me' }
    const part = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64url')
    const tokens = [
      await sign({ ...good, exp: 1 }, privateKey),
      await sign({ ...good, aud: 'elsewhere' }, privateKey),
      await sign({ ...good, iss: 'eve' }, privateKey),
      await sign({ aud: 'hub', iss: 'me' }, privateKey),
      await sign(good, other.privateKey),
      // The public key taken for the secret of HS256.
      await sign(good, new TextEncoder().encode(pem), 'HS256'),
      `${part({ alg: 'none' })}.${part(good)}.`,
      'a.b.c',
    ]
    const statuses = []
    for (const token of tokens) statuses.push((await hub.api('/bots', undefined, bearer(token))).status)
    expect(statuses).toEqual(tokens.map(() => 401))
    expect((await hub.api('/bots', undefined, bearer(await sign(good, privateKey)))).status).toBe(200)
  })

  it('cannot be checked while the key server is away: 503, not 401', async () => {
    const { privateKey } = await generateKeyPair('RS256')
    await using issuer = await startUpstream((request) => request.socket.destroy())
    await using hub = await startHub({ auth: [jwt({ jwks: issuer.url })], bots: { who } })
    const response = await hub.api('/bots', undefined, bearer(await sign({ sub: 'ada' }, privateKey, 'RS256', 'k')))
    expect(response.status).toBe(503)
    expect(await response.json()).toMatchObject({ error: { code: 'auth_unavailable' } })
  })
})

describe('what belongs to one key is 404 to another', () => {
  const request = (hub: TestHub, key: string, path: string, init: { method?: string; body?: string } = {}) =>
    fetch(`${hub.url}/api/v1${path}`, {
      ...init,
      headers: { ...bearer(key), 'content-type': 'application/json' },
    })

  it('over REST and SSE: turns, events, cancels, consents, outputs, conversations, files and deletions', async () => {
    await using hub = await closed()
    const turn = await jsonOf<{ turn: string; status: string }>(
      await hub.api('/bots/asking/messages', { text: 'x', conversation: 'mine' }, bearer(keyA)),
    )
    expect(turn.status).toBe('waiting')
    const form = new FormData()
    form.set('conversation', 'mine')
    form.set('file', new Blob(['abc']), 'a.txt')
    const upload = await fetch(`${hub.url}/api/v1/bots/filing/files`, {
      method: 'POST',
      body: form,
      headers: bearer(keyA),
    })
    const file = await jsonOf<{ id: string; bytes: number }>(upload)
    expect([upload.status, file.bytes]).toEqual([201, 3])
    const { items } = await jsonOf<{ items: { id: string }[] }>(
      await hub.api('/bots/asking/conversations', undefined, bearer(keyA)),
    )
    const id = items[0]!.id
    expect(id).toMatch(/^conv_/)

    const post = (body: unknown) => ({ method: 'POST', body: JSON.stringify(body) })
    const attempts: [string, { method?: string; body?: string }?][] = [
      [`/turns/${turn.turn}`],
      [`/turns/${turn.turn}/events`],
      [`/turns/${turn.turn}/cancel`, post({})],
      [`/turns/${turn.turn}/consent`, post({ decisions: [{ call: 'c1', result: 'allow_once' }] })],
      [`/turns/${turn.turn}/tool-outputs`, post({ outputs: [{ call: 'c1', output: 1 }] })],
      ['/bots/asking/conversations/mine/messages'],
      [`/bots/asking/conversations/${id}/messages`],
      [`/bots/asking/conversations/${id}`, { method: 'DELETE' }],
      ['/bots/asking/messages', post({ text: 'y', conversation: id })],
      ['/bots/filing/messages', post({ text: 'y', conversation: 'mine', files: [file.id] })],
    ]
    for (const [path, init] of attempts) {
      const response = await request(hub, keyB, path, init)
      expect([path, response.status]).toEqual([path, 404])
      expect(await response.json()).toMatchObject({ error: { code: expect.stringMatching(/^unknown_/) } })
    }
    expect(await (await request(hub, keyB, '/bots/asking/conversations')).json()).toEqual({ items: [] })

    // Nothing of it did anything, and its owner may do all of it.
    const decided = await request(
      hub,
      keyA,
      `/turns/${turn.turn}/consent`,
      post({ decisions: [{ call: 'c1', result: 'allow_once' }] }),
    )
    expect(await decided.json()).toMatchObject({ status: 'completed', text: 'allowed' })
    const sent = await request(
      hub,
      keyA,
      '/bots/filing/messages',
      post({ text: 'y', conversation: 'mine', files: [file.id] }),
    )
    expect(await sent.json()).toMatchObject({ text: 'a.txt' })
    expect((await readEvents(await request(hub, keyA, `/turns/${turn.turn}/events`))).at(-1)).toMatchObject({
      type: 'turn.completed',
    })
  })

  it('over WebSocket: resume, cancel and consent', async () => {
    await using hub = await closed()
    const { turn } = await jsonOf<{ turn: string }>(await hub.api('/bots/asking/messages', { text: 'x' }, bearer(keyA)))
    const { WebSocket } = await import('ws')
    const refused = new WebSocket(`${hub.url.replace('http', 'ws')}/api/v1/ws`, { headers: bearer('key-of-nobody') })
    const [, response] = (await once(refused, 'unexpected-response')) as [unknown, { statusCode: number }]
    expect(response.statusCode).toBe(401)
    const socket = new WebSocket(`${hub.url.replace('http', 'ws')}/api/v1/ws`, { headers: bearer(keyB) })
    await once(socket, 'open')
    for (const frame of [
      { type: 'resume', turn },
      { type: 'cancel', turn },
      { type: 'consent', turn, decisions: [{ call: 'c1', result: 'allow_once' }] },
    ]) {
      socket.send(JSON.stringify(frame))
      const [data] = (await once(socket, 'message')) as [Buffer]
      expect(JSON.parse(data.toString())).toMatchObject({ type: 'error', code: 'unknown_turn' })
    }
    socket.close()
    expect(await (await hub.api(`/turns/${turn}`, undefined, bearer(keyA))).json()).toMatchObject({ status: 'waiting' })
  })

  it('though both chose the same names, and the same message id', async () => {
    await using hub = await closed()
    const send = async (key: string, text: string, user?: string) =>
      jsonOf<{ turn: string; text: string }>(
        await hub.api(
          '/bots/echo/messages',
          { text, conversation: '1', id: 'm1', ...(user ? { user } : {}) },
          bearer(key),
        ),
      )
    const turns = [await send(keyA, 'of a'), await send(keyB, 'of b'), await send(keyB, 'of ada', 'ada')]
    expect(turns.map((turn) => turn.text)).toEqual(['of a', 'of b', 'of ada'])
    expect(new Set(turns.map((turn) => turn.turn)).size).toBe(3)
  })
})

describe('without auth', () => {
  it('ignores any credential and refuses a Host that is neither loopback nor its own', async () => {
    await using hub = await startHub({ bots: { who } })
    expect((await hub.api('/bots', undefined, bearer('anything'))).status).toBe(200)
    const { request } = await import('node:http')
    const status = async (host: string) => {
      const sent = request(`${hub.url}/api/v1/bots`, { headers: { host } }).end()
      const [response] = (await once(sent, 'response')) as [{ statusCode: number; resume(): void }]
      response.resume()
      return response.statusCode
    }
    expect(await status('evil.example:9527')).toBe(403)
    expect([await status('localhost:1'), await status('127.0.0.1'), await status('[::1]:9')]).toEqual([200, 200, 200])
  })

  it('answers pages of loopback origins and its own, with it only of its own and those it was told', async () => {
    const allowed = async (hub: TestHub, origin: string, headers = {}) =>
      (await hub.api('/bots', undefined, { origin, ...headers })).headers.get('access-control-allow-origin')
    await using open = await startHub({ bots: { who } })
    expect(await allowed(open, 'http://localhost:5173')).toBe('http://localhost:5173')
    expect(await allowed(open, 'https://evil.example')).toBeNull()
    await using told = await startHub({
      auth: [apiKey({ name: 'a', key: keyA })],
      bots: { who },
      channels: { rest: rest({ origins: ['https://www.example.com'] }), sse: sse(), ws: websocket() },
    })
    expect(await allowed(told, 'http://localhost:5173', bearer(keyA))).toBeNull()
    expect(await allowed(told, 'https://www.example.com', bearer(keyA))).toBe('https://www.example.com')
    const preflight = await fetch(`${told.url}/api/v1/bots`, {
      method: 'OPTIONS',
      headers: {
        origin: 'https://www.example.com',
        'access-control-request-method': 'GET',
        'access-control-request-headers': 'authorization',
      },
    })
    expect([preflight.status, preflight.headers.get('access-control-allow-headers')]).toEqual([204, 'authorization'])
  })
})

describe('the audit log', () => {
  it('keeps consent decisions, bypasses, deletions and refused credentials in a table', async () => {
    await using hub = await startHub({
      auth: [apiKey({ name: 'a', key: keyA, bypassConsent: true })],
      bots: { asking, free: { provider: asking, use: [consent({ bypass: ['*'] })] } },
    })
    const { turn } = await jsonOf<{ turn: string }>(
      await hub.api('/bots/asking/messages', { text: 'x', conversation: 'c' }, bearer(keyA)),
    )
    await hub.api(`/turns/${turn}/consent`, { decisions: [{ call: 'c1', result: 'deny_once' }] }, bearer(keyA))
    await hub.api('/bots/asking/messages', { text: 'x', bypassConsent: true }, bearer(keyA))
    await hub.api('/bots/free/messages', { text: 'x' }, bearer(keyA))
    await fetch(`${hub.url}/api/v1/bots/asking/conversations/c`, { method: 'DELETE', headers: bearer(keyA) })
    await hub.api('/bots', undefined, bearer('canary-wrong-key-x'))
    const { items } = await hub.hub.audit.page({ limit: 50 })
    expect(items.map(({ what, by, bot }) => [what, by, bot])).toEqual([
      ['consent decided', 'a', 'asking'],
      ['consent bypassed', 'a', 'asking'],
      // Once for the switch, and once for the pause of a bot that does not heed it.
      ['consent bypassed', 'policy', 'free'],
      ['consent bypassed', 'policy', 'free'],
      ['conversation deleted', 'a', 'asking'],
      ['credential refused', 'unknown', undefined],
    ])
    expect(items[0]).toMatchObject({ turn, details: { decisions: [{ call: 'c1', result: 'deny_once' }] } })
    expect(JSON.stringify(items)).not.toContain('canary')
  })
})

describe('a config with auth', () => {
  it('may listen beyond loopback', () => {
    const config = { bots: { who }, channels: { rest: rest() }, listen: { host: '0.0.0.0' } }
    expect(() => checkConfig(defineConfig(config))).toThrow(/reachable from other machines/)
    expect(() => checkConfig(defineConfig({ ...config, auth: [apiKey({ name: 'a', key: keyA })] }))).not.toThrow()
  })

  it('names what is wrong with its keys', () => {
    const auth = [
      apiKey({ name: 'a', key: keyA, bots: ['woh'] as never[] }),
      apiKey({ name: 'a', key: keyB }),
      apiKey({ name: 'local', key: keyB }),
      jwt({ issuer: 'me' }),
    ]
    expect(() => checkConfig(defineConfig({ bots: { who }, channels: { rest: rest() }, auth }))).toThrow(
      /there is no bot called "woh"; did you mean "who"[^]*name "a" is taken[^]*"local" is the key of a hub without auth[^]*needs one of `jwks`, `publicKey` and `secret`/,
    )
  })
})

describe('auth of a config written without types', () => {
  it.each([[true], [{ key: 5, admin: true }], [{ key: '' }], ['ada']])(
    'lets nobody in by mistake where its function gives %j',
    async (given) => {
      await using hub = await startHub({ auth: [() => given as never], bots: { who } })
      const answer = await hub.api('/bots')
      expect([answer.status, await answer.json()]).toMatchObject([500, { error: { code: 'internal' } }])
    },
  )

  it('says which public key it cannot read', async () => {
    const starting = startHub({ auth: [jwt({ publicKey: 'no PEM' })], bots: { who } })
    await expect(starting).rejects.toMatchObject({
      code: 'config_invalid',
      message: expect.stringContaining('`publicKey` must be a public key in PEM (SPKI) that is good for RS256'),
    })
  })
})
