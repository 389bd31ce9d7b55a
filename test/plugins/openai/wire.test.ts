import { describe, expect, it } from 'vitest'
import type { Json } from '../../../core/message.ts'
import {
  CallCollector,
  chunkObject,
  completionObject,
  decodeFailure,
  decodeFrame,
  doneFrame,
  encodeFrame,
  noDelta,
  openaiError,
  usageChunk,
} from '../../../plugins/openai/wire.ts'
import type {
  OpenaiCallDelta,
  OpenaiChunk,
  OpenaiDelta,
  OpenaiFailure,
  OpenaiFrame,
} from '../../../plugins/openai/wire.ts'
import { naughtyStrings } from '../../suites/naughty.ts'

const choice = (parts: Record<string, Json>): Json => ({ choices: [{ index: 0, ...parts }] })
const chunk = (
  parts: Partial<Omit<OpenaiChunk, 'delta'>> & { readonly delta?: Partial<OpenaiDelta> },
): OpenaiFrame => ({
  type: 'chunk',
  finish: undefined,
  usage: undefined,
  ...parts,
  delta: { ...noDelta, ...parts.delta },
})
const call = (parts: Record<string, Json>): Json => choice({ delta: { tool_calls: [parts] } })
const piece = (parts: OpenaiCallDelta): OpenaiFrame => chunk({ delta: { calls: [parts] } })

describe('a chunk', () => {
  it.each<[Json, OpenaiFrame]>([
    [choice({ delta: { role: 'assistant', content: '' } }), chunk({})],
    [choice({ delta: { content: 'Hi' }, finish_reason: null }), chunk({ delta: { content: 'Hi' } })],
    [
      choice({ delta: { content: [{ type: 'text', text: 'H' }, { type: 'x' }, { type: 'text', text: 'i' }] } }),
      chunk({ delta: { content: 'Hi' } }),
    ],
    [choice({ delta: { content: null, refusal: 'No.' } }), chunk({ delta: { content: 'No.' } })],
    [
      choice({ delta: { content: null, reasoning_content: 'Hm' } }),
      chunk({ delta: { reasoning: { field: 'reasoning_content', text: 'Hm' } } }),
    ],
    [choice({ delta: { reasoning: 'Hm' } }), chunk({ delta: { reasoning: { field: 'reasoning', text: 'Hm' } } })],
    [choice({ delta: {}, finish_reason: 'stop' }), chunk({ finish: 'stop' })],
    [
      choice({ message: { content: 'All' }, finish_reason: 'stop' }),
      chunk({ delta: { content: 'All' }, finish: 'stop' }),
    ],
    [
      call({ index: 1, id: 'c', type: 'function', function: { name: 'f', arguments: '' } }),
      piece({ index: 1, id: 'c', name: 'f', arguments: '' }),
    ],
    [call({ index: 1, function: { arguments: '{"a"' } }), piece({ index: 1, arguments: '{"a"' })],
    [
      call({ id: '', function: { name: 'f', arguments: { a: 1 } } }),
      piece({ index: 0, name: 'f', arguments: '{"a":1}' }),
    ],
    [
      { model: 'm', choices: [], usage: { prompt_tokens: 1, completion_tokens: 2, total_tokens: 3 } },
      chunk({ usage: { inputTokens: 1, outputTokens: 2, totalTokens: 3, model: 'm' } }),
    ],
    [
      { choices: [], usage: { prompt_tokens: 1, completion_tokens: 2 } },
      chunk({ usage: { inputTokens: 1, outputTokens: 2, totalTokens: 3 } }),
    ],
    [{ choices: [], usage: null }, { type: 'other' }],
    [{ choices: [], usage: { prompt_tokens: 'a' } }, { type: 'other' }],
    [{ choices: [{ index: 1, delta: { content: 'x' } }] }, { type: 'other' }],
    [{ choices: [null, 7, 'x'] }, { type: 'other' }],
    [{ choices: {} }, { type: 'other' }],
    [{ object: 'ping' }, { type: 'other' }],
    [choice({ delta: { content: 7, reasoning_content: [], tool_calls: [null, 7, {}] }, finish_reason: {} }), chunk({})],
    [choice({ delta: 'x' }), chunk({})],
    [null, { type: 'other' }],
    ['x', { type: 'other' }],
    [[], { type: 'other' }],
    [{ error: { message: 'No.', code: 'c' } }, { type: 'error', failure: { message: 'No.', code: 'c' } }],
    [{ error: 'No.' }, { type: 'error', failure: { message: 'No.' } }],
    [{ error: null, ...(choice({ delta: { content: 'Hi' } }) as object) }, chunk({ delta: { content: 'Hi' } })],
  ])('%j is understood', (frame, understood) => {
    expect(decodeFrame({ data: JSON.stringify(frame) })).toEqual(understood)
  })

  it.each(['', 'not json', '{"choices":', '[DONE', 'DONE'])('%j is no chunk and breaks nothing', (text) => {
    expect(decodeFrame({ data: text })).toEqual({ type: 'other' })
  })

  it.each(['[DONE]', ' [DONE]'])('%j is the end', (text) => {
    expect(decodeFrame({ data: text })).toEqual({ type: 'done' })
  })

  it('of the event `error` is one, whatever its form', () => {
    expect(decodeFrame({ event: 'error', data: '{"message":"No.","code":500}' })).toEqual({
      type: 'error',
      failure: { message: 'No.', code: '500' },
    })
  })
})

describe('calls', () => {
  it.each<[string, OpenaiCallDelta[], [string | undefined, string, string][]]>([
    [
      'by their index',
      [
        { index: 0, id: 'a', name: 'f', arguments: '' },
        { index: 0, arguments: '{"x":' },
        { index: 1, id: 'b', name: 'g' },
        { index: 0, arguments: '1}' },
        { index: 1, arguments: '{}' },
      ],
      [
        ['a', 'f', '{"x":1}'],
        ['b', 'g', '{}'],
      ],
    ],
    [
      'by their ids, where every index is 0',
      [
        { index: 0, id: 'a', name: 'f', arguments: '{}' },
        { index: 0, id: 'b', name: 'f', arguments: '{"x"' },
        { index: 0, arguments: ':1}' },
      ],
      [
        ['a', 'f', '{}'],
        ['b', 'f', '{"x":1}'],
      ],
    ],
    [
      'with id and name in every piece',
      [
        { index: 0, id: 'a', name: 'f', arguments: '{' },
        { index: 0, id: 'a', name: 'f', arguments: '}' },
      ],
      [['a', 'f', '{}']],
    ],
    ['without ids', [{ index: 0, name: 'f', arguments: '{}' }], [[undefined, 'f', '{}']]],
    ['unless they have no name', [{ index: 0, id: 'a', arguments: '{}' }], []],
  ])('are put together %s', (_, pieces, expected) => {
    const collector = new CallCollector()
    for (const each of pieces) collector.add([each])
    expect(collector.calls.map((each) => [each.id, each.name, each.arguments])).toEqual(expected)
  })
})

describe('an error', () => {
  it.each<[Json, OpenaiFailure]>([
    [
      { error: { message: 'No.', type: 'invalid_request_error', param: null, code: null } },
      { message: 'No.', type: 'invalid_request_error' },
    ],
    [{ error: 'No.' }, { message: 'No.' }],
    [
      { message: 'No.', code: 20012 },
      { message: 'No.', code: '20012' },
    ],
    [
      { object: 'error', message: 'No.', type: 'NotFoundError' },
      { message: 'No.', type: 'NotFoundError' },
    ],
    [{ detail: 'Not Found' }, { message: 'Not Found' }],
    [{ error: { message: 7, code: {} } }, {}],
    [null, {}],
    ['No.', {}],
  ])('%j is read', (body, failure) => {
    expect(decodeFailure(body)).toEqual(failure)
  })

  it.each<[OpenaiFailure, string, boolean]>([
    [{ status: 401 }, 'upstream_auth', false],
    [{ status: 403, code: 'x' }, 'upstream_auth', false],
    [{ status: 402 }, 'upstream_quota', false],
    [{ status: 429 }, 'upstream_rate_limited', true],
    [{ status: 429, type: 'invalid_request_error' }, 'upstream_rate_limited', true],
    [{ status: 429, type: 'insufficient_quota' }, 'upstream_quota', false],
    [{ status: 400, code: 'content_filter' }, 'upstream_refused_content', false],
    [{ status: 404, code: 'model_not_found' }, 'upstream_rejected', false],
    [{ status: 413 }, 'upstream_rejected', false],
    [{ status: 500, type: 'invalid_request_error' }, 'upstream_failed', false],
    [{ status: 503 }, 'bot_unavailable', false],
    [{ status: 503, retryAfterMs: 1000 }, 'bot_unavailable', true],
    [{ status: 200 }, 'upstream_failed', false],
    [{ code: 'rate_limit_exceeded' }, 'upstream_rate_limited', false],
    [{ code: '429' }, 'upstream_rate_limited', false],
    [{ code: '401' }, 'upstream_auth', false],
    [{ code: 'toString', type: 'constructor' }, 'upstream_failed', false],
    [{}, 'upstream_failed', false],
  ])('%j means', (failure, code, notStarted) => {
    const error = openaiError({ ...failure, message: 'the words of the vendor' })
    expect([error.code, error.notStarted]).toEqual([code, notStarted])
    expect(JSON.stringify(error.public())).not.toContain('vendor')
  })
})

describe('what is encoded', () => {
  const head = { id: 'chatcmpl-1', created: 1, model: 'bot' }

  it('is one line of data, whatever the model wrote', () => {
    for (const text of naughtyStrings) {
      const frame = encodeFrame(chunkObject(head, { content: text }))
      expect(frame).toMatch(/^data: [^\n\r]*\n\n$/)
      const read = decodeFrame({ data: frame.slice('data: '.length, -2) })
      expect(read).toEqual(chunk({ delta: { content: text } }))
    }
    expect(doneFrame).toBe('data: [DONE]\n\n')
  })

  it('is understood by the other half', () => {
    const calls = [{ id: 'c', name: 'f', arguments: '{}' }]
    expect(decodeFrame({ data: JSON.stringify(chunkObject(head, { calls, finish: 'tool_calls' })) })).toEqual(
      chunk({ delta: { calls: [{ index: 0, ...calls[0]! }] }, finish: 'tool_calls' }),
    )
    const usage = { inputTokens: 1, outputTokens: 2, totalTokens: 3 }
    expect(decodeFrame({ data: JSON.stringify(usageChunk(head, usage)) })).toEqual(
      chunk({ usage: { ...usage, model: 'bot' } }),
    )
    const whole = completionObject(head, { content: 'Hi', reasoning: 'Hm', calls: [], finish: 'stop', usage })
    expect(decodeFrame({ data: JSON.stringify(whole) })).toEqual(
      chunk({
        delta: { content: 'Hi', reasoning: { field: 'reasoning_content', text: 'Hm' } },
        finish: 'stop',
        usage: { ...usage, model: 'bot' },
      }),
    )
  })
})
