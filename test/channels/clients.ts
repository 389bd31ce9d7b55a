import { once } from 'node:events'
import { connect } from 'node:net'
import { WebSocket } from 'ws'
import type { NumberedEvent, ToolCall } from '../../core/events.ts'
import { parseEvents } from '../../core/sse.ts'
import type { TurnObject } from '../../core/wire.ts'
import { rest, sse, websocket } from '../../index.ts'
import type { Answer, ChannelSubject, Client, Said } from '../suites/channel.ts'

/** Who a client says it is. */
export type Caller = Parameters<ChannelSubject['connect']>[1]

/** Sends requests and keeps what came back. */
export function requester(url: string, caller: Caller) {
  const gone = new AbortController()
  let received = ''
  return {
    gone,
    received: () => received,
    head: (accept: string): Record<string, string> => ({
      accept,
      'content-type': 'application/json',
      ...authorization(caller),
    }),
    async send(
      path: string,
      accept: string,
      body?: string,
      headers: Readonly<Record<string, string>> = {},
    ): Promise<Response> {
      return fetch(`${url}${path}`, {
        headers: { ...this.head(accept), ...headers },
        ...(body === undefined ? {} : { method: 'POST', body }),
        signal: gone.signal,
      })
    },
    async text(response: Response): Promise<string> {
      const text = await response.text()
      received += text
      return text
    },
    /** The body, chunk by chunk. */
    async *chunks(response: Response): AsyncGenerator<Uint8Array> {
      const decoder = new TextDecoder()
      for await (const chunk of response.body!) {
        received += decoder.decode(chunk, { stream: true })
        yield chunk
      }
    },
    /** Asks on a connection whose other end is never read. */
    async stall(path: string, accept: string, body: string): Promise<void> {
      const { hostname, port } = new URL(url)
      const socket = connect(Number(port), hostname)
      socket.on('error', () => {})
      gone.signal.addEventListener('abort', () => socket.destroy())
      await once(socket, 'connect')
      socket.pause()
      const head = { host: `${hostname}:${port}`, ...this.head(accept), 'content-length': String(body.length) }
      const lines = Object.entries(head).map(([name, value]) => `${name}: ${value}\r\n`)
      socket.write(`POST ${path} HTTP/1.1\r\n${lines.join('')}\r\n${body}`)
    },
  }
}

const authorization = (caller: Caller): Record<string, string> =>
  caller?.key === undefined ? {} : { authorization: `Bearer ${caller.key}` }

/** The code of a refusal. */
export const codeIn = (body: string): string =>
  (JSON.parse(body) as { readonly error: { readonly code: string } }).error.code

/** A client of REST, which other channels' clients use beside their own. */
export async function connectRest(url: string, caller?: Caller): Promise<Client> {
  const http = requester(url, caller)
  async function* answer(request: () => Promise<Response>): Answer {
    const response = await request()
    const body = await http.text(response)
    if (!response.ok) return yield { type: 'failed', code: codeIn(body) }
    let turn = JSON.parse(body) as TurnObject
    while (turn.status === 'queued' || turn.status === 'running') {
      turn = JSON.parse(await http.text(await http.send(`/api/v1/turns/${turn.turn}?wait=30`, json))) as TurnObject
    }
    yield* whole(turn)
  }
  return {
    ask: (bot, text, options = {}) =>
      answer(() => http.send(`/api/v1/bots/${bot}/messages`, json, JSON.stringify({ text, ...options }))),
    resume: (turn) => answer(() => http.send(`/api/v1/turns/${turn}`, json)),
    decide: (turn, decisions) =>
      answer(() => http.send(`/api/v1/turns/${turn}/consent`, json, JSON.stringify({ decisions }))),
    sendRaw: async (body) => codeIn(await http.text(await http.send('/api/v1/bots/parrot/messages', json, body))),
    stall: () => Promise.reject(new Error('answers come whole here')),
    received: http.received,
    vanish: () => http.gone.abort(),
  }
}

const json = 'application/json'
const events = 'text/event-stream'

/** What a turn object says. */
export function* whole({ turn, text, status, error, waiting }: TurnObject): Generator<Said> {
  if (text !== '') yield { type: 'text', text, turn, place: 0 }
  if (waiting) yield { type: 'waiting', turn, calls: waiting.calls }
  else if (error) yield { type: 'failed', code: error.code, turn }
  else yield { type: status === 'cancelled' ? 'cancelled' : 'done', turn }
}

async function connectSse(url: string, caller?: Caller): Promise<Client> {
  const http = requester(url, caller)
  async function* answer(request: () => Promise<Response>): Answer {
    const response = await request()
    if (!response.ok) return yield { type: 'failed', code: codeIn(await http.text(response)) }
    const said = reader()
    for await (const event of parseEvents(http.chunks(response), { maxEventLength: 64 * 1_048_576 })) {
      const [turn, seq] = (event.id ?? '').split('/')
      for (const each of said(JSON.parse(event.data) as NumberedEvent, turn!)) {
        if (each.type === 'text' && each.place !== Number(seq)) throw new Error('an id is not the place of its event')
        yield each
      }
    }
  }
  const post = (path: string, body: string) => answer(() => http.send(path, events, body))
  return {
    ask: (bot, text, options = {}) => post(`/api/v1/bots/${bot}/messages`, JSON.stringify({ text, ...options })),
    resume: (turn, after) => answer(() => http.send(`/api/v1/turns/${turn}/events?after=${after}`, events)),
    decide: (turn, decisions) => post(`/api/v1/turns/${turn}/consent`, JSON.stringify({ decisions })),
    sendRaw: async (body) => codeIn(await http.text(await http.send('/api/v1/bots/parrot/messages', events, body))),
    stall: (bot, text) => http.stall(`/api/v1/bots/${bot}/messages`, events, JSON.stringify({ text })),
    received: http.received,
    vanish: () => http.gone.abort(),
  }
}

/** What the events of a turn say; remembers the calls until it waits. */
export function reader(): (event: NumberedEvent, turn: string) => readonly Said[] {
  let calls: readonly ToolCall[] = []
  return (event, turn) => {
    switch (event.type) {
      case 'message.delta':
        return [{ type: 'text', text: event.text, turn, place: event.seq }]
      case 'consent.requested':
        calls = event.calls
        return []
      case 'turn.waiting':
        return [{ type: 'waiting', turn, calls }]
      case 'turn.completed':
        return [{ type: 'done', turn }]
      case 'turn.cancelled':
        return [{ type: 'cancelled', turn }]
      case 'turn.failed':
      case 'turn.interrupted':
        return [{ type: 'failed', code: event.error.code, turn }]
      default:
        return []
    }
  }
}

/** The server's frames, as far as they matter here. */
interface Frame {
  readonly type: string
  readonly id?: string
  readonly turn: string
  readonly seq: number
  readonly content?: string
  readonly done?: boolean
  readonly code: string
  readonly calls: readonly ToolCall[]
}

async function connectWebSocket(url: string, caller?: Caller): Promise<Client> {
  const socket = new WebSocket(`${url.replace('http', 'ws')}/api/v1/ws`, { headers: authorization(caller) })
  let received = ''
  const refused = await opened(socket)
  const listeners = new Set<(frame: Frame | undefined) => void>()
  const tell = (frame: Frame | undefined) => {
    for (const listener of listeners) listener(frame)
  }
  socket.on('message', (bytes: Buffer) => {
    received += bytes.toString()
    tell(JSON.parse(bytes.toString()) as Frame)
  })
  socket.on('close', () => tell(undefined))

  /** The frames that are for one question, until the last of them. */
  async function* answer(isMine: (frame: Frame) => boolean, question: object): Answer {
    if (refused !== undefined) return yield { type: 'failed', code: refused }
    const queue: (Frame | undefined)[] = []
    let wake = () => {}
    const listen = (frame: Frame | undefined) => {
      if (frame && !isMine(frame)) return
      queue.push(frame)
      wake()
    }
    listeners.add(listen)
    socket.send(JSON.stringify(question))
    try {
      for (;;) {
        if (queue.length === 0) await new Promise<void>((resolve) => (wake = resolve))
        const frame = queue.shift()
        if (!frame) return
        const said = saidBy(frame)
        if (said) yield said
        if (said && said.type !== 'text') return
      }
    } finally {
      listeners.delete(listen)
    }
  }

  return {
    ask(bot, text, { conversation, id = crypto.randomUUID() } = {}) {
      // Without a conversation every question has one of its own, as on the other channels.
      const sessionId = conversation ?? crypto.randomUUID()
      return answer((frame) => frame.id === id, { type: 'chat', agentId: bot, sessionId, message: text, id })
    },
    resume: (turn, after) => answer(isOf(turn), { type: 'resume', turn, after }),
    decide: (turn, decisions) => answer(isOf(turn), { type: 'consent', turn, decisions }),
    async sendRaw(body) {
      const heard = new Promise<Frame | undefined>((resolve) => {
        const listen = (frame: Frame | undefined) => {
          listeners.delete(listen)
          resolve(frame)
        }
        listeners.add(listen)
      })
      socket.send(body)
      const frame = await heard
      return frame?.type === 'error' ? frame.code : `no error, but ${JSON.stringify(frame)}`
    },
    async stall(bot, text) {
      socket.pause()
      socket.send(JSON.stringify({ type: 'chat', agentId: bot, message: text }))
    },
    received: () => received,
    vanish: () => socket.terminate(),
  }
}

/** Resolves when the socket is open, or with the code by which it was refused. */
function opened(socket: WebSocket): Promise<string | undefined> {
  return new Promise((resolve, reject) => {
    socket.once('open', () => resolve(undefined))
    socket.on('error', reject)
    socket.once('unexpected-response', (_request, response) => {
      let body = ''
      response.on('data', (chunk: Buffer) => (body += chunk.toString()))
      response.on('end', () => resolve(codeIn(body)))
    })
  })
}

/** A refusal names no turn where there is none that the client may see. */
const isOf = (turn: string) => (frame: Frame) => frame.turn === undefined || frame.turn === turn

function saidBy({ type, turn, seq, content = '', done, code, calls }: Frame): Said | undefined {
  switch (type) {
    case 'stream':
      return done ? { type: 'done', turn } : { type: 'text', text: content, turn, place: seq }
    case 'waiting':
      return { type: 'waiting', turn, calls }
    case 'error':
      return code === 'cancelled' ? { type: 'cancelled', turn } : { type: 'failed', code, turn }
    default:
      return undefined
  }
}

/** The hub's own channels, each with a client that speaks its dialect. */
export const restSubject: ChannelSubject = { mount: (options) => rest(options), streams: false, connect: connectRest }
export const sseSubject: ChannelSubject = { mount: (options) => sse(options), streams: true, connect: connectSse }
export const websocketSubject: ChannelSubject = {
  mount: (options) => websocket(options),
  streams: true,
  connect: connectWebSocket,
}
