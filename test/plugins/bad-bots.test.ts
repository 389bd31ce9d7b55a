import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { BotCore, local } from '../../index.ts'
import BadBot from '../fakes/bots/bad-bot.ts'
import { eventually } from '../support/eventually.ts'
import { startHub } from '../support/hub.ts'
import type { TestHub } from '../support/hub.ts'

const module = new URL('../fakes/bots/bad-bot.ts', import.meta.url)

let hub: TestHub
let toSay = ''

class Saying extends BotCore {
  override sendMessage() {
    this.sseSender.send({ data: { content: toSay } })
    this.sseSender.end()
  }
}

beforeAll(async () => {
  hub = await startHub({
    bots: {
      here: local(BadBot),
      there: local(module, { isolate: true }),
      'here-impatient': local(BadBot, { idleTimeoutMs: 500 }),
      'there-impatient': local(module, { isolate: true, idleTimeoutMs: 500 }),
      // Long enough for a busy machine to give the thread its turn.
      stuck: local(module, { isolate: true, blockedTimeoutMs: 1500 }),
      saying: local(Saying),
      good: local(({ message }) => message.text),
    },
  })
})
afterAll(() => hub[Symbol.asyncDispose]())

const warnings = (bot: string) =>
  hub.log.filter((line) => line['plugin'] === bot || line['bot'] === bot).map((line) => String(line['msg']))

async function goodStillAnswers(): Promise<void> {
  expect(await hub.ask('good', 'well?')).toMatchObject({ status: 'completed', text: 'well?' })
}

describe.each(['here', 'there'])('a bot of bad habits, %s', (bot) => {
  it.each([
    ['throws', 'throw', { status: 'failed', text: 'so', error: { code: 'bot_failed' } }],
    ['sends after its end', 'after-end', { status: 'completed', text: 'so' }],
    ['returns without an end', 'no-end', { status: 'completed', text: 'so' }],
  ])('that %s ends its turn, and no other', async (_, habit, outcome) => {
    const [turn] = await Promise.all([hub.ask(bot, habit), goodStillAnswers()])
    expect(turn).toMatchObject(outcome)
    expect(JSON.stringify(turn)).not.toContain('canary')
    expect(await hub.ask(bot, 'be good')).toMatchObject({ status: 'completed', text: 'so' })
  })

  it('that never ends is ended after its silence', async () => {
    const turn = await hub.ask(`${bot}-impatient`, 'hang')
    expect(turn).toMatchObject({ status: 'failed', text: 'so', error: { code: 'bot_silent' } })
  })

  it('is warned about in the log', () => {
    expect(warnings(bot)).toEqual(
      expect.arrayContaining([
        'dropped what the bot sent after sseSender.end()',
        'the bot returned without sseSender.end()',
      ]),
    )
  })
})

describe('a bot that holds the event loop', () => {
  it('is named in a warning with how long, after an await too', async () => {
    const busy = hub.ask('here', 'block 230')
    expect(await busy).toMatchObject({ status: 'completed' })
    const warning = warnings('here').find((each) => each.includes('event loop'))
    expect(warning).toMatch(
      /^the bot here held the event loop for 2[3-9]\d ms|^the bot here held the event loop for [3-9]\d\d ms/,
    )
  })

  it('in a thread of its own holds up nobody', async () => {
    const busy = hub.ask('there', 'block 230')
    await goodStillAnswers()
    expect(await busy).toMatchObject({ status: 'completed', text: 'so' })
    expect(hub.log.filter((line) => String(line['msg']).includes('the bot there held the event loop'))).toEqual([])
  })

  it('and never gives way is ended with bot_blocked, and answers again', async () => {
    const stuck = hub.ask('stuck', 'block-for-ever')
    await goodStillAnswers()
    expect(await stuck).toMatchObject({ status: 'failed', text: 'so', error: { code: 'bot_blocked' } })
    expect(warnings('stuck').join()).toMatch(/held its own thread for \d+ ms/)
    expect(await hub.ask('stuck', 'be good')).toMatchObject({ status: 'completed', text: 'so' })
  })
})

describe('a bot in a thread of its own', () => {
  it.each(['stray', 'exit'])('takes nothing with it when its thread ends by %s', async (habit) => {
    const [turn] = await Promise.all([hub.ask('stuck', habit), goodStillAnswers()])
    expect(turn).toMatchObject({ status: 'failed', error: { code: 'bot_failed' } })
    expect(JSON.stringify(turn)).not.toContain('canary')
    expect(await hub.ask('stuck', 'be good')).toMatchObject({ status: 'completed', text: 'so' })
  })

  it('hears that its turn was cancelled', async () => {
    const { turn } = (await (
      await hub.api('/bots/stuck/messages', { text: 'hang' }, { prefer: 'respond-async' })
    ).json()) as { turn: string }
    await hub.api(`/turns/${turn}/cancel`, {})
    // The request is answered before the bot has stopped.
    await eventually(async () =>
      expect(await (await hub.api(`/turns/${turn}`)).json()).toMatchObject({ status: 'cancelled' }),
    )
  })
})

it('passes on line ends and the words of a protocol as they were sent', async () => {
  toSay = 'one\r\n\r\ndata: [DONE]\n\nevent: x\rid: 1\n\n: two\u2028three'
  const events = await hub.stream('saying', 'x')
  expect(events.at(-1)).toMatchObject({ type: 'turn.completed', text: toSay })
})
