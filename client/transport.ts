import type { ConsentDecision, NumberedEvent, PublicError, ToolOutput } from '../core/events.ts'
import type { JsonObject } from '../core/message.ts'

/** Where a hub is and how to talk to it. */
export interface HubClientOptions {
  /** `http://localhost:9527`; with the channels' `path` behind it where they have one. */
  readonly url: string
  /** `sse` makes a request for each answer; `websocket` shares one socket among all. Default `sse`. */
  readonly transport?: 'sse' | 'websocket'
  /** A key or token, or how to get one: it is asked for at each connection. None for a hub without `auth`. */
  readonly key?: string | (() => string | Promise<string>)
  /** How long to try without reaching the hub before an answer fails with `unreachable`. Default 60 s. */
  readonly giveUpAfterMs?: number
  /** Default: the one of the platform. */
  readonly fetch?: typeof fetch
  /** Default: the one of the platform; Node 20 has none. */
  readonly WebSocket?: typeof WebSocket
}

/** A message and where it goes; sent again with the same `id` it is the same message. */
export interface Question {
  readonly bot: string
  readonly text: string
  readonly conversation: string
  readonly id: string
  readonly user?: string
  readonly files?: readonly string[]
  readonly payload?: JsonObject
  readonly debug?: boolean
  readonly bypassConsent?: boolean
}

/** How far an answer has been read. */
export interface Place {
  /** What to ask where there is no turn yet. */
  readonly question?: Question
  readonly turn?: string
  /** Number of the last event that is known; 0 before the first. */
  readonly seq: number
}

/** What can be asked of a turn. */
export type Request =
  | { readonly type: 'cancel' }
  | { readonly type: 'consent'; readonly decisions: readonly ConsentDecision[] }
  | { readonly type: 'tool-outputs'; readonly outputs: readonly ToolOutput[] }

/** An event of a turn; without one, the turn has ended and nothing comes after the place. */
export interface Arrival {
  readonly turn: string
  readonly event?: NumberedEvent
}

/**
 * One try at reading or asking; whoever calls it tries again. What it throws is a `HubClientError` if the hub said so,
 * and anything else where the connection did not come about or broke off. The signal is the caller's own, for this.
 */
export interface Transport {
  /** The events of one connection, which may end before the turn does. `heard`: there is a hub at the other end. */
  read(from: Place, signal: AbortSignal, heard: () => void): AsyncGenerator<Arrival>
  /** Resolves when the hub has taken it. */
  ask(turn: string, request: Request, signal: AbortSignal): Promise<void>
  close(): void
}

/** Why a hub did not answer, or a bot failed. */
export class HubClientError extends Error {
  override readonly name = 'HubClientError'
  /** One of the hub's codes; or `unreachable`, or `not_a_hub` for an answer that no hub has given. */
  declare readonly code: string
  /** Asking again, as a new message, may work. */
  declare readonly retryable: boolean
  declare readonly retryAfterMs?: number

  constructor({ message, ...error }: PublicError, cause?: unknown) {
    super(message, { cause })
    Object.assign(this, error)
  }
}

/** An error that the hub has no part in. */
export const ownError = (code: string, message: string, cause?: unknown): HubClientError =>
  new HubClientError({ code, message, retryable: true }, cause)

/** The key of the options, got anew. */
export const keyOf = async ({ key }: HubClientOptions): Promise<string | undefined> =>
  typeof key === 'function' ? key() : key

/** The hub's path at the address of the options, which may end with a slash. */
export const addressOf = ({ url }: HubClientOptions, path: string): string => url.replace(/\/*$/, `/api/v1${path}`)

/** A name nobody else has chosen; unlike `crypto.randomUUID` also where a page is not secure. */
export const newName = (): string => crypto.getRandomValues(new Uint32Array(4)).join('-')
