import { describe, expect, it } from 'vitest'
import type { BotFunction, HubEvent } from '../../index.ts'
import { BotCore, checkConfig, defineConfig, local, rest } from '../../index.ts'
import { startHub } from '../support/hub.ts'

class Spelling extends BotCore {
  override async sendMessage({ msg }: { msg: string }) {
    for (const letter of msg) this.sseSender.send({ data: { content: letter } })
    this.sseSender.end()
  }
}

describe('a bot as a function', () => {
  it.each<[string, BotFunction]>([
    ['returns its answer', () => 'hello'],
    ['promises its answer', async () => 'hello'],
    [
      'yields it piece by piece',
      async function* () {
        yield 'hel'
        yield ''
        yield 'lo'
      },
    ],
  ])('that %s answers in one message', async (_, bot) => {
    await using hub = await startHub({ bots: { bot: local(bot) } })
    const turn = await hub.ask('bot', 'x')
    expect(turn).toMatchObject({ status: 'completed', text: 'hello', messages: [{ text: 'hello' }] })
  })

  it('begins a new message after an event', async () => {
    const bot = local(async function* (): AsyncGenerator<string | HubEvent> {
      yield 'first'
      yield { type: 'suggestion', text: 'go on?' }
      yield 'second'
    })
    await using hub = await startHub({ bots: { bot } })
    expect((await hub.ask('bot', 'x')).messages.map((message) => message.text)).toEqual(['first', 'second'])
  })

  it('that falls silent ends with bot_silent, what it said kept', async () => {
    const bot = local(
      async function* () {
        yield 'so'
        await new Promise(() => {})
      },
      { idleTimeoutMs: 30 },
    )
    await using hub = await startHub({ bots: { bot } })
    expect(await hub.ask('bot', 'x')).toMatchObject({ status: 'failed', text: 'so', error: { code: 'bot_silent' } })
  })
})

describe('a bot as a module', () => {
  const module = new URL('../fakes/bots/repeating-bot.ts', import.meta.url)

  it('is its default export, or the one that is named', async () => {
    const bots = { one: local(module), other: local(module, { export: 'asFunction' }) }
    await using hub = await startHub({ bots })
    expect(await hub.ask('one', 'so it is')).toMatchObject({ status: 'completed', text: 'so it is' })
    expect(await hub.ask('other', 'x')).toMatchObject({ status: 'completed', text: 'from a function' })
  })

  it.each([
    ['is not there', local(new URL('./none.ts', import.meta.url)), /could not be loaded/],
    [
      'is not there for a thread either',
      local(new URL('./none.ts', import.meta.url), { isolate: true }),
      /could not be loaded/,
    ],
    ['has no such export', local(module, { export: 'Nobody' }), /no bot "Nobody".*RepeatingBot|no bot "Nobody"/],
    [
      'is a function and to be isolated',
      local(module, { export: 'asFunction', isolate: true }),
      /only a class on BotCore/,
    ],
  ])('that %s is told before the hub listens', async (_, bot, message) => {
    await expect(startHub({ bots: { bot } })).rejects.toMatchObject({
      code: 'config_invalid',
      message: expect.stringMatching(message),
    })
  })

  it('is what a thread takes; a class it does not', async () => {
    // @ts-expect-error a class cannot be moved to another thread
    const bot = local(Spelling, { isolate: true })
    expect(() => checkConfig(defineConfig({ bots: { bot }, channels: { rest: rest() } }))).toThrow(
      /isolate.*takes a module/s,
    )
  })
})

describe('a bot as a class', () => {
  it('answers through its sseSender, one object a turn', async () => {
    await using hub = await startHub({ bots: { bot: local(Spelling) } })
    const [one, two] = await Promise.all([hub.ask('bot', 'abc'), hub.ask('bot', 'xyz')])
    expect([one.text, two.text]).toEqual(['abc', 'xyz'])
  })

  it('knows its id, its tag and the conversation so far', async () => {
    class Curious extends BotCore {
      override async sendMessage() {
        const history = await this.getHistoryMessages()
        const all = await this.getHistoryMessages({ removeLastUser: false, size: 3 })
        this.sseSender.send({ data: { content: JSON.stringify([this.botId, this.botTag, history.length, all]) } })
        this.sseSender.end()
      }
    }
    await using hub = await startHub({ bots: { 'ibot-x-tag': local(Curious), plain: local(Curious) } })
    expect(JSON.parse((await hub.ask('plain', 'one', { conversation: 'a' })).text)).toEqual([
      'plain',
      'plain',
      0,
      [{ role: 'user', content: 'one' }],
    ])
    await hub.ask('ibot-x-tag', 'one', { conversation: 'a' })
    const [id, tag, count, all] = JSON.parse(
      (await hub.ask('ibot-x-tag', 'two', { conversation: 'a' })).text,
    ) as unknown[]
    expect([id, tag, count]).toEqual(['ibot-x-tag', 'tag', 2])
    expect(all).toMatchObject([
      { role: 'user', content: 'one' },
      { role: 'assistant' },
      { role: 'user', content: 'two' },
    ])
  })

  it('shows its thoughts apart from its words', async () => {
    class Thinker extends BotCore {
      override sendMessage() {
        this.sseSender.send({ data: { reasoning_content: 'hm' } })
        this.sseSender.send({ data: { content: 'so' } })
        this.sseSender.end()
      }
    }
    await using hub = await startHub({ bots: { bot: local(Thinker) } })
    const events = await hub.stream('bot', 'x')
    expect(events.find((event) => event.type === 'reasoning.delta')).toMatchObject({ text: 'hm' })
    expect(events.at(-1)).toMatchObject({ type: 'turn.completed', text: 'so' })
  })

  it('completes with a warning when it returns without end(), and waits for work after end()', async () => {
    let finished = false
    class Forgetful extends BotCore {
      override sendMessage() {
        this.sseSender.send({ data: { content: 'bye' } })
      }
    }
    class Late extends BotCore {
      override async sendMessage() {
        this.sseSender.end()
        await new Promise((resolve) => setImmediate(resolve))
        this.sseSender.send({ data: { content: 'too late' } })
        finished = true
      }
    }
    await using hub = await startHub({ bots: { forgetful: local(Forgetful), late: local(Late) } })
    expect(await hub.ask('forgetful', 'x')).toMatchObject({ status: 'completed', text: 'bye' })
    expect(await hub.ask('late', 'x')).toMatchObject({ status: 'completed', text: '' })
    expect(finished).toBe(true)
    expect(hub.log.map((line) => line['msg'])).toEqual([
      'the bot returned without sseSender.end()',
      'dropped what the bot sent after sseSender.end()',
    ])
  })

  it.each([
    [
      'throws',
      () => {
        throw new Error('canary')
      },
    ],
    [
      'sends what is no event',
      function (this: BotCore) {
        this.sseSender.send(7 as never)
      },
    ],
  ])('that %s ends its turn with a code and no word of the cause', async (_, work) => {
    class Bad extends BotCore {
      override sendMessage() {
        this.sseSender.send({ data: { content: 'before' } })
        work.call(this)
      }
    }
    await using hub = await startHub({ bots: { bot: local(Bad) } })
    const turn = await hub.ask('bot', 'x')
    expect(turn).toMatchObject({ status: 'failed', text: 'before', error: { code: 'bot_failed' } })
    expect(JSON.stringify(turn)).not.toContain('canary')
  })
})
