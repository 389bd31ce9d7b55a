import { HubError } from '../../core/errors.ts'
import type { FailureCode } from '../../core/errors.ts'
import type { HubEvent, ToolCall, Usage } from '../../core/events.ts'
import { parseExactJson } from '../../core/json.ts'
import type { Json, JsonObject } from '../../core/message.ts'
import { failureOfStatus } from '../../core/sse.ts'

/**
 * The dialect of Coze's open API v3, in both directions and without any input or output: frames to hub events for the
 * provider, objects to frames for the simulator and for whoever speaks to Coze clients.
 */

/** What happened to a chat, with Coze's several spellings united. */
export type CozeStatus = 'created' | 'in_progress' | 'completed' | 'failed' | 'requires_action' | 'canceled'

/** A chat: one run inside a conversation. */
export interface CozeChat {
  readonly id?: string
  readonly conversationId?: string
  readonly status?: CozeStatus
  readonly usage?: Usage
  readonly failure?: CozeFailure
  /** The calls of `required_action` that are functions; questions of a workflow (`reply_message`) are none. */
  readonly calls: readonly ToolCall[]
}

/** A message object of Coze, read leniently: what is missing or of a wrong type is left out or has a default. */
export interface CozeMessage {
  readonly id: string
  /** `answer`, `function_call`, `tool_response`, `tool_output`, `follow_up`, `knowledge`, `verbose`, `question` or new. */
  readonly type: string
  readonly contentType: string
  readonly content?: string
  readonly reasoning?: string
  readonly chatId?: string
  readonly metaData: Readonly<Record<string, string>>
  readonly raw: Json
}

/** What Coze says about a failure; `message` is the vendor's text and never goes to a client. */
export interface CozeFailure {
  readonly code?: string
  readonly message?: string
}

/** One event of a chat stream, understood. */
export type CozeFrame =
  | { readonly type: 'chat'; readonly status: CozeStatus; readonly chat: CozeChat }
  | { readonly type: 'delta' | 'message'; readonly name: string; readonly message: CozeMessage }
  | { readonly type: 'error'; readonly failure: CozeFailure }
  | { readonly type: 'done' }
  | { readonly type: 'other'; readonly name: string; readonly content: Json }

/** Understands one event of a chat stream. Never throws: what it does not know is `other`. */
export function decodeFrame(event: { readonly event?: string | undefined; readonly data: string }): CozeFrame {
  const name = event.event ?? 'message'
  const content = jsonOrText(event.data)
  if (name === 'done' || name === 'conversation.stream.done') return { type: 'done' }
  if (name === 'error') return { type: 'error', failure: decodeFailure(content) }
  const status = name.startsWith('conversation.chat.') ? statusOf(name.slice('conversation.chat.'.length)) : undefined
  if (status) return { type: 'chat', status, chat: decodeChat(content) }
  const message = decodeMessage(content)
  if (message && name === 'conversation.message.delta') return { type: 'delta', name, message }
  if (message && name === 'conversation.message.completed') return { type: 'message', name, message }
  return { type: 'other', name, content }
}

const statuses: Readonly<Record<string, CozeStatus>> = {
  created: 'created',
  in_progress: 'in_progress',
  completed: 'completed',
  compleated: 'completed',
  failed: 'failed',
  expired: 'failed',
  requires_action: 'requires_action',
  required_action: 'requires_action',
  canceled: 'canceled',
  cancelled: 'canceled',
}

const statusOf = (word: string): CozeStatus | undefined => (Object.hasOwn(statuses, word) ? statuses[word] : undefined)

/** Reads a Chat object, whatever of it is there and of the right type. */
export function decodeChat(value: unknown): CozeChat {
  const chat = asObject(value)
  const id = asId(chat['id'])
  const conversationId = asId(chat['conversation_id'])
  const status = typeof chat['status'] === 'string' ? statusOf(chat['status']) : undefined
  const usage = decodeUsage(chat['usage'])
  // A failed chat comes as a Chat with `last_error`, or as a bare `{ code, msg }` whose code may be a string.
  const failure = failureIn(asObject(chat['last_error'])) ?? failureIn(chat)
  return {
    ...(id === undefined ? {} : { id }),
    ...(conversationId === undefined ? {} : { conversationId }),
    ...(status ? { status } : {}),
    ...(usage ? { usage } : {}),
    ...(failure ? { failure } : {}),
    calls: decodeCalls(chat['required_action']),
  }
}

/** Reads a Message object; undefined when it is none. */
export function decodeMessage(value: unknown): CozeMessage | undefined {
  const message = asObject(value)
  if (typeof message['type'] !== 'string') return undefined
  const chatId = asId(message['chat_id'])
  const { content, reasoning_content: reasoning, content_type: contentType } = message
  return {
    id: asId(message['id']) ?? 'answer',
    type: message['type'],
    contentType: typeof contentType === 'string' ? contentType : 'text',
    ...(typeof content === 'string' ? { content } : {}),
    ...(typeof reasoning === 'string' && reasoning ? { reasoning } : {}),
    ...(chatId ? { chatId } : {}),
    metaData: Object.fromEntries(
      Object.entries(asObject(message['meta_data'])).filter(
        (entry): entry is [string, string] => typeof entry[1] === 'string',
      ),
    ),
    raw: message,
  }
}

/** Reads `{ code, msg }`, whose code may be a number or a string. */
export function decodeFailure(value: unknown): CozeFailure {
  const { code, msg } = asObject(value)
  const known = asId(code)
  return {
    ...(known === undefined ? {} : { code: known }),
    ...(typeof msg === 'string' && msg ? { message: msg } : {}),
  }
}

const failureIn = (value: JsonObject): CozeFailure | undefined => {
  const failure = decodeFailure(value)
  return failure.code === undefined || failure.code === '0' ? undefined : failure
}

function decodeUsage(value: unknown): Usage | undefined {
  const usage = asObject(value)
  const inputTokens = asCount(usage['input_count'] ?? usage['input_tokens'])
  const outputTokens = asCount(usage['output_count'] ?? usage['output_tokens'])
  const totalTokens = asCount(usage['token_count'] ?? usage['total_tokens']) || inputTokens + outputTokens
  return totalTokens > 0 ? { inputTokens, outputTokens, totalTokens } : undefined
}

function decodeCalls(requiredAction: unknown): readonly ToolCall[] {
  const calls = asObject(asObject(requiredAction)['submit_tool_outputs'])['tool_calls']
  if (!Array.isArray(calls)) return []
  return calls.flatMap((each: unknown): ToolCall[] => {
    const { id, type, function: called } = asObject(each)
    const { name, arguments: input } = asObject(called)
    const call = asId(id)
    if (type !== 'function' || call === undefined || typeof name !== 'string') return []
    return [{ call, tool: name, input: typeof input === 'string' ? jsonOrText(input) : (input ?? {}) }]
  })
}

/** What has been read of a chat so far. Immutable; `readFrame` makes the next one. */
export interface Reading {
  /** The text shown of each answer, by message id. */
  readonly shown: Readonly<Record<string, string>>
  /** The reasoning shown of each unfinished answer. */
  readonly reasoning: Readonly<Record<string, string>>
  /** Ids of the messages that came whole. */
  readonly seen: readonly string[]
  /** Tools that were called and have not answered, oldest first. */
  readonly open: readonly { readonly call: ToolCall; readonly announced: boolean }[]
}

/** Where the reading of a chat begins. */
export const nothingRead: Reading = { shown: {}, reasoning: {}, seen: [], open: [] }

/** How a stream of frames ends. `done` alone is no success. */
export type ChatEnd =
  | { readonly type: 'completed' }
  | { readonly type: 'requires_action'; readonly calls: readonly ToolCall[] }
  | { readonly type: 'failed'; readonly failure: CozeFailure }
  | { readonly type: 'canceled' }
  | { readonly type: 'done' }

/** What one frame came to: where the reading is now, what to say, and the end if this was it. */
export interface Step {
  readonly reading: Reading
  readonly events: readonly HubEvent[]
  readonly end?: ChatEnd
}

/** Turns one frame into hub events. Pure: the same reading and frame give the same step. */
export function readFrame(reading: Reading, frame: CozeFrame): Step {
  switch (frame.type) {
    case 'chat':
      return readStatus(reading, frame.status, frame.chat)
    case 'delta':
      return readDelta(reading, frame.name, frame.message)
    case 'message':
      return readMessage(reading, frame.message, frame.name)
    case 'error':
      return { reading, events: [], end: { type: 'failed', failure: frame.failure } }
    case 'done':
      return { reading, events: [], end: { type: 'done' } }
    case 'other':
      return { reading, events: [raw(frame.name, frame.content)] }
  }
}

/** Reads the messages of a chat as a list gives them: what was shown of them is not shown again. */
export function readMessages(reading: Reading, messages: readonly CozeMessage[]): Step {
  const events: HubEvent[] = []
  let now = reading
  for (const message of messages) {
    if (message.type === 'question') continue
    const rest = restOf(now, message)
    const step = readMessage(now, message, 'conversation.message.completed')
    now = step.reading
    events.push(...rest, ...step.events)
  }
  return { reading: now, events }
}

/** What a list tells of an answer beyond what its deltas told; nothing when they told something else. */
function restOf(reading: Reading, message: CozeMessage): HubEvent[] {
  if (message.type !== 'answer' || !isText(message) || reading.seen.includes(message.id)) return []
  const shown = reading.shown[message.id] ?? ''
  const text = message.content ?? ''
  if (!text.startsWith(shown) || text.length === shown.length) return []
  return [{ type: 'message.delta', message: message.id, text: text.slice(shown.length) }]
}

/** The end of a chat, as its status tells it; undefined while it runs. */
export function readStatus(reading: Reading, status: CozeStatus, chat: CozeChat): Step {
  const usage: HubEvent[] = chat.usage ? [{ type: 'usage', ...chat.usage }] : []
  switch (status) {
    case 'created':
    case 'in_progress':
      return { reading, events: [] }
    case 'completed':
      return { reading, events: [...announceOpen(reading), ...usage], end: { type: 'completed' } }
    case 'requires_action':
      // The calls are named again, with the ids to answer them by: those held back were these.
      return {
        reading: { ...reading, open: reading.open.filter((each) => each.announced) },
        events: [],
        end: { type: 'requires_action', calls: chat.calls },
      }
    case 'failed':
      return { reading, events: usage, end: { type: 'failed', failure: chat.failure ?? {} } }
    case 'canceled':
      return { reading, events: usage, end: { type: 'canceled' } }
  }
}

function readDelta(reading: Reading, name: string, message: CozeMessage): Step {
  if (message.type !== 'answer' || !isText(message) || reading.seen.includes(message.id)) {
    return { reading, events: [raw(name, message.raw)] }
  }
  const { id, reasoning, content } = message
  return {
    reading: {
      ...reading,
      ...(content ? { shown: { ...reading.shown, [id]: (reading.shown[id] ?? '') + content } } : {}),
      ...(reasoning ? { reasoning: { ...reading.reasoning, [id]: (reading.reasoning[id] ?? '') + reasoning } } : {}),
    },
    events: [
      ...(reasoning ? [{ type: 'reasoning.delta', message: id, text: reasoning } as const] : []),
      ...(content ? [{ type: 'message.delta', message: id, text: content } as const] : []),
    ],
  }
}

function readMessage(before: Reading, message: CozeMessage, name: string): Step {
  if (before.seen.includes(message.id)) return { reading: before, events: [] }
  const reading = { ...before, seen: [...before.seen, message.id] }
  if (message.content === undefined) return { reading, events: [raw(name, message.raw)] }
  switch (message.type) {
    case 'answer':
      return readAnswer(reading, message, message.content, name)
    case 'function_call':
      return readCall(reading, message.id, message.content)
    case 'tool_response':
    case 'tool_output':
      return readToolOutput(reading, message, message.content, name)
    case 'follow_up':
      return { reading, events: message.content ? [{ type: 'suggestion', text: message.content }] : [] }
    default:
      // Knowledge slices and `verbose` notes are no answer, whatever they look like.
      return { reading, events: [raw(name, message.raw)] }
  }
}

function readAnswer(reading: Reading, message: CozeMessage, content: string, name: string): Step {
  const { id } = message
  if (message.contentType === 'audio') return { reading, events: [raw(name, message.raw)] }
  const thought = message.reasoning ?? reading.reasoning[id]
  return {
    reading,
    events: [
      ...(thought ? [{ type: 'reasoning.completed', message: id, text: thought } as const] : []),
      { type: 'message.completed', message: id, ...answerOf(message.contentType, content) },
    ],
  }
}

function answerOf(contentType: string, content: string): { text: string; template?: JsonObject; payload?: Json } {
  const parsed = contentType === 'text' ? undefined : parseExactJson(content)
  if (contentType === 'card') {
    return { text: '', template: { ...(isObject(parsed) ? parsed : { content: parsed ?? content }), type: 'card' } }
  }
  if (contentType === 'object_string' && Array.isArray(parsed)) {
    const texts = parsed.flatMap((item: unknown) => {
      const { text } = asObject(item)
      return typeof text === 'string' ? [text] : []
    })
    return { text: texts.join('\n'), payload: parsed as readonly Json[] }
  }
  return { text: content }
}

/** `plugin_type` of a tool that runs at Coze. Any other may turn out to be a local one, which `required_action` names. */
const cloudPlugin = 1

function readCall(reading: Reading, id: string, content: string): Step {
  // One documented example is broken JSON; such a call has no name, and its content is its input.
  const called = parseExactJson(content)
  const { name, api_name: apiName, plugin_name: plugin, arguments: input, plugin_type: type } = asObject(called)
  const tool = typeof name === 'string' ? name : typeof apiName === 'string' ? apiName : 'unknown'
  const call: ToolCall = {
    call: id,
    ...(typeof plugin === 'string' && plugin ? { toolset: plugin } : {}),
    tool,
    input: isObject(called) ? (input ?? {}) : content,
  }
  const announced = type === cloudPlugin
  return {
    reading: { ...reading, open: [...reading.open, { call, announced }] },
    events: announced ? [{ type: 'tool.started', ...call }] : [],
  }
}

function readToolOutput(reading: Reading, message: CozeMessage, content: string, name: string): Step {
  const answered = reading.open.at(-1)
  // The echo of an output that we submitted ourselves.
  if (!answered) return { reading, events: [raw(name, message.raw)] }
  const { call, announced } = answered
  return {
    reading: { ...reading, open: reading.open.slice(0, -1) },
    events: [
      ...(announced ? [] : [{ type: 'tool.started', ...call } as const]),
      { type: 'tool.completed', call: call.call, output: jsonOrText(content), isError: false },
    ],
  }
}

const announceOpen = (reading: Reading): HubEvent[] =>
  reading.open.filter((each) => !each.announced).map(({ call }) => ({ type: 'tool.started', ...call }))

const isText = (message: CozeMessage) => message.contentType === 'text'
const raw = (name: string, content: Json): HubEvent => ({ type: 'raw', source: 'coze', name, data: content })

/** What Coze's documented codes mean to the hub; every other code is a failure of the bot. */
export const codeMeanings: Readonly<Record<string, FailureCode>> = {
  4000: 'upstream_rejected',
  4001: 'upstream_rejected',
  4002: 'upstream_rejected',
  4003: 'upstream_rejected',
  4004: 'upstream_rejected',
  4005: 'upstream_rejected',
  4006: 'upstream_rejected',
  4007: 'upstream_rejected',
  4008: 'upstream_quota',
  4009: 'upstream_rate_limited',
  4010: 'upstream_rejected',
  4011: 'upstream_quota',
  4012: 'upstream_rejected',
  4013: 'upstream_failed',
  4014: 'upstream_refused_content',
  4015: 'upstream_rejected',
  4016: 'upstream_conflict',
  4019: 'upstream_quota',
  4020: 'upstream_rate_limited',
  4021: 'upstream_rejected',
  4022: 'upstream_quota',
  4027: 'upstream_quota',
  4028: 'upstream_quota',
  4100: 'upstream_auth',
  4101: 'upstream_auth',
  4102: 'upstream_refused_content',
  4104: 'upstream_conflict',
  4105: 'upstream_refused_content',
  4200: 'upstream_rejected',
  4300: 'upstream_rejected',
  4301: 'upstream_rejected',
  4302: 'upstream_rejected',
  4303: 'upstream_rejected',
  4304: 'upstream_rejected',
  5000: 'upstream_failed',
  6003: 'upstream_rejected',
  700012006: 'upstream_auth',
}

/** Refusals by which Coze documents that it did not take the request on, and that it may take it later. */
const notTaken = new Set(['4009', '4016', '4020'])

/**
 * A failure that Coze reported, as the hub's error. `created` says that the chat existed when it came: what happens to
 * a chat never means that nothing was started.
 */
export function cozeError(
  failure: CozeFailure & { readonly status?: number; readonly retryAfterMs?: number },
  created: boolean,
): HubError {
  const { status, code, message, retryAfterMs } = failure
  const http = status !== undefined && status >= 300 ? status : undefined
  const meaning =
    code !== undefined && Object.hasOwn(codeMeanings, code)
      ? codeMeanings[code]!
      : http === undefined
        ? 'upstream_failed'
        : failureOfStatus(http)
  const later =
    (code !== undefined && notTaken.has(code)) ||
    (http === 429 && meaning === 'upstream_rate_limited') ||
    (http === 503 && retryAfterMs !== undefined)
  return new HubError(meaning, {
    notStarted: later && !created,
    ...(retryAfterMs === undefined ? {} : { retryAfterMs }),
    ...(http === undefined && code === undefined
      ? {}
      : { upstream: { ...(http === undefined ? {} : { status: http }), ...(code === undefined ? {} : { code }) } }),
    ...(message === undefined ? {} : { cause: new Error(message) }),
  })
}

/** The text itself when it is no JSON. */
function jsonOrText(text: string): Json {
  const parsed = parseExactJson(text)
  return parsed === undefined ? text : parsed
}

const isObject = (value: unknown): value is JsonObject =>
  typeof value === 'object' && value !== null && !Array.isArray(value)
const asObject = (value: unknown): JsonObject => (isObject(value) ? value : {})
const asCount = (value: unknown): number => (typeof value === 'number' && value > 0 ? value : 0)
const asId = (value: unknown): string | undefined => {
  if (typeof value === 'number' && Number.isFinite(value)) return String(value)
  return typeof value === 'string' && value ? value : undefined
}

/** How a stream is spelled. The default is the cloud's own: no space after the colon, LF. */
export interface FrameStyle {
  readonly space?: boolean
  readonly crlf?: boolean
}

/** Encodes one event of a chat stream; its JSON is one line, so no text in it can end the event. */
export const encodeFrame = (event: string, content: unknown, style: FrameStyle = {}): string => {
  const colon = style.space ? ': ' : ':'
  const line = style.crlf ? '\r\n' : '\n'
  return `event${colon}${event}${line}data${colon}${JSON.stringify(content)}${line}${line}`
}

/** The frame that ends every stream of the cloud; its data is a JSON string, quotes included. */
export const doneFrame = (style: FrameStyle = {}): string => encodeFrame('done', '[DONE]', style)

/** What a Chat object is made of; times in seconds since the epoch. */
export interface ChatParts {
  readonly id: string
  readonly conversationId: string
  /** The chats of a chatflow have none. */
  readonly botId?: string | undefined
  readonly status: CozeStatus
  readonly createdAt: number
  readonly completedAt?: number
  readonly failedAt?: number
  readonly lastError?: { readonly code: number; readonly msg: string }
  readonly usage?: Usage
  readonly calls?: readonly { readonly id: string; readonly name: string; readonly arguments: string }[]
  readonly metaData?: Readonly<Record<string, string>>
  readonly sectionId?: string
}

/** A Chat object in the documented order of its fields. */
export const chatObject = (chat: ChatParts): JsonObject => ({
  id: chat.id,
  conversation_id: chat.conversationId,
  ...(chat.botId === undefined ? {} : { bot_id: chat.botId }),
  created_at: chat.createdAt,
  ...(chat.completedAt === undefined ? {} : { completed_at: chat.completedAt }),
  ...(chat.failedAt === undefined ? {} : { failed_at: chat.failedAt }),
  last_error: { code: chat.lastError?.code ?? 0, msg: chat.lastError?.msg ?? '' },
  status: chat.status,
  usage: {
    token_count: chat.usage?.totalTokens ?? 0,
    output_count: chat.usage?.outputTokens ?? 0,
    input_count: chat.usage?.inputTokens ?? 0,
  },
  ...(chat.metaData ? { meta_data: chat.metaData } : {}),
  ...(chat.calls
    ? {
        required_action: {
          type: 'submit_tool_outputs',
          submit_tool_outputs: {
            tool_calls: chat.calls.map((call) => ({
              id: call.id,
              type: 'function',
              function: { name: call.name, arguments: call.arguments },
              require_info: null,
            })),
          },
        },
      }
    : {}),
  ...(chat.sectionId === undefined ? {} : { section_id: chat.sectionId }),
})

/** What a Message object is made of; times in seconds since the epoch. */
export interface MessageParts {
  readonly id: string
  readonly conversationId: string
  /** The messages of a chatflow have none. */
  readonly botId?: string | undefined
  readonly chatId: string
  readonly role: 'user' | 'assistant'
  readonly type: string
  readonly content: string
  readonly contentType: string
  readonly reasoning?: string
  readonly createdAt?: number
  readonly metaData?: Readonly<Record<string, string>>
}

/** A Message object in the documented order of its fields. */
export const messageObject = (message: MessageParts): JsonObject => ({
  id: message.id,
  conversation_id: message.conversationId,
  ...(message.botId === undefined ? {} : { bot_id: message.botId }),
  role: message.role,
  type: message.type,
  content: message.content,
  content_type: message.contentType,
  ...(message.metaData ? { meta_data: message.metaData } : {}),
  chat_id: message.chatId,
  ...(message.createdAt === undefined ? {} : { created_at: message.createdAt, updated_at: message.createdAt }),
  ...(message.reasoning === undefined ? {} : { reasoning_content: message.reasoning }),
})
