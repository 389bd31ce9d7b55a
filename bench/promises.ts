import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import { Agent, request } from 'node:http'
import { connect } from 'node:net'
import type { Socket } from 'node:net'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { SqliteStore } from '../plugins/sqlite/store.ts'
import { sqlite } from 'bothub'
import { systemClock } from '../core/clock.ts'
import { pino } from 'pino'
import { makeFolder, startHub } from './hub.ts'

// The figures that docs and promises quote, measured on a hub in a process of its own, as a client sees them. Run it
// with `npm run bench:promises`, or one of it with `-- accepts`; everything is bounded in count and time, and stays on loopback.

const folder = makeFolder()
writeFileSync(
  join(folder, 'hub.config.ts'),
  `import { defineConfig, echo, local, rest, sse, sqlite } from 'bothub'
export default defineConfig({
  store: sqlite({ file: 'hub.db' }),
  bots: {
    echo: { provider: echo(), onAbandon: 'continue' },
    counter: { provider: local(async function* ({ message }) {
      for (let count = Number(message.text); count > 0; count--) yield 'word '
    }), onAbandon: 'continue' },
    paced: { provider: local(async function* ({ message, signal }) {
      for (let count = Number(message.text); count > 0; count--) {
        await new Promise((resolve) => setTimeout(resolve, 50))
        yield String(performance.timeOrigin + performance.now()) + ' '
      }
    }), onAbandon: 'continue' },
  },
  channels: { rest: rest(), sse: sse() },
})
`,
)

const rows: { figure: string; measured: string; goal: string; met: string }[] = []
const row = (figure: string, measured: string, goal: string, met: boolean) => {
  rows.push({ figure, measured, goal, met: met ? 'yes' : 'NO' })
  console.log(`${figure}: ${measured} (goal ${goal})`)
}

const measurements = { accepts, replays, stalls, restarts }
for (const [name, measure] of Object.entries(measurements)) {
  if (process.argv.length === 2 || process.argv.includes(name)) await measure()
}
console.table(rows)

/** 500 messages a second, each acknowledged once it is durable. */
async function accepts(): Promise<void> {
  await using hub = await startHub(folder)
  const agent = new Agent({ keepAlive: true, maxSockets: 64 })
  const send = (text: string) =>
    timed(() => post(hub.url, agent, { text }, { prefer: 'respond-async' }).then(({ status }) => status === 202))
  for (let count = 0; count < 200; count++) await send('warm')
  const latencies: Promise<number>[] = []
  const seconds = 8
  const cpuBefore = hub.cpuMs()
  const from = performance.now()
  for (let count = 0; count < seconds * 500; count++) {
    const wait = from + count * 2 - performance.now()
    if (wait > 1) await systemClock.sleep(wait)
    latencies.push(send(`message ${count}`))
  }
  const sorted = (await Promise.all(latencies)).toSorted((a, b) => a - b)
  agent.destroy()
  const cpuMs = (hub.cpuMs() - cpuBefore) / sorted.length
  const p99 = at(sorted, 0.99)
  row(
    'accept, durable, at 500/s: p50, p99',
    `${at(sorted, 0.5).toFixed(1)}, ${p99.toFixed(1)} ms (CPU ${cpuMs.toFixed(2)} ms a message)`,
    '≤ 20 ms',
    p99 <= 20,
  )
}

/** A turn of 10,000 events, from its first to its last. */
async function replays(): Promise<void> {
  await using hub = await startHub(folder)
  const { body } = await post(hub.url, undefined, { text: '10000' }, {}, 'counter')
  const { turn } = JSON.parse(body) as { turn: string }
  const times: number[] = []
  for (let count = 0; count < 5; count++) {
    times.push(
      await timed(async () => {
        const text = await (await fetch(`${hub.url}/api/v1/turns/${turn}/events`)).text()
        return text.split('\n\n').length > 10_000
      }),
    )
  }
  const median = at(
    times.toSorted((a, b) => a - b),
    0.5,
  )
  row('replay of a 10,000-event turn', `${median.toFixed(0)} ms`, '≤ 500 ms', median <= 500)
}

/** 1,000 readers that never read, of one long answer, beside 100 live turns. */
async function stalls(): Promise<void> {
  await using hub = await startHub(folder)
  const alone = await live(hub.url)
  const before = hub.rss()
  const stalled: Socket[] = []
  const ask = JSON.stringify({ text: '20000', conversation: 'hot', id: 'hot' })
  for (let count = 0; count < 1000; count++) {
    const { hostname, port } = new URL(hub.url)
    const socket = connect(Number(port), hostname)
    socket.on('error', () => {})
    await once(socket, 'connect')
    socket.pause()
    socket.write(
      `POST /api/v1/bots/counter/messages HTTP/1.1\r\nHost: ${hostname}:${port}\r\nAccept: text/event-stream\r\nContent-Type: application/json\r\nContent-Length: ${ask.length}\r\n\r\n${ask}`,
    )
    stalled.push(socket)
  }
  const beside = await live(hub.url)
  const growth = (hub.rss() - before) / 1024
  for (const socket of stalled) socket.destroy()
  row('1,000 stalled readers: RSS growth', `${growth.toFixed(0)} MiB`, '≤ 300 MiB', growth <= 300)
  const ratio = beside / alone
  row(
    '100 live turns beside them: p99, and against alone',
    `${beside.toFixed(1)} ms, ${ratio.toFixed(2)} ×`,
    '≤ 1.5 ×',
    ratio <= 1.5,
  )
}

/** 99th percentile from a bot's yield to its client, of 100 turns of 40 deltas at 20 a second. */
async function live(url: string): Promise<number> {
  const agent = new Agent({ keepAlive: true, maxSockets: 200 })
  const latencies: number[] = []
  await Promise.all(
    Array.from({ length: 100 }, async () => {
      const answer = await open(url, agent, { text: '40' }, { accept: 'text/event-stream' }, 'paced')
      for await (const line of createInterface(answer)) {
        const said = /"type":"message.delta".*"text":"([\d.]+) "/.exec(line)?.[1]
        if (said) latencies.push(performance.timeOrigin + performance.now() - Number(said))
      }
    }),
  )
  agent.destroy()
  return at(
    latencies.toSorted((a, b) => a - b),
    0.99,
  )
}

/** From the start of the process to its first answer, with 100,000 turns stored. */
async function restarts(): Promise<void> {
  const spec = sqlite({ file: 'hub.db' })
  const logger = pino({ level: 'silent' })
  const context = { name: 'store', folder, clock: systemClock, logger, fetch }
  const store = (await spec.create(spec.schema.parse(spec.options), context)) as SqliteStore
  for (let count = 0; count < 100_000; count += 1000) {
    await fill(store, count, 1000)
    process.stdout.write(`\rfilling the store: ${count + 1000} turns`)
  }
  process.stdout.write('\n')
  await store.close()
  const times: number[] = []
  for (let count = 0; count < 3; count++) {
    times.push(
      await timed(async () => {
        await using hub = await startHub(folder)
        return (await fetch(`${hub.url}/readyz`)).ok
      }),
    )
  }
  const median = at(
    times.toSorted((a, b) => a - b),
    0.5,
  )
  row('start, use and stop with 100,000 turns stored', `${median.toFixed(0)} ms`, '≤ 2,000 ms', median <= 2000)
}

async function fill(store: SqliteStore, from: number, count: number): Promise<void> {
  for (let index = from; index < from + count; index++) {
    const accepted = await store.accept({
      bot: 'echo',
      key: 'local',
      turn: `turn_${index}`,
      conversation: { name: `c${index % 5000}` },
      newConversation: `conv_${index}`,
      message: { id: `m${index}`, text: 'hello', files: [] },
      fingerprint: 'f',
      channel: 'rest',
      debug: false,
      bypassConsent: false,
      detached: false,
      at: Date.now(),
      queueLimit: 100,
    })
    if (accepted.outcome !== 'created') throw new Error(accepted.outcome)
    const { turn } = accepted
    await store.append([
      {
        turn: turn.id,
        epoch: turn.epoch,
        events: [{ seq: 2, type: 'turn.completed', text: 'hello' }],
        status: 'completed',
        result: { text: 'hello', messages: [{ id: 'm', text: 'hello' }] },
        at: Date.now(),
      },
    ])
  }
}

function open(
  url: string,
  agent: Agent | undefined,
  body: Readonly<Record<string, unknown>>,
  headers: Readonly<Record<string, string>>,
  bot = 'echo',
): Promise<import('node:http').IncomingMessage> {
  return new Promise((resolve, reject) => {
    const outgoing = request(`${url}/api/v1/bots/${bot}/messages`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', ...headers },
      ...(agent ? { agent } : {}),
    })
    outgoing.on('response', resolve).on('error', reject).end(JSON.stringify(body))
  })
}

async function post(...question: Parameters<typeof open>): Promise<{ status: number; body: string }> {
  const answer = await open(...question)
  const chunks = await Array.fromAsync(answer)
  return { status: answer.statusCode ?? 0, body: Buffer.concat(chunks as Buffer[]).toString() }
}

async function timed(work: () => Promise<boolean>): Promise<number> {
  const from = performance.now()
  if (!(await work())) throw new Error('that did not work')
  return performance.now() - from
}

function at(sorted: readonly number[], share: number): number {
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))]!
}
