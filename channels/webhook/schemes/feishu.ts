import { createDecipheriv, createHash } from 'node:crypto'
import { z } from 'zod'
import { check, parseJson } from '../../../core/body.ts'
import { HubError } from '../../../core/errors.ts'
import { expiringTokens } from '../../../core/expiring-tokens.ts'
import { parseExactJson } from '../../../core/json.ts'
import type { JsonObject } from '../../../core/message.ts'
import type { Secret } from '../../../core/settings.ts'
import { duration, secret, setting } from '../../../core/settings.ts'
import type { PlatformAnswer, PlatformRequest, Reading } from '../scheme.ts'
import { apiUrl, calledTooOften, callFailed, checkEqual, defineScheme, headerOf, notToBeReached } from '../scheme.ts'

/** UTF-16 units; the request may have 150 KB, and a unit takes six bytes of it at most. */
const maxLength = 20_000
/** A message may be edited twenty times in all; the last ones are for what it says in the end. */
const streamedEdits = 15

const feishuOptions = z.strictObject({
  /** "App ID" of the app: `cli_…`. */
  appId: setting(),
  /** "App Secret" of the app. */
  appSecret: secret(),
  /** "Verification Token" under "Events and callbacks", "Encryption strategy". */
  verificationToken: secret(),
  /** "Encrypt Key" in the same place, where one is set; events are then encrypted and signed. */
  encryptKey: secret().exactOptional(),
  /** How often an answer that streams is edited, fifteen times at most. */
  editEvery: duration().default(2000),
  /** `https://open.larksuite.com` for Lark. */
  baseUrl: apiUrl('https://open.feishu.cn'),
})

/**
 * Feishu's (and Lark's) event subscription: what people write to a bot, or in groups where they mention it.
 * https://open.feishu.cn/document/server-docs/im-v1/message/events/receive
 * @example webhook({ bot: 'support', scheme: feishu({ appId: env('FEISHU_APP_ID'), appSecret: env('FEISHU_APP_SECRET'), verificationToken: env('FEISHU_TOKEN') }) })
 */
export const feishu = defineScheme({
  name: 'feishu',
  options: feishuOptions,
  create({ appId, appSecret, verificationToken, encryptKey, editEvery, baseUrl }, { call, clock }) {
    const tokens = expiringTokens(async () => {
      const body = { app_id: appId, app_secret: appSecret.reveal() }
      const url = `${baseUrl}/open-apis/auth/v3/tenant_access_token/internal`
      const answer = await call(url, { body }, AbortSignal.timeout(tokenTimeoutMs))
      const { tenant_access_token: token, expire } = taken(answer, givenToken)
      return { token, lifeMs: expire * 1000 }
    }, clock)

    async function ask(path: string, method: 'POST' | 'PUT', body: JsonObject, signal: AbortSignal) {
      const token = await tokens.take(signal)
      const headers = { authorization: `Bearer ${token.reveal()}` }
      const answer = await call(`${baseUrl}/open-apis/im/v1/messages${path}`, { method, headers, body }, signal)
      // The next try asks for another one.
      if (tokenRefused.has(codeOf(answer))) tokens.refused(token)
      return answer
    }

    return {
      maxLength,
      read: (request) => readEvent(openFeishu(request, encryptKey), verificationToken),
      async post({ conversation, replyTo }, text, key, signal) {
        const words = { msg_type: 'text', content: contentOf(text), uuid: key }
        const answer =
          replyTo === undefined
            ? await ask('?receive_id_type=chat_id', 'POST', { ...words, receive_id: conversation }, signal)
            : await ask(`/${encodeURIComponent(replyTo)}/reply`, 'POST', words, signal)
        return taken(answer, postedMessage).data.message_id
      },
      edits: {
        everyMs: () => editEvery,
        atMost: streamedEdits,
        async edit(_to, message, text, signal) {
          const body = { msg_type: 'text', content: contentOf(text) }
          const answer = await ask(`/${encodeURIComponent(message)}`, 'PUT', body, signal)
          if (cannotBeEdited.has(codeOf(answer))) return false
          taken(answer, z.object({}))
          return true
        },
      },
    }
  },
})

const tokenTimeoutMs = 20_000

/**
 * The JSON of a request, decrypted where it is encrypted. With an encrypt key, its signature is checked too, which is
 * absent only from the challenge: that one is encrypted, and has the verification token.
 * @throws HubError `bad_signature`, `bad_json`
 */
export function openFeishu({ headers, body }: PlatformRequest, encryptKey: Secret | undefined): unknown {
  const outer = parseJson(body)
  const encrypted = z.object({ encrypt: z.string() }).safeParse(outer).data?.encrypt
  if (!encryptKey) {
    if (encrypted === undefined) return outer
    throw new HubError('bad_signature', { message: 'The event is encrypted. Give feishu() its `encryptKey`.' })
  }
  const inner = () => (encrypted === undefined ? outer : parseJson(decryptFeishu(encrypted, encryptKey)))
  const signature = headerOf(headers, 'x-lark-signature')
  if (signature === undefined && encrypted !== undefined) {
    const unsigned = inner()
    if (envelope.safeParse(unsigned).data?.type === challengeType) return unsigned
  }
  const timestamp = headerOf(headers, 'x-lark-request-timestamp') ?? ''
  const nonce = headerOf(headers, 'x-lark-request-nonce') ?? ''
  const expected = createHash('sha256')
    .update(timestamp + nonce + encryptKey.reveal())
    .update(body)
  checkEqual(signature, expected.digest('hex'))
  // Not before: one of 256 messages under another key can be decrypted, to what is no JSON.
  return inner()
}

/**
 * AES-256-CBC under the SHA-256 of the key, behind its 16 bytes of IV.
 * @throws HubError `bad_signature`, for what another key has encrypted
 */
export function decryptFeishu(encrypted: string, encryptKey: Secret): Buffer {
  const bytes = Buffer.from(encrypted, 'base64')
  try {
    const key = createHash('sha256').update(encryptKey.reveal()).digest()
    const decipher = createDecipheriv('aes-256-cbc', key, bytes.subarray(0, 16))
    return Buffer.concat([decipher.update(bytes.subarray(16)), decipher.final()])
  } catch (cause) {
    throw new HubError('bad_signature', { message: 'The event cannot be decrypted.', cause })
  }
}

const challengeType = 'url_verification'

const envelope = z.object({
  // Of the challenge.
  type: z.string().optional(),
  challenge: z.string().optional(),
  token: z.string().optional(),
  // Of events, version 2.0.
  header: z.object({ event_id: z.string(), event_type: z.string(), token: z.string() }).optional(),
  event: z.unknown().optional(),
})

const received = z.object({
  sender: z.object({
    sender_id: z.object({
      open_id: z.string().nullish(),
      union_id: z.string().nullish(),
      user_id: z.string().nullish(),
    }),
    sender_type: z.literal('user').optional(),
  }),
  message: z.object({
    message_id: z.string(),
    chat_id: z.string(),
    chat_type: z.string().optional(),
    message_type: z.string(),
    content: z.string(),
    mentions: z
      .array(z.object({ key: z.string(), name: z.string().nullish() }))
      .nullish()
      .catch(undefined),
  }),
})

function readEvent(body: unknown, verificationToken: Secret): Reading {
  const { type, challenge, token, header, event } = check(envelope, body)
  checkEqual(header?.token ?? token, verificationToken.reveal())
  if (type === challengeType && challenge !== undefined) {
    return { type: 'challenge', answer: JSON.stringify({ challenge }), contentType: 'application/json' }
  }
  const { data } = received.safeParse(event)
  if (header?.event_type !== 'im.message.receive_v1' || !data) return { type: 'ignored' }
  const { sender, message } = data
  const user = sender.sender_id.open_id || sender.sender_id.union_id || sender.sender_id.user_id
  const mentions = message.mentions ?? []
  // A bot may be let read all of a group; it answers where somebody is called.
  if (!user || (message.chat_type === 'group' && mentions.length === 0)) return { type: 'ignored' }
  return {
    type: 'message',
    id: header.event_id,
    text: withoutMentions(textOf(message.message_type, message.content), mentions),
    conversation: message.chat_id,
    user,
    replyTo: message.message_id,
  }
}

const plainContent = z.object({ text: z.string() })
const richContent = z.object({
  title: z.string().optional(),
  content: z.array(z.array(z.object({ tag: z.string(), text: z.string().optional(), user_id: z.string().optional() }))),
})

/** The words of a text or a rich text; of anything else there are none. */
function textOf(type: string, content: string): string {
  const parsed = parseExactJson(content)
  if (type === 'text') return plainContent.safeParse(parsed).data?.text ?? ''
  const { data } = richContent.safeParse(parsed)
  if (type !== 'post' || !data) return ''
  const lines = data.content.map((line) =>
    line.map(({ tag, text, user_id }) => (tag === 'at' ? (user_id ?? '') : (text ?? ''))).join(''),
  )
  return [data.title ?? '', ...lines].join('\n')
}

/** In front it is the bot that is called; further behind it is part of what is said. */
function withoutMentions(
  text: string,
  mentions: readonly { readonly key: string; readonly name?: string | null | undefined }[],
): string {
  let rest = text.trim()
  for (let called = mentions.find(({ key }) => isInFront(rest, key)); called;) {
    rest = rest.slice(called.key.length).trimStart()
    called = mentions.find(({ key }) => isInFront(rest, key))
  }
  // The longest first: @_user_1 is in @_user_10.
  const names = mentions.toSorted((one, other) => other.key.length - one.key.length)
  for (const { key, name } of names) rest = rest.replaceAll(key, name ? `@${name}` : '')
  return rest
}

const isInFront = (text: string, key: string): boolean => text.startsWith(key) && !/^\d/.test(text.slice(key.length))

/** Without the one tag that Feishu reads in a text: it calls people. */
const contentOf = (text: string): string => JSON.stringify({ text: text.replaceAll(/<(?=\/?at\b)/gi, '＜') })

const outcome = z.object({ code: z.int(), msg: z.string().optional() })
const givenToken = z.object({ tenant_access_token: z.string(), expire: z.number() })
const postedMessage = z.object({ data: z.object({ message_id: z.string() }) })

const codeOf = ({ body }: PlatformAnswer): number => outcome.safeParse(body).data?.code ?? -1

function taken<Schema extends z.ZodType>(answer: PlatformAnswer, schema: Schema): z.output<Schema> {
  const code = codeOf(answer)
  if (answer.status === 429 || tooOften.has(code)) throw calledTooOften('Feishu', answer.retryAfterMs)
  if (gone.has(code)) throw notToBeReached('Feishu', String(code))
  const { data } = schema.safeParse(answer.body)
  if (code === 0 && data) return data
  throw callFailed('Feishu', answer.status, `${code} ${outcome.safeParse(answer.body).data?.msg ?? ''}`)
}

/** Of an app, a tenant and a chat. */
const tooOften: ReadonlySet<number> = new Set([99_991_400, 11_232, 230_020])
/** The bot is not in the group, the user may not use the app, the chat was dissolved. */
const gone: ReadonlySet<number> = new Set([230_002, 230_013, 232_009])
/** No, an unknown or an expired token. */
const tokenRefused: ReadonlySet<number> = new Set([99_991_661, 99_991_663, 99_991_664, 99_991_668])
/** Recalled, too late, edited twenty times, not of this app, gone. */
const cannotBeEdited: ReadonlySet<number> = new Set([230_011, 230_031, 230_071, 230_072, 230_075, 230_110])
