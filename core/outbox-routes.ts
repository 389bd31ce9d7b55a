import { z } from 'zod'
import type { Audit } from './audit.ts'
import { check, readJson } from './body.ts'
import type { RequestContext, Route } from './channel.ts'
import type { Clock } from './clock.ts'
import { HubError } from './errors.ts'
import type { Lane, OutboxItem, Store } from './store.ts'

/** What the routes of the outbox work with. */
export interface OutboxRoutesOptions {
  readonly store: Pick<Store, 'undelivered' | 'retryDeliveries'>
  readonly clock: Clock
  readonly audit: Pick<Audit, 'record' | 'looked'>
  /** Called when something has become due. */
  readonly wake: () => void
}

/** Where an operator sees what has not arrived, and has it tried again. */
export const outboxPaths = { list: '/api/v1/outbox', retry: '/api/v1/outbox/retry' } as const

/** What `GET /api/v1/outbox` answers; times are ISO 8601. */
export const outboxPage = z
  .object({
    items: z.array(
      z.object({
        id: z.string().describe('Stable over all tries; a webhook has it as `webhook-id`.'),
        lane: z.string().describe('Whom it is owed: `channel:NAME`, `bot:NAME` or `hook:NAME`.'),
        type: z.string(),
        turn: z.string().exactOptional(),
        state: z.enum(['pending', 'failed']),
        attempts: z.number().describe('How often it was tried.'),
        at: z.iso.datetime().describe('When what it tells of happened.'),
        error: z.string().exactOptional().describe('What was wrong the last time.'),
        nextAt: z.iso.datetime().exactOptional().describe('When it is tried next, unless its lane is closed.'),
      } satisfies Record<keyof OutboxItem, z.ZodType>),
    ),
    before: z.string().exactOptional().describe('Pass it as `before` to get the page before this one.'),
    closed: z.array(z.string()).describe('Lanes whose receiver wanted no more (410): nothing is sent there.'),
  })
  .meta({ id: 'Outbox' })

/** What `POST /api/v1/outbox/retry` answers. */
export const outboxRetried = z.object({ retried: z.number() }).meta({ id: 'OutboxRetried' })

const listQuery = z.object({
  before: z
    .string()
    .regex(/^\d{1,15}$/, 'must be the `before` of an earlier page')
    .optional(),
  limit: z.coerce.number().int().min(1).max(200).default(50),
})
const lane = z.custom<Lane>(
  (value) => typeof value === 'string' && /^(channel|bot|hook):.{1,256}$/.test(value),
  'must be channel:NAME, bot:NAME or hook:NAME',
)
/** What `POST /api/v1/outbox/retry` reads. */
export const retryBody = z.object({
  ids: z.array(z.string().max(512)).max(1000).optional().describe('Of deliveries; without them all of the lane.'),
  lane: lane.optional().describe('Without it every lane.').meta({ type: 'string' }),
})

/** The routes of the hub itself, for admins. */
export const outboxRoutes = ({ store, clock, audit, wake }: OutboxRoutesOptions): readonly Route[] => [
  {
    method: 'GET',
    path: outboxPaths.list,
    describe: {
      summary: 'List what has not been delivered',
      description: 'From the latest back. Where keys are needed, for one with `admin: true`.',
      query: listQuery,
      answers: { 200: { description: 'A page.', content: { 'application/json': outboxPage } } },
    },
    async handle(ctx) {
      admit(ctx)
      const { before, limit } = check(listQuery, ctx.query)
      audit.looked({ by: ctx.principal.key, details: { of: 'outbox' } })
      ctx.body = await listOutbox(store, { limit, ...(before === undefined ? {} : { before }) })
    },
  },
  {
    method: 'POST',
    path: outboxPaths.retry,
    describe: {
      summary: 'Have deliveries tried again now',
      description:
        'Those that wait and those that were given up, also where the receiver wanted no more. Where keys are needed, ' +
        'for one with `admin: true`.',
      body: { 'application/json': retryBody },
      answers: { 200: { description: 'How many.', content: { 'application/json': outboxRetried } } },
    },
    async handle(ctx) {
      admit(ctx)
      const which = await readJson(ctx, retryBody)
      const retried = await store.retryDeliveries(which, clock.now())
      const details = { retried, ...(which.lane ? { lane: which.lane } : {}) }
      audit.record({ what: 'outbox retried', by: ctx.principal.key, details })
      wake()
      ctx.body = { retried }
    },
  },
]

/** A page of what has not arrived, as it is shown. */
export async function listOutbox(
  store: Pick<Store, 'undelivered'>,
  options: { readonly before?: string; readonly limit: number },
): Promise<z.output<typeof outboxPage>> {
  const { items, closed, ...page } = await store.undelivered(options)
  return { ...page, items: items.map(toShown), closed: [...closed] }
}

const toShown = ({ at, nextAt, ...item }: OutboxItem): z.output<typeof outboxPage>['items'][number] => ({
  ...item,
  at: new Date(at).toISOString(),
  ...(item.state === 'pending' ? { nextAt: new Date(nextAt).toISOString() } : {}),
})

/**
 * Lets in admins only.
 * @throws HubError `forbidden`
 */
export function admit({ principal }: Pick<RequestContext, 'principal'>): void {
  if (!principal.admin) throw new HubError('forbidden')
}
