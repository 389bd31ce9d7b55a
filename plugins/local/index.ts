import { z } from 'zod'
import { HubError } from '../../core/errors.ts'
import type { HubEvent } from '../../core/events.ts'
import type { PluginContext, ProviderSpec } from '../../core/plugin.ts'
import { defineProvider } from '../../core/plugin.ts'
import type { Turn } from '../../core/turn.ts'
import { untilSilent } from '../../core/until-silent.ts'
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
      yield* untilSilent(toEvents(said, turn.shown.length), idleTimeoutMs, 'bot_silent', turn.signal)
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

/** Words become one message, which is whole when something else comes or the bot has said all. */
async function* toEvents(said: AsyncIterable<string | HubEvent>, before: number): AsyncGenerator<HubEvent> {
  // A turn that goes on after an answer says new messages, not more of those it has finished.
  let count = before
  let words: string[] = []
  function* close(): Generator<HubEvent> {
    if (words.length > 0) yield { type: 'message.completed', message: `message-${count}`, text: words.join('') }
    words = []
  }
  for await (const each of said) {
    if (typeof each === 'string') {
      if (each === '') continue
      if (words.length === 0) count += 1
      words.push(each)
      yield { type: 'message.delta', message: `message-${count}`, text: each }
    } else if (typeof each === 'object' && each !== null && typeof each.type === 'string') {
      yield* close()
      yield each
    } else {
      throw new HubError('bot_failed', { cause: new TypeError(`a bot yields strings and events, not ${typeof each}`) })
    }
  }
  yield* close()
}
