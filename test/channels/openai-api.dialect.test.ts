import { describe, expect, it } from 'vitest'
import { AnswerReader, callId, errorBody, readCallId } from '../../channels/openai-api/encode.ts'
import type { AnswerPart } from '../../channels/openai-api/encode.ts'
import { chatBody, readDecision, readQuestion } from '../../channels/openai-api/requests.ts'
import { HubError } from '../../core/errors.ts'
import type { LoggedEvent, NumberedEvent } from '../../core/events.ts'
import { newId } from '../../core/ids.ts'
import { echo, openaiApi } from '../../index.ts'
import { rowsUnder, sampleEvents } from '../support/dialects.ts'
import { startHub } from '../support/hub.ts'

const turn = newId('turn')
const numbered = (events: readonly LoggedEvent[]): NumberedEvent[] =>
  events.map((event, index) => ({ seq: index + 1, ...event }))

/** What each event brings, in its order. */
function partsOf(events: readonly LoggedEvent[], after = 0, until?: number): readonly (readonly AnswerPart[])[] {
  const reader = new AnswerReader({ turn, after, until })
  return numbered(events).map((event) => reader.read(event))
}

const wordsFor = (part: AnswerPart): string[] => {
  if (part.type === 'failed') return ['error']
  if (part.type === 'finish') return [`finish: ${part.finish}`]
  const names: Readonly<Record<string, string>> = { reasoning: 'reasoning_content', calls: 'tool_calls' }
  return Object.keys(part.parts).map((name) => names[name] ?? name)
}

/** What has to have happened before an event means anything. */
const before: Partial<Record<LoggedEvent['type'], readonly LoggedEvent['type'][]>> = {
  'message.completed': ['message.delta'],
  'reasoning.completed': ['reasoning.delta'],
  'turn.waiting': ['consent.requested'],
}

const eventTypes = Object.keys(sampleEvents) as LoggedEvent['type'][]

describe('docs/dialects.md', () => {
  const rows = new Map(rowsUnder('openaiApi: events').map(([type = '', chunks = '']) => [type, chunks]))

  it('has a row for every event and for nothing else', () => {
    expect([...rows.keys()].toSorted()).toEqual(eventTypes.toSorted())
  })

  it.each(eventTypes)('says of %s which chunks it becomes', (type) => {
    const events = [...(before[type] ?? []), type].map((each) => sampleEvents[each])
    const words = partsOf(events).at(-1)!.flatMap(wordsFor)
    expect(words).toEqual(rows.get(type) === 'absent' ? [] : rows.get(type)!.split(', '))
  })

  const routes = rowsUnder('openaiApi: routes').map(([request = '', outcome = '']) => [request, outcome] as const)

  it('says of every route what it answers, and has a row for every route that is mounted', async () => {
    await using hub = await startHub({ bots: { echo: echo() }, channels: { openai: openaiApi() } })
    for (const prefix of ['/v1', '/api/v1']) {
      for (const [request, outcome] of routes) {
        const [method = '', path = ''] = request.split(' ')
        const answer = await fetch(`${hub.url}${prefix}${path.replace('{model}', 'echo')}`, {
          method,
          ...(method === 'GET'
            ? {}
            : {
                headers: { 'content-type': 'application/json' },
                body: JSON.stringify({ model: 'echo', messages: [{ role: 'user', content: 'hello' }] }),
              }),
        })
        const { error } = (await answer.json()) as { error?: { code: string; type: string; param: null } }
        expect(`${prefix}${path} ${answer.status}${error ? ` ${error.code}` : ''}`).toBe(`${prefix}${path} ${outcome}`)
      }
    }
    const { paths } = (await (await fetch(`${hub.url}/openapi.json`)).json()) as { paths: Record<string, object> }
    const mounted = Object.entries(paths)
      .filter(([path]) => path.startsWith('/v1/'))
      .flatMap(([path, methods]) =>
        Object.keys(methods).map((method) => `${method.toUpperCase()} ${path.slice('/v1'.length)}`),
      )
    const answered = routes.filter(([, outcome]) => outcome === '200').map(([request]) => request)
    expect(mounted.toSorted()).toEqual(answered.toSorted())
  })
})

const say = (message: string, text: string): LoggedEvent => ({ type: 'message.delta', message, text })
const whole = (message: string, text: string): LoggedEvent => ({ type: 'message.completed', message, text })
const contentOf = (parts: readonly (readonly AnswerPart[])[]): string =>
  parts
    .flat()
    .map((part) => (part.type === 'chunk' ? (part.parts.content ?? '') : ''))
    .join('')

describe('an answer', () => {
  it.each<[string, LoggedEvent[], string]>([
    ['is what was said', [say('a', 'Hi '), say('a', 'there'), whole('a', 'Hi there')], 'Hi there'],
    ['has its rest with its end', [say('a', 'Hi '), whole('a', 'Hi there')], 'Hi there'],
    ['comes whole where it had no deltas', [whole('a', 'Hi')], 'Hi'],
    [
      'has a blank line between two messages',
      [say('a', 'One.'), whole('a', 'One.'), whole('b', 'Two.')],
      'One.\n\nTwo.',
    ],
    ['has none before a message without words', [say('a', 'One.'), whole('a', 'One.'), whole('b', '')], 'One.'],
    ['takes nothing back', [say('a', 'Wrong'), whole('a', 'Right')], 'Wrong'],
  ])('%s', (_, events, text) => {
    expect(contentOf(partsOf(events))).toBe(text)
  })

  it('that is not streamed has the words that count in the end', () => {
    const reader = new AnswerReader({ turn, after: 0 })
    for (const event of numbered([say('a', 'Wrong'), whole('a', 'Right'), whole('b', ''), whole('c', 'Also.')])) {
      reader.read(event)
    }
    expect(reader.answer.content).toBe('Right\n\nAlso.')
  })

  it.each<[LoggedEvent, object]>([
    [
      { ...sampleEvents['turn.failed'], error: failed('answer_cut_short') },
      { type: 'finish', finish: 'length' },
    ],
    [
      { ...sampleEvents['turn.failed'], error: failed('upstream_refused_content') },
      { type: 'finish', finish: 'content_filter' },
    ],
    [{ ...sampleEvents['turn.failed'], error: failed('upstream_quota') }, { type: 'failed' }],
    [
      { ...sampleEvents['turn.cancelled'], by: 'abandoned' },
      { type: 'failed', error: { code: 'cancelled' } },
    ],
  ])('ends as %j does', (event, end) => {
    expect(partsOf([event]).flat()).toMatchObject([end])
  })

  it('that pauses is followed by one of its own, with its own cost', () => {
    const second = { ...sampleEvents['tool.outputs_requested'], calls: [{ call: 'x', tool: 'f', input: { a: 1 } }] }
    const events: LoggedEvent[] = [
      say('a', 'First. '),
      sampleEvents.usage,
      second,
      { type: 'turn.waiting', for: 'tool_outputs' },
      { type: 'tool.completed', call: 'x', output: 'y', isError: false },
      say('b', 'Second.'),
      sampleEvents.usage,
      sampleEvents['turn.completed'],
    ]
    const readers = [0, 4].map((after) => new AnswerReader({ turn, after }))
    for (const reader of readers) for (const event of numbered(events)) reader.read(event)
    const calls = [{ id: callId(turn, 'x'), name: 'f', arguments: '{"a":1}' }]
    expect(readers.map(({ answer }) => [answer.content, answer.calls])).toEqual([
      ['First. ', calls],
      ['Second.', []],
    ])
    expect(readers.map(({ usage }) => usage?.totalTokens)).toEqual([3, 3])
  })

  it('to a part of the calls has the others', () => {
    const calls = ['x', 'y'].map((call) => ({ call, tool: 'f', input: {} }))
    const events: LoggedEvent[] = [
      { type: 'tool.outputs_requested', calls },
      { type: 'turn.waiting', for: 'tool_outputs' },
      { type: 'tool.completed', call: 'x', output: 'y', isError: false },
    ]
    expect(partsOf(events, 2, 3).flat()).toMatchObject([
      { type: 'chunk', parts: { calls: [{ id: callId(turn, 'y') }] } },
      { type: 'finish', finish: 'tool_calls' },
    ])
  })
})

function failed(code: string) {
  return { code, message: 'It failed.', retryable: false }
}

describe('messages', () => {
  const read = (messages: unknown) => readQuestion(chatBody.parse({ model: 'm', messages }).messages)
  const user = (content: unknown) => ({ role: 'user', content })

  it.each<[unknown, object]>([
    [[user('hello')], { text: 'hello', history: [], files: [] }],
    [
      [
        { role: 'system', content: 'Be brief.' },
        user('one'),
        { role: 'assistant', content: 'two' },
        user('three'),
        { role: 'developer', content: 'Be long.' },
      ],
      {
        text: 'three',
        history: [
          { role: 'user', text: 'one' },
          { role: 'bot', text: 'two' },
        ],
      },
    ],
    [
      [
        user('one'),
        { role: 'assistant', content: null, tool_calls: [{ id: 'x' }] },
        { role: 'tool', tool_call_id: 'x', content: 'y' },
        { role: 'assistant', content: [{ type: 'text', text: 'two' }] },
        user('three'),
      ],
      {
        text: 'three',
        history: [
          { role: 'user', text: 'one' },
          { role: 'bot', text: 'two' },
        ],
      },
    ],
    [
      [
        user([
          { type: 'text', text: 'one' },
          { type: 'file', file: { file_id: 'file_1' } },
          { type: 'text', text: 'two' },
        ]),
      ],
      { text: 'one\ntwo', files: ['file_1'] },
    ],
    [[user([{ type: 'image_url', image_url: { url: 'x' } }]), user('then')], { text: 'then', history: [] }],
    [[user('')], { text: '' }],
  ])('%j are read', (messages, question) => {
    expect(read(messages)).toMatchObject({ type: 'message', ...question })
  })

  it.each([
    [[{ role: 'system', content: 'Be brief.' }]],
    [[user('one'), { role: 'assistant', content: 'two' }]],
    [[user(null)]],
    [[{ role: 'tool', content: 'x' }]],
    [[{ role: 'tool', content: 'x', tool_call_id: 'call_of_another' }]],
  ])('%j ask nothing', (messages) => {
    expect(() => read(messages)).toThrow(expect.objectContaining({ code: 'invalid_request' }) as HubError)
  })

  it.each(['image_url', 'input_audio', 'file', 'video_url'])('with %s are refused, and say what to do', (type) => {
    expect(() => read([user([{ type }])])).toThrow(/api\/v1\/bots\/{bot}\/files/)
  })
})

describe('a decision', () => {
  it.each<[string, object]>([
    ['allow_once', { result: 'allow_once' }],
    [' deny_once\n', { result: 'deny_once' }],
    ['{"result":"deny_once","reason":"no"}', { result: 'deny_once', reason: 'no' }],
  ])('is read from %j', (text, decided) => {
    expect(readDecision({ call: 'c', text, place: 1 })).toEqual({ call: 'c', ...decided })
  })

  it.each(['', 'yes', 'allowed', 'true', '{"result":"yes"}', 'null', 'Error: no function hub_consent'])(
    'is not read into %j',
    (text) => {
      expect(() => readDecision({ call: 'c', text, place: 1 })).toThrow(/allow, allow_always or deny/)
    },
  )
})

describe('the id of a call', () => {
  it.each(['call-1', 'a.b.c', 'BUJJ+/='])('says its turn and keeps %s', (call) => {
    expect(readCallId(callId(turn, call))).toEqual({ turn, call })
  })

  it.each(['', 'call_1', turn, `${turn}.`, '.x'])('is not found in %j', (id) => {
    expect(readCallId(id)).toBeUndefined()
  })
})

describe('an error', () => {
  it.each([
    ['unknown_bot', 'invalid_request_error', 'model_not_found'],
    ['unauthorized', 'invalid_request_error', 'invalid_api_key'],
    ['upstream_quota', 'insufficient_quota', 'upstream_quota'],
    ['upstream_rate_limited', 'rate_limit_error', 'upstream_rate_limited'],
    ['upstream_cut', 'server_error', 'upstream_cut'],
    ['of_tomorrow', 'server_error', 'of_tomorrow'],
  ])('%s is of the type %s', (code, type, own) => {
    expect(errorBody({ code, message: 'No.' })).toEqual({ error: { message: 'No.', type, param: null, code: own } })
  })
})
