import type { IncomingMessage, ServerResponse } from 'node:http'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { asgard, asgardRelay, echo, local } from '../../index.ts'
import {
  decodePlace,
  encodePlace,
  readMessageId,
  relayMessageId,
  RunEncoder,
} from '../../channels/asgard-relay/encode.ts'
import type { LoggedEvent, NumberedEvent } from '../../core/events.ts'
import { newId } from '../../core/ids.ts'
import { asgardEvent, asgardMessage, decode, encodeFrame } from '../../plugins/asgard/wire.ts'
import type { AsgardEvent } from '../../plugins/asgard/wire.ts'
import { rowsUnder, sampleEvents } from '../support/dialects.ts'
import { startHub } from '../support/hub.ts'
import type { TestHub } from '../support/hub.ts'
import { startUpstream } from '../support/upstream.ts'

const turn = newId('turn')
const run = { turn, message: 'm', namespace: 'ns', botProviderName: 'bot', customChannelId: 'c' }

/** One of every event there is, the raw one as it comes from Asgard. */
const samples: typeof sampleEvents = {
  ...sampleEvents,
  'turn.started': { ...sampleEvents['turn.started'], turn },
  raw: { type: 'raw', source: 'asgard', name: 'asgard.process.start', data: { processStart: { processId: 'p' } } },
}

/** What has to have happened before an event means anything. */
const before: Partial<Record<LoggedEvent['type'], readonly LoggedEvent['type'][]>> = {
  'message.delta': ['message.started'],
  'message.completed': ['message.started', 'message.delta'],
  'tool.completed': ['tool.started'],
  'agent.completed': ['agent.started'],
  'consent.answered': ['consent.requested', 'turn.waiting'],
}

/** The frames of a sample, with what comes before it left out. */
function framesOf(type: LoggedEvent['type']) {
  const encoder = new RunEncoder(run)
  const events = [...(before[type] ?? []), type].map((each, index): NumberedEvent => ({
    seq: index + 1,
    ...samples[each],
  }))
  return events.map((event) => encoder.encode(event)).at(-1)!
}

const typesOf = (frames: readonly { readonly event: AsgardEvent }[]) => frames.map(({ event }) => event.eventType)
/** The only fact that is there. */
const factOf = ({ fact }: AsgardEvent) => Object.fromEntries(Object.entries(fact).filter(([, value]) => value !== null))

const eventTypes = Object.keys(samples) as LoggedEvent['type'][]

describe('docs/dialects.md', () => {
  const rows = new Map(rowsUnder('asgardRelay: events').map(([type = '', frames = '']) => [type, frames]))

  it('has a row for every event and for nothing else', () => {
    expect([...rows.keys()].toSorted()).toEqual(eventTypes.toSorted())
  })

  it.each(eventTypes)('says of %s which frames it becomes', (type) => {
    const said = rows.get(type) === 'absent' ? [] : rows.get(type)!.split(', ')
    expect(typesOf(framesOf(type))).toEqual(said.map((name) => `asgard.${name}`))
  })

  const routes = rowsUnder('asgardRelay: routes').map(
    ([request = '', any = '', ofAsgard = '']) => [request, any, ofAsgard] as const,
  )
  let upstream: Awaited<ReturnType<typeof startUpstream>>
  let shared: TestHub
  beforeAll(async () => {
    upstream = await startUpstream(answerAsAsgard)
    const target = { edgeServerHost: upstream.url, namespace: 'ns', botProviderName: 'bot', apiKey: 'key' }
    shared = await startHub({ bots: { echo: echo(), edge: asgard(target) }, channels: { relay: asgardRelay() } })
  })
  afterAll(async () => {
    await shared[Symbol.asyncDispose]()
    await upstream[Symbol.asyncDispose]()
  })

  it.each(routes)('says that %s is %s of any bot and %s of one of Asgard', async (request, any, ofAsgard) => {
    expect(await outcomeOf(shared, 'echo', request)).toBe(any)
    expect(await outcomeOf(shared, 'edge', request)).toBe(ofAsgard)
  })

  it('has a row for every route that is mounted', async () => {
    await using hub = await startHub({ bots: { main: local(() => 'x') }, channels: { relay: asgardRelay() } })
    const { paths } = (await (await fetch(`${hub.url}/openapi.json`)).json()) as { paths: Record<string, object> }
    const prefix = '/ns/{namespace}/bot-provider/{bot}'
    const mounted = (form: string) =>
      Object.entries(paths)
        .filter(([path]) => path.startsWith(form))
        .flatMap(([path, methods]) =>
          Object.keys(methods).map((method) => `${method.toUpperCase()} ${path.slice(form.length)}`),
        )
        .toSorted()
    expect(mounted(prefix)).toEqual(routes.map(([request]) => request).toSorted())
    expect(mounted(`/generic${prefix}`)).toEqual(mounted(prefix))
  })
})

/** Asks in a channel of its own where something was said before; gives the status, and the code where there is one. */
async function outcomeOf(hub: TestHub, bot: string, request: string): Promise<string> {
  const [method = '', path = ''] = request.split(' ')
  const base = `${hub.url}/ns/any/bot-provider/${bot}`
  const customChannelId = `for ${request}`
  const json = (body: object) => ({
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ customChannelId, ...body }),
  })
  const said = await fetch(`${base}/message/sse`, { method: 'POST', ...json({ text: 'hello', action: 'NONE' }) })
  const messageId = /"messageId":"(?<id>[^"]+)"/.exec(await said.text())!.groups!['id']
  const form = new FormData()
  form.set('customChannelId', customChannelId)
  form.set('file', new File(['x'], 'x.txt'))
  const bodies: Readonly<Record<string, RequestInit>> = {
    'POST /blob': { body: form },
    'POST /form': { body: form },
    'PUT /sandbox/{sandbox}/fs/file': { body: form },
    'POST /json': json({}),
  }
  const isMessage = path.startsWith('/message') && method === 'POST' && path !== '/message/suspend'
  const content = isMessage ? json({ text: 'again', action: 'NONE', messageId, verdict: 'GOOD' }) : bodies[request]
  const query = new URLSearchParams({ custom_channel_id: customChannelId })
  const answer = await fetch(`${base}${path.replace('{sandbox}', 'sandbox-1')}?${query.toString()}`, {
    method,
    ...content,
  })
  const text = await answer.text()
  const code = text.startsWith('{') ? (JSON.parse(text) as { errorCode: string | null }).errorCode : null
  return code ? `${answer.status} ${code}` : String(answer.status)
}

/** An Edge Server that starts a sandbox with every message, and has every other call there is. */
async function answerAsAsgard(request: IncomingMessage, response: ServerResponse): Promise<void> {
  const { path } = new URL(request.url!, 'http://edge').pathname.match(/^\/ns\/ns\/bot-provider\/bot(?<path>\/.+)$/)!
    .groups as { readonly path: string }
  for await (const _ of request);
  if (path !== '/message/sse') {
    const data = path === '/blob' ? [{ blobId: 'blob-1' }] : {}
    response.setHeader('content-type', 'application/json')
    return void response.end(JSON.stringify({ isSuccess: true, data, error: null, errorCode: null }))
  }
  const ids = { requestId: 'r', namespace: 'ns', botProviderName: 'bot', customChannelId: 'c', eventId: '1' }
  const message = asgardMessage({ messageId: 'm', text: 'Hi' })
  response.setHeader('content-type', 'text/event-stream')
  response.end(
    [
      asgardEvent('asgard.run.init', {}, ids),
      asgardEvent('asgard.sandbox.launch', { sandboxName: 'sandbox-1', blueprintName: 'python' }, ids),
      asgardEvent('asgard.message.complete', { message }, ids),
      asgardEvent('asgard.run.done', {}, ids),
    ]
      .map((event) => encodeFrame(event))
      .join(''),
  )
}

describe('a frame', () => {
  it.each(eventTypes)('of %s has one fact, its ids, and the event number on the last frame only', (type) => {
    const frames = framesOf(type)
    for (const { event } of frames) {
      expect(Object.keys(factOf(event))).toHaveLength(1)
      expect(event).toMatchObject({ requestId: turn, namespace: 'ns', botProviderName: 'bot', customChannelId: 'c' })
    }
    const seq = (before[type]?.length ?? 0) + 1
    const ids = frames.map(({ id }) => id && decodePlace(id))
    expect(ids).toEqual(frames.map((_, index) => (index === frames.length - 1 ? { turn, seq } : undefined)))
    expect(new Set(frames.map(({ event }) => event.eventId)).size).toBe(frames.length)
  })

  const kept: readonly LoggedEvent['type'][] = [
    'message.delta',
    'message.completed',
    'reasoning.delta',
    'reasoning.completed',
    'canvas.delta',
    'tool.completed',
    'agent.started',
    'agent.completed',
    'sandbox.started',
    'sandbox.ready',
    'consent.requested',
    'suggestion',
    'usage',
  ]
  const ids = { message: expect.stringContaining('.') as string, call: expect.stringMatching(/^turn_.*-0$/) as string }

  it.each(kept)('of %s says to the Asgard provider what the event says', (type) => {
    const { type: _, ...fields } = samples[type]
    const [last] = framesOf(type).slice(-1)
    const [event] = decode(last!.event).events
    const renamed = {
      ...('message' in fields ? { message: ids.message } : {}),
      ...('call' in fields ? { call: ids.call } : {}),
    }
    expect(event).toEqual({ type, ...fields, ...renamed })
  })

  it.each<[LoggedEvent, string, object]>([
    [{ ...samples['turn.cancelled'], by: 'deleted' }, 'asgard.run.done', { runDone: {} }],
    [
      { ...samples['turn.cancelled'], by: 'shutdown' },
      'asgard.run.error',
      { runError: { error: { code: 'cancelled' } } },
    ],
    [
      { ...samples['turn.waiting'], for: 'tool_outputs' },
      'asgard.run.error',
      { runError: { error: { code: 'turn_waiting' } } },
    ],
    [samples['turn.failed'], 'asgard.run.error', { runError: { error: { code: 'upstream_cut', inner: 'E7' } } }],
    [
      { type: 'message.completed', message: 'a', text: 'x', template: { type: 'HINT', text: 'x' } },
      'asgard.message.complete',
      { messageComplete: { message: { template: { type: 'HINT', text: 'x' } } } },
    ],
  ])('tells how %j ends', (event, type, fact) => {
    const [frame] = new RunEncoder(run).encode({ seq: 9, ...event })
    expect(frame!.event.eventType).toBe(type)
    expect(factOf(frame!.event)).toMatchObject(fact)
  })

  it('counts the deltas of each text from 0, and the calls of a turn', () => {
    const encoder = new RunEncoder(run)
    const list = ['message.delta', 'message.delta', 'reasoning.delta', 'message.delta'] as const
    const frames = list.flatMap((type, index) => encoder.encode({ seq: index + 1, ...samples[type] }))
    const places = frames.map(({ event }) => [event.eventType.slice(15), idxOf(event)])
    expect(places).toEqual([
      ['start', null],
      ['delta', 0],
      ['delta', 1],
      ['thinking.start', null],
      ['thinking.delta', 0],
      ['delta', 2],
    ])
    const calls = ['one', 'two'].flatMap((name) => encoder.encode({ seq: 9, ...samples['tool.started'], call: name }))
    expect(calls.map(({ event }) => event.fact['toolCallStart'])).toMatchObject([
      { processId: turn, callSeq: 0 },
      { processId: turn, callSeq: 1 },
    ])
  })

  it('of another upstream than Asgard is left out', () => {
    expect(new RunEncoder(run).encode({ seq: 1, ...samples.raw, source: 'coze' })).toEqual([])
  })
})

const idxOf = ({ fact }: AsgardEvent) =>
  (Object.values(fact).find((value) => value !== null) as { readonly message: { readonly idx: number | null } }).message
    .idx

describe('ids', () => {
  it.each([0, 1, 7, 9_999_999_999])('are decimal numbers that name turn and event %i', (seq) => {
    const id = encodePlace({ turn, seq })
    expect(id).toMatch(/^[1-9]\d+$/)
    expect(decodePlace(id)).toEqual({ turn, seq })
  })

  it('grow with the turns and with the events', () => {
    const later = newId('turn', Date.now() + 1)
    const ids = [
      encodePlace({ turn, seq: 2 }),
      encodePlace({ turn, seq: 10 }),
      encodePlace({ turn: later, seq: 1 }),
    ].map(BigInt)
    expect(ids.toSorted((a, b) => Number(a - b > 0n) - Number(a - b < 0n))).toEqual(ids)
  })

  it.each(['', '0', '12', '-1', 'x', '1e9', '9'.repeat(59), '9'.repeat(80)])('are not found in %j', (id) => {
    expect(decodePlace(id)).toBeUndefined()
  })

  it.each(['a', 'a.b', 'message-1'])('of messages keep the %s of the bot', (message) => {
    expect(readMessageId(relayMessageId(turn, message))).toEqual({ turn, message })
  })

  it.each(['', 'a', turn, `${turn}.`, 'turn_1.a'])('of messages are not found in %j', (id) => {
    expect(readMessageId(id)).toBeUndefined()
  })
})
