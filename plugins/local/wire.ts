import type { Json, JsonObject } from '../../core/message.ts'
import { isFieldName } from '../../core/records.ts'
import type { RecordProperty, RecordRole, StoredRecord } from '../../core/records.ts'

/**
 * A record in CloudBase's words, as `chatRecord` reads and writes it. Every field is optional there; more are kept.
 * Source: docs.cloudbase.net, "BotCore", and the types of @cloudbase/wx-cloud-client-sdk for the system's own fields.
 */
export interface ChatRecord {
  readonly bot_id?: string
  readonly record_id?: string
  /** `assistant` is the bot. */
  readonly role?: string
  readonly content?: string
  readonly type?: string
  readonly image?: string
  readonly event?: string
  /** Who spoke: the user that the caller named, else the key. */
  readonly sender?: string
  /** The conversation's name. */
  readonly conversation?: string
  readonly trigger_src?: string
  readonly origin_msg?: string
  /** The `record_id` of the record that answers. */
  readonly reply?: string
  readonly reply_to?: string
  readonly recommend_questions?: readonly string[]
  readonly trace_id?: string
  readonly need_async_reply?: boolean
  readonly async_reply?: string
  /** Set by the store: its number, as text. */
  readonly _id?: string
  /** Set by the store, ms since the epoch. */
  readonly createdAt?: number
  /** Set by the store, ms since the epoch. */
  readonly updatedAt?: number
  readonly [field: string]: Json | undefined
}

/** A record as it was read: what every record has is there. */
export type FoundChatRecord = ChatRecord &
  Required<
    Pick<
      ChatRecord,
      | '_id'
      | 'bot_id'
      | 'record_id'
      | 'role'
      | 'content'
      | 'type'
      | 'conversation'
      | 'sender'
      | 'createdAt'
      | 'updatedAt'
    >
  >

/** Whose records they are; what a record does not say of itself. */
export interface RecordOwner {
  readonly botId: string
  readonly sender: string
}

/** CloudBase's word for each role. */
export const roleWords = { user: 'user', bot: 'assistant', operator: 'operator' } as const satisfies Record<
  RecordRole,
  string
>

/** A role by CloudBase's word for it; undefined for a word that is none. */
export const roleOf = (word: string): RecordRole | undefined =>
  word === 'bot' || word === 'assistant' ? 'bot' : word === 'user' || word === 'operator' ? word : undefined

/** What a record counts as that does not say it: where it came from is the HTTP API, and it is by its owner. */
const absentFields = ({ botId, sender }: RecordOwner): JsonObject => ({
  bot_id: botId,
  sender,
  type: 'text',
  trigger_src: 'TCB',
  owner: sender,
  createBy: sender,
  updateBy: sender,
  _openid: sender,
})

const properties: Readonly<Record<string, Extract<RecordProperty, string>>> = {
  _id: 'number',
  record_id: 'id',
  role: 'role',
  content: 'text',
  conversation: 'conversation',
  reply: 'reply',
  createdAt: 'at',
  updatedAt: 'updatedAt',
}

/** What the store calls a field. */
export function propertyOf(field: string, owner: RecordOwner): RecordProperty {
  if (Object.hasOwn(properties, field)) return properties[field]!
  if (!isFieldName(field)) throw new TypeError(`${JSON.stringify(field)} is no name of a field`)
  const absent = absentFields(owner)
  return Object.hasOwn(absent, field) ? { field, absent: absent[field]! } : { field }
}

const storeFields: ReadonlySet<string> = new Set(['_id', 'createdAt', 'updatedAt'])
const textFields: ReadonlySet<string> = new Set(['bot_id', 'sender', 'type'])

/** Whether a bot may write this into a field: not where the store writes, and text where every record has text. */
export const isWritable = (field: string, value: unknown): boolean =>
  value !== undefined && !storeFields.has(field) && (typeof value === 'string' || !textFields.has(field))

/** A record of the store in CloudBase's words. */
export const toChatRecord = (record: StoredRecord, owner: RecordOwner): FoundChatRecord => ({
  ...absentFields(owner),
  ...record.fields,
  _id: String(record.number),
  record_id: record.id,
  bot_id: stringOr(record.fields['bot_id'], owner.botId),
  sender: stringOr(record.fields['sender'], owner.sender),
  type: stringOr(record.fields['type'], 'text'),
  role: roleWords[record.role],
  content: record.text,
  conversation: record.conversation.name,
  ...(record.reply === undefined ? {} : { reply: record.reply }),
  createdAt: record.at,
  updatedAt: record.updatedAt,
})

/** One of the `recordList` of `GET …/records`, whose words are not those of the data model. */
export function toRecordItem(record: FoundChatRecord): JsonObject {
  const { record_id: recordId, bot_id: botId, role, content, conversation, type, reply, sender } = record
  const rest = {
    image: record.image,
    triggerSrc: record.trigger_src,
    replyTo: record.reply_to,
    reply,
    event: record.event,
    recommendQuestions: record.recommend_questions,
    origin_msg: record.origin_msg,
    trace_id: record.trace_id,
    asyncReply: record.async_reply,
    needAsyncReply: record.need_async_reply,
  }
  return {
    recordId,
    botId,
    role,
    content,
    conversation,
    type,
    sender,
    createTime: new Date(record.createdAt).toISOString(),
    ...Object.fromEntries(
      Object.entries(rest).flatMap(([name, value]) => (value === undefined ? [] : [[name, value]])),
    ),
  }
}

const stringOr = (value: Json | undefined, other: string): string => (typeof value === 'string' ? value : other)
