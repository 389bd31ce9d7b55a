import type { WebSocket } from 'ws'
import { WebSocketServer } from 'ws'
import { z } from 'zod'
import type { Principal } from '../core/auth.ts'
import { check, parseJson } from '../core/body.ts'
import type { ChannelContext } from '../core/channel.ts'
import { channelOptions, defineChannel } from '../core/channel.ts'
import { asHubError, HubError } from '../core/errors.ts'
import type { NumberedEvent } from '../core/events.ts'
import { clientName, newId } from '../core/ids.ts'
import { under } from '../core/native.ts'
import type { TurnRow } from '../core/store.ts'
import { decisionsBody } from '../core/wire.ts'

const maxFrameBytes = 1_048_576
/** A client that leaves this much unread is cut. */
const maxQueuedBytes = 1_048_576
const sendTimeoutMs = 30_000
/** About how much of a turn is handed to the network at once, in characters. */
const maxSendLength = 65_536
const pingMs = 25_000

/**
 * Answers over WebSocket in the dialect of TPCLAW's channel page: `chat` and `ping` in, `stream … done: true`, `error`
 * and `pong` out; and, for clients that know them, `resume`, `cancel`, `consent`, `waiting` and `event`.
 */
export const websocket = defineChannel({
  name: 'websocket',
  options: z.strictObject({
    ...channelOptions,
    bot: z.string().optional().describe('The bot of a `chat` without `agentId`.'),
  }),
  create({ path, bot }, context) {
    const server = new WebSocketServer({ noServer: true, maxPayload: maxFrameBytes, perMessageDeflate: false })
    const connections = new Set<Connection>()
    return {
      door: `ws ${under(path, '/api/v1/ws')}`,
      upgrades: [
        {
          path: under(path, '/api/v1/ws'),
          handle(request, socket, head, principal) {
            server.handleUpgrade(request, socket, head, (webSocket) => {
              const connection = new Connection(webSocket, principal, context, bot)
              connections.add(connection)
              webSocket.once('close', () => connections.delete(connection))
            })
          },
        },
      ],
      async close() {
        await Promise.all(Array.from(connections, (connection) => connection.goAway()))
        server.close()
      },
    }
  },
})

/** How a client wants its answer. */
const form = { stream: z.boolean().default(true), events: z.boolean().default(false) }

const clientFrame = z.discriminatedUnion('type', [
  z.object({ type: z.literal('ping') }),
  z
    .object({
      type: z.literal('chat'),
      agentId: clientName.optional(),
      sessionId: z.union([z.literal('').transform(() => undefined), clientName]).optional(),
      id: z.union([z.literal('').transform(() => undefined), clientName]).optional(),
      message: z.string().optional(),
      /** What other dialects of the platform call `message`. */
      content: z.string().optional(),
      ...form,
    })
    .refine((frame) => frame.message !== undefined || frame.content !== undefined, {
      path: ['message'],
      message: 'say something: a `chat` needs a `message`',
    }),
  z.object({ type: z.literal('resume'), turn: clientName, after: z.int().nonnegative().default(0), ...form }),
  z.object({ type: z.literal('cancel'), turn: clientName }),
  z.object({ type: z.literal('consent'), turn: clientName, ...decisionsBody.shape, ...form }),
])
type ClientFrame = z.output<typeof clientFrame>
type Form = Pick<Extract<ClientFrame, { type: 'resume' }>, 'stream' | 'events'>

/** One client's socket: any number of conversations and turns at once. */
class Connection {
  readonly #socket: WebSocket
  readonly #principal: Principal
  readonly #context: ChannelContext
  readonly #defaultBot: string | undefined
  readonly #session = `ws-${newId('conv').slice('conv_'.length)}`
  readonly #left = new AbortController()
  readonly #followed = new Set<string>()
  #handling: Promise<void> = Promise.resolve()

  constructor(socket: WebSocket, principal: Principal, context: ChannelContext, defaultBot: string | undefined) {
    this.#socket = socket
    this.#principal = principal
    this.#context = context
    this.#defaultBot = defaultBot
    let alive = true
    context.openStreams.inc()
    const heartbeat = setInterval(() => {
      if (!alive) return socket.terminate()
      alive = false
      socket.ping()
    }, pingMs)
    socket.on('pong', () => (alive = true))
    socket.on('error', (error) => context.logger.debug({ err: error }, 'a socket ended badly'))
    socket.once('close', () => {
      clearInterval(heartbeat)
      context.openStreams.dec()
      this.#left.abort()
    })
    socket.on('message', (frame: Buffer, isBinary) => {
      alive = true
      if (isBinary) return socket.close(1003, 'Send text frames of JSON.')
      // One after the other, so that messages are accepted in the order they were sent.
      socket.pause()
      this.#handling = this.#handling.then(() => this.#handle(frame)).finally(() => socket.resume())
    })
  }

  /** Tells the client to come back later; one that does not hang up itself is cut. */
  async goAway(): Promise<void> {
    const timer = setTimeout(() => this.#socket.terminate(), 1000)
    this.#socket.close(1001, 'The hub is restarting. Connect again in a few seconds and resume.')
    if (this.#socket.readyState !== this.#socket.CLOSED) {
      await new Promise((resolve) => this.#socket.once('close', resolve))
    }
    clearTimeout(timer)
  }

  async #handle(bytes: Buffer): Promise<void> {
    let echo: Record<string, unknown> = {}
    try {
      const parsed = parseJson(bytes)
      echo = echoOf(parsed)
      await this.#obey(check(clientFrame, parsed))
    } catch (error) {
      await this.#sendError(asHubError(error), echo)
    }
  }

  async #obey(frame: ClientFrame): Promise<void> {
    switch (frame.type) {
      case 'ping':
        return this.#send([{ type: 'pong' }])
      case 'chat': {
        const bot = frame.agentId ?? this.#defaultBot
        if (bot === undefined) {
          throw new HubError('invalid_request', { message: 'agentId: name a bot; this channel has no default one.' })
        }
        if (!this.#context.offers(bot)) throw new HubError('unknown_bot')
        const { turn } = await this.#context.hub.send(this.#principal, {
          bot,
          text: frame.message ?? frame.content ?? '',
          conversation: frame.sessionId ?? this.#session,
          id: frame.id,
          channel: this.#context.name,
        })
        return this.#follow(turn, 0, frame)
      }
      case 'resume':
        return this.#follow(await this.#turn(frame.turn), frame.after, frame)
      case 'cancel':
        return this.#context.hub.cancel(await this.#turn(frame.turn), 'client')
      case 'consent': {
        const turn = await this.#turn(frame.turn)
        await this.#context.hub.decide(turn, this.#principal, frame.decisions)
        if (!this.#followed.has(turn.id)) this.#follow(turn, turn.seq, frame)
      }
    }
  }

  async #turn(id: string): Promise<TurnRow> {
    const turn = await this.#context.hub.turn(this.#principal, id)
    if (!this.#context.offers(turn.bot)) throw new HubError('unknown_turn')
    return turn
  }

  /** Sends a turn's events as they come, beside whatever else the socket does. */
  #follow(turn: TurnRow, after: number, { stream, events }: Form): void {
    const frames = events ? eventFrames() : stream ? streamFrames() : wholeFrames()
    // An id that the hub made is none of the client's.
    const id = turn.message.id.startsWith('msg_') ? undefined : turn.message.id
    const common = { agentId: turn.bot, sessionId: turn.conversation.name, ...(id === undefined ? {} : { id }) }
    const follow = async () => {
      this.#followed.add(turn.id)
      // From the beginning: what a frame says may depend on what was said before the place it resumes at.
      for await (const group of this.#context.hub.follow(turn.id, 0, this.#left.signal)) {
        const ready = group.flatMap((event) =>
          frames(event)
            .filter(() => event.seq > after)
            .map((frame) => ({ ...frame, ...common, turn: turn.id, seq: event.seq })),
        )
        if (ready.length > 0) await this.#send(ready)
      }
      this.#followed.delete(turn.id)
    }
    follow().catch((error: unknown) => {
      this.#context.logger.error({ err: error, turn: turn.id }, 'a socket could not be served')
      this.#socket.close(1011, 'Connect again and resume.')
    })
  }

  #sendError(error: HubError, echo: Readonly<Record<string, unknown>>): Promise<void> {
    if (error.code === 'internal') this.#context.logger.error({ err: error.cause }, 'a frame failed')
    const { turn } = error
    return this.#send([{ type: 'error', ...error.public(), ...echo, ...(turn === undefined ? {} : { turn }) }])
  }

  /** Resolves when the last frame has been handed to the network; what is handed over at once stays small. */
  async #send(frames: readonly Readonly<Record<string, unknown>>[]): Promise<void> {
    let ready: string[] = []
    let length = 0
    for (const [index, frame] of frames.entries()) {
      const text = JSON.stringify(frame)
      ready.push(text)
      length += text.length
      if (length < maxSendLength && index < frames.length - 1) continue
      await this.#hand(ready)
      ready = []
      length = 0
    }
  }

  async #hand(frames: readonly string[]): Promise<void> {
    if (this.#socket.readyState !== this.#socket.OPEN) return
    if (this.#socket.bufferedAmount > maxQueuedBytes) return this.#socket.terminate()
    const timer = setTimeout(() => this.#socket.terminate(), sendTimeoutMs)
    await new Promise<void>((resolve) => {
      frames.forEach((frame, index) =>
        this.#socket.send(frame, index === frames.length - 1 ? () => resolve() : () => {}),
      )
    })
    clearTimeout(timer)
  }
}

/** What of a frame names the exchange it belongs to, whatever else is wrong with it. */
function echoOf(frame: unknown): Record<string, unknown> {
  if (typeof frame !== 'object' || frame === null) return {}
  const { id, sessionId, agentId } = frame as Record<string, unknown>
  return Object.fromEntries(Object.entries({ agentId, sessionId, id }).filter(([, value]) => typeof value === 'string'))
}

type Frames = (event: NumberedEvent) => readonly Readonly<Record<string, unknown>>[]

/** `events: true`: every event as it is. */
const eventFrames = (): Frames => (event) => [{ type: 'event', event }]

/** The words as they come; their sum is the text of the turn. */
function streamFrames(): Frames {
  const other = pauses()
  const said = new Map<string, string>()
  let any = false
  const say = (message: string, text: string) => {
    if (text === '') return []
    const gap = any && !said.has(message) ? '\n\n' : ''
    any = true
    said.set(message, `${said.get(message) ?? ''}${text}`)
    return [{ type: 'stream', content: `${gap}${text}`, done: false }]
  }
  return (event) => {
    if (event.type === 'message.delta') return say(event.message, event.text)
    if (event.type === 'message.completed') {
      const before = said.get(event.message) ?? ''
      return event.text.startsWith(before) ? say(event.message, event.text.slice(before.length)) : []
    }
    if (event.type === 'turn.completed') return [{ type: 'stream', content: '', done: true }]
    return other(event)
  }
}

/** `stream: false`: the whole answer in one frame. */
const wholeFrames = (): Frames => {
  const other = pauses()
  return (event) =>
    event.type === 'turn.completed' ? [{ type: 'message', content: event.text, done: true }] : other(event)
}

/** How a turn that is not complete says so: it waits for answers, or it ended without being whole. */
function pauses(): Frames {
  let calls: readonly unknown[] = []
  return (event) => {
    switch (event.type) {
      case 'consent.requested':
      case 'tool.outputs_requested':
        calls = event.calls
        return []
      case 'turn.waiting':
        return [{ type: 'waiting', for: event.for, calls }]
      case 'turn.failed':
      case 'turn.interrupted':
        return [{ type: 'error', ...event.error }]
      case 'turn.cancelled':
        return [{ type: 'error', ...new HubError('cancelled').public(), by: event.by }]
      default:
        return []
    }
  }
}
