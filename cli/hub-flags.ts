import type { Command } from 'commander'
import type { PublicError } from '../core/events.ts'
import { CommandFailed } from './failure.ts'

/** Where a running hub is. */
export interface HubFlags {
  readonly url?: string
}

/** Adds the flags of a command that talks to a running hub. */
export const hubFlags = (command: Command): Command =>
  command
    .option('--url <url>', 'where the hub is (else HUB_URL, else HUB_HOST and HUB_PORT, else http://127.0.0.1:9527)')
    .addHelpText('after', '\nWith `auth`, put a key of the hub into HUB_KEY.')

/** Where the hub is: `http://127.0.0.1:9527`. */
export function hubUrl({ url }: HubFlags): string {
  const { HUB_URL, HUB_HOST = '127.0.0.1', HUB_PORT = '9527' } = process.env
  return (url ?? HUB_URL ?? `http://${HUB_HOST}:${HUB_PORT}`).replace(/\/+$/, '')
}

/** Who asks: from the environment alone, for everybody on a machine sees the arguments of its programs. */
export const hubKey = (): string | undefined => process.env['HUB_KEY'] || undefined

/**
 * Asks a running hub for JSON below `/api/v1`; undefined where it answers none.
 * @throws HubRefused with the hub's reason; CommandFailed where there is none
 */
export async function askHub<Answer>(flags: HubFlags, path: string, method = 'GET'): Promise<Answer> {
  const url = hubUrl(flags)
  const key = hubKey()
  let response: Response
  try {
    response = await fetch(`${url}/api/v1${path}`, {
      method,
      headers: { accept: 'application/json', ...(key ? { authorization: `Bearer ${key}` } : {}) },
    })
  } catch (error) {
    throw new CommandFailed(
      `No hub answers at ${url}. Start one with \`npx bothub start\`, or say where it is with --url.`,
      { cause: error },
    )
  }
  const body: unknown = await response.json().catch(() => undefined)
  if (response.ok) return body as Answer
  const { error } = (body ?? {}) as { readonly error?: PublicError }
  if (!error) throw new CommandFailed(`${url} answers ${response.status}: is it a hub?`)
  throw new HubRefused(error)
}

/** What a hub would not do: its own sentence, but for a key, which this program has from its environment. */
export class HubRefused extends CommandFailed {
  /** The hub's code. */
  readonly code: string

  constructor({ code, message }: Pick<PublicError, 'code' | 'message'>) {
    super(`${code === 'unauthorized' ? wrongKey() : message} (${code})`)
    this.code = code
  }
}

const wrongKey = () =>
  hubKey() === undefined
    ? 'This hub wants a key: put one of its keys into HUB_KEY.'
    : 'This hub does not know the key in HUB_KEY: put one of its keys there.'
