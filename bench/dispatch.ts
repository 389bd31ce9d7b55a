import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pino } from 'pino'
import type { HubEvent, Middleware, Turn } from 'bothub'
import { checkConfig, createHub, defineConfig, local, rest, sqlite } from 'bothub'
import { localPrincipal } from '../core/auth.ts'
import { systemClock } from '../core/clock.ts'
import { loggerToken } from '../core/hub.ts'
import { Services } from '../core/services.ts'
import { compose } from '../core/turn.ts'

// What the way from a bot to its readers costs inside one process, every event committed and synced before it is read.
// Run it with `npm run bench`. Figures of one machine compare only with figures of the same machine.

const perTurn = 2000
const rounds = 3

await printLayers()
await printTurns()

/** Events through n middlewares that pass everything on. */
async function printLayers(): Promise<void> {
  const passOn: Middleware = async function* (turn, next) {
    yield* next(turn)
  }
  const rows = []
  for (const layers of [0, 1, 3, 10]) {
    const respond = compose(
      Array.from({ length: layers }, () => passOn),
      deltas,
    )
    const costs = []
    for (let done = 0; done < rounds; done++) {
      const from = performance.now()
      let count = 0
      for await (const _ of respond({ message: { text: '100000' } } as Turn)) count += 1
      costs.push(((performance.now() - from) * 1000) / count)
    }
    rows.push({ layers, 'µs an event': round(median(costs), 2) })
  }
  console.log('Middleware layers')
  console.table(rows)
}

/** Live turns at once, each with a reader that notes how long an event was under way. */
async function printTurns(): Promise<void> {
  const rows = []
  for (const turns of [1, 8, 64]) {
    const folder = mkdtempSync(join(tmpdir(), 'bothub-bench-'))
    const services = new Services().provide(loggerToken, () => pino({ level: 'silent' }))
    const config = defineConfig({
      listen: { port: 0 },
      store: sqlite({ file: 'hub.db' }),
      bots: { bot: local(paced) },
      channels: { rest: rest() },
    })
    const hub = await createHub(checkConfig(config), { folder, services })
    const latencies: number[] = []
    const from = performance.now()
    await Promise.all(Array.from({ length: turns }, () => readOne(hub.dispatcher, latencies)))
    const seconds = (performance.now() - from) / 1000
    latencies.sort((a, b) => a - b)
    rows.push({
      'live turns': turns,
      'events/s': Math.round((turns * perTurn) / seconds),
      'p50 ms': round(latencies[Math.floor(latencies.length / 2)]!, 1),
      'p99 ms': round(latencies[Math.floor(latencies.length * 0.99)]!, 1),
    })
    await hub.stop(0)
    rmSync(folder, { recursive: true })
  }
  console.log(`Durable turns of ${perTurn} deltas, from the bot's yield to its reader`)
  console.table(rows)
}

async function readOne(
  dispatcher: Awaited<ReturnType<typeof createHub>>['dispatcher'],
  latencies: number[],
): Promise<void> {
  const { turn } = await dispatcher.send(localPrincipal(), { bot: 'bot', text: String(perTurn), channel: 'bench' })
  for await (const events of dispatcher.follow(turn.id, 0, new AbortController().signal)) {
    const now = performance.now()
    for (const event of events) if (event.type === 'message.delta') latencies.push(now - Number(event.text))
  }
}

async function* deltas({ message }: Turn): AsyncGenerator<HubEvent> {
  for (let count = Number(message.text); count > 0; count--) {
    yield { type: 'message.delta', message: 'm', text: 'word ' }
  }
}

/** Each delta is the time it was said; a pause every few, as tokens come from a network. */
async function* paced({ message, signal }: Turn): AsyncGenerator<HubEvent> {
  for (let count = Number(message.text); count > 0; count--) {
    if (count % 20 === 0) await systemClock.sleep(1, signal)
    yield { type: 'message.delta', message: 'm', text: String(performance.now()) }
  }
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)]!
}

function round(value: number, digits: number): number {
  return Number(value.toFixed(digits))
}
