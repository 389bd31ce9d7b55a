import { channel as diagnostics } from 'node:diagnostics_channel'
import type { Socket } from 'node:net'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { describe, expect, it, vi } from 'vitest'
import { echo, local } from '../../index.ts'
import { startHub } from '../support/hub.ts'
import type { TestHub } from '../support/hub.ts'
import { connectRaw } from '../support/raw.ts'

const path = '/api/v1/bots/echo/messages'
const post = (hub: TestHub, headers: Record<string, string | number>, body = '') =>
  [
    `POST ${path} HTTP/1.1`,
    `Host: ${new URL(hub.url).host}`,
    ...Object.entries({ 'Content-Type': 'application/json', ...headers }).map(([name, value]) => `${name}: ${value}`),
    '',
    body,
  ].join('\r\n')
const status = (answer: string) => Number(/^HTTP\/1.1 (\d{3})/.exec(answer)?.[1])
const p99 = (values: readonly number[]) => values.toSorted((a, b) => a - b)[Math.floor(values.length * 0.99)]!
const started = () => startHub({ bots: { echo: echo() } })

/** Resolves when the hub has so many more connections. */
function acceptedBy(hub: TestHub, count: number): Promise<void> {
  const port = Number(new URL(hub.url).port)
  const { promise, resolve } = Promise.withResolvers<void>()
  let left = count
  const accept = (message: unknown) => {
    if ((message as { readonly socket: Socket }).socket.localPort !== port || --left > 0) return
    diagnostics('net.server.socket').unsubscribe(accept)
    resolve()
  }
  diagnostics('net.server.socket').subscribe(accept)
  return promise
}

describe('slow and oversized requests', () => {
  it('300 connections that never finish their headers are gone in 6 s, while a good client is served at once', async () => {
    await using hub = await started()
    const ask = async () => {
      const asked = performance.now()
      expect((await hub.ask('echo', 'hello')).text).toBe('hello')
      return performance.now() - asked
    }
    const alone: number[] = []
    while (alone.length < 300) alone.push(await ask())
    const accepted = acceptedBy(hub, 300)
    const slow = await Promise.all(Array.from({ length: 300 }, () => connectRaw(hub.url)))
    // The kernel completes a connection before the hub has seen it, and the hub's clock begins when it has.
    await accepted
    const from = performance.now()
    for (const connection of slow) connection.write('GET /healthz HTTP/1.1\r\nX-Slow: ')
    const latencies: number[] = []
    const closed = new AbortController()
    const gone = Promise.all(slow.map((connection) => connection.closed)).then((answers) => {
      closed.abort()
      return answers
    })
    while (!closed.signal.aborted && performance.now() - from < 10_000) latencies.push(await ask())
    const answers = await gone
    expect(performance.now() - from).toBeLessThan(6500)
    expect(new Set(answers.map(status))).toEqual(new Set([408]))
    expect(latencies.length).toBeGreaterThan(100)
    // The machine that runs this may be so busy that it takes longer even without the slow ones.
    expect(p99(latencies)).toBeLessThan(Math.max(50, 3 * p99(alone)))
  })

  it('cuts a body that does not arrive within 15 s with 408', { timeout: 25_000 }, async () => {
    await using hub = await started()
    using connection = await connectRaw(hub.url)
    const from = performance.now()
    connection.write(post(hub, { 'Content-Length': 100 }, '{"text":'))
    const answer = await connection.closed
    expect(status(answer)).toBe(408)
    expect(answer).toContain('"code":"request_timeout"')
    expect(performance.now() - from).toBeLessThan(16_000)
  })

  it('refuses a body over its limit before it is sent, and one that lied about its length as it comes', async () => {
    await using hub = await started()
    using declared = await connectRaw(hub.url)
    declared.write(post(hub, { 'Content-Length': 2_000_000 }))
    expect(status(await declared.closed)).toBe(413)

    using chunked = await connectRaw(hub.url)
    chunked.write(post(hub, { 'Transfer-Encoding': 'chunked' }))
    const chunk = `10000\r\n${'x'.repeat(65_536)}\r\n`
    for (let sent = 0; sent < 32 && chunked.received() === ''; sent++) {
      chunked.write(chunk)
      await new Promise((resolve) => setImmediate(resolve))
    }
    const answer = await chunked.closed
    expect(status(answer)).toBe(413)
    expect(answer).toContain('"code":"payload_too_large"')
    expect((await hub.ask('echo', 'still here')).text).toBe('still here')
  })

  it('takes a body that comes in pieces', async () => {
    await using hub = await started()
    using connection = await connectRaw(hub.url)
    connection.write(post(hub, { 'Content-Length': 15 }, '{"te'))
    for (const piece of ['xt":', '"slow', '"}']) {
      await new Promise((resolve) => setImmediate(resolve))
      connection.write(piece)
    }
    await expect.poll(() => status(connection.received()), { timeout: 5000 }).toBe(200)
  })
})

describe('odd requests', () => {
  const shorten = (text: string) => (text.length > 40 ? `${text.slice(0, 40)}…` : text)
  const bodies: [string, number, string][] = [
    ['{"text": "x"', 400, 'bad_json'],
    ['', 400, 'bad_json'],
    ['[]', 422, 'invalid_request'],
    ['"x"', 422, 'invalid_request'],
    ['{}', 422, 'invalid_request'],
    ['{"text":5}', 422, 'invalid_request'],
    [`{"text":"x","payload":${'['.repeat(100)}${']'.repeat(100)}}`, 400, 'bad_json'],
    ['['.repeat(500_000), 400, 'bad_json'],
    ['{"text":"x","id":"a\\u0000b"}', 422, 'invalid_request'],
    ['{"text":"x","conversation":"a\\nb"}', 422, 'invalid_request'],
    [`{"text":"x","id":"${'i'.repeat(300)}"}`, 422, 'invalid_request'],
    ['{"text":"x","conversation":"conv_nobody"}', 404, 'unknown_conversation'],
    ['{"text":"x","files":["file_nobody"]}', 404, 'unknown_file'],
  ]
  it.each(bodies.map(([body, code, name]) => [shorten(body), body, code, name] as const))(
    'the body %s is refused with its code, and the hub goes on',
    async (_, body, code, name) => {
      await using hub = await started()
      const response = await fetch(`${hub.url}${path}`, {
        method: 'POST',
        body,
        headers: { 'content-type': 'application/json' },
      })
      expect(response.status).toBe(code)
      const { error } = (await response.json()) as { error: { code: string; message: string } }
      expect(error.code).toBe(name)
      expect(error.message).not.toMatch(/node_modules|\.ts:/)
      expect((await hub.ask('echo', 'still here')).text).toBe('still here')
    },
  )

  it('bytes that are no UTF-8 are refused', async () => {
    await using hub = await started()
    const body = Buffer.concat([Buffer.from('{"text":"'), Buffer.from([0xff, 0xfe]), Buffer.from('"}')])
    const response = await fetch(`${hub.url}${path}`, {
      method: 'POST',
      body,
      headers: { 'content-type': 'application/json' },
    })
    expect(response.status).toBe(400)
  })

  it('__proto__ in a body changes nothing', async () => {
    await using hub = await started()
    const body = '{"text":"x","__proto__":{"bypassConsent":true},"payload":{"__proto__":{"polluted":1}}}'
    const response = await fetch(`${hub.url}${path}`, {
      method: 'POST',
      body,
      headers: { 'content-type': 'application/json' },
    })
    expect(response.status).toBe(200)
    expect(({} as { polluted?: number }).polluted).toBeUndefined()
  })

  it.each([
    ['GET', path, 405],
    ['PATCH', '/api/v1/bots', 405],
    ['GET', '/api/v1/nothing', 404],
    ['GET', '/', 404],
    ['POST', '/healthz', 405],
    ['GET', '/api/v1/turns/..%2f..%2fetc', 404],
    ['GET', '/api/v1/turns/%00', 404],
    ['GET', '/api/v1/turns/%ff', 404],
  ])('%s %s is %i', async (method, target, expected) => {
    await using hub = await started()
    using connection = await connectRaw(hub.url)
    connection.write(`${method} ${target} HTTP/1.1\r\nHost: ${new URL(hub.url).host}\r\nConnection: close\r\n\r\n`)
    const answer = await connection.closed
    expect(status(answer)).toBe(expected)
    expect(answer).toContain('"error":{"code":"')
    if (expected === 405) expect(answer).toMatch(/\r\nallow: [A-Z, ]+\r\n/i)
  })

  it('a form, a text or nothing as content type is 415 where a body is read', async () => {
    await using hub = await started()
    for (const type of ['application/x-www-form-urlencoded', 'text/plain', 'multipart/form-data; boundary=x']) {
      const response = await fetch(`${hub.url}${path}`, {
        method: 'POST',
        body: '{"text":"x"}',
        headers: { 'content-type': type },
      })
      expect([type, response.status]).toEqual([type, 415])
    }
  })

  it('X-Forwarded-* changes neither who asks nor where', async () => {
    await using hub = await startHub({ bots: { who: local(({ principal }) => principal.user ?? 'nobody') } })
    const headers = { 'x-forwarded-host': 'evil.example', 'x-forwarded-for': '1.2.3.4', 'x-forwarded-user': 'eve' }
    const response = await hub.api('/bots/who/messages', { text: 'x' }, headers)
    expect(await response.json()).toMatchObject({ text: 'nobody' })
    expect(response.headers.get('location')).toMatch(/^\/api\/v1\/turns\//)
  })
})

/** Memory in use once everything unused is gone. */
function liveMebibytes(): number {
  setFlagsFromString('--expose-gc')
  ;(runInNewContext('gc') as () => void)()
  const { heapUsed, external } = process.memoryUsage()
  return (heapUsed + external) / 1_048_576
}

describe('clients that do not read', () => {
  it('cost the hub no more than their socket: a long answer is not queued for them', async () => {
    const piece = 'x'.repeat(1000)
    const bot = local(async function* () {
      for (let count = 0; count < 5000; count++) yield piece
    })
    await using hub = await startHub({ bots: { bot, echo: echo() } })
    const before = liveMebibytes()
    const stalled = await Promise.all(
      Array.from({ length: 20 }, async (_, index) => {
        const connection = await connectRaw(hub.url)
        connection.socket.pause()
        const body = JSON.stringify({ text: 'x', conversation: 'c', id: 'same' })
        connection.write(
          `POST /api/v1/bots/bot/messages HTTP/1.1\r\nHost: ${new URL(hub.url).host}\r\nAccept: text/event-stream\r\nContent-Type: application/json\r\nX-Index: ${index}\r\nContent-Length: ${body.length}\r\n\r\n${body}`,
        )
        return connection
      }),
    )
    const { turn } = await hub.ask('bot', 'x', { conversation: 'c', id: 'same' })
    // 20 readers of 5 MB each would be 100 MB; what is held is one write and one page of the log each.
    await expect.poll(() => liveMebibytes() - before, { timeout: 5000 }).toBeLessThan(20)
    for (const connection of stalled) connection.socket.resume()
    await expect
      .poll(() => stalled.filter((connection) => connection.received().includes('turn.completed')).length, {
        timeout: 15_000,
      })
      .toBe(20)
    for (const connection of stalled) connection[Symbol.dispose]()
    expect(turn).toMatch(/^turn_/)
    expect((await hub.ask('echo', 'still here')).text).toBe('still here')
  })
})

describe('a WebSocket peer', () => {
  const open = async (hub: TestHub) => {
    const connection = await connectRaw(hub.url)
    connection.write(
      `GET /api/v1/ws HTTP/1.1\r\nHost: ${new URL(hub.url).host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n`,
    )
    await expect.poll(() => connection.received()).toContain('101 Switching Protocols')
    return connection
  }
  const frame = (opcode: number, payload: Uint8Array, length = payload.length) => {
    const head =
      length < 126
        ? [0x80 | opcode, 0x80 | length]
        : [0x80 | opcode, 0x80 | 127, 0, 0, 0, 0, ...new Uint8Array(new Uint32Array([length]).buffer).toReversed()]
    return Buffer.concat([Buffer.from(head), Buffer.from([0, 0, 0, 0]), payload])
  }
  const closeCode = (received: Buffer) => {
    const close = received.lastIndexOf(0x88)
    return close < 0 ? undefined : received.readUInt16BE(close + 2)
  }

  it.each([
    ['a binary frame', frame(2, Buffer.from('x')), 1003],
    ['bad UTF-8', frame(1, Buffer.from([0xff, 0xff])), 1007],
    ['a frame over 1 MiB', frame(1, Buffer.alloc(0), 2_000_000), 1009],
    ['a reserved opcode', frame(5, Buffer.from('x')), 1002],
  ])('that sends %s is told so and closed', async (_, bytes, code) => {
    await using hub = await startHub({ bots: { echo: echo() } })
    using connection = await open(hub)
    const chunks: Buffer[] = []
    connection.socket.on('data', (chunk: Buffer) => chunks.push(chunk))
    connection.write(bytes)
    await expect.poll(() => closeCode(Buffer.concat(chunks)), { timeout: 5000 }).toBe(code)
    expect((await hub.ask('echo', 'still here')).text).toBe('still here')
  })

  it('that has gone without a word is let go within 60 s', async () => {
    vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] })
    try {
      await using hub = await startHub({ bots: { echo: echo() } })
      using connection = await open(hub)
      const chunks: Buffer[] = []
      connection.socket.on('data', (chunk: Buffer) => chunks.push(chunk))
      vi.advanceTimersByTime(30_000)
      // A ping, which this peer does not answer.
      await expect.poll(() => Buffer.concat(chunks).includes(0x89)).toBe(true)
      vi.advanceTimersByTime(30_000)
      await connection.closed
    } finally {
      vi.useRealTimers()
    }
  })
})
