import { pino } from 'pino'
import { systemClock } from '../core/clock.ts'
import type { Append, Store, TurnRow } from '../core/store.ts'
import { sqlite } from '../plugins/sqlite/index.ts'

/** Turns of one commit. */
const batch = 1000

/** Which turns a store is to have, of the bot `echo`, by their numbers. */
export interface Filling {
  readonly from: number
  readonly to: number
  readonly say: (progress: string) => void
}

/** Fills the store of a folder with turns that have ended; every tenth is of the conversation `c0`. */
export async function fillStore(folder: string, { from, to, say }: Filling): Promise<void> {
  if (from === to) return
  const spec = sqlite({ file: 'hub.db' })
  const logger = pino({ level: 'silent' })
  const store = await spec.create(spec.schema.parse(spec.options), {
    name: 'store',
    folder,
    clock: systemClock,
    logger,
    fetch,
  })
  for (let first = from; first < to; first += batch) {
    const numbers = Array.from({ length: Math.min(batch, to - first) }, (_, index) => first + index)
    // Asked for in one moment, they are one commit.
    const turns = await Promise.all(numbers.map((number) => accept(store, number)))
    await store.append(turns.map(ended))
    if (first % 50_000 === 0) say(`filling the store: ${first} of ${to} turns`)
  }
  await store.close()
}

const nameOf = (number: number): string => (number % 10 === 0 ? 'c0' : `c${number % 5000}`)

async function accept(store: Store, number: number): Promise<TurnRow> {
  const accepted = await store.accept({
    bot: 'echo',
    key: 'local',
    turn: `turn_${number}`,
    conversation: { name: nameOf(number) },
    newConversation: `conv_${number}`,
    message: { id: `m${number}`, text: 'hello', files: [] },
    fingerprint: 'f',
    channel: 'rest',
    debug: false,
    bypassConsent: false,
    detached: false,
    at: Date.now(),
    queueLimit: batch,
  })
  if (accepted.outcome !== 'created') throw new Error(`turn ${number} is ${accepted.outcome}`)
  return accepted.turn
}

const ended = ({ id, epoch }: TurnRow): Append => ({
  turn: id,
  epoch,
  events: [{ seq: 2, type: 'turn.completed', text: 'hello' }],
  status: 'completed',
  result: { text: 'hello', messages: [{ id: 'm', text: 'hello' }] },
  at: Date.now(),
})
