import { sqlite } from '../../plugins/sqlite/index.ts'
import type { Store } from '../../core/store.ts'
import { pluginContext } from '../fakes/turn.ts'
import type { StoreSubject } from '../suites/store.ts'

/** Opens a SQLite store in a folder, with the options of a config. */
export async function openSqlite(folder: string, options: Parameters<typeof sqlite>[0] = {}): Promise<Store> {
  const spec = sqlite({ file: 'hub.db', ...options })
  return spec.create(spec.schema.parse(spec.options), pluginContext({ folder }))
}

/** The SQLite store, in a file of its own for every case. */
export const sqliteSubject: StoreSubject = { open: (folder) => openSqlite(folder, { lockTimeoutMs: 0 }) }
