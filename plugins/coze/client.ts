import { parseExactJson } from '../../core/json.ts'
import { HubError } from '../../core/errors.ts'
import { flatMap, inParts } from '../../core/flow.ts'
import type { Parts } from '../../core/flow.ts'
import type { ToolOutput } from '../../core/events.ts'
import type { Json, JsonObject } from '../../core/message.ts'
import type { Upload } from '../../core/plugin.ts'
import type { Secret } from '../../core/settings.ts'
import { connectionError, requestEvents, retryAfterMs } from '../../core/sse.ts'
import type { EventResponse } from '../../core/sse.ts'
import { isHubError, repeatable } from './failures.ts'
import type { ChatPost } from './request.ts'
import type { TokenSource } from '../../core/expiring-tokens.ts'
import { cozeError, decodeChat, decodeFailure, decodeFrame, decodeMessage } from './wire.ts'
import type { CozeChat, CozeFrame, CozeMessage } from './wire.ts'

/** Which Coze, with which tokens, and how long to wait for it. */
export interface CozeClientOptions {
  /** Such as `https://api.coze.cn`; a path in it is kept. */
  readonly baseUrl: string
  readonly tokens: TokenSource
  readonly fetch: typeof fetch
  /** Longest silence inside a stream, in ms. */
  readonly idleTimeoutMs: number
  /** Longest time of any other call, in ms. */
  readonly timeoutMs: number
}

/** Names a chat. */
export interface ChatRef {
  readonly conversationId: string
  readonly chatId: string
}

/** A chat as it is answered: by a stream of frames, or by an object that says where to look for it. */
export type ChatAnswer =
  | { readonly type: 'stream'; readonly frames: AsyncIterable<CozeFrame>; close(): void }
  | { readonly type: 'chat'; readonly chat: CozeChat }

/**
 * The calls of Coze's API that the provider makes. Every form in which Coze reports an error (an HTTP status, JSON with
 * a code under 200, that same JSON where a stream was due) becomes a `HubError` here.
 */
export function cozeClient(options: CozeClientOptions) {
  const base = options.baseUrl.replace(/\/+$/, '')

  /** Sends with a token; once more with another one when Coze took it for none, which means that it did nothing. */
  async function authorized<T>(signal: AbortSignal, send: (token: Secret) => Promise<T>): Promise<T> {
    const token = await options.tokens.take(signal)
    try {
      return await send(token)
    } catch (error) {
      if (!isHubError(error, 'upstream_auth') || !options.tokens.refused(token)) throw error
    }
    return send(await options.tokens.take(signal))
  }

  const stream = (path: string, body: JsonObject, signal: AbortSignal) =>
    authorized(signal, (token) => openStream(path, body, token, signal))

  async function openStream(path: string, body: JsonObject, token: Secret, signal: AbortSignal): Promise<ChatAnswer> {
    const response = await requestEvents({
      fetch: options.fetch,
      url: base + path,
      headers: { ...bearer(token), accept: 'text/event-stream' },
      body,
      signal,
      idleTimeoutMs: options.idleTimeoutMs,
    })
    const { status, headers } = response
    if (status !== 200) throw errorIn(status, headers, await response.errorText(), false)
    if (response.mediaType === 'application/json') {
      const answer = successIn(status, headers, await response.text(), false)
      return { type: 'chat', chat: decodeChat(answer['data']) }
    }
    return { type: 'stream', frames: inParts(() => framesOf(response, token)), close: () => response.close() }
  }

  async function* framesOf(response: EventResponse, token: Secret): Parts<CozeFrame> {
    const { status, headers } = response
    let stray = ''
    yield flatMap(
      response.events((text) => (stray = text.trim())),
      (event) => [decodeFrame(event)],
    )
    // Anything else without an event is a stream that was cut in its first one.
    if (!stray.startsWith('{') && !stray.startsWith('<')) return
    const error = errorIn(status, headers, stray, false)
    if (isHubError(error, 'upstream_auth')) options.tokens.refused(token)
    throw error
  }

  const call = (method: Method, path: string, signal: AbortSignal, body?: JsonObject) =>
    authorized(signal, (token) =>
      answerTo(path, signal, {
        method,
        headers: { ...bearer(token), ...(body ? { 'content-type': 'application/json' } : {}) },
        ...(body ? { body: JSON.stringify(body) } : {}),
      }),
    )

  async function answerTo(path: string, signal: AbortSignal, request: RequestInit): Promise<JsonObject> {
    const timeout = AbortSignal.timeout(options.timeoutMs)
    try {
      const either = AbortSignal.any([signal, timeout])
      const response = await options.fetch(base + path, { ...request, redirect: 'manual', signal: either })
      return successIn(response.status, response.headers, await response.text(), true)
    } catch (error) {
      if (!signal.aborted && timeout.aborted) throw new HubError('upstream_silent', { cause: error })
      throw connectionError(error, signal)
    }
  }

  return {
    /** Posts a message. Nobody but the caller knows whether that may be done a second time. */
    openChat: ({ path, body }: ChatPost, signal: AbortSignal) => stream(path, body, signal),

    submitToolOutputs: (chat: ChatRef, outputs: readonly ToolOutput[], signal: AbortSignal) =>
      stream(
        `/v3/chat/submit_tool_outputs?${chatQuery(chat)}`,
        {
          tool_outputs: outputs.map(({ call: id, output }) => ({ tool_call_id: id, output: asText(output) })),
          stream: true,
        },
        signal,
      ),

    retrieve: async (chat: ChatRef, signal: AbortSignal): Promise<CozeChat> =>
      chatIn(await call('GET', `/v3/chat/retrieve?${chatQuery(chat)}`, signal)),

    /** Every message of a chat but the user's; their order says nothing. */
    messages: async (chat: ChatRef, signal: AbortSignal): Promise<readonly CozeMessage[]> =>
      messagesIn(await call('GET', `/v3/chat/message/list?${chatQuery(chat)}`, signal)),

    /** The newest 50 messages of a conversation: the user's and the answers, newest first. */
    conversationMessages: async (conversationId: string, signal: AbortSignal): Promise<readonly CozeMessage[]> =>
      messagesIn(
        await call('POST', `/v1/conversation/message/list?${query({ conversation_id: conversationId })}`, signal, {
          order: 'desc',
          limit: 50,
        }),
      ),

    cancel: (chat: ChatRef, signal: AbortSignal) =>
      call('POST', '/v3/chat/cancel', signal, { conversation_id: chat.conversationId, chat_id: chat.chatId }),

    /** Creates a conversation and returns its id. A lost one harms nobody, so failures of passing kind are `notStarted`. */
    async createConversation(body: JsonObject, signal: AbortSignal): Promise<string> {
      try {
        const { data: created } = await call('POST', '/v1/conversation/create', signal, body)
        const { conversationId, id } = decodeChat(created)
        const name = id ?? conversationId
        if (!name) throw new HubError('upstream_failed', { cause: new Error('the created conversation has no id') })
        return name
      } catch (error) {
        throw repeatable(error)
      }
    },

    deleteConversation: (conversationId: string, signal: AbortSignal) =>
      call('DELETE', `/v1/conversations/${encodeURIComponent(conversationId)}`, signal),

    /** Streams a file to Coze and returns its id. */
    async upload(file: Upload, signal: AbortSignal): Promise<string> {
      const { type, stream: body } = multipart(file)
      const token = await options.tokens.take(signal)
      const headers = { ...bearer(token), 'content-type': type }
      // Its stream can be read once, so this is the one call that cannot be made again with another token.
      const answer = await answerTo('/v1/files/upload', signal, { method: 'POST', headers, body, duplex: 'half' })
      const { id } = decodeChat(answer['data'])
      if (!id) throw new HubError('upstream_failed', { cause: new Error('the uploaded file has no id') })
      return id
    },
  }
}

/** The calls of Coze's API that the hub makes. */
export type CozeClient = ReturnType<typeof cozeClient>

function errorIn(status: number, headers: Headers, body: string, created: boolean): HubError {
  const wait = retryAfterMs(headers.get('retry-after'))
  const parsed = parseExactJson(body)
  const failure = parsed === undefined ? { message: body.slice(0, 1000) } : decodeFailure(parsed)
  return cozeError({ ...failure, status, ...(wait === undefined ? {} : { retryAfterMs: wait }) }, created)
}

function successIn(status: number, headers: Headers, body: string, created: boolean): JsonObject {
  const parsed = parseExactJson(body)
  const answer =
    typeof parsed === 'object' && parsed !== null && !Array.isArray(parsed) ? (parsed as JsonObject) : undefined
  // One documented success has no code at all.
  const code = answer?.['code'] ?? 0
  if (status !== 200 || !answer || (code !== 0 && code !== '0')) throw errorIn(status, headers, body, created)
  return answer
}

// The open-source server answers under the names of its own models, the cloud under `data`.
const chatIn = (answer: JsonObject): CozeChat =>
  decodeChat(answer['data'] ?? answer['ChatDetail'] ?? answer['ChatV3ChatDetail'])

const messagesIn = (answer: JsonObject): readonly CozeMessage[] => {
  const list = answer['data'] ?? answer['Messages'] ?? answer['messages']
  return Array.isArray(list) ? list.map(decodeMessage).filter((message) => message !== undefined) : []
}

type Method = 'GET' | 'POST' | 'DELETE'
const bearer = (token: Secret) => ({ authorization: `Bearer ${token.reveal()}` })
const query = (values: Readonly<Record<string, string>>): string => new URLSearchParams(values).toString()
const chatQuery = (chat: ChatRef): string => query({ conversation_id: chat.conversationId, chat_id: chat.chatId })
const asText = (output: Json): string => (typeof output === 'string' ? output : JSON.stringify(output))

function multipart(file: Upload): { readonly type: string; readonly stream: ReadableStream } {
  const boundary = `bothub-${crypto.randomUUID()}`
  // As browsers escape them: https://html.spec.whatwg.org/#multipart-form-data
  const name = file.name.replaceAll('\n', '%0A').replaceAll('\r', '%0D').replaceAll('"', '%22')
  const mime = /^[\w.+-]+\/[\w.+-]+$/.test(file.mime) ? file.mime : 'application/octet-stream'
  async function* parts(): AsyncGenerator<Uint8Array> {
    const encoder = new TextEncoder()
    yield encoder.encode(
      `--${boundary}\r\nContent-Disposition: form-data; name="file"; filename="${name}"\r\nContent-Type: ${mime}\r\n\r\n`,
    )
    yield* file.stream
    yield encoder.encode(`\r\n--${boundary}--\r\n`)
  }
  return { type: `multipart/form-data; boundary=${boundary}`, stream: ReadableStream.from(parts()) }
}
