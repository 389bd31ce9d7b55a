import type { Principal } from './auth.ts'
import type { ConsentDecision, HubEvent, PendingCall, ToolCall, ToolOutput } from './events.ts'
import type { ConversationRef, HistoryMessage, Json, Message } from './message.ts'

/** The answering of one message. Immutable: to change it for the layers below, call `next({ ...turn, history })`. */
export interface Turn {
  /** `turn_…` */
  readonly id: string
  readonly bot: string
  readonly principal: Principal
  readonly conversation: ConversationRef
  readonly message: Message
  /** When its message was accepted, ms since the epoch. */
  readonly acceptedAt: number
  /** Earlier messages, oldest first: those that came with the message, or what the `history` middleware fills in. */
  readonly history: readonly HistoryMessage[]
  /** 1 for the first try; counted by the `retry` middleware. */
  readonly attempt: number
  /** The client may see raw upstream events; a provider passes the wish on where its upstream has a switch for it. */
  readonly debug: boolean
  /** Nobody is to be asked: passed on as the upstream's own switch. */
  readonly bypassConsent: boolean
  /** Whether a tool call of a local tool has to wait for consent; set by the `consent` middleware. */
  readonly asksConsent?: (call: ToolCall) => boolean
  /** Set when a waiting turn goes on. */
  readonly answers?: Answers
  /** The last `upstream` cursor, when a waiting or a broken-off turn goes on. */
  readonly resume?: Json
  /** What the provider last stored for this conversation with an `upstream` event, such as the upstream's own id of it. */
  readonly thread?: Json
  /** What of the answer is already in the log, when a turn goes on. */
  readonly shown: readonly ShownMessage[]
  /** Aborted when the turn is cancelled, too slow or the hub stops; its reason is a `HubError`. */
  readonly signal: AbortSignal
}

/** What a turn waited for: the decisions on all its calls, or the outputs of all its tools. */
export type Answers =
  | { readonly type: 'consent'; readonly calls: readonly PendingCall[]; readonly decisions: readonly ConsentDecision[] }
  | { readonly type: 'tool_outputs'; readonly outputs: readonly ToolOutput[] }

/** A message of the answer as far as clients have seen it. `completed`: all of it was said. */
export interface ShownMessage {
  readonly id: string
  readonly text: string
  readonly completed: boolean
}

/**
 * Answers a turn with a stream of events. Ending normally completes the turn, or parks it when calls are still open;
 * throwing a `HubError` fails it. It must stop soon after `turn.signal` aborts.
 */
export type Respond = (turn: Turn) => AsyncIterable<HubEvent>

/** Wraps the stream of everything below it. */
export type Middleware = (turn: Turn, next: Respond) => AsyncIterable<HubEvent>

/** Puts middlewares around a provider, the first outermost. */
export const compose = (middleware: readonly Middleware[], last: Respond): Respond =>
  middleware.reduceRight<Respond>((next, wrap) => (turn) => wrap(turn, next), last)
