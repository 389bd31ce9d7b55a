import { mkdtempSync, readdirSync, rmSync } from 'node:fs'
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
      message: expect.stringMatching(/^Another hub has .*hub\.db open\. Stop it \(process \d+ on \S+\), or /),
    })
    const waiting = openSqlite(folder, { lockTimeoutMs: 5000 })
    await store.close()
    await (await waiting).close()
    expect(readdirSync(folder).filter((name) => name.endsWith('.pid'))).toEqual([])
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

  it('is not searched through at once, however rare what is looked for is', async () => {
    await (await openSqlite(folder)).close()
    const database = new Database(join(folder, 'hub.db'))
    const many = 'WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 6000)'
    database.exec(`
      INSERT INTO audit (at, what, by) VALUES (1, 'operator spoke', 'ops');
      ${many} INSERT INTO audit (at, what, by) SELECT i, 'admin read', 'ops' FROM n;
      INSERT INTO conversations (id, bot, key, name, created_at, updated_at) VALUES ('conv_00000', 'rare', 'k', 'a', 1, 1);
      ${many} INSERT INTO conversations (id, bot, key, name, created_at, updated_at)
        SELECT format('conv_%05d', i), 'bot', 'k', i, 1, 1 FROM n;
      INSERT INTO turns (id, conversation, message_id, message, fingerprint, channel, debug, bypass, status, epoch, seq, created_at, ended_at)
        VALUES ('turn_0', 'conv_00000', 'm', '{}', 'f', 'rest', 0, 0, 'failed', 1, 1, 1, 1);
      ${many} INSERT INTO turns (id, conversation, message_id, message, fingerprint, channel, debug, bypass, status, epoch, seq, created_at, ended_at)
        SELECT 'turn_' || i, format('conv_%05d', i), 'm', '{}', 'f', 'rest', 0, 0, 'completed', 1, 1, 1, 1 FROM n;
    `)
    database.close()
    const store = await openSqlite(folder)
    const pages = [
      await store.searchTurns({ status: 'failed', limit: 5 }),
      await store.searchConversations({ bot: 'rare', limit: 5 }),
      await store.audited({ what: 'operator spoke', limit: 5 }),
    ]
    expect(pages).toEqual(Array.from({ length: 3 }, () => ({ items: [], before: expect.any(String) })))
    const [turns, conversations, audit] = pages.map(({ before }) => ({ limit: 5, before }))
    expect(await store.searchTurns({ status: 'failed', ...turns! })).toMatchObject({ items: [{ id: 'turn_0' }] })
    expect(await store.searchConversations({ bot: 'rare', ...conversations! })).toMatchObject({
      items: [{ id: 'conv_00000' }],
    })
    const last = await store.audited({ what: 'operator spoke', ...audit! })
    expect(last).toMatchObject({ items: [{ by: 'ops', at: 1 }] })
    expect(last.before).toBeUndefined()
    await store.close()
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
