import type { Principal } from '../../core/auth.ts'
import type { ChannelContext } from '../../core/channel.ts'
import { HubError } from '../../core/errors.ts'
import type { Json, JsonObject } from '../../core/message.ts'
import type { ConversationRow, RecordItem, TurnRow } from '../../core/store.ts'
import { messageObject } from '../../plugins/coze/wire.ts'
import { contentOf, seconds, stringsIn } from './encode.ts'
import { fromMessageId, toCozeId, toMessageId, turnOfChat } from './ids.ts'

/** How many records of a conversation are looked at: the newest. */
const maxRecords = 1000
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
  const records = await recordsOf(thread, chat)
  const cursor = before ?? after
  // What is in front of a message is read from there backwards.
  const isBackwards = (order === 'desc') !== (before !== undefined)
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
  const place = fromMessageId(id)
  const records = place ? (await recordsOf(thread, undefined)).filter(({ turn }) => turn === place.turn) : []
  for await (const message of expand(thread, records, false, undefined)) {
    if (message['id'] === id) return message
  }
  throw new HubError('unknown_message')
}

/** Oldest first. */
async function recordsOf({ context, principal, row }: Thread, chat: string | undefined): Promise<RecordItem[]> {
  const { bot } = row
  if (bot === undefined) return []
  const items: RecordItem[] = []
  for (let before: string | undefined; items.length < maxRecords;) {
    const page = await context.conversations.records(principal, bot, row.id, {
      limit: pageSize,
      ...(before === undefined ? {} : { before }),
    })
    items.unshift(...page.items)
    before = page.before
    if (before === undefined) break
  }
  return chat === undefined ? items : items.filter(({ turn }) => turn === turnOfChat(chat))
}

/** The messages of records, one after the other, and of the turns behind the cursor's only. */
async function* expand(
  thread: Thread,
  records: readonly RecordItem[],
  isBackwards: boolean,
  cursor: string | undefined,
): AsyncGenerator<JsonObject> {
  const ordered = isBackwards ? records.toReversed() : records
  const turn = cursor === undefined ? undefined : fromMessageId(cursor)?.turn
  const from = cursor === undefined ? 0 : ordered.findIndex((record) => record.turn === turn)
  if (from < 0) return
  for (const record of ordered.slice(from)) {
    const messages = await messagesIn(thread, record)
    yield* isBackwards ? messages.toReversed() : messages
  }
}

async function messagesIn(thread: Thread, record: RecordItem): Promise<readonly JsonObject[]> {
  const turn = await turnOf(thread, record.turn)
  if (record.role === 'user') return [questionOf(thread, record, turn)]
  const said = turn ? (await thread.context.hub.view(turn.id)).messages : [{ id: '', text: record.text }]
  return said.flatMap((message, index) => {
    const content = contentOf(message)
    const id = toMessageId({ turn: record.turn, kind: 'answer', number: index + 1 })
    return content.content === '' ? [] : [toMessage(thread, record, { id, type: 'answer', ...content })]
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

function questionOf(thread: Thread, record: RecordItem, turn: TurnRow | undefined): JsonObject {
  const { text } = record
  const metaData = stringsIn(turn?.message.metadata?.['message'])
  const files = filesIn(turn?.message.metadata?.['files'])
  return toMessage(thread, record, {
    id: toMessageId({ turn: record.turn, kind: 'question', number: 0 }),
    type: 'question',
    ...(files.length === 0
      ? { content: text, contentType: 'text' }
      : {
          content: JSON.stringify([...(text === '' ? [] : [{ type: 'text', text }]), ...files]),
          contentType: 'object_string',
        }),
    ...(metaData ? { metaData } : {}),
  })
}

const filesIn = (ids: Json | undefined): readonly JsonObject[] =>
  Array.isArray(ids) ? ids.map((id: Json) => ({ type: 'file', file_id: id })) : []

const toMessage = (
  { row }: Thread,
  { turn, role, at }: RecordItem,
  message: Pick<Parameters<typeof messageObject>[0], 'id' | 'type' | 'content' | 'contentType' | 'metaData'>,
): JsonObject =>
  messageObject({
    conversationId: toCozeId(row.id),
    botId: row.bot ?? '',
    chatId: toCozeId(turn),
    role: role === 'user' ? 'user' : 'assistant',
    createdAt: seconds(at),
    ...message,
  })
