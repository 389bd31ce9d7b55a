import { HubError } from '../../core/errors.ts'
import type { HubEvent } from '../../core/events.ts'
import type { ConversationRef, HistoryMessage, Json, JsonObject } from '../../core/message.ts'
import type { SuggestionRequest } from '../../core/plugin.ts'
import type { Owner } from '../../core/store.ts'
import type { Turn } from '../../core/turn.ts'
import { Queue } from '../../core/flow.ts'
import { botMethods } from './bot-core.ts'
import type { BotClass, BotContext, BotCore, ChatMessage, IBot, SendMessageInput } from './bot-core.ts'
import type { BotHost } from './bot-host.ts'

/** For whom a bot works: one message, or one call of another method. */
export interface Asked {
  /** Of the turn, or of the call. */
  readonly id: string
  readonly botId: string
  readonly sender: string
  /** Milliseconds since the epoch. */
  readonly at: number
  /** Whose records it works with. */
  readonly owner: Owner
  readonly conversation?: ConversationRef
  readonly turn?: Turn
  readonly signal: AbortSignal
}

/** What a bot's objects work with, apart from what they were asked. */
export type BotServices = Pick<BotHost, 'records' | 'logger' | 'callTool'>

type Said = string | HubEvent

/** Answers a turn: one object, whose `sendMessage` runs until it is done, whatever it sent before. */
export const answer = (Bot: BotClass, asked: Asked & { readonly turn: Turn }, services: BotServices) =>
  collect(Bot, asked, services, (bot) => bot.sendMessage(inputOf(asked.turn)))

/** What a bot says to `getRecommendQuestions`. */
export const suggest = (Bot: BotClass, asked: Asked, request: SuggestionRequest, services: BotServices) =>
  collect(Bot, asked, services, (bot: IBot) => {
    const history = request.history.map(toChatMessage).map((each) => ({ ...each }))
    return bot.getRecommendQuestions?.({ ...request.payload, msg: request.text ?? '', history })
  })

/** Calls one of a bot's other methods; its result is what JSON makes of it. */
export async function invoke(
  Bot: BotClass,
  asked: Asked,
  { name, input }: { readonly name: string; readonly input: JsonObject },
  services: BotServices,
): Promise<Json | undefined> {
  const bot: IBot = new Bot(contextOf(asked, services, new Queue()))
  const method = botMethods.find((each) => each === name)
  if (!method || typeof bot[method] !== 'function') throw new HubError('unsupported')
  const output: unknown = await bot[method](input)
  return output === undefined ? undefined : (JSON.parse(JSON.stringify(output)) as Json)
}

/** The methods that a class has beside `sendMessage`. */
export const methodsOf = (Bot: BotClass): ReadonlySet<string> => {
  const prototype: object = Bot.prototype
  const own = ['getRecommendQuestions', ...botMethods].filter(
    (name) => typeof Reflect.get(prototype, name) === 'function',
  )
  // Every bot has this one; its own is told from BotCore's by not being marked so.
  return new Set(own.filter((name) => name !== 'getChatRecords' || overridesRecords(Bot)))
}

function overridesRecords(Bot: BotClass): boolean {
  for (let at: unknown = Bot; typeof at === 'function' && at !== Function.prototype; at = Object.getPrototypeOf(at)) {
    if (Object.hasOwn(at, 'isBotCore')) return false
    const prototype: unknown = at.prototype
    if (typeof prototype === 'object' && prototype !== null && Object.hasOwn(prototype, 'getChatRecords')) return true
  }
  return false
}

/** Whether a function is a class on BotCore, also on another copy of it. */
export const isBotClass = (value: unknown): value is BotClass =>
  typeof value === 'function' && 'isBotCore' in value && value.isBotCore === Symbol.for('bothub.BotCore')

async function* collect(
  Bot: BotClass,
  asked: Asked,
  services: BotServices,
  work: (bot: BotCore) => unknown,
): AsyncGenerator<Said> {
  const said = new Queue<Said>()
  const bot = new Bot(contextOf(asked, services, said))
  const working = Promise.try(() => work(bot))
  working.then(
    () => {
      if (!said.isOver) services.logger.warn({ turn: asked.id }, 'the bot returned without sseSender.end()')
      said.end()
    },
    (error: unknown) => said.fail(error),
  )
  yield* said
  await working
}

const contextOf = (asked: Asked, services: BotServices, said: Queue<Said>): BotContext => ({
  eventID: asked.id,
  eventType: 'bothub.message',
  timestamp: asked.at,
  httpContext: {
    url: `/v1/aibot/bots/${encodeURIComponent(asked.botId)}/send-message`,
    httpMethod: 'POST',
    headers: {},
  },
  extendedContext: { envId: 'bothub', userId: asked.sender },
  botId: asked.botId,
  signal: asked.signal,
  logger: services.logger,
  host: {
    ...services,
    sender: asked.sender,
    conversation: asked.conversation,
    turn: asked.turn && { id: asked.turn.id, text: asked.turn.message.text },
    say: (piece) => said.push(piece),
    end: () => said.end(),
    fail: (error) => said.fail(error),
  },
  ...(asked.turn ? { turn: asked.turn } : {}),
})

const inputOf = ({ message, history, conversation }: Turn): SendMessageInput => ({
  ...message.payload,
  msg: message.text,
  history: broughtHistory(message.payload?.['history']) ?? history.map(toChatMessage),
  conversationId: conversation.name,
})

/** What a client says was said before counts where it says anything. */
function broughtHistory(given: Json | undefined): ChatMessage[] | undefined {
  if (!Array.isArray(given) || given.length === 0) return undefined
  return given.flatMap((each: Json) => {
    if (typeof each !== 'object' || each === null || !('role' in each) || !('content' in each)) return []
    const { role, content } = each
    return (role === 'user' || role === 'assistant') && typeof content === 'string' ? [{ role, content }] : []
  })
}

const toChatMessage = ({ role, text }: HistoryMessage): ChatMessage => ({
  role: role === 'user' ? 'user' : 'assistant',
  content: text,
})
