import { randomBytes } from 'node:crypto'
import { HubError } from '../../core/errors.ts'
import type { Json, JsonObject } from '../../core/message.ts'
import type { StoredRecord } from '../../core/records.ts'
import type { Turn } from '../../core/turn.ts'
import type { BotHost, BotLogger } from './bot-host.ts'
import { ChatRecordModel } from './chat-record.ts'
import type { DataModelMethods, Reply } from './chat-record.ts'
import { toHistoryMessages } from './history-messages.ts'
import type { ChatMessage } from './history-messages.ts'
import { sentEvents } from './sent-events.ts'
import { aiTools } from './tools.ts'
import type { AITools } from './tools.ts'
import { roleWords, toChatRecord, toRecordItem } from './wire.ts'
import type { ChatRecord, FoundChatRecord } from './wire.ts'

export type { ChatMessage } from './history-messages.ts'
export type { DataModelMethods, Filter, ListOptions } from './chat-record.ts'
export type { FieldCondition, Where } from './where.ts'
export type { ChatRecord, FoundChatRecord } from './wire.ts'
export type { AITools } from './tools.ts'

/** The most that one turn may send, in characters; the hub would keep no more of it. */
const maxSent = 16 * 1_048_576

/**
 * What the hub hands to a bot's constructor: what is known of the request, in the words of CloudBase's functions, and
 * the hub's own turn.
 */
export interface BotContext {
  /** The turn's id, or that of the call. */
  readonly eventID: string
  readonly eventType: string
  /** Milliseconds since the epoch. */
  readonly timestamp: number
  /** What a request to CloudBase would look like; there are no headers, for they are the channel's. */
  readonly httpContext: {
    readonly url: string
    readonly httpMethod: string
    readonly headers: Readonly<Record<string, string>>
  }
  readonly extendedContext: { readonly envId: string; readonly userId: string }
  /** The bot's name in the config. */
  readonly botId: string
  /** The turn that is answered; undefined in a method that answers no message. */
  readonly turn?: Turn
  /** Aborts when nobody waits for the bot any more. */
  readonly signal: AbortSignal
  readonly logger: BotLogger
  /** What `BotCore` stands on; its members may change. */
  readonly host: BotHost
}

/** A class on `BotCore`; the hub makes one object for each turn, and for each call of another method. */
export type BotClass = new (context: BotContext) => BotCore

/** What `sendMessage` is called with: what CloudBase calls it with, and everything else in the message's `payload`. */
export interface SendMessageInput {
  readonly msg: string
  /** Earlier messages: the hub's, unless the client brought its own. */
  readonly history: readonly ChatMessage[]
  readonly conversationId: string
  readonly [field: string]: unknown
}

/** Streams an answer to the client. */
export interface SSESender {
  /**
   * Adds to the answer: `content` is the next piece of it, `reasoning_content` of the thinking before it. Text and bytes
   * that are server-sent events already, and arrays of all these, are taken too.
   * @throws HubError `answer_too_large` past 16 MiB
   */
  send(event: { readonly data: SentData | string } | string | Uint8Array | readonly unknown[]): void
  /** The answer is whole. What the bot does after it is waited for, what it sends after it is dropped. */
  end(): void
}

/** One event of an answer. Everything may be left out; without a `type` it is `text`. */
export interface SentData {
  readonly type?: string
  readonly content?: string
  readonly reasoning_content?: string
  readonly [field: string]: unknown
}

/** The methods that a bot may have beside `sendMessage`; what they return is answered as JSON. */
export interface IBot {
  sendMessage(input: SendMessageInput): Promise<void> | void
  /** Answers through `sseSender`, a question a line. */
  getRecommendQuestions?(input: JsonObject): Promise<void> | void
  getBotInfo?(input: JsonObject): unknown
  getChatRecords?(input: JsonObject): unknown
  sendFeedback?(input: JsonObject): unknown
  getFeedback?(input: JsonObject): unknown
  wxSendMessage?(input: JsonObject): unknown
  speechToText?(input: JsonObject): unknown
  textToSpeech?(input: JsonObject): unknown
  getTextToSpeechResult?(input: JsonObject): unknown
  createConversation?(input: JsonObject): unknown
  getConversation?(input: JsonObject): unknown
  updateConversation?(input: JsonObject): unknown
  deleteConversation?(input: JsonObject): unknown
}

/** Which earlier messages are wanted. */
export interface HistoryOptions {
  /** How many records are read, so there may be fewer messages. Default 10. */
  readonly size?: number
  /** Whether a message of the user that has no answer yet is left out at the end. Default true. */
  readonly removeLastUser?: boolean
}

/** The two records of an exchange. */
export interface RecordPair {
  readonly userRecord: FoundChatRecord
  readonly botRecord: FoundChatRecord
  /** Writes the answer into the bot's record. */
  updateBotRecord(data: ChatRecord): Promise<Reply<{ readonly count: number }>>
}

/** Which page of the records is wanted. */
export interface ChatRecordsQuery {
  /** By time; default `desc`. */
  readonly sort?: string
  readonly pageSize?: number | string
  /** From 1. */
  readonly pageNumber?: number | string
  /** The name of a conversation; default: the one that is going on, else all. */
  readonly conversationId?: string
}

/**
 * A base class with the interface of Tencent CloudBase's function-type agents: extend it, and answer in `sendMessage`
 * through `this.sseSender`. Source of the interface: docs.cloudbase.net, "BotCore".
 * @example
 * class MyBot extends BotCore {
 *   async sendMessage({ msg }) {
 *     this.sseSender.send({ data: { content: `You said ${msg}` } })
 *     this.sseSender.end()
 *   }
 * }
 */
export abstract class BotCore implements IBot {
  /** Tells a class on it, also where this module is there twice. */
  static readonly isBotCore = Symbol.for('bothub.BotCore')

  readonly context: BotContext
  readonly sseSender: SSESender
  /** The records of this bot and the user it speaks with. */
  readonly chatRecord: DataModelMethods
  /** What CloudBase has ready for bots; here, the functions that `local()` was given. */
  readonly tools: AITools
  /** Accepted, and without a meaning here: there is one table of records. */
  readonly chatRecordDataModelKey: string | undefined
  readonly #records: ChatRecordModel
  #sent = 0
  #ended = false

  constructor(context: BotContext, option: { readonly chatRecordDataModelKey?: string } = {}) {
    this.context = context
    this.chatRecordDataModelKey = option.chatRecordDataModelKey
    this.sseSender = { send: (event) => this.#send(event), end: () => this.#end() }
    this.#records = new ChatRecordModel(context.host, context.botId)
    this.chatRecord = this.#records
    this.tools = aiTools(context.host)
  }

  abstract sendMessage(input: SendMessageInput): Promise<void> | void

  /** The bot's name in the config. */
  get botId(): string {
    return this.context.botId
  }

  /** The third part of an id like `ibot-name-tag`; for other names the name itself. */
  get botTag(): string {
    return this.botId.split('-')[2] ?? this.botId
  }

  /** @throws HubError `unsupported`: there is no CloudBase environment here */
  get tcb(): never {
    throw new HubError('unsupported', { message: 'There is no CloudBase environment behind this bot.' })
  }

  /**
   * The two records of this exchange: the user's, which is there already, and the bot's, made now. What is written with
   * `updateBotRecord` stays; without it the bot's record gets what was sent.
   */
  async createRecordPair(_given: { readonly userContent: string }): Promise<RecordPair> {
    const { user, bot } = await this.#records.pair()
    return {
      userRecord: this.#found(user),
      botRecord: this.#found(bot),
      updateBotRecord: (data) =>
        this.chatRecord.update({ data, filter: { where: { _id: { $eq: String(bot.number) } } } }),
    }
  }

  /** A complete record by the user, which `chatRecord.create` stores; `reply` is the `record_id` of its answer. */
  createUserRecord({ record }: { readonly record: ChatRecord }): ChatRecord {
    return { ...this.#blank(), role: roleWords.user, ...record }
  }

  /** A complete record by the bot, which `chatRecord.create` stores. */
  createBotRecord({ record }: { readonly record: ChatRecord }): ChatRecord {
    const blank = this.#blank()
    return { ...blank, role: roleWords.bot, reply: record.record_id ?? blank.record_id!, ...record }
  }

  /**
   * Earlier messages of this conversation, oldest first: it starts with the user, alternates, holds nothing empty, and
   * ends with the bot unless `removeLastUser` is false.
   */
  async getHistoryMessages({ size = 10, removeLastUser = true }: HistoryOptions = {}): Promise<ChatMessage[]> {
    const { conversation, turn, records } = this.context.host
    if (!conversation || size < 1) return []
    const upTo = turn ? { upTo: turn.id } : {}
    const query = { limit: Math.trunc(size), newestFirst: true, remembered: true, ...upTo }
    const found = await records.find(query, conversation.id)
    return toHistoryMessages(found.records.toReversed().flatMap(toChatMessage), removeLastUser)
  }

  /** The same: CloudBase's documentation calls it so once. */
  getHistoryMessage(options?: HistoryOptions): Promise<ChatMessage[]> {
    return this.getHistoryMessages(options)
  }

  /** A page of the records, as `GET …/records` answers. */
  async getChatRecords(query: ChatRecordsQuery = {}): Promise<{ recordList: JsonObject[]; total: number }> {
    const conversation = query.conversationId ?? this.context.host.conversation?.name
    const { data } = await this.chatRecord.list({
      getCount: true,
      pageSize: wholeNumber(query.pageSize, 10),
      pageNumber: wholeNumber(query.pageNumber, 1),
      orderBy: [{ createdAt: query.sort === 'asc' ? 'asc' : 'desc' }],
      ...(conversation === undefined ? {} : { filter: { where: { conversation: { $eq: conversation } } } }),
    })
    return { recordList: data.records.map(toRecordItem), total: data.total ?? 0 }
  }

  #send(event: unknown): void {
    if (this.#ended) {
      this.context.logger.warn({}, 'dropped what the bot sent after sseSender.end()')
      return
    }
    for (const sent of sentEvents(event)) {
      if (typeof sent !== 'string' && sent.type === 'end') return this.#end()
      if (typeof sent !== 'string' && sent.type === 'fail') {
        this.#ended = true
        return this.context.host.fail(sent.error)
      }
      this.#sent += typeof sent === 'string' ? sent.length : 'text' in sent ? (sent.text?.length ?? 0) : 0
      // Thrown here, so that a bot that never stops sending stops.
      if (this.#sent > maxSent) throw new HubError('answer_too_large')
      this.context.host.say(sent)
    }
  }

  #end(): void {
    this.#ended = true
    this.context.host.end()
  }

  #found(record: StoredRecord): FoundChatRecord {
    return toChatRecord(record, { botId: this.botId, sender: this.context.host.sender })
  }

  #blank(): ChatRecord {
    const { conversation, sender } = this.context.host
    return {
      bot_id: this.botId,
      record_id: `record-${randomBytes(6).toString('hex')}`,
      content: '',
      type: 'text',
      sender,
      trigger_src: 'TCB',
      ...(conversation ? { conversation: conversation.name } : {}),
    }
  }
}

/** The names a bot's methods are called by from outside, beside `sendMessage` and `getRecommendQuestions`. */
export const botMethods = [
  'getBotInfo',
  'getChatRecords',
  'sendFeedback',
  'getFeedback',
  'wxSendMessage',
  'speechToText',
  'textToSpeech',
  'getTextToSpeechResult',
  'createConversation',
  'getConversation',
  'updateConversation',
  'deleteConversation',
] as const satisfies readonly (keyof IBot)[]

/** A record answered by push keeps its words in `async_reply`. */
function toChatMessage({ role, text, partial, fields }: StoredRecord): ChatMessage[] {
  if (partial) return []
  const pushed: Json | undefined = fields['need_async_reply'] === true ? fields['async_reply'] : undefined
  const content = typeof pushed === 'string' ? pushed : text
  return [{ role: role === 'user' ? 'user' : 'assistant', content }]
}

/** A query's number may come as text. */
function wholeNumber(given: number | string | undefined, otherwise: number): number {
  const number = Number(given ?? otherwise)
  return Number.isInteger(number) && number > 0 ? number : otherwise
}
