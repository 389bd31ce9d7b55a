import type { Append, Delivery, DeliveryState } from '../../core/store.ts'
import type { Sql } from './sql.ts'

/** The tables of what is owed to whom, and of what is on its way there. */
export class OutboxTable {
  readonly #sql: Sql

  constructor(sql: Sql) {
    this.#sql = sql
  }

  /** A channel is owed the end of a turn; false when it was already. */
  owe(turn: number | bigint, channel: string): boolean {
    return this.#sql.run('INSERT OR IGNORE INTO owed (turn, channel) VALUES (?, ?)', turn, channel).changes > 0
  }

  /** In the commit of the event they tell of, for every channel that is owed it. */
  addAll(number: number, step: Append): number {
    const owed = this.#sql.all<{ channel: string }>('SELECT channel FROM owed WHERE turn = ?', number)
    const last = step.events.at(-1)
    if (last) for (const { channel } of owed) this.add(step.turn, channel, last, step.at)
    return owed.length
  }

  /** What tells one channel of one event. */
  add(turn: string, channel: string, event: { readonly seq: number; readonly type: string }, at: number): void {
    this.#sql.run(
      'INSERT INTO outbox (id, channel, turn, type, at, next_at) VALUES (?, ?, ?, ?, ?, ?)',
      `${turn}_${event.seq}_${channel}`,
      channel,
      turn,
      event.type,
      at,
      at,
    )
  }

  due(now: number, underWay: readonly string[]): { due: readonly Delivery[]; nextAt?: number } {
    const due = this.#sql.all<Delivery>(
      // A few of each channel, so that one with many dead ones, or one that is gone, hides nobody else's.
      `SELECT id, channel, turn, type, at, attempts FROM (
         SELECT *, ROW_NUMBER() OVER (PARTITION BY channel ORDER BY number) AS place FROM outbox
         WHERE state = 'pending' AND next_at <= ? AND id NOT IN (SELECT value FROM json_each(?)))
       WHERE place <= 10 ORDER BY number`,
      now,
      JSON.stringify(underWay),
    )
    const next = this.#sql.get<{ at: number | null }>(
      `SELECT MIN(next_at) AS at FROM outbox WHERE state = 'pending' AND next_at > ?`,
      now,
    )
    return { due, ...(next?.at ? { nextAt: next.at } : {}) }
  }

  settle(id: string, settled: DeliveryState): void {
    this.#sql.run(
      'UPDATE outbox SET state = ?, attempts = attempts + 1, next_at = COALESCE(?, next_at) WHERE id = ?',
      settled.state,
      settled.state === 'pending' ? settled.retryAt : null,
      id,
    )
  }

  /** How many deliveries have not arrived. */
  pending(): number {
    return this.#sql.get<{ pending: number }>(`SELECT COUNT(*) AS pending FROM outbox WHERE state = 'pending'`)!.pending
  }
}
