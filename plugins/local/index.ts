import { z } from 'zod'
import type { HubEvent } from '../../core/events.ts'
import type { PluginContext, ProviderSpec } from '../../core/plugin.ts'
import { defineProvider } from '../../core/plugin.ts'
import type { Turn } from '../../core/turn.ts'
import { untilSilent } from '../../core/until-silent.ts'
import { wordsToEvents } from '../../core/words.ts'
import { BotCore } from './bot-core.ts'
import type { BotClass } from './bot-core.ts'

/**
 * A bot written as a function: it returns its answer, or yields it piece by piece. Strings are the words of one
 * message; events say everything else.
 */
export type BotFunction = (turn: Turn) => AsyncIterable<string | HubEvent> | string | Promise<string>

/** What `local()` takes beside the bot. */
export interface LocalOptions {
  /** Longest silence, in ms, before the turn fails with `bot_silent`. Default 60,000. */
  readonly idleTimeoutMs?: number
}

/**
 * A bot that runs in this process: a function, or a class on `BotCore`.
 * @example local(async function* ({ message }) { yield 'You said '; yield message.text })
 * @example local(MyBot)
 */
export const local = (bot: BotFunction | BotClass, options: LocalOptions = {}): ProviderSpec =>
  localProvider({ ...options, bot })

const localProvider = defineProvider({
  manifest: { name: 'local', consent: true, toolOutputs: true },
  options: z.strictObject({
    bot: z.custom<BotFunction | BotClass>(
      (value) => typeof value === 'function',
      'must be a function `(turn) => …` or a class that extends BotCore',
    ),
    idleTimeoutMs: z.int().positive().default(60_000),
  }),
  create: ({ bot, idleTimeoutMs }, context) => ({
    async *respond(turn) {
      const said = isClass(bot) ? runClass(bot, turn, context) : runFunction(bot, turn)
      yield* untilSilent(wordsToEvents(said, turn.shown.length), idleTimeoutMs, 'bot_silent', turn.signal)
    },
  }),
})

const isClass = (bot: BotFunction | BotClass): bot is BotClass => bot.prototype instanceof BotCore

async function* runFunction(bot: BotFunction, turn: Turn): AsyncGenerator<string | HubEvent> {
  const answer = bot(turn)
  if (typeof answer === 'object' && Symbol.asyncIterator in answer) yield* answer
  else yield await answer
}

function runClass(Bot: BotClass, turn: Turn, context: PluginContext): AsyncIterable<string | HubEvent> {
  return new Bot({ turn, botId: context.name, logger: context.logger }).answer()
}
