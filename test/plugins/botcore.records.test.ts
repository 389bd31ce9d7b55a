import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { pino } from 'pino'
import { systemClock } from '../../core/clock.ts'
import type { ConversationRef, Json } from '../../core/message.ts'
import type { NewRecord } from '../../core/records.ts'
import { anyRecord } from '../../core/records.ts'
import type { Store, TurnRow } from '../../core/store.ts'
import { BotCore } from '../../plugins/local/bot-core.ts'
import type { ChatMessage, FoundChatRecord, Where } from '../../plugins/local/bot-core.ts'
import { recordsOf } from '../../plugins/local/bot-host.ts'
import { compare } from '../support/record-filter.ts'
import { openSqlite } from './sqlite.subject.ts'

const owner = { bot: 'bot', key: 'local' }

let store: Store
let count = 0

beforeAll(async () => {
  store = await openSqlite('/', { file: ':memory:' })
})
afterAll(() => store.close())

class AnyBot extends BotCore {
  override sendMessage() {}
}

/** An object of a bot, in this turn. */
function botIn(turn: TurnRow): BotCore {
  const logger = pino({ level: 'silent' })
  const signal = new AbortController().signal
  return new AnyBot({
    eventID: turn.id,
    eventType: '',
    timestamp: 0,
    httpContext: { url: '', httpMethod: 'POST', headers: {} },
    extendedContext: { envId: '', userId: 'local' },
    botId: 'bot',
    signal,
    logger,
    host: {
      sender: 'local',
      conversation: turn.conversation,
      turn: { id: turn.id, text: turn.message.text },
      records: recordsOf(store, owner, systemClock),
      logger,
      say() {},
      end() {},
      fail() {},
      callTool: async () => undefined,
    },
  })
}

async function accept(conversation: string, text: string): Promise<TurnRow> {
  const number = ++count
  const result = await store.accept({
    ...owner,
    turn: `turn_${number}`,
    conversation: { name: conversation },
    newConversation: `conv_${number}`,
    message: { id: `m${number}`, text, files: [] },
    fingerprint: String(number),
    channel: 'rest',
    debug: false,
    bypassConsent: false,
    detached: false,
    at: number,
    queueLimit: 1000,
  })
  if (result.outcome !== 'created') throw new Error(result.outcome)
  return result.turn
}

async function end(turn: TurnRow, text: string, status: 'completed' | 'failed'): Promise<void> {
  const event = { seq: turn.seq + 1, type: 'turn.completed', text } as const
  await store.append([
    { turn: turn.id, epoch: turn.epoch, events: [event], status, result: { text, messages: [] }, at: ++count },
  ])
}

const plain = (turn: TurnRow, conversation: ConversationRef, changes: Partial<NewRecord>): NewRecord => ({
  turn: turn.id,
  role: 'bot',
  text: '',
  fields: {},
  conversation: { id: conversation.id },
  newConversation: 'conv_unused',
  ...changes,
})

describe('getHistoryMessages over any table of records', () => {
  const someText = fc.constantFrom('', 'a', 'b', 'c')
  const somePast = fc.array(
    fc.oneof(
      // A turn: what was said, what was answered, how it ended.
      fc.record({
        type: fc.constant('turn'),
        here: fc.boolean(),
        said: someText,
        answered: someText,
        status: fc.constantFrom('completed', 'failed'),
      }),
      // Something a bot has written beside it.
      fc.record({
        type: fc.constant('record'),
        here: fc.boolean(),
        role: fc.constantFrom('user', 'bot', 'operator'),
        text: someText,
        pushed: fc.option(someText),
      }),
    ),
    { maxLength: 10 },
  )

  it('starts with the user, alternates, holds nothing empty, ends as asked, and is of this conversation', async () => {
    await fc.assert(
      fc.asyncProperty(
        somePast,
        fc.integer({ min: 1, max: 15 }),
        fc.boolean(),
        fc.integer({ min: 0, max: 2 }),
        async (past, size, removeLastUser, queued) => {
          const run = ++count
          const [here, elsewhere] = [`here ${run}`, `elsewhere ${run}`]
          let last = await accept(elsewhere, 'elsewhere: first')
          await end(last, 'elsewhere: first', 'completed')
          const opening = await accept(here, 'opening')
          await end(opening, 'opened', 'completed')
          for (const each of past) {
            const name = each.here ? here : elsewhere
            const say = (text: string) => (text === '' || each.here ? text : `elsewhere: ${text}`)
            if (each.type === 'turn') {
              last = await accept(name, say(each.said))
              await end(last, say(each.answered), each.status)
            } else {
              const conversation = each.here ? opening.conversation : last.conversation
              const fields = each.pushed === null ? {} : { need_async_reply: true, async_reply: say(each.pushed) }
              if (each.here || last.conversation.name === elsewhere) {
                await store.addRecords(
                  owner,
                  [plain(each.here ? opening : last, conversation, { role: each.role, text: say(each.text), fields })],
                  ++count,
                )
              }
            }
          }
          const now = await accept(here, 'the question')
          for (let each = 0; each < queued; each++) await accept(here, 'later: queued')
          const messages = await botIn(now).getHistoryMessages({ size, removeLastUser })
          check(messages, removeLastUser)
          expect(messages.length).toBeLessThanOrEqual(size)
          expect(messages.filter(({ content }) => /^(elsewhere|later)/.test(content))).toEqual([])
          // What is there is shown: with all of it read, the question is at the end, or what was answered before it.
          const all = await botIn(now).getHistoryMessages({ size: 1000, removeLastUser: false })
          expect(all.at(-1)).toEqual({ role: 'user', content: 'the question' })
          check(all, false)
          const { records } = await store.findRecords({ ...owner, conversation: now.conversation.id }, { limit: 1000 })
          const texts = records.flatMap(({ text, fields, partial }) =>
            partial ? [] : [fields['need_async_reply'] ? fields['async_reply'] : text],
          )
          let place = 0
          for (const { content } of all) {
            place = texts.indexOf(content, place) + 1
            expect(place).toBeGreaterThan(0)
          }
        },
      ),
      { numRuns: 100 },
    )
  })

  function check(messages: readonly ChatMessage[], removeLastUser: boolean): void {
    for (const [index, { role, content }] of messages.entries()) {
      expect(role).toBe(index % 2 === 0 ? 'user' : 'assistant')
      expect(content).not.toBe('')
    }
    if (removeLastUser) expect(messages.length % 2).toBe(0)
  }
})

describe('where', () => {
  const fields = ['content', 'role', 'type', 'image', 'n', 'trigger_src', 'sender', 'bot_id', 'reply_to']
  const someText = fc.constantFrom('', 'a', 'A', 'ab', 'text', 'TCB', 'user', 'assistant', 'operator', 'bot', 'É')
  const someValue: fc.Arbitrary<Json> = fc.oneof(someText, fc.constantFrom<Json>(0, 1, 2.5, true, false, null))
  const someRecord = fc.record({
    role: fc.constantFrom('user', 'assistant', 'operator'),
    content: someText,
    more: fc.dictionary(fc.constantFrom('type', 'image', 'n', 'trigger_src', 'reply_to'), someValue, { maxKeys: 3 }),
  })
  const someOperator = fc.oneof(
    fc.record({ $eq: someValue }),
    fc.record({ $neq: someValue }),
    fc.record({ $gt: fc.oneof(someText, fc.constantFrom(0, 1)) }),
    fc.record({ $gte: fc.oneof(someText, fc.constantFrom(0, 1)), $lt: fc.constantFrom<Json>('b', 2) }),
    fc.record({ $lte: fc.oneof(someText, fc.constantFrom(0, 1)) }),
    fc.record({ $in: fc.array(someValue, { maxLength: 3 }) }),
    fc.record({ $nin: fc.array(someValue, { maxLength: 3 }) }),
    fc.record({ $search: someText }),
    fc.record({ $nsearch: someText }),
    fc.record({ $search_ci: someText }),
    fc.record({ $nsearch_ci: someText }),
    fc.record({ $empty: fc.constantFrom<Json>(true, 1, false) }),
    fc.record({ $nempty: fc.constantFrom<Json>(true, 0) }),
    someValue,
  )
  const { where: someWhere } = fc.letrec<{ where: Where }>((tie) => ({
    where: fc.oneof(
      { maxDepth: 3 },
      fc.dictionary(fc.constantFrom(...fields), someOperator, { maxKeys: 3 }),
      fc.record({ $and: fc.array(tie('where'), { maxLength: 3 }) }),
      fc.record({ $or: fc.array(tie('where'), { maxLength: 3 }), role: someOperator }),
    ),
  }))

  it('finds what a plain filter finds', async () => {
    const turn = await accept('where', 'x')
    await fc.assert(
      fc.asyncProperty(fc.array(someRecord, { maxLength: 10 }), someWhere, async (some, where) => {
        await store.deleteRecords(owner, anyRecord)
        const { chatRecord } = botIn(turn)
        for (const { role, content, more } of some) await chatRecord.create({ data: { role, content, ...more } })
        const all = (await chatRecord.list({ pageSize: 100 })).data.records
        expect(all).toHaveLength(some.length)
        const found = await chatRecord.list({ filter: { where }, pageSize: 100, getCount: true })
        const expected = all.filter((record) => meets(record, where))
        expect(found.data.records.map(({ _id }) => _id)).toEqual(expected.map(({ _id }) => _id))
        expect(found.data.total).toBe(expected.length)
        const deleted = await chatRecord.deleteMany({ filter: { where } })
        expect(deleted.data.count).toBe(expected.length)
      }),
      { numRuns: 150 },
    )
  })

  /** The same in plain words, on records as bots see them. */
  function meets(record: FoundChatRecord, where: Where): boolean {
    return Object.entries(where).every(([name, given]) => {
      if (name === '$and') return (given as readonly Where[]).every((each) => meets(record, each))
      if (name === '$or') return (given as readonly Where[]).some((each) => meets(record, each))
      const value = record[name] ?? null
      const asked = typeof given === 'object' && given !== null ? Object.entries(given) : [['$eq', given] as const]
      return asked.every(([operator, operand]) => holds(operator, value, operand as Json))
    })
  }

  function holds(operator: string, value: Json, operand: Json): boolean {
    const order = compare(value, operand)
    switch (operator) {
      case '$eq':
        return value === operand
      case '$neq':
        return value !== operand
      case '$gt':
        return order === 1
      case '$gte':
        return order === 1 || order === 0
      case '$lt':
        return order === -1
      case '$lte':
        return order === -1 || order === 0
      case '$in':
        return (operand as readonly Json[]).includes(value)
      case '$nin':
        return !(operand as readonly Json[]).includes(value)
      case '$search':
        return typeof value === 'string' && value.includes(operand as string)
      case '$nsearch':
        return !holds('$search', value, operand)
      case '$search_ci':
        return typeof value === 'string' && value.toLowerCase().includes((operand as string).toLowerCase())
      case '$nsearch_ci':
        return !holds('$search_ci', value, operand)
      case '$empty':
        return operand ? value === null : value !== null
      case '$nempty':
        return operand ? value !== null : value === null
      default:
        throw new Error(operator)
    }
  }
})
