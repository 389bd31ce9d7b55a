import { isPlainDelta, quoted } from '../../core/deltas.ts'
import type { NumberedEvent } from '../../core/events.ts'
import type { Json } from '../../core/message.ts'
import type { Append, TimedEvent, TurnRow } from '../../core/store.ts'
import { addRows } from './event-rows.ts'
import type { Sql } from './sql.ts'

/** How long a step may be to gain from it: the more it has of one turn, the less there is to be gathered. */
const maxStepEvents = 8
/** The same in characters. */
const maxStepLength = 1024
/** How much of one turn may be unmoved, in characters: what its end moves in one commit. */
const maxTurnLength = 16_384
/** How much the journal holds, at least, before the oldest of it is moved, in characters: some eight thousand deltas. */
const leastLength = 524_288
/** Or as much for each of its turns, where that is more: some eight deltas, so that moving them is worth it. */
const lengthEach = 512
/** But no more than `clean` can write again in a moment. */
const mostLength = 2_097_152
/** How many rows nobody needs are left for one statement to delete. */
const rowsToDelete = 64

/** A turn that is being written, and what of it is only in the journal. */
interface LiveTurn {
  readonly id: string
  readonly number: number
  readonly conversation: string
  readonly epoch: number
  /** Of the last event, wherever that is. */
  seq: number
  unmoved: Unmoved | undefined
  /** Of what holds `unmoved`, in characters. */
  length: number
  /** The last cursor that is not in the turn's row. */
  cursor?: Json
  /** The row that has the first of `unmoved`. */
  row: number
}

/**
 * Events that follow each other, to the last one of their turn. It waits for seconds, which is long enough to grow old
 * and wait for a collection of all garbage, so it is of few objects: a delta of the one message is its text.
 */
interface Unmoved {
  readonly message: string | undefined
  readonly events: (NumberedEvent | string)[]
  /** When each was added, in ms since 1970. */
  readonly times: number[]
}

/** One step in a row of the journal: the number of its turn, its time, a cursor if there is one, and its events. */
type Entry = readonly [turn: number, at: number, cursor: readonly Json[], ...events: (NumberedEvent | ShortDelta)[]]

/** A delta without its names, as nearly all events are. */
type ShortDelta = readonly [seq: number, message: string, text: string]

/**
 * What live turns have said of late. A commit of many turns, each with a word or two, would write to a page of `events`
 * for each of them; here it is one row, at the end of one table. Later a turn's events are moved to where they belong,
 * many at once: when another kind of step comes (its end, at the latest), when they are many, or when the journal is
 * long and they are the oldest in it.
 *
 * What is unmoved is in memory too, so that readers find it without a look at the table and a look costs no write. The
 * memory follows the table: when a commit fails it is read from there again. All that writes is run inside a commit.
 *
 * With commits of nine of 200 turns a step costs 25 µs of CPU in place of 36: some 14 are the commit's own, shared by
 * nine, and of what a step adds to it half is left. Three tenths as much is written to the disk.
 */
export class Journal {
  readonly #sql: Sql
  readonly #turns = new Map<string, LiveTurn>()
  /** Those with something unmoved, the longest unmoved first. */
  readonly #unmoved = new Set<LiveTurn>()
  /** The rows from the first that is needed on, and what is to become the next one. */
  #rows: { readonly number: number; readonly length: number }[] = []
  #length = 0
  #next = 1
  #deletedBefore = 1
  #entries: string[] = []
  #isStale = false
  #changedIn = 0

  constructor(sql: Sql) {
    this.#sql = sql
    sql.onRollback((transaction) => (this.#isStale ||= transaction === this.#changedIn))
    this.#load()
  }

  /**
   * Takes a step of a live turn into the row that `write` writes, and says whose conversation it is. Undefined for one
   * that has to be written otherwise: it changes more than the log, it is long, it is not the turn's next, or it is
   * alone in its commit and nothing of its turn is here, so that nothing would be gained.
   */
  add(step: Append, isAlone: boolean): { readonly conversation: string } | undefined {
    if (!isPlain(step) || (isAlone && this.#isMoved(step.turn))) return undefined
    const turn = this.#find(step.turn)
    if (!turn || turn.epoch !== step.epoch || !step.events.every(({ seq }, index) => seq === turn.seq + index + 1)) {
      return undefined
    }
    const entry = entryOf(turn, step.at, step, step.events)
    if (entry.length > maxStepLength || turn.length + entry.length > maxTurnLength) return undefined
    this.#entries.push(entry)
    this.#keep(turn, step.events, step.at, entry.length, this.#next)
    if (step.cursor !== undefined) turn.cursor = step.cursor
    return turn
  }

  /** Writes what was added, and pays for it by moving twice as much where the journal is long. */
  write(): void {
    if (this.#entries.length === 0) return
    const length = this.#insert()
    const most = Math.min(mostLength, Math.max(leastLength, lengthEach * this.#unmoved.size))
    let toMove = this.#length > most ? 2 * length : 0
    for (const turn of this.#unmoved) {
      if (toMove <= 0) break
      toMove -= turn.length
      this.#move(turn)
    }
    this.#shorten()
  }

  /** Moves what there is of a turn, before something else is written to it. */
  settle(id: string): void {
    this.#refresh()
    const turn = this.#turns.get(id)
    if (!turn) return
    this.#move(turn)
    this.#turns.delete(id)
  }

  /** Moves everything. */
  empty(): void {
    this.#refresh()
    for (const turn of this.#unmoved) this.#move(turn)
    this.#turns.clear()
    this.clean()
  }

  /** Moves what there is of a conversation's turns, which are to be deleted. */
  settleAll(conversation: string): void {
    this.#refresh()
    for (const turn of this.#turns.values()) if (turn.conversation === conversation) this.settle(turn.id)
  }

  /**
   * Overwrites the rows, and writes what is unmoved as one. To be done wherever a turn, or an event that was moved, is
   * deleted: a row has words of many turns, and the number of a turn may be given to another one.
   */
  clean(): void {
    this.#refresh()
    this.#changed()
    this.#sql.wiping(() => this.#sql.run('DELETE FROM journal'))
    this.#rows = []
    this.#length = 0
    this.#deletedBefore = this.#next
    for (const turn of this.#unmoved) {
      turn.row = this.#next
      for (const { event, at = 0 } of unmovedOf(turn)) {
        this.#entries.push(entryOf(turn, at, event.seq === turn.seq ? turn : {}, [event]))
      }
    }
    if (this.#entries.length > 0) this.#insert()
  }

  /** The events of a turn behind `after` that are not in `events`; all of those come before them. */
  unmoved(turn: string, after: number): readonly TimedEvent[] {
    this.#refresh()
    const live = this.#turns.get(turn)
    return live ? unmovedOf(live, after) : []
  }

  /** What the row of a turn does not know yet. */
  newer(turn: string): Partial<Pick<TurnRow, 'seq' | 'cursor'>> {
    this.#refresh()
    const live = this.#turns.get(turn)
    if (!live?.unmoved) return {}
    return { seq: live.seq, ...(live.cursor === undefined ? {} : { cursor: live.cursor }) }
  }

  /** Writes the next row, and says how long it is. */
  #insert(): number {
    this.#changed()
    const body = `[${this.#entries.join(',')}]`
    this.#entries = []
    this.#sql.run('INSERT INTO journal (number, body) VALUES (?, ?)', this.#next, body)
    this.#rows.push({ number: this.#next++, length: body.length })
    this.#length += body.length
    return body.length
  }

  #isMoved(turn: string): boolean {
    this.#refresh()
    return !this.#turns.get(turn)?.unmoved
  }

  /** A turn that may be written to. Who else ends one settles it first; who else changes an epoch empties the journal. */
  #find(id: string): LiveTurn | undefined {
    this.#refresh()
    const known = this.#turns.get(id)
    if (known) return known
    const row = this.#sql.get<TurnColumns>(`SELECT ${liveColumns} AND id = ?`, id)
    return row && this.#live(row)
  }

  #live(row: TurnColumns): LiveTurn {
    this.#changed()
    const turn = { ...row, unmoved: undefined, length: 0, row: 0 }
    this.#turns.set(row.id, turn)
    return turn
  }

  /** `length` is that of the entry which holds them. */
  #keep(turn: LiveTurn, events: readonly NumberedEvent[], at: number, length: number, row: number): void {
    this.#changed()
    if (!turn.unmoved) {
      turn.row = row
      turn.unmoved = { message: events.find(isPlainDelta)?.message, events: [], times: [] }
      this.#unmoved.add(turn)
    }
    const { message, events: unmoved, times } = turn.unmoved
    for (const event of events) {
      unmoved.push(isPlainDelta(event) && event.message === message ? event.text : event)
      times.push(at)
    }
    turn.length += length
    turn.seq = events.at(-1)!.seq
  }

  #move(turn: LiveTurn): void {
    if (!turn.unmoved) return
    this.#changed()
    addRows(this.#sql, turn.number, unmovedOf(turn))
    if (turn.cursor !== undefined) {
      this.#sql.run('UPDATE turns SET cursor = ? WHERE number = ?', JSON.stringify(turn.cursor), turn.number)
    }
    delete turn.cursor
    turn.unmoved = undefined
    turn.length = 0
    this.#unmoved.delete(turn)
  }

  /** Deletes rows whose events have all been moved, some at once. */
  #shorten(): void {
    const [oldest] = this.#unmoved
    const needed = oldest?.row ?? this.#next
    const spent = this.#rows.findIndex(({ number }) => number >= needed)
    for (const { length } of this.#rows.splice(0, spent < 0 ? this.#rows.length : spent)) this.#length -= length
    if (needed - this.#deletedBefore < rowsToDelete) return
    // What is erased later must not be found in a page that was freed here.
    this.#sql.wiping(() => this.#sql.run('DELETE FROM journal WHERE number < ?', needed))
    this.#deletedBefore = needed
  }

  #changed(): void {
    this.#changedIn = this.#sql.transaction
  }

  #refresh(): void {
    if (this.#isStale) this.#load()
  }

  /** Reads the table. What was moved is known by its number: a turn's events are moved in their order. */
  #load(): void {
    this.#changed()
    this.#turns.clear()
    this.#unmoved.clear()
    this.#entries = []
    this.#rows = []
    const turns = new Map<number, LiveTurn | undefined>()
    for (const { number, body } of this.#sql.all<RowColumns>('SELECT number, body FROM journal ORDER BY number')) {
      this.#rows.push({ number, length: body.length })
      for (const entry of JSON.parse(body) as Entry[]) {
        if (!turns.has(entry[0])) turns.set(entry[0], this.#ofNumber(entry[0]))
        const turn = turns.get(entry[0])
        if (turn) this.#restore(turn, entry, number)
      }
    }
    this.#length = this.#rows.reduce((sum, { length }) => sum + length, 0)
    this.#deletedBefore = this.#rows[0]?.number ?? this.#next
    this.#next = Math.max(this.#next, (this.#rows.at(-1)?.number ?? 0) + 1)
    this.#isStale = false
  }

  #ofNumber(number: number): LiveTurn | undefined {
    const row = this.#sql.get<TurnColumns>(`SELECT ${liveColumns} AND number = ?`, number)
    return row && this.#live(row)
  }

  #restore(turn: LiveTurn, [, at, [cursor], ...events]: Entry, row: number): void {
    const unmoved = events.map(toEvent).filter(({ seq }) => seq > turn.seq)
    if (unmoved.length === 0) return
    this.#keep(turn, unmoved, at, JSON.stringify(unmoved).length, row)
    if (cursor !== undefined) turn.cursor = cursor
  }
}

type TurnColumns = Pick<LiveTurn, 'id' | 'number' | 'conversation' | 'epoch' | 'seq'>

interface RowColumns {
  readonly number: number
  readonly body: string
}

const liveColumns = `id, number, conversation, epoch,
  COALESCE((SELECT MAX(e.seq) FROM events e WHERE e.turn = turns.number), seq) AS seq
  FROM turns WHERE ended_at IS NULL`

/** What is unmoved of a turn behind the event `after`. */
function unmovedOf({ seq: last, unmoved }: LiveTurn, after = 0): TimedEvent[] {
  if (!unmoved) return []
  const { message, events, times } = unmoved
  const before = last - events.length
  const from = Math.max(0, after - before)
  return events.slice(from).map((each, index) => {
    const seq = before + from + index + 1
    const event =
      typeof each === 'string' ? { seq, type: 'message.delta' as const, message: message!, text: each } : each
    return { event, at: times[from + index]! }
  })
}

/** An `Entry` in JSON. Null is a cursor too. */
function entryOf(
  { number }: LiveTurn,
  at: number,
  { cursor }: Pick<Append, 'cursor'>,
  events: readonly NumberedEvent[],
): string {
  let entry = `[${number},${at},${cursor === undefined ? '[]' : JSON.stringify([cursor])}`
  for (const event of events) {
    entry += isPlainDelta(event)
      ? `,[${event.seq},${quoted(event.message)},${quoted(event.text)}]`
      : `,${JSON.stringify(event)}`
  }
  return `${entry}]`
}

const toEvent = (event: NumberedEvent | ShortDelta): NumberedEvent =>
  isShort(event) ? { seq: event[0], type: 'message.delta', message: event[1], text: event[2] } : event

const isShort = (event: NumberedEvent | ShortDelta): event is ShortDelta => Array.isArray(event)

/** Whether a step has a few events, perhaps with a cursor, and nothing else to write. */
const isPlain = ({ events, status, thread, expiresAt, result }: Append): boolean =>
  events.length > 0 &&
  events.length <= maxStepEvents &&
  status === undefined &&
  thread === undefined &&
  expiresAt === undefined &&
  result === undefined
