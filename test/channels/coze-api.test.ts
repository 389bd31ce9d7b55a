import { createReadStream, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { ChatEventType, ChatStatus, CozeAPI, RoleType } from '@coze/api'
import type { StreamChatData } from '@coze/api'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { z } from 'zod'
import { fromDecimal, toDecimal } from '../../core/ids.ts'
import { parseEvents } from '../../core/sse.ts'
import { apiKey, asgard, coze, cozeApi, defineProvider, demoBot, local, rest, sse } from '../../index.ts'
import type { BotFunction, HubConfig, Turn } from '../../index.ts'
import { startCozeSimulator } from '../../plugins/coze/simulator.ts'
import { startCuttingProxy } from '../fakes/cutting-proxy.ts'
import { gatedBot } from '../fakes/gated-bot.ts'
import { inChromium } from '../support/chromium.ts'
import { readEvents, startHub } from '../support/hub.ts'
import type { TestHub } from '../support/hub.ts'

const cozeHub = (bots: HubConfig['bots'], more: Partial<HubConfig> = {}): Promise<TestHub> =>
  startHub({ bots, channels: { rest: rest(), sse: sse(), coze: cozeApi() }, ...more })

const client = (hub: TestHub, token = 'pat_any') => new CozeAPI({ baseURL: hub.url, token })

const asking = (bot: string, text: string, more: object = {}) => ({
  bot_id: bot,
  user_id: 'ada',
  additional_messages: [{ role: RoleType.User, content: text, content_type: 'text' as const }],
  ...more,
})

/** Everything of a stream. */
const streamed = (api: CozeAPI, bot: string, text: string, more: object = {}): Promise<StreamChatData[]> =>
  Array.fromAsync(api.chat.stream(asking(bot, text, more)))

const eventsOf = (items: readonly StreamChatData[]) =>
  items.map(({ event }) => event.replace('conversation.', '')).filter((event) => event !== 'message.delta')

/** The whole messages of a stream, as their types and contents. */
const wholeIn = (items: readonly StreamChatData[]) =>
  items.flatMap((item) => (item.event === ChatEventType.CONVERSATION_MESSAGE_COMPLETED ? [item.data] : []))

const answerIn = (items: readonly StreamChatData[]) =>
  wholeIn(items)
    .filter(({ type }) => type === 'answer')
    .map(({ content }) => content)
    .join('\n')

const chatIn = (items: readonly StreamChatData[], event: ChatEventType) =>
  items.flatMap((item) => (item.event === event ? [item.data] : []))[0] as unknown as {
    readonly id: string
    readonly conversation_id: string
    readonly status: string
    readonly last_error: { readonly code: number; readonly msg: string; readonly hub_code?: string }
    readonly usage: { readonly token_count: number }
    readonly required_action: {
      readonly submit_tool_outputs: {
        readonly tool_calls: readonly {
          readonly id: string
          readonly type: string
          readonly function: { readonly name: string; readonly arguments: string }
        }[]
      }
    }
  }

describe('the official client', () => {
  let hub: TestHub
  let api: CozeAPI
  beforeAll(async () => {
    hub = await cozeHub({
      local: local(demoBot),
      coze: coze({ simulated: true }),
      asgard: asgard({ simulated: true }),
    })
    api = client(hub)
  })
  afterAll(() => hub[Symbol.asyncDispose]())

  describe.each(['local', 'coze', 'asgard'])('before a bot of %s', (bot) => {
    it('streams a chat to its end, in the order of Coze', async () => {
      const items = await streamed(api, bot, 'Hello')
      expect(eventsOf(items).slice(0, 2)).toEqual(['chat.created', 'chat.in_progress'])
      expect(eventsOf(items).slice(-2)).toEqual(['chat.completed', 'done'])
      const words = items.flatMap((item) =>
        item.event === ChatEventType.CONVERSATION_MESSAGE_DELTA ? [item.data.content] : [],
      )
      expect(words.length).toBeGreaterThanOrEqual(3)
      expect(answerIn(items)).toBe(words.join(''))
      const types = wholeIn(items).map(({ type }) => type)
      expect(types.indexOf('verbose')).toBeGreaterThan(types.indexOf('answer'))
      expect(types.slice(types.indexOf('verbose') + 1).every((type) => type === 'follow_up')).toBe(true)
    })

    it('polls a chat to its end, in a conversation that goes on', async () => {
      const made = await api.conversations.create({ bot_id: bot })
      const more = { conversation_id: made.id }
      const { chat, messages } = await api.chat.createAndPoll(asking(bot, 'My name is Ada', more))
      expect(chat).toMatchObject({ status: ChatStatus.COMPLETED, conversation_id: made.id, bot_id: bot })
      expect(messages?.some(({ type }) => type === 'answer')).toBe(true)
      const second = await api.chat.createAndPoll(asking(bot, 'What is my name?', more))
      const answer = second.messages?.find(({ type }) => type === 'answer')
      expect(answer?.content).toContain('Ada')
      const { data: said } = await api.conversations.messages.list(made.id, { order: 'asc' })
      expect(said.map(({ role, type }) => `${role} ${type}`)).toEqual([
        'user question',
        'assistant answer',
        'user question',
        'assistant answer',
      ])
      expect(said[2]?.content).toBe('What is my name?')
      expect(said[3]).toMatchObject({ id: answer?.id, content: answer?.content })
    })
  })

  it('hears the reasoning of a bot with its answer', async () => {
    const items = await streamed(api, 'local', '/think')
    const deltas = items.flatMap((item) =>
      item.event === ChatEventType.CONVERSATION_MESSAGE_DELTA ? [item.data as { reasoning_content?: string }] : [],
    )
    const thought = deltas.map((delta) => delta.reasoning_content ?? '').join('')
    expect(thought).not.toBe('')
    expect(wholeIn(items)[0]).toMatchObject({ type: 'answer', reasoning_content: thought })
  })

  it.each([true, false])('gives a tool its output, stream: %s', async (stream) => {
    const { chat } = await api.chat.createAndPoll(asking('coze', '/tools'))
    expect(chat.status).toBe(ChatStatus.REQUIRES_ACTION)
    const [call] = chat.required_action!.submit_tool_outputs.tool_calls
    expect(call).toMatchObject({ type: 'function', function: { name: 'get_weather' } })
    expect(JSON.parse(call!.function.arguments)).toHaveProperty('city')
    const ids = { conversation_id: chat.conversation_id, chat_id: chat.id }
    const outputs = { ...ids, tool_outputs: [{ tool_call_id: call!.id, output: 'rain and hail' }] }
    if (stream) {
      const items = await Array.fromAsync(api.chat.submitToolOutputs({ ...outputs, stream }))
      expect(eventsOf(items)[0]).toBe('chat.in_progress')
      expect(eventsOf(items).slice(-2)).toEqual(['chat.completed', 'done'])
      expect(wholeIn(items)[0]).toMatchObject({ type: 'tool_response', content: 'rain and hail' })
      expect(answerIn(items)).toContain('rain and hail')
    } else {
      const handed = await api.chat.submitToolOutputs({ ...outputs, stream }).next()
      expect(handed).toMatchObject({ done: true, value: { id: chat.id } })
      const look = () => api.chat.retrieve(chat.conversation_id, chat.id)
      await expect.poll(async () => (await look()).status).toBe('completed')
      const list = await api.chat.messages.list(chat.conversation_id, chat.id)
      expect(list.map(({ type }) => type)).toEqual(
        expect.arrayContaining(['function_call', 'verbose', 'tool_response', 'answer']),
      )
      expect(JSON.stringify(list)).toContain('rain and hail')
    }
    const again = Array.fromAsync(api.chat.submitToolOutputs({ ...outputs, stream: true }))
    await expect(again).rejects.toMatchObject({ status: 409 })
  })

  it.each([
    ['allow', 'allow_once'],
    ['{"result":"deny","reason":"not today"}', 'deny_once'],
  ])('answers a bot that asks for consent with %s', async (output, result) => {
    const first = await streamed(api, 'asgard', '/consent')
    expect(eventsOf(first).slice(-2)).toEqual(['chat.requires_action', 'done'])
    const asked = chatIn(first, ChatEventType.CONVERSATION_CHAT_REQUIRES_ACTION)
    const [call] = asked.required_action.submit_tool_outputs.tool_calls
    expect(call).toMatchObject({ type: 'function', function: { name: 'hub_consent' } })
    expect(JSON.parse(call!.function.arguments)).toMatchObject({ tool: 'send_mail', input: {} })
    const submit = (said: string) =>
      Array.fromAsync(
        api.chat.submitToolOutputs({
          conversation_id: asked.conversation_id,
          chat_id: asked.id,
          tool_outputs: [{ tool_call_id: call!.id, output: said }],
          stream: true,
        }),
      )
    // What is no clear word is no decision.
    await expect(submit('yes please, I allow it')).rejects.toMatchObject({ status: 400 })
    expect(await api.chat.retrieve(asked.conversation_id, asked.id)).toMatchObject({ status: 'requires_action' })
    expect(eventsOf(await submit(output)).slice(-2)).toEqual(['chat.completed', 'done'])
    const events = await readEvents(await hub.api(`/turns/${fromDecimal('turn', asked.id)!}/events`))
    expect(events).toContainEqual(
      expect.objectContaining({ type: 'consent.answered', decisions: [expect.objectContaining({ result })] }),
    )
  })

  it('sees a failure as a failed chat, in the words for people', async () => {
    const items = await streamed(api, 'local', '/fail')
    expect(eventsOf(items).slice(-2)).toEqual(['chat.failed', 'done'])
    expect(chatIn(items, ChatEventType.CONVERSATION_CHAT_FAILED)).toMatchObject({
      status: 'failed',
      last_error: { code: 5000, hub_code: 'bot_failed', msg: expect.stringContaining('error') as string },
    })
    const { chat, messages } = await api.chat.createAndPoll(asking('local', '/fail'))
    expect(chat).toMatchObject({ status: 'failed', last_error: { code: 5000 } })
    // What was shown before it is not lost.
    expect(messages?.find(({ type }) => type === 'answer')?.content).not.toBe('')
  })

  it('uploads a file, and a bot of Coze gets it', async () => {
    const simulator = await startCozeSimulator()
    const { url, token, botId } = simulator
    await using own = await cozeHub({
      seeing: coze({ botId, token, baseUrl: url }),
      blind: local(() => 'I see nothing.'),
    })
    const user = client(own)
    const folder = mkdtempSync(join(tmpdir(), 'bothub-upload-'))
    writeFileSync(join(folder, 'cat.png'), 'a cat')
    const file = await user.files.upload({ file: createReadStream(join(folder, 'cat.png')) })
    expect(file).toMatchObject({ file_name: 'cat.png', bytes: 5, id: expect.stringMatching(/^\d{30,}$/) as string })
    expect(await user.files.retrieve(file.id)).toEqual(file)
    const shown = (bot: string, more: object = {}) =>
      user.chat.createAndPoll({
        bot_id: bot,
        user_id: 'ada',
        additional_messages: [
          {
            role: RoleType.User,
            content_type: 'object_string',
            content: [
              { type: 'text', text: 'What is this?' },
              { type: 'image', file_id: file.id },
            ],
            meta_data: { hub_message_id: 'cat-1' },
          },
        ],
        ...more,
      })
    const first = await shown('seeing')
    expect(first.chat.status).toBe('completed')
    // The same message again is the same chat, and its file is not sent twice.
    expect((await shown('seeing')).chat.id).toBe(first.chat.id)
    const uploads = simulator.requests.filter(({ path }) => path === '/v1/files/upload')
    expect(uploads).toHaveLength(1)
    const [chat] = simulator.requests.filter(({ path }) => path === '/v3/chat')
    expect(JSON.stringify(chat?.body)).toContain('What is this?')
    const { data } = await user.conversations.messages.list(first.chat.conversation_id, { order: 'asc' })
    expect(data[0]).toMatchObject({
      content_type: 'object_string',
      content: expect.stringContaining(file.id) as string,
    })
    await expect(shown('blind')).rejects.toMatchObject({ status: 400, code: 4000 })
    await expect(user.files.retrieve('123')).rejects.toMatchObject({ status: 404, code: 4200 })
    rmSync(folder, { recursive: true })
    await simulator.close()
  })

  it('lists the bots, and shows one', async () => {
    const { items, total } = await api.bots.listNew({ workspace_id: 'any' })
    expect([total, items.map(({ id }) => id)]).toEqual([3, ['local', 'coze', 'asgard']])
    expect(await api.bots.retrieveNew('coze')).toMatchObject({ bot_id: 'coze', name: 'coze' })
    await expect(api.bots.retrieveNew('nobody')).rejects.toMatchObject({ status: 404, code: 4006 })
  })
})

const parrot: BotFunction = ({ message }) => message.text

describe('a chat', () => {
  it('is stopped by its client, whose stream and polls see it', async () => {
    const bot = gatedBot()
    await using hub = await cozeHub({ main: bot.provider })
    const api = client(hub)
    const stream = streamed(api, 'main', 'hello')
    await bot.began('hello')
    const { conversations } = await api.conversations.list({ bot_id: 'main' })
    const { data } = await api.conversations.messages.list(conversations[0]!.id)
    const chat = data[0]!.chat_id
    const cancelled = await api.chat.cancel(conversations[0]!.id, chat)
    expect(cancelled).toMatchObject({ id: chat, status: 'canceled' })
    expect(eventsOf(await stream).slice(-2)).toEqual(['chat.canceled', 'done'])
    expect(await api.chat.retrieve(conversations[0]!.id, chat)).toMatchObject({ status: 'canceled' })
    await expect(api.chat.cancel(conversations[0]!.id, chat)).rejects.toMatchObject({ status: 409, code: 4104 })
    expect((await api.chat.messages.list(conversations[0]!.id, chat)).map(({ content }) => content)).toEqual(['So: '])
  })

  it('that nobody streams goes on by itself', async () => {
    const bot = gatedBot()
    await using hub = await cozeHub({ main: { provider: bot.provider, onAbandon: { cancelAfter: '1ms' } } })
    const api = client(hub)
    const chat = await api.chat.create(asking('main', 'hello'))
    expect(chat.status).toBe('in_progress')
    await bot.began('hello')
    bot.finish('hello')
    const look = () => api.chat.retrieve(chat.conversation_id, chat.id)
    await expect.poll(async () => (await look()).status).toBe('completed')
    const get = await fetch(`${hub.url}/v3/chat/retrieve?conversation_id=${chat.conversation_id}&chat_id=${chat.id}`)
    const { data } = (await get.json()) as { readonly data: object }
    expect(data).toMatchObject({ id: chat.id, status: 'completed', completed_at: expect.any(Number) as number })
  })

  it.each(['message', 'chat', 'header'])(
    'is the same one when it is sent again, with its id in the %s',
    async (place) => {
      let asked = 0
      await using hub = await cozeHub({ main: local(() => `${++asked}`) })
      const send = (text: string) =>
        fetch(`${hub.url}/v3/chat`, {
          method: 'POST',
          headers: { 'content-type': 'application/json', ...(place === 'header' ? { 'idempotency-key': 'm' } : {}) },
          body: JSON.stringify({
            bot_id: 'main',
            user_id: 'ada',
            stream: true,
            additional_messages: [
              { role: 'user', content: text, ...(place === 'message' ? { meta_data: { hub_message_id: 'm' } } : {}) },
            ],
            ...(place === 'chat' ? { meta_data: { hub_message_id: 'm' } } : {}),
          }),
        })
      const first = await (await send('hello')).text()
      expect(await (await send('hello')).text()).toBe(first)
      expect(asked).toBe(1)
      const other = await send('other words')
      expect([other.status, await other.json()]).toMatchObject([
        422,
        { code: 4000, detail: { hub_code: 'idempotency_mismatch' } },
      ])
    },
  )

  it('has frames without ids and comments, and frames with ids for whoever wants to come back', async () => {
    await using hub = await cozeHub({ main: local(demoBot) })
    const post = (headers: Record<string, string> = {}) =>
      fetch(`${hub.url}/v3/chat`, {
        method: 'POST',
        headers: { 'content-type': 'application/json', 'idempotency-key': 'm', ...headers },
        body: JSON.stringify({ ...asking('main', 'Hello'), stream: true }),
      })
    const plain = await post()
    expect(plain.headers.get('content-type')).toBe('text/event-stream')
    const text = await plain.text()
    for (const frame of text.split('\n\n').slice(0, -1)) expect(frame).toMatch(/^event:[\w.]+\ndata:.+$/)
    expect(text.endsWith('event:done\ndata:"[DONE]"\n\n')).toBe(true)
    const withIds = await Array.fromAsync(parseEvents((await post({ 'last-event-id': '0' })).body!))
    expect(withIds.map(({ event }) => event)).toEqual(Array.from(text.matchAll(/event:(.+)/g), ([, name]) => name))
    for (const [index, { id }] of withIds.entries()) {
      if (id === undefined || id === '') continue
      const left = await Array.fromAsync(parseEvents((await post({ 'last-event-id': id })).body!))
      const expected = withIds.slice(index + 1)
      expect(left.map(({ data }) => data)).toEqual(
        expected.length > 0 ? expected.map(({ data }) => data) : ['"[DONE]"'],
      )
    }
  })

  it('breaks its silence with an event of its own', async () => {
    const bot = gatedBot()
    await using hub = await cozeHub({ main: bot.provider })
    vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] })
    try {
      const items = client(hub).chat.stream(asking('main', 'hello'))
      const seen: string[] = []
      for await (const { event } of items) {
        seen.push(event.replace('conversation.', ''))
        if (seen.length === 3) vi.advanceTimersByTime(5000)
        if (seen.length === 4) bot.finish('hello')
      }
      expect(seen.slice(0, 4)).toEqual(['chat.created', 'chat.in_progress', 'message.delta', 'chat.in_progress'])
      expect(seen.at(-1)).toBe('done')
    } finally {
      vi.useRealTimers()
    }
  })

  it('takes the outputs of its tools one by one', async () => {
    const outputs: unknown[] = []
    await using hub = await cozeHub({
      main: local(async function* ({ answers }) {
        if (answers?.type === 'tool_outputs') {
          outputs.push(...answers.outputs)
          yield 'Thank you.'
          return
        }
        const calls = ['one', 'two'].map((call) => ({ call, tool: 'look_up', input: { key: call } }))
        yield { type: 'tool.outputs_requested', calls }
      }),
    })
    const api = client(hub)
    const first = await streamed(api, 'main', 'hello')
    expect(wholeIn(first).map(({ type }) => type)).toEqual(['function_call', 'function_call', 'verbose', 'verbose'])
    const asked = chatIn(first, ChatEventType.CONVERSATION_CHAT_REQUIRES_ACTION)
    const submit = (call: string) =>
      Array.fromAsync(
        api.chat.submitToolOutputs({
          conversation_id: asked.conversation_id,
          chat_id: asked.id,
          tool_outputs: [{ tool_call_id: call, output: `of ${call}` }],
          stream: true,
        }),
      )
    const half = await submit('one')
    expect(eventsOf(half)).toEqual(['chat.in_progress', 'message.completed', 'chat.requires_action', 'done'])
    const left = chatIn(half, ChatEventType.CONVERSATION_CHAT_REQUIRES_ACTION)
    expect(left.required_action.submit_tool_outputs.tool_calls.map(({ id }) => id)).toEqual(['two'])
    expect(answerIn(await submit('two'))).toBe('Thank you.')
    expect(outputs).toEqual([
      { call: 'one', output: 'of one' },
      { call: 'two', output: 'of two' },
    ])
  })

  it('carries what the client sends along to the bot, and gives its meta data back', async () => {
    const turns: Turn[] = []
    await using hub = await cozeHub({
      main: local((turn) => {
        turns.push(turn)
        return 'here'
      }),
    })
    const api = client(hub)
    const { chat } = await api.chat.createAndPoll({
      bot_id: 'main',
      user_id: 'ada',
      additional_messages: [
        { role: RoleType.User, content: 'earlier', content_type: 'text' },
        { role: RoleType.Assistant, content: 'then', content_type: 'text', type: 'answer' },
        { role: RoleType.Assistant, content: '{}', content_type: 'text', type: 'function_call' },
        { role: RoleType.User, content: 'now', content_type: 'text', meta_data: { of: 'the message' } },
      ],
      parameters: { tenant: 7 },
      custom_variables: { name: 'Ada' },
      meta_data: { of: 'the chat' },
    })
    expect(turns[0]?.message).toMatchObject({
      text: 'now',
      payload: { tenant: 7, custom_variables: { name: 'Ada' }, meta_data: { of: 'the chat' } },
    })
    expect(turns[0]?.history).toEqual([
      { role: 'user', text: 'earlier' },
      { role: 'bot', text: 'then' },
    ])
    expect(turns[0]?.principal.user).toBe('ada')
    expect(chat.meta_data).toEqual({ of: 'the chat' })
    const { data } = await api.conversations.messages.list(chat.conversation_id, { order: 'asc' })
    expect(data[0]).toMatchObject({ content: 'now', meta_data: { of: 'the message' } })
  })

  it('joins media to the text beside them, and names files by their addresses', async () => {
    await using hub = await cozeHub({ main: local(parrot) })
    const { messages } = await client(hub).chat.createAndPoll({
      bot_id: 'main',
      user_id: 'ada',
      additional_messages: [
        {
          role: RoleType.User,
          content_type: 'object_string',
          content: [
            { type: 'text', text: 'What is this?' },
            { type: 'image', file_url: 'https://example.com/cat.png' },
          ],
        },
      ],
    })
    expect(messages?.[0]?.content).toBe('What is this?\nhttps://example.com/cat.png')
  })

  it('shows cards, parts and templates of an answer', async () => {
    await using hub = await cozeHub({
      main: local(async function* () {
        yield { type: 'message.completed', message: 'a', text: '', template: { type: 'card', card_type: 3 } }
        yield { type: 'message.completed', message: 'b', text: 'x', payload: [{ type: 'text', text: 'x' }] }
        yield { type: 'message.completed', message: 'c', text: 'y', template: { type: 'HINT', text: 'y' } }
      }),
    })
    const answers = wholeIn(await streamed(client(hub), 'main', 'hello')).filter(({ type }) => type === 'answer')
    expect(answers).toMatchObject([
      { content_type: 'card', content: '{"card_type":3}' },
      { content_type: 'object_string', content: '[{"type":"text","text":"x"}]' },
      { content_type: 'text', content: 'y', meta_data: { template: '{"type":"HINT","text":"y"}' } },
    ])
    expect(new Set(answers.map(({ id }) => id)).size).toBe(3)
  })

  it('is the same for whoever comes when only its whole messages are kept', async () => {
    await using hub = await cozeHub({ main: local(demoBot) }, { keep: { events: '1ms', messageIds: '1d' } })
    const api = client(hub)
    const { chat, messages } = await api.chat.createAndPoll(asking('main', 'Hello'))
    await hub.sweep()
    expect(await api.chat.retrieve(chat.conversation_id, chat.id)).toEqual(chat)
    const answers = (list: typeof messages) => list?.filter(({ type }) => type === 'answer')
    const kept = await api.chat.messages.list(chat.conversation_id, chat.id)
    expect(answers(kept)).toEqual(answers(messages))
  })
})

describe('a conversation', () => {
  it('has the user of its first chat when it was made without, and is open to its key from then on', async () => {
    const users: (string | undefined)[] = []
    await using hub = await cozeHub({
      main: local(({ principal }) => {
        users.push(principal.user)
        return 'here'
      }),
      other: local(parrot),
    })
    const api = client(hub)
    const made = await api.conversations.create({ meta_data: { a: 'b' } })
    expect(made).toMatchObject({ meta_data: { a: 'b' }, last_section_id: expect.stringMatching(/^\d+$/) as string })
    expect(await api.conversations.retrieve(made.id)).toEqual(made)
    expect((await api.conversations.messages.list(made.id)).data).toEqual([])
    const more = { conversation_id: made.id }
    await api.chat.createAndPoll(asking('main', 'one', { ...more, user_id: 'ada' }))
    await api.chat.createAndPoll(asking('main', 'two', { ...more, user_id: 'bob' }))
    expect(users).toEqual(['ada', 'ada'])
    await expect(api.chat.create(asking('other', 'three', more))).rejects.toMatchObject({ status: 404, code: 4002 })
    const { conversations } = await api.conversations.list({ bot_id: 'main' })
    expect(conversations.map(({ id }) => id)).toEqual([made.id])
    expect((await api.conversations.list({ bot_id: 'other' })).conversations).toEqual([])
    // What began here goes on elsewhere.
    const items = await hub.api(`/bots/main/conversations/${fromDecimal('conv', made.id)}/messages`)
    expect(await items.json()).toMatchObject({ items: [{ text: 'one' }, {}, { text: 'two' }, {}] })
  })

  it('is renamed, cleared and deleted', async () => {
    const seen: number[] = []
    await using hub = await cozeHub({
      main: local(({ history }) => {
        seen.push(history.length)
        return 'here'
      }),
      coze: coze({ simulated: true }),
    })
    const api = client(hub)
    const made = await api.conversations.create({ bot_id: 'main' })
    const put = (name: unknown) =>
      fetch(`${hub.url}/v1/conversations/${made.id}`, {
        method: 'PUT',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify({ name }),
      })
    expect(await (await put('My holidays')).json()).toMatchObject({ code: 0, data: { name: 'My holidays' } })
    expect((await put(7)).status).toBe(400)
    const more = { conversation_id: made.id }
    for (const text of ['one', 'two']) await api.chat.createAndPoll(asking('main', text, more))
    const cleared = await api.conversations.clear(made.id)
    expect(cleared).toMatchObject({ conversation_id: made.id })
    expect(cleared.id).not.toBe(made.last_section_id)
    await api.chat.createAndPoll(asking('main', 'three', more))
    expect(seen).toEqual([0, 2, 0])
    expect((await api.conversations.messages.list(made.id)).data).toHaveLength(6)
    const forgotten = await api.chat.createAndPoll(asking('coze', 'My name is Ada'))
    await api.conversations.clear(forgotten.chat.conversation_id)
    const asked = asking('coze', 'What is my name?', { conversation_id: forgotten.chat.conversation_id })
    const { messages } = await api.chat.createAndPoll(asked)
    expect(messages?.find(({ type }) => type === 'answer')?.content).not.toContain('Ada')
    const gone = await fetch(`${hub.url}/v1/conversations/${made.id}`, { method: 'DELETE' })
    expect(await gone.json()).toMatchObject({ code: 0 })
    await expect(api.conversations.retrieve(made.id)).rejects.toMatchObject({ status: 404, code: 4002 })
  })

  it('is not cleared while a chat runs', async () => {
    const bot = gatedBot()
    await using hub = await cozeHub({ main: bot.provider })
    const api = client(hub)
    const chat = await api.chat.create(asking('main', 'hello'))
    await expect(api.conversations.clear(chat.conversation_id)).rejects.toMatchObject({ status: 409, code: 4016 })
    bot.finish('hello')
  })

  it('shows its messages in pages, in both orders, from any place', async () => {
    await using hub = await cozeHub({
      main: local(async function* ({ message }) {
        for (const part of ['a', 'b']) {
          yield { type: 'message.completed', message: part, text: `${message.text}${part}` }
        }
      }),
    })
    const api = client(hub)
    const { id } = await api.conversations.create({ bot_id: 'main' })
    const chats: string[] = []
    for (const text of ['1', '2', '3']) {
      chats.push((await api.chat.createAndPoll(asking('main', text, { conversation_id: id }))).chat.id)
    }
    const list = async (params: object) => {
      const page = await api.conversations.messages.list(id, params)
      return { texts: page.data.map(({ content }) => content), page }
    }
    const all = ['1', '1a', '1b', '2', '2a', '2b', '3', '3a', '3b']
    const { texts: ascending, page: whole } = await list({ order: 'asc' })
    expect(ascending).toEqual(all)
    expect(whole).toMatchObject({ has_more: false, first_id: whole.data[0]!.id, last_id: whole.data[8]!.id })
    expect((await list({})).texts).toEqual(all.toReversed())
    for (const order of ['asc', 'desc'] as const) {
      const seen: string[] = []
      let after: string | undefined
      for (let pages = 0; pages < 5; pages++) {
        const { texts, page } = await list({ order, limit: 2, ...(after ? { after_id: after } : {}) })
        seen.push(...texts)
        after = page.last_id
        expect(page.has_more).toBe(pages < 4)
      }
      expect(seen).toEqual(order === 'asc' ? all : all.toReversed())
      const back = await list({ order, limit: 2, before_id: after })
      expect(back.texts).toEqual(seen.slice(-3, -1))
    }
    expect((await list({ order: 'asc', chat_id: chats[1] })).texts).toEqual(['2', '2a', '2b'])
    const message = await api.conversations.messages.retrieve(id, whole.data[4]!.id)
    expect(message).toEqual(whole.data[4])
    const elsewhere = toDecimal('turn_0000000001111111111111111')
    for (const wrong of [`${elsewhere}1000000001`, 'x']) {
      await expect(list({ after_id: wrong })).rejects.toMatchObject({ code: 4005 })
      await expect(api.conversations.messages.retrieve(id, wrong)).rejects.toMatchObject({ code: 4005 })
    }
  })

  it('has messages that can be rated, and those of the bot only', async () => {
    const told: unknown[] = []
    const rated = defineProvider({
      manifest: { name: 'rated', feedback: true },
      options: z.strictObject({}),
      create: () => ({
        async *respond() {
          yield { type: 'message.delta', message: 'one', text: 'here' }
        },
        feedback: async (rating) => void told.push(rating),
      }),
    })
    await using hub = await cozeHub({ main: rated() })
    const { chat } = await client(hub).chat.createAndPoll(asking('main', 'hello'))
    const { data } = await client(hub).conversations.messages.list(chat.conversation_id, { order: 'asc' })
    const rate = async (message: string, body: object) => {
      const answer = await fetch(`${hub.url}/v1/conversations/${chat.conversation_id}/messages/${message}/feedback`, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify(body),
      })
      return [answer.status, ((await answer.json()) as { readonly code: number }).code]
    }
    const [question, answer] = data.map(({ id }) => id)
    const unliked = { feedback_type: 'unlike', comment: 'so so', reason_types: ['too short'] }
    expect(await rate(answer!, unliked)).toEqual([200, 0])
    expect(told).toEqual([{ message: 'one', verdict: 'bad', comment: 'so so' }])
    expect(await rate(question!, unliked)).toEqual([404, 4005])
    expect(await rate(`${answer!.slice(0, -1)}7`, unliked)).toEqual([404, 4005])
    expect(await rate(answer!, { feedback_type: 'meh' })).toEqual([400, 4000])
  })

  describe('has messages of its own', () => {
    const say = (content: string, role = RoleType.User) => ({
      role,
      content,
      content_type: 'text' as const,
      meta_data: {},
    })
    /** Tells what it was shown. */
    const witness: BotFunction = ({ history, message }) =>
      [...history.map(({ role, text }) => `${role}: ${text}`), `user: ${message.text}`].join('\n')
    const saidIn = async (api: CozeAPI, id: string) =>
      (await api.conversations.messages.list(id, { order: 'asc' })).data.map(({ content }) => content)
    const answerTo = async (api: CozeAPI, bot: string, text: string, id: string) => {
      const { messages } = await api.chat.createAndPoll(asking(bot, text, { conversation_id: id }))
      return messages?.find(({ type }) => type === 'answer')?.content
    }

    it('which a bot is shown though nobody asked it', async () => {
      await using hub = await cozeHub({ main: local(witness) })
      const api = client(hub)
      const { id } = await api.conversations.create({
        messages: [say('I am Ada'), say('Hello Ada', RoleType.Assistant)],
      })
      const made = await api.conversations.messages.create(id, { ...say('and I like tea'), meta_data: { a: 'b' } })
      expect(made).toMatchObject({
        conversation_id: id,
        role: 'user',
        type: 'question',
        content: 'and I like tea',
        content_type: 'text',
        meta_data: { a: 'b' },
        chat_id: '',
      })
      expect(await api.conversations.messages.retrieve(id, made.id)).toEqual(made)
      expect(await answerTo(api, 'main', 'So?', id)).toBe(
        'user: I am Ada\nbot: Hello Ada\nuser: and I like tea\nuser: So?',
      )
      const said = await saidIn(api, id)
      expect(said.slice(0, 4)).toEqual(['I am Ada', 'Hello Ada', 'and I like tea', 'So?'])
      expect(said).toHaveLength(5)
    })

    it('of which a platform hears with the next chat, once', async () => {
      const simulator = await startCozeSimulator()
      const { url, token, botId } = simulator
      await using hub = await cozeHub({ main: coze({ botId, token, baseUrl: url }) })
      const api = client(hub)
      const { id } = await api.conversations.create({ bot_id: 'main' })
      await api.conversations.messages.create(id, say('My name is Ada'))
      for (const text of ['What is my name?', 'And now?']) await answerTo(api, 'main', text, id)
      const sent = simulator.requests
        .filter(({ path }) => path === '/v3/chat')
        .map(({ body }) =>
          (body as { additional_messages: { content: string }[] }).additional_messages.map(({ content }) => content),
        )
      expect(sent).toEqual([['My name is Ada', 'What is my name?'], ['And now?']])
      await simulator.close()
    })

    it('that are changed and deleted, questions and answers too, while the chat stays as it was said', async () => {
      await using hub = await cozeHub({ main: local(witness) })
      const api = client(hub)
      const { chat } = await api.chat.createAndPoll(asking('main', 'hello'))
      const id = chat.conversation_id
      const written = await api.conversations.messages.create(id, say('by the way'))
      const [question, answer] = (await api.conversations.messages.list(id, { order: 'asc' })).data
      await api.conversations.messages.update(id, question!.id, { content: 'good day', meta_data: { k: 'v' } })
      await api.conversations.messages.update(id, answer!.id, { content: 'Good day to you' })
      await api.conversations.messages.update(id, written.id, { content: 'on the whole' })
      expect(await api.conversations.messages.retrieve(id, question!.id)).toMatchObject({
        content: 'good day',
        meta_data: { k: 'v' },
        chat_id: chat.id,
      })
      expect(await saidIn(api, id)).toEqual(['good day', 'Good day to you', 'on the whole'])
      expect(await answerTo(api, 'main', 'So?', id)).toBe(
        'user: good day\nbot: Good day to you\nuser: on the whole\nuser: So?',
      )
      for (const { id: message } of [question!, answer!, written]) {
        expect(await api.conversations.messages.delete(id, message)).toMatchObject({ id: message })
      }
      expect(await saidIn(api, id)).toEqual(['So?', expect.any(String)])
      await expect(api.conversations.messages.retrieve(id, written.id)).rejects.toMatchObject({ code: 4005 })
      expect((await api.chat.messages.list(id, chat.id)).map(({ content }) => content)).toContain('user: hello')
      const audited = (await hub.hub.audit.page({ limit: 50 })).items.map(({ what }) => what)
      expect(audited.filter((what) => what === 'message changed')).toHaveLength(3)
      expect(audited.filter((what) => what === 'message deleted')).toHaveLength(3)
    })

    it("of which one of several of an answer can go, and none of somebody else's", async () => {
      const twice = defineProvider({
        manifest: { name: 'twice' },
        options: z.strictObject({}),
        create: () => ({
          async *respond({ history }) {
            if (history.length > 0) yield { type: 'message.delta', message: 'm', text: history.at(-1)!.text }
            else {
              yield { type: 'message.delta', message: 'a', text: 'first' }
              yield { type: 'message.delta', message: 'b', text: 'second' }
            }
          },
        }),
      })
      const auth = ['one', 'two'].map((name) => apiKey({ name, key: `${name}-secret-key-0123456789` }))
      await using hub = await cozeHub({ main: twice() }, { auth })
      const [api, other] = [client(hub, 'one-secret-key-0123456789'), client(hub, 'two-secret-key-0123456789')]
      const { chat } = await api.chat.createAndPoll(asking('main', 'hello'))
      const id = chat.conversation_id
      const { data } = await api.conversations.messages.list(id, { order: 'asc' })
      await expect(other.conversations.messages.delete(id, data[1]!.id)).rejects.toMatchObject({ code: 4002 })
      await api.conversations.messages.delete(id, data[1]!.id)
      expect(await saidIn(api, id)).toEqual(['hello', 'second'])
      expect(await answerTo(api, 'main', 'again', id)).toBe('second')
    })

    it('that are listed to the first, however many there are', async () => {
      await using hub = await cozeHub({ main: local(parrot) })
      const api = client(hub)
      const { id } = await api.conversations.create({ bot_id: 'main' })
      const texts = Array.from({ length: 1050 }, (_, index) => String(index))
      await Promise.all(texts.map((text) => api.conversations.messages.create(id, say(text))))
      const pages: string[][] = []
      for (let before = ''; pages.length < 40;) {
        const page = await api.conversations.messages.list(id, { limit: 50, ...(before ? { after_id: before } : {}) })
        pages.push(page.data.map(({ content }) => content))
        before = page.last_id
        if (!page.has_more) break
      }
      expect(pages.flat().toSorted((a, b) => Number(a) - Number(b))).toEqual(texts)
    })

    it('that have to be messages', async () => {
      await using hub = await cozeHub({ main: local(parrot) })
      const api = client(hub)
      const broken = { ...say('no parts'), content_type: 'object_string' as const }
      await expect(api.conversations.create({ messages: [broken] })).rejects.toMatchObject({ code: 4000 })
      const { id } = await api.conversations.create({})
      await expect(api.conversations.messages.create(id, broken)).rejects.toMatchObject({ code: 4000 })
      const made = await api.conversations.messages.create(id, say('fine'))
      const change = { content: 'no parts', content_type: 'object_string' as const }
      await expect(api.conversations.messages.update(id, made.id, change)).rejects.toMatchObject({ code: 4000 })
      expect(await saidIn(api, id)).toEqual(['fine'])
    })
  })
})

it('is reached by a base URL that ends with a slash', async () => {
  await using hub = await cozeHub({ main: local(parrot) })
  const api = new CozeAPI({ baseURL: `${hub.url}/`, token: 'pat_any' })
  expect(answerIn(await streamed(api, 'main', 'hello'))).toBe('hello')
})

describe('ids', () => {
  it('are digits, exact far beyond 2^53, and name what they named after a restart', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'bothub-'))
    const before = await startHub({ bots: { main: local(parrot) }, channels: { coze: cozeApi() } }, { folder })
    const { chat, messages } = await client(before).chat.createAndPoll(asking('main', 'hello'))
    await before[Symbol.asyncDispose]()
    const ids = [chat.id, chat.conversation_id, ...(messages ?? []).map(({ id }) => id)]
    expect(new Set(ids).size).toBe(ids.length)
    for (const id of ids) {
      expect(id).toMatch(/^[1-9]\d+$/)
      expect(BigInt(id)).toBeGreaterThan(BigInt(Number.MAX_SAFE_INTEGER))
    }
    await using after = await startHub({ bots: { main: local(parrot) }, channels: { coze: cozeApi() } }, { folder })
    expect(await client(after).chat.retrieve(chat.conversation_id, chat.id)).toEqual(chat)
    expect(await client(after).chat.messages.list(chat.conversation_id, chat.id)).toEqual(messages)
    const neighbour = String(BigInt(chat.id) + 1n)
    await expect(client(after).chat.retrieve(chat.conversation_id, neighbour)).rejects.toMatchObject({ code: 4001 })
    rmSync(folder, { recursive: true })
  })
})

describe('what fails in front of a stream', () => {
  let hub: TestHub
  beforeAll(async () => {
    hub = await cozeHub({ main: local(parrot) })
  })
  afterAll(() => hub[Symbol.asyncDispose]())

  const question = { bot_id: 'main', user_id: 'u', additional_messages: [{ role: 'user', content: 'hello' }] }
  const post = (body: unknown) => ({ method: 'POST', headers: { 'content-type': 'application/json' }, body })
  const conversation = toDecimal('conv_0mg3k00000000000000000000')
  const chat = toDecimal('turn_0mg3k00000000000000000000')

  it.each<[string, string, { method?: string; headers?: Record<string, string>; body?: unknown }, number, number]>([
    ['broken JSON', '/v3/chat', post('{'), 400, 4000],
    ['no object', '/v3/chat', post('null'), 400, 4000],
    ['no bot', '/v3/chat', post({ ...question, bot_id: undefined }), 400, 4000],
    ['no user', '/v3/chat', post({ ...question, user_id: '' }), 400, 4000],
    ['no question', '/v3/chat', post({ ...question, additional_messages: [] }), 400, 4000],
    [
      'a role nobody has',
      '/v3/chat',
      post({ ...question, additional_messages: [{ role: 'system', content: 'x' }] }),
      400,
      4000,
    ],
    [
      'a content that is no text',
      '/v3/chat',
      post({ ...question, additional_messages: [{ role: 'user', content: 7 }] }),
      400,
      4000,
    ],
    ['meta data that are no pairs', '/v3/chat', post({ ...question, meta_data: { a: 1 } }), 400, 4000],
    [
      'an object_string that is none',
      '/v3/chat',
      post({ ...question, additional_messages: [{ role: 'user', content: '[', content_type: 'object_string' }] }),
      400,
      4000,
    ],
    [
      'too many messages',
      '/v3/chat',
      post({ ...question, additional_messages: Array.from({ length: 101 }, () => ({ role: 'user', content: 'x' })) }),
      400,
      4000,
    ],
    ['a bot that is not there', '/v3/chat', post({ ...question, bot_id: '7500000000000000002' }), 404, 4006],
    ['a conversation of another Coze', '/v3/chat?conversation_id=7500000000000000001', post(question), 404, 4002],
    ['a conversation that is not there', `/v3/chat?conversation_id=${conversation}`, post(question), 404, 4002],
    ['a conversation of no digits', '/v3/chat?conversation_id=conv_1', post(question), 404, 4002],
    [
      'a file that is not there',
      '/v3/chat',
      post({
        ...question,
        additional_messages: [
          { role: 'user', content: '[{"type":"image","file_id":"9"}]', content_type: 'object_string' },
        ],
      }),
      404,
      4200,
    ],
    [
      'a cursor that is none',
      '/v3/chat',
      { ...post(question), headers: { ...post(0).headers, 'last-event-id': 'x' } },
      400,
      4000,
    ],
    [
      'a chat that is not there',
      `/v3/chat/retrieve?conversation_id=${conversation}&chat_id=${chat}`,
      { method: 'POST' },
      404,
      4001,
    ],
    ['a chat without a conversation', `/v3/chat/retrieve?chat_id=${chat}`, {}, 400, 4000],
    [
      'outputs for nobody',
      `/v3/chat/submit_tool_outputs?conversation_id=${conversation}&chat_id=${chat}`,
      post({ tool_outputs: [] }),
      404,
      4001,
    ],
    ['a cancellation of nothing', '/v3/chat/cancel', post({ conversation_id: conversation, chat_id: chat }), 404, 4001],
    ['ids that are numbers', '/v3/chat/cancel', post({ conversation_id: 1, chat_id: 2 }), 400, 4000],
    [
      'another type of body',
      '/v3/chat',
      { method: 'POST', headers: { 'content-type': 'text/plain' }, body: 'hello' },
      415,
      4000,
    ],
    [
      'a form where JSON may be',
      '/v1/conversation/create',
      { method: 'POST', headers: { 'content-type': 'application/x-www-form-urlencoded' }, body: 'a=b' },
      415,
      4000,
    ],
    ['a body that is too large', '/v3/chat', post('x'.repeat(15 * 1_048_576 + 1)), 413, 4000],
    [
      'more messages than Coze takes in front of a chat',
      '/v1/conversation/create',
      post({ messages: Array.from({ length: 17 }, () => ({ role: 'user', content: 'x' })) }),
      400,
      4000,
    ],
    ['an upload that is none', '/v1/files/upload', post({}), 415, 4000],
    ['a path that is not there', '/v3/chat/nothing', {}, 404, 4000],
    ['another method', '/v3/chat', { method: 'DELETE' }, 405, 4000],
  ])('is told in the envelope: %s', async (_, path, { body, ...init }, status, code) => {
    const answer = await fetch(`${hub.url}${path}`, {
      ...init,
      ...(body === undefined ? {} : { body: typeof body === 'string' ? body : JSON.stringify(body) }),
    })
    expect(answer.headers.get('x-tt-logid')).toMatch(/^\d+$/)
    expect([answer.status, await answer.json()]).toEqual([
      status,
      {
        code,
        msg: expect.stringMatching(/\.$/) as string,
        detail: { logid: answer.headers.get('x-tt-logid'), hub_code: expect.any(String) as string },
      },
    ])
  })

  it('takes a body of 15 MB', async () => {
    const large = { ...question, parameters: { large: 'x'.repeat(14 * 1_048_576) } }
    const { body, ...init } = post(large)
    const answer = await fetch(`${hub.url}/v3/chat`, { ...init, body: JSON.stringify(body) })
    expect(answer.status).toBe(200)
  })

  it('is told in the form of the hub on paths of others', async () => {
    const answer = await fetch(`${hub.url}/v1/nothing`)
    expect([answer.status, await answer.json()]).toMatchObject([404, { error: { code: 'not_found' } }])
  })

  it('is told to strangers, and a chat in which a turn waits is a conflict', async () => {
    await using own = await cozeHub(
      {
        main: local(async function* () {
          yield { type: 'consent.requested', calls: [{ call: 'c', tool: 't', input: {}, alreadyAllowed: false }] }
        }),
      },
      {
        auth: [
          apiKey({ name: 'ada', key: 'pat_of_ada_000000001' }),
          apiKey({ name: 'bob', key: 'pat_of_bob_000000002' }),
        ],
      },
    )
    const stranger = client(own, 'pat_of_nobody')
    await expect(stranger.chat.create(asking('main', 'x'))).rejects.toMatchObject({ status: 401, code: 4101 })
    await expect(stranger.conversations.retrieve('1')).rejects.toMatchObject({ status: 401, code: 700_012_006 })
    const ada = client(own, 'pat_of_ada_000000001')
    const { chat: waiting } = await ada.chat.createAndPoll(asking('main', 'x'))
    const more = { conversation_id: waiting.conversation_id }
    await expect(ada.chat.create(asking('main', 'y', more))).rejects.toMatchObject({ status: 409, code: 4016 })
    const bob = client(own, 'pat_of_bob_000000002')
    const missing = { status: 404, code: 4001 }
    await expect(bob.chat.retrieve(waiting.conversation_id, waiting.id)).rejects.toMatchObject(missing)
    await expect(bob.conversations.retrieve(waiting.conversation_id)).rejects.toMatchObject({ code: 4002 })
    const form = new FormData()
    form.set('file', new File(['x'], 'x.txt'))
    const upload = await fetch(`${own.url}/v1/files/upload`, {
      method: 'POST',
      headers: { authorization: 'Bearer pat_of_ada_000000001' },
      body: form,
    })
    const { data: file } = (await upload.json()) as { readonly data: { readonly id: string } }
    expect((await ada.files.retrieve(file.id)).file_name).toBe('x.txt')
    await expect(bob.files.retrieve(file.id)).rejects.toMatchObject({ status: 404, code: 4200 })
    // A chat that waits can be cancelled here.
    expect(await ada.chat.cancel(waiting.conversation_id, waiting.id)).toMatchObject({ status: 'canceled' })
  })

  it('is told with Retry-After while the hub stops', async () => {
    const bot = gatedBot()
    await using own = await cozeHub({ main: bot.provider })
    const stream = streamed(client(own), 'main', 'hello')
    await bot.began('hello')
    const stopped = own.hub.stop(5000)
    const { body, ...init } = post({ ...question, additional_messages: [{ role: 'user', content: 'late' }] })
    const answer = await fetch(`${own.url}/v3/chat`, { ...init, body: JSON.stringify(body) })
    expect([answer.status, answer.headers.get('retry-after')]).toEqual([503, '5'])
    expect(await answer.json()).toMatchObject({ code: 5000, detail: { hub_code: 'shutting_down' } })
    bot.finish('hello')
    expect(answerIn(await stream)).toBe('So: hello.')
    await stopped
  })

  it('can be read by pages of allowed origins', async () => {
    const origin = 'http://localhost:5173'
    const preflight = await fetch(`${hub.url}/v3/chat`, {
      method: 'OPTIONS',
      headers: {
        origin,
        'access-control-request-method': 'POST',
        'access-control-request-headers': 'authorization, content-type, x-coze-client-user-agent',
      },
    })
    expect(preflight.status).toBe(204)
    expect(preflight.headers.get('access-control-allow-origin')).toBe(origin)
    expect(preflight.headers.get('access-control-allow-headers')).toContain('x-coze-client-user-agent')
    const refused = await fetch(`${hub.url}/v3/chat`, { method: 'POST', headers: { origin } })
    expect(refused.headers.get('access-control-allow-origin')).toBe(origin)
  })
})

describe('a hub that asks a hub', () => {
  it('finds a chat again whose stream was cut, and asks nothing twice', async () => {
    const pieces = Array.from({ length: 100 }, (_, index) => `${index} `)
    let asked = 0
    await using far = await cozeHub({
      main: local(async function* () {
        asked += 1
        yield* pieces
      }),
    })
    // The first connection is the one on which the conversation is made.
    await using proxy = await startCuttingProxy(far.url, [Infinity, 8000])
    await using near = await cozeHub({ far: coze({ botId: 'main', token: 'any', baseUrl: proxy.url }) })
    const items = await streamed(client(near), 'far', 'count')
    expect(proxy.cuts()).toBe(1)
    expect(eventsOf(items).slice(-2)).toEqual(['chat.completed', 'done'])
    const words = items.flatMap((item) =>
      item.event === ChatEventType.CONVERSATION_MESSAGE_DELTA ? [item.data.content] : [],
    )
    expect(words.join('')).toBe(pieces.join(''))
    expect(asked).toBe(1)
  })
})

const published = readFileSync(new URL('../fixtures/seeds/coze-chat-stream.js.txt', import.meta.url), 'utf8')

inChromium("a page with somebody else's code for Coze", (browser) => {
  it.each(['local', 'coze', 'asgard'])('streams an answer of a bot of %s', async (bot) => {
    await using hub = await cozeHub({
      local: local(demoBot),
      coze: coze({ simulated: true }),
      asgard: asgard({ simulated: true }),
    })
    const { id } = await client(hub).conversations.create({ bot_id: bot })
    const blanks = [
      ["token: ''", "token: 'pat_any'"],
      ["'https://api.coze.cn'", JSON.stringify(hub.url)],
      ["bot_id: ''", `bot_id: '${bot}'`],
    ] as const
    const code = blanks.reduce((text, [blank, filled]) => {
      expect(text.split(blank)).toHaveLength(2)
      return text.replace(blank, filled)
    }, published)
    // What Vue's `ref` gives is an object with a value.
    const refs = `
      import { CozeAPI } from '@coze/api'
      const ref = (value) => ({ value })
      const [conversation_id, textarea] = [ref('${id}'), ref('Hello, my name is Ada')]
      const [messages, isStreaming] = [ref(''), ref(true)]
      const [content_list, follow_up_list] = [ref([]), ref([])]
      const shown = []
      Object.defineProperty(messages, 'value', { get: () => shown.at(-1) ?? '', set: (text) => shown.push(text) })
      ${code}
      await fetchChatStream()
      window.outcome = { shown, content_list, follow_up_list, isStreaming }`
    await using opened = await browser.open({ script: refs })
    const outcome = (await (await opened.page.waitForFunction('window.outcome')).jsonValue()) as {
      readonly shown: readonly string[]
      readonly content_list: { readonly value: readonly { readonly content: string; readonly type: string }[] }
      readonly isStreaming: { readonly value: boolean }
    }
    expect(outcome.isStreaming.value).toBe(false)
    const [answer] = outcome.content_list.value
    expect(answer?.content).toContain('Ada')
    // It grew letter by letter, and was cleared when the whole message came.
    expect(outcome.shown.length).toBeGreaterThanOrEqual(4)
    expect(outcome.shown.at(-2)).toBe(answer?.content)
    expect(outcome.shown.at(-1)).toBe('')
    expect(opened.problems).toEqual([])
  })
})
