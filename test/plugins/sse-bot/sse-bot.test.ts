import { once } from 'node:events'
import { describe, expect, it } from 'vitest'
import { localPrincipal } from '../../../core/auth.ts'
import { HubError } from '../../../core/errors.ts'
import type { HubEvent } from '../../../core/events.ts'
import type { Json } from '../../../core/message.ts'
import { sseBot } from '../../../plugins/sse-bot/index.ts'
import { plainFrames } from '../../../plugins/sse-bot/wire.ts'
import { buildProvider, collect, pluginContext, turnOf } from '../../fakes/turn.ts'
import { startHub } from '../../support/hub.ts'
import { startUpstream } from '../../support/upstream.ts'

type Options = Omit<Parameters<typeof sseBot>[0], 'url'>
interface Asked {
  readonly path: string
  readonly headers: Readonly<Record<string, unknown>>
  readonly body: Record<string, Json>
}

/** An upstream that answers every request with the same, and remembers what it was asked. */
async function upstreamOf(body: string, { status = 200, headers = {} } = {}) {
  const asked: Asked[] = []
  const server = await startUpstream(async (request, response) => {
    request.setEncoding('utf8')
    let text = ''
    request.on('data', (chunk: string) => (text += chunk))
    await once(request, 'end')
    asked.push({ path: request.url!, headers: request.headers, body: JSON.parse(text) as Record<string, Json> })
    response.writeHead(status, { 'content-type': 'text/event-stream', ...headers }).end(body)
  })
  return { ...server, asked }
}

/** What a bot says to one message. */
async function answerTo(stream: string, options: Options = {}, turn = turnOf('Hi')) {
  await using upstream = await upstreamOf(stream)
  const bot = await buildProvider(sseBot({ ...options, url: upstream.url }))
  return { ...(await collect(bot.respond(turn))), asked: upstream.asked }
}

const spoken = (events: readonly HubEvent[]) =>
  events.flatMap((event) => (event.type === 'message.delta' ? [event.text] : []))
const done = 'event: done\ndata: [DONE]\n\n'

/** As a well-known page prints the format. */
const printed = `event: message
data: {"content": "Hello"}

event: message
data: {"content": " how can I help you?"}

${done}`

describe('the plain format', () => {
  it('is words in messages, and an end', async () => {
    const { events, error } = await answerTo(printed)
    expect(error).toBeUndefined()
    expect(events).toEqual([
      { type: 'message.delta', message: 'message-1', text: 'Hello' },
      { type: 'message.delta', message: 'message-1', text: ' how can I help you?' },
      { type: 'message.completed', message: 'message-1', text: 'Hello how can I help you?' },
    ])
  })

  it.each([
    ['without an event', 'data: {"content":"Hi"}\n\ndata: [DONE]\n\n'],
    ['with a quoted end', 'event: message\ndata: {"content":"Hi"}\n\nevent: message\ndata: "[DONE]"\n\n'],
    ['with an end of its own', 'event:message\ndata:{"content":"Hi"}\n\nevent:done\ndata:{}\n\n'],
    ['with CRLF and more behind its end', `event: message\r\ndata: {"content":"Hi"}\r\n\r\n${done}${printed}`],
  ])('%s is read too', async (_, stream) => {
    const { events, error } = await answerTo(stream)
    expect(error).toBeUndefined()
    expect(spoken(events)).toEqual(['Hi'])
  })

  it('may end without a word', async () => {
    expect(await answerTo(done)).toMatchObject({ events: [] })
    expect((await answerTo(done)).error).toBeUndefined()
  })

  it.each([
    ['{"code":"melted","message":"too hot"}', 'melted', 'too hot'],
    ['{"error":{"code":7,"message":"too hot"}}', '7', 'too hot'],
    ['too hot', undefined, 'too hot'],
  ])('fails with %s in an error frame, whose words stay in the log', async (data, code, words) => {
    const { events, error } = await answerTo(`${printed.slice(0, 50)}\n\nevent: error\ndata: ${data}\n\n`)
    expect(error).toMatchObject({ code: 'upstream_failed', cause: { message: words } })
    expect((error as HubError).upstream).toEqual(code === undefined ? undefined : { code })
    expect(JSON.stringify((error as HubError).public())).not.toContain('too hot')
    expect(spoken(events)).toEqual(['Hello'])
  })

  it('cut at any byte is never whole', async () => {
    const bytes = Buffer.from(printed.replace('Hello', '你好 🙂'))
    const whole = bytes.lastIndexOf('\n')
    let length = 0
    const bot = await buildProvider(
      sseBot({ url: 'http://upstream.invalid' }),
      pluginContext({
        fetch: async () =>
          new Response(bytes.subarray(0, length), { headers: { 'content-type': 'text/event-stream' } }),
      }),
    )
    for (; length <= whole; length += 1) {
      const { events, error } = await collect(bot.respond(turnOf('Hi')))
      expect([length, (error as HubError).code]).toEqual([length, 'upstream_cut'])
      expect('你好 🙂 how can I help you?'.startsWith(spoken(events).join(''))).toBe(true)
    }
    expect((await collect(bot.respond(turnOf('Hi')))).error).toBeUndefined()
  })

  it('is asked for with the message, what was said before, and whose it is', async () => {
    const message = { id: 'm-1', text: 'Hi', files: [], payload: { page: '/a' } }
    const history = [
      { role: 'user', text: 'Before' },
      { role: 'bot', text: 'Answer' },
      { role: 'operator', text: 'I take over' },
    ] as const
    const principal = { ...localPrincipal('ada/b'), key: 'crm' }
    const turn = turnOf('', { message, history, principal })
    const { asked } = await answerTo(printed, { token: 'a-token', headers: { 'x-api-key': 'a-key' } }, turn)
    expect(asked).toHaveLength(1)
    expect(asked[0]!.headers).toMatchObject({
      authorization: 'Bearer a-token',
      'x-api-key': 'a-key',
      'content-type': 'application/json',
    })
    expect(asked[0]!.body).toEqual({
      id: 'm-1',
      message: 'Hi',
      history: [
        { role: 'user', content: 'Before' },
        { role: 'assistant', content: 'Answer' },
        { role: 'assistant', content: 'I take over' },
      ],
      conversation: 'conv_1',
      user: 'crm/ada%2Fb',
      payload: { page: '/a' },
    })
  })

  it('refused for now says when to come back', async () => {
    await using upstream = await upstreamOf('later', { status: 503, headers: { 'retry-after': '3' } })
    const bot = await buildProvider(sseBot({ url: upstream.url }))
    const { error } = await collect(bot.respond(turnOf('Hi')))
    expect(error).toMatchObject({
      code: 'upstream_failed',
      notStarted: true,
      retryAfterMs: 3000,
      upstream: { status: 503 },
    })
  })
})

describe('a cousin of it', () => {
  it('has a map from its frames to words and events', async () => {
    const stream = [
      'event: thought\ndata: Hm.\n\n',
      'event: delta\ndata: {"choices":[{"delta":{"text":"It is "}}]}\n\n',
      'event: cost\ndata: {"in":3,"out":4}\n\n',
      'event: delta\ndata: {"choices":[{"delta":{"text":"sunny."}}]}\n\n',
      'event: hint\ndata: And tomorrow?\n\n',
      'event: weather\ndata: 21\n\n',
      'event: end\ndata:\n\n',
    ].join('')
    interface Delta {
      readonly choices: readonly { readonly delta: { readonly text: string } }[]
    }
    const { events, error } = await answerTo(stream, {
      map({ event, data, json }) {
        switch (event) {
          case 'thought':
            return { type: 'reasoning.delta', message: 'thought', text: data }
          case 'delta':
            return (json as unknown as Delta).choices.map(({ delta }) => delta.text)
          case 'cost':
            return { type: 'usage', inputTokens: 3, outputTokens: 4, totalTokens: 7 }
          case 'hint':
            return { type: 'suggestion', text: data }
          case 'end':
            return { type: 'end' }
        }
      },
    })
    expect(error).toBeUndefined()
    expect(events).toEqual([
      { type: 'reasoning.delta', message: 'thought', text: 'Hm.' },
      { type: 'message.delta', message: 'message-1', text: 'It is ' },
      { type: 'usage', inputTokens: 3, outputTokens: 4, totalTokens: 7 },
      { type: 'message.delta', message: 'message-1', text: 'sunny.' },
      { type: 'message.completed', message: 'message-1', text: 'It is sunny.' },
      { type: 'suggestion', text: 'And tomorrow?' },
    ])
  })

  it('may read some frames itself and leave the rest to the plain map', async () => {
    const { events, error } = await answerTo(`event: hint\ndata: Why?\n\n${printed}`, {
      map: (frame) => (frame.event === 'hint' ? { type: 'suggestion', text: frame.data } : plainFrames(frame)),
    })
    expect(error).toBeUndefined()
    expect(events.map(({ type }) => type)).toEqual([
      'suggestion',
      'message.delta',
      'message.delta',
      'message.completed',
    ])
  })

  it('has frames that its map does not understand, which are passed over', async () => {
    const { events, error } = await answerTo(`event: message\ndata: null\n\n${printed}`, {
      map: (frame) => (frame.event === 'done' ? { type: 'end' } : (frame.json as { readonly content: string }).content),
    })
    expect(error).toBeUndefined()
    expect(spoken(events)).toEqual(['Hello', ' how can I help you?'])
  })

  it('fails as its map says, and by a map that gives what is nothing', async () => {
    const busy = new HubError('upstream_rate_limited', { notStarted: true })
    const refused = await answerTo(printed, {
      map() {
        throw busy
      },
    })
    expect(refused.error).toBe(busy)
    const wrong = await answerTo(printed, { map: () => 7 as unknown as string })
    expect(wrong.error).toMatchObject({ code: 'bot_failed' })
  })

  it('keeps the digits of numbers beyond 2^53', async () => {
    const { events } = await answerTo(`data: {"id":7500000000000000010}\n\n${done}`, {
      map: (frame) => (frame.event === 'done' ? { type: 'end' } : JSON.stringify(frame.json)),
    })
    expect(spoken(events)).toEqual(['{"id":"7500000000000000010"}'])
  })

  it('is asked in its own words, at an address of the turn', async () => {
    const { asked, error } = await answerTo(printed, {
      token: 'a-token',
      request: ({ message, conversation }) => ({
        url: `/rooms/${conversation.id}`,
        headers: { 'x-trace': '7', authorization: 'none' },
        body: { q: message.text },
      }),
    })
    expect(error).toBeUndefined()
    expect(asked).toMatchObject([
      { path: '/rooms/conv_1', headers: { 'x-trace': '7', authorization: 'Bearer a-token' }, body: { q: 'Hi' } },
    ])
  })

  it('that cannot be asked because `request` throws fails the turn', async () => {
    const { asked, error } = await answerTo(printed, {
      request() {
        throw new Error('no room')
      },
    })
    expect(error).toMatchObject({ code: 'bot_failed', cause: { message: 'no room' } })
    expect(asked).toEqual([])
  })

  it('may end with its body, if the config says so and there was a frame at all', async () => {
    const stream = printed.slice(0, printed.indexOf(done))
    const whole = await answerTo(stream, { endsWithBody: true })
    expect(whole.error).toBeUndefined()
    expect(spoken(whole.events)).toHaveLength(2)
    expect((await answerTo(stream)).error).toMatchObject({ code: 'upstream_cut' })
    expect((await answerTo('', { endsWithBody: true })).error).toMatchObject({ code: 'upstream_cut' })
  })

  it('may keep the conversation itself, under an id of its own', async () => {
    const options: Options = {
      remembers: true,
      request: ({ message, thread }) => ({ body: { q: message.text, ...(thread as object | undefined) } }),
      map: (frame) =>
        frame.event === 'room'
          ? { type: 'upstream', cursor: null, thread: { room: frame.json ?? null } }
          : plainFrames(frame),
    }
    await using upstream = await upstreamOf(`event: room\ndata: 7500000000000000010\n\n${printed}`)
    await using hub = await startHub({ bots: { bot: sseBot({ ...options, url: upstream.url }) } })
    for (const text of ['one', 'two']) {
      const turn = await hub.ask('bot', text, { conversation: 'a' })
      expect(turn).toMatchObject({ status: 'completed', text: 'Hello how can I help you?' })
    }
    expect(upstream.asked.map(({ body }) => body)).toEqual([{ q: 'one' }, { q: 'two', room: '7500000000000000010' }])
    const bots = (await (await hub.api('/bots')).json()) as { readonly bots: unknown }
    expect(bots.bots).toMatchObject([{ bot: 'bot', supports: ['remembers'] }])
  })
})

describe('the options', () => {
  const problems = (options: unknown) =>
    sseBot({ url: 'https://bots.example.com' })
      .schema.safeParse(options)
      .error?.issues.map(({ path, message }) => `${path.join('.')}: ${message}`)

  it('are checked', () => {
    expect(problems({ url: 'bots.example.com' })).toEqual(['url: must be an http(s) URL'])
    expect(problems({ url: 'https://bots.example.com', map: {} })).toEqual([
      'map: must be a function `(frame, turn) => …`',
    ])
    expect(problems({ url: 'https://bots.example.com', path: '/' })).toEqual([expect.stringContaining('path')])
    // @ts-expect-error it needs an address
    sseBot({})
    // @ts-expect-error a tool's output cannot be handed in
    sseBot({ url: 'https://bots.example.com', map: () => ({ type: 'tool.outputs_requested', calls: [] }) })
  })
})
