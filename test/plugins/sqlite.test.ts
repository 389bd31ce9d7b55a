import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import Database from 'better-sqlite3'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { recordIds } from '../../core/records.ts'
import { migrations } from '../../plugins/sqlite/schema.ts'
import { openSqlite } from './sqlite.subject.ts'

// What every store does is in its suite; this is what is SQLite's own.

let folder: string
beforeEach(() => (folder = mkdtempSync(join(tmpdir(), 'bothub-'))))
afterEach(() => rmSync(folder, { recursive: true, force: true }))

describe('the file', () => {
  it('is written ahead', async () => {
    const store = await openSqlite(folder)
    await store.openConversation({ bot: 'bot', key: 'local' }, 'a', 'conv_1', 1)
    await store.close()
    const database = new Database(join(folder, 'hub.db'))
    expect(database.pragma('journal_mode', { simple: true })).toBe('wal')
    expect(database.prepare('SELECT count(*) FROM conversations').pluck().get()).toBe(1)
    database.close()
  })

  it('is waited for while another hub has it', async () => {
    const store = await openSqlite(folder)
    await expect(openSqlite(folder, { lockTimeoutMs: 0 })).rejects.toMatchObject({
      code: 'store_unavailable',
      message: expect.stringContaining('Another hub has'),
    })
    const waiting = openSqlite(folder, { lockTimeoutMs: 5000 })
    await store.close()
    await (await waiting).close()
  })

  it('of a hub that knew no ids of records gets them', async () => {
    const database = new Database(join(folder, 'hub.db'))
    const before = migrations.findIndex((step) => step.includes('record_id'))
    expect(before).toBeGreaterThan(0)
    for (const step of migrations.slice(0, before)) database.exec(step)
    database.pragma(`user_version = ${before}`)
    database.exec(`
      INSERT INTO conversations (id, bot, key, name, created_at, updated_at) VALUES ('conv_1', 'bot', 'local', 'a', 1, 1);
      INSERT INTO records (conversation, turn, turn_number, role, text, at) VALUES ('conv_1', 'turn_1', 1, 'user', 'hi', 5);
      INSERT INTO records (conversation, turn, turn_number, role, text, at) VALUES ('conv_1', 'turn_1', 1, 'bot', 'ho', 6);
    `)
    database.close()
    const store = await openSqlite(folder)
    const { records } = await store.findRecords({ bot: 'bot', key: 'local' }, { limit: 10 })
    await store.close()
    const { user, bot } = recordIds('turn_1')
    expect(records).toMatchObject([
      { id: user, reply: bot, text: 'hi', at: 5, updatedAt: 5, fields: {} },
      { id: bot, reply: bot, text: 'ho', at: 6, updatedAt: 6, fields: {} },
    ])
  })

  it('of a newer hub is left alone', async () => {
    await (await openSqlite(folder)).close()
    const database = new Database(join(folder, 'hub.db'))
    database.pragma('user_version = 999')
    database.close()
    await expect(openSqlite(folder)).rejects.toMatchObject({ message: expect.stringContaining('newer bothub') })
    const again = new Database(join(folder, 'hub.db'))
    expect(again.pragma('user_version', { simple: true })).toBe(999)
    again.close()
  })
})
