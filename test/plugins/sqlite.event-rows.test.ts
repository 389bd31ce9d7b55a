import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import Database from 'better-sqlite3'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import type { NumberedEvent } from '../../core/events.ts'
import type { Store, TurnRow } from '../../core/store.ts'
import { acceptedTurns, delta, endOf, openSqlite, stepOf } from './sqlite.subject.ts'

// Deltas share rows; nobody who asks the store may find that out.

let folder: string
let store: Store
let turn: TurnRow
beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'bothub-'))
  store = await openSqlite(folder)
  turn = (await acceptedTurns(store, 1))[0]!
})
afterEach(async () => {
  await store.close()
  rmSync(folder, { recursive: true, force: true })
})

const write = (events: readonly NumberedEvent[], at: number): Promise<unknown> =>
  store.append([{ ...stepOf(turn, events), at }])

const deltas = (first: number, last: number, text?: string): NumberedEvent[] =>
  Array.from({ length: last - first + 1 }, (_, index) => delta(first + index, text))

/** Runs SQL on the file, beside the store. */
function onFile<Result>(work: (database: Database.Database) => Result): Result {
  const database = new Database(join(folder, 'hub.db'))
  try {
    return work(database)
  } finally {
    database.close()
  }
}

const rows = (): unknown => onFile((database) => database.prepare('SELECT COUNT(*) FROM events').pluck().get())

/** The same to the byte: a client that comes back compares what it gets with what it has. */
const spelled = (events: readonly unknown[]): string => events.map((event) => JSON.stringify(event)).join('\n')

describe('deltas of a commit', () => {
  it('share rows, and are read from any place and in pages of any size', async () => {
    const events = deltas(2, 300)
    await write(events, 7)
    expect(rows()).toBeLessThan(10)
    for (const [after, limit] of [
      [1, 1000],
      [1, 1],
      [40, 64],
      [65, 3],
      [66, 128],
      [299, 5],
    ] as const) {
      const page = await store.read(turn.id, after, limit)
      expect(spelled(page)).toBe(spelled(events.slice(after - 1, after - 1 + limit)))
    }
    expect(await store.read(turn.id, 300, 5)).toEqual([])
    expect((await store.turn(turn.id))?.seq).toBe(300)
  })

  it('keep their times, whichever row they share', async () => {
    await write(deltas(2, 4), 7)
    await write(deltas(5, 6), 9)
    const timed = await store.readTimed(turn.id, 2, 4)
    expect(timed.map(({ event, at }) => [event.seq, at])).toEqual([
      [3, 7],
      [4, 7],
      [5, 9],
      [6, 9],
    ])
  })

  it('come back as they were among events of other kinds, messages and shapes', async () => {
    const text = '\u0000 "\\ 字 \u{1f600} \ud800 \u2028'
    const events = [
      ...deltas(2, 3, text),
      { seq: 4, type: 'message.delta', message: 'another', text },
      { seq: 5, type: 'message.delta', message: 'another', text: '' },
      { seq: 6, type: 'reasoning.delta', message: 'another', text },
      ...deltas(7, 8),
      // Of a plugin that says more than it has to, or says it in an order of its own.
      { seq: 9, type: 'message.delta', message: 'm', text: 'x', more: { of: 'it' } },
      { seq: 10, text: 'x', message: 'm', type: 'message.delta' },
      ...deltas(11, 12, 'x'.repeat(5000)),
      ...deltas(13, 14),
      // Whoever writes to a store by itself may leave out a number.
      ...deltas(20, 22),
    ] as NumberedEvent[]
    await write(events, 7)
    expect(spelled(await store.read(turn.id, 1, 100))).toBe(spelled(events))
  })

  it('are gone when the turn is compacted', async () => {
    await write(deltas(2, 100, 'secret'), 7)
    await store.append([endOf(turn, 101)])
    await store.compact(1000, 10)
    expect((await store.read(turn.id, 0, 1000)).map(({ type }) => type)).toEqual(['turn.started', 'turn.completed'])
  })

  it('are read from rows of their own, as hubs wrote them before', async () => {
    await write(deltas(2, 3), 7)
    await store.close()
    onFile((database) => {
      const add = database.prepare(`INSERT INTO events (turn, seq, body, at)
        SELECT number, ?, ?, ? FROM turns`)
      add.run(4, JSON.stringify(delta(4)), null)
      add.run(5, JSON.stringify(delta(5)), 8)
    })
    store = await openSqlite(folder)
    expect(await store.readTimed(turn.id, 2, 10)).toEqual([
      { event: delta(3), at: 7 },
      { event: delta(4) },
      { event: delta(5), at: 8 },
    ])
  })
})
