import { flushCompileCache } from 'node:module'
import { dirname, resolve } from 'node:path'
import { setFlagsFromString } from 'node:v8'
import { Command } from 'commander'
import type { CheckedConfig } from '../core/config.ts'
import { HubError } from '../core/errors.ts'
import type { Hub } from '../core/hub.ts'
import { defaultConfig, loadConfig } from './load-config.ts'
import { openFilesLimit, openFilesLine } from './open-files.ts'
import { portNumber } from './options.ts'
import { stopOnSignals } from './signals.ts'
import { tryIt } from './try-it.ts'

/** `bothub start`, which is also what `bothub` alone does. */
export const startCommand = (): Command =>
  withHubOptions(new Command('start').description('run the hub of a config file')).action(start)

/** Which hub to run, and where it listens. */
export const withHubOptions = (command: Command): Command =>
  command
    .option('--config <file>', 'the config file', defaultConfig)
    .option('--host <host>', 'address to listen on (else HUB_HOST, else the config)')
    .option('--port <port>', 'port to listen on, 0 for a free one (else HUB_PORT, else the config)', portNumber)

/** What says where a hub listens, before its config does. */
export interface ListenFlags {
  readonly host?: string
  readonly port?: number
}

async function start(options: ListenFlags & { readonly config: string }): Promise<void> {
  const path = resolve(options.config)
  const loaded = await loadConfig(path)
  const given = listenFlags(options)
  const [{ checkConfig }, { createHub }] = await Promise.all([import('../core/config.ts'), import('../core/hub.ts')])
  const config = checkConfig(loaded, given)
  const hub = await createHub(config, { folder: dirname(path) })
  forbidPretenuring()
  stopOnSignals(hub)
  process.stdout.write(greeting(hub, config))
  if (process.send) obey(hub)
}

/**
 * V8 would put where the old things are what it once saw grow old, and all that is reached from there would stay with it:
 * docs/decisions/2026-11-22-what-waits-is-small.md. Compiled code is good for one set of flags, Node's own too, so it is
 * loaded and kept first: a start takes 15 ms less.
 */
function forbidPretenuring(): void {
  flushCompileCache()
  setFlagsFromString('--no-allocation-site-pretenuring')
}

/** What `bothub dev` tells a hub that is to be replaced. */
export const stopWhenIdle = 'stop when idle'

/** Tells `bothub dev` where the hub listens, makes room for the next one when it says so, and ends when it is gone. */
function obey(hub: Hub): void {
  const end = () => void process.kill(process.pid, 'SIGTERM')
  if (!process.connected) return end()
  process.once('disconnect', end)
  // If it has gone just now, 'disconnect' says so; without a callback the error would be thrown.
  process.send!({ port: Number(new URL(hub.url).port) }, () => {})
  process.on('message', (message) => {
    if (message !== stopWhenIdle) return
    void hub
      .idle()
      .then(() => hub.stop())
      .then(() => process.exit(0))
  })
}

/**
 * The flags, and the environment where they say nothing.
 * @throws HubError `config_invalid`
 */
export function listenFlags(flags: ListenFlags): ListenFlags {
  const host = flags.host ?? process.env['HUB_HOST']
  const port = flags.port ?? portFromEnvironment()
  return { ...(host ? { host } : {}), ...(port === undefined ? {} : { port }) }
}

function portFromEnvironment(): number | undefined {
  const { HUB_PORT } = process.env
  if (!HUB_PORT) return undefined
  try {
    return portNumber(HUB_PORT)
  } catch (error) {
    throw new HubError('config_invalid', {
      message: 'HUB_PORT is not a port. Set it to a number from 0 to 65535.',
      cause: error,
    })
  }
}

function greeting(hub: Hub, config: CheckedConfig): string {
  const width = Math.max(...hub.doors.map(({ channel }) => channel.length))
  const doors = hub.doors.map(({ channel, door }) => {
    const [verb, ...rest] = door.split(' ')
    const base = verb === 'ws' ? hub.url.replace('http', 'ws') : hub.url
    return `  ${channel.padEnd(width)}  ${verb === 'ws' ? '' : `${verb} `}${base}${rest.join(' ')}\n`
  })
  const request = tryIt(config, hub.url)
  const limit = openFilesLimit()
  return `bothub listens on ${hub.url} with ${config.bots.size} bot${config.bots.size === 1 ? '' : 's'}: ${[...config.bots.keys()].join(', ')}
${doors.join('')}${hub.metricsUrl ? `  ${'metrics'.padEnd(width)}  GET ${hub.metricsUrl}\n` : ''}${hub.notices.map((notice) => `  ${notice}\n`).join('')}${limit === undefined ? '' : `  ${openFilesLine(limit)}\n`}${request === undefined ? '' : `\n${request}`}
`
}
