import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import Database from 'better-sqlite3'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import type { NumberedEvent } from '../../core/events.ts'
import type { Store, TurnRow } from '../../core/store.ts'
import { sqlite } from '../../plugins/sqlite/index.ts'
import { acceptedTurns, delta, endOf, openSqlite, stepOf } from './sqlite.subject.ts'

// What live turns say is in one table before it is in another; nobody who asks the store may find that out.

let folder: string
let store: Store
beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'bothub-'))
  store = await openSqlite(folder)
})
afterEach(async () => {
  await store.close()
  rmSync(folder, { recursive: true, force: true })
})

/** The files as they are now, which is what a hub that is killed now leaves behind. */
function leftByKill(): string {
  const left = join(folder, `left-${crypto.randomUUID()}`)
  mkdirSync(left)
  for (const name of ['hub.db', 'hub.db-wal']) {
    if (existsSync(join(folder, name))) copyFileSync(join(folder, name), join(left, name))
  }
  return left
}

/** Opens what is in a folder for as long as the work takes. */
async function reopened(left: string, work: (again: Store) => Promise<void>): Promise<void> {
  const again = await openSqlite(left)
  try {
    await work(again)
  } finally {
    await again.close()
  }
}

/** One value, as somebody else who opens the file reads it. */
function valueOf(sql: string, of = folder): unknown {
  const database = new Database(join(of, 'hub.db'), { readonly: true })
  try {
    return database.prepare(sql).pluck().get()
  } finally {
    database.close()
  }
}

/** Has each turn say a word in every commit, from event `first` to event `last`. */
async function say(turns: readonly TurnRow[], first: number, last: number, text?: string): Promise<void> {
  for (let seq = first; seq <= last; seq++) {
    await store.append(turns.map((turn) => stepOf(turn, [delta(seq, text)], { cursor: seq })))
  }
}

const said = (first: number, last: number): NumberedEvent[] =>
  Array.from({ length: last - first + 1 }, (_, index) => delta(first + index))

const journaled = (of = folder): unknown => valueOf('SELECT COUNT(*) FROM journal', of)
/** Number of the last event that is where it belongs; those before it are too. */
const moved = (turn: TurnRow): unknown =>
  valueOf(`SELECT MAX(events.seq) FROM events JOIN turns ON turns.number = events.turn WHERE turns.id = '${turn.id}'`)

/** What a store has of a turn behind its first event, in small pages, and what the turn's row says. */
async function kept(of: Store, turn: TurnRow) {
  const events: NumberedEvent[] = []
  for (;;) {
    const page = await of.read(turn.id, events.at(-1)?.seq ?? 1, 7)
    if (page.length === 0) break
    events.push(...page)
  }
  return { events, row: await of.turn(turn.id) }
}

async function expectSaid(of: Store, turns: readonly TurnRow[], last: number): Promise<void> {
  for (const turn of turns) {
    expect(await kept(of, turn)).toMatchObject({ events: said(2, last), row: { seq: last, cursor: last } })
  }
}

describe('words of several turns in one commit', () => {
  it('are one row, and are read as if each had its own', async () => {
    const turns = await acceptedTurns(store, 2)
    await say(turns, 2, 4)
    expect([journaled(), ...turns.map(moved)]).toEqual([3, 1, 1])
    await expectSaid(store, turns, 4)
    // A step that is more than words: what its turn said is where it belongs before that.
    await store.append([
      stepOf(turns[0]!, [delta(5)], { status: 'running', cursor: 5 }),
      stepOf(turns[1]!, [delta(5)], { cursor: 5 }),
    ])
    expect(turns.map(moved)).toEqual([5, 1])
    await say(turns, 6, 9)
    await expectSaid(store, turns, 9)
    const timed = await store.readTimed(turns[0]!.id, 3, 4)
    expect(timed).toEqual([4, 5, 6, 7].map((seq) => ({ event: delta(seq), at: seq })))
    expect(await store.liveTurns(turns[0]!.conversation.id)).toMatchObject([{ seq: 9, cursor: 9 }])
    expect(await store.read(turns[0]!.id, 9, 10)).toEqual([])
  })

  it('of two messages stay with theirs, each with its time', async () => {
    const turns = await acceptedTurns(store, 2)
    const words = (seq: number) => ({ ...delta(seq), message: seq % 2 === 0 ? 'even' : 'odd' })
    for (let seq = 2; seq <= 9; seq++) {
      await store.append(turns.map((turn) => ({ ...stepOf(turn, [words(seq)]), at: 1000 * seq })))
    }
    const all = [2, 3, 4, 5, 6, 7, 8, 9]
    expect(turns.map(moved)).toEqual([1, 1])
    expect(await store.read(turns[0]!.id, 1, 20)).toEqual(all.map(words))
    expect(await store.readTimed(turns[0]!.id, 5, 20)).toEqual(
      all.slice(4).map((seq) => ({ event: words(seq), at: 1000 * seq })),
    )
    await store.append([endOf(turns[0]!, 10)])
    expect(await store.read(turns[0]!.id, 1, 8)).toEqual(all.map(words))
  })

  it('are in their place when the turn has ended', async () => {
    const turns = await acceptedTurns(store, 2)
    await say(turns, 2, 20)
    await store.append([endOf(turns[0]!, 21)])
    expect(turns.map(moved)).toEqual([21, 1])
    expect((await store.read(turns[0]!.id, 1, 19)).map(({ seq }) => seq)).toEqual(said(2, 20).map(({ seq }) => seq))
    expect(await store.append([stepOf(turns[0]!, [delta(22)]), stepOf(turns[1]!, [delta(21)])])).toMatchObject({
      refused: [turns[0]!.id],
    })
    expect(await store.turn(turns[1]!.id)).toMatchObject({ seq: 21, cursor: 20 })
  })

  it('are refused from a writer of another epoch, also of a turn that is being written', async () => {
    const turns = await acceptedTurns(store, 2)
    await say(turns, 2, 3)
    const late = { ...turns[0]!, epoch: turns[0]!.epoch - 1 }
    expect(await store.append([stepOf(late, [delta(4)]), stepOf(turns[1]!, [delta(4)])])).toMatchObject({
      refused: [late.id],
    })
    await reopened(leftByKill(), async (again) => {
      await again.recover(9)
      const taken = await Promise.all(turns.map(async ({ id }) => (await again.turn(id))!))
      expect((await again.append(turns.map((turn) => stepOf(turn, [delta(5)])))).refused).toHaveLength(2)
      expect((await again.append(taken.map((turn) => stepOf(turn, [delta(turn.seq + 1)])))).refused).toEqual([])
      expect((await kept(again, turns[0]!)).events).toEqual(said(2, 4))
    })
  })

  it('that a turn has said before are refused with the whole commit', async () => {
    const turns = await acceptedTurns(store, 2)
    await say(turns, 2, 3)
    await expect(
      store.append([stepOf(turns[1]!, [delta(4)]), stepOf(turns[0]!, [delta(3, 'other')])]),
    ).rejects.toThrow()
    await expectSaid(store, turns, 3)
  })
})

describe('a hub that is killed', () => {
  it('leaves what was committed, in order and once', async () => {
    const turns = await acceptedTurns(store, 3)
    await say(turns, 2, 6)
    await store.append([endOf(turns[2]!, 7)])
    await say(turns.slice(0, 2), 7, 150)
    const left = leftByKill()
    expect(journaled(left)).not.toBe(0)
    await reopened(left, async (again) => {
      expect(journaled(left)).toBe(0)
      await expectSaid(again, turns.slice(0, 2), 150)
      expect(await again.turn(turns[2]!.id)).toMatchObject({ seq: 7, status: 'completed' })
      expect((await again.recover(1)).broken).toMatchObject([
        { id: turns[0]!.id, seq: 150, cursor: 150 },
        { id: turns[1]!.id, seq: 150, cursor: 150 },
      ])
    })
  })

  it('leaves every commit that it has told of', { timeout: 20_000 }, async () => {
    const own = join(folder, 'killed')
    mkdirSync(own)
    // Eight turns that say a word each, a commit after the other, for ever.
    const writer = `
      const { acceptedTurns, delta, openSqlite, stepOf } = await import(${JSON.stringify(new URL('sqlite.subject.ts', import.meta.url))})
      const store = await openSqlite(${JSON.stringify(own)})
      const turns = await acceptedTurns(store, 8)
      for (let seq = 2; ; seq++) {
        await store.append(turns.map((turn) => stepOf(turn, [delta(seq)], { cursor: seq })))
        process.stdout.write(seq + '\\n')
      }`
    const child = spawn(process.execPath, ['--input-type=module', '-e', writer], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    let told = ''
    for await (const chunk of child.stdout) {
      told += String(chunk)
      if (told.split('\n').length > 300) child.kill('SIGKILL')
    }
    if (child.signalCode === null) await once(child, 'exit')
    const last = Number(told.split('\n').at(-2))
    await reopened(own, async (again) => {
      const turns = (await again.recover(1)).broken
      expect(turns).toHaveLength(8)
      for (const { seq, cursor } of turns) expect([seq - last, cursor]).toEqual([seq > last ? 1 : 0, seq])
      await expectSaid(again, turns, turns[0]!.seq)
    })
  })

  it('leaves a file whose copy has it all', async () => {
    const turns = await acceptedTurns(store, 2)
    await say(turns, 2, 9)
    const copy = join(folder, 'copy')
    mkdirSync(copy)
    const { backup } = sqlite()
    await backup?.({ file: 'hub.db', lockTimeoutMs: 0 }, folder, join(copy, 'hub.db'))
    await reopened(copy, (again) => expectSaid(again, turns, 9))
  })
})

describe('a commit that fails', () => {
  /** A step that cannot be written: its number is taken. */
  const impossible = (turn: TurnRow) => endOf(turn, 1)

  it('is forgotten whole, and the next one goes on from what was there', async () => {
    const turns = await acceptedTurns(store, 3)
    await say(turns, 2, 5)
    const words = turns.slice(0, 2).map((turn) => stepOf(turn, [delta(6, 'lost')], { cursor: 'lost' }))
    await expect(store.append([...words, impossible(turns[2]!)])).rejects.toThrow()
    await expectSaid(store, turns, 5)
    await say(turns, 6, 8)
    await expectSaid(store, turns, 8)
    await reopened(leftByKill(), (again) => expectSaid(again, turns, 8))
  })

  it('takes nothing with it that was asked for in the same moment', async () => {
    const turns = await acceptedTurns(store, 3)
    await say(turns, 2, 5)
    const outcomes = await Promise.allSettled([
      store.append(turns.slice(0, 2).map((turn) => stepOf(turn, [delta(6)], { cursor: 6 }))),
      store.append([impossible(turns[2]!)]),
      store.append(turns.map((turn, index) => stepOf(turn, [delta(index < 2 ? 7 : 6)], { cursor: index < 2 ? 7 : 6 }))),
    ])
    expect(outcomes.map(({ status }) => status)).toEqual(['fulfilled', 'rejected', 'fulfilled'])
    await expectSaid(store, turns.slice(0, 2), 7)
    await reopened(leftByKill(), (again) => expectSaid(again, turns.slice(0, 2), 7))
  })
})

describe('the journal', () => {
  it('stays short, however long turns live and however much they say', async () => {
    const [still, ...turns] = await acceptedTurns(store, 21)
    await say([still!, turns[0]!], 2, 2)
    const text = 'x'.repeat(900)
    for (let seq = 2; seq <= 130; seq++) {
      // Each but the first, which has said its word already.
      await store.append(turns.map((turn) => stepOf(turn, [delta(turn === turns[0] ? seq + 1 : seq, text)])))
    }
    expect(valueOf('SELECT SUM(length(body)) FROM journal')).toBeLessThan(1_300_000)
    expect(moved(still!)).toBe(2)
    for (const turn of turns.slice(1)) {
      const { events, row } = await kept(store, turn)
      expect(events.map(({ seq }) => seq)).toEqual(said(2, 130).map(({ seq }) => seq))
      expect(row).toMatchObject({ seq: 130 })
    }
  })

  it('has no more of one turn than its end can move at once', async () => {
    const turns = await acceptedTurns(store, 2)
    await say(turns, 2, 61, 'x'.repeat(900))
    for (const turn of turns) expect(moved(turn)).toBeGreaterThan(40)
    // And does not take what is long already: it is no cheaper here.
    await store.append(turns.map((turn) => stepOf(turn, [delta(62, 'x'.repeat(1100))])))
    expect(turns.map(moved)).toEqual([62, 62])
    await store.append(turns.map((turn) => stepOf(turn, said(63, 71))))
    expect(turns.map(moved)).toEqual([71, 71])
    await store.append(turns.map((turn) => stepOf(turn, said(72, 74))))
    expect(turns.map(moved)).toEqual([71, 71])
  })

  it('has nothing left when the hub has stopped', async () => {
    const turns = await acceptedTurns(store, 2)
    await say(turns, 2, 9, 'a word')
    await store.close()
    expect(journaled()).toBe(0)
    expect(turns.map(moved)).toEqual([9, 9])
    expect(new Set(pagesWith('a word'))).toEqual(new Set(['events']))
    store = await openSqlite(folder)
  })

  it('has nothing of turns that are compacted or forgotten, nor do others get it with their number', async () => {
    const turns = await acceptedTurns(store, 3)
    await say(turns, 2, 9)
    await store.append([endOf(turns[0]!, 10)])
    await say(turns.slice(1), 10, 12)
    await store.compact(100, 10)
    // What the others said since is in one row now.
    expect(journaled()).toBe(1)
    expect(valueOf(`SELECT body LIKE '%"10 "%' AND body LIKE '%"9 "%' FROM journal`)).toBe(1)
    await say(turns.slice(1), 13, 14)
    await store.forget(turns[2]!.conversation.id)
    const [next] = await acceptedTurns(store, 1, 'next')
    await reopened(leftByKill(), async (again) => {
      await expectSaid(again, [turns[1]!], 14)
      expect(await kept(again, next!)).toMatchObject({ events: [], row: { seq: 1 } })
    })
  })

  it('leaves no word of a conversation that was deleted where it was or might have been', async () => {
    const secret = 'a word that nobody else says'
    const [ada, ...others] = await acceptedTurns(store, 9)
    await say([ada!, ...others], 2, 90, secret)
    await store.append([ada!, ...others].map((turn) => endOf(turn, 91)))
    // Long enough for her rows to be let go before she is deleted.
    await say(await acceptedTurns(store, 2, 'more'), 2, 120, 'another word')
    for (const { conversation } of [ada!, ...others]) await store.forget(conversation.id)
    await store.close()
    expect(pagesWith('another word')).not.toEqual([])
    // Of `events` it is not promised: SQLite leaves something where it moves rows.
    expect(pagesWith(secret).filter((table) => table !== 'events')).toEqual([])
    store = await openSqlite(folder)
  })
})

/** Which table each page belongs to that has these words in it; those that belong to none are `free`. */
function pagesWith(words: string): string[] {
  const database = new Database(join(folder, 'hub.db'), { readonly: true })
  const size = database.pragma('page_size', { simple: true }) as number
  const tables = new Map(database.prepare('SELECT pageno, name FROM dbstat').raw().all() as [number, string][])
  database.close()
  const bytes = readFileSync(join(folder, 'hub.db'))
  return Array.from({ length: bytes.length / size }, (_, index) => index)
    .filter((index) => bytes.subarray(index * size, (index + 1) * size).includes(words))
    .map((index) => tables.get(index + 1) ?? 'free')
}
