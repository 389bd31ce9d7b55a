import type Database from 'better-sqlite3'
import type { Page } from '../../core/store.ts'

/** An open database whose statements are prepared once. */
export class Sql {
  readonly #database: Database.Database
  readonly #statements = new Map<string, Database.Statement>()

  constructor(database: Database.Database) {
    this.#database = database
  }

  run(sql: string, ...values: readonly unknown[]): Database.RunResult {
    return this.#prepare(sql).run(...values)
  }

  get<Row>(sql: string, ...values: readonly unknown[]): Row | undefined {
    return this.#prepare(sql).get(...values) as Row | undefined
  }

  all<Row>(sql: string, ...values: readonly unknown[]): Row[] {
    return this.#prepare(sql).all(...values) as Row[]
  }

  /** Row by row, for a reader that may have enough before the last. */
  iterate<Row>(sql: string, ...values: readonly unknown[]): IterableIterator<Row> {
    return this.#prepare(sql).iterate(...values) as IterableIterator<Row>
  }

  /** Makes a function one commit. */
  atomically<Given extends unknown[], Result>(work: (...given: Given) => Result): (...given: Given) => Result {
    const transaction = this.#database.transaction(work)
    return (...given) => transaction.immediate(...given)
  }

  close(): void {
    this.#database.close()
  }

  #prepare(sql: string): Database.Statement {
    const known = this.#statements.get(sql)
    if (known) return known
    const statement = this.#database.prepare(sql)
    this.#statements.set(sql, statement)
    return statement
  }
}

/** Rows come newest first, with one more than the page holds when there is another. */
export function toPage<Row, Item>(
  rows: readonly Row[],
  limit: number,
  place: (row: Row) => string,
  item: (row: Row) => Item,
): Page<Item> {
  const shown = rows.slice(0, limit)
  const oldest = shown.at(-1)
  return {
    items: shown.map(item).toReversed(),
    ...(rows.length > limit && oldest ? { before: place(oldest) } : {}),
  }
}
