import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect } from 'vitest'
import type { NumberedEvent, PublicError } from '../../core/events.ts'
import type { AcceptInput, Append, Page, Store, TurnRow, TurnStatus } from '../../core/store.ts'
import { naughtyStrings } from './naughty.ts'
import { recordCasesWith } from './store-records.ts'
import { registerSuite, within } from './suite.ts'
import type { Case, Subject } from './suite.ts'

/** A store, and how to try it. */
export interface StoreSubject extends Subject {
  /**
   * Opens the store of this folder, as a hub does when it starts: what an earlier one left there is there again, and a
   * second one at the same time is refused at once.
   */
  readonly open: (folder: string) => Promise<Store>
}

/**
 * Registers the cases that every store passes.
 * @example storeSuite('sqlite', { open: (folder) => openSqlite(join(folder, 'hub.db')) })
 */
export const storeSuite = (name: string, subject: StoreSubject): void =>
  registerSuite('store', name, subject, storeCases)

const recordCases = recordCasesWith({ withStore, accepted, ending: (...given) => ending(...given) })

/** What every store does; the report names them by these titles. */
export const storeCases: readonly Case<StoreSubject>[] = [
  {
    title: 'runs the first message of a conversation and queues those behind it',
    run: withStore(async (store) => {
      const turns = [await accepted(store), await accepted(store), await accepted(store)]
      expect(turns.map(({ status }) => status)).toEqual(['running', 'queued', 'queued'])
      expect(new Set(turns.map(({ conversation }) => conversation.id)).size).toBe(1)
      expect((await accepted(store, { conversation: { name: 'b' } })).status).toBe('running')
      expect(idsOf(await store.liveTurns(turns[0]!.conversation.id))).toEqual(idsOf(turns))
      expect(await store.backlog()).toMatchObject({ queued: 2 })
    }),
  },
  {
    title: 'writes the message, its record and event 1 in the commit that accepts it',
    run: withStore(async (store) => {
      const message = { id: 'm-1', text: 'hello', files: [], payload: { tenant: '1', deep: [1, { x: null }] } }
      const turn = await accepted(store, { message, user: 'ada', debug: true, bypassConsent: true, channel: 'sse' })
      expect(await store.turn(turn.id)).toEqual(turn)
      expect(turn).toMatchObject({
        message,
        bot: 'bot',
        key: 'local',
        user: 'ada',
        debug: true,
        bypassConsent: true,
        channel: 'sse',
        seq: 1,
      })
      expect(await store.read(turn.id, 0, 10)).toEqual([
        { seq: 1, type: 'turn.started', turn: turn.id, bot: 'bot', conversation: 'a', message: 'm-1' },
      ])
      expect((await store.records(turn.conversation.id, { limit: 10 })).items).toMatchObject([
        { role: 'user', text: 'hello', turn: turn.id },
      ])
    }),
  },
  {
    title: 'knows a message again by its id, in its conversation only',
    run: withStore(async (store) => {
      const first = input()
      const { id } = await accepted(store, first)
      const again = { ...first, turn: 'turn_again', newConversation: 'conv_again' }
      expect(await store.accept(again)).toMatchObject({ outcome: 'duplicate', turn: { id } })
      expect(await store.turn('turn_again')).toBeUndefined()
      for (const other of [{ conversation: { name: 'b' } }, { user: 'ada' }, { key: 'other' }, { bot: 'other' }]) {
        expect(await store.accept(input({ message: first.message, ...other }))).toMatchObject({ outcome: 'created' })
      }
    }),
  },
  {
    title: 'knows a message again after its turn has ended',
    run: withStore(async (store) => {
      const first = input()
      const turn = await accepted(store, first)
      await store.append([ending(turn)])
      expect(await store.accept({ ...first, turn: 'turn_again' })).toMatchObject({
        outcome: 'duplicate',
        turn: { id: turn.id, status: 'completed' },
      })
    }),
  },
  {
    title: 'tells another message under the same id',
    run: withStore(async (store) => {
      const first = input()
      const { id } = await accepted(store, first)
      expect(await store.accept({ ...first, turn: 'turn_other', fingerprint: 'other' })).toMatchObject({
        outcome: 'mismatch',
        turn: { id },
      })
      expect(await store.turn('turn_other')).toBeUndefined()
    }),
  },
  {
    title: 'makes one turn of a message that comes many times at once',
    run: withStore(async (store) => {
      const message = input()
      const outcomes = await Promise.all(
        Array.from({ length: 20 }, (_, index) =>
          store.accept({ ...message, turn: `turn_race_${index}`, newConversation: `conv_race_${index}` }),
        ),
      )
      expect(outcomes.filter(({ outcome }) => outcome === 'created')).toHaveLength(1)
      expect(outcomes.filter(({ outcome }) => outcome === 'duplicate')).toHaveLength(19)
    }),
  },
  {
    title: 'refuses what the queue has no place for, and leaves no trace of it',
    run: withStore(async (store) => {
      const first = await accepted(store, { queueLimit: 1 })
      await accepted(store, { queueLimit: 1 })
      const refused = input({ queueLimit: 1 })
      expect(await store.accept(refused)).toEqual({ outcome: 'queue_full' })
      expect(await store.turn(refused.turn)).toBeUndefined()
      expect((await store.records(first.conversation.id, { limit: 10 })).items).toHaveLength(2)
    }),
  },
  {
    title: 'refuses a message while a turn of its conversation waits',
    run: withStore(async (store) => {
      const turn = await accepted(store)
      await store.append([step(turn, { status: 'waiting' })])
      expect(await store.accept(input())).toMatchObject({ outcome: 'waiting', turn: { id: turn.id } })
      expect((await store.liveTurns(turn.conversation.id)).map(({ id }) => id)).toEqual([turn.id])
    }),
  },
  {
    title: 'finds a conversation by its name for its owner, and by its id for its key',
    run: withStore(async (store) => {
      const { conversation } = await accepted(store, { user: 'ada' })
      const ada = { bot: 'bot', key: 'local', user: 'ada' }
      expect(await store.conversation(ada, 'a')).toEqual(conversation)
      expect(await store.conversation({ bot: 'bot', key: 'local' }, 'a')).toBeUndefined()
      expect(await store.conversation({ bot: 'bot', key: 'local' }, conversation.id)).toEqual(conversation)
      expect(await store.openConversation(ada, 'a', 'conv_new', 1)).toEqual(conversation)
      expect(await store.openConversation({ ...ada, user: 'bob' }, 'a', 'conv_bob', 1)).toMatchObject({
        id: 'conv_bob',
      })
      expect(await store.accept(input({ conversation: { id: conversation.id } }))).toMatchObject({ outcome: 'created' })
      for (const other of [{ key: 'other' }, { bot: 'other' }]) {
        expect(await store.conversation({ bot: 'bot', key: 'local', ...other }, conversation.id)).toBeUndefined()
        expect(await store.accept(input({ conversation: { id: conversation.id }, ...other }))).toEqual({
          outcome: 'unknown_conversation',
        })
      }
      expect(await accepted(store, { conversation: 'new', newConversation: 'conv_own' })).toMatchObject({
        conversation: { id: 'conv_own', name: 'conv_own' },
      })
    }),
  },
  {
    title: 'keeps events in order, and reads them from any place',
    run: withStore(async (store) => {
      const turn = await accepted(store)
      const other = await accepted(store, { conversation: { name: 'b' } })
      for (let seq = 2; seq <= 41; seq += 4) {
        await store.append([
          step(turn, { events: [0, 1, 2, 3].map((place) => delta(seq + place)) }),
          step(other, { events: [0, 1, 2, 3].map((place) => delta(seq + place, 'other ')) }),
        ])
      }
      const events = await store.read(turn.id, 0, 1000)
      expect(events.map(({ seq }) => seq)).toEqual(Array.from({ length: 41 }, (_, index) => index + 1))
      expect(events.slice(1)).toEqual(Array.from({ length: 40 }, (_, index) => delta(index + 2)))
      expect((await store.read(turn.id, 17, 3)).map(({ seq }) => seq)).toEqual([18, 19, 20])
      expect(await store.read(turn.id, 41, 10)).toEqual([])
      expect(await store.read('turn_unknown', 0, 10)).toEqual([])
      expect(await store.turn(turn.id)).toMatchObject({ seq: 41, status: 'running' })
    }),
  },
  {
    title: 'brings every naughty string back as it was',
    run: withStore(async (store) => {
      const turn = await accepted(store)
      await store.append([
        step(turn, {
          events: naughtyStrings.map((text, index) => delta(index + 2, text)),
          cursor: [...naughtyStrings],
        }),
      ])
      const back = (await store.read(turn.id, 1, 1000)).map((event) =>
        event.type === 'message.delta' ? event.text : '',
      )
      expect(back).toEqual(naughtyStrings)
      expect((await store.turn(turn.id))?.cursor).toEqual(naughtyStrings)
      for (const [index, text] of naughtyStrings.entries()) {
        const named = await accepted(store, { conversation: { name: text }, message: { id: text, text, files: [] } })
        expect([index, named.conversation.name, named.message]).toEqual([index, text, { id: text, text, files: [] }])
        expect((await store.records(named.conversation.id, { limit: 1 })).items[0]?.text).toBe(text)
      }
    }),
  },
  {
    title: 'writes the end of a turn, its record and the claim of the next in one commit',
    run: withStore(async (store) => {
      const [first, second, third] = [await accepted(store), await accepted(store), await accepted(store)]
      const { refused, claimed } = await store.append([ending(first)])
      expect(refused).toEqual([])
      expect(claimed).toMatchObject([{ id: second.id, status: 'running' }])
      expect(await store.turn(first.id)).toMatchObject({ status: 'completed', seq: 2 })
      expect(await store.result(first.id)).toEqual({ text: 'answer', messages: [{ id: 'm', text: 'answer' }] })
      expect(await store.result(second.id)).toBeUndefined()
      expect((await store.turn(third.id))?.status).toBe('queued')
      const { items } = await store.records(first.conversation.id, { limit: 10 })
      expect(items.map(({ role, turn, text }) => [role, turn, text])).toEqual([
        ['user', first.id, first.message.text],
        ['user', second.id, second.message.text],
        ['user', third.id, third.message.text],
        ['bot', first.id, 'answer'],
      ])
      expect((await store.append([ending(claimed[0]!)])).claimed).toMatchObject([{ id: third.id }])
    }),
  },
  {
    title: 'refuses to write to a turn that has ended',
    run: withStore(async (store) => {
      const turn = await accepted(store)
      await store.append([ending(turn)])
      const late = step(turn, { events: [delta(3)], status: 'running' })
      expect(await store.append([late])).toMatchObject({ refused: [turn.id], claimed: [] })
      expect(await store.read(turn.id, 0, 10)).toHaveLength(2)
      expect(await store.turn(turn.id)).toMatchObject({ status: 'completed', seq: 2 })
    }),
  },
  {
    title: 'refuses a writer of another epoch, and writes the steps beside it',
    run: withStore(async (store) => {
      const [turn, other] = [await accepted(store), await accepted(store, { conversation: { name: 'b' } })]
      const { refused } = await store.append([{ ...ending(turn), epoch: turn.epoch - 1 }, ending(other)])
      expect(refused).toEqual([turn.id])
      expect(await store.turn(turn.id)).toMatchObject({ status: 'running', seq: 1 })
      expect(await store.turn(other.id)).toMatchObject({ status: 'completed', seq: 2 })
    }),
  },
  {
    title: 'writes all of a commit or nothing of it',
    run: withStore(async (store) => {
      const [one, two] = [await accepted(store), await accepted(store, { conversation: { name: 'b' } })]
      await expect(
        store.append([ending(one), { ...ending(two), events: [{ seq: 1, type: 'suggestion', text: 'taken' }] }]),
      ).rejects.toThrow()
      for (const turn of [one, two]) {
        expect(await store.turn(turn.id)).toMatchObject({ status: 'running', seq: 1 })
        expect(await store.read(turn.id, 0, 10)).toHaveLength(1)
      }
      expect((await store.records(one.conversation.id, { limit: 10 })).items).toHaveLength(1)
    }),
  },
  {
    title: 'keeps the cursor, the thread, and until when a turn waits',
    run: withStore(async (store) => {
      const turn = await accepted(store)
      const thread = { id: '9007199254740993' }
      await store.append([step(turn, { cursor: { at: 1 }, thread, status: 'waiting', expiresAt: 5 })])
      expect(await store.turn(turn.id)).toMatchObject({ cursor: { at: 1 }, thread, expiresAt: 5, status: 'waiting' })
      await store.append([step(turn, { expiresAt: null, status: 'running' })])
      const row = await store.turn(turn.id)
      expect(row).toMatchObject({ cursor: { at: 1 }, status: 'running' })
      expect(row).not.toHaveProperty('expiresAt')
      expect(await store.thread(turn.conversation.id)).toEqual(thread)
      await store.append([ending(turn)])
      expect((await accepted(store)).thread).toEqual(thread)
    }),
  },
  {
    title: 'counts how long a turn ran, without what it waited or was queued for',
    run: withStore(async (store) => {
      const turn = await accepted(store, { at: 100 })
      expect(turn).toMatchObject({ ranMs: 0, legAt: 100 })
      const queued = await accepted(store, { at: 110 })
      expect(queued).not.toHaveProperty('legAt')
      await store.append([step(turn, { status: 'waiting', at: 150 })])
      await store.append([step(turn, { status: 'running', at: 500 })])
      expect(await store.turn(turn.id)).toMatchObject({ ranMs: 50, legAt: 500 })
      await store.append([step(turn, { status: 'waiting', at: 525 })])
      expect(await store.turn(turn.id)).toMatchObject({ ranMs: 75 })
      const { claimed } = await store.append([{ ...ending(turn), at: 900 }])
      expect(claimed).toMatchObject([{ id: queued.id, ranMs: 0, legAt: 900 }])
      expect((await store.recover(1000)).broken).toMatchObject([{ ranMs: 0, legAt: 900 }])
    }),
  },
  {
    title: 'has everything again when it is opened again',
    async run(subject) {
      await using place = makePlace(subject)
      const before = await place.open()
      const first = input({ user: 'ada' })
      const turn = await accepted(before, first)
      await before.append([step(turn, { events: [delta(2)], cursor: { at: 2 }, thread: { id: 't' } })])
      const done = await accepted(before, { conversation: { name: 'b' } })
      await before.append([ending(done)])
      await before.addFile(fileOf(turn.conversation.id), 1)
      const known = await before.turn(turn.id)
      await before.close()
      const after = await place.open()
      expect(await after.read(turn.id, 0, 10)).toMatchObject([{ seq: 1 }, { seq: 2 }])
      expect(await after.turn(turn.id)).toEqual(known)
      expect(known).toMatchObject({ cursor: { at: 2 }, thread: { id: 't' }, seq: 2 })
      expect(await after.result(done.id)).toMatchObject({ text: 'answer' })
      expect((await after.records(done.conversation.id, { limit: 10 })).items).toHaveLength(2)
      expect(await after.files(turn.conversation.id, ['file_1'])).toHaveLength(1)
      expect(await after.accept({ ...first, turn: 'turn_again' })).toMatchObject({ outcome: 'duplicate' })
    },
  },
  {
    title: 'takes over what was left, and fences the writer before',
    async run(subject) {
      await using place = makePlace(subject)
      const before = await place.open()
      const running = await accepted(before)
      const queued = await accepted(before)
      const done = await accepted(before, { conversation: { name: 'b' } })
      const waiting = await accepted(before, { conversation: { name: 'c' } })
      const orphan = await accepted(before, { conversation: { name: 'd' } })
      await before.append([ending(done), step(waiting, { status: 'waiting' }), step(orphan, { status: 'queued' })])
      await before.close()
      const after = await place.open()
      const left = await after.recover(1)
      expect(idsOf(left.broken)).toEqual([running.id])
      expect(idsOf(left.waiting)).toEqual([waiting.id])
      expect(idsOf(left.claimed)).toEqual([orphan.id])
      expect(left.claimed).toMatchObject([{ status: 'running' }])
      expect((await after.append([ending(running)])).refused).toEqual([running.id])
      const { refused, claimed } = await after.append([ending(left.broken[0]!)])
      expect([refused, idsOf(claimed)]).toEqual([[], [queued.id]])
    },
  },
  {
    title: 'belongs to one hub at a time, and to the next as soon as the first has gone',
    async run(subject) {
      await using place = makePlace(subject)
      const first = await place.open()
      await expect(within(place.open(), 'the refusal of a second hub')).rejects.toMatchObject({
        code: 'store_unavailable',
      })
      const turn = await accepted(first)
      await first.close()
      expect(await (await place.open()).turn(turn.id)).toMatchObject({ id: turn.id })
    },
  },
  {
    title: 'shows a model what was said before a turn, by turns and not by time',
    run: withStore(async (store) => {
      // The second message was stored before the answer it waited for.
      const [first, second] = [await accepted(store), await accepted(store)]
      const { conversation } = first
      await store.append([ending(first, { text: 'one' })])
      const said = [
        { role: 'user', text: first.message.text },
        { role: 'bot', text: 'one' },
      ]
      expect(await store.history(conversation.id, { limit: 10, before: second.id })).toEqual(said)
      expect(await store.history(conversation.id, { limit: 1, before: second.id })).toEqual(said.slice(1))
      expect(await store.history(conversation.id, { limit: 10 })).toEqual([
        ...said,
        { role: 'user', text: second.message.text },
      ])
    }),
  },
  {
    title: 'shows a model one section of a conversation, and its client all',
    run: withStore(async (store) => {
      const first = await accepted(store, { message: { id: 'm-1', text: 'first', files: [] } })
      const { id } = first.conversation
      await store.append([step(first, { thread: { id: 'upstream' } }), ending(first, { text: 'one' })])
      expect(await store.conversationOf('local', id)).toMatchObject({ section: 0 })
      await store.clear(id)
      const { section = 0 } = (await store.conversationOf('local', id)) ?? {}
      expect(section).toBeGreaterThan(0)
      expect(await store.thread(id)).toBeUndefined()
      expect(await store.history(id, { limit: 10 })).toEqual([])
      await accepted(store, { message: { id: 'm-2', text: 'second', files: [] } })
      expect(await store.history(id, { limit: 10 })).toEqual([{ role: 'user', text: 'second' }])
      expect((await store.records(id, { limit: 10 })).items).toHaveLength(3)
    }),
  },
  {
    title: 'shows a model what was written outside of turns, and an upstream what no turn has told it of',
    run: withStore(async (store) => {
      const { id } = await store.addConversation({ id: 'conv_w', key: 'local' }, 1)
      const write = (text: string, bot = '') =>
        store.addRecords(
          { bot, key: 'local' },
          [{ turn: '', role: 'user', text, fields: {}, conversation: { id }, newConversation: '-' }],
          1,
        )
      const shown = async (untold: boolean, before?: string) =>
        (await store.history(id, { limit: 10, untold, ...(before ? { before } : {}) })).map(({ text }) => text)
      await write('one')
      const message = (text: string) => ({ conversation: { id }, message: { id: text, text, files: [] } })
      const first = await accepted(store, message('two'))
      expect(first).toMatchObject({ bot: 'bot', conversation: { id } })
      await store.append([ending(first, { text: 'three' })])
      await write('four', 'bot')
      const second = await accepted(store, message('five'))
      expect(await shown(true, first.id)).toEqual(['one'])
      expect(await shown(true, second.id)).toEqual(['four'])
      expect(await shown(false, second.id)).toEqual(['one', 'two', 'three', 'four'])
      await store.append([ending(second, { text: 'six' })])
      await store.clear(id)
      await write('seven', 'bot')
      expect(await shown(false)).toEqual(['seven'])
      expect(await shown(true)).toEqual(['seven'])
    }),
  },
  {
    title: 'remembers a record that has the number of a deleted one in front of its section',
    run: withStore(async (store) => {
      const turn = await accepted(store)
      const { id } = turn.conversation
      await store.append([ending(turn)])
      await store.clear(id)
      const scope = { bot: 'bot', key: 'local', conversation: id }
      expect(await store.deleteRecords(scope, { type: 'equal', property: 'role', value: 'bot' })).toBe(1)
      const [record] = await store.addRecords(
        scope,
        [{ turn: '', role: 'user', text: 'new', fields: {}, conversation: { id }, newConversation: '-' }],
        1,
      )
      expect(await store.history(id, { limit: 10 })).toEqual([{ role: 'user', text: 'new' }])
      expect((await store.findRecords(scope, { limit: 10, remembered: true })).records).toEqual([record])
    }),
  },
  {
    title: 'makes a conversation before its first message, which says whose it is',
    run: withStore(async (store) => {
      const made = await store.addConversation({ id: 'conv_open', key: 'local', metadata: { a: 1 } }, 7)
      expect(made).toMatchObject({ id: 'conv_open', key: 'local', metadata: { a: 1 }, section: 0, createdAt: 7 })
      expect(made).not.toHaveProperty('bot')
      expect(await store.conversation({ bot: 'bot', key: 'local' }, 'conv_open')).toMatchObject({ id: 'conv_open' })
      const other = { conversation: { id: 'conv_open' }, key: 'other' }
      expect(await store.accept(input(other))).toEqual({ outcome: 'unknown_conversation' })
      expect(await store.conversationOf('other', 'conv_open')).toBeUndefined()
      expect(await accepted(store, { conversation: { id: 'conv_open' }, user: 'ada' })).toMatchObject({ user: 'ada' })
      expect(await store.conversationOf('local', 'conv_open')).toMatchObject({ bot: 'bot', user: 'ada' })
      // The first one counts.
      expect(await accepted(store, { conversation: { id: 'conv_open' }, user: 'bob' })).toMatchObject({ user: 'ada' })
      expect(await store.accept(input({ conversation: { id: 'conv_open' }, bot: 'other' }))).toEqual({
        outcome: 'unknown_conversation',
      })
      await store.addConversation({ id: 'conv_bobs', key: 'local', bot: 'bot', user: 'bob' }, 8)
      expect(await accepted(store, { conversation: { id: 'conv_bobs' }, user: 'eve' })).toMatchObject({ user: 'bob' })
      await store.setMetadata('conv_bobs', { b: 2 })
      const { items } = await store.conversationsOf({ bot: 'bot', key: 'local' }, { limit: 10 })
      expect(items.map(({ id, user, metadata }) => [id, user, metadata])).toEqual([
        ['conv_open', 'ada', { a: 1 }],
        ['conv_bobs', 'bob', { b: 2 }],
      ])
    }),
  },
  {
    title: 'shows a model no partial and no empty answer, and its client both',
    run: withStore(async (store) => {
      const ends: readonly (readonly [TurnStatus, string])[] = [
        ['completed', 'whole'],
        ['failed', 'half'],
        ['cancelled', ''],
        ['completed', ''],
      ]
      let id = ''
      for (const [status, text] of ends) {
        const turn = await accepted(store)
        id = turn.conversation.id
        await store.append([ending(turn, { text, status })])
      }
      const shown = (await store.history(id, { limit: 100 })).filter(({ role }) => role === 'bot')
      expect(shown).toEqual([{ role: 'bot', text: 'whole' }])
      const rows = (await store.records(id, { limit: 100 })).items.filter(({ role }) => role === 'bot')
      expect(rows.map(({ text, partial }) => [text, partial ?? false])).toEqual([
        ['whole', false],
        ['half', true],
        ['', true],
        ['', false],
      ])
    }),
  },
  {
    title: 'pages from the newest back, oldest first inside a page',
    run: withStore(async (store) => {
      const turns: TurnRow[] = []
      for (let index = 0; index < 5; index++) {
        const turn = await accepted(store)
        await store.append([ending(turn)])
        turns.push(turn)
      }
      const records = await pagesOf((before) => store.records(turns[0]!.conversation.id, { limit: 4, ...before }))
      expect(records.map((page) => page.length)).toEqual([4, 4, 2])
      expect(records.toReversed().flatMap((page) => page.map(({ turn }) => turn))).toEqual(
        turns.flatMap(({ id }) => [id, id]),
      )
      for (const name of ['x', 'y', 'z']) await accepted(store, { conversation: { name } })
      await accepted(store, { conversation: { name: 'not mine' }, key: 'other' })
      const mine = await pagesOf((before) => store.conversations({ bot: 'bot', key: 'local' }, { limit: 3, ...before }))
      expect(mine.map((page) => page.map(({ name }) => name))).toEqual([['x', 'y', 'z'], ['a']])
      const entries = ['ada', 'bob', 'cleo'].map(
        (by) => ({ what: 'consent decided', by, details: { for: by } }) as const,
      )
      for (const [at, entry] of entries.entries()) await store.audit(entry, at)
      const audited = await pagesOf((before) => store.audited({ limit: 2, ...before }))
      expect(audited.map((page) => page.map(({ by }) => by))).toEqual([['bob', 'cleo'], ['ada']])
      expect(audited[1]![0]).toMatchObject({ ...entries[0], at: 0 })
    }),
  },
  {
    title: 'finds turns, conversations and audit entries of everybody, by what is asked for',
    run: withStore(async (store) => {
      const mine = await accepted(store)
      const queued = await accepted(store)
      const theirs = await accepted(store, { key: 'other', user: 'ada', bot: 'second' })
      await store.append([ending(theirs, { status: 'failed' })])
      const hidden = await accepted(store, { conversation: 'new', ephemeral: true })
      const all = await pagesOf((before) => store.searchTurns({ limit: 3, ...before }))
      expect(all.map(idsOf)).toEqual([idsOf([queued, theirs, hidden]), [mine.id]])
      expect(all[0]![1]).toMatchObject({
        key: 'other',
        user: 'ada',
        bot: 'second',
        status: 'failed',
        conversation: theirs.conversation,
        message: theirs.message.id,
      })
      const found = async (search: object) => idsOf((await store.searchTurns({ limit: 9, ...search })).items)
      expect(await found({ live: true })).toEqual(idsOf([mine, queued, hidden]))
      expect(await found({ live: true, status: 'queued' })).toEqual([queued.id])
      expect(await found({ bot: 'second' })).toEqual([theirs.id])
      expect(await found({ status: 'failed' })).toEqual([theirs.id])
      expect(await found({ bots: ['second', 'third'], live: false })).toEqual([theirs.id])
      expect(await found({ bots: ['second'], bot: 'bot' })).toEqual([])
      const live = await pagesOf((before) => store.searchTurns({ live: true, limit: 2, ...before }))
      expect(live.map(idsOf)).toEqual([idsOf([queued, hidden]), [mine.id]])

      const conversations = async (search: object) =>
        idsOf((await store.searchConversations({ limit: 9, ...search })).items)
      const both = [mine.conversation.id, theirs.conversation.id]
      expect((await conversations({})).toSorted()).toEqual(both.toSorted())
      expect(await conversations({ ephemeral: true })).toContain(hidden.conversation.id)
      const pages = await pagesOf((before) => store.searchConversations({ limit: 1, ...before }))
      expect(pages.map((page) => page.length)).toEqual([1, 1])
      expect(pages.toReversed().flatMap(idsOf)).toEqual(both.toSorted())
      for (const search of [{ key: 'other' }, { user: 'ada' }, { bot: 'second' }, { bots: ['second'] }]) {
        expect(await conversations(search)).toEqual([theirs.conversation.id])
      }
      await store.handOver(mine.conversation.id, 'operator')
      expect(await conversations({ taken: true })).toEqual([mine.conversation.id])

      await store.audit({ what: 'credential refused', by: 'unknown' }, 1)
      await store.audit({ what: 'operator spoke', by: 'ops', bot: 'bot' }, 2)
      await store.audit({ what: 'operator spoke', by: 'ops', bot: 'second' }, 3)
      const audited = async (search: object) => (await store.audited({ limit: 9, ...search })).items.map(({ at }) => at)
      expect(await audited({ what: 'operator spoke' })).toEqual([2, 3])
      expect(await audited({ bots: ['bot'] })).toEqual([1, 2])
    }),
  },
  {
    title: 'keeps when a turn left the queue and when its events were written, as long as they are there',
    run: withStore(async (store) => {
      const first = await accepted(store, { at: 100 })
      const second = await accepted(store, { at: 200 })
      expect([first.startedAt, second.startedAt]).toEqual([100, undefined])
      expect(await store.turnsOf(first.conversation.id)).toEqual([first.id, second.id])
      await store.append([step(first, { events: [delta(2), delta(3)], at: 300 })])
      const { claimed } = await store.append([{ ...ending({ ...first, seq: 3 }), at: 400 }])
      expect(claimed).toMatchObject([{ id: second.id, startedAt: 400 }])
      const times = async (after: number, limit = 9) =>
        (await store.readTimed(first.id, after, limit)).map(({ event, at }) => [event.seq, event.type, at])
      expect(await times(0)).toEqual([
        [1, 'turn.started', 100],
        [2, 'message.delta', 300],
        [3, 'message.delta', 300],
        [4, 'turn.completed', 400],
      ])
      expect(await times(1, 1)).toEqual([[2, 'message.delta', 300]])
      await store.compact(Number.MAX_SAFE_INTEGER, 10)
      expect(await times(0)).toEqual([
        [1, 'turn.started', 100],
        [4, 'turn.completed', 400],
      ])
    }),
  },
  {
    title: 'reads a conversation from its beginning, turn by turn',
    run: withStore(async (store) => {
      const [first, second, third] = [await accepted(store), await accepted(store), await accepted(store)]
      for (const turn of [first, second]) {
        const { epoch } = (await store.turn(turn.id))!
        await store.append([ending({ ...turn, epoch })])
      }
      const { id } = first.conversation
      const pages: string[][] = []
      for (let after: string | undefined; pages.length < 10;) {
        const page = await store.recordsByTurn(id, { limit: 2, ...(after === undefined ? {} : { after }) })
        pages.push(page.items.map(({ turn, role }) => `${turn} ${role}`))
        after = page.after
        if (after === undefined) break
      }
      const [one, two, three] = [first.id, second.id, third.id]
      // The messages of all three came before the first answer.
      expect(pages).toEqual([[`${one} user`, `${one} bot`, `${two} user`, `${two} bot`], [`${three} user`]])
      const behind = await store.recordsByTurn(id, { limit: 10, after: one })
      expect(behind.items.map(({ turn }) => turn)).toEqual([two, two, three])
      expect((await store.recordsByTurn(id, { limit: 10, after: three })).items).toEqual([])
    }),
  },
  {
    title: 'keeps what a bot says of a conversation: its title, its status and the sandboxes in it',
    run: withStore(async (store) => {
      const turn = await accepted(store)
      const { id } = turn.conversation
      const items = async () => (await store.conversations({ bot: 'bot', key: 'local' }, { limit: 10 })).items
      expect(await store.details(id)).toMatchObject({ id, name: 'a', sandboxes: [] })
      expect((await items())[0]).not.toHaveProperty('title')
      const events: NumberedEvent[] = [
        { seq: 2, type: 'conversation.updated', title: 'A trip' },
        { seq: 3, type: 'conversation.updated', status: 'COMPLETED' },
        { seq: 4, type: 'sandbox.started', name: 'box', blueprint: 'python' },
        { seq: 5, type: 'sandbox.ready', name: 'box', blueprint: 'python 4' },
      ]
      await store.append([step(turn, { events })])
      expect(await store.details(id)).toMatchObject({
        title: 'A trip',
        status: 'COMPLETED',
        sandboxes: [{ name: 'box', blueprint: 'python 4' }],
      })
      expect(await items()).toMatchObject([{ id, title: 'A trip' }])
      expect(await store.sandboxUsers({ bot: 'bot', key: 'local' }, 'box')).toEqual([id])
      for (const other of [
        { bot: 'other', key: 'local' },
        { bot: 'bot', key: 'other' },
      ]) {
        expect(await store.sandboxUsers(other, 'box')).toEqual([])
      }
      await store.forget(id)
      expect(await store.details(id)).toBeUndefined()
      expect(await store.sandboxUsers({ bot: 'bot', key: 'local' }, 'box')).toEqual([])
    }),
  },
  {
    title: 'keeps what people think of answers, the last word of each on a message',
    run: withStore(async (store) => {
      const turn = await accepted(store)
      const other = await accepted(store, { conversation: { name: 'b' }, user: 'ada' })
      const about = { conversation: turn.conversation.id, turn: turn.id, message: 'm' }
      const whole = {
        ...about,
        speaker: 'ada',
        verdict: 'bad',
        comment: "'; --",
        rating: 1,
        tags: ['slow', '錯'],
      } as const
      await store.addFeedback({ ...about, verdict: 'bad' }, 1)
      const first = await store.addFeedback(whole, 2)
      expect(first).toEqual({ ...whole, id: expect.stringMatching(/^\d+$/) as string, at: 2 })
      const second = await store.addFeedback({ ...about, verdict: 'good' }, 3)
      expect(Number(second.id)).toBeGreaterThan(Number(first.id))
      const elsewhere = { conversation: other.conversation.id, turn: other.id, message: 'm', verdict: 'good' } as const
      await store.addFeedback(elsewhere, 4)
      expect((await store.feedback({ turn: turn.id }, { limit: 10 })).items).toEqual([first, second])
      const mine = await pagesOf((before) => store.feedback({ bot: 'bot', key: 'local' }, { limit: 1, ...before }))
      expect(mine).toEqual([[second], [first]])
      expect((await store.feedback({ bot: 'bot', key: 'local', user: 'ada' }, { limit: 10 })).items).toMatchObject([
        elsewhere,
      ])
      await store.forget(turn.conversation.id)
      expect((await store.feedback({ turn: turn.id }, { limit: 10 })).items).toEqual([])
    }),
  },
  {
    title: 'has no record of a nudge, unless something is said to it',
    run: withStore(async (store) => {
      const nudge = (id: string) => ({ message: { id, text: '', files: [], nudge: true as const } })
      const turn = await accepted(store, nudge('n-1'))
      expect(turn.message).toMatchObject({ nudge: true })
      await store.append([ending(turn, { text: '' })])
      const { id } = turn.conversation
      expect((await store.records(id, { limit: 10 })).items).toEqual([])
      await store.append([ending(await accepted(store, nudge('n-2')), { text: 'awake' })])
      expect((await store.records(id, { limit: 10 })).items).toMatchObject([{ role: 'bot', text: 'awake' }])
    }),
  },
  {
    title: 'lists no ephemeral conversation, and forgets it with the last of its turns',
    run: withStore(async (store) => {
      const owner = { bot: 'bot', key: 'local' }
      const history = [{ role: 'user', text: 'before' }] as const
      const passing = input({
        conversation: 'new',
        newConversation: 'conv_e',
        ephemeral: true,
        message: { id: 'm-1', text: 'hello', files: [], history },
      })
      const first = await accepted(store, passing)
      const named = await accepted(store, { conversation: { name: 'n' } })
      const taken = await accepted(store, { conversation: { name: 'n' }, ephemeral: true })
      const listed = async () => (await store.conversations(owner, { limit: 10 })).items.map(({ name }) => name)
      expect(await listed()).toEqual(['n'])
      expect((await store.turn(first.id))?.message.history).toEqual(history)
      expect(await store.conversation(owner, 'conv_e')).toEqual(first.conversation)
      expect(await store.accept({ ...passing, turn: 'turn_again', conversation: { id: 'conv_e' } })).toMatchObject({
        outcome: 'duplicate',
        turn: { id: first.id },
      })
      const second = await accepted(store, { conversation: { id: 'conv_e' } })
      const forgetEnded = async (turn: Written) => {
        await store.append([ending(turn)])
        await store.compact(Number.MAX_SAFE_INTEGER, 10)
        return store.prune(Number.MAX_SAFE_INTEGER, 10)
      }
      expect(await forgetEnded(first)).toBe(1)
      expect(await store.conversation(owner, 'conv_e')).toEqual(first.conversation)
      expect(await forgetEnded((await store.turn(second.id))!)).toBe(1)
      expect(await store.conversation(owner, 'conv_e')).toBeUndefined()
      expect((await store.records('conv_e', { limit: 10 })).items).toEqual([])
      for (const turn of [named, taken]) await forgetEnded((await store.turn(turn.id))!)
      expect(await listed()).toEqual(['n'])
    }),
  },
  {
    title: 'counts conversations, and leaves out those that are not wanted',
    run: withStore(async (store) => {
      for (const name of ['a', 'b', 'c']) await accepted(store, { conversation: { name } })
      await accepted(store, { conversation: { name: 'not mine' }, user: 'ada' })
      const owner = { bot: 'bot', key: 'local' }
      expect(await store.countConversations(owner)).toBe(3)
      expect(await store.countConversations(owner, 'b')).toBe(2)
      const namesOf = async (options: { readonly skip?: number; readonly without?: string }) =>
        (await store.conversations(owner, { limit: 2, ...options })).items.map(({ name }) => name)
      expect(await namesOf({})).toEqual(['b', 'c'])
      expect(await namesOf({ skip: 1 })).toEqual(['a', 'b'])
      expect(await namesOf({ skip: 1, without: 'b' })).toEqual(['a'])
    }),
  },
  {
    title: 'keeps the title that a conversation was given, for it alone',
    run: withStore(async (store) => {
      const { conversation } = await accepted(store, { conversation: { name: 'a' } })
      await accepted(store, { conversation: { name: 'b' } })
      await store.retitle(conversation.id, 'About us')
      const { items } = await store.conversations({ bot: 'bot', key: 'local' }, { limit: 10 })
      expect(items.map(({ name, title }) => [name, title])).toEqual([
        ['a', 'About us'],
        ['b', undefined],
      ])
      expect(await store.details(conversation.id)).toMatchObject({ name: 'a', title: 'About us' })
    }),
  },
  {
    title: 'shows files in their conversation alone, in the order they are asked for',
    run: withStore(async (store) => {
      const { conversation } = await accepted(store)
      const other = await accepted(store, { conversation: { name: 'b' } })
      const files = ['file_1', 'file_2'].map((id) => fileOf(conversation.id, id))
      for (const file of files) await store.addFile(file, 1)
      const found = await store.files(conversation.id, ['file_2', 'file_3', 'file_1'])
      expect(found.map(({ id }) => id)).toEqual(['file_2', 'file_1'])
      expect(found[0]).toEqual({ id: 'file_2', name: 'a.png', bytes: 3, mime: 'image/png', upstream: { blobId: '1' } })
      expect(await store.files(other.conversation.id, ['file_1'])).toEqual([])
    }),
  },
  {
    title: 'forgets a conversation with everything in it, and nothing else',
    run: withStore(async (store) => {
      const message = input()
      const turn = await accepted(store, message)
      const other = await accepted(store, { conversation: { name: 'b' } })
      const { id } = turn.conversation
      await store.addFile(fileOf(id), 1)
      await store.append([ending(turn)])
      expect(await store.files(id, ['file_1'])).toHaveLength(1)
      const owed = { id: 'd', lane: 'bot:bot', type: 'conversation.deleted', payload: { was: id }, at: 1 } as const
      await store.forget(id, owed)
      expect((await store.dueDeliveries(far, [])).due).toEqual([{ ...owed, attempts: 0 }])
      expect(await store.turn(turn.id)).toBeUndefined()
      expect(await store.result(turn.id)).toBeUndefined()
      expect(await store.read(turn.id, 0, 10)).toEqual([])
      expect(await store.files(id, ['file_1'])).toEqual([])
      expect((await store.records(id, { limit: 10 })).items).toEqual([])
      expect(await store.history(id, { limit: 10 })).toEqual([])
      expect(await store.conversation({ bot: 'bot', key: 'local' }, 'a')).toBeUndefined()
      expect(await store.turn(other.id)).toEqual(other)
      // Its message ids are free again.
      expect(await store.accept({ ...message, turn: 'turn_again', newConversation: 'conv_again' })).toMatchObject({
        outcome: 'created',
      })
    }),
  },
  {
    title: 'owes what is owed in the commit that ends or parks a turn, until it is delivered',
    async run(subject) {
      await using place = makePlace(subject)
      const before = await place.open()
      const turn = await accepted(before, { owedTo: ['channel:crm'] })
      const nobodys = await accepted(before, { conversation: { name: 'b' } })
      expect(await before.dueDeliveries(far, [])).toEqual({ due: [] })
      const parked = await before.append([
        step(turn, { events: [{ seq: 2, type: 'turn.waiting', for: 'consent' }], status: 'waiting' }),
        ending(nobodys),
      ])
      expect(parked.deliveries).toBe(1)
      await before.append([step(turn, { status: 'running' })])
      expect((await before.append([ending({ ...turn, seq: 2 })])).deliveries).toBe(1)
      expect(await before.backlog()).toMatchObject({ outbox: 2 })
      const { due } = await before.dueDeliveries(far, [])
      expect(due.map(({ type }) => type)).toEqual(['turn.waiting', 'turn.completed'])
      expect(due).toMatchObject([1, 2].map(() => ({ lane: 'channel:crm', turn: turn.id, attempts: 0 })))
      const [first, second] = due.map(({ id }) => id)
      expect((await before.dueDeliveries(far, [first!])).due.map(({ id }) => id)).toEqual([second])
      await before.settleDelivery(first!, { state: 'delivered' })
      await before.settleDelivery(second!, { state: 'pending', error: 'it is out', retryAt: far + 1 })
      await before.close()
      // What could not be delivered is still owed, under the same id, to the next process.
      const after = await place.open()
      expect(await after.dueDeliveries(far, [])).toEqual({ due: [], nextAt: far + 1 })
      expect((await after.dueDeliveries(far + 1, [])).due).toMatchObject([{ id: second, attempts: 1 }])
    },
  },
  {
    title: 'owes one pause of a turn at a time, also where an earlier one is being told of',
    run: withStore(async (store) => {
      const turn = await accepted(store, { owedTo: ['channel:crm'] })
      const park = (seq: number) =>
        store.append([step(turn, { events: [{ seq, type: 'turn.waiting', for: 'consent' }], status: 'waiting' })])
      await park(2)
      const [first] = (await store.dueDeliveries(far, [])).due
      await store.append([step(turn, { status: 'running' })])
      await park(3)
      const { due } = await store.dueDeliveries(far, [])
      expect(due).toMatchObject([{ type: 'turn.waiting', turn: turn.id }])
      expect(due[0]!.id).not.toBe(first!.id)
      await store.settleDelivery(first!.id, { state: 'pending', error: 'it is out', retryAt: 0 })
      expect((await store.dueDeliveries(far, [])).due).toEqual(due)
      await store.append([step(turn, { status: 'running' }), ending({ ...turn, seq: 3 })])
      expect((await store.dueDeliveries(far, [])).due).toHaveLength(2)
    }),
  },
  {
    title: 'keeps how far each lane has got with a turn that it is owed, also for the next process',
    async run(subject) {
      await using place = makePlace(subject)
      const before = await place.open()
      const turn = await accepted(before, { owedTo: ['channel:a', 'channel:b'] })
      const other = await accepted(before, { conversation: { name: 'b' }, owedTo: ['channel:a'] })
      expect(await before.progress(turn.id, 'channel:a')).toBeUndefined()
      await before.keepProgress(turn.id, 'channel:a', { posted: [{ id: '1' }] })
      await before.keepProgress(turn.id, 'channel:a', { posted: [{ id: '1' }, { id: '2' }] })
      // Nobody owes it to this one.
      await before.keepProgress(turn.id, 'channel:c', { posted: [] })
      await before.append([ending(turn)])
      await before.close()
      const after = await place.open()
      expect(await after.progress(turn.id, 'channel:a')).toEqual({ posted: [{ id: '1' }, { id: '2' }] })
      expect(await after.progress(turn.id, 'channel:b')).toBeUndefined()
      expect(await after.progress(turn.id, 'channel:c')).toBeUndefined()
      expect(await after.progress(other.id, 'channel:a')).toBeUndefined()
    },
  },
  {
    title: 'shows what is due to one channel though another has a heap of it before',
    run: withStore(async (store) => {
      const end = async (name: string) => {
        const turn = await accepted(store, { owedTo: [`channel:${name}`] })
        await store.append([ending(turn)])
      }
      for (let count = 0; count < 150; count++) await end('gone')
      await end('alive')
      const { due } = await store.dueDeliveries(far, [])
      expect(due.filter(({ lane }) => lane === 'channel:alive')).toHaveLength(1)
      expect(due.length).toBeLessThan(150)
    }),
  },
  {
    title: 'owes hooks the end of a turn alone, with all that is to be said, also when the turn is gone',
    run: withStore(async (store) => {
      const message = input({ owedTo: ['channel:crm', 'hook:meter'], user: 'ada' })
      const turn = await accepted(store, message)
      const parked = step(turn, { events: [{ seq: 2, type: 'turn.waiting', for: 'consent' }], status: 'waiting' })
      expect((await store.append([parked])).deliveries).toBe(1)
      await store.append([step(turn, { status: 'running' })])
      const usage = { inputTokens: 1, outputTokens: 2, totalTokens: 3 }
      const end = ending({ ...turn, seq: 2 })
      await store.append([{ ...end, result: { text: 'hi', messages: [], usage } }])
      // A copy of the message owes a hook nothing new.
      await store.accept({ ...message, turn: 'turn_again', owedTo: ['hook:meter', 'hook:late'] })
      const { conversation } = turn
      await store.forget(conversation.id)
      const { due } = await store.dueDeliveries(far, [])
      const told = { turn: turn.id, status: 'completed', bot: 'bot', key: 'local', user: 'ada', usage, conversation }
      expect(due).toMatchObject([{ lane: 'hook:meter', type: 'turn.completed', attempts: 0, payload: told }])
      expect(due[0]).not.toHaveProperty('turn')
      expect(JSON.stringify(due[0]!.payload)).not.toContain('"hi"')
    }),
  },
  {
    title: 'shows no bot a message of a conversation that was handed over, and keeps what an operator says in it',
    run: withStore(async (store) => {
      const asked = await accepted(store, { owedTo: ['channel:crm'], user: 'ada' })
      await store.append([ending(asked)])
      const { id } = asked.conversation
      const by = { user: 'ada', conversation: { id } } as const
      const word = { id: 'o', text: 'Bob here', files: [], by: 'operator' } as const
      expect(await store.accept(input({ ...by, message: word }))).toEqual({ outcome: 'not_handed_over' })
      await store.handOver(id, 'ops')
      expect(await store.anyConversation(id)).toMatchObject({
        id,
        bot: 'bot',
        key: 'local',
        user: 'ada',
        takenBy: 'ops',
      })
      const kept = await accepted(store, { ...by, knownOnly: true })
      expect(kept).toMatchObject({ status: 'completed', seq: 2 })
      expect(await store.read(kept.id, 1, 9)).toEqual([{ seq: 2, type: 'turn.completed', text: '', handedOver: true }])
      const spoken = await accepted(store, { ...by, message: word })
      expect((await store.read(spoken.id, 0, 9)).map(({ type }) => type)).toEqual([
        'turn.started',
        'message.started',
        'message.delta',
        'message.completed',
        'turn.completed',
      ])
      expect(await store.result(spoken.id)).toMatchObject({ text: 'Bob here', messages: [{ text: 'Bob here' }] })
      const { due } = await store.dueDeliveries(far, [])
      expect(due.map(({ lane, turn }) => [lane, turn])).toEqual([
        ['channel:crm', asked.id],
        ['channel:crm', spoken.id],
      ])
      const { items } = await store.records(id, { limit: 9 })
      expect(items.map(({ role }) => role)).toEqual(['user', 'bot', 'user', 'operator'])
      await store.handOver(id, undefined)
      expect((await accepted(store, by)).status).toBe('running')
    }),
  },
  {
    title: 'knows a signed request again while it counts, also when its turn is forgotten',
    run: withStore(async (store) => {
      const receipt = { id: 'r', names: 'a', until: 100 }
      const first = input({ at: 1, receipt })
      const turn = await accepted(store, first)
      const again = { ...first, turn: 'turn_again', newConversation: 'conv_again', at: 100 }
      expect(await store.accept(again)).toMatchObject({ outcome: 'duplicate', turn: { id: turn.id } })
      const other = input({ at: 100, receipt: { ...receipt, names: 'b' } })
      expect(await store.accept(other)).toMatchObject({ outcome: 'mismatch', turn: { id: turn.id } })
      await store.forget(turn.conversation.id)
      expect(await store.accept(again)).toEqual({ outcome: 'replayed', forgotten: turn.id })
      expect(await store.accept({ ...again, at: 101, receipt: { ...receipt, until: 200 } })).toMatchObject({
        outcome: 'created',
        turn: { id: 'turn_again' },
      })
    }),
  },
  {
    title: 'closes a lane whose receiver refuses, and opens it when somebody has that tried again',
    run: withStore(async (store) => {
      for (const name of ['crm', 'crm', 'other']) {
        await store.append([
          ending(await accepted(store, { conversation: 'new', owedTo: [`channel:${name}`, 'hook:meter'] })),
        ])
      }
      const of = async (lane: string) =>
        (await store.dueDeliveries(far, [])).due.flatMap(({ id, lane: each }) => (each === lane ? id : []))
      const [first, second] = await of('channel:crm')
      await store.settleDelivery(first!, { state: 'refused', error: 'it is gone' })
      expect([await of('channel:crm'), (await of('channel:other')).length]).toEqual([[], 1])
      await store.settleDelivery((await of('hook:meter'))[0]!, { state: 'failed', error: 'it threw' })
      const { items, closed, before } = await store.undelivered({ limit: 4 })
      expect(closed).toEqual(['channel:crm'])
      const earlier = await store.undelivered({ limit: 4, before: before! })
      const all = [...earlier.items, ...items]
      expect(all.flatMap(({ error }) => error ?? []).toSorted()).toEqual(['it is gone', 'it threw'])
      expect(all.map(({ lane, state }) => `${lane} ${state}`).toSorted()).toEqual([
        'channel:crm failed',
        'channel:crm pending',
        'channel:other pending',
        'hook:meter failed',
        'hook:meter pending',
        'hook:meter pending',
      ])
      expect(all.every(({ turn }) => turn !== undefined)).toBe(true)
      expect(await store.retryDeliveries({ ids: [second!] }, far)).toBe(1)
      expect(await of('channel:crm')).toEqual([second])
      expect(await store.retryDeliveries({ lane: 'channel:crm' }, far)).toBe(2)
      expect(await of('channel:crm')).toEqual([first, second])
      expect(await store.retryDeliveries({}, far)).toBe(6)
      expect(await of('hook:meter')).toHaveLength(3)
      await store.settleDelivery(first!, { state: 'delivered' })
      expect((await store.undelivered({ limit: 10 })).items).toHaveLength(5)
    }),
  },
  {
    title: 'takes a message that cannot run, when it must, and ends its turn at once',
    run: withStore(async (store) => {
      const refusal = {
        waiting: { text: '', messages: [], error: failureOf('turn_waiting') },
        queueFull: { text: '', messages: [], error: failureOf('queue_full') },
      }
      const first = await accepted(store, { queueLimit: 0 })
      const full = await accepted(store, { queueLimit: 0, refusal, owedTo: ['channel:crm'] })
      await store.append([step(first, { status: 'waiting' })])
      const waiting = await accepted(store, { refusal, owedTo: ['channel:crm'] })
      for (const [turn, code] of [
        [full, 'queue_full'],
        [waiting, 'turn_waiting'],
      ] as const) {
        expect(await store.turn(turn.id)).toMatchObject({ status: 'failed' })
        expect(await store.result(turn.id)).toMatchObject({ error: { code } })
        const events = await store.read(turn.id, 0, 10)
        expect(events.map(({ seq, type }) => [seq, type])).toEqual([
          [1, 'turn.started'],
          [2, 'turn.failed'],
        ])
      }
      expect((await store.dueDeliveries(far, [])).due.map(({ turn }) => turn)).toEqual([full.id, waiting.id])
      expect(idsOf(await store.liveTurns(first.conversation.id))).toEqual([first.id])
    }),
  },
  ...recordCases,
]

/** Later than every time in these cases, in ms. */
const far = 1_000_000_000

const failureOf = (code: string): PublicError => ({ code, message: 'It cannot run now.', retryable: true })

/** Where a store keeps what it knows, for one case. */
interface Place extends AsyncDisposable {
  open(): Promise<Store>
}

function makePlace({ open }: StoreSubject): Place {
  const folder = mkdtempSync(join(tmpdir(), 'bothub-store-'))
  const opened: Store[] = []
  return {
    async open() {
      const store = await open(folder)
      opened.push(store)
      return store
    },
    async [Symbol.asyncDispose]() {
      // Some were closed by the case; that a second time may fail is no matter here.
      for (const store of opened) await store.close().catch(() => {})
      rmSync(folder, { recursive: true, force: true })
    },
  }
}

function withStore(work: (store: Store) => Promise<void>) {
  return async (subject: StoreSubject): Promise<void> => {
    await using place = makePlace(subject)
    await work(await place.open())
  }
}

let count = 0

/** A message of nobody's, different from every other one; to the conversation `a` unless it says otherwise. */
function input(changes: Partial<AcceptInput> = {}): AcceptInput {
  count += 1
  return {
    bot: 'bot',
    key: 'local',
    turn: `turn_${count}`,
    conversation: { name: 'a' },
    newConversation: `conv_${count}`,
    message: { id: `m${count}`, text: `text ${count}`, files: [] },
    fingerprint: `f${count}`,
    channel: 'rest',
    debug: false,
    bypassConsent: false,
    detached: false,
    at: count,
    queueLimit: 10,
    ...changes,
  }
}

async function accepted(store: Store, changes: Partial<AcceptInput> = {}): Promise<TurnRow> {
  const result = await store.accept(input(changes))
  if (result.outcome !== 'created') throw new Error(`the message was not accepted: ${result.outcome}`)
  return result.turn
}

type Written = Pick<TurnRow, 'id' | 'epoch' | 'seq'>

const step = (turn: Written, changes: Partial<Append>): Append => ({
  turn: turn.id,
  epoch: turn.epoch,
  events: [],
  at: ++count,
  ...changes,
})

const ending = (
  turn: Written,
  { text = 'answer', status = 'completed' }: { readonly text?: string; readonly status?: TurnStatus } = {},
): Append =>
  step(turn, {
    events: [{ seq: turn.seq + 1, type: 'turn.completed', text }],
    status,
    result: { text, messages: [{ id: 'm', text }] },
  })

const delta = (seq: number, text = `${seq} `): NumberedEvent => ({ seq, type: 'message.delta', message: 'm', text })

const fileOf = (conversation: string, id = 'file_1') => ({
  id,
  conversation,
  name: 'a.png',
  bytes: 3,
  mime: 'image/png',
  upstream: { blobId: '1' },
})

const idsOf = (items: readonly { readonly id: string }[]): string[] => items.map(({ id }) => id)

async function pagesOf<Item>(
  read: (before: { readonly before?: string }) => Promise<Page<Item>>,
): Promise<(readonly Item[])[]> {
  const pages: (readonly Item[])[] = []
  for (let before: string | undefined; pages.length < 100;) {
    const page = await read(before === undefined ? {} : { before })
    pages.push(page.items)
    before = page.before
    if (before === undefined) return pages
  }
  throw new Error('the pages have no end')
}
