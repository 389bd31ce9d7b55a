import { existsSync, readFileSync } from 'node:fs'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { asgardEvent, encodeFrame } from '../../plugins/asgard/wire.ts'
import { deploy, startProgram } from '../support/program.ts'
import type { Deployment, Program } from '../support/program.ts'
import { startUpstream } from '../support/upstream.ts'
import { base, frontEnd } from './asgard-relay.front-end.ts'

// What passes through the hub, and what it costs: memory of a hub in a process of its own. By `npm run test:long`.

const bytes = 100_000_000
const chunk = new Uint8Array(65_536).fill(120)
/** How many pass side by side. */
const atOnce = 3
/** A fraction of what passes; buffers wait for the garbage collector, and the allocator keeps some of what it had. */
const maxGrowthMebibytes = 96
/** What the buffers of two connections may hold, and not more; how large they grow is for this machine to say. */
const maxAheadBytes = 2 * (largestBuffer('tcp_rmem') + largestBuffer('tcp_wmem'))

function largestBuffer(setting: 'tcp_rmem' | 'tcp_wmem'): number {
  const file = `/proc/sys/net/ipv4/${setting}`
  return existsSync(file) ? Number(readFileSync(file, 'utf8').trim().split(/\s+/).at(-1)) : 8_000_000
}

/** The upstream reads nothing. */
let stalls = false
/** How many bytes the upstream has had, by the path they came to. */
const received = new Map<string, number>()

async function* many(): AsyncGenerator<Uint8Array> {
  for (let left = bytes; left > 0; left -= chunk.length) yield chunk.subarray(0, Math.min(left, chunk.length))
}

async function edge(request: IncomingMessage, response: ServerResponse): Promise<void> {
  const path = new URL(request.url!, 'http://edge').pathname.replace('/ns/ns/bot-provider/bot', '')
  if (stalls) return
  let count = 0
  for await (const part of request as AsyncIterable<Buffer>) count += part.length
  received.set(path, count)
  if (path === '/message/sse') {
    const ids = { requestId: 'r', namespace: 'ns', botProviderName: 'bot', customChannelId: 'c', eventId: '1' }
    response.setHeader('content-type', 'text/event-stream')
    const box = { sandboxName: 'box', blueprintName: 'python' }
    const events = [asgardEvent('asgard.sandbox.launch', box, ids), asgardEvent('asgard.run.done', {}, ids)]
    return void response.end(events.map((event) => encodeFrame(event)).join(''))
  }
  if (request.method === 'GET') {
    for await (const part of many()) {
      if (!response.write(part)) await new Promise((resolve) => response.once('drain', resolve))
    }
    return void response.end()
  }
  response.setHeader('content-type', 'application/json')
  response.end(JSON.stringify({ isSuccess: true, data: [{ blobId: 'b' }], error: null, errorCode: null }))
}

const part = (disposition: string, type = '') =>
  new TextEncoder().encode(`\r\n--b\r\nContent-Disposition: form-data; ${disposition}\r\n${type}\r\n`)

async function* form(order: readonly ('file' | 'customChannelId')[]): AsyncGenerator<Uint8Array> {
  for (const field of order) {
    if (field === 'customChannelId') {
      yield part('name="customChannelId"')
      yield new TextEncoder().encode('c')
    } else {
      yield part('name="file"; filename="big.bin"', 'Content-Type: application/octet-stream\r\n')
      yield* many()
    }
  }
  yield new TextEncoder().encode('\r\n--b--\r\n')
}

describe('100 MB', () => {
  let upstream: Awaited<ReturnType<typeof startUpstream>>
  let deployment: Deployment
  let hub: Program
  beforeAll(async () => {
    upstream = await startUpstream(edge)
    deployment = deploy(`
      import { asgard, asgardRelay, defineConfig } from 'bothub'
      export default defineConfig({
        bots: { edge: asgard({ edgeServerHost: '${upstream.url}', namespace: 'ns', botProviderName: 'bot', apiKey: 'key' }) },
        channels: { relay: asgardRelay() },
      })
    `)
    hub = await startProgram(deployment)
    await frontEnd(hub.url, 'edge').say('c', 'hello')
  })
  afterAll(async () => {
    await hub[Symbol.asyncDispose]()
    deployment[Symbol.dispose]()
    await upstream[Symbol.asyncDispose]()
  })

  const residentMebibytes = async () => {
    const text = await (await fetch(`${hub.url}/metrics`)).text()
    return Number(/^process_resident_memory_bytes (\S+)$/m.exec(text)![1]) / 1_048_576
  }

  /** How much more memory the hub has at most while something happens. */
  async function growthWhile(work: () => Promise<unknown>): Promise<number> {
    const before = await residentMebibytes()
    let most = before
    const over = new AbortController()
    const working = work().finally(() => over.abort())
    // Each look takes the hub's time to answer, which is as often as anything can be seen.
    while (!over.signal.aborted) most = Math.max(most, await residentMebibytes())
    await working
    return most - before
  }

  const send = (method: string, path: string, body: AsyncIterable<Uint8Array>, signal?: AbortSignal) =>
    fetch(`${base(hub.url, 'edge')}${path}`, {
      method,
      headers: { 'content-type': 'multipart/form-data; boundary=b' },
      body: ReadableStream.from(body),
      duplex: 'half',
      signal,
    } as RequestInit)

  const cases = [
    ['a file whose channel is named before it', 'POST', '/blob', ['customChannelId', 'file']],
    ["a file whose channel is named behind it, as the SDK's form does", 'POST', '/blob', ['file', 'customChannelId']],
    ['a file for a sandbox', 'PUT', '/sandbox/box/fs/file?path=big', ['file']],
  ] as const

  async function upload([, method, path, order]: (typeof cases)[number]): Promise<void> {
    const answer = await send(method, path, form(order))
    expect([answer.status, await answer.text()]).toEqual([200, expect.stringContaining('"isSuccess":true')])
    expect(received.get(path.replace(/\?.*/, ''))).toBeGreaterThan(bytes)
  }

  it('pass through as files, before the channel, behind it and to a sandbox, with flat memory', async () => {
    const uploads = (each: (typeof cases)[number]) => Promise.all(Array.from({ length: atOnce }, () => upload(each)))
    // What the first of each kind takes, the later ones use again.
    for (const each of cases) await uploads(each)
    for (const each of cases) {
      received.clear()
      // Less than two files, of three that pass at the same time.
      expect(await growthWhile(() => uploads(each)), each[0]).toBeLessThan(2 * maxGrowthMebibytes)
    }
  })

  it.each([cases[0], cases[2]])('wait at the client while the upstream takes nothing of %s', async (...each) => {
    const [, method, path, order] = each
    let ahead = 0
    async function* counted() {
      for await (const piece of form(order)) {
        ahead += piece.length
        yield piece
      }
    }
    stalls = true
    const leave = new AbortController()
    const sent = send(method, path, counted(), leave.signal).catch((error: unknown) => error)
    // Nothing more is taken for a second: everything on the way is full.
    for (let before = -1; before !== ahead;) {
      before = ahead
      await new Promise((resolve) => setTimeout(resolve, 1000))
    }
    stalls = false
    leave.abort()
    await sent
    expect(ahead).toBeGreaterThan(0)
    expect(ahead).toBeLessThan(maxAheadBytes)
  })

  it('pass back from a sandbox to a slow reader, with flat memory', async () => {
    let read = 0
    const growth = await growthWhile(async () => {
      const answer = await fetch(`${base(hub.url, 'edge')}/sandbox/box/fs/file?path=big`)
      for await (const piece of answer.body!) {
        read += piece.length
        // So that the upstream could be far ahead of it.
        await new Promise((resolve) => setImmediate(resolve))
      }
    })
    expect(read).toBe(bytes)
    expect(growth).toBeLessThan(maxGrowthMebibytes)
  })
})
