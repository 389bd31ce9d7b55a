import { describe, expect, it } from 'vitest'
import { z } from 'zod'
import { localPrincipal } from '../../core/auth.ts'
import type { HubEvent, Provider, Turn } from '../../index.ts'
import { consent, defineProvider, history, HubError, local, retry, tool } from '../../index.ts'
import { settleCalls } from '../../core/tools.ts'
import { startHub } from '../support/hub.ts'

const types = (events: readonly { type: string }[]) => events.map((event) => event.type)

describe('retry', () => {
  /** Fails as told, once per entry, then answers with the number of the attempt. */
  const failing = (...failures: (HubError | Error)[]) => {
    const left = [...failures]
    return local(({ attempt }) => {
      const failure = left.shift()
      if (failure) throw failure
      return `attempt ${attempt}`
    })
  }
  const notStarted = () => new HubError('upstream_unreachable', { notStarted: true })
  const quick = [retry({ baseMs: 1 })]

  it('tries again what never started, and says so each time', async () => {
    await using hub = await startHub({ bots: { bot: failing(notStarted(), notStarted()) }, use: quick })
    const events = await hub.stream('bot', 'x')
    expect(events.filter((event) => event.type === 'attempt.failed')).toMatchObject([
      { attempt: 1, error: { code: 'upstream_unreachable' }, retryInMs: expect.any(Number) },
      { attempt: 2 },
    ])
    expect(events.at(-1)).toMatchObject({ type: 'turn.completed', text: 'attempt 3' })
  })

  it('gives up after five retries with a sentence', async () => {
    await using hub = await startHub({ bots: { bot: failing(...Array.from({ length: 9 }, notStarted)) }, use: quick })
    const events = await hub.stream('bot', 'x')
    expect(events.filter((event) => event.type === 'attempt.failed')).toHaveLength(5)
    expect(events.at(-1)).toMatchObject({
      type: 'turn.failed',
      error: { code: 'upstream_unreachable', retryable: true },
    })
  })

  it('never tries again what may have started', async () => {
    await using hub = await startHub({ bots: { bot: failing(new HubError('upstream_cut')) }, use: quick })
    expect(types(await hub.stream('bot', 'x'))).toEqual(['turn.started', 'turn.interrupted'])
  })

  it('never tries again when something was shown', async () => {
    const bot = local(async function* () {
      yield 'a word'
      throw notStarted()
    })
    await using hub = await startHub({ bots: { bot }, use: quick })
    const events = await hub.stream('bot', 'x')
    expect(types(events)).not.toContain('attempt.failed')
    expect(events.at(-1)).toMatchObject({ type: 'turn.failed', text: 'a word' })
  })

  it('waits at least as long as the upstream asked, with jitter on top', async () => {
    const busy = new HubError('upstream_rate_limited', { notStarted: true, retryAfterMs: 40 })
    await using hub = await startHub({ bots: { bot: failing(busy) }, use: quick })
    const failed = (await hub.stream('bot', 'x')).find((event) => event.type === 'attempt.failed')
    expect(failed).toMatchObject({ error: { retryAfterMs: 40 } })
    expect((failed as { retryInMs: number }).retryInMs).toBeGreaterThanOrEqual(40)
  })

  it('does not wait for an upstream that wants hours', async () => {
    const busy = new HubError('upstream_rate_limited', { notStarted: true, retryAfterMs: 3_600_000 })
    await using hub = await startHub({ bots: { bot: failing(busy) }, use: quick })
    expect(await hub.ask('bot', 'x')).toMatchObject({ status: 'failed', error: { retryAfterMs: 3_600_000 } })
  })

  it('stops waiting when the turn is cancelled', async () => {
    const busy = new HubError('upstream_rate_limited', { notStarted: true, retryAfterMs: 60_000 })
    await using hub = await startHub({ bots: { bot: failing(busy) }, use: quick })
    const response = await hub.api('/bots/bot/messages', { text: 'x' }, { accept: 'text/event-stream' })
    const decoder = new TextDecoder()
    let text = ''
    for await (const chunk of response.body!) {
      text += decoder.decode(chunk, { stream: true })
      const turn = /"turn":"(turn_\w+)"/.exec(text)?.[1]
      if (text.includes('attempt.failed') && !text.includes('cancelled')) await hub.api(`/turns/${turn}/cancel`, {})
    }
    expect(text).toContain('event: turn.cancelled')
  })
})

describe('history', () => {
  const shown = local(({ history: earlier }) => JSON.stringify(earlier.map(({ role, text }) => `${role}: ${text}`)))

  it('shows earlier messages oldest first, as many turns as it is told, without partial answers', async () => {
    const bot = local(({ message, history: earlier }) => {
      if (message.text === 'fail') throw new Error('x')
      return message.text === 'show'
        ? JSON.stringify(earlier.map(({ role, text }) => `${role}: ${text}`))
        : `re ${message.text}`
    })
    await using hub = await startHub({ bots: { bot }, use: [history({ turns: 2 })] })
    for (const text of ['one', 'two', 'fail']) await hub.ask('bot', text, { conversation: 'a' })
    await hub.ask('bot', 'elsewhere', { conversation: 'b' })
    const { text } = await hub.ask('bot', 'show', { conversation: 'a' })
    expect(JSON.parse(text)).toEqual(['bot: re one', 'user: two', 'bot: re two', 'user: fail'])
  })

  it('shows nothing of another conversation, another user or another bot', async () => {
    await using hub = await startHub({ bots: { one: shown, two: shown } })
    await hub.ask('one', 'secret', { conversation: 'a', user: 'ada' })
    for (const [bot, more] of [
      ['one', { conversation: 'b', user: 'ada' }],
      ['one', { conversation: 'a', user: 'bob' }],
      ['one', { conversation: 'a' }],
      ['two', { conversation: 'a', user: 'ada' }],
    ] as const) {
      expect((await hub.ask(bot, 'show', more)).text).toBe('[]')
    }
    expect((await hub.ask('one', 'show', { conversation: 'a', user: 'ada' })).text).toContain('secret')
  })

  it('lets stand what came with the message, whatever the hub remembers', async () => {
    await using hub = await startHub({ bots: { bot: shown } })
    await hub.ask('bot', 'remembered', { conversation: 'a' })
    const brought = Array.from({ length: 60 }, (_, index) => ({ role: 'user', text: `brought ${index}` }) as const)
    const { turn } = await hub.hub.dispatcher.send(localPrincipal(), {
      bot: 'bot',
      channel: 'test',
      conversation: 'a',
      text: 'show',
      history: brought,
    })
    await hub.hub.dispatcher.changed(turn.id, turn.status, new AbortController().signal)
    const { text } = await hub.hub.dispatcher.view(turn.id)
    expect(JSON.parse(text)).toEqual(brought.map((each) => `user: ${each.text}`))
  })

  it('leaves out a bot whose upstream remembers, unless the bot asks', async () => {
    const remembering = defineProvider({
      manifest: { name: 'remembering', remembers: true },
      options: z.strictObject({}),
      create: () => ({
        async *respond(turn) {
          yield { type: 'message.delta', message: 'm', text: String(turn.history.length) }
        },
      }),
    })
    await using hub = await startHub({
      bots: { plain: remembering(), asking: { provider: remembering(), history: true } },
    })
    const brought = { channel: 'test', text: 'third', history: [{ role: 'user', text: 'x' }] } as const
    for (const [bot, count, alone] of [
      ['plain', '0', '0'],
      ['asking', '2', '1'],
    ] as const) {
      await hub.ask(bot, 'first', { conversation: 'a' })
      expect((await hub.ask(bot, 'second', { conversation: 'a' })).text).toBe(count)
      const { turn } = await hub.hub.dispatcher.send(localPrincipal(), { ...brought, bot })
      await hub.hub.dispatcher.changed(turn.id, turn.status, new AbortController().signal)
      expect((await hub.hub.dispatcher.view(turn.id)).text).toBe(alone)
    }
  })
})

describe('consent', () => {
  const tools = {
    search: tool({ run: () => 'found' }),
    mail: tool({ run: () => 'sent' }),
    breaks: tool({
      run: () => {
        throw new Error('out of paper')
      },
    }),
    typed: tool({ parameters: z.object({ city: z.string() }), run: ({ city }) => city }),
    hangs: tool({ timeoutMs: 20, run: () => new Promise(() => {}) }),
  }
  /** Calls the tools its message names. */
  const caller = local(async function* (turn: Turn): AsyncGenerator<string | HubEvent> {
    const calls = turn.message.text
      .split(' ')
      .map((name, index) => ({ call: `c${index}`, tool: name, input: { city: 1 } }))
    const { outputs, settled } = yield* settleCalls(turn, tools, calls)
    if (settled) yield JSON.stringify(outputs.map(({ output }) => output))
  })
  /** An upstream that pauses by itself. */
  const pausing = local(async function* (turn: Turn): AsyncGenerator<string | HubEvent> {
    if (turn.bypassConsent) yield 'nobody was asked'
    else if (turn.answers?.type === 'consent') yield JSON.stringify(turn.answers.decisions)
    else {
      const calls = turn.message.text
        .split(' ')
        .map((name) => ({ call: name, tool: name, input: {}, alreadyAllowed: false }))
      yield { type: 'consent.requested', calls }
    }
  })
  const audited = (log: readonly Record<string, unknown>[]) =>
    log.filter((line) => line['audit'] === true).map((line) => [line['msg'], line['tool']].join(' ').trim())

  it('without it runs the tools of the config at once', async () => {
    await using hub = await startHub({ bots: { bot: caller } })
    expect((await hub.ask('bot', 'search mail')).text).toBe('["found","sent"]')
  })

  it('asks for every tool but those it allows or bypasses, and logs those', async () => {
    await using hub = await startHub({
      bots: { bot: { provider: caller, use: [consent({ allow: ['search'], bypass: ['breaks'] })] } },
    })
    const asked = await hub.ask('bot', 'search mail breaks')
    expect(asked.waiting?.calls.map((call) => call.tool)).toEqual(['mail'])
    const decided = await hub.api(`/turns/${asked.turn}/consent`, {
      decisions: [{ call: 'c1', result: 'deny_once', reason: 'Not now.' }],
    })
    const { text } = (await decided.json()) as { text: string }
    expect(text).toContain('found')
    expect(text).toContain('did not allow this call. Not now.')
    expect(text).not.toContain('sent')
    expect(audited(hub.log)).toEqual(
      expect.arrayContaining(['consent allowed search', 'consent bypassed breaks', 'consent decided']),
    )
  })

  it.each([
    ['breaks', 'The tool failed: out of paper'],
    ['typed', 'The input is not valid'],
    ['hangs', 'The tool took too long.'],
  ])('tells the model when a tool %s', async (name, words) => {
    await using hub = await startHub({ bots: { bot: caller } })
    const events = await hub.stream('bot', name)
    expect(events.find((event) => event.type === 'tool.completed')).toMatchObject({
      isError: true,
      output: expect.stringContaining(words),
    })
    expect(events.at(-1)).toMatchObject({ type: 'turn.completed' })
  })

  it("answers an upstream's own pause where the policy says so, shown for allow and unseen for bypass", async () => {
    const use = [consent({ allow: ['search'], bypass: ['lookup'] })]
    await using hub = await startHub({ bots: { bot: { provider: pausing, use } } })
    const allowed = await hub.stream('bot', 'search')
    expect(types(allowed)).toEqual(expect.arrayContaining(['consent.requested', 'consent.answered', 'turn.completed']))
    expect(allowed.find((event) => event.type === 'consent.answered')).toMatchObject({ by: 'policy' })
    const bypassed = await hub.stream('bot', 'lookup')
    expect(types(bypassed)).not.toContain('consent.requested')
    expect(bypassed.at(-1)).toMatchObject({ type: 'turn.completed', text: '[{"call":"lookup","result":"allow_once"}]' })
    expect(audited(hub.log)).toEqual(['consent allowed search', 'consent bypassed lookup'])
  })

  it('leaves to the user what the policy does not name, and hands all decisions over together', async () => {
    await using hub = await startHub({ bots: { bot: { provider: pausing, use: [consent({ allow: ['search'] })] } } })
    const asked = await hub.ask('bot', 'search mail')
    expect(asked.waiting?.calls.map((call) => call.tool)).toEqual(['mail'])
    const decided = await hub.api(`/turns/${asked.turn}/consent`, {
      decisions: [{ call: 'mail', result: 'allow_always' }],
    })
    const { text } = (await decided.json()) as { text: string }
    expect(JSON.parse(text)).toEqual([
      { call: 'search', result: 'allow_once' },
      { call: 'mail', result: 'allow_always' },
    ])
  })

  it('hands bypass: [*] and a granted bypassConsent to the upstream as its own switch, and logs them', async () => {
    await using hub = await startHub({
      bots: { open: { provider: pausing, use: [consent({ bypass: ['*'] })] }, bot: pausing },
    })
    expect((await hub.ask('open', 'mail')).text).toBe('nobody was asked')
    expect((await hub.ask('bot', 'mail', { bypassConsent: true })).text).toBe('nobody was asked')
    expect(audited(hub.log)).toEqual(['consent bypassed', 'consent bypassed'])
  })
})

describe('plugins together', () => {
  it('closes what was opened when one of them cannot be built', async () => {
    let closed = false
    const scripted = (create: () => Provider) =>
      defineProvider({ manifest: { name: 'scripted' }, options: z.strictObject({}), create })()
    const fine = scripted(() => ({ async *respond() {}, close: () => void (closed = true) }))
    const broken = scripted(() => {
      throw new Error('no such model')
    })
    await expect(startHub({ bots: { fine, broken } })).rejects.toThrow('no such model')
    expect(closed).toBe(true)
  })
})
