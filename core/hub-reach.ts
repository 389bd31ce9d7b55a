import type { CheckedConfig } from './config.ts'
import { failures, HubError } from './errors.ts'
import type { Secret } from './settings.ts'

/** A hub that runs, as an operator reaches it from the command line. */
export interface HubReach {
  /**
   * Asks it, as one of its admins.
   * @throws HubError what the hub answers
   */
  ask(path: string, options?: { readonly method?: 'POST' | 'DELETE'; readonly body?: unknown }): Promise<Response>
}

/**
 * Finds the hub where its config says it listens; undefined where nothing does.
 * @throws HubError `forbidden`, where no key of the config is an admin's
 */
export async function reachHub(config: CheckedConfig): Promise<HubReach | undefined> {
  const { host, port } = config.listen
  const name = host.includes(':') ? `[${host}]` : host.replace(/^0\.0\.0\.0$/, '127.0.0.1')
  const url = `http://${name.replace('[::]', '[::1]')}:${port}`
  if (!(await isListening(url))) return undefined
  const headers = { 'content-type': 'application/json', ...credentialOf(config) }
  return {
    async ask(path, { method, body } = {}) {
      const response = await fetch(`${url}${path}`, {
        headers,
        ...(method ? { method } : {}),
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      })
      if (response.ok) return response
      throw refusal(await response.json())
    },
  }
}

const isListening = (url: string): Promise<boolean> =>
  fetch(`${url}/healthz`).then(
    (response) => response.ok,
    () => false,
  )

/** That of an admin of the config, which whoever reads the config has already; best of one for all bots. */
function credentialOf({ auth }: CheckedConfig): Record<string, string> {
  if (!auth) return {}
  const admins = auth
    .flatMap((each) => (typeof each === 'function' || each.name !== 'apiKey' ? [] : [each.options as AdminKey]))
    .filter(({ admin }) => admin)
  const best = admins.find(({ bots }) => bots === undefined) ?? admins[0]
  if (best) return { authorization: `Bearer ${best.key.reveal()}` }
  throw new HubError('forbidden', {
    message: 'The hub runs, and no API key of its config is for operators. Give one of them `admin: true`.',
  })
}

interface AdminKey {
  readonly admin: boolean
  readonly key: Secret
  readonly bots?: readonly string[]
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
