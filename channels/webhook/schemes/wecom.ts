import { createDecipheriv, createHash } from 'node:crypto'
// The platform's messages are XML; a reader of one's own for that is where mistakes are made.
import { XMLParser } from 'fast-xml-parser'
import { z } from 'zod'
import { check } from '../../../core/body.ts'
import { HubError } from '../../../core/errors.ts'
import { expiringTokens } from '../../../core/expiring-tokens.ts'
import type { Secret } from '../../../core/settings.ts'
import { secret, setting } from '../../../core/settings.ts'
import type { PlatformAnswer, PlatformRequest, Reading } from '../scheme.ts'
import { apiUrl, calledTooOften, callFailed, checkEqual, defineScheme, notToBeReached } from '../scheme.ts'

/** Bytes of a text; WeCom cuts off what is longer. */
const maxLength = 2048
const tokenTimeoutMs = 20_000

const wecomOptions = z.strictObject({
  /** "Corp ID" of the company: `ww…`. */
  corpId: setting(),
  /** "AgentId" of the app. */
  agentId: z.union([z.int(), setting().pipe(z.coerce.number<string>().int())]),
  /** "Secret" of the app. */
  secret: secret(),
  /** "Token" under "Receive messages", "Set API reception". */
  token: secret(),
  /** "EncodingAESKey" in the same place: 43 letters and digits. */
  encodingAesKey: secret().refine((given) => /^[A-Za-z0-9+/]{43}$/.test(given.reveal()), {
    error: 'must be the 43 characters that WeCom shows as EncodingAESKey',
  }),
  /** Where WeCom's API is, such as a proxy with an address that WeCom trusts. */
  baseUrl: apiUrl('https://qyapi.weixin.qq.com'),
})

/**
 * WeCom's (企业微信) apps: what members write to an app. A message cannot be edited there, so an answer is sent when it is
 * whole. https://developer.work.weixin.qq.com/document/path/90238
 * @example webhook({ bot: 'support', scheme: wecom({ corpId: env('WECOM_CORP_ID'), agentId: env('WECOM_AGENT_ID'), secret: env('WECOM_SECRET'), token: env('WECOM_TOKEN'), encodingAesKey: env('WECOM_AES_KEY') }) })
 */
export const wecom = defineScheme({
  name: 'wecom',
  options: wecomOptions,
  create({ corpId, agentId, secret: appSecret, token, encodingAesKey, baseUrl }, { call, clock }) {
    const keys = { token, encodingAesKey, corpId }
    const tokens = expiringTokens(async () => {
      const query = new URLSearchParams({ corpid: corpId, corpsecret: appSecret.reveal() })
      const url = `${baseUrl}/cgi-bin/gettoken?${query.toString()}`
      const answer = await call(url, { method: 'GET' }, AbortSignal.timeout(tokenTimeoutMs))
      const given = taken(answer, givenToken)
      return { token: given.access_token, lifeMs: given.expires_in * 1000 }
    }, clock)
    return {
      comesByGet: true,
      maxLength,
      measure: (text) => Buffer.byteLength(text),
      read(request) {
        if (request.method === 'GET') return readChallenge(request, keys)
        const { Encrypt: encrypted } = check(envelope, parseXml(request.body))
        return readMessage(openWecom(request, encrypted, keys))
      },
      async post({ conversation: touser }, text, key, signal) {
        const given = await tokens.take(signal)
        const url = `${baseUrl}/cgi-bin/message/send?access_token=${encodeURIComponent(given.reveal())}`
        const body = { touser, msgtype: 'text', agentid: agentId, text: { content: text } }
        const answer = await call(url, { body }, signal)
        // The next try asks for another one.
        if (tokenRefused.has(codeOf(answer))) tokens.refused(given)
        const { msgid, invaliduser } = taken(answer, sent)
        if (invaliduser) throw notToBeReached('WeCom', 'the user is not among those of the app')
        return msgid ?? key
      },
    }
  },
})

/** What a company and WeCom have in common. */
export interface WecomKeys {
  readonly token: Secret
  readonly encodingAesKey: Secret
  readonly corpId: string
}

function readChallenge(request: PlatformRequest, keys: WecomKeys): Reading {
  // A plus sign that was not escaped has come as a blank.
  const echo = request.query.get('echostr')?.replaceAll(' ', '+') ?? ''
  return { type: 'challenge', answer: openWecom(request, echo, keys), contentType: 'text/plain' }
}

/**
 * Checks the signature of what is encrypted, the SHA-1 of four sorted texts, and decrypts it: AES-256-CBC, padded to 32
 * bytes, with 16 random bytes and the length in front and the company's id behind.
 * @throws HubError `bad_signature`
 */
export function openWecom({ query }: Pick<PlatformRequest, 'query'>, encrypted: string, keys: WecomKeys): string {
  const signed = [keys.token.reveal(), query.get('timestamp') ?? '', query.get('nonce') ?? '', encrypted]
  checkEqual(query.get('msg_signature'), createHash('sha1').update(signed.toSorted().join('')).digest('hex'))
  const bytes = decrypt(encrypted, Buffer.from(`${keys.encodingAesKey.reveal()}=`, 'base64'))
  const end = bytes.length >= 20 ? 20 + bytes.readUInt32BE(16) : Number.POSITIVE_INFINITY
  if (end > bytes.length) throw unreadable()
  checkEqual(bytes.subarray(end).toString(), keys.corpId)
  return bytes.subarray(20, end).toString()
}

function decrypt(encrypted: string, key: Buffer): Buffer {
  try {
    // Padding goes up to 32 bytes, which is more than a block: Node would refuse it.
    const decipher = createDecipheriv('aes-256-cbc', key, key.subarray(0, 16)).setAutoPadding(false)
    const bytes = Buffer.concat([decipher.update(Buffer.from(encrypted, 'base64')), decipher.final()])
    const padding = bytes.at(-1) ?? 0
    if (padding < 1 || padding > 32) throw unreadable()
    return bytes.subarray(0, -padding)
  } catch (cause) {
    throw unreadable(cause)
  }
}

const unreadable = (cause?: unknown): HubError =>
  new HubError('bad_signature', { message: 'The message cannot be decrypted.', cause })

/** No entities: they are what an XML reader is attacked with, and WeCom writes texts as CDATA. */
const xml = new XMLParser({ parseTagValue: false, processEntities: false, trimValues: false })

function parseXml(body: Uint8Array | string): unknown {
  try {
    const parsed: unknown = xml.parse(typeof body === 'string' ? body : Buffer.from(body).toString(), true)
    return z.object({ xml: z.unknown() }).safeParse(parsed).data?.xml
  } catch (cause) {
    throw new HubError('invalid_request', { message: 'The body is not the XML that WeCom sends.', cause })
  }
}

const envelope = z.object({ Encrypt: z.string() })

const received = z.object({
  FromUserName: z.string(),
  MsgType: z.literal('text'),
  Content: z.string(),
  MsgId: z.string(),
})

function readMessage(message: string): Reading {
  const { data } = received.safeParse(parseXml(message))
  if (!data) return { type: 'ignored' }
  const { FromUserName: user, MsgId: id, Content: text } = data
  return { type: 'message', id, text, conversation: user, user }
}

const outcome = z.object({ errcode: z.int(), errmsg: z.string().optional() })
const givenToken = z.object({ access_token: z.string(), expires_in: z.number() })
const sent = z.object({
  // What was sent must not fail for how it is told.
  msgid: z.string().optional().catch(undefined),
  invaliduser: z.string().optional().catch(undefined),
})

const codeOf = ({ body }: PlatformAnswer): number => outcome.safeParse(body).data?.errcode ?? -1

function taken<Schema extends z.ZodType>(answer: PlatformAnswer, schema: Schema): z.output<Schema> {
  const code = codeOf(answer)
  if (answer.status === 429 || tooOften.has(code)) throw calledTooOften('WeCom', answer.retryAfterMs)
  if (gone.has(code)) throw notToBeReached('WeCom', String(code))
  const { data } = schema.safeParse(answer.body)
  if (code === 0 && data) return data
  // Its words have the address in them that was called from, and sometimes what was sent.
  throw callFailed('WeCom', answer.status, String(code))
}

/** Calls of the app, of its address and at once. */
const tooOften: ReadonlySet<number> = new Set([45_009, 45_011, 45_033])
/** A user that there is none of, or that the app is not for. */
const gone: ReadonlySet<number> = new Set([60_111, 81_012, 81_013])
/** A wrong, missing or expired token. */
const tokenRefused: ReadonlySet<number> = new Set([40_001, 40_014, 41_001, 42_001])
