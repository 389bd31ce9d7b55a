import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { hostname } from 'node:os'
import { dirname, isAbsolute, join } from 'node:path'
import type Database from 'better-sqlite3'
import { z } from 'zod'
import { HubError } from '../../core/errors.ts'
import { faultPoint } from '../../core/fault-points.ts'
import { defineStore } from '../../core/plugin.ts'
import { migrations } from './schema.ts'
import type { Lock } from './store.ts'
import { SqliteStore } from './store.ts'

/**
 * Keeps everything in one SQLite file: write-ahead log, every commit synced to the disk before it counts. One hub
 * writes a file; a second one waits 5 s for the first to go and then says so.
 */
export const sqlite = defineStore({
  name: 'sqlite',
  options: z.strictObject({
    file: z
      .string()
      .min(1)
      .default('data/hub.db')
      .describe('The database file; relative to the config file. `:memory:` keeps nothing.'),
    lockTimeoutMs: z
      .int()
      .nonnegative()
      .default(5000)
      .describe('How long to wait for another hub to let go of the file.'),
  }),
  async create({ file, lockTimeoutMs }, { folder, clock }) {
    // The addon is loaded here and not on import, so that an old Node has been told what to do by now.
    const { default: open } = await import('better-sqlite3')
    if (file === ':memory:') return new SqliteStore(prepare(new open(file)))
    const path = isAbsolute(file) ? file : join(folder, file)
    mkdirSync(dirname(path), { recursive: true })
    const lock = await acquire(new open(`${path}.lock`, { timeout: 0 }), path, lockTimeoutMs, clock)
    try {
      return new SqliteStore(prepare(new open(path, { timeout: 250 })), lock)
    } catch (error) {
      lock.close()
      throw error instanceof HubError ? error : unusable(path, error)
    }
  },
  async backup({ file }, folder, to) {
    const { default: open } = await import('better-sqlite3')
    const path = isAbsolute(file) ? file : join(folder, file)
    if (!existsSync(path)) {
      throw new HubError('store_unavailable', { message: `There is no store at ${path}; the hub has not run yet.` })
    }
    try {
      const database = new open(path, { readonly: true })
      try {
        // All in one step, under one read lock: a copy in many would begin anew with each commit of a running hub.
        await database.backup(to, { progress: () => 2_147_483_647 })
      } finally {
        database.close()
      }
      return readBack(new open(to))
    } catch (error) {
      throw new HubError('store_unavailable', { message: `${path} was not copied: ${reasonOf(error)}`, cause: error })
    }
  },
})

function readBack(copy: Database.Database): { readonly turns: number } {
  try {
    // A file of its own, without a log beside it.
    copy.pragma('journal_mode = DELETE')
    const found = copy.pragma('integrity_check', { simple: true })
    if (found !== 'ok') throw new Error(`the copy is broken (${String(found)})`)
    return copy.prepare<[], { turns: number }>('SELECT COUNT(*) AS turns FROM turns').get()!
  } finally {
    copy.close()
  }
}

const reasonOf = (error: unknown): string => (error instanceof Error ? error.message : 'no reason given')

/** What SQLite says of a file it cannot use. The file is left as it is: nothing is made anew over somebody's data. */
const unusable = (path: string, cause: unknown): HubError =>
  new HubError('store_unavailable', {
    message: `${path} cannot be opened (${reasonOf(cause)}). It was left as it is: restore it from a backup, or start with another file.`,
    cause,
  })

/** An open exclusive transaction on a file beside the database: the kernel frees it, however the process ends. */
async function acquire(
  lock: Database.Database,
  path: string,
  timeoutMs: number,
  clock: { now(): number; sleep(ms: number): Promise<void> },
): Promise<Lock> {
  const deadline = clock.now() + timeoutMs
  for (;;) {
    try {
      lock.exec('BEGIN EXCLUSIVE')
      return signed(lock, path)
    } catch (error) {
      if (!isBusy(error) || clock.now() >= deadline) {
        lock.close()
        throw new HubError('store_unavailable', {
          message: `Another hub has ${path} open. Stop it${holderOf(path)}, or give this one a store of its own.`,
          cause: error,
        })
      }
    }
    await clock.sleep(100)
  }
}

/** Says beside the database who has it, which a locked file cannot; without that the lock is as good. */
function signed(lock: Database.Database, path: string): Lock {
  const note = `${path}.pid`
  unlessRefused(() => writeFileSync(note, `process ${process.pid} on ${hostname()}`))
  return {
    close() {
      unlessRefused(() => rmSync(note, { force: true }))
      lock.close()
    },
  }
}

/** ` (process 4711 on web-1)`, where its holder could say so. */
function holderOf(path: string): string {
  const said = unlessRefused(() => readFileSync(`${path}.pid`, 'utf8')) ?? ''
  return /^process \d+ on [\w.-]+$/.test(said) ? ` (${said})` : ''
}

function unlessRefused<Result>(work: () => Result): Result | undefined {
  try {
    return work()
  } catch {
    return undefined
  }
}

const isBusy = (error: unknown): boolean =>
  error instanceof Error && 'code' in error && String(error.code).startsWith('SQLITE_BUSY')

function prepare(database: Database.Database): Database.Database {
  // better-sqlite3 opens WAL databases with NORMAL, which may lose the last commits at a power cut.
  database.pragma('journal_mode = WAL')
  database.pragma('synchronous = FULL')
  if (database.pragma('synchronous', { simple: true }) !== 2) {
    throw new HubError('store_unavailable', {
      message: 'SQLite does not sync every commit here, so nothing could be promised.',
    })
  }
  database.pragma('foreign_keys = ON')
  migrate(database)
  return database
}

function migrate(database: Database.Database): void {
  const version = database.pragma('user_version', { simple: true }) as number
  if (version > migrations.length) {
    const path = database.name
    database.close()
    throw new HubError('store_unavailable', {
      message: `${path} was written by a newer bothub (schema ${version}, this one knows ${migrations.length}). Install that version again, or start with another file.`,
    })
  }
  for (const [index, step] of migrations.entries()) {
    if (index < version) continue
    database.transaction(() => {
      database.exec(step)
      faultPoint('migration.inside')
      database.pragma(`user_version = ${index + 1}`)
    })()
  }
}
