import type { Append, Delivery, DeliveryState, Lane } from '../../core/store.ts'
import type { Json } from '../../core/message.ts'
import type { Sql } from './sql.ts'

/** The tables of what is owed to whom, and of what is on its way there. */
export class OutboxTable {
  readonly #sql: Sql

  constructor(sql: Sql) {
    this.#sql = sql
  }

  /** Somebody is owed the end of a turn; false when it was already. */
  owe(turn: number | bigint, lane: Lane): boolean {
    return this.#sql.run('INSERT OR IGNORE INTO owed (turn, lane) VALUES (?, ?)', turn, lane).changes > 0
  }

  /** In the commit of the event they tell of, for everybody who is owed it. */
  addAll(number: number, step: Append): number {
    const owed = this.#sql.all<{ lane: Lane }>('SELECT lane FROM owed WHERE turn = ?', number)
    const last = step.events.at(-1)
    if (last) for (const { lane } of owed) this.add(toDelivery(step.turn, lane, last, step.at))
    return owed.length
  }

  add({ id, lane, type, turn, payload, at }: Omit<Delivery, 'attempts'>): void {
    this.#sql.run(
      'INSERT INTO outbox (id, lane, type, turn, payload, at, next_at) VALUES (?, ?, ?, ?, ?, ?, ?)',
      id,
      lane,
      type,
      turn ?? null,
      payload === undefined ? null : JSON.stringify(payload),
      at,
      at,
    )
  }

  due(now: number, underWay: readonly string[]): { due: readonly Delivery[]; nextAt?: number } {
    const due = this.#sql.all<DeliveryColumns>(
      // A few of each lane, so that one with many dead ones, or one that is gone, hides nobody else's.
      `SELECT id, lane, type, turn, payload, at, attempts FROM (
         SELECT *, ROW_NUMBER() OVER (PARTITION BY lane ORDER BY number) AS place FROM outbox
         WHERE state = 'pending' AND next_at <= ? AND id NOT IN (SELECT value FROM json_each(?)))
       WHERE place <= 10 ORDER BY number`,
      now,
      JSON.stringify(underWay),
    )
    const next = this.#sql.get<{ at: number | null }>(
      `SELECT MIN(next_at) AS at FROM outbox WHERE state = 'pending' AND next_at > ?`,
      now,
    )
    return { due: due.map(fromColumns), ...(next?.at ? { nextAt: next.at } : {}) }
  }

  settle(id: string, settled: DeliveryState): void {
    // What tells of a turn is kept with it, to be looked up; of anything else nothing is left to look up.
    if (settled.state === 'delivered') this.#sql.run('DELETE FROM outbox WHERE id = ? AND turn IS NULL', id)
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

interface DeliveryColumns extends Omit<Delivery, 'turn' | 'payload'> {
  readonly turn: string | null
  readonly payload: string | null
}

const fromColumns = ({ turn, payload, ...row }: DeliveryColumns): Delivery => ({
  ...row,
  ...(turn === null ? {} : { turn }),
  ...(payload === null ? {} : { payload: JSON.parse(payload) as Json }),
})

/** What tells one of one event. Its id is what receivers know it again by, so it is never made in another way. */
export const toDelivery = (
  turn: string,
  lane: Lane,
  { seq, type }: { readonly seq: number; readonly type: string },
  at: number,
): Omit<Delivery, 'attempts'> => ({ id: `${turn}_${seq}_${lane.replace(/^channel:/, '')}`, lane, type, turn, at })
