import { HubError } from '../../core/errors.ts'
import { flatMap, inParts } from '../../core/flow.ts'
import type { Flow, Parts } from '../../core/flow.ts'
import { parseExactJson } from '../../core/json.ts'
import type { JsonObject } from '../../core/message.ts'
import type { Secret } from '../../core/settings.ts'
import { requestEvents, retryAfterMs } from '../../core/sse.ts'
import type { EventResponse } from '../../core/sse.ts'
import { decodeFailure, decodeFrame, noDelta, openaiError } from './wire.ts'
import type { OpenaiChunk } from './wire.ts'

/** Which server, with whose key, and how long to wait for it. */
export interface OpenaiClientOptions {
  /** Such as `https://api.openai.com/v1`. */
  readonly baseUrl: string
  /** Undefined for a server that needs none. */
  readonly apiKey: Secret | undefined
  readonly fetch: typeof fetch
  /** Longest silence inside a stream, in ms. */
  readonly idleTimeoutMs: number
}

/** How long the last words of a stream, which only tell its cost, are waited for behind the end of the answer. */
const drainMs = 2000

/**
 * The one call of the API that the provider makes. Every form in which a server reports an error (an HTTP status, JSON
 * under 200, that same JSON where a stream was due, an error inside the stream) becomes a `HubError` here.
 */
export function openaiClient({ baseUrl, apiKey, fetch, idleTimeoutMs }: OpenaiClientOptions) {
  const url = `${baseUrl.replace(/\/+$/, '')}/chat/completions`
  return {
    /**
     * Asks for an answer. The chunks end when the answer is whole, and throw when it is not: cut off, refused, or ended
     * for another reason than that all was said.
     */
    async chat(body: JsonObject, signal: AbortSignal): Promise<Flow<OpenaiChunk>> {
      const response = await requestEvents({
        fetch,
        url,
        headers: { accept: 'text/event-stream', ...(apiKey ? { authorization: `Bearer ${apiKey.reveal()}` } : {}) },
        body,
        signal,
        idleTimeoutMs,
      })
      if (response.status !== 200) throw errorIn(response, await response.errorText())
      const isStream = response.mediaType === 'text/event-stream'
      return inParts(() => (isStream ? chunksOf(response, signal) : wholeOf(response)))
    },
  }
}

/** The calls of the API that the hub makes. */
export type OpenaiClient = ReturnType<typeof openaiClient>

async function* chunksOf(response: EventResponse, signal: AbortSignal): Parts<OpenaiChunk> {
  let finish: string | undefined
  let isDone = false
  let stray = ''
  let drain: NodeJS.Timeout | undefined
  const events = response.events((text) => (stray = text.trim()))
  try {
    yield flatMap(events, (event, stop): OpenaiChunk[] => {
      const frame = decodeFrame(event)
      isDone = frame.type === 'done'
      if (isDone) stop()
      if (frame.type === 'error' && finish === undefined) throw openaiError(frame.failure)
      if (frame.type !== 'chunk') return []
      // Behind the end only the cost is told.
      if (finish !== undefined) return [{ ...frame, delta: noDelta }]
      finish = frame.finish
      if (finish !== undefined) drain = setTimeout(() => response.close(), drainMs)
      return [frame]
    })
  } catch (error) {
    // What is lost behind the end of the answer is no word of it.
    if (finish === undefined || signal.aborted) throw error
  } finally {
    clearTimeout(drain)
    response.close()
  }
  if (isDone || finish !== undefined) return checkFinish(finish)
  // Anything else without an event is a stream that was cut in its first one.
  if (stray.startsWith('{') || stray.startsWith('<')) throw errorIn(response, stray)
  throw new HubError('upstream_cut')
}

/** A server that does not stream: the whole answer as one object, or an error. */
async function* wholeOf(response: EventResponse): Parts<OpenaiChunk> {
  const body = await response.text()
  const frame = decodeFrame({ data: body })
  if (frame.type !== 'chunk' || frame.finish === undefined) throw errorIn(response, body)
  yield [frame]
  checkFinish(frame.finish)
}

/** `stop` and `tool_calls` are good ends, and so is a reason that only its server knows. */
function checkFinish(finish: string | undefined): void {
  const upstream = { code: finish ?? '' }
  if (finish === 'length' || finish === 'max_tokens') throw new HubError('answer_cut_short', { upstream })
  if (finish === 'content_filter') throw new HubError('upstream_refused_content', { upstream })
  if (finish === 'error') throw new HubError('upstream_failed', { upstream })
}

function errorIn({ status, headers }: EventResponse, body: string): HubError {
  const wait = waitIn(headers)
  const parsed = parseExactJson(body)
  const failure = parsed === undefined ? { message: body.slice(0, 1000) } : decodeFailure(parsed)
  return openaiError({ ...failure, status, ...(wait === undefined ? {} : { retryAfterMs: wait }) })
}

/** OpenAI also says it in ms. */
function waitIn(headers: Headers): number | undefined {
  const ms = headers.get('retry-after-ms')
  if (ms !== null && /^\d{1,9}(\.\d+)?$/.test(ms)) return Number(ms)
  return retryAfterMs(headers.get('retry-after'))
}
