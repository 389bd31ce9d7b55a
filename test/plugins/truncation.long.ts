import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import * as fc from 'fast-check'
import { describe, expect, it, vi } from 'vitest'
import { systemClock } from '../../core/clock.ts'
import { HubError } from '../../core/errors.ts'
import type { HubEvent } from '../../core/events.ts'
import type { Provider, ProviderSpec } from '../../core/plugin.ts'
import { asgard } from '../../plugins/asgard/index.ts'
import { coze } from '../../plugins/coze/index.ts'
import { openai } from '../../plugins/openai/index.ts'
import { startUpstream } from '../support/upstream.ts'
import { buildProvider, collect, pluginContext, turnOf } from '../fakes/turn.ts'

// Thousands of answers each, on a machine that may be busy.
vi.setConfig({ testTimeout: 60_000 })

const fixtures = fileURLToPath(new URL('../fixtures/', import.meta.url))

/** Where a stream stops, and how the other side then behaves. */
type End = 'closes' | 'breaks'

/** A vendor whose documented streams are cut: where its bot is asked, and what is answered before and after that. */
interface Vendor {
  readonly bot: (url: string) => ProviderSpec
  /** Whether a request is the one that a stream answers. */
  readonly streams: (method: string, path: string, headers: Headers) => boolean
  /** Answers everything else as an upstream that knows nothing: what was cut cannot be found again. */
  readonly otherwise: () => { readonly status: number; readonly body: unknown }
  /** Whether the bytes hold a frame, with its blank line, behind which the answer is whole. */
  readonly isWhole: (bytes: string) => boolean
}

const vendors: Readonly<Record<'asgard' | 'coze' | 'openai', Vendor>> = {
  asgard: {
    bot: (url) => asgard({ edgeServerHost: url, namespace: 'n', botProviderName: 'b', apiKey: 'secret' }),
    streams: (method, path, headers) =>
      method === 'POST' && path.endsWith('/message/sse') && !headers.has('last-event-id'),
    otherwise: () => ({ status: 404, body: { isSuccess: false, data: null, error: 'gone', errorCode: 'NOT_FOUND' } }),
    isWhole: (bytes) => /"eventType"\s*:\s*"asgard\.run\.done"[^]*?\r?\n\r?\n/.test(bytes),
  },
  coze: {
    bot: (url) => coze({ botId: '1', token: 'secret', baseUrl: url }),
    streams: (_method, path) => path === '/v3/chat',
    otherwise: () => ({ status: 200, body: { code: 4001, msg: 'gone' } }),
    isWhole: (bytes) =>
      /event: ?conversation\.(chat\.(completed|requires_action)|stream\.done)[^]*?\r?\n\r?\n/.test(bytes) ||
      /"status"\s*:\s*"(completed|requires_action)"[^]*?\r?\n\r?\n/.test(bytes),
  },
  openai: {
    bot: (url) => openai({ model: 'm', apiKey: 'secret', baseUrl: url }),
    streams: () => true,
    otherwise: () => ({ status: 404, body: {} }),
    isWhole: (bytes) => /("finish_reason":"(stop|tool_calls)"[^\n]*|\[DONE\])(\n\n|\r\n\r)/.test(bytes),
  },
}

const streamsOf = (vendor: string): string[] =>
  readdirSync(join(fixtures, vendor)).filter((name) => name.endsWith('.sse'))
const bytesOf = (vendor: string, name: string): Uint8Array =>
  Uint8Array.from(readFileSync(join(fixtures, vendor, name)))

/** A conversation that Coze knows already, so that none has to be made for every try. */
const thread = { conversationId: '7' }

/** Waits for nothing: what a provider waits for between its looks is not what is tested here. */
const clock = { ...systemClock, sleep: async () => {} }

/**
 * A provider whose `fetch` is a function of this process. Thousands of sockets would take minutes, and what a socket
 * does to a stream is done to the stream here: it closes, or its reader gets an error. The sockets are below.
 */
const overFetch = (vendor: Vendor, answer: () => ReadableStream<Uint8Array>): Promise<Provider> =>
  buildProvider(
    vendor.bot('http://upstream.invalid'),
    pluginContext({
      clock,
      async fetch(input, init) {
        const { pathname } = new URL(input instanceof Request ? input.url : input.toString())
        if (vendor.streams(init?.method ?? 'GET', pathname, new Headers(init?.headers)))
          return new Response(answer(), { headers: { 'content-type': 'text/event-stream' } })
        const { status, body } = vendor.otherwise()
        return Response.json(body, { status })
      },
    }),
  )

/** The pieces, one at a time, and then the end. */
function streamOf(pieces: readonly Uint8Array[], end: End): ReadableStream<Uint8Array> {
  let next = 0
  return new ReadableStream({
    pull(controller) {
      const piece = pieces[next++]
      if (piece) controller.enqueue(piece)
      else if (end === 'closes') controller.close()
      else controller.error(new TypeError('terminated'))
    },
  })
}

interface Outcome {
  readonly events: HubEvent[]
  readonly error?: unknown
}

/** The fewest bytes that hold a whole answer; one more than all of them when there is none. */
function wholeFrom(bytes: Uint8Array, { isWhole }: Vendor): number {
  let whole = bytes.length + 1
  while (whole > 0 && isWhole(new TextDecoder().decode(bytes.subarray(0, whole - 1)))) whole -= 1
  return whole
}

const shown = ({ events }: Outcome): HubEvent[] => events.filter(({ type }) => type !== 'upstream')
const isAnswer = ({ type }: HubEvent): boolean => type === 'message.delta' || type === 'message.completed'

describe.each(Object.entries(vendors))('%s', (name, vendor) => {
  const streams = streamsOf(name)

  it('has documented streams that come to their end', async () => {
    expect(streams.length).toBeGreaterThan(5)
    const whole = await Promise.all(
      streams.map(async (stream) => {
        const bot = await overFetch(vendor, () => streamOf([bytesOf(name, stream)], 'closes'))
        return (await collect(bot.respond(turnOf('hello', { thread })))).error === undefined
      }),
    )
    // Else nothing below could tell an answer that was cut from one that was not.
    expect(whole.filter(Boolean).length).toBeGreaterThan(3)
  })

  describe.each(['closes', 'breaks'] as const)('whose stream %s at any byte', (end) => {
    it.each(streams)('never takes %s for complete before its last frame has come', async (stream) => {
      const bytes = bytesOf(name, stream)
      const whole = wholeFrom(bytes, vendor)
      let length = 0
      const bot = await overFetch(vendor, () => streamOf([bytes.subarray(0, length)], end))
      const completed: number[] = []
      for (; length < whole; length += 1) {
        const { error } = await collect(bot.respond(turnOf('hello', { thread })))
        if (!(error instanceof HubError)) completed.push(length)
      }
      expect(length).toBeGreaterThan(0)
      expect(completed).toEqual([])
    })
  })

  it.each(streams)('says the same of %s in whatever slices it comes', async (stream) => {
    const bytes = bytesOf(name, stream)
    let pieces: readonly Uint8Array[] = [bytes]
    const bot = await overFetch(vendor, () => streamOf(pieces, 'closes'))
    const turn = turnOf('hello', { thread })
    const whole = await collect(bot.respond(turn))
    await fc.assert(
      fc.asyncProperty(fc.array(fc.integer({ min: 1, max: bytes.length - 1 }), { maxLength: 40 }), async (cuts) => {
        const places = [0, ...new Set(cuts.toSorted((one, other) => one - other)), bytes.length]
        pieces = places.slice(1).map((place, index) => bytes.subarray(places[index], place))
        const sliced = await collect(bot.respond(turn))
        expect(shown(sliced)).toEqual(shown(whole))
        expect(Boolean(sliced.error)).toBe(Boolean(whole.error))
      }),
      { numRuns: 40 },
    )
  })

  it('takes a cut on a real socket for what it is, whether it was closed or reset', async () => {
    const bytes = streams
      .map((stream) => bytesOf(name, stream))
      .reduce((one, other) => (other.length > one.length ? other : one))
    let length = 0
    let end: End = 'closes'
    await using upstream = await startUpstream(async (request, response) => {
      for await (const _ of request);
      const { pathname } = new URL(request.url ?? '/', 'http://upstream')
      if (!vendor.streams(request.method ?? '', pathname, new Headers(request.headers as Record<string, string>))) {
        const { status, body } = vendor.otherwise()
        return response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body))
      }
      response.writeHead(200, { 'content-type': 'text/event-stream' })
      response.flushHeaders()
      if (end === 'closes') return response.end(bytes.subarray(0, length))
      return response.write(bytes.subarray(0, length), () => response.destroy())
    })
    const bot = await buildProvider(vendor.bot(upstream.url), pluginContext({ clock }))
    let answered = 0
    for (end of ['closes', 'breaks'] as const) {
      for (length = 0; length < bytes.length; length += 97) {
        const outcome = await collect(bot.respond(turnOf('hello', { thread })))
        if (outcome.events.some(isAnswer)) answered += 1
        if (length >= wholeFrom(bytes, vendor)) continue
        expect([end, length, outcome.error]).toEqual([end, length, expect.any(HubError)])
      }
    }
    // Some of what came before the cut was shown, else it was the connection that failed and not the stream.
    expect(answered).toBeGreaterThan(0)
  })
})
