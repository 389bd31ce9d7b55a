import { HubError } from '../../core/errors.ts'
import type { FailureCode } from '../../core/errors.ts'
import type { Usage } from '../../core/events.ts'
import { parseExactJson } from '../../core/json.ts'
import type { Json, JsonObject } from '../../core/message.ts'
import { failureOfStatus } from '../../core/sse.ts'

/**
 * The dialect of OpenAI's chat completions, in both directions and without any input or output: chunks to their parts for
 * the provider, parts to chunks for the simulator and for whoever speaks to OpenAI's clients.
 */

/** A call of a tool as it is sent: the arguments are JSON in a string, as the model wrote it. */
export interface OpenaiCall {
  readonly id: string
  readonly name: string
  readonly arguments: string
}

/** What a chunk adds to an answer: the pieces of one or several of these. */
export interface OpenaiDelta {
  /** Empty where it says nothing. */
  readonly content: string
  /** Thoughts, and the field they came in: `reasoning_content` (DeepSeek and others) or `reasoning` (vLLM, OpenRouter). */
  readonly reasoning: { readonly field: string; readonly text: string } | undefined
  readonly calls: readonly OpenaiCallDelta[]
}

/** A piece of a call: the first one brings id and name, the others the rest of the arguments. */
export interface OpenaiCallDelta {
  readonly index: number
  readonly id?: string
  readonly name?: string
  readonly arguments?: string
}

/** What a platform says about a failure; `message` is the vendor's text and never goes to a client. */
export interface OpenaiFailure {
  readonly status?: number
  readonly code?: string
  readonly type?: string
  readonly message?: string
  readonly retryAfterMs?: number
}

/** What one event of an answer brings. */
export interface OpenaiChunk {
  readonly type: 'chunk'
  readonly delta: OpenaiDelta
  /** Why the answer ends here. */
  readonly finish: string | undefined
  readonly usage: Usage | undefined
}

/** One event of a stream, understood. */
export type OpenaiFrame =
  | OpenaiChunk
  | { readonly type: 'error'; readonly failure: OpenaiFailure }
  | { readonly type: 'done' }
  | { readonly type: 'other' }

/** What ends a stream behind its last chunk. */
export const doneMark = '[DONE]'

/** Understands the data of one event. Never throws: what it does not know is `other`. */
export function decodeFrame({ event, data }: { readonly event?: string; readonly data: string }): OpenaiFrame {
  if (data.trim() === doneMark) return { type: 'done' }
  const frame = asObject(parseExactJson(data))
  if (!frame) return { type: 'other' }
  if (isFilled(frame['error']) || event === 'error') return { type: 'error', failure: decodeFailure(frame) }
  const usage = decodeUsage(frame)
  const choice = choiceIn(frame)
  if (!choice) return usage ? { type: 'chunk', delta: noDelta, finish: undefined, usage } : { type: 'other' }
  // A server that does not stream sends the whole `message` in place of its pieces.
  const delta = decodeDelta(asObject(choice['delta']) ?? asObject(choice['message']) ?? {})
  const finish = choice['finish_reason']
  return { type: 'chunk', delta, finish: typeof finish === 'string' && finish !== '' ? finish : undefined, usage }
}

/** A chunk that adds nothing to the answer. */
export const noDelta: OpenaiDelta = { content: '', reasoning: undefined, calls: [] }

/** The one choice that was asked for; others are of no answer of ours. */
function choiceIn(frame: JsonObject): JsonObject | undefined {
  const { choices } = frame
  if (!Array.isArray(choices)) return undefined
  return choices.map(asObject).find((choice) => choice !== undefined && (choice['index'] ?? 0) === 0)
}

function decodeDelta(delta: JsonObject): OpenaiDelta {
  // A refusal is said to the user like anything else.
  const content = textIn(delta['content']) || textIn(delta['refusal'])
  const field = ['reasoning_content', 'reasoning'].find((name) => textIn(delta[name]) !== '')
  const { tool_calls: calls } = delta
  return {
    content,
    reasoning: field === undefined ? undefined : { field, text: textIn(delta[field]) },
    calls: Array.isArray(calls) ? calls.flatMap(decodeCall) : [],
  }
}

/** Text, or the texts of content parts. */
function textIn(content: Json | undefined): string {
  if (typeof content === 'string') return content
  if (!Array.isArray(content)) return ''
  return content.map((part) => (asObject(part)?.['type'] === 'text' ? textIn(asObject(part)?.['text']) : '')).join('')
}

function decodeCall(value: Json, position: number): OpenaiCallDelta[] {
  const call = asObject(value)
  const called = asObject(call?.['function'])
  if (!call || !called) return []
  const { index, id } = call
  const { name, arguments: input } = called
  return [
    {
      index: typeof index === 'number' ? index : position,
      ...(typeof id === 'string' && id !== '' ? { id } : {}),
      ...(typeof name === 'string' && name !== '' ? { name } : {}),
      // Some servers send the arguments parsed.
      ...(typeof input === 'string'
        ? { arguments: input }
        : isFilled(input)
          ? { arguments: JSON.stringify(input) }
          : {}),
    },
  ]
}

function decodeUsage(frame: JsonObject): Usage | undefined {
  const usage = asObject(frame['usage'])
  if (!usage) return undefined
  const { prompt_tokens: input, completion_tokens: output, total_tokens: total } = usage
  if (!isCount(input) || !isCount(output)) return undefined
  const { model } = frame
  return {
    inputTokens: input,
    outputTokens: output,
    totalTokens: isCount(total) ? total : input + output,
    ...(typeof model === 'string' && model !== '' ? { model } : {}),
  }
}

const isCount = (value: Json | undefined): value is number =>
  typeof value === 'number' && Number.isInteger(value) && value >= 0

/** Reads an error body in any of the forms that compatible servers give it: `{ error: {…} }`, `{ error: "…" }`, `{ message }`. */
export function decodeFailure(value: unknown): OpenaiFailure {
  const body = asObject(value) ?? {}
  const inner = body['error']
  const failure = asObject(inner) ?? (typeof inner === 'string' ? { ...body, message: inner } : body)
  const { code, type, message, detail } = failure
  const said = [message, detail].find((each) => typeof each === 'string')
  return {
    ...(typeof code === 'string' || typeof code === 'number' ? { code: String(code) } : {}),
    ...(typeof type === 'string' ? { type } : {}),
    ...(typeof said === 'string' ? { message: said } : {}),
  }
}

/** Codes and types that say more than the status they come with. */
const precise: Readonly<Record<string, FailureCode>> = {
  insufficient_quota: 'upstream_quota',
  billing_hard_limit_reached: 'upstream_quota',
  billing_not_active: 'upstream_quota',
  content_filter: 'upstream_refused_content',
  content_policy_violation: 'upstream_refused_content',
}

/** Those that say as much as a status, for an error that comes without one. */
const broad: Readonly<Record<string, FailureCode>> = {
  invalid_api_key: 'upstream_auth',
  authentication_error: 'upstream_auth',
  permission_error: 'upstream_auth',
  rate_limit_exceeded: 'upstream_rate_limited',
  rate_limit_error: 'upstream_rate_limited',
  invalid_request_error: 'upstream_rejected',
}

/**
 * The failure as the hub names it. A 429, and a 503 with `Retry-After`, were not taken by the platform; an error inside a
 * stream has been, whatever it says, since it comes under 200.
 */
export function openaiError(failure: OpenaiFailure): HubError {
  const { status, code, message, retryAfterMs } = failure
  const http = status !== undefined && status >= 300 ? status : undefined
  const meaning = meaningOf(failure, http)
  const refused = (http === 429 && meaning === 'upstream_rate_limited') || (http === 503 && retryAfterMs !== undefined)
  const upstream = { ...(http === undefined ? {} : { status: http }), ...(code === undefined ? {} : { code }) }
  return new HubError(meaning, {
    notStarted: refused,
    ...(retryAfterMs === undefined ? {} : { retryAfterMs }),
    ...(Object.keys(upstream).length === 0 ? {} : { upstream }),
    ...(message === undefined ? {} : { cause: new Error(message) }),
  })
}

function meaningOf({ code, type }: OpenaiFailure, http: number | undefined): FailureCode {
  // Some put a status into the code of an error that comes under 200.
  const status = http ?? (code !== undefined && /^[45]\d\d$/.test(code) ? Number(code) : undefined)
  const found = (meanings: Readonly<Record<string, FailureCode>>) =>
    [code, type].flatMap((word) => (word !== undefined && Object.hasOwn(meanings, word) ? [meanings[word]!] : []))[0]
  if (status === undefined) return found(precise) ?? found(broad) ?? 'upstream_failed'
  if (status === 503) return 'bot_unavailable'
  const meant = failureOfStatus(status)
  const saysLess = meant === 'upstream_rejected' || meant === 'upstream_rate_limited'
  return (saysLess && found(precise)) || meant
}

/** A call that is put together from its pieces. */
interface GatheredCall {
  id: string | undefined
  name: string
  arguments: string
}

/** Puts the calls of an answer together from their pieces. */
export class CallCollector {
  readonly #calls: GatheredCall[] = []
  readonly #open = new Map<number, GatheredCall>()

  add(pieces: readonly OpenaiCallDelta[]): void {
    for (const piece of pieces) {
      const call = this.#callOf(piece)
      call.id ??= piece.id
      // A server that repeats the name with every piece has one name all the same.
      call.name ||= piece.name ?? ''
      call.arguments += piece.arguments ?? ''
    }
  }

  /** Some servers give every call the index 0, and tell them apart by their ids alone. */
  #callOf({ index, id }: OpenaiCallDelta): GatheredCall {
    const open = this.#open.get(index)
    if (open && (id === undefined || open.id === undefined || open.id === id)) return open
    const call = { id: undefined, name: '', arguments: '' }
    this.#calls.push(call)
    this.#open.set(index, call)
    return call
  }

  /** In the order in which they began. One without a name is none. */
  get calls(): readonly Readonly<GatheredCall>[] {
    return this.#calls.filter((call) => call.name !== '')
  }
}

/** What names an answer in every chunk of it. */
export interface AnswerHead {
  readonly id: string
  /** Seconds since the epoch. */
  readonly created: number
  readonly model: string
}

/** What a chunk brings, as it is encoded. */
export interface ChunkParts {
  readonly role?: 'assistant'
  readonly content?: string
  readonly reasoning?: string
  readonly calls?: readonly OpenaiCall[]
  readonly finish?: FinishReason
}

/** Why an answer ends. */
export type FinishReason = 'stop' | 'length' | 'tool_calls' | 'content_filter'

/** An object `chat.completion.chunk` with one choice. */
export const chunkObject = (head: AnswerHead, parts: ChunkParts): JsonObject => ({
  id: head.id,
  object: 'chat.completion.chunk',
  created: head.created,
  model: head.model,
  choices: [{ index: 0, delta: deltaObject(parts), finish_reason: parts.finish ?? null }],
})

const deltaObject = ({ role, content, reasoning, calls }: ChunkParts): JsonObject => ({
  ...(role === undefined ? {} : { role }),
  ...(content === undefined ? {} : { content }),
  ...(reasoning === undefined ? {} : { reasoning_content: reasoning }),
  ...(calls === undefined ? {} : { tool_calls: calls.map((call, index) => ({ index, ...callObject(call) })) }),
})

const callObject = (call: OpenaiCall): JsonObject => ({
  id: call.id,
  type: 'function',
  function: { name: call.name, arguments: call.arguments },
})

/** The chunk without a choice that tells what a stream cost; null where nobody knows. */
export const usageChunk = (head: AnswerHead, usage: Usage | undefined): JsonObject => ({
  id: head.id,
  object: 'chat.completion.chunk',
  created: head.created,
  model: head.model,
  choices: [],
  usage: usage ? usageObject(usage) : null,
})

/** Usage in OpenAI's words. */
export const usageObject = ({ inputTokens, outputTokens, totalTokens }: Usage): JsonObject => ({
  prompt_tokens: inputTokens,
  completion_tokens: outputTokens,
  total_tokens: totalTokens,
})

/** A whole answer, as an object `chat.completion`. */
export const completionObject = (
  head: AnswerHead,
  answer: {
    readonly content: string
    readonly reasoning: string
    readonly calls: readonly OpenaiCall[]
    readonly finish: FinishReason
    readonly usage?: Usage | undefined
  },
): JsonObject => ({
  id: head.id,
  object: 'chat.completion',
  created: head.created,
  model: head.model,
  choices: [
    {
      index: 0,
      message: {
        role: 'assistant',
        // Null where tools are called and nothing is said, as OpenAI has it.
        content: answer.content === '' && answer.calls.length > 0 ? null : answer.content,
        refusal: null,
        ...(answer.reasoning === '' ? {} : { reasoning_content: answer.reasoning }),
        ...(answer.calls.length === 0 ? {} : { tool_calls: answer.calls.map(callObject) }),
      },
      logprobs: null,
      finish_reason: answer.finish,
    },
  ],
  ...(answer.usage ? { usage: usageObject(answer.usage) } : {}),
})

/** An error in OpenAI's form. `param` names the field that is wrong. */
export const errorObject = (error: {
  readonly message: string
  readonly type: string
  readonly code: string | null
  readonly param?: string | null
}): JsonObject => ({
  error: { message: error.message, type: error.type, param: error.param ?? null, code: error.code },
})

/** A model as it is listed. */
export const modelObject = (id: string, created: number, owner: string): JsonObject => ({
  id,
  object: 'model',
  created,
  owned_by: owner,
})

/** One event of a stream. The data is one line, whatever the model wrote: JSON has its line breaks escaped. */
export const encodeFrame = (data: Json): string => `data: ${JSON.stringify(data)}\n\n`
/** The last event of a stream that ended well. */
export const doneFrame = `data: ${doneMark}\n\n`

const isFilled = (value: Json | undefined): value is Exclude<Json, null> => value !== undefined && value !== null

const asObject = (value: unknown): JsonObject | undefined =>
  typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as JsonObject) : undefined
