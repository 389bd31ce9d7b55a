import { z } from 'zod'
import type { HubEvent } from '../../core/events.ts'
import { newId } from '../../core/ids.ts'
import type { Asker, Provider, ProviderContext, ProviderManifest, ProviderSpec } from '../../core/plugin.ts'
import { defineProvider } from '../../core/plugin.ts'
import type { Turn } from '../../core/turn.ts'
import { untilSilent } from '../../core/until-silent.ts'
import { watched } from './block-watch.ts'
import { wordsToEvents } from '../../core/words.ts'
import type { BotClass } from './bot-core.ts'
import { recordsOf } from './bot-host.ts'
import { IsolatedBot } from './isolated-bot.ts'
import { answer, invoke, isBotClass, methodsOf, suggest } from './run-bot.ts'
import type { Asked } from './run-bot.ts'
import { loadBot } from './load-bot.ts'
import { runTool } from './tools.ts'
import type { BotTools } from './tools.ts'

/**
 * A bot written as a function: it returns its answer, or yields it piece by piece. Strings are the words of one
 * message; events say everything else.
 */
export type BotFunction = (turn: Turn) => AsyncIterable<string | HubEvent> | string | Promise<string>

/** What `local()` takes beside the bot. */
export interface LocalOptions {
  /** Longest silence, in ms, before the turn fails with `bot_silent`. Default 60,000. */
  readonly idleTimeoutMs?: number
  /** Functions that stand for CloudBase's tools in `this.tools`. */
  readonly tools?: BotTools
  /** A thread of its own is for a bot that is given as a module: neither a class nor a function can be moved to one. */
  readonly isolate?: false
}

/** What `local()` takes beside the module of a bot. */
export interface ModuleOptions extends Omit<LocalOptions, 'isolate'> {
  /** Which of its exports is the bot. Default: `default`, else the only class on BotCore. */
  readonly export?: string
  /** Run it in a worker thread of its own, where it holds up nobody else; a class on BotCore only. */
  readonly isolate?: boolean
  /** How long it may hold its own thread, in ms, before that is ended and its turns fail with `bot_blocked`. Default 10,000. */
  readonly blockedTimeoutMs?: number
}

/** A bot that runs in this process: a function, or a class on `BotCore`, given itself or as the module it is in. */
export interface LocalFactory {
  /**
   * @example local(async function* ({ message }) { yield 'You said '; yield message.text })
   * @example local(MyBot)
   */
  (bot: BotFunction | BotClass, options?: LocalOptions): ProviderSpec
  /** @example local(new URL('./my-bot.ts', import.meta.url), { isolate: true }) */
  (module: URL, options?: ModuleOptions): ProviderSpec
}

/**
 * A bot that runs in this process.
 * @example local(async function* ({ message }) { yield 'You said '; yield message.text })
 * @example local(MyBot)
 * @example local(new URL('./my-bot.ts', import.meta.url), { isolate: true })
 */
export const local: LocalFactory = (bot: BotFunction | BotClass | URL, options: LocalOptions | ModuleOptions = {}) => ({
  ...localProvider({ ...options, bot }),
  manifest: manifestOf(bot, options.isolate ?? false),
})

/** What a function may yield, and what a class on BotCore may have; a module may hold either. */
function manifestOf(bot: BotFunction | BotClass | URL, isolate: boolean): ProviderManifest {
  const asFunction = { consent: true, toolOutputs: true }
  const asClass = { methods: 'cloudbase' }
  if (bot instanceof URL) {
    return { name: 'local', ...(isolate ? {} : asFunction), ...asClass, suggests: true }
  }
  if (!isBotClass(bot)) return { name: 'local', ...asFunction }
  return { name: 'local', ...asClass, ...(methodsOf(bot).has('getRecommendQuestions') ? { suggests: true } : {}) }
}

const localProvider = defineProvider({
  manifest: { name: 'local' },
  options: z
    .strictObject({
      bot: z
        .custom<BotFunction | BotClass | URL>(
          (value) => typeof value === 'function' || value instanceof URL,
          'must be a function `(turn) => …`, a class that extends BotCore, or the URL of a module',
        )
        .describe('The bot, which stands before the options: `local(bot, { … })`.'),
      export: z.string().optional(),
      isolate: z.boolean().default(false),
      tools: z.custom<BotTools>((value) => typeof value === 'object' && value !== null).default({}),
      idleTimeoutMs: z.int().positive().default(60_000),
      blockedTimeoutMs: z.int().positive().default(10_000),
    })
    .refine(({ bot, isolate }) => !isolate || bot instanceof URL, {
      path: ['isolate'],
      error:
        "takes a module, since neither a class nor a function can be moved to another thread: local(new URL('./my-bot.ts', import.meta.url), { isolate: true })",
    }),
  async create(options, context) {
    const { bot, idleTimeoutMs } = options
    if (bot instanceof URL && options.isolate) {
      const isolated = await IsolatedBot.start({ ...options, module: bot, export: options.export }, context)
      return { ...classProvider(isolated, idleTimeoutMs, context), close: () => isolated.close() }
    }
    const built = bot instanceof URL ? await loadBot(bot, options.export) : bot
    if (isBotClass(built)) return classProvider(inThisThread(built, options.tools, context), idleTimeoutMs, context)
    const who = { bot: context.name, logger: context.logger }
    return {
      respond(turn) {
        const said = watched(who, () => runFunction(built, turn))
        return untilSilent(wordsToEvents(said, turn.shown.length), idleTimeoutMs, 'bot_silent', turn.signal)
      },
    }
  },
})

/** A class on BotCore, in whatever thread. */
export interface RunningBot {
  /** The names of its methods beside `sendMessage`. */
  readonly methods: ReadonlySet<string>
  answer(asked: Asked & { readonly turn: Turn }): AsyncIterable<string | HubEvent>
  suggest(asked: Asked, request: Parameters<typeof suggest>[2]): AsyncIterable<string | HubEvent>
  invoke(asked: Asked, call: Parameters<typeof invoke>[2]): ReturnType<typeof invoke>
}

function inThisThread(Bot: BotClass, tools: BotTools, context: ProviderContext): RunningBot {
  const { name, logger, clock } = context
  const who = { bot: name, logger }
  const servicesFor = ({ owner }: Asked) => ({
    logger,
    records: recordsOf(context.records, owner, clock),
    callTool: (tool: string, given: Parameters<typeof runTool>[2]) => runTool(tools, tool, given),
  })
  return {
    methods: methodsOf(Bot),
    answer: (asked) => watched(who, () => answer(Bot, asked, servicesFor(asked))),
    suggest: (asked, request) => watched(who, () => suggest(Bot, asked, request, servicesFor(asked))),
    invoke: (asked, call) => invoke(Bot, asked, call, servicesFor(asked)),
  }
}

function classProvider(bot: RunningBot, idleTimeoutMs: number, { name, clock }: ProviderContext): Provider {
  const askedBy = ({ principal, conversation }: Asker, signal: AbortSignal): Asked => ({
    id: newId('call'),
    at: clock.now(),
    signal,
    ...whoseOf(name, principal),
    ...(conversation ? { conversation } : {}),
  })
  return {
    respond(turn) {
      const { id, acceptedAt: at, conversation, signal } = turn
      const said = bot.answer({ id, at, conversation, signal, turn, ...whoseOf(name, turn.principal) })
      return untilSilent(wordsToEvents(said, turn.shown.length), idleTimeoutMs, 'bot_silent', signal)
    },
    ...(bot.methods.has('getRecommendQuestions')
      ? { suggest: (request, asker, signal) => lines(bot.suggest(askedBy(asker, signal), request)) }
      : {}),
    methods: {
      names: bot.methods,
      invoke: (method, input, asker, signal) => bot.invoke(askedBy(asker, signal), { name: method, input }),
    },
  }
}

/** Whose records a bot works with, and what it calls them. */
function whoseOf(botId: string, { key, user }: { readonly key: string; readonly user?: string }) {
  return { botId, sender: user ?? key, owner: { bot: botId, key, ...(user ? { user } : {}) } }
}

/** Words put together and taken apart again where a line ends; blank lines are none. */
async function* lines(said: AsyncIterable<string | HubEvent>): AsyncGenerator<string> {
  let rest = ''
  for await (const piece of said) {
    if (typeof piece !== 'string') continue
    const parts = `${rest}${piece}`.split(/\r\n|\r|\n/)
    rest = parts.pop()!
    yield* parts.map((line) => line.trim()).filter((line) => line !== '')
  }
  if (rest.trim() !== '') yield rest.trim()
}

async function* runFunction(bot: BotFunction, turn: Turn): AsyncGenerator<string | HubEvent> {
  const said = bot(turn)
  if (typeof said === 'object' && Symbol.asyncIterator in said) yield* said
  else yield await said
}
