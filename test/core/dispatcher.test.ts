import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import type { HubEvent, Json, NumberedEvent, Turn } from '../../index.ts'
import { apiKey, defineProvider, echo, HubError, local } from '../../index.ts'
import { z } from 'zod'
import type { Provider, ProviderManifest, Thread } from '../../core/plugin.ts'
import type { TestHub } from '../support/hub.ts'
import { jsonOf, readEvents, startHub } from '../support/hub.ts'

const types = (events: readonly NumberedEvent[]) => events.map((event) => event.type)
const say = (text: string): HubEvent => ({ type: 'message.delta', message: 'm', text })
const never = new Promise<never>(() => {})

/** A bot made of a `respond` and whatever else its provider has. */
const provider = (manifest: Omit<ProviderManifest, 'name'>, built: Provider) =>
  defineProvider({ manifest: { name: 'scripted', ...manifest }, options: z.strictObject({}), create: () => built })()

/** A gate a bot waits at until the test opens it. */
function gate() {
  const arrived = Promise.withResolvers<Turn>()
  const opened = Promise.withResolvers<void>()
  return { arrived, open: () => opened.resolve(), opened: opened.promise }
}

const untilEnded = async (hub: TestHub, turn: string) => readEvents(await hub.api(`/turns/${turn}/events`))

describe('a turn', () => {
  it('is numbered densely from 1 and ends with exactly one end', async () => {
    await using hub = await startHub({ bots: { echo: echo() } })
    const events = await hub.stream('echo', 'one two three')
    expect(events.map((event) => event.seq)).toEqual([1, 2, 3, 4, 5, 6, 7])
    expect(types(events)).toEqual([
      'turn.started',
      'message.started',
      'message.delta',
      'message.delta',
      'message.delta',
      'message.completed',
      'turn.completed',
    ])
    expect(events.at(-1)).toMatchObject({ text: 'one two three' })
  })

  it('shows its start before the bot has said anything', async () => {
    const door = gate()
    await using hub = await startHub({
      bots: {
        slow: local(async (turn) => {
          door.arrived.resolve(turn)
          await door.opened
          return 'at last'
        }),
      },
    })
    const response = await hub.api('/bots/slow/messages', { text: 'x' }, { accept: 'text/event-stream' })
    const reader = response.body!.getReader()
    const first = new TextDecoder().decode((await reader.read()).value)
    expect(first).toContain('event: turn.started')
    door.open()
    let rest = ''
    for (let chunk = await reader.read(); !chunk.done; chunk = await reader.read())
      rest += new TextDecoder().decode(chunk.value)
    expect(rest).toContain('at last')
  })

  it.each([
    [
      'throws an error of its own',
      () => {
        throw new Error('canary vendor text')
      },
      'bot_failed',
    ],
    [
      'throws a coded error',
      () => {
        throw new HubError('upstream_quota')
      },
      'upstream_quota',
    ],
    ['yields what is no event', () => 42 as unknown as HubEvent, 'bot_failed'],
  ])('of a bot that %s after its first words fails with what was shown, and says no more', async (_, next, code) => {
    await using hub = await startHub({
      bots: {
        bad: local(async function* () {
          yield 'some words'
          yield next()
        }),
        good: echo(),
      },
    })
    const events = await hub.stream('bad', 'x')
    expect(events.at(-1)).toMatchObject({ type: 'turn.failed', text: 'some words', error: { code } })
    expect(JSON.stringify(events)).not.toContain('canary')
    expect(events.filter((event) => event.type.startsWith('turn.'))).toHaveLength(2)
    expect((await hub.ask('good', 'still here')).text).toBe('still here')
  })

  it('fails in the language of its bot', async () => {
    const bot = local(() => {
      throw new Error('x')
    })
    await using hub = await startHub({ bots: { bot: { provider: bot, profile: { language: 'zh-Hant' } } } })
    expect((await hub.ask('bot', 'x')).error?.message).toBe('機器人發生錯誤，請再試一次。')
  })

  it('ends at its deadline, with the bot told to stop', async () => {
    let reason: unknown
    const bot = provider(
      {},
      {
        async *respond({ signal }) {
          yield say('on and on')
          await new Promise((resolve) => signal.addEventListener('abort', resolve))
          reason = signal.reason
          throw signal.reason
        },
      },
    )
    await using hub = await startHub({ bots: { bot: { provider: bot, deadlineMs: 30 } } })
    expect(await hub.ask('bot', 'x')).toMatchObject({
      status: 'failed',
      text: 'on and on',
      error: { code: 'deadline_exceeded' },
    })
    expect(reason).toMatchObject({ code: 'deadline_exceeded' })
  })

  it('says that the outcome is unknown when the upstream was lost', async () => {
    const bot = local(async function* () {
      yield 'half an'
      throw new HubError('upstream_cut')
    })
    await using hub = await startHub({ bots: { bot } })
    expect(await hub.ask('bot', 'x', { conversation: '1' })).toMatchObject({
      status: 'interrupted',
      text: 'half an',
      error: { code: 'upstream_cut' },
    })
    const records = await (await hub.api('/bots/bot/conversations/1/messages')).json()
    expect(records).toMatchObject({ items: [{ role: 'user' }, { role: 'bot', text: 'half an', partial: true }] })
  })
})

describe('order', () => {
  it('runs one turn of a conversation at a time, first come first served, and other conversations beside it', async () => {
    const door = gate()
    const running: string[] = []
    const bot = local(async (turn) => {
      running.push(turn.message.text)
      if (turn.message.text === 'first') await door.opened
      return `${turn.message.text}, after ${turn.history.length}`
    })
    await using hub = await startHub({ bots: { bot } })
    const first = (await (
      await hub.api('/bots/bot/messages', { text: 'first', conversation: 'a' }, { prefer: 'respond-async' })
    ).json()) as { turn: string }
    const queued: { turn: string; status: string }[] = []
    for (const text of ['second', 'third']) {
      const response = await hub.api('/bots/bot/messages', { text, conversation: 'a' }, { prefer: 'respond-async' })
      expect(response.status).toBe(202)
      queued.push(await jsonOf(response))
    }
    expect(queued.map((turn) => turn.status)).toEqual(['queued', 'queued'])
    expect((await hub.ask('bot', 'beside', { conversation: 'b' })).text).toBe('beside, after 0')
    expect(running).toEqual(['first', 'beside'])
    door.open()
    for (const turn of [first, ...queued]) await untilEnded(hub, turn.turn)
    expect(running).toEqual(['first', 'beside', 'second', 'third'])
    const third = await (await hub.api(`/turns/${queued[1]!.turn}`)).json()
    expect(third).toMatchObject({ status: 'completed', text: 'third, after 4' })
  })

  it('lets the next message through after a failed one', async () => {
    const bot = local(({ message }) => {
      if (message.text === 'fail') throw new Error('x')
      return 'fine'
    })
    await using hub = await startHub({ bots: { bot } })
    const [failed, next] = await Promise.all([
      hub.ask('bot', 'fail', { conversation: 'a' }),
      hub.ask('bot', 'go', { conversation: 'a' }),
    ])
    expect([failed.status, next.text]).toEqual(['failed', 'fine'])
  })

  it('refuses a message when the queue is full, and leaves no trace of it', async () => {
    const door = gate()
    const bot = local(async () => {
      await door.opened
      return 'done'
    })
    await using hub = await startHub({ bots: { bot: { provider: bot, queueLimit: 1 } } })
    const send = (id: string) =>
      hub.api('/bots/bot/messages', { text: 'x', conversation: 'a', id }, { prefer: 'respond-async' })
    expect([(await send('1')).status, (await send('2')).status]).toEqual([202, 202])
    const refused = await send('3')
    expect(refused.status).toBe(429)
    expect(refused.headers.get('retry-after')).toBe('1')
    expect(await refused.json()).toMatchObject({ error: { code: 'queue_full', retryable: true } })
    door.open()
    await untilEnded(hub, ((await (await send('2')).json()) as { turn: string }).turn)
    expect((await send('3')).status).toBe(202)
  })
})

describe('cancelling', () => {
  it('stops the bot at once and ends the turn with what was shown', async () => {
    const stopped = Promise.withResolvers<unknown>()
    const door = gate()
    const bot = provider(
      {},
      {
        async *respond(turn) {
          const { signal } = turn
          yield say('some words')
          door.arrived.resolve(turn)
          await new Promise((resolve) => signal.addEventListener('abort', resolve))
          stopped.resolve(signal.reason)
          throw signal.reason
        },
      },
    )
    await using hub = await startHub({ bots: { bot } })
    const asked = hub.ask('bot', 'x')
    const { id } = await door.arrived.promise
    expect((await hub.api(`/turns/${id}/cancel`, {})).status).toBe(202)
    expect(await asked).toMatchObject({ status: 'cancelled', text: 'some words' })
    expect(await stopped.promise).toMatchObject({ code: 'cancelled' })
    expect((await hub.api(`/turns/${id}/cancel`, {})).status).toBe(202)
    expect(types(await untilEnded(hub, id)).filter((type) => type.startsWith('turn.'))).toEqual([
      'turn.started',
      'turn.cancelled',
    ])
  })

  it('takes a queued turn out of the queue, without the bot ever seeing it', async () => {
    const door = gate()
    const seen: string[] = []
    const bot = local(async ({ message }) => {
      seen.push(message.text)
      await door.opened
      return 'done'
    })
    await using hub = await startHub({ bots: { bot } })
    const ids = []
    for (const text of ['one', 'two', 'three']) {
      const response = await hub.api('/bots/bot/messages', { text, conversation: 'a' }, { prefer: 'respond-async' })
      ids.push(((await response.json()) as { turn: string }).turn)
    }
    await hub.api(`/turns/${ids[1]}/cancel`, {})
    expect((await untilEnded(hub, ids[1]!)).at(-1)).toMatchObject({ type: 'turn.cancelled', by: 'client' })
    door.open()
    await untilEnded(hub, ids[2]!)
    expect(seen).toEqual(['one', 'three'])
  })

  it('ends a turn whose bot heeds no signal, and drops what it says later', async () => {
    const late = Promise.withResolvers<void>()
    const bot = provider(
      {},
      {
        async *respond() {
          yield say('first')
          await late.promise
          yield say('too late')
        },
      },
    )
    await using hub = await startHub({ bots: { bot } })
    const events = hub.stream('bot', 'x', { id: 'm1', conversation: 'a' })
    const { turn } = (await (
      await hub.api('/bots/bot/messages', { text: 'x', id: 'm1', conversation: 'a' }, { prefer: 'respond-async' })
    ).json()) as { turn: string }
    await hub.api(`/turns/${turn}/cancel`, {})
    expect((await events).at(-1)).toMatchObject({ type: 'turn.cancelled' })
    late.resolve()
    expect((await untilEnded(hub, turn)).at(-1)).toMatchObject({ type: 'turn.cancelled' })
  })
})

describe('waiting', () => {
  const asks = (answered: (turn: Turn) => string, more: Partial<Provider> = {}) =>
    provider(
      { consent: true },
      {
        async *respond(turn) {
          if (turn.answers) {
            yield say(answered(turn))
            return
          }
          yield { type: 'upstream', cursor: { paused: true } }
          yield {
            type: 'consent.requested',
            calls: ['c1', 'c2'].map((call) => ({ call, tool: 'mail', input: {}, alreadyAllowed: false })),
          }
        },
        ...more,
      },
    )
  const decide = (hub: TestHub, turn: string, ...decisions: readonly [string, string][]) =>
    hub.api(
      `/turns/${turn}/consent`,
      { decisions: decisions.map(([call, result]) => ({ call, result })) },
      { prefer: 'respond-async' },
    )

  it('parks the turn until every call has its decision, in parts if need be, and goes on in the same numbering', async () => {
    const bot = asks((turn) => JSON.stringify([turn.answers, turn.resume]))
    await using hub = await startHub({ bots: { bot } })
    const { turn, waiting } = await hub.ask('bot', 'x')
    expect(waiting).toMatchObject({
      for: 'consent',
      calls: [{ call: 'c1' }, { call: 'c2' }],
      expiresAt: expect.stringMatching(/Z$/),
    })
    expect(await (await decide(hub, turn, ['c2', 'deny_once'])).json()).toMatchObject({
      status: 'waiting',
      waiting: { calls: [{ call: 'c1' }] },
    })
    await decide(hub, turn, ['c1', 'allow_once'])
    const events = await untilEnded(hub, turn)
    expect(events.map((event) => event.seq)).toEqual(events.map((_, index) => index + 1))
    expect(types(events)).toEqual([
      'turn.started',
      'consent.requested',
      'turn.waiting',
      'consent.answered',
      'consent.answered',
      'message.started',
      'message.delta',
      'message.completed',
      'turn.completed',
    ])
    const [answers, resume] = JSON.parse((events.at(-1) as { text: string }).text) as [unknown, Json]
    expect(answers).toMatchObject({
      decisions: [
        { call: 'c2', result: 'deny_once' },
        { call: 'c1', result: 'allow_once' },
      ],
    })
    expect(resume).toEqual({ paused: true })
    expect(hub.log.filter((line) => line['audit'] === true && line['turn'] === turn)).toHaveLength(2)
  })

  it('lets the first decision win: 20 at once, one accepted', async () => {
    const bot = asks(() => 'went on')
    await using hub = await startHub({ bots: { bot } })
    const { turn } = await hub.ask('bot', 'x')
    const results = await Promise.all(
      Array.from({ length: 20 }, (_, index) =>
        decide(hub, turn, ['c1', index % 2 ? 'allow_once' : 'deny_once'], ['c2', 'allow_once']),
      ),
    )
    const refused = results.filter((result) => result.status === 409)
    expect(refused).toHaveLength(19)
    expect(await refused[0]!.json()).toMatchObject({ error: { code: 'already_decided', turn } })
    expect((await untilEnded(hub, turn)).filter((event) => event.type === 'consent.answered')).toHaveLength(1)
  })

  it('refuses decisions on calls nobody asked about, and on turns that do not wait', async () => {
    await using hub = await startHub({ bots: { bot: asks(() => 'x'), echo: echo() } })
    const { turn } = await hub.ask('bot', 'x')
    expect(await (await decide(hub, turn, ['c9', 'allow_once'])).json()).toMatchObject({
      error: { code: 'invalid_request' },
    })
    const done = await hub.ask('echo', 'x')
    expect(await (await decide(hub, done.turn, ['c1', 'allow_once'])).json()).toMatchObject({
      error: { code: 'not_waiting' },
    })
    const outputs = await hub.api(`/turns/${turn}/tool-outputs`, { outputs: [{ call: 'c1', output: 1 }] })
    expect(outputs.status).toBe(409)
  })

  it("refuses the conversation's next message meanwhile, naming the turn", async () => {
    await using hub = await startHub({ bots: { bot: asks(() => 'x') } })
    const { turn } = await hub.ask('bot', 'x', { conversation: 'a' })
    const next = await hub.api('/bots/bot/messages', { text: 'y', conversation: 'a', id: 'n1' })
    expect(next.status).toBe(409)
    expect(await next.json()).toMatchObject({ error: { code: 'turn_waiting', turn } })
    await hub.api(`/turns/${turn}/cancel`, {})
    await untilEnded(hub, turn)
    expect((await hub.ask('bot', 'y', { conversation: 'a', id: 'n1' })).status).toBe('waiting')
  })

  it('is cancelled and its upstream released before the hub stops, when that was asked for before', async () => {
    const door = gate()
    let released = false
    const bot = asks(() => 'x', {
      async release(turn) {
        door.arrived.resolve(turn)
        await door.opened
        released = true
      },
    })
    await using hub = await startHub({ bots: { bot } })
    const { turn } = await hub.ask('bot', 'hi')
    expect((await hub.api(`/turns/${turn}/cancel`, {})).status).toBe(202)
    await door.arrived.promise
    const stopped = hub.hub.stop(10_000).then(() => released)
    door.open()
    expect(await stopped).toBe(true)
  })

  it('keeps the hub from stopping no longer than its grace time, when its upstream is never released', async () => {
    const door = gate()
    const bot = asks(() => 'x', {
      async release(turn) {
        door.arrived.resolve(turn)
        await never
      },
    })
    await using hub = await startHub({ bots: { bot } })
    const { turn } = await hub.ask('bot', 'hi')
    await hub.api(`/turns/${turn}/cancel`, {})
    await door.arrived.promise
    await hub.hub.stop(50)
    expect(hub.log.some(({ msg }) => msg === 'the upstream of an unanswered turn was not released')).toBe(true)
  })

  it.each(['cancelled', 'expired'])('releases the upstream of a turn that is %s unanswered', async (how) => {
    const released = Promise.withResolvers<Turn>()
    const bot = asks(() => 'x', { release: async (turn) => released.resolve(turn) })
    await using hub = await startHub({
      bots: { bot: { provider: bot, answerWithinMs: how === 'expired' ? 30 : 60_000 } },
    })
    const { turn } = await hub.ask('bot', 'x')
    if (how === 'cancelled') await hub.api(`/turns/${turn}/cancel`, {})
    expect(await released.promise).toMatchObject({ id: turn, resume: { paused: true } })
    expect((await untilEnded(hub, turn)).at(-1)).toMatchObject(
      how === 'expired'
        ? { type: 'turn.failed', error: { code: 'consent_expired' } }
        : { type: 'turn.cancelled', by: 'client' },
    )
  })

  it('asks the client for tool outputs and hands them to the bot', async () => {
    const bot = provider(
      { toolOutputs: true },
      {
        async *respond({ answers }) {
          if (answers?.type === 'tool_outputs') yield say(`got ${JSON.stringify(answers.outputs)}`)
          else yield { type: 'tool.outputs_requested', calls: [{ call: 'c1', tool: 'locate', input: {} }] }
        },
      },
    )
    await using hub = await startHub({ bots: { bot } })
    const { turn, waiting } = await hub.ask('bot', 'x')
    expect(waiting).toMatchObject({ for: 'tool_outputs', calls: [{ call: 'c1', tool: 'locate' }] })
    const response = await hub.api(`/turns/${turn}/tool-outputs`, {
      outputs: [{ call: 'c1', output: { city: 'Oslo' } }],
    })
    expect(await response.json()).toMatchObject({
      status: 'completed',
      text: 'got [{"call":"c1","output":{"city":"Oslo"}}]',
    })
  })
})

describe('going on after a restart', () => {
  const restarted = async (bots: Parameters<typeof startHub>[0]['bots'], during: (hub: TestHub) => Promise<void>) => {
    const folder = mkdtempSync(join(tmpdir(), 'bothub-'))
    const before = await startHub({ bots }, { folder })
    await during(before)
    await before.hub.stop(0)
    const after = await startHub({ bots }, { folder })
    return {
      hub: after,
      async [Symbol.asyncDispose]() {
        await after[Symbol.asyncDispose]()
        rmSync(folder, { recursive: true })
      },
    }
  }

  it('leaves a turn running whose provider can resume, and hands it the cursor and what was shown', async () => {
    const door = gate()
    const bot = provider(
      { resumes: true },
      {
        async *respond(turn) {
          if (turn.resume) {
            yield say(`; then ${JSON.stringify([turn.resume, turn.shown, turn.thread])}`)
            return
          }
          yield { type: 'upstream', cursor: { at: 7 }, thread: 'upstream-conversation' }
          yield say('before')
          door.arrived.resolve(turn)
          await new Promise((_, reject) => turn.signal.addEventListener('abort', () => reject(turn.signal.reason)))
        },
      },
    )
    let id = ''
    await using second = await restarted({ bot }, async (hub) => {
      void hub.ask('bot', 'x', { conversation: 'a' }).catch(() => {})
      ;({ id } = await door.arrived.promise)
    })
    const events = await untilEnded(second.hub, id)
    expect(events.at(-1)).toMatchObject({
      type: 'turn.completed',
      text: `before; then ${JSON.stringify([{ at: 7 }, [{ id: 'm', text: 'before', completed: false }], 'upstream-conversation'])}`,
    })
    expect(events.map((event) => event.seq)).toEqual(events.map((_, index) => index + 1))
  })

  it('lets the stream go on behind a cursor that may be stored soon, and hands it over all the same', async () => {
    const door = gate()
    const commits = async (url: string) =>
      Number(/bothub_store_commit_seconds_count (\d+)/.exec(await (await fetch(`${url}/metrics`)).text())?.[1] ?? 0)
    const bot = provider(
      { resumes: true },
      {
        async *respond(turn) {
          if (turn.resume) {
            yield say(`; then ${JSON.stringify(turn.resume)}`)
            return
          }
          for (let at = 1; at <= 100; at++) yield { type: 'upstream', cursor: { at }, soon: true }
          yield say('before')
          door.arrived.resolve(turn)
          await new Promise((_, reject) => turn.signal.addEventListener('abort', () => reject(turn.signal.reason)))
        },
      },
    )
    let id = ''
    await using second = await restarted({ bot }, async (hub) => {
      void hub.ask('bot', 'x').catch(() => {})
      ;({ id } = await door.arrived.promise)
      expect(await commits(hub.url)).toBeLessThan(50)
    })
    const events = await untilEnded(second.hub, id)
    expect(events.at(-1)).toMatchObject({ type: 'turn.completed', text: 'before; then {"at":100}' })
  })

  it('cancels the others with by: shutdown, and keeps queued and waiting ones', async () => {
    const door = gate()
    const bot = local(async function* (turn) {
      if (turn.message.text === 'ask') {
        if (turn.answers) yield 'answered'
        else yield { type: 'consent.requested', calls: [{ call: 'c', tool: 't', input: {}, alreadyAllowed: false }] }
      } else if (turn.message.text === 'hang') {
        yield 'shown'
        door.arrived.resolve(turn)
        await never
      } else yield `answer to ${turn.message.text}`
    })
    const ids: string[] = []
    await using second = await restarted({ bot }, async (hub) => {
      const send = async (text: string, conversation: string) => {
        const response = await hub.api('/bots/bot/messages', { text, conversation }, { prefer: 'respond-async' })
        ids.push(((await response.json()) as { turn: string }).turn)
      }
      await send('hang', 'a')
      await send('queued', 'a')
      ids.push((await hub.ask('bot', 'ask', { conversation: 'b' })).turn)
      await door.arrived.promise
    })
    const [hung, queued, waiting] = ids as [string, string, string]
    expect((await untilEnded(second.hub, hung)).at(-1)).toMatchObject({
      type: 'turn.cancelled',
      by: 'shutdown',
      text: 'shown',
    })
    expect((await untilEnded(second.hub, queued)).at(-1)).toMatchObject({
      type: 'turn.completed',
      text: 'answer to queued',
    })
    const decided = await second.hub.api(`/turns/${waiting}/consent`, {
      decisions: [{ call: 'c', result: 'allow_once' }],
    })
    expect(await decided.json()).toMatchObject({ status: 'completed', text: 'answered' })
  })
})

describe('deleting a conversation', () => {
  it('cancels its live turn, forgets its messages and ids, and tells the upstream', async () => {
    const door = gate()
    const forgotten = Promise.withResolvers<unknown>()
    const bot = provider(
      {},
      {
        async *respond(turn) {
          if (turn.message.text === 'hang') {
            yield { type: 'upstream', cursor: 1, thread: { upstream: 42 } }
            door.arrived.resolve(turn)
            await new Promise((_, reject) => turn.signal.addEventListener('abort', () => reject(turn.signal.reason)))
          }
          yield say('hello')
        },
        forget: async (thread) => forgotten.resolve(thread),
      },
    )
    await using hub = await startHub({ bots: { bot } })
    const first = await hub.ask('bot', 'hi', { conversation: 'a', id: 'm1' })
    const hanging = hub.ask('bot', 'hang', { conversation: 'a' })
    await door.arrived.promise
    const response = await fetch(`${hub.url}/api/v1/bots/bot/conversations/a`, { method: 'DELETE' })
    expect(response.status).toBe(204)
    expect(await forgotten.promise).toMatchObject({ bot: 'bot', thread: { upstream: 42 } })
    expect((await hub.api(`/turns/${first.turn}`)).status).toBe(404)
    expect((await hub.api('/bots/bot/conversations/a/messages')).status).toBe(404)
    expect((await hanging).status ?? 'gone').not.toBe('completed')
    expect((await hub.ask('bot', 'other words', { conversation: 'a', id: 'm1' })).text).toBe('hello')
  })

  it('tells the upstream whose conversation it was, whoever a trusted key speaks for when it deletes it', async () => {
    const forgotten = Promise.withResolvers<Thread>()
    const bot = provider(
      {},
      {
        async *respond() {
          yield say('hello')
        },
        forget: async (thread) => forgotten.resolve(thread),
      },
    )
    await using hub = await startHub({
      auth: [apiKey({ name: 'crm', key: 'k'.repeat(32), trusted: true })],
      bots: { bot },
    })
    const headers = { authorization: `Bearer ${'k'.repeat(32)}` }
    await hub.api('/bots/bot/messages', { text: 'hi', conversation: 'a', user: 'ada' }, headers)
    const { items } = await jsonOf<{ items: readonly { id: string }[] }>(
      await hub.api('/bots/bot/conversations?user=ada', undefined, headers),
    )
    const path = `${hub.url}/api/v1/bots/bot/conversations/${items[0]!.id}?user=bob`
    expect((await fetch(path, { method: 'DELETE', headers })).status).toBe(204)
    expect((await forgotten.promise).principal).toMatchObject({ key: 'crm', user: 'ada' })
  })

  it('tells the upstream after a restart too, when it could not be told before', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'bothub-'))
    const thread = { upstream: 42 }
    const bots = (forget: NonNullable<Provider['forget']>) => ({
      bot: provider(
        {},
        {
          async *respond() {
            yield { type: 'upstream', cursor: 1, thread }
            yield say('hello')
          },
          forget,
        },
      ),
    })
    try {
      const refused = Promise.withResolvers<void>()
      const first = await startHub(
        {
          bots: bots(async () => {
            refused.resolve()
            throw new Error('not now')
          }),
        },
        { folder },
      )
      await first.ask('bot', 'hi', { conversation: 'a' })
      expect((await fetch(`${first.url}/api/v1/bots/bot/conversations/a`, { method: 'DELETE' })).status).toBe(204)
      await refused.promise
      await first[Symbol.asyncDispose]()
      const { default: Database } = await import('better-sqlite3')
      const database = new Database(join(folder, 'hub.db'))
      database.exec('UPDATE outbox SET next_at = 0')
      database.close()
      const forgotten = Promise.withResolvers<unknown>()
      await using second = await startHub({ bots: bots(async (given) => forgotten.resolve(given)) }, { folder })
      expect(await forgotten.promise).toMatchObject({ bot: 'bot', principal: { key: 'local' }, thread })
      expect((await second.api('/bots/bot/conversations/a/messages')).status).toBe(404)
    } finally {
      rmSync(folder, { recursive: true, force: true })
    }
  })
})
