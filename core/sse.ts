import { createParser } from 'eventsource-parser'
import { HubError } from './errors.ts'
import type { FailureCode } from './errors.ts'
import { faultPoint } from './fault-points.ts'
import { flatMap, inParts } from './flow.ts'
import type { Flow, Parts } from './flow.ts'
import { openStream } from './open-stream.ts'
import type { StreamedAnswer } from './open-stream.ts'
import { Silence } from './silence.ts'
import { utf8Decoder } from './utf8.ts'

const maxErrorLength = 65_536
const none: readonly never[] = []

/** One server-sent event as an upstream wrote it. */
export interface SourceEvent {
  readonly id?: string
  readonly event?: string
  readonly data: string
}

/** What to ask an upstream, and how much of its silence and size to bear. */
export interface EventRequest {
  readonly fetch: typeof fetch
  readonly url: string | URL
  /** Default POST. */
  readonly method?: 'GET' | 'POST'
  readonly headers?: Readonly<Record<string, string>>
  /** Sent as JSON. */
  readonly body?: unknown
  readonly signal: AbortSignal
  /** Longest silence in ms, to the first byte and between events; comments do not count as events. */
  readonly idleTimeoutMs: number
  /** Default 1 MiB, in characters; a larger event ends the stream with `answer_too_large`. */
  readonly maxEventLength?: number
}

/** An upstream's answer before its body is read: look at the status and the type, then take events or text. */
export interface EventResponse {
  readonly status: number
  readonly headers: Headers
  /** Lower-case media type without parameters; empty when the upstream named none. */
  readonly mediaType: string
  /**
   * The events as they come. Ends when the body does, which says nothing about the answer being whole.
   * A body without a single event, such as a bare JSON error, goes to `onNoEvents`, at most 64 KiB of it.
   * @throws HubError `upstream_cut`, `upstream_silent`, `answer_too_large`, or the signal's reason.
   */
  events(onNoEvents?: (body: string) => void): Flow<SourceEvent>
  /** At most 64 KiB of the body. */
  text(): Promise<string>
  /** The same for an error whose status is known: a body that breaks off says no less than none. */
  errorText(): Promise<string>
  /** Leaves the rest of the body unread and closes the connection. */
  close(): void
}

/**
 * Asks an upstream for a stream of events.
 * @throws HubError `upstream_unreachable` (nothing was started), `upstream_cut`, `upstream_silent`, or the signal's
 * reason.
 */
export async function requestEvents(request: EventRequest): Promise<EventResponse> {
  const connection = new AbortController()
  const leave = () => connection.abort(request.signal.reason)
  if (request.signal.aborted) leave()
  else request.signal.addEventListener('abort', leave, { once: true })
  const idle = new Silence(request.idleTimeoutMs, () => {
    release()
    connection.abort(new HubError('upstream_silent'))
  })
  const release = () => {
    idle.end()
    request.signal.removeEventListener('abort', leave)
  }

  let response: StreamedAnswer
  faultPoint('upstream.before-request')
  try {
    response = await openStream(request.fetch, request.url, {
      method: request.method ?? 'POST',
      headers: { ...(request.body === undefined ? {} : { 'content-type': 'application/json' }), ...request.headers },
      body: request.body === undefined ? undefined : JSON.stringify(request.body),
      signal: connection.signal,
    })
  } catch (error) {
    release()
    throw connectionError(error, connection.signal)
  }

  const chunks = () => inParts(() => untilLeft(response.body, connection, release))

  async function text(): Promise<string> {
    const decode = textDecoder()
    let body = ''
    for await (const chunk of chunks()) {
      body += decode(chunk)
      if (body.length >= maxErrorLength) break
    }
    return body.slice(0, maxErrorLength)
  }

  return {
    status: response.status,
    headers: response.headers,
    mediaType: response.headers.get('content-type')?.split(';', 1)[0]?.trim().toLowerCase() ?? '',
    events: (onNoEvents) => parseEvents(chunks(), { ...request, onNoEvents, idle }),
    text,
    async errorText() {
      try {
        return await text()
      } catch (error) {
        if (request.signal.aborted) throw error
        return ''
      }
    },
    close() {
      release()
      connection.abort()
    },
  }
}

/** The body, whose connection is left with it. */
async function* untilLeft(
  body: StreamedAnswer['body'],
  connection: AbortController,
  release: () => void,
): Parts<string | Uint8Array> {
  try {
    yield body
  } catch (error) {
    throw connection.signal.aborted ? connection.signal.reason : new HubError('upstream_cut', { cause: error })
  } finally {
    release()
    connection.abort()
  }
}

interface ParseOptions {
  readonly maxEventLength?: number
  readonly onNoEvents?: ((body: string) => void) | undefined
  /** Which an event breaks. */
  readonly idle?: Silence
}

/** Decodes bytes to events, whatever the chunks they come in. An event without its blank line was cut, and is dropped. */
export const parseEvents = (
  chunks: AsyncIterable<string | Uint8Array>,
  options: ParseOptions = {},
): Flow<SourceEvent> => inParts(() => eventsIn(chunks, options))

async function* eventsIn(
  chunks: AsyncIterable<string | Uint8Array>,
  { maxEventLength = 1_048_576, onNoEvents, idle }: ParseOptions,
): Parts<SourceEvent> {
  let ready: SourceEvent[] | undefined
  const decode = textDecoder()
  const parser = createParser({
    maxBufferSize: maxEventLength,
    onEvent(event) {
      if (ready) ready.push(event as SourceEvent)
      else ready = [event as SourceEvent]
    },
    onError(error) {
      if (error.type === 'max-buffer-size-exceeded') throw new HubError('answer_too_large', { cause: error })
    },
  })
  // The parser forgets what cannot become an event, so the body is kept beside it until the first event.
  let body: string | undefined = ''
  yield flatMap(chunks, (chunk) => {
    const text = decode(chunk)
    if (body !== undefined && body.length < maxErrorLength) body += text
    parser.feed(text)
    const events = ready
    if (!events) return none
    ready = undefined
    idle?.heard()
    if (body !== undefined) faultPoint('upstream.after-first-event')
    body = undefined
    return events
  })
  if (body) onNoEvents?.(body.slice(0, maxErrorLength))
}

/** Text stays what it is. */
function textDecoder(): (chunk: string | Uint8Array) => string {
  const decode = utf8Decoder()
  return (chunk) =>
    typeof chunk === 'string' ? chunk : decode(Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength))
}

/** Encodes one event. `data` is one line, as `JSON.stringify` makes it; a vendor's text inside it cannot end the line. */
export const encodeEvent = (event: { readonly id: string; readonly event: string; readonly data: string }): string =>
  `id: ${event.id}\nevent: ${event.event}\ndata: ${event.data}\n\n`

// Failures before a byte of the request was written: undici and Node name them by these codes.
const neverSent = new Set([
  'ECONNREFUSED',
  'ENOTFOUND',
  'EAI_AGAIN',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'UND_ERR_CONNECT_TIMEOUT',
  'CONNECT_TIMEOUT',
  'DEPTH_ZERO_SELF_SIGNED_CERT',
  'SELF_SIGNED_CERT_IN_CHAIN',
  'UNABLE_TO_VERIFY_LEAF_SIGNATURE',
  'CERT_HAS_EXPIRED',
  'ERR_TLS_CERT_ALTNAME_INVALID',
])

/** What a failed request means: the signal's reason, nothing sent, or a connection lost with the outcome unknown. */
export function connectionError(error: unknown, signal?: AbortSignal): unknown {
  if (signal?.aborted) return signal.reason
  if (error instanceof HubError) return error
  const cause = error instanceof Error ? error.cause : undefined
  // What failed is the body that was being sent.
  if (cause instanceof HubError) return cause
  const codes = [error, cause].flatMap(codesOf)
  return codes.some((code) => neverSent.has(code))
    ? new HubError('upstream_unreachable', { cause: error, notStarted: true })
    : new HubError('upstream_cut', { cause: error })
}

/** Where several addresses were tried, each has failed with a code of its own. */
function codesOf(error: unknown): string[] {
  const errors: unknown[] = [error, ...(error instanceof AggregateError ? error.errors : [])]
  return errors.map((one) => (one instanceof Error && 'code' in one ? String(one.code) : ''))
}

/** `Retry-After` in ms, from seconds or an HTTP date; undefined when it is absent or neither. */
export function retryAfterMs(header: string | null, now = Date.now()): number | undefined {
  if (header === null) return undefined
  if (/^\s*\d{1,9}(\.\d+)?\s*$/.test(header)) return Number(header) * 1000
  const at = Date.parse(header)
  return Number.isNaN(at) ? undefined : Math.max(0, at - now)
}

/** What a refusal means by its HTTP status alone. Only a 429 says of itself that nothing was started. */
export function failureOfStatus(status: number): FailureCode {
  if (status >= 500) return 'upstream_failed'
  if (status === 401 || status === 403) return 'upstream_auth'
  if (status === 402) return 'upstream_quota'
  if (status === 429) return 'upstream_rate_limited'
  return 'upstream_rejected'
}
