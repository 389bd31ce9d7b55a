import { describe, expect, it, vi } from 'vitest'
import type { NumberedEvent, TurnObject } from '../../index.ts'
import { startAsgardSimulator } from '../../plugins/asgard/simulator.ts'
import { startCozeSimulator } from '../../plugins/coze/simulator.ts'
import { jsonOf, readEvents } from '../support/hub.ts'
import type { Program } from '../support/program.ts'
import { deploy, startProgram } from '../support/program.ts'
import { connectSocket } from '../support/socket.ts'

// Programs are started here, on a machine that may be busy.
vi.setConfig({ testTimeout: 60_000, hookTimeout: 60_000 })

/** A stream that is being read. */
interface Reading {
  readonly turn: string
  /** Resolves when so many more deltas have come. */
  deltas(count: number): Promise<void>
  /** Resolves with everything when the stream has ended, however it did. */
  readonly whole: Promise<string>
}

/** Sends a message and reads its answer as it comes. */
async function read(program: Program, bot: string, text: string): Promise<Reading> {
  const response = await program.api(`/bots/${bot}/messages`, { text }, { accept: 'text/event-stream' })
  expect(response.status).toBe(200)
  let received = ''
  const waiting = new Set<() => void>()
  const whole = (async () => {
    try {
      for await (const chunk of response.body!.pipeThrough(new TextDecoderStream())) {
        received += chunk
        for (const look of waiting) look()
      }
    } catch {
      // A hub that dies tears the stream off; what came is what counts.
    }
    return received
  })()
  const fits = (pattern: RegExp) =>
    new Promise<RegExpExecArray>((resolve, reject) => {
      const look = () => {
        const match = pattern.exec(received)
        if (match) resolve(match)
      }
      waiting.add(look)
      look()
      whole.then(() => reject(new Error(`ended without ${pattern}: ${received}`)), reject)
    })
  const [, turn] = await fits(/^id: (turn_\w+)\/1$/m)
  return {
    turn: turn!,
    whole,
    async deltas(count) {
      const before = received.match(/^event: message\.delta$/gm)?.length ?? 0
      await fits(new RegExp(`(?:^event: message\\.delta\\n[^]*?){${before + count}}\n\n`, 'm'))
    },
  }
}

const turnOf = async (program: Program, turn: string): Promise<TurnObject> =>
  jsonOf<TurnObject>(await program.api(`/turns/${turn}`))
const ask = async (program: Program, bot: string, text: string, more: object = {}): Promise<TurnObject> =>
  jsonOf<TurnObject>(await program.api(`/bots/${bot}/messages`, { text, ...more }))
const eventsOf = async (program: Program, turn: string): Promise<string> =>
  (await (await program.api(`/turns/${turn}/events`)).text()).replaceAll(/^:.*\n/gm, '')
const statusOf = async (program: Program, path: string): Promise<number> =>
  (await fetch(`${program.url}${path}`)).status

/** The repository's bots, with upstreams that outlive the hub. */
async function startUpstreams() {
  const edge = await startAsgardSimulator()
  const studio = await startCozeSimulator()
  const config = `
import { asgard, consent, coze, demoBot, defineConfig, local, rest, sse, tool, websocket } from 'bothub'
export default defineConfig({
  bots: {
    main: { provider: local(demoBot), use: [consent()] },
    asgard: asgard(${JSON.stringify({ edgeServerHost: edge.url, namespace: edge.namespace, botProviderName: edge.botProviderName, apiKey: edge.apiKey })}),
    coze: {
      provider: coze({
        ...${JSON.stringify({ baseUrl: studio.url, token: studio.token, botId: studio.botId })},
        tools: { send_mail: tool({ run: () => 'The mail was sent.' }) },
      }),
      use: [consent()],
    },
  },
  channels: { rest: rest(), sse: sse(), websocket: websocket({ bot: 'main' }) },
})
`
  return {
    edge,
    studio,
    config,
    async [Symbol.asyncDispose]() {
      await edge.close()
      await studio.close()
    },
  }
}

const bots = ['main', 'asgard', 'coze'] as const

// The two groups wait a lot, and they wait together.
describe.concurrent('the program', () => {
  describe('a hub that is told to stop', () => {
    it('lets live turns end, takes nothing new, says so to whoever asks, and exits with 0', async () => {
      using deployment = deploy()
      await using program = await startProgram(deployment)
      using socket = await connectSocket(program.url)
      expect(await statusOf(program, '/readyz')).toBe(200)
      const live = await Promise.all([
        read(program, 'main', '/slow'),
        read(program, 'asgard-demo', '/long'),
        read(program, 'coze-demo', '/long'),
      ])
      await Promise.all(live.map((stream) => stream.deltas(1)))

      program.signal('SIGTERM')
      await program.printed(/Stopping: /)
      expect(await statusOf(program, '/readyz')).toBe(503)
      expect(await statusOf(program, '/healthz')).toBe(200)
      const refused = await program.api('/bots/main/messages', { text: 'hello' })
      expect(refused.status).toBe(503)
      expect(Number(refused.headers.get('retry-after'))).toBeGreaterThan(0)
      expect(await refused.json()).toMatchObject({ error: { code: 'shutting_down', retryable: true } })
      const [error] = await socket.chat({ agentId: 'main', message: 'hello' })
      expect(error).toMatchObject({ type: 'error', code: 'shutting_down' })
      // What is asked about earlier turns is still answered.
      expect((await turnOf(program, live[0].turn)).status).toBe('running')

      for (const [index, { whole }] of live.entries()) {
        const text = await whole
        expect(text.match(/^event: message\.delta$/gm)).toHaveLength([10, 300, 300][index]!)
        expect(text).toMatch(/^event: turn\.completed$/m)
      }
      expect(await socket.closed).toBe(1001)
      expect(await program.exited).toBe(0)
    })

    it('takes two signals within a moment, as a terminal sends them, for one', async () => {
      using deployment = deploy()
      await using program = await startProgram(deployment)
      const live = await read(program, 'main', '/long')
      await live.deltas(1)
      program.signal('SIGINT')
      await program.printed(/Stopping: /)
      program.signal('SIGINT')
      expect(await live.whole).toMatch(/^event: turn\.completed$/m)
      expect(await program.exited).toBe(0)
    })

    it('stops at once at a signal that comes a second after the first', async () => {
      using deployment = deploy()
      await using program = await startProgram(deployment)
      const live = await read(program, 'main', '/slow')
      program.signal('SIGTERM')
      await program.printed(/Stopping: /)
      // Its words are a second apart, so behind two more of them a second has passed.
      await live.deltas(2)
      program.signal('SIGTERM')
      expect(await program.exited).toBe(130)
      expect(await live.whole).not.toContain('turn.completed')
    })

    it('does not wait for those who only listen: sockets are closed with 1001, streams cut', async () => {
      using deployment = deploy()
      await using program = await startProgram(deployment)
      using socket = await connectSocket(program.url)
      const { turn } = await ask(program, 'main', '/consent')
      const idle = await program.api(`/turns/${turn}/events`)
      program.signal('SIGTERM')
      expect(await socket.closed).toBe(1001)
      expect(await idle.text().catch(() => 'cut')).toMatch(/turn\.waiting|cut/)
      expect(await program.exited).toBe(0)
    })
  })

  describe('a hub that was restarted', () => {
    it('keeps conversations, replays what was, knows duplicates, and goes on with what waits', async () => {
      await using upstreams = await startUpstreams()
      using deployment = deploy(upstreams.config)
      const said = { id: 'told', conversation: 'c' }
      const before = await (async () => {
        await using program = await startProgram(deployment)
        const kept = await Promise.all(
          bots.map(async (bot) => {
            const told = await ask(program, bot, 'my name is Ada', said)
            expect(told).toMatchObject({ status: 'completed', text: expect.stringContaining('Ada') })
            const waits = await ask(program, bot, '/consent', { conversation: 'w' })
            expect(waits).toMatchObject({ status: 'waiting', waiting: { for: 'consent' } })
            return {
              bot,
              told,
              waits,
              replay: await eventsOf(program, told.turn),
              shown: await eventsSoFar(program, waits),
            }
          }),
        )
        expect(await program.stop()).toBe(0)
        return kept
      })()

      await using program = await startProgram(deployment)
      for (const { bot, told, waits, replay, shown } of before) {
        expect(replay).toMatch(/^event: turn\.completed$/m)
        expect(await eventsOf(program, told.turn)).toBe(replay)
        expect(await turnOf(program, told.turn)).toEqual(told)
        expect(await ask(program, bot, 'my name is Ada', said)).toEqual(told)
        expect((await ask(program, bot, 'what is my name?', { conversation: 'c' })).text).toContain('Ada')

        expect(await turnOf(program, waits.turn)).toEqual(waits)
        const refused = await program.api(`/bots/${bot}/messages`, { text: 'hello', conversation: 'w' })
        expect(refused.status).toBe(409)
        expect(await refused.json()).toMatchObject({ error: { code: 'turn_waiting', turn: waits.turn } })
        const decisions = waits.waiting!.calls.map(({ call }) => ({ call, result: 'allow_once' }))
        const goesOn = await jsonOf<TurnObject>(await program.api(`/turns/${waits.turn}/consent`, { decisions }))
        expect([bot, goesOn.status]).toEqual([bot, 'completed'])
        const all = await eventsOf(program, waits.turn)
        expect(all.startsWith(shown)).toBe(true)
        expect(all).toMatch(/^event: tool\.completed$/m)
        const numbers = Array.from(all.matchAll(/^id: turn_\w+\/(\d+)$/gm), ([, seq]) => Number(seq))
        expect(numbers).toEqual(numbers.map((_, index) => index + 1))
        expect((await ask(program, bot, 'hello', { conversation: 'w' })).status).toBe('completed')
      }
      // Each message began one run: told, what is my name, /consent and its answer, hello.
      const runs = upstreams.edge.requests.filter(({ method, path }) => method === 'POST' && path === '/message/sse')
      expect(runs).toHaveLength(5)
      expect(upstreams.studio.requests.filter(({ path }) => path === '/v3/chat')).toHaveLength(4)
    })

    it('after kill -9 in the middle of a local answer ends that turn as interrupted, with what was said', async () => {
      using deployment = deploy()
      const cut = await (async () => {
        await using program = await startProgram(deployment)
        const live = await read(program, 'main', '/long')
        await live.deltas(5)
        expect(await program.stop('SIGKILL')).toBeNull()
        return { turn: live.turn, seen: await live.whole }
      })()
      const framesSeen = cut.seen.slice(0, cut.seen.lastIndexOf('\n\n') + 2)
      expect(framesSeen).toContain('event: message.delta')

      await using program = await startProgram(deployment)
      const whole = await eventsOf(program, cut.turn)
      expect(whole.startsWith(framesSeen)).toBe(true)
      const events = whole.split('\n\n').flatMap((frame) => {
        const [, json] = /^data: (.*)$/m.exec(frame) ?? []
        return json ? (JSON.parse(json) as NumberedEvent) : []
      })
      const text = events.flatMap((event) => (event.type === 'message.delta' ? event.text : [])).join('')
      expect(events.map(({ seq }) => seq)).toEqual(events.map((_, index) => index + 1))
      expect(events.at(-1)).toMatchObject({
        type: 'turn.interrupted',
        text,
        error: { code: 'interrupted', retryable: true },
      })
      expect(await turnOf(program, cut.turn)).toMatchObject({
        status: 'interrupted',
        text,
        error: { code: 'interrupted' },
      })
      const conversation = (await turnOf(program, cut.turn)).conversation
      const records = await program.api(`/bots/main/conversations/${conversation}/messages`)
      expect(await records.json()).toMatchObject({ items: [{ role: 'user' }, { role: 'bot', text, partial: true }] })
    })

    it('after kill -9 in the middle of an upstream answer goes on with it: no word is lost, none said twice', async () => {
      await using upstreams = await startUpstreams()
      using deployment = deploy(upstreams.config)
      const cut = await (async () => {
        await using program = await startProgram(deployment)
        const live = await Promise.all([read(program, 'asgard', '/long'), read(program, 'coze', '/long')])
        await Promise.all(live.map((stream) => stream.deltas(5)))
        expect(await program.stop('SIGKILL')).toBeNull()
        return Promise.all(live.map(async ({ turn, whole }) => ({ turn, seen: await whole })))
      })()

      await using program = await startProgram(deployment)
      for (const { turn, seen } of cut) {
        const framesSeen = seen.slice(0, seen.lastIndexOf('\n\n') + 2)
        const whole = await eventsOf(program, turn)
        expect(whole.startsWith(framesSeen)).toBe(true)
        const { status, text } = await turnOf(program, turn)
        expect([status, text]).toEqual([
          'completed',
          Array.from({ length: 300 }, (_, word) => `word ${word + 1} `).join(''),
        ])
        const deltas = Array.from(whole.matchAll(/^event: message\.delta\ndata: (.*)$/gm), ([, json]) =>
          JSON.parse(json!),
        )
        expect(deltas.map((event: { text: string }) => event.text).join('')).toBe(text)
      }
      expect(upstreams.studio.requests.filter(({ path }) => path === '/v3/chat')).toHaveLength(1)
      const fresh = upstreams.edge.requests.filter(
        ({ method, path, headers }) => method === 'POST' && path === '/message/sse' && !('last-event-id' in headers),
      )
      expect(fresh).toHaveLength(1)
    })

    it('runs what was queued when it was killed, in its order', async () => {
      using deployment = deploy()
      const turns = await (async () => {
        await using program = await startProgram(deployment)
        const live = await read(program, 'main', '/slow')
        const { conversation } = await turnOf(program, live.turn)
        const queued: string[] = []
        for (const text of ['first', 'second']) {
          const answer = await program.api('/bots/main/messages', { text, conversation }, { prefer: 'respond-async' })
          expect(await jsonOf<TurnObject>(answer.clone())).toMatchObject({ status: 'queued' })
          queued.push((await jsonOf<TurnObject>(answer)).turn)
        }
        await program.stop('SIGKILL')
        return { conversation, queued, live: live.turn }
      })()

      await using program = await startProgram(deployment)
      for (const [index, turn] of turns.queued.entries()) {
        const events = await readEvents(await program.api(`/turns/${turn}/events`))
        expect(events.at(-1)).toMatchObject({
          type: 'turn.completed',
          text: expect.stringContaining(['first', 'second'][index]!),
        })
      }
      const records = await program.api(`/bots/main/conversations/${turns.conversation}/messages`)
      const { items } = (await records.json()) as { items: { role: string; turn: string }[] }
      const answered = items.filter(({ role }) => role === 'bot').map(({ turn }) => turn)
      expect(answered).toEqual([turns.live, ...turns.queued])
    })
  })
})

/** The events of a turn that waits; its stream stays open there. */
async function eventsSoFar(program: Program, { turn }: TurnObject): Promise<string> {
  const stop = new AbortController()
  const response = await fetch(`${program.url}/api/v1/turns/${turn}/events`, { signal: stop.signal })
  let received = ''
  for await (const chunk of response.body!.pipeThrough(new TextDecoderStream())) {
    received += chunk
    if (/^event: turn\.waiting\n.*\n\n/m.test(received)) break
  }
  stop.abort()
  return received.replaceAll(/^:.*\n/gm, '')
}
