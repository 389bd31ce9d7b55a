import { z } from 'zod'
import { check, parseJson } from '../../../core/body.ts'
import type { JsonObject } from '../../../core/message.ts'
import { duration, secret } from '../../../core/settings.ts'
import type { Destination, PlatformAnswer, Reading } from '../scheme.ts'
import { apiUrl, calledTooOften, callFailed, checkEqual, defineScheme, headerOf, notToBeReached } from '../scheme.ts'

/** UTF-16 units of one message. */
const maxLength = 4096
/** A group takes twenty messages a minute from a bot, edits among them. */
const groupEditMs = 3000

const telegramOptions = z.strictObject({
  /** What @BotFather gave out: `123456:ABC…`. */
  token: secret(),
  /** The `secret_token` that `setWebhook` was called with: 1 to 256 letters, digits, `_` and `-`. */
  secret: secret().refine((given) => /^[\w-]{1,256}$/.test(given.reveal()), {
    error: 'must be 1 to 256 letters, digits, "_" and "-", as Telegram wants its secret_token',
  }),
  /** How often an answer that streams is edited; in groups not more often than every three seconds. */
  editEvery: duration().default(1000),
  /** Where the Bot API is, such as a Bot API server of your own. */
  baseUrl: apiUrl('https://api.telegram.org'),
})

/**
 * Telegram's Bot API: what people write to a bot, or in groups that it is in.
 * https://core.telegram.org/bots/api
 * @example webhook({ bot: 'support', scheme: telegram({ token: env('TELEGRAM_TOKEN'), secret: env('TELEGRAM_SECRET') }) })
 */
export const telegram = defineScheme({
  name: 'telegram',
  options: telegramOptions,
  create({ token, secret: expected, editEvery, baseUrl }, { call }) {
    const ask = (method: string, body: JsonObject, signal: AbortSignal) =>
      call(`${baseUrl}/bot${token.reveal()}/${method}`, { body }, signal)
    return {
      maxLength,
      read({ headers, body }) {
        checkEqual(headerOf(headers, 'x-telegram-bot-api-secret-token'), expected.reveal())
        return readUpdate(parseJson(body))
      },
      async post(to, text, _key, signal) {
        const body = { ...chatOf(to), ...replyOf(to), text }
        const { result } = taken(await ask('sendMessage', body, signal))
        const { data } = posted.safeParse(result)
        if (!data) throw callFailed('Telegram', 200, 'no message_id')
        return String(data.message_id)
      },
      edits: {
        everyMs: (to) => (isGroup(to) ? Math.max(editEvery, groupEditMs) : editEvery),
        async edit(to, message, text, signal) {
          const { chat_id } = chatOf(to)
          const answer = await ask('editMessageText', { chat_id, message_id: Number(message), text }, signal)
          const { description = '' } = outcomeOf(answer)
          if (/message is not modified/i.test(description)) return true
          if (/message (to edit not found|can't be edited)|MESSAGE_ID_INVALID/i.test(description)) return false
          taken(answer)
          return true
        },
      },
      async showTyping(to, signal) {
        taken(await ask('sendChatAction', { ...chatOf(to), action: 'typing' }, signal))
      },
    }
  },
})

const update = z.object({ update_id: z.int(), message: z.record(z.string(), z.unknown()).optional().catch(undefined) })

const said = z.object({
  message_id: z.int(),
  message_thread_id: z.int().optional(),
  is_topic_message: z.boolean().optional(),
  // What is written in the name of a group or a channel has nobody's name on it.
  from: z.object({ id: z.int(), is_bot: z.literal(false).optional() }),
  chat: z.object({ id: z.int(), type: z.string().optional() }),
  text: z.string().optional(),
  caption: z.string().optional(),
})

function readUpdate(body: unknown): Reading {
  const { update_id: id, message } = check(update, body)
  const { data } = said.safeParse(message)
  if (!data) return { type: 'ignored' }
  const { chat, from, message_thread_id: thread } = data
  return {
    type: 'message',
    id: String(id),
    text: data.text ?? data.caption ?? '',
    conversation: data.is_topic_message && thread !== undefined ? `${chat.id}:${thread}` : String(chat.id),
    user: String(from.id),
    replyTo: chat.id < 0 ? String(data.message_id) : undefined,
  }
}

/** The ids of groups are negative. */
const isGroup = ({ conversation }: Destination): boolean => conversation.startsWith('-')

function chatOf({ conversation }: Destination): { readonly chat_id: number; readonly message_thread_id?: number } {
  const [chat, thread] = conversation.split(':', 2)
  return { chat_id: Number(chat), ...(thread === undefined ? {} : { message_thread_id: Number(thread) }) }
}

/** In a group it has to be seen who is answered. */
const replyOf = ({ replyTo }: Destination): JsonObject =>
  replyTo === undefined ? {} : { reply_parameters: { message_id: Number(replyTo), allow_sending_without_reply: true } }

const posted = z.object({ message_id: z.int() })

const outcome = z.object({
  ok: z.boolean(),
  result: z.unknown().optional(),
  description: z.string().optional(),
  parameters: z.object({ retry_after: z.number().optional() }).optional().catch(undefined),
})

const outcomeOf = ({ body }: PlatformAnswer): Partial<z.output<typeof outcome>> => outcome.safeParse(body).data ?? {}

function taken(answer: PlatformAnswer): { readonly result: unknown } {
  const { ok, result, description, parameters } = outcomeOf(answer)
  if (answer.status === 429) {
    const seconds = parameters?.retry_after
    throw calledTooOften('Telegram', seconds === undefined ? answer.retryAfterMs : seconds * 1000)
  }
  // Blocked, kicked, deactivated, or a chat that is no more.
  if (!ok && (answer.status === 403 || /chat not found/i.test(description ?? ''))) {
    throw notToBeReached('Telegram', description ?? '')
  }
  if (!ok) throw callFailed('Telegram', answer.status, description ?? 'no answer of its API')
  return { result }
}
