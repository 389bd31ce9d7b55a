import type { ConversationRef, Json, JsonObject } from './message.ts'
import type { Owner } from './store.ts'

/**
 * The records of conversations as bots work with them: searched by any of their fields, added and changed, each of
 * them always one owner's. A part of the store.
 */
export interface Records {
  findRecords(scope: RecordScope, query: RecordQuery): Promise<FoundRecords>
  /**
   * Adds records in one commit; one that is its turn's `own` changes the row that turn has already in its role.
   * @throws HubError `unknown_conversation`
   */
  addRecords(owner: Owner, records: readonly NewRecord[], at: number): Promise<readonly StoredRecord[]>
  /** Changes what `where` matches, the first `limit` of it, or adds `otherwise` where nothing does; in one commit. */
  changeRecords(scope: RecordScope, change: RecordChange, at: number): Promise<ChangedRecords>
  /** Deletes what `where` matches, the first `limit` of it, and says how many there were. */
  deleteRecords(scope: RecordScope, where: RecordCondition, limit?: number): Promise<number>
}

/** Whose records: all of an owner's, or those of one conversation, by its `conv_…` id, which its key is enough for. */
export interface RecordScope extends Owner {
  readonly conversation?: string
}

/** Who a record is by. */
export type RecordRole = 'user' | 'bot' | 'operator'

/** One thing that was said, with everything a bot has written beside it. */
export interface StoredRecord {
  /** Its place in the store. */
  readonly number: number
  /** What bots and clients call it; see `recordIds`. Not unique where bots choose it. */
  readonly id: string
  readonly conversation: ConversationRef
  /** The turn it was written in; empty where that was none. */
  readonly turn: string
  readonly role: RecordRole
  readonly text: string
  /** The id of the record that answers: a turn's own records have that of its bot's. */
  readonly reply?: string
  /** Its turn did not complete, or has not yet. */
  readonly partial?: boolean
  /** Milliseconds since the epoch. */
  readonly at: number
  /** Milliseconds since the epoch. */
  readonly updatedAt: number
  /** What the hub has no word for. */
  readonly fields: JsonObject
}

/** A record as it is added. */
export interface NewRecord extends Pick<StoredRecord, 'turn' | 'role' | 'text' | 'fields'> {
  /** Default: that of `recordIds` for a turn's own; else a new one. */
  readonly id?: string
  readonly conversation: { readonly name: string } | { readonly id: string }
  /** The id the conversation gets if it is made now. */
  readonly newConversation: string
  /** It is the one record of its turn in its role, and not one beside that. */
  readonly own?: boolean
  readonly reply?: string
}

/** What is changed about which records. */
export interface RecordChange {
  readonly where: RecordCondition
  /** Of `fields`, those that are named; the others stay. */
  readonly set: Partial<Pick<StoredRecord, 'id' | 'role' | 'text' | 'reply' | 'fields'>>
  readonly limit?: number
  readonly otherwise?: NewRecord
}

/** What a change came to. */
export interface ChangedRecords {
  readonly changed: number
  readonly added?: StoredRecord
}

/** Which records, in which order. */
export interface RecordQuery {
  readonly where?: RecordCondition
  /** Default: as they were said, an answer before the message that had to wait for it. */
  readonly orderBy?: readonly { readonly property: RecordProperty; readonly direction: 'asc' | 'desc' }[]
  /** The other way round, where `orderBy` says nothing. */
  readonly newestFirst?: boolean
  readonly limit: number
  readonly offset?: number
  /** Says also how many there are in all. */
  readonly count?: boolean
  /** Only what the bot has not been made to forget. */
  readonly remembered?: boolean
  /** Only those of this turn and the turns before it. */
  readonly upTo?: string
}

/** The records of a query, and how many there are in all, where it asks. */
export interface FoundRecords {
  readonly records: readonly StoredRecord[]
  readonly total?: number
}

/** What can be asked of a record; `conversation` is the name of it. A field it lacks counts as `absent`, or as null. */
export type RecordProperty =
  | 'number'
  | 'id'
  | 'conversation'
  | 'turn'
  | 'role'
  | 'text'
  | 'reply'
  | 'partial'
  | 'at'
  | 'updatedAt'
  | { readonly field: string; readonly absent?: Json }

/**
 * What a record has to be like. `greater`, `less` and `contains` are true of values of one type only: numbers with
 * numbers, strings with strings, these by code point.
 */
export type RecordCondition =
  | { readonly type: 'all' | 'any'; readonly of: readonly RecordCondition[] }
  | { readonly type: 'not'; readonly of: RecordCondition }
  | { readonly type: 'equal'; readonly property: RecordProperty; readonly value: Json }
  | { readonly type: 'greater' | 'less'; readonly property: RecordProperty; readonly value: number | string }
  | { readonly type: 'in'; readonly property: RecordProperty; readonly values: readonly Json[] }
  | {
      readonly type: 'contains'
      readonly property: RecordProperty
      readonly text: string
      /** By the lower case of both. */
      readonly ignoreCase?: boolean
    }

/** The condition that every record meets. */
export const anyRecord: RecordCondition = { type: 'all', of: [] }

/** Whether a name can be that of a field: 1 to 100 characters, no quote, backslash or control character among them. */
export const isFieldName = (name: string): boolean => /^[^"\\\p{Cc}]{1,100}$/u.test(name)

/** The ids that a turn's own two records have, known before they are written, unless its bot chose others. */
export const recordIds = (turn: string): { readonly user: string; readonly bot: string } => ({
  user: `${turn}_user`,
  bot: `${turn}_bot`,
})
