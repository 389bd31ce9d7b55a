import cloudbase from '@cloudbase/js-sdk'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { asgard, cloudbaseApi, coze, demoBot, local } from '../../index.ts'
import { inChromium } from '../support/chromium.ts'
import { startHub } from '../support/hub.ts'
import type { TestHub } from '../support/hub.ts'

/** What is used of Tencent's `@cloudbase/js-sdk`; its own types say nothing of it. */
interface Sdk {
  readonly bot: {
    get(given: object): Promise<object>
    sendMessage(given: object): Promise<{ readonly dataStream: AsyncIterable<Frame> }>
    getChatRecords(given: object): Promise<{ readonly recordList: readonly ChatRecord[]; readonly total: number }>
    getRecommendQuestions(given: object): Promise<{ readonly textStream: AsyncIterable<string> }>
    sendFeedback(given: object): Promise<object>
    getFeedback(given: object): Promise<object>
    createConversation(given: object): Promise<Conversation>
    getConversation(given: object): Promise<{ readonly data: readonly Conversation[]; readonly total: number }>
    deleteConversation(given: object): Promise<object>
  }
}

interface Frame {
  readonly type: string
  readonly content: string
  readonly finish_reason: string
}

interface ChatRecord {
  readonly role: string
  readonly content: string
  readonly recordId: string
}

interface Conversation {
  readonly conversationId: string
}

/** What a client has seen of one bot. */
interface Seen {
  readonly text: string
  readonly ends: readonly string[]
  readonly records: readonly ChatRecord[]
  readonly [step: string]: unknown
}

const profile = { name: 'Demo', starters: ['What can you do?', 'Who are you?'] }
const bots = {
  main: { provider: local(demoBot), profile },
  'asgard-demo': { provider: asgard({ simulated: true }), profile },
  'coze-demo': { provider: coze({ simulated: true }), profile },
}
const botIds = ['main', 'ibot-local-asgard-demo', 'coze-demo']

/**
 * Everything that the SDK can ask of a bot. It stands for itself, so that a page can be given its source.
 */
async function tryOut({ bot }: Sdk, botId: string): Promise<Seen> {
  const failed = async (work: Promise<unknown>): Promise<string> =>
    work.then(
      () => 'no failure',
      // In a browser what it throws is no error.
      (error: unknown) => (error instanceof Error ? error.message : JSON.stringify(error)),
    )
  const info = await bot.get({ botId })
  const { conversationId, ...made } = await bot.createConversation({ botId, title: 'About us' })
  const answer = await bot.sendMessage({ botId, conversationId, msg: 'my name is Ada', history: [] })
  let text = ''
  const ends: string[] = []
  for await (const { type, content, finish_reason } of answer.dataStream) {
    text += content
    if (finish_reason !== 'continue') ends.push(type)
  }
  const about = { botId, conversationId, sort: 'asc', pageSize: 10, pageNumber: 1 }
  const { recordList: records, total } = await bot.getChatRecords(about)
  const recordId = records[1]?.recordId
  const rating = {
    botId,
    recordId,
    type: 'upvote',
    rating: 5,
    tags: ['clear'],
    comment: 'Good!',
    input: '',
    aiAnswer: '',
  }
  const feedback = await bot.sendFeedback({ userFeedback: rating })
  const given = await bot.getFeedback({ botId, type: 'upvote', pageSize: 10, pageNumber: 1 })
  const suggested = await bot.getRecommendQuestions({ botId, msg: 'hello', history: [] })
  let questions = ''
  for await (const piece of suggested.textStream) questions += piece
  const listed = await bot.getConversation({ botId, pageSize: 10, pageNumber: 1 })
  const deleted = await bot.deleteConversation({ botId, conversationId })
  return {
    info,
    made,
    text,
    ends,
    records,
    total,
    recordId,
    feedback,
    given,
    questions: questions.split('\n').filter((line) => line !== ''),
    listed: listed.data.map((each) => each.conversationId === conversationId),
    listedTotal: listed.total,
    deleted,
    gone: await failed(bot.getChatRecords(about)),
    nobody: await failed(bot.sendMessage({ botId: 'nobody', msg: 'hello' })),
  }
}

function expectAll(seen: Seen): void {
  expect(seen).toMatchObject({
    info: { name: 'Demo', type: 'text', initQuestions: profile.starters },
    made: { title: 'About us', createTime: expect.any(String) as string },
    ends: ['finish'],
    total: 2,
    feedback: { status: 'success' },
    given: {
      total: 1,
      feedbackList: [
        { recordId: seen['recordId'], type: 'upvote', rating: 5, tags: ['clear'], input: 'my name is Ada' },
      ],
    },
    questions: profile.starters,
    listed: [true],
    listedTotal: 1,
    deleted: { count: 1 },
  })
  expect(seen.text).toContain('Ada')
  expect(seen.records.map(({ role, content }) => [role, content])).toEqual([
    ['user', 'my name is Ada'],
    ['assistant', seen.text],
  ])
  expect(seen['gone']).toContain('unknown_conversation')
  expect(seen['nobody']).toContain('unknown_bot')
}

let hub: TestHub
beforeAll(async () => {
  hub = await startHub({ bots, channels: { cloudbase: cloudbaseApi() } })
})
afterAll(() => hub[Symbol.asyncDispose]())

describe("Tencent's @cloudbase/js-sdk in Node", () => {
  it.each(botIds)('talks to %s as to an agent of CloudBase', async (botId) => {
    const app: unknown = cloudbase.init({ env: 'local', region: 'ap-shanghai', accessKey: 'any-key' })
    const ai = (app as { ai(options: { baseUrl: string }): Sdk }).ai({ baseUrl: `${hub.url}/v1` })
    expectAll(await tryOut(ai, botId))
  })
})

inChromium("Tencent's @cloudbase/js-sdk in Chromium", (browser) => {
  it('talks to every bot as to an agent of CloudBase', async () => {
    await using open = await browser.open({
      script: `
        import cloudbase from '@cloudbase/js-sdk'
        ${tryOut.toString()}
        const app = cloudbase.init({ env: 'local', region: 'ap-shanghai', accessKey: 'any-key' })
        const ai = app.ai({ baseUrl: '${hub.url}/v1' })
        const seen = []
        try {
          for (const botId of ${JSON.stringify(botIds)}) seen.push(await tryOut(ai, botId))
          window.seen = seen
        } catch (error) {
          window.seen = String(error && error.stack)
        }`,
    })
    await open.page.waitForFunction('window.seen')
    const seen: unknown = await open.page.evaluate('window.seen')
    if (!Array.isArray(seen)) throw new Error(String(seen))
    expect(seen).toHaveLength(botIds.length)
    for (const each of seen as readonly Seen[]) expectAll(each)
  })
})
