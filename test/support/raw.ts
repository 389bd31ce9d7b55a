import { once } from 'node:events'
import { connect } from 'node:net'
import type { Socket } from 'node:net'

/** A plain TCP connection to a hub, for requests no client would send. */
export interface RawConnection extends Disposable {
  readonly socket: Socket
  write(text: string | Uint8Array): void
  /** Everything that has come so far. */
  readonly received: () => string
  /** Resolves with everything received when the other side has closed. */
  readonly closed: Promise<string>
}

export async function connectRaw(url: string): Promise<RawConnection> {
  const { hostname, port } = new URL(url)
  const socket = connect(Number(port), hostname)
  let received = ''
  socket.on('data', (chunk: Buffer) => (received += chunk.toString()))
  // A reset is one way for the other side to close.
  socket.on('error', () => {})
  const closed = new Promise<string>((resolve) => socket.once('close', () => resolve(received)))
  await once(socket, 'connect')
  return {
    socket,
    write: (text) => void socket.write(text),
    received: () => received,
    closed,
    [Symbol.dispose]: () => socket.destroy(),
  }
}
