import { channel as diagnostics } from 'node:diagnostics_channel'
import type { Socket } from 'node:net'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { describe, expect, it } from 'vitest'
import { echo, local } from '../../index.ts'
import type { TestHub } from '../support/hub.ts'
import { startHub } from '../support/hub.ts'
import { rawPost, statusOf } from '../support/raw-request.ts'
import { connectRaw } from '../support/raw.ts'

// Limits that are measured in seconds and in memory. They run alone, by `npm run test:long`.

const p99 = (values: readonly number[]) => values.toSorted((a, b) => a - b)[Math.floor(values.length * 0.99)]!
const started = () => startHub({ bots: { echo: echo() } })

/** Resolves when the hub has so many more connections. */
function acceptedBy(hub: TestHub, count: number): Promise<void> {
  const port = Number(new URL(hub.url).port)
  const { promise, resolve } = Promise.withResolvers<void>()
  let left = count
  const accept = (message: unknown) => {
    if ((message as { readonly socket: Socket }).socket.localPort !== port || --left > 0) return
    diagnostics('net.server.socket').unsubscribe(accept)
    resolve()
  }
  diagnostics('net.server.socket').subscribe(accept)
  return promise
}

describe('slow requests', () => {
  it('300 connections that never finish their headers are gone in 6 s, while a good client is served at once', async () => {
    await using hub = await started()
    const ask = async () => {
      const asked = performance.now()
      expect((await hub.ask('echo', 'hello')).text).toBe('hello')
      return performance.now() - asked
    }
    const alone: number[] = []
    while (alone.length < 300) alone.push(await ask())
    const accepted = acceptedBy(hub, 300)
    const slow = await Promise.all(Array.from({ length: 300 }, () => connectRaw(hub.url)))
    // The kernel completes a connection before the hub has seen it, and the hub's clock begins when it has.
    await accepted
    const from = performance.now()
    for (const connection of slow) connection.write('GET /healthz HTTP/1.1\r\nX-Slow: ')
    const latencies: number[] = []
    const closed = new AbortController()
    const gone = Promise.all(slow.map((connection) => connection.closed)).then((answers) => {
      closed.abort()
      return answers
    })
    while (!closed.signal.aborted && performance.now() - from < 10_000) latencies.push(await ask())
    const answers = await gone
    expect(performance.now() - from).toBeLessThan(6500)
    expect(new Set(answers.map(statusOf))).toEqual(new Set([408]))
    expect(latencies.length).toBeGreaterThan(100)
    // The machine that runs this may be so busy that it takes longer even without the slow ones.
    expect(p99(latencies)).toBeLessThan(Math.max(50, 3 * p99(alone)))
  })

  it('cuts a body that does not arrive within 15 s with 408', { timeout: 25_000 }, async () => {
    await using hub = await started()
    using connection = await connectRaw(hub.url)
    const from = performance.now()
    connection.write(rawPost(hub, { 'Content-Length': 100 }, '{"text":'))
    const answer = await connection.closed
    expect(statusOf(answer)).toBe(408)
    expect(answer).toContain('"code":"request_timeout"')
    expect(performance.now() - from).toBeLessThan(16_000)
  })
})

/** Memory in use once everything unused is gone. */
function liveMebibytes(): number {
  setFlagsFromString('--expose-gc')
  ;(runInNewContext('gc') as () => void)()
  const { heapUsed, external } = process.memoryUsage()
  return (heapUsed + external) / 1_048_576
}

describe('clients that do not read', () => {
  it('cost the hub no more than their socket: a long answer is not queued for them', async () => {
    const piece = 'x'.repeat(1000)
    const bot = local(async function* () {
      for (let count = 0; count < 5000; count++) yield piece
    })
    await using hub = await startHub({ bots: { bot, echo: echo() } })
    const before = liveMebibytes()
    const stalled = await Promise.all(
      Array.from({ length: 20 }, async (_, index) => {
        const connection = await connectRaw(hub.url)
        connection.socket.pause()
        const body = JSON.stringify({ text: 'x', conversation: 'c', id: 'same' })
        connection.write(
          `POST /api/v1/bots/bot/messages HTTP/1.1\r\nHost: ${new URL(hub.url).host}\r\nAccept: text/event-stream\r\nContent-Type: application/json\r\nX-Index: ${index}\r\nContent-Length: ${body.length}\r\n\r\n${body}`,
        )
        return connection
      }),
    )
    const { turn } = await hub.ask('bot', 'x', { conversation: 'c', id: 'same' })
    // 20 readers of 5 MB each would be 100 MB; what is held is one write and one page of the log each.
    await expect.poll(() => liveMebibytes() - before, { timeout: 5000 }).toBeLessThan(20)
    for (const connection of stalled) connection.socket.resume()
    await expect
      .poll(() => stalled.filter((connection) => connection.received().includes('turn.completed')).length, {
        timeout: 15_000,
      })
      .toBe(20)
    for (const connection of stalled) connection[Symbol.dispose]()
    expect(turn).toMatch(/^turn_/)
    expect((await hub.ask('echo', 'still here')).text).toBe('still here')
  })
})
