import OpenAI from 'openai'
import type { ChatCompletionMessageParam, ChatCompletionMessageToolCall } from 'openai/resources/chat/completions'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { z } from 'zod'
import {
  apiKey,
  asgard,
  consent,
  coze,
  demoBot,
  history,
  HubError,
  local,
  openai,
  openaiApi,
  rest,
  retry,
  tool,
} from '../../index.ts'
import type { HubEvent, Turn } from '../../index.ts'
import type { ToolOutput } from '../../core/events.ts'
import { startOpenaiSimulator } from '../../plugins/openai/simulator.ts'
import type { OpenaiSimulator } from '../../plugins/openai/simulator.ts'
import { jsonOf, startHub } from '../support/hub.ts'
import type { TestHub } from '../support/hub.ts'

const tools = {
  get_weather: tool({ parameters: z.object({ city: z.string() }), run: ({ city }) => `It is sunny in ${city}.` }),
  send_mail: tool({ run: () => 'The mail was sent.' }),
}

/** A bot of one's own, on the official client. */
const onOfficialClient = (upstream: OpenaiSimulator) => {
  const client = new OpenAI({ baseURL: upstream.url, apiKey: upstream.apiKey, maxRetries: 0 })
  return local(async function* ({ message, history: earlier, signal }: Turn) {
    const messages: ChatCompletionMessageParam[] = [
      ...earlier.map(({ role, text }) => ({ role: role === 'user' ? 'user' : 'assistant', content: text }) as const),
      { role: 'user', content: message.text },
    ]
    const stream = await client.chat.completions.create({ model: upstream.model, messages, stream: true }, { signal })
    for await (const chunk of stream) yield chunk.choices[0]?.delta.content ?? ''
  })
}

const reading = ({ output }: ToolOutput): string => (typeof output === 'string' ? output : JSON.stringify(output))

/** Asks the client for two readings, and tells them. */
async function* sensors({ answers }: Turn): AsyncGenerator<string | HubEvent> {
  if (answers?.type === 'tool_outputs') return yield answers.outputs.map(reading).join(' and ')
  yield 'Let me see. '
  const calls = [1, 2].map((room) => ({ call: `call-${room}`, tool: 'read_sensor', input: { room } }))
  yield { type: 'tool.outputs_requested', calls }
}

let asked = 0
const broken = local(() => {
  asked += 1
  throw new HubError('upstream_cut')
})
const busy = local(() => {
  throw new HubError('upstream_rate_limited', { notStarted: true, retryAfterMs: 3000 })
})

let hub: TestHub
let upstream: OpenaiSimulator
let client: OpenAI

beforeAll(async () => {
  upstream = await startOpenaiSimulator()
  hub = await startHub({
    bots: {
      main: { provider: local(demoBot), use: [consent({ allow: ['get_weather'] })] },
      asgard: asgard({ simulated: true }),
      coze: { provider: coze({ simulated: true, tools }), use: [consent({ allow: ['get_weather'] })] },
      model: openai({ simulated: true, tools }),
      own: onOfficialClient(upstream),
      sensors: local(sensors),
      echo: local(({ message }) => message.text),
      broken,
      busy,
    },
    use: [history(), retry({ retries: 0 })],
    channels: { openai: openaiApi(), rest: rest() },
  })
  client = new OpenAI({ baseURL: `${hub.url}/v1`, apiKey: 'any' })
})
afterAll(async () => {
  await hub[Symbol.asyncDispose]()
  await upstream.close()
})

const user = (content: string): ChatCompletionMessageParam => ({ role: 'user', content })
const ask = (model: string, content: string, more: object = {}) =>
  client.chat.completions.create({ model, messages: [user(content)], ...more })
const words = async (model: string, messages: ChatCompletionMessageParam[], more: object = {}) => {
  const { choices } = await client.chat.completions.create({ model, messages, ...more })
  return choices[0]!.message.content
}
const answered = (call: ChatCompletionMessageToolCall, content: string): ChatCompletionMessageParam => ({
  role: 'tool',
  tool_call_id: call.id,
  content,
})
const failure = (work: Promise<unknown>): Promise<InstanceType<typeof OpenAI.APIError>> =>
  work.then(
    () => Promise.reject(new Error('it did not fail')),
    (error: InstanceType<typeof OpenAI.APIError>) => error,
  )

describe.each(['main', 'asgard', 'coze', 'model', 'own'])('the official client, before %s', (bot) => {
  it('gets an answer whole', async () => {
    const completion = await ask(bot, 'my name is Ada')
    expect(completion).toMatchObject({
      id: expect.stringMatching(/^chatcmpl-turn_/),
      object: 'chat.completion',
      model: bot,
      choices: [{ index: 0, finish_reason: 'stop', message: { role: 'assistant' } }],
    })
    expect(completion.choices[0]!.message.content).toContain('Ada')
    expect(Math.abs(completion.created - Date.now() / 1000)).toBeLessThan(60)
  })

  it('gets it in pieces', async () => {
    const stream = await client.chat.completions.create({ model: bot, messages: [user('hello there')], stream: true })
    const chunks = await Array.fromAsync(stream)
    const pieces = chunks.map(({ choices }) => choices[0]?.delta.content ?? '')
    expect(pieces.filter((piece) => piece !== '').length).toBeGreaterThanOrEqual(3)
    expect(pieces.join('')).toContain('hello there')
    expect(chunks[0]?.choices[0]?.delta).toEqual({ role: 'assistant', content: '' })
    expect(chunks.at(-1)?.choices[0]?.finish_reason).toBe('stop')
    expect(new Set(chunks.map(({ id }) => id)).size).toBe(1)
  })

  it('goes on in a conversation that the hub remembers', async () => {
    const session = { sessionId: `session-${bot}` }
    await ask(bot, 'my name is Ada', session)
    expect(await words(bot, [user('what is my name?')], session)).toBe('Your name is Ada.')
    const { items } = await jsonOf<{ items: unknown[] }>(
      await hub.api(`/bots/${bot}/conversations/session-${bot}/messages`),
    )
    expect(items).toHaveLength(4)
  })

  it('brings the conversation along where the bot takes one, and is told where it does not', async () => {
    const messages = [user('my name is Ada'), { role: 'assistant' as const, content: 'Hello, Ada.' }]
    const { data, response } = await client.chat.completions
      .create({ model: bot, messages: [...messages, user('what is my name?')] })
      .withResponse()
    const remembers = bot === 'asgard' || bot === 'coze'
    expect(data.choices[0]!.message.content).toMatch(remembers ? /not told me/ : /Your name is Ada/)
    const warning = response.headers.get('x-hub-warning')
    expect(warning).toEqual(remembers ? expect.stringContaining('takes no history') : null)
  })
})

describe('a conversation of the client', () => {
  it('is not listed, and is forgotten with its turn', async () => {
    await using short = await startHub({
      bots: { echo: local(({ message }) => message.text) },
      channels: { openai: openaiApi(), rest: rest() },
      keep: { events: 0, messageIds: 0 },
    })
    const brief = new OpenAI({ baseURL: `${short.url}/api/v1`, apiKey: 'any' })
    const { response } = await brief.chat.completions
      .create({ model: 'echo', messages: [user('hello')] })
      .withResponse()
    const turn = await jsonOf<{ conversation: string }>(
      await short.api(`/turns/${response.headers.get('x-request-id')!}`),
    )
    const listed = async () =>
      (await jsonOf<{ items: { name: string }[] }>(await short.api('/bots/echo/conversations'))).items
    expect(await listed()).toEqual([])
    const read = () => short.api(`/bots/echo/conversations/${turn.conversation}/messages`)
    expect((await read()).status).toBe(200)
    await short.sweep()
    expect((await read()).status).toBe(404)
  })

  it('is named by a header too, and kept apart for each user of a trusted key', async () => {
    const named = { headers: { 'X-Session-Id': 'by-header' } }
    await client.chat.completions.create({ model: 'main', messages: [user('my name is Ada')], user: 'ada' }, named)
    const again = (of: string) =>
      client.chat.completions
        .create({ model: 'main', messages: [user('what is my name?')], user: of }, named)
        .then(({ choices }) => choices[0]!.message.content)
    expect(await again('ada')).toBe('Your name is Ada.')
    expect(await again('bob')).toContain('not told me')
  })
})

describe('a message', () => {
  it('that is sent again under its key is answered once, with the same bytes', async () => {
    const key = { headers: { 'idempotency-key': 'key-1' } }
    const messages = [user('one'), { role: 'assistant' as const, content: 'two' }, user('three')]
    const first = await client.chat.completions.create({ model: 'echo', messages }, key)
    const again = await client.chat.completions.create({ model: 'echo', messages }, key)
    expect(again).toEqual(first)
    const other = await failure(
      client.chat.completions.create({ model: 'echo', messages: messages.slice(1) }, { ...key, maxRetries: 0 }),
    )
    expect([other.status, other.code]).toEqual([400, 'idempotency_mismatch'])
  })

  it('says more than a bot takes, and is told so', async () => {
    const { response } = await client.chat.completions
      .create({
        model: 'main',
        messages: [{ role: 'system', content: 'Be brief.' }, user('hello')],
        tools: [{ type: 'function', function: { name: 'f' } }],
        temperature: 2,
      })
      .withResponse()
    expect(response.headers.get('x-hub-warning')).toMatch(/own instructions.*own tools/)
  })

  it.each<[object, string, string | null]>([
    [{ messages: [] }, 'invalid_request', 'messages'],
    [{ messages: [{ role: 'wizard', content: 'x' }] }, 'invalid_request', 'messages.0.role'],
    [{ n: 2 }, 'invalid_request', 'n'],
    [{ messages: [{ role: 'assistant', content: 'x' }] }, 'invalid_request', null],
    [
      { messages: [{ role: 'user', content: [{ type: 'image_url', image_url: { url: 'data:,' } }] }] },
      'files_unsupported',
      null,
    ],
    [{ sessionId: 'a\u0000b' }, 'invalid_request', 'sessionId'],
  ])('of the form %j is refused', async (more, code, param) => {
    const error = await failure(ask('echo', 'hello', more))
    expect(error).toBeInstanceOf(OpenAI.BadRequestError)
    expect([error.code, error.param, error.type]).toEqual([code, param, 'invalid_request_error'])
  })
})

describe('what came of it', () => {
  it('tells thoughts and cost', async () => {
    const thought = await ask('main', '/think')
    expect(thought.choices[0]!.message).toMatchObject({
      content: 'I have thought about it.',
      reasoning_content: 'They want to see me think. So I do.',
    })
    expect(thought.usage).toBeUndefined()
    const counted = await ask('model', 'hello')
    expect(counted.usage).toEqual({ prompt_tokens: 10, completion_tokens: 5, total_tokens: 15 })
    const costs = async (model: string) => {
      const stream = await client.chat.completions.create({
        model,
        messages: [user('hello')],
        stream: true,
        stream_options: { include_usage: true },
      })
      const chunks = await Array.fromAsync(stream)
      expect(chunks.slice(0, -1).every(({ usage, choices }) => usage === null && choices.length === 1)).toBe(true)
      expect(chunks.at(-1)!.choices).toEqual([])
      return chunks.at(-1)!.usage
    }
    expect(await costs('model')).toEqual(counted.usage)
    expect(await costs('main')).toBeNull()
  })

  it.each([
    ['!length', 'length', 'As far as it goes'],
    ['!content-filter', 'content_filter', 'What I '],
  ])('marks an answer that is not whole: %s', async (word, finish, text) => {
    const completion = await ask('model', word)
    expect(completion.choices).toMatchObject([{ finish_reason: finish, message: { content: text } }])
    const stream = await client.chat.completions.create({ model: 'model', messages: [user(word)], stream: true })
    expect((await Array.fromAsync(stream)).at(-1)!.choices[0]!.finish_reason).toBe(finish)
  })

  it('has the status of a failure, and asks no bot twice for it', async () => {
    asked = 0
    const cut = await failure(ask('broken', 'hello'))
    expect(cut).toBeInstanceOf(OpenAI.InternalServerError)
    expect([cut.status, cut.code, cut.type]).toEqual([502, 'upstream_cut', 'server_error'])
    expect(asked).toBe(1)
    const refused = await failure(
      client.chat.completions.create({ model: 'busy', messages: [user('hello')] }, { maxRetries: 0 }),
    )
    expect(refused).toBeInstanceOf(OpenAI.RateLimitError)
    expect(refused.headers?.get('retry-after')).toBe('3')
    expect(refused.headers?.get('x-should-retry')).toBe('true')
    const unknown = await failure(ask('gpt-5', 'hello'))
    expect(unknown).toBeInstanceOf(OpenAI.NotFoundError)
    expect(unknown.code).toBe('model_not_found')
  })

  it('fails in the stream behind the words that were said', async () => {
    const stream = await client.chat.completions.create({ model: 'main', messages: [user('/fail')], stream: true })
    const said: string[] = []
    const error = await failure(
      (async () => {
        for await (const chunk of stream) said.push(chunk.choices[0]?.delta.content ?? '')
      })(),
    )
    expect(said.join('')).toBe('This answer is going to fail ')
    expect(error).toBeInstanceOf(OpenAI.APIError)
    expect(error.code).toBe('bot_failed')
  })

  it('is in the form of OpenAI on every path of its own', async () => {
    const post = (path: string, headers: Record<string, string>, body: string) =>
      fetch(`${hub.url}${path}`, { method: 'POST', headers, body })
    const json = { 'content-type': 'application/json' }
    const answers = await Promise.all([
      post('/v1/chat/completions', { 'content-type': 'text/plain' }, '{}'),
      post('/api/v1/chat/completions', json, '{'),
      post('/v1/chat/completions', json, JSON.stringify({ x: 'x'.repeat(1_100_000) })),
      post('/v1/models', json, '{}'),
      post('/v1/embeddings', json, '{}'),
    ])
    const bodies = await Promise.all(answers.map((answer) => jsonOf<{ error: { code: string } }>(answer)))
    expect(answers.map(({ status }, index) => [status, bodies[index]!.error.code])).toEqual([
      [415, 'unsupported_media_type'],
      [400, 'bad_json'],
      [413, 'payload_too_large'],
      [405, 'method_not_allowed'],
      [404, 'not_found'],
    ])
    for (const { error } of bodies) expect(Object.keys(error)).toEqual(['message', 'type', 'param', 'code'])
  })
})

describe('calls that wait for the client', () => {
  const readSensor = {
    type: 'function' as const,
    function: {
      name: 'read_sensor',
      description: 'Reads a sensor.',
      parameters: { type: 'object', properties: { room: { type: 'number' } } },
      parse: (input: string) => z.object({ room: z.number() }).parse(JSON.parse(input)),
      function: ({ room }: { readonly room: number }) => `${room * 10} degrees`,
    },
  }

  it.each([true, false])('are run by the official runner (stream: %s)', async (stream) => {
    const runner = client.chat.completions.runTools({
      model: 'sensors',
      messages: [user('how warm is it?')],
      stream,
      tools: [readSensor],
    } as Parameters<typeof client.chat.completions.runTools>[0])
    expect(await (runner as { finalContent(): Promise<string | null> }).finalContent()).toBe(
      '10 degrees and 20 degrees',
    )
  })

  async function pause() {
    const messages = [user('how warm is it?')]
    const { choices } = await client.chat.completions.create({ model: 'sensors', messages })
    expect(choices[0]).toMatchObject({ finish_reason: 'tool_calls', message: { content: 'Let me see. ' } })
    const [first, second] = choices[0]!.message.tool_calls!
    expect(first).toMatchObject({ type: 'function', function: { name: 'read_sensor', arguments: '{"room":1}' } })
    return { messages: [...messages, choices[0]!.message], first: first!, second: second! }
  }

  it('may be answered one after the other', async () => {
    const { messages, first, second } = await pause()
    for (const stream of [true, false]) {
      const completion = stream
        ? await client.chat.completions
            .stream({ model: 'sensors', messages: [...messages, answered(first, '5')] })
            .finalChatCompletion()
        : await client.chat.completions.create({ model: 'sensors', messages: [...messages, answered(first, '5')] })
      // The second time it was answered before, so its pause comes again with what it was followed by.
      expect(completion.choices[0]).toMatchObject({ finish_reason: 'tool_calls' })
      expect(completion.choices[0]!.message.tool_calls!.map(({ id }) => id)).toEqual([second.id])
    }
    expect(await words('sensors', [...messages, answered(first, '5'), answered(second, '6')])).toBe('5 and 6')
  })

  it('are answered again with the same words, and not with others', async () => {
    const { messages, first, second } = await pause()
    const outputs = [answered(first, '5'), answered(second, '6')]
    const once = await client.chat.completions.create({ model: 'sensors', messages: [...messages, ...outputs] })
    const again = await client.chat.completions.create({ model: 'sensors', messages: outputs })
    expect(again).toEqual(once)
    const other = await failure(
      client.chat.completions.create({ model: 'sensors', messages: [answered(first, '7')] }, { maxRetries: 0 }),
    )
    expect(other).toBeInstanceOf(OpenAI.ConflictError)
    expect(other.code).toBe('already_decided')
  })

  it('belong to their bot', async () => {
    const { first } = await pause()
    const error = await failure(client.chat.completions.create({ model: 'echo', messages: [answered(first, '5')] }))
    expect([error.status, error.code]).toEqual([404, 'unknown_turn'])
  })
})

describe.each(['main', 'asgard', 'coze'])('consent for %s', (bot) => {
  async function asking() {
    const messages = [user('/consent')]
    const { choices } = await client.chat.completions.create({ model: bot, messages })
    const [call] = choices[0]!.message.tool_calls!
    if (call?.type !== 'function') throw new Error('no call')
    expect(call.function.name).toBe('hub_consent')
    expect(JSON.parse(call.function.arguments)).toMatchObject({ tool: 'send_mail', input: { to: 'ada@example.com' } })
    return { messages: [...messages, choices[0]!.message], call }
  }

  it('is given and refused as the output of a call, and by no other words', async () => {
    const { messages, call } = await asking()
    const unclear = await failure(
      client.chat.completions.create({ model: bot, messages: [...messages, answered(call, 'Sure, go ahead!')] }),
    )
    expect([unclear.status, unclear.code]).toEqual([400, 'invalid_request'])
    const allowed = await words(bot, [...messages, answered(call, 'allow_once')])
    const second = await asking()
    const denied = await words(bot, [
      ...second.messages,
      answered(second.call, '{"result":"deny_once","reason":"not now"}'),
    ])
    expect(allowed).not.toBe(denied)
    const again = await failure(
      client.chat.completions.create({ model: bot, messages: [answered(call, 'deny_once')] }, { maxRetries: 0 }),
    )
    expect(again.code).toBe('already_decided')
  })
})

describe('the list of models', () => {
  it('is the bots of the channel', async () => {
    await using few = await startHub({
      bots: { one: local(() => '1'), two: local(() => '2') },
      channels: { openai: openaiApi({ bots: ['two'], path: '/ai' }) },
    })
    const lister = new OpenAI({ baseURL: `${few.url}/ai/v1`, apiKey: 'any' })
    const models = await Array.fromAsync(lister.models.list())
    expect(models).toMatchObject([{ id: 'two', object: 'model', owned_by: 'bothub' }])
    expect(await lister.models.retrieve('two')).toEqual(models[0])
    const hidden = await failure(lister.models.retrieve('one'))
    expect([hidden.status, hidden.code]).toEqual([404, 'model_not_found'])
  })
})

describe('a key', () => {
  it('lets in its own, who sees what is its own', async () => {
    const keys = { ada: 'key-of-ada-00000001', bob: 'key-of-bob-00000002' }
    await using guarded = await startHub({
      bots: { sensors: local(sensors) },
      channels: { openai: openaiApi() },
      auth: Object.entries(keys).map(([name, key]) => apiKey({ name, key })),
    })
    const as = (key: string) => new OpenAI({ baseURL: `${guarded.url}/v1`, apiKey: key, maxRetries: 0 })
    const stranger = await failure(as('key-of-nobody').models.list())
    expect(stranger).toBeInstanceOf(OpenAI.AuthenticationError)
    expect(stranger.code).toBe('invalid_api_key')
    const { choices } = await as(keys.ada).chat.completions.create({ model: 'sensors', messages: [user('hello')] })
    const outputs = choices[0]!.message.tool_calls!.map((call) => answered(call, 'x'))
    const other = await failure(as(keys.bob).chat.completions.create({ model: 'sensors', messages: outputs }))
    expect([other.status, other.code]).toEqual([404, 'unknown_turn'])
    const mine = await as(keys.ada).chat.completions.create({ model: 'sensors', messages: outputs })
    expect(mine.choices[0]!.message.content).toBe('x and x')
  })
})
