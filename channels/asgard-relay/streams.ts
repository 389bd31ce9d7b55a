import type { Principal } from '../../core/auth.ts'
import type { Profile } from '../../core/bot.ts'
import type { ChannelContext } from '../../core/channel.ts'
import { HubError } from '../../core/errors.ts'
import type { EventStream } from '../../core/event-stream.ts'
import type { NumberedEvent } from '../../core/events.ts'
import type { ConversationRef } from '../../core/message.ts'
import type { RecordItem, TurnRow } from '../../core/store.ts'
import { isEnded } from '../../core/store.ts'
import { encodeFrame } from '../../plugins/asgard/wire.ts'
import type { AsgardFrame } from '../../plugins/asgard/wire.ts'
import { decodePlace, RunEncoder } from './encode.ts'
import type { RelayPlace, RelayRun } from './encode.ts'

/** A channel of Asgard's, as one caller sees it. */
export interface Relay {
  readonly context: ChannelContext
  readonly principal: Principal
  readonly bot: string
  readonly namespace: string
  readonly botProviderName: string
  readonly customChannelId: string
}

/** How many turns of a conversation are read at a time. */
const pageLength = 50
/** How much feedback on one turn is shown at most: the newest. */
const maxFeedback = 100

/** What the frames of a turn say of themselves. */
export const runOf = (
  { namespace, botProviderName, customChannelId }: Relay,
  turn: { readonly id: string; readonly message: { readonly id: string } },
): RelayRun => ({ turn: turn.id, message: turn.message.id, namespace, botProviderName, customChannelId })

/** The turns of a channel that have not ended, oldest first, and the one that was accepted last. */
export const turnsOf = ({ context, principal, bot }: Relay, { id }: ConversationRef) =>
  context.conversations.turns(principal, bot, id)

/** A turn of the caller's; undefined when it is no longer kept. */
export async function turnOf({ context, principal }: Relay, id: string): Promise<TurnRow | undefined> {
  try {
    return await context.hub.turn(principal, id)
  } catch (error) {
    if (error instanceof HubError && error.code === 'unknown_turn') return undefined
    throw error
  }
}

/** What a bot says before anybody has said a word: a run of no turn, which nobody has to remember. */
export function welcomeFrames(relay: Relay, requestId: string, { welcome }: Profile): readonly AsgardFrame[] {
  const encoder = new RunEncoder(runOf(relay, { id: requestId, message: { id: '' } }))
  const message = 'welcome'
  const said: readonly NumberedEvent[] = welcome
    ? [
        { seq: 2, type: 'message.started', message },
        { seq: 3, type: 'message.delta', message, text: welcome },
        { seq: 4, type: 'message.completed', message, text: welcome },
      ]
    : []
  const events: readonly NumberedEvent[] = [
    { seq: 1, type: 'turn.started', turn: requestId, bot: relay.bot, conversation: relay.customChannelId, message: '' },
    ...said,
    { seq: said.length + 2, type: 'turn.completed', text: welcome ?? '' },
  ]
  // Whoever comes back is at the beginning: there is nothing to be resumed.
  return events
    .flatMap((event) => encoder.encode(event))
    .map(({ event }, index) => ({ ...(index === 0 ? { id: '0' } : {}), event }))
}

/**
 * Streams a turn behind `after` until it ends or waits. The client that has seen all of it gets the end again, so that
 * every stream has one.
 */
export async function streamRun(client: EventStream, relay: Relay, turn: TurnRow, after: number): Promise<void> {
  const encoder = new RunEncoder(runOf(relay, turn))
  let last: NumberedEvent | undefined
  for await (const events of relay.context.hub.follow(turn.id, 0, client.signal)) {
    const end = events.findIndex((event) => event.seq > after && event.type === 'turn.waiting')
    const shown = end < 0 ? events : events.slice(0, end + 1)
    await client.write(framesOf(shown, encoder, after))
    last = shown.at(-1)
    if (end >= 0) return
    // Nothing more comes until somebody decides: the pause was seen, or only some of the calls were answered.
    if (last?.type !== 'turn.waiting' && last?.type !== 'consent.answered') continue
    if (!(await waitsAt(relay, turn.id, last.seq))) continue
    const pause = encoder.replayPause(last.seq)
    return client.write((last.seq > after ? pause.slice(1) : pause).map(toText))
  }
  if (last && last.seq <= after) await client.write(encoder.idle(last.seq).map(toText))
}

async function waitsAt(relay: Relay, id: string, seq: number): Promise<boolean> {
  const turn = await turnOf(relay, id)
  return turn?.status === 'waiting' && turn.seq === seq
}

/** One at a time, as they are taken: a client that does not read costs no frames. */
function* framesOf(events: readonly NumberedEvent[], encoder: RunEncoder, after: number): Generator<string> {
  for (const event of events) {
    const frames = encoder.encode(event)
    if (event.seq > after) yield* frames.map(toText)
  }
}

/**
 * A frame as it is written. The id is its last line, since the front end's transport takes a cursor as soon as it has read
 * one: in front of the event, a cut between the two would lose the event.
 */
export const toText = ({ id, event }: AsgardFrame): string =>
  id === undefined ? encodeFrame(event) : `${encodeFrame(event).slice(0, -1)}id: ${id}\n\n`

/** Where in a channel a client was. */
export interface ChannelPlace {
  readonly turn: TurnRow
  readonly seq: number
}

/**
 * The place of a cursor.
 * @throws HubError `bad_cursor` for an id of another channel
 */
export async function resubscribe(relay: Relay, conversation: ConversationRef, cursor: string): Promise<ChannelPlace> {
  const place = decodePlace(cursor)
  const turn = place && (await turnOf(relay, place.turn))
  if (!turn || turn.conversation.id !== conversation.id) {
    throw new HubError('bad_cursor', { message: 'Send the id of a frame of this channel.' })
  }
  return { turn, seq: place.seq }
}

/**
 * Shows what a channel has said behind a place, or all of it: what has ended as its collapsed history, then the run that
 * lives until it ends or waits.
 */
export async function replayChannel(
  client: EventStream,
  relay: Relay,
  conversation: ConversationRef,
  from: ChannelPlace | undefined,
): Promise<void> {
  const goesOn = from && (!isEnded(from.turn.status) || !(await hasLater(relay, conversation, from.turn)))
  // The end of an earlier run would be taken for the end of the stream.
  if (goesOn) return streamRun(client, relay, from.turn, from.seq)
  if (from) await replayTurn(client, relay, from.turn, from.seq)
  await replayTurns(client, relay, conversation, from?.turn)
}

async function hasLater(relay: Relay, conversation: ConversationRef, { id }: TurnRow): Promise<boolean> {
  return (await turnsOf(relay, conversation)).latest?.id !== id
}

/** What was said in each turn of a conversation, in their order, a few of them in memory at a time. */
async function* turnsBehind(
  { context, principal, bot }: Relay,
  conversation: ConversationRef,
  turn: string | undefined,
): AsyncGenerator<readonly [turn: string, records: readonly RecordItem[]]> {
  let after = turn
  do {
    const page = await context.conversations.recordsByTurn(principal, bot, conversation.id, {
      limit: pageLength,
      ...(after === undefined ? {} : { after }),
    })
    yield* Map.groupBy(page.items, (item) => item.turn)
    after = page.after
  } while (after !== undefined)
}

async function replayTurns(
  client: EventStream,
  relay: Relay,
  conversation: ConversationRef,
  after: TurnRow | undefined,
): Promise<void> {
  let last: RelayPlace | undefined = after && { turn: after.id, seq: after.seq }
  for await (const [id, records] of turnsBehind(relay, conversation, after?.id)) {
    if (client.signal.aborted) return
    const turn = await turnOf(relay, id)
    if (turn && !isEnded(turn.status)) return replayLive(client, relay, turn)
    if (turn) await replayTurn(client, relay, turn, -1)
    else await client.write(framesOfRecords(relay, id, records).map(toText))
    last = { turn: id, seq: turn?.seq ?? 0 }
  }
  // Nothing was said in it, as in a nudge.
  const [silent] = (await turnsOf(relay, conversation)).live
  if (silent) return replayLive(client, relay, silent)
  const encoder = new RunEncoder(runOf(relay, { id: last?.turn ?? '', message: { id: '' } }))
  const end = encoder.idle(last?.seq ?? 0)
  await client.write(
    end.map(({ id, event }) => toText({ event: { ...event, requestId: '' }, id: (last && id) ?? '0' })),
  )
}

/** A turn that has ended. `after` is -1 where the user's message is to be shown too. */
async function replayTurn(client: EventStream, relay: Relay, turn: TurnRow, after: number): Promise<void> {
  const encoder = new RunEncoder(runOf(relay, turn))
  if (after < 0) await client.write(userFrames(encoder, turn).map(toText))
  for await (const events of relay.context.hub.follow(turn.id, 0, client.signal)) {
    for (const event of events) {
      const frames = encoder.replay(event)
      if (event.seq > after) await client.write(frames.map(toText))
    }
  }
  await replayPartials(client, relay, turn, encoder)
  await replayFeedback(client, relay, turn, encoder)
}

async function replayPartials(client: EventStream, relay: Relay, turn: TurnRow, encoder: RunEncoder): Promise<void> {
  if (encoder.incomplete.length === 0) return
  const { messages } = await relay.context.hub.view(turn.id)
  for (const message of messages.filter(({ id }) => encoder.incomplete.includes(id))) {
    await client.write(encoder.replayPartial(message, turn.seq).map(toText))
  }
}

async function replayFeedback(
  client: EventStream,
  { context, principal, bot }: Relay,
  { id: turn }: TurnRow,
  encoder: RunEncoder,
): Promise<void> {
  const { items } = await context.conversations.feedback(principal, { bot, turn }, { limit: maxFeedback })
  await client.write(items.map((item) => toText(encoder.replayFeedback(item))))
}

/** A turn that lives: as a run, or, when it waits, as what it has said and its pause. */
async function replayLive(client: EventStream, relay: Relay, turn: TurnRow): Promise<void> {
  const encoder = new RunEncoder(runOf(relay, turn))
  await client.write(userFrames(encoder, turn).map(toText))
  if (turn.status !== 'waiting') return streamRun(client, relay, turn, 0)
  for await (const events of relay.context.hub.follow(turn.id, 0, client.signal)) {
    const until = events.filter(({ seq }) => seq <= turn.seq)
    for (const event of until) await client.write(encoder.replay(event).map(toText))
    if (events.some(({ seq }) => seq >= turn.seq)) break
  }
  await client.write(encoder.replayPause(turn.seq).map(toText))
}

const userFrames = (encoder: RunEncoder, { message }: TurnRow): readonly AsgardFrame[] =>
  // A message that only opened the channel is no words of the user's.
  message.text === '' && message.files.length === 0
    ? []
    : encoder.replayUser(
        { ...message, ...(message.speaker === undefined ? {} : { hint: message.speaker }) },
        message.id,
      )

/** What is left of a turn that is no longer kept: its words. */
function framesOfRecords(relay: Relay, turn: string, records: readonly RecordItem[]): readonly AsgardFrame[] {
  const encoder = new RunEncoder(runOf(relay, { id: turn, message: { id: '' } }))
  return records.flatMap(({ role, id, text }) =>
    role === 'user' ? encoder.replayUser({ text, files: [] }) : encoder.replayPartial({ id, text }, 1),
  )
}
