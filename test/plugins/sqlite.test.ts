import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import Database from 'better-sqlite3'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { sqlite } from '../../index.ts'
import type { AcceptInput, Store } from '../../core/store.ts'
import { pluginContext } from '../fakes/turn.ts'

let folder: string
beforeEach(() => (folder = mkdtempSync(join(tmpdir(), 'bothub-'))))
afterEach(() => rmSync(folder, { recursive: true, force: true }))

const open = async (options: Parameters<typeof sqlite>[0] = {}): Promise<Store> => {
  const spec = sqlite({ file: 'hub.db', ...options })
  return spec.create(spec.schema.parse(spec.options), pluginContext({ folder }))
}
let count = 0
const input = (changes: Partial<AcceptInput> = {}): AcceptInput => {
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
    at: count,
    queueLimit: 10,
    ...changes,
  }
}
const accepted = async (store: Store, changes: Partial<AcceptInput> = {}) => {
  const result = await store.accept(input(changes))
  if (result.outcome !== 'created') throw new Error(result.outcome)
  return result.turn
}
const end = (turn: { id: string; epoch: number; seq: number }, text = 'answer', status = 'completed' as const) => ({
  turn: turn.id,
  epoch: turn.epoch,
  events: [{ seq: turn.seq + 1, type: 'turn.completed' as const, text }],
  status,
  result: { text, messages: [{ id: 'm', text }] },
  at: count,
})

describe('the file', () => {
  it('is written ahead', async () => {
    const store = await open()
    await accepted(store)
    await store.close()
    const database = new Database(join(folder, 'hub.db'))
    expect(database.pragma('journal_mode', { simple: true })).toBe('wal')
    database.close()
  })

  it('belongs to one hub at a time, and to the next as soon as the first has gone', async () => {
    const store = await open()
    await expect(open({ lockTimeoutMs: 0 })).rejects.toMatchObject({
      code: 'store_unavailable',
      message: expect.stringContaining('Another hub has'),
    })
    const waiting = open({ lockTimeoutMs: 5000 })
    await store.close()
    await (await waiting).close()
  })

  it('of a newer hub is left alone', async () => {
    await (await open()).close()
    const database = new Database(join(folder, 'hub.db'))
    database.pragma('user_version = 999')
    database.close()
    await expect(open()).rejects.toMatchObject({ message: expect.stringContaining('newer bothub') })
    const again = new Database(join(folder, 'hub.db'))
    expect(again.pragma('user_version', { simple: true })).toBe(999)
    again.close()
  })
})

describe('accepting', () => {
  it('runs the first message of a conversation and queues the next', async () => {
    const store = await open()
    const [first, second] = [await accepted(store), await accepted(store)]
    expect([first.status, second.status]).toEqual(['running', 'queued'])
    expect(first.conversation).toEqual(second.conversation)
    expect(await store.read(first.id, 0, 10)).toEqual([
      { seq: 1, type: 'turn.started', turn: first.id, bot: 'bot', conversation: 'a', message: first.message.id },
    ])
    await store.close()
  })

  it('knows a message again by its id, in its conversation only, and another one under its id', async () => {
    const store = await open()
    const first = input()
    await store.accept(first)
    const again = { ...first, turn: 'turn_again', newConversation: 'conv_again' }
    expect(await store.accept(again)).toMatchObject({ outcome: 'duplicate', turn: { id: first.turn } })
    expect(await store.accept({ ...again, fingerprint: 'other' })).toMatchObject({ outcome: 'mismatch' })
    for (const other of [{ conversation: { name: 'b' } }, { user: 'ada' }, { key: 'other' }, { bot: 'other' }]) {
      expect(await store.accept({ ...input(), message: first.message, ...other })).toMatchObject({ outcome: 'created' })
    }
    await store.close()
  })

  it('finds a conversation by its id for its key alone', async () => {
    const store = await open()
    const { conversation } = await accepted(store, { user: 'ada' })
    expect(await store.accept(input({ conversation: { id: conversation.id } }))).toMatchObject({ outcome: 'created' })
    for (const other of [{ key: 'other' }, { bot: 'other' }]) {
      expect(await store.accept(input({ conversation: { id: conversation.id }, ...other }))).toEqual({
        outcome: 'unknown_conversation',
      })
    }
    await store.close()
  })
})

describe('appending', () => {
  it('writes the end, the record and the claim of the next turn in one step', async () => {
    const store = await open()
    const [first, second] = [await accepted(store), await accepted(store)]
    const { refused, claimed } = await store.append([end(first)])
    expect(refused).toEqual([])
    expect(claimed).toMatchObject([{ id: second.id, status: 'running' }])
    expect(await store.turn(first.id)).toMatchObject({ status: 'completed', seq: 2 })
    expect(await store.result(first.id)).toMatchObject({ text: 'answer', messages: [{ id: 'm' }] })
    expect(
      (await store.records(first.conversation.id, { limit: 10 })).items.map(({ role, turn }) => [role, turn]),
    ).toEqual([
      ['user', first.id],
      ['user', second.id],
      ['bot', first.id],
    ])
    await store.close()
  })

  it('refuses a turn that has ended and a writer of an older epoch, and writes nothing of them', async () => {
    const store = await open()
    const turn = await accepted(store)
    expect((await store.append([{ ...end(turn), epoch: turn.epoch - 1 }])).refused).toEqual([turn.id])
    await store.append([end(turn)])
    expect(
      (await store.append([{ ...end(turn, 'again'), events: [{ seq: 3, type: 'turn.completed', text: 'again' }] }]))
        .refused,
    ).toEqual([turn.id])
    expect(await store.read(turn.id, 0, 10)).toHaveLength(2)
    await store.close()
  })

  it('is all or nothing', async () => {
    const store = await open()
    const [one, two] = [await accepted(store), await accepted(store, { conversation: { name: 'b' } })]
    const broken = { ...end(two), events: [{ seq: 1, type: 'turn.completed' as const, text: 'seq 1 is taken' }] }
    await expect(store.append([end(one), broken])).rejects.toThrow()
    expect(await store.turn(one.id)).toMatchObject({ status: 'running', seq: 1 })
    await store.close()
  })

  it('keeps the cursor, the thread and the time a turn waits until', async () => {
    const store = await open()
    const turn = await accepted(store)
    const step = { turn: turn.id, epoch: turn.epoch, events: [], at: 1 }
    await store.append([
      { ...step, cursor: { at: 1 }, thread: { id: '9007199254740993' }, status: 'waiting', expiresAt: 5 },
    ])
    expect(await store.turn(turn.id)).toMatchObject({
      cursor: { at: 1 },
      thread: { id: '9007199254740993' },
      expiresAt: 5,
      status: 'waiting',
    })
    await store.append([{ ...step, expiresAt: null, status: 'running' }])
    const row = await store.turn(turn.id)
    expect(row).toMatchObject({ cursor: { at: 1 }, status: 'running' })
    expect(row).not.toHaveProperty('expiresAt')
    expect(await store.thread(turn.conversation.id)).toEqual({ id: '9007199254740993' })
    await store.close()
  })
})

describe('coming back', () => {
  it('takes over what was left, fences the writer before and claims what waits behind nothing', async () => {
    const before = await open()
    const running = await accepted(before)
    const queued = await accepted(before)
    const done = await accepted(before, { conversation: { name: 'b' } })
    const waiting = await accepted(before, { conversation: { name: 'c' } })
    const orphan = await accepted(before, { conversation: { name: 'd' } })
    await before.append([end(done), { turn: waiting.id, epoch: waiting.epoch, events: [], status: 'waiting', at: 1 }])
    await before.append([{ turn: orphan.id, epoch: orphan.epoch, events: [], status: 'queued', at: 1 }])
    await before.close()
    const after = await open()
    const { broken, waiting: parked, claimed } = await after.recover()
    expect([broken, parked, claimed].map((turns) => turns.map((turn) => turn.id))).toEqual([
      [running.id],
      [waiting.id],
      [orphan.id],
    ])
    expect((await after.append([end(running)])).refused).toEqual([running.id])
    expect((await after.append([end(broken[0]!)])).claimed).toMatchObject([{ id: queued.id }])
    await after.close()
  })
})

describe('reading back', () => {
  it('shows history by turn, though a queued message was stored before the answer it waited for', async () => {
    const store = await open()
    const [first, second] = [await accepted(store), await accepted(store)]
    await store.append([end(first, 'one')])
    expect(await store.history(first.conversation.id, 10, second.id)).toEqual([
      { role: 'user', text: first.message.text },
      { role: 'bot', text: 'one' },
    ])
    expect(await store.history(first.conversation.id, 1, second.id)).toEqual([{ role: 'bot', text: 'one' }])
    await store.close()
  })

  it('pages through records and conversations, newest page first, oldest first inside it', async () => {
    const store = await open()
    const turns = []
    for (let index = 0; index < 5; index++) {
      const turn = await accepted(store)
      await store.append([end(turn)])
      turns.push(turn)
    }
    const { id } = turns[0]!.conversation
    const pages = []
    for (let before: string | undefined; ;) {
      const page = await store.records(id, { limit: 4, ...(before ? { before } : {}) })
      pages.push(page.items.map((item) => item.turn))
      before = page.before
      if (before === undefined) break
    }
    expect(pages.map((page) => page.length)).toEqual([4, 4, 2])
    expect(pages.toReversed().flat()).toEqual(turns.flatMap((turn) => [turn.id, turn.id]))

    for (const name of ['x', 'y', 'z']) await accepted(store, { conversation: { name } })
    const owner = { bot: 'bot', key: 'local' }
    const newest = await store.conversations(owner, { limit: 2 })
    expect(newest.items.map((item) => item.name)).toEqual(['y', 'z'])
    const older = await store.conversations(owner, { limit: 2, before: newest.before! })
    expect(older.items.map((item) => item.name)).toEqual(['a', 'x'])
    expect(older).not.toHaveProperty('before')
    await store.close()
  })

  it('forgets a conversation with everything in it', async () => {
    const store = await open()
    const turn = await accepted(store)
    await store.addFile(
      {
        id: 'file_1',
        conversation: turn.conversation.id,
        name: 'a.png',
        bytes: 3,
        mime: 'image/png',
        upstream: { blobId: '1' },
      },
      1,
    )
    expect(await store.files(turn.conversation.id, ['file_1', 'file_2'])).toEqual([
      { id: 'file_1', name: 'a.png', bytes: 3, mime: 'image/png', upstream: { blobId: '1' } },
    ])
    await store.forget(turn.conversation.id)
    expect(await store.turn(turn.id)).toBeUndefined()
    expect(await store.read(turn.id, 0, 10)).toEqual([])
    expect(await store.files(turn.conversation.id, ['file_1'])).toEqual([])
    expect((await store.records(turn.conversation.id, { limit: 10 })).items).toEqual([])
    await store.close()
  })
})
