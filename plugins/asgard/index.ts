import { createHash } from 'node:crypto'
import { z } from 'zod'
import { HubError } from '../../core/errors.ts'
import type { HubEvent } from '../../core/events.ts'
import { flatMap, inParts } from '../../core/flow.ts'
import type { Parts } from '../../core/flow.ts'
import type { Json, JsonObject } from '../../core/message.ts'
import { defineProvider } from '../../core/plugin.ts'
import type { MessageRating, PluginContext, Thread, Upload } from '../../core/plugin.ts'
import { env, Secret, secret, setting } from '../../core/settings.ts'
import type { Answers, Turn } from '../../core/turn.ts'
import { BotProviderClient } from './client.ts'
import { silentAfter } from './edge.ts'
import { AsgardError, hubErrorOf } from './errors.ts'
import { passThrough } from './passthrough.ts'
import type { PassthroughTarget } from './passthrough.ts'
import { startAsgardSimulator } from './simulator.ts'
import type { BotProviderStreamer, GenericBotSseEvent, PlacedEvent } from './streamer.ts'
import { AnswerReader, consentAnswer } from './wire.ts'
import type { GenericBotMessage, Place, ToolCallConsentAnswer } from './wire.ts'

const idleTimeoutMs = 30_000
const suspendTimeoutMs = 5000
const releaseRounds = 5
// Silence is waited out in full each time, so it is given one more try only.
const reconnects = { tries: 5, silentTries: 1, firstMs: 500, longestMs: 5000 } as const

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
    /** Where Asgard is, or a relay in front of it. */
    edgeServerHost: setting()
      .refine((host) => /^https?:$/.test(URL.parse(host)?.protocol ?? ''), 'must be an http(s) URL')
      .prefault(env('EDGE_SERVER_HOST', 'https://api.asgard-ai.com')),
    /** Of the bot provider. */
    namespace: setting().prefault(env('NAMESPACE')),
    /** The bot. */
    botProviderName: setting().prefault(env('BOT_PROVIDER_NAME')),
    /** The bot provider's own, sent as `X-API-KEY`. */
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
  manifest: {
    name: 'asgard',
    remembers: true,
    resumes: true,
    files: true,
    consent: true,
    feedback: true,
    nudges: true,
    passthrough: 'asgard',
    idleTimeoutMs,
  },
  options,
  async create(settings, context) {
    const simulator = settings.simulated ? await startAsgardSimulator() : undefined
    const target = targetOf(settings, simulator, context)
    const client = new BotProviderClient({
      ...target,
      botProviderApiKey: target.apiKey.reveal(),
      idleTimeoutMs: settings.idleTimeoutMs,
    })
    const bot = new AsgardBot(client, settings, context)
    return {
      respond: (turn) => inParts(() => bot.respond(turn)),
      upload: (file, thread, signal) => bot.upload(file, thread, signal),
      release: (turn) => bot.release(turn),
      forget: (thread) => bot.forget(thread),
      feedback: (rating, thread, signal) => bot.feedback(rating, thread, signal),
      passThrough: (request, thread, signal) => passThrough(target, request, thread && channelOf(thread), signal),
      ...(simulator ? { simulated: true, close: () => simulator.close() } : {}),
    }
  },
})

type Simulator = Awaited<ReturnType<typeof startAsgardSimulator>>

function targetOf(settings: Options, simulator: Simulator | undefined, context: PluginContext): PassthroughTarget {
  const target = settings.simulated
    ? {
        edgeServerHost: simulator!.url,
        namespace: simulator!.namespace,
        botProviderName: simulator!.botProviderName,
        apiKey: new Secret(simulator!.apiKey),
      }
    : settings
  return {
    edgeServerHost: target.edgeServerHost,
    namespace: target.namespace,
    botProviderName: target.botProviderName,
    apiKey: target.apiKey,
    headers: settings.headers,
    fetch: context.fetch,
    timeoutMs: settings.timeoutMs,
  }
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
  /** The calls whose answers are on their way, and may not have arrived. */
  readonly sent?: readonly string[]
  /** The tool calls that were shown to begin and not yet to end. */
  readonly tools?: readonly string[]
}

const cursorSchema = z.object({
  channel: z.string(),
  lastEventId: z.string().exactOptional(),
  request: z.string().exactOptional(),
  answered: z.literal(true).exactOptional(),
  pending: z.array(z.string()).exactOptional(),
  sent: z.array(z.string()).exactOptional(),
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
  /** The last connection showed the pause that is being answered. */
  stillAsked: boolean
  /** The answers were sent once more. */
  repeated: boolean
  /** Connections lost in a row without a new event, and those of them that were silent. */
  losses: number
  silences: number
}

class AsgardBot {
  readonly client: BotProviderClient
  readonly #settings: Options
  readonly #context: PluginContext

  constructor(client: BotProviderClient, settings: Options, context: PluginContext) {
    this.client = client
    this.#settings = settings
    this.#context = context
  }

  async *respond(turn: Turn): Parts<HubEvent> {
    const leg = this.#legOf(turn, cursorOf(turn), turn.answers)
    // A waiting turn goes on with a new run; any other that has begun looks for the one it had.
    const goesOn = turn.resume !== undefined && !leg.cursor.pending
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

  async feedback({ message, verdict, comment }: MessageRating, thread: Thread, signal: AbortSignal): Promise<void> {
    const feedback = {
      customChannelId: channelOf(thread),
      messageId: message,
      verdict: verdict === 'good' ? 'GOOD' : 'BAD',
      ...(comment ? { comment } : {}),
    } as const
    await inHubTerms(this.client.sendMessageFeedback(feedback, { signal }))
  }

  async upload({ name, mime, stream }: Upload, thread: Thread, signal: AbortSignal): Promise<Json> {
    const file = { stream, filename: name, mime }
    const { blobId } = await inHubTerms(this.client.uploadBlob(channelOf(thread), file, { signal }))
    return { blobId }
  }

  forget(thread: Thread): Promise<void> {
    return inHubTerms(this.client.deleteChannel(channelOf(thread)))
  }

  /** Denies every pending call, as often as the bot asks again, and stops what is left. */
  async release(turn: Turn): Promise<void> {
    let cursor = cursorOf(turn)
    if (!cursor) return
    // The turn's own signal may have aborted already; that can be why it is released.
    const signal = silentAfter(this.#settings.timeoutMs)
    try {
      for (let round = 0; round < releaseRounds && cursor.pending?.length; round += 1)
        cursor = await this.#deny({ ...turn, signal }, cursor)
    } finally {
      const { channel, request: requestId } = cursor
      await inHubTerms(this.client.suspendChannel(channel, { requestId, signal: silentAfter(suspendTimeoutMs) }))
    }
  }

  async #deny(turn: Turn, from: Cursor): Promise<Cursor> {
    const leg = this.#legOf(turn, from, { type: 'consent', calls: [], decisions: [] })
    leg.cursor = answeredAt(leg.cursor)
    for await (const _ of inParts(() => this.#connect(turn, leg, undefined)));
    return leg.cursor
  }

  #legOf(turn: Turn, logged: Cursor | undefined, answers: Answers | undefined): Leg {
    const cursor = cursorFor(turn, logged, answers)
    const message = this.#messageOf(turn, cursor.channel)
    const calls = cursor.pending ?? cursor.sent
    return {
      message: calls ? answering(message, answersTo(calls, answers)) : message,
      reader: new AnswerReader({
        customMessageId: messageIdOf(turn.message.id),
        shown: turn.shown,
        openTools: cursor.tools ?? [],
        answered: calls ?? [],
      }),
      cursor,
      logged,
      sent: false,
      end: undefined,
      stillAsked: false,
      repeated: false,
      losses: 0,
      silences: 0,
    }
  }

  async *#answer(turn: Turn, leg: Leg, goesOn: boolean): Parts<HubEvent> {
    let place = goesOn ? placeOf(leg) : undefined
    if (goesOn && !place) throw new HubError('upstream_cut')
    leg.cursor = answeredAt(leg.cursor)
    // Stored before anything is sent, so that after a crash its run can be looked for.
    if (!goesOn) yield store(leg)
    while (!leg.end) {
      try {
        yield* this.#connect(turn, leg, place)
        if (leg.end !== 'done' || !leg.stillAsked) continue
        if (leg.losses > reconnects.tries) throw new HubError('upstream_cut')
        // The pause is still there, so no answer to it has arrived: this one starts nothing twice.
        place = undefined
        leg.end = undefined
        leg.repeated = true
        leg.losses += 1
      } catch (error) {
        if (turn.signal.aborted) throw turn.signal.reason
        place = afterLoss(error, leg, place !== undefined)
        await this.#context.clock.sleep(pauseMs(leg.losses), turn.signal)
      }
    }
    // Our message was not in the replay, so whatever has ended there, well or badly, is not known to be our run.
    if (leg.reader.searching) throw new HubError('upstream_cut', { cause: leg.end })
    if (leg.end !== 'done') throw leg.end
    // A run that was stopped or lost meanwhile ends like a whole one; its open message, or its silence, gives it away.
    const isPart = leg.reader.incomplete || leg.reader.silent
    if (place !== undefined && isPart && !leg.cursor.pending) throw new HubError('upstream_cut')
    // Neither the pause that was answered nor a word of what follows it: somebody else has ended it.
    if (leg.cursor.sent) throw new HubError('upstream_cut')
  }

  /** One connection: sends the message, or goes on from a place. Returns at the end of the run only. */
  async *#connect(turn: Turn, leg: Leg, place: Place | undefined): Parts<HubEvent> {
    const { reader } = leg
    turn.signal.throwIfAborted()
    if (place !== undefined) reader.resubscribed(place, leg.cursor.request)
    leg.sent = true
    leg.stillAsked = false
    try {
      const streamer = await this.#open(turn, leg.message, place)
      yield flatMap(streamer.placed, (placed, stop) => {
        const events = this.#read(leg, placed, place)
        if (leg.end) stop()
        return events
      })
    } catch (error) {
      const failure = hubErrorOf(error)
      if (!(error instanceof AsgardError && error.detail && failure instanceof HubError)) throw failure
      leg.end = failure
    }
  }

  #read(leg: Leg, { event, lastEventId }: PlacedEvent, place: Place | undefined): readonly HubEvent[] {
    const { reader } = leg
    const { events, end, stillAsked = false } = reader.read(event)
    const isNews = events.some(({ type }) => type !== 'raw')
    leg.stillAsked ||= stillAsked
    if (isNews) leg.losses = leg.silences = 0
    // Behind its events: after a crash, one that comes twice is better than one that is lost.
    if (!reader.searching) leg.cursor = cursorAfter(leg.cursor, lastEventId, event, events, reader)
    if (leg.cursor.sent && (place === undefined || isNews)) leg.cursor = without(leg.cursor, 'sent')
    leg.end = end
    return [...events, ...store(leg)]
  }

  #open(turn: Turn, message: GenericBotMessage, place: Place | undefined): Promise<BotProviderStreamer> {
    const how = {
      signal: turn.signal,
      isDebug: turn.debug || this.#settings.debug,
      userIdentityHint: hintOf(turn),
    }
    if (place === 'replay') return this.client.newChannelStreamer(message.customChannelId, how)
    return this.client.newStreamer(message, {
      ...how,
      bypassToolCallConsent: turn.bypassConsent,
      lastEventId: place?.lastEventId,
    })
  }

  async #suspend({ channel, request: requestId }: Cursor): Promise<void> {
    try {
      await this.client.suspendChannel(channel, { requestId, signal: silentAfter(suspendTimeoutMs) })
    } catch (error) {
      this.#context.logger.warn({ err: error, requestId }, 'asgard did not stop the run')
    }
  }

  #messageOf(turn: Turn, channel: string): GenericBotMessage {
    const blobIds = turn.message.files.flatMap((file) => blobIdOf(file.upstream))
    const payload: JsonObject = { ...turn.message.payload, ...this.#settings.payload }
    return {
      customChannelId: channel,
      customMessageId: messageIdOf(turn.message.id),
      text: turn.message.text,
      action: turn.message.nudge ? 'NUDGE' : 'NONE',
      ...(blobIds.length > 0 ? { blobIds } : {}),
      ...(Object.keys(payload).length > 0 ? { payload } : {}),
    }
  }
}

const answering = (
  message: GenericBotMessage,
  toolCallConsents: readonly ToolCallConsentAnswer[],
): GenericBotMessage => ({
  ...without(without(message, 'blobIds'), 'text'),
  text: '',
  action: 'RESPONSE_TOOL_CALL_CONSENT',
  toolCallConsents,
})

/** One answer per call; what nobody has decided is denied. */
function answersTo(calls: readonly string[], answers: Answers | undefined): ToolCallConsentAnswer[] {
  const given = answers?.type === 'consent' ? answers.decisions : []
  const decisions = new Map(given.map((decision) => [decision.call, decision]))
  return calls.map((call) => consentAnswer(decisions.get(call) ?? { call, result: 'deny_once' }))
}

/**
 * Where a leg begins. `pending` stays only where the turn goes on with decisions that have not been sent yet, and
 * `sent` where they may not have arrived.
 */
function cursorFor(turn: Turn, logged: Cursor | undefined, answers: Answers | undefined): Cursor {
  const asked = answers?.type === 'consent' ? answers.calls.map(({ call }) => call) : []
  if (!logged) return { channel: channelOf(turn), ...(asked.length > 0 ? { pending: asked } : {}) }
  // Once the bot has gone on, the answers have arrived, whatever the cursor says.
  return answers?.type === 'consent' ? logged : without(without(logged, 'pending'), 'sent')
}

/** The cursor as it is from the moment on at which the answers to its pending calls are sent. */
function answeredAt(cursor: Cursor): Cursor {
  const { pending, ...rest } = cursor
  return pending ? { ...rest, answered: true, sent: pending } : cursor
}

/**
 * Stores where the leg stands, where that has changed. What only moves on within the stream is not waited for, frame by
 * frame: an older place brings the same answer.
 */
function store(leg: Leg): readonly HubEvent[] {
  const { cursor, logged } = leg
  if (cursor === logged) return []
  leg.logged = cursor
  return [{ type: 'upstream', cursor, soon: logged !== undefined && differsInPlaceOnly(cursor, logged) }]
}

const differsInPlaceOnly = (one: Cursor, other: Cursor): boolean =>
  one.request === other.request &&
  one.answered === other.answered &&
  one.pending === other.pending &&
  one.sent === other.sent &&
  one.tools === other.tools

function cursorOf(turn: Turn): Cursor | undefined {
  const parsed = cursorSchema.safeParse(turn.resume)
  return parsed.success ? parsed.data : undefined
}

/** The cursor behind an event; the same object when nothing changed. */
function cursorAfter(
  cursor: Cursor,
  id: string | undefined,
  event: GenericBotSseEvent,
  events: readonly HubEvent[],
  reader: AnswerReader,
): Cursor {
  const changes: Partial<Mutable<Cursor>> = {}
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
  if (error instanceof HubError && error.code === 'upstream_silent') leg.silences += 1
  const place = placeOf(leg)
  const mayTry = leg.losses <= reconnects.tries && leg.silences <= reconnects.silentTries
  if (place && mayTry && (isLoss(error, resumed) || isRefusedRepeat(error, leg, resumed))) return place
  if (!resumed || !(error instanceof HubError) || error.code === 'answer_too_large') throw error
  // The run was started, so nothing that a resubscription met may pass for a refusal.
  throw new HubError(error.code === 'upstream_silent' ? 'upstream_silent' : 'upstream_cut', {
    cause: error,
    ...(error.upstream ? { upstream: error.upstream } : {}),
  })
}

/** The answers that were sent a second time came too late: the first ones have arrived after all, and their run goes on. */
const isRefusedRepeat = (error: unknown, { repeated }: Leg, resumed: boolean): boolean =>
  repeated &&
  !resumed &&
  error instanceof HubError &&
  (error.code === 'upstream_rejected' || error.code === 'upstream_conflict')

/** A message is sent once; asking for the rest of its answer may be tried again after any passing trouble. */
function isLoss(error: unknown, resumed: boolean): boolean {
  if (!(error instanceof HubError)) return false
  if (error.code === 'upstream_cut' || error.code === 'upstream_silent') return true
  if (!resumed) return false
  return error.notStarted || (error.upstream?.status ?? 0) >= 500
}

/** What a call to Asgard gives, or its failure as the hub knows it. */
async function inHubTerms<T>(call: Promise<T>): Promise<T> {
  try {
    return await call
  } catch (error) {
    throw hubErrorOf(error)
  }
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
