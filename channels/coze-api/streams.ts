import type { Principal } from '../../core/auth.ts'
import type { ChannelContext, RequestContext } from '../../core/channel.ts'
import { openEventStream } from '../../core/event-stream.ts'
import { isTerminal } from '../../core/events.ts'
import type { NumberedEvent } from '../../core/events.ts'
import type { JsonObject } from '../../core/message.ts'
import type { TurnRow } from '../../core/store.ts'
import { isEnded } from '../../core/store.ts'
import { ChatEncoder, chatNow, chatOf, messageCompleted, toText } from './encode.ts'
import type { ChatFrame } from './encode.ts'

/** Where a reader of a turn begins, and how it is spoken to. */
export interface Place {
  readonly turn: TurnRow
  /** The number of the last event it has no need of. */
  readonly after: number
  /** Whether its frames have ids, so that it can come back. */
  readonly withIds: boolean
}

/** Streams a turn until it ends or waits. Whoever has seen all of it gets the end again, so that every stream has one. */
export async function streamChat(ctx: RequestContext, context: ChannelContext, place: Place): Promise<void> {
  const encoder = new ChatEncoder(await chatIn(context, place.turn))
  const client = openEventStream(ctx, context, encoder.heartbeat())
  const reader = { context, principal: ctx.principal, encoder, place }
  for await (const frames of framesOf(reader, client.signal)) {
    await client.write(frames.map((frame) => toText(frame, place.withIds)))
  }
  client.close()
}

interface Reader {
  readonly context: ChannelContext
  readonly principal: Principal
  readonly encoder: ChatEncoder
  readonly place: Place
}

/** The frames of a turn behind a place, as many at a time as were committed together, until it ends or waits. */
async function* framesOf(
  { context, principal, encoder, place }: Reader,
  signal: AbortSignal,
): AsyncGenerator<readonly ChatFrame[]> {
  const { turn, after } = place
  const now = () => context.hub.turn(principal, turn.id)
  let last = 0
  for await (const events of context.hub.follow(turn.id, 0, signal)) {
    const shown: ChatFrame[] = []
    for (const event of events) {
      const frames = encoder.encode(event, isTerminal(event) ? (await now()).endedAt : undefined)
      last = event.seq
      if (last > after) shown.push(...frames)
      if (last > after && event.type === 'turn.waiting') return yield shown
      if (!mayRest(event) || !waitsAt(await now(), last)) continue
      // Nothing more comes until somebody answers: the pause was seen, or only some of the calls have their answers.
      return yield [...shown, ...encoder.pause(last)]
    }
    yield shown
  }
  if (last > 0 && last <= after) yield encoder.idle(last)
}

/** Behind these a turn may wait for the rest of its answers. */
const mayRest = ({ type }: NumberedEvent): boolean =>
  type === 'turn.waiting' || type === 'consent.answered' || type === 'tool.completed'

const waitsAt = ({ status, seq }: TurnRow, place: number): boolean => status === 'waiting' && seq === place

/** A log that lost its small events no longer tells in which order the messages began. */
async function chatIn({ hub }: ChannelContext, turn: TurnRow) {
  if (!turn.compacted) return chatOf(turn)
  const { messages } = await hub.view(turn.id)
  return chatOf(
    turn,
    messages.map(({ id }) => id),
  )
}

/** The whole messages of a turn's answer so far, with what is left of those that were broken off. */
export async function messagesOf(context: ChannelContext, turn: TurnRow): Promise<readonly JsonObject[]> {
  const encoder = new ChatEncoder(await chatIn(context, turn))
  const messages: JsonObject[] = []
  // Nothing is waited for: what is in the log now is all.
  const until = new AbortController()
  for await (const events of context.hub.follow(turn.id, 0, until.signal)) {
    for (const event of events) {
      const frames = encoder.encode(event)
      messages.push(...frames.flatMap(({ event: name, body }) => (name === messageCompleted ? [body] : [])))
    }
    if (events.at(-1)!.seq >= turn.seq) until.abort()
  }
  return isEnded(turn.status) ? [...messages, ...encoder.partial()] : messages
}

/** The Chat object of a turn as it is now. */
export async function chatObjectOf(context: ChannelContext, turn: TurnRow): Promise<JsonObject> {
  // Clients poll ten times a second, and there is nothing to be seen of a turn that runs.
  const isLive = turn.status === 'queued' || turn.status === 'running'
  return chatNow(turn, isLive ? undefined : await context.hub.view(turn.id), await wasCanceled(context, turn))
}

/** Whether its client or a deletion stopped it, by its last event. */
async function wasCanceled({ hub }: ChannelContext, { id, status, seq }: TurnRow): Promise<boolean> {
  if (status !== 'cancelled') return false
  for await (const events of hub.follow(id, seq - 1, new AbortController().signal)) {
    const last = events.at(-1)
    return last?.type === 'turn.cancelled' && (last.by === 'client' || last.by === 'deleted')
  }
  return false
}

/** Follows a turn for a client that comes to look now and then, so that nobody takes it for left. */
export function attend({ hub, logger }: ChannelContext, turn: TurnRow, signal: AbortSignal): void {
  const follow = async () => {
    for await (const events of hub.follow(turn.id, turn.seq, signal)) {
      if (events.some(({ type }) => type === 'turn.waiting')) return
    }
  }
  follow().catch((error: unknown) => logger.warn({ err: error, turn: turn.id }, 'a turn could not be followed'))
}
