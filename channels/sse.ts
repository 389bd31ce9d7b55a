import { z } from 'zod'
import { numberedEvent, turnObject } from '../core/answers.ts'
import type { ChannelContext, RequestContext } from '../core/channel.ts'
import { channelOptions, defineChannel } from '../core/channel.ts'
import { toJson } from '../core/deltas.ts'
import { failures, HubError } from '../core/errors.ts'
import { openEventStream } from '../core/event-stream.ts'
import type { NumberedEvent } from '../core/events.ts'
import { forEach } from '../core/flow.ts'
import { answerTurn, nativePaths, nativeRequests, sendMessage, turnOf, under } from '../core/native.ts'
import { encodeEvent } from '../core/sse.ts'
import type { TurnRow } from '../core/store.ts'
import { isEnded } from '../core/store.ts'

/**
 * Answers over server-sent events: `POST …/messages` with `Accept: text/event-stream`, and the events of any turn from
 * any place with `Last-Event-ID`. Every event is `id: {turn}/{seq}`, `event: {type}` and one `data:` line of JSON.
 */
export const sse = defineChannel({
  name: 'sse',
  options: z.strictObject({ ...channelOptions }),
  create({ path }, context) {
    const events = 'events' as const
    const answer = (kind: 'consent' | 'toolOutputs') => async (ctx: RequestContext) => {
      const { turn, after } = await answerTurn(ctx, context, kind)
      await stream(ctx, context, turn.id, after, untilWaiting)
    }
    return {
      door: `POST ${under(path, '/api/v1/bots/{bot}/messages')}  (Accept: text/event-stream)`,
      routes: [
        {
          method: 'POST',
          path: under(path, nativePaths.messages),
          accepts: events,
          describe: { ...nativeRequests.messages, answers: untilItRests },
          async handle(ctx) {
            const { turn, after } = await sendMessage(ctx, context)
            await stream(ctx, context, turn.id, after, untilWaiting)
          },
        },
        ...(['consent', 'toolOutputs'] as const).map((kind) => ({
          method: 'POST' as const,
          path: under(path, nativePaths[kind]),
          accepts: events,
          describe: { ...nativeRequests[kind], answers: untilItRests },
          handle: answer(kind),
        })),
        {
          method: 'GET',
          path: under(path, nativePaths.events),
          describe: {
            summary: 'Read the events of a turn, from any place',
            description: 'Live and finished turns alike. The stream goes on past `turn.waiting` and stays open there.',
            query: z.object({ after: cursor.optional().describe('The `seq` of the last event you have.') }),
            headers: z.object({ 'Last-Event-ID': cursor.optional().describe('The same; it wins.') }),
            answers: {
              200: {
                description: `The events after the cursor, to the end of the turn. ${frames}`,
                content: eventStream,
              },
              204: { description: 'The turn has ended, and nothing comes after the cursor.' },
              [failures.events_expired.status]: {
                description: 'The events are no longer kept: the turn as it ended.',
                content: { 'application/json': turnObject },
              },
            },
          },
          async handle(ctx) {
            const turn = await turnOf(ctx, context)
            const after = cursorOf(ctx, turn)
            if (isEnded(turn.status) && after >= turn.seq) ctx.status = 204
            else if (turn.compacted) {
              ctx.status = failures.events_expired.status
              ctx.body = await context.hub.view(turn.id)
            } else await stream(ctx, context, turn.id, after)
          },
        },
        {
          method: 'GET',
          path: under(path, '/api/v1/bots/:bot/conversations/:conversation/events'),
          describe: {
            summary: 'Follow a conversation',
            description: 'Every turn of it as it happens, for a second tab or device.',
            headers: z.object({
              'Last-Event-ID': placeInConversation
                .optional()
                .describe('The id of the last event you have, `{turn}/{seq}`.'),
            }),
            answers: { 200: { description: `The events, for as long as you stay. ${frames}`, content: eventStream } },
          },
          async handle(ctx) {
            const bot = ctx.params['bot']!
            if (!context.offers(bot)) throw new HubError('unknown_bot')
            const { id } = await context.conversations.find(ctx.principal, bot, ctx.params['conversation']!)
            await streamConversation(ctx, context, id, await placeOf(ctx, context, id))
          },
        },
      ],
    }
  },
})

/** `{turn}/{seq}`, or the number alone. */
const cursorForm = /^(?:(?<turn>.+)\/)?(?<seq>\d{1,15})$/
const cursor = z.string().regex(cursorForm)
const placeForm = /^(?<turn>[^/]+)\/(?<seq>\d{1,15})$/
const placeInConversation = z.string().regex(placeForm)

const eventStream = { 'text/event-stream': numberedEvent } as const
const frames = 'Each frame has `id: {turn}/{seq}`, `event: {type}` and one `data:` line, which is an event.'
const untilItRests = {
  200: { description: `The events of the turn, until it ends or waits. ${frames}`, content: eventStream },
} as const

/** A POST is answered when its turn ends or waits; whoever resumes stays on. */
const untilWaiting = (event: NumberedEvent): boolean => event.type === 'turn.waiting'

async function stream(
  ctx: RequestContext,
  context: ChannelContext,
  turn: string,
  after: number,
  isLast: (event: NumberedEvent) => boolean = () => false,
): Promise<void> {
  const client = openEventStream(ctx, context)
  await forEach(context.hub.follow(turn, after, client.signal), (events, stop) => {
    const last = events.findIndex(isLast)
    if (last >= 0) stop()
    return client.write(framesOf(turn, last < 0 ? events : events.slice(0, last + 1)))
  })
  client.close()
}

/** For a second tab or device: stays open from turn to turn. */
async function streamConversation(
  ctx: RequestContext,
  context: ChannelContext,
  conversation: string,
  place: { readonly turn: string; readonly seq: number } | undefined,
): Promise<void> {
  const client = openEventStream(ctx, context)
  for await (const { turn, events } of context.hub.followConversation(conversation, place, client.signal)) {
    await client.write(framesOf(turn, events))
  }
  client.close()
}

/** `Last-Event-ID` in the stream of a conversation: a turn of it and a number. */
async function placeOf(
  ctx: RequestContext,
  context: ChannelContext,
  conversation: string,
): Promise<{ turn: string; seq: number } | undefined> {
  const header = ctx.get('last-event-id')
  if (!header) return undefined
  const parts = placeForm.exec(header)?.groups
  if (!parts) throw new HubError('bad_cursor', { message: 'Send the id of an event you received, `{turn}/{seq}`.' })
  const turn = await context.hub.turn(ctx.principal, parts['turn']!)
  if (turn.conversation.id !== conversation) throw new HubError('unknown_turn')
  return { turn: turn.id, seq: Number(parts['seq']) }
}

const framesOf = (turn: string, events: readonly NumberedEvent[]): Iterable<string> =>
  events.length === 1 ? [frameOf(turn, events[0]!)] : eachFrame(turn, events)

/** One at a time, as they are taken: a client that does not read costs no frames. */
function* eachFrame(turn: string, events: readonly NumberedEvent[]): Generator<string> {
  for (const event of events) yield frameOf(turn, event)
}

const frameOf = (turn: string, event: NumberedEvent): string =>
  encodeEvent({ id: `${turn}/${event.seq}`, event: event.type, data: toJson(event) })

/** `Last-Event-ID` (`{turn}/{seq}`, or the number alone) before `?after=`. */
function cursorOf(ctx: RequestContext, turn: TurnRow): number {
  const { after = '0' } = ctx.query
  const header = ctx.get('last-event-id')
  const given = header || String(after)
  const digits = cursorForm.exec(given)?.groups
  if (!digits || (digits['turn'] !== undefined && digits['turn'] !== turn.id)) throw new HubError('bad_cursor')
  return Number(digits['seq'])
}
