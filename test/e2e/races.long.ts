import { setImmediate as nextTick } from 'node:timers/promises'
import { Webhook } from 'standardwebhooks'
import { describe, expect, it, vi } from 'vitest'
import type { HubConfig, NumberedEvent, TurnObject } from '../../index.ts'
import { asgard, consent, coze, local, rest, retry, sse, tool, webhook, websocket } from '../../index.ts'
import { settleCalls } from '../../core/tools.ts'
import { startAsgardSimulator } from '../../plugins/asgard/simulator.ts'
import { startCozeSimulator } from '../../plugins/coze/simulator.ts'
import { openReceiver } from '../suites/receiver.ts'
import type { TestHub } from '../support/hub.ts'
import { jsonOf, readEvents, startHub } from '../support/hub.ts'
import { connectSocket } from '../support/socket.ts'

vi.setConfig({ testTimeout: 60_000, hookTimeout: 60_000 })

const ends = ['turn.completed', 'turn.failed', 'turn.cancelled', 'turn.interrupted']
const endsOf = (events: readonly NumberedEvent[]) =>
  events.map(({ type }) => type).filter((type) => ends.includes(type))
const isDense = (events: readonly NumberedEvent[], after = 0) =>
  events.every(({ seq }, index) => seq === after + index + 1)

const secret = `whsec_${Buffer.from('a secret of twenty-four').toString('base64')}`

/** Both upstreams, and how often each was asked to begin. */
const upstreams = {
  async asgard() {
    const edge = await startAsgardSimulator()
    const { url: edgeServerHost, namespace, botProviderName, apiKey } = edge
    return {
      bot: asgard({ edgeServerHost, namespace, botProviderName, apiKey }),
      starts: () =>
        edge.requests.filter(
          ({ method, path, headers }) => method === 'POST' && path === '/message/sse' && !('last-event-id' in headers),
        ).length,
      close: () => edge.close(),
    }
  },
  async coze() {
    const studio = await startCozeSimulator()
    return {
      bot: coze({ baseUrl: studio.url, token: studio.token, botId: studio.botId }),
      starts: () => studio.requests.filter(({ path }) => path === '/v3/chat').length,
      close: () => studio.close(),
    }
  },
}

/** One message on its way over each channel; what each resolves with is the text of the answer. */
function senders(hub: TestHub, message: { readonly id: string; readonly conversation: string; readonly text: string }) {
  const { id, conversation, text } = message
  return {
    rest: async () => (await hub.ask('bot', text, { id, conversation })).text,
    async sse() {
      const events = await hub.stream('bot', text, { id, conversation })
      expect(isDense(events)).toBe(true)
      const last = events.at(-1)
      return last?.type === 'turn.completed' ? last.text : JSON.stringify(last)
    },
    async websocket() {
      using socket = await connectSocket(hub.url)
      const frames = await socket.chat({ id, sessionId: conversation, message: text })
      return frames.map(({ content = '' }) => content).join('')
    },
    async webhook() {
      const body = JSON.stringify(message)
      const at = new Date()
      const response = await fetch(`${hub.url}/api/v1/webhooks/hook`, {
        method: 'POST',
        body,
        headers: {
          'content-type': 'application/json',
          'webhook-id': id,
          'webhook-timestamp': String(Math.floor(at.getTime() / 1000)),
          'webhook-signature': new Webhook(secret).sign(id, at, body),
        },
      })
      expect(response.status).toBe(202)
      const { turn } = await jsonOf<TurnObject>(response)
      return (await jsonOf<TurnObject>(await hub.api(`/turns/${turn}?wait=30`))).text
    },
  }
}

describe('one message a hundred times at once, on four channels', () => {
  it.each(Object.entries(upstreams))('asks %s once and answers everybody alike', async (_name, start) => {
    const upstream = await start()
    await using receiver = await openReceiver()
    await using hub = await startHub({
      bots: { bot: upstream.bot },
      channels: {
        rest: rest(),
        sse: sse(),
        websocket: websocket({ bot: 'bot' }),
        hook: webhook({ bot: 'bot', secret, callback: receiver.url, allowPrivate: true }),
      },
    })
    for (const text of ['hello', '/cut', '/busy']) {
      const before = upstream.starts()
      const channels = senders(hub, { id: `m ${text}`, conversation: `c ${text}`, text })
      const answers = await Promise.all(
        Object.values(channels).flatMap((send) => Array.from({ length: 25 }, () => send())),
      )
      expect(answers).toHaveLength(100)
      expect(answers[0]).toMatch(/\w+ \w+/)
      expect(new Set(answers).size).toBe(1)
      // The word /busy is refused twice before it is taken.
      expect([text, upstream.starts() - before]).toEqual([text, text === '/busy' ? 3 : 1])
    }
    await receiver.moreThan(2, AbortSignal.timeout(20_000))
    const ids = receiver.callbacks.map(({ headers }) => headers['webhook-id'])
    expect(new Set(ids).size).toBe(3)
    await upstream.close()
  })
})

/** A hub with one local bot; no history or retry in the way. */
const hubWith = (bots: HubConfig['bots']) => startHub({ bots, use: [retry()] })

describe('a cancel that meets the end of its turn', () => {
  it('comes to exactly one end, which everybody sees', async () => {
    await using hub = await hubWith({
      bot: local(async function* ({ message, signal }) {
        yield 'So: '
        for (let tick = 0; tick < Number(message.text) && !signal.aborted; tick += 1) await nextTick()
        yield 'done.'
      }),
    })
    const outcomes = new Map<string, number>()
    for (let round = 0; round < 120; round += 1) {
      const text = String(round < 110 ? round * 5 : 1_000_000)
      const response = await hub.api('/bots/bot/messages', { text }, { prefer: 'respond-async' })
      const { turn } = await jsonOf<TurnObject>(response)
      const watching = hub.api(`/turns/${turn}/events`).then(readEvents)
      for (let tick = 0; tick < 250; tick += 1) await nextTick()
      const cancel = await hub.api(`/turns/${turn}/cancel`, {})
      expect(cancel.status).toBe(202)
      await cancel.text()
      const events = await watching
      expect(isDense(events)).toBe(true)
      expect(endsOf(events)).toEqual([events.at(-1)!.type])
      expect(await readEvents(await hub.api(`/turns/${turn}/events`))).toEqual(events)
      const { status, text: said } = await jsonOf<TurnObject>(await hub.api(`/turns/${turn}`))
      expect(`turn.${status}`).toBe(events.at(-1)!.type)
      expect('So: done.'.startsWith(said)).toBe(true)
      if (status === 'completed') expect(said).toBe('So: done.')
      outcomes.set(status, (outcomes.get(status) ?? 0) + 1)
    }
    // The first one is over before its cancel, the last ones are not, and those between are decided by the moment.
    expect([...outcomes.keys()].toSorted((one, other) => one.localeCompare(other))).toEqual(['cancelled', 'completed'])
  })
})

const mailed: string[] = []
const mailTools = {
  send_mail: tool<{ to: string }>({
    run({ to }) {
      mailed.push(to)
      return 'sent'
    },
  }),
}
/** Asks for consent to a mail to whoever the message names. */
const mailer = local(async function* (turn) {
  const calls = [{ call: 'c1', tool: 'send_mail', input: { to: turn.message.text } }]
  const { outputs, settled } = yield* settleCalls(turn, mailTools, calls)
  if (settled) yield `Said: ${JSON.stringify(outputs[0]!.output)}`
})
const decide = (hub: TestHub, turn: string, result: string) =>
  hub.api(`/turns/${turn}/consent`, { decisions: [{ call: 'c1', result }] })

describe('consent', () => {
  it('that comes as it expires either counts or does not, and its tool runs accordingly', async () => {
    const answerWithinMs = 2000
    await using hub = await hubWith({ bot: { provider: mailer, use: [consent()], answerWithinMs } })
    const outcomes = new Set<boolean>()
    const round = async (name: string, offset: number) => {
      const to = `expiry-${name}@example.com`
      const asked = await hub.ask('bot', to)
      expect(asked.waiting?.calls).toHaveLength(1)
      const aim = Date.parse(asked.waiting!.expiresAt!) + offset
      while (Date.now() < aim) await nextTick()
      const answer = await decide(hub, asked.turn, 'allow_once')
      await answer.text()
      const events = await readEvents(await hub.api(`/turns/${asked.turn}/events`))
      expect(isDense(events)).toBe(true)
      expect(endsOf(events)).toHaveLength(1)
      const counted = events.some(({ type }) => type === 'consent.answered')
      expect(answer.status).toBe(counted ? 200 : 409)
      expect(events.at(-1)).toMatchObject(
        counted ? { type: 'turn.completed' } : { type: 'turn.failed', error: { code: 'consent_expired' } },
      )
      expect(mailed.filter((each) => each === to)).toHaveLength(counted ? 1 : 0)
      outcomes.add(counted)
    }
    // One at once, before there is a crowd, one much too late, and the others around the very moment.
    await round('early', -answerWithinMs)
    await Promise.all([
      round('late', 200),
      ...Array.from({ length: 88 }, (_, index) => round(String(index), index - 44)),
    ])
    expect(outcomes.size).toBe(2)
  })

  it('that is given and denied at once is decided by the first one alone', async () => {
    await using hub = await hubWith({ bot: { provider: mailer, use: [consent()] } })
    for (let round = 0; round < 40; round += 1) {
      const to = `twice-${round}@example.com`
      const { turn } = await hub.ask('bot', to)
      const results = round % 2 ? ['allow_once', 'deny_once', 'allow_once'] : ['deny_once', 'allow_once', 'deny_once']
      const answers = await Promise.all(results.map((result) => decide(hub, turn, result)))
      const bodies = await Promise.all(answers.map(async (each) => (await each.json()) as { error?: { code: string } }))
      expect(answers.map(({ status }) => status).toSorted((one, other) => one - other)).toEqual([200, 409, 409])
      expect(bodies.flatMap(({ error }) => error?.code ?? [])).toEqual(['already_decided', 'already_decided'])
      const events = await readEvents(await hub.api(`/turns/${turn}/events`))
      const decided = events.filter((event) => event.type === 'consent.answered')
      expect(decided).toHaveLength(1)
      expect(endsOf(events)).toEqual(['turn.completed'])
      const [{ result } = { result: 'none' }] = decided[0]!.decisions
      expect(result).toBe(results[answers.findIndex(({ status }) => status === 200)])
      expect(mailed.filter((each) => each === to)).toHaveLength(result === 'allow_once' ? 1 : 0)
    }
  })
})

describe('a reader that comes back as the last words are written', () => {
  it('gets exactly what it has not seen, and the end', async () => {
    await using hub = await hubWith({
      bot: local(async function* () {
        for (let piece = 0; piece < 12; piece += 1) {
          yield `${piece} `
          await nextTick()
        }
      }),
    })
    let live = 0
    for (let round = 0; round < 30; round += 1) {
      const response = await hub.api('/bots/bot/messages', { text: 'go' }, { prefer: 'respond-async' })
      const { turn } = await jsonOf<TurnObject>(response)
      const readers = await Promise.all(
        Array.from({ length: 17 }, async (_, after) => {
          const reader = await hub.api(`/turns/${turn}/events`, undefined, { 'last-event-id': `${turn}/${after}` })
          return { after, status: reader.status, events: await readEvents(reader) }
        }),
      )
      const whole = await readEvents(await hub.api(`/turns/${turn}/events`))
      expect(whole).toHaveLength(16)
      expect(endsOf(whole)).toEqual(['turn.completed'])
      for (const { after, status, events } of readers) {
        expect([after, events]).toEqual([after, whole.slice(after)])
        // Nothing is left behind the end: 204 once it is known, and before that a stream that is over at once.
        if (after < whole.length) expect(status).toBe(200)
        if (status === 200) live += 1
      }
    }
    expect(live).toBeGreaterThanOrEqual(30 * 16)
  })
})
