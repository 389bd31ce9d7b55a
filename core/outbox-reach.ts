import { check } from './body.ts'
import { systemClock } from './clock.ts'
import type { CheckedConfig } from './config.ts'
import { failures, HubError } from './errors.ts'
import { createLogger } from './log.ts'
import { listOutbox, outboxPage, outboxPaths, outboxRetried, retryBody } from './outbox-routes.ts'
import type { Secret } from './settings.ts'
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
  const { host, port } = config.listen
  const name = host.includes(':') ? `[${host}]` : host.replace(/^0\.0\.0\.0$/, '127.0.0.1')
  const url = `http://${name.replace('[::]', '[::1]')}:${port}`
  return (await isListening(url)) ? ofHub(url, config) : ofStore(config, folder)
}

const isListening = (url: string): Promise<boolean> =>
  fetch(`${url}/healthz`).then(
    (response) => response.ok,
    () => false,
  )

function ofHub(url: string, config: CheckedConfig): OutboxReach {
  const headers = { 'content-type': 'application/json', ...credentialOf(config) }
  const ask = async (path: string, body?: unknown): Promise<unknown> => {
    const response = await fetch(`${url}${path}`, {
      headers,
      ...(body === undefined ? {} : { method: 'POST', body: JSON.stringify(body) }),
    })
    const answer: unknown = await response.json()
    if (response.ok) return answer
    throw refusal(answer)
  }
  return {
    list: async (before) =>
      outboxPage.parse(await ask(`${outboxPaths.list}?limit=${pageSize}${before ? `&before=${before}` : ''}`)),
    retry: async (which) => outboxRetried.parse(await ask(outboxPaths.retry, which)).retried,
    async [Symbol.asyncDispose]() {},
  }
}

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

/** That of an admin of the config, which whoever reads the config has already. */
function credentialOf({ auth }: CheckedConfig): Record<string, string> {
  if (!auth) return {}
  for (const each of auth) {
    if (typeof each === 'function' || each.name !== 'apiKey') continue
    const { admin, key } = each.options as { readonly admin: boolean; readonly key: Secret }
    if (admin) return { authorization: `Bearer ${key.reveal()}` }
  }
  throw new HubError('forbidden', {
    message: 'The hub runs, and no API key of its config may look into the outbox. Give one of them `admin: true`.',
  })
}

/** The hub's own words for why it would not. */
function refusal(answer: unknown): HubError {
  const error = typeof answer === 'object' && answer !== null && 'error' in answer ? answer.error : undefined
  if (typeof error !== 'object' || error === null || !('code' in error) || !('message' in error)) {
    return new HubError('internal', { message: 'What listens there is no hub. Say where yours does: --host, --port' })
  }
  const { code, message } = error
  return new HubError(isCode(code) ? code : 'internal', { message: String(message) })
}

const isCode = (code: unknown): code is keyof typeof failures =>
  typeof code === 'string' && Object.hasOwn(failures, code)
