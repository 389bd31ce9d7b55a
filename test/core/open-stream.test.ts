import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { createServer as createSecureServer } from 'node:https'
import { createServer } from 'node:net'
import type { AddressInfo, Socket } from 'node:net'
import { setDefaultCACertificates } from 'node:tls'
import { describe, expect, it } from 'vitest'
import { requestEvents } from '../../core/sse.ts'
import { startUpstream } from '../support/upstream.ts'

const head = 'HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n'
const chunk = (text: string) => `${text.length.toString(16)}\r\n${text}\r\n`
const whole = `${head}${chunk('data: one\n\n')}${chunk('data: two\n\n')}0\r\n\r\n`

/** A server by hand: it is given the socket of every request. */
async function startRaw(answer: (socket: Socket) => void) {
  const sockets: Socket[] = []
  const server = createServer((socket) => {
    sockets.push(socket)
    socket.setNoDelay(true)
    socket.on('data', () => answer(socket))
    socket.on('error', () => {})
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/`,
    sockets,
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy()
      server.close()
      await once(server, 'close')
    },
  }
}

const ask = (url: string, signal = new AbortController().signal) =>
  requestEvents({ fetch, url, body: {}, signal, idleTimeoutMs: 5000 })

const read = async (url: string) => Array.fromAsync((await ask(url)).events(), ({ data }) => data)

/** Writes a text in pieces, each of which is on its way before the next one is written. */
async function writeInPieces(socket: Socket, text: string, cuts: readonly number[]): Promise<void> {
  let from = 0
  for (const cut of [...cuts, text.length]) {
    await new Promise((resolve) => socket.write(text.slice(from, cut), resolve))
    await new Promise(setImmediate)
    from = cut
  }
}

describe('reading an answer', () => {
  it('understands it wherever its bytes are cut', async () => {
    let cut = 0
    await using upstream = await startRaw((socket) => void writeInPieces(socket, whole, [cut]))
    for (cut = 1; cut < whole.length; cut++) expect(await read(upstream.url), `cut at ${cut}`).toEqual(['one', 'two'])
  })

  it('understands it byte for byte', async () => {
    await using upstream = await startRaw(
      (socket) =>
        void writeInPieces(
          socket,
          whole,
          Array.from(whole, (_, at) => at),
        ),
    )
    expect(await read(upstream.url)).toEqual(['one', 'two'])
  })

  it('passes over what is said before it', async () => {
    const early = 'HTTP/1.1 103 Early Hints\r\nlink: </style.css>\r\n\r\n'
    await using upstream = await startRaw((socket) => socket.write(early + whole))
    expect(await read(upstream.url)).toEqual(['one', 'two'])
    expect(await read(upstream.url)).toEqual(['one', 'two'])
    expect(upstream.sockets).toHaveLength(1)
  })

  it('takes one that ends with its connection, or after a length', async () => {
    const plain = head.replace('transfer-encoding: chunked\r\n', '')
    await using closing = await startRaw((socket) => socket.end(`${plain}data: one\n\n`))
    expect(await read(closing.url)).toEqual(['one'])
    const sized = plain.replace('\r\n\r\n', '\r\ncontent-length: 11\r\n\r\n')
    await using keeping = await startRaw((socket) => socket.write(`${sized}data: one\n\n`))
    expect(await read(keeping.url)).toEqual(['one'])
    expect(await read(keeping.url)).toEqual(['one'])
    expect(keeping.sockets).toHaveLength(1)
  })

  it('calls it cut where its connection ends in the middle, and where it is not chunked as it says', async () => {
    for (const rest of ['', '5\r\nda', 'zz\r\ndata: two\n\n']) {
      await using upstream = await startRaw((socket) => socket.end(head + chunk('data: one\n\n') + rest))
      await expect(read(upstream.url), JSON.stringify(rest)).rejects.toMatchObject({ code: 'upstream_cut' })
    }
  })

  it('asks on another connection where something was said that nobody had asked for', async () => {
    await using upstream = await startRaw((socket) => socket.write(`${whole}HTTP/1.1 200 OK\r\n\r\n`))
    expect(await read(upstream.url)).toEqual(['one', 'two'])
    expect(await read(upstream.url)).toEqual(['one', 'two'])
    expect(upstream.sockets).toHaveLength(2)
  })

  it('asks on another connection where something is said on one that nobody uses', async () => {
    const late = 'HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\n\r\n'
    await using upstream = await startRaw((socket) => socket.write(whole))
    expect(await read(upstream.url)).toEqual(['one', 'two'])
    const [first] = upstream.sockets
    first!.write(late)
    await once(first!, 'close')
    expect(await read(upstream.url)).toEqual(['one', 'two'])
    expect(upstream.sockets).toHaveLength(2)
  })

  it('does not hold up the next one on a connection whose last reader had left', async () => {
    const long = `${head}${chunk(`data: ${'x'.repeat(30_000)}\n\n`).repeat(20)}0\r\n\r\n`
    const answers = [long, whole]
    await using upstream = await startRaw((socket) => socket.write(answers.shift()!))
    for await (const _ of (await ask(upstream.url)).events()) break
    expect(await read(upstream.url)).toEqual(['one', 'two'])
  })

  it('understands one that comes over TLS, and uses its connection again', async () => {
    const [key, cert] = ['key', 'certificate'].map((name) =>
      readFileSync(new URL(`../fixtures/tls/${name}.pem`, import.meta.url), 'utf8'),
    )
    setDefaultCACertificates([cert!])
    const ports = new Set<number | undefined>()
    const server = createSecureServer({ key: key!, cert: cert! }, (incoming, response) => {
      ports.add(incoming.socket.remotePort)
      response.writeHead(200, { 'content-type': 'text/event-stream' })
      response.write('data: one\n\n', () => response.end('data: two\n\n'))
    }).listen(0, '127.0.0.1')
    await once(server, 'listening')
    const url = `https://127.0.0.1:${(server.address() as AddressInfo).port}/`
    expect(await read(url)).toEqual(['one', 'two'])
    expect(await read(url)).toEqual(['one', 'two'])
    expect(ports.size).toBe(1)
    server.close()
    server.closeAllConnections()
  })
})

it('gives every byte of an answer that is larger than what is held, over and over on one connection', async () => {
  const text = 'x'.repeat(100_000)
  await using upstream = await startUpstream((_request, response) => {
    response.writeHead(200, { 'content-type': 'text/event-stream' })
    for (let count = 0; count < 10; count++) response.write(`data: ${text}\n\n`)
    response.end()
  })
  for (let count = 0; count < 3; count++)
    expect(await read(upstream.url)).toEqual(Array.from({ length: 10 }, () => text))
})
