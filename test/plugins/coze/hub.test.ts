import { describe, expect, it } from 'vitest'
import { cozeApi, rest, retry } from '../../../index.ts'
import type { Json } from '../../../core/message.ts'
import { coze } from '../../../plugins/coze/index.ts'
import { startCozeSimulator } from '../../../plugins/coze/simulator.ts'
import { jsonOf, startHub } from '../../support/hub.ts'
import type { TurnObject } from '../../../index.ts'

/** A hub with a bot at a simulator; what it sends again it sends at once. */
async function hubWithCoze(more: { readonly history?: boolean } = {}) {
  const simulator = await startCozeSimulator()
  const provider = coze({ botId: simulator.botId, token: simulator.token, baseUrl: simulator.url })
  const bots = { bot: { provider, profile: { language: 'zh-Hans' as const }, ...more } }
  const hub = await startHub({
    bots,
    channels: { rest: rest(), coze: cozeApi() },
    ...(more.history ? {} : { use: [retry({ baseMs: 1 })] }),
  })
  const chats = () =>
    simulator.requests
      .filter(({ path }) => path === '/v3/chat')
      .map(({ query, body }) => ({ ...query, ...(body as Record<string, Json>) }))
  return {
    hub,
    chats,
    created: () => simulator.requests.filter(({ path }) => path === '/v1/conversation/create').length,
    async [Symbol.asyncDispose]() {
      await hub[Symbol.asyncDispose]()
      await simulator.close()
    },
  }
}

describe('a hub with a Coze bot', () => {
  it.each(['!code-4009', '!code-4020', '!code-4016'])(
    'asks five times more when it is refused for now (%s), then says so in a sentence',
    async (text) => {
      await using stage = await hubWithCoze()
      const turn = await stage.hub.ask('bot', text)
      expect(turn.status).toBe('failed')
      expect(turn.error?.message).toMatch(/请稍候片刻再试|请稍候再试/)
      expect(stage.chats()).toHaveLength(6)
      expect(stage.created()).toBe(1)
    },
  )

  it('knows two users as two, in two conversations of one name', async () => {
    await using stage = await hubWithCoze()
    await stage.hub.ask('bot', 'My name is Ada', { conversation: 'a', user: 'ada' })
    await stage.hub.ask('bot', 'My name is Bob', { conversation: 'a', user: 'bob' })
    const ada = await stage.hub.ask('bot', 'What is my name?', { conversation: 'a', user: 'ada' })
    expect(ada.text).toBe('Your name is Ada.')
    const [first, second, third] = stage.chats().map((chat) => [chat['user_id'], chat['conversation_id']])
    expect(third).toEqual(first)
    expect(second).not.toContain(first![0])
    expect(second).not.toContain(first![1])
  })

  it('sends what was said before only where the bot asks for it', async () => {
    for (const history of [false, true]) {
      await using stage = await hubWithCoze({ history })
      for (const text of ['One', 'Two']) await stage.hub.ask('bot', text, { conversation: 'a' })
      const counts = stage.chats().map((chat) => (chat['additional_messages'] as readonly Json[]).length)
      expect(counts).toEqual(history ? [1, 3] : [1, 1])
    }
  })

  it('passes on what a client of Coze asks of Coze', async () => {
    await using stage = await hubWithCoze()
    const wishes = {
      custom_variables: { tone: 'kind' },
      meta_data: { ticket: '7' },
      shortcut_command: { command_id: '9', parameters: { a: '[]' } },
      parameters: { depth: 2 },
    }
    const question = { role: 'user', content: 'Hello', content_type: 'text' }
    const response = await fetch(`${stage.hub.url}/v3/chat`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ bot_id: 'bot', user_id: 'ada', stream: true, additional_messages: [question], ...wishes }),
    })
    expect(await response.text()).toContain('event:conversation.chat.completed')
    expect(stage.chats()).toMatchObject([wishes])
  })

  it('asks its client for outputs, in as many rounds as it takes', async () => {
    await using stage = await hubWithCoze()
    let turn = await stage.hub.ask('bot', '!rounds')
    for (const output of ['rain', 'snow']) {
      expect(turn).toMatchObject({ status: 'waiting', waiting: { for: 'tool_outputs' } })
      const [call] = turn.waiting!.calls
      const outputs = [{ call: call!.call, output }]
      turn = await jsonOf<TurnObject>(await stage.hub.api(`/turns/${turn.turn}/tool-outputs`, { outputs }))
    }
    expect(turn).toMatchObject({ status: 'completed', text: 'rain snow' })
    expect(stage.chats()).toHaveLength(1)
  })
})
