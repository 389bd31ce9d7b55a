import { expect, it } from 'vitest'
import { systemClock } from '../../core/clock.ts'
import type { NumberedEvent } from '../../core/events.ts'
import { forEach } from '../../core/flow.ts'
import type { Store } from '../../core/store.ts'
import { TurnLog } from '../../core/turn-log.ts'
import { acceptedTurns, temporarySqlite } from '../plugins/sqlite.subject.ts'

const logOf = (of: Store) =>
  new TurnLog(of, systemClock, { onClaimed() {}, onOwed() {}, onCommit() {}, onRefused() {} })

const word = (text: string) => ({ type: 'message.delta', message: 'm', text }) as const

/** Reads a turn behind an event, for as long as the work takes; `seen` resolves when so many events were. */
async function reading(log: TurnLog, turn: string, after: number, work: (seen: Seen) => Promise<void>): Promise<void> {
  const stop = new AbortController()
  const events: NumberedEvent[] = []
  let news = Promise.withResolvers<void>()
  const done = forEach(log.follow(turn, after, stop.signal), (group) => {
    events.push(...group)
    news.resolve()
    news = Promise.withResolvers()
  })
  await work(async (count) => {
    while (events.length < count) await news.promise
    return events
  })
  stop.abort()
  await done
}
type Seen = (count: number) => Promise<readonly NumberedEvent[]>

it('shows a reader that keeps up what was committed, and asks the store for nothing', async () => {
  await using place = await temporarySqlite()
  const [row] = await acceptedTurns(place.store, 1)
  let reads = 0
  const counting = new Proxy(place.store, {
    get(target, name: keyof Store) {
      if (name === 'read') reads++
      return target[name].bind(target)
    },
  })
  const log = logOf(counting)
  const turn = log.open(row!)
  await reading(log, turn.id, row!.seq, async (seen) => {
    for (let count = 1; count <= 20; count++) {
      log.push(turn, [word(`${count}`)])
      await log.commit()
      expect(await seen(count)).toHaveLength(count)
    }
    expect((await seen(20)).map(({ seq }) => seq)).toEqual(Array.from({ length: 20 }, (_, index) => index + 2))
  })
  expect(reads).toBe(0)
})

it('keeps no more of a turn than its last commit, and shows who comes later the rest from the store', async () => {
  await using place = await temporarySqlite()
  const [row, other] = await acceptedTurns(place.store, 2)
  const log = logOf(place.store)
  const turn = log.open(row!)
  log.push(turn, [word('one'), word('two')])
  await log.commit()
  log.push(turn, [word('three')])
  await log.commit()
  expect(turn.fresh.map(({ seq }) => seq)).toEqual([4])
  log.push(log.open(other!), [word('elsewhere')])
  await log.commit()
  expect(turn.fresh).toEqual([])
  await reading(log, turn.id, 1, async (seen) => {
    expect((await seen(3)).map(({ seq }) => seq)).toEqual([2, 3, 4])
    log.push(turn, [word('four')])
    expect((await seen(4)).at(-1)).toMatchObject({ seq: 5, text: 'four' })
  })
})

it('shows all that is stored behind a step that is no event', async () => {
  await using place = await temporarySqlite()
  const [row] = await acceptedTurns(place.store, 1)
  const log = logOf(place.store)
  const turn = log.open(row!)
  log.push(turn, [word('one')])
  await log.commit()
  log.push(turn, [], { cursor: 1 })
  await log.commit()
  await reading(log, turn.id, 0, async (seen) => {
    expect((await seen(2)).map(({ type }) => type)).toEqual(['turn.started', 'message.delta'])
  })
})
