import { once } from 'node:events'
import { Agent, request } from 'node:http'
import type { IncomingMessage } from 'node:http'
import { clockMs } from '../delta.ts'

/** One request of a client: a POST where there is a body. */
export interface Ask {
  /** `http:` or, for a socket that sends the body as its first frame, `ws:`. */
  readonly url: string
  readonly headers?: Readonly<Record<string, string>>
  readonly body?: string
}

/** How long answers were waited for, in ms. */
export interface Waits {
  readonly p50: number
  readonly p99: number
  /** How many were refused or broke off. */
  readonly failed: number
}

/** Sends a request, and resolves with the answer before its body. */
export function send({ url, headers = {}, body }: Ask, agent: Agent): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    const method = body === undefined ? 'GET' : 'POST'
    const outgoing = request(url, { method, agent, headers: { 'content-type': 'application/json', ...headers } })
    outgoing.on('response', resolve).on('error', reject).end(body)
  })
}

/** Messages at an even rate, whatever becomes of those before; the requests are sent over and over. */
export async function knock(asks: readonly Ask[], count: number, perSecond: number): Promise<Waits> {
  const agent = new Agent({ keepAlive: true, maxSockets: 64 })
  const answers: Promise<number>[] = []
  const from = clockMs()
  while (answers.length < count) {
    const due = Math.min(count, Math.floor(((clockMs() - from) / 1000) * perSecond) + 1)
    while (answers.length < due) answers.push(timed(asks[answers.length % asks.length]!, agent))
    await new Promise((resolve) => setTimeout(resolve, 1))
  }
  return waitsOf(await Promise.all(answers), agent)
}

/** The same request several times, one after the other, each to its last byte. */
export async function times(ask: Ask, count: number): Promise<Waits> {
  const agent = new Agent({ keepAlive: true })
  const took: number[] = []
  while (took.length < count) took.push(await timed(ask, agent))
  return waitsOf(took, agent)
}

function waitsOf(took: readonly number[], agent: Agent): Waits {
  agent.destroy()
  const answered = took.filter((ms) => !Number.isNaN(ms))
  return { ...percentiles(answered), failed: took.length - answered.length }
}

/** NaN for what was refused. */
async function timed(ask: Ask, agent: Agent): Promise<number> {
  const from = clockMs()
  const answer = await send(ask, agent)
  answer.resume()
  await once(answer, 'end')
  return answer.statusCode! < 300 ? clockMs() - from : Number.NaN
}

/** NaN where there are none. */
export function percentiles(values: readonly number[]): { readonly p50: number; readonly p99: number } {
  const sorted = values.toSorted((a, b) => a - b)
  const at = (share: number) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN
  return { p50: at(0.5), p99: at(0.99) }
}
