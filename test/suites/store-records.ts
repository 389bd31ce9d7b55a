import { expect } from 'vitest'
import { anyRecord, recordIds } from '../../core/records.ts'
import type { NewRecord, RecordCondition, RecordQuery, StoredRecord } from '../../core/records.ts'
import type { AcceptInput, Append, Store, TurnRow } from '../../core/store.ts'
import { meets } from '../support/record-filter.ts'
import { naughtyStrings } from './naughty.ts'
import type { StoreSubject } from './store.ts'
import type { Case } from './suite.ts'

/** What these cases take from those of the store. */
interface Tools {
  withStore(work: (store: Store) => Promise<void>): (subject: StoreSubject) => Promise<void>
  accepted(store: Store, changes?: Partial<AcceptInput>): Promise<TurnRow>
  ending(turn: TurnRow, changes?: { readonly text?: string; readonly status?: TurnRow['status'] }): Append
}

const owner = { bot: 'bot', key: 'local' }

/** What every store does with the records that bots search and write. */
export const recordCasesWith = ({ withStore, accepted, ending }: Tools): readonly Case<StoreSubject>[] => [
  {
    title: "gives a turn's two records the ids that are known before",
    run: withStore(async (store) => {
      const turn = await accepted(store)
      await store.append([ending(turn)])
      const { user, bot } = recordIds(turn.id)
      const { records } = await store.findRecords(owner, { limit: 10 })
      expect(records).toMatchObject([
        { id: user, role: 'user', text: turn.message.text, reply: bot, turn: turn.id, fields: {} },
        { id: bot, role: 'bot', text: 'answer', reply: bot, turn: turn.id, fields: {} },
      ])
      expect(records[0]).toMatchObject({ conversation: turn.conversation, at: turn.createdAt })
    }),
  },
  {
    title: "lets a turn's own answer be made early, and ends with two records all the same",
    run: withStore(async (store) => {
      const [silent, early, failed] = [
        await accepted(store),
        await accepted(store, { conversation: { name: 'b' } }),
        await accepted(store, { conversation: { name: 'c' } }),
      ]
      for (const turn of [silent, early, failed]) await store.addRecords(owner, [ownOf(turn)], 5)
      await store.addRecords(owner, [ownOf(early, { text: 'its own words', fields: { image: 'a.png' } })], 6)
      const during = await store.findRecords({ ...owner, conversation: silent.conversation.id }, { limit: 10 })
      expect(during.records).toMatchObject([{ role: 'user' }, { role: 'bot', text: '', partial: true, at: 5 }])
      await store.append([ending(silent), ending(early), ending(failed, { status: 'failed' })])
      const { records, total } = await store.findRecords(owner, { where: byBot, limit: 10, count: true })
      expect(total).toBe(3)
      expect(records.map(({ text, partial, id }) => [text, partial ?? false, id])).toEqual([
        ['answer', false, recordIds(silent.id).bot],
        ['its own words', false, recordIds(early.id).bot],
        ['answer', true, recordIds(failed.id).bot],
      ])
      expect(records[1]!.fields).toEqual({ image: 'a.png' })
      expect(await store.history(failed.conversation.id, { limit: 10 })).toHaveLength(1)
    }),
  },
  {
    title: "keeps a turn's records together when its answer gets another id",
    run: withStore(async (store) => {
      const turn = await accepted(store)
      await store.addRecords(owner, [ownOf(turn), ownOf(turn, { id: 'record-1' })], 5)
      await store.append([ending(turn)])
      const { records } = await store.findRecords(owner, { limit: 10 })
      expect(records.map(({ role, reply }) => [role, reply])).toEqual([
        ['user', 'record-1'],
        ['bot', 'record-1'],
      ])
    }),
  },
  {
    title: "never shows or touches anybody else's records",
    run: withStore(async (store) => {
      const turn = await accepted(store, { user: 'ada' })
      for (const other of [{}, { user: 'bob' }, { user: 'ada', key: 'other' }, { user: 'ada', bot: 'other' }]) {
        const scope = { ...owner, ...other }
        const within = { ...scope, conversation: turn.conversation.id }
        expect((await store.findRecords(scope, { limit: 10 })).records).toEqual([])
        expect(await store.changeRecords(scope, { where: anyRecord, set: { text: 'mine' } }, 5)).toEqual({ changed: 0 })
        expect(await store.deleteRecords(scope, anyRecord)).toBe(0)
        // A conversation's id is enough for its key, whatever user is named.
        const open = !('key' in other || 'bot' in other)
        expect((await store.findRecords(within, { limit: 10 })).records).toHaveLength(open ? 1 : 0)
        if (open) continue
        const intruding = { ...ownOf(turn), conversation: turn.conversation }
        await expect(store.addRecords(scope, [intruding], 5)).rejects.toMatchObject({ code: 'unknown_conversation' })
      }
    }),
  },
  {
    title: 'changes and deletes what a condition names, and adds what is not there',
    run: withStore(async (store) => {
      const turn = await accepted(store)
      const plain = (text: string): NewRecord => ({ ...ownOf(turn, { text, fields: { kept: 1 } }), own: false })
      const ids = await store.addRecords(owner, ['one', 'two', 'three'].map(plain), 5)
      expect(new Set(ids.map(({ id }) => id)).size).toBe(3)
      expect(await store.changeRecords(owner, { where: byBot, set: { fields: { seen: true } }, limit: 2 }, 6)).toEqual({
        changed: 2,
      })
      const where = { type: 'equal', property: 'text', value: 'four' } as const
      const otherwise = plain('four')
      expect(await store.changeRecords(owner, { where, set: { text: '4' }, otherwise }, 7)).toMatchObject({
        changed: 0,
        added: { text: 'four', at: 7 },
      })
      expect(await store.changeRecords(owner, { where, set: { text: '4' }, otherwise }, 8)).toEqual({ changed: 1 })
      const found = await store.findRecords(owner, { where: byBot, limit: 10 })
      expect(found.records.map(({ text, fields, updatedAt }) => [text, fields, updatedAt])).toEqual([
        ['one', { kept: 1, seen: true }, 6],
        ['two', { kept: 1, seen: true }, 6],
        ['three', { kept: 1 }, 5],
        ['4', { kept: 1 }, 8],
      ])
      expect(await store.deleteRecords(owner, byBot, 1)).toBe(1)
      expect(await store.deleteRecords(owner, byBot)).toBe(3)
      expect((await store.findRecords(owner, { limit: 10 })).records).toMatchObject([{ role: 'user' }])
    }),
  },
  {
    title: 'shows a turn no record of a later one, and an answer before the message that waited for it',
    run: withStore(async (store) => {
      const [first, second] = [await accepted(store), await accepted(store)]
      const upTo = async (turn: TurnRow) =>
        (await store.findRecords(owner, { limit: 10, upTo: turn.id })).records.map(({ role, turn: of }) => [role, of])
      expect(await upTo(first)).toEqual([['user', first.id]])
      const { claimed } = await store.append([ending(first)])
      expect(await upTo(claimed[0]!)).toEqual([
        ['user', first.id],
        ['bot', first.id],
        ['user', second.id],
      ])
    }),
  },
  {
    title: 'shows a bot that was made to forget only what came after, and everybody else all of it',
    run: withStore(async (store) => {
      const before = await accepted(store)
      await store.append([ending(before)])
      await store.clear(before.conversation.id)
      const after = await accepted(store)
      const turnsOf = async (query: Partial<RecordQuery>) =>
        (await store.findRecords(owner, { limit: 10, ...query })).records.map(({ turn }) => turn)
      expect(await turnsOf({ remembered: true })).toEqual([after.id])
      expect(await turnsOf({})).toEqual([before.id, before.id, after.id])
      expect(await turnsOf({ newestFirst: true })).toEqual([after.id, before.id, before.id])
    }),
  },
  {
    title: 'keeps what bots write beside the words, byte for byte',
    run: withStore(async (store) => {
      const turn = await accepted(store)
      const fields = { texts: [...naughtyStrings], deep: { a: [1, null, true, { 'b c': 'd' }] }, number: 1.5e300 }
      await store.addRecords(owner, [ownOf(turn, { fields })], 5)
      expect((await store.findRecords(owner, { where: byBot, limit: 1 })).records[0]!.fields).toEqual(fields)
      for (const text of naughtyStrings) {
        await store.changeRecords(owner, { where: byBot, set: { fields: { 'a name': text } } }, 6)
        const where = { type: 'equal', property: { field: 'a name' }, value: text } as const
        expect((await store.findRecords(owner, { where, limit: 9 })).records).toHaveLength(1)
      }
    }),
  },
  {
    title: 'finds by any condition what a plain filter finds, in any order and page',
    run: withStore(async (store) => {
      // Loaded where it is needed: who tests no store can do without the package.
      const { fc, someCondition, someOrder, someRecord } = await import('./any-record.ts')
      const turn = await accepted(store)
      await fc.assert(
        fc.asyncProperty(
          fc.array(someRecord, { maxLength: 12 }),
          someCondition,
          someOrder,
          async (some, where, order) => {
            await store.deleteRecords(owner, anyRecord)
            const all = await store.addRecords(
              owner,
              some.map((each) => ({ ...ownOf(turn), ...each, own: false })),
              5,
            )
            const expected = all.filter((record) => meets(record, where))
            const query: RecordQuery = { where, orderBy: order, limit: 100, count: true }
            const { records, total } = await store.findRecords(owner, query)
            expect(total).toBe(expected.length)
            expect(numbersOf(records).toSorted(ascending)).toEqual(numbersOf(expected))
            const paged: StoredRecord[] = []
            for (let offset = 0; offset < expected.length; offset += 5) {
              paged.push(...(await store.findRecords(owner, { ...query, limit: 5, offset })).records)
            }
            expect(numbersOf(paged)).toEqual(numbersOf(records))
            const texts = records.map(({ text }) => Buffer.from(text))
            if (order[0]?.property === 'text') {
              const sorted = texts.toSorted((one, other) => Buffer.compare(one, other))
              expect(texts).toEqual(order[0].direction === 'desc' ? sorted.toReversed() : sorted)
            }
          },
        ),
        { numRuns: 150 },
      )
    }),
  },
]

const byBot: RecordCondition = { type: 'equal', property: 'role', value: 'bot' }

const ownOf = (turn: TurnRow, changes: Partial<NewRecord> = {}): NewRecord => ({
  turn: turn.id,
  role: 'bot',
  text: '',
  fields: {},
  own: true,
  conversation: { id: turn.conversation.id },
  newConversation: 'conv_unused',
  ...changes,
})

const numbersOf = (records: readonly StoredRecord[]): number[] => records.map(({ number }) => number)
const ascending = (one: number, other: number): number => one - other
