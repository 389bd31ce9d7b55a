import { Command } from 'commander'
import { HubError } from '../core/errors.ts'
import { portNumber } from './options.ts'
import { stopOnSignals } from './signals.ts'

/** A simulated upstream. */
type Simulator = (options: { readonly port: number; readonly host: string }) => Promise<{
  readonly url: string
  /** How to point a bot at it, a line each. */
  readonly hints: readonly string[]
  close(): Promise<void>
}>

/** `bothub simulate asgard`: a platform by itself, for bots without a network. */
export const simulateCommand = (): Command =>
  new Command('simulate')
    .description('run a simulated platform, for bots without a network')
    .argument('<vendor>', 'asgard, coze, openai')
    .option('--host <host>', 'address to listen on', '127.0.0.1')
    .option('--port <port>', 'port to listen on, 0 for a free one', portNumber, 0)
    .action(simulate)

async function simulate(vendor: string, options: { readonly host: string; readonly port: number }): Promise<void> {
  const { simulators } = await import('../index.ts')
  const known: Readonly<Record<string, Simulator>> = simulators
  const simulator = Object.hasOwn(known, vendor) ? known[vendor] : undefined
  if (!simulator) {
    throw new HubError('config_invalid', {
      message: `There is no simulator called "${vendor}". Known: ${Object.keys(known).join(', ')}`,
    })
  }
  const running = await simulator(options)
  stopOnSignals({ stop: () => running.close() })
  process.stdout.write(
    `The ${vendor} simulator listens on ${running.url}\n${running.hints.map((hint) => `  ${hint}\n`).join('')}`,
  )
}
