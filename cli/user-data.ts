import { dirname, resolve } from 'node:path'
import type { Command } from 'commander'
import type { UserReach } from '../core/user-reach.ts'
import { defaultConfig, loadConfig } from './load-config.ts'
import { portNumber } from './options.ts'
import type { ListenFlags } from './start.ts'
import { listenFlags } from './start.ts'

/** Whom a command is about, and where the hub is. */
export interface UserFlags extends ListenFlags {
  readonly user: string
  readonly key?: string
  readonly config: string
}

/** The options of a command that is about a user. */
export const withUserOptions = (command: Command): Command =>
  command
    .requiredOption('--user <user>', 'the user, as keys name them')
    .option('--key <name>', 'only what this key has of them')
    .option('--config <file>', 'the config file', defaultConfig)
    .option('--host <host>', 'where the hub listens (else HUB_HOST, else the config)')
    .option('--port <port>', 'where the hub listens (else HUB_PORT, else the config)', portNumber)

/** Does something with what is kept of users, by the running hub, or, where none runs, by its store. */
export async function withUsers(flags: UserFlags, work: (reach: UserReach) => Promise<void>): Promise<void> {
  const path = resolve(flags.config)
  const loaded = await loadConfig(path)
  const [{ checkConfig }, { reachUsers }] = await Promise.all([
    import('../core/config.ts'),
    import('../core/user-reach.ts'),
  ])
  await using reach = await reachUsers(checkConfig(loaded, listenFlags(flags)), dirname(path))
  await work(reach)
}
