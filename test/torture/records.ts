/** What everybody who took part in a run wrote down, for the checker to compare. */
export interface Records {
  readonly messages: readonly SentMessage[]
  readonly clients: readonly ClientRecord[]
  readonly upstream: readonly UpstreamRequest[]
  readonly deliveries: readonly ReceivedDelivery[]
  readonly store: StoreRecord
}

/** A message as the load made it up; several clients may have sent it. */
export interface SentMessage {
  readonly id: string
  readonly bot: string
  readonly text: string
  /** The whole answer, where every complete one is the same. */
  readonly whole?: string
}

/** What a client's numbered frames look like: every client of a dialect gets the same ones. */
export type Dialect = 'rest' | 'sse' | 'socket-events' | 'socket-words' | 'webhook'

/** Everything one client learned about one message. */
export interface ClientRecord {
  readonly name: string
  readonly dialect: Dialect
  /** Id of its message. */
  readonly message: string
  /** The turn it was told of when its message was accepted, and at every later mention: all the same, one hopes. */
  readonly turns: readonly string[]
  readonly connections: readonly ConnectionRecord[]
  /** The final turn object, byte for byte, for those who read it. */
  readonly object?: string
  /** How it was over for the client; undefined when it never was. */
  readonly end?: ClientEnd
}

/** The turn's status at its end, or why the client stopped before it. */
export type ClientEnd =
  | { readonly type: 'ended'; readonly status: string }
  /** It left on purpose. */
  | { readonly type: 'left' }
  /** Its message was refused for good, or a turn it had been given was denied to it. */
  | { readonly type: 'refused'; readonly status: number; readonly code: string }

/** One stretch of a stream: what came after `after`, until it broke off or was over. */
export interface ConnectionRecord {
  /** Number of the last event the client had; 0 when it asked for all. */
  readonly after: number
  readonly frames: readonly FrameRecord[]
}

/** A numbered frame. */
export interface FrameRecord {
  readonly seq: number
  /** The frame, or of a socket what does not depend on the request it answers. */
  readonly bytes: string
  /** The event in it as JSON, in dialects that show events as they are. */
  readonly event?: string
  /** The words in it, in dialects that show words only. */
  readonly words?: string
  /** Milliseconds since the epoch. */
  readonly at: number
}

/** A request that an upstream saw. */
export interface UpstreamRequest {
  readonly vendor: 'asgard' | 'coze'
  readonly path: string
  /** `start` begins an answer, `answer` hands in decisions or outputs, `resume` asks for the rest. */
  readonly kind: 'start' | 'answer' | 'resume' | 'other'
  /** The message it is about, for starts. */
  readonly message?: string
  /** The calls it answers. */
  readonly calls?: readonly string[]
  /** What the upstream did: took it, said no so that nothing was begun, or never answered. */
  readonly outcome: 'taken' | 'refused' | 'unanswered'
  readonly at: number
}

/** A callback as the receiver of the webhook saw it. */
export interface ReceivedDelivery {
  /** The `webhook-id`. */
  readonly id: string
  readonly channel: string
  readonly turn: string
  readonly type: string
  readonly body: string
  /** The receiver took it with a 2xx. */
  readonly taken: boolean
}

/** What the hub's store holds in the end. */
export interface StoreRecord {
  readonly turns: readonly StoredTurn[]
  readonly owed: readonly { readonly turn: string; readonly lane: string }[]
  readonly outbox: readonly StoredDelivery[]
}

export interface StoredTurn {
  readonly id: string
  readonly bot: string
  readonly conversation: string
  readonly message: string
  readonly status: string
  readonly seq: number
  readonly text: string
  /** In the order of their numbers. */
  readonly events: readonly StoredEvent[]
}

export interface StoredEvent {
  readonly seq: number
  /** JSON. */
  readonly body: string
}

export interface StoredDelivery {
  readonly id: string
  readonly turn: string
  readonly lane: string
  readonly type: string
  readonly state: string
}
