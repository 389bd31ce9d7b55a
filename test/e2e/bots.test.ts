import { readFileSync } from 'node:fs'
import { describe, expect, it, vi } from 'vitest'
import { asgard, BotCore, coze, demoBot, echo, local } from '../../index.ts'
import type { TurnObject } from '../../index.ts'
import { startAsgardSimulator } from '../../plugins/asgard/simulator.ts'
import { startCozeSimulator } from '../../plugins/coze/simulator.ts'
import { jsonOf, readEvents, startHub } from '../support/hub.ts'
import { deploy, startProgram } from '../support/program.ts'
import { connectSocket } from '../support/socket.ts'

// Programs are started here, on a machine that may be busy.
vi.setConfig({ testTimeout: 60_000, hookTimeout: 60_000 })

/** A bot of each kind; the last two have upstreams whose requests can be looked at. */
async function startKinds() {
  const edge = await startAsgardSimulator()
  const studio = await startCozeSimulator()
  const hub = await startHub({
    bots: {
      function: local(demoBot),
      class: local(Recaller),
      echo: echo(),
      asgard: asgard({
        edgeServerHost: edge.url,
        namespace: edge.namespace,
        botProviderName: edge.botProviderName,
        apiKey: edge.apiKey,
      }),
      coze: coze({ baseUrl: studio.url, token: studio.token, botId: studio.botId }),
    },
  })
  return {
    ...hub,
    edge,
    studio,
    async [Symbol.asyncDispose]() {
      await hub[Symbol.asyncDispose]()
      await edge.close()
      await studio.close()
    },
  }
}
type Kinds = Awaited<ReturnType<typeof startKinds>>

const kinds = ['function', 'class', 'echo', 'asgard', 'coze'] as const
const remembering = ['function', 'class', 'asgard', 'coze'] as const

/** Tells everything that was said before. */
class Recaller extends BotCore {
  override async sendMessage({ msg }: { readonly msg: string }) {
    for (const { content } of await this.getHistoryMessages({ size: 20 })) {
      this.sseSender.send({ data: { content: `${content} ` } })
    }
    this.sseSender.send({ data: { content: `You said ${msg}` } })
    this.sseSender.end()
  }
}

interface Records {
  readonly items: readonly { readonly role: string; readonly text: string; readonly turn: string }[]
}
const recordsOf = async (hub: Kinds, bot: string, conversation: string, user?: string) =>
  jsonOf<Records>(
    await hub.api(`/bots/${bot}/conversations/${conversation}/messages`, undefined, user ? { 'x-hub-user': user } : {}),
  )

describe('the BotCore page', () => {
  it('its example runs as it is: every character of the answer is a delta', async () => {
    const example = readFileSync(new URL('../fixtures/seeds/my-bot.js.txt', import.meta.url), 'utf8')
    const config = `import { BotCore, defineConfig, local, rest, sse } from 'bothub'
${example}
export default defineConfig({ bots: { mine: local(MyBot) }, channels: { rest: rest(), sse: sse() } })
`
    using deployment = deploy(config)
    await using program = await startProgram(deployment)
    const answer = '这是一条流式传输的内容。'
    const events = await readEvents(
      await program.api('/bots/mine/messages', { text: '你好' }, { accept: 'text/event-stream' }),
    )
    expect(events.flatMap((event) => (event.type === 'message.delta' ? event.text : []))).toEqual(answer.split(''))
    expect(events.at(-1)).toMatchObject({ type: 'turn.completed', text: answer })
  })
})

describe('a conversation', () => {
  it('is exactly two records after one exchange, whatever the kind of bot', async () => {
    await using hub = await startKinds()
    for (const kind of kinds) {
      const turn = await hub.ask(kind, 'hello', { conversation: 'once' })
      expect([kind, turn.status]).toEqual([kind, 'completed'])
      expect(turn.text).not.toBe('')
      const { items } = await recordsOf(hub, kind, 'once')
      expect(items.map(({ role, text, turn: of }) => ({ role, text, of }))).toEqual([
        { role: 'user', text: 'hello', of: turn.turn },
        { role: 'bot', text: turn.text, of: turn.turn },
      ])
    }
  })

  it('that began over WebSocket goes on over REST and then SSE, and is remembered', async () => {
    await using hub = await startKinds()
    using socket = await connectSocket(hub.url)
    for (const kind of remembering) {
      const first = await socket.chat({ agentId: kind, sessionId: 'shared', message: 'my name is Ada' })
      expect(first.at(-1)).toMatchObject({ type: 'stream', done: true, sessionId: 'shared' })
      const second = await hub.ask(kind, 'what is my name?', { conversation: 'shared' })
      expect([kind, second.text]).toEqual([kind, expect.stringContaining('Ada')])
      const third = await hub.stream(kind, 'what is my name?', { conversation: 'shared' })
      expect(third.at(-1)).toMatchObject({ type: 'turn.completed', text: expect.stringContaining('Ada') })
      expect((await recordsOf(hub, kind, 'shared')).items).toHaveLength(6)
    }
  })

  it('without a name is a new one each time, and its id opens it again', async () => {
    await using hub = await startKinds()
    const first = await hub.ask('function', 'my name is Ada')
    const other = await hub.ask('function', 'what is my name?')
    expect(other.conversation).not.toBe(first.conversation)
    expect(other.text).not.toContain('Ada')
    const again = await hub.ask('function', 'what is my name?', { conversation: first.conversation })
    expect(again.text).toContain('Ada')
  })
})

/** The three places where a trusted server says for whom it asks. */
const places = {
  'the body': (user: string) => ({ query: '', headers: {}, body: { user } }),
  '?user=': (user: string) => ({ query: `?user=${user}`, headers: {}, body: {} }),
  'X-Hub-User': (user: string) => ({ query: '', headers: { 'x-hub-user': user }, body: {} }),
}

describe('two users', () => {
  it.each(Object.entries(places))('who both call their conversation "1" never meet when named in %s', async (_, as) => {
    await using hub = await startKinds()
    const ask = async (kind: string, user: string, text: string) => {
      const { query, headers, body } = as(user)
      const answer = await hub.api(`/bots/${kind}/messages${query}`, { text, conversation: '1', ...body }, headers)
      return jsonOf<TurnObject>(answer)
    }
    for (const kind of remembering) {
      const told = await Promise.all([ask(kind, 'ada', 'my name is Ada'), ask(kind, 'bob', 'my name is Bob')])
      expect(told.map(({ status }) => status)).toEqual(['completed', 'completed'])
      const [ada, bob] = await Promise.all([ask(kind, 'ada', 'what is my name?'), ask(kind, 'bob', 'what is my name?')])
      expect([kind, ada.text]).toEqual([kind, expect.stringContaining('Ada')])
      expect([kind, bob.text]).toEqual([kind, expect.stringContaining('Bob')])
      expect(ada.text).not.toContain('Bob')
      expect(bob.text).not.toContain('Ada')
      const records = await recordsOf(hub, kind, '1', 'ada')
      expect(records.items).toHaveLength(4)
      expect(JSON.stringify(records)).not.toContain('Bob')
    }

    const runs = hub.edge.requests.filter(({ method, path }) => method === 'POST' && path === '/message/sse')
    expect(runs).toHaveLength(4)
    const hints = Map.groupBy(runs, ({ headers }) => headers['x-asgard-user-identity-hint'])
    expect(new Set(hints.keys())).toEqual(new Set(['ada', 'bob']))
    const channels = Array.from(hints.values(), (of) => new Set(of.map(({ body }) => Object(body).customChannelId)))
    expect(channels.map(({ size }) => size)).toEqual([1, 1])
    expect(channels[0]!.isDisjointFrom(channels[1]!)).toBe(true)

    const chats = hub.studio.requests.filter(({ path }) => path === '/v3/chat')
    expect(chats).toHaveLength(4)
    const users = Map.groupBy(chats, ({ body }) => Object(body).user_id as string)
    expect(users.size).toBe(2)
    const conversations = Array.from(users.values(), (of) => new Set(of.map(({ query }) => query['conversation_id'])))
    expect(conversations.map(({ size }) => size)).toEqual([1, 1])
    expect(conversations[0]!.isDisjointFrom(conversations[1]!)).toBe(true)
  })

  it('never meet over WebSocket either', async () => {
    await using hub = await startKinds()
    for (const kind of remembering) {
      using ada = await connectSocket(hub.url, { headers: { 'x-hub-user': 'ada' } })
      using bob = await connectSocket(hub.url, { headers: { 'x-hub-user': 'bob' } })
      const chat = { agentId: kind, sessionId: '1', stream: false }
      await ada.chat({ ...chat, message: 'my name is Ada' })
      await bob.chat({ ...chat, message: 'my name is Bob' })
      const [forAda] = await ada.chat({ ...chat, message: 'what is my name?' })
      const [forBob] = await bob.chat({ ...chat, message: 'what is my name?' })
      expect([kind, forAda!.content]).toEqual([kind, expect.stringContaining('Ada')])
      expect([kind, forBob!.content]).toEqual([kind, expect.stringContaining('Bob')])
      expect(forAda!.content).not.toContain('Bob')
      expect(forBob!.content).not.toContain('Ada')
    }
  })

  it("share what the hub made: a conversation's own id is open to the key, whoever the user is", async () => {
    await using hub = await startKinds()
    const turn = await hub.ask('function', 'my name is Ada', { user: 'ada' })
    expect(turn.conversation).toMatch(/^conv_/)
    const other = await hub.ask('function', 'what is my name?', { user: 'bob', conversation: turn.conversation })
    expect(other.text).toContain('Ada')
  })
})
