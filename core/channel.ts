import type { IncomingHttpHeaders, IncomingMessage, ServerResponse } from 'node:http'
import type { ParsedUrlQuery } from 'node:querystring'
import type { Duplex } from 'node:stream'
import { z } from 'zod'
import type { Audit } from './audit.ts'
import type { Principal } from './auth.ts'
import type { Bots } from './bots.ts'
import type { Conversations } from './conversations.ts'
import type { Dispatcher } from './dispatcher.ts'
import type { HubError } from './errors.ts'
import type { Json } from './message.ts'
import type { PluginContext } from './plugin.ts'
import type { Definition, PluginSpec } from './plugin-spec.ts'
import { toSpec } from './plugin-spec.ts'
import type { TurnDelivery } from './store.ts'

/**
 * One request to a route, with who asks and the parameters of its path. The rest is what Koa's context has under the
 * same names, spelled out so that plugins are checked without Koa's types.
 */
export interface RequestContext {
  readonly principal: Principal
  readonly params: Readonly<Record<string, string>>
  readonly req: IncomingMessage
  readonly res: ServerResponse
  readonly method: string
  readonly path: string
  readonly host: string
  readonly headers: IncomingHttpHeaders
  readonly query: ParsedUrlQuery
  readonly querystring: string
  /** A header of the request, empty where it has none. */
  get(header: string): string
  /** Which of these media types the request's body has: `false` for none of them, `null` without a body. */
  is(...types: string[]): string | false | null
  /** Which of these the client would rather have. */
  accepts(...types: string[]): string | false
  /** Of the answer: 404 until something is set. */
  status: number
  /** The media type of the answer; `json` and the like will do. */
  type: string
  /** Text, bytes, a stream, or what becomes JSON. */
  body: unknown
  /** Sets a header of the answer. */
  set(header: string, value: string | string[]): void
  set(headers: Readonly<Record<string, string | string[]>>): void
  /** Says by which header of the request the answer was chosen. */
  vary(header: string): void
  /** Whether the answer's head is on its way. */
  readonly headerSent: boolean
  /** Whether the answer can still be written to. */
  readonly writable: boolean
  /** `false` leaves the answer to what writes to `res`. */
  respond?: boolean
}

/**
 * An HTTP request that a channel answers. What `handle` throws is answered as `{ error }`, with the status of its
 * code.
 */
export interface Route {
  readonly method: 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE'
  /** As in @koa/router: `/api/v1/turns/:turn`. */
  readonly path: string
  /** The form it answers in, where another channel answers the same path in the other form. */
  readonly accepts?: 'json' | 'events'
  /** It tells by itself who asks, as a signed webhook does; `ctx.principal` is not set. */
  readonly anonymous?: boolean
  /** What `GET /openapi.json` says of it; without one it has no more than its path there. */
  readonly describe?: RouteDescription
  handle(ctx: RequestContext): Promise<void> | void
}

/** Schemas by media type: `{ 'application/json': messageBody }`. */
export type Content = Readonly<Record<string, z.ZodType>>

/**
 * What a route reads and answers, in the schemas it checks with. One that has an id (`.meta({ id: 'Turn' })`) is named
 * so in the document. Errors are added to every route.
 */
export interface RouteDescription {
  readonly summary: string
  /** More, as Markdown. */
  readonly description?: string
  readonly body?: Content
  readonly query?: z.ZodObject
  readonly headers?: z.ZodObject
  /** By status. */
  readonly answers: Readonly<Record<number, { readonly description: string; readonly content?: Content }>>
}

/**
 * A path where a channel takes the connection over, as WebSocket does. The caller is known by then, unless it
 * `takesStrangers`, and its origin is allowed.
 */
export interface Upgrade {
  readonly path: string
  /** Callers without a key or token are let in too; the channel asks `visitor.identify` about what they show later. */
  readonly takesStrangers?: boolean
  /** The key or token of a request that has it in a place of the channel's own; it stands before that of the headers. */
  credentialOf?(request: IncomingMessage): string | undefined
  handle(request: IncomingMessage, socket: Duplex, head: Buffer, visitor: Visitor): void
}

/** Who has opened a connection. */
export interface Visitor {
  /** Undefined for somebody who has shown no key or token. */
  readonly principal: Principal | undefined
  /**
   * Says whose key or token that is.
   * @throws HubError `unauthorized`, `auth_unavailable`
   */
  readonly identify: (credential: string) => Promise<Principal>
}

/** A failure in a dialect. */
export interface EncodedError {
  readonly status?: number
  readonly headers?: Readonly<Record<string, string>>
  readonly body: unknown
}

/** A way in for clients: it turns bytes into messages, and what it reads from the log into bytes. */
export interface Channel {
  readonly routes?: readonly Route[]
  readonly upgrades?: readonly Upgrade[]
  /** Headers of its answers that pages of other origins may read, beside `Location` and `Retry-After`. */
  readonly exposedHeaders?: readonly string[]
  /** Method or scheme and path of its main door, for the line at the start: `POST /api/v1/bots/{bot}/messages`. */
  readonly door: string
  /** Lines for a person at the start, such as a secret that is shown once. */
  readonly notices?: readonly string[]
  /**
   * Says in the channel's own dialect what failed on one of its paths, those included that it has no route for;
   * undefined for the path of another. The status is that of the code where it names none.
   */
  encodeError?(error: HubError, path: string): EncodedError | undefined
  /** Brings its client what the outbox holds for it; throws to be called again later, under the same `id`. */
  deliver?(delivery: TurnDelivery, signal: AbortSignal): Promise<void>
  /** Stops what keeps its clients attached, when the hub stops. */
  close?(): void | Promise<void>
}

/**
 * What a channel is given when the hub builds it: the ways to send, read and list, each of which checks the
 * principal.
 */
export interface ChannelContext extends PluginContext {
  /** The principal of an API key of the config, for channels that check their senders themselves. */
  readonly actAs: (key: string | undefined) => Principal
  readonly audit: Audit
  readonly hub: Dispatcher
  readonly bots: Bots
  readonly conversations: Conversations
  /** Whether the channel's `bots` option lets clients in to this bot; all bots by default. */
  readonly offers: (bot: string) => boolean
  /** How far the channel has got with delivering a turn that it owes; it survives a restart. */
  readonly progress: {
    of(turn: string): Promise<Json | undefined>
    keep(turn: string, progress: Json): Promise<void>
  }
  /** Counts the streams and sockets that are open, for metrics. */
  readonly openStreams: { inc(): void; dec(): void }
}

/** The options every channel takes; spread them into its schema. */
export const channelOptions = {
  bots: z.array(z.string()).min(1).optional().describe('The bots that may be reached; all by default.'),
  path: z
    .string()
    .regex(/^\/([^/]+(\/[^/]+)*)?$/, 'must begin with "/" and not end with one')
    .default('/')
    .describe('Put before the paths of the channel.'),
  origins: z
    .array(z.string())
    .optional()
    .describe("Web origins that may call it, or `*`; the hub's own and loopback ones by default."),
} as const

/** What `rest()` or another channel factory leaves in the config. */
export interface ChannelSpec<Bot extends string = string> extends PluginSpec<'channel', ChannelContext, Channel> {
  /** The bots its options name; for the compiler only. */
  readonly bots?: Bot
}

/** Makes a channel factory whose `bot` and `bots` options are checked against the config's bots. */
export const defineChannel =
  <Schema extends z.ZodType>(definition: Definition<Schema, ChannelContext, Channel>) =>
  <const Bot extends string = never>(
    options?: Omit<z.input<Schema>, 'bot' | 'bots'> & ChannelBots<Schema, Bot>,
  ): ChannelSpec<Bot> =>
    toSpec('channel', definition, options)

type ChannelBots<Schema extends z.ZodType, Bot> = {
  [Key in 'bot' | 'bots' as Key extends keyof z.input<Schema> ? Key : never]?: Key extends 'bot' ? Bot : readonly Bot[]
}
