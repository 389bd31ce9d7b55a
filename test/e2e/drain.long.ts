import { describe, expect, it, vi } from 'vitest'
import type { NumberedEvent } from '../../index.ts'
import { readEvents } from '../support/hub.ts'
import type { Program } from '../support/program.ts'
import { deploy, startProgram } from '../support/program.ts'
import { connectSocket } from '../support/socket.ts'

// A whole drain is waited for, on a machine that may be busy.
vi.setConfig({ testTimeout: 60_000 })

/** A bot whose answer ends soon, one whose answer never does, and one that does not even heed its signal. */
const config = `
import { setTimeout as sleep } from 'node:timers/promises'
import { defineConfig, local, rest, sse, websocket } from 'bothub'
async function* words(count) {
  for (let word = 1; word <= count; word += 1) {
    yield \`word \${word} \`
    await sleep(100)
  }
}
export default defineConfig({
  bots: {
    soon: local(() => words(30)),
    endless: local(() => words(Infinity)),
    deaf: local(async function* () {
      yield 'I hear nothing. '
      await new Promise(() => {})
    }, { idleTimeoutMs: 600_000 }),
  },
  channels: { rest: rest(), sse: sse(), websocket: websocket({ bot: 'endless' }) },
})
`

/** Opens a stream and resolves when its first words have come; `events` resolves when it has ended. */
async function openStream(
  program: Program,
  bot: string,
): Promise<{ readonly bot: string; readonly events: Promise<NumberedEvent[]> }> {
  const response = await program.api(`/bots/${bot}/messages`, { text: 'hello' }, { accept: 'text/event-stream' })
  expect(response.status).toBe(200)
  const [watched, kept] = response.body!.tee()
  let seen = ''
  for await (const chunk of watched.pipeThrough(new TextDecoderStream())) {
    seen += chunk
    if (seen.includes('event: message.delta')) break
  }
  return { bot, events: readEvents(new Response(kept)) }
}

describe('a hub that is told to stop with 100 live streams and 50 sockets', () => {
  it('exits with 0 within 25 s, and tells everybody how it ended', async () => {
    using deployment = deploy(config)
    await using program = await startProgram(deployment)
    const bots = Array.from({ length: 100 }, (_, index) => (index % 2 ? 'soon' : index % 4 ? 'endless' : 'deaf'))
    const streams = await Promise.all(bots.map((bot) => openStream(program, bot)))
    const sockets = await Promise.all(Array.from({ length: 50 }, () => connectSocket(program.url)))
    const talking = sockets.slice(0, 25)
    for (const socket of talking) socket.send({ type: 'chat', message: 'hello' })
    await Promise.all(talking.map((socket) => socket.frame(({ type }) => type === 'stream')))

    const from = performance.now()
    program.signal('SIGTERM')
    await program.printed(/Stopping: /)
    expect((await program.api('/bots/soon/messages', { text: 'hello' })).status).toBe(503)
    const ended = await Promise.all(streams.map(async ({ bot, events }) => ({ bot, end: (await events).at(-1) })))
    expect(await program.exited).toBe(0)
    expect(performance.now() - from).toBeLessThan(25_000)

    for (const { bot, end } of ended) {
      const expected = bot === 'soon' ? { type: 'turn.completed' } : { type: 'turn.cancelled', by: 'shutdown' }
      expect([bot, end]).toEqual([bot, expect.objectContaining(expected)])
    }
    expect(await Promise.all(sockets.map(({ closed }) => closed))).toEqual(sockets.map(() => 1001))
    for (const { frames } of talking) {
      expect(frames.slice(-2)).toMatchObject([
        { type: 'error', by: 'shutdown' },
        { type: 'error', code: 'shutting_down', retryAfterMs: expect.any(Number) as number },
      ])
    }
  })
})
