import { readdirSync, readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { HubError } from '../../../core/errors.ts'
import type { HubEvent } from '../../../core/events.ts'
import type { Json, JsonObject } from '../../../core/message.ts'
import { parseEvents } from '../../../core/sse.ts'
import {
  AnswerReader,
  asgardEvent,
  asgardMessage,
  consentAnswer,
  decode,
  encodeFrame,
  factKeys,
  failureOf,
  readAnswer,
  readEvent,
  templateTypes,
} from '../../../plugins/asgard/wire.ts'
import type { AsgardEventType, Place } from '../../../plugins/asgard/wire.ts'

const folder = new URL('../../fixtures/asgard/', import.meta.url)
const fixture = (name: string) => readFileSync(new URL(name, folder), 'utf8')

const run = { requestId: 'r1', namespace: 'ns', botProviderName: 'bp', customChannelId: 'c1', eventId: '1' }
const event = (eventType: string, fact: Json) => ({
  ...run,
  eventType,
  fact: { [factKeys[eventType as AsgardEventType] ?? 'later']: fact },
})
const said = (parts: JsonObject) => ({ message: { ...asgardMessage({ messageId: 'm1' }), ...parts } })
const raw = (name: string, data: Json): HubEvent => ({ type: 'raw', source: 'asgard', name, data })
const weather = {
  processId: 'p1',
  callSeq: 2,
  toolCall: { toolsetName: 'ts', toolName: 'weather', parameter: { city: 'Taipei' }, reason: '' },
}

describe('decode', () => {
  it.each<[string, JsonObject, HubEvent[]]>([
    ['asgard.run.init', {}, []],
    ['asgard.message.start', said({}), []],
    ['asgard.message.delta', said({ text: 'Hi', idx: 0 }), [{ type: 'message.delta', message: 'm1', text: 'Hi' }]],
    ['asgard.message.delta', said({ text: '', idx: 0 }), []],
    ['asgard.message.thinking.start', said({}), []],
    ['asgard.message.thinking.delta', said({ text: 'Hm' }), [{ type: 'reasoning.delta', message: 'm1', text: 'Hm' }]],
    [
      'asgard.message.thinking.complete',
      said({ text: 'Hmm' }),
      [{ type: 'reasoning.completed', message: 'm1', text: 'Hmm' }],
    ],
    ['asgard.message.canvas.start', said({}), []],
    ['asgard.message.canvas.delta', said({ text: '<p>' }), [{ type: 'canvas.delta', message: 'm1', text: '<p>' }]],
    [
      'asgard.message.canvas.complete',
      said({ template: { type: 'CANVAS', canvas: { html: '<p>' } } }),
      [
        {
          type: 'canvas.completed',
          message: 'm1',
          text: '<p>',
          template: { type: 'CANVAS', canvas: { html: '<p>' } },
        },
      ],
    ],
    [
      'asgard.message.canvas.complete',
      said({ text: '<p>' }),
      [{ type: 'canvas.completed', message: 'm1', text: '<p>' }],
    ],
    [
      'asgard.tool_call.start',
      weather,
      [{ type: 'tool.started', call: 'p1-2', toolset: 'ts', tool: 'weather', input: { city: 'Taipei' } }],
    ],
    [
      'asgard.tool_call.start',
      { ...weather, toolCall: { toolsetName: '', toolName: 'bash', parameter: null, reason: '' } },
      [{ type: 'tool.started', call: 'p1-2', tool: 'bash', input: null }],
    ],
    [
      'asgard.tool_call.complete',
      { ...weather, toolCallResult: { celsius: 24 } },
      [{ type: 'tool.completed', call: 'p1-2', output: { celsius: 24 }, isError: false }],
    ],
    [
      'asgard.tool_call.complete',
      { ...weather, toolCallResult: 'no', isError: true },
      [{ type: 'tool.completed', call: 'p1-2', output: 'no', isError: true }],
    ],
    [
      'asgard.tool_call.consent',
      {
        processId: 'p1',
        pendingCalls: [
          {
            toolCallId: 'c1',
            toolsetName: 'ts',
            toolName: 'mail',
            parameter: {},
            reason: 'why',
            alreadyAllowed: true,
          },
          { toolCallId: 'c2', toolsetName: '', toolName: 'note', parameter: 1, reason: '', alreadyAllowed: false },
        ],
      },
      [
        {
          type: 'consent.requested',
          calls: [
            { call: 'c1', toolset: 'ts', tool: 'mail', input: {}, reason: 'why', alreadyAllowed: true },
            { call: 'c2', tool: 'note', input: 1, alreadyAllowed: false },
          ],
        },
      ],
    ],
    [
      'asgard.completion_model.usage',
      { completionModelName: 'gpt', inputTokens: 1, outputTokens: 2, totalTokens: 3 },
      [{ type: 'usage', inputTokens: 1, outputTokens: 2, totalTokens: 3, model: 'gpt' }],
    ],
    [
      'asgard.completion_model.usage',
      { inputTokens: 1, outputTokens: 2 },
      [{ type: 'usage', inputTokens: 1, outputTokens: 2, totalTokens: 3 }],
    ],
    [
      'asgard.sandbox.launch',
      { sandboxName: 's', blueprintName: 'b' },
      [{ type: 'sandbox.started', name: 's', blueprint: 'b' }],
    ],
    [
      'asgard.sandbox.ready',
      { sandboxName: 's', blueprintName: 'b' },
      [{ type: 'sandbox.ready', name: 's', blueprint: 'b' }],
    ],
    [
      'asgard.subagent.start',
      { agentId: 'a', parentToolUseId: 't', subagentType: 'k', description: 'd' },
      [{ type: 'agent.started', agent: 'a', parent: 't', kind: 'k', description: 'd' }],
    ],
    [
      'asgard.subagent.complete',
      { agentId: 'a', parentToolUseId: 't', status: 'failed', summary: 's' },
      [{ type: 'agent.completed', agent: 'a', status: 'failed', summary: 's' }],
    ],
    ['asgard.channel.title.update', { title: 'T' }, [{ type: 'conversation.updated', title: 'T' }]],
    ['asgard.channel.status.update', { status: 'COMPLETED' }, [{ type: 'conversation.updated', status: 'COMPLETED' }]],
    ['asgard.prompt_suggestion', { suggestion: 'Next?' }, [{ type: 'suggestion', text: 'Next?' }]],
  ])('says %s in words of the hub', (type, fact, events) => {
    expect(decode(event(type, fact))).toEqual({ events })
  })

  it.each<[string, Json]>([
    ['asgard.process.start', { processId: 'p', task: {} }],
    ['asgard.process.complete', { processId: 'p', taskResult: {} }],
    ['asgard.message.user', { messageId: 'u', text: 'Hi' }],
    ['asgard.message.feedback', { messageId: 'f', targetMessageId: 'm', verdict: 'GOOD' }],
    ['asgard.message.delta', said({ text: 'aside', parentToolUseId: 't' })],
    ['asgard.message.complete', said({ text: 'debug', isDebug: true })],
    ['asgard.message.thinking.delta', said({ text: 'aside', parentToolUseId: 't' })],
    // Of a wrong shape.
    ['asgard.message.delta', said({ messageId: 5, text: 'Hi' })],
    ['asgard.message.complete', 'text'],
    ['asgard.message.complete', { message: [] }],
    ['asgard.tool_call.start', { ...weather, callSeq: '2' }],
    ['asgard.tool_call.start', { ...weather, toolCall: 'weather' }],
    ['asgard.tool_call.consent', { pendingCalls: [] }],
    ['asgard.tool_call.consent', { pendingCalls: { toolCallId: 'c' } }],
    ['asgard.completion_model.usage', { inputTokens: 'many', outputTokens: 1 }],
    ['asgard.sandbox.launch', { sandboxName: 1 }],
    ['asgard.subagent.start', {}],
    ['asgard.channel.title.update', { title: null }],
    ['asgard.prompt_suggestion', { suggestion: '' }],
    ['asgard.of.a.later.version', { any: 'thing' }],
  ])('keeps %s %j as it is when the hub has no word for it', (type, fact) => {
    const source = event(type, fact)
    expect(decode(source)).toEqual({ events: [raw(type, source.fact)] })
  })

  it('leaves out the empty facts of a raw event', () => {
    const { fact, ...rest } = asgardEvent('asgard.process.start', { processId: 'p', task: 1 }, run)
    expect(fact['runInit']).toBeNull()
    expect(decode({ ...rest, fact }).events).toEqual([
      raw('asgard.process.start', { processStart: { processId: 'p', task: 1 } }),
    ])
  })

  it.each<[string, JsonObject, JsonObject]>([
    ['only text', { text: 'Hi', template: { type: 'TEXT', text: 'Hi' } }, { text: 'Hi' }],
    ['text only in the template', { template: { type: 'TEXT', text: 'Hi' } }, { text: 'Hi' }],
    [
      'empty extras',
      { text: 'Hi', template: { type: 'TEXT', text: 'Hi', quickReplies: [], references: null, description: '' } },
      { text: 'Hi' },
    ],
    ['no template', { text: 'Hi' }, { text: 'Hi' }],
    [
      'quick replies',
      { text: 'Hi', template: { type: 'TEXT', text: 'Hi', quickReplies: [{ text: 'Yes' }] } },
      { text: 'Hi', template: { type: 'TEXT', text: 'Hi', quickReplies: [{ text: 'Yes' }] } },
    ],
    [
      'references',
      { text: 'Hi', template: { type: 'TEXT', text: 'Hi', references: [{ title: 'A' }] } },
      { text: 'Hi', template: { type: 'TEXT', text: 'Hi', references: [{ title: 'A' }] } },
    ],
    [
      'a hint',
      { text: 'Hi', template: { type: 'HINT', text: 'Hi' } },
      { text: 'Hi', template: { type: 'HINT', text: 'Hi' } },
    ],
    ['a payload', { text: 'Hi', payload: { a: 1 } }, { text: 'Hi', payload: { a: 1 } }],
    ['an empty payload', { text: 'Hi', payload: {} }, { text: 'Hi' }],
    ['text of a wrong type', { text: 7, template: 'none' }, { text: '' }],
  ])('completes a message with %s', (_, parts, rest) => {
    expect(decode(event('asgard.message.complete', said(parts))).events).toEqual([
      { type: 'message.completed', message: 'm1', ...rest },
    ])
  })

  it.each(templateTypes.filter((type) => type !== 'TEXT'))('keeps a %s template whole', (type) => {
    const template = { type, title: 'T', unknown: [{ deep: 1 }] }
    expect(decode(event('asgard.message.complete', said({ text: 'Hi', template }))).events).toEqual([
      { type: 'message.completed', message: 'm1', text: 'Hi', template },
    ])
  })

  it('ends with run.done', () => {
    expect(decode(event('asgard.run.done', {}))).toEqual({ events: [], end: 'done' })
  })

  it.each<[JsonObject, object]>([
    [{ message: 'a secret reason', code: 'INTERNAL', inner: 'deep' }, { code: 'INTERNAL' }],
    [{ message: 'a secret reason: deep', code: 'not a code, but a sentence' }, {}],
    [{ message: 'a secret reason: deep' }, {}],
  ])('fails with run.error %j, its text only in the cause', (error, upstream) => {
    const { events, end } = decode(event('asgard.run.error', { error }))
    expect(events).toEqual([])
    expect(end).toMatchObject({ code: 'upstream_failed', notStarted: false, upstream })
    expect(end).toHaveProperty('cause.message', 'a secret reason: deep')
    expect(JSON.stringify((end as HubError).public())).not.toContain('secret')
  })
})

describe('failureOf', () => {
  const failed = (status: number, body = '', headers = {}) =>
    failureOf({ status, body, headers: new Headers(headers) }, Date.parse('2026-01-01T00:00:00Z'))
  const envelope = (errorCode: string) =>
    JSON.stringify({ isSuccess: false, data: null, error: 'vendor text', errorCode })

  it.each<[string, HubError, object]>([
    ['401', failed(401), { code: 'upstream_auth', notStarted: false, upstream: { status: 401 } }],
    ['403', failed(403), { code: 'upstream_auth' }],
    ['402', failed(402), { code: 'upstream_quota' }],
    ['400', failed(400, envelope('INVALID_ARGUMENT')), { code: 'upstream_rejected' }],
    ['404', failed(404, envelope('CHANNEL_NOT_FOUND')), { code: 'upstream_rejected' }],
    ['409', failed(409), { code: 'upstream_conflict', notStarted: false }],
    ['412', failed(412, envelope('FAILED_PRECONDITION')), { code: 'upstream_rejected', notStarted: false }],
    ['429 in seconds', failed(429, '', { 'retry-after': '3' }), { code: 'upstream_rate_limited', retryAfterMs: 3000 }],
    ['429', failed(429), { code: 'upstream_rate_limited', notStarted: true, retryAfterMs: undefined }],
    [
      '503 with a date',
      failed(503, '', { 'retry-after': 'Thu, 01 Jan 2026 00:00:07 GMT' }),
      { code: 'bot_unavailable', notStarted: true, retryAfterMs: 7000 },
    ],
    ['503', failed(503), { code: 'upstream_failed', notStarted: false }],
    [
      '500',
      failed(500, envelope('INTERNAL')),
      { code: 'upstream_failed', upstream: { status: 500, code: 'INTERNAL' } },
    ],
    ['a redirect', failed(302), { code: 'upstream_failed' }],
    ['a refusal with 200', failed(200, envelope('INVALID_ARGUMENT')), { code: 'upstream_rejected' }],
    ['an error with 200', failed(200, envelope('INTERNAL')), { code: 'upstream_failed' }],
    ['HTML with 200', failed(200, '<h1>'), { code: 'upstream_failed', upstream: { status: 200 } }],
    ['a code that is a sentence', failed(400, envelope('no, not this')), { upstream: { status: 400 } }],
  ])('names %s', (_, error, expected) => {
    expect(error).toBeInstanceOf(HubError)
    expect(error).toMatchObject(expected)
  })

  it('keeps the vendor text away from clients', () => {
    const error = failed(400, envelope('INVALID_ARGUMENT'))
    expect(error.public()).toMatchObject({ upstream: { status: 400, code: 'INVALID_ARGUMENT' } })
    expect(JSON.stringify(error.public())).not.toContain('vendor text')
    expect(error.cause).toHaveProperty('message', 'vendor text')
  })
})

describe('AnswerReader', () => {
  const delta = (text: string, idx: number | null, messageId = 'm1') =>
    event('asgard.message.delta', said({ messageId, text, idx }))
  const complete = (text: string, messageId = 'm1') => event('asgard.message.complete', said({ messageId, text }))
  const user = (customMessageId: string) =>
    event('asgard.message.user', { messageId: 'u', text: 'Hi', customMessageId })
  const old = <T extends object>(source: T) => ({ ...source, requestId: '' })
  const resumed = 'resumed'
  const behind = (lastEventId: string): Place => ({ lastEventId })
  type Script = readonly (ReturnType<typeof event> | typeof resumed)[]

  const read = (
    script: Script,
    turn: Partial<ConstructorParameters<typeof AnswerReader>[0]> = {},
    place: Place = behind('3'),
  ) => {
    const reader = new AnswerReader({ customMessageId: 'ours', ...turn })
    const events = script.flatMap((step) => {
      if (step !== resumed) return reader.read(step).events
      reader.resubscribed(place, 'r1')
      return []
    })
    return { reader, words: events.map((each) => ('text' in each ? `${each.type} ${each.text}` : each.type)) }
  }

  it.each<[string, Script, string[]]>([
    [
      'a whole message',
      [delta('a', 0), delta('b', 1), complete('ab')],
      ['message.delta a', 'message.delta b', 'message.completed ab'],
    ],
    ['a complete alone', [complete('ab')], ['message.delta ab', 'message.completed ab']],
    [
      'a rest that only the complete has',
      [delta('a', 0), complete('abc')],
      ['message.delta a', 'message.delta bc', 'message.completed abc'],
    ],
    ['a complete that says otherwise', [delta('a', 0), complete('xyz')], ['message.delta a', 'message.completed xyz']],
    [
      'what comes after the complete',
      [complete('a'), delta('b', 1), complete('a')],
      ['message.delta a', 'message.completed a'],
    ],
    [
      'numbers that mean nothing',
      [delta('a', 5), delta('b', 5), complete('ab')],
      ['message.delta a', 'message.delta b', 'message.completed ab'],
    ],
    [
      'replayed deltas',
      [delta('a', 0), delta('b', 1), resumed, delta('a', 0), delta('b', 1), delta('c', 2), complete('abc')],
      ['message.delta a', 'message.delta b', 'message.delta c', 'message.completed abc'],
    ],
    [
      'a gap',
      [delta('a', 0), resumed, delta('c', 2), delta('d', 3), complete('abcd')],
      ['message.delta a', 'message.delta bcd', 'message.completed abcd'],
    ],
    [
      'deltas that go on',
      [delta('a', 0), resumed, delta('b', 1), complete('ab')],
      ['message.delta a', 'message.delta b', 'message.completed ab'],
    ],
    [
      'deltas without numbers',
      [delta('a', null), resumed, delta('c', null), complete('abc')],
      ['message.delta a', 'message.delta bc', 'message.completed abc'],
    ],
    [
      'a message that began during the cut',
      [resumed, delta('b', 1), complete('ab')],
      ['message.delta ab', 'message.completed ab'],
    ],
    [
      'a replayed complete',
      [delta('a', 0), complete('a'), resumed, complete('a')],
      ['message.delta a', 'message.completed a'],
    ],
    [
      'two messages',
      [delta('a', 0, 'm1'), delta('b', 0, 'm2'), complete('b', 'm2'), complete('a', 'm1')],
      ['message.delta a', 'message.delta b', 'message.completed b', 'message.completed a'],
    ],
  ])('neither repeats nor loses a word of %s', (_, script, words) => {
    expect(read(script).words).toEqual(words)
  })

  it('goes on behind what an earlier process has shown', () => {
    const shown = [
      { id: 'm1', text: 'ab', completed: true },
      { id: 'm2', text: 'c', completed: false },
    ]
    const { words, reader } = read([resumed, complete('ab', 'm1'), delta('e', 2, 'm2'), complete('cde', 'm2')], {
      shown,
    })
    expect(words).toEqual(['message.delta de', 'message.completed cde'])
    expect(reader.incomplete).toBe(false)
  })

  it('does not repeat a thought that an earlier process may have shown', () => {
    const thought = event('asgard.message.thinking.complete', said({ messageId: 't1', text: 'Hm' }))
    const shown = [{ id: 'm1', text: 'a', completed: false }]
    expect(read([resumed, thought], { shown }).words).toEqual(['reasoning.completed Hm'])
    expect(read([thought], { shown }).words).toEqual(['reasoning.delta Hm', 'reasoning.completed Hm'])
  })

  it('knows that a message was begun and not completed', () => {
    expect(read([delta('a', 0)]).reader.incomplete).toBe(true)
    expect(read([delta('a', 0), complete('a')]).reader.incomplete).toBe(false)
  })

  it('passes over the history before our own message', () => {
    const script = [
      resumed,
      old(user('earlier')),
      old(complete('old', 'm0')),
      old(user('ours')),
      old(complete('new')),
    ] as const
    const { words, reader } = read(script, {}, behind('0'))
    expect(words).toEqual(['raw', 'message.delta new', 'message.completed new'])
    expect(reader.searching).toBe(false)
  })

  it('passes over the history before a live event of our run', () => {
    const { words } = read([resumed, old(complete('old', 'm0')), delta('a', 0)], {}, behind('0'))
    expect(words).toEqual(['message.delta a'])
  })

  it('says when our message was not in the replay', () => {
    const script = [
      resumed,
      old(user('earlier')),
      old(complete('old', 'm0')),
      old(event('asgard.run.done', {})),
    ] as const
    const { words, reader } = read(script, {}, behind('0'))
    expect(words).toEqual([])
    expect(reader.searching).toBe(true)
  })

  describe('of a replay', () => {
    const replay = (reader: AnswerReader, script: readonly ReturnType<typeof event>[]) => {
      reader.resubscribed('replay', undefined)
      return script.flatMap((each) => reader.read(each).events).filter(({ type }) => type !== 'raw')
    }
    const earlier = [old(user('earlier')), old(complete('old', 'm0'))]

    it('takes what follows our own message, and nothing of other turns', () => {
      const reader = new AnswerReader({ customMessageId: 'ours' })
      const events = replay(reader, [...earlier, old(user('ours')), old(complete('new')), delta('live', 0, 'm2')])
      expect(events).toMatchObject([{ text: 'new' }, { text: 'new' }, { text: 'live' }])
      expect(reader.searching).toBe(false)
    })

    it('takes nothing of a run that may be another one', () => {
      const reader = new AnswerReader({ customMessageId: 'ours' })
      expect(replay(reader, [...earlier, delta('live', 0), complete('live')])).toEqual([])
      expect(reader.searching).toBe(true)
    })

    it('begins to look anew with every one', () => {
      const reader = new AnswerReader({ customMessageId: 'ours' })
      const events = [
        ...replay(reader, [...earlier, old(user('ours')), old(complete('one'))]),
        ...replay(reader, [...earlier, old(user('ours')), old(complete('one')), old(complete('two', 'm2'))]),
      ]
      expect(events.map((each) => each.type === 'message.completed' && each.text)).toEqual([false, 'one', false, 'two'])
    })

    it('takes no tool call and no question a second time', () => {
      const pendingCalls = [{ toolCallId: 'c1', toolName: 'mail', parameter: {} }]
      const script = [
        old(user('ours')),
        event('asgard.tool_call.complete', { ...weather, toolCallResult: 1 }),
        event('asgard.tool_call.consent', { processId: 'p1', pendingCalls }),
      ]
      const reader = new AnswerReader({ customMessageId: 'ours' })
      const first = replay(reader, script)
      expect(first.map(({ type }) => type)).toEqual(['tool.started', 'tool.completed', 'consent.requested'])
      expect(
        replay(reader, [...script.slice(0, 1), event('asgard.tool_call.start', weather), ...script.slice(1)]),
      ).toEqual([])
    })
  })

  it('begins a tool call that only its end was heard of, and begins none twice', () => {
    const ended = { ...weather, toolCallResult: 1 }
    const script = [event('asgard.tool_call.start', weather), event('asgard.tool_call.complete', ended)]
    expect(read(script).words).toEqual(['tool.started', 'tool.completed'])
    expect(read(script.slice(1)).words).toEqual(['tool.started', 'tool.completed'])
    expect(read(script, { openTools: ['p1-2'] }).words).toEqual(['tool.completed'])
  })
})

describe('the documented samples', () => {
  const delta = (text: string): HubEvent => ({ type: 'message.delta', message: '1834828082242916352', text })
  const answer: HubEvent[] = [
    delta('目前'),
    delta('台'),
    { type: 'message.completed', message: '1834828082242916352', text: '目前台' },
  ]
  const consent: HubEvent = {
    type: 'consent.requested',
    calls: [
      {
        call: 'call-1',
        toolset: 'ts',
        tool: 'send_mail',
        input: { to: 'a@b.c' },
        reason: '…',
        alreadyAllowed: false,
      },
    ],
  }
  const user = expect.objectContaining({ type: 'raw', name: 'asgard.message.user' }) as HubEvent
  const completed = (message: string, text: string): HubEvent => ({ type: 'message.completed', message, text })
  const samples: Record<string, { ids: (string | undefined)[]; events: HubEvent[]; end?: unknown }> = {
    'S1.sse': { ids: ['1'], events: [user] },
    'S2.sse': { ids: ['1', undefined, '1'], events: [delta('目前'), delta('台')], end: 'done' },
    'S3.sse': { ids: [undefined], events: [] },
    'S4.sse': { ids: [undefined, undefined], events: [delta('目前'), delta('台')] },
    'S5.sse': {
      ids: [undefined, undefined],
      events: ['start', 'complete'].map(
        (step) => expect.objectContaining({ type: 'raw', name: `asgard.process.${step}` }) as HubEvent,
      ),
    },
    'S9.sse': { ids: ['0', undefined, undefined, undefined, '2', '2'], events: answer, end: 'done' },
    'S10.sse': {
      ids: ['1', '2', '3', '4', '4'],
      events: [user, completed('m1', '1'), user, completed('m2', '2')],
      end: 'done',
    },
    'S10-paused.sse': { ids: ['1', '1', undefined, '1'], events: [user, consent], end: 'done' },
    'S11.sse': { ids: [undefined], events: [consent] },
    'S12.sse': {
      ids: [undefined],
      events: [],
      end: expect.objectContaining({ code: 'upstream_failed', upstream: { code: 'INVALID_ARGUMENT' } }),
    },
    'S13.sse': { ids: [undefined, undefined, undefined], events: [delta('目前'), answer[2]!], end: 'done' },
  }

  it('are all here', () => {
    expect(
      readdirSync(folder)
        .filter((name) => name.endsWith('.sse'))
        .toSorted(),
    ).toEqual(Object.keys(samples).toSorted())
  })

  it.each(Object.entries(samples))('%s says what is written here', async (name, { ids, events, end }) => {
    const bytes = async function* () {
      yield readFileSync(new URL(name, folder))
    }
    const frames = await Array.fromAsync(parseEvents(bytes()))
    const decoded = frames.map(({ data }) => decode(readEvent(data)))
    expect(frames.map(({ id }) => id)).toEqual(ids)
    expect(decoded.flatMap((each) => each.events)).toEqual(events)
    expect(decoded.at(-1)?.end).toEqual(end)
  })

  it.each([
    ['S6-blob.json', { isSuccess: true, error: null, errorCode: null }],
    ['S8-metadata.json', { isSuccess: true }],
    ['S8-metadata-404.json', { isSuccess: false, error: 'channel not found', errorCode: 'CHANNEL_NOT_FOUND' }],
    ['S8-feedback-404.json', { isSuccess: false, data: null, errorCode: 'MESSAGE_NOT_FOUND' }],
    ['S8-dispatch-202.json', { data: { requestId: 'req-9', customChannelId: 'inv-42' } }],
    ['S8-dispatch-400.json', { isSuccess: false, errorCode: null }],
  ])('%s is read as an answer', (name, expected) => {
    expect(readAnswer(fixture(name))).toMatchObject(expected)
  })

  it('has the consent answer as the provider writes it', () => {
    const sample = JSON.parse(fixture('S11-answer.json')) as { toolCallConsents: unknown }
    expect([consentAnswer({ call: 'call-1', result: 'allow_once' })]).toEqual(sample.toolCallConsents)
  })
})

describe('encoding', () => {
  it.each([
    ['allow_once', 'ALLOW_ONCE', ''],
    ['allow_always', 'ALLOW_ALWAYS', ''],
    ['deny_once', 'DENY_ONCE', 'not now'],
  ] as const)('answers %s as %s', (result, upstream, denyReason) => {
    expect(consentAnswer({ call: 'c', result, reason: 'not now' })).toEqual({
      toolCallId: 'c',
      result: upstream,
      denyReason,
    })
  })

  it('writes every fact key, all null but its own', () => {
    const { fact } = asgardEvent('asgard.run.done', {}, run)
    expect(Object.keys(fact)).toEqual(Object.values(factKeys))
    expect(Object.entries(fact).filter(([, value]) => value !== null)).toEqual([['runDone', {}]])
  })

  it.each([undefined, '7'])('frames an event with cursor %s so that it reads back the same', async (id) => {
    const text = 'a\r\nb\u2028data: {}\n\nid: 9\n\n'
    const sent = asgardEvent('asgard.message.delta', { message: asgardMessage({ messageId: 'm', text, idx: 0 }) }, run)
    const bytes = async function* () {
      yield new TextEncoder().encode(encodeFrame(sent, id))
    }
    const frames = await Array.fromAsync(parseEvents(bytes()))
    expect(frames).toHaveLength(1)
    expect(frames[0]).toMatchObject({ event: 'asgard.message.delta' })
    expect(frames[0]!.id).toBe(id)
    expect(readEvent(frames[0]!.data)).toEqual(sent)
  })

  it.each(['', 'null', '7', '[]', '{', '{"eventType":9,"fact":"x"}'])('reads %j without an error', (text) => {
    expect(readEvent(text)).toMatchObject({ eventType: '', requestId: '', fact: {} })
  })
})
