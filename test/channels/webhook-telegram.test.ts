import { describe, expect, it } from 'vitest'
import { checkConfig, defineConfig, echo, local, telegram, webhook } from '../../index.ts'
import { gatedBot } from '../fakes/gated-bot.ts'
import { deliverTo, hubBehind, schemeSuite } from '../suites/scheme.ts'
import type { Saying, SchemeSubject, SignedRequest } from '../suites/scheme.ts'
import { eventually } from '../support/eventually.ts'
import { startPlatform } from '../support/platform.ts'
import type { ApiAnswer, ApiCall, PlatformState } from '../support/platform.ts'

const token = '123456:token-of-the-bot'
const secret = 'secret-of_the-webhook'

const sign = (body: string, given = secret): SignedRequest => ({
  headers: { 'content-type': 'application/json', 'x-telegram-bot-api-secret-token': given },
  body,
})

/** An update with a message from one person in their own chat, as the Bot API documents it. */
const updateOf = ({ id, text, conversation, user }: Saying, message: Record<string, unknown> = {}): string =>
  JSON.stringify({
    update_id: Number(id),
    message: {
      message_id: Number(id) + 1000,
      from: { id: Number(user), is_bot: false, first_name: 'Ada', language_code: 'en' },
      chat: { id: Number(conversation), first_name: 'Ada', type: 'private' },
      date: 1_700_000_000,
      text,
      ...message,
    },
  })

const refusal = (status: number, description: string): ApiAnswer => ({
  status,
  body: { ok: false, error_code: status, description },
})

/** The part of the Bot API that posts, edits and shows typing. */
function answer({ path, body }: ApiCall, state: PlatformState): ApiAnswer {
  const [, bot, method] = path.split('/')
  if (bot !== `bot${token}`) return refusal(401, 'Unauthorized')
  const { chat_id, message_id, message_thread_id: thread, text } = body as Record<string, number> & { text: string }
  if (typeof chat_id !== 'number') return refusal(400, 'Bad Request: chat not found')
  const conversation = thread === undefined ? String(chat_id) : `${chat_id}:${thread}`
  const ok = (result: unknown): ApiAnswer => ({ body: { ok: true, result } })
  if (method === 'sendChatAction') return ok(state.typing.push(conversation) > 0)
  if (text.length > 4096) return refusal(400, 'Bad Request: message is too long')
  if (method === 'sendMessage') {
    const { message_id: replyTo } = (body['reply_parameters'] ?? {}) as { message_id?: number }
    const { id } = state.post({ conversation, text, ...(replyTo === undefined ? {} : { replyTo: String(replyTo) }) })
    return ok({ message_id: Number(id), chat: { id: chat_id }, date: 1, text })
  }
  if (method !== 'editMessageText') return refusal(404, 'Not Found')
  const known = state.messages.find(({ id }) => id === String(message_id))
  if (known?.text === text) {
    return refusal(400, 'Bad Request: message is not modified: specified new message content is the same')
  }
  if (!state.edit(String(message_id), text)) return refusal(400, 'Bad Request: message to edit not found')
  return ok({ message_id, text })
}

let sayings = 0

const subject: SchemeSubject = {
  scheme: (baseUrl) => telegram({ token, secret, editEvery: 20, baseUrl }),
  secrets: [token, secret],
  start: () => startPlatform(answer),
  saying: (text) => ({ text, id: String(++sayings), conversation: `${sayings}00`, user: `${sayings}00` }),
  send: (saying) => sign(updateOf(saying)),
  forge: (saying) => sign(updateOf(saying), 'secret-of_the-webhooks'),
  broken: { 'no JSON': sign('{"update_id":'), 'no update': sign('{"message":{}}'), 'not UTF-8': sign('') },
  posts: ({ path }) => path.endsWith('/sendMessage'),
  tooOften: {
    status: 429,
    body: {
      ok: false,
      error_code: 429,
      description: 'Too Many Requests: retry after 1',
      parameters: { retry_after: 1 },
    },
  },
  gone: refusal(403, 'Forbidden: bot was blocked by the user'),
  maxLength: 4096,
  streams: true,
}

schemeSuite('telegram', subject)

describe('telegram', () => {
  it('shows that the bot is typing, before it has said a word', async () => {
    await using platform = await subject.start()
    const bot = gatedBot()
    await using hub = await hubBehind(subject, platform, bot.provider)
    const hello = subject.saying('hello')
    await deliverTo(hub, subject.send(hello))
    await eventually(() => expect(platform.typing).toEqual([hello.conversation]))
    bot.finish('hello')
    await eventually(() => expect(platform.messages.map(({ text }) => text)).toEqual(['So: hello.']))
  })

  it('answers captions, topics and groups, where it points at the question, and ignores the rest', async () => {
    await using platform = await subject.start()
    const asked: string[] = []
    await using hub = await hubBehind(
      subject,
      platform,
      local(({ message, conversation, principal }) => {
        asked.push(`${conversation.name} ${principal.user} ${message.text}`)
        return message.text
      }),
    )
    const from = { id: 7, is_bot: false }
    const group = { id: -100_123_456_789_012, type: 'supergroup' }
    const messages: Record<string, unknown>[] = [
      { message_id: 1, from, chat: { id: 7 }, caption: 'a picture', photo: [] },
      { message_id: 2, from, chat: group, text: 'in the group' },
      { message_id: 3, from, chat: group, text: 'in a topic', is_topic_message: true, message_thread_id: 5 },
      { message_id: 4, from: { id: 8, is_bot: true }, chat: group, text: 'of a bot' },
      { message_id: 5, chat: group, text: 'of nobody', sender_chat: group },
      { message_id: 6, from, chat: { id: 7 }, sticker: {} },
      { message_id: 7, from, chat: { id: 7 }, text: 7 },
    ]
    const updates: unknown[] = messages.map((message, index) => ({ update_id: 9000 + index, message }))
    updates.push({ update_id: 9100, edited_message: messages[0] }, { update_id: 9101, message: 'x' })
    for (const each of updates) {
      expect([each, (await deliverTo(hub, sign(JSON.stringify(each)))).status]).toEqual([each, 200])
    }
    await eventually(() => expect(platform.messages).toHaveLength(3))
    expect(asked).toEqual(['7 7 a picture', `${group.id} 7 in the group`, `${group.id}:5 7 in a topic`])
    const id = expect.any(String) as string
    const seen = platform.messages.toSorted((a, b) => a.text.localeCompare(b.text))
    expect(seen).toEqual([
      { id, conversation: '7', text: 'a picture' },
      { id, conversation: `${group.id}:5`, text: 'in a topic', replyTo: '3' },
      { id, conversation: String(group.id), text: 'in the group', replyTo: '2' },
    ])
  })

  it('takes the words of an operator to the chat, though they answer nothing', async () => {
    await using platform = await subject.start()
    await using hub = await hubBehind(subject, platform)
    const hello = subject.saying('hello')
    await deliverTo(hub, subject.send(hello))
    await eventually(() => expect(platform.messages).toHaveLength(1))
    const list = await hub.api(`/bots/bot/conversations?user=${hello.user}`)
    const { items } = (await list.json()) as { items: readonly { id: string }[] }
    await hub.api(`/conversations/${items[0]!.id}/handover`, {})
    await hub.api(`/conversations/${items[0]!.id}/messages`, { text: 'Bob here' })
    await eventually(() =>
      expect(platform.messages[1]).toMatchObject({ text: 'Bob here', conversation: hello.conversation }),
    )
    await deliverTo(hub, sign(updateOf({ ...hello, id: '9900', text: 'to Bob' })))
    await hub.api(`/conversations/${items[0]!.id}/messages`, { text: 'Bye' })
    await eventually(() => expect(platform.messages.map(({ text }) => text)).toEqual(['hello', 'Bob here', 'Bye']))
  })

  it('wants a secret that Telegram can send', () => {
    expect(() =>
      checkConfig(
        defineConfig({
          bots: { bot: echo() },
          channels: { chat: webhook({ bot: 'bot', scheme: telegram({ token, secret: 'with a blank' }) }) },
        }),
      ),
    ).toThrow('must be 1 to 256 letters')
  })
})
