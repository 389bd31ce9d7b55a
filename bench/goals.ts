import type { Figure } from './figures.ts'
import { short } from './figures.ts'

/** The value of a figure of this run; NaN where it was not measured. */
type Find = (workload: string, subject: string, what: string) => number

interface Goal {
  readonly goal: string
  readonly limit: number
  readonly unit: string
  readonly of: (find: Find) => number
}

const cpu = 'CPU a delta'
const pacedAgainst = (other: string, limit: number): Goal => ({
  goal: `paced: CPU a delta, against ${other}`,
  limit,
  unit: '×',
  of: (find) => find('paced', 'hub', cpu) / find('paced', other, cpu),
})
const burstAgainst = (other: string, limit: number): Goal => ({
  goal: `burst: CPU a delta, against ${other}`,
  limit,
  unit: '×',
  of: (find) => find('burst', 'hub', cpu) / find('burst', other, cpu),
})
const pacedLatency = (share: string, limit: number): Goal => ({
  goal: `paced: added latency, ${share}`,
  limit,
  unit: 'ms',
  of: (find) => find('paced', 'hub', `latency ${share}`) - find('paced', 'direct', `latency ${share}`),
})
const plain = (goal: string, limit: number, unit: string, ...place: Parameters<Find>): Goal => ({
  goal,
  limit,
  unit,
  of: (find) => find(...place),
})

/** What the hub is to reach, as ratios within a run where a machine's speed would show. */
export const goals: readonly Goal[] = [
  pacedAgainst('pipe', 1.25),
  pacedAgainst('portkey', 0.5),
  pacedAgainst('express + openai', 0.45),
  pacedAgainst('ai sdk', 0.25),
  pacedLatency('p50', 3),
  pacedLatency('p99', 20),
  burstAgainst('pipe', 2.5),
  burstAgainst('portkey', 1),
  {
    goal: 'fan-out: CPU a delivered delta, against a turn each',
    limit: 0.5,
    unit: '×',
    of: (find) =>
      find('fan-out', 'hub, one turn', 'CPU a delivered delta') /
      find('fan-out', 'hub, a turn each', 'CPU a delivered delta'),
  },
  {
    goal: 'idle: RSS a stream of 9,000, beyond the sockets of the pipe',
    limit: 40,
    unit: 'KiB',
    of: (find) =>
      find('idle', 'hub, 9000 streams', 'RSS a stream') - find('idle', 'pipe, 9000 streams', 'RSS a stream'),
  },
  plain('stalled: RSS growth', 300, 'MiB', 'stalled', 'hub, beside the stalled', 'RSS growth'),
  {
    goal: 'stalled: live p99, against alone',
    limit: 1.5,
    unit: '×',
    of: (find) =>
      find('stalled', 'hub, beside the stalled', 'live latency p99') /
      find('stalled', 'hub, alone', 'live latency p99'),
  },
  plain('accept: p99, durable', 20, 'ms', 'accept', 'hub, 500 messages/s', 'p99'),
  plain('webhooks: p99', 200, 'ms', 'webhooks', 'hub, 1000 in a second', 'p99'),
  plain('replay of 10,000 events', 500, 'ms', 'replay', 'hub, 10000 events', 'whole turn'),
  plain('sockets: RSS of an idle WebSocket', 60, 'KiB', 'sockets', 'hub, 5000 idle WebSockets', 'RSS each'),
  plain('start, empty', 600, 'ms', 'start', 'hub, 0 turns stored', 'start'),
  plain('start, 100,000 turns stored', 2000, 'ms', 'start', 'hub, 100000 turns stored', 'start'),
  plain('history: page p99 with 1e6 messages', 5, 'ms', 'history', 'hub, 1000000 messages', 'page p99'),
  {
    goal: 'history: append with 1e6 messages, against 1e3',
    limit: 1.2,
    unit: '×',
    of: (find) =>
      find('history', 'hub, 1000000 messages', 'CPU an append') /
      find('history', 'hub, 1000 messages', 'CPU an append'),
  },
]

/** A goal with what was reached, in words. */
export interface Reached {
  readonly goal: string
  readonly limit: string
  readonly reached: string
  readonly met: 'met' | 'NOT MET'
}

/** Those of the goals that this run can tell of. */
export function reachedGoals(figures: readonly Figure[]): Reached[] {
  const find: Find = (workload, subject, what) =>
    figures.find((figure) => figure.workload === workload && figure.subject === subject && figure.what === what)
      ?.value ?? Number.NaN
  return goals.flatMap(({ goal, limit, unit, of }) => {
    const value = of(find)
    if (Number.isNaN(value)) return []
    const met = value <= limit ? 'met' : 'NOT MET'
    return [{ goal, limit: `≤ ${short(limit)} ${unit}`, reached: `${short(value)} ${unit}`, met }]
  })
}
