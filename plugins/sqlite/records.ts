import type {
  AcceptInput,
  Append,
  HistoryOptions,
  Page,
  PageOptions,
  RecordItem,
  TurnPage,
  TurnPageOptions,
} from '../../core/store.ts'
import type { HistoryMessage } from '../../core/message.ts'
import { recordIds } from '../../core/records.ts'
import { toPage } from './sql.ts'
import type { Sql } from './sql.ts'

/** The table of what was said: a row for the user and one for the bot, each turn. */
export class RecordTable {
  readonly #sql: Sql

  constructor(sql: Sql) {
    this.#sql = sql
  }

  /** What a turn begins with: the word of its user, or of an operator. */
  addMessage(conversation: string, number: number | bigint, { turn, message, at }: AcceptInput): void {
    const role = message.by ?? 'user'
    const ids = { ...recordIds(turn), operator: `${turn}_operator` }
    this.#sql.run(
      `INSERT INTO records (conversation, turn, turn_number, role, text, record_id, reply, at, updated_at)
       VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`,
      conversation,
      turn,
      number,
      role,
      message.text,
      ids[role],
      role === 'user' ? ids.bot : ids.operator,
      at,
      at,
    )
  }

  /** One row per turn, whatever the answer looked like; what the bot itself has written into it stays. */
  addBot({ conversation, number }: { conversation: string; number: number }, step: Append): void {
    const text = step.result?.text ?? ''
    const messages = JSON.stringify(step.result?.messages ?? [])
    const partial = Number(step.status !== 'completed')
    const early = this.#sql.run(
      `UPDATE records SET text = iif(text = '', ?, text), messages = ?, partial = ?, updated_at = ?
       WHERE conversation = ? AND turn_number = ? AND turn = ? AND role = 'bot' AND own = 1`,
      text,
      messages,
      partial,
      step.at,
      conversation,
      number,
      step.turn,
    )
    if (early.changes > 0) return
    const { bot: id } = recordIds(step.turn)
    this.#sql.run(
      `INSERT INTO records (conversation, turn, turn_number, role, text, messages, partial, record_id, reply, at, updated_at)
       VALUES (?, ?, ?, 'bot', ?, ?, ?, ?, ?, ?, ?)`,
      conversation,
      step.turn,
      number,
      text,
      messages,
      partial,
      id,
      id,
      step.at,
      step.at,
    )
  }

  list(conversation: string, { before, limit }: PageOptions): Page<RecordItem> {
    const rows = this.#sql.all<RecordColumns>(
      `SELECT number, turn, role, text, partial, at FROM records WHERE conversation = ? AND number < ?
       ORDER BY number DESC LIMIT ?`,
      conversation,
      before === undefined ? Number.MAX_SAFE_INTEGER : Number(before),
      limit + 1,
    )
    return toPage(rows, limit, (row) => String(row.number), toRecord)
  }

  byTurn(conversation: string, { after = '', limit }: TurnPageOptions): TurnPage {
    const turns = this.#sql
      .all<{ turn_number: number }>(
        `SELECT DISTINCT turn_number FROM records
         WHERE conversation = ? AND turn_number > COALESCE((SELECT number FROM turns WHERE id = ?), CAST(? AS INTEGER))
         ORDER BY turn_number LIMIT ?`,
        conversation,
        after,
        after,
        limit,
      )
      .map((row) => row.turn_number)
    const rows = this.#sql.all<RecordColumns>(
      `SELECT number, turn, role, text, partial, at FROM records
       WHERE conversation = ? AND turn_number BETWEEN ? AND ? ORDER BY turn_number, number`,
      conversation,
      turns[0] ?? 0,
      turns.at(-1) ?? 0,
    )
    return { items: rows.map(toRecord), ...(turns.length < limit ? {} : { after: String(turns.at(-1)) }) }
  }

  /** What a model is shown. */
  history(conversation: string, { limit, before, untold }: HistoryOptions): readonly HistoryMessage[] {
    // By turn and not by time: a message that had to queue comes after the answer it waited for. Where a section begins
    // is said by number; its turn only bounds how far back is looked.
    return this.#sql
      .all<HistoryMessage>(
        `SELECT role, text FROM records
         WHERE conversation = ? AND turn_number < COALESCE((SELECT number FROM turns WHERE id = ?), ${Number.MAX_SAFE_INTEGER})
           AND number > (SELECT section FROM conversations WHERE id = ?)
           AND turn_number >= COALESCE((SELECT r.turn_number FROM records r JOIN conversations c ON c.section = r.number WHERE c.id = ?), 0)
           AND partial = 0 AND text <> ''
           ${untold ? untoldSql : ''}
         ORDER BY turn_number DESC, number DESC LIMIT ?`,
        conversation,
        before ?? null,
        conversation,
        conversation,
        ...(untold ? [conversation, before ?? null] : []),
        limit,
      )
      .toReversed()
  }
}

/** Written outside of every turn, since the last one began. */
const untoldSql = `AND turn = '' AND turn_number = (
  SELECT COALESCE(MAX(number), 0) FROM turns
  WHERE conversation = ? AND number < COALESCE((SELECT number FROM turns WHERE id = ?), ${Number.MAX_SAFE_INTEGER}))`

interface RecordColumns {
  readonly number: number
  readonly turn: string
  readonly role: RecordItem['role']
  readonly text: string
  readonly partial: number
  readonly at: number
}

const toRecord = (row: RecordColumns): RecordItem => ({
  id: String(row.number),
  role: row.role,
  text: row.text,
  turn: row.turn,
  at: row.at,
  ...(row.partial ? { partial: true } : {}),
})
