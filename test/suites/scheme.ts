import { describe, expect, it } from 'vitest'
import type { SchemeSpec } from '../../channels/webhook/scheme.ts'
import { apiKey, echo, local, rest, sqlite, webhook } from '../../index.ts'
import type { BotFunction, HubConfig, HubEvent } from '../../index.ts'
import { gatedBot } from '../fakes/gated-bot.ts'
import { eventually } from '../support/eventually.ts'
import { startHub } from '../support/hub.ts'
import { thatMayBeFull } from './channel.ts'
import type { TestHub } from '../support/hub.ts'
import type { ApiAnswer, ApiCall, FakePlatform } from '../support/platform.ts'

/** A request of a platform, signed. */
export interface SignedRequest {
  readonly method?: 'GET' | 'POST'
  readonly query?: string
  readonly headers?: Readonly<Record<string, string>>
  readonly body?: string
}

/** What somebody says on a platform. */
export interface Saying {
  readonly text: string
  /** The platform's id of the event. */
  readonly id: string
  readonly conversation: string
  readonly user: string
}

/** One platform, for the suite: its scheme, its API and how it sends. */
export interface SchemeSubject {
  readonly scheme: (baseUrl: string) => SchemeSpec
  /** None of these may be seen in a log or an answer. */
  readonly secrets: readonly string[]
  readonly start: () => Promise<FakePlatform>
  /** A new saying each time, in a conversation of its own. */
  readonly saying: (text: string) => Saying
  readonly send: (saying: Saying) => SignedRequest
  /** As `send`, by somebody who has not the secret. */
  readonly forge: (saying: Saying) => SignedRequest
  /** Signed, and yet nothing that the platform sends; by what is wrong with it. */
  readonly broken: Readonly<Record<string, SignedRequest>>
  /** Whether a call posts a message. */
  readonly posts: (call: ApiCall) => boolean
  /** How the platform says that it was called too often, for a second. */
  readonly tooOften: ApiAnswer
  /** How the platform says that somebody is not to be reached any more. */
  readonly gone: ApiAnswer
  readonly maxLength: number
  readonly measure?: (text: string) => number
  readonly streams: boolean
}

/** Sends what a platform sends to the channel `chat` of a hub. */
export const deliverTo = (hub: TestHub, { method = 'POST', query, headers, body }: SignedRequest): Promise<Response> =>
  fetch(`${hub.url}/api/v1/webhooks/chat${query === undefined ? '' : `?${query}`}`, {
    method,
    ...(headers ? { headers } : {}),
    ...(body === undefined ? {} : { body }),
  })

/** A hub with one bot behind the channel `chat`. */
export const hubBehind = (
  { scheme }: Pick<SchemeSubject, 'scheme'>,
  platform: { readonly url: string },
  bot: HubConfig['bots'][string] = echo(),
  { folder, allowPrivate = true }: { readonly folder?: string; readonly allowPrivate?: boolean } = {},
): Promise<TestHub> =>
  startHub(
    {
      bots: { bot },
      channels: { rest: rest(), chat: webhook({ bot: 'bot', scheme: scheme(`${platform.url}/`), allowPrivate }) },
    },
    folder === undefined ? {} : { folder },
  )

/** A bot that says something else the first time it is asked a thing. */
const failing: BotFunction = async function* ({ message, answers }): AsyncGenerator<string | HubEvent> {
  if (message.text === 'fail') throw new Error('what nobody is to see')
  if (answers) return yield 'allowed'
  yield 'before it'
  yield { type: 'consent.requested', calls: [{ call: 'c', tool: 'search', input: {}, alreadyAllowed: false }] }
}

const failed = (hub: TestHub) => hub.log.find((line) => line['msg'] === 'a delivery failed')

/** The behaviour of every scheme: from what the platform sends to what its people see. */
export function schemeSuite(name: string, subject: SchemeSubject): void {
  const { saying, send, maxLength, measure = (text: string) => text.length } = subject
  const textsOf = (platform: FakePlatform) => platform.messages.map(({ text }) => text)
  /** Sentences that take two messages and a half. */
  const long = (() => {
    let text = ''
    for (let count = 1; measure(text) < 2.5 * maxLength; count++)
      text += `This is sentence number ${count}, 第${count}句. `
    return text.trim()
  })()

  describe(`${name}, as every scheme`, () => {
    it('answers what was said, where it was said, once however often it is sent', async () => {
      await using platform = await subject.start()
      let runs = 0
      const whose: string[] = []
      const bot = local(({ message, principal }) => {
        runs += 1
        whose.push(`${principal.user}`)
        return `You said ${message.text}`
      })
      await using hub = await hubBehind(subject, platform, bot)
      const hello = saying('hello <there> & you')
      const answers = await Promise.all([1, 2, 3].map(() => deliverTo(hub, send(hello))))
      expect(answers.map(({ status }) => status)).toEqual([200, 200, 200])
      await eventually(() => expect(textsOf(platform)).toEqual(['You said hello <there> & you']))
      await eventually(async () => expect(await (await hub.api('/outbox')).json()).toEqual({ items: [], closed: [] }))
      expect((await deliverTo(hub, send(hello))).status).toBe(200)
      const other = saying('another')
      await deliverTo(hub, send(other))
      await eventually(() => expect(platform.messages).toHaveLength(2))
      expect(runs).toBe(2)
      expect(whose).toEqual([hello.user, other.user])
      expect(platform.messages.map(({ conversation }) => conversation)).toEqual([
        hello.conversation,
        other.conversation,
      ])
      const { items } = (await (await hub.api(`/bots/bot/conversations?user=${hello.user}`)).json()) as {
        items: unknown[]
      }
      expect(items).toHaveLength(1)
    })

    it('acknowledges before the bot has answered', async () => {
      await using platform = await subject.start()
      const bot = gatedBot()
      await using hub = await hubBehind(subject, platform, bot.provider)
      expect((await deliverTo(hub, send(saying('hello')))).status).toBe(200)
      await bot.began('hello')
      bot.finish('hello')
      await eventually(() => expect(textsOf(platform)).toEqual(['So: hello.']))
    })

    it.runIf(subject.streams)('shows the answer while it streams, in the message that will be whole', async () => {
      await using platform = await subject.start()
      const bot = gatedBot()
      await using hub = await hubBehind(subject, platform, bot.provider)
      await deliverTo(hub, send(saying('hello')))
      await eventually(() => expect(textsOf(platform)).toEqual(['So:']))
      bot.finish('hello')
      await eventually(() => expect(textsOf(platform)).toEqual(['So: hello.']))
      expect(platform.shown).toEqual(['So:', 'So: hello.'])
    })

    it.runIf(subject.streams)('goes on after a restart in the message that the process before has begun', async () => {
      await using platform = await subject.start()
      const bot = gatedBot()
      await using first = await hubBehind(subject, platform, bot.provider)
      await deliverTo(first, send(saying('hello')))
      await eventually(() => expect(textsOf(platform)).toEqual(['So:']))
      await first.hub.stop(0)
      await using second = await hubBehind(subject, platform, bot.provider, { folder: first.folder })
      await eventually(() => expect(textsOf(platform)).toEqual(['So:\n\nThe answer was stopped.']))
      await eventually(async () =>
        expect(await (await second.api('/outbox')).json()).toEqual({ items: [], closed: [] }),
      )
      expect(platform.messages).toHaveLength(1)
    })

    it.runIf(subject.streams)('is left alone by the delivery too, when it had enough of the stream', async () => {
      await using platform = await subject.start()
      const bot = gatedBot()
      const posts: number[] = []
      platform.interrupt = (call) => {
        if (!subject.posts(call)) return undefined
        return posts.push(Date.now()) === 1 ? subject.tooOften : undefined
      }
      await using hub = await hubBehind(subject, platform, bot.provider)
      await deliverTo(hub, send(saying('hello')))
      await eventually(() => expect(posts).toHaveLength(1))
      bot.finish('hello')
      await eventually(async () => {
        await hub.api('/outbox/retry', {})
        expect(textsOf(platform)).toEqual(['So: hello.'])
      })
      expect(posts).toHaveLength(2)
      expect(posts[1]! - posts[0]!).toBeGreaterThanOrEqual(999)
    })

    it('splits what is longer than a message may be, between sentences, and loses nothing', async () => {
      await using platform = await subject.start()
      await using hub = await hubBehind(
        subject,
        platform,
        local(() => long),
      )
      await deliverTo(hub, send(saying('tell me')))
      await eventually(() => expect(platform.messages.length).toBeGreaterThan(2))
      await eventually(() => expect(textsOf(platform).join(' ')).toBe(long))
      expect(textsOf(platform).filter((text) => measure(text) > maxLength)).toEqual([])
      expect(textsOf(platform).filter((text) => !text.startsWith('This is sentence'))).toEqual([])
    })

    it('goes on with the second message after a restart when the first has been posted', async () => {
      await using platform = await subject.start()
      const bot = local(() => long)
      await using first = await hubBehind(subject, platform, bot)
      let posts = 0
      platform.interrupt = (call) => (subject.posts(call) && ++posts > 1 ? { status: 500, body: {} } : undefined)
      await deliverTo(first, send(saying('tell me')))
      await eventually(() => expect(failed(first)).toBeDefined())
      await first.hub.stop(0)
      platform.interrupt = undefined
      const before = platform.calls.length
      await using second = await hubBehind(subject, platform, bot, { folder: first.folder })
      await second.api('/outbox/retry', {})
      await eventually(() => expect(textsOf(platform).join(' ')).toBe(long))
      expect(platform.shown).toEqual(textsOf(platform))
      expect(platform.calls.slice(before).filter(subject.posts)).toHaveLength(platform.messages.length - 1)
    })

    it('comes back when the platform says so, and not before', async () => {
      await using platform = await subject.start()
      const posts: number[] = []
      platform.interrupt = (call) => {
        if (!subject.posts(call)) return undefined
        return posts.push(Date.now()) === 1 ? subject.tooOften : undefined
      }
      await using hub = await hubBehind(subject, platform)
      await deliverTo(hub, send(saying('hello')))
      await eventually(() => expect(failed(hub)).toMatchObject({ err: { retryAfterMs: 1000 } }))
      // An operator who is in a hurry has no say in it.
      await eventually(async () => {
        await hub.api('/outbox/retry', {})
        expect(textsOf(platform)).toEqual(['hello'])
      })
      expect(posts).toHaveLength(2)
      expect(posts[1]! - posts[0]!).toBeGreaterThanOrEqual(999)
    })

    it('tries nothing again for somebody who is not to be reached, and goes on with all others', async () => {
      await using platform = await subject.start()
      await using hub = await hubBehind(subject, platform)
      platform.interrupt = (call) => (subject.posts(call) ? subject.gone : undefined)
      await deliverTo(hub, send(saying('hello')))
      await eventually(() => expect(hub.log.some((line) => line['msg'] === 'a delivery was given up')).toBe(true))
      platform.interrupt = undefined
      await deliverTo(hub, send(saying('and you')))
      await eventually(() => expect(textsOf(platform)).toEqual(['and you']))
      const outbox = async () => (await hub.api('/outbox')).json()
      await eventually(async () => expect(await outbox()).toMatchObject({ items: [{ state: 'failed' }], closed: [] }))
      expect(platform.calls.filter(subject.posts)).toHaveLength(2)
    })

    it('takes nothing that is not signed, and nothing that cannot be read, and lives on', async () => {
      await using platform = await subject.start()
      await using hub = await hubBehind(subject, platform)
      const forged = await deliverTo(hub, subject.forge(saying('hello')))
      expect([forged.status, await forged.json()]).toMatchObject([401, { error: { code: 'bad_signature' } }])
      expect((await deliverTo(hub, { body: send(saying('hello')).body! })).status).toBe(401)
      for (const [wrong, request] of Object.entries(subject.broken)) {
        const { status } = await deliverTo(hub, request)
        expect([wrong, status >= 400 && status < 500]).toEqual([wrong, true])
      }
      await deliverTo(hub, send(saying('still there')))
      await eventually(() => expect(textsOf(platform)).toEqual(['still there']))
      expect((await hub.hub.audit.page({ limit: 9 })).items).toMatchObject([
        { what: 'credential refused', details: { why: 'webhook chat: signature' } },
      ])
    })

    it('says 503 while nothing can be kept, and takes the message when it comes again, as the key of `as`', async () => {
      await using platform = await subject.start()
      let isFull = true
      const bot = local(({ principal }) => `for ${principal.key} ${principal.user}`)
      await using hub = await startHub({
        auth: [apiKey({ name: 'chat', key: 'key-of-the-chat-0123', trusted: true })],
        bots: { bot },
        channels: {
          chat: webhook({ bot: 'bot', as: 'chat', scheme: subject.scheme(platform.url), allowPrivate: true }),
        },
        store: thatMayBeFull(sqlite({ file: ':memory:' }), () => isFull),
      })
      const hello = saying('hello')
      expect((await deliverTo(hub, send(hello))).status).toBe(503)
      isFull = false
      expect((await deliverTo(hub, send(hello))).status).toBe(200)
      await eventually(() => expect(textsOf(platform)).toEqual([`for chat ${hello.user}`]))
    })

    it('tells people of a failure and of a question in sentences of the hub', async () => {
      await using platform = await subject.start()
      await using hub = await hubBehind(subject, platform, {
        provider: local(failing),
        profile: { language: 'zh-Hant' },
      })
      await deliverTo(hub, send(saying('fail')))
      await eventually(() => expect(textsOf(platform)).toEqual(['機器人發生錯誤，請再試一次。']))
      const ask = saying('ask')
      await deliverTo(hub, send(ask))
      const question = 'before it\n\n是否允許機器人使用：search？它會等到有人允許或拒絕為止。'
      await eventually(() => expect(textsOf(platform).at(-1)).toBe(question))
      const messages = await hub.api(
        `/bots/bot/conversations/${encodeURIComponent(ask.conversation)}/messages?user=${ask.user}`,
      )
      const { items } = (await messages.json()) as { items: readonly { turn: string }[] }
      await hub.api(`/turns/${items[0]!.turn}/consent`, { decisions: [{ call: 'c', result: 'allow_once' }] })
      await eventually(() => expect(textsOf(platform).slice(1)).toEqual([question, 'allowed']))
    })

    it('keeps its secrets out of logs and answers, whatever fails', async () => {
      await using platform = await subject.start()
      await using hub = await hubBehind(subject, platform)
      platform.interrupt = () => ({ status: 400, body: { error: 'no', description: 'no' } })
      await deliverTo(hub, send(saying('hello')))
      await eventually(() => expect(failed(hub)).toBeDefined())
      await using nowhere = await hubBehind(subject, { url: 'http://127.0.0.1:9' })
      await deliverTo(nowhere, send(saying('hello')))
      await eventually(() => expect(failed(nowhere)).toBeDefined())
      // Nobody has said that loopback addresses are allowed.
      await using guarded = await hubBehind(subject, platform, echo(), { allowPrivate: false })
      const calls = platform.calls.length
      await deliverTo(guarded, send(saying('hello')))
      await eventually(() => expect(failed(guarded)).toBeDefined())
      expect(platform.calls).toHaveLength(calls)
      const seen = JSON.stringify([hub.log, nowhere.log, guarded.log, await (await hub.api('/outbox')).json()])
      expect(seen).toContain('a delivery failed')
      expect(subject.secrets.filter((secret) => seen.includes(secret))).toEqual([])
    })
  })
}
