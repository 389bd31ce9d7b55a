import type { NumberedEvent, PublicError } from '../core/events.ts'
import type { HubClientOptions, Transport } from './transport.ts'
import { addressOf, HubClientError, keyOf, newName } from './transport.ts'

/** A socket that says nothing between two of these is dead. */
const pingMs = 12_000
/** How long a socket that nobody uses is kept for the next question. */
const lingerMs = 20_000

/** A frame of the hub, as far as it matters here. */
interface Frame extends PublicError {
  readonly type: string
  readonly id?: string
  readonly sessionId?: string
  readonly turn: string
  readonly event?: NumberedEvent
}

/** Is told every frame, and last of all, without one, that the socket was lost. */
type Listener = (frame?: Frame, error?: unknown) => void

/** A socket that many listen to. */
interface Line {
  readonly listeners: Set<Listener>
  /** Goes out behind the key, when the socket is open. */
  send(this: void, frame: object): void
  end(this: void, error?: unknown): void
}

/** Reads and asks over one socket: the channel `websocket`. */
export function overWebSocket(options: HubClientOptions): Transport {
  let line: Line | undefined
  let users = 0
  let timer: ReturnType<typeof setTimeout> | undefined
  const close = () => line?.end()

  /** Says something, and gives the frames that answer it until it is left. */
  async function* exchange(question: object, isMine: (frame: Frame) => unknown, signal: AbortSignal, heard = () => {}) {
    clearTimeout(timer)
    users++
    const { listeners, send } = (line ??= openLine(options, () => (line = undefined)))
    let listen: Listener = () => {}
    const frames = new ReadableStream<Frame>({
      start(controller) {
        const fail = (error: unknown) => controller.error(error)
        listen = (frame, error) => {
          if (!frame) return fail(error)
          heard()
          if (isMine(frame)) controller.enqueue(frame)
        }
        signal.addEventListener('abort', fail)
      },
    }).getReader()
    listeners.add(listen)
    send(question)
    try {
      for (;;) {
        const { value } = await frames.read()
        if (value!.type === 'error') throw new HubClientError(value!)
        yield value!
      }
    } finally {
      listeners.delete(listen)
      if (--users === 0) timer = setTimeout(close, lingerMs)
    }
  }

  return {
    async *read({ question, turn, seq }, signal, heard) {
      const { bot: agentId, text: message, conversation: sessionId, ...more } = question ?? {}
      const id = turn ? newName() : question!.id
      const frame = turn ? { type: 'resume', turn, after: seq } : { ...more, type: 'chat', agentId, sessionId, message }
      // Frames of an earlier reading, which are still on their way, have another id. Two questions may have one id
      // where they are of two conversations.
      const isMine = (each: Frame) =>
        each.id === id && (turn || each.sessionId === sessionId || sessionId!.startsWith('conv_'))
      let shown = turn
      try {
        for await (const each of exchange({ ...frame, id, events: true }, isMine, signal, heard)) {
          shown = each.turn
          // Without an event it says that nothing comes after the place.
          yield each
        }
      } finally {
        if (shown) line?.send({ type: 'leave', turn: shown })
      }
    },
    async ask(turn, request, signal) {
      const id = newName()
      for await (const _ of exchange({ ...request, turn, id }, (frame) => frame.id === id, signal)) return
    },
    close,
  }
}

function openLine(options: HubClientOptions, ended: () => void): Line {
  const socket = new (options.WebSocket ?? WebSocket)(addressOf(options, '/ws').replace(/^http/, 'ws'))
  const listeners = new Set<Listener>()
  let isAlive = true
  const end = (error?: unknown) => {
    clearInterval(heartbeat)
    ended()
    socket.close()
    for (const listen of listeners) listen(undefined, error)
    // One that is half open takes its time to close, and may still speak.
    listeners.clear()
  }
  const say = (frame: object) => socket.send(JSON.stringify(frame))
  const opened = new Promise((resolve) => socket.addEventListener('open', resolve))
  const ready = Promise.all([keyOf(options), opened])
    .then(([key]) => key && say({ type: 'auth', key }))
    .catch(end)
  const send = (frame: object) => void ready.then(() => say(frame))
  const heartbeat = setInterval(() => {
    if (!isAlive) end()
    isAlive = false
    send({ type: 'ping' })
  }, pingMs)
  socket.addEventListener('close', end)
  socket.addEventListener('error', end)
  socket.addEventListener('message', ({ data }) => {
    isAlive = true
    const frame = JSON.parse(String(data)) as Frame
    for (const listen of listeners) listen(frame)
    // About nothing that was asked: the key is wrong, or the hub is stopping.
    if (frame.type === 'error' && !frame.id) end(new HubClientError(frame))
  })
  return { listeners, send, end }
}
