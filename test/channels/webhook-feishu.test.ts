import { createCipheriv, createHash, randomBytes } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import { decryptFeishu, openFeishu } from '../../channels/webhook/schemes/feishu.ts'
import { Secret } from '../../core/settings.ts'
import { feishu, local } from '../../index.ts'
import { deliverTo, hubBehind, schemeSuite } from '../suites/scheme.ts'
import type { Saying, SchemeSubject, SignedRequest } from '../suites/scheme.ts'
import { eventually } from '../support/eventually.ts'
import { startPlatform } from '../support/platform.ts'
import type { ApiAnswer, ApiCall, FakePlatform, PlatformState } from '../support/platform.ts'

const appSecret = 'secret-of-the-app'
const verificationToken = 'verification-token'
const encryptKey = 'encrypt-key-of-the-app'
const accessToken = 't-first-of-the-tenant'

const encrypt = (text: string, key = encryptKey): string => {
  const iv = randomBytes(16)
  const cipher = createCipheriv('aes-256-cbc', createHash('sha256').update(key).digest(), iv)
  return Buffer.concat([iv, cipher.update(text), cipher.final()]).toString('base64')
}

function sign(text: string, key = encryptKey): SignedRequest {
  const body = JSON.stringify({ encrypt: encrypt(text, key) })
  const signature = createHash('sha256').update(`1700000000nonce${key}${body}`).digest('hex')
  const headers = {
    'content-type': 'application/json',
    'x-lark-request-timestamp': '1700000000',
    'x-lark-request-nonce': 'nonce',
    'x-lark-signature': signature,
  }
  return { headers, body }
}

/** An event of `im.message.receive_v1`, version 2.0. */
const eventOf = ({ id, text, conversation, user }: Saying, message: Record<string, unknown> = {}): string =>
  JSON.stringify({
    schema: '2.0',
    header: {
      event_id: id,
      event_type: 'im.message.receive_v1',
      create_time: '1700000000000',
      token: verificationToken,
      app_id: 'cli_1',
      tenant_key: 't1',
    },
    event: {
      sender: {
        sender_id: { union_id: `on_${user}`, user_id: '', open_id: user },
        sender_type: 'user',
        tenant_key: 't1',
      },
      message: {
        message_id: `om_${conversation}`,
        create_time: '1700000000000',
        chat_id: conversation,
        chat_type: 'p2p',
        message_type: 'text',
        content: JSON.stringify({ text }),
        ...message,
      },
    },
  })

/** The part of Feishu's API that gives out tokens, posts, replies and edits. */
function answer({ method, path, headers, body }: ApiCall, state: PlatformState): ApiAnswer {
  const refusal = (code: number, status = 400) => ({ status, body: { code, msg: 'refused' } })
  if (path === '/open-apis/auth/v3/tenant_access_token/internal') {
    if (body['app_secret'] !== appSecret) return refusal(10_014)
    return { body: { code: 0, msg: 'ok', tenant_access_token: accessToken, expire: 7200 } }
  }
  if (headers.authorization !== `Bearer ${accessToken}`) return refusal(99_991_663)
  const { content, uuid } = body as { content: string; uuid: string }
  const { text } = JSON.parse(content) as { text: string }
  if (Buffer.byteLength(JSON.stringify(body)) > 150_000) return refusal(230_025)
  const known = /^\/open-apis\/im\/v1\/messages\/(?<id>[^/?]+)(?<reply>\/reply)?$/.exec(path)?.groups
  if (method === 'PUT' && known) {
    return state.edit(known['id']!, text) ? { body: { code: 0, msg: 'success', data: {} } } : refusal(230_011)
  }
  if (method !== 'POST' || uuid.length > 50) return refusal(230_001)
  const replyTo = known?.['reply'] ? known['id']! : undefined
  if (replyTo === undefined && path !== '/open-apis/im/v1/messages?receive_id_type=chat_id') return refusal(230_001)
  const conversation = replyTo?.slice('om_'.length) ?? String(body['receive_id'])
  const { id } = state.post({ conversation, text, ...(replyTo === undefined ? {} : { replyTo }) })
  return { body: { code: 0, msg: 'success', data: { message_id: id, msg_type: 'text' } } }
}

let sayings = 0

const options = { appId: 'cli_1', appSecret, verificationToken, editEvery: 20 }

const subject: SchemeSubject = {
  scheme: (baseUrl) => feishu({ ...options, encryptKey, baseUrl }),
  secrets: [appSecret, verificationToken, encryptKey, accessToken],
  start: () => startPlatform(answer, (number) => `om_posted_${number}`),
  saying: (text) => ({ text, id: `event-${++sayings}`, conversation: `oc_${sayings}`, user: `ou_${sayings}` }),
  send: (saying) => sign(eventOf(saying)),
  forge: (saying) => sign(eventOf(saying), 'another key'),
  broken: {
    'no JSON': { ...sign(''), body: '{"encrypt":' },
    'no JSON inside': sign('{"schema":'),
    'no event': sign(JSON.stringify({ token: verificationToken, header: 7 })),
    'no base64': { ...sign(''), body: '{"encrypt":"%%%"}' },
    'half a block': { ...sign(''), body: JSON.stringify({ encrypt: encrypt('{}').slice(0, 30) }) },
    'another token': sign(
      eventOf({ text: 'x', id: 'e', conversation: 'oc', user: 'ou' }).replace(verificationToken, 'x'),
    ),
  },
  posts: ({ method, path }) => method === 'POST' && path.startsWith('/open-apis/im/'),
  tooOften: { status: 400, headers: { 'retry-after': '1' }, body: { code: 230_020, msg: 'frequency limit' } },
  gone: { status: 400, body: { code: 230_002, msg: 'The bot can not be outside the group.' } },
  maxLength: 20_000,
  streams: true,
}

schemeSuite('feishu', subject)

describe('feishu', () => {
  it('decrypts the example that Feishu publishes', () => {
    // "Configure encrypt key", https://open.feishu.cn/document/server-docs/event-subscription-guide/event-subscription-configure-/encrypt-key-encryption-configuration-case
    const published = 'P37w+VZImNgPEO1RBhJ6RtKl7n6zymIbEG1pReEzghk='
    expect(decryptFeishu(published, new Secret('test key')).toString()).toBe('hello world')
    expect(() => decryptFeishu(published, new Secret('another key'))).toThrow('cannot be decrypted')
  })

  it('reads what OpenSSL has encrypted and signed', () => {
    // test/fixtures/webhook/feishu.sh has made it.
    const body =
      '{"encrypt":"AAECAwQFBgcICQoLDA0OD037nUdZfHNE5x6RsUsXBUhoaER1zX+XAtpTWDysWr2338Z5fhNRFXIeOxQjTcFByA=="}'
    const signature = '1110b431bb8f59d1125b4361c7fda93dfeff3012884249f6fa8a874acfca6eba'
    const request = (given: string) => ({
      method: 'POST',
      query: new URLSearchParams(),
      headers: {
        'x-lark-request-timestamp': '1700000000',
        'x-lark-request-nonce': '8dc1c6',
        'x-lark-signature': given,
      },
      body: Buffer.from(body),
    })
    const key = new Secret('encrypt key of the example')
    expect(openFeishu(request(signature), key)).toEqual({ schema: '2.0', text: '你好' })
    expect(() => openFeishu(request(signature.replace('1', 'x')), key)).toThrow()
  })

  it('refuses the signature of another key, also where what that has encrypted can be decrypted', () => {
    const key = new Secret(encryptKey)
    const seemsDecrypted = ({ body }: SignedRequest) => {
      try {
        return decryptFeishu((JSON.parse(String(body)) as { encrypt: string }).encrypt, key).length > 0
      } catch {
        return false
      }
    }
    // The padding is right by chance in one of 256.
    let forged = sign('{}', 'another key')
    while (!seemsDecrypted(forged)) forged = sign('{}', 'another key')
    const request = {
      method: 'POST',
      query: new URLSearchParams(),
      headers: forged.headers ?? {},
      body: Buffer.from(String(forged.body)),
    }
    expect(() => openFeishu(request, key)).toThrow(expect.objectContaining({ code: 'bad_signature' }))
  })

  it('answers the challenge by which Feishu sees that the address is ours, encrypted or not', async () => {
    await using platform = await subject.start()
    const challenge = JSON.stringify({
      challenge: 'ajls384kdjx98XX',
      token: verificationToken,
      type: 'url_verification',
    })
    await using encrypted = await hubBehind(subject, platform)
    // Feishu does not sign it.
    const bare = await deliverTo(encrypted, { body: JSON.stringify({ encrypt: encrypt(challenge) }) })
    expect([bare.status, await bare.json()]).toEqual([200, { challenge: 'ajls384kdjx98XX' }])
    expect((await deliverTo(encrypted, { body: challenge })).status).toBe(401)
    await using plain = await hubBehind({ scheme: (baseUrl) => feishu({ ...options, baseUrl }) }, platform)
    expect(await (await deliverTo(plain, { body: challenge })).json()).toEqual({ challenge: 'ajls384kdjx98XX' })
    expect((await deliverTo(plain, { body: challenge.replace(verificationToken, 'x') })).status).toBe(401)
    expect((await deliverTo(plain, { body: JSON.stringify({ encrypt: encrypt(challenge) }) })).status).toBe(401)
    const event = eventOf(subject.saying('hello'))
    expect((await deliverTo(plain, { body: event })).status).toBe(200)
    await eventually(() => expect(platform.messages.map(({ text }) => text)).toEqual(['hello']))
    // An event that is encrypted and not signed is nobody's.
    expect((await deliverTo(encrypted, { body: JSON.stringify({ encrypt: encrypt(event) }) })).status).toBe(401)
  })

  it('answers where it is called in a group, without its name and with those of others, and rich text', async () => {
    await using platform = await subject.start()
    const asked: string[] = []
    await using hub = await hubBehind(
      subject,
      platform,
      local(({ message }) => {
        asked.push(message.text)
        return 'for <at user_id="all">all</at>'
      }),
    )
    const mentions = [
      { key: '@_user_1', id: { open_id: 'ou_bot' }, name: 'Bot' },
      { key: '@_user_10', id: { open_id: 'ou_2' }, name: 'Bob' },
    ]
    const text = (words: string) => JSON.stringify({ text: words })
    const rich = {
      title: 'T',
      content: [
        [
          { tag: 'at', user_id: '@_user_1' },
          { tag: 'text', text: ' one ' },
          { tag: 'a', href: 'x', text: 'two' },
        ],
      ],
    }
    const messages = [
      { chat_type: 'group', content: text('@_user_1 tell @_user_10 this'), mentions },
      { chat_type: 'group', content: text('@_user_10 nobody else'), mentions: mentions.slice(1) },
      { chat_type: 'group', content: text('among us') },
      { message_type: 'post', content: JSON.stringify(rich), mentions: mentions.slice(0, 1) },
      { message_type: 'image', content: '{"image_key":"x"}' },
      { content: 'no JSON' },
    ]
    for (const message of messages) {
      expect((await deliverTo(hub, sign(eventOf(subject.saying(''), message)))).status).toBe(200)
    }
    const other = eventOf(subject.saying('x')).replace('im.message.receive_v1', 'im.message.message_read_v1')
    expect((await deliverTo(hub, sign(other))).status).toBe(200)
    const ofBot = eventOf(subject.saying('x')).replace('"sender_type":"user"', '"sender_type":"app"')
    expect((await deliverTo(hub, sign(ofBot))).status).toBe(200)
    await eventually(() => expect(platform.messages).toHaveLength(3))
    expect(asked).toEqual(['tell @Bob this', 'nobody else', 'T\n@Bot one two'])
    expect(platform.messages[0]!.text).toBe('for ＜at user_id="all">all＜/at>')
    expect(platform.messages.every(({ conversation, replyTo }) => replyTo === `om_${conversation}`)).toBe(true)
  })

  it('edits a message so seldom that its end can be told in it: Feishu allows twenty times', async () => {
    await using platform = await subject.start()
    const bot = local(async function* () {
      for (let count = 1; count <= 30; count++) {
        yield `${count} `
        if (count <= 16) await eventually(() => expect(platform.shown).toHaveLength(count))
      }
    })
    await using hub = await hubBehind(subject, platform, bot)
    await deliverTo(hub, subject.send(subject.saying('count')))
    await eventually(() => expect(platform.messages[0]?.text).toMatch(/ 30$/))
    // Posted once, edited fifteen times as it streamed, and once to what it says in the end.
    expect(platform.shown).toHaveLength(17)
    expect(platform.messages).toHaveLength(1)
  })

  it('takes one token for all calls, and another when that one is refused', async () => {
    await using platform = await subject.start()
    await using hub = await hubBehind(subject, platform)
    const tokens = (of: FakePlatform) => of.calls.filter(({ path }) => path.includes('tenant_access_token')).length
    await Promise.all(['a', 'b', 'c'].map((text) => deliverTo(hub, subject.send(subject.saying(text)))))
    await eventually(() => expect(platform.messages).toHaveLength(3))
    expect(tokens(platform)).toBe(1)
    platform.interrupt = (call) =>
      subject.posts(call) ? { status: 400, body: { code: 99_991_663, msg: 'x' } } : undefined
    await deliverTo(hub, subject.send(subject.saying('d')))
    await eventually(() => expect(hub.log.some((line) => line['msg'] === 'a delivery failed')).toBe(true))
    platform.interrupt = undefined
    await hub.api('/outbox/retry', {})
    await eventually(() => expect(platform.messages).toHaveLength(4))
    expect(tokens(platform)).toBe(2)
  })

  it('names each message by a key, the same for the same words at the same place', async () => {
    await using platform = await subject.start()
    let refused = 0
    platform.interrupt = (call) => (subject.posts(call) && ++refused === 1 ? { status: 502, body: {} } : undefined)
    await using hub = await hubBehind(subject, platform)
    await deliverTo(hub, subject.send(subject.saying('hello')))
    await eventually(() => expect(hub.log.some((line) => line['msg'] === 'a delivery failed')).toBe(true))
    await hub.api('/outbox/retry', {})
    await eventually(() => expect(platform.messages).toHaveLength(1))
    const keys = platform.calls.filter(subject.posts).map(({ body }) => body['uuid'])
    expect(keys).toEqual([keys[0], keys[0]])
    expect(keys[0]).toMatch(/^\w{32}$/)
  })
})
