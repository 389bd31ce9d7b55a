import { check } from './body.ts'
import { systemClock } from './clock.ts'
import type { CheckedConfig } from './config.ts'
import type { HubReach } from './hub-reach.ts'
import { reachHub } from './hub-reach.ts'
import { createLogger } from './log.ts'
import { listOutbox, outboxPage, outboxPaths, outboxRetried, retryBody } from './outbox-routes.ts'
import { namingFailures } from './store.ts'

const pageSize = 200

/** The outbox as an operator reaches it from the command line. */
export interface OutboxReach extends AsyncDisposable {
  list(before?: string): Promise<ReturnType<typeof outboxPage.parse>>
  /** How many there were; which, as in `POST /api/v1/outbox/retry`. */
  retry(which: { readonly ids?: readonly string[]; readonly lane?: string }): Promise<number>
}

/**
 * Goes to the hub where its config says it listens, as one of its admins; where nothing listens, to its store.
 * @throws HubError `forbidden`, `store_unavailable`, or what the hub answers
 */
export async function reachOutbox(config: CheckedConfig, folder: string): Promise<OutboxReach> {
  const hub = await reachHub(config)
  return hub ? ofHub(hub) : ofStore(config, folder)
}

const ofHub = (hub: HubReach): OutboxReach => ({
  async list(before) {
    const page = await hub.ask(`${outboxPaths.list}?limit=${pageSize}${before ? `&before=${before}` : ''}`)
    return outboxPage.parse(await page.json())
  },
  async retry(which) {
    const answer = await hub.ask(outboxPaths.retry, { method: 'POST', body: which })
    return outboxRetried.parse(await answer.json()).retried
  },
  async [Symbol.asyncDispose]() {},
})

/** Nothing runs that could deliver: what is made due now goes out at the next start. */
async function ofStore(config: CheckedConfig, folder: string): Promise<OutboxReach> {
  const context = { name: 'store', folder, clock: systemClock, logger: createLogger(), fetch }
  const store = namingFailures(await config.store.create(config.store.options, context))
  return {
    list: (before) => listOutbox(store, { limit: pageSize, ...(before === undefined ? {} : { before }) }),
    async retry(which) {
      const retried = await store.retryDeliveries(check(retryBody, which), systemClock.now())
      await store.audit({ what: 'outbox retried', by: 'command line', details: { retried } }, systemClock.now())
      return retried
    },
    [Symbol.asyncDispose]: () => store.close(),
  }
}
