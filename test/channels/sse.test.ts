import { describe, expect, it } from 'vitest'
import { consent, demoBot, echo, local } from '../../index.ts'
import type { NumberedEvent, TurnObject } from '../../index.ts'
import { gatedBot } from '../fakes/gated-bot.ts'
import { naughtyStrings } from '../suites/naughty.ts'
import { jsonOf, startHub } from '../support/hub.ts'
import type { TestHub } from '../support/hub.ts'

const events = { accept: 'text/event-stream' }

const post = (hub: TestHub, bot: string, text: string, more: object = {}): Promise<Response> =>
  hub.api(`/bots/${bot}/messages`, { text, ...more }, events)

/** Everything of a stream but the comments that break its silence. */
const bytesOf = async (answer: Response | Promise<Response>): Promise<string> =>
  (await (await answer).text()).replaceAll(/^:.*\n/gm, '')

/** A stream read as far as the test wants. */
function reader(answer: Response) {
  const chunks = answer.body!.pipeThrough(new TextDecoderStream())[Symbol.asyncIterator]()
  let received = ''
  return {
    async until(pattern: RegExp): Promise<string> {
      while (!pattern.test(received)) {
        const next = await chunks.next()
        if (next.done) throw new Error(`ended without ${pattern}: ${received}`)
        received += next.value
      }
      return received
    },
    async rest(): Promise<string> {
      for (let next = await chunks.next(); !next.done; next = await chunks.next()) received += next.value
      return received
    },
    leave: async () => void (await chunks.return?.()),
  }
}

interface Parsed {
  readonly id: string
  readonly event: string
  readonly body: NumberedEvent
}

/** The frames of a stream; fails where one is not in the hub's own form. */
const parse = (text: string): Parsed[] =>
  text.split('\n\n').flatMap((frame, index, all) => {
    if (index === all.length - 1) {
      expect(frame).toBe('')
      return []
    }
    const [, id, event, json] = /^id: ([^\n]+)\nevent: ([^\n]+)\ndata: ([^\n]+)$/.exec(frame)!
    return { id: id!, event: event!, body: JSON.parse(json!) as NumberedEvent }
  })

describe('a stream', () => {
  it('says everything of a turn, each event in one frame with its number', async () => {
    await using hub = await startHub({ bots: { main: local(demoBot) } })
    const answer = await post(hub, 'main', 'hello', { conversation: 'c', id: 'm' })
    expect(answer.status).toBe(200)
    expect(Object.fromEntries(answer.headers)).toMatchObject({
      'content-type': 'text/event-stream',
      'cache-control': 'no-cache, no-transform',
      'x-accel-buffering': 'no',
    })
    const frames = parse(await bytesOf(answer))
    const turn = frames[0]!.id.split('/')[0]!
    expect(frames[0]!.body).toEqual({
      seq: 1,
      type: 'turn.started',
      turn,
      bot: 'main',
      conversation: 'c',
      message: 'm',
    })
    expect(frames.map(({ id }) => id)).toEqual(frames.map((_, index) => `${turn}/${index + 1}`))
    for (const { event, body, id } of frames) expect([event, id]).toEqual([body.type, `${turn}/${body.seq}`])
    expect([...new Set(frames.map(({ event }) => event))]).toEqual([
      'turn.started',
      'message.started',
      'message.delta',
      'message.completed',
      'turn.completed',
    ])
  })

  it('opens before the bot has said a word, also for a message that has to queue', async () => {
    const gated = gatedBot()
    await using hub = await startHub({
      bots: {
        silent: local(async ({ signal }) => {
          await new Promise((resolve) => signal.addEventListener('abort', resolve, { once: true }))
          return ''
        }),
        gated: gated.provider,
      },
    })
    const silent = reader(await post(hub, 'silent', 'hello'))
    expect(await silent.until(/\n\n/)).toMatch(/^id: turn_\w+\/1\nevent: turn\.started\n/)
    await silent.leave()

    const first = reader(await post(hub, 'gated', 'one', { conversation: 'c' }))
    const queued = reader(await post(hub, 'gated', 'two', { conversation: 'c' }))
    expect(await queued.until(/\n\n/)).toMatch(/^id: turn_\w+\/1\nevent: turn\.started\n/)
    expect(gated.begun).not.toContain('two')
    gated.finish('one')
    gated.finish('two')
    expect(await first.rest()).toContain('"text":"So: one."')
    expect(await queued.rest()).toContain('"text":"So: two."')
  })

  it('that is whole is the same for whoever reads it, byte for byte: at once, late, again, as a duplicate', async () => {
    const gated = gatedBot()
    await using hub = await startHub({ bots: { gated: gated.provider } })
    const message = { conversation: 'c', id: 'm' }
    const first = await post(hub, 'gated', 'hello', message)
    const live = reader(first)
    const turn = /^id: (turn_\w+)\//.exec(await live.until(/"text":"So: "/))![1]!
    const duplicate = post(hub, 'gated', 'hello', message)
    const viewers = [hub.api(`/turns/${turn}/events`), hub.api(`/turns/${turn}/events?after=0`)]
    await Promise.all([duplicate, ...viewers])
    gated.finish('hello')
    const whole = (await live.rest()).replaceAll(/^:.*\n/gm, '')
    expect(parse(whole).at(-1)!.body).toMatchObject({ type: 'turn.completed', text: 'So: hello.' })
    for (const answer of [duplicate, ...viewers]) expect(await bytesOf(answer)).toBe(whole)
    expect(await bytesOf(post(hub, 'gated', 'hello', message))).toBe(whole)
    expect(await bytesOf(hub.api(`/turns/${turn}/events`))).toBe(whole)
  })

  it('goes on behind any event, by Last-Event-ID before ?after=, and is 204 behind the last one', async () => {
    await using hub = await startHub({ bots: { main: local(demoBot) } })
    const whole = await bytesOf(post(hub, 'main', 'hello'))
    const frames = parse(whole)
    const turn = frames[0]!.id.split('/')[0]!
    const tail = (after: number) => whole.split('\n\n').slice(after).join('\n\n')
    expect(frames.length).toBeGreaterThan(5)
    for (let after = 0; after < frames.length; after++) {
      const id = { 'last-event-id': `${turn}/${after}` }
      expect(await bytesOf(hub.api(`/turns/${turn}/events`, undefined, id))).toBe(tail(after))
      expect(await bytesOf(hub.api(`/turns/${turn}/events?after=${after}`))).toBe(tail(after))
      expect(await bytesOf(hub.api(`/turns/${turn}/events?after=1`, undefined, id))).toBe(tail(after))
    }
    const end = frames.length
    for (const after of [end, end + 1, 999_999])
      expect((await hub.api(`/turns/${turn}/events?after=${after}`)).status).toBe(204)
  })

  it('may be left and taken up again while the turn goes on', async () => {
    const gated = gatedBot()
    await using hub = await startHub({ bots: { gated: gated.provider } })
    const first = reader(await post(hub, 'gated', 'hello'))
    const seen = await first.until(/"text":"So: "\}\n\n/)
    await first.leave()
    const [last] = Array.from(seen.matchAll(/^id: (.+)$/gm), ([, id]) => id!).slice(-1)
    const turn = last!.split('/')[0]
    const again = await hub.api(`/turns/${turn}/events`, undefined, { 'last-event-id': last! })
    gated.finish('hello')
    const frames = parse(seen + (await bytesOf(again)))
    expect(frames.map(({ body }) => body.seq)).toEqual(frames.map((_, index) => index + 1))
    expect(frames.at(-1)!.body).toMatchObject({ type: 'turn.completed', text: 'So: hello.' })
  })

  it.each([...naughtyStrings, ' ', '\r', '\n\nevent: x', 'x'.repeat(300_000)].map((text) => [text.slice(0, 30), text]))(
    'cannot be forged by what is said in it: %j comes back as it was',
    async (_, text) => {
      await using hub = await startHub({ bots: { echo: echo() } })
      const frames = parse(await bytesOf(post(hub, 'echo', text)))
      const said = frames.flatMap(({ body }) => (body.type === 'message.delta' ? body.text : [])).join('')
      expect(said).toBe(text)
      expect(frames.at(-1)!.body).toMatchObject({ type: 'turn.completed', text })
      expect(frames.filter(({ event }) => event.startsWith('turn.')).map(({ event }) => event)).toEqual([
        'turn.started',
        'turn.completed',
      ])
    },
  )
})

describe('a turn that waits', () => {
  const bots = { main: { provider: local(demoBot), use: [consent()] } }

  it('ends the stream of its message, not that of who follows the turn, and goes on behind the pause', async () => {
    await using hub = await startHub({ bots })
    const asked = await bytesOf(post(hub, 'main', '/consent'))
    const frames = parse(asked)
    expect(frames.at(-1)!.body).toMatchObject({ type: 'turn.waiting', for: 'consent' })
    const turn = frames[0]!.id.split('/')[0]!
    const following = reader(await hub.api(`/turns/${turn}/events`))
    expect(await following.until(/event: turn\.waiting\n.*\n\n/)).toBe(asked)

    const requested = frames.find(({ event }) => event === 'consent.requested')!.body
    const calls = requested.type === 'consent.requested' ? requested.calls : []
    const decisions = calls.map(({ call }) => ({ call, result: 'allow_once', reason: 'Because\nI may.' }))
    const rest = await bytesOf(hub.api(`/turns/${turn}/consent`, { decisions }, events))
    expect(parse(rest)[0]!.body).toMatchObject({ type: 'consent.answered', seq: frames.length + 1, decisions })
    expect(parse(rest).at(-1)!.body).toMatchObject({ type: 'turn.completed' })
    expect((await following.rest()).replaceAll(/^:.*\n/gm, '')).toBe(asked + rest)
    // The message again replays the part that it was answered with.
    expect(await bytesOf(hub.api(`/turns/${turn}/events?after=${frames.length}`))).toBe(rest)
  })

  it('is answered as JSON, and its turn is the same', async () => {
    await using hub = await startHub({ bots })
    const frames = parse(await bytesOf(post(hub, 'main', '/consent', { conversation: 'c', id: 'm' })))
    const turn = await jsonOf<TurnObject>(
      await hub.api('/bots/main/messages', { text: '/consent', conversation: 'c', id: 'm' }),
    )
    expect(turn).toMatchObject({ status: 'waiting', turn: frames[0]!.id.split('/')[0] })
  })
})

describe('a refusal', () => {
  it.each([
    ['bad JSON', '{', 400, 'bad_json', 'not valid JSON'],
    ['a missing field', '{"txt":"x"}', 422, 'invalid_request', 'text: is missing.'],
    ['a wrong type', '{"text":7}', 422, 'invalid_request', 'text: must be a string.'],
    ['no object', '["x"]', 422, 'invalid_request', 'The body must be an object.'],
  ])('before there is a stream is a status and JSON: %s', async (_, body, status, code, message) => {
    await using hub = await startHub({ bots: { echo: echo() } })
    const answer = await fetch(`${hub.url}/api/v1/bots/echo/messages`, {
      method: 'POST',
      body,
      headers: { ...events, 'content-type': 'application/json' },
    })
    expect(answer.status).toBe(status)
    expect(answer.headers.get('content-type')).toContain('application/json')
    expect(await answer.json()).toMatchObject({
      error: { code, message: expect.stringContaining(message), retryable: false },
    })
  })

  it.each(['x', '-1', 'turn_other/1', '1.5'])('is what the cursor %j gets', async (cursor) => {
    await using hub = await startHub({ bots: { echo: echo() } })
    const { turn } = await hub.ask('echo', 'hello')
    const answer = await hub.api(`/turns/${turn}/events`, undefined, { 'last-event-id': cursor })
    expect(answer.status).toBe(400)
    expect(await answer.json()).toMatchObject({ error: { code: 'bad_cursor' } })
  })
})
