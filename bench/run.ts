import { resolve } from 'node:path'
import { Command } from 'commander'
import type { Figure } from './figures.ts'
import { Lab } from './lab.ts'
import { reportOf, writeResults } from './report.ts'
import { fullSizes } from './sizes.ts'
import { workloads } from './workloads/index.ts'

// `npm run bench`: what the hub costs, measured beside the floor of the machine and what people would use in its place.
// It stays on loopback, and everything is bounded in count and time.

const number = (given: string): number => Number(given)
const list = (given: string): string[] => given.split(',').map((name) => name.trim())

const command = new Command('bench')
  .argument('[workloads...]', `of ${Object.keys(workloads).join(', ')}; all by default`)
  .option('--seconds <number>', 'how long a round is measured', number, fullSizes.seconds)
  .option('--rounds <number>', 'how many rounds count', number, fullSizes.rounds)
  .option('--only <names>', 'the contenders, such as `pipe,hub`', list)
  .option('--against <folder>', 'another checkout of the hub, which takes part as `before`', (path) => resolve(path))
  .option('--streams <numbers>', 'how many streams `idle` opens', list)
  .option('--messages <numbers>', 'how many messages `history` stores', list)
  .option('--profile', 'take CPU profiles of the hub, and print the top of them')
  .option('--write', 'write the table and the plots into bench/results')
  .parse()
const options = command.opts<{
  readonly seconds: number
  readonly rounds: number
  readonly only?: string[]
  readonly against?: string
  readonly streams?: string[]
  readonly messages?: string[]
  readonly profile?: boolean
  readonly write?: boolean
}>()

const chosen = command.args.length > 0 ? command.args : Object.keys(workloads)
const unknown = chosen.find((name) => !Object.hasOwn(workloads, name))
if (unknown !== undefined)
  command.error(`There is no workload "${unknown}". Choose of ${Object.keys(workloads).join(', ')}.`)

const { seconds, rounds, only, against, streams, messages, profile, write } = options
const { idle, history } = fullSizes
await using lab = new Lab({
  sizes: {
    ...fullSizes,
    seconds,
    rounds,
    idle: { ...idle, ...(streams ? { clients: streams.map(Number) } : {}) },
    history: { ...history, ...(messages ? { messages: messages.map(Number) } : {}) },
  },
  ...(only ? { only } : {}),
  ...(against === undefined ? {} : { against }),
  ...(profile ? { profile } : {}),
  say: (progress) => process.stderr.write(`${(performance.now() / 1000).toFixed(0).padStart(4)} s  ${progress}\n`),
})

const figures: Figure[] = []
for (const name of chosen) {
  figures.push(...(await workloads[name]!(lab)))
  if (write) writeResults(figures, Object.keys(workloads))
}
process.stdout.write(reportOf(figures))
