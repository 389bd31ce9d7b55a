import { generateKeyPairSync } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { ChatEventType, ChatStatus, CozeAPI, getJWTToken, RoleType } from '@coze/api'
import { describe, expect, it } from 'vitest'
import { startCozeSimulator } from '../../../plugins/coze/simulator.ts'
import type { CozeSimulatorOptions } from '../../../plugins/coze/simulator.ts'

/** The official client before the simulator. */
async function sdk(options: CozeSimulatorOptions = {}) {
  const simulator = await startCozeSimulator(options)
  const client = new CozeAPI({ baseURL: simulator.url, token: simulator.token })
  return { ...simulator, client, [Symbol.asyncDispose]: () => simulator.close() }
}

const asking = (text: string, more: object = {}) => ({
  bot_id: '7300000000000000001',
  user_id: 'u',
  additional_messages: [{ role: RoleType.User, content: text, content_type: 'text' as const }],
  ...more,
})

describe('the official client', () => {
  it('streams a chat to its end', async () => {
    await using coze = await sdk()
    const items = await Array.fromAsync(coze.client.chat.stream(asking('Hello')))
    const words = items.flatMap((item) =>
      item.event === ChatEventType.CONVERSATION_MESSAGE_DELTA ? [item.data.content] : [],
    )
    expect(words.length).toBeGreaterThanOrEqual(3)
    expect(words.join('')).toContain('Hello')
    expect(items.at(-2)?.event).toBe(ChatEventType.CONVERSATION_CHAT_COMPLETED)
    expect(items.at(-1)?.event).toBe(ChatEventType.DONE)
  })

  it('creates a chat, looks at it and lists its messages', async () => {
    await using coze = await sdk()
    const chat = await coze.client.chat.create(asking('Hello'))
    expect(chat.status).toBe('in_progress')
    expect(chat.id).toMatch(/^\d{19}$/)
    const look = () => coze.client.chat.retrieve(chat.conversation_id, chat.id)
    await expect.poll(async () => (await look()).status).toBe('completed')
    const messages = await coze.client.chat.messages.list(chat.conversation_id, chat.id)
    expect(messages.map((message) => message.type).toSorted()).toEqual(
      ['answer', 'follow_up', 'follow_up', 'follow_up', 'verbose'].toSorted(),
    )
  })

  it('polls a chat to its end', async () => {
    await using coze = await sdk()
    const { chat, messages } = await coze.client.chat.createAndPoll(asking('My name is Ada'))
    expect(chat.status).toBe(ChatStatus.COMPLETED)
    expect(chat.usage?.token_count).toBeGreaterThan(0)
    expect(messages?.find((message) => message.type === 'answer')?.content).toContain('Ada')
  })

  it('hands in tool outputs over a stream', async () => {
    await using coze = await sdk()
    const first = await Array.fromAsync(coze.client.chat.stream(asking('/tools')))
    const asked = first.flatMap((item) =>
      item.event === ChatEventType.CONVERSATION_CHAT_REQUIRES_ACTION ? [item.data] : [],
    )[0]!
    const [call] = asked.required_action!.submit_tool_outputs.tool_calls
    const second = await Array.fromAsync(
      coze.client.chat.submitToolOutputs({
        conversation_id: asked.conversation_id,
        chat_id: asked.id,
        tool_outputs: [{ tool_call_id: call!.id, output: 'rain' }],
        stream: true,
      }),
    )
    const events = second.map((item) => item.event)
    expect(events[0]).toBe(ChatEventType.CONVERSATION_CHAT_IN_PROGRESS)
    expect(events.at(-1)).toBe(ChatEventType.DONE)
    expect(JSON.stringify(second)).toContain('rain')
  })

  it('hands in tool outputs without a stream', async () => {
    await using coze = await sdk()
    const { chat } = await coze.client.chat.createAndPoll(asking('/tools'))
    expect(chat.status).toBe(ChatStatus.REQUIRES_ACTION)
    const [call] = chat.required_action!.submit_tool_outputs.tool_calls
    const handed = await coze.client.chat
      .submitToolOutputs({
        conversation_id: chat.conversation_id,
        chat_id: chat.id,
        tool_outputs: [{ tool_call_id: call!.id, output: 'rain' }],
        stream: false,
      })
      .next()
    expect(handed).toMatchObject({ done: true, value: { id: chat.id, status: 'in_progress' } })
    const look = () => coze.client.chat.retrieve(chat.conversation_id, chat.id)
    await expect.poll(async () => (await look()).status).toBe('completed')
  })

  it('cancels a chat', async () => {
    await using coze = await sdk()
    const chat = await coze.client.chat.create(asking('!long-run'))
    const cancelled = await coze.client.chat.cancel(chat.conversation_id, chat.id)
    expect(cancelled.status).toBe('canceled')
    await expect(coze.client.chat.cancel(chat.conversation_id, chat.id)).rejects.toMatchObject({ code: 4104 })
  })

  it('keeps conversations and their messages', async () => {
    await using coze = await sdk()
    const { conversations } = coze.client
    const made = await conversations.create({ bot_id: '7300000000000000001', meta_data: { a: 'b' } })
    expect(await conversations.retrieve(made.id)).toMatchObject({ id: made.id, meta_data: { a: 'b' } })
    const list = await conversations.list({ bot_id: '7300000000000000001', page_num: 1 })
    expect(list.conversations.map(({ id }) => id)).toEqual([made.id])
    const message = await conversations.messages.create(made.id, {
      role: RoleType.User,
      content: 'good morning',
      content_type: 'text',
      meta_data: {},
    })
    expect((await conversations.messages.list(made.id)).data.map(({ content }) => content)).toEqual(['good morning'])
    await conversations.messages.update(made.id, message.id, { content: 'good evening' })
    expect(await conversations.messages.retrieve(made.id, message.id)).toMatchObject({ content: 'good evening' })
    await conversations.messages.delete(made.id, message.id)
    expect((await conversations.messages.list(made.id)).data).toEqual([])
    expect(await conversations.clear(made.id)).toMatchObject({ conversation_id: made.id })
  })

  it('uploads a file', async () => {
    await using coze = await sdk()
    const path = fileURLToPath(import.meta.url)
    const file = await coze.client.files.upload({ file: createReadStream(path) })
    expect(file).toMatchObject({ file_name: 'sdk.test.ts', bytes: expect.any(Number) })
    expect(file.bytes).toBeGreaterThan(100)
    expect(await coze.client.files.retrieve(file.id)).toMatchObject({ id: file.id })
  })

  it('streams a chatflow to its end', async () => {
    await using coze = await sdk()
    const items = await Array.fromAsync(
      coze.client.workflows.chat.stream({
        workflow_id: '7400000000000000001',
        additional_messages: [{ role: RoleType.User, content: 'Hello', content_type: 'text' }],
        parameters: {},
      }),
    )
    const words = items.flatMap((item) =>
      item.event === ChatEventType.CONVERSATION_MESSAGE_DELTA ? [item.data.content] : [],
    )
    expect(words.join('')).toContain('Hello')
    expect(items.at(-2)?.event).toBe(ChatEventType.CONVERSATION_CHAT_COMPLETED)
    expect(items.at(-1)?.event).toBe(ChatEventType.DONE)
    expect(JSON.stringify(items)).not.toContain('"bot_id"')
  })

  it('gets a token with a signed assertion, and chats with it', async () => {
    const { publicKey, privateKey } = generateKeyPairSync('rsa', {
      modulusLength: 2048,
      publicKeyEncoding: { type: 'spki', format: 'pem' },
      privateKeyEncoding: { type: 'pkcs8', format: 'pem' },
    })
    await using simulator = await sdk({ oauth: { appId: '11', publicKeyId: 'fingerprint', publicKey } })
    const { access_token: token, expires_in: until } = await getJWTToken({
      baseURL: simulator.url,
      appId: '11',
      aud: new URL(simulator.url).host,
      keyid: 'fingerprint',
      privateKey,
    })
    expect(until).toBeGreaterThan(Date.now() / 1000)
    const client = new CozeAPI({ baseURL: simulator.url, token })
    const { messages } = await client.chat.createAndPoll(asking('Hello'))
    expect(messages?.find((message) => message.type === 'answer')?.content).toContain('Hello')
  })

  it('raises what the simulator refuses', async () => {
    await using coze = await sdk()
    const wrong = new CozeAPI({ baseURL: coze.url, token: 'pat_wrong' })
    await expect(wrong.chat.create(asking('Hello'))).rejects.toMatchObject({ code: 4101 })
    await expect(wrong.conversations.retrieve('1')).rejects.toMatchObject({ status: 401 })
    await expect(Array.fromAsync(coze.client.chat.stream(asking('!error-429')))).rejects.toMatchObject({ status: 429 })
    // Its stream does not raise an error that comes under 200.
    const items = await Array.fromAsync(wrong.chat.stream(asking('Hello')))
    expect(items).toEqual([{ event: 'error', data: expect.objectContaining({ code: 4101 }) }])
  })
})
