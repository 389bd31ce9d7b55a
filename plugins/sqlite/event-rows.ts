import { isPlainDelta } from '../../core/deltas.ts'
import type { PlainDelta } from '../../core/deltas.ts'
import type { NumberedEvent } from '../../core/events.ts'
import type { TimedEvent } from '../../core/store.ts'
import type { Sql } from './sql.ts'

/** How many deltas share a row: whoever reads one of them parses them all. */
const maxDeltas = 64
/** How much text they have together, in characters. */
const maxLength = 8192

/** A row of `events`: one event, or several deltas one after the other. */
export interface EventRow {
  /** Number of the last event in it. */
  readonly seq: number
  /** In JSON, an event or a `Run[]`, oldest first. */
  readonly body: string
  /** Of the last event in it; null in rows from before times were kept. */
  readonly at: number | null
}

/** Deltas of one time and one message. Their numbers follow from that of their row: the last has it. */
type Run = [at: number | null, message: string, ...texts: string[]]

/**
 * Writes events that follow each other, to a turn known by its number. Deltas share rows and are in them without their
 * names: with a row for each, a delta of a burst costs 9.7 µs in all in place of 7.4.
 */
export function addRows(sql: Sql, turn: number | bigint, events: readonly TimedEvent[]): void {
  for (let from = 0; from < events.length;) {
    const to = endOfRow(events, from)
    const { event, at = null } = events[to - 1]!
    const body = to - from > 1 ? runsOf(events.slice(from, to)) : event
    sql.run('INSERT INTO events (turn, seq, body, at) VALUES (?, ?, ?, ?)', turn, event.seq, JSON.stringify(body), at)
    from = to
  }
}

function endOfRow(events: readonly TimedEvent[], from: number): number {
  let length = 0
  let to = from
  for (; to < events.length && to - from < maxDeltas; to++) {
    const { event } = events[to]!
    if (!isPlainDelta(event) || event.seq !== events[from]!.event.seq + to - from) break
    length += event.text.length
    if (length > maxLength) break
  }
  return Math.max(to, from + 1)
}

function runsOf(deltas: readonly TimedEvent[]): Run[] {
  const runs: Run[] = []
  let run: Run | undefined
  for (const { event, at = null } of deltas) {
    const { message, text } = event as PlainDelta
    if (run?.[0] === at && run[1] === message) run.push(text)
    else runs.push((run = [at, message, text]))
  }
  return runs
}

/** What is in a row. */
export function eventsOf({ seq, body, at }: EventRow): TimedEvent[] {
  const content = JSON.parse(body) as NumberedEvent | readonly Run[]
  if (!isRuns(content)) return [timed(content, at)]
  let number = seq - content.reduce((sum, [, , ...texts]) => sum + texts.length, 0)
  return content.flatMap(([spokenAt, message, ...texts]) =>
    texts.map((text) => timed({ seq: ++number, type: 'message.delta', message, text }, spokenAt)),
  )
}

const isRuns = (content: NumberedEvent | readonly Run[]): content is readonly Run[] => Array.isArray(content)

const timed = (event: NumberedEvent, at: number | null): TimedEvent => ({ event, ...(at === null ? {} : { at }) })
