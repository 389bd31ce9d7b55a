import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { deflateRawSync } from 'node:zlib'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { echo, rest, websocket } from '../../index.ts'
import { startHub } from '../support/hub.ts'
import type { TestHub } from '../support/hub.ts'
import type { RawSocket } from '../support/raw-socket.ts'
import { closing, connectRawSocket, frame, opcode } from '../support/raw-socket.ts'

const { text, binary, continuation, close, ping, pong } = opcode
const bots = { echo: echo() }
const chat = (message: string): Buffer => Buffer.from(JSON.stringify({ type: 'chat', agentId: 'echo', message }))

let hub: TestHub
beforeAll(async () => {
  hub = await startHub({
    bots,
    channels: { rest: rest(), websocket: websocket(), packed: websocket({ path: '/packed', compression: true }) },
  })
})
afterAll(() => hub[Symbol.asyncDispose]())

/** The text of the answers that have come, when the last is done. */
async function answered(socket: RawSocket, count = 1): Promise<string> {
  const done = () => socket.json().filter((each) => each['done'] === true).length >= count
  await socket.until(done)
  return socket
    .json()
    .map((each) => each['content'])
    .join('')
}

describe('a message over a raw socket', () => {
  it('in fragments is one, also where they cut a character, and where a ping comes between them', async () => {
    using socket = await connectRawSocket(hub.url)
    const bytes = chat('你好 😀 to you')
    const pieces = Array.from(bytes, (_, index) => bytes.subarray(index, index + 1))
    for (const [index, piece] of pieces.entries()) {
      const isLast = index === pieces.length - 1
      socket.write(frame(index === 0 ? text : continuation, piece, { fin: isLast }))
      if (index === 20) socket.write(frame(ping, Buffer.from('still there?')))
    }
    expect(await answered(socket)).toBe('你好 😀 to you')
    expect(socket.frames.find((each) => each.opcode === pong)?.payload.toString()).toBe('still there?')
  })

  it('whose frames come byte by byte, or many at once, is what it is', async () => {
    using socket = await connectRawSocket(hub.url)
    for (const byte of frame(text, chat('slowly'))) socket.write(Buffer.from([byte]))
    expect(await answered(socket)).toBe('slowly')
    socket.write(Buffer.concat(['a', 'b', 'c'].map((each) => frame(text, chat(each)))))
    expect(await answered(socket, 4)).toMatch(/^slowly[abc]{3}$/)
  })

  it('of exactly 1 MiB is taken', async () => {
    using socket = await connectRawSocket(hub.url)
    const message = 'x'.repeat(1_048_576 - chat('').length)
    socket.write(frame(text, chat(message)))
    expect((await answered(socket)).length).toBe(message.length)
  })

  it('that is no message is answered by an error, and an empty one too', async () => {
    using socket = await connectRawSocket(hub.url)
    socket.write(frame(text, Buffer.alloc(0)))
    await socket.until(() => socket.json().length === 1)
    expect(socket.json()).toMatchObject([{ type: 'error', code: 'bad_json' }])
    socket.write(frame(text, chat('still here')))
    expect(await answered(socket)).toContain('still here')
  })
})

const big = 1_048_577

describe('a socket', () => {
  it.each<[string, number, readonly Buffer[]]>([
    ['a binary frame', 1003, [frame(binary, Buffer.from('{"type":"ping"}'))]],
    ['bytes that are no UTF-8', 1007, [frame(text, Buffer.from([0xc3, 0x28]))]],
    ['an encoded surrogate', 1007, [frame(text, Buffer.from([0xed, 0xa0, 0x80]))]],
    ['an overlong slash', 1007, [frame(text, Buffer.from([0xc0, 0xaf]))]],
    ['a character that never ends', 1007, [frame(text, Buffer.from([0xe4, 0xbd]))]],
    [
      'bad UTF-8 in a second fragment',
      1007,
      [frame(text, Buffer.from('{"a":"'), { fin: false }), frame(continuation, Buffer.from([0xff]))],
    ],
    ['a frame over 1 MiB, before its first byte', 1009, [frame(text, Buffer.alloc(0), { length: big })]],
    ['a frame of 2 ** 40 bytes', 1009, [frame(text, Buffer.alloc(0), { length: 2 ** 40 })]],
    [
      'fragments of more than 1 MiB in all',
      1009,
      [frame(text, Buffer.alloc(600_000, 'x'), { fin: false }), frame(continuation, Buffer.alloc(600_000, 'x'))],
    ],
    [
      'more than 1024 fragments',
      1008,
      [
        frame(text, Buffer.from('x'), { fin: false }),
        ...Array.from({ length: 1024 }, () => frame(continuation, Buffer.from('x'), { fin: false })),
      ],
    ],
    ['a first reserved bit without compression', 1002, [frame(text, Buffer.from('{}'), { reserved: 0x40 })]],
    ['a second reserved bit', 1002, [frame(text, Buffer.from('{}'), { reserved: 0x20 })]],
    ['a third reserved bit', 1002, [frame(text, Buffer.from('{}'), { reserved: 0x10 })]],
    ['a reserved opcode', 1002, [frame(3, Buffer.from('x'))]],
    ['a reserved control opcode', 1002, [frame(11, Buffer.from('x'))]],
    ['a frame without a mask', 1002, [frame(text, Buffer.from('{}'), { isMasked: false })]],
    ['a continuation of nothing', 1002, [frame(continuation, Buffer.from('x'))]],
    [
      'a new message inside another',
      1002,
      [frame(text, Buffer.from('x'), { fin: false }), frame(text, Buffer.from('x'))],
    ],
    ['a ping in fragments', 1002, [frame(ping, Buffer.from('x'), { fin: false })]],
    ['a ping of 126 bytes', 1002, [frame(ping, Buffer.alloc(126))]],
    ['a close of one byte', 1002, [frame(close, Buffer.from([3]))]],
    ['a close by a code that is none', 1002, [frame(close, closing(1005))]],
    ['a close whose reason is no UTF-8', 1007, [frame(close, Buffer.concat([closing(1000), Buffer.from([0xff])]))]],
    ['a close', 1000, [frame(close, closing(1000))]],
    ['a close by a code of its own', 4321, [frame(close, closing(4321))]],
    [
      'more than 1000 frames at once',
      1008,
      [Buffer.concat(Array.from({ length: 2500 }, () => frame(text, Buffer.from('{}'))))],
    ],
  ])('is closed at %s, with %i', async (_, code, bytes) => {
    using socket = await connectRawSocket(hub.url)
    for (const each of bytes) socket.write(each)
    expect(await socket.closedWith).toBe(code)
    socket.write(frame(close, closing(1000)))
    await socket.closed
    expect((await hub.ask('echo', 'still here')).text).toBe('still here')
  })

  it('closed at an empty close is closed without a code', async () => {
    using socket = await connectRawSocket(hub.url)
    socket.write(frame(close, Buffer.alloc(0)))
    expect(await socket.closedWith).toBe(1005)
  })

  it('that has gone without a word is let go within 60 s', async () => {
    vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] })
    try {
      await using own = await startHub({ bots: { echo: echo() } })
      using socket = await connectRawSocket(own.url)
      using alive = await connectRawSocket(own.url)
      vi.advanceTimersByTime(30_000)
      // A ping, which only the second peer answers.
      await socket.until(() => socket.frames.some((each) => each.opcode === ping))
      await alive.until(() => alive.frames.some((each) => each.opcode === ping))
      alive.write(Buffer.concat([frame(pong, Buffer.alloc(0)), frame(text, chat('here'))]))
      await answered(alive)
      vi.advanceTimersByTime(30_000)
      await socket.closed
      alive.write(frame(text, chat('still here')))
      expect(await answered(alive, 2)).toBe('herestill here')
    } finally {
      vi.useRealTimers()
    }
  })

  it('that does not read is cut when more than 1 MiB waits for it', async () => {
    const open = async () =>
      Number(
        /bothub_open_streams\{channel="websocket"\} (\d+)/.exec(await (await fetch(`${hub.url}/metrics`)).text())![1],
      )
    await expect.poll(open).toBe(0)
    const turns = await Promise.all(Array.from({ length: 8 }, () => hub.ask('echo', 'x'.repeat(1_000_000))))
    using socket = await connectRawSocket(hub.url)
    expect(await open()).toBe(1)
    socket.socket.pause()
    const send = (asked: Readonly<Record<string, unknown>>) =>
      socket.write(frame(text, Buffer.from(JSON.stringify(asked))))
    // More than the system itself buffers, by far, and all of it at once.
    for (const { turn } of turns) send({ type: 'resume', turn, events: true })
    const stillOpen = () => {
      send({ type: 'ping' })
      return open()
    }
    await expect.poll(stillOpen, { timeout: 15_000 }).toBe(0)
    expect((await hub.ask('echo', 'still here')).text).toBe('still here')
  })
})

describe('compression', () => {
  const offer = { 'Sec-WebSocket-Extensions': 'permessage-deflate; client_max_window_bits' }
  const packed = (bytes: Buffer): Buffer => deflateRawSync(bytes, { finishFlush: 2 }).subarray(0, -4)

  it('that is offered is declined unless the channel wants it', async () => {
    using socket = await connectRawSocket(hub.url, { headers: offer })
    expect(socket.head).not.toMatch(/sec-websocket-extensions/i)
  })

  it('that the channel wants is agreed on without memory of earlier messages, in a small window', async () => {
    using socket = await connectRawSocket(hub.url, { headers: offer, path: '/packed/api/v1/ws' })
    expect(socket.head).toMatch(/permessage-deflate/)
    for (const bound of ['server_no_context_takeover', 'client_no_context_takeover', 'server_max_window_bits=10']) {
      expect(socket.head).toContain(bound)
    }
    socket.write(frame(text, packed(chat('short')), { reserved: 0x40 }))
    expect(await answered(socket)).toBe('short')
  })

  it('does not let a small frame become a large message', async () => {
    using socket = await connectRawSocket(hub.url, { headers: offer, path: '/packed/api/v1/ws' })
    socket.write(frame(text, packed(Buffer.alloc(20 * 1_048_576, 'x')), { reserved: 0x40 }))
    expect(await socket.closedWith).toBe(1009)
  })

  it('that is broken closes the socket with 1007', async () => {
    using socket = await connectRawSocket(hub.url, { headers: offer, path: '/packed/api/v1/ws' })
    socket.write(frame(text, Buffer.from('not deflated at all'), { reserved: 0x40 }))
    expect(await socket.closedWith).toBe(1007)
  })
})

describe('wscat', () => {
  it('gets the whole answer', async () => {
    const address = `${hub.url.replace('http', 'ws')}/api/v1/ws`
    const question = JSON.stringify({ type: 'chat', agentId: 'echo', message: 'hello wscat', stream: false })
    const wscat = fileURLToPath(import.meta.resolve('wscat/bin/wscat'))
    const { stdout } = await promisify(execFile)(process.execPath, [wscat, '-c', address, '-x', question, '-w', '1'])
    expect(JSON.parse(stdout)).toMatchObject({ type: 'message', content: 'hello wscat', done: true })
  })
})
