import { dirname, resolve } from 'node:path'
import { styleText } from 'node:util'
import { Command } from 'commander'
import type { CheckedConfig } from '../core/config.ts'
import type { BuiltHub } from '../core/hub.ts'
import { CommandFailed } from './failure.ts'
import { defaultConfig, loadConfig } from './load-config.ts'
import { listenFlags } from './start.ts'

/** How long a bot has to answer `--live`, in ms. */
const liveWithinMs = 60_000

/** `bothub check`: every problem of a config, or what it serves; with `--live` every bot is asked something. */
export const checkCommand = (): Command =>
  new Command('check')
    .description('say what is wrong with a config, or what it serves')
    .option('--config <file>', 'the config file', defaultConfig)
    .option('--live', 'ask each bot that is not simulated for a word, to try its key')
    .action(check)

async function check(options: { readonly config: string; readonly live?: boolean }): Promise<void> {
  const path = resolve(options.config)
  const loaded = await loadConfig(path)
  const [{ checkConfig, sqlite }, { buildHub, loggerToken }, { Services }, { createLogger }] = await Promise.all([
    import('../index.ts'),
    import('../core/hub.ts'),
    import('../core/services.ts'),
    import('../core/log.ts'),
  ])
  const checked = checkConfig(loaded, listenFlags({}))
  // A running hub has the store, and what is only looked at keeps nothing.
  const config = { ...checked, store: checkConfig({ ...Object(loaded), store: sqlite({ file: ':memory:' }) }).store }
  const services = new Services().provide(loggerToken, () => createLogger(process.stderr, 'silent'))
  await using hub = await buildHub(config, { folder: dirname(path), services })
  process.stdout.write(`${path} is fine.\n\n${botTable(config, hub)}\n${routeTable(config, hub)}`)
  if (options.live) await tryBots(hub)
}

const botTable = (config: CheckedConfig, hub: BuiltHub): string =>
  `Bots\n${columns(
    Array.from(config.bots, ([name, { provider, use }]) => [
      name,
      `${provider.name}()${hub.bots.get(name)?.provider.simulated ? ', simulated' : ''}`,
      [...config.use, ...use]
        .map((each) => (typeof each === 'function' ? each.name || 'a function' : each.name))
        .join(' → '),
    ]),
  )}`

function routeTable(config: CheckedConfig, hub: BuiltHub): string {
  const rows = hub.channels.flatMap(({ name, channel }) => [
    ...(channel.routes ?? []).map(({ method, path, accepts }) => [name, method, path, accepts ?? '']),
    ...(channel.upgrades ?? []).map(({ path }) => [name, 'WS', path, '']),
  ])
  const { host, port } = config.listen
  return `Routes on ${host}:${port}, ${config.auth ? 'for callers with a key or token' : 'for everybody on this machine'}\n${columns(rows)}`
}

/** Rows in columns, each as wide as its widest cell, two spaces in. */
function columns(rows: readonly (readonly string[])[]): string {
  const widths = (rows[0] ?? []).map((_, index) => Math.max(...rows.map((row) => row[index]!.length)))
  return rows
    .map((row) => `  ${row.map((cell, index) => cell.padEnd(widths[index]!)).join('  ')}`.trimEnd() + '\n')
    .join('')
}

async function tryBots(hub: BuiltHub): Promise<void> {
  const names = Array.from(hub.bots.values()).flatMap(({ name, provider }) => (provider.simulated ? [] : [name]))
  process.stdout.write('\nAsked live\n')
  const results = await Promise.all(names.map((name) => tryBot(hub, name)))
  if (names.length === 0) process.stdout.write('  Every bot is simulated; there is no key to try.\n')
  if (results.includes(false)) throw new CommandFailed('Not every bot answers.')
}

/** Whether it answers; the conversation is deleted again, upstream too. */
async function tryBot({ dispatcher, conversations }: BuiltHub, bot: string): Promise<boolean> {
  const principal = { key: 'bothub-check', trusted: true, admin: false, bypassConsent: false }
  const startedAt = performance.now()
  const say = (isFine: boolean, words: string) => {
    const seconds = ((performance.now() - startedAt) / 1000).toFixed(1)
    const mark = isFine ? styleText('green', 'answers') : styleText('red', 'fails')
    process.stdout.write(`  ${bot}  ${mark} after ${seconds} s: ${words}\n`)
    return isFine
  }
  try {
    const { turn } = await dispatcher.send(principal, { bot, text: 'Say hello, in one word.', channel: 'check' })
    const signal = AbortSignal.timeout(liveWithinMs)
    for await (const events of dispatcher.follow(turn.id, 0, signal)) {
      if (events.some(({ type }) => type === 'turn.waiting')) break
    }
    const { status, text, error, waiting } = await dispatcher.view(turn.id)
    await conversations.forget(principal, bot, turn.conversation.id)
    if (status === 'completed') return say(true, JSON.stringify(text.slice(0, 60)))
    if (waiting) return say(true, `it waits for ${waiting.for}`)
    if (error)
      return say(
        false,
        `${error.message} (${error.code}${error.upstream ? `, ${JSON.stringify(error.upstream)}` : ''})`,
      )
    return say(false, `no answer within ${liveWithinMs / 1000} s`)
  } catch (error) {
    return say(false, error instanceof Error ? error.message : String(error))
  }
}
