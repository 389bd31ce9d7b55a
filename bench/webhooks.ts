/**
 * A burst of signed messages, as a platform sends them that comes back after an outage: how soon each is acknowledged,
 * and whether all of them are there afterwards. `npm run bench:webhooks`, on two cores.
 */
import { writeFileSync } from 'node:fs'
import { Agent, request } from 'node:http'
import { join } from 'node:path'
import { signWebhook } from '../core/signature.ts'
import { Secret } from '../core/settings.ts'
import { makeFolder, startHub } from './hub.ts'

const messages = 1000
const overMs = 1000
const limitMs = 200
const secret = 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw'

const folder = makeFolder()
writeFileSync(
  join(folder, 'hub.config.ts'),
  `import { defineConfig, echo, rest, webhook } from 'bothub'
export default defineConfig({
  bots: { bot: echo() },
  channels: { rest: rest(), crm: webhook({ bot: 'bot', secret: '${secret}' }) },
})
`,
)
await using hub = await startHub(folder)
const agent = new Agent({ keepAlive: true, maxSockets: 100 })

await burst('warm', 100, 100)
const cpuBefore = hub.cpuMs()
const acknowledged = await burst('m', messages, overMs)
const turns = acknowledged.map(({ turn }) => turn)
const lost = (await Promise.all(turns.map(isDone))).filter((done) => !done).length
const latencies = acknowledged.map(({ ms }) => ms).toSorted((a, b) => a - b)
const at = (share: number) => latencies[Math.ceil(latencies.length * share) - 1]!.toFixed(1)
const refused = messages - new Set(turns).size
const cpuMs = (hub.cpuMs() - cpuBefore) / messages
process.stdout.write(
  `${messages} messages in ${overMs} ms: acknowledged p50 ${at(0.5)} ms, p99 ${at(0.99)} ms, at most ${at(1)} ms; ` +
    `${refused} refused, ${lost} lost; ${cpuMs.toFixed(2)} ms of processor time each, answer and reading it included\n`,
)
agent.destroy()
if (refused + lost > 0 || Number(at(0.99)) > limitMs) process.exitCode = 1

/** Sends so many messages, evenly over a time, and resolves when all are acknowledged. */
async function burst(
  name: string,
  count: number,
  ms: number,
): Promise<{ readonly turn: string; readonly ms: number }[]> {
  const start = performance.now()
  const sent: Promise<{ readonly turn: string; readonly ms: number }>[] = []
  while (sent.length < count) {
    const due = Math.min(count, Math.floor(((performance.now() - start) / ms) * count))
    while (sent.length < due) sent.push(send(`${name}-${sent.length}`))
    await new Promise((resolve) => setTimeout(resolve, 1))
  }
  return Promise.all(sent)
}

async function send(id: string): Promise<{ readonly turn: string; readonly ms: number }> {
  const body = JSON.stringify({ text: 'hello', conversation: id })
  const headers = { ...signWebhook(new Secret(secret), id, Date.now(), body), 'content-type': 'application/json' }
  const start = performance.now()
  const { status, text } = await call('POST', '/api/v1/webhooks/crm', headers, body)
  if (status !== 202) throw new Error(`${id} was answered with ${status}: ${text}`)
  return { turn: (JSON.parse(text) as { readonly turn: string }).turn, ms: performance.now() - start }
}

async function isDone(turn: string): Promise<boolean> {
  const { text } = await call('GET', `/api/v1/turns/${turn}?wait=30`, {})
  return (JSON.parse(text) as { readonly status?: string }).status === 'completed'
}

function call(
  method: string,
  path: string,
  headers: Readonly<Record<string, string>>,
  body = '',
): Promise<{ readonly status: number; readonly text: string }> {
  return new Promise((resolve, reject) => {
    const outgoing = request(`${hub.url}${path}`, { method, headers, agent }, (answer) => {
      let text = ''
      answer.setEncoding('utf8')
      answer.on('data', (chunk: string) => (text += chunk))
      answer.on('end', () => resolve({ status: answer.statusCode ?? 0, text }))
    })
    outgoing.on('error', reject)
    outgoing.end(body)
  })
}
