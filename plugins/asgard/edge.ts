import { HubError } from '../../core/errors.ts'
import type { Json } from '../../core/message.ts'
import { connectionError, requestEvents } from '../../core/sse.ts'
import type { EventResponse } from '../../core/sse.ts'
import { AsgardError, lossOf, refusalOf } from './errors.ts'
import { multipart } from './multipart.ts'
import type { FileUpload, MultipartForm } from './multipart.ts'
import { parseJson, readAnswer } from './wire.ts'

/** Which bot provider of which Asgard, with whose key, and how to reach it. */
export interface BotProviderConfig {
  /** Default `https://api.asgard-ai.com`. */
  readonly edgeServerHost?: string
  readonly namespace: string
  readonly botProviderName: string
  /** Sent as `X-API-KEY`, whatever `headers` say. Keep it on your server. */
  readonly botProviderApiKey: string
  /** Sent with every call, for tracing or a relay. */
  readonly headers?: Readonly<Record<string, string>>
  /** Longest wait for an answer that is no stream, in ms; of an upload or download, longest pause. Default 300,000. */
  readonly timeoutMs?: number
  /** Longest silence of a stream, in ms, to its first byte and between events. Default 300,000. */
  readonly idleTimeoutMs?: number
  /** Stands for the global `fetch` in every call: for tracing, metrics, retries, or tests. */
  readonly fetch?: typeof fetch
  /** Connection pool of every call, such as an `Agent` or `ProxyAgent` of undici. */
  readonly dispatcher?: RequestInit['dispatcher']
}

/** What every call may be given. */
export interface CallOptions {
  /** Gives up; the call then throws the signal's reason. */
  readonly signal?: AbortSignal | undefined
}

/** One call, as `Edge` sends it. */
export interface EdgeRequest extends CallOptions {
  readonly method: 'GET' | 'POST' | 'PUT' | 'DELETE'
  /** Behind the bot provider's own path. */
  readonly path: string
  /** What is undefined is left out. */
  readonly query?: Readonly<Record<string, string | undefined>>
  readonly headers?: Readonly<Record<string, string | undefined>>
  readonly json?: unknown
  readonly form?: { readonly fields: Readonly<Record<string, string>>; readonly file?: FileUpload | undefined }
}

/** A file that Asgard keeps. Read `body` to its end, or cancel it. */
export interface AsgardFile {
  readonly body: ReadableStream<Uint8Array>
  readonly mime: string
  readonly fileName: string | undefined
  /** Size of the whole file, where the server says it. */
  readonly totalBytes: number | undefined
  /** Whether there is more of the file behind what was asked for. */
  readonly truncated: boolean
}

const defaultHost = 'https://api.asgard-ai.com'
const defaultTimeoutMs = 300_000

/** Speaks HTTP with one bot provider: paths, key, timeouts and errors, the same for every route. */
export class Edge {
  readonly #config: BotProviderConfig
  readonly #fetch: typeof fetch
  readonly #timeoutMs: number

  constructor(config: BotProviderConfig) {
    const { dispatcher } = config
    const send = config.fetch ?? ((input, init) => fetch(input, init))
    this.#config = config
    this.#fetch = dispatcher ? (input, init) => send(input, { ...init, dispatcher }) : send
    this.#timeoutMs = config.timeoutMs ?? defaultTimeoutMs
  }

  /**
   * Makes a call whose answer is JSON and returns the envelope's `data`, or the whole answer where a relay has left the
   * envelope out. Undefined for an answer that is empty or no JSON.
   * @throws AsgardError
   */
  async call(request: EdgeRequest): Promise<Json | undefined> {
    using patience = new Patience(this.#timeoutMs, request.signal)
    const { response, text } = await this.#send(request, patience)
    const body = await text()
    const answer = readAnswer(body)
    if (!response.ok || answer?.isSuccess === false)
      throw refusalOf({ status: response.status, headers: response.headers, body })
    return answer ? answer.data : parseJson(body)
  }

  /**
   * Makes a call whose answer is a file.
   * @throws AsgardError
   */
  async download(request: EdgeRequest): Promise<AsgardFile> {
    const patience = new Patience(this.#timeoutMs, request.signal)
    try {
      const { response, text } = await this.#send(request, patience)
      const { status, headers } = response
      if (!response.ok) throw refusalOf({ status, headers, body: await text() })
      return {
        body: ReadableStream.from(patiently(response, patience)),
        mime: headers.get('content-type') ?? 'application/octet-stream',
        fileName: fileNameIn(headers.get('content-disposition') ?? ''),
        totalBytes: countIn(headers.get('x-total-bytes') ?? headers.get('content-length')),
        truncated: headers.get('x-truncated') === 'true',
      }
    } catch (error) {
      patience[Symbol.dispose]()
      throw error
    }
  }

  /**
   * Makes a call whose answer is a stream of events.
   * @throws AsgardError
   */
  async events(request: EdgeRequest): Promise<EventResponse> {
    const { signal = new AbortController().signal } = request
    try {
      const response = await requestEvents({
        fetch: this.#fetch,
        method: request.method === 'GET' ? 'GET' : 'POST',
        url: this.#url(request),
        headers: this.#headers({ accept: 'text/event-stream', ...request.headers }),
        ...(request.json === undefined ? {} : { body: request.json }),
        signal,
        idleTimeoutMs: this.#config.idleTimeoutMs ?? defaultTimeoutMs,
      })
      const { status, headers } = response
      if (status === 200 && response.mediaType === 'text/event-stream') return response
      throw refusalOf({ status, headers, body: await response.errorText() })
    } catch (error) {
      throw signal.aborted ? signal.reason : lossOf(error)
    }
  }

  async #send(request: EdgeRequest, patience: Patience) {
    const form = request.form && multipart(request.form.fields, request.form.file, () => patience.goOn())
    const { signal } = patience
    const read = async <T>(work: () => Promise<T>): Promise<T> => {
      try {
        return await work()
      } catch (error) {
        if (request.signal?.aborted) throw request.signal.reason
        const source = signal.aborted ? undefined : form?.sourceError()
        if (source) throw source.error
        throw lossOf(connectionError(error, signal))
      }
    }
    const url = this.#url(request)
    const headers = this.#headers({ ...request.headers, ...typeOf(request, form) })
    const response = await read(() =>
      this.#fetch(url, {
        method: request.method,
        headers,
        ...(request.json === undefined ? {} : { body: JSON.stringify(request.json) }),
        ...(form ? { body: ReadableStream.from(form.chunks), duplex: 'half' as const } : {}),
        redirect: 'manual',
        signal,
      }),
    )
    /** The body; of a refusal, whose status says enough, also one that breaks off. */
    const text = async (): Promise<string> => {
      try {
        return await read(() => response.text())
      } catch (error) {
        if (response.ok || request.signal?.aborted) throw error
        return ''
      }
    }
    return { response, text }
  }

  #url({ path, query = {} }: EdgeRequest): string {
    const { edgeServerHost = defaultHost, namespace, botProviderName } = this.#config
    if (!namespace || !botProviderName)
      throw new TypeError('BotProviderClient needs a `namespace` and a `botProviderName`; one of them is empty.')
    const base = `${edgeServerHost.replace(/\/+$/, '')}/ns/${encodeURIComponent(namespace)}`
    const search = new URLSearchParams()
    for (const [name, value] of Object.entries(query)) if (value !== undefined) search.set(name, value)
    return `${base}/bot-provider/${encodeURIComponent(botProviderName)}${path}${search.size > 0 ? `?${search.toString()}` : ''}`
  }

  #headers(own: Readonly<Record<string, string | undefined>>): Record<string, string> {
    const headers = new Headers(this.#config.headers)
    for (const [name, value] of Object.entries(own)) if (value !== undefined) headers.set(name, value)
    headers.set('x-api-key', this.#config.botProviderApiKey)
    return Object.fromEntries(headers)
  }
}

/** Ends a call that its caller gives up, or that stands still for too long; disposing of it closes the connection. */
class Patience implements Disposable {
  readonly signal: AbortSignal
  readonly #own = new AbortController()
  readonly #timer: NodeJS.Timeout

  constructor(ms: number, wish: AbortSignal | undefined) {
    this.signal = wish ? AbortSignal.any([wish, this.#own.signal]) : this.#own.signal
    this.#timer = setTimeout(() => this.#own.abort(new HubError('upstream_silent')), ms)
  }

  /** There is progress. Throws when nobody waits for it: an answer may come, and refuse, before an upload is through. */
  goOn(): void {
    this.signal.throwIfAborted()
    this.#timer.refresh()
  }

  [Symbol.dispose](): void {
    clearTimeout(this.#timer)
    this.#own.abort()
  }
}

/** A signal that gives up on the upstream. */
export function silentAfter(ms: number): AbortSignal {
  const controller = new AbortController()
  setTimeout(() => controller.abort(new HubError('upstream_silent')), ms).unref()
  return controller.signal
}

async function* patiently({ body }: Response, patience: Patience): AsyncGenerator<Uint8Array> {
  try {
    for await (const chunk of body ?? []) {
      patience.goOn()
      yield chunk
    }
  } catch (error) {
    const { aborted, reason } = patience.signal
    throw lossOf(aborted ? reason : new HubError('upstream_cut', { cause: error }))
  } finally {
    patience[Symbol.dispose]()
  }
}

function typeOf({ method, json, path }: EdgeRequest, form: MultipartForm | undefined): Record<string, string> {
  if (form) return { 'content-type': form.contentType }
  // The Edge Server's own SDKs send it with these, though there is no body.
  const expectsJson = json !== undefined || (method === 'POST' && path.endsWith('/open-url'))
  return expectsJson ? { 'content-type': 'application/json' } : {}
}

function fileNameIn(disposition: string): string | undefined {
  const [, encoded, quoted, plain] =
    /filename\*=UTF-8''([^;\s]+)|filename="((?:[^"\\]|\\.)*)"|filename=([^;\s]+)/i.exec(disposition) ?? []
  if (encoded === undefined) return quoted?.replaceAll(/\\(.)/g, '$1') ?? plain
  try {
    return decodeURIComponent(encoded)
  } catch {
    return encoded
  }
}

const countIn = (header: string | null): number | undefined =>
  header !== null && /^\d{1,15}$/.test(header) ? Number(header) : undefined

/**
 * What a call that must have an answer was answered with.
 * @throws AsgardError where the answer was empty or no JSON, such as the page of a proxy
 */
export function expectAnswer(answer: Json | undefined): Json {
  if (answer !== undefined) return answer
  throw new AsgardError('Asgard answered with something that is not JSON.', {
    statusCode: 200,
    cause: new HubError('upstream_failed', { cause: new Error('the answer is not JSON') }),
  })
}
