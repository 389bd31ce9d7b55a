import { generateKeyPairSync } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import { HubError } from '../../../core/errors.ts'
import { redact } from '../../../core/settings.ts'
import { coze as cozeBot } from '../../../plugins/coze/index.ts'
import { collect, turnOf } from '../../fakes/turn.ts'
import { failure, rig, spoken } from './rig.ts'

const pair = () =>
  generateKeyPairSync('rsa', {
    modulusLength: 2048,
    publicKeyEncoding: { type: 'spki', format: 'pem' },
    privateKeyEncoding: { type: 'pkcs8', format: 'pem' },
  })
const keys = pair()
const app = { appId: '1100000000000000001', publicKeyId: 'fingerprint-1', publicKey: keys.publicKey }
const oauth = { appId: app.appId, publicKeyId: app.publicKeyId, privateKey: keys.privateKey }

const tokenPath = '/api/permission/oauth2/token'
const oauthRig = (more: Parameters<typeof rig>[0] = {}, lifeSeconds = 900, intercept?: Parameters<typeof rig>[2]) =>
  rig({ oauth, ...more }, { oauth: { ...app, lifeSeconds } }, intercept)
type Rig = Awaited<ReturnType<typeof rig>>
const exchanges = (coze: Rig) => coze.requests('POST', tokenPath).length
const ask = (coze: Rig, text = 'Hello', changes = {}) => collect(coze.provider.respond(turnOf(text, changes)))

describe('the token of an OAuth app', () => {
  it('is got with a signed assertion before the first call, and asked to live as long as the config says', async () => {
    await using coze = await oauthRig({ oauth: { ...oauth, durationSeconds: 3600 } })
    const { events, error } = await ask(coze)
    expect(error).toBeUndefined()
    expect(spoken(events)).toContain('Hello')
    expect(coze.simulator.requests.map(({ path }) => path).slice(0, 3)).toEqual([
      tokenPath,
      '/v1/conversation/create',
      '/v3/chat',
    ])
    expect(coze.requests('POST', tokenPath)[0]?.body).toEqual({
      grant_type: 'urn:ietf:params:oauth:grant-type:jwt-bearer',
      duration_seconds: 3600,
    })
  })

  it('is asked for once, however many turns begin at once', async () => {
    await using coze = await oauthRig()
    const all = await Promise.all(Array.from({ length: 20 }, () => ask(coze)))
    expect(all.filter(({ error }) => error === undefined)).toHaveLength(20)
    expect(coze.posts()).toBe(20)
    expect(exchanges(coze)).toBe(1)
  })

  it('is replaced shortly before it runs out, once for all', async () => {
    await using coze = await oauthRig({}, 900)
    await ask(coze)
    coze.pass(800_000)
    await ask(coze)
    expect(exchanges(coze)).toBe(1)
    coze.pass(60_000)
    const all = await Promise.all([ask(coze), ask(coze), ask(coze)])
    expect(all.map(({ error }) => error)).toEqual([undefined, undefined, undefined])
    expect(exchanges(coze)).toBe(2)
  })

  it('that lives shorter than that still serves more than one call', async () => {
    await using coze = await oauthRig({}, 50)
    await ask(coze)
    await ask(coze)
    expect(exchanges(coze)).toBe(1)
  })

  it('that Coze takes back early is replaced at once, and the chat is begun once', async () => {
    await using coze = await oauthRig()
    await ask(coze)
    coze.simulator.revokeTokens()
    const { events, error } = await ask(coze, 'Hello', { thread: { conversationId: await someConversation(coze) } })
    expect(error).toBeUndefined()
    expect(spoken(events)).toContain('Hello')
    expect(exchanges(coze)).toBe(2)
  })

  it('that is refused again and again fails the turn after the second time', async () => {
    await using coze = await oauthRig({}, 900, (url) =>
      url.includes('/v3/chat') ? Response.json({ code: 4101, msg: 'no permission' }) : undefined,
    )
    const { error } = await ask(coze)
    expect(failure(error)).toEqual({ code: 'upstream_auth', notStarted: false, upstream: { code: '4101' } })
    expect(exchanges(coze)).toBe(2)
  })

  it('that is refused inside a stream is another one for the next turn', async () => {
    let refusals = 1
    await using coze = await oauthRig({}, 900, (url) =>
      url.includes('/v3/chat?') && refusals-- > 0
        ? new Response('{"code":4100,"msg":"authentication is invalid"}', {
            headers: { 'content-type': 'text/event-stream' },
          })
        : undefined,
    )
    expect(failure((await ask(coze)).error).code).toBe('upstream_auth')
    expect((await ask(coze)).error).toBeUndefined()
    expect(exchanges(coze)).toBe(2)
  })

  it('cannot be had with another key, which is for the operator to mend', async () => {
    await using coze = await oauthRig({ oauth: { ...oauth, privateKey: pair().privateKey } })
    const { events, error } = await ask(coze)
    expect(failure(error)).toEqual({
      code: 'upstream_auth',
      notStarted: false,
      upstream: { status: 400, code: 'invalid_client' },
    })
    expect(events).toEqual([])
    expect(coze.posts()).toBe(0)
  })

  it.each<[string, () => Response, object]>([
    ['is down', () => new Response('<html>', { status: 502 }), { code: 'upstream_failed', upstream: { status: 502 } }],
    [
      'is busy',
      () => new Response('{"error_code":"busy"}', { status: 429, headers: { 'retry-after': '2' } }),
      { code: 'upstream_rate_limited', upstream: { status: 429, code: 'busy' } },
    ],
    [
      'breaks off',
      () => {
        throw new TypeError('terminated')
      },
      { code: 'upstream_unreachable' },
    ],
    ['says nothing of use', () => new Response('{}'), { code: 'upstream_failed' }],
  ])('may be asked for again when who gives it %s: nothing was started', async (_, answer, expected) => {
    await using coze = await oauthRig({}, 900, (url) => (url.endsWith(tokenPath) ? answer() : undefined))
    const { error } = await ask(coze)
    expect(failure(error)).toMatchObject({ notStarted: true, ...expected })
    expect(coze.posts()).toBe(0)
  })

  it('serves to its end when no other can be had', async () => {
    let down = false
    await using coze = await oauthRig({}, 900, (url) =>
      down && url.endsWith(tokenPath) ? new Response('', { status: 503 }) : undefined,
    )
    await ask(coze)
    down = true
    coze.pass(870_000)
    expect((await ask(coze)).error).toBeUndefined()
    coze.pass(40_000)
    expect(failure((await ask(coze)).error)).toMatchObject({ notStarted: true })
  })

  it('is still got for the others when a turn that waits for it is stopped', async () => {
    await using coze = await oauthRig()
    const reason = new HubError('cancelled')
    const stopping = new AbortController()
    const stopped = ask(coze, 'Hello', { signal: stopping.signal })
    const other = ask(coze)
    stopping.abort(reason)
    expect((await stopped).error).toBe(reason)
    expect((await other).error).toBeUndefined()
    expect(exchanges(coze)).toBe(1)
  })

  it('is taken out of every text while it lives', async () => {
    await using coze = await oauthRig()
    await ask(coze)
    const tokens = coze.simulator.tokens()
    expect(tokens.map((token) => redact(`the token is ${token}.`))).toEqual(['the token is [secret].'])
  })
})

async function someConversation(coze: Rig): Promise<string> {
  const response = await fetch(`${coze.simulator.url}/v1/conversation/create`, {
    method: 'POST',
    headers: { authorization: `Bearer ${coze.simulator.token}` },
    body: '{}',
  })
  const { data } = (await response.json()) as { data: { id: string } }
  return data.id
}

describe('the options of the token', () => {
  const problems = (options: Parameters<typeof cozeBot>[0]) =>
    cozeBot()
      .schema.safeParse(options)
      .error?.issues.map(({ path, message }) => `${path.join('.')}: ${message}`)

  it('are one of two', () => {
    expect(problems({ botId: '7', oauth, token: 'pat_x' })).toEqual([expect.stringContaining('oauth: stands in')])
    expect(problems({ botId: '7', oauth })).toBeUndefined()
  })

  it('want a private key that is one', () => {
    const ec = generateKeyPairSync('ec', {
      namedCurve: 'P-256',
      privateKeyEncoding: { type: 'pkcs8', format: 'pem' },
      publicKeyEncoding: { type: 'spki', format: 'pem' },
    })
    for (const privateKey of ['nonsense', keys.publicKey, ec.privateKey]) {
      expect(problems({ botId: '7', oauth: { ...oauth, privateKey } })).toEqual([
        expect.stringMatching(/^oauth\.privateKey: must be an RSA private key/),
      ])
    }
  })

  it('name the account a token is for', async () => {
    await using coze = await oauthRig({ oauth: { ...oauth, accountId: '42' } })
    expect((await ask(coze)).error).toBeUndefined()
    expect(coze.requests('POST', '/api/permission/oauth2/account/42/token')).toHaveLength(1)
  })
})
