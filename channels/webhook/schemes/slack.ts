import { createHmac } from 'node:crypto'
import { z } from 'zod'
import { check, parseJson } from '../../../core/body.ts'
import { HubError } from '../../../core/errors.ts'
import type { JsonObject } from '../../../core/message.ts'
import type { Secret } from '../../../core/settings.ts'
import { duration, secret } from '../../../core/settings.ts'
import type { Destination, PlatformAnswer, PlatformRequest, Reading } from '../scheme.ts'
import { apiUrl, calledTooOften, callFailed, checkEqual, defineScheme, headerOf, notToBeReached } from '../scheme.ts'

/** How old a request may be: what Slack advises. */
const toleranceMs = 5 * 60_000
/** Of the characters as they are sent; Slack cuts longer texts, and refuses them in edits. */
const maxLength = 4000

const slackOptions = z.strictObject({
  /** "Signing Secret" under "Basic Information" of the app. */
  signingSecret: secret(),
  /** "Bot User OAuth Token" of the app: `xoxb-…`, with the scope `chat:write`. */
  token: secret(),
  /** How often an answer that streams is edited. Slack allows fifty edits a minute. */
  editEvery: duration().default(1500),
  /** Where Slack's API is. */
  baseUrl: apiUrl('https://slack.com/api'),
})

/**
 * Slack's Events API: mentions of the bot (`app_mention`), answered in a thread, and direct messages (`message.im`).
 * https://docs.slack.dev/apis/events-api
 * @example webhook({ bot: 'support', scheme: slack({ signingSecret: env('SLACK_SIGNING_SECRET'), token: env('SLACK_BOT_TOKEN') }) })
 */
export const slack = defineScheme({
  name: 'slack',
  options: slackOptions,
  create({ signingSecret, token, editEvery, baseUrl }, { call, clock }) {
    const headers = { authorization: `Bearer ${token.reveal()}` }
    const ask = async (method: string, body: JsonObject, signal: AbortSignal) =>
      call(`${baseUrl}/${method}`, { headers, body }, signal)
    return {
      maxLength,
      measure: (text) => escape(text).length,
      read(request) {
        verifySlack(signingSecret, request, clock.now())
        return readEvent(parseJson(request.body))
      },
      async post(to, text, _key, signal) {
        const { ts } = taken(await ask('chat.postMessage', { ...addressOf(to), text: escape(text) }, signal))
        if (ts === undefined) throw callFailed('Slack', 200, 'no ts')
        return ts
      },
      edits: {
        everyMs: () => editEvery,
        async edit(to, ts, text, signal) {
          const { channel } = addressOf(to)
          const answer = await ask('chat.update', { channel, ts, text: escape(text) }, signal)
          const { ok, error } = outcomeOf(answer)
          if (!ok && cannotBeEdited.has(error ?? '')) return false
          taken(answer)
          return true
        },
      },
    }
  },
})

/**
 * Checks the signature of a request, `v0=` and the HMAC-SHA256 of version, timestamp and body, and its age.
 * @throws HubError `bad_signature`
 */
export function verifySlack(signingSecret: Secret, { headers, body }: PlatformRequest, nowMs: number): void {
  const timestamp = headerOf(headers, 'x-slack-request-timestamp') ?? ''
  if (!/^\d{1,12}$/.test(timestamp) || Math.abs(nowMs - Number(timestamp) * 1000) > toleranceMs) {
    throw new HubError('bad_signature', { message: 'The timestamp is more than five minutes off.' })
  }
  const mac = createHmac('sha256', signingSecret.reveal()).update(`v0:${timestamp}:`).update(body).digest('hex')
  checkEqual(headerOf(headers, 'x-slack-signature'), `v0=${mac}`)
}

const envelope = z.object({
  type: z.string(),
  challenge: z.string().optional(),
  event_id: z.string().optional(),
  authorizations: z
    .array(z.object({ user_id: z.string().nullish() }))
    .optional()
    .catch(undefined),
  event: z.record(z.string(), z.unknown()).optional(),
})

const said = z.object({
  type: z.enum(['app_mention', 'message']),
  channel: z.string(),
  channel_type: z.string().optional(),
  user: z.string(),
  text: z.string(),
  ts: z.string(),
  thread_ts: z.string().optional(),
  // Other subtypes tell of edits, deletions, joins and what bots say.
  subtype: z.enum(['file_share', 'thread_broadcast']).optional(),
  bot_id: z.null().optional(),
})

function readEvent(body: unknown): Reading {
  const { type, challenge, event_id: id, event, authorizations } = check(envelope, body)
  if (type === 'url_verification' && challenge !== undefined) {
    return { type: 'challenge', answer: JSON.stringify({ challenge }), contentType: 'application/json' }
  }
  const message = said.safeParse(event).data
  if (type !== 'event_callback' || id === undefined || !message) return { type: 'ignored' }
  const { channel, channel_type: kind, user, text, ts, thread_ts: thread } = message
  if (message.type === 'message' && kind !== 'im') return { type: 'ignored' }
  // A mention is answered in its thread, a direct message where it stands.
  const root = thread ?? (message.type === 'app_mention' ? ts : undefined)
  return {
    type: 'message',
    id,
    text: withoutMention(text, authorizations?.[0]?.user_id ?? undefined),
    conversation: root === undefined ? channel : `${channel}:${root}`,
    user,
  }
}

/** Without the bot's own name in front, and with the three characters back that Slack escapes. */
function withoutMention(text: string, bot: string | undefined): string {
  const mention = /^\s*<@(?<user>[A-Z0-9]+)(\|[^>]*)?>[,:]?\s*/.exec(text)
  const isBot = mention && (bot === undefined || mention.groups!['user'] === bot)
  const rest = isBot ? text.slice(mention[0].length) : text
  return rest.replaceAll('&lt;', '<').replaceAll('&gt;', '>').replaceAll('&amp;', '&')
}

/** So that nothing in an answer is taken for a mention of everybody. */
const escape = (text: string): string => text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;')

function addressOf({ conversation }: Destination): { readonly channel: string; readonly thread_ts?: string } {
  const [channel = '', thread] = conversation.split(':', 2)
  return thread === undefined ? { channel } : { channel, thread_ts: thread }
}

const outcome = z.object({ ok: z.boolean(), ts: z.string().optional(), error: z.string().optional() })

const outcomeOf = ({ body }: PlatformAnswer): z.output<typeof outcome> => outcome.safeParse(body).data ?? { ok: false }

function taken(answer: PlatformAnswer): { readonly ts?: string | undefined } {
  const { ok, ts, error } = outcomeOf(answer)
  if (answer.status === 429 || error === 'ratelimited' || error === 'rate_limited') {
    throw calledTooOften('Slack', answer.retryAfterMs)
  }
  if (!ok && gone.has(error ?? '')) throw notToBeReached('Slack', error ?? '')
  if (answer.status !== 200 || !ok) throw callFailed('Slack', answer.status, error ?? 'no answer of its API')
  return { ts }
}

const gone: ReadonlySet<string> = new Set(['channel_not_found', 'is_archived', 'not_in_channel', 'user_disabled'])

const cannotBeEdited: ReadonlySet<string> = new Set([
  'message_not_found',
  'cant_update_message',
  'edit_window_closed',
  'is_inactive',
])
