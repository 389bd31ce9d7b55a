import { z } from 'zod'
import { HubError } from '../../core/errors.ts'
import { flatMap, inParts } from '../../core/flow.ts'
import type { Parts } from '../../core/flow.ts'
import type { HubEvent, ToolCall, ToolOutput } from '../../core/events.ts'
import type { Json } from '../../core/message.ts'
import { defineProvider } from '../../core/plugin.ts'
import type { PluginContext } from '../../core/plugin.ts'
import { Secret, env, secret, setting } from '../../core/settings.ts'
import { localTools, settleCalls } from '../../core/tools.ts'
import type { Turn } from '../../core/turn.ts'
import { cozeClient } from './client.ts'
import type { ChatAnswer, ChatRef, CozeClient } from './client.ts'
import { isHubError, mayPass } from './failures.ts'
import { chatPost, conversationPost, isOwn } from './request.ts'
import { startCozeSimulator } from './simulator.ts'
import type { CozeSimulator } from './simulator.ts'
import { appTokens, fixedToken, oauthOptions } from './token.ts'
import type { TokenSource } from '../../core/expiring-tokens.ts'
import { cozeError, nothingRead, readFrame, readMessages, readStatus } from './wire.ts'
import type { ChatEnd, Reading } from './wire.ts'

const strings = z.record(z.string(), z.string())

const options = z
  .strictObject({
    /** The published bot. Default: the environment variable COZE_BOT_ID, unless there is a `workflowId`. */
    botId: setting().optional(),
    /** A chatflow that answers in the bot's place: it takes words and inputs, no files and no local tools. */
    workflowId: setting().optional(),
    /** The app that the chatflow belongs to, where that is not a bot. */
    appId: setting().optional(),
    /** A personal or service token. Default: COZE_API_TOKEN. */
    token: secret().optional(),
    /** In the place of `token`: an OAuth app, whose short-lived tokens the hub gets and renews. */
    oauth: oauthOptions.optional(),
    /** Default: COZE_BASE_URL, else `https://api.coze.cn`. Tokens and bots of coze.com need `https://api.coze.com`. */
    baseUrl: setting().optional(),
    /** `studio` is coze-studio, the open-source server: it has no local tools and no OAuth. */
    server: z.enum(['cloud', 'studio']).default('cloud'),
    /** Functions that answer the bot's local plugins, by the plugin's tool name. */
    tools: localTools(),
    /** Coze keeps the conversation. Off, it can neither run local tools nor tell what became of a chat after a cut. */
    autoSaveHistory: z.boolean().default(true),
    /** Fills the variables of the bot's prompt. Wins over `custom_variables` in a message's `payload`. */
    customVariables: strings.optional(),
    /** Inputs of a chatflow, or of a bot in chatflow mode. A message's `payload` is added, and what stands here wins. */
    parameters: z.record(z.string(), z.json()).optional(),
    /** Kept by Coze with each chat: at most 16 pairs, keys up to 64 and values up to 512 characters. */
    metaData: z
      .record(z.string().min(1).max(64), z.string().min(1).max(512))
      .refine((pairs) => Object.keys(pairs).length <= 16, 'has more than 16 pairs, which Coze refuses')
      .optional(),
    /** Longest silence of a stream, in ms, before the hub looks for what became of the chat. */
    idleTimeoutMs: z.number().int().positive().default(10_000),
    /** Longest time of any other call, and of looking for what became of a chat, in ms. */
    timeoutMs: z.number().int().positive().default(300_000),
    /** Answers come from a simulator in the hub's own process; no account, key or network is needed. */
    simulated: z.boolean().default(false),
  })
  .superRefine((given, context) => {
    const problem = (key: keyof typeof given, message: string) =>
      context.addIssue({ code: 'custom', path: [key], message })
    const fromEnv = (key: 'botId' | 'token', name: string) => {
      if (given[key] !== undefined) return
      for (const { message } of setting().safeParse(env(name)).error?.issues ?? []) problem(key, message)
    }
    if (given.appId !== undefined && given.workflowId === undefined)
      problem('appId', 'needs `workflowId`: an app chats by its chatflow')
    if (given.oauth && given.token) problem('oauth', 'stands in the place of `token`; leave out one of them')
    if (given.oauth && given.server === 'studio') problem('oauth', 'is not known to coze-studio; give a `token`')
    if (!takesOutputs(given) && Object.keys(given.tools).length > 0) {
      problem('tools', `are not taken by ${given.server === 'studio' ? 'coze-studio' : 'a chatflow'}; leave them out`)
    }
    if (given.simulated) return
    if (given.workflowId === undefined) fromEnv('botId', 'COZE_BOT_ID')
    if (!given.oauth) fromEnv('token', 'COZE_API_TOKEN')
  })

type CozeOptions = z.output<typeof options>

/**
 * A bot or a chatflow on Coze (coze.cn, coze.com, or a coze-studio of your own): its v3 chat stream, with the
 * conversation kept at Coze, local tools, files, and every chat posted once: after a cut the hub asks Coze what became
 * of it instead of asking again.
 * @example coze() // COZE_API_TOKEN, COZE_BOT_ID and perhaps COZE_BASE_URL
 * @example coze({ botId: '75…', token: env('SALES_TOKEN'), tools: { get_weather: tool({ run: () => 'Sunny.' }) } })
 * @example coze({ botId: '75…', oauth: { appId: '11…', publicKeyId: 'gdeh…', privateKey: secretFile('coze.pem') } })
 */
export const coze = defineProvider({
  manifest: {
    name: 'coze',
    remembers: true,
    resumes: true,
    toolOutputs: true,
    consent: true,
    files: true,
    idleTimeoutMs: 10_000,
  },
  options,
  async create(given, context) {
    const simulator = given.simulated ? await startCozeSimulator({ studio: given.server === 'studio' }) : undefined
    const baseUrl = simulator?.url ?? given.baseUrl ?? setting().parse(env('COZE_BASE_URL', 'https://api.coze.cn'))
    const botId =
      simulator?.botId ?? given.botId ?? (given.workflowId ? undefined : setting().parse(env('COZE_BOT_ID')))
    const client = cozeClient({
      baseUrl,
      tokens: tokensOf(given, simulator, baseUrl, context),
      fetch: context.fetch,
      idleTimeoutMs: given.idleTimeoutMs,
      timeoutMs: given.timeoutMs,
    })
    const chats = chatRunner(client, botId, given, context)
    return {
      simulated: simulator !== undefined,
      respond: (turn) => inParts(() => chats.respond(turn)),
      release: (turn) => chats.release(turn),
      async forget({ thread }, signal) {
        const conversationId = conversationIn(thread)
        if (!conversationId) return
        try {
          await client.deleteConversation(conversationId, signal)
        } catch (error) {
          if (!isCode(error, conversationGone)) throw error
        }
      },
      async upload(file, _thread, signal) {
        if (given.workflowId !== undefined) throw new HubError('files_unsupported')
        return { fileId: await client.upload(file, signal) }
      },
      close: () => simulator?.close(),
    }
  },
})

/** Whether there is somebody to hand tool outputs in to. */
const takesOutputs = ({ server, workflowId }: Pick<CozeOptions, 'server' | 'workflowId'>): boolean =>
  server === 'cloud' && workflowId === undefined

function tokensOf(
  given: CozeOptions,
  simulator: CozeSimulator | undefined,
  baseUrl: string,
  { fetch, clock }: PluginContext,
): TokenSource {
  if (simulator) return fixedToken(new Secret(simulator.token))
  if (!given.oauth) return fixedToken(given.token ?? secret().parse(env('COZE_API_TOKEN')))
  const { timeoutMs } = given
  return appTokens({ app: given.oauth, baseUrl: baseUrl.replace(/\/+$/, ''), fetch, clock, timeoutMs })
}

/** One turn on its way through Coze. What of it must survive a crash is in its cursor. */
interface Run {
  readonly turn: Turn
  conversationId: string | undefined
  /** The chat may exist, whether or not its id is known. */
  posted: boolean
  chatId: string | undefined
  reading: Reading
  /** The calls the chat waits for. */
  calls: readonly ToolCall[]
  outputs: readonly ToolOutput[]
  /** Local tools that were begun, so that none is run a second time after a crash. */
  begun: readonly string[]
  /** How often these calls were answered. */
  submits: number
}

type Outcome = Extract<ChatEnd, { type: 'completed' | 'requires_action' }>
type Events<Result> = Parts<HubEvent, Result>

/** What Coze asks for at least between two looks at a chat. */
const pollMs = 1000
const cancelMs = 5000
/** After `done` should follow, but nothing depends on it. */
const drainMs = 1000
const looksForChat = 3
const maxSubmits = 5
const conversationGone = '4002'
const conversationBusy = '4016'

function chatRunner(client: CozeClient, botId: string | undefined, given: CozeOptions, context: PluginContext) {
  const { clock, logger } = context
  const settings = { ...given, botId }
  // A first attempt that was refused is made again with the same turn, which does not know of the conversation yet.
  const created = new Map<string, string>()

  async function* respond(turn: Turn): Events<void> {
    const run = startRun(turn)
    let finished = false
    try {
      let outcome = yield* turn.resume === undefined ? begin(run) : reconcile(run)
      while (outcome.type === 'requires_action' && outcome.calls.length > 0) {
        if (!takesOutputs(given)) throw new HubError('upstream_failed', { cause: new Error('asks for tool outputs') })
        if (!(yield* settle(run, outcome.calls))) break
        outcome = yield* submit(run)
      }
      finished = true
    } catch (error) {
      if (isHubError(error, 'answer_too_large')) await letGo(run)
      throw turn.signal.aborted ? turn.signal.reason : error
    } finally {
      // Not in the catch: whoever reads the events may leave when the turn is stopped, which is a return and no error.
      if (!finished && turn.signal.aborted) await letGo(run)
    }
  }

  async function* begin(run: Run): Events<Outcome> {
    const { turn } = run
    const kept = conversationIn(turn.thread) ?? created.get(turn.id)
    run.conversationId = kept ?? (await createConversation(turn))
    yield [threadOf(run)]
    try {
      return yield* post(run)
    } catch (error) {
      // Nothing was started in either case, so the message may be sent again.
      if (!kept || run.chatId) throw error
      if (isCode(error, conversationGone)) {
        run.conversationId = await createConversation(turn)
        yield [threadOf(run)]
      } else if (!isCode(error, conversationBusy) || !(await isFree(turn))) throw error
      return yield* post(run)
    }
  }

  /** Waits for the conversation's last chat, which went on at Coze without us. */
  async function isFree(turn: Turn): Promise<boolean> {
    const before = refIn(turn.thread)
    if (!before || !given.autoSaveHistory) return false
    const until = clock.now() + given.timeoutMs
    do {
      try {
        if (await hasEnded(before, turn.signal)) return true
      } catch (error) {
        if (turn.signal.aborted) throw error
        logger.warn({ err: error, turn: turn.id }, 'coze does not tell what keeps the conversation busy')
        if (!mayPass(error)) return false
      }
      await clock.sleep(pollMs, turn.signal)
    } while (clock.now() < until)
    return false
  }

  /** Whether a chat is over. One that waits for tools, which nobody will bring any more, is let go. */
  async function hasEnded(chat: ChatRef, signal: AbortSignal): Promise<boolean> {
    const { status, calls } = await client.retrieve(chat, signal)
    if (status === 'requires_action' && calls.length > 0) await giveUp(chat, calls, [], signal)
    else if (status !== undefined && status !== 'created' && status !== 'in_progress') return true
    return false
  }

  async function createConversation(turn: Turn): Promise<string> {
    const id = await client.createConversation(conversationPost(turn, settings), turn.signal)
    if (created.size >= 1000) created.clear()
    created.set(turn.id, id)
    return id
  }

  const post = (run: Run) => {
    const request = chatPost(run.turn, run.conversationId!, settings)
    run.posted = true
    return follow(run, () => client.openChat(request, run.turn.signal))
  }

  const submit = (run: Run) => {
    if (++run.submits > maxSubmits) throw new HubError('upstream_failed', { cause: new Error('takes no tool outputs') })
    return follow(run, () => client.submitToolOutputs(refOf(run), run.outputs, run.turn.signal))
  }

  /** Reads a stream to its end, or else finds out what became of the chat. */
  async function* follow(run: Run, open: () => Promise<ChatAnswer>): Events<Outcome> {
    let lost: unknown = new HubError('upstream_cut')
    try {
      const outcome = yield* read(run, await open())
      if (outcome) return outcome
    } catch (error) {
      if (run.turn.signal.aborted || !wasLost(error, run)) throw error
      // Outputs that were refused for now are handed in again: the chat holds its conversation until it has them.
      if (error.notStarted)
        await clock.sleep(Math.min(Math.max(pollMs, error.retryAfterMs ?? 0), given.timeoutMs), run.turn.signal)
      lost = error
    }
    return yield* reconcile(run, lost)
  }

  async function* read(run: Run, answer: ChatAnswer): Events<Outcome | undefined> {
    if (answer.type === 'chat') {
      if (answer.chat.id) yield [opened(run, answer.chat.id, answer.chat.conversationId)]
      return undefined
    }
    let outcome: Outcome | undefined
    let drain: NodeJS.Timeout | undefined
    try {
      yield flatMap(answer.frames, function* (frame, stop): Generator<HubEvent> {
        if (outcome) {
          if (frame.type === 'done') stop()
          // Spoken audio comes after the end of the chat; nothing else does.
          if (frame.type === 'other') yield* readFrame(run.reading, frame).events
          return
        }
        if (frame.type === 'chat' && frame.chat.id && !run.chatId) {
          yield opened(run, frame.chat.id, frame.chat.conversationId)
        } else if (run.calls.length > 0 && frame.type !== 'error') {
          forgetCalls(run)
          yield cursorOf(run)
        }
        const step = readFrame(run.reading, frame)
        run.reading = step.reading
        yield* step.events
        if (step.events.some(isWhole)) yield cursorOf(run)
        if (step.end?.type === 'done') return stop()
        if (step.end) outcome = reached(step.end, run)
        if (outcome) drain = setTimeout(() => answer.close(), drainMs)
      })
    } catch (error) {
      if (!outcome) throw error
    } finally {
      clearTimeout(drain)
      answer.close()
    }
    return outcome
  }

  /** From here on the chat is never posted again. */
  function opened(run: Run, chatId: string, conversationId: string | undefined): HubEvent {
    run.chatId = chatId
    created.delete(run.turn.id)
    run.conversationId = conversationId ?? run.conversationId
    return threadOf(run)
  }

  /** Asks what became of a chat whose stream was lost, until it has ended or waits, and yields what was not shown. */
  async function* reconcile(run: Run, lost: unknown = new HubError('interrupted')): Events<Outcome> {
    if (!given.autoSaveHistory || !run.conversationId) throw lost
    const until = clock.now() + given.timeoutMs
    const { signal } = run.turn
    if (!run.chatId) yield [opened(run, await findChat(run, lost), undefined)]
    for (;;) {
      const found = await look(run, lost)
      if (found) {
        const step = readMessages(run.reading, found.messages)
        const last = readStatus(step.reading, found.status, found.chat)
        run.reading = last.reading
        yield [...step.events, ...last.events, cursorOf(run)]
        const outcome = last.end && reached(last.end, run)
        if (outcome) return outcome
      }
      if (clock.now() + pollMs > until) throw lost
      await clock.sleep(pollMs, signal)
    }
  }

  /** The chat and its messages once it has come to an end or a halt; undefined while it has not, or cannot be seen. */
  async function look(run: Run, lost: unknown) {
    const { signal } = run.turn
    try {
      const chat = await client.retrieve(refOf(run), signal)
      const { status } = chat
      if (!status || status === 'created' || status === 'in_progress') return undefined
      return { chat, status, messages: await client.messages(refOf(run), signal) }
    } catch (error) {
      if (signal.aborted || isHubError(error, 'upstream_auth')) throw error
      if (mayPass(error)) return undefined
      logger.warn({ err: error, turn: run.turn.id }, 'coze does not know the chat')
      throw lost
    }
  }

  /** The chat our message began, by the id it carries; without one the outcome cannot be known. */
  async function findChat(run: Run, lost: unknown): Promise<string> {
    const { signal } = run.turn
    for (let looks = 1; ; looks++) {
      const chatId = await chatOf(run, signal).catch((error: unknown) => {
        if (signal.aborted) throw error
        logger.warn({ err: error, turn: run.turn.id }, 'coze does not show the conversation')
        return undefined
      })
      if (chatId) return chatId
      if (looks === looksForChat) throw lost
      await clock.sleep(pollMs, signal)
    }
  }

  async function chatOf(run: Run, signal: AbortSignal): Promise<string | undefined> {
    const messages = await client.conversationMessages(run.conversationId!, signal)
    return messages.find(({ metaData, chatId }) => chatId && isOwn(run.turn, metaData))?.chatId
  }

  /** Gathers the outputs of the calls. False when somebody else has to answer first. */
  async function* settle(run: Run, calls: readonly ToolCall[]): Events<boolean> {
    if (!sameCalls(calls, run.calls)) {
      forgetCalls(run)
      run.calls = calls
    }
    for (const call of run.begun) {
      if (run.outputs.some((output) => output.call === call)) continue
      const output = 'The hub was restarted while this tool ran. Its outcome is unknown.'
      run.outputs = [...run.outputs, { call, output }]
      yield [{ type: 'tool.completed', call, output, isError: true }]
    }
    yield [cursorOf(run)]
    const { outputs, settled } = yield* noted(run, settleCalls(run.turn, given.tools, calls, run.outputs))
    run.outputs = outputs
    if (!settled) yield [cursorOf(run)]
    return settled
  }

  /** Stops the chat of a turn that is not to go on. One that waits for tools cannot be cancelled, only answered. */
  async function letGo(run: Run): Promise<void> {
    const { aborted, reason } = run.turn.signal
    // After a restart the turn goes on.
    if (!run.posted || (aborted && isHubError(reason, 'shutting_down'))) return
    const signal = AbortSignal.timeout(cancelMs)
    try {
      run.chatId ??= await chatOf(run, signal)
      if (!run.chatId) return
      if (run.calls.length > 0) await giveUp(refOf(run), run.calls, run.outputs, signal)
      else await client.cancel(refOf(run), signal)
    } catch (error) {
      logger.debug({ err: error, turn: run.turn.id }, 'the coze chat could not be stopped')
    }
  }

  /** Answers every call with an error and reads on, so that the conversation is free for its next message. */
  async function giveUp(
    chat: ChatRef,
    calls: readonly ToolCall[],
    known: readonly ToolOutput[],
    signal: AbortSignal,
  ): Promise<void> {
    let open = calls
    for (let round = 0; open.length > 0 && round < maxSubmits; round++) {
      const outputs = open.map(
        ({ call }) => known.find((output) => output.call === call) ?? { call, output: 'The user ended this turn.' },
      )
      const answer = await client.submitToolOutputs(chat, outputs, signal)
      open = []
      if (answer.type === 'chat') return
      for await (const frame of answer.frames) {
        if (frame.type === 'chat' && frame.status === 'requires_action') open = frame.chat.calls
        if (frame.type === 'done') break
      }
    }
  }

  return {
    respond,
    async release(turn: Turn): Promise<void> {
      const run = startRun(turn)
      if (run.chatId) await giveUp(refOf(run), run.calls, run.outputs, AbortSignal.timeout(given.timeoutMs))
    },
  }
}

/** Writes into the cursor which tools were begun and what they gave, each before it is shown. */
async function* noted<Result>(run: Run, events: AsyncGenerator<HubEvent, Result>): Events<Result> {
  for (;;) {
    const step = await events.next()
    if (step.done) return step.value
    const event = step.value
    if (event.type === 'tool.started') run.begun = [...run.begun, event.call]
    if (event.type === 'tool.completed') run.outputs = [...run.outputs, { call: event.call, output: event.output }]
    const isTold = event.type === 'tool.started' || event.type === 'tool.completed'
    yield isTold ? [cursorOf(run), event] : [event]
  }
}

const cursorShape = z.object({
  conversationId: z.string(),
  chatId: z.string().optional(),
  seen: z.array(z.string()).default([]),
  calls: z.array(z.object({ call: z.string(), tool: z.string(), input: z.json() })).default([]),
  outputs: z.array(z.object({ call: z.string(), output: z.json() })).default([]),
  begun: z.array(z.string()).default([]),
})

function startRun(turn: Turn): Run {
  const cursor = cursorShape.safeParse(turn.resume).data
  return {
    turn,
    conversationId: cursor?.conversationId,
    posted: cursor !== undefined,
    chatId: cursor?.chatId,
    reading: {
      ...nothingRead,
      shown: Object.fromEntries(turn.shown.map(({ id, text }) => [id, text])),
      seen: [...(cursor?.seen ?? []), ...turn.shown.filter((message) => message.completed).map(({ id }) => id)],
    },
    calls: cursor?.calls ?? [],
    outputs: cursor?.outputs ?? [],
    begun: cursor?.begun ?? [],
    submits: 0,
  }
}

const cursorOf = (run: Run): HubEvent => ({ type: 'upstream', cursor: cursorJson(run) })
/** The thread names the conversation's last chat too, which may still run when the next message comes. */
const threadOf = (run: Run): HubEvent => ({
  type: 'upstream',
  cursor: cursorJson(run),
  thread: { conversationId: run.conversationId!, ...(run.chatId === undefined ? {} : { chatId: run.chatId }) },
})
const cursorJson = ({ conversationId, chatId, reading, calls, outputs, begun }: Run): Json => ({
  conversationId: conversationId!,
  ...(chatId === undefined ? {} : { chatId }),
  ...(reading.seen.length > 0 ? { seen: reading.seen } : {}),
  ...(calls.length > 0
    ? { calls: calls.map((call) => ({ ...call })), outputs: outputs.map((output) => ({ ...output })), begun }
    : {}),
})

const refOf = (run: Run): ChatRef => ({ conversationId: run.conversationId!, chatId: run.chatId! })

function conversationIn(thread: Json | undefined): string | undefined {
  return z.object({ conversationId: z.string() }).safeParse(thread).data?.conversationId
}

const refIn = (thread: Json | undefined): ChatRef | undefined =>
  z.object({ conversationId: z.string(), chatId: z.string() }).safeParse(thread).data

function forgetCalls(run: Run): void {
  run.calls = []
  run.outputs = []
  run.begun = []
  run.submits = 0
}

const sameCalls = (one: readonly ToolCall[], other: readonly ToolCall[]) =>
  one.length === other.length && one.every(({ call }) => other.some((each) => each.call === call))

/** Events that only the cursor remembers, so that they are not shown again after a crash. */
const isWhole = ({ type }: HubEvent) => type === 'suggestion' || type === 'tool.started' || type === 'tool.completed'

function reached(end: ChatEnd, run: Run): Outcome | undefined {
  switch (end.type) {
    case 'completed':
    case 'requires_action':
      return end
    case 'failed':
      throw cozeError(end.failure, run.chatId !== undefined)
    case 'canceled':
      throw new HubError('upstream_failed', { upstream: { code: 'canceled' } })
    case 'done':
      return undefined
  }
}

const isCode = (error: unknown, code: string) => error instanceof HubError && error.upstream?.code === code

/** Whether the chat may live on without us: a broken stream, or outputs that did not arrive. */
const wasLost = (error: unknown, run: Run): error is HubError =>
  isHubError(error, 'upstream_cut', 'upstream_silent') ||
  (error instanceof HubError && error.notStarted && run.chatId !== undefined)
