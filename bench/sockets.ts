import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import type { Socket } from 'node:net'
import { join } from 'node:path'
import { WebSocket } from 'ws'
import { systemClock } from '../core/clock.ts'
import { makeFolder, startHub } from './hub.ts'

// What sockets cost the hub that do nothing: resident memory of its process as the system counts it, before and with
// them. Run it with `npm run bench:sockets`, or with another number: `npm run bench:sockets -- 1000`.

const count = Number(process.argv[2] ?? 5000)
const goalKiB = 60
/** Handshakes at a time. */
const batch = 100
/** How long the hub has to let go of what the handshakes took. */
const settleMs = 5000

const folder = makeFolder()
writeFileSync(
  join(folder, 'hub.config.ts'),
  `import { apiKey, defineConfig, echo, sqlite, websocket } from 'bothub'
const common = { store: sqlite({ file: 'hub.db' }), bots: { echo: echo() } }
export default defineConfig({
  ...common,
  auth: [apiKey({ name: 'bench', key: 'key-of-the-bench' })],
  channels: {
    plain: websocket({ bot: 'echo' }),
    packed: websocket({ bot: 'echo', path: '/packed', compression: true }),
  },
})
`,
)

const rows = [
  await measure('idle', '/api/v1/ws', {}),
  await measure('with compression agreed on', '/packed/api/v1/ws', {
    'Sec-WebSocket-Extensions': 'permessage-deflate; client_max_window_bits',
  }),
  await measure('after one exchange each', '/api/v1/ws', {}, { type: 'chat', message: 'hello' }),
]
console.table(rows)
process.exitCode = rows[0]!.met === 'yes' ? 0 : 1

async function measure(what: string, path: string, headers: Readonly<Record<string, string>>, frame?: object) {
  await using hub = await startHub(folder)
  const { host, hostname, port } = new URL(hub.url)
  // What the first of everything takes is no cost of a socket.
  for (let warm = 0; warm < 20; warm++) await talk(`ws://${host}${path}`)
  await systemClock.sleep(settleMs)
  const before = hub.rss()
  const sockets: Socket[] = []
  for (let opened = 0; opened < count; opened += batch) {
    const asked = { host, ...headers }
    const some = Array.from({ length: Math.min(batch, count - opened) }, () =>
      open(hostname, Number(port), path, asked),
    )
    sockets.push(...(await Promise.all(some)))
    if (frame) await Promise.all(sockets.slice(opened).map((socket) => exchange(socket, frame)))
  }
  await systemClock.sleep(settleMs)
  const kib = (hub.rss() - before) / count
  // All of them are still there, and the hub still answers.
  const there = sockets.filter((socket) => !socket.closed).length
  await talk(`ws://${host}${path}`)
  for (const socket of sockets) socket.destroy()
  return {
    sockets: `${there}, ${what}`,
    'KiB each': kib.toFixed(1),
    goal: `≤ ${goalKiB}`,
    met: kib <= goalKiB && there === count ? 'yes' : 'NO',
  }
}

/** A handshake by hand: a client that costs this process little. */
async function open(
  host: string,
  port: number,
  path: string,
  headers: Readonly<Record<string, string>>,
): Promise<Socket> {
  const socket = connect(port, host)
  socket.on('error', () => {})
  const lines = Object.entries({
    Connection: 'Upgrade',
    Upgrade: 'websocket',
    Authorization: 'Bearer key-of-the-bench',
    'Sec-WebSocket-Version': '13',
    'Sec-WebSocket-Key': 'dGhlIHNhbXBsZSBub25jZQ==',
    ...headers,
  }).map(([name, value]) => `${name}: ${value}\r\n`)
  socket.write(`GET ${path} HTTP/1.1\r\n${lines.join('')}\r\n`)
  const [answer] = (await once(socket, 'data')) as [Buffer]
  if (!answer.toString().startsWith('HTTP/1.1 101')) throw new Error(answer.toString())
  // Whoever answers no ping is cut.
  socket.on('data', (chunk: Buffer) => chunk[0] === 0x89 && socket.write(Buffer.from([0x8a, 0x80, 0, 0, 0, 0])))
  return socket
}

async function exchange(socket: Socket, frame: object): Promise<void> {
  const body = Buffer.from(JSON.stringify(frame))
  // Masked with zeros.
  socket.write(Buffer.concat([Buffer.from([0x81, 0x80 | body.length, 0, 0, 0, 0]), body]))
  let said = ''
  for (;;) {
    said += String((await once(socket, 'data'))[0])
    if (said.includes('"done":true')) return
  }
}

async function talk(address: string): Promise<void> {
  const socket = new WebSocket(address, { headers: { authorization: 'Bearer key-of-the-bench' } })
  socket.on('message', (bytes: Buffer) => bytes.includes('"done":true') && socket.close())
  await once(socket, 'open')
  socket.send(JSON.stringify({ type: 'chat', message: 'hello' }))
  await once(socket, 'close')
}
