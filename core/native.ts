import { z } from 'zod'
import type { RequestContext, ChannelContext, RouteDescription } from './channel.ts'
import { check, readJson } from './body.ts'
import { HubError } from './errors.ts'
import type { TurnRow } from './store.ts'
import { decisionsBody, messageBody, outputsBody } from './wire.ts'
import { clientName } from './ids.ts'

/**
 * The requests that `rest` and `sse` answer on the same paths, each in its own form: what they read is one, and here.
 */
export const nativePaths = {
  messages: '/api/v1/bots/:bot/messages',
  turn: '/api/v1/turns/:turn',
  events: '/api/v1/turns/:turn/events',
  cancel: '/api/v1/turns/:turn/cancel',
  consent: '/api/v1/turns/:turn/consent',
  toolOutputs: '/api/v1/turns/:turn/tool-outputs',
} as const

/** What is said in `GET /openapi.json` of requests that `rest` and `sse` read alike, beside the answers of each. */
export const nativeRequests = {
  messages: {
    summary: 'Send a message to a bot',
    description: 'The same message again (same bot, conversation and id) is the same turn: attached to, or replayed.',
    body: { 'application/json': messageBody },
    headers: z.object({
      'Idempotency-Key': clientName.optional().describe('Stands for `id` where the body has none.'),
    }),
  },
  consent: {
    summary: 'Decide about the tools a turn waits for',
    description:
      'In parts if need be; the turn goes on when every call has a decision. The first one on a call counts.',
    body: { 'application/json': decisionsBody },
  },
  toolOutputs: {
    summary: 'Answer the tool calls a turn waits for',
    description:
      'In parts if need be; the turn goes on when every call has its output. The first one of a call counts.',
    body: { 'application/json': outputsBody },
  },
} as const satisfies Readonly<Record<string, Omit<RouteDescription, 'answers'>>>

/** A native path under the channel's own. */
export const under = (base: string, path: string): string => (base === '/' ? path : `${base}${path}`)

/** Takes in a message; `after` is the number of the last event its reader has no need of. */
export async function sendMessage(
  ctx: RequestContext,
  { hub, name, offers }: ChannelContext,
): Promise<{ readonly turn: TurnRow; readonly after: number }> {
  const bot = ctx.params['bot']!
  if (!offers(bot)) throw new HubError('unknown_bot')
  const body = await readJson(ctx, messageBody)
  const id = body.id ?? (ctx.get('idempotency-key') || undefined)
  const inbound = {
    ...body,
    id: id === undefined ? undefined : check(clientName, id, 'The id of the message'),
    bot,
    channel: name,
    detached: respondsAsync(ctx),
  }
  const { turn } = await hub.send(ctx.principal, inbound)
  return { turn, after: 0 }
}

/** Takes in answers to a waiting turn; its reader gets what comes after `turn.waiting`. */
export async function answerTurn(
  ctx: RequestContext,
  context: ChannelContext,
  kind: 'consent' | 'toolOutputs',
): Promise<{ readonly turn: TurnRow; readonly after: number }> {
  const { hub } = context
  const turn = await turnOf(ctx, context)
  if (kind === 'consent') await hub.decide(turn, ctx.principal, (await readJson(ctx, decisionsBody)).decisions)
  else await hub.giveOutputs(turn, (await readJson(ctx, outputsBody)).outputs)
  return { turn, after: turn.seq }
}

/** The turn of the path. */
export const turnOf = async (ctx: RequestContext, { hub, offers }: ChannelContext): Promise<TurnRow> => {
  const turn = await hub.turn(ctx.principal, ctx.params['turn']!)
  if (!offers(turn.bot)) throw new HubError('unknown_turn')
  return turn
}

/** `Prefer: respond-async` (RFC 7240): the client takes a 202 now and the answer later. */
export const respondsAsync = (ctx: RequestContext): boolean =>
  /(^|[,;\s])respond-async([,;\s]|$)/i.test(ctx.get('prefer'))
