import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { mkdirSync, rmSync } from 'node:fs'
import { createServer } from 'node:net'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { faultPoints } from '../../core/fault-points.ts'
import type { FaultPoint } from '../../core/fault-points.ts'
import type { Run } from '../support/program.ts'
import { root, run } from '../support/program.ts'
import type { Violation } from './checker.ts'
import { check, violationKinds } from './checker.ts'
import type { Place } from './clients.ts'
import { runClient } from './clients.ts'
import { Random } from './random.ts'
import { startReceiver } from './receiver.ts'
import type { ClientRecord, Records, SentMessage } from './records.ts'
import { nextErrand } from './script.ts'
import { readStore } from './store-record.ts'
import { startUpstreams } from './upstreams.ts'

/**
 * Kills a hub under load, again and again, and then has the records of everybody compared:
 * `npm run torture -- --cycles 50 [--seed 7]`. Exit code 1 when a promise was broken.
 */

/** A hub, its store and its upstreams are used for so many cycles, so that the records of long runs fit into memory. */
const cyclesPerRound = 50
/** How many messages are on their way at once. */
const crowd = 24
/** How long one of the crowd waits for an answer before it sends its next message all the same. */
const patienceMs = 5000
/** How long the last hub of a round may take from one end to the next, until everything has ended. */
const settleMs = 60_000
const startMs = 15_000
const longestLifeMs = 4000

/** How often the process dies at a place of its own instead of at a moment of ours, and at which passing of it at most. */
const pointChance = 0.4
const passings: Readonly<Partial<Record<FaultPoint, number>>> = {
  'accept.before-commit': 12,
  'accept.after-commit': 12,
  'append.before-commit': 150,
  'append.after-commit': 150,
  'end.before-commit': 25,
  'end.after-commit': 25,
  'upstream.before-request': 25,
  'upstream.after-first-event': 20,
  'delivery.before-mark': 2,
}

const pointsUnderLoad = faultPoints.filter((point) => point in passings)

interface Tally {
  cycles: number
  kills: number
  /** How many hubs had a fault point; they take turns. */
  armed: number
  deadAtPoints: Map<FaultPoint, number>
  crashes: string[]
}

interface Finding {
  readonly records: Records
  readonly violations: readonly Violation[]
}

const { values } = parseArgs({
  options: {
    cycles: { type: 'string', default: '5' },
    seed: { type: 'string', default: String(randomBytes(3).readUIntBE(0, 3)) },
    keep: { type: 'boolean', default: false },
  },
})
const cycles = Number(values.cycles)
const seed = Number(values.seed)

async function torture(): Promise<boolean> {
  const startedAt = performance.now()
  const tally: Tally = { cycles: 0, kills: 0, armed: 0, deadAtPoints: new Map(), crashes: [] }
  const findings: Finding[] = []
  for (let round = 0; tally.cycles < cycles; round += 1)
    findings.push(await playRound(round, Math.min(cyclesPerRound, cycles - tally.cycles), tally))
  report(tally, findings, performance.now() - startedAt)
  return tally.crashes.length === 0 && findings.every(({ violations }) => violations.length === 0)
}

/** Some cycles on one store: a load, a hub that dies and comes back, and in the end one that lives. */
async function playRound(round: number, count: number, tally: Tally): Promise<Finding> {
  const random = new Random(seed + round)
  const folder = join(root, 'node_modules/.cache/torture', `${seed}-${round}`)
  rmSync(folder, { recursive: true, force: true })
  mkdirSync(folder, { recursive: true })
  const secret = `whsec_${randomBytes(24).toString('base64')}`
  await using upstreams = await startUpstreams(new Random(seed + round + 1_000_000))
  await using receiver = await startReceiver(secret, new Random(seed + round + 2_000_000))
  const port = await freePort()
  const store = join(folder, 'hub.db')
  const { edge, studio } = upstreams
  const env = { TORTURE: JSON.stringify({ store, edge, studio, callback: receiver.url, secret }) }
  const over = new AbortController()
  const place: Place = { url: `http://127.0.0.1:${port}`, receiver, secret, signal: over.signal }
  const load = startLoad(place, new Random(seed + round + 3_000_000), `s${seed}r${round}`)

  for (let cycle = 0; cycle < count; cycle += 1) {
    await playCycle(random, port, env, tally)
    tally.cycles += 1
    progress(tally, load)
  }
  const last = startHub(port, env)
  load.stop()
  await last.printed(/listens on/)
  await untilStill(load)
  await settle(place, load)
  over.abort()
  await load.done
  last.signal('SIGTERM')
  const code = await last.exited
  if (code !== 0) tally.crashes.push(`the last hub ended with ${code}:\n${tailOf(last)}`)
  const records: Records = {
    messages: load.messages,
    clients: load.clients,
    upstream: upstreams.requests,
    deliveries: receiver.deliveries,
    store: readStore(store),
  }
  const violations = check(records)
  if (violations.length === 0 && !values.keep) rmSync(folder, { recursive: true, force: true })
  return { records, violations }
}

/** Starts a hub and kills it: at a place in it, at a moment of its life, as it starts, or as it drains. */
async function playCycle(
  random: Random,
  port: number,
  env: Readonly<Record<string, string>>,
  tally: Tally,
): Promise<void> {
  const point = random.chance(pointChance) ? pointsUnderLoad[tally.armed++ % pointsUnderLoad.length] : undefined
  const passing = point && random.between(1, passings[point] ?? 1)
  const early = !point && random.chance(0.12)
  const drains = !point && random.chance(0.12)
  const lifeMs = point ? longestLifeMs : random.between(200, 1600)
  const hub = startHub(port, point ? { ...env, HUB_FAULT_POINT: `${point}:${passing}` } : env)
  const ended = hub.exited.then(() => {})
  const listening = hub.printed(/listens on/).then(
    () => {},
    () => {},
  )
  if (early) await Promise.race([ended, pause(random.between(50, 900))])
  else {
    await Promise.race([ended, listening, pause(startMs)])
    await Promise.race([ended, pause(lifeMs)])
  }
  if (drains) {
    hub.signal('SIGTERM')
    await Promise.race([ended, pause(random.between(50, 500))])
  }
  hub.signal('SIGKILL')
  const died = await hub.exited
  tally.kills += 1
  if (died !== null && !(drains && died === 0))
    tally.crashes.push(`a hub ended with ${died} by itself:\n${tailOf(hub)}`)
  if (point && !hub.killed) tally.deadAtPoints.set(point, (tally.deadAtPoints.get(point) ?? 0) + 1)
}

/** None of them outlives us, however we end. */
const living = new Set<Run>()
for (const name of ['SIGINT', 'SIGTERM'] as const)
  process.on(name, () => {
    for (const hub of living) hub.signal('SIGKILL')
    process.exit(130)
  })

interface TrackedRun extends Run {
  /** It was alive when we killed it. */
  killed: boolean
}

function startHub(port: number, env: Readonly<Record<string, string>>): TrackedRun {
  const config = fileURLToPath(import.meta.resolve('./hub.config.ts'))
  const hub = run(['start', '--port', String(port), '--config', config], { env })
  let over = false
  living.add(hub)
  void hub.exited.then(() => {
    over = true
    living.delete(hub)
  })
  const tracked: TrackedRun = {
    ...hub,
    killed: false,
    signal(name) {
      if (name === 'SIGKILL' && !over) tracked.killed = true
      hub.signal(name)
    },
  }
  return tracked
}

const tailOf = (hub: Run): string => hub.output().slice(-2000)

interface Load {
  readonly messages: readonly SentMessage[]
  readonly clients: readonly ClientRecord[]
  /** Clients that are still at it. */
  open(): number
  /** Sends no more new messages. */
  stop(): void
  readonly done: Promise<void>
}

/** A crowd that talks to the hub, whether or not it is there: each of it sends its next message when one is answered. */
function startLoad(place: Place, random: Random, name: string): Load {
  const messages: SentMessage[] = []
  const clients: ClientRecord[] = []
  const unanswered = new Set<Promise<unknown>>()
  const stopped = new AbortController()
  let open = 0
  async function talk(): Promise<void> {
    while (!stopped.signal.aborted) {
      const errand = nextErrand(random, name, messages.length)
      const { id, bot, text, whole } = errand
      messages.push({ id, bot, text, ...(whole === undefined ? {} : { whole }) })
      open += errand.senders.length
      const answered = Promise.all(
        errand.senders.map(async (sender, index) => {
          clients.push(await runClient(place, errand, sender, `${id}-${sender.dialect}-${index}`))
          open -= 1
        }),
      )
      unanswered.add(answered)
      void answered.finally(() => unanswered.delete(answered))
      await Promise.race([answered, pause(patienceMs)])
    }
    await Promise.all(unanswered)
  }
  return {
    messages,
    clients,
    open: () => open,
    stop: () => stopped.abort(),
    done: Promise.all(Array.from({ length: crowd }, talk)).then(() => {}),
  }
}

/** Waits for the clients for as long as one after the other gets to its end, however slow the machine is. */
async function untilStill(load: Load): Promise<void> {
  for (let before = Infinity; load.open() > 0 && load.open() < before;) {
    before = load.open()
    await Promise.race([load.done, pause(settleMs)])
  }
}

/** Turns whose clients have all left are nobody's: those that wait are cancelled, the others end by themselves. */
async function settle({ url }: Place, load: Load): Promise<void> {
  const left = new Set(load.clients.filter(({ end }) => end?.type === 'left').flatMap(({ turns }) => turns))
  let until = performance.now() + settleMs
  const settleTurn = async (turn: string): Promise<void> => {
    while (performance.now() < until) {
      const answer = await fetch(`${url}/api/v1/turns/${turn}`)
      const { status = '' } = (await answer.json()) as { status?: string }
      if (!/^(queued|running|waiting)$/.test(status)) {
        until = performance.now() + settleMs
        return
      }
      if (status === 'waiting') await (await fetch(`${url}/api/v1/turns/${turn}/cancel`, { method: 'POST' })).text()
      await pause(200)
    }
  }
  await Promise.all(Array.from(left, settleTurn))
}

/** Keeps nobody waiting who has somewhere else to go. */
const pause = (ms: number): Promise<void> => sleep(ms, undefined, { ref: false })

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  server.close()
  await once(server, 'close')
  return port
}

function progress({ cycles: done, kills }: Tally, load: Load): void {
  const line = `cycle ${done}/${cycles}  kills ${kills}  messages ${load.messages.length}  open ${load.open()}`
  process.stdout.write(process.stdout.isTTY ? `\r${line}\u001B[K` : `${line}\n`)
}

const byName = ([one]: readonly [string, unknown], [other]: readonly [string, unknown]) => one.localeCompare(other)

function report(tally: Tally, findings: readonly Finding[], tookMs: number): void {
  const sum = (of: (records: Records) => number) => findings.reduce((total, { records }) => total + of(records), 0)
  const statuses = Map.groupBy(
    findings.flatMap(({ records }) => records.store.turns),
    ({ status }) => status,
  )
  const violations = findings.flatMap((finding) => finding.violations)
  const rows: readonly (readonly [string, string | number])[] = [
    ['seed', seed],
    ['seconds', Math.round(tookMs / 1000)],
    ['cycles', tally.cycles],
    ['dead at a named point', [...tally.deadAtPoints.values()].reduce((total, each) => total + each, 0)],
    ...[...tally.deadAtPoints].toSorted(byName).map(([point, times]) => [`  ${point}`, times] as const),
    ['messages', sum(({ messages }) => messages.length)],
    ['clients', sum(({ clients }) => clients.length)],
    ['connections', sum(({ clients }) => clients.reduce((total, { connections }) => total + connections.length, 0))],
    ['turns', sum(({ store }) => store.turns.length)],
    ...[...statuses].toSorted(byName).map(([status, turns]) => [`  ${status}`, turns.length] as const),
    [
      'upstream starts',
      sum(({ upstream }) => upstream.filter(({ kind, outcome }) => kind === 'start' && outcome !== 'refused').length),
    ],
    ['upstream resumes', sum(({ upstream }) => upstream.filter(({ kind }) => kind === 'resume').length)],
    ['callbacks', sum(({ deliveries }) => deliveries.length)],
    ['crashes', tally.crashes.length],
    ...violationKinds.map((kind) => [kind, violations.filter((each) => each.kind === kind).length] as const),
  ]
  const width = Math.max(...rows.map(([name]) => name.length))
  process.stdout.write(`\n${rows.map(([name, value]) => `${name.padEnd(width)}  ${value}`).join('\n')}\n`)
  for (const crash of tally.crashes) process.stdout.write(`\ncrash: ${crash}\n`)
  for (const { kind, where, detail } of violations.slice(0, 40))
    process.stdout.write(`\n${kind}: ${where}\n  ${detail.slice(0, 600)}\n`)
  if (violations.length + tally.crashes.length > 0)
    process.stdout.write(`\nAgain: npm run torture -- --cycles ${cycles} --seed ${seed}\n`)
}

// Below everything it needs.
process.exitCode = (await torture()) ? 0 : 1
