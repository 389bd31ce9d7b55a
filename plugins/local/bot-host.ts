import type { Clock } from '../../core/clock.ts'
import type { HubError } from '../../core/errors.ts'
import type { HubEvent } from '../../core/events.ts'
import { newId } from '../../core/ids.ts'
import type { ConversationRef, Json } from '../../core/message.ts'
import type {
  ChangedRecords,
  FoundRecords,
  NewRecord,
  RecordChange,
  RecordCondition,
  RecordQuery,
  Records,
  StoredRecord,
} from '../../core/records.ts'
import type { Owner } from '../../core/store.ts'

/** The records of one owner, as a bot works with them. */
export interface BotRecords {
  /** `conversation` is a `conv_…` id. */
  find(query: RecordQuery, conversation?: string): Promise<FoundRecords>
  add(records: readonly BotRecord[]): Promise<readonly StoredRecord[]>
  change(change: BotRecordChange): Promise<ChangedRecords>
  delete(where: RecordCondition, limit?: number): Promise<number>
}

/** A record that a bot adds; the conversation's id is made where it is needed. */
export type BotRecord = Omit<NewRecord, 'newConversation'>
/** A change that a bot makes. */
export type BotRecordChange = Omit<RecordChange, 'otherwise'> & { readonly otherwise?: BotRecord }

/** Where a bot logs; what it hands over is plain. */
export interface BotLogger {
  debug(fields: object, message?: string): void
  info(fields: object, message?: string): void
  warn(fields: object, message?: string): void
  error(fields: object, message?: string): void
}

/** What one object of a bot stands on: the hub's side of a turn or a call, in this thread or in another. */
export interface BotHost {
  /** Who it speaks with: the user that the caller named, else the key. */
  readonly sender: string
  readonly conversation: ConversationRef | undefined
  readonly turn: { readonly id: string; readonly text: string } | undefined
  readonly records: BotRecords
  readonly logger: BotLogger
  /** Adds to the answer: words, or an event. */
  say(piece: string | HubEvent): void
  /** The answer is whole. */
  end(): void
  /** The answer ends by a failure. */
  fail(error: HubError): void
  /** Runs one of the tools of the bot's config; undefined where it has none of that name. */
  callTool(name: string, given: readonly Json[]): Promise<Json | undefined>
}

/** The records of an owner in the store. */
export const recordsOf = (records: Records, owner: Owner, clock: Clock): BotRecords => {
  const complete = (record: BotRecord): NewRecord => ({ ...record, newConversation: newId('conv') })
  return {
    find: (query, conversation) =>
      records.findRecords(conversation === undefined ? owner : { ...owner, conversation }, query),
    add: (added) => records.addRecords(owner, added.map(complete), clock.now()),
    change({ otherwise, ...change }) {
      const whole = otherwise ? { ...change, otherwise: complete(otherwise) } : change
      return records.changeRecords(owner, whole, clock.now())
    },
    delete: (where, limit) => records.deleteRecords(owner, where, limit),
  }
}
