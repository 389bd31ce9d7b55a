import { describe, expect, it } from 'vitest'
import { asgard, consent, coze, demoBot, echo, local, rest, sse } from '../../index.ts'
import type { TurnObject } from '../../index.ts'
import { startAsgardSimulator } from '../../plugins/asgard/simulator.ts'
import { gatedBot } from '../fakes/gated-bot.ts'
import { naughtyStrings } from '../suites/naughty.ts'
import { jsonOf, startHub } from '../support/hub.ts'
import type { TestHub } from '../support/hub.ts'
import { connectSocket } from '../support/socket.ts'

const async202 = { prefer: 'respond-async' }
const turnOf = async (answer: Response | Promise<Response>): Promise<TurnObject> => jsonOf<TurnObject>(await answer)
const codeOf = async (answer: Response): Promise<readonly [number, string]> => {
  const { error } = await jsonOf<{ error: { code: string } }>(answer)
  return [answer.status, error.code]
}
/** Accepts a message and does not wait for its answer. */
const post = (hub: TestHub, bot: string, text: string, more: object = {}): Promise<TurnObject> =>
  turnOf(hub.api(`/bots/${bot}/messages`, { text, ...more }, async202))

describe('a message over REST', () => {
  it('is answered with the whole turn', async () => {
    await using hub = await startHub({ bots: { echo: echo() } })
    const answer = await hub.api('/bots/echo/messages', { text: 'hello', conversation: 'c', id: 'm' })
    const turn = await turnOf(answer.clone())
    expect(answer.status).toBe(200)
    expect(answer.headers.get('location')).toBe(`/api/v1/turns/${turn.turn}`)
    expect(turn).toEqual({
      turn: expect.stringMatching(/^turn_\w+$/),
      status: 'completed',
      bot: 'echo',
      conversation: 'c',
      message: 'm',
      text: 'hello',
      messages: [{ id: expect.any(String), text: 'hello' }],
    })
    expect(await turnOf(hub.api(`/turns/${turn.turn}`))).toEqual(turn)
  })

  it('whose answer fails is a 200 that says so, with what was shown', async () => {
    await using hub = await startHub({ bots: { main: local(demoBot) } })
    const answer = await hub.api('/bots/main/messages', { text: '/fail' })
    expect(answer.status).toBe(200)
    expect(await answer.json()).toMatchObject({
      status: 'failed',
      text: 'This answer is going to fail ',
      error: { code: 'bot_failed', retryable: true, message: expect.stringMatching(/\.$/) },
    })
  })

  it('with Prefer: respond-async is accepted at once, and its turn can be waited for', async () => {
    const gated = gatedBot()
    await using hub = await startHub({ bots: { gated: gated.provider } })
    const answer = await hub.api('/bots/gated/messages', { text: 'hello' }, async202)
    expect(answer.status).toBe(202)
    expect(answer.headers.get('preference-applied')).toBe('respond-async')
    const { turn, status } = await turnOf(answer.clone())
    expect(status).toBe('running')
    expect(answer.headers.get('location')).toBe(`/api/v1/turns/${turn}`)

    await gated.began('hello')
    const soon = await turnOf(hub.api(`/turns/${turn}?wait=0.05`))
    expect(soon).toMatchObject({ status: 'running' })
    const waiting = turnOf(hub.api(`/turns/${turn}?wait=30`))
    const other = turnOf(hub.api(`/turns/${turn}`))
    expect((await other).status).toBe('running')
    gated.finish('hello')
    expect(await waiting).toMatchObject({ status: 'completed', text: 'So: hello.' })
    expect(await turnOf(hub.api(`/turns/${turn}?wait=30`))).toMatchObject({ status: 'completed' })
  })

  it.each(['x', '-1', '1&wait=2'])('is not waited for with ?wait=%s', async (wait) => {
    await using hub = await startHub({ bots: { echo: echo() } })
    const { turn } = await hub.ask('echo', 'hello')
    expect(await codeOf(await hub.api(`/turns/${turn}?wait=${wait}`))).toEqual([422, 'invalid_request'])
  })

  it.each([
    ['rest', { rest: rest() }, { accept: 'text/event-stream' }, /application\/json alone\. .* add `sse\(\)`/],
    ['sse', { sse: sse() }, { accept: 'application/json' }, /text\/event-stream alone\. .* add `rest\(\)`/],
    [
      'sse',
      { sse: sse() },
      { accept: 'text/event-stream', prefer: 'respond-async' },
      /without `Prefer: respond-async`/,
    ],
  ])('is 406 in a form that no channel gives, and told which one does: only %s is configured', async (...row) => {
    const [, channels, headers, message] = row
    await using hub = await startHub({ bots: { echo: echo() }, channels })
    const answer = await hub.api('/bots/echo/messages', { text: 'x' }, headers)
    expect([answer.status, await answer.json()]).toEqual([
      406,
      { error: { code: 'not_acceptable', message: expect.stringMatching(message), retryable: false } },
    ])
  })

  it('to a bot the channel does not offer is 404, and the bot is not listed', async () => {
    await using hub = await startHub({
      bots: { echo: echo(), secret: echo() },
      channels: { rest: rest({ bots: ['echo'] }) },
    })
    expect(await codeOf(await hub.api('/bots/secret/messages', { text: 'x' }))).toEqual([404, 'unknown_bot'])
    expect(await (await hub.api('/bots')).json()).toMatchObject({ bots: [{ bot: 'echo', simulated: false }] })
  })

  it.each([...naughtyStrings, ' ', '\t', 'x'.repeat(500_000)].map((text) => [text.slice(0, 30), text]))(
    'brings %j back as it was, and remembers it so',
    async (_, text) => {
      await using hub = await startHub({ bots: { echo: echo() } })
      expect(await hub.ask('echo', text, { conversation: 'c' })).toMatchObject({ status: 'completed', text })
      const records = await hub.api('/bots/echo/conversations/c/messages')
      expect(await records.json()).toMatchObject({ items: [{ text }, { text }] })
    },
  )

  it('with a broken character is answered all the same, over every channel', async () => {
    await using hub = await startHub({ bots: { echo: echo() } })
    using socket = await connectSocket(hub.url)
    const text = 'half \ud83d of a pair'
    const answers = [
      (await hub.ask('echo', text)).text,
      (await hub.stream('echo', text)).flatMap((event) => (event.type === 'turn.completed' ? event.text : []))[0],
      (await socket.chat({ agentId: 'echo', message: text, stream: false }))[0]!.content,
    ]
    expect(answers.map((answer) => answer?.toWellFormed())).toEqual(Array(3).fill('half \ufffd of a pair'))
  })
})

describe('the same message again', () => {
  it('is the same turn, on any channel, while it runs and when it has ended', async () => {
    const gated = gatedBot()
    await using hub = await startHub({ bots: { gated: gated.provider } })
    using socket = await connectSocket(hub.url)
    const message = { conversation: 'c', id: 'm' }
    const first = await post(hub, 'gated', 'hello', message)
    const attached = [
      hub.ask('gated', 'hello', message).then(({ turn, text }) => [turn, text]),
      hub
        .api('/bots/gated/messages', { text: 'hello', conversation: 'c' }, { 'idempotency-key': 'm' })
        .then((answer) => turnOf(answer))
        .then(({ turn, text }) => [turn, text]),
      hub.stream('gated', 'hello', message).then((events) => {
        const [started, end] = [events[0]!, events.at(-1)!]
        return [started.type === 'turn.started' && started.turn, end.type === 'turn.completed' && end.text]
      }),
      socket
        .chat({ agentId: 'gated', sessionId: 'c', id: 'm', message: 'hello' })
        .then((frames) => [frames[0]!.turn, frames.map(({ content }) => content).join('')]),
    ]
    // The words so far reach the socket, so everybody who was asked before it is attached.
    await socket.frame(({ type }) => type === 'stream')
    gated.finish('hello')
    expect(await Promise.all(attached)).toEqual(attached.map(() => [first.turn, 'So: hello.']))
    expect(await hub.ask('gated', 'hello', message)).toMatchObject({ turn: first.turn, text: 'So: hello.' })
    expect(gated.begun).toEqual(['hello'])
  })

  it('without a conversation finds the one it opened', async () => {
    await using hub = await startHub({ bots: { echo: echo() } })
    const first = await hub.ask('echo', 'hello', { id: 'm' })
    expect(await hub.ask('echo', 'hello', { id: 'm' })).toEqual(first)
    const other = await hub.ask('echo', 'hello', { id: 'm', conversation: 'another' })
    expect(other.turn).not.toBe(first.turn)
  })

  it('is another message for another user, bot or conversation, or with an empty id', async () => {
    await using hub = await startHub({ bots: { echo: echo(), other: echo() } })
    const turns = [
      await hub.ask('echo', 'hello', { conversation: 'c', id: 'm' }),
      await hub.ask('echo', 'hello', { conversation: 'c', id: 'm', user: 'ada' }),
      await hub.ask('echo', 'hello', { conversation: 'd', id: 'm' }),
      await hub.ask('other', 'hello', { conversation: 'c', id: 'm' }),
      await hub.ask('echo', 'hello', { conversation: 'c', id: '' }),
      await hub.ask('echo', 'hello', { conversation: 'c', id: '' }),
    ]
    expect(turns.map(({ status }) => status)).toEqual(Array(6).fill('completed'))
    expect(new Set(turns.map(({ turn }) => turn)).size).toBe(6)
  })

  it.each([
    ['text', { text: 'other' }],
    ['payload', { text: 'hello', payload: { a: 1 } }],
  ])('with another %s is refused and names the turn, over REST, SSE and WebSocket', async (_, other) => {
    await using hub = await startHub({ bots: { echo: echo() } })
    const { turn } = await hub.ask('echo', 'hello', { conversation: 'c', id: 'm' })
    for (const accept of ['application/json', 'text/event-stream']) {
      const answer = await hub.api('/bots/echo/messages', { ...other, conversation: 'c', id: 'm' }, { accept })
      expect(answer.status).toBe(422)
      expect(await answer.json()).toMatchObject({ error: { code: 'idempotency_mismatch', retryable: false, turn } })
    }
    if (other.text === 'hello') return
    using socket = await connectSocket(hub.url)
    const [frame] = await socket.chat({ agentId: 'echo', sessionId: 'c', id: 'm', message: other.text })
    expect(frame).toMatchObject({ type: 'error', code: 'idempotency_mismatch', id: 'm', turn })
  })

  it('sent a hundred times at once over three channels is answered by one turn', async () => {
    let calls = 0
    const bot = local(async function* ({ message }) {
      calls += 1
      yield 'You said '
      yield message.text
    })
    await using hub = await startHub({ bots: { bot } })
    const message = { conversation: 'c', id: 'm' }
    const sockets = await Promise.all(Array.from({ length: 32 }, () => connectSocket(hub.url)))
    const answers = await Promise.all([
      ...Array.from({ length: 34 }, async () => (await hub.ask('bot', 'hello', message)).text),
      ...Array.from({ length: 34 }, async () => {
        const end = (await hub.stream('bot', 'hello', message)).at(-1)
        return end?.type === 'turn.completed' ? end.text : end?.type
      }),
      ...sockets.map(async (socket) => {
        const frames = await socket.chat({ agentId: 'bot', sessionId: 'c', id: 'm', message: 'hello' })
        socket[Symbol.dispose]()
        return frames.map(({ content }) => content).join('')
      }),
    ])
    expect(answers).toEqual(Array(100).fill('You said hello'))
    expect(calls).toBe(1)
  })
})

describe('messages of one conversation', () => {
  it('are answered one at a time, first in, first out', async () => {
    const gated = gatedBot()
    await using hub = await startHub({ bots: { gated: gated.provider } })
    const texts = ['one', 'two', 'three', 'four']
    const turns: TurnObject[] = []
    for (const text of texts) turns.push(await post(hub, 'gated', text, { conversation: 'c' }))
    expect(turns.map(({ status }) => status)).toEqual(['running', 'queued', 'queued', 'queued'])
    for (const [index, text] of texts.entries()) {
      await gated.began(text)
      expect(gated.begun).toEqual(texts.slice(0, index + 1))
      gated.finish(text)
    }
    const ended = await Promise.all(turns.map(({ turn }) => endOf(hub, turn)))
    expect(ended.map(({ text }) => text)).toEqual(texts.map((text) => `So: ${text}.`))
  })

  it('do not wait for those of another', async () => {
    const gated = gatedBot()
    await using hub = await startHub({ bots: { gated: gated.provider } })
    await post(hub, 'gated', 'blocked', { conversation: 'c' })
    gated.finish('free')
    expect(await hub.ask('gated', 'free', { conversation: 'd' })).toMatchObject({ text: 'So: free.' })
    expect(gated.begun).toEqual(['blocked', 'free'])
  })

  it('that are too many are refused with when to come back, and leave no trace', async () => {
    const gated = gatedBot()
    await using hub = await startHub({ bots: { gated: { provider: gated.provider, queueLimit: 1 } } })
    const first = await post(hub, 'gated', 'one', { conversation: 'c' })
    await post(hub, 'gated', 'two', { conversation: 'c' })
    const refused = await hub.api('/bots/gated/messages', { text: 'three', conversation: 'c', id: 'm' })
    expect(refused.headers.get('retry-after')).toBe('1')
    expect(await codeOf(refused)).toEqual([429, 'queue_full'])
    for (const text of ['one', 'two', 'three again']) gated.finish(text)
    await endOf(hub, first.turn)
    await gated.began('two')
    expect(await hub.ask('gated', 'three again', { conversation: 'c', id: 'm' })).toMatchObject({ status: 'completed' })
  })
})

const endOf = (hub: TestHub, turn: string): Promise<TurnObject> =>
  hub
    .api(`/turns/${turn}/events`)
    .then((answer) => answer.text())
    .then(() => turnOf(hub.api(`/turns/${turn}`)))

describe('cancelling', () => {
  it('stops a turn that runs, keeps what was said, and lets the next one through', async () => {
    const gated = gatedBot()
    await using hub = await startHub({ bots: { gated: gated.provider } })
    const { turn } = await post(hub, 'gated', 'hello', { conversation: 'c' })
    await hub.api(`/turns/${turn}/events?after=2`).then((answer) => answer.body?.getReader().read())
    const answer = await hub.api(`/turns/${turn}/cancel`, {})
    expect(answer.status).toBe(202)
    expect(await endOf(hub, turn)).toMatchObject({ status: 'cancelled', text: 'So: ' })
    gated.finish('next')
    expect(await hub.ask('gated', 'next', { conversation: 'c' })).toMatchObject({ text: 'So: next.' })
  })

  it('takes a queued message out of the queue before its bot hears of it', async () => {
    const gated = gatedBot()
    await using hub = await startHub({ bots: { gated: gated.provider } })
    const turns: TurnObject[] = []
    for (const text of ['one', 'two', 'three']) turns.push(await post(hub, 'gated', text, { conversation: 'c' }))
    expect((await hub.api(`/turns/${turns[1]!.turn}/cancel`, {})).status).toBe(202)
    expect(await endOf(hub, turns[1]!.turn)).toMatchObject({ status: 'cancelled', text: '' })
    gated.finish('one')
    gated.finish('three')
    expect(await endOf(hub, turns[2]!.turn)).toMatchObject({ status: 'completed' })
    expect(gated.begun).toEqual(['one', 'three'])
  })

  it('does nothing to a turn that has ended', async () => {
    await using hub = await startHub({ bots: { echo: echo() } })
    const turn = await hub.ask('echo', 'hello')
    const answer = await hub.api(`/turns/${turn.turn}/cancel`, {})
    expect(answer.status).toBe(202)
    expect(await answer.json()).toEqual(turn)
    expect(await turnOf(hub.api(`/turns/${turn.turn}`))).toEqual(turn)
  })
})

const asking = { main: { provider: local(demoBot), use: [consent()] } }

describe('a turn that waits', () => {
  it('holds its conversation: another message is 409 and leaves no trace', async () => {
    await using hub = await startHub({ bots: asking })
    const waits = await hub.ask('main', '/consent', { conversation: 'c' })
    expect(waits).toMatchObject({ status: 'waiting', waiting: { for: 'consent', calls: [{ tool: 'send_mail' }] } })
    expect(Date.parse(waits.waiting!.expiresAt!)).toBeGreaterThan(Date.now() + 23 * 3_600_000)
    const refused = await hub.api('/bots/main/messages', { text: 'hello', conversation: 'c', id: 'm' })
    expect(refused.status).toBe(409)
    expect(await refused.json()).toMatchObject({ error: { code: 'turn_waiting', turn: waits.turn } })
    await hub.api(`/turns/${waits.turn}/cancel`, {})
    expect(await endOf(hub, waits.turn)).toMatchObject({ status: 'cancelled' })
    expect(await hub.ask('main', 'hello', { conversation: 'c', id: 'm' })).toMatchObject({ status: 'completed' })
  })

  it('takes the first decision on a call, and no second one, nor one on another call', async () => {
    await using hub = await startHub({ bots: asking })
    const { turn, waiting } = await hub.ask('main', '/consent')
    const [{ call } = { call: '' }] = waiting!.calls
    const decide = (result: string, of = call) =>
      hub.api(`/turns/${turn}/consent`, { decisions: [{ call: of, result }] })
    expect(await codeOf(await decide('allow_once', 'call-9'))).toEqual([422, 'invalid_request'])
    expect(await codeOf(await decide('allow_twice'))).toEqual([422, 'invalid_request'])
    expect(await codeOf(await hub.api(`/turns/${turn}/tool-outputs`, { outputs: [{ call, output: 1 }] }))).toEqual([
      409,
      'not_waiting',
    ])
    const decisions = await Promise.all([decide('allow_once'), decide('deny_once'), decide('allow_once')])
    expect(decisions.map(({ status }) => status).toSorted((a, b) => a - b)).toEqual([200, 409, 409])
    expect(await codeOf(await decide('deny_once'))).toEqual([409, 'already_decided'])
    expect(await endOf(hub, turn)).toMatchObject({ status: 'completed' })
  })

  it('of two calls goes on when both have their decision', async () => {
    await using hub = await startHub({ bots: { asgard: asgard({ simulated: true }) } })
    const { turn, waiting } = await hub.ask('asgard', '!consent-two')
    const [first, second] = waiting!.calls
    const decide = (call: string, result: string) =>
      hub.api(`/turns/${turn}/consent`, { decisions: [{ call, result }] }, async202)
    const half = await decide(first!.call, 'allow_once')
    expect(await half.json()).toMatchObject({ status: 'waiting', waiting: { calls: [{ call: second!.call }] } })
    expect(await codeOf(await decide(first!.call, 'deny_once'))).toEqual([409, 'already_decided'])
    expect((await decide(second!.call, 'deny_once')).status).toBe(202)
    const { status, text } = await endOf(hub, turn)
    expect(status).toBe('completed')
    expect(text).toMatch(/You allowed it: send_mail[^]*You denied it: delete_note/)
  })

  it('for a tool of the client goes on with its output', async () => {
    await using hub = await startHub({ bots: { coze: coze({ simulated: true }) } })
    const waits = await hub.ask('coze', '!client-tool')
    expect(waits).toMatchObject({ status: 'waiting', waiting: { for: 'tool_outputs', calls: [{ tool: 'open_door' }] } })
    const [{ call } = { call: '' }] = waits.waiting!.calls
    const answer = await hub.api(`/turns/${waits.turn}/tool-outputs`, { outputs: [{ call, output: 'It is open.' }] })
    expect(await answer.json()).toMatchObject({ status: 'completed', text: 'The door: It is open.' })
  })
})

interface Page<Item> {
  readonly items: readonly Item[]
  readonly before?: string
}

describe('conversations', () => {
  it('give their messages page by page, oldest first inside a page', async () => {
    await using hub = await startHub({ bots: { echo: echo() } })
    const texts = Array.from({ length: 7 }, (_, index) => `message ${index}`)
    for (const text of texts) await hub.ask('echo', text, { conversation: 'c' })
    const pages: string[][] = []
    let before: string | undefined
    do {
      const query = `?limit=4${before === undefined ? '' : `&before=${before}`}`
      const answer = await hub.api(`/bots/echo/conversations/c/messages${query}`)
      const page = await jsonOf<Page<{ role: string; text: string; at: string }>>(answer)
      for (const { at } of page.items) expect(new Date(at).toISOString()).toBe(at)
      pages.unshift(page.items.map(({ role, text }) => `${role}: ${text}`))
      before = page.before
    } while (before !== undefined)
    expect(pages.map(({ length }) => length)).toEqual([2, 4, 4, 4])
    expect(pages.flat()).toEqual(texts.flatMap((text) => [`user: ${text}`, `bot: ${text}`]))
    for (const query of ['limit=0', 'limit=x', 'limit=201', 'before=a%00b', 'before='])
      expect(await codeOf(await hub.api(`/bots/echo/conversations/c/messages?${query}`))).toEqual([
        422,
        'invalid_request',
      ])
  })

  it('are listed for those they belong to', async () => {
    await using hub = await startHub({ bots: { echo: echo() } })
    for (const [user, conversation] of [
      ['ada', '1'],
      ['bob', '1'],
      ['ada', '2'],
    ])
      await hub.ask('echo', 'hello', { user, conversation })
    const listed = async (user: string) => {
      const answer = await hub.api('/bots/echo/conversations', undefined, { 'x-hub-user': user })
      return (await jsonOf<Page<{ id: string; name: string }>>(answer)).items
    }
    expect((await listed('ada')).map(({ name }) => name)).toEqual(['1', '2'])
    expect((await listed('bob')).map(({ name }) => name)).toEqual(['1'])
    const [{ id } = { id: '' }] = await listed('bob')
    expect(id).toMatch(/^conv_/)
    expect((await hub.api(`/bots/echo/conversations/${id}/messages`)).status).toBe(200)
  })

  it('that are deleted are gone with their turns and ids, and can be begun again', async () => {
    await using hub = await startHub({ bots: { main: local(demoBot) } })
    const message = { conversation: 'c', id: 'm' }
    const first = await hub.ask('main', 'my name is Ada', message)
    const remove = () => fetch(`${hub.url}/api/v1/bots/main/conversations/c`, { method: 'DELETE' })
    expect((await remove()).status).toBe(204)
    expect(await codeOf(await remove())).toEqual([404, 'unknown_conversation'])
    expect(await codeOf(await hub.api('/bots/main/conversations/c/messages'))).toEqual([404, 'unknown_conversation'])
    expect(await codeOf(await hub.api(`/turns/${first.turn}`))).toEqual([404, 'unknown_turn'])
    const again = await hub.ask('main', 'what is my name?', message)
    expect(again.turn).not.toBe(first.turn)
    expect(again.text).not.toContain('Ada')
  })

  it('that are deleted while they are answered end their turns for whoever follows them', async () => {
    const gated = gatedBot()
    await using hub = await startHub({ bots: { gated: gated.provider } })
    const following = hub.stream('gated', 'one', { conversation: 'c' })
    await gated.began('one')
    const queued = hub.stream('gated', 'two', { conversation: 'c' })
    await hubHas(hub, 'gated', 'c', 'two')
    const answer = await fetch(`${hub.url}/api/v1/bots/gated/conversations/c`, { method: 'DELETE' })
    expect(answer.status).toBe(204)
    for (const events of [await following, await queued])
      expect(events.at(-1)).toMatchObject({ type: 'turn.cancelled', by: 'deleted' })
    expect(gated.begun).toEqual(['one'])
  })
})

/** Resolves when a conversation has this message in its records. */
async function hubHas(hub: TestHub, bot: string, conversation: string, text: string): Promise<void> {
  await expect
    .poll(async () => (await hub.api(`/bots/${bot}/conversations/${conversation}/messages`)).text(), {
      timeout: 10_000,
    })
    .toContain(`"${text}"`)
}

describe('files', () => {
  it('go to the upstream as they come, and a message names them', async () => {
    const edge = await startAsgardSimulator()
    await using hub = await startHub({
      bots: {
        asgard: asgard({
          edgeServerHost: edge.url,
          namespace: edge.namespace,
          botProviderName: edge.botProviderName,
          apiKey: edge.apiKey,
        }),
        echo: echo(),
      },
    })
    const upload = (bot: string, form: FormData) =>
      fetch(`${hub.url}/api/v1/bots/${bot}/files`, { method: 'POST', body: form })
    const form = new FormData()
    form.set('conversation', 'c')
    form.set('file', new File(['a few words'], '文件 "1".txt', { type: 'text/plain' }))
    const answer = await upload('asgard', form)
    expect(answer.status).toBe(201)
    const file = await jsonOf<{ id: string }>(answer)
    expect(file).toEqual({
      id: expect.stringMatching(/^file_/),
      name: expect.stringContaining('文件'),
      bytes: 11,
      mime: 'text/plain',
    })

    const turn = await hub.ask('asgard', 'read this', { conversation: 'c', files: [file.id] })
    expect(turn.status).toBe('completed')
    const blob = edge.requests.find(({ path }) => path === '/blob')
    expect(blob?.body).toMatchObject({ customChannelId: expect.any(String) })
    const sent = edge.requests.findLast(({ path }) => path === '/message/sse')
    expect(sent?.body).toMatchObject({ text: 'read this', blobIds: [expect.any(String)] })

    // In another conversation, of another user or for another bot it is nobody's.
    for (const more of [{ conversation: 'd' }, { conversation: 'c', user: 'eve' }]) {
      const refused = await hub.api('/bots/asgard/messages', { text: 'x', files: [file.id], ...more })
      expect(await codeOf(refused)).toEqual([404, 'unknown_file'])
    }
    expect(await codeOf(await upload('echo', form))).toEqual([422, 'files_unsupported'])
    const without = new FormData()
    without.set('conversation', 'c')
    expect(await codeOf(await upload('asgard', without))).toEqual([400, 'bad_upload'])
    await edge.close()
  })
})
