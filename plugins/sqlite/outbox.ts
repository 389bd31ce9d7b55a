import type {
  Append,
  Delivery,
  DeliveryState,
  Lane,
  OutboxItem,
  OutboxRetry,
  Page,
  PageOptions,
  TurnEnd,
} from '../../core/store.ts'
import { isHook } from '../../core/store.ts'
import type { Json } from '../../core/message.ts'
import { toPage } from './sql.ts'
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

  /** Those who were owed what was last answered to the user of a conversation. */
  channelsOf(conversation: string): readonly Lane[] {
    return this.#sql
      .all<{ lane: Lane }>(
        `SELECT lane FROM owed WHERE lane LIKE 'channel:%' AND turn = (
           SELECT MAX(turn) FROM owed JOIN turns ON turns.number = owed.turn
           WHERE conversation = ? AND lane LIKE 'channel:%' AND json_extract(message, '$.by') IS NULL)`,
        conversation,
      )
      .map(({ lane }) => lane)
  }

  /** In the commit of the event they tell of, for everybody who is owed it; `end` for hooks, of a turn that ends. */
  addAll(number: number, step: Append, end: (() => TurnEnd) | undefined): number {
    const last = step.events.at(-1)
    if (!last) return 0
    if (!end) this.#takeBack(step.turn)
    const owed = this.#sql
      .all<{ lane: Lane }>('SELECT lane FROM owed WHERE turn = ?', number)
      .filter(({ lane }) => end || !isHook(lane))
    for (const { lane } of owed) {
      const delivery = toDelivery(step.turn, lane, last, step.at)
      if (!end || !isHook(lane)) this.add(delivery)
      else {
        // Without the name of its turn, so that it does not go when the turn does.
        const { turn: _, ...rest } = delivery
        this.add({ ...rest, payload: end() as unknown as Json })
      }
    }
    return owed.length
  }

  /** A pause that was not told of is not to be told of any more. */
  #takeBack(turn: string): void {
    this.#sql.run(
      `UPDATE outbox SET state = 'delivered' WHERE turn = ? AND type = 'turn.waiting' AND state <> 'delivered'`,
      turn,
    )
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
         WHERE state = 'pending' AND next_at <= ? AND id NOT IN (SELECT value FROM json_each(?))
           AND lane NOT IN (SELECT lane FROM closed_lanes))
       WHERE place <= 10 ORDER BY number`,
      now,
      JSON.stringify(underWay),
    )
    const next = this.#sql.get<{ at: number | null }>(
      `SELECT MIN(next_at) AS at FROM outbox
       WHERE state = 'pending' AND next_at > ? AND lane NOT IN (SELECT lane FROM closed_lanes)`,
      now,
    )
    return { due: due.map(fromColumns), ...(next?.at ? { nextAt: next.at } : {}) }
  }

  settle(id: string, settled: DeliveryState): void {
    // What tells of a turn is kept with it, to be looked up; of anything else nothing is left to look up.
    if (settled.state === 'delivered') this.#sql.run('DELETE FROM outbox WHERE id = ? AND turn IS NULL', id)
    this.#sql.run(
      // What was taken back while it was under way is not owed again.
      `UPDATE outbox SET state = ?, attempts = attempts + 1, next_at = COALESCE(?, next_at), error = ?
       WHERE id = ? AND state = 'pending'`,
      settled.state === 'refused' ? 'failed' : settled.state,
      settled.state === 'pending' ? settled.retryAt : null,
      'error' in settled ? settled.error : null,
      id,
    )
    if (settled.state !== 'refused') return
    this.#sql.run('INSERT OR IGNORE INTO closed_lanes (lane) SELECT lane FROM outbox WHERE id = ?', id)
  }

  progress(turn: string, lane: Lane): Json | undefined {
    const row = this.#sql.get<{ progress: string | null }>(
      'SELECT progress FROM owed WHERE lane = ? AND turn = (SELECT number FROM turns WHERE id = ?)',
      lane,
      turn,
    )
    return row?.progress ? (JSON.parse(row.progress) as Json) : undefined
  }

  keepProgress(turn: string, lane: Lane, progress: Json): void {
    this.#sql.run(
      'UPDATE owed SET progress = ? WHERE lane = ? AND turn = (SELECT number FROM turns WHERE id = ?)',
      JSON.stringify(progress),
      lane,
      turn,
    )
  }

  undelivered({ before, limit }: PageOptions): Page<OutboxItem> & { readonly closed: readonly Lane[] } {
    const rows = this.#sql.all<ItemColumns>(
      `SELECT number, id, lane, type, COALESCE(turn, json_extract(payload, '$.turn')) AS turn, at, attempts, state,
         next_at AS nextAt, error
       FROM outbox WHERE state <> 'delivered' AND number < ? ORDER BY number DESC LIMIT ?`,
      before === undefined ? Number.MAX_SAFE_INTEGER : Number(before),
      limit + 1,
    )
    const page = toPage(
      rows,
      limit,
      (row) => String(row.number),
      ({ id, lane, type, turn, at, attempts, state, nextAt, error }): OutboxItem => ({
        id,
        lane,
        type,
        ...(turn === null ? {} : { turn }),
        at,
        attempts,
        state,
        nextAt,
        ...(error === null ? {} : { error }),
      }),
    )
    const closed = this.#sql.all<{ lane: Lane }>('SELECT lane FROM closed_lanes ORDER BY lane')
    return { ...page, closed: closed.map(({ lane }) => lane) }
  }

  retry({ ids, lane }: OutboxRetry, at: number): number {
    const wanted = '(@ids IS NULL OR id IN (SELECT value FROM json_each(@ids))) AND (@lane IS NULL OR lane = @lane)'
    const which = { ids: ids ? JSON.stringify(ids) : null, lane: lane ?? null, at }
    this.#sql.run(
      `DELETE FROM closed_lanes WHERE (@ids IS NULL AND (@lane IS NULL OR lane = @lane))
         OR lane IN (SELECT lane FROM outbox WHERE state <> 'delivered' AND ${wanted})`,
      which,
    )
    // From the beginning of the schedule: a receiver that is back may stumble once more.
    return this.#sql.run(
      `UPDATE outbox SET attempts = 0, state = 'pending', next_at = @at WHERE state <> 'delivered' AND ${wanted}`,
      which,
    ).changes
  }

  /** Forgets what was given up and tells of no turn that is kept. */
  prune(before: number): void {
    this.#sql.run(`DELETE FROM outbox WHERE turn IS NULL AND state = 'failed' AND at < ?`, before)
  }

  /** How many deliveries have not arrived. */
  pending(): number {
    return this.#sql.get<{ pending: number }>(`SELECT COUNT(*) AS pending FROM outbox WHERE state = 'pending'`)!.pending
  }
}

interface ItemColumns extends Omit<OutboxItem, 'turn' | 'error'> {
  readonly number: number
  readonly turn: string | null
  readonly error: string | null
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
