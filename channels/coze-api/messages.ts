import type { z } from 'zod'
import type { Principal } from '../../core/auth.ts'
import type { ChannelContext } from '../../core/channel.ts'
import { HubError } from '../../core/errors.ts'
import type { Json, JsonObject } from '../../core/message.ts'
import type { RecordCondition, StoredRecord } from '../../core/records.ts'
import type { ConversationRow, TurnRow } from '../../core/store.ts'
import { messageObject } from '../../plugins/coze/wire.ts'
import { contentOf, seconds, stringsIn } from './encode.ts'
import { fromMessageId, recordOf, toCozeId, toMessageId, turnOfChat } from './ids.ts'
import { changedMessageBody, textOf } from './requests.ts'
import type { EnterMessage } from './requests.ts'

/** How many records are read at once. */
const pageSize = 200

/** A conversation as one caller sees it. */
export interface Thread {
  readonly context: ChannelContext
  readonly principal: Principal
  readonly row: ConversationRow
}

/** Which messages of a conversation, and in which order. */
export interface Wanted {
  readonly order: 'asc' | 'desc'
  /** Only those of this chat. */
  readonly chat?: string | undefined
  /** Only those in front of this message in the list, or behind this one. */
  readonly before?: string | undefined
  readonly after?: string | undefined
  readonly limit: number
}

/** A part of a conversation's messages. */
export interface MessagePage {
  readonly items: readonly JsonObject[]
  readonly hasMore: boolean
}

/**
 * What was said in a conversation: questions and answers, and nothing else.
 * @throws HubError `unknown_message` for a cursor that is no message of the conversation
 */
export async function listMessages(thread: Thread, wanted: Wanted): Promise<MessagePage> {
  const { order, chat, before, after, limit } = wanted
  const cursor = before ?? after
  // What is in front of a message is read from there backwards.
  const isBackwards = (order === 'desc') !== (before !== undefined)
  const records = recordsOf(thread, chat, isBackwards)
  const found: JsonObject[] = []
  let isPast = cursor === undefined
  for await (const message of expand(thread, records, isBackwards, cursor)) {
    if (isPast) found.push(message)
    isPast ||= message['id'] === cursor
    if (found.length > limit) break
  }
  if (!isPast) throw new HubError('unknown_message')
  const items = found.slice(0, limit)
  return { items: before === undefined ? items : items.toReversed(), hasMore: found.length > limit }
}

/** @throws HubError `unknown_message` */
export async function findMessage(thread: Thread, id: string): Promise<JsonObject> {
  const { record, part } = await locate(thread, id)
  return toMessage(thread, record, part)
}

/** What a client wants to be there instead: what it does not name stays. */
export type Edit = z.output<typeof changedMessageBody>

/**
 * Changes a message, or deletes it, and gives it as it is then, or as it was. The chat that said it stays as it was said.
 * @throws HubError `unknown_message`, `invalid_request`
 */
export async function editMessage(thread: Thread, id: string, edit: Edit | 'delete'): Promise<JsonObject> {
  const { context, principal, row } = thread
  const { record, parts, part } = await locate(thread, id)
  const { place } = part
  const changed = edit === 'delete' ? undefined : edited(part, edit)
  const rest = parts.flatMap((each) => (each.place === place ? (changed ?? []) : each))
  const set = {
    text: rest.flatMap(({ text }) => (text === '' ? [] : [text])).join('\n\n'),
    fields: { [fieldOf(place)]: changed ? toField(changed) : deleted },
  }
  await context.conversations.rewrite(principal, row.id, record, rest.length === 0 ? 'delete' : set)
  return changed ? findMessage(thread, id) : toMessage(thread, record, part)
}

/**
 * Writes messages that no chat has said behind what was said.
 * @throws HubError `invalid_request`
 */
export async function addMessages(thread: Thread, messages: readonly EnterMessage[]): Promise<readonly JsonObject[]> {
  const { context, principal, row } = thread
  const records = messages.map((message) => {
    const text = textOf(message)
    const { content, content_type: type, meta_data: metaData } = message
    const field = toField({ content, contentType: type ?? 'text', ...(metaData ? { metaData } : {}) })
    const role = message.role === 'user' ? ('user' as const) : ('bot' as const)
    return { role, text, fields: { [fieldOf('message')]: field } }
  })
  const added = await context.conversations.addRecords(principal, row.id, records)
  const parts = await Promise.all(added.map((record) => partsOf(thread, record)))
  return added.flatMap((record, index) => parts[index]!.map((part) => toMessage(thread, record, part)))
}

interface Located {
  readonly record: StoredRecord
  /** All of the record's messages. */
  readonly parts: readonly Part[]
  readonly part: Part
}

/** @throws HubError `unknown_message` */
async function locate(thread: Thread, id: string): Promise<Located> {
  const { context, principal, row } = thread
  const where = recordsWith(id)
  const records = where ? await context.conversations.recordsOf(principal, row.id, { where, limit: pageSize }) : []
  for (const record of records) {
    const parts = await partsOf(thread, record)
    const part = parts.find((each) => each.id === id)
    if (part) return { record, parts, part }
  }
  throw new HubError('unknown_message')
}

/** Where a message stands; undefined for what is no message's id. */
function recordsWith(id: string): RecordCondition | undefined {
  const turn = fromMessageId(id)?.turn
  if (turn !== undefined) return { type: 'equal', property: 'turn', value: turn }
  const record = recordOf(id)
  return record === undefined ? undefined : { type: 'equal', property: 'id', value: record }
}

/** The records of a conversation, or of one chat of it, page by page. */
async function* recordsOf(
  { context, principal, row }: Thread,
  chat: string | undefined,
  newestFirst: boolean,
): AsyncGenerator<StoredRecord> {
  const turn = chat === undefined ? undefined : (turnOfChat(chat) ?? '')
  const where = turn === undefined ? {} : { where: { type: 'equal', property: 'turn', value: turn } as const }
  // What is said meanwhile moves what comes behind it in the list.
  const seen = new Set<number>()
  for (let offset = 0, more = true; more; offset += pageSize) {
    const page = await context.conversations.recordsOf(principal, row.id, {
      ...where,
      newestFirst,
      limit: pageSize,
      offset,
    })
    yield* page.filter(({ number }) => !seen.has(number))
    for (const { number } of page) seen.add(number)
    more = page.length === pageSize
  }
}

/** The messages of records, one after the other, from the record of the cursor on. */
async function* expand(
  thread: Thread,
  records: AsyncIterable<StoredRecord>,
  isBackwards: boolean,
  cursor: string | undefined,
): AsyncGenerator<JsonObject> {
  const turn = cursor === undefined ? undefined : fromMessageId(cursor)?.turn
  const written = cursor === undefined ? undefined : recordOf(cursor)
  let isPast = cursor === undefined
  for await (const record of records) {
    isPast ||= turn === undefined ? record.id === written : record.turn === turn
    if (!isPast) continue
    const messages = (await partsOf(thread, record)).map((part) => toMessage(thread, record, part))
    yield* isBackwards ? messages.toReversed() : messages
  }
}

/** One message of a record. */
interface Part extends Content {
  readonly id: string
  /** Which one of the record's it is. */
  readonly place: string
  /** What it says to a bot. */
  readonly text: string
}

type Content = Pick<Parameters<typeof messageObject>[0], 'content' | 'contentType' | 'metaData'>

/** Says of a message of a record that its client deleted it; else its content stands there, as `Edit` has it. */
const deleted = 'deleted'
const fieldOf = (place: string): string => `coze_${place}`
const toField = ({ content, contentType, metaData }: Content): JsonObject => ({
  // Clients write no cards, so one that is there is the bot's own.
  ...(contentType === 'card' ? {} : { content, content_type: contentType }),
  ...(metaData ? { meta_data: metaData } : {}),
})

function edited(part: Part, { content, content_type: type, meta_data: metaData }: Edit): Part {
  const changed = {
    ...part,
    content: content ?? part.content,
    // Of a card that is replaced by words nothing is left.
    contentType: type ?? (content === undefined ? part.contentType : typeOf(part)),
    ...(metaData ? { metaData } : {}),
  }
  if (content === undefined && !type) return changed
  return { ...changed, text: textOf({ content: changed.content, content_type: typeOf(changed) }) }
}

const typeOf = ({ contentType }: Content) => (contentType === 'object_string' ? contentType : 'text')

/** What a record says now: what a client has made of it, else what was said. */
async function partsOf(thread: Thread, record: StoredRecord): Promise<readonly Part[]> {
  const said = recordOf(toCozeId(record.id)) === record.id ? [writtenIn(record)] : await saidIn(thread, record)
  return said.flatMap((part): readonly Part[] => {
    const found = record.fields[fieldOf(part.place)]
    if (found === deleted) return []
    const change = changedMessageBody.safeParse(found).data
    return [change ? edited(part, change) : part]
  })
}

/** What was written outside of every chat. */
function writtenIn({ id, text }: StoredRecord): Part {
  return { id: toCozeId(id), place: 'message', text, content: text, contentType: 'text' }
}

async function saidIn(thread: Thread, record: StoredRecord): Promise<readonly Part[]> {
  const turn = await turnOf(thread, record.turn)
  if (record.role === 'user') return [questionOf(record, turn)]
  const messages = turn ? (await thread.context.hub.view(turn.id)).messages : [{ id: '', text: record.text }]
  return messages.flatMap((message, index) => {
    const content = contentOf(message)
    const id = toMessageId({ turn: record.turn, kind: 'answer', number: index + 1 })
    return content.content === '' ? [] : [{ id, place: `answer_${index + 1}`, text: message.text, ...content }]
  })
}

/** Undefined when the turn is no longer kept; its records are. */
async function turnOf({ context, principal }: Thread, id: string): Promise<TurnRow | undefined> {
  try {
    return await context.hub.turn(principal, id)
  } catch (error) {
    if (error instanceof HubError && error.code === 'unknown_turn') return undefined
    throw error
  }
}

function questionOf({ turn: id, text }: StoredRecord, turn: TurnRow | undefined): Part {
  const said = turn?.message.text ?? text
  const metaData = stringsIn(turn?.message.metadata?.['message'])
  const files = filesIn(turn?.message.metadata?.['files'])
  return {
    id: toMessageId({ turn: id, kind: 'question', number: 0 }),
    place: 'question',
    text: said,
    ...(files.length === 0
      ? { content: said, contentType: 'text' }
      : {
          content: JSON.stringify([...(said === '' ? [] : [{ type: 'text', text: said }]), ...files]),
          contentType: 'object_string',
        }),
    ...(metaData ? { metaData } : {}),
  }
}

const filesIn = (ids: Json | undefined): readonly JsonObject[] =>
  Array.isArray(ids) ? ids.map((id: Json) => ({ type: 'file', file_id: id })) : []

const toMessage = (
  { row }: Thread,
  { turn, role, at, updatedAt, fields }: StoredRecord,
  { id, content, contentType, metaData, place }: Part,
): JsonObject => ({
  ...messageObject({
    conversationId: toCozeId(row.id),
    botId: row.bot ?? '',
    chatId: turn === '' ? '' : toCozeId(turn),
    role: role === 'user' ? 'user' : 'assistant',
    type: role === 'user' ? 'question' : 'answer',
    createdAt: seconds(at),
    id,
    content,
    contentType,
    ...(metaData ? { metaData } : {}),
  }),
  ...(fields[fieldOf(place)] === undefined ? {} : { updated_at: seconds(updatedAt) }),
})
