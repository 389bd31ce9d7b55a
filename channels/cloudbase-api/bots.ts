import type { ChannelContext, RequestContext } from '../../core/channel.ts'
import { HubError } from '../../core/errors.ts'
import type { ConversationRef } from '../../core/message.ts'

/** A request about a bot that its caller may use. */
export interface Call {
  readonly ctx: RequestContext
  readonly context: ChannelContext
  /** The bot's name in the config. */
  readonly bot: string
  /** The bot's id as the client wrote it. */
  readonly botId: string
}

/** Answers a request. */
export type Handler = (call: Call) => Promise<void> | void

/** The name of the conversation of messages that name none: one for each bot and principal. */
export const defaultConversation = 'default'

/**
 * Finds the bot of a path: its name, or `ibot-{any}-{name}`, as CloudBase writes ids.
 * @throws HubError `unknown_bot`
 */
export function callOf(ctx: RequestContext, context: ChannelContext): Call {
  const botId = ctx.params['bot']!
  const usable = new Set(context.bots.list(ctx.principal).map(({ bot }) => bot))
  const bot = namesIn(botId).find((name) => usable.has(name) && context.offers(name))
  if (bot !== undefined) return { ctx, context, bot, botId }
  context.bots.find(ctx.principal, botId)
  throw new HubError('unknown_bot')
}

/** Names have hyphens too, so that the longest end of an id that is a name is meant. */
function namesIn(id: string): readonly string[] {
  if (!id.startsWith('ibot-')) return [id]
  const parts = id.split('-')
  return [id, ...parts.slice(2).map((_, index) => parts.slice(index + 2).join('-'))]
}

/** A conversation of the caller's; the default one when none is named. Undefined where there is none yet. */
export async function conversationOf(
  { ctx, context, bot }: Call,
  nameOrId: string = defaultConversation,
): Promise<ConversationRef | undefined> {
  try {
    return await context.conversations.find(ctx.principal, bot, nameOrId)
  } catch (error) {
    if (error instanceof HubError && error.code === 'unknown_conversation' && nameOrId === defaultConversation) {
      return undefined
    }
    throw error
  }
}

/** What a bot is, in CloudBase's words: its profile. What it is made of is nobody's business. */
export const getBotInfo: Handler = ({ ctx, context, bot, botId }) => {
  const { profile } = context.bots.find(ctx.principal, bot)
  ctx.body = {
    botId,
    name: profile.name ?? bot,
    introduction: profile.description ?? '',
    welcomeMessage: profile.welcome ?? '',
    avatar: profile.avatar ?? '',
    background: '',
    type: 'text',
    initQuestions: profile.starters ?? [],
    isNeedRecommend: true,
    searchEnable: false,
    // Their files are names in a storage of CloudBase's, which the hub does not read.
    searchFileEnable: false,
    multiConversationEnable: true,
    voiceSettings: { enable: false },
  }
}
