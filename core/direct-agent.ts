import { Agent } from 'node:http'
import type { AgentOptions, ClientRequestArgs, IncomingMessage } from 'node:http'
import { Agent as SecureAgent } from 'node:https'
import type { SocketConstructorOpts } from 'node:net'
import type { Duplex } from 'node:stream'
import { ChunkedBody } from './chunked-body.ts'

// What upstreams say comes in very many very small pieces, and on its way through the streams and the parser of Node
// each costs twice what its system calls do: 70 µs in a relay that parses, where this takes 50 and a pipe of bytes 66.
// So Node connects, sends, reads the head and keeps the connection for the next request, and the chunks of a body are
// read here, without a copy, from one buffer that all sockets share (`onread` of `node:net`).

/** It is emptied as soon as it was filled. */
const buffer = Buffer.allocUnsafeSlow(65_536)
const headEnd = Buffer.from('\r\n\r\n')
const lastChunk = Buffer.from('0\r\n\r\n')

/** Who gets the content of a body: what is between two places of a buffer, and good until the call returns. */
type Consumer = (bytes: Buffer, from: number, to: number) => void

const readers = new WeakMap<Duplex, Reader>()

interface TakenBody {
  readonly body: ChunkedBody
  readonly consume: Consumer
}

/** Between a socket and the parser of Node, which sees everything but the chunks of bodies that were taken. */
class Reader {
  readonly #socket: Duplex
  #isAtHeadEnd = false
  #taken: TakenBody | undefined

  constructor(socket: Duplex) {
    this.#socket = socket
  }

  /** To be called while Node tells of the response; false where bytes of the body have gone to Node with its head. */
  take(consume: Consumer): boolean {
    if (this.#isAtHeadEnd) this.#taken = { body: new ChunkedBody(), consume }
    return this.#isAtHeadEnd
  }

  /** Takes so many bytes of the buffer. */
  read(length: number): void {
    // Nothing was asked that this could be an answer to.
    if (!this.#taken && this.#socket.listenerCount('data') === 0) this.#socket.destroy()
    let at = 0
    while (at < length && !this.#socket.destroyed)
      at = this.#taken ? this.#readBody(this.#taken, at, length) : this.#readHead(at, length)
  }

  /** Node is given a head alone, so that nothing of its body is gone when it tells of it. */
  #readHead(from: number, to: number): number {
    const bytes = buffer.subarray(from, to)
    const end = bytes.indexOf(headEnd)
    const head = end < 0 ? bytes : bytes.subarray(0, end + headEnd.length)
    this.#isAtHeadEnd = end >= 0
    this.#socket.emit('data', head)
    this.#isAtHeadEnd = false
    return from + head.length
  }

  #readBody({ body, consume }: TakenBody, from: number, to: number): number {
    try {
      const { contentTo, usedTo } = body.feed(buffer, from, to)
      if (contentTo > from) consume(buffer, from, contentTo)
      if (!body.isOver) return usedTo
      this.#taken = undefined
      // Whoever held the socket up held up the body, and not what is asked next.
      this.#socket.resume()
      this.#socket.emit('data', lastChunk)
      if (usedTo < to) this.#socket.destroy()
    } catch (error) {
      this.#socket.destroy(error as Error)
    }
    return to
  }
}

type Connect = (options: ClientRequestArgs & Pick<SocketConstructorOpts, 'onread'>) => Duplex | null | undefined

function connectDirectly(options: ClientRequestArgs, connect: Connect): Duplex | null | undefined {
  let reader: Reader | undefined
  const callback = (length: number): boolean => {
    reader?.read(length)
    return true
  }
  const socket = connect({ ...options, onread: { buffer, callback } })
  if (socket) readers.set(socket, (reader = new Reader(socket)))
  return socket
}

class DirectAgent extends Agent {
  override createConnection(options: ClientRequestArgs, done?: (error: Error | null, socket: Duplex) => void) {
    return connectDirectly(options, (given) => super.createConnection(given, done))
  }
}

class DirectSecureAgent extends SecureAgent {
  override createConnection(options: ClientRequestArgs, done?: (error: Error | null, socket: Duplex) => void) {
    return connectDirectly(options, (given) => super.createConnection(given, done))
  }
}

/** Agents for requests whose answers may be read with `readDirectly`. A proxy's sockets are Node's business alone. */
export const directAgents = (options: AgentOptions): { readonly plain: Agent; readonly secure: SecureAgent } =>
  options.proxyEnv
    ? { plain: new Agent(options), secure: new SecureAgent(options) }
    : { plain: new DirectAgent(options), secure: new DirectSecureAgent(options) }

/**
 * Gives the content of an answer to `consume`, as it comes, and its end and its failures to Node as ever. To be called
 * where Node tells of the answer; false where its content has to be read as ever.
 */
export function readDirectly(answer: IncomingMessage, consume: Consumer): boolean {
  if (answer.headers['transfer-encoding']?.toLowerCase() !== 'chunked') return false
  if (!readers.get(answer.socket)?.take(consume)) return false
  // The agent limits the time of a connection that nobody uses, and a limit costs 2 µs at every read.
  answer.socket.setTimeout(0)
  answer.resume()
  return true
}
