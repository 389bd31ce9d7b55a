import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import Database from 'better-sqlite3'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
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
