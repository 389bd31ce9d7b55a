import { existsSync } from 'node:fs'
import { dirname, resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import { Command, InvalidArgumentError } from 'commander'
import type { CheckedConfig } from './config.ts'
import { checkConfig } from './config.ts'
import { HubError } from './errors.ts'
import type { Hub } from './hub.ts'
import { createHub } from './hub.ts'

/** The config cannot be used: sysexits' EX_CONFIG. */
const exitConfig = 78

/** A simulated upstream, as `bothub simulate NAME` runs it. */
export type Simulator = (options: { readonly port: number; readonly host: string }) => Promise<{
  readonly url: string
  /** How to point a bot at it, a line each. */
  readonly hints: readonly string[]
  close(): Promise<void>
}>

/** Runs the command line. Everything it needs from plugins is handed in by the executable. */
export async function run(argv: readonly string[], simulators: Readonly<Record<string, Simulator>>): Promise<void> {
  const program = new Command('bothub').description('A hub between bots on any platform and users on any channel.')
  program
    .command('start', { isDefault: true })
    .description('run the hub of a config file')
    .option('--config <file>', 'the config file', 'hub.config.ts')
    .option('--host <host>', 'address to listen on (else HUB_HOST, else the config)')
    .option('--port <port>', 'port to listen on, 0 for a free one (else HUB_PORT, else the config)', portNumber)
    .action(start)
  program
    .command('simulate')
    .description('run a simulated upstream, for bots without a network')
    .argument('<vendor>', Object.keys(simulators).join(' or '))
    .option('--host <host>', 'address to listen on', '127.0.0.1')
    .option('--port <port>', 'port to listen on, 0 for a free one', portNumber, 0)
    .action((vendor: string, options: { host: string; port: number }) => simulate(simulators, vendor, options))
  try {
    await program.parseAsync(argv)
  } catch (error) {
    if (!(error instanceof HubError)) throw error
    process.stderr.write(`${error.message}\n`)
    process.exitCode = error.code === 'config_invalid' ? exitConfig : 1
  }
}

interface StartOptions {
  readonly config: string
  readonly host?: string
  readonly port?: number
}

async function start(options: StartOptions): Promise<void> {
  const path = resolve(options.config)
  const host = options.host ?? process.env['HUB_HOST']
  const port = options.port ?? portFromEnvironment()
  const config = checkConfig(await loadConfig(path), {
    ...(host ? { host } : {}),
    ...(port === undefined ? {} : { port }),
  })
  const hub = await createHub(config, { folder: dirname(path) })
  stopOnSignals(hub)
  process.stdout.write(greeting(hub, config))
}

async function loadConfig(path: string): Promise<unknown> {
  if (!existsSync(path)) {
    throw new HubError('config_invalid', {
      message: `There is no config file at ${path}. Write one, or name another: bothub start --config FILE`,
    })
  }
  let module: { readonly default?: unknown }
  try {
    module = (await import(pathToFileURL(path).href)) as typeof module
  } catch (error) {
    throw new HubError('config_invalid', {
      message: `${path} cannot be loaded: ${error instanceof Error ? error.message : String(error)}`,
      cause: error,
    })
  }
  if (module.default === undefined) {
    throw new HubError('config_invalid', {
      message: `${path} has no default export. End it with: export default defineConfig({ … })`,
    })
  }
  return module.default
}

function greeting(hub: Hub, config: CheckedConfig): string {
  const width = Math.max(...hub.doors.map(({ channel }) => channel.length))
  const doors = hub.doors.map(({ channel, door }) => {
    const [verb, ...rest] = door.split(' ')
    const base = verb === 'ws' ? hub.url.replace('http', 'ws') : hub.url
    return `  ${channel.padEnd(width)}  ${verb === 'ws' ? '' : `${verb} `}${base}${rest.join(' ')}\n`
  })
  const [bot] = config.bots.keys()
  return `bothub listens on ${hub.url} with ${config.bots.size} bot${config.bots.size === 1 ? '' : 's'}: ${[...config.bots.keys()].join(', ')}
${doors.join('')}${hub.metricsUrl ? `  ${'metrics'.padEnd(width)}  GET ${hub.metricsUrl}\n` : ''}${hub.notices.map((notice) => `  ${notice}\n`).join('')}
Try it:
  curl -N ${hub.url}/api/v1/bots/${bot}/messages -H 'content-type: application/json' -H 'accept: text/event-stream' -d '{"text":"hello"}'

`
}

/** The first signal drains; another one, at least a second later, ends the process at once. */
function stopOnSignals(stoppable: { stop(): Promise<void> }): void {
  let first: number | undefined
  const onSignal = () => {
    if (first === undefined) {
      first = performance.now()
      process.stdout.write('Stopping: live answers have 20 s to end. Press Ctrl-C again to stop at once.\n')
      stoppable.stop().then(
        () => process.exit(0),
        (error: unknown) => {
          process.stderr.write(`${String(error)}\n`)
          process.exit(1)
        },
      )
      // A terminal's Ctrl-C arrives twice within milliseconds, from the terminal and from npm.
    } else if (performance.now() - first >= 1000) process.exit(130)
  }
  process.on('SIGTERM', onSignal)
  process.on('SIGINT', onSignal)
}

async function simulate(
  simulators: Readonly<Record<string, Simulator>>,
  vendor: string,
  options: { readonly host: string; readonly port: number },
): Promise<void> {
  const simulator = Object.hasOwn(simulators, vendor) ? simulators[vendor] : undefined
  if (!simulator) {
    throw new HubError('config_invalid', {
      message: `There is no simulator called "${vendor}". Known: ${Object.keys(simulators).join(', ')}`,
    })
  }
  const running = await simulator(options)
  stopOnSignals({ stop: () => running.close() })
  process.stdout.write(
    `The ${vendor} simulator listens on ${running.url}\n${running.hints.map((hint) => `  ${hint}\n`).join('')}`,
  )
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

function portNumber(text: string): number {
  const port = Number(text)
  if (Number.isInteger(port) && port >= 0 && port <= 65_535) return port
  throw new InvalidArgumentError('a port is a number from 0 to 65535')
}
