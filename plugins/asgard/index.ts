import { createHash } from 'node:crypto'
import { z } from 'zod'
import { HubError } from '../../core/errors.ts'
import type { HubEvent } from '../../core/events.ts'
import type { Json, JsonObject } from '../../core/message.ts'
import { defineProvider } from '../../core/plugin.ts'
import type { PluginContext, Thread } from '../../core/plugin.ts'
import { env, Secret, secret, setting } from '../../core/settings.ts'
import type { Turn } from '../../core/turn.ts'
import { AsgardClient, silentAfter } from './client.ts'
import { startAsgardSimulator } from './simulator.ts'
import { AnswerReader, consentAnswer } from './wire.ts'
import type { AsgardFrame, GenericBotMessage, Place, ToolCallConsentAnswer } from './wire.ts'

const idleTimeoutMs = 30_000
const suspendTimeoutMs = 5000
const releaseRounds = 5
const reconnects = { tries: 5, firstMs: 500, longestMs: 5000 } as const

const common = {
  /** Sent to the bot with every message; wins over the message's own. */
  payload: z.record(z.string(), z.json()).optional(),
  /** Asks for Asgard's debug events in every turn. */
  debug: z.boolean().default(false),
  /** Longest silence of a stream, in ms. */
  idleTimeoutMs: z.int().positive().default(idleTimeoutMs),
  /** Longest wait for any other answer, in ms. */
  timeoutMs: z.int().positive().default(300_000),
  /** Sent with every call, for tracing or a relay. */
  headers: z.record(z.string(), z.string()).default({}),
}

const options = z.discriminatedUnion('simulated', [
  z.strictObject({
    simulated: z.literal(false).optional(),
    edgeServerHost: setting()
      .refine((host) => /^https?:$/.test(URL.parse(host)?.protocol ?? ''), 'must be an http(s) URL')
      .prefault(env('EDGE_SERVER_HOST', 'https://api.asgard-ai.com')),
    namespace: setting().prefault(env('NAMESPACE')),
    botProviderName: setting().prefault(env('BOT_PROVIDER_NAME')),
    apiKey: secret().prefault(env('BOT_PROVIDER_API_KEY')),
    ...common,
  }),
  z.strictObject({
    /** Answer from the hub's own simulator, started in this process. */
    simulated: z.literal(true),
    ...common,
  }),
])
type Options = z.output<typeof options>

/**
 * A bot of an Asgard bot provider. Without options it is the one that `EDGE_SERVER_HOST`, `NAMESPACE`,
 * `BOT_PROVIDER_NAME` and `BOT_PROVIDER_API_KEY` name.
 * @example bots: { support: asgard(), demo: asgard({ simulated: true }) }
 */
export const asgard = defineProvider({
  manifest: { name: 'asgard', remembers: true, resumes: true, files: true, consent: true, idleTimeoutMs },
  options,
  async create(settings, context) {
    const simulator = settings.simulated ? await startAsgardSimulator() : undefined
    const bot = new AsgardBot(clientOf(settings, simulator, context), settings, context)
    return {
      respond: (turn) => bot.respond(turn),
      upload: async (file, thread, signal) => ({
        blobId: await bot.client.uploadBlob(channelOf(thread), file, signal),
      }),
      release: (turn) => bot.release(turn),
      forget: (thread) => bot.client.deleteChannel(channelOf(thread)),
      ...(simulator ? { simulated: true, close: () => simulator.close() } : {}),
    }
  },
})

type Simulator = Awaited<ReturnType<typeof startAsgardSimulator>>

function clientOf(settings: Options, simulator: Simulator | undefined, context: PluginContext): AsgardClient {
  const target = settings.simulated
    ? {
        edgeServerHost: simulator!.url,
        namespace: simulator!.namespace,
        botProviderName: simulator!.botProviderName,
        apiKey: new Secret(simulator!.apiKey),
      }
    : settings
  return new AsgardClient({
    edgeServerHost: target.edgeServerHost,
    namespace: target.namespace,
    botProviderName: target.botProviderName,
    apiKey: target.apiKey,
    headers: settings.headers,
    fetch: context.fetch,
    idleTimeoutMs: settings.idleTimeoutMs,
    timeoutMs: settings.timeoutMs,
  })
}

/** Where a turn's run stands upstream. */
type Cursor = {
  readonly channel: string
  /** The last `id:`; without one the run is looked for in a replay of the channel. */
  readonly lastEventId?: string
  readonly request?: string
  /** Set when the run goes on behind a pause: what it says cannot be told from what came before without an `id:`. */
  readonly answered?: true
  /** The calls that wait for consent. */
  readonly pending?: readonly string[]
  /** The tool calls that were shown to begin and not yet to end. */
  readonly tools?: readonly string[]
}

const cursorSchema = z.object({
  channel: z.string(),
  lastEventId: z.string().exactOptional(),
  request: z.string().exactOptional(),
  answered: z.literal(true).exactOptional(),
  pending: z.array(z.string()).exactOptional(),
  tools: z.array(z.string()).exactOptional(),
})

/** One run of `respond`, which may take several connections. */
interface Leg {
  readonly message: GenericBotMessage
  readonly reader: AnswerReader
  cursor: Cursor
  /** What the log has of the cursor. */
  logged: Cursor | undefined
  /** Something may be running upstream. */
  sent: boolean
  end: 'done' | HubError | undefined
  /** Connections lost in a row without a new event. */
  losses: number
}

class AsgardBot {
  readonly client: AsgardClient
  readonly #settings: Options
  readonly #context: PluginContext

  constructor(client: AsgardClient, settings: Options, context: PluginContext) {
    this.client = client
    this.#settings = settings
    this.#context = context
  }

  async *respond(turn: Turn): AsyncGenerator<HubEvent> {
    const logged = cursorOf(turn)
    const answers = answersOf(turn, logged)
    // A waiting turn goes on with a new run; any other that has begun looks for the one it had.
    const goesOn = turn.resume !== undefined && !answers
    const leg = this.#legOf(turn, logged, answers)
    leg.sent = goesOn
    let tooLarge = false
    try {
      yield* this.#answer(turn, leg, goesOn)
    } catch (error) {
      tooLarge = error instanceof HubError && error.code === 'answer_too_large'
      throw error
    } finally {
      if (leg.sent && !leg.end && (tooLarge || isStopped(turn.signal))) await this.#suspend(leg.cursor)
    }
  }

  /** Denies every pending call, as often as the bot asks again, and stops what is left. */
  async release(turn: Turn): Promise<void> {
    let cursor = cursorOf(turn)
    if (!cursor) return
    // The turn's own signal may have aborted already; that can be why it is released.
    const signal = silentAfter(this.#settings.timeoutMs)
    try {
      for (let round = 0; round < releaseRounds && cursor.pending?.length; round += 1)
        cursor = await this.#deny({ ...turn, signal }, cursor, cursor.pending)
    } finally {
      await this.client.suspend(cursor.channel, cursor.request, silentAfter(suspendTimeoutMs))
    }
  }

  async #deny(turn: Turn, from: Cursor, pending: readonly string[]): Promise<Cursor> {
    const leg = this.#legOf(
      turn,
      from,
      pending.map((call) => consentAnswer({ call, result: 'deny_once' })),
    )
    for await (const _ of this.#connect(turn, leg, undefined));
    return leg.cursor
  }

  #legOf(turn: Turn, logged: Cursor | undefined, answers: readonly ToolCallConsentAnswer[] | undefined): Leg {
    const cursor = logged ?? { channel: channelOf(turn) }
    const message = this.#messageOf(turn, cursor.channel)
    const rest = without(cursor, 'pending')
    return {
      message: answers ? answering(message, answers) : message,
      reader: new AnswerReader({
        customMessageId: message.customMessageId,
        shown: turn.shown,
        openTools: cursor.tools ?? [],
      }),
      cursor: answers ? { ...rest, answered: true } : rest,
      logged,
      sent: false,
      end: undefined,
      losses: 0,
    }
  }

  async *#answer(turn: Turn, leg: Leg, goesOn: boolean): AsyncGenerator<HubEvent> {
    let place = goesOn ? placeOf(leg) : undefined
    if (goesOn && !place) throw new HubError('upstream_cut')
    if (!goesOn && !leg.logged) {
      // Stored before the message is sent, so that after a crash its run can be looked for.
      leg.logged = leg.cursor
      yield { type: 'upstream', cursor: leg.cursor }
    }
    while (!leg.end) {
      try {
        yield* this.#connect(turn, leg, place)
      } catch (error) {
        if (turn.signal.aborted) throw turn.signal.reason
        place = afterLoss(error, leg, place !== undefined)
        await this.#context.clock.sleep(pauseMs(leg.losses), turn.signal)
      }
    }
    // Our message was not in the replay, so whatever has ended there, well or badly, is not known to be our run.
    if (leg.reader.searching) throw new HubError('upstream_cut', { cause: leg.end })
    if (leg.end !== 'done') throw leg.end
    // A run that was stopped or lost meanwhile ends like a whole one; its open message gives it away.
    if (place !== undefined && leg.reader.incomplete && !leg.cursor.pending) throw new HubError('upstream_cut')
  }

  /** One connection: sends the message, or goes on from a place. Returns at the end of the run only. */
  async *#connect(turn: Turn, leg: Leg, place: Place | undefined): AsyncGenerator<HubEvent> {
    const { reader } = leg
    turn.signal.throwIfAborted()
    if (place !== undefined) reader.resubscribed(place, leg.cursor.request)
    leg.sent = true
    const frames = this.client.stream(leg.message, {
      signal: turn.signal,
      isDebug: turn.debug || this.#settings.debug,
      bypassToolCallConsent: turn.bypassConsent,
      userIdentityHint: hintOf(turn),
      ...(place === undefined ? {} : { place }),
    })
    for await (const frame of frames) {
      const { events, end } = reader.read(frame.event)
      if (events.some((event) => event.type !== 'raw')) leg.losses = 0
      yield* events
      // Behind its events: after a crash, one that comes twice is better than one that is lost.
      if (!reader.searching) leg.cursor = cursorAfter(leg.cursor, frame, events, reader)
      if (leg.cursor !== leg.logged) {
        leg.logged = leg.cursor
        yield { type: 'upstream', cursor: leg.cursor }
      }
      leg.end = end
      if (end) return
    }
    throw new HubError('upstream_cut')
  }

  async #suspend({ channel, request }: Cursor): Promise<void> {
    try {
      await this.client.suspend(channel, request, silentAfter(suspendTimeoutMs))
    } catch (error) {
      this.#context.logger.warn({ err: error, request }, 'asgard did not stop the run')
    }
  }

  #messageOf(turn: Turn, channel: string): GenericBotMessage {
    const blobIds = turn.message.files.flatMap((file) => blobIdOf(file.upstream))
    const payload: JsonObject = { ...turn.message.payload, ...this.#settings.payload }
    return {
      customChannelId: channel,
      customMessageId: messageIdOf(turn.message.id),
      text: turn.message.text,
      action: 'NONE',
      ...(blobIds.length > 0 ? { blobIds } : {}),
      ...(Object.keys(payload).length > 0 ? { payload } : {}),
    }
  }
}

const answering = (
  { customChannelId, customMessageId, payload }: GenericBotMessage,
  toolCallConsents: readonly ToolCallConsentAnswer[],
): GenericBotMessage => ({
  customChannelId,
  customMessageId,
  text: '',
  action: 'RESPONSE_TOOL_CALL_CONSENT',
  ...(payload ? { payload } : {}),
  toolCallConsents,
})

/** One answer per pending call, when the turn goes on with the user's decisions and they have not been sent yet. */
function answersOf(turn: Turn, cursor: Cursor | undefined): ToolCallConsentAnswer[] | undefined {
  if (turn.answers?.type !== 'consent') return undefined
  const pending = cursor ? cursor.pending : turn.answers.calls.map(({ call }) => call)
  if (!pending?.length) return undefined
  const decisions = new Map(turn.answers.decisions.map((decision) => [decision.call, decision]))
  return pending.map((call) => consentAnswer(decisions.get(call) ?? { call, result: 'deny_once' }))
}

function cursorOf(turn: Turn): Cursor | undefined {
  const parsed = cursorSchema.safeParse(turn.resume)
  return parsed.success ? parsed.data : undefined
}

/** The cursor behind a frame; the same object when nothing changed. */
function cursorAfter(cursor: Cursor, frame: AsgardFrame, events: readonly HubEvent[], reader: AnswerReader): Cursor {
  const changes: Partial<Mutable<Cursor>> = {}
  const { id, event } = frame
  // A new run begins its frames with 0 again; behind a later one there is less to replay.
  const isNew = id !== undefined && id !== cursor.lastEventId && !(id === '0' && cursor.lastEventId !== undefined)
  if (isNew && /^[\x21-\x7e]{1,128}$/.test(id)) changes.lastEventId = id
  if (event.requestId && event.requestId !== cursor.request) changes.request = event.requestId
  for (const each of events) {
    if (each.type === 'consent.requested') changes.pending = each.calls.map(({ call }) => call)
    if (each.type === 'tool.started' || each.type === 'tool.completed') changes.tools = reader.openTools
  }
  return Object.keys(changes).length > 0 ? { ...cursor, ...changes } : cursor
}

type Mutable<T> = { -readonly [Key in keyof T]: T[Key] }

const without = <T extends object, Key extends keyof T>(value: T, key: Key): Omit<T, Key> => {
  if (!(key in value)) return value
  const { [key]: _, ...rest } = value
  return rest
}

/** Behind the last frame; without one, wherever our message is in the channel's history; behind a pause, nowhere. */
function placeOf({ cursor: { lastEventId, answered } }: Leg): Place | undefined {
  if (lastEventId !== undefined) return { lastEventId }
  return answered ? undefined : 'replay'
}

/** Where to go on after a lost connection; throws when there is no place or no sense in it. */
function afterLoss(error: unknown, leg: Leg, resumed: boolean): Place {
  leg.losses += 1
  const place = placeOf(leg)
  if (place && isLoss(error, resumed) && leg.losses <= reconnects.tries) return place
  if (!resumed || !(error instanceof HubError) || error.code === 'answer_too_large') throw error
  // The run was started, so nothing that a resubscription met may pass for a refusal.
  throw new HubError(error.code === 'upstream_silent' ? 'upstream_silent' : 'upstream_cut', {
    cause: error,
    ...(error.upstream ? { upstream: error.upstream } : {}),
  })
}

/** A message is sent once; asking for the rest of its answer may be tried again after any passing trouble. */
function isLoss(error: unknown, resumed: boolean): boolean {
  if (!(error instanceof HubError)) return false
  if (error.code === 'upstream_cut' || error.code === 'upstream_silent') return true
  if (!resumed) return false
  return error.notStarted || (error.upstream?.status ?? 0) >= 500
}

const pauseMs = (losses: number) => Math.min(reconnects.firstMs * 2 ** (losses - 1), reconnects.longestMs)

/** Somebody wants the run to stop; a hub that shuts down comes back for it. */
const isStopped = ({ aborted, reason }: AbortSignal): boolean =>
  aborted && reason instanceof HubError && reason.code !== 'shutting_down'

/** Opaque, and never the same for two principals, whatever names they choose. */
const channelOf = ({ bot, principal, conversation }: Pick<Thread, 'bot' | 'principal' | 'conversation'>): string =>
  `hub-${hashOf(JSON.stringify([bot, principal.key, principal.user ?? null, conversation.id])).slice(0, 32)}`

const messageIdOf = (id: string): string => (/^[\x20-\x7e]{1,128}$/.test(id) ? id : `hub-${hashOf(id)}`)

/** The user, as far as a header can say it. */
function hintOf({ message, principal }: Turn): string | undefined {
  const user = message.speaker ?? principal.user
  if (!user) return undefined
  const safe = /^[!-$&-~](?:[ -$&-~]*[!-$&-~])?$/.test(user) ? user : encodeURIComponent(user.toWellFormed())
  return safe.length <= 128 ? safe : hashOf(user)
}

const hashOf = (text: string): string => createHash('sha256').update(text).digest('hex')

function blobIdOf(upstream: Json): string[] {
  const parsed = z.object({ blobId: z.string() }).safeParse(upstream)
  return parsed.success ? [parsed.data.blobId] : []
}
