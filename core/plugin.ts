import type { z } from 'zod'
import type { ConversationRef, HistoryMessage, Json, JsonObject } from './message.ts'
import type { Audit } from './audit.ts'
import type { Principal } from './auth.ts'
import type { Logger } from './log.ts'
import type { Clock } from './clock.ts'
import type { Middleware, Respond, Turn } from './turn.ts'
import type { Definition, Factory, PluginSpec } from './plugin-spec.ts'
import { noted, toSpec } from './plugin-spec.ts'
import type { Records } from './records.ts'
import type { Store } from './store.ts'

/** What a provider can do, beside answering; the core and the suites ask this and never a name. */
export interface ProviderManifest {
  /** The vendor: `asgard`, `coze`, `local`. */
  readonly name: string
  /** The upstream keeps the conversation itself, so it is sent no history unless the bot asks. */
  readonly remembers?: boolean
  /** Goes on after a crash when `turn.resume` is set. */
  readonly resumes?: boolean
  /** Takes files: has `upload`. */
  readonly files?: boolean
  /** May pause for consent. */
  readonly consent?: boolean
  /** May ask the client for tool outputs. */
  readonly toolOutputs?: boolean
  /** Tells its upstream what people think of its messages: has `feedback`. */
  readonly feedback?: boolean
  /** Takes messages that say nothing and only wake the bot, `message.nudge`. */
  readonly nudges?: boolean
  /** The dialect in which requests can be passed through to the upstream as they are: has `passThrough`. */
  readonly passthrough?: string
  /** Proposes what the user may ask next: its provider may have `suggest`. */
  readonly suggests?: boolean
  /** The dialect of the `methods` its provider may have. */
  readonly methods?: string
  /** Longest silence of the upstream, in ms; 60,000 if not said. */
  readonly idleTimeoutMs?: number
}

/** Whom an upload or a deletion is for. */
export interface Thread {
  /** The bot's name in the config. */
  readonly bot: string
  readonly principal: Principal
  readonly conversation: ConversationRef
  /** What the provider stored for the conversation, as in `turn.thread`. */
  readonly thread?: Json
}

/** A file on its way to the upstream. `stream` can be read once, and throws when the file is over its limit. */
export interface Upload {
  readonly name: string
  readonly mime: string
  readonly stream: AsyncIterable<Uint8Array>
}

/** What somebody thinks of one message, by the id that the provider gave it. */
export interface MessageRating {
  readonly message: string
  readonly verdict: 'good' | 'bad'
  readonly comment?: string
}

/** A request in the vendor's own dialect that the hub has no word for. Whoever asks may ask it: that was checked. */
export interface PassthroughRequest {
  readonly method: 'GET' | 'POST' | 'PUT' | 'DELETE'
  /** Segments of the path below the bot's own address at the upstream, not encoded: `['sandbox', name, 'fs', 'list']`. */
  readonly path: readonly string[]
  readonly query: Readonly<Record<string, string>>
  /** What the body is, and nothing about who sends it. Names are in lower case. */
  readonly headers: Readonly<Record<string, string>>
  /** Can be read once, and throws when it is over its limit. */
  readonly body?: AsyncIterable<Uint8Array>
}

/** What the upstream answered: always a success, since a refusal is thrown. Leaving `body` ends the connection. */
export interface PassthroughAnswer {
  readonly status: number
  /** What the body is. Names are in lower case. */
  readonly headers: Readonly<Record<string, string>>
  readonly body: AsyncIterable<Uint8Array>
}

/** Who asks a bot for something that is no message, and in which conversation, if in any. */
export interface Asker extends Omit<Thread, 'conversation'> {
  readonly conversation?: ConversationRef
}

/** A wish for questions that the user may ask next. */
export interface SuggestionRequest {
  /** What the user said last. */
  readonly text?: string
  /** What was said before, oldest first. */
  readonly history: readonly HistoryMessage[]
  /** Anything else the client said with its wish. */
  readonly payload?: JsonObject
}

/**
 * Requests that a bot answers beside messages, by the names and in the JSON of one dialect: what its channel speaks,
 * and other channels have no use for.
 */
export interface Methods {
  /** Those the bot has. */
  readonly names: ReadonlySet<string>
  /**
   * Calls one of them; undefined where it gives nothing back.
   * @throws HubError, or anything else, which counts as `bot_failed`
   */
  invoke(name: string, input: JsonObject, asker: Asker, signal: AbortSignal): Promise<Json | undefined>
}

/** A bot's way to its upstream. `respond` is all it needs; the rest is declared in the manifest. */
export interface Provider {
  readonly respond: Respond
  /** The upstream is the hub's own simulator; shown where bots are listed. */
  readonly simulated?: boolean
  /** Streams a file upstream and returns what later names it there. Needs `files`. */
  upload?(file: Upload, thread: Thread, signal: AbortSignal): Promise<Json>
  /** Questions that the user may ask next, one at a time. Needs `suggests`. */
  suggest?(request: SuggestionRequest, asker: Asker, signal: AbortSignal): AsyncIterable<string>
  /** Needs `methods`, which names their dialect. */
  readonly methods?: Methods
  /** Lets the upstream go when a waiting turn ends unanswered. */
  release?(turn: Turn): Promise<void>
  /** Deletes the conversation upstream. What throws is called again later, for days; one that is gone is no error. */
  forget?(thread: Thread, signal: AbortSignal): Promise<void>
  /** Says upstream what somebody thinks of a message. Needs `feedback`. */
  feedback?(rating: MessageRating, thread: Thread, signal: AbortSignal): Promise<void>
  /**
   * Sends a request as it is, with the bot's own key, and with the upstream's name for the thread where it is about
   * one. Both bodies are streamed. Needs `passthrough`.
   */
  passThrough?(request: PassthroughRequest, thread: Thread | undefined, signal: AbortSignal): Promise<PassthroughAnswer>
  close?(): void | Promise<void>
}

/** What every plugin is given when the hub builds it. */
export interface PluginContext {
  /** The bot's or channel's name in the config. */
  readonly name: string
  readonly logger: Logger
  readonly clock: Clock
  readonly fetch: typeof fetch
  /** Where relative files of the config live. */
  readonly folder: string
  /** It is built to be looked at, by `bothub check`: nothing is written to a disk. */
  readonly isTrial?: boolean
}

/** What a provider is given when the hub builds it. */
export interface ProviderContext extends PluginContext {
  /** For a bot that keeps notes beside what was said. */
  readonly records: Records
}

/** What a middleware is given when the hub builds it, once for each bot it stands around. */
export interface MiddlewareContext extends PluginContext {
  /** Writes to the audit log. */
  readonly audit: Audit['record']
  readonly bot: { readonly name: string; readonly history: boolean; readonly manifest: ProviderManifest }
  readonly store: Pick<Store, 'history'>
}

/** What `asgard()` or another provider factory leaves in the config. */
export interface ProviderSpec extends PluginSpec<'provider', ProviderContext, Provider> {
  readonly manifest: ProviderManifest
}
/** What `retry()` or another middleware factory leaves in the config. */
export interface MiddlewareSpec extends PluginSpec<'middleware', MiddlewareContext, Middleware> {}
/** What `sqlite()` or another store factory leaves in the config. */
export interface StoreSpec extends PluginSpec<'store', PluginContext, Store> {
  /** See `StoreDefinition`; `options` are parsed ones. */
  backup?(options: unknown, folder: string, to: string): Promise<Backup>
}

/** What a copy of a store holds. */
export interface Backup {
  readonly turns: number
}

/** How a store is defined. */
export type StoreDefinition<Schema extends z.ZodType> = Definition<Schema, PluginContext, Store> & {
  /**
   * Copies what the store holds at one moment to a file that is not there, also while a hub writes, and reads the copy
   * back. `folder` is what relative files are relative to.
   * @throws HubError `store_unavailable`
   */
  backup?(options: z.output<Schema>, folder: string, to: string): Promise<Backup>
}
/**
 * Makes a provider factory.
 * @example
 * export const shout = defineProvider({
 *   manifest: { name: 'shout' },
 *   options: z.strictObject({ suffix: z.string().default('!') }),
 *   create: ({ suffix }) => ({
 *     async *respond(turn) {
 *       yield { type: 'message.delta', message: 'm1', text: turn.message.text.toUpperCase() + suffix }
 *     },
 *   }),
 * })
 */
export const defineProvider =
  <Schema extends z.ZodType>(
    definition: Omit<Definition<Schema, ProviderContext, Provider>, 'name'> & { readonly manifest: ProviderManifest },
  ): Factory<Schema, ProviderSpec> =>
  (...args) => ({
    ...toSpec('provider', { ...definition, name: definition.manifest.name }, args[0]),
    manifest: definition.manifest,
  })

/** Makes a middleware factory; see `history` for an example. */
export const defineMiddleware = <Schema extends z.ZodType>(
  definition: Definition<Schema, MiddlewareContext, Middleware>,
): Factory<Schema, MiddlewareSpec> => noted((...args) => toSpec('middleware', definition, args[0]))

/** Makes a store factory. */
export const defineStore =
  <Schema extends z.ZodType>(definition: StoreDefinition<Schema>): Factory<Schema, StoreSpec> =>
  (...args) => ({
    ...toSpec('store', definition, args[0]),
    ...(definition.backup && {
      // The options were parsed with this very schema, by the loader.
      backup: (options, folder, to) => definition.backup!(options as z.output<Schema>, folder, to),
    }),
  })
