import type { Json, JsonObject } from './message.ts'

/** A tool call as it is shown to whoever decides about it or answers it. */
export interface ToolCall {
  /** Unique within the turn. */
  readonly call: string
  /** The group the tool belongs to, where the upstream has groups. */
  readonly toolset?: string
  readonly tool: string
  readonly input: Json
  /** Why the bot wants it, in its own words. */
  readonly reason?: string
}

/** A tool call that waits for somebody's consent. */
export interface PendingCall extends ToolCall {
  /** The same tool was allowed before with `allow_always`. */
  readonly alreadyAllowed: boolean
}

/**
 * What was decided about one call. `allow_always` also allows later calls of the tool, where the upstream remembers
 * that.
 */
export interface ConsentDecision {
  readonly call: string
  readonly result: 'allow_once' | 'allow_always' | 'deny_once'
  readonly reason?: string
}

/** The answer to one tool call, as the model will see it. */
export interface ToolOutput {
  readonly call: string
  readonly output: Json
}

/** What a turn cost at its model, in tokens. */
export interface Usage {
  readonly inputTokens: number
  readonly outputTokens: number
  readonly totalTokens: number
  readonly model?: string
}

/** What a client is told about a failure. `message` is a sentence for a person. */
export interface PublicError {
  readonly code: string
  readonly message: string
  /** Sending the message again, under a new id, may work. */
  readonly retryable: boolean
  readonly retryAfterMs?: number
  /** The upstream's own status and code, never its text. */
  readonly upstream?: { readonly status?: number; readonly code?: string }
}

/**
 * What happens while a bot answers: everything a provider or a middleware may yield.
 * The order is free but for this: a `message.delta` adds to the message it names, and
 * `message.completed` carries the whole text. The runner supplies `message.started`, and `message.completed` at
 * the end, where a provider left them out.
 */
export type HubEvent =
  | { readonly type: 'message.started'; readonly message: string }
  | { readonly type: 'message.delta'; readonly message: string; readonly text: string }
  | {
      readonly type: 'message.completed'
      readonly message: string
      readonly text: string
      readonly template?: JsonObject
      readonly payload?: Json
    }
  | { readonly type: 'reasoning.delta' | 'reasoning.completed'; readonly message: string; readonly text: string }
  | { readonly type: 'canvas.delta'; readonly message: string; readonly text: string }
  | {
      readonly type: 'canvas.completed'
      readonly message: string
      readonly text: string
      readonly template?: JsonObject
    }
  | ({ readonly type: 'tool.started' } & ToolCall)
  | { readonly type: 'tool.completed'; readonly call: string; readonly output: Json; readonly isError: boolean }
  | {
      readonly type: 'agent.started'
      readonly agent: string
      readonly parent?: string
      readonly kind?: string
      readonly description?: string
    }
  | { readonly type: 'agent.completed'; readonly agent: string; readonly status: string; readonly summary?: string }
  | { readonly type: 'sandbox.started' | 'sandbox.ready'; readonly name: string; readonly blueprint: string }
  | { readonly type: 'conversation.updated'; readonly title?: string; readonly status?: string }
  /** `expiresAt` (ISO 8601) is set by the runner. A stream that ends with calls open parks its turn. */
  | { readonly type: 'consent.requested'; readonly calls: readonly PendingCall[]; readonly expiresAt?: string }
  | {
      readonly type: 'consent.answered'
      readonly decisions: readonly ConsentDecision[]
      readonly by: 'user' | 'policy'
    }
  /** The client must answer these; tools that live in the hub's config never get here. */
  | { readonly type: 'tool.outputs_requested'; readonly calls: readonly ToolCall[]; readonly expiresAt?: string }
  | { readonly type: 'suggestion'; readonly text: string }
  | ({ readonly type: 'usage' } & Usage)
  | {
      readonly type: 'attempt.failed'
      readonly attempt: number
      readonly error: PublicError
      readonly retryInMs: number
    }
  /** An upstream event the hub has no word for; kept only in turns accepted with `debug`. */
  | { readonly type: 'raw'; readonly source: string; readonly name: string; readonly data: Json }
  /**
   * Where to go on after a cut or a crash. Never numbered, never shown; stored in the commit of the events around it
   * and handed back as `turn.resume`. `thread` is kept with the conversation and handed back as `turn.thread` in every
   * later turn of it. It is durable before the provider is asked for more, unless it says `soon`: then the stream goes
   * on meanwhile, and a crash may give back the cursor before it.
   */
  | { readonly type: 'upstream'; readonly cursor: Json; readonly thread?: Json; readonly soon?: boolean }

/** What bots do not say: how a turn begins, parks and ends. */
export type TurnEvent =
  | {
      readonly type: 'turn.started'
      readonly turn: string
      readonly bot: string
      readonly conversation: string
      readonly message: string
      /** Nobody asked: an operator speaks to the user. */
      readonly by?: 'operator'
    }
  | { readonly type: 'turn.waiting'; readonly for: 'consent' | 'tool_outputs' }
  | {
      readonly type: 'turn.completed'
      readonly text: string
      readonly usage?: Usage
      /** An operator has the conversation: the message was kept, and no bot has seen it. */
      readonly handedOver?: true
    }
  | { readonly type: 'turn.failed'; readonly text: string; readonly error: PublicError }
  | { readonly type: 'turn.cancelled'; readonly text: string; readonly by: CancelledBy }
  | { readonly type: 'turn.interrupted'; readonly text: string; readonly error: PublicError }

/**
 * Who stopped a turn: its client, nobody listening, a newer message, a deleted conversation, the hub stopping, or an
 * admin.
 */
export type CancelledBy = 'client' | 'abandoned' | 'superseded' | 'deleted' | 'shutdown' | 'admin'

/** What the log holds: every event but the unnumbered `upstream`. */
export type LoggedEvent = Exclude<HubEvent, { type: 'upstream' }> | TurnEvent

/** A logged event with its place in the turn, dense from 1: what clients see. */
export type NumberedEvent = { readonly seq: number } & LoggedEvent

const terminalTypes = ['turn.completed', 'turn.failed', 'turn.cancelled', 'turn.interrupted'] as const

/** One of the four events that end a turn. */
export type TerminalEvent = Extract<TurnEvent, { type: (typeof terminalTypes)[number] }>

/** Whether the event ends its turn. Exactly one such event is in every ended turn, and it is the last. */
export const isTerminal = <E extends { readonly type: string }>(event: E): event is Extract<E, TerminalEvent> =>
  (terminalTypes as readonly string[]).includes(event.type)
