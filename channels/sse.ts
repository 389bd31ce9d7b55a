import { z } from 'zod'
import type { ChannelContext, RequestContext } from '../core/channel.ts'
import { channelOptions, defineChannel } from '../core/channel.ts'
import { failures, HubError } from '../core/errors.ts'
import { openEventStream } from '../core/event-stream.ts'
import type { NumberedEvent } from '../core/events.ts'
import { answerTurn, nativePaths, sendMessage, turnOf, under } from '../core/native.ts'
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
          async handle(ctx) {
            const { turn, after } = await sendMessage(ctx, context)
            await stream(ctx, context, turn.id, after, untilWaiting)
          },
        },
        { method: 'POST', path: under(path, nativePaths.consent), accepts: events, handle: answer('consent') },
        { method: 'POST', path: under(path, nativePaths.toolOutputs), accepts: events, handle: answer('toolOutputs') },
        {
          method: 'GET',
          path: under(path, nativePaths.events),
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
  for await (const events of context.hub.follow(turn, after, client.signal)) {
    const last = events.findIndex(isLast)
    const shown = last < 0 ? events : events.slice(0, last + 1)
    await client.write(framesOf(turn, shown))
    if (last >= 0) break
  }
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
  const parts = /^(?<turn>[^/]+)\/(?<seq>\d{1,15})$/.exec(header)?.groups
  if (!parts) throw new HubError('bad_cursor', { message: 'Send the id of an event you received, `{turn}/{seq}`.' })
  const turn = await context.hub.turn(ctx.principal, parts['turn']!)
  if (turn.conversation.id !== conversation) throw new HubError('unknown_turn')
  return { turn: turn.id, seq: Number(parts['seq']) }
}

/** One at a time, as they are taken: a client that does not read costs no frames. */
function* framesOf(turn: string, events: readonly NumberedEvent[]): Generator<string> {
  for (const event of events) {
    yield encodeEvent({ id: `${turn}/${event.seq}`, event: event.type, data: JSON.stringify(event) })
  }
}

/** `Last-Event-ID` (`{turn}/{seq}`, or the number alone) before `?after=`. */
function cursorOf(ctx: RequestContext, turn: TurnRow): number {
  const { after = '0' } = ctx.query
  const header = ctx.get('last-event-id')
  const cursor = header || String(after)
  const digits = /^(?:(?<turn>.+)\/)?(?<seq>\d{1,15})$/.exec(cursor)?.groups
  if (!digits || (digits['turn'] !== undefined && digits['turn'] !== turn.id)) throw new HubError('bad_cursor')
  return Number(digits['seq'])
}
