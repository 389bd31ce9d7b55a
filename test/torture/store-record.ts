import Database from 'better-sqlite3'
import { eventsOf } from '../../plugins/sqlite/event-rows.ts'
import type { EventRow } from '../../plugins/sqlite/event-rows.ts'
import type { StoreRecord } from './records.ts'

interface TurnColumns {
  readonly number: number
  readonly id: string
  readonly bot: string
  readonly conversation: string
  readonly message: string
  readonly status: string
  readonly seq: number
  readonly result: string | null
}

/** Reads what a hub that has stopped left in its database. */
export function readStore(file: string): StoreRecord {
  const database = new Database(file, { readonly: true })
  try {
    const events = database.prepare<number, EventRow>('SELECT seq, body, at FROM events WHERE turn = ? ORDER BY seq')
    const turns = database
      .prepare(
        `SELECT turns.number, turns.id, bot, conversation, message_id AS message, turns.status, seq, result
         FROM turns JOIN conversations ON conversations.id = turns.conversation ORDER BY turns.number`,
      )
      .all() as TurnColumns[]
    return {
      turns: turns.map(({ number, result, ...turn }) => ({
        ...turn,
        text: result ? (JSON.parse(result) as { text: string }).text : '',
        events: events
          .all(number)
          .flatMap(eventsOf)
          .map(({ event }) => ({ seq: event.seq, body: JSON.stringify(event) })),
      })),
      owed: database
        .prepare('SELECT turns.id AS turn, owed.lane FROM owed JOIN turns ON turns.number = owed.turn')
        .all() as StoreRecord['owed'],
      outbox: database
        .prepare('SELECT id, turn, lane, type, state FROM outbox WHERE turn IS NOT NULL ORDER BY number')
        .all() as StoreRecord['outbox'],
    }
  } finally {
    database.close()
  }
}
