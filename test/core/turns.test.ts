import { once } from 'node:events'
import { describe, expect, it } from 'vitest'
import type { HubConfig, HubEvent, NumberedEvent, Turn } from '../../index.ts'
import { defineProvider, echo, HubError, local, retry, rest, sse, sqlite, websocket } from '../../index.ts'
import { z } from 'zod'
import type { Provider } from '../../core/plugin.ts'
import type { TestHub } from '../support/hub.ts'
import { jsonOf, readEvents, startHub } from '../support/hub.ts'

const types = (events: readonly { type: string }[]) => events.map((event) => event.type)
const scripted = (built: Provider) =>
  defineProvider({ manifest: { name: 'scripted' }, options: z.strictObject({}), create: () => built })()
const untilEnded = async (hub: TestHub, turn: string) => readEvents(await hub.api(`/turns/${turn}/events`))
const later = async (hub: TestHub, bot: string, text: string, more: Record<string, unknown> = {}) =>
  jsonOf<{ turn: string; status: string }>(
    await hub.api(`/bots/${bot}/messages`, { text, ...more }, { prefer: 'respond-async' }),
  )

/** Says its message and stays until it is told to stop, or the test lets it end. */
function lingering() {
  const started: Turn[] = []
  const stopped: unknown[] = []
  const ends = new Map<string, () => void>()
  const bot = scripted({
    async *respond(turn) {
      started.push(turn)
      yield { type: 'message.delta', message: 'm', text: turn.message.text }
      await new Promise<void>((resolve, reject) => {
        ends.set(turn.message.text, resolve)
        turn.signal.addEventListener('abort', () => {
          stopped.push(turn.signal.reason)
          reject(turn.signal.reason)
        })
      })
    },
  })
  return { bot, started, stopped, end: (text: string) => ends.get(text)!() }
}

describe('a turn that nobody listens to', () => {
  const abandoned = (cancelAfter: '30ms' | 'continue' = '30ms') => {
    const { bot, ...rig } = lingering()
    const onAbandon = cancelAfter === 'continue' ? 'continue' : { cancelAfter }
    return { ...rig, bots: { bot: { provider: bot, onAbandon } } as HubConfig['bots'] }
  }
  /** Asks, has `before` done while its client still listens, and leaves. */
  const leave = async (hub: TestHub, text = 'x', before: (turn: string) => Promise<void> = async () => {}) => {
    const client = new AbortController()
    const response = await fetch(`${hub.url}/api/v1/bots/bot/messages`, {
      method: 'POST',
      body: JSON.stringify({ text }),
      headers: { 'content-type': 'application/json', accept: 'text/event-stream' },
      signal: client.signal,
    })
    const { value } = await response.body!.getReader().read()
    const turn = /"turn":"(turn_\w+)"/.exec(new TextDecoder().decode(value))![1]!
    await before(turn)
    client.abort()
    return turn
  }

  it('is cancelled upstream after its grace period', async () => {
    const { bots, stopped } = abandoned()
    await using hub = await startHub({ bots })
    const turn = await leave(hub)
    await expect.poll(() => stopped).toMatchObject([{ code: 'cancelled' }])
    expect((await untilEnded(hub, turn)).at(-1)).toMatchObject({ type: 'turn.cancelled', by: 'abandoned', text: 'x' })
  })

  it('goes on where its bot says so', async () => {
    const { bots, stopped, started, end } = abandoned('continue')
    await using hub = await startHub({ bots })
    const turn = await leave(hub)
    await expect.poll(() => started.length).toBe(1)
    end('x')
    expect((await untilEnded(hub, turn)).at(-1)).toMatchObject({ type: 'turn.completed' })
    expect(stopped).toEqual([])
  })

  it('goes on when its client took a 202, and when a copy of it did', async () => {
    const { bots, stopped, end } = abandoned()
    await using hub = await startHub({ bots })
    const first = await later(hub, 'bot', 'one', { conversation: 'a' })
    const second = hub.stream('bot', 'two', { conversation: 'b', id: 'm' })
    const copy = await later(hub, 'bot', 'two', { conversation: 'b', id: 'm' })
    // Long enough for a turn that may be abandoned to be: one of those beside them is.
    const third = await leave(hub)
    await expect.poll(() => stopped.length).toBe(1)
    expect((await untilEnded(hub, third)).at(-1)).toMatchObject({ by: 'abandoned' })
    end('one')
    end('two')
    expect((await untilEnded(hub, first.turn)).at(-1)).toMatchObject({ type: 'turn.completed' })
    expect((await second).at(-1)).toMatchObject({ type: 'turn.completed' })
    expect((await untilEnded(hub, copy.turn)).at(-1)).toMatchObject({ type: 'turn.completed' })
  })

  it('goes on while anybody is there: another tab, a socket, the stream of its conversation', async () => {
    const { bots, stopped, end } = abandoned()
    await using hub = await startHub({ bots })
    const { WebSocket } = await import('ws')
    const socket = new WebSocket(`${hub.url.replace('http', 'ws')}/api/v1/ws`)
    await once(socket, 'open')
    const tab = Promise.withResolvers<NumberedEvent[]>()
    await leave(hub, 'x', async (turn) => {
      const response = await hub.api(`/turns/${turn}/events`)
      const [first, all] = response.body!.tee()
      await first.getReader().read()
      tab.resolve(readEvents(new Response(all)))
    })
    const followed = await leave(hub, 'y', async (turn) => {
      socket.send(JSON.stringify({ type: 'resume', turn }))
      await once(socket, 'message')
    })
    // Long enough for a turn that may be abandoned to be: one beside them is.
    const alone = await leave(hub, 'z')
    await expect.poll(() => stopped.length).toBe(1)
    expect((await untilEnded(hub, alone)).at(-1)).toMatchObject({ by: 'abandoned' })
    end('x')
    end('y')
    expect((await tab.promise).at(-1)).toMatchObject({ type: 'turn.completed' })
    expect((await untilEnded(hub, followed)).at(-1)).toMatchObject({ type: 'turn.completed' })
    socket.close()
  })
})

describe('a message while the conversation is busy', () => {
  it('is refused where the bot says reject, and leaves no trace', async () => {
    const { bot, end, started } = lingering()
    await using hub = await startHub({ bots: { bot: { provider: bot, whenBusy: 'reject' } } })
    const first = await later(hub, 'bot', 'one', { conversation: 'c' })
    const refused = await hub.api('/bots/bot/messages', { text: 'two', conversation: 'c', id: 'm2' })
    expect([refused.status, await refused.json()]).toMatchObject([409, { error: { code: 'turn_running' } }])
    await expect.poll(() => started.length).toBe(1)
    end('one')
    await untilEnded(hub, first.turn)
    expect((await later(hub, 'bot', 'two', { conversation: 'c', id: 'm2' })).status).toBe('running')
  })

  it('ends what is live where the bot says interrupt, and is answered next', async () => {
    const { bot, end, started } = lingering()
    await using hub = await startHub({ bots: { bot: { provider: bot, whenBusy: 'interrupt' } } })
    const first = await later(hub, 'bot', 'one', { conversation: 'c' })
    await expect.poll(() => started.length).toBe(1)
    const second = await later(hub, 'bot', 'two', { conversation: 'c' })
    const third = await later(hub, 'bot', 'three', { conversation: 'c' })
    for (const turn of [first, second]) {
      expect((await untilEnded(hub, turn.turn)).at(-1)).toMatchObject({ type: 'turn.cancelled', by: 'superseded' })
    }
    await expect.poll(() => started.at(-1)?.message.text).toBe('three')
    end('three')
    expect((await untilEnded(hub, third.turn)).at(-1)).toMatchObject({ type: 'turn.completed', text: 'three' })
  })

  it('counts as a no where the bot says deny, and is answered after', async () => {
    const bot = local(async function* (turn): AsyncGenerator<string | HubEvent> {
      if (turn.message.text !== 'ask') yield 'answered'
      else if (turn.answers?.type === 'consent') yield turn.answers.decisions.map(({ result }) => result).join()
      else yield { type: 'consent.requested', calls: [{ call: 'c1', tool: 't', input: {}, alreadyAllowed: false }] }
    })
    await using hub = await startHub({ bots: { bot: { provider: bot, whenWaiting: 'deny' } } })
    const asked = await hub.ask('bot', 'ask', { conversation: 'c' })
    expect(asked.status).toBe('waiting')
    expect(await hub.ask('bot', 'next', { conversation: 'c' })).toMatchObject({ status: 'completed', text: 'answered' })
    const denied = await untilEnded(hub, asked.turn)
    expect(denied.find((event) => event.type === 'consent.answered')).toMatchObject({ by: 'policy' })
    expect(denied.at(-1)).toMatchObject({ type: 'turn.completed', text: 'deny_once' })
  })
})

describe('the stream of a conversation', () => {
  const open = async (hub: TestHub, conversation: string, headers: Record<string, string> = {}) => {
    const client = new AbortController()
    const response = await fetch(`${hub.url}/api/v1/bots/bot/conversations/${conversation}/events`, {
      headers,
      signal: client.signal,
    })
    const frames: { id: string; event: NumberedEvent }[] = []
    let text = ''
    const reading = (async () => {
      const decoder = new TextDecoder()
      for await (const chunk of response.body!) {
        text += decoder.decode(chunk, { stream: true })
        for (let end = text.indexOf('\n\n'); end >= 0; end = text.indexOf('\n\n')) {
          const id = /^id: (.*)$/m.exec(text.slice(0, end))?.[1]
          const data = /^data: (.*)$/m.exec(text.slice(0, end))?.[1]
          if (id && data) frames.push({ id, event: JSON.parse(data) as NumberedEvent })
          text = text.slice(end + 2)
        }
      }
    })().catch(() => {})
    return { status: response.status, frames, reading, close: () => client.abort() }
  }
  const ended = (frames: readonly { event: NumberedEvent }[]) =>
    frames.filter(({ event }) => event.type === 'turn.completed').length

  it('shows every turn as it happens, whoever sent it, and goes on after any of its ids', async () => {
    await using hub = await startHub({ bots: { bot: echo() } })
    await hub.ask('bot', 'before', { conversation: 'c' })
    const first = await open(hub, 'c')
    await hub.ask('bot', 'one', { conversation: 'c' })
    await Promise.all([
      hub.ask('bot', 'two', { conversation: 'c' }),
      hub.ask('bot', 'elsewhere', { conversation: 'd' }),
    ])
    await expect.poll(() => ended(first.frames)).toBe(2)
    first.close()
    await first.reading
    const texts = first.frames.flatMap(({ event }) => (event.type === 'turn.completed' ? [event.text] : []))
    expect(texts).toEqual(['one', 'two'])

    for (const cut of [0, 3, first.frames.length - 1]) {
      const again = await open(hub, 'c', { 'last-event-id': first.frames[cut]!.id })
      await hub.ask('bot', `after ${cut}`, { conversation: 'c' })
      const missed = first.frames.slice(cut + 1).map(({ id }) => id)
      await expect.poll(() => again.frames.map(({ id }) => id).slice(0, missed.length)).toEqual(missed)
      await expect
        .poll(() => again.frames.some(({ event }) => event.type === 'turn.completed' && event.text === `after ${cut}`))
        .toBe(true)
      expect(new Set(again.frames.map(({ id }) => id)).size).toBe(again.frames.length)
      again.close()
    }
  })

  it('begins with the turn that is live, from its start', async () => {
    const { bot, end, started } = lingering()
    await using hub = await startHub({ bots: { bot } })
    await later(hub, 'bot', 'live', { conversation: 'c' })
    await expect.poll(() => started.length).toBe(1)
    const stream = await open(hub, 'c')
    await expect.poll(() => stream.frames.length).toBeGreaterThan(2)
    expect(stream.frames[0]!.event).toMatchObject({ type: 'turn.started', seq: 1 })
    end('live')
    await expect.poll(() => ended(stream.frames)).toBe(1)
    stream.close()
  })

  it('ends when the conversation is deleted, and refuses cursors that are not of it', async () => {
    await using hub = await startHub({ bots: { bot: echo() } })
    const { turn } = await hub.ask('bot', 'x', { conversation: 'other' })
    await hub.ask('bot', 'x', { conversation: 'c' })
    expect((await open(hub, 'nowhere')).status).toBe(404)
    expect((await open(hub, 'c', { 'last-event-id': 'x' })).status).toBe(400)
    expect((await open(hub, 'c', { 'last-event-id': `${turn}/1` })).status).toBe(404)
    const stream = await open(hub, 'c')
    await fetch(`${hub.url}/api/v1/bots/bot/conversations/c`, { method: 'DELETE' })
    await stream.reading
    expect(stream.status).toBe(200)
  })
})

describe('what is kept', () => {
  it('after its time is the final message: 410 with the turn object, and old numbers for whoever sends it again', async () => {
    await using hub = await startHub({ bots: { bot: echo() }, keep: { events: 0, messageIds: '7d' } })
    const live = await hub.stream('bot', 'one two', { conversation: 'c', id: 'm' })
    const { turn } = live[0] as { turn: string }
    await hub.sweep()
    const gone = await hub.api(`/turns/${turn}/events`)
    expect(gone.status).toBe(410)
    expect(await gone.json()).toEqual(await (await hub.api(`/turns/${turn}`)).json())
    expect((await hub.api(`/turns/${turn}/events?after=${live.length}`)).status).toBe(204)
    const again = await hub.stream('bot', 'one two', { conversation: 'c', id: 'm' })
    expect(again).toEqual(
      live.filter(({ type }) => ['turn.started', 'message.completed', 'turn.completed'].includes(type)),
    )
    const mismatch = await hub.api('/bots/bot/messages', { text: 'other', conversation: 'c', id: 'm' })
    expect(mismatch.status).toBe(422)
    const records = await jsonOf<{ items: unknown[] }>(await hub.api('/bots/bot/conversations/c/messages'))
    expect(records.items).toHaveLength(2)
  })

  it('after the time of message ids is the record alone: the id is free again', async () => {
    await using hub = await startHub({ bots: { bot: echo() }, keep: { events: 0, messageIds: 0 } })
    const first = await hub.ask('bot', 'one', { conversation: 'c', id: 'm' })
    await hub.sweep()
    expect((await hub.api(`/turns/${first.turn}`)).status).toBe(404)
    const second = await hub.ask('bot', 'other words', { conversation: 'c', id: 'm' })
    expect(second.text).toBe('other words')
    const records = await jsonOf<{ items: { text: string }[] }>(await hub.api('/bots/bot/conversations/c/messages'))
    expect(records.items.map(({ text }) => text)).toEqual(['one', 'one', 'other words', 'other words'])
  })

  it('lets live and waiting turns be', async () => {
    const { bot, started, end } = lingering()
    await using hub = await startHub({ bots: { bot }, keep: { events: 0, messageIds: 0 } })
    const { turn } = await later(hub, 'bot', 'x')
    await expect.poll(() => started.length).toBe(1)
    await hub.sweep()
    end('x')
    expect(types(await untilEnded(hub, turn))).toEqual([
      'turn.started',
      'message.started',
      'message.delta',
      'message.completed',
      'turn.completed',
    ])
  })
})

describe('the gate before an upstream', () => {
  it('lets in no more turns at once than it is told, first come first served, also past those that were stopped', async () => {
    const { bot, started, end } = lingering()
    await using hub = await startHub({ bots: { bot: { provider: bot, maxConcurrent: 2 } } })
    const turns = []
    for (const text of ['a', 'b', 'c', 'd']) turns.push(await later(hub, 'bot', text))
    await expect.poll(() => started.length).toBe(2)
    await hub.api(`/turns/${turns[2]!.turn}/cancel`, {})
    await untilEnded(hub, turns[2]!.turn)
    end('a')
    await expect.poll(() => started.map(({ message }) => message.text)).toEqual(['a', 'b', 'd'])
    end('b')
    end('d')
    for (const turn of turns) await untilEnded(hub, turn.turn)
  })

  it('gives up its place while a turn waits', async () => {
    const bot = local(async function* (turn): AsyncGenerator<string | HubEvent> {
      if (turn.message.text !== 'ask' || turn.answers) yield 'done'
      else yield { type: 'consent.requested', calls: [{ call: 'c1', tool: 't', input: {}, alreadyAllowed: false }] }
    })
    await using hub = await startHub({ bots: { bot: { provider: bot, maxConcurrent: 1 } } })
    expect((await hub.ask('bot', 'ask')).status).toBe('waiting')
    expect((await hub.ask('bot', 'x')).text).toBe('done')
  })

  it('begins turns at the rate it is told', async () => {
    const times: number[] = []
    const bot = local(() => {
      times.push(performance.now())
      return 'x'
    })
    await using hub = await startHub({ bots: { bot: { provider: bot, rate: { turns: 20, per: '1s' } } } })
    await Promise.all(Array.from({ length: 4 }, () => hub.ask('bot', 'x')))
    times.sort((a, b) => a - b)
    expect(times[3]! - times[0]!).toBeGreaterThan(3 * 50 - 10)
  })

  it('opens its circuit after ten upstream failures in a row, not on bad input: 503, and others are not affected', async () => {
    let code: 'upstream_rejected' | 'upstream_failed' = 'upstream_rejected'
    let asked = 0
    const bot = local(({ message }) => {
      if (message.text === 'earlier') return 'answered before'
      asked += 1
      throw new HubError(code)
    })
    await using hub = await startHub({ bots: { bot, other: echo() }, use: [retry({ retries: 0 })] })
    const earlier = { conversation: 'c', id: 'm' }
    await hub.ask('bot', 'earlier', earlier)
    for (let count = 0; count < 12; count++) await hub.ask('bot', 'x')
    expect(asked).toBe(12)
    code = 'upstream_failed'
    for (let count = 0; count < 10; count++) expect((await hub.ask('bot', 'x')).error?.code).toBe('upstream_failed')
    const refused = await hub.api('/bots/bot/messages', { text: 'x' })
    expect([refused.status, await refused.json()]).toMatchObject([
      503,
      { error: { code: 'bot_unavailable', retryable: true } },
    ])
    expect(Number(refused.headers.get('retry-after'))).toBeGreaterThan(20)
    expect(asked).toBe(22)
    expect((await hub.ask('bot', 'earlier', earlier)).text).toBe('answered before')
    expect((await hub.ask('other', 'fine')).text).toBe('fine')
  })

  it('is one for all turns when an upstream asks for a pause: they come back one after the other, not at once', async () => {
    const begun: number[] = []
    let busy = true
    const bot = local(() => {
      begun.push(performance.now())
      if (!busy) return 'x'
      busy = false
      throw new HubError('upstream_rate_limited', { notStarted: true, retryAfterMs: 200 })
    })
    await using hub = await startHub({ bots: { bot }, use: [retry({ baseMs: 1 })] })
    await hub.ask('bot', 'first, refused, tried again')
    const afterPause = begun[1]! - begun[0]!
    expect(afterPause).toBeGreaterThanOrEqual(195)
    busy = true
    const from = performance.now()
    const all = [hub.ask('bot', 'x')]
    await expect.poll(() => begun.length).toBe(3)
    all.push(...Array.from({ length: 5 }, () => hub.ask('bot', 'x')))
    await Promise.all(all)
    const late = begun.slice(3).map((at) => at - from)
    expect(Math.min(...late)).toBeGreaterThanOrEqual(195)
    expect(Math.max(...late) - Math.min(...late)).toBeGreaterThan(10)
  })
})

describe('a store that fails', () => {
  it('acknowledges nothing: 503, and the hub goes on when it is back', async () => {
    const { SqliteStore } = await import('../../plugins/sqlite/store.ts')
    const accept = SqliteStore.prototype.accept
    await using hub = await startHub({
      bots: { bot: echo() },
      store: sqlite({ file: 'hub.db' }),
      channels: { rest: rest(), sse: sse(), websocket: websocket() },
    })
    SqliteStore.prototype.accept = async () => {
      throw Object.assign(new Error('canary: database or disk is full'), { code: 'SQLITE_FULL' })
    }
    try {
      const refused = await hub.api('/bots/bot/messages', { text: 'x' })
      expect([refused.status, await refused.text()]).toEqual([503, expect.not.stringContaining('canary')])
    } finally {
      SqliteStore.prototype.accept = accept
    }
    expect((await hub.ask('bot', 'back')).text).toBe('back')
  })

  it('ends the streams of its turns without an end, so that nobody takes them for whole', async () => {
    const { SqliteStore } = await import('../../plugins/sqlite/store.ts')
    const append = SqliteStore.prototype.append
    await using hub = await startHub({ bots: { bot: echo({ pauseMs: 5 }) } })
    const response = await hub.api(
      '/bots/bot/messages',
      { text: 'one two three four' },
      { accept: 'text/event-stream' },
    )
    SqliteStore.prototype.append = async () => {
      throw Object.assign(new Error('disk I/O error'), { code: 'SQLITE_IOERR' })
    }
    try {
      await expect(response.text()).rejects.toThrow()
    } finally {
      SqliteStore.prototype.append = append
    }
    expect((await hub.ask('bot', 'back')).text).toBe('back')
  })
})
