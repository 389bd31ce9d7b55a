import type Database from 'better-sqlite3'
import type { Page } from '../../core/store.ts'

/** A part of a commit that is still to come; `run` does it and returns what tells its result once it is durable. */
interface Asked {
  readonly run: () => () => void
  readonly reject: (error: unknown) => void
}

/** How many prepared statements are kept. */
const maxStatements = 500

/** An open database whose statements are prepared once. */
export class Sql {
  readonly #database: Database.Database
  readonly #statements = new Map<string, Database.Statement>()
  readonly #transaction: Database.Transaction<(work: () => unknown) => unknown>
  readonly #group: Asked[] = []
  #number = 0
  #rolledBack: (transaction: number) => void = () => {}
  #isWiping = false

  constructor(database: Database.Database) {
    this.#database = database
    this.#transaction = database.transaction((work) => work())
    // SQLite's own lower() knows ASCII only.
    database.function('fold', { deterministic: true }, (text) => (typeof text === 'string' ? text.toLowerCase() : text))
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

  /** Runs something as one commit. */
  atomically<Result>(work: () => Result): Result {
    const number = ++this.#number
    try {
      return this.#transaction.immediate(work) as Result
    } catch (error) {
      this.#rolledBack(number)
      throw error
    }
  }

  /** The number of the commit that is being made, or was made last. */
  get transaction(): number {
    return this.#number
  }

  /** For who keeps in memory what is in the file: is called with the number of a commit of which nothing is left. */
  onRollback(listener: (transaction: number) => void): void {
    this.#rolledBack = listener
  }

  /** Overwrites in the file what is deleted inside of it; otherwise SQLite only marks it as free. */
  wiping<Result>(work: () => Result): Result {
    if (this.#isWiping) return work()
    this.#isWiping = true
    this.#database.pragma('secure_delete = ON')
    try {
      return work()
    } finally {
      this.#database.pragma('secure_delete = OFF')
      this.#isWiping = false
    }
  }

  /**
   * Runs something in a commit that it shares with all else that was asked for in the same moment: syncing a commit to
   * the disk is what costs. Resolves when it is durable. What fails, fails alone.
   */
  together<Result>(work: () => Result): Promise<Result> {
    if (this.#group.length === 0) setImmediate(() => this.#commitGroup())
    return this.#ask(work)
  }

  /** The same at once, with what was asked for by then: for work that was gathered already. */
  atOnce<Result>(work: () => Result): Promise<Result> {
    const done = this.#ask(work)
    this.#commitGroup()
    return done
  }

  #ask<Result>(work: () => Result): Promise<Result> {
    const { promise, resolve, reject } = Promise.withResolvers<Result>()
    this.#group.push({
      run() {
        const result = work()
        return () => resolve(result)
      },
      reject,
    })
    return promise
  }

  /** Does now what was asked for. */
  #commitGroup(): void {
    const group = this.#group.splice(0)
    if (group.length === 0) return
    try {
      const done = this.atomically(() => group.map((each) => each.run()))
      for (const tell of done) tell()
    } catch {
      for (const each of group) this.#commitAlone(each)
    }
  }

  #commitAlone({ run, reject }: Asked): void {
    try {
      this.atomically(run)()
    } catch (error) {
      reject(error)
    }
  }

  /** Does what was asked for, and `last` if that can be done. */
  close(last: () => void): void {
    if (this.#group.length > 0) this.#commitGroup()
    try {
      this.atomically(last)
    } catch {
      // It is for the next start.
    }
    this.#database.close()
  }

  #prepare(sql: string): Database.Statement {
    const known = this.#statements.get(sql)
    if (known) return known
    const statement = this.#database.prepare(sql)
    // Bots ask in as many forms as they like.
    if (this.#statements.size >= maxStatements) this.#statements.clear()
    this.#statements.set(sql, statement)
    return statement
  }
}

/** How many rows a search looks at for one page: what it is for may be rare, and a hub has more to do. */
export const searchReach = 5000

/** The numbers that a search looks at for one page: those from `from` and below `before`. */
export interface SearchWindow {
  readonly from: number
  readonly before: number
  /** There are rows below it. */
  readonly hasMore: boolean
}

/** The part of a numbered table that comes next in a search from its end. */
export function searchWindow(sql: Sql, table: 'turns' | 'audit', cursor: string | undefined): SearchWindow {
  const last = sql.get<{ number: number | null }>(`SELECT MAX(number) AS number FROM ${table}`)?.number ?? 0
  const before = cursor === undefined ? last + 1 : Math.min(Number(cursor), last + 1)
  const from = before - searchReach
  return { from, before, hasMore: sql.get(`SELECT 1 FROM ${table} WHERE number < ? LIMIT 1`, from) !== undefined }
}

/** As `toPage`, of the rows of a window: there may be more below it also where the page is not full. */
export function toSearchPage<Row, Item>(
  { from, hasMore }: SearchWindow,
  rows: readonly Row[],
  limit: number,
  place: (row: Row) => string,
  item: (row: Row) => Item,
): Page<Item> {
  const page = toPage(rows, limit, place, item)
  return page.before === undefined && hasMore ? { ...page, before: String(from) } : page
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
