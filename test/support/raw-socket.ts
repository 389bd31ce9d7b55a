import { once } from 'node:events'
import { connect } from 'node:net'
import type { Socket } from 'node:net'

/** What the four low bits of a frame say it is. */
export const opcode = { continuation: 0, text: 1, binary: 2, close: 8, ping: 9, pong: 10 } as const

/** How a frame differs from what a well-behaved client sends. */
export interface FrameOptions {
  /** False: more fragments come. */
  readonly fin?: boolean
  /** `0x40`, `0x20` and `0x10` are the reserved bits. */
  readonly reserved?: number
  readonly isMasked?: boolean
  /** What the frame says of its length, whatever it has. */
  readonly length?: number
}

/** The bytes of a client's frame, right or wrong. */
export function frame(
  kind: number,
  payload: Buffer,
  { fin = true, reserved = 0, isMasked = true, length = payload.length }: FrameOptions = {},
): Buffer {
  const mask = isMasked ? Buffer.from([1, 2, 3, 4]) : Buffer.alloc(0)
  const body = isMasked ? payload.map((byte, index) => byte ^ mask[index % 4]!) : payload
  return Buffer.concat([Buffer.from([(fin ? 0x80 : 0) | reserved | kind]), lengthBytes(length, isMasked), mask, body])
}

function lengthBytes(length: number, isMasked: boolean): Buffer {
  const bit = isMasked ? 0x80 : 0
  if (length < 126) return Buffer.from([bit | length])
  const bytes = Buffer.alloc(length < 65_536 ? 3 : 9)
  bytes[0] = bit | (length < 65_536 ? 126 : 127)
  if (length < 65_536) bytes.writeUInt16BE(length, 1)
  else bytes.writeBigUInt64BE(BigInt(length), 1)
  return bytes
}

/** The payload of a close frame. */
export const closing = (code: number): Buffer => Buffer.from([code >> 8, code & 0xff])

/** A frame of the server. */
export interface ServedFrame {
  readonly opcode: number
  readonly payload: Buffer
}

/** The client's end of a WebSocket, byte by byte. */
export interface RawSocket extends Disposable {
  readonly socket: Socket
  /** Of the server's answer to the handshake. */
  readonly head: string
  readonly frames: readonly ServedFrame[]
  write(bytes: Buffer): void
  /** The text frames that have come, parsed. */
  json(): Record<string, unknown>[]
  /** Resolves when it is so; rejects when the connection ends before. */
  until(isSo: () => boolean): Promise<void>
  /** The code in the server's close frame; 1005 if it has none, 1006 if the connection ended without one. */
  readonly closedWith: Promise<number>
  /** Resolves when the connection is over. */
  readonly closed: Promise<void>
}

/** Opens a WebSocket by hand. */
export async function connectRawSocket(
  url: string,
  {
    path = '/api/v1/ws',
    headers = {},
  }: { readonly path?: string; readonly headers?: Readonly<Record<string, string>> } = {},
): Promise<RawSocket> {
  const { hostname, port, host } = new URL(url)
  const socket = connect(Number(port), hostname)
  socket.on('error', () => {})
  const frames: ServedFrame[] = []
  const heard = new Set<() => void>()
  const tell = () => {
    for (const each of heard) each()
  }
  const closed = new Promise<void>((resolve) => socket.once('close', () => resolve())).then(tell)
  await once(socket, 'connect')
  const asked = {
    Host: host,
    Connection: 'Upgrade',
    Upgrade: 'websocket',
    'Sec-WebSocket-Version': '13',
    'Sec-WebSocket-Key': 'dGhlIHNhbXBsZSBub25jZQ==',
    ...headers,
  }
  const lines = Object.entries(asked).map(([name, value]) => `${name}: ${value}\r\n`)
  socket.write(`GET ${path} HTTP/1.1\r\n${lines.join('')}\r\n`)

  let left = Buffer.alloc(0)
  let head = ''
  socket.on('data', (chunk: Buffer) => {
    left = Buffer.concat([left, chunk])
    if (head === '') {
      const end = left.indexOf('\r\n\r\n')
      if (end < 0) return
      head = left.subarray(0, end).toString()
      left = left.subarray(end + 4)
    }
    for (let next = readFrame(left); next; next = readFrame(left)) {
      frames.push(next.frame)
      left = left.subarray(next.bytes)
    }
    tell()
  })

  const until = (isSo: () => boolean): Promise<void> =>
    new Promise((resolve, reject) => {
      const look = () => {
        if (isSo()) resolve()
        else if (socket.closed) reject(new Error(`closed after ${frames.length} frames: ${head}`))
        else return
        heard.delete(look)
      }
      heard.add(look)
      look()
    })
  await until(() => head !== '')
  const closeOf = () => frames.find((each) => each.opcode === opcode.close)
  return {
    socket,
    head,
    frames,
    until,
    closed,
    write: (bytes) => void socket.write(bytes),
    json: () =>
      frames.flatMap((each) =>
        each.opcode === opcode.text ? [JSON.parse(each.payload.toString()) as Record<string, unknown>] : [],
      ),
    closedWith: until(() => closeOf() !== undefined).then(
      () => (closeOf()!.payload.length >= 2 ? closeOf()!.payload.readUInt16BE(0) : 1005),
      () => 1006,
    ),
    [Symbol.dispose]: () => socket.destroy(),
  }
}

/** The first frame of these bytes, if all of it is there. */
function readFrame(bytes: Buffer): { readonly frame: ServedFrame; readonly bytes: number } | undefined {
  if (bytes.length < 2) return undefined
  const short = bytes[1]! & 0x7f
  const start = short === 127 ? 10 : short === 126 ? 4 : 2
  if (bytes.length < start) return undefined
  const length = short === 127 ? Number(bytes.readBigUInt64BE(2)) : short === 126 ? bytes.readUInt16BE(2) : short
  if (bytes.length < start + length) return undefined
  const payload = bytes.subarray(start, start + length)
  return { frame: { opcode: bytes[0]! & 0x0f, payload }, bytes: start + length }
}
