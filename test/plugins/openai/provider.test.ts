import { readFileSync } from 'node:fs'
import { createServer } from 'node:http'
import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import { afterEach, describe, expect, it, vi } from 'vitest'
import { z } from 'zod'
import { HubError } from '../../../core/errors.ts'
import type { HubEvent } from '../../../core/events.ts'
import type { Json, JsonObject } from '../../../core/message.ts'
import { tool } from '../../../core/tools.ts'
import type { LocalTools } from '../../../core/tools.ts'
import type { Turn } from '../../../core/turn.ts'
import { checkConfig, consent, defineConfig, openai, rest } from '../../../index.ts'
import { buildProvider, collect, pluginContext, turnOf } from '../../fakes/turn.ts'
import { startHub } from '../../support/hub.ts'
import { answers, cursorAfter, failure, rig, spoken, visible } from './rig.ts'

const weather = tool({
  description: 'The weather of a city.',
  parameters: z.object({ city: z.string() }),
  run: ({ city }) => `Sunny in ${city}.`,
})

describe('an answer', () => {
  it('comes in pieces, and its cost behind them', async () => {
    await using model = await rig()
    const { events, error } = await collect(model.provider.respond(turnOf('my name is Ada')))
    expect(error).toBeUndefined()
    const text = 'Nice to meet you, Ada. I will remember that.'
    expect(events).toEqual([
      { type: 'message.delta', message: 'answer-1', text: 'Nice to ' },
      { type: 'message.delta', message: 'answer-1', text: 'meet you, ' },
      { type: 'message.delta', message: 'answer-1', text: 'Ada. ' },
      { type: 'message.delta', message: 'answer-1', text: 'I will remember that.' },
      { type: 'message.completed', message: 'answer-1', text },
      { type: 'usage', inputTokens: 10, outputTokens: 5, totalTokens: 15, model: 'simulated-1' },
    ])
  })

  it.each<[string, string, string]>([
    ['openai-words', 'Hello 世界 🌏', ''],
    ['azure-filters', 'Hi there', ''],
    ['deepseek-reasoning', '你好', '嗯，好。'],
    ['openrouter-comments', 'Yes.', 'Hm.'],
    ['ollama-words', 'Hello.', ''],
    ['no-done-crlf', 'One two.', ''],
    ['openai-length', '', ''],
    ['error-inside', '', ''],
  ])('is what a server means that sends %s.sse', async (name, text, thoughts) => {
    const body = readFileSync(new URL(`../../fixtures/openai/${name}.sse`, import.meta.url))
    const provider = await buildProvider(
      openai({ model: 'm', baseUrl: 'http://server.invalid/v1' }),
      pluginContext({ fetch: async () => new Response(body, { headers: { 'content-type': 'text/event-stream' } }) }),
    )
    const { events, error } = await collect(provider.respond(turnOf('hello')))
    expect(answers(events)).toEqual(text === '' ? [] : [text])
    expect(error === undefined).toBe(text !== '')
    const thought = events.flatMap((event) => (event.type === 'reasoning.completed' ? [event.text] : []))
    expect(thought).toEqual(thoughts === '' ? [] : [thoughts])
  })

  it.each(['!split', '!crlf', '!bom', '!no-done', '!not-streamed'])('is read however it is sent: %s', async (text) => {
    await using model = await rig()
    const { events, error } = await collect(model.provider.respond(turnOf(text)))
    expect(error).toBeUndefined()
    expect(answers(events)).toEqual(['Words, 字 and 🙂.'])
  })

  it.each([
    ['!unknown-frames', 'Still here.'],
    ['!wrong-types', 'Still here.'],
    ['!done-only', 'All that there is.'],
    ['!after-end', 'The end.'],
    ['!cut-behind-end', 'The end.'],
    ['!open-end', 'The end.'],
    ['!refusal', 'I cannot help with that.'],
  ])('is whole with its end, and with nothing that is none of it: %s', async (text, answer) => {
    await using model = await rig()
    const { events, error } = await collect(model.provider.respond(turnOf(text)))
    expect(error).toBeUndefined()
    expect([spoken(events), answers(events)]).toEqual([answer, [answer]])
  })

  it.each([
    ['/think', 'The question is short, so the answer can be short too.', 'Forty-two.'],
    ['!reasoning', 'Hm. So be it.', 'It is so.'],
  ])('has its thoughts apart from its words: %s', async (text, thought, answer) => {
    await using model = await rig()
    const { events } = await collect(model.provider.respond(turnOf(text)))
    const thoughts = events.filter(({ type }) => type.startsWith('reasoning.'))
    expect(thoughts.at(-1)).toEqual({ type: 'reasoning.completed', message: 'thoughts-1', text: thought })
    expect(events.indexOf(thoughts.at(-1)!)).toBeLessThan(events.findIndex(({ type }) => type === 'message.delta'))
    expect(answers(events)).toEqual([answer])
  })

  it('costs what its server said last', async () => {
    await using model = await rig()
    const { events } = await collect(model.provider.respond(turnOf('!continuous-usage')))
    expect(events.filter(({ type }) => type === 'usage')).toEqual([
      { type: 'usage', inputTokens: 10, outputTokens: 5, totalTokens: 15, model: 'simulated-1' },
    ])
  })

  it.each<[string, string, object]>([
    ['!length', 'As far as it goes', { code: 'answer_cut_short', upstream: { code: 'length' } }],
    ['!content-filter', 'What I ', { code: 'upstream_refused_content', upstream: { code: 'content_filter' } }],
    ['!error-event', 'So far ', { code: 'upstream_rate_limited', upstream: { code: 'rate_limit_exceeded' } }],
    ['!error-number', '', { code: 'upstream_failed', upstream: { code: '502' } }],
    ['!error-text', '', { code: 'upstream_failed' }],
    ['/fail', 'This answer is going to fail ', { code: 'upstream_failed' }],
    ['!drop', 'The first half, ', { code: 'upstream_cut' }],
    ['!half-event', 'The first half, ', { code: 'upstream_cut' }],
    ['/cut', 'This half arrives on the stream, ', { code: 'upstream_cut' }],
    ['!idle', 'The first half, ', { code: 'upstream_silent' }],
    ['!oversized', 'Small. ', { code: 'answer_too_large' }],
  ])('that is not whole is no answer, and never asked for again: %s', async (text, said, expected) => {
    await using model = await rig({ idleTimeoutMs: text === '!idle' ? 100 : 10_000 })
    const { events, error } = await collect(model.provider.respond(turnOf(text)))
    expect([spoken(events), answers(events)]).toEqual([said, []])
    expect(failure(error)).toEqual({ notStarted: false, ...expected })
    expect(model.asked()).toHaveLength(1)
  })

  it.each<[string, object]>([
    ['!json-200', { code: 'upstream_rejected', notStarted: false }],
    ['!json-200-sse', { code: 'upstream_rejected', notStarted: false }],
    ['!html-200', { code: 'upstream_failed', notStarted: false }],
    ['!error-400', { code: 'upstream_rejected', notStarted: false }],
    ['!error-filter', { code: 'upstream_refused_content', notStarted: false }],
    ['!error-402', { code: 'upstream_quota', notStarted: false }],
    ['!error-403', { code: 'upstream_auth', notStarted: false }],
    ['!error-quota', { code: 'upstream_quota', notStarted: false }],
    ['!error-429', { code: 'upstream_rate_limited', notStarted: true, retryAfterMs: 2000 }],
    ['!error-429-ms', { code: 'upstream_rate_limited', notStarted: true, retryAfterMs: 250 }],
    ['!error-500', { code: 'upstream_failed', notStarted: false }],
    ['!error-500html', { code: 'upstream_failed', notStarted: false }],
    ['!error-503', { code: 'bot_unavailable', notStarted: false }],
    ['!error-503-later', { code: 'bot_unavailable', notStarted: true, retryAfterMs: 3000 }],
    ['!cut-unseen', { code: 'upstream_cut', notStarted: false }],
  ])('that is refused says why, and whether it was begun: %s', async (text, expected) => {
    await using model = await rig()
    const { events, error } = await collect(model.provider.respond(turnOf(text)))
    expect(events).toEqual([])
    expect(failure(error)).toMatchObject(expected)
  })
})

describe('what the model is asked', () => {
  it('is the conversation, its instructions before it, and what the config adds', async () => {
    await using model = await rig({
      instructions: 'Be brief.',
      parameters: { temperature: 0.2, max_completion_tokens: 99, user: null, stream_options: null },
      tools: { get_weather: weather, roll: tool({ run: () => 4 }) },
    })
    const history = [
      { role: 'user', text: 'hello' },
      { role: 'bot', text: 'Hi.' },
      { role: 'operator', text: 'I take over.' },
    ] as const
    await collect(model.provider.respond(turnOf('what is my name?', { history })))
    expect(model.asked()).toEqual([
      {
        model: 'simulated-1',
        stream: true,
        temperature: 0.2,
        max_completion_tokens: 99,
        messages: [
          { role: 'system', content: 'Be brief.' },
          { role: 'user', content: 'hello' },
          { role: 'assistant', content: 'Hi.' },
          { role: 'assistant', content: 'I take over.' },
          { role: 'user', content: 'what is my name?' },
        ],
        tools: [
          {
            type: 'function',
            function: {
              name: 'get_weather',
              description: 'The weather of a city.',
              parameters: {
                type: 'object',
                properties: { city: { type: 'string' } },
                required: ['city'],
              },
            },
          },
          { type: 'function', function: { name: 'roll', parameters: { type: 'object', properties: {} } } },
        ],
      },
    ])
  })
})

const outputsIn = (asked: readonly JsonObject[]): Json[] =>
  (asked.at(-1)!['messages'] as readonly JsonObject[]).flatMap((message) =>
    message['role'] === 'tool' ? [message['content']!] : [],
  )

const goingOn = (turn: Turn, events: readonly HubEvent[], answered: Turn['answers']): Turn => ({
  ...turn,
  resume: cursorAfter(events),
  ...(answered ? { answers: answered } : {}),
})

const callsIn = (events: readonly HubEvent[]) =>
  events.flatMap((event) =>
    event.type === 'consent.requested' || event.type === 'tool.outputs_requested' ? event.calls : [],
  )

describe('a tool', () => {
  it('is run by the hub, and the model told what it gave', async () => {
    await using model = await rig({ tools: { get_weather: weather } })
    const { events, error } = await collect(model.provider.respond(turnOf('/tools')))
    expect(error).toBeUndefined()
    expect(visible(events)).toEqual([
      { type: 'tool.started', call: 'c1', tool: 'get_weather', input: { city: 'Taipei' } },
      { type: 'tool.completed', call: 'c1', output: 'Sunny in Taipei.', isError: false },
      { type: 'message.delta', message: 'answer-2', text: 'I looked ' },
      { type: 'message.delta', message: 'answer-2', text: 'at the weather in Taipei: ' },
      { type: 'message.delta', message: 'answer-2', text: 'Sunny in Taipei.' },
      { type: 'message.completed', message: 'answer-2', text: 'I looked at the weather in Taipei: Sunny in Taipei.' },
    ])
  })

  it.each<[string, LocalTools, string]>([
    ['!rounds', { get_weather: weather }, 'Sunny in Oslo. and Sunny in Bergen.'],
    ['!same-ids', { get_weather: weather }, 'Sunny in Oslo. and Sunny in Bergen.'],
    ['!stop-with-calls', { get_weather: weather }, 'Sunny in Oslo.'],
    ['!no-input', { get_weather: tool({ run: (input) => input }) }, '{}'],
    [
      '!two-tools',
      { get_weather: weather, get_time: tool({ run: () => ({ hour: 12 }) }) },
      'Sunny in Oslo. and {"hour":12}',
    ],
  ])('is called in as many rounds as it takes: %s', async (text, tools, answer) => {
    await using model = await rig({ tools })
    const { events, error } = await collect(model.provider.respond(turnOf(text)))
    expect(error).toBeUndefined()
    expect(answers(events)).toEqual([answer])
    const calls = events.flatMap((event) => (event.type === 'tool.started' ? [event.call] : []))
    expect(new Set(calls).size).toBe(calls.length)
  })

  it.each<[string, string, LocalTools, RegExp]>([
    ['whose input does not fit', '!bad-input', { get_weather: weather }, /not valid/],
    ['whose input is no JSON', '!bad-json', { get_weather: tool({ run: () => 'ran' }) }, /not valid JSON/],
    ['that is not there', '!unknown-tool', {}, /no tool called "no_such_tool"/],
    [
      'that throws',
      '!stop-with-calls',
      {
        get_weather: tool({
          run() {
            throw new Error('no barometer')
          },
        }),
      },
      /failed.*no barometer/,
    ],
    [
      'that hangs',
      '!stop-with-calls',
      { get_weather: tool({ timeoutMs: 30, run: () => new Promise(() => {}) }) },
      /too long/,
    ],
  ])('%s fails for the model, which goes on', async (_, text, tools, output) => {
    await using model = await rig({ tools })
    const { events, error } = await collect(model.provider.respond(turnOf(text)))
    expect(error).toBeUndefined()
    expect(events.find((event) => event.type === 'tool.completed')).toMatchObject({
      isError: true,
      output: expect.stringMatching(output),
    })
    expect(answers(events)).toEqual([expect.stringMatching(output)])
  })

  it.each([
    ['!busy-tools', 3, undefined],
    ['!dead-tools', 4, 'upstream_rate_limited'],
  ])('is run once though the model is busy when it is told: %s', async (word, tries, code) => {
    let runs = 0
    await using model = await rig({ tools: { get_weather: tool({ run: () => ++runs }) } })
    const { events, error } = await collect(model.provider.respond(turnOf(word)))
    expect(answers(events)).toEqual(code ? [] : ['1'])
    expect(error && failure(error).code).toBe(code)
    expect([runs, model.asked().length]).toEqual([1, 1 + tries])
    expect(model.sleeps.every((ms) => ms >= 1000 && ms <= 1500)).toBe(true)
    expect(model.sleeps).toHaveLength(tries - 1)
  })

  it('is not called for ever', async () => {
    let runs = 0
    await using model = await rig({ tools: { get_weather: tool({ run: () => ++runs }) }, maxRounds: 3 })
    const { error } = await collect(model.provider.respond(turnOf('!endless-tools')))
    expect(failure(error)).toMatchObject({ code: 'upstream_failed' })
    expect(runs).toBe(3)
  })

  it('is called with the thoughts that led to it, in the field they came in', async () => {
    await using model = await rig({ tools: { get_weather: weather } })
    const { events } = await collect(model.provider.respond(turnOf('!thought-tools')))
    expect(answers(events)).toEqual(['Let me see. ', 'It said: Sunny in Oslo.'])
    const [, assistant] = model.asked().at(-1)!['messages'] as JsonObject[]
    expect(assistant).toMatchObject({
      role: 'assistant',
      content: 'Let me see. ',
      reasoning_content: 'I need the weather.',
    })
  })

  it('of the client is waited for, beside one of the hub', async () => {
    let runs = 0
    await using model = await rig({
      tools: { get_weather: tool({ run: () => `sunny ${++runs}` }) },
      clientTools: { open_door: { description: 'Opens a door.' } },
    })
    const turn = turnOf('!mixed-tools')
    const first = await collect(model.provider.respond(turn))
    expect(visible(first.events)).toEqual([
      { type: 'tool.started', call: 'c1', tool: 'get_weather', input: { city: 'Oslo' } },
      { type: 'tool.completed', call: 'c1', output: 'sunny 1', isError: false },
      { type: 'tool.outputs_requested', calls: [{ call: 'c2', tool: 'open_door', input: { door: 'front' } }] },
    ])
    const outputs = callsIn(first.events).map(({ call }) => ({ call, output: { open: true } }))
    const second = await collect(model.provider.respond(goingOn(turn, first.events, { type: 'tool_outputs', outputs })))
    expect(second.error).toBeUndefined()
    expect(answers(second.events)).toEqual(['sunny 1 and {"open":true}'])
    expect(outputsIn(model.asked())).toEqual(['sunny 1', '{"open":true}'])
    expect(runs).toBe(1)
  })

  it('asks first where consent() says so, call by call over several rounds', async () => {
    await using simulated = await startHub({
      bots: {
        bot: {
          provider: openai({ simulated: true, tools: { get_weather: weather } }),
          use: [consent()],
        },
      },
    })
    const first = await simulated.ask('bot', '!rounds', { conversation: 'c' })
    expect(first).toMatchObject({
      status: 'waiting',
      waiting: { for: 'consent', calls: [{ input: { city: 'Oslo' } }] },
    })
    const decide = async (turn: typeof first, result: string) =>
      (await (
        await simulated.api(`/turns/${turn.turn}/consent`, {
          decisions: turn.waiting!.calls.map(({ call }) => ({ call, result })),
        })
      ).json()) as typeof first
    const second = await decide(first, 'allow_once')
    expect(second).toMatchObject({ status: 'waiting', waiting: { calls: [{ input: { city: 'Bergen' } }] } })
    const last = await decide(second, 'deny_once')
    expect(last).toMatchObject({ status: 'completed', usage: { inputTokens: 30 } })
    expect(last.text).toMatch(/^Sunny in Oslo\. and The user did not allow this call/)
  })
})

describe('a bot on a simulated model', () => {
  it('remembers the conversation, and needs no account', async () => {
    await using hub = await startHub({ bots: { bot: openai({ simulated: true }) } })
    await hub.ask('bot', 'my name is Ada', { conversation: 'c' })
    expect((await hub.ask('bot', 'what is my name?', { conversation: 'c' })).text).toBe('Your name is Ada.')
    expect((await hub.ask('bot', 'what is my name?', { conversation: 'd' })).text).toContain('not told me')
    const { bots } = (await (await hub.api('/bots')).json()) as { bots: unknown[] }
    expect(bots).toMatchObject([{ bot: 'bot', simulated: true, supports: ['consent', 'toolOutputs'] }])
  })

  it('is asked again while it is busy', async () => {
    await using hub = await startHub({ bots: { bot: openai({ simulated: true }) } })
    const events = await hub.stream('bot', '/busy')
    expect(events.filter(({ type }) => type === 'attempt.failed')).toHaveLength(2)
    expect(events.at(-1)).toMatchObject({ type: 'turn.completed', text: 'It was busy, twice; now it is not.' })
  })

  it.each([
    ['!length', 'turn.failed', 'answer_cut_short', 'As far as it goes'],
    ['/cut', 'turn.interrupted', 'upstream_cut', 'This half arrives on the stream, '],
  ])('never calls %s complete', async (word, ending, code, text) => {
    await using hub = await startHub({ bots: { bot: openai({ simulated: true }) } })
    expect((await hub.stream('bot', word)).at(-1)).toMatchObject({ type: ending, text, error: { code } })
  })
})

describe('the options', () => {
  afterEach(() => vi.unstubAllEnvs())

  const problemsOf = (options: Parameters<typeof openai>[0]): string => {
    try {
      checkConfig(defineConfig({ bots: { bot: openai(options) }, channels: { rest: rest() } }))
      return ''
    } catch (error) {
      return error instanceof HubError ? error.message : String(error)
    }
  }

  it('come from the environment where they are not given, and say so where they are missing', () => {
    vi.stubEnv('OPENAI_API_KEY', '')
    vi.stubEnv('OPENAI_MODEL', '')
    vi.stubEnv('OPENAI_BASE_URL', '')
    expect(problemsOf({})).toMatch(/OPENAI_MODEL[^]*OPENAI_API_KEY/)
    expect(problemsOf({ model: 'm' })).toMatch(/OPENAI_API_KEY/)
    expect(problemsOf({ model: 'm', baseUrl: 'http://127.0.0.1:1/v1' })).toBe('')
    vi.stubEnv('OPENAI_API_KEY', 'sk-of-the-environment')
    vi.stubEnv('OPENAI_MODEL', 'm')
    expect(problemsOf({})).toBe('')
  })

  it.each<[Parameters<typeof openai>[0], RegExp]>([
    [{ parameters: { model: 'x' } }, /parameters\.model[^]*option `model`/],
    [{ parameters: { n: 2 } }, /parameters\.n[^]*leave it out/],
    [{ parameters: { tools: [] } }, /parameters\.tools[^]*option `tools`/],
    [{ tools: { a: tool({ run: () => 1 }) }, clientTools: { a: {} } }, /clientTools\.a/],
  ])('%j are refused', (options, problem) => {
    expect(problemsOf({ model: 'm', baseUrl: 'http://127.0.0.1:1/v1', ...options })).toMatch(problem)
  })

  it('show the key of the environment to the server of the environment, and to no other', async () => {
    const seen: (string | undefined)[] = []
    const server = createServer((request, response) => {
      seen.push(request.headers.authorization)
      response.writeHead(500).end()
    }).listen(0, '127.0.0.1')
    await once(server, 'listening')
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/v1/`
    vi.stubEnv('OPENAI_API_KEY', 'sk-of-the-environment')
    vi.stubEnv('OPENAI_BASE_URL', url)
    for (const options of [
      { model: 'm' },
      { model: 'm', baseUrl: url },
      { model: 'm', baseUrl: url, apiKey: 'sk-x' },
    ]) {
      await collect((await buildProvider(openai(options))).respond(turnOf('hello')))
    }
    server.close()
    expect(seen).toEqual(['Bearer sk-of-the-environment', undefined, 'Bearer sk-x'])
  })
})
