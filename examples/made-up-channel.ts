import { Readable } from 'node:stream'
import { channelOptions, check, defineChannel, HubError, readJson } from 'bothub'
import type { ChannelContext, NumberedEvent, RequestContext } from 'bothub'
import { z } from 'zod'

/**
 * A channel in a dialect that nobody speaks: every event is a line of JSON. `POST /lines/{bot}` asks,
 * `GET /lines/turns/{turn}?after=` comes back, `POST /lines/turns/{turn}/decisions` answers a turn that waits.
 */
export const lines = defineChannel({
  name: 'lines',
  options: z.strictObject({ ...channelOptions }),
  create({ path }, context) {
    const base = path === '/' ? '/lines' : `${path}/lines`
    return {
      door: `POST ${base}/{bot}`,
      routes: [
        {
          method: 'POST',
          path: `${base}/:bot`,
          async handle(ctx) {
            const bot = ctx.params['bot']!
            if (!context.offers(bot)) throw new HubError('unknown_bot')
            const question = await readJson(ctx, questionBody)
            const { turn } = await context.hub.send(ctx.principal, { ...question, bot, channel: context.name })
            answer(ctx, context, turn.id, 0)
          },
        },
        {
          method: 'GET',
          path: `${base}/turns/:turn`,
          async handle(ctx) {
            const turn = await turnOf(ctx, context)
            answer(ctx, context, turn.id, check(place, ctx.query).after)
          },
        },
        {
          method: 'POST',
          path: `${base}/turns/:turn/decisions`,
          async handle(ctx) {
            const turn = await turnOf(ctx, context)
            await context.hub.decide(turn, ctx.principal, await readJson(ctx, decisionsBody))
            answer(ctx, context, turn.id, turn.seq)
          },
        },
      ],
    }
  },
})

const questionBody = z.object({ text: z.string(), conversation: z.string().optional(), id: z.string().optional() })
const decisionsBody = z.array(
  z.object({ call: z.string(), result: z.enum(['allow_once', 'allow_always', 'deny_once']) }),
)
const place = z.object({ after: z.coerce.number().int().min(0).default(0) })

/** The hub says whose turn it is, and the channel whether its bot is offered here. */
async function turnOf(ctx: RequestContext, { hub, offers }: ChannelContext) {
  const turn = await hub.turn(ctx.principal, ctx.params['turn']!)
  if (!offers(turn.bot)) throw new HubError('unknown_turn')
  return turn
}

function answer(ctx: RequestContext, { hub }: ChannelContext, turn: string, after: number): void {
  const left = new AbortController()
  ctx.res.once('close', () => left.abort()) // Nobody follows a turn for a client that has gone.
  ctx.type = 'application/x-ndjson'
  ctx.body = Readable.from(linesOf(hub.follow(turn, after, left.signal))) // A pipe waits for its reader.
}

async function* linesOf(groups: AsyncIterable<readonly NumberedEvent[]>): AsyncGenerator<string> {
  for await (const events of groups) {
    for (const event of events) {
      yield `${JSON.stringify(event)}\n`
      if (event.type === 'turn.waiting') return
    }
  }
}
