import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { ClassicEncoder, isShown } from '../../channels/cloudbase-api/encode.ts'
import type { LoggedEvent, NumberedEvent } from '../../core/events.ts'
import { newId } from '../../core/ids.ts'
import { cloudbaseApi, echo } from '../../index.ts'
import { eventTypes, numbered, rowsUnder, sampleEvents } from '../support/dialects.ts'
import { jsonOf, startHub } from '../support/hub.ts'
import type { TestHub } from '../support/hub.ts'

const turn = { id: newId('turn'), bot: 'bot', createdAt: 7 }

/** What has to have happened before an event means anything. */
const before: Partial<Record<LoggedEvent['type'], readonly LoggedEvent['type'][]>> = {
  'message.completed': ['message.delta'],
  'reasoning.completed': ['reasoning.delta'],
  'tool.completed': ['tool.started'],
}

function framesOf(type: LoggedEvent['type']) {
  const encoder = new ClassicEncoder(turn)
  return numbered([...(before[type] ?? []), type])
    .map((event) => encoder.encode(event))
    .at(-1)!
}

const encodeAll = (events: readonly LoggedEvent[]) => {
  const encoder = new ClassicEncoder(turn)
  return events
    .map((event, index): NumberedEvent => ({ seq: index + 1, ...event }))
    .flatMap((each) => encoder.encode(each))
}

describe('docs/dialects.md', () => {
  const rows = new Map(rowsUnder('cloudbaseApi: events').map(([type = '', frames = '']) => [type, frames]))

  it('has a row for every event and for nothing else', () => {
    expect([...rows.keys()].toSorted()).toEqual(eventTypes.toSorted())
  })

  it.each(eventTypes)('says of %s which frames it becomes', (type) => {
    const said = rows.get(type) === 'absent' ? [] : rows.get(type)!.split(', ')
    expect(framesOf(type).map((frame) => frame.type)).toEqual(said)
    if (!isShown({ seq: 1, ...sampleEvents[type] })) expect(said).toEqual([])
  })

  const routes = rowsUnder('cloudbaseApi: routes').map(([request = '', outcome = '']) => [request, outcome] as const)
  const bodies: Readonly<Record<string, object>> = {
    '/send-message': { msg: 'again' },
    '/recommend-questions': { msg: 'again', history: [] },
    '/feedback': { type: 'upvote' },
    '/conversation': {},
    '/conversation/{conversation}': { title: 'new' },
    '/wx-send-message': {
      triggerSrc: 'WXService',
      callbackData: { fromUserName: 'u', toUserName: 'a', createTime: 1, msgId: 1, msgType: 'text', content: 'hello' },
    },
  }
  let hub: TestHub
  beforeAll(async () => {
    hub = await startHub({ bots: { echo: echo() }, channels: { cloudbase: cloudbaseApi() } })
  })
  afterAll(() => hub[Symbol.asyncDispose]())

  it.each(routes)('says that %s is answered with %s', async (request, outcome) => {
    const base = `${hub.url}/v1/aibot/bots/echo`
    const sent = (method: string, path: string, body: object) =>
      fetch(base + path, { method, headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) })
    await (await sent('POST', '/send-message', { msg: 'hello' })).text()
    const { recordList } = await jsonOf<{ recordList: { recordId: string }[] }>(await fetch(`${base}/records`))
    const made = await jsonOf<{ conversationId: string }>(await sent('POST', '/conversation', {}))
    const [method = '', path = ''] = request.split(' ')
    const where = path.replace('{conversation}', made.conversationId)
    const body = { ...bodies[path], ...(path === '/feedback' ? { recordId: recordList[0]!.recordId } : {}) }
    const answer = method === 'GET' ? await fetch(base + where) : await sent(method, where, body)
    const text = await answer.text()
    const code = text.startsWith('{') ? (JSON.parse(text) as { readonly code?: string }).code : undefined
    expect(code ? `${answer.status} ${code}` : String(answer.status)).toBe(outcome)
  })

  it('has a row for every route that is mounted', async () => {
    const { paths } = await jsonOf<{ paths: Record<string, object> }>(await fetch(`${hub.url}/openapi.json`))
    const prefix = '/v1/aibot/bots/{bot}'
    const mounted = Object.entries(paths)
      .filter(([path]) => path.startsWith(prefix))
      .flatMap(([path, methods]) =>
        Object.keys(methods).map((method) => `${method.toUpperCase()} ${path.slice(prefix.length)}`.trim()),
      )
    expect(mounted.toSorted()).toEqual(routes.map(([request]) => request).toSorted())
  })
})

describe('a frame', () => {
  it.each(eventTypes)('of %s has the fields that clients look for', (type) => {
    for (const frame of framesOf(type)) {
      expect(frame).toMatchObject({
        role: 'assistant',
        record_id: `${turn.id}_bot`,
        created: 7,
        content: expect.any(String) as string,
        finish_reason: expect.stringMatching(/^(continue|stop|error)$/) as string,
      })
    }
  })

  it('of words that come whole, without a delta, has them', () => {
    const frames = encodeAll([sampleEvents['reasoning.completed'], sampleEvents['message.completed']])
    expect(frames).toMatchObject([
      { type: 'thinking', reasoning_content: 'Hm', content: '' },
      { type: 'text', content: 'Hi' },
    ])
  })

  it('of a second message begins it behind a blank line, as the record joins them', () => {
    const frames = encodeAll([
      { type: 'message.delta', message: 'a', text: 'One' },
      { type: 'message.delta', message: 'b', text: 'Two' },
      { type: 'message.delta', message: 'b', text: '.' },
    ])
    expect(frames.map(({ content }) => content).join('')).toBe('One\n\nTwo.')
  })

  it('of a result closes the call of its id, also of one that nobody has announced', () => {
    const frames = encodeAll([
      sampleEvents['consent.requested'],
      sampleEvents['tool.completed'],
      { ...sampleEvents['tool.completed'], call: 'call-2' },
    ])
    expect(frames).toMatchObject([
      {
        type: 'tool-call',
        tool_call: { index: 0, id: 'call-1', function: { name: 'send_mail', arguments: { to: 'ada' } } },
      },
      { type: 'tool-result', toolCallId: 'call-1', toolName: 'send_mail', args: { to: 'ada' }, result: 'sent' },
      { type: 'tool-call', tool_call: { index: 1, id: 'call-2' } },
      { type: 'tool-result', toolCallId: 'call-2' },
    ])
  })

  it.each<[LoggedEvent, object]>([
    [
      { type: 'turn.completed', text: '', usage: { inputTokens: 1, outputTokens: 2, totalTokens: 3 } },
      { finish_reason: 'stop', usage: { promptTokens: 1, completionTokens: 2, totalTokens: 3 } },
    ],
    [
      sampleEvents['turn.failed'],
      { finish_reason: 'error', error: { code: 'upstream_cut', message: 'It broke off.' } },
    ],
    [sampleEvents['turn.interrupted'], { finish_reason: 'error', error: { code: 'upstream_cut' } }],
    [sampleEvents['turn.cancelled'], { finish_reason: 'error', error: { code: 'cancelled' } }],
    [sampleEvents['turn.waiting'], { finish_reason: 'error', error: { code: 'turn_waiting' } }],
  ])('tells how %j ends', (event, expected) => {
    expect(encodeAll([event])).toMatchObject([expected])
  })
})
