import { orderText } from '../delta.ts'
import type { Contender } from '../contenders.ts'
import type { Figure, Round } from '../figures.ts'
import { askBot, later, metric, turnOf } from '../hub.ts'
import type { Lab } from '../lab.ts'
import type { CrowdOptions, Heard } from '../load/crowd.ts'
import type { Server } from '../process.ts'

const sleep = (seconds: number) => new Promise((resolve) => setTimeout(resolve, seconds * 1000))

/** More than a paced stream says before it is told to end. */
const endless = 1_000_000

/** What a crowd heard in the time that is measured, and what it cost a server. */
export interface Hearing extends Heard {
  readonly cpuMs: number
  readonly rssKiB: number
  readonly seconds: number
  /** Of the hub's store: each is synced to the disk once. */
  readonly commits: number
}

/** Lets a crowd listen for a while; the figures are of the time in which all of it did. */
export async function listen(lab: Lab, server: Server, name: string, options: CrowdOptions): Promise<Hearing> {
  const { load, sizes } = lab
  await load.ask('gather', options)
  await load.ask('hear')
  const commitsBefore = await commitsOf(server)
  const cpuBefore = server.cpuMs()
  const from = performance.now()
  await lab.profiled(name, server, () => sleep(sizes.seconds))
  const heard = await load.ask('hear')
  const cpuMs = server.cpuMs() - cpuBefore
  const seconds = (performance.now() - from) / 1000
  const rssKiB = server.rssKiB()
  const commits = (await commitsOf(server)) - commitsBefore
  const { failed } = await load.ask('dismiss', await lab.upstream())
  if (failed > 0) lab.say(`${failed} of ${options.clients} answers broke off`)
  return { ...heard, failed, cpuMs, rssKiB, seconds, commits }
}

const commitsOf = ({ url, isHub }: Server): Promise<number> =>
  isHub ? metric(url, 'bothub_store_commit_seconds_count') : Promise.resolve(0)

const named = (all: readonly Contender[]) => new Map(all.map((contender) => [contender.name, contender]))
const microseconds = ({ cpuMs, deltas }: Hearing): number => (cpuMs * 1000) / Math.max(1, deltas)

/** What people feel: many streams at the pace of a model. */
export function paced(lab: Lab): Promise<Figure[]> {
  const { clients, everyMs } = lab.sizes.paced
  return lab.rounds('paced', named(lab.contenders()), (contender) =>
    streamed(lab, 'paced', contender, { clients, deltas: endless, everyMs }),
  )
}

/** A few streams as fast as they go. */
export function burst(lab: Lab): Promise<Figure[]> {
  const { clients, deltas } = lab.sizes.burst
  const served = lab.contenders().filter(({ start }) => start)
  return lab.rounds('burst', named(served), (contender) =>
    streamed(lab, 'burst', contender, { clients, deltas, everyMs: 0 }),
  )
}

async function streamed(
  lab: Lab,
  workload: 'paced' | 'burst',
  contender: Contender,
  { clients, ...order }: { readonly clients: number; readonly deltas: number; readonly everyMs: number },
): Promise<Round> {
  const server = await lab.server(contender)
  const ask = contender.ask(server.url, orderText(order))
  const crowd = { ask, clients, deltas: order.deltas, again: order.everyMs === 0 }
  const hearing = await listen(lab, server, `${workload}, ${contender.name}`, crowd)
  return {
    ...(contender.start ? { 'CPU a delta, µs': microseconds(hearing) } : {}),
    ...(order.everyMs > 0 ? { 'latency p50, ms': hearing.p50, 'latency p99, ms': hearing.p99 } : {}),
    'deltas, /s': hearing.deltas / hearing.seconds,
    ...(server.isHub ? { 'commits, /s': hearing.commits / hearing.seconds } : {}),
  }
}

/** One turn that many read, beside as many turns that one reads each: what is encoded once, and what many times. */
export function fanOut(lab: Lab): Promise<Figure[]> {
  const { readers: clients, everyMs } = lab.sizes.fanOut
  const text = orderText({ deltas: endless, everyMs })
  const forms = new Map([
    ['hub, one turn', true],
    ['hub, a turn each', false],
  ])
  return lab.rounds('fan-out', forms, async (together) => {
    const hub = await lab.hub()
    const ask = together
      ? { url: `${hub.url}/api/v1/turns/${await turnOf(later(askBot(hub.url, 'openai', text)))}/events` }
      : askBot(hub.url, 'openai', text)
    const hearing = await listen(lab, hub, 'fan-out', { ask, clients, deltas: endless })
    return { 'CPU a delivered delta, µs': microseconds(hearing), 'latency p99, ms': hearing.p99 }
  })
}

/** More and more streams that say little: what one of them takes, and how that grows. */
export async function idle(lab: Lab): Promise<Figure[]> {
  const { clients } = lab.sizes.idle
  const forms = clients.flatMap((count) =>
    lab
      .contenders('pipe', 'hub')
      .map((contender) => [`${contender.name}, ${count} streams`, { contender, count }] as const),
  )
  // Each is a server that has done nothing yet: there is nothing to warm up.
  return lab.rounds('idle', new Map(forms), (form) => openIdle(lab, form), { warmUp: false })
}

async function openIdle(
  lab: Lab,
  { contender, count }: { readonly contender: Contender; readonly count: number },
): Promise<Round> {
  await using server = await lab.freshServer(contender)
  const before = server.rssKiB()
  const ask = contender.ask(server.url, orderText({ deltas: endless, everyMs: lab.sizes.idle.everyMs }))
  const hearing = await listen(lab, server, 'idle', { ask, clients: count, deltas: endless })
  return {
    'CPU a delta, µs': microseconds(hearing),
    'RSS a stream, KiB': (hearing.rssKiB - before) / count,
    'latency p99, ms': hearing.p99,
    'deltas, /s': hearing.deltas / hearing.seconds,
  }
}

/** Many that ask for one long answer and never read it, beside live ones. */
export function stalled(lab: Lab): Promise<Figure[]> {
  const { clients, deltas, live, everyMs } = lab.sizes.stalled
  const forms = new Map([
    ['hub, alone', false],
    ['hub, beside the stalled', true],
  ])
  let asked = 0
  return lab.rounds(
    'stalled',
    forms,
    async (beside) => {
      const hub = await lab.hub()
      const before = hub.rssKiB()
      const name = `hot-${++asked}`
      const hot = askBot(hub.url, 'openai', orderText({ deltas, everyMs: 0 }), { id: name, conversation: name })
      if (beside) await lab.load.ask('stall', hot, clients)
      const ask = askBot(hub.url, 'openai', orderText({ deltas: endless, everyMs }))
      const hearing = await listen(lab, hub, 'stalled', { ask, clients: live, deltas: endless })
      await lab.load.ask('wake')
      return { 'live latency p99, ms': hearing.p99, 'RSS growth, MiB': (hearing.rssKiB - before) / 1024 }
    },
    { warmUp: false },
  )
}
