import { createCipheriv, createHash, randomBytes } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import { openWecom } from '../../channels/webhook/schemes/wecom.ts'
import { Secret } from '../../core/settings.ts'
import { checkConfig, defineConfig, echo, local, webhook, wecom } from '../../index.ts'
import { deliverTo, hubBehind, schemeSuite } from '../suites/scheme.ts'
import type { Saying, SchemeSubject, SignedRequest } from '../suites/scheme.ts'
import { eventually } from '../support/eventually.ts'
import { startPlatform } from '../support/platform.ts'
import type { ApiAnswer, ApiCall, PlatformState } from '../support/platform.ts'

const corpId = 'ww0123456789abcdef'
const secret = 'secret-of-the-app'
const token = 'token-of-the-callback'
const encodingAesKey = 'jWmYm7qr5nMoAUwZRjGtBxmz3KA1tkAj3ykkR6q2B2C'
const accessToken = 'access-token-of-the-app'

function encrypt(message: string, receiver = corpId): string {
  const key = Buffer.from(`${encodingAesKey}=`, 'base64')
  const length = Buffer.alloc(4)
  length.writeUInt32BE(Buffer.byteLength(message))
  const plain = Buffer.concat([randomBytes(16), length, Buffer.from(message + receiver)])
  const padding = 32 - (plain.length % 32)
  const cipher = createCipheriv('aes-256-cbc', key, key.subarray(0, 16)).setAutoPadding(false)
  return Buffer.concat([cipher.update(plain), cipher.update(Buffer.alloc(padding, padding)), cipher.final()]).toString(
    'base64',
  )
}

const queryFor = (encrypted: string, given = token, more: Readonly<Record<string, string>> = {}): string => {
  const signed = [given, '1700000000', '372623149', encrypted].toSorted().join('')
  const signature = createHash('sha1').update(signed).digest('hex')
  return String(new URLSearchParams({ msg_signature: signature, timestamp: '1700000000', nonce: '372623149', ...more }))
}

function sign(message: string, { given = token, receiver = corpId } = {}): SignedRequest {
  const encrypted = encrypt(message, receiver)
  return {
    query: queryFor(encrypted, given),
    headers: { 'content-type': 'text/xml' },
    body: `<xml><ToUserName><![CDATA[${corpId}]]></ToUserName><Encrypt><![CDATA[${encrypted}]]></Encrypt><AgentID><![CDATA[218]]></AgentID></xml>`,
  }
}

const messageOf = ({ id, text, user }: Saying): string =>
  `<xml><ToUserName><![CDATA[${corpId}]]></ToUserName><FromUserName><![CDATA[${user}]]></FromUserName>` +
  `<CreateTime>1700000000</CreateTime><MsgType><![CDATA[text]]></MsgType><Content><![CDATA[${text}]]></Content>` +
  `<MsgId>${id}</MsgId><AgentID>218</AgentID></xml>`

/** The part of WeCom's API that gives out tokens and sends. */
function answer({ method, path, body }: ApiCall, state: PlatformState): ApiAnswer {
  const { pathname, searchParams } = new URL(path, 'http://wecom')
  const refusal = (errcode: number) => ({ body: { errcode, errmsg: `refused, from ip: 1.2.3.4, ${path}` } })
  if (method === 'GET' && pathname === '/cgi-bin/gettoken') {
    if (searchParams.get('corpid') !== corpId || searchParams.get('corpsecret') !== secret) return refusal(40_001)
    return { body: { errcode: 0, errmsg: 'ok', access_token: accessToken, expires_in: 7200 } }
  }
  if (pathname !== '/cgi-bin/message/send' || method !== 'POST') return refusal(404)
  if (searchParams.get('access_token') !== accessToken) return refusal(40_014)
  const { touser, agentid, text } = body as { touser: string; agentid: number; text: { content: string } }
  if (agentid !== 218) return refusal(40_056)
  if (Buffer.byteLength(text.content) > 2048) return refusal(45_002)
  const { id } = state.post({ conversation: touser, text: text.content })
  return { body: { errcode: 0, errmsg: 'ok', msgid: id } }
}

let sayings = 0

const options = { corpId, agentId: 218, secret, token, encodingAesKey }

const subject: SchemeSubject = {
  scheme: (baseUrl) => wecom({ ...options, baseUrl }),
  secrets: [secret, token, encodingAesKey, accessToken],
  start: () => startPlatform(answer),
  saying: (text) => {
    const user = `member-${++sayings}`
    return { text, id: `456125535425134${sayings + 1000}`, conversation: user, user }
  },
  send: (saying) => sign(messageOf(saying)),
  forge: (saying) => sign(messageOf(saying), { given: 'another-token' }),
  broken: {
    'no XML': { query: queryFor(''), body: 'garbage' },
    'no XML inside': sign('garbage'),
    'half of XML': { query: queryFor(''), body: '<xml><Encrypt>' },
    'an entity': { query: queryFor(''), body: '<!DOCTYPE x [<!ENTITY e "x">]><xml><Encrypt>&e;</Encrypt></xml>' },
    'nothing in it': { query: queryFor(''), body: '<xml></xml>' },
    'nothing encrypted': { query: queryFor('%%%'), body: '<xml><Encrypt>%%%</Encrypt></xml>' },
    'another company': sign(messageOf({ text: 'x', id: '1', conversation: 'u', user: 'u' }), { receiver: 'ww_other' }),
    'no signature': { body: '<xml><Encrypt>x</Encrypt></xml>' },
  },
  posts: ({ path }) => path.startsWith('/cgi-bin/message/send'),
  // WeCom itself does not say for how long; what stands before it may.
  tooOften: { headers: { 'retry-after': '1' }, body: { errcode: 45_009, errmsg: 'reach max api daily quota limit' } },
  gone: { body: { errcode: 0, errmsg: 'ok', invaliduser: 'member' } },
  maxLength: 2048,
  measure: (text) => Buffer.byteLength(text),
  streams: false,
}

schemeSuite('wecom', subject)

describe('wecom', () => {
  it('reads the examples that WeCom publishes', () => {
    // Sample.cpp and its siblings, https://developer.work.weixin.qq.com/document/path/90307
    const keys = {
      token: new Secret('QDG6eK'),
      encodingAesKey: new Secret('jWmYm7qr5nMoAUwZRjGtBxmz3KA1tkAj3ykkR6q2B2C'),
      corpId: 'wx5823bf96d3bd56c7',
    }
    const echoed = 'P9nAzCzyDtyTWESHep1vC5X9xho/qYX3Zpb4yKa9SKld1DsH3Iyt3tP3zNdtp+4RPcs8TgAE7OaBO+FZXvnaqQ=='
    const asked = new URLSearchParams({
      msg_signature: '5c45ff5e21c57e6ad56bac8758b79b1d9ac89fd3',
      timestamp: '1409659589',
      nonce: '263014780',
    })
    expect(openWecom({ query: asked }, echoed, keys)).toBe('1616140317555161061')
    const encrypted =
      'RypEvHKD8QQKFhvQ6QleEB4J58tiPdvo+rtK1I9qca6aM/wvqnLSV5zEPeusUiX5L5X/0lWfrf0QADHHhGd3QczcdCUpj911L3vg3W/sYYvuJTs3TUUk' +
      'SUXxaccAS0qhxchrRYt66wiSpGLYL42aM6A8dTT+6k4aSknmPj48kzJs8qLjvd4Xgpue06DOdnLxAUHzM6+kDZ+HMZfJYuR+LtwGc2hgf5gsijff0ekU' +
      'NXZiqATP7PF5mZxZ3Izoun1s4zG4LUMnvw2r+KqCKIw+3IQH03v+BCA9nMELNqbSf6tiWSrXJB3LAVGUcallcrw8V2t9EL4EhzJWrQUax5wLVMNS0+rU' +
      'PA3k22Ncx4XXZS9o0MBH27Bo6BpNelZpS+/uh9KsNlY6bHCmJU9p8g7m3fVKn28H3KDYA5Pl/T8Z1ptDAVe0lXdQ2YoyyH2uyPIGHBZZIs2pDBS8R07+' +
      'qN+E7Q=='
    const sent = new URLSearchParams({
      msg_signature: '477715d11cdb4164915debcba66cb864d751f3e6',
      timestamp: '1409659813',
      nonce: '1372623149',
    })
    expect(openWecom({ query: sent }, encrypted, keys)).toContain('<Content><![CDATA[hello]]></Content>')
    sent.set('nonce', '1372623148')
    expect(() => openWecom({ query: sent }, encrypted, keys)).toThrow()
    expect(() => openWecom({ query: asked }, echoed, { ...keys, corpId: 'wx5823bf96d3bd56c8' })).toThrow()
  })

  it('reads what Python and OpenSSL have encrypted and signed', () => {
    // From test/fixtures/webhook/wecom.py.
    const encrypted =
      '4j/AuRx71kQlxVlzbpsMWKW8eWmBErQqdy7giESpeDWwfcmAkid/5V5f6Lmjxkf+4fl4A2d9JRURdIGJefw/A12MerNBBOPxLR1IVg2U2Bmvxq' +
      '3Q8lOhbIBedUNXAhXQNiPRQkJQGLVPNcHTkIT2K5T5DMAOLif2blN+/AEGzdcyf4wZbeYKCOw0dspdSzPvD6F7vQgQlDBkAteXQLauAAjm8edQ' +
      'PepDNgeaYmvx5Rt0yf7cyxH7fz8C2xXtl4u/Yzahq5DZh6c/hPAY5KdWBrzrBmOZHBP01tfu03bLVQY='
    const query = new URLSearchParams({
      msg_signature: '6dbbd8aa7faf429e7ce2e5e0580800f3e675cd1f',
      timestamp: '1700000000',
      nonce: '372623149',
    })
    const given = new Secret('AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8')
    const keys = { token: new Secret('token-of-the-example'), encodingAesKey: given, corpId }
    expect(openWecom({ query }, encrypted, keys)).toContain(
      '<![CDATA[你好 <b> & ]]></Content><MsgId>9223372036854775807<',
    )
  })

  it('shows WeCom that the address is ours, when it comes by GET', async () => {
    await using platform = await subject.start()
    await using hub = await hubBehind(subject, platform)
    const echostr = encrypt('1616140317555161061')
    const response = await deliverTo(hub, { method: 'GET', query: queryFor(echostr, token, { echostr }) })
    expect([response.status, await response.text()]).toEqual([200, '1616140317555161061'])
    for (const query of [
      queryFor(echostr, 'another-token', { echostr }),
      queryFor(''),
      queryFor('', token, { echostr }),
      '',
    ]) {
      expect((await deliverTo(hub, { method: 'GET', query })).status).toBe(401)
    }
  })

  it('ignores what is no text, and takes texts as they are', async () => {
    await using platform = await subject.start()
    const asked: string[] = []
    await using hub = await hubBehind(
      subject,
      platform,
      local(({ message }) => {
        asked.push(message.text)
        return 'yes'
      }),
    )
    const said = subject.saying(' 1 <b> &amp; \n2')
    for (const message of [
      messageOf(subject.saying('x')).replace('[CDATA[text]', '[CDATA[event]'),
      messageOf(subject.saying('x')).replace('<MsgId>', '<Other>').replace('</MsgId>', '</Other>'),
      messageOf(said),
    ]) {
      const response = await deliverTo(hub, sign(message))
      expect([response.status, await response.text()]).toEqual([200, ''])
    }
    await eventually(() => expect(platform.messages).toMatchObject([{ text: 'yes', conversation: said.user }]))
    expect(asked).toEqual([said.text])
  })

  it('takes another token when one is refused', async () => {
    await using platform = await subject.start()
    await using hub = await hubBehind(subject, platform)
    platform.interrupt = (call) => (subject.posts(call) ? { body: { errcode: 42_001, errmsg: 'expired' } } : undefined)
    await deliverTo(hub, subject.send(subject.saying('hello')))
    await eventually(() => expect(hub.log.some((line) => line['msg'] === 'a delivery failed')).toBe(true))
    platform.interrupt = undefined
    await hub.api('/outbox/retry', {})
    await eventually(() => expect(platform.messages).toHaveLength(1))
    expect(platform.calls.filter(({ path }) => path.startsWith('/cgi-bin/gettoken'))).toHaveLength(2)
  })

  it('has its options checked with the rest of the config', () => {
    const check = (more: object) => () =>
      checkConfig(
        defineConfig({
          bots: { bot: echo() },
          channels: { chat: webhook({ bot: 'bot', scheme: wecom({ ...options, ...more }) }) },
        }),
      )
    expect(check({ agentId: '218' })).not.toThrow()
    expect(check({ agentId: 'support' })).toThrow('agentId')
    expect(check({ encodingAesKey: 'short' })).toThrow('the 43 characters')
  })
})
