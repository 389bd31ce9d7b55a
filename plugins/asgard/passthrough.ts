import { HubError } from '../../core/errors.ts'
import type { PassthroughAnswer, PassthroughRequest } from '../../core/plugin.ts'
import type { Secret } from '../../core/settings.ts'
import { connectionError } from '../../core/sse.ts'
import { failureOf } from './wire.ts'

/** Which bot provider of which Asgard, and how it is called. */
export interface PassthroughTarget {
  readonly edgeServerHost: string
  readonly namespace: string
  readonly botProviderName: string
  readonly apiKey: Secret
  /** Sent with every call; the key wins over one of the same name. */
  readonly headers: Readonly<Record<string, string>>
  readonly fetch: typeof fetch
  /** Longest pause of either body, and longest wait for the answer to begin, in ms. */
  readonly timeoutMs: number
}

/** What says how a body is to be read. Everything else an upstream answers stays here. */
const passed = [
  'content-type',
  'content-disposition',
  'content-length',
  'etag',
  'last-modified',
  'x-total-bytes',
  'x-truncated',
  'x-trace-id',
]

/** Of a refusal, more than anybody needs to know why. */
const maxRefusalLength = 65_536

/**
 * Sends a request to Asgard as it is. `channel` is the name that Asgard knows the channel by; it takes the place of
 * whatever name the request has for it.
 * @throws HubError for every answer that is no success, with its status and code in `upstream`
 */
export async function passThrough(
  target: PassthroughTarget,
  request: PassthroughRequest,
  channel: string | undefined,
  signal: AbortSignal,
): Promise<PassthroughAnswer> {
  const pause = new Pause(target.timeoutMs)
  const limit = AbortSignal.any([signal, pause.signal])
  try {
    pause.begin()
    const response = await target.fetch(urlOf(target, request, channel), {
      method: request.method,
      headers: headersOf(target, request),
      ...(request.body ? { body: bodyOf(request.body, pause), duplex: 'half' as const } : {}),
      redirect: 'manual',
      signal: limit,
    })
    const { status, headers } = response
    if (!response.ok) throw failureOf({ status, headers, body: await beginningOf(response, pause) })
    return { status, headers: headersBack(headers), body: chunksOf(response, pause, limit) }
  } catch (error) {
    pause.end()
    throw connectionError(error, limit)
  }
}

/** Gives up on an upstream that neither takes nor gives, and counts none of the time in which the hub does not ask. */
class Pause {
  readonly #silent = new AbortController()
  readonly #timeoutMs: number
  #timer: NodeJS.Timeout | undefined

  constructor(timeoutMs: number) {
    this.#timeoutMs = timeoutMs
  }

  get signal(): AbortSignal {
    return this.#silent.signal
  }

  begin(): void {
    clearTimeout(this.#timer)
    this.#timer = setTimeout(() => this.#silent.abort(new HubError('upstream_silent')), this.#timeoutMs)
  }

  end(): void {
    clearTimeout(this.#timer)
  }
}

function urlOf(target: PassthroughTarget, { path, query }: PassthroughRequest, channel: string | undefined): string {
  // Some clients of HTTP take these for a way up, encoded or not.
  if (path.some((segment) => segment === '' || /^\.\.?$/.test(segment))) throw new HubError('not_found')
  const own = ['ns', target.namespace, 'bot-provider', target.botProviderName]
  const url = [...own, ...path].map(encodeURIComponent).join('/')
  const search = new URLSearchParams(query)
  if (channel !== undefined) search.set('custom_channel_id', channel)
  return `${target.edgeServerHost.replace(/\/+$/, '')}/${url}${search.size > 0 ? `?${search.toString()}` : ''}`
}

function headersOf({ headers, apiKey }: PassthroughTarget, request: PassthroughRequest): Headers {
  const all = new Headers(headers)
  // What is passed on is what came, byte for byte.
  all.set('accept-encoding', 'identity')
  for (const [name, value] of Object.entries(request.headers)) all.set(name, value)
  all.set('x-api-key', apiKey.reveal())
  return all
}

const bodyOf = (body: AsyncIterable<Uint8Array>, pause: Pause): ReadableStream<Uint8Array> =>
  ReadableStream.from(
    (async function* () {
      // A client that sends slowly has a clock of its own; this one is for the upstream.
      for await (const chunk of body) {
        pause.begin()
        yield chunk
      }
      pause.begin()
    })(),
  )

function headersBack(headers: Headers): Record<string, string> {
  const encoded = headers.has('content-encoding')
  return Object.fromEntries(
    passed.flatMap((name) => {
      const value = headers.get(name)
      return value === null || (encoded && name === 'content-length') ? [] : [[name, value]]
    }),
  )
}

async function* chunksOf(response: Response, pause: Pause, signal: AbortSignal): AsyncGenerator<Uint8Array> {
  // A stream of events may be silent for as long as nothing happens.
  const watches = !response.headers.get('content-type')?.startsWith('text/event-stream')
  pause.end()
  try {
    if (!response.body) return
    if (watches) pause.begin()
    for await (const chunk of response.body) {
      pause.end()
      yield chunk
      if (watches) pause.begin()
    }
  } catch (error) {
    throw connectionError(error, signal)
  } finally {
    pause.end()
  }
}

async function beginningOf(response: Response, pause: Pause): Promise<string> {
  const decoder = new TextDecoder()
  let text = ''
  pause.begin()
  try {
    for await (const chunk of response.body ?? []) {
      text += decoder.decode(chunk, { stream: true })
      if (text.length >= maxRefusalLength) break
    }
  } finally {
    pause.end()
  }
  return text
}
