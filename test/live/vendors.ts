import { asgard, coze } from 'bothub'
import type { PluginContext } from 'bothub'

type Spec = ReturnType<typeof coze>

/** A request as it leaves the hub. */
export interface Sent {
  readonly method: string
  readonly path: string
  readonly headers: Headers
}

/** A platform that can be tried. */
export interface Vendor {
  /** The bot that the environment names. */
  bot(): Spec
  /** The same with a key that is none. */
  withWrongKey(): Spec
  /** Whether a request sends a message; to ask what became of one is none. */
  readonly isMessage: (sent: Sent) => boolean
  /** Whether a request forgets a conversation. */
  readonly isDeletion: (sent: Sent) => boolean
  /** What may be set beside what has to be. */
  readonly optional: string
}

const isDeletion = ({ method }: Sent) => method === 'DELETE'
const long = 'LIVE_LONG_QUESTION is a question with a long answer, to be cancelled.'

export const vendors = {
  asgard: {
    bot: () => asgard(),
    withWrongKey: () => asgard({ apiKey: 'wrong-key-of-bothub-live' }),
    isMessage: ({ method, path, headers }) =>
      method === 'POST' && path.endsWith('/message/sse') && !headers.has('last-event-id'),
    isDeletion,
    optional: `EDGE_SERVER_HOST is https://api.asgard-ai.com unless it is set; ${long}`,
  },
  coze: {
    bot: () => coze(),
    withWrongKey: () => coze({ token: 'pat_wrong_token_of_bothub_live' }),
    isMessage: ({ method, path }) => method === 'POST' && path.endsWith('/v3/chat'),
    isDeletion,
    optional: `COZE_BASE_URL is https://api.coze.cn unless it is set; tokens of coze.com need https://api.coze.com. ${long}`,
  },
} as const satisfies Record<string, Vendor>

export const isVendor = (name: string): name is keyof typeof vendors => Object.hasOwn(vendors, name)

/** What a hub asks its platforms with. */
export type Fetch = PluginContext['fetch']
