import { z } from 'zod'
import { check, parseJson, readBytes, readJson } from '../../core/body.ts'
import type { RequestContext } from '../../core/channel.ts'
import { consentFunction, readConsent } from '../../core/consent-call.ts'
import { HubError } from '../../core/errors.ts'
import type { ConsentDecision } from '../../core/events.ts'
import { clientName } from '../../core/ids.ts'
import type { HistoryMessage, JsonObject } from '../../core/message.ts'
import { jsonObject } from '../../core/wire.ts'
import { newLogId } from './errors.ts'

/** What Coze takes, in bytes. */
const maxBodyBytes = 15 * 1_048_576

const pairs = z.record(z.string(), z.string())

/** A message that a client sends along. */
const enterMessage = z
  .object({
    role: z.enum(['user', 'assistant']),
    type: z.string().nullish().describe('`question` or `answer`; anything else is left out.'),
    content: z.string(),
    content_type: z.enum(['text', 'object_string']).nullish(),
    meta_data: pairs.nullish(),
  })
  .meta({ id: 'CozeEnterMessage' })

/** A message as a client sends it. */
export type EnterMessage = z.output<typeof enterMessage>

/** Body of `POST /v3/chat`. Fields it does not know are ignored. */
export const chatRequest = z
  .object({
    bot_id: z.string().min(1).max(256).describe('A bot of the config.'),
    user_id: clientName.describe('For whom a trusted key asks.'),
    stream: z.boolean().nullish(),
    additional_messages: z.array(enterMessage).max(100).nullish(),
    conversation_id: z.string().nullish().describe('In the query, as Coze has it, or here.'),
    meta_data: pairs.nullish().describe('Given back with the chat.'),
    parameters: jsonObject.nullish(),
    custom_variables: jsonObject.nullish(),
    extra_params: jsonObject.nullish(),
    shortcut_command: jsonObject.nullish(),
  })
  .meta({ id: 'CozeChatRequest' })

/** What a chat request names. */
export type ChatRequest = z.output<typeof chatRequest>

/** The query of everything about a conversation. */
export const conversationQuery = z.object({ conversation_id: z.string() })
/** The query of everything about a chat, and the body of a cancellation. */
export const chatQuery = conversationQuery.extend({ chat_id: z.string() })
/** The query of a message. */
export const messageQuery = conversationQuery.extend({ message_id: z.string() })
/** The query of a file. */
export const fileQuery = z.object({ file_id: z.string() })
const pageNumber = z.coerce.number().int().min(1).default(1)
/** The query of a list of conversations. */
export const listQuery = z.object({
  bot_id: z.string(),
  page_num: pageNumber,
  page_size: z.coerce.number().int().min(1).max(50).default(50),
  sort_order: z.enum(['asc', 'desc', 'ASC', 'DESC']).default('desc'),
})
/** The query of a list of bots. */
export const botsQuery = z.object({
  page_num: pageNumber,
  page_size: z.coerce.number().int().min(1).max(50).default(20),
})

/** Body of `POST /v1/conversation/create`. */
export const conversationBody = z
  .object({
    bot_id: z.string().nullish(),
    name: z.string().max(100).nullish(),
    meta_data: pairs.nullish(),
    messages: z.array(enterMessage).max(16).nullish().describe('What was said before the first chat.'),
  })
  .meta({ id: 'CozeNewConversation' })

/** Body of `POST /v1/conversation/message/create`. */
export const newMessageBody = enterMessage

/** Body of `POST /v1/conversation/message/modify`: what it does not name stays. */
export const changedMessageBody = enterMessage
  .pick({ content: true, content_type: true, meta_data: true })
  .partial()
  .meta({ id: 'CozeChangedMessage' })

/** Body of `PUT /v1/conversations/{id}`. */
export const renameBody = z.object({ name: z.string().max(100) })

/** Body of `POST /v1/conversation/message/list`. */
export const messageListBody = z
  .object({
    order: z.enum(['asc', 'desc']).nullish(),
    chat_id: z.string().nullish(),
    before_id: z.string().nullish(),
    after_id: z.string().nullish(),
    limit: z.int().min(1).max(50).nullish(),
  })
  .meta({ id: 'CozeMessageListRequest' })

/** Body of `POST …/messages/{message}/feedback`. */
export const feedbackBody = z
  .object({
    feedback_type: z.enum(['like', 'unlike', 'dislike']),
    reason_types: z.array(z.string().min(1).max(256)).max(20).nullish(),
    comment: z
      .string()
      .refine((text) => Buffer.byteLength(text) <= 8192, 'must be at most 8 KiB')
      .nullish(),
  })
  .meta({ id: 'CozeFeedback' })

/** Body of `POST /v3/chat/submit_tool_outputs`. */
export const toolOutputsBody = z
  .object({
    tool_outputs: z.array(z.object({ tool_call_id: z.string().min(1), output: z.string() })).min(1),
    stream: z.boolean().nullish(),
  })
  .meta({ id: 'CozeToolOutputs' })

/** What every answer that is no stream is wrapped in. */
export const envelope = z
  .object({
    code: z.int(),
    msg: z.string(),
    data: z.json().optional(),
    detail: z.object({ logid: z.string(), hub_code: z.string().optional() }).optional(),
  })
  .meta({ id: 'CozeAnswer' })

/** Answers in the envelope; what is not under `data` stands beside it. */
export function succeed(ctx: RequestContext, fields: JsonObject): void {
  const logid = newLogId()
  ctx.set('x-tt-logid', logid)
  ctx.body = { code: 0, msg: '', ...fields, detail: { logid } }
}

/** A body of up to 15 MB. */
export const readBody = <Schema extends z.ZodType>(ctx: RequestContext, schema: Schema): Promise<z.output<Schema>> =>
  readJson(ctx, schema, maxBodyBytes)

/** As `readBody`, for paths to which official clients post nothing as an empty form. */
export async function readOptionalBody<Schema extends z.ZodType>(
  ctx: RequestContext,
  schema: Schema,
): Promise<z.output<Schema>> {
  if (ctx.is('json', '+json')) {
    const bytes = await readBytes(ctx, maxBodyBytes)
    return check(schema, bytes.length === 0 ? {} : parseJson(bytes))
  }
  await readBytes(ctx, 0).catch((error: unknown) => {
    throw new HubError('unsupported_media_type', { cause: error })
  })
  return check(schema, {})
}

/** What a chat request asks, in the hub's words. */
export interface Question {
  readonly text: string
  /** Ids of uploaded files, as the client has them. */
  readonly files: readonly string[]
  readonly history: readonly HistoryMessage[]
  readonly metaData?: Readonly<Record<string, string>>
}

/**
 * The user's last message is the question; what stands before it is history, what stands behind it is left out.
 * @throws HubError `invalid_request`
 */
export function questionIn(messages: readonly EnterMessage[]): Question {
  const last = messages.findLastIndex(({ role, type }) => role === 'user' && (!type || type === 'question'))
  const message = messages[last]
  if (!message) throw wrong('additional_messages: send the question as a message of the user')
  const asked = partsOf(message, last)
  const neighbour = messages[last - 1]
  const before = neighbour?.role === 'user' ? partsOf(neighbour, last - 1) : undefined
  // Media stand in a message of their own, directly before the text that is about them, or behind it.
  const joined = before && isMedia(asked) !== isMedia(before) ? join(before, asked) : undefined
  const earlier = messages.slice(0, joined ? last - 1 : last)
  const { text, files } = joined ?? asked
  return {
    text,
    files,
    history: earlier.flatMap((each, index) => historyOf(each, index)),
    ...(message.meta_data ? { metaData: message.meta_data } : {}),
  }
}

interface Parts {
  readonly text: string
  readonly files: readonly string[]
  readonly hasText: boolean
}

const part = z.object({
  type: z.enum(['text', 'image', 'file', 'audio']),
  text: z.string().nullish(),
  file_id: z.string().nullish(),
  file_url: z.string().nullish(),
})

/**
 * What a message says without its files.
 * @throws HubError `invalid_request`
 */
export const textOf = (message: Pick<EnterMessage, 'content' | 'content_type'>): string => partsOf(message).text

/** A file by its address is text to a bot: the hub fetches nothing that a client names. */
function partsOf(
  { content, content_type: type }: Pick<EnterMessage, 'content' | 'content_type'>,
  index?: number,
): Parts {
  if (type !== 'object_string') return { text: content, files: [], hasText: true }
  const parsed = z.array(part).min(1).safeParse(jsonIn(content))
  if (!parsed.success) {
    const place = index === undefined ? 'content' : `additional_messages.${index}.content`
    throw wrong(`${place}: write an object_string as an array of parts, as JSON`)
  }
  const texts = parsed.data.flatMap(({ type: kind, text }) => (kind === 'text' && text ? [text] : []))
  const links = parsed.data.flatMap(({ file_id: id, file_url: url }) => (!id && url ? [url] : []))
  return {
    text: [...texts, ...links].join('\n'),
    files: parsed.data.flatMap(({ file_id: id }) => (id ? [id] : [])),
    hasText: texts.length > 0,
  }
}

const isMedia = ({ files, hasText }: Parts): boolean => files.length > 0 && !hasText

const join = (first: Parts, second: Parts): Parts => ({
  text: [first.text, second.text].filter((text) => text !== '').join('\n'),
  files: [...first.files, ...second.files],
  hasText: true,
})

function historyOf(message: EnterMessage, index: number): readonly HistoryMessage[] {
  const { role, type } = message
  if (type && type !== 'question' && type !== 'answer') return []
  const { text } = partsOf(message, index)
  return text === '' ? [] : [{ role: role === 'user' ? 'user' : 'bot', text }]
}

function jsonIn(text: string): unknown {
  try {
    return parseJson(new TextEncoder().encode(text))
  } catch {
    return undefined
  }
}

/** What the bot may see beside the text: inputs by their names, and the rest of what Coze has under Coze's names. */
export function payloadOf(request: ChatRequest): JsonObject | undefined {
  const payload = {
    ...request.parameters,
    ...filled('custom_variables', request.custom_variables),
    ...filled('extra_params', request.extra_params),
    ...filled('meta_data', request.meta_data),
    ...filled('shortcut_command', request.shortcut_command),
  }
  return Object.keys(payload).length > 0 ? payload : undefined
}

const filled = (name: string, value: JsonObject | null | undefined): JsonObject =>
  value && Object.keys(value).length > 0 ? { [name]: value } : {}

/**
 * What a client decided about a call, by what it gives as the output.
 * @throws HubError `invalid_request`
 */
export function decisionIn(call: string, output: string): ConsentDecision {
  const decision = readConsent(call, output)
  if (!decision) throw wrong(`tool_outputs: answer ${consentFunction} with "allow", "allow_always" or "deny"`)
  return decision
}

const wrong = (problem: string): HubError => new HubError('invalid_request', { message: `${problem}.` })
