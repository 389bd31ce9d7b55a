import { once } from 'node:events'
import type { IncomingHttpHeaders } from 'node:http'
import { brotliCompressSync, deflateSync, gzipSync } from 'node:zlib'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { SourceEvent } from '../../core/sse.ts'
import { encodeEvent, parseEvents, requestEvents, retryAfterMs } from '../../core/sse.ts'
import { startUpstream } from '../support/upstream.ts'

async function* slices(bytes: Uint8Array, cuts: readonly number[]): AsyncGenerator<Uint8Array> {
  let from = 0
  for (const cut of [...cuts.toSorted((a, b) => a - b), bytes.length]) {
    yield bytes.subarray(from, cut)
    from = Math.max(from, cut)
  }
}
const parse = (text: string, cuts: readonly number[] = []) =>
  Array.fromAsync(parseEvents(slices(new TextEncoder().encode(text), cuts)))

describe('reading events', () => {
  const stream = '﻿id: 1\r\nevent: a\r\ndata: {"text":"你好 🌍"}\r\n\r\n: hm\n\ndata: two\ndata: lines\n\ndata:tight\n\n'

  it('gives the same events however the bytes are cut, also inside a character', async () => {
    const whole = await parse(stream)
    expect(whole).toEqual([
      { id: '1', event: 'a', data: '{"text":"你好 🌍"}' },
      { data: 'two\nlines' },
      { data: 'tight' },
    ])
    const length = new TextEncoder().encode(stream).length
    await fc.assert(
      fc.asyncProperty(fc.array(fc.nat(length), { maxLength: 40 }), async (cuts) => {
        expect(await parse(stream, cuts)).toEqual(whole)
      }),
    )
  })

  it('drops an event that was cut before its blank line', async () => {
    expect(await parse('data: whole\n\ndata: {"half":')).toEqual([{ data: 'whole' }])
    expect(await parse('data: whole\n\ndata: all but the blank line\n')).toEqual([{ data: 'whole' }])
  })

  it('hands over a body that held no event at all', async () => {
    const bodies: string[] = []
    const chunks = slices(new TextEncoder().encode('{"code":4101,"msg":"no"}'), [5])
    const events = await Array.fromAsync(parseEvents(chunks, { onNoEvents: (body) => bodies.push(body) }))
    expect(events).toEqual([])
    expect(bodies).toEqual(['{"code":4101,"msg":"no"}'])
  })

  it('refuses an event over the limit', async () => {
    const chunks = slices(new TextEncoder().encode(`data: ${'x'.repeat(5000)}`), [10, 2000])
    await expect(Array.fromAsync(parseEvents(chunks, { maxEventLength: 1000 }))).rejects.toMatchObject({
      code: 'answer_too_large',
    })
  })
})

describe('writing events', () => {
  it('cannot be made to forge an event by any text', async () => {
    await fc.assert(
      fc.asyncProperty(fc.string({ unit: 'binary' }), async (text) => {
        const frame = encodeEvent({ id: 't/1', event: 'message.delta', data: JSON.stringify({ text }) })
        const events: SourceEvent[] = await parse(frame)
        expect(events).toHaveLength(1)
        expect(events[0]).toMatchObject({ id: 't/1', event: 'message.delta' })
        expect(JSON.parse(events[0]!.data)).toEqual({ text: text.toWellFormed() === text ? text : expect.any(String) })
      }),
    )
    const frame = encodeEvent({ id: 't/1', event: 'a', data: JSON.stringify('\n\ndata: forged\r\rdata: x\u2028') })
    expect(frame.split('\n')).toHaveLength(5)
  })
})

const somebodysFetch: typeof fetch = (input, init) => fetch(input, init)

describe.each([
  ["Node's http", fetch],
  ["somebody's fetch", somebodysFetch],
])('asking an upstream through %s', (_name, send) => {
  const request = (url: string, more: { signal?: AbortSignal; idleTimeoutMs?: number } = {}) =>
    requestEvents({ fetch: send, url, body: {}, signal: new AbortController().signal, idleTimeoutMs: 5000, ...more })

  it('says that nothing was sent when nobody listens', async () => {
    const upstream = await startUpstream(() => {})
    await upstream[Symbol.asyncDispose]()
    await expect(request(upstream.url)).rejects.toMatchObject({ code: 'upstream_unreachable', notStarted: true })
  })

  it('says that the outcome is unknown when the socket dies before the head', async () => {
    await using upstream = await startUpstream((incoming) => incoming.socket.destroy())
    await expect(request(upstream.url)).rejects.toMatchObject({ code: 'upstream_cut', notStarted: false })
  })

  it('tells a cut body from one that ended', async () => {
    await using upstream = await startUpstream((_, response) => {
      response.writeHead(200, { 'content-type': 'text/event-stream; charset=utf-8' })
      response.write('data: one\n\n', () => response.destroy())
    })
    const answer = await request(upstream.url)
    expect(answer.mediaType).toBe('text/event-stream')
    const seen: unknown[] = []
    const reading = (async () => {
      for await (const event of answer.events()) seen.push(event)
    })()
    await expect(reading).rejects.toMatchObject({ code: 'upstream_cut' })
    expect(seen).toEqual([{ data: 'one' }])
  })

  it('gives up on silence before the head, between events and under endless comments', async () => {
    await using silent = await startUpstream(() => {})
    await expect(request(silent.url, { idleTimeoutMs: 50 })).rejects.toMatchObject({ code: 'upstream_silent' })

    await using chatty = await startUpstream((_, response) => {
      response.writeHead(200, { 'content-type': 'text/event-stream' })
      response.write('data: one\n\n')
      const comments = setInterval(() => response.write(': alive\n'), 10)
      response.on('close', () => clearInterval(comments))
    })
    const answer = await request(chatty.url, { idleTimeoutMs: 400 })
    await expect(Array.fromAsync(answer.events())).rejects.toMatchObject({ code: 'upstream_silent' })
  })

  it('takes an upstream that speaks slowly, and for longer than it may be silent, for no silent one', async () => {
    await using slow = await startUpstream((_, response) => {
      response.writeHead(200, { 'content-type': 'text/event-stream' })
      let said = 0
      const words = setInterval(() => {
        response.write(`data: ${++said}\n\n`)
        if (said === 12) response.end(() => clearInterval(words))
      }, 80)
    })
    const answer = await request(slow.url, { idleTimeoutMs: 600 })
    expect(await Array.fromAsync(answer.events())).toHaveLength(12)
  })

  it('leaves when the signal aborts, and the upstream sees it', async () => {
    const left = Promise.withResolvers<void>()
    await using upstream = await startUpstream(async (_, response) => {
      response.writeHead(200, { 'content-type': 'text/event-stream' })
      response.write('data: one\n\n')
      await once(response, 'close')
      left.resolve()
    })
    const abort = new AbortController()
    const answer = await request(upstream.url, { signal: abort.signal })
    const reason = new Error('the user left')
    const reading = (async () => {
      for await (const _ of answer.events()) abort.abort(reason)
    })()
    await expect(reading).rejects.toBe(reason)
    await left.promise
  })

  it('closes the connection when its reader stops early', async () => {
    const left = Promise.withResolvers<void>()
    await using upstream = await startUpstream(async (_, response) => {
      response.writeHead(200, { 'content-type': 'text/event-stream' })
      response.write('data: one\n\ndata: two\n\n')
      await once(response, 'close')
      left.resolve()
    })
    for await (const event of (await request(upstream.url)).events()) {
      expect(event.data).toBe('one')
      break
    }
    await left.promise
  })

  it.each([
    ['gzip', gzipSync],
    ['deflate', deflateSync],
    ['br', brotliCompressSync],
  ])('understands one that compresses with %s, asked or not', async (encoding, compress) => {
    await using upstream = await startUpstream((_request, response) => {
      response.writeHead(200, { 'content-type': 'text/event-stream', 'content-encoding': encoding })
      response.end(compress('data: one\n\ndata: two\n\n'))
    })
    const answer = await request(upstream.url)
    expect(await Array.fromAsync(answer.events())).toEqual([{ data: 'one' }, { data: 'two' }])
  })

  it('holds up an upstream that is faster than its reader, and loses nothing of it', async () => {
    const events = 3000
    const text = 'x'.repeat(5000)
    let heldUp = false
    await using upstream = await startUpstream(async (_request, response) => {
      response.writeHead(200, { 'content-type': 'text/event-stream' })
      for (let count = 0; count < events; count++) {
        if (response.write(`id: ${count}\ndata: ${text}\n\n`)) continue
        heldUp = true
        await once(response, 'drain')
      }
      response.end()
    })
    const answer = await request(upstream.url)
    let next = 0
    for await (const { id } of answer.events()) {
      if (next === 0) await expect.poll(() => heldUp).toBe(true)
      expect(id).toBe(String(next++))
    }
    expect(next).toBe(events)
  })

  it('sends its message whole, with its headers', async () => {
    const seen = Promise.withResolvers<{ readonly body: string; readonly headers: IncomingHttpHeaders }>()
    await using upstream = await startUpstream(async (incoming, response) => {
      seen.resolve({ body: Buffer.concat(await Array.fromAsync(incoming)).toString(), headers: incoming.headers })
      response.end()
    })
    await requestEvents({
      fetch: send,
      url: upstream.url,
      headers: { authorization: 'Bearer key' },
      body: { text: '你好 🌍' },
      signal: new AbortController().signal,
      idleTimeoutMs: 5000,
    })
    expect(await seen.promise).toMatchObject({
      body: '{"text":"你好 🌍"}',
      headers: { authorization: 'Bearer key', 'content-type': 'application/json' },
    })
  })

  it('reads at most 64 KiB of an error page', async () => {
    await using upstream = await startUpstream((_, response) => {
      response.writeHead(500, { 'content-type': 'text/html' })
      response.end('x'.repeat(1_000_000))
    })
    const answer = await request(upstream.url)
    expect(answer.status).toBe(500)
    expect(await answer.text()).toHaveLength(65_536)
  })
})

it('uses the connection of an answer that came to its end again', async () => {
  const ports = new Set<number | undefined>()
  await using upstream = await startUpstream((incoming, response) => {
    ports.add(incoming.socket.remotePort)
    response.writeHead(200, { 'content-type': 'text/event-stream' }).end('data: one\n\n')
  })
  const { signal } = new AbortController()
  for (let count = 0; count < 3; count++) {
    const answer = await requestEvents({ fetch, url: upstream.url, signal, idleTimeoutMs: 5000 })
    expect(await Array.fromAsync(answer.events())).toEqual([{ data: 'one' }])
  }
  expect(ports.size).toBe(1)
})

describe('Retry-After', () => {
  it.each([
    ['2', 2000],
    ['0.5', 500],
    ['Sat, 21 Nov 2026 08:00:05 GMT', 5000],
    ['Sat, 21 Nov 2026 07:00:00 GMT', 0],
    ['soon', undefined],
    ['', undefined],
    [null, undefined],
  ])('%j asks to wait %j ms', (header, ms) => {
    expect(retryAfterMs(header, Date.parse('2026-11-21T08:00:00Z'))).toBe(ms)
  })
})
