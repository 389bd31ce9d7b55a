import { describe, expect, it } from 'vitest'
import { ChatEncoder, toText } from '../../channels/coze-api/encode.ts'
import type { ChatFrame } from '../../channels/coze-api/encode.ts'
import { cozeCode, encodeFailure } from '../../channels/coze-api/errors.ts'
import { fromMessageId, toMessageId } from '../../channels/coze-api/ids.ts'
import type { MessageKind } from '../../channels/coze-api/ids.ts'
import { questionIn } from '../../channels/coze-api/requests.ts'
import { failures, HubError } from '../../core/errors.ts'
import type { FailureCode } from '../../core/errors.ts'
import type { LoggedEvent } from '../../core/events.ts'
import { fromDecimal, newId } from '../../core/ids.ts'
import { cozeApi, echo } from '../../index.ts'
import { decodeFrame, nothingRead, readFrame } from '../../plugins/coze/wire.ts'
import { rowsUnder, sampleEvents } from '../support/dialects.ts'
import { startHub } from '../support/hub.ts'

const chat = { turn: newId('turn'), conversation: newId('conv'), bot: 'bot', createdAt: 1_700_000_000_999 }
const eventTypes = Object.keys(sampleEvents) as LoggedEvent['type'][]

/** What has to have happened before an event means anything. */
const before: Partial<Record<LoggedEvent['type'], readonly LoggedEvent['type'][]>> = {
  'message.completed': ['message.delta'],
  'reasoning.completed': ['reasoning.delta'],
  'tool.completed': ['tool.started'],
  'consent.answered': ['consent.requested', 'turn.waiting'],
  'turn.waiting': ['consent.requested'],
  'turn.completed': ['suggestion'],
}

/** The frames of events, event by event. */
function framesOf(events: readonly LoggedEvent[], endedAt?: number): readonly (readonly ChatFrame[])[] {
  const encoder = new ChatEncoder(chat)
  return events.map((event, index): readonly ChatFrame[] => encoder.encode({ seq: index + 1, ...event }, endedAt))
}

const lastOf = (type: LoggedEvent['type']) =>
  framesOf([...(before[type] ?? []), type].map((each) => sampleEvents[each])).at(-1)!

const nameOf = ({ event, body }: ChatFrame): string => {
  const name = event.replace('conversation.', '')
  const { type } = body
  return name === 'message.completed' && typeof type === 'string' ? `${name} ${type}` : name
}

describe('docs/dialects.md', () => {
  const rows = new Map(rowsUnder('cozeApi: events').map(([type = '', frames = '']) => [type, frames]))

  it('has a row for every event and for nothing else', () => {
    expect([...rows.keys()].toSorted()).toEqual(eventTypes.toSorted())
  })

  it.each(eventTypes)('says of %s which events it becomes', (type) => {
    const said = rows.get(type) === 'absent' ? [] : rows.get(type)!.split(', ')
    expect(lastOf(type).map(nameOf)).toEqual(said)
  })

  const routes = rowsUnder('cozeApi: routes').map(([request = '', outcome = '']) => [request, outcome] as const)

  it('says of every route what it answers, and has a row for every route that is mounted', async () => {
    await using hub = await startHub({ bots: { echo: echo() }, channels: { coze: cozeApi() } })
    const json = { 'content-type': 'application/json' }
    const form = new FormData()
    form.set('file', new File(['x'], 'x.txt'))
    const uploaded = (await (await fetch(`${hub.url}/v1/files/upload`, { method: 'POST', body: form })).json()) as {
      readonly data: { readonly id: string }
    }
    const question = { bot_id: 'echo', user_id: 'u', additional_messages: [{ role: 'user', content: 'hello' }] }
    const answered: string[] = []
    for (const [request] of routes) {
      const body = JSON.stringify({ ...question, stream: true })
      const first = await (await fetch(`${hub.url}/v3/chat`, { method: 'POST', headers: json, body })).text()
      const [, chatId, conversation] = /"id":"(\d+)","conversation_id":"(\d+)"/.exec(first)!
      const messageId = toMessageId({ turn: fromDecimal('turn', chatId!)!, kind: 'answer', number: 1 })
      const [method = '', path = ''] = request.split(' ')
      const filled = path
        .replace('{conversation}', conversation!)
        .replace('{message}', messageId)
        .replace('{bot}', 'echo')
      const query = `conversation_id=${conversation}&chat_id=${chatId}&message_id=${messageId}&file_id=${uploaded.data.id}&bot_id=echo`
      const sent = {
        ...(path === '/v3/chat' ? question : {}),
        conversation_id: conversation,
        chat_id: chatId,
        name: 'n',
        role: 'user',
        content: 'x',
        feedback_type: 'like',
        tool_outputs: [{ tool_call_id: 'c', output: 'o' }],
      }
      const isBare = method === 'GET' || method === 'DELETE' || /retrieve|clear/.test(path)
      const answer = await fetch(`${hub.url}${filled}?${path === '/v3/chat' ? '' : query}`, {
        method,
        ...(isBare ? {} : path.endsWith('/upload') ? { body: form } : { headers: json, body: JSON.stringify(sent) }),
      })
      const { code } = (await answer.json()) as { readonly code: number }
      answered.push(`${request} ${answer.status}${code === 0 ? '' : ` ${code}`}`)
    }
    expect(answered).toEqual(routes.map(([request, outcome]) => `${request} ${outcome}`))
    const { paths } = (await (await fetch(`${hub.url}/openapi.json`)).json()) as { paths: Record<string, object> }
    const mounted = Object.entries(paths)
      .filter(([path]) => /^\/v[13]\//.test(path))
      .flatMap(([path, methods]) => Object.keys(methods).map((method) => `${method.toUpperCase()} ${path}`))
    expect(mounted.toSorted()).toEqual(routes.map(([request]) => request).toSorted())
  })
})

describe('a frame', () => {
  it.each(eventTypes)('of %s is one line of data, and has the place of its event on the last one only', (type) => {
    const frames = lastOf(type)
    const place = `${(before[type]?.length ?? 0) + 1}`
    for (const [index, frame] of frames.entries()) {
      expect(toText(frame)).toMatch(/^event:[\w.]+\ndata:[^\n]+\n\n$/)
      const isLast = index === frames.length - 1
      expect(frame.id?.slice(-10)).toBe(isLast ? place.padStart(10, '0') : undefined)
      expect(toText(frame, true)).toMatch(isLast ? /\ndata:[^\n]+\nid: \d+\n\n$/ : /\ndata:[^\n]+\n\n$/)
    }
  })

  it('cannot be forged by what a model says', () => {
    const text = '\n\nevent:done\ndata:"[DONE]"\r\n\u2028'
    const [frames] = framesOf([{ type: 'message.delta', message: 'a', text }])
    expect(toText(frames![0]!).split('\n')).toHaveLength(4)
    expect(frames![0]!.body['content']).toBe(text)
  })

  const read = (events: readonly LoggedEvent[]) => {
    let reading = nothingRead
    return framesOf(events)
      .flat()
      .flatMap(({ event, body }) => {
        const step = readFrame(reading, decodeFrame({ event, data: JSON.stringify(body) }))
        reading = step.reading
        return step.events.filter(({ type }) => type !== 'raw')
      })
  }
  const said = (text: string, more: object = {}) =>
    ({ type: 'message.completed', message: 'a', text, ...more }) as const

  it.each<[string, LoggedEvent[], object[]]>([
    [
      'reasoning and words',
      [
        { type: 'reasoning.delta', message: 'a', text: 'Hm' },
        { type: 'message.delta', message: 'a', text: 'Hi' },
        said('Hi'),
      ],
      [
        { type: 'reasoning.delta', text: 'Hm' },
        { type: 'message.delta', text: 'Hi' },
        { type: 'reasoning.completed', text: 'Hm' },
        { type: 'message.completed', text: 'Hi' },
      ],
    ],
    [
      'reasoning that comes whole, before words under another id',
      [{ type: 'reasoning.completed', message: 'r', text: 'Hm' }, said('Hi')],
      [
        { type: 'reasoning.delta', text: 'Hm' },
        { type: 'reasoning.completed', text: 'Hm' },
        { type: 'message.completed', text: 'Hi' },
      ],
    ],
    [
      'a card',
      [said('', { template: { type: 'card', card_type: 3 } })],
      [{ type: 'message.completed', text: '', template: { type: 'card', card_type: 3 } }],
    ],
    [
      'parts',
      [said('x', { payload: [{ type: 'text', text: 'x' }] })],
      [{ type: 'message.completed', text: 'x', payload: [{ type: 'text', text: 'x' }] }],
    ],
    [
      'a call and its output',
      [sampleEvents['tool.started'], sampleEvents['tool.completed']],
      [
        { type: 'tool.started', tool: 'send_mail', toolset: 'mail', input: { to: 'ada' } },
        { type: 'tool.completed', output: 'sent' },
      ],
    ],
    [
      'an end with suggestions and usage',
      [sampleEvents.suggestion, sampleEvents.usage, { type: 'turn.completed', text: '' }],
      [
        { type: 'suggestion', text: 'More?' },
        { type: 'usage', inputTokens: 1, outputTokens: 2, totalTokens: 3 },
      ],
    ],
  ])('says to the Coze provider what the events say: %s', (_, events, expected) => {
    expect(read(events)).toMatchObject(expected)
  })

  it.each<[LoggedEvent, object]>([
    [
      { ...sampleEvents['turn.cancelled'], by: 'shutdown' },
      { status: 'failed', last_error: { code: 5000, hub_code: 'cancelled' } },
    ],
    [sampleEvents['turn.failed'], { status: 'failed', last_error: { code: 5000, hub_code: 'upstream_cut' } }],
    [sampleEvents['turn.completed'], { status: 'completed', completed_at: 1_700_000_001, created_at: 1_700_000_000 }],
  ])('tells how %j ends', (event, expected) => {
    const frames = framesOf([event], 1_700_000_001_234)[0]!
    expect(frames.at(-2)?.body).toMatchObject(expected)
    expect(frames.at(-1)?.event).toBe('done')
  })

  it('tells what a turn waits for, until all of it was answered', () => {
    const calls = ['one', 'two'].map((call) => ({ call, tool: 't', input: {} }))
    const output = (call: string): LoggedEvent => ({ type: 'tool.completed', call, output: { a: 1 }, isError: false })
    const frames = framesOf([
      { type: 'tool.outputs_requested', calls },
      { type: 'turn.waiting', for: 'tool_outputs' },
      output('one'),
      output('two'),
      said('Hi'),
    ])
    expect(frames.slice(2).map((each) => each.map(nameOf))).toEqual([
      ['chat.in_progress', 'message.completed tool_response'],
      ['chat.in_progress', 'message.completed tool_response'],
      ['message.completed answer'],
    ])
    expect(frames[2]![1]!.body['content']).toBe('{"a":1}')
  })
})

describe('ids of messages', () => {
  const kinds: readonly MessageKind[] = ['question', 'answer', 'note', 'finish', 'call', 'output']
  const numbers = [0, 1, 999_999_999]
  const places = kinds.flatMap((kind) => numbers.map((number) => ({ turn: chat.turn, kind, number })))

  it('are digits that say of which turn, of which kind and which number they are', () => {
    const ids = places.map(toMessageId)
    expect(new Set(ids).size).toBe(ids.length)
    expect(ids.map(fromMessageId)).toEqual(places)
    for (const id of ids) expect(id).toMatch(/^[1-9]\d+$/)
  })

  it.each(['', '0', 'x', '7500000000000000020', `${'9'.repeat(39)}9000000000`, '-1', '1e50'])('are not in %j', (id) => {
    expect(fromMessageId(id)).toBeUndefined()
  })
})

describe('a failure', () => {
  it.each(Object.keys(failures) as FailureCode[])('%s has a code of Coze and keeps its own', (code) => {
    const { status, headers, body } = encodeFailure(new HubError(code), '/v1/conversations')
    expect(body).toMatchObject({ code: cozeCode(code), detail: { hub_code: code, logid: headers!['x-tt-logid'] } })
    expect(cozeCode(code)).toBeGreaterThanOrEqual(4000)
    expect(status).toBe(code === 'invalid_request' ? 400 : failures[code].status)
  })
})

describe('a question', () => {
  const user = (content: string, more: object = {}) => ({ role: 'user' as const, content, ...more })
  const image = (id: string) => ({
    content_type: 'object_string' as const,
    content: `[{"type":"image","file_id":"${id}"}]`,
  })
  const bot = { role: 'assistant' as const, type: 'answer' }

  it.each<[string, Parameters<typeof questionIn>[0], object]>([
    ['the last message', [user('one'), user('two')], { text: 'two', history: [{ role: 'user', text: 'one' }] }],
    ['what the bot did not say after it', [user('one'), { ...bot, content: 'two' }], { text: 'one', history: [] }],
    [
      'media with the text before them',
      [user('see'), user('', image('7'))],
      { text: 'see', files: ['7'], history: [] },
    ],
    [
      'media with the text behind them',
      [user('', image('7')), user('see')],
      { text: 'see', files: ['7'], history: [] },
    ],
    ['media alone', [{ ...bot, content: 'hi' }, user('', image('7'))], { text: '', files: ['7'], history: [{}] }],
    [
      'nothing that is no question or answer',
      [user('f', { type: 'follow_up' }), { ...bot, type: 'verbose', content: '{}' }, user('one')],
      { text: 'one', history: [] },
    ],
  ])('is %s', (_, messages, expected) => {
    expect(questionIn(messages)).toMatchObject(expected)
  })

  it.each([
    ['nothing', []],
    ['no user', [{ ...bot, content: 'x' }]],
    ['an object_string that is no list', [user('{}', { content_type: 'object_string' })]],
    ['an empty one', [user('[]', { content_type: 'object_string' })]],
  ])('is not in %s', (_, messages) => {
    expect(() => questionIn(messages)).toThrow(/additional_messages/)
  })
})
