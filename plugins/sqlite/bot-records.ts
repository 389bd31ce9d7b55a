import { HubError } from '../../core/errors.ts'
import { newId } from '../../core/ids.ts'
import type { JsonObject } from '../../core/message.ts'
import { recordIds } from '../../core/records.ts'
import type {
  ChangedRecords,
  FoundRecords,
  NewRecord,
  RecordChange,
  RecordCondition,
  RecordQuery,
  RecordScope,
  StoredRecord,
} from '../../core/records.ts'
import type { Owner } from '../../core/store.ts'
import { conditionSql, orderSql } from './conditions.ts'
import type { Fragment } from './conditions.ts'
import type { ConversationTable } from './conversations.ts'
import type { Sql } from './sql.ts'

interface RecordColumns {
  readonly number: number
  readonly record_id: string
  readonly conversation: string
  readonly name: string
  readonly turn: string
  readonly turn_number: number
  readonly role: StoredRecord['role']
  readonly text: string
  readonly reply: string | null
  readonly partial: number
  readonly at: number
  readonly updated_at: number
  readonly fields: string
}

/** The table of records as bots work with it: searched, and written beside what turns write. */
export class BotRecordTable {
  readonly #sql: Sql
  readonly #conversations: ConversationTable

  constructor(sql: Sql, conversations: ConversationTable) {
    this.#sql = sql
    this.#conversations = conversations
  }

  find(
    scope: RecordScope,
    { where, orderBy = [], newestFirst, limit, offset = 0, count, ...range }: RecordQuery,
  ): FoundRecords {
    const from = fromSql(scope, where, range)
    const order = orderBy.map(({ property, direction }): Fragment => {
      const { sql, values } = orderSql(property)
      return { sql: `${sql} ${direction === 'desc' ? 'DESC' : 'ASC'}`, values }
    })
    // Equal ones stay in the direction of the last wish, so that a list read backwards is the list.
    const last = (orderBy.at(-1)?.direction ?? (newestFirst ? 'desc' : 'asc')) === 'desc' ? 'DESC' : 'ASC'
    const rows = this.#sql.all<RecordColumns>(
      `SELECT records.*, c.name ${from.sql}
       ORDER BY ${[...order.map(({ sql }) => sql), `records.turn_number ${last}`, `records.number ${last}`].join(', ')}
       LIMIT ? OFFSET ?`,
      ...from.values,
      ...order.flatMap(({ values }) => values),
      limit,
      offset,
    )
    const total = count
      ? { total: this.#sql.get<{ total: number }>(`SELECT COUNT(*) AS total ${from.sql}`, ...from.values)!.total }
      : {}
    return { records: rows.map(toRecord), ...total }
  }

  add(owner: Owner, records: readonly NewRecord[], at: number): readonly StoredRecord[] {
    return records.map((record) => this.#add(owner, record, at))
  }

  #add(owner: Owner, record: NewRecord, at: number): StoredRecord {
    // One that is known by its id is for the message to claim that comes to it first.
    const conversation =
      'id' in record.conversation
        ? this.#conversations.find(owner, record.conversation)
        : this.#conversations.findOrMake(owner, record.conversation, record.newConversation, at)
    if (!conversation) throw new HubError('unknown_conversation')
    const known = record.own ? this.#own(conversation.id, record) : undefined
    if (known) {
      this.#write(known, record, at)
      return this.#get(known.number)
    }
    const ids = recordIds(record.turn)
    const id = record.id ?? (record.own && record.role !== 'operator' ? ids[record.role] : newId('record'))
    const { lastInsertRowid: number } = this.#sql.run(
      // Of a record outside of every turn it is only known that it came after the last one.
      `INSERT INTO records (conversation, turn, turn_number, role, text, partial, own, record_id, reply, fields, at, updated_at)
       VALUES (?, ?, COALESCE((SELECT number FROM turns WHERE id = ?), (SELECT MAX(turn_number) FROM records WHERE conversation = ?), 0),
         ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
      conversation.id,
      record.turn,
      record.turn,
      conversation.id,
      record.role,
      record.text,
      // The turn's own answer is not whole before its end.
      Number(record.own === true && record.role === 'bot'),
      Number(record.own === true),
      id,
      record.reply ?? (record.own ? id : null),
      JSON.stringify(record.fields),
      at,
      at,
    )
    this.#conversations.touch(conversation.id, at)
    return this.#get(Number(number))
  }

  /** The one row of a turn in its role. */
  #own(conversation: string, { turn, role }: NewRecord): RecordColumns | undefined {
    return this.#sql.get<RecordColumns>(
      `SELECT records.*, c.name FROM records JOIN conversations c ON c.id = records.conversation
       WHERE records.conversation = ? AND turn_number = (SELECT number FROM turns WHERE id = ?) AND turn = ?
         AND role = ? AND own = 1`,
      conversation,
      turn,
      turn,
      role,
    )
  }

  #get(number: number): StoredRecord {
    const row = this.#sql.get<RecordColumns>(
      'SELECT records.*, c.name FROM records JOIN conversations c ON c.id = records.conversation WHERE number = ?',
      number,
    )
    return toRecord(row!)
  }

  change(scope: RecordScope, { where, set, limit, otherwise }: RecordChange, at: number): ChangedRecords {
    const rows = this.#matching(scope, where, limit)
    for (const row of rows) this.#write(row, set, at)
    if (rows.length > 0 || !otherwise) return { changed: rows.length }
    return { changed: 0, added: this.#add(scope, otherwise, at) }
  }

  #write(row: RecordColumns, set: RecordChange['set'], at: number): void {
    this.#sql.run(
      `UPDATE records SET record_id = ?, role = ?, text = ?, reply = ?, fields = ?, updated_at = ? WHERE number = ?`,
      set.id ?? row.record_id,
      set.role ?? row.role,
      set.text ?? row.text,
      set.reply ?? row.reply,
      JSON.stringify({ ...fieldsOf(row), ...set.fields }),
      at,
      row.number,
    )
    if (set.id === undefined || set.id === row.record_id) return
    this.#sql.run(
      'UPDATE records SET reply = ? WHERE conversation = ? AND turn_number = ? AND reply = ?',
      set.id,
      row.conversation,
      row.turn_number,
      row.record_id,
    )
  }

  delete(scope: RecordScope, where: RecordCondition, limit?: number): number {
    const rows = this.#matching(scope, where, limit)
    for (const { number, conversation } of rows) {
      this.#sql.run('DELETE FROM records WHERE number = ?', number)
      // Its number may be given to a new one, which is not to be forgotten for that.
      this.#sql.run(
        'UPDATE conversations SET section = ? WHERE id = ? AND section = ?',
        number - 1,
        conversation,
        number,
      )
    }
    return rows.length
  }

  #matching(scope: RecordScope, where: RecordCondition, limit = -1): RecordColumns[] {
    const { sql, values } = fromSql(scope, where)
    return this.#sql.all<RecordColumns>(
      `SELECT records.*, c.name ${sql} ORDER BY records.turn_number, records.number LIMIT ?`,
      ...values,
      limit,
    )
  }
}

function fromSql(
  { bot, key, user, conversation }: RecordScope,
  where?: RecordCondition,
  { upTo, remembered }: Pick<RecordQuery, 'upTo' | 'remembered'> = {},
): Fragment {
  const condition = where ? conditionSql(where) : { sql: '1', values: [] }
  return {
    sql: `FROM conversations c JOIN records ON records.conversation = c.id
      WHERE c.bot = ? AND c.key = ? AND ${conversation === undefined ? 'c.user = ?' : 'c.id = ?'}
        ${upTo === undefined ? '' : 'AND records.turn_number <= (SELECT number FROM turns WHERE id = ?)'}
        ${remembered ? 'AND records.number > c.section' : ''}
        AND ${condition.sql}`,
    values: [bot, key, conversation ?? user ?? '', ...(upTo === undefined ? [] : [upTo]), ...condition.values],
  }
}

const toRecord = (row: RecordColumns): StoredRecord => ({
  number: row.number,
  id: row.record_id,
  conversation: { id: row.conversation, name: row.name },
  turn: row.turn,
  role: row.role,
  text: row.text,
  ...(row.reply === null ? {} : { reply: row.reply }),
  ...(row.partial ? { partial: true } : {}),
  at: row.at,
  updatedAt: row.updated_at,
  fields: fieldsOf(row),
})

const fieldsOf = ({ fields }: RecordColumns): JsonObject => JSON.parse(fields) as JsonObject
