import type { FeedbackItem, NewFeedback, Owner, Page, PageOptions } from '../../core/store.ts'
import { toPage } from './sql.ts'
import type { Sql } from './sql.ts'

/** The table of what people think of answers: one row for each message and speaker. */
export class FeedbackTable {
  readonly #sql: Sql

  constructor(sql: Sql) {
    this.#sql = sql
  }

  add(feedback: NewFeedback, at: number): FeedbackItem {
    const { conversation, turn, message, speaker = '', verdict, comment, rating, tags } = feedback
    const { lastInsertRowid } = this.#sql.run(
      `REPLACE INTO feedback (conversation, turn, message, speaker, verdict, comment, rating, tags, at)
       VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`,
      conversation,
      turn,
      message,
      speaker,
      verdict,
      comment ?? null,
      rating ?? null,
      tags ? JSON.stringify(tags) : null,
      at,
    )
    return { ...feedback, id: String(lastInsertRowid), at }
  }

  page(of: { readonly turn: string } | Owner, { before, limit }: PageOptions): Page<FeedbackItem> {
    const place = before === undefined ? Number.MAX_SAFE_INTEGER : Number(before)
    const rows =
      'turn' in of
        ? this.#sql.all<FeedbackColumns>(
            'SELECT * FROM feedback WHERE turn = ? AND number < ? ORDER BY number DESC LIMIT ?',
            of.turn,
            place,
            limit + 1,
          )
        : this.#sql.all<FeedbackColumns>(
            `SELECT feedback.* FROM feedback JOIN conversations c ON c.id = feedback.conversation
             WHERE c.bot = ? AND c.key = ? AND c.user = ? AND feedback.number < ? ORDER BY feedback.number DESC LIMIT ?`,
            of.bot,
            of.key,
            of.user ?? '',
            place,
            limit + 1,
          )
    return toPage(rows, limit, (row) => String(row.number), toFeedback)
  }
}

interface FeedbackColumns {
  readonly number: number
  readonly conversation: string
  readonly turn: string
  readonly message: string
  readonly speaker: string
  readonly verdict: FeedbackItem['verdict']
  readonly comment: string | null
  readonly rating: number | null
  readonly tags: string | null
  readonly at: number
}

const toFeedback = (row: FeedbackColumns): FeedbackItem => ({
  id: String(row.number),
  conversation: row.conversation,
  turn: row.turn,
  message: row.message,
  ...(row.speaker === '' ? {} : { speaker: row.speaker }),
  verdict: row.verdict,
  ...(row.comment === null ? {} : { comment: row.comment }),
  ...(row.rating === null ? {} : { rating: row.rating }),
  ...(row.tags === null ? {} : { tags: JSON.parse(row.tags) as readonly string[] }),
  at: row.at,
})
