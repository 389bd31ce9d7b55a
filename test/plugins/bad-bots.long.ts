import { describe, expect, it } from 'vitest'
import { BotCore, local } from '../../index.ts'
import BadBot from '../fakes/bots/bad-bot.ts'
import { startHub } from '../support/hub.ts'

const module = new URL('../fakes/bots/bad-bot.ts', import.meta.url)
const tenMegabytes = '😀'.repeat(2_621_440)

class Saying extends BotCore {
  override sendMessage() {
    this.sseSender.send({ data: { content: tenMegabytes } })
    this.sseSender.end()
  }
}

describe('a bot that sends much', () => {
  it('is passed on in pieces, none of which cuts a character in two', async () => {
    await using hub = await startHub({ bots: { saying: local(Saying), good: local(() => 'good') } })
    const [events, other] = await Promise.all([hub.stream('saying', 'x'), hub.ask('good', 'x')])
    const deltas = events.flatMap((event) => (event.type === 'message.delta' ? [event.text] : []))
    expect(deltas.join('') === tenMegabytes).toBe(true)
    expect(Math.max(...deltas.map((each) => each.length))).toBeLessThanOrEqual(262_144)
    expect(deltas.every((each) => each.isWellFormed())).toBe(true)
    expect(events.at(-1)?.type).toBe('turn.completed')
    expect(other.status).toBe('completed')
  })

  it.each([
    ['in this thread', local(BadBot)],
    ['in its own', local(module, { isolate: true })],
  ])('without an end, %s, is stopped at the limit of a turn', async (_, flooding) => {
    await using hub = await startHub({ bots: { flooding, good: local(() => 'good') } })
    const [turn, other] = await Promise.all([hub.ask('flooding', 'flood'), hub.ask('good', 'x')])
    expect(turn).toMatchObject({ status: 'failed', error: { code: 'answer_too_large' } })
    expect(turn.text.length).toBeGreaterThan(15 * 1_048_576)
    expect(other.status).toBe('completed')
  })
})
