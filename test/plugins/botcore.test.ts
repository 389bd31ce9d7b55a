import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { FoundChatRecord } from '../../plugins/local/bot-core.ts'
import { local, rest } from '../../index.ts'
import { z } from 'zod'
import { localPrincipal } from '../../core/auth.ts'
import { defineChannel } from '../../core/channel.ts'
import type { ChannelContext } from '../../core/channel.ts'
import type { RecordItem } from '../../core/store.ts'
import CallingBot from '../fakes/bots/calling-bot.ts'
import type { Call } from '../fakes/bots/calling-bot.ts'
import { jsonOf, startHub } from '../support/hub.ts'
import type { TestHub } from '../support/hub.ts'

const module = new URL('../fakes/bots/calling-bot.ts', import.meta.url)
const tools = { searchNetwork: async (_bot: string, { query }: { query: string }) => ({ found: query }) }

/** What a call gave, in the shape that its method promises. */
interface Result {
  readonly data: {
    readonly id: string
    readonly idList: readonly string[]
    readonly total: number
    readonly records: readonly FoundChatRecord[]
  }
  readonly userRecord: FoundChatRecord
  readonly botRecord: FoundChatRecord
  readonly recordList: readonly { readonly createTime: string }[]
  readonly threw: string
}
type Results = readonly [Result, Result, Result, Result, Result, Result, Result, Result, Result, Result]

let hub: TestHub
let channel: ChannelContext
const probe = defineChannel({
  name: 'probe',
  options: z.strictObject({}),
  create(_, context) {
    channel = context
    return { door: 'none' }
  },
})
let count = 0

beforeAll(async () => {
  hub = await startHub({
    channels: { rest: rest(), probe: probe() },
    bots: {
      'ibot-here-tag': local(CallingBot, { tools }),
      'ibot-there-tag': local(module, { isolate: true, tools }),
    },
  })
})
afterAll(() => hub[Symbol.asyncDispose]())

describe.each(['ibot-here-tag', 'ibot-there-tag'])('BotCore as %s', (bot) => {
  /** The results of these calls, made in one turn; in a conversation of its own unless it is named. */
  async function calls(steps: readonly Call[], conversation = `c${++count}`, user = conversation): Promise<Results> {
    const turn = await hub.ask(bot, JSON.stringify(steps), { conversation, user })
    expect(turn).toMatchObject({ status: 'completed' })
    return JSON.parse(turn.text) as Results
  }

  it('knows its id, its tag, and what it was asked', async () => {
    const conversation = `c${++count}`
    const [id, tag, context, host] = await calls(
      [['botId'], ['botTag'], ['context.extendedContext'], ['context.eventType'], ['context.httpContext.httpMethod']],
      conversation,
      'ada',
    )
    expect([id, tag, context, host]).toEqual([bot, 'tag', { envId: 'bothub', userId: 'ada' }, 'bothub.message'])
  })

  it('finds the two records of its turn, made by nobody else', async () => {
    const conversation = `c${++count}`
    const [pair, updated, listed] = await calls(
      [
        ['createRecordPair', { userContent: 'anything' }],
        [
          'chatRecord.update',
          { data: { content: 'my words', image: 'a.png' }, filter: { where: { _id: '$0.botRecord._id' } } },
        ],
        ['chatRecord.list', { getCount: true }],
      ],
      conversation,
    )
    expect(pair.userRecord).toMatchObject({
      role: 'user',
      conversation,
      bot_id: bot,
      sender: conversation,
      type: 'text',
    })
    expect(pair.botRecord).toMatchObject({ role: 'assistant', content: '' })
    expect(pair.userRecord.reply).toBe(pair.botRecord.record_id)
    expect(updated).toEqual({ data: { count: 1 } })
    expect(listed.data.total).toBe(2)
    const { items } = await jsonOf<{ items: RecordItem[] }>(
      await hub.api(`/bots/${bot}/conversations/${conversation}/messages?user=${conversation}`),
    )
    expect(items).toMatchObject([{ role: 'user' }, { role: 'bot', text: 'my words' }])
    expect(items[1]).not.toHaveProperty('partial')
    const [after] = await calls([['chatRecord.get', { filter: { where: { image: 'a.png' } } }]], conversation)
    expect(after.data).toMatchObject({ content: 'my words', image: 'a.png' })
  })

  it('takes the records it creates of this exchange for the two there are', async () => {
    const conversation = `c${++count}`
    const steps: Call[] = [
      ['createUserRecord', { record: { content: '$msg', reply: 'record-b' } }],
      ['createBotRecord', { record: { record_id: 'record-b' } }],
      ['chatRecord.create', { data: '$0' }],
      ['chatRecord.create', { data: '$1' }],
      ['chatRecord.create', { data: { role: 'assistant', content: 'a second one' } }],
      ['chatRecord.list', {}],
    ]
    const results = await calls(steps, conversation)
    expect(results[1]).toMatchObject({ record_id: 'record-b', reply: 'record-b', role: 'assistant', content: '' })
    expect(results[0]).toMatchObject({ role: 'user', reply: 'record-b', conversation, bot_id: bot })
    expect(results[5].data.records.map(({ role, reply }) => [role, reply])).toEqual([
      ['user', 'record-b'],
      ['assistant', 'record-b'],
      ['assistant', undefined],
    ])
  })

  it('creates, changes, finds and deletes records by the words of CloudBase', async () => {
    const seen = { seen: true }
    const results = await calls([
      [
        'chatRecord.createMany',
        { data: [1, 2, 3].map((n) => ({ role: 'user', content: `n${n}`, trace_id: `t${n}`, n })) },
      ],
      ['chatRecord.updateMany', { data: seen, filter: { where: { n: { $gte: 2 } } } }],
      [
        'chatRecord.list',
        { filter: { where: { seen: true } }, orderBy: [{ n: 'desc' }], getCount: true, pageSize: 1, pageNumber: 2 },
      ],
      [
        'chatRecord.upsert',
        {
          filter: { where: { trace_id: 't9' } },
          update: seen,
          create: { role: 'user', content: 'new', trace_id: 't9' },
        },
      ],
      [
        'chatRecord.upsert',
        { filter: { where: { trace_id: 't9' } }, update: { content: 'old' }, create: { content: 'no' } },
      ],
      [
        'chatRecord.get',
        { filter: { where: { $or: [{ trace_id: 't9' }, { trace_id: 'none' }] } }, select: { content: true } },
      ],
      ['chatRecord.get', { filter: { where: { trace_id: 'none' } } }],
      ['chatRecord.delete', { filter: { where: { trace_id: { $in: ['t1', 't2'] } } } }],
      ['chatRecord.deleteMany', { filter: { where: { trace_id: { $nempty: true } } } }],
      ['chatRecord.list', { getCount: true }],
    ])
    expect(results[0].data.idList).toHaveLength(3)
    expect(results[1]).toEqual({ data: { count: 2 } })
    expect(results[2].data).toMatchObject({ total: 2, records: [{ content: 'n2', trace_id: 't2', n: 2, seen: true }] })
    expect(results[3].data).toMatchObject({ count: 0, id: expect.stringMatching(/^\d+$/) })
    expect(results[4].data).toEqual({ count: 1, id: '' })
    expect(results[5].data).toEqual({ _id: results[3].data.id, content: 'old' })
    expect(results[6].data).toEqual({})
    expect(results[7].data).toEqual({ count: 1 })
    expect(results[8].data).toEqual({ count: 3 })
    expect(results[9].data.total).toBe(1)
  })

  it.each<[string, Call, RegExp]>([
    [
      'an operator that is none',
      ['chatRecord.list', { filter: { where: { content: { $regex: 'a' } } } }],
      /no operator \$regex; did you mean/,
    ],
    [
      'an order by four fields',
      ['chatRecord.list', { orderBy: ['a', 'b', 'c', 'd'].map((f) => ({ [f]: 'asc' })) }],
      /3 fields at most/,
    ],
    ['a change of it does not say what', ['chatRecord.updateMany', { data: {} }], /say which records/],
    ['nothing to create', ['chatRecord.createMany', { data: [] }], /one record at least/],
    ['a role of its own', ['chatRecord.create', { data: { role: 'system' } }], /not "system"/],
    ['a page before the first', ['chatRecord.list', { pageNumber: 0 }], /from 1/],
    ['SQL', ['chatRecord.runSQLTemplate', {}], /cannot send SQL|bots can send SQL/],
    ['an environment of CloudBase', ['tcb'], /no CloudBase environment/],
    ['an event that is none', ['sseSender.send', 7], /takes \{ data/],
  ])('says what is wrong with %s', async (_, call, message) => {
    expect((await calls([call]))[0].threw).toMatch(message)
  })

  it('sees only the records of the user it speaks with', async () => {
    await calls([['botId']], 'shared', 'eve')
    await calls([['botId']], 'other', 'eve')
    const [mine] = await calls([['chatRecord.list', { getCount: true }]], 'shared', 'bob')
    expect(mine.data.total).toBe(1)
    const [hers, history] = await calls(
      [['chatRecord.list', { getCount: true }], ['getHistoryMessage']],
      'shared',
      'eve',
    )
    expect(hers.data.total).toBe(5)
    expect(history).toHaveLength(2)
  })

  it('gives its history, whatever it is called', async () => {
    const conversation = `c${++count}`
    await calls([['botId']], conversation)
    const [all, one, withLast] = await calls(
      [['getHistoryMessages'], ['getHistoryMessage', { size: 1 }], ['getHistoryMessages', { removeLastUser: false }]],
      conversation,
    )
    expect(all).toEqual([
      { role: 'user', content: '[["botId"]]' },
      { role: 'assistant', content: JSON.stringify([bot]) },
    ])
    expect(one).toEqual([])
    expect(withLast).toHaveLength(3)
  })

  it('pages its chat records as CloudBase answers them', async () => {
    const conversation = `c${++count}`
    for (let turn = 0; turn < 2; turn++) await calls([['botId']], conversation)
    const [newest, oldest] = await calls(
      [
        ['getChatRecords', { pageSize: '2', pageNumber: '2' }],
        ['getChatRecords', { sort: 'asc', pageSize: 1 }],
      ],
      conversation,
    )
    expect(newest).toMatchObject({ total: 5, recordList: [{ role: 'user' }, { role: 'assistant' }] })
    expect(oldest.recordList).toEqual([
      expect.objectContaining({ role: 'user', botId: bot, conversation, content: '[["botId"]]', triggerSrc: 'TCB' }),
    ])
    expect(Date.parse(oldest.recordList[0]!.createTime)).toBeGreaterThan(0)
  })

  it('has the tools its config gives it, and a code for the others', async () => {
    const [found, failed, missing] = await calls([
      ['tools.searchNetwork', bot, { query: 'weather' }],
      ['tools.searchNetwork', bot],
      ['tools.searchDB', bot, {}],
    ])
    expect(found).toEqual({ found: 'weather' })
    expect(failed).toMatchObject({ code: 'TOOL_FAILED' })
    expect(missing).toMatchObject({ code: 'NOT_SUPPORTED', message: expect.stringContaining('searchDB') })
  })

  it('is reached by channels for more than messages', async () => {
    const conversation = `c${++count}`
    await hub.ask(bot, '[]', { conversation })
    const { conversations } = channel
    const principal = localPrincipal()
    const signal = AbortSignal.timeout(10_000)
    const asking = { principal, bot, conversation, signal }
    expect([...conversations.methods(principal, bot, 'cloudbase')].toSorted()).toEqual([
      'getBotInfo',
      'getRecommendQuestions',
      'wxSendMessage',
    ])
    expect(conversations.methods(principal, bot, 'other').size).toBe(0)
    expect(await conversations.invoke(asking, 'cloudbase', 'getBotInfo', { a: 1 })).toEqual({
      botId: bot,
      name: 'Calling',
      asked: { a: 1 },
      conversation,
    })
    expect(await Array.fromAsync(conversations.suggest(asking, { text: 'tea', history: [] }))).toEqual([
      'What else about tea?',
      'Who are you?',
    ])
    const outside = { principal, bot, signal }
    expect(await conversations.invoke(outside, 'cloudbase', 'wxSendMessage', {})).toBeUndefined()
    const { records } = await conversations.findRecords(principal, bot, 'wx', { limit: 10 })
    expect(records).toMatchObject([{ role: 'bot', text: 'from outside', turn: '', fields: { image: 'a.png' } }])
    await expect(conversations.invoke(asking, 'cloudbase', 'speechToText', {})).rejects.toMatchObject({
      code: 'unsupported',
    })
  })
})
