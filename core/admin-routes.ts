import { setImmediate } from 'node:timers/promises'
import { z } from 'zod'
import { isoTime, pageOf, recordPage } from './answers.ts'
import type { Audit } from './audit.ts'
import type { Principal } from './auth.ts'
import { mayUse } from './auth.ts'
import { check } from './body.ts'
import type { RequestContext, Route } from './channel.ts'
import type { Clock } from './clock.ts'
import { HubError } from './errors.ts'
import { clientName } from './ids.ts'
import { admit } from './outbox-routes.ts'
import { auditedDeeds, turnStatuses } from './store.ts'
import type { AuditItem, ConversationRow, Page, Store, TurnItem, TurnRow } from './store.ts'
import { TimelineReader, upstreamNames } from './timeline.ts'
import type { Phase, Stall, Timeline } from './timeline.ts'

/** Of a turn with more events than that, the timeline ends with these. */
const maxTimelineEvents = 100_000
const eventsAtOnce = 500

/** What an operator's routes work with. */
export interface AdminRoutesOptions {
  readonly store: Pick<
    Store,
    'turn' | 'result' | 'readTimed' | 'searchTurns' | 'searchConversations' | 'anyConversation' | 'records'
  >
  readonly clock: Clock
  readonly audit: Pick<Audit, 'looked' | 'page'>
  /** Which try at its answer a live turn is at. */
  readonly attempt: (turn: string) => number | undefined
}

/** Where an operator looks into what belongs to others. */
export const adminPaths = {
  turns: '/api/v1/admin/turns',
  turn: '/api/v1/admin/turns/:turn',
  events: '/api/v1/admin/turns/:turn/events',
  conversations: '/api/v1/admin/conversations',
  conversation: '/api/v1/admin/conversations/:conversation',
  records: '/api/v1/admin/conversations/:conversation/messages',
  audit: '/api/v1/admin/audit',
} as const

const turnFields = {
  turn: z.string(),
  bot: z.string(),
  key: z.string().describe('The key that asked.'),
  user: z.string().exactOptional().describe('For whom it asked.'),
  conversation: z.object({ id: z.string(), name: z.string() }),
  message: z.string().describe('The id of the message that is answered.'),
  by: z.literal('operator').exactOptional(),
  channel: z.string(),
  status: z.enum(turnStatuses),
  createdAt: isoTime,
  startedAt: isoTime.exactOptional().describe('When it left the queue.'),
  endedAt: isoTime.exactOptional(),
  error: z.string().exactOptional().describe('Why it failed: the code.'),
  attempt: z.number().exactOptional().describe('Which try at the answer is under way, from 1.'),
} satisfies Record<Exclude<keyof TurnItem, 'id'> | 'turn' | 'attempt', z.ZodType>

/** A page of turns. */
export const adminTurns = pageOf(z.object(turnFields).meta({ id: 'AdminTurn' })).meta({ id: 'AdminTurnPage' })

const phase = z.object({
  phase: z.enum(['queued', 'attempt', 'backoff', 'waiting']),
  from: isoTime,
  to: isoTime.exactOptional().describe('Absent: it is not over.'),
  attempt: z.number().exactOptional().describe('From 1; again from 1 after a wait.'),
  error: z.string().exactOptional().describe('Why an attempt failed: the code.'),
} satisfies Record<keyof Phase, z.ZodType>)

const stall = z.object({
  from: isoTime,
  to: isoTime.exactOptional(),
  after: z.number().describe('The number of the last event before it.'),
} satisfies Record<keyof Stall, z.ZodType>)

/** One turn, and how it went. */
export const adminTurn = z
  .object({
    ...turnFields,
    now: isoTime.describe('When this was told; live turns go on.'),
    events: z.number().describe('The number of the last event.'),
    compacted: z.boolean().describe('Its events are gone, but for the whole messages and the end.'),
    upstream: z.record(z.string(), z.string()).describe('What its upstream calls it and its conversation.'),
    phases: z.array(phase),
    firstDeltaAt: isoTime.exactOptional(),
    stalls: z.array(stall).describe('When nothing came for more than a second while the bot was answering.'),
  } satisfies Record<keyof Timeline, z.ZodType> & Record<string, z.ZodType>)
  .meta({ id: 'AdminTurnTimeline' })

/** A part of a turn's log. */
export const adminEvents = z
  .object({
    items: z.array(
      z.object({
        at: isoTime.exactOptional().describe('When it was written; not known of logs from before the hub kept it.'),
        event: z.looseObject({ seq: z.int().min(1), type: z.string() }).describe('As a stream has it.'),
      }),
    ),
    after: z.number().exactOptional().describe('Pass it as `after` to get what comes next.'),
  })
  .meta({ id: 'AdminEvents' })

/** A conversation of anybody. */
export const adminConversation = z
  .object({
    id: z.string(),
    name: z.string(),
    title: z.string().exactOptional(),
    bot: z.string().exactOptional().describe('Absent until its first message, where it was made before.'),
    key: z.string(),
    user: z.string().exactOptional(),
    takenBy: z.string().exactOptional().describe('The key of the operator who has it.'),
    createdAt: isoTime,
    updatedAt: isoTime,
  } satisfies Record<Exclude<keyof ConversationRow, 'metadata' | 'section'>, z.ZodType>)
  .meta({ id: 'AdminConversation' })

/** A page of conversations. */
export const adminConversations = pageOf(adminConversation).meta({ id: 'AdminConversationPage' })

/** A page of the audit table. */
export const adminAudit = pageOf(
  z
    .object({
      id: z.string(),
      at: isoTime,
      what: z.enum(auditedDeeds),
      by: z.string().describe('The key it was done with, or `policy`.'),
      bot: z.string().exactOptional(),
      turn: z.string().exactOptional(),
      details: z.record(z.string(), z.json()).exactOptional(),
    } satisfies Record<keyof AuditItem, z.ZodType>)
    .meta({ id: 'AuditEntry' }),
).meta({ id: 'AuditPage' })

const limit = z.coerce.number().int().min(1).max(200).default(50)
const numberCursor = z
  .string()
  .regex(/^\d{1,15}$/, 'must be the `before` of an earlier page')
  .optional()
const turnsQuery = z.object({
  live: z.stringbool().default(false).describe('Only those that have not ended.'),
  bot: clientName.optional(),
  status: z.enum(turnStatuses).optional(),
  before: numberCursor,
  limit,
})
const eventsQuery = z.object({ after: z.coerce.number().int().min(0).default(0), limit })
const conversationsQuery = z.object({
  bot: clientName.optional(),
  key: clientName.optional(),
  of: clientName.optional().describe('The user it is with.'),
  taken: z.stringbool().default(false).describe('Only those that operators have.'),
  before: z
    .string()
    .regex(/^[\w-]{1,64}$/, 'must be the `before` of an earlier page')
    .optional(),
  limit,
})
const pageQuery = z.object({ before: numberCursor, limit })
const auditQuery = z.object({ what: z.enum(auditedDeeds).optional(), before: numberCursor, limit })

const forAdmins = 'Where keys are needed, for one with `admin: true`; of the bots that it may use.'
const searched = `${forAdmins} From the latest back; a page may be short, or empty, where there is a \`before\`.`

/** The routes of an operator, who sees what belongs to others. Whatever they look at is in the audit table. */
export const adminRoutes = (options: AdminRoutesOptions): readonly Route[] => {
  const { store, audit } = options
  const looking =
    (of: string, answer: (ctx: RequestContext) => Promise<unknown>) =>
    async (ctx: RequestContext): Promise<void> => {
      admit(ctx)
      const body = await answer(ctx)
      audit.looked({ by: ctx.principal.key, details: { of, ...ctx.params } })
      ctx.set('cache-control', 'no-store')
      ctx.body = body
    }
  return [
    {
      method: 'GET',
      path: adminPaths.turns,
      describe: {
        summary: 'List the turns of everybody',
        description: searched,
        query: turnsQuery,
        answers: { 200: ofJson('A page.', adminTurns) },
      },
      handle: looking('turns', async (ctx) => {
        const page = await store.searchTurns({ ...check(turnsQuery, ctx.query), bots: ctx.principal.bots })
        return shownPage(page, (item) => shownTurn(item, options.attempt(item.id)))
      }),
    },
    {
      method: 'GET',
      path: adminPaths.turn,
      describe: {
        summary: 'See how a turn went',
        description: forAdmins,
        answers: { 200: ofJson('The turn.', adminTurn) },
      },
      handle: looking('turn', async (ctx) => timelineOf(options, await turnOf(ctx, store))),
    },
    {
      method: 'GET',
      path: adminPaths.events,
      describe: {
        summary: 'Read the events of a turn with their times',
        description: forAdmins,
        query: eventsQuery,
        answers: { 200: ofJson('Some of them.', adminEvents) },
      },
      handle: looking('events', async (ctx) =>
        eventsOf(store, await turnOf(ctx, store), check(eventsQuery, ctx.query)),
      ),
    },
    {
      method: 'GET',
      path: adminPaths.conversations,
      describe: {
        summary: 'List the conversations of everybody',
        description: `${searched} The latest is the one that was made last.`,
        query: conversationsQuery,
        answers: { 200: ofJson('A page.', adminConversations) },
      },
      handle: looking('conversations', async (ctx) => {
        const { of: user, ...query } = check(conversationsQuery, ctx.query)
        const page = await store.searchConversations({ ...query, user, bots: ctx.principal.bots })
        return shownPage(page, shownConversation)
      }),
    },
    {
      method: 'GET',
      path: adminPaths.conversation,
      describe: {
        summary: 'See whose a conversation is, and who has it',
        description: forAdmins,
        answers: { 200: ofJson('The conversation.', adminConversation) },
      },
      handle: looking('conversation', async (ctx) => shownConversation(await conversationOf(ctx, store))),
    },
    {
      method: 'GET',
      path: adminPaths.records,
      describe: {
        summary: 'Read what was said in a conversation of anybody',
        description: `${forAdmins} It need not be handed over.`,
        query: pageQuery,
        answers: { 200: ofJson('A page, from the latest back.', recordPage) },
      },
      handle: looking('records', async (ctx) => {
        const { id } = await conversationOf(ctx, store)
        return shownPage(await store.records(id, check(pageQuery, ctx.query)), ({ at, ...item }) => ({
          ...item,
          at: iso(at),
        }))
      }),
    },
    {
      method: 'GET',
      path: adminPaths.audit,
      describe: {
        summary: 'Read the audit table',
        description: `${searched} Entries about no bot are there for every admin.`,
        query: auditQuery,
        answers: { 200: ofJson('A page.', adminAudit) },
      },
      handle: looking('audit', async (ctx) => {
        const page = await audit.page({ ...check(auditQuery, ctx.query), bots: ctx.principal.bots })
        return shownPage(page, ({ at, ...item }) => ({ ...item, at: iso(at) }))
      }),
    },
  ]
}

const ofJson = (description: string, schema: z.ZodType) => ({ description, content: { 'application/json': schema } })

const iso = (at: number): string => new Date(at).toISOString()

const shownPage = <Item, Shown>(page: Page<Item>, show: (item: Item) => Shown) => ({
  ...page,
  items: page.items.map(show),
})

/** @throws HubError `unknown_turn`, also for one of a bot that the admin may not use */
async function turnOf(ctx: RequestContext, store: Pick<Store, 'turn'>): Promise<TurnRow> {
  const turn = await store.turn(ctx.params['turn']!)
  if (!turn || !mayUse(ctx.principal, turn.bot)) throw new HubError('unknown_turn')
  return turn
}

/** @throws HubError `unknown_conversation`, also for one with a bot that the admin may not use */
async function conversationOf(ctx: RequestContext, store: Pick<Store, 'anyConversation'>): Promise<ConversationRow> {
  const found = await store.anyConversation(ctx.params['conversation']!)
  if (!found || !maySee(ctx.principal, found)) throw new HubError('unknown_conversation')
  return found
}

const maySee = (principal: Principal, { bot }: ConversationRow): boolean => mayUse(principal, bot ?? '')

function shownTurn({ id, ...item }: TurnItem, attempt: number | undefined): z.output<typeof adminTurns>['items'][0] {
  const { createdAt, startedAt, endedAt, ...rest } = item
  return {
    turn: id,
    ...rest,
    createdAt: iso(createdAt),
    ...(startedAt === undefined ? {} : { startedAt: iso(startedAt) }),
    ...(endedAt === undefined ? {} : { endedAt: iso(endedAt) }),
    ...(attempt === undefined ? {} : { attempt }),
  }
}

function shownConversation(conversation: ConversationRow): z.output<typeof adminConversation> {
  const { metadata: _, section: __, createdAt, updatedAt, ...row } = conversation
  return { ...row, createdAt: iso(createdAt), updatedAt: iso(updatedAt) }
}

async function eventsOf(
  store: Pick<Store, 'readTimed'>,
  turn: TurnRow,
  { after, limit: count }: z.output<typeof eventsQuery>,
): Promise<z.input<typeof adminEvents>> {
  const events = await store.readTimed(turn.id, after, count)
  const last = events.at(-1)?.event.seq
  return {
    items: events.map(({ event, at }) => ({ ...(at === undefined ? {} : { at: iso(at) }), event: { ...event } })),
    ...(last === undefined || last >= turn.seq ? {} : { after: last }),
  }
}

async function timelineOf(
  { store, clock, attempt }: AdminRoutesOptions,
  turn: TurnRow,
): Promise<z.output<typeof adminTurn>> {
  const reader = new TimelineReader(turn)
  for (let after = 0; after < maxTimelineEvents;) {
    const events = await store.readTimed(turn.id, after, eventsAtOnce)
    for (const each of events) reader.add(each)
    const last = events.at(-1)
    if (!last || last.event.seq >= turn.seq) break
    after = last.event.seq
    // Live turns have the floor in between.
    await setImmediate()
  }
  const now = clock.now()
  const { phases, firstDeltaAt, stalls } = reader.read(now)
  const { error } = (await store.result(turn.id)) ?? {}
  return {
    ...shownTurn(itemOf(turn, error?.code), attempt(turn.id)),
    now: iso(now),
    events: turn.seq,
    compacted: turn.compacted,
    upstream: { ...upstreamNames(turn) },
    phases: phases.map(dated),
    ...(firstDeltaAt === undefined ? {} : { firstDeltaAt: iso(firstDeltaAt) }),
    stalls: stalls.map(dated),
  }
}

const itemOf = (turn: TurnRow, error: string | undefined): TurnItem => {
  const { id, bot, key, user, conversation, message, channel, status, createdAt, startedAt, endedAt } = turn
  return {
    id,
    bot,
    key,
    ...(user === undefined ? {} : { user }),
    conversation,
    message: message.id,
    ...(message.by ? { by: message.by } : {}),
    channel,
    status,
    createdAt,
    ...(startedAt === undefined ? {} : { startedAt }),
    ...(endedAt === undefined ? {} : { endedAt }),
    ...(error === undefined ? {} : { error }),
  }
}

const dated = <Span extends { readonly from: number; readonly to?: number }>({ from, to, ...rest }: Span) => ({
  ...rest,
  from: iso(from),
  ...(to === undefined ? {} : { to: iso(to) }),
})
