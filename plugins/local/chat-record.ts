import { HubError } from '../../core/errors.ts'
import type { Json, JsonObject } from '../../core/message.ts'
import { anyRecord } from '../../core/records.ts'
import type { RecordChange, RecordCondition, RecordQuery, StoredRecord } from '../../core/records.ts'
import type { BotHost, BotRecord } from './bot-host.ts'
import { toCondition } from './where.ts'
import type { Where } from './where.ts'
import { isWritable, propertyOf, roleOf, toChatRecord } from './wire.ts'
import type { ChatRecord, FoundChatRecord, RecordOwner } from './wire.ts'

/** Which records a call is about. */
export interface Filter {
  readonly where: Where
}

/** Which records are listed. */
export interface ListOptions {
  readonly filter?: { readonly where?: Where }
  /** `$master: true`, or the fields that are wanted. */
  readonly select?: Readonly<Record<string, unknown>>
  /** Says `total` too. */
  readonly getCount?: boolean
  /** Default 10. */
  readonly pageSize?: number
  /** From 1. */
  readonly pageNumber?: number
  /** At most three, the first weighs most. Default: as they were said. */
  readonly orderBy?: readonly Direction[] | Direction
}

type Direction = Readonly<Record<string, 'asc' | 'desc'>>

/** What every method of a data model resolves to. */
export interface Reply<Result> {
  readonly data: Result
}

/**
 * The records that a bot shares with the user it speaks with, as a data model of CloudBase: the same table that the
 * hub's history is. `envType` is accepted and means nothing here.
 */
export interface DataModelMethods {
  create(given: { readonly data: ChatRecord }): Promise<Reply<{ readonly id: string }>>
  createMany(given: { readonly data: readonly ChatRecord[] }): Promise<Reply<{ readonly idList: readonly string[] }>>
  /** Changes the first record that matches. */
  update(given: { readonly data: ChatRecord; readonly filter: Filter }): Promise<Reply<{ readonly count: number }>>
  updateMany(given: { readonly data: ChatRecord; readonly filter: Filter }): Promise<Reply<{ readonly count: number }>>
  /** A count that is not 0 says that a record was changed, an id that is not empty that one was made. */
  upsert(given: {
    readonly filter: Filter
    readonly update: ChatRecord
    readonly create: ChatRecord
  }): Promise<Reply<{ readonly count: number; readonly id: string }>>
  /** Deletes the first record that matches. */
  delete(given: { readonly filter: Filter }): Promise<Reply<{ readonly count: number }>>
  deleteMany(given: { readonly filter: Filter }): Promise<Reply<{ readonly count: number }>>
  /** The first record that matches; an empty object where none does. */
  get(given: {
    readonly filter: Filter
    readonly select?: ListOptions['select']
  }): Promise<Reply<Partial<FoundChatRecord>>>
  list(given?: ListOptions): Promise<Reply<{ readonly records: FoundChatRecord[]; readonly total?: number }>>
  /** @throws HubError `unsupported`: there is no SQL behind records here */
  runSQLTemplate(given?: unknown): Promise<never>
}

const maxPageSize = 10_000
const maxOrders = 3

/** The data model on what one object of a bot stands on. */
export class ChatRecordModel implements DataModelMethods {
  readonly #host: BotHost
  readonly #owner: RecordOwner
  /** Which of its turn's own two records this bot has written itself. */
  readonly #written = new Set<'user' | 'bot'>()

  constructor(host: BotHost, botId: string) {
    this.#host = host
    this.#owner = { botId, sender: host.sender }
  }

  async create({ data }: { readonly data: ChatRecord }): Promise<Reply<{ readonly id: string }>> {
    const [record] = await this.#host.records.add([this.#toNew(data)])
    return { data: { id: String(record!.number) } }
  }

  async createMany({ data }: { readonly data: readonly ChatRecord[] }): Promise<Reply<{ idList: string[] }>> {
    if (!Array.isArray(data) || data.length === 0) throw new TypeError('createMany takes one record at least')
    const filled = data.filter((each: ChatRecord) => Object.keys(each).length > 0)
    const records = await this.#host.records.add(filled.map((each: ChatRecord) => this.#toNew(each)))
    return { data: { idList: records.map(({ number }) => String(number)) } }
  }

  update(given: { readonly data: ChatRecord; readonly filter: Filter }): Promise<Reply<{ count: number }>> {
    return this.#change(given.data, given.filter, 1)
  }

  updateMany(given: { readonly data: ChatRecord; readonly filter: Filter }): Promise<Reply<{ count: number }>> {
    return this.#change(given.data, given.filter)
  }

  async upsert(given: {
    readonly filter: Filter
    readonly update: ChatRecord
    readonly create: ChatRecord
  }): Promise<Reply<{ count: number; id: string }>> {
    const { changed, added } = await this.#host.records.change({
      where: this.#where(given.filter),
      set: this.#toSet(given.update),
      limit: 1,
      otherwise: this.#toNew(given.create),
    })
    return { data: { count: changed, id: added ? String(added.number) : '' } }
  }

  async delete({ filter }: { readonly filter: Filter }): Promise<Reply<{ count: number }>> {
    return { data: { count: await this.#host.records.delete(this.#where(filter), 1) } }
  }

  async deleteMany({ filter }: { readonly filter: Filter }): Promise<Reply<{ count: number }>> {
    return { data: { count: await this.#host.records.delete(this.#where(filter)) } }
  }

  async get(given: {
    readonly filter: Filter
    readonly select?: ListOptions['select']
  }): Promise<Reply<Partial<FoundChatRecord>>> {
    const { records } = await this.#host.records.find({ where: this.#where(given.filter), limit: 1 })
    const [record] = records.map((each) => this.#toFound(each, given.select))
    return { data: record ?? {} }
  }

  async list(given: ListOptions = {}): Promise<Reply<{ records: FoundChatRecord[]; total?: number }>> {
    const { records, total } = await this.#host.records.find(this.#toQuery(given))
    const found = records.map((each) => this.#toFound(each, given.select))
    return { data: { records: found, ...(total === undefined ? {} : { total }) } }
  }

  async runSQLTemplate(): Promise<never> {
    throw new HubError('unsupported', { message: 'Records are not kept in a database that bots can send SQL to.' })
  }

  async #change(data: ChatRecord, filter: Filter, limit?: number): Promise<Reply<{ count: number }>> {
    const { changed } = await this.#host.records.change({
      where: this.#where(filter),
      set: this.#toSet(data),
      ...(limit === undefined ? {} : { limit }),
    })
    return { data: { count: changed } }
  }

  #where(filter: Filter | undefined): RecordCondition {
    // `{ where: {} }` says all records, and means it; nothing at all was forgotten.
    if (!filter?.where) throw new TypeError('say which records: `filter: { where: { … } }`')
    return toCondition(filter.where, this.#owner)
  }

  #toQuery({ filter, getCount, pageSize = 10, pageNumber = 1, orderBy = [] }: ListOptions): RecordQuery {
    if (!Number.isInteger(pageSize) || pageSize < 1 || pageSize > maxPageSize) {
      throw new TypeError(`pageSize is a whole number from 1 to ${maxPageSize}`)
    }
    if (!Number.isInteger(pageNumber) || pageNumber < 1) throw new TypeError('pageNumber is a whole number from 1')
    const orders = (Array.isArray(orderBy) ? orderBy : [orderBy]).flatMap((each: Direction) => Object.entries(each))
    if (orders.length > maxOrders) throw new TypeError(`orderBy takes ${maxOrders} fields at most`)
    return {
      where: filter?.where ? toCondition(filter.where, this.#owner) : anyRecord,
      orderBy: orders.map(([field, direction]) => ({ property: propertyOf(field, this.#owner), direction })),
      limit: pageSize,
      offset: (pageNumber - 1) * pageSize,
      ...(getCount ? { count: true } : {}),
    }
  }

  #toFound(record: StoredRecord, select: ListOptions['select']): FoundChatRecord {
    const found = toChatRecord(record, this.#owner)
    if (!select || select['$master']) return found
    const wanted = Object.entries(found).filter(([field]) => field === '_id' || select[field])
    // What was not asked for is not there; the type says what there is when all is.
    return Object.fromEntries(wanted) as FoundChatRecord
  }

  /**
   * A bot that stores the exchange by itself means the two records that its turn has anyway: what the user said, in
   * those words, and its first answer.
   */
  #toNew(given: ChatRecord): BotRecord {
    const { id, role = 'bot', text = '', reply, fields = {} } = this.#toSet(given)
    const { turn } = this.#host
    const conversation = this.#conversationOf(given)
    const inTurn = turn !== undefined && 'id' in conversation && conversation.id === this.#host.conversation?.id
    const own = inTurn && role !== 'operator' && !this.#written.has(role) && (role === 'bot' || text === turn.text)
    if (own) this.#written.add(role)
    return {
      conversation,
      turn: turn?.id ?? '',
      role,
      text,
      fields,
      ...(id === undefined ? {} : { id }),
      ...(reply === undefined ? {} : { reply }),
      ...(own ? { own } : {}),
    }
  }

  /** The turn's own two records: the user's as it is, and the bot's, made now if it is not there. */
  async pair(): Promise<{ readonly user: StoredRecord; readonly bot: StoredRecord }> {
    const { turn, conversation } = this.#host
    if (!turn || !conversation) throw new HubError('unsupported', { message: 'Records come in pairs within a turn.' })
    const own = { turn: turn.id, own: true, conversation: { id: conversation.id }, fields: {} }
    const [user, bot] = await this.#host.records.add([
      { ...own, role: 'user', text: turn.text },
      { ...own, role: 'bot', text: '' },
    ])
    this.#written.add('user').add('bot')
    return { user: user!, bot: bot! }
  }

  #conversationOf({ conversation }: ChatRecord): BotRecord['conversation'] {
    const here = this.#host.conversation
    if (conversation === undefined || conversation === '') {
      if (here) return { id: here.id }
      throw new TypeError('say which `conversation` the record belongs to')
    }
    if (conversation === here?.name || conversation === here?.id) return { id: here.id }
    // By name, which is one of this user's; an id would be open to all users of a key.
    return { name: conversation }
  }

  #toSet(data: ChatRecord): RecordChange['set'] {
    const { record_id: id, role, content, reply, conversation: _, ...rest } = data
    const known = role === undefined ? undefined : roleOf(role)
    if (role !== undefined && !known) {
      throw new TypeError(`a record has the role "user", "assistant" or "operator", not ${JSON.stringify(role)}`)
    }
    const fields = Object.entries(rest).filter(([field, value]) => isWritable(field, value))
    for (const [field] of fields) propertyOf(field, this.#owner)
    return {
      fields: toJson(Object.fromEntries(fields)),
      ...(id === undefined ? {} : { id }),
      ...(known ? { role: known } : {}),
      ...(content === undefined ? {} : { text: content }),
      ...(reply === undefined ? {} : { reply }),
    }
  }
}

const toJson = (fields: Readonly<Record<string, Json | undefined>>): JsonObject =>
  JSON.parse(JSON.stringify(fields)) as JsonObject
