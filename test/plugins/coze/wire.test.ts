import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { parseExactJson } from '../../../core/json.ts'
import type { HubEvent } from '../../../core/events.ts'
import { parseEvents } from '../../../core/sse.ts'
import {
  chatObject,
  codeMeanings,
  cozeError,
  decodeChat,
  decodeFailure,
  decodeFrame,
  decodeMessage,
  doneFrame,
  encodeFrame,
  messageObject,
  nothingRead,
  readFrame,
  readMessages,
} from '../../../plugins/coze/wire.ts'
import type { ChatEnd, Reading } from '../../../plugins/coze/wire.ts'
import { failure, samples } from './rig.ts'

const fixture = (name: string) => readFileSync(`${samples}${name}`, 'utf8')
const json = (name: string) => parseExactJson(fixture(name)) as Record<string, unknown>

async function* bytesOf(text: string | Uint8Array) {
  yield Buffer.from(text)
}

/** Reads a stream as the provider does, to its end. */
async function read(text: string | Uint8Array) {
  let reading: Reading = nothingRead
  const events: HubEvent[] = []
  const ends: ChatEnd[] = []
  for await (const event of parseEvents(bytesOf(text))) {
    const step = readFrame(reading, decodeFrame(event))
    reading = step.reading
    events.push(...step.events)
    if (step.end) ends.push(step.end)
  }
  return { events, ends, reading }
}

/** One frame after nothing. */
const decode = (event: string, content: unknown, before: Reading = nothingRead) =>
  readFrame(before, decodeFrame({ event, data: typeof content === 'string' ? content : JSON.stringify(content) }))

const completed = 'conversation.message.completed'
const delta = 'conversation.message.delta'
const raw = (name: string, id: string) =>
  expect.objectContaining({ type: 'raw', name, data: expect.objectContaining({ id }) })
const finish = (id: string) => raw(completed, id)

describe('the documented streams', () => {
  const weatherCall = {
    call: 'BUJJinventedToolCallIdAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=',
    tool: 'get_rain_probability',
    input: { location: 'Oslo' },
  }
  const said = (message: string, ...pieces: string[]) =>
    pieces.map((text) => ({ type: 'message.delta', message, text }))

  it.each<[string, unknown[], unknown[]]>([
    [
      'S1.sse',
      [
        ...said('7500000000000000020', '2', '0', '是星期', '二', '。'),
        { type: 'message.completed', message: '7500000000000000020', text: '20是星期二。' },
        finish('7500000000000000021'),
        { type: 'usage', inputTokens: 614, outputTokens: 19, totalTokens: 633 },
      ],
      [{ type: 'completed' }, { type: 'done' }],
    ],
    [
      'S2.sse',
      [
        raw(completed, '7500000000000000031'),
        raw(completed, '7500000000000000032'),
        {
          type: 'tool.started',
          call: '7500000000000000033',
          toolset: 'weatherbox',
          tool: 'weatherbox-now',
          input: { city: 'Oslo' },
        },
        {
          type: 'tool.completed',
          call: '7500000000000000033',
          output: { content_type: 1, response_for_model: 'sunny', type_for_model: 1 },
          isError: false,
        },
        ...said('7500000000000000030', 'It is ', 'sunny.'),
        { type: 'message.completed', message: '7500000000000000030', text: 'It is sunny.' },
        ...said('7500000000000000035', 'Bring a hat.'),
        { type: 'message.completed', message: '7500000000000000035', text: 'Bring a hat.' },
        finish('7500000000000000036'),
        { type: 'suggestion', text: 'And tomorrow?' },
        { type: 'suggestion', text: 'How warm?' },
        { type: 'suggestion', text: 'Any wind?' },
        { type: 'usage', inputTokens: 129, outputTokens: 11, totalTokens: 140 },
      ],
      [{ type: 'completed' }, { type: 'done' }],
    ],
    [
      'S3.sse',
      [
        ...said('7500000000000000040', 'hi'),
        { type: 'message.completed', message: '7500000000000000040', text: 'hi' },
        { type: 'usage', inputTokens: 91, outputTokens: 24, totalTokens: 115 },
        raw('conversation.audio.delta', '7500000000000000040'),
      ],
      [{ type: 'completed' }, { type: 'done' }],
    ],
    [
      'S4-leg1.sse',
      [raw(completed, '7500000000000000051'), finish('7500000000000000052')],
      [{ type: 'requires_action', calls: [weatherCall] }, { type: 'done' }],
    ],
    [
      'S4-leg2.sse',
      [
        raw(completed, '7500000000000000053'),
        ...said('7500000000000000054', 'The ', 'chance ', 'is 50%', '.'),
        { type: 'message.completed', message: '7500000000000000054', text: 'The chance is 50%.' },
        finish('7500000000000000055'),
        { type: 'suggestion', text: 'And tomorrow?' },
        { type: 'usage', inputTokens: 129, outputTokens: 11, totalTokens: 140 },
      ],
      [{ type: 'completed' }, { type: 'done' }],
    ],
    ['S6a.sse', [], [{ type: 'failed', failure: { code: '5000', message: 'event interval error' } }]],
    ['S6b.sse', [], [{ type: 'failed', failure: { code: '701231', message: 'error' } }]],
    ['S6c.sse', [], [{ type: 'failed', failure: { code: '720702204', message: 'no such conversation name' } }]],
    ['S7e.sse', [], [{ type: 'failed', failure: { code: '4000', message: 'Request parameter error' } }]],
    [
      'S8.sse',
      [
        { type: 'reasoning.delta', message: '7500000000000000070', text: 'Let me ' },
        { type: 'reasoning.delta', message: '7500000000000000070', text: 'think.' },
        ...said('7500000000000000070', '42'),
        { type: 'reasoning.completed', message: '7500000000000000070', text: 'Let me think.' },
        { type: 'message.completed', message: '7500000000000000070', text: '42' },
      ],
      [],
    ],
    [
      'S9.sse',
      [
        {
          type: 'message.completed',
          message: '7500000000000000071',
          text: '',
          template: { card_type: 3, template_url: '…', response_type: 'card', type: 'card' },
        },
      ],
      [],
    ],
    ['S12.sse', Array(5).fill(expect.objectContaining({ type: 'raw' })), []],
    ['S12-interrupt.sse', [expect.objectContaining({ type: 'raw', name: 'Interrupt' })], []],
    ['S12-error.sse', [expect.objectContaining({ type: 'raw', name: 'Error' })], []],
    [
      'S13.sse',
      [
        ...said('7500000000000000100', 'fine'),
        { type: 'message.completed', message: '7500000000000000100', text: 'fine' },
        finish('7500000000000000101'),
        { type: 'usage', inputTokens: 21, outputTokens: 11, totalTokens: 32 },
      ],
      [{ type: 'completed' }, { type: 'done' }],
    ],
    [
      'S14.sse',
      [
        { type: 'reasoning.delta', message: '7500000000000000110', text: 'Hm.' },
        ...said('7500000000000000110', 'Hi'),
        { type: 'reasoning.completed', message: '7500000000000000110', text: 'Hm.' },
        { type: 'message.completed', message: '7500000000000000110', text: 'Hi' },
        finish('7500000000000000111'),
      ],
      [{ type: 'completed' }, { type: 'done' }],
    ],
    [
      'S14-error.sse',
      [],
      [{ type: 'failed', failure: { code: '103000000', message: '…' } }, { type: 'completed' }, { type: 'done' }],
    ],
  ])('reads %s as stated', async (name, events, ends) => {
    const found = await read(fixture(name))
    expect(found.events).toEqual(events)
    expect(found.ends).toEqual(ends)
  })

  it.each(['S1.sse', 'S2.sse', 'S13.sse', 'S14.sse'])('%s cut at any byte is not complete', async (name) => {
    const bytes = Buffer.from(fixture(name))
    const end = bytes.indexOf('\n\n', bytes.indexOf('conversation.chat.completed')) + 2
    expect(end).toBeGreaterThan(1000)
    for (let length = 0; length < end; length++) {
      const { ends } = await read(bytes.subarray(0, length))
      expect(ends, `cut at ${length}`).toEqual([])
    }
    const whole = await read(bytes.subarray(0, end))
    expect(whole.ends).toEqual([{ type: 'completed' }])
  })

  it('reads the answers of polling', () => {
    expect(decodeChat(json('S5-create.json')['data'])).toEqual({
      id: '7500000000000000010',
      conversationId: '7500000000000000001',
      status: 'in_progress',
      calls: [],
    })
    expect(decodeChat(json('S5-retrieve.json')['data'])).toMatchObject({
      status: 'completed',
      usage: { inputTokens: 242, outputTokens: 56, totalTokens: 298 },
    })
    expect(decodeChat(json('S5-retrieve-waiting.json')['data'])).toMatchObject({
      status: 'requires_action',
      calls: [{ call: 'BUJJ…=', tool: 'get_rain_probability', input: { location: 'Oslo' } }],
    })
    expect(decodeChat(json('S10-submit.json')['data'])).toMatchObject({ status: 'in_progress' })
    expect(decodeChat(json('S10-cancel.json')['data'])).toEqual({
      id: '7500000000000000010',
      conversationId: '7500000000000000001',
      status: 'canceled',
      calls: [],
    })
  })

  it('reads a list of messages, notes and all', () => {
    const messages = (json('S5-list.json')['data'] as unknown[]).map(decodeMessage)
    expect(messages).toHaveLength(2)
    const { events } = readMessages(nothingRead, messages as NonNullable<(typeof messages)[number]>[])
    expect(events).toEqual([
      finish('7500000000000000060'),
      { type: 'message.delta', message: '7500000000000000061', text: 'hello' },
      { type: 'message.completed', message: '7500000000000000061', text: 'hello' },
    ])
  })

  it('reads what conversations, messages and files are called', () => {
    expect(decodeChat(json('S11-conversation.json')['data']).id).toBe('7500000000000000001')
    expect(decodeChat(json('S11-file.json')['data']).id).toBe('7500000000000000090')
    expect(decodeMessage(json('S11-message-create.json')['data'])).toMatchObject({
      id: '7500000000000000080',
      type: '',
      content: 'good morning',
    })
    expect(decodeMessage(json('S11-message-modify.json')['message'])).toMatchObject({ id: '7500000000000000080' })
    expect(decodeChat(json('S11-clear.json')['data']).conversationId).toBe('7500000000000000001')
    expect(decodeFailure(json('S11-delete.json'))).toEqual({ code: '0' })
  })

  it.each([
    ['S7a.json', 200, 'upstream_auth', '4101'],
    ['S7b.json', 200, 'upstream_auth', '4100'],
    ['S7c.json', 401, 'upstream_auth', '700012006'],
    ['S7d.json', 404, 'upstream_rejected', '4000'],
    ['S7f.json', 429, 'upstream_rate_limited', '4009'],
  ])('understands the error %s under %i', (name, status, code, vendorCode) => {
    const error = cozeError({ ...decodeFailure(json(name)), status }, false)
    expect(failure(error)).toMatchObject({ code, upstream: { code: vendorCode } })
  })
})

describe('one frame', () => {
  const answer = { id: '1', type: 'answer', content_type: 'text', role: 'assistant' }

  it.each<[string, string, unknown, unknown[]]>([
    ['an empty delta says nothing', delta, { ...answer, content: '' }, []],
    [
      'a delta may think and speak at once',
      delta,
      { ...answer, content: 'a', reasoning_content: 'b' },
      [
        { type: 'reasoning.delta', message: '1', text: 'b' },
        { type: 'message.delta', message: '1', text: 'a' },
      ],
    ],
    ['a delta that is no answer is raw', delta, { ...answer, type: 'verbose', content: 'x' }, [raw(delta, '1')]],
    ['an audio delta is raw', delta, { ...answer, content: 'x', content_type: 'audio' }, [raw(delta, '1')]],
    [
      'an answer without deltas comes whole',
      completed,
      { ...answer, content: 'whole' },
      [{ type: 'message.completed', message: '1', text: 'whole' }],
    ],
    [
      'a suggestion',
      completed,
      { ...answer, type: 'follow_up', content: 'And?' },
      [{ type: 'suggestion', text: 'And?' }],
    ],
    ['an empty suggestion is none', completed, { ...answer, type: 'follow_up', content: '' }, []],
    [
      'verbose is never text',
      completed,
      { ...answer, type: 'verbose', content: '{"msg_type":"x"}' },
      [raw(completed, '1')],
    ],
    ['knowledge is raw', completed, { ...answer, type: 'knowledge', content: 'slices' }, [raw(completed, '1')]],
    ['a new type is raw', completed, { ...answer, type: 'poem', content: 'roses' }, [raw(completed, '1')]],
    ['an audio answer is raw', completed, { ...answer, content: 'KgA=', content_type: 'audio' }, [raw(completed, '1')]],
    [
      'a card that is no JSON keeps its content',
      completed,
      { ...answer, content: '{broken', content_type: 'card' },
      [{ type: 'message.completed', message: '1', text: '', template: { type: 'card', content: '{broken' } }],
    ],
    [
      'object_string has its words as text and all of it as payload',
      completed,
      {
        ...answer,
        content: '[{"type":"text","text":"see"},{"type":"image","file_url":"u"}]',
        content_type: 'object_string',
      },
      [
        {
          type: 'message.completed',
          message: '1',
          text: 'see',
          payload: [
            { type: 'text', text: 'see' },
            { type: 'image', file_url: 'u' },
          ],
        },
      ],
    ],
    [
      'object_string that is none is text',
      completed,
      { ...answer, content: 'plain', content_type: 'object_string' },
      [{ type: 'message.completed', message: '1', text: 'plain' }],
    ],
    ['content of a wrong type is raw', completed, { ...answer, content: 5 }, [raw(completed, '1')]],
    [
      'an output without a call is raw',
      completed,
      { ...answer, type: 'tool_output', content: 'x' },
      [raw(completed, '1')],
    ],
    ['nothing is raw', delta, 'null', [{ type: 'raw', source: 'coze', name: delta, data: null }]],
    ['a number is raw', completed, '7', [{ type: 'raw', source: 'coze', name: completed, data: 7 }]],
    ['no JSON is raw', 'nonsense', 'not json', [{ type: 'raw', source: 'coze', name: 'nonsense', data: 'not json' }]],
    [
      'an event without a name is raw',
      'message',
      '[DONE]',
      [{ type: 'raw', source: 'coze', name: 'message', data: '[DONE]' }],
    ],
    ['a name of JavaScript is raw', 'conversation.chat.constructor', '{}', [expect.objectContaining({ type: 'raw' })]],
  ])('%s', (_title, event, content, events) => {
    const step = decode(event, content)
    expect(step.events).toEqual(events)
    expect(step.end).toBeUndefined()
  })

  it.each<[string, unknown, unknown]>([
    ['conversation.chat.completed', {}, { type: 'completed' }],
    ['conversation.chat.completed', 'no json', { type: 'completed' }],
    ['conversation.chat.completed', { usage: 'many', last_error: 5 }, { type: 'completed' }],
    ['conversation.chat.failed', 'null', { type: 'failed', failure: {} }],
    ['conversation.chat.failed', { last_error: { code: null, msg: '' } }, { type: 'failed', failure: {} }],
    ['conversation.chat.expired', {}, { type: 'failed', failure: {} }],
    ['conversation.chat.canceled', {}, { type: 'canceled' }],
    ['conversation.chat.cancelled', {}, { type: 'canceled' }],
    ['conversation.chat.required_action', { required_action: [] }, { type: 'requires_action', calls: [] }],
    [
      'conversation.chat.requires_action',
      { required_action: { submit_tool_outputs: { tool_calls: [{ id: '', type: 'reply_message', function: null }] } } },
      { type: 'requires_action', calls: [] },
    ],
    ['error', {}, { type: 'failed', failure: {} }],
    ['error', { code: '4009', msg: 'm' }, { type: 'failed', failure: { code: '4009', message: 'm' } }],
    ['done', '[DONE]', { type: 'done' }],
    ['done', '"[DONE]"', { type: 'done' }],
    ['done', '', { type: 'done' }],
    ['done', { debug_url: 'u' }, { type: 'done' }],
    ['conversation.stream.done', '', { type: 'done' }],
  ])('%s with %j ends the stream', (event, content, end) => {
    expect(decode(event, content).end).toEqual(end)
  })

  it('reads usage under both of its names, and none where there is none', () => {
    const usage = (given: unknown) => decode('conversation.chat.completed', { usage: given }).events
    expect(usage({ token_count: 3, input_count: 1, output_count: 2 })).toEqual([
      { type: 'usage', inputTokens: 1, outputTokens: 2, totalTokens: 3 },
    ])
    expect(usage({ input_tokens: 1, output_tokens: 2 })).toEqual([
      { type: 'usage', inputTokens: 1, outputTokens: 2, totalTokens: 3 },
    ])
    expect(usage({})).toEqual([])
    expect(usage(null)).toEqual([])
    expect(usage({ token_count: 0, input_count: 0, output_count: 0 })).toEqual([])
  })
})

describe('tool calls', () => {
  const call = (id: string, content: string) =>
    decodeFrame({
      event: completed,
      data: JSON.stringify({ id, type: 'function_call', content, content_type: 'text' }),
    })
  const output = (id: string, content: string) =>
    decodeFrame({
      event: completed,
      data: JSON.stringify({ id, type: 'tool_response', content, content_type: 'text' }),
    })
  const play = (...frames: ReturnType<typeof call>[]) => {
    let reading = nothingRead
    return frames.flatMap((frame) => {
      const step = readFrame(reading, frame)
      reading = step.reading
      return step.events
    })
  }

  it('shows a call that may be a local one only when its output comes', () => {
    const unknown = call('1', '{"name":"f","arguments":{"a":1},"plugin_type":6}')
    expect(play(unknown)).toEqual([])
    expect(play(unknown, output('2', 'ok'))).toEqual([
      { type: 'tool.started', call: '1', tool: 'f', input: { a: 1 } },
      { type: 'tool.completed', call: '1', output: 'ok', isError: false },
    ])
  })

  it('shows a call of a cloud plugin at once, and once', () => {
    const known = call('1', '{"name":"f","arguments":{},"plugin_type":1}')
    expect(play(known)).toEqual([{ type: 'tool.started', call: '1', tool: 'f', input: {} }])
    expect(play(known, output('2', '{"a":1}')).map((event) => event.type)).toEqual(['tool.started', 'tool.completed'])
  })

  it('drops the calls that required_action names again', () => {
    const asked = decodeFrame({ event: 'conversation.chat.requires_action', data: '{}' })
    const events = play(call('1', '{"name":"f","plugin_type":6}'), asked, output('2', 'echo'))
    expect(events).toEqual([raw(completed, '2')])
  })

  it('keeps the digits of ids and numbers beyond 2^53', () => {
    const [started] = play(call('1', '{"name":"f","arguments":{"order":7379227414322217010},"plugin_type":1}'))
    expect(started).toMatchObject({ input: { order: '7379227414322217010' } })
  })

  it('shows a call whose content is broken JSON with that as its input', () => {
    const events = play(call('1', '{"name":"f","argu'), output('2', 'x'))
    expect(events[0]).toEqual({ type: 'tool.started', call: '1', tool: 'unknown', input: '{"name":"f","argu' })
  })

  it('takes arguments that are no JSON as they are', () => {
    const calls = [{ id: 'B', type: 'function', function: { name: 'f', arguments: '{broken' } }]
    const chat = decodeChat({
      required_action: { type: 'submit_tool_outputs', submit_tool_outputs: { tool_calls: calls } },
    })
    expect(chat.calls).toEqual([{ call: 'B', tool: 'f', input: '{broken' }])
  })
})

describe('what was shown before', () => {
  const listed = (content: string, more: object = {}) => [
    decodeMessage({ id: '1', type: 'answer', content, content_type: 'text', ...more })!,
  ]

  it.each<[string, string, string, unknown[]]>([
    [
      'a prefix: only the rest is a delta',
      'The first ',
      'The first half.',
      [
        { type: 'message.delta', message: '1', text: 'half.' },
        { type: 'message.completed', message: '1', text: 'The first half.' },
      ],
    ],
    ['all of it: no delta', 'All.', 'All.', [{ type: 'message.completed', message: '1', text: 'All.' }]],
    [
      'other words: the truth at the end',
      'Wrong',
      'Right.',
      [{ type: 'message.completed', message: '1', text: 'Right.' }],
    ],
  ])('%s', (_title, shown, text, events) => {
    expect(readMessages({ ...nothingRead, shown: { 1: shown } }, listed(text)).events).toEqual(events)
  })

  it('shows nothing twice', () => {
    const once = readMessages(nothingRead, listed('All.'))
    expect(once.events).toHaveLength(2)
    expect(readMessages(once.reading, listed('All.')).events).toEqual([])
  })

  it('leaves the reading it was given alone', () => {
    const before = structuredClone(nothingRead)
    readFrame(nothingRead, decodeFrame({ event: delta, data: '{"id":"1","type":"answer","content":"x"}' }))
    expect(nothingRead).toEqual(before)
  })
})

describe('errors', () => {
  it.each([
    [4000, 'upstream_rejected', false],
    [4001, 'upstream_rejected', false],
    [4008, 'upstream_quota', false],
    [4009, 'upstream_rate_limited', true],
    [4010, 'upstream_rejected', false],
    [4011, 'upstream_quota', false],
    [4013, 'upstream_failed', false],
    [4014, 'upstream_refused_content', false],
    [4016, 'upstream_conflict', true],
    [4019, 'upstream_quota', false],
    [4020, 'upstream_rate_limited', true],
    [4027, 'upstream_quota', false],
    [4028, 'upstream_quota', false],
    [4100, 'upstream_auth', false],
    [4101, 'upstream_auth', false],
    [4102, 'upstream_refused_content', false],
    [4105, 'upstream_refused_content', false],
    [4200, 'upstream_rejected', false],
    [4302, 'upstream_rejected', false],
    [4315, 'upstream_failed', false],
    [5000, 'upstream_failed', false],
    [701231, 'upstream_failed', false],
    [700012006, 'upstream_auth', false],
  ])('code %i is %s, before a chat notStarted is %j and after it never', (code, meaning, notStarted) => {
    for (const spelling of [{ code }, { code: String(code) }]) {
      const known = decodeFailure(spelling)
      const upstream = { code: String(code) }
      expect(failure(cozeError(known, false))).toEqual({ code: meaning, notStarted, upstream })
      expect(failure(cozeError(known, true))).toEqual({ code: meaning, notStarted: false, upstream })
    }
  })

  it.each([
    [401, undefined, { code: 'upstream_auth', notStarted: false, upstream: { status: 401 } }],
    [403, undefined, { code: 'upstream_auth', notStarted: false, upstream: { status: 403 } }],
    [404, undefined, { code: 'upstream_rejected', notStarted: false, upstream: { status: 404 } }],
    [429, undefined, { code: 'upstream_rate_limited', notStarted: true, upstream: { status: 429 } }],
    [500, undefined, { code: 'upstream_failed', notStarted: false, upstream: { status: 500 } }],
    [503, undefined, { code: 'upstream_failed', notStarted: false, upstream: { status: 503 } }],
    [503, 3000, { code: 'upstream_failed', notStarted: true, retryAfterMs: 3000, upstream: { status: 503 } }],
    [302, undefined, { code: 'upstream_rejected', notStarted: false, upstream: { status: 302 } }],
  ])('status %i without a code, Retry-After %j', (status, retryAfterMs, expected) => {
    const error = cozeError({ status, ...(retryAfterMs === undefined ? {} : { retryAfterMs }) }, false)
    expect(failure(error)).toEqual(expected)
  })

  it('keeps the words of Coze from clients and in the cause', () => {
    const error = cozeError({ code: '4000', message: 'internal words' }, false)
    expect(JSON.stringify(error.public())).not.toContain('internal words')
    expect(error.cause).toEqual(new Error('internal words'))
  })

  it('names only codes it was told of', () => {
    expect(Object.keys(codeMeanings).length).toBeGreaterThan(30)
    expect(failure(cozeError({ code: 'constructor' }, false)).code).toBe('upstream_failed')
  })
})

describe('the other direction', () => {
  const parts = {
    id: '7500000000000000010',
    conversationId: '7500000000000000001',
    botId: '7500000000000000002',
  }

  it('writes the documented bytes, fields in their order', () => {
    const lines = fixture('S1.sse').split('\n\n')
    const message = {
      ...parts,
      id: '7500000000000000020',
      chatId: parts.id,
      role: 'assistant',
      type: 'answer',
    } as const
    expect(encodeFrame(delta, messageObject({ ...message, content: '2', contentType: 'text' }))).toBe(`${lines[2]}\n\n`)
    expect(doneFrame()).toBe(`${lines.at(-2)}\n\n`)
    const [created] = fixture('S2.sse').split('\n\n')
    const chat = chatObject({ ...parts, status: 'created', createdAt: 1730949143 })
    expect(encodeFrame('conversation.chat.created', chat)).toBe(`${created}\n\n`)
  })

  it('writes spaces and CRLF where a dialect has them', () => {
    expect(encodeFrame('done', {}, { space: true })).toBe('event: done\ndata: {}\n\n')
    expect(encodeFrame('done', {}, { crlf: true })).toBe('event:done\r\ndata:{}\r\n\r\n')
  })

  it('lets no text end its event', async () => {
    const text = 'a\n\ndata: b\r\nevent: c\u2028'
    const frame = encodeFrame(delta, { id: '1', type: 'answer', content: text, content_type: 'text' })
    const { events } = await read(frame)
    expect(events).toEqual([{ type: 'message.delta', message: '1', text }])
  })
})
