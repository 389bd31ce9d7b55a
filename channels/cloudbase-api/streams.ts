import type { ChannelContext, RequestContext } from '../../core/channel.ts'
import { HubError, isFailureCode } from '../../core/errors.ts'
import { openEventStream } from '../../core/event-stream.ts'
import type { EventStream } from '../../core/event-stream.ts'
import type { NumberedEvent } from '../../core/events.ts'
import type { TurnRow } from '../../core/store.ts'
import { leaving } from '../../core/upload.ts'
import { done, failureIn, isShown, toText } from './encode.ts'

/** How CloudBase keeps a silent stream open. */
const heartbeat = { everyMs: 3000, text: ': heartbeat\n\n' } as const
const cursorForm = /^(?<turn>turn_[0-9a-z]+)\/(?<seq>\d{1,15})$/

/** What makes frames of a turn's events: one for each dialect. */
export interface Encoder {
  encode(event: NumberedEvent): readonly unknown[]
}

/** An answer to be streamed. */
export interface Answering {
  readonly turn: TurnRow
  readonly encoder: Encoder
  /** The number of the last event that the client has. */
  readonly after: number
  /** Frames before the first one of the turn. */
  readonly begin?: readonly unknown[]
  /** Written behind the last frame. */
  readonly end?: string
}

/**
 * Streams a turn until it ends or waits. A turn that fails before there is anything to show is thrown, so that it is
 * answered as an error; it is waited for no longer than a heartbeat takes.
 * @throws HubError by which the turn failed
 */
export async function answer(
  ctx: RequestContext,
  context: ChannelContext,
  { turn, encoder, after, begin = [], end = done }: Answering,
): Promise<void> {
  using left = leaving(ctx)
  const groups = untilItRests(context.hub.follow(turn.id, 0, left.signal), after)
  try {
    const begun = after > 0 ? { held: [], next: groups.next(), isLate: false } : await firstShown(groups, turn)
    if (left.signal.aborted) return leave(ctx)
    const client = openStream(ctx, context, turn.id)
    const write = (events: readonly NumberedEvent[]) => client.write(framesOf(turn, events, encoder, after))
    await client.write([...(begun.isLate ? [heartbeat.text] : []), ...begin.map((frame) => toText(frame))])
    for (const events of begun.held) await write(events)
    for (let step = await begun.next; !step.done; step = await groups.next()) await write(step.value)
    await client.write([end])
    client.close()
  } finally {
    await groups.return(undefined)
  }
}

/** A stream with CloudBase's heartbeats. */
export function openStream(ctx: RequestContext, context: ChannelContext, requestId: string): EventStream {
  ctx.set('x-request-id', requestId)
  return openEventStream(ctx, context, heartbeat.text, heartbeat.everyMs)
}

/** Nobody is there to be answered. */
function leave(ctx: RequestContext): void {
  ctx.respond = false
  ctx.res.destroy()
}

type Groups = AsyncGenerator<readonly NumberedEvent[], undefined>

/** Ends behind a `turn.waiting` that the client has not seen. One that it has seen is waited out. */
async function* untilItRests(groups: AsyncIterable<readonly NumberedEvent[]>, after: number): Groups {
  for await (const events of groups) {
    const rest = events.findIndex(({ seq, type }) => seq > after && type === 'turn.waiting')
    yield rest < 0 ? events : events.slice(0, rest + 1)
    if (rest >= 0) return
  }
}

interface Begun {
  /** What was read and shows nothing. */
  readonly held: readonly (readonly NumberedEvent[])[]
  readonly next: ReturnType<Groups['next']>
  /** A heartbeat is due. */
  readonly isLate: boolean
}

/** Waits for something to show, as long as a client can be left without a word. */
async function firstShown(groups: Groups, turn: TurnRow): Promise<Begun> {
  const held: (readonly NumberedEvent[])[] = []
  const late = Promise.withResolvers<undefined>()
  const timer = setTimeout(() => late.resolve(undefined), heartbeat.everyMs)
  try {
    for (;;) {
      const next = groups.next()
      const step = await Promise.race([next, late.promise])
      if (!step || step.done) return { held, next, isLate: !step }
      const first = step.value.find(isShown)
      if (!first) held.push(step.value)
      else if (failureIn(first)) throw asFailure(failureIn(first)!, turn)
      else return { held, next, isLate: false }
    }
  } finally {
    clearTimeout(timer)
  }
}

/** A turn's failure as one of a request: the code, and the sentence in the bot's language. */
function asFailure({ code, ...rest }: NonNullable<ReturnType<typeof failureIn>>, { id }: TurnRow): HubError {
  return new HubError(isFailureCode(code) ? code : 'internal', { ...rest, turn: id })
}

/**
 * One at a time, as they are taken: a client that does not read costs no frames. The last frame of an event has its id,
 * so that a client never misses half of an event.
 */
function* framesOf(
  turn: TurnRow,
  events: readonly NumberedEvent[],
  encoder: Encoder,
  after: number,
): Generator<string> {
  for (const event of events) {
    const frames = encoder.encode(event)
    if (event.seq <= after) continue
    yield* frames.map((frame, index) =>
      toText(frame, index === frames.length - 1 ? `${turn.id}/${event.seq}` : undefined),
    )
  }
}

/**
 * Where a client goes on that names the last frame it has; undefined when it names none.
 * @throws HubError `bad_cursor`, `unknown_turn`
 */
export async function resumed(
  ctx: RequestContext,
  { hub }: ChannelContext,
  bot: string,
): Promise<{ readonly turn: TurnRow; readonly after: number } | undefined> {
  const cursor = ctx.get('last-event-id')
  if (!cursor) return undefined
  const place = cursorForm.exec(cursor)?.groups
  if (!place) throw new HubError('bad_cursor', { message: 'Send the id of a frame you received, `{turn}/{seq}`.' })
  const turn = await hub.turn(ctx.principal, place['turn']!)
  if (turn.bot !== bot) throw new HubError('unknown_turn')
  return { turn, after: Number(place['seq']) }
}
