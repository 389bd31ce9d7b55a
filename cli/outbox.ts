import { dirname, resolve } from 'node:path'
import { Command } from 'commander'
import type { OutboxReach } from '../core/outbox-reach.ts'
import { defaultConfig, loadConfig } from './load-config.ts'
import { portNumber } from './options.ts'
import type { ListenFlags } from './start.ts'
import { listenFlags } from './start.ts'

/** `bothub outbox list|retry`: what has not been delivered, of a hub that runs or stands. */
export const outboxCommand = (): Command =>
  new Command('outbox')
    .description('what has not been delivered, of a hub that runs or stands')
    .addCommand(withOptions(new Command('list').description('list it, a line of JSON each')).action(list))
    .addCommand(
      withOptions(new Command('retry').description('try it again now, and open closed lanes'))
        .argument('[id...]', 'deliveries; without them all')
        .option('--lane <lane>', 'only those of a lane, such as channel:crm')
        .action(retry),
    )

type Flags = ListenFlags & { readonly config: string }

const withOptions = (command: Command): Command =>
  command
    .option('--config <file>', 'the config file', defaultConfig)
    .option('--host <host>', 'where the hub listens (else HUB_HOST, else the config)')
    .option('--port <port>', 'where the hub listens (else HUB_PORT, else the config)', portNumber)

const list = (flags: Flags): Promise<void> =>
  withOutbox(flags, async (reach) => {
    const lines: unknown[] = []
    let before: string | undefined
    do {
      const page = await reach.list(before)
      lines.unshift(...page.items)
      if (before === undefined) lines.push(...page.closed.map((closed) => ({ closed })))
      before = page.before
    } while (before !== undefined)
    process.stdout.write(lines.map((line) => `${JSON.stringify(line)}\n`).join(''))
    if (lines.length === 0) process.stderr.write('Nothing waits to be delivered.\n')
  })

const retry = (ids: readonly string[], { lane, ...flags }: Flags & { readonly lane?: string }): Promise<void> =>
  withOutbox(flags, async (reach) => {
    const retried = await reach.retry({ ...(ids.length > 0 ? { ids } : {}), ...(lane ? { lane } : {}) })
    process.stdout.write(`${retried} to be tried again\n`)
  })

/** The outbox of the running hub, or, where none runs, of its store. */
async function withOutbox(flags: Flags, work: (reach: OutboxReach) => Promise<void>): Promise<void> {
  const path = resolve(flags.config)
  const loaded = await loadConfig(path)
  const [{ checkConfig }, { reachOutbox }] = await Promise.all([
    import('../core/config.ts'),
    import('../core/outbox-reach.ts'),
  ])
  await using reach = await reachOutbox(checkConfig(loaded, listenFlags(flags)), dirname(path))
  await work(reach)
}
