import { once } from 'node:events'
import { connect } from 'node:net'
import type { Socket } from 'node:net'
import type { Ask } from './requests.ts'

// Clients by hand, that cost this process little however many there are.

/** Clients that ask and never read what they are answered. */
export async function stall({ url, headers = {}, body = '' }: Ask, clients: number): Promise<Socket[]> {
  const { hostname, port, pathname } = new URL(url)
  const fields = { host: hostname, ...headers, 'content-type': 'application/json', 'content-length': body.length }
  const sockets: Socket[] = []
  while (sockets.length < clients) {
    const socket = await opened(hostname, Number(port))
    socket.pause()
    socket.write(`POST ${pathname} HTTP/1.1\r\n${linesOf(fields)}\r\n${body}`)
    sockets.push(socket)
  }
  return sockets
}

/** Handshakes at a time. */
const batch = 100

/** WebSockets that say nothing. */
export async function openSockets(url: string, clients: number): Promise<Socket[]> {
  const sockets: Socket[] = []
  while (sockets.length < clients) {
    const some = Array.from({ length: Math.min(batch, clients - sockets.length) }, () => upgraded(new URL(url)))
    sockets.push(...(await Promise.all(some)))
  }
  return sockets
}

async function upgraded({ host, hostname, port, pathname }: URL): Promise<Socket> {
  const socket = await opened(hostname, Number(port))
  const fields = {
    host,
    connection: 'Upgrade',
    upgrade: 'websocket',
    'sec-websocket-version': '13',
    'sec-websocket-key': 'dGhlIHNhbXBsZSBub25jZQ==',
  }
  socket.write(`GET ${pathname} HTTP/1.1\r\n${linesOf(fields)}\r\n`)
  const [answer] = (await once(socket, 'data')) as [Buffer]
  if (!answer.toString().startsWith('HTTP/1.1 101')) throw new Error(answer.toString())
  // Whoever answers no ping is cut.
  socket.on('data', (chunk: Buffer) => chunk[0] === 0x89 && socket.write(Buffer.from([0x8a, 0x80, 0, 0, 0, 0])))
  return socket
}

async function opened(host: string, port: number): Promise<Socket> {
  const socket = connect(port, host)
  await once(socket, 'connect')
  socket.on('error', () => {})
  return socket
}

const linesOf = (fields: Readonly<Record<string, string | number>>): string =>
  Object.entries(fields)
    .map(([name, value]) => `${name}: ${value}\r\n`)
    .join('')
