import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { sqlite } from '../../plugins/sqlite/index.ts'
import type { NumberedEvent } from '../../core/events.ts'
import type { Append, Store, TurnRow } from '../../core/store.ts'
import { pluginContext } from '../fakes/turn.ts'
import type { StoreSubject } from '../suites/store.ts'

/** Opens a SQLite store in a folder, with the options of a config. */
export async function openSqlite(folder: string, options: Parameters<typeof sqlite>[0] = {}): Promise<Store> {
  const spec = sqlite({ file: 'hub.db', ...options })
  return spec.create(spec.schema.parse(spec.options), pluginContext({ folder }))
}

/** A SQLite store in a folder of its own, which goes with it. */
export async function temporarySqlite(): Promise<{ readonly folder: string; readonly store: Store } & AsyncDisposable> {
  const folder = mkdtempSync(join(tmpdir(), 'bothub-'))
  const store = await openSqlite(folder)
  return {
    folder,
    store,
    async [Symbol.asyncDispose]() {
      await store.close()
      rmSync(folder, { recursive: true, force: true })
    },
  }
}

/** The SQLite store, in a file of its own for every case. */
export const sqliteSubject: StoreSubject = { open: (folder) => openSqlite(folder, { lockTimeoutMs: 0 }) }

/** Running turns, each in a conversation of its own, whose name is `name` and a number from 0. */
export async function acceptedTurns(store: Store, count: number, name = 'c'): Promise<readonly TurnRow[]> {
  const results = await Promise.all(
    Array.from({ length: count }, (_, index) =>
      store.accept({
        bot: 'bot',
        key: 'local',
        turn: `turn_${name}${index}`,
        conversation: { name: `${name}${index}` },
        newConversation: `conv_${name}${index}`,
        message: { id: 'm', text: 'hi', files: [] },
        fingerprint: 'f',
        channel: 'rest',
        debug: false,
        bypassConsent: false,
        detached: false,
        at: 1,
        queueLimit: 10,
      }),
    ),
  )
  return results.map((result) => {
    if (result.outcome !== 'created') throw new Error(`the message was not accepted: ${result.outcome}`)
    return result.turn
  })
}

/** A step of a turn, written at the time that is the number of its last event. */
export const stepOf = (
  { id, epoch }: TurnRow,
  events: readonly NumberedEvent[],
  changes: Partial<Append> = {},
): Append => ({ turn: id, epoch, events, at: events.at(-1)?.seq ?? 0, ...changes })

/** The end of a turn, with that number. */
export const endOf = (turn: TurnRow, seq: number): Append =>
  stepOf(turn, [{ seq, type: 'turn.completed', text: 'all' }], {
    status: 'completed',
    result: { text: 'all', messages: [{ id: 'm', text: 'all' }] },
  })

/** A word of a bot. */
export const delta = (seq: number, text = `${seq} `): NumberedEvent => ({
  seq,
  type: 'message.delta',
  message: 'm',
  text,
})
