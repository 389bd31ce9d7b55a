import { existsSync, renameSync, rmSync } from 'node:fs'
import { dirname, resolve } from 'node:path'
import { Command } from 'commander'
import { CommandFailed } from './failure.ts'
import { defaultConfig, loadConfig } from './load-config.ts'

/** `bothub backup FILE`: a copy of the store, also while a hub writes it. */
export const backupCommand = (): Command =>
  new Command('backup')
    .description('copy the store to a file, also while the hub runs')
    .argument('<file>', 'where to; it must not be there yet')
    .option('--config <file>', 'the config file', defaultConfig)
    .addHelpText(
      'after',
      '\nTo go back to it, stop the hub, put the copy where the store was, and remove its -wal and -shm files.',
    )
    .action(backup)

async function backup(file: string, options: { readonly config: string }): Promise<void> {
  const path = resolve(options.config)
  const to = resolve(file)
  if (existsSync(to)) throw new CommandFailed(`${to} is there already, and was left as it is.`)
  const loaded = await loadConfig(path)
  const { checkConfig } = await import('../core/config.ts')
  const { store } = checkConfig(loaded)
  if (!store.backup)
    throw new CommandFailed(`The store ${store.name}() makes no copies. Use the tools of its database.`)
  // A copy that was broken off must not be taken for a whole one.
  const partial = `${to}.partial`
  rmSync(partial, { force: true })
  try {
    const { turns } = await store.backup(store.options, dirname(path), partial)
    renameSync(partial, to)
    process.stdout.write(
      `${to} holds the store as it is now, with ${turns} turn${turns === 1 ? '' : 's'}; it was read back and is whole.\n`,
    )
  } finally {
    rmSync(partial, { force: true })
  }
}
