import { request as requestHttp } from 'node:http'
import type { ClientRequest, IncomingMessage } from 'node:http'
import { request as requestHttps } from 'node:https'
import { pipeline } from 'node:stream'
import { setImmediate } from 'node:timers/promises'
import { createBrotliDecompress, createUnzip } from 'node:zlib'
import { directAgents, readDirectly } from './direct-agent.ts'
import { flowOf, Queue } from './flow.ts'
import type { Flow } from './flow.ts'
import { busyness, Pulse } from './pulse.ts'
import { utf8Decoder } from './utf8.ts'

/** How much of a body is held for a reader that is slower than the upstream, in bytes or characters. */
const maxHeld = 262_144
const connectWithinMs = 10_000
/** Idle connections are given up before a server does so: a message on one that was just closed may be lost. */
const keepIdleMs = 4000

/** An answer of an upstream, whose body is read as it comes. */
export interface StreamedAnswer {
  readonly status: number
  readonly headers: Headers
  /** As text where that cost less. Ends where the body does, and throws where the connection broke off before. */
  readonly body: Flow<string | Uint8Array>
}

/** What is sent. */
export interface StreamedRequest {
  readonly method: string
  readonly headers: Readonly<Record<string, string>>
  readonly body: string | undefined
  readonly signal: AbortSignal
}

/** What many streams bring within three ms is read in one go; within twenty where the process has hardly a moment left. */
const arrivals = new Pulse(busyness(3, 20))

const ownFetch = globalThis.fetch

/**
 * Sends a request and reads the answer as it comes. Where `send` is Node's own `fetch` it is Node's `http` that does it:
 * a chunk costs 45 µs on its way through a relay in place of fetch's 69. What a test, a proxy or a recorder has put in
 * the place of `fetch` is asked as it is. Redirects are not followed.
 */
export const openStream = (send: typeof fetch, url: string | URL, request: StreamedRequest): Promise<StreamedAnswer> =>
  send === ownFetch ? byHttp(new URL(url), request) : byFetch(send, url, request)

async function byFetch(
  send: typeof fetch,
  url: string | URL,
  { body, ...request }: StreamedRequest,
): Promise<StreamedAnswer> {
  const response = await send(url, { ...request, ...(body === undefined ? {} : { body }), redirect: 'manual' })
  return { status: response.status, headers: response.headers, body: flowOf(response.body ?? nothing) }
}

const nothing: AsyncIterable<Uint8Array> = { async *[Symbol.asyncIterator]() {} }

const agents = directAgents({
  keepAlive: true,
  timeout: keepIdleMs,
  ...(process.env['NODE_USE_ENV_PROXY'] === '1' ? { proxyEnv: process.env } : {}),
})
const plain = { send: requestHttp, agent: agents.plain, connected: 'connect' } as const
const secure = { send: requestHttps, agent: agents.secure, connected: 'secureConnect' } as const

async function byHttp(url: URL, { method, headers, body, signal }: StreamedRequest): Promise<StreamedAnswer> {
  // What servers have closed by now is taken out of the pool first: nobody could tell what became of a message on that.
  await setImmediate()
  signal.throwIfAborted()
  return new Promise((resolve, reject) => {
    const { send, agent, connected } = url.protocol === 'https:' ? secure : plain
    const outgoing = send(url, {
      method,
      headers: { accept: '*/*', 'user-agent': 'bothub', ...headers },
      agent,
      signal,
    })
    outgoing.on('error', reject)
    outgoing.on('response', (answer) =>
      resolve({ status: answer.statusCode ?? 0, headers: headersOf(answer), body: bodyOf(answer) }),
    )
    connectInTime(outgoing, connected)
    outgoing.end(body)
  })
}

/** Node would wait as long as the system does, and nobody could tell that from an upstream that has the message. */
function connectInTime(outgoing: ClientRequest, connected: 'connect' | 'secureConnect'): void {
  outgoing.on('socket', (socket) => {
    if (!socket.connecting) return
    const timer = setTimeout(() => outgoing.destroy(new ConnectTimeout()), connectWithinMs)
    const stop = () => {
      clearTimeout(timer)
      for (const event of events) socket.off(event, stop)
    }
    const events = [connected, 'close']
    for (const event of events) socket.once(event, stop)
  })
}

class ConnectTimeout extends Error {
  readonly code = 'CONNECT_TIMEOUT'

  constructor() {
    super(`there was no connection within ${connectWithinMs} ms`)
  }
}

function headersOf({ headersDistinct }: IncomingMessage): Headers {
  const headers = new Headers()
  for (const [name, values = []] of Object.entries(headersDistinct)) {
    for (const value of values) headers.append(name, value)
  }
  return headers
}

function bodyOf(answer: IncomingMessage): Flow<string | Uint8Array> {
  let held = 0
  const chunks = new Queue<string | Uint8Array>({
    pulse: arrivals,
    onTaken() {
      if (held > maxHeld && !chunks.isOver) source.resume()
      held = 0
    },
  })
  const take = (chunk: string | Buffer) => {
    held += chunk.length
    if (held > maxHeld) source.pause()
    chunks.push(chunk)
  }
  const decode = utf8Decoder()
  const isDirect =
    encodingOf(answer) === 'identity' && readDirectly(answer, (bytes, from, to) => take(decode(bytes, from, to)))
  const body = isDirect ? answer : decompressed(answer)
  const source = isDirect ? answer.socket : body
  // By its events: Node's own iterator waits for a tick or two more at each.
  if (!isDirect) body.on('data', take)
  body.on('error', (error) => chunks.fail(error))
  body.on('end', () => chunks.end())
  // What is behind an end is no failure.
  body.on('close', () => chunks.fail(new Error('the connection was closed in the middle of the answer')))
  return chunks
}

const encodingOf = ({ headers }: IncomingMessage): string => headers['content-encoding'] || 'identity'

/** Nothing but plain bytes is asked for; some servers compress all the same. */
function decompressed(answer: IncomingMessage): NodeJS.ReadableStream {
  const encoding = encodingOf(answer)
  if (encoding === 'identity') return answer
  return pipeline(answer, encoding === 'br' ? createBrotliDecompress() : createUnzip(), () => {})
}
