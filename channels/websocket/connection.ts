import type { Duplex } from 'node:stream'
import type { WebSocket } from 'ws'
import type { Principal } from '../../core/auth.ts'
import { check, parseJson } from '../../core/body.ts'
import type { ChannelContext, Visitor } from '../../core/channel.ts'
import { asHubError, HubError } from '../../core/errors.ts'
import { forEach } from '../../core/flow.ts'
import { newId } from '../../core/ids.ts'
import type { TurnRow } from '../../core/store.ts'
import { isEnded } from '../../core/store.ts'
import type { ClientFrame, Form, ServerFrame } from './frames.ts'
import { clientFrame, echoOf, framesIn } from './frames.ts'
import { Pace } from './pace.ts'

/** A client that leaves this much unread is cut. */
const maxQueuedBytes = 1_048_576
const sendTimeoutMs = 30_000
/** About how much of a turn is handed to the network at once, in characters. */
const maxSendLength = 65_536
/** A peer that answers no ping is gone after two of these. */
const pingMs = 25_000
/** How long a socket may stay without having shown a key. */
const authWithinMs = 10_000
/** Frames that were read and wait for those before them; more close the socket. */
const maxWaitingFrames = 1000
/** Turns that one socket may follow at a time; the next is refused with `queue_full`. */
const maxFollowed = 100
/** Clients are told to come back at different times, so that a restarted hub does not meet all of them at once. */
const comeBackMs = { first: 1000, last: 5000 }

/** Options of the channel that a connection looks at. */
export interface ConnectionOptions {
  /** The bot of a `chat` without `agentId`. */
  readonly bot: string | undefined
  /** Frames a second. */
  readonly rate: number
}

/** Of a client's frame, by its `id`. `over`: the turn has ended, and nothing comes after the place. */
interface Acceptance {
  readonly id?: string | undefined
  readonly turn: string
  readonly over?: boolean
}

/** `id`: what the frames are called by, if not by the id of the message. */
interface NamedForm extends Form {
  readonly id?: string | undefined
}

/** One client's socket: any number of conversations and turns at once. */
export class Connection {
  readonly #socket: WebSocket
  /** What the frames are written to. */
  readonly #wire: Duplex
  readonly #context: ChannelContext
  readonly #defaultBot: string | undefined
  readonly #session = `ws-${newId('conv').slice('conv_'.length)}`
  readonly #followed = new Map<string, AbortController>()
  /** Conversations in which an operator is listened to. */
  readonly #heard = new Map<string, { readonly form: Form; readonly stop: AbortController }>()
  readonly #waiting: Buffer[] = []
  readonly #pace: Pace
  readonly #left = new AbortController()
  /** Somebody without a principal has yet to show a key. */
  #visitor: Visitor
  #isHandling = false
  #isAlive = true

  constructor(
    socket: WebSocket,
    wire: Duplex,
    visitor: Visitor,
    context: ChannelContext,
    { bot, rate }: ConnectionOptions,
  ) {
    this.#socket = socket
    this.#wire = wire
    this.#visitor = visitor
    this.#context = context
    this.#defaultBot = bot
    this.#pace = new Pace(rate, context.clock)
    context.openStreams.inc()
    const heartbeat = setInterval(() => this.#beat(), pingMs)
    const unknown = visitor.principal ? undefined : setTimeout(() => void this.#turnAway(), authWithinMs)
    socket.on('pong', () => (this.#isAlive = true))
    socket.on('error', (error) => context.logger.debug({ err: error }, 'a socket ended badly'))
    socket.on('message', (bytes: Buffer, isBinary) => this.#read(bytes, isBinary))
    socket.once('close', () => {
      clearInterval(heartbeat)
      clearTimeout(unknown)
      context.openStreams.dec()
      this.#left.abort()
      for (const stop of this.#followed.values()) stop.abort()
    })
  }

  /** Whether it has yet to show a key. */
  get isStranger(): boolean {
    return this.#visitor.principal === undefined
  }

  /** Tells the client to come back, and when; one that does not hang up itself is cut. */
  async goAway(): Promise<void> {
    const timer = setTimeout(() => this.#socket.terminate(), 1000)
    const retryAfterMs = Math.round(comeBackMs.first + Math.random() * (comeBackMs.last - comeBackMs.first))
    void this.#sendError(new HubError('shutting_down', { retryAfterMs }))
    this.#socket.close(1001, `The hub is stopping. Connect again in ${Math.ceil(retryAfterMs / 1000)} s and resume.`)
    if (this.#socket.readyState !== this.#socket.CLOSED) {
      await new Promise((resolve) => this.#socket.once('close', resolve))
    }
    clearTimeout(timer)
  }

  #beat(): void {
    if (!this.#isAlive) return this.#socket.terminate()
    this.#isAlive = false
    this.#socket.ping()
  }

  async #turnAway(): Promise<void> {
    if (!this.isStranger) return
    await this.#sendError(new HubError('unauthorized'))
    this.#socket.close(1008, `Send { "type": "auth", "key": … } within ${authWithinMs / 1000} s.`)
  }

  #read(bytes: Buffer, isBinary: boolean): void {
    this.#isAlive = true
    if (this.#socket.readyState !== this.#socket.OPEN) return
    if (isBinary) return this.#socket.close(1003, 'Send text frames of JSON.')
    if (this.#waiting.push(bytes) > maxWaitingFrames) {
      this.#waiting.length = 0
      return this.#socket.close(1008, 'Too many frames at once. Wait for the answers.')
    }
    // What is not read yet waits in the network.
    this.#socket.pause()
    if (!this.#isHandling) void this.#handleWaiting()
  }

  /** One after the other, so that messages are accepted in the order they were sent. */
  async #handleWaiting(): Promise<void> {
    this.#isHandling = true
    for (let bytes = this.#waiting.shift(); bytes; bytes = this.#waiting.shift()) {
      if (!(await this.#pace.next(this.#left.signal))) break
      await this.#handle(bytes)
    }
    this.#isHandling = false
    this.#socket.resume()
  }

  async #handle(bytes: Buffer): Promise<void> {
    let echo: ServerFrame = {}
    try {
      const parsed = parseJson(bytes)
      echo = echoOf(parsed)
      await this.#obey(check(clientFrame, parsed))
    } catch (error) {
      await this.#sendError(asHubError(error), echo)
    }
    if (this.isStranger) this.#socket.close(1008, 'Begin with { "type": "auth", "key": … }, and a key of this hub.')
  }

  async #obey(frame: ClientFrame): Promise<void> {
    if (frame.type === 'auth') return this.#authenticate(frame)
    const { principal } = this.#visitor
    if (!principal) throw new HubError('unauthorized')
    switch (frame.type) {
      case 'ping':
        return this.#send([{ type: 'pong' }])
      case 'chat':
        return this.#chat(principal, frame)
      case 'resume':
        return this.#resume(await this.#turn(principal, frame.turn), frame)
      case 'leave':
        this.#followed.get(frame.turn)?.abort()
        return this.#accepted(frame)
      case 'cancel':
        this.#cancel(await this.#turn(principal, frame.turn))
        return this.#accepted(frame)
      case 'consent': {
        const turn = await this.#turn(principal, frame.turn)
        await this.#context.hub.decide(turn, principal, frame.decisions)
        return this.#goOn(turn, frame)
      }
      case 'tool-outputs': {
        const turn = await this.#turn(principal, frame.turn)
        await this.#context.hub.giveOutputs(turn, frame.outputs)
        return this.#goOn(turn, frame)
      }
    }
  }

  /** Whoever brings another key acts as its owner from then on. */
  async #authenticate({ key, id }: Extract<ClientFrame, { type: 'auth' }>): Promise<void> {
    this.#visitor = { ...this.#visitor, principal: await this.#visitor.identify(key) }
    await this.#send([{ type: 'authenticated', ...(id === undefined ? {} : { id }) }])
  }

  async #chat(principal: Principal, frame: Extract<ClientFrame, { type: 'chat' }>): Promise<void> {
    const turn = await this.#ask(principal, frame)
    this.#follow(turn, 0, frame)
    this.#listen(turn, { stream: frame.stream, events: frame.events })
  }

  /** An operator may speak in a conversation that the client has spoken in: it hears that in the form of its last words. */
  #listen(turn: TurnRow, form: Form): void {
    const { id } = turn.conversation
    const known = this.#heard.get(id)
    const heard = { form, stop: known?.stop ?? new AbortController() }
    // Those it spoke in last are at the end.
    this.#heard.delete(id)
    this.#heard.set(id, heard)
    if (known) return
    this.#hear(turn, AbortSignal.any([heard.stop.signal, this.#left.signal])).catch((error: unknown) => {
      this.#context.logger.error({ err: error, conversation: id }, 'a socket could not be served')
      this.#socket.close(1011, 'Connect again and resume.')
    })
    if (this.#heard.size <= maxFollowed) return
    const [oldest, { stop }] = this.#heard.entries().next().value!
    this.#heard.delete(oldest)
    stop.abort()
  }

  async #hear({ id, conversation }: TurnRow, signal: AbortSignal): Promise<void> {
    for await (const turn of this.#context.hub.operatorTurns(conversation.id, id, signal)) {
      const form = this.#heard.get(conversation.id)?.form
      if (form) this.#follow(turn, 0, form)
    }
  }

  async #ask(principal: Principal, frame: Extract<ClientFrame, { type: 'chat' }>): Promise<TurnRow> {
    const bot = frame.agentId ?? this.#defaultBot
    if (bot === undefined) {
      throw new HubError('invalid_request', { message: 'agentId: name a bot; this channel has no default one.' })
    }
    if (!this.#context.offers(bot)) throw new HubError('unknown_bot')
    this.#makeRoom()
    const { id, user, files, payload, debug, bypassConsent } = frame
    const { turn } = await this.#context.hub.send(principal, {
      bot,
      text: frame.message ?? frame.content ?? '',
      conversation: frame.sessionId ?? this.#session,
      channel: this.#context.name,
      id,
      user,
      files,
      payload,
      debug,
      bypassConsent,
    })
    return turn
  }

  async #resume(turn: TurnRow, { id, after, stream, events }: Extract<ClientFrame, { type: 'resume' }>): Promise<void> {
    if (isEnded(turn.status) && after >= turn.seq) return this.#accepted({ id, turn: turn.id, over: true })
    // What is left of a compacted turn does not go on from any place but its beginning and its end.
    if (turn.compacted && after > 0 && after < turn.seq) throw new HubError('events_expired', { turn: turn.id })
    if (!this.#followed.has(turn.id)) this.#makeRoom()
    this.#follow(turn, after, { stream, events, id })
  }

  /** The turn was answered: its asker sees it go on, and so does who answered. */
  #goOn(turn: TurnRow, { id, stream, events }: Extract<ClientFrame, { type: 'consent' | 'tool-outputs' }>) {
    if (!this.#followed.has(turn.id)) this.#follow(turn, turn.seq, { stream, events })
    return this.#accepted({ id, turn: turn.id })
  }

  /** The upstream may take its time to stop; who follows the turn sees the end of it. */
  #cancel(turn: TurnRow): void {
    this.#context.hub
      .cancel(turn, 'client')
      .catch((error: unknown) => this.#context.logger.error({ err: error, turn: turn.id }, 'cancel failed'))
  }

  async #turn(principal: Principal, id: string): Promise<TurnRow> {
    const turn = await this.#context.hub.turn(principal, id)
    if (!this.#context.offers(turn.bot)) throw new HubError('unknown_turn')
    return turn
  }

  #makeRoom(): void {
    if (this.#followed.size < maxFollowed) return
    throw new HubError('queue_full', {
      message: `This socket follows ${maxFollowed} turns already. Wait for one to end, or open another socket.`,
      retryAfterMs: 1000,
    })
  }

  /**
   * Sends a turn's events as they come, beside whatever else the socket does. A turn is followed once: the newest
   * wish takes the place of the one before.
   */
  #follow(turn: TurnRow, after: number, form: NamedForm): void {
    this.#followed.get(turn.id)?.abort()
    const stop = new AbortController()
    if (this.#left.signal.aborted) stop.abort()
    this.#followed.set(turn.id, stop)
    this.#pass(turn, after, form, stop.signal)
      .catch((error: unknown) => {
        this.#context.logger.error({ err: error, turn: turn.id }, 'a socket could not be served')
        this.#socket.close(1011, 'Connect again and resume.')
      })
      .finally(() => {
        if (this.#followed.get(turn.id) === stop) this.#followed.delete(turn.id)
      })
  }

  async #pass(turn: TurnRow, after: number, form: NamedForm, signal: AbortSignal): Promise<void> {
    const frames = framesIn(form)
    // An id that the hub or an operator made is none of the client's.
    const isOwn = !turn.message.by && !turn.message.id.startsWith('msg_')
    const id = form.id ?? (isOwn ? turn.message.id : undefined)
    const common = { agentId: turn.bot, sessionId: turn.conversation.name, ...(id === undefined ? {} : { id }) }
    // From the beginning: what a frame says may depend on what was said before the place it resumes at.
    await forEach(this.#context.hub.follow(turn.id, form.events ? after : 0, signal), (group) => {
      const ready = group.flatMap((event) =>
        frames(event)
          .filter(() => event.seq > after)
          .map((frame) => ({ ...frame, ...common, turn: turn.id, seq: event.seq })),
      )
      return this.#send(ready, signal)
    })
  }

  /** Says to clients that ask for it, by an `id`, that what they sent about a turn was taken. */
  async #accepted({ id, turn, over }: Acceptance): Promise<void> {
    if (id !== undefined) await this.#send([{ type: 'accepted', id, turn, ...(over ? { over } : {}) }])
  }

  #sendError(error: HubError, echo: ServerFrame = {}): Promise<void> | void {
    if (error.code === 'internal') this.#context.logger.error({ err: error.cause }, 'a frame failed')
    const { turn } = error
    return this.#send([{ type: 'error', ...error.public(), ...echo, ...(turn === undefined ? {} : { turn }) }])
  }

  /**
   * Hands frames to the network, some at a time. Resolves when the last one is with it, or nobody wants the rest; gives
   * nothing where that is so at once.
   */
  #send(frames: readonly ServerFrame[], signal = this.#left.signal): Promise<void> | void {
    for (let from = 0; from < frames.length && !signal.aborted;) {
      const texts = textsOf(frames, from)
      from += texts.length
      const full = this.#hand(texts)
      if (full) return full.then(() => this.#send(frames.slice(from), signal))
    }
  }

  #hand(texts: readonly string[]): Promise<void> | void {
    if (this.#socket.readyState !== this.#socket.OPEN) return
    if (this.#socket.bufferedAmount > maxQueuedBytes) return this.#socket.terminate()
    let handed = () => {}
    // In one write. What becomes of a frame whose client goes meanwhile, that client finds out when it resumes.
    this.#wire.cork()
    for (const [index, text] of texts.entries()) {
      this.#socket.send(text, index === texts.length - 1 ? () => handed() : () => {})
    }
    this.#wire.uncork()
    if (this.#socket.bufferedAmount === 0) return
    const timer = setTimeout(() => this.#socket.terminate(), sendTimeoutMs)
    return new Promise<void>((resolve) => (handed = resolve)).finally(() => clearTimeout(timer))
  }
}

/** The frames from a place on that are handed over together. */
function textsOf(frames: readonly ServerFrame[], from: number): readonly string[] {
  const texts: string[] = []
  for (let length = 0, at = from; at < frames.length && length < maxSendLength; at++) {
    const text = JSON.stringify(frames[at])
    texts.push(text)
    length += text.length
  }
  return texts
}
