import { check, readJson } from '../../core/body.ts'
import { HubError } from '../../core/errors.ts'
import { recordIds } from '../../core/records.ts'
import type { FeedbackItem } from '../../core/store.ts'
import type { Call, Handler } from './bots.ts'
import { feedbackBody, feedbackQuery } from './requests.ts'

/** How much of the caller's feedback is looked through for what a client asks for: the newest. */
const maxSearched = 2000
const verdicts = { upvote: 'good', downvote: 'bad' } as const

/** Keeps what somebody thinks of an answer, and tells the bot where it wants to know. */
export const sendFeedback: Handler = async ({ ctx, context, bot }) => {
  const { recordId, type, comment, rating, tags } = await readJson(ctx, feedbackBody)
  const { records } = await context.conversations.findRecords(ctx.principal, bot, undefined, {
    where: { type: 'equal', property: 'id', value: recordId },
    limit: 1,
  })
  const turn = records[0]?.turn
  if (!turn) throw new HubError('unknown_message')
  await context.conversations.rate(ctx.principal, {
    bot,
    turn,
    verdict: verdicts[type],
    ...(comment ? { comment } : {}),
    ...(rating ? { rating } : {}),
    ...(tags ? { tags } : {}),
  })
  // The mini-program UI looks for this word.
  ctx.body = { status: 'success' }
}

/** A page of the feedback that the caller has given to a bot, the latest first. */
export const getFeedback: Handler = async (call) => {
  const wanted = check(feedbackQuery, call.ctx.query)
  const found = (await allFeedback(call)).filter((item) => matches(item, wanted, senderOf(item, call)))
  const first = (wanted.pageNumber - 1) * wanted.pageSize
  const page = found.slice(first, first + wanted.pageSize)
  call.ctx.body = {
    feedbackList: await Promise.all(page.map((item) => toCloudBase(item, call))),
    total: found.length,
  }
}

/** The latest first. */
async function allFeedback({ ctx, context, bot }: Call): Promise<readonly FeedbackItem[]> {
  const items: FeedbackItem[] = []
  let before: string | undefined
  do {
    const page = await context.conversations.feedback(
      ctx.principal,
      { bot },
      { limit: 200, ...(before === undefined ? {} : { before }) },
    )
    items.push(...page.items.toReversed())
    before = page.before
  } while (before !== undefined && items.length < maxSearched)
  return items
}

type Wanted = ReturnType<typeof check<typeof feedbackQuery>>

function matches({ verdict, rating, at }: FeedbackItem, wanted: Wanted, sender: string): boolean {
  return (
    (!wanted.type || verdicts[wanted.type] === verdict) &&
    (!wanted.sender || senderFilters[wanted.senderFilter](sender, wanted.sender)) &&
    (rating ?? 0) >= (wanted.minRating ?? 0) &&
    (rating ?? 0) <= (wanted.maxRating ?? Infinity) &&
    at >= toMs(wanted.from ?? 0) &&
    at <= toMs(wanted.to ?? Infinity)
  )
}

const senderFilters = {
  include: (sender: string, part: string) => sender.includes(part),
  exclude: (sender: string, part: string) => !sender.includes(part),
  equal: (sender: string, other: string) => sender === other,
  unequal: (sender: string, other: string) => sender !== other,
  prefix: (sender: string, start: string) => sender.startsWith(start),
} as const

/** No time of ours in ms is as small as one in seconds will be for a long time. */
const toMs = (time: number): number => (time < 1e11 ? time * 1000 : time)

const senderOf = ({ speaker }: FeedbackItem, { ctx: { principal } }: Call): string =>
  speaker ?? principal.user ?? principal.key

async function toCloudBase(item: FeedbackItem, call: Call) {
  const { text, input } = await said(item, call)
  return {
    recordId: recordIds(item.turn).bot,
    type: item.verdict === 'good' ? 'upvote' : 'downvote',
    botId: call.botId,
    sender: senderOf(item, call),
    comment: item.comment ?? '',
    rating: item.rating ?? 0,
    tags: item.tags ?? [],
    input,
    aiAnswer: text,
    createTime: new Date(item.at).toISOString(),
  }
}

/** What was asked and answered; nothing of a turn that is no longer kept. */
async function said({ turn }: FeedbackItem, { ctx, context }: Call): Promise<{ text: string; input: string }> {
  try {
    const { message } = await context.hub.turn(ctx.principal, turn)
    return { input: message.text, text: (await context.hub.view(turn)).text }
  } catch (error) {
    if (error instanceof HubError && error.code === 'unknown_turn') return { input: '', text: '' }
    throw error
  }
}
