import { readJson } from '../../core/body.ts'
import { HubError } from '../../core/errors.ts'
import type { HistoryMessage, JsonObject } from '../../core/message.ts'
import { leaving } from '../../core/upload.ts'
import { conversationOf } from './bots.ts'
import type { Call, Handler } from './bots.ts'
import { ClassicEncoder, done, toText } from './encode.ts'
import { suggestBody } from './requests.ts'
import { openStream } from './streams.ts'

/**
 * Streams questions that the user may ask next, a line each: those the bot thinks of when it is asked; else those that its
 * last answer came with; else the starters of its profile.
 */
export const recommendQuestions: Handler = async (call) => {
  const { ctx, context, bot } = call
  const { msg, history, conversationId, ...about } = await readJson(ctx, suggestBody)
  using left = leaving(ctx)
  const conversation = await conversationOf(call, conversationId ?? undefined)
  const asking = { principal: ctx.principal, bot, conversation: conversation?.id, signal: left.signal }
  const request = {
    ...(msg ? { text: msg } : {}),
    history: (history ?? []).flatMap(toHistory),
    payload: present(about),
  }
  const questions = withFallback(context.conversations.suggest(asking, request), () => known(call, conversation?.id))
  const first = await questions.next()
  const client = openStream(ctx, context, '')
  const encoder = new ClassicEncoder({ id: '', bot, createdAt: context.clock.now() })
  for (let step = first; !step.done; step = await questions.next()) {
    await client.write([toText(encoder.say(`${step.value}\n`))])
  }
  await client.write([toText(encoder.finish()), done])
  client.close()
}

/** Other questions where a bot has no such ability, or thinks of nothing. */
async function* withFallback(
  questions: AsyncIterable<string>,
  otherwise: () => Promise<readonly string[]>,
): AsyncGenerator<string> {
  let count = 0
  try {
    for await (const question of questions) {
      if (question.trim() === '') continue
      count += 1
      yield question.replaceAll(/\s*\n\s*/g, ' ')
    }
  } catch (error) {
    if (!(error instanceof HubError && error.code === 'unsupported')) throw error
  }
  if (count === 0) yield* await otherwise()
}

async function known({ ctx, context, bot }: Call, conversation: string | undefined): Promise<readonly string[]> {
  const offered = conversation === undefined ? [] : await lastSuggestions({ ctx, context, bot }, conversation)
  return offered.length > 0 ? offered : (context.bots.get(bot)?.profile.starters ?? [])
}

/** The suggestions that came with the last answer of a conversation, as long as its events are kept. */
async function lastSuggestions(
  { ctx, context, bot }: Pick<Call, 'ctx' | 'context' | 'bot'>,
  conversation: string,
): Promise<readonly string[]> {
  const { items } = await context.conversations.records(ctx.principal, bot, conversation, { limit: 1 })
  const answer = items.find(({ role }) => role === 'bot')
  if (!answer) return []
  const suggestions: string[] = []
  using left = leaving(ctx)
  for await (const events of context.hub.follow(answer.turn, 0, left.signal)) {
    for (const event of events) if (event.type === 'suggestion') suggestions.push(event.text)
  }
  return suggestions
}

const present = (fields: Readonly<Record<string, string | null | undefined>>): JsonObject =>
  Object.fromEntries(Object.entries(fields).flatMap(([name, value]) => (value ? [[name, value]] : [])))

function toHistory({
  role,
  content,
}: {
  readonly role: string
  readonly content?: unknown
}): readonly HistoryMessage[] {
  if (typeof content !== 'string' || content === '') return []
  return [{ role: role === 'user' ? 'user' : 'bot', text: content }]
}
