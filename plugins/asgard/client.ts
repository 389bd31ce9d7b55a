import { HubError } from '../../core/errors.ts'
import { connectionError, requestEvents } from '../../core/sse.ts'
import type { Upload } from '../../core/plugin.ts'
import type { Json } from '../../core/message.ts'
import type { Secret } from '../../core/settings.ts'
import { failureOf, readAnswer, readEvent } from './wire.ts'
import type { AsgardFrame, GenericBotMessage, Place } from './wire.ts'

/** Which bot provider of which Asgard, and with whose key. */
export interface AsgardClientOptions {
  /** Such as `https://api.asgard-ai.com`. */
  readonly edgeServerHost: string
  readonly namespace: string
  readonly botProviderName: string
  readonly apiKey: Secret
  /** Sent with every call; the key wins over one of the same name. */
  readonly headers: Readonly<Record<string, string>>
  readonly fetch: typeof fetch
  /** Longest silence of a stream, in ms. */
  readonly idleTimeoutMs: number
  /** Longest wait for any other answer, in ms; of an upload, longest pause. */
  readonly timeoutMs: number
}

/** How one message is sent, or a run followed. */
export interface StreamOptions {
  readonly signal: AbortSignal
  readonly isDebug?: boolean
  readonly bypassToolCallConsent?: boolean
  /** Whom Asgard shall know the end user as; at most 128 characters, fit for a header. */
  readonly userIdentityHint?: string | undefined
  /** Go on with a run that was started before, and do not send the message again. */
  readonly place?: Place
}

/** Calls one bot provider of Asgard's Edge Server. Every failure is a `HubError`. */
export class AsgardClient {
  readonly #options: AsgardClientOptions
  readonly #base: string

  constructor(options: AsgardClientOptions) {
    this.#options = options
    const [namespace, name] = [options.namespace, options.botProviderName].map(encodeURIComponent)
    this.#base = `${options.edgeServerHost.replace(/\/+$/, '')}/ns/${namespace}/bot-provider/${name}`
  }

  /**
   * Sends a message and yields its run as it comes. The stream is whole only when its last event is `run.done` or
   * `run.error`; leaving it does not stop the run.
   */
  async *stream(message: GenericBotMessage, options: StreamOptions): AsyncGenerator<AsgardFrame> {
    const { place } = options
    const replays = place === 'replay'
    const response = await requestEvents({
      fetch: this.#options.fetch,
      method: replays ? 'GET' : 'POST',
      url: this.#url('/message/sse', {
        custom_channel_id: replays ? message.customChannelId : undefined,
        is_debug: options.isDebug ? 'true' : undefined,
        bypass_tool_call_consent: options.bypassToolCallConsent ? 'true' : undefined,
      }),
      headers: this.#headers({
        accept: 'text/event-stream',
        ...(options.userIdentityHint ? { 'x-asgard-user-identity-hint': options.userIdentityHint } : {}),
        ...(place === undefined || replays ? {} : { 'last-event-id': place.lastEventId }),
      }),
      ...(replays ? {} : { body: message }),
      signal: options.signal,
      idleTimeoutMs: this.#options.idleTimeoutMs,
    })
    const { status, headers } = response
    if (status !== 200 || response.mediaType !== 'text/event-stream')
      throw failureOf({ status, headers, body: await response.text() })
    for await (const { id, data } of response.events(refuseAnswer(status, headers)))
      yield { ...(id === undefined ? {} : { id }), event: readEvent(data) }
  }

  /** Stops the channel's run, or the one named; a finished one stays as it is. */
  async suspend(channel: string, requestId: string | undefined, signal: AbortSignal): Promise<void> {
    await this.#call('POST', '/message/suspend', { custom_channel_id: channel, request_id: requestId }, signal)
  }

  /** Streams a file to a channel and returns its `blobId`. */
  async uploadBlob(channel: string, file: Upload, signal: AbortSignal): Promise<string> {
    const stalled = new AbortController()
    const timer = setTimeout(() => stalled.abort(new HubError('upstream_silent')), this.#options.timeoutMs)
    const boundary = `----bothub${crypto.randomUUID()}`
    try {
      const answer = await this.#call('POST', '/blob', {}, AbortSignal.any([signal, stalled.signal]), {
        headers: { 'content-type': `multipart/form-data; boundary=${boundary}` },
        body: ReadableStream.from(multipart(boundary, channel, file, () => timer.refresh())),
      })
      return blobIdOf(answer)
    } finally {
      clearTimeout(timer)
    }
  }

  /** Deletes a channel with its history; one that is not there is fine. */
  async deleteChannel(channel: string): Promise<void> {
    await this.#call('DELETE', '/channel', { custom_channel_id: channel }, new AbortController().signal)
  }

  /** One call that is no stream: its envelope's `data`, or null for an empty answer. */
  async #call(
    method: 'POST' | 'DELETE',
    path: string,
    query: Readonly<Record<string, string | undefined>>,
    signal: AbortSignal,
    content?: { readonly headers: Readonly<Record<string, string>>; readonly body: ReadableStream<Uint8Array> },
  ): Promise<Json> {
    const limit = content ? signal : AbortSignal.any([signal, silentAfter(this.#options.timeoutMs)])
    try {
      const response = await this.#options.fetch(this.#url(path, query), {
        method,
        headers: this.#headers(content?.headers),
        ...(content ? { body: content.body, duplex: 'half' as const } : {}),
        redirect: 'manual',
        signal: limit,
      })
      const body = await response.text()
      const answer = readAnswer(body)
      if (!response.ok || answer?.isSuccess === false)
        throw failureOf({ status: response.status, headers: response.headers, body })
      return answer?.data ?? null
    } catch (error) {
      throw connectionError(error, limit)
    }
  }

  #url(path: string, query: Readonly<Record<string, string | undefined>>): string {
    const search = new URLSearchParams()
    for (const [name, value] of Object.entries(query)) if (value !== undefined) search.set(name, value)
    return `${this.#base}${path}${search.size > 0 ? `?${search.toString()}` : ''}`
  }

  #headers(own: Readonly<Record<string, string>> = {}): Record<string, string> {
    const headers = new Headers(this.#options.headers)
    for (const [name, value] of Object.entries(own)) headers.set(name, value)
    headers.set('x-api-key', this.#options.apiKey.reveal())
    return Object.fromEntries(headers)
  }
}

/** A signal that gives up on the upstream. */
export function silentAfter(ms: number): AbortSignal {
  const controller = new AbortController()
  setTimeout(() => controller.abort(new HubError('upstream_silent')), ms).unref()
  return controller.signal
}

/** Throws for a refusal that calls itself a stream. */
const refuseAnswer = (status: number, headers: Headers) => (body: string) => {
  if (readAnswer(body)?.isSuccess === false) throw failureOf({ status, headers, body })
}

function blobIdOf(answer: Json): string {
  const first: unknown = Array.isArray(answer) ? answer[0] : answer
  const id = typeof first === 'object' && first !== null && 'blobId' in first ? first.blobId : undefined
  if (typeof id !== 'string' || !id)
    throw new HubError('upstream_failed', { cause: new Error('the upload was answered without a blobId') })
  return id
}

async function* multipart(
  boundary: string,
  channel: string,
  file: Upload,
  onChunk: () => void,
): AsyncGenerator<Uint8Array> {
  const part = (disposition: string, type = '') =>
    `--${boundary}\r\nContent-Disposition: form-data; ${disposition}\r\n${type}\r\n`
  const encoder = new TextEncoder()
  yield encoder.encode(
    `${part('name="customChannelId"')}${channel}\r\n` +
      part(`name="file"; filename="${escapeName(file.name)}"`, `Content-Type: ${safeType(file.mime)}\r\n`),
  )
  for await (const chunk of file.stream) {
    onChunk()
    yield chunk
  }
  yield encoder.encode(`\r\n--${boundary}--\r\n`)
}

// As browsers write it, so that a name cannot end its line or its quotes.
const escapeName = (name: string) =>
  name.replaceAll('\n', '%0A').replaceAll('\r', '%0D').replaceAll('"', '%22').replaceAll('\0', '')
const safeType = (mime: string) =>
  /^[\w.+-]+\/[\w.+-]+(?:; ?[\w-]+=[\w.-]+)*$/.test(mime) ? mime : 'application/octet-stream'
