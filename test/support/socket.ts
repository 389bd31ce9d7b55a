import { once } from 'node:events'
import type { ClientOptions } from 'ws'
import { WebSocket } from 'ws'
import type { NumberedEvent } from '../../index.ts'

/** A frame of the hub, parsed. */
export interface Frame {
  readonly type: string
  readonly agentId?: string
  readonly sessionId?: string
  readonly id?: string
  readonly turn?: string
  readonly seq?: number
  readonly content?: string
  readonly done?: boolean
  readonly code?: string
  readonly message?: string
  readonly retryAfterMs?: number
  readonly by?: string
  readonly for?: string
  readonly calls?: readonly { readonly call: string; readonly tool: string }[]
  readonly event?: NumberedEvent
}

/** A client on the hub's WebSocket channel that keeps every frame it got. */
export interface SocketClient extends Disposable {
  readonly socket: WebSocket
  readonly frames: readonly Frame[]
  send(frame: Readonly<Record<string, unknown>>): void
  /** Resolves with the first frame that fits; rejects when the socket closes without one. */
  frame(fits: (frame: Frame) => boolean): Promise<Frame>
  /** Sends a `chat` and resolves with its frames, up to the one that says it is over or waits. */
  chat(chat: { readonly id?: string; readonly [field: string]: unknown }): Promise<readonly Frame[]>
  /** Resolves with the code of the close. */
  readonly closed: Promise<number>
  /** What the close said beside its code; empty before it. */
  readonly reason: () => string
}

/** Connects to the hub at `http://127.0.0.1:…`. */
export async function connectSocket(
  url: string,
  { protocols = [], ...options }: ClientOptions & { readonly protocols?: string[] } = {},
): Promise<SocketClient> {
  const socket = new WebSocket(`${url.replace('http', 'ws')}/api/v1/ws`, protocols, options)
  const frames: Frame[] = []
  const heard = new Set<() => void>()
  let code: number | undefined
  let said = ''
  const tell = () => {
    for (const each of heard) each()
  }
  socket.on('message', (bytes: Buffer) => {
    frames.push(JSON.parse(bytes.toString()) as Frame)
    tell()
  })
  const closed = new Promise<number>((resolve) =>
    socket.on('close', (given, reason) => {
      code = given
      said = reason.toString()
      resolve(given)
      tell()
    }),
  )
  await once(socket, 'open')
  socket.on('error', () => {})

  const frame = (fits: (frame: Frame) => boolean): Promise<Frame> =>
    new Promise((resolve, reject) => {
      const look = () => {
        const found = frames.find(fits)
        if (found) resolve(found)
        else if (code === undefined) return
        else reject(new Error(`closed with ${code} after ${JSON.stringify(frames)}`))
        heard.delete(look)
      }
      heard.add(look)
      look()
    })
  return {
    socket,
    frames,
    closed,
    reason: () => said,
    frame,
    send: (each) => socket.send(JSON.stringify(each)),
    async chat(chat) {
      const { id = crypto.randomUUID() } = chat
      socket.send(JSON.stringify({ type: 'chat', ...chat, id }))
      await frame((each) => each.id === id && isLast(each))
      return frames.filter((each) => each.id === id)
    },
    [Symbol.dispose]: () => socket.terminate(),
  }
}

const lastEvents = ['turn.completed', 'turn.failed', 'turn.cancelled', 'turn.interrupted', 'turn.waiting']

const isLast = ({ type, done, event }: Frame): boolean =>
  done === true || type === 'error' || type === 'waiting' || (event !== undefined && lastEvents.includes(event.type))
