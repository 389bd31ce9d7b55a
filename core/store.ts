import { asHubError } from './errors.ts'
import type { NumberedEvent, PublicError, TurnEvent, Usage } from './events.ts'
import type { Records } from './records.ts'
import type { ConversationRef, FileRef, HistoryMessage, Json, JsonObject, Message } from './message.ts'

/** Where a turn is: `queued → running → ended`, with `waiting` parked off `running`. The last four are final. */
export type TurnStatus = (typeof turnStatuses)[number]

/** Every status a turn may have. */
export const turnStatuses = ['queued', 'running', 'waiting', 'completed', 'failed', 'cancelled', 'interrupted'] as const

const ended: ReadonlySet<TurnStatus> = new Set(['completed', 'failed', 'cancelled', 'interrupted'])
/** Whether a status is final. */
export const isEnded = (status: TurnStatus): boolean => ended.has(status)

/** Whose names a conversation's name is unique among. */
export interface Owner {
  readonly bot: string
  readonly key: string
  readonly user?: string
}

/** What is known of a turn, whether it lives or has ended. */
export interface TurnRow extends Owner {
  readonly id: string
  readonly conversation: ConversationRef
  readonly message: Message
  readonly status: TurnStatus
  /** The channel it came in by, as named in the config. */
  readonly channel: string
  readonly debug: boolean
  readonly bypassConsent: boolean
  /** It goes on though nobody listens: its client reads the answer later, or is owed it. */
  readonly detached: boolean
  /** Its events are gone, but for the whole messages and the end. */
  readonly compacted: boolean
  /** Of the last event in the log. */
  readonly seq: number
  /** The writer that may append; an older one is refused. */
  readonly epoch: number
  readonly cursor?: Json
  /** What the provider keeps with the conversation. */
  readonly thread?: Json
  /** Since when it waits or until when an answer counts, ms since the epoch. */
  readonly expiresAt?: number
  /** How long it ran before the leg that runs now or ran last, in ms: what it waited or was queued for is not counted. */
  readonly ranMs: number
  /** When that leg began, ms since the epoch; a new process goes on with the leg it found. */
  readonly legAt?: number
  readonly createdAt: number
  /** When it left the queue, ms since the epoch; not known of turns from before the hub kept it. */
  readonly startedAt?: number
  /** Set when it has ended, ms since the epoch. */
  readonly endedAt?: number
}

/** A turn in a list of everybody's; times in ms since the epoch. */
export interface TurnItem
  extends Owner, Pick<TurnRow, 'id' | 'conversation' | 'status' | 'channel' | 'createdAt' | 'startedAt' | 'endedAt'> {
  /** The id of the message that is answered. */
  readonly message: string
  /** Nobody asked: an operator has spoken. */
  readonly by?: 'operator'
  /** Why it failed: the code. */
  readonly error?: string
}

/**
 * Which turns are listed, whoever's they are, from the newest back. A page of a search may be short, or empty, where
 * there is more: then `before` is in it all the same.
 */
export interface TurnSearch extends PageOptions {
  /** Only those that have not ended. */
  readonly live?: boolean
  /** Only those of these bots. */
  readonly bots?: readonly string[] | undefined
  readonly bot?: string | undefined
  readonly status?: TurnStatus | undefined
}

/** Which conversations are listed, whoever's they are, from the one that was made last back; pages as in `TurnSearch`. */
export interface ConversationSearch extends PageOptions {
  /** Only those with these bots. */
  readonly bots?: readonly string[] | undefined
  readonly bot?: string | undefined
  readonly key?: string | undefined
  readonly user?: string | undefined
  /** Only those that operators have. */
  readonly taken?: boolean | undefined
  /** Also those that are for one message alone. */
  readonly ephemeral?: boolean
}

/** Which entries of the audit table are listed; pages as in `TurnSearch`. */
export interface AuditSearch extends PageOptions {
  readonly what?: AuditEntry['what'] | undefined
  /** Only those about these bots, and those about none. */
  readonly bots?: readonly string[] | undefined
}

/** An event, and when it was written, ms since the epoch; not known of events from before the hub kept it. */
export interface TimedEvent {
  readonly event: NumberedEvent
  readonly at?: number
}

/** What stays of a turn when its events are gone. */
export interface TurnResult {
  readonly text: string
  readonly messages: readonly BotMessage[]
  readonly usage?: Usage
  /** An operator has the conversation: no bot has seen the message. */
  readonly handedOver?: true
  readonly error?: PublicError
}

/** One message of the bot's answer. */
export interface BotMessage {
  readonly id: string
  readonly text: string
  readonly template?: JsonObject
  readonly payload?: Json
}

/** Everything about a message that its acceptance writes; `at` in ms since the epoch. */
export interface AcceptInput extends Owner {
  readonly turn: string
  /** Which conversation: the client's name or `conv_…` id, or a new one. */
  readonly conversation: { readonly name: string } | { readonly id: string } | 'new'
  /** The id the conversation gets if it is made now. */
  readonly newConversation: string
  /** If it is made now, it is not listed, and is forgotten with the last of its turns. */
  readonly ephemeral?: boolean
  readonly message: Message
  /** Equal for equal content; tells a repeated message from another one under its id. */
  readonly fingerprint: string
  readonly channel: string
  readonly debug: boolean
  readonly bypassConsent: boolean
  readonly detached: boolean
  readonly at: number
  /** How many turns may wait behind the live one of a conversation. */
  readonly queueLimit: number
  /**
   * Of the signed request that brought it, until when (ms since the epoch) it is known again: another one of its id is a
   * `mismatch` where it names something else, and `replayed` where its turn is forgotten.
   */
  readonly receipt?: { readonly id: string; readonly names: string; readonly until: number }
  /** Takes only a message that was taken before; another one is an `unknown_message`. */
  readonly knownOnly?: boolean
  /** Who is owed the turn's end: a delivery is written in the commit that ends it, or, but for hooks, parks it. */
  readonly owedTo?: readonly Lane[]
  /** Takes the message even if it cannot run now: its turn ends at once with this result. */
  readonly refusal?: { readonly waiting: TurnResult; readonly queueFull: TurnResult }
}

/** Whom something is owed, by its name in the config: the client of a channel, the upstream of a bot, or a hook. */
export type Lane = `channel:${string}` | `bot:${string}` | HookLane

/** An `onTurnEnd` of the config: it is told of ends only, and also when nothing is left of the turn but that. */
export type HookLane = `hook:${string}`

/** Whether what is owed to a lane is told with everything that is to be said, and not by the name of a turn. */
export const isHook = (lane: Lane): lane is HookLane => lane.startsWith('hook:')

/** Which records a model is shown. */
export interface HistoryOptions {
  readonly limit: number
  /** Only those before this turn. */
  readonly before?: string
  /** Only those that were written outside of turns since the last turn began: no upstream has heard of them. */
  readonly untold?: boolean
}

/** What is known of an ended turn when nothing else is left of it; times in ms since the epoch. */
export interface TurnEnd extends Owner {
  readonly turn: string
  readonly status: TurnStatus
  /** The channel it came in by, as named in the config. */
  readonly channel: string
  readonly conversation: ConversationRef
  /** The id of the message that was answered. */
  readonly message: string
  readonly usage?: Usage
  /** An operator had the conversation: no bot has seen the message. */
  readonly handedOver?: true
  /** Nobody asked: an operator has spoken. */
  readonly by?: 'operator'
  readonly error?: PublicError
  readonly createdAt: number
  readonly endedAt: number
}

/** What a store keeps for a hook of a turn that ends now. */
export const toTurnEnd = (turn: TurnRow, result: TurnResult | undefined, endedAt: number): TurnEnd => ({
  turn: turn.id,
  status: turn.status,
  bot: turn.bot,
  key: turn.key,
  ...(turn.user === undefined ? {} : { user: turn.user }),
  channel: turn.channel,
  conversation: turn.conversation,
  message: turn.message.id,
  ...(result?.usage ? { usage: result.usage } : {}),
  ...(result?.handedOver ? { handedOver: true } : {}),
  ...(turn.message.by ? { by: turn.message.by } : {}),
  ...(result?.error ? { error: result.error } : {}),
  createdAt: turn.createdAt,
  endedAt,
})

/** One thing that is owed. */
export interface Delivery {
  /** Stable over all tries. */
  readonly id: string
  readonly lane: Lane
  /** What it tells of: an event, such as `turn.completed`, or `conversation.deleted`. */
  readonly type: string
  /** The turn whose event it is. */
  readonly turn?: string
  /** What is not to be found in the store any more. */
  readonly payload?: Json
  /** When that happened, ms since the epoch. */
  readonly at: number
  /** How often it was tried before. */
  readonly attempts: number
}

/** A delivery that tells of a turn's end or pause. */
export type TurnDelivery = Delivery & { readonly turn: string }

/**
 * What became of one try at a delivery; `retryAt` in ms since the epoch. `refused`: it failed, and its lane is closed,
 * so that nothing of it is due until somebody has it tried again.
 */
export type DeliveryState =
  | { readonly state: 'delivered' }
  | { readonly state: 'failed' | 'refused'; readonly error: string }
  | { readonly state: 'pending'; readonly error: string; readonly retryAt: number }

/** A delivery that has not arrived, as it is listed; `nextAt` in ms since the epoch. */
export interface OutboxItem extends Omit<Delivery, 'payload'> {
  readonly state: 'pending' | 'failed'
  /** When it is tried again, if it is. */
  readonly nextAt: number
  /** What was wrong the last time, for operators. */
  readonly error?: string
}

/** Which deliveries are to be tried again: those of these ids, or of a lane; without either, everything. */
export interface OutboxRetry {
  readonly ids?: readonly string[] | undefined
  readonly lane?: Lane | undefined
}

/**
 * What became of a message. Only `created` has stored it; `duplicate` and `mismatch` name the turn that its id
 * already has.
 */
export type AcceptResult =
  /** `turn.status` is `running` when nothing else of the conversation lives, else `queued`. */
  /**
   * While an operator has the conversation the turn has ended: with nothing, or, where the message is by an operator,
   * with its words.
   */
  | { readonly outcome: 'created'; readonly turn: TurnRow }
  | { readonly outcome: 'duplicate' | 'mismatch' | 'waiting'; readonly turn: TurnRow }
  | { readonly outcome: 'replayed'; readonly forgotten: string }
  | { readonly outcome: 'unknown_conversation' | 'unknown_message' | 'queue_full' | 'not_handed_over' }

/** A step of one turn: its events and what they change, in one commit. */
export interface Append {
  readonly turn: string
  readonly epoch: number
  readonly events: readonly NumberedEvent[]
  readonly status?: TurnStatus
  readonly cursor?: Json
  readonly thread?: Json
  /** Null takes it away. */
  readonly expiresAt?: number | null
  /** Set with a final status; also writes the bot's record. */
  readonly result?: TurnResult
  readonly at: number
}

/** What an earlier process left, now of this epoch. */
export interface Recovered {
  /** Were running when it ended: their upstream may have been started. */
  readonly broken: readonly TurnRow[]
  readonly waiting: readonly TurnRow[]
  /** Were queued behind nothing, and are `running` now. */
  readonly claimed: readonly TurnRow[]
}

/** Event 1 of every turn, which the store writes in the commit that accepts it. */
export const startedEvent = (turn: TurnRow): Extract<TurnEvent, { type: 'turn.started' }> => ({
  type: 'turn.started',
  turn: turn.id,
  bot: turn.bot,
  conversation: turn.conversation.name,
  message: turn.message.id,
  ...(turn.message.by ? { by: turn.message.by } : {}),
})

/**
 * What an append came to: steps that were refused, by turn; turns that are now `running`; how many deliveries were
 * written.
 */
export interface Appended {
  readonly refused: readonly string[]
  readonly claimed: readonly TurnRow[]
  readonly deliveries: number
}

/** A conversation as it is listed; times in ms since the epoch. */
export interface ConversationItem {
  readonly id: string
  readonly name: string
  /** What the bot last called it, by `conversation.updated`, or its user by `retitle`. */
  readonly title?: string
  readonly createdAt: number
  readonly updatedAt: number
}

/** What the events of a conversation's turns have said of it as a whole. */
export interface ConversationDetails extends ConversationItem {
  /** What the bot last said of where it stands, in the upstream's own word. */
  readonly status?: string
  /** The sandboxes that were started in it, by name. */
  readonly sandboxes: readonly { readonly name: string; readonly blueprint: string }[]
}

/** What somebody thinks of an answer. */
export interface Rating {
  readonly verdict: 'good' | 'bad'
  readonly comment?: string
  /** From 1 to 5. */
  readonly rating?: number
  readonly tags?: readonly string[]
}

/** A rating of one message of a turn. The same speaker's next one on the message takes its place. */
export interface NewFeedback extends Rating {
  readonly conversation: string
  readonly turn: string
  readonly message: string
  /** Who says it, where the conversation is not theirs alone. */
  readonly speaker?: string
}

/** Feedback as it was stored; `at` in ms since the epoch. */
export interface FeedbackItem extends NewFeedback {
  /** A decimal number; later feedback has a higher one. */
  readonly id: string
  readonly at: number
}

/**
 * A conversation that is made before its first message. A bot or a user that it does not name are those of the first
 * message that names it by its id.
 */
export interface NewConversation {
  readonly id: string
  readonly key: string
  readonly bot?: string
  readonly user?: string
  /** What the client wants back with it. */
  readonly metadata?: JsonObject
}

/** A conversation and whose it is; times in ms since the epoch. */
export interface ConversationRow extends ConversationItem, Omit<NewConversation, 'id'> {
  /** The key of the operator who has it, in place of its bot. */
  readonly takenBy?: string
  /** Grows when its context is cleared: bots are shown what was said in the last section only. */
  readonly section: number
}

/** One thing that was said in a conversation. `partial` marks the answer of a turn that did not complete. */
export interface RecordItem {
  readonly id: string
  readonly role: 'user' | 'bot' | 'operator'
  readonly text: string
  readonly turn: string
  /** Milliseconds since the epoch. */
  readonly at: number
  readonly partial?: boolean
}

/** What the audit table tells of. */
export const auditedDeeds = [
  'credential refused',
  'consent decided',
  'consent allowed',
  'consent bypassed',
  'conversation deleted',
  'user exported',
  'user erased',
  'message changed',
  'message deleted',
  'outbox retried',
  'conversation handed over',
  'conversation given back',
  'operator spoke',
  'admin read',
] as const

/** What must be possible to look up later: who was let do what, and who was not let in. */
export interface AuditEntry {
  readonly what: (typeof auditedDeeds)[number]
  /** The key it was done with, or `policy`. */
  readonly by: string
  readonly bot?: string
  readonly turn?: string
  readonly details?: JsonObject
}

/** An audit entry as it was stored; `at` in ms since the epoch. */
export interface AuditItem extends AuditEntry {
  readonly id: string
  readonly at: number
}

/** Some items of a list that is read from its end. */
export interface Page<Item> {
  /** Oldest first. */
  readonly items: readonly Item[]
  /** Pass it as `before` to get the page before this one. */
  readonly before?: string
}

/** A file of a conversation, by the id of the conversation. */
export interface StoredFile extends FileRef {
  readonly conversation: string
}

/**
 * What is remembered: messages, turns, their logs and the records of conversations. Every write is durable when its
 * promise resolves. All of it is asynchronous, so that a store may live in another process.
 */
export interface Store extends Records {
  /** Message, turn, user's record and dedupe row in one commit, with the turn's first event. */
  accept(input: AcceptInput): Promise<AcceptResult>
  /**
   * Appends to many turns in one commit. A step with an old epoch, or for a turn that has ended, is not written:
   * its turn is in `refused`. When a turn ends, the next queued one of its conversation becomes `running`: it is in
   * `claimed`. When a turn ends or parks, what is owed for it is written too: their number is `deliveries`. When it parks
   * again, what is still owed for its earlier pause no longer is: deliverers show a turn as it is then.
   */
  append(steps: readonly Append[]): Promise<Appended>
  turn(id: string): Promise<TurnRow | undefined>
  /** What an ended turn came to. Apart from the turn, as it may be large and few ask for it. */
  result(turn: string): Promise<TurnResult | undefined>
  /** Events with `seq > after`, in order; at most `limit`, and fewer where they are large, but one at least. */
  read(turn: string, after: number, limit: number): Promise<readonly NumberedEvent[]>
  /** Takes over every turn that has not ended, at a time in ms since the epoch. */
  recover(at: number): Promise<Recovered>
  /** As `read`, with the time of each event. */
  readTimed(turn: string, after: number, limit: number): Promise<readonly TimedEvent[]>
  /** Turns of everybody. */
  searchTurns(search: TurnSearch): Promise<Page<TurnItem>>
  /** Conversations of everybody. */
  searchConversations(search: ConversationSearch): Promise<Page<ConversationRow>>
  conversation(owner: Owner, nameOrId: string): Promise<ConversationRef | undefined>
  /** Finds the conversation of that name, or makes it. */
  openConversation(owner: Owner, name: string, newId: string, at: number): Promise<ConversationRef>
  addConversation(conversation: NewConversation, at: number): Promise<ConversationRow>
  /** By its id, for its key, whatever its bot and user. */
  conversationOf(key: string, id: string): Promise<ConversationRow | undefined>
  /** By its id, whoever's it is. */
  anyConversation(id: string): Promise<ConversationRow | undefined>
  /** Gives a conversation to an operator, by the name of a key, or back to its bot. */
  handOver(id: string, takenBy: string | undefined): Promise<void>
  /** Those of a key with one bot, whoever their users are. */
  conversationsOf(owner: Pick<Owner, 'bot' | 'key'>, options: PageOptions): Promise<Page<ConversationRow>>
  setMetadata(conversation: string, metadata: JsonObject): Promise<void>
  /** Begins a new section of the conversation, and takes away what its provider kept with it. Records stay. */
  clear(conversation: string): Promise<void>
  /** What the provider keeps with the conversation. */
  thread(conversation: string): Promise<Json | undefined>
  /** Those that are not ephemeral. */
  conversations(owner: Owner, options: ConversationPageOptions): Promise<Page<ConversationItem>>
  /** How many conversations somebody has with a bot, but for the one of the name `without`. */
  countConversations(owner: Owner, without?: string): Promise<number>
  /** Gives a conversation a title, in place of what its bot called it. */
  retitle(conversation: string, title: string): Promise<void>
  /** Undefined when there is no such conversation. */
  details(conversation: string): Promise<ConversationDetails | undefined>
  /** In which conversations of a key with a bot a sandbox was started: their ids. */
  sandboxUsers(owner: Pick<Owner, 'bot' | 'key'>, sandbox: string): Promise<readonly string[]>
  records(conversation: string, options: PageOptions): Promise<Page<RecordItem>>
  /** Everything that was said in up to `limit` turns, in the order in which the turns were accepted. */
  recordsByTurn(conversation: string, options: TurnPageOptions): Promise<TurnPage>
  /** Feedback takes the place of what its speaker said of the message before. */
  addFeedback(feedback: NewFeedback, at: number): Promise<FeedbackItem>
  /** Oldest first. */
  feedback(of: { readonly turn: string } | Owner, options: PageOptions): Promise<Page<FeedbackItem>>
  /** What a model is shown: the last records of the section, oldest first, without partial and empty ones. */
  history(conversation: string, options: HistoryOptions): Promise<readonly HistoryMessage[]>
  /** How much waits, for metrics. */
  backlog(): Promise<Backlog>
  /** The turns of a conversation that have not ended, oldest first. */
  liveTurns(conversation: string): Promise<readonly TurnRow[]>
  /**
   * Deletes the conversation with its turns, logs, records, files and dedupe rows; `owed` is written in the same
   * commit.
   */
  forget(conversation: string, owed?: Omit<Delivery, 'attempts'>): Promise<void>
  /** The ids of all turns of a conversation that are kept, in the order in which they were accepted. */
  turnsOf(conversation: string): Promise<readonly string[]>
  /** The turn of a conversation that was accepted next after `after`; without it the latest one. */
  nextTurn(conversation: string, after?: string): Promise<TurnRow | undefined>
  /**
   * Takes the events of up to `limit` turns that ended before a time, but for `turn.started`, whole messages and the
   * end, which keep their numbers. Returns how many turns there were.
   */
  compact(endedBefore: number, limit: number): Promise<number>
  /**
   * Forgets up to `limit` compacted turns that ended before a time, with their message ids; records stay, but for those
   * of an ephemeral conversation that has no turn left.
   */
  prune(endedBefore: number, limit: number): Promise<number>
  /** Adds to the audit table; `at` in ms since the epoch. */
  audit(entry: AuditEntry, at: number): Promise<void>
  /** The newest entries of the audit table, oldest first. */
  audited(options: AuditSearch): Promise<Page<AuditItem>>
  /** Deliveries whose time has come, those of `underWay` left out, and when the next one's comes. */
  dueDeliveries(
    now: number,
    underWay: readonly string[],
  ): Promise<{ readonly due: readonly Delivery[]; readonly nextAt?: number }>
  settleDelivery(id: string, state: DeliveryState): Promise<void>
  /** What `keepProgress` kept; undefined before. */
  progress(turn: string, lane: Lane): Promise<Json | undefined>
  /**
   * Keeps how far a lane has got with telling of a turn that is owed to it, as long as the turn is kept; for any other
   * nothing happens.
   */
  keepProgress(turn: string, lane: Lane, progress: Json): Promise<void>
  /** What has not arrived, and the lanes that are closed. */
  undelivered(options: PageOptions): Promise<Page<OutboxItem> & { readonly closed: readonly Lane[] }>
  /** Makes deliveries that wait or were given up due now, opens their lanes, and says how many there are. */
  retryDeliveries(which: OutboxRetry, at: number): Promise<number>
  addFile(file: StoredFile, at: number): Promise<void>
  files(conversation: string, ids: readonly string[]): Promise<readonly FileRef[]>
  /** All of a conversation, in the order of their ids. */
  filesOf(conversation: string): Promise<readonly FileRef[]>
  close(): Promise<void>
}

/** What waits in the store. */
export interface Backlog {
  /** Turns behind the live one of their conversation. */
  readonly queued: number
  /** Deliveries that have not arrived. */
  readonly outbox: number
}

/** Which part of a list: the newest `limit` items, or those before `before`, a cursor of an earlier page. */
export interface PageOptions {
  readonly before?: string | undefined
  readonly limit: number
}

/** Which part of a conversation, read from its beginning. */
export interface TurnPageOptions {
  /** The id of a turn, or `after` of the page before this one: only what comes behind it. */
  readonly after?: string
  readonly limit: number
}

/** A part of a conversation, read from its beginning. */
export interface TurnPage {
  readonly items: readonly RecordItem[]
  /** For the next page; absent when this is the last one. */
  readonly after?: string
}

/** Which part of a list of conversations. */
export interface ConversationPageOptions extends PageOptions {
  /** Leaves out so many of the newest, for clients that number their pages. */
  readonly skip?: number
  /** Leaves out the one of this name. */
  readonly without?: string
}

/** The same store, whose failures all say `store_unavailable`, whatever its driver throws. */
export function namingFailures(store: Store): Store {
  const named = new Map<unknown, (...given: readonly unknown[]) => Promise<unknown>>()
  return new Proxy(store, {
    get(target, name) {
      const member: unknown = Reflect.get(target, name)
      if (typeof member !== 'function') return member
      const known = named.get(member)
      if (known) return known
      const wrapped = async (...given: readonly unknown[]): Promise<unknown> => {
        try {
          return await Reflect.apply(member, target, given)
        } catch (error) {
          throw asHubError(error, 'store_unavailable')
        }
      }
      named.set(member, wrapped)
      return wrapped
    },
  })
}
