import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { cpus } from 'node:os'
import { fileURLToPath } from 'node:url'
import type { Figure } from './figures.ts'
import { short } from './figures.ts'
import { reachedGoals } from './goals.ts'
import { barPlot, linePlot } from './plot.ts'
import type { Line } from './plot.ts'

const folder = fileURLToPath(new URL('results/', import.meta.url))

/** The figures and the goals as Markdown. */
export function reportOf(figures: readonly Figure[]): string {
  const names = [...new Set(figures.map(({ workload }) => workload))]
  const tables = names.map((name) => `## ${name}\n\n${tableOf(figures.filter(({ workload }) => workload === name))}`)
  return [
    `# What the hub costs, and what others cost`,
    `Medians, with the least and the most of the rounds. ${cpus().length} cores, Node ${process.versions.node}; upstream and clients run on the same machine. Figures of one machine compare only with figures of the same run.`,
    `## Goals\n\n${table(
      ['goal', 'limit', 'reached', ''],
      reachedGoals(figures).map(({ goal, limit, reached, met }) => [goal, limit, reached, met]),
    )}`,
    ...tables,
    '',
  ].join('\n\n')
}

function tableOf(figures: readonly Figure[]): string {
  const whats = [...new Set(figures.map(({ what, unit }) => (unit ? `${what}, ${unit}` : what)))]
  const subjects = [...new Set(figures.map(({ subject }) => subject))]
  const pipe = figures.find(({ subject, what }) => subject === 'pipe' && what.startsWith('CPU'))
  const rows = subjects.map((subject) => {
    const own = figures.filter((figure) => figure.subject === subject)
    const cells = whats.map((what) => cell(own.find((each) => what === each.what || what.startsWith(`${each.what}, `))))
    const cpu = own.find(({ what }) => what === pipe?.what)
    return [subject, ...cells, ...(pipe ? [cpu ? short(cpu.value / pipe.value) : ''] : [])]
  })
  return table(['', ...whats, ...(pipe ? ['× pipe'] : [])], rows)
}

const cell = (figure: Figure | undefined): string => {
  if (!figure) return ''
  const { value, least, most } = figure
  return least === most ? short(value) : `${short(value)} (${short(least)} to ${short(most)})`
}

function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const widths = head.map((name, column) => Math.max(name.length, 3, ...rows.map((row) => row[column]!.length)))
  const line = (cells: readonly string[]) =>
    `| ${cells.map((text, column) => text.padEnd(widths[column]!)).join(' | ')} |`
  return [line(head), line(widths.map((width) => '-'.repeat(width))), ...rows.map(line)].join('\n')
}

/** Writes the report and its plots into `bench/results/`; workloads that were not run keep their figures. */
export function writeResults(measured: readonly Figure[], order: readonly string[]): void {
  mkdirSync(folder, { recursive: true })
  const file = `${folder}figures.json`
  const before = existsSync(file) ? (JSON.parse(readFileSync(file, 'utf8')) as readonly Figure[]) : []
  const isNew = ({ workload }: Figure) => measured.some((figure) => figure.workload === workload)
  const figures = [...before.filter((figure) => !isNew(figure)), ...measured].toSorted(
    (one, other) => order.indexOf(one.workload) - order.indexOf(other.workload),
  )
  writeFileSync(file, `${JSON.stringify(figures, undefined, 1)}\n`)
  const plots = Object.entries(plotsOf(figures)).filter(([, svg]) => svg !== undefined)
  for (const [name, svg] of plots) writeFileSync(`${folder}${name}.svg`, svg!)
  const images = plots.map(([name]) => `![${name}](${name}.svg)`).join('\n\n')
  writeFileSync(`${folder}README.md`, `${reportOf(figures)}${images ? `\n${images}\n` : ''}`)
}

function plotsOf(figures: readonly Figure[]): Record<string, string | undefined> {
  const bars = (workload: string) => {
    const shown = figures.filter((figure) => figure.workload === workload && figure.what === 'CPU a delta')
    return shown.length > 1 ? barPlot(`${workload}: CPU a delta, µs`, shown) : undefined
  }
  return {
    paced: bars('paced'),
    burst: bars('burst'),
    'growth-streams': growth(figures, 'idle', 'CPU a delta', 'CPU a delta by open streams, µs'),
    'growth-memory': growth(figures, 'idle', 'RSS a stream', 'RSS a stream by open streams, KiB'),
    'growth-history': growth(figures, 'history', 'CPU an append', 'CPU an append by stored messages, ms'),
    'growth-page': growth(figures, 'history', 'page p99', 'A page by stored messages, p99, ms'),
  }
}

/** Subjects such as `hub, 1000 streams`, as a line by name. */
function growth(figures: readonly Figure[], workload: string, what: string, title: string): string | undefined {
  const lines = new Map<string, Line>()
  for (const { subject, value } of figures.filter((each) => each.workload === workload && each.what === what)) {
    const [name, size] = subject.split(', ')
    const line = lines.get(name!) ?? { name: name!, points: [] }
    lines.set(name!, { ...line, points: [...line.points, [Number.parseInt(size!, 10), value]] })
  }
  const drawn = [...lines.values()].filter(({ points }) => points.length > 1)
  return drawn.length > 0 ? linePlot(title, drawn) : undefined
}
