/** Any JSON value, as parsed. */
export type Json = null | boolean | number | string | readonly Json[] | JsonObject
/** A JSON object, as parsed. */
export type JsonObject = { readonly [key: string]: Json }

/** One inbound user message, in the form every channel hands to the dispatcher. */
export interface Message {
  /** The client's own id, or `msg_…` made by the hub. Unique per bot, principal and conversation. */
  readonly id: string
  readonly text: string
  /** Files uploaded before the message was sent, in the order the client named them. */
  readonly files: readonly FileRef[]
  /** Anything the client wants its bot to see beside the text. */
  readonly payload?: JsonObject
  /** It is an operator's word to the user, and not one of the user's. */
  readonly by?: 'operator'
  /** It has no words and only wakes the bot: what comes of it is kept where the bot says something. */
  readonly nudge?: true
  /** What the client wants back with it; no bot is shown it. */
  readonly metadata?: JsonObject
  /** Who says it, where the conversation is not theirs alone; else its user does. */
  readonly speaker?: string
  /** What was said before it, oldest first, where its client keeps the conversation and the hub does not. */
  readonly history?: readonly HistoryMessage[]
}

/** A file the bot's upstream already holds. */
export interface FileRef {
  /** `file_…` */
  readonly id: string
  readonly name: string
  readonly bytes: number
  readonly mime: string
  /** What the provider needs to name it upstream, e.g. Asgard's `blobId`. Opaque to the core. */
  readonly upstream: Json
}

/** A thread of messages between one principal and one bot. */
export interface ConversationRef {
  /** `conv_…`, made by the hub. */
  readonly id: string
  /** The client's name for it, unique per bot, key and user; the id itself when the client gave none. */
  readonly name: string
}

/** One earlier message of a conversation, as a model is shown it. */
export interface HistoryMessage {
  readonly role: 'user' | 'bot' | 'operator'
  readonly text: string
}
