import { z } from 'zod'
import { HubError } from '../../core/errors.ts'
import type { FailureCode } from '../../core/errors.ts'
import type { HubEvent } from '../../core/events.ts'
import type { Json } from '../../core/message.ts'

/** Something that was sent, as the hub says it; `end` is the `[DONE]` that closes a stream, `fail` an error event. */
export type Sent = string | HubEvent | { readonly type: 'end' } | { readonly type: 'fail'; readonly error: HubError }

/** One delta is this long at most, in characters, whatever a bot sends at once. */
const maxDelta = 262_144

const payload = z
  .object({
    type: z.string(),
    content: z.string(),
    reasoning_content: z.string(),
    finish_reason: z.string(),
    model: z.string(),
    error: z.object({ code: z.string().catch(''), message: z.string().catch('') }),
    usage: z.object({
      promptTokens: z.number().catch(0),
      completionTokens: z.number().catch(0),
      totalTokens: z.number().optional().catch(undefined),
    }),
    tool_call: z.object({
      id: z.string(),
      function: z.object({ name: z.string(), arguments: z.unknown() }),
    }),
    toolCallId: z.string(),
    result: z.unknown(),
  })
  .partial()

/**
 * What a bot gave to `sseSender.send`, in every shape seen: `{ data: {…} }`, `{ data: 'text' }`, text that is formatted
 * as server-sent events already, bytes of such, or an array of all these.
 * @throws TypeError for anything else
 */
export function* sentEvents(given: unknown): Generator<Sent> {
  if (typeof given === 'string') yield* fromText(given)
  else if (given instanceof Uint8Array) yield* fromText(new TextDecoder().decode(given))
  else if (Array.isArray(given)) for (const each of given) yield* sentEvents(each)
  else if (isRecord(given) && 'data' in given) yield* fromData(given['data'])
  else if (!isRecord(given) || !('comment' in given)) {
    throw new TypeError('sseSender.send takes { data: { content: string } }')
  }
}

/** Frames where there are any, else words. */
function* fromText(text: string): Generator<Sent> {
  if (!/^data:/m.test(text)) return yield* words(text)
  for (const frame of text.split(/(?:\r\n|\r|\n){2,}/)) {
    const lines = frame.split(/\r\n|\r|\n/).filter((line) => line.startsWith('data:'))
    const data = lines.map((line) => line.slice('data:'.length).replace(/^ /, '')).join('\n')
    if (data === '[DONE]') yield { type: 'end' }
    else if (lines.length > 0) yield* fromData(parse(data))
  }
}

function* fromData(data: unknown): Generator<Sent> {
  if (typeof data === 'string') return yield* data === '[DONE]' ? [{ type: 'end' } as const] : words(data)
  if (!isRecord(data)) throw new TypeError('sseSender.send takes { data: { content: string } }')
  // A field of a wrong type is as if it were not there.
  const fields: Record<string, unknown> = {}
  for (const [name, schema] of Object.entries(payload.shape)) {
    const parsed = schema.safeParse(data[name])
    if (parsed.success && parsed.data !== undefined) fields[name] = parsed.data
  }
  yield* fromPayload(payload.parse(fields), data)
}

function* fromPayload(event: z.infer<typeof payload>, whole: Readonly<Record<string, unknown>>): Generator<Sent> {
  const error = failureOf(event)
  if (error) return yield { type: 'fail', error }
  if (event.reasoning_content) yield* cut(event.reasoning_content).map(thought)
  const { type = 'text', content = '', tool_call: call } = event
  if (type === 'text' || type === 'thinking') yield* words(content)
  else if (type === 'tool-call' && call) {
    yield { type: 'tool.started', call: call.id, tool: call.function.name, input: toJson(call.function.arguments) }
  } else if (type === 'tool-result' && event.toolCallId !== undefined) {
    yield { type: 'tool.completed', call: event.toolCallId, output: toJson(event.result), isError: false }
  } else if (type !== 'finish') {
    yield { type: 'raw', source: 'local', name: type, data: toJson(whole) }
  }
  if (event.usage) yield usage(event.usage, event.model)
}

const thought = (text: string): HubEvent => ({ type: 'reasoning.delta', message: 'thoughts', text })

const usage = (
  { promptTokens, completionTokens, totalTokens }: NonNullable<z.infer<typeof payload>['usage']>,
  model: string | undefined,
): HubEvent => ({
  type: 'usage',
  inputTokens: promptTokens,
  outputTokens: completionTokens,
  totalTokens: totalTokens ?? promptTokens + completionTokens,
  ...(model === undefined ? {} : { model }),
})

const failureCodes: Readonly<Record<string, FailureCode>> = {
  EXCEED_CONCURRENT_REQUEST_LIMIT: 'upstream_rate_limited',
  HUNYUAN_RATE_LIMIT_FAILED: 'upstream_rate_limited',
  EXCEED_TOKEN_QUOTA_LIMIT: 'upstream_quota',
  LLM_CONTENT_FILER: 'upstream_refused_content',
}

/** An event with an error in it ends the answer, whatever else it says. */
function failureOf({ type, error, finish_reason: reason }: z.infer<typeof payload>): HubError | undefined {
  if (reason === 'content_filter') return new HubError('upstream_refused_content')
  if (!error && type !== 'error' && reason !== 'error') return undefined
  const { code = '', message = '' } = error ?? {}
  return new HubError(failureCodes[code] ?? 'bot_failed', {
    cause: new Error(`the bot sent an error: ${code} ${message}`),
    ...(/^\w{1,64}$/.test(code) ? { upstream: { code } } : {}),
  })
}

function* words(text: string): Generator<string> {
  if (text !== '') yield* cut(text)
}

/** A text in pieces, no character of it cut in two. */
function cut(text: string): string[] {
  if (text.length <= maxDelta) return [text]
  const pieces: string[] = []
  for (let from = 0; from < text.length;) {
    let to = Math.min(from + maxDelta, text.length)
    const last = text.charCodeAt(to - 1)
    if (to < text.length && last >= 0xd800 && last < 0xdc00) to -= 1
    pieces.push(text.slice(from, to))
    from = to
  }
  return pieces
}

function parse(json: string): unknown {
  try {
    return JSON.parse(json)
  } catch {
    // Clients pass over what is not JSON.
    return {}
  }
}

const isRecord = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === 'object' && value !== null

const toJson = (value: unknown): Json => (value === undefined ? null : (JSON.parse(JSON.stringify(value)) as Json))
