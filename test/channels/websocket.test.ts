import { once } from 'node:events'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { WebSocket } from 'ws'
import { apiKey, asgard, consent, demoBot, echo, local, websocket } from '../../index.ts'
import type { BotFunction } from '../../index.ts'
import { gatedBot } from '../fakes/gated-bot.ts'
import { naughtyStrings } from '../suites/naughty.ts'
import { startHub } from '../support/hub.ts'
import type { TestHub } from '../support/hub.ts'
import { connectSocket } from '../support/socket.ts'
import type { Frame, SocketClient } from '../support/socket.ts'

const textOf = (frames: readonly Frame[]): string => frames.map(({ content = '' }) => content).join('')
const typesOf = (frames: readonly Frame[]): string[] => frames.map(({ type }) => type)

const bots = { main: { provider: local(demoBot), use: [consent()] }, echo: echo() }
const channels = { ws: websocket({ bot: 'main' }) }

/** For tests that leave nothing behind. */
let shared: TestHub
beforeAll(async () => {
  shared = await startHub({ bots })
})
afterAll(() => shared[Symbol.asyncDispose]())

describe('a chat', () => {
  it('is answered by fragments and an empty last one, each with what it belongs to', async () => {
    await using hub = await startHub({ bots })
    using socket = await connectSocket(hub.url)
    const frames = await socket.chat({ agentId: 'main', sessionId: 's', id: 'm', message: 'hello' })
    expect(frames.length).toBeGreaterThanOrEqual(4)
    for (const [index, frame] of frames.entries()) {
      const isLast = index === frames.length - 1
      expect(frame).toEqual({
        type: 'stream',
        agentId: 'main',
        sessionId: 's',
        id: 'm',
        turn: frames[0]!.turn,
        seq: expect.any(Number),
        content: isLast ? '' : expect.stringMatching(/./),
        done: isLast,
      })
    }
    const numbers = frames.map(({ seq }) => seq!)
    expect(numbers).toEqual(numbers.toSorted((a, b) => a - b))
    const turn = await hub.api(`/turns/${frames[0]!.turn}`)
    expect(await turn.json()).toMatchObject({ text: textOf(frames), conversation: 's', message: 'm' })
  })

  it('with stream: false is answered by one message', async () => {
    await using hub = await startHub({ bots })
    using socket = await connectSocket(hub.url)
    const frames = await socket.chat({ agentId: 'echo', message: 'hello', stream: false })
    expect(frames).toMatchObject([{ type: 'message', content: 'hello', done: true, agentId: 'echo' }])
  })

  it('with events: true is answered by the events of the turn', async () => {
    await using hub = await startHub({ bots })
    using socket = await connectSocket(hub.url)
    const frames = await socket.chat({ agentId: 'main', message: 'hello', events: true })
    expect(new Set(typesOf(frames))).toEqual(new Set(['event']))
    const { turn } = frames[0]!
    const replay = await (await hub.api(`/turns/${turn}/events`)).text()
    const events = Array.from(replay.matchAll(/^data: (.*)$/gm), ([, json]) => JSON.parse(json!) as unknown)
    expect(frames.map(({ event }) => event)).toEqual(events)
    expect(frames.map(({ seq }) => seq)).toEqual(events.map((_, index) => index + 1))
  })

  it("without agentId goes to the channel's bot, and where it has none is told so", async () => {
    await using hub = await startHub({ bots, channels })
    using socket = await connectSocket(hub.url)
    expect(await socket.chat({ message: 'hello' })).toContainEqual(expect.objectContaining({ agentId: 'main' }))

    await using without = await startHub({ bots, channels: { ws: websocket() } })
    using other = await connectSocket(without.url)
    expect(await other.chat({ message: 'hello' })).toMatchObject([{ type: 'error', code: 'invalid_request' }])
  })

  it('without sessionId has one conversation per socket', async () => {
    await using hub = await startHub({ bots })
    using one = await connectSocket(hub.url)
    using two = await connectSocket(hub.url)
    const [first] = await one.chat({ agentId: 'main', message: 'my name is Ada' })
    expect(first!.sessionId).toMatch(/./)
    const known = await one.chat({ agentId: 'main', message: 'what is my name?' })
    expect(textOf(known)).toContain('Ada')
    expect(known[0]!.sessionId).toBe(first!.sessionId)
    const unknown = await two.chat({ agentId: 'main', message: 'what is my name?' })
    expect(textOf(unknown)).not.toContain('Ada')
    expect(unknown[0]!.sessionId).not.toBe(first!.sessionId)
    const named = await two.chat({ agentId: 'main', sessionId: first!.sessionId, message: 'what is my name?' })
    expect(textOf(named)).toContain('Ada')
  })

  it('beside others on one socket keeps apart from them', async () => {
    const gated = gatedBot()
    await using hub = await startHub({ bots: { gated: gated.provider } })
    using socket = await connectSocket(hub.url)
    const names = ['one', 'two', 'three', 'four']
    const chats = names.map((name) => socket.chat({ agentId: 'gated', sessionId: name, id: name, message: name }))
    await Promise.all(names.map((name) => gated.began(name)))
    for (const name of names.toReversed()) gated.finish(name)
    const answers = await Promise.all(chats)
    for (const [index, name] of names.entries()) {
      expect(textOf(answers[index]!)).toBe(`So: ${name}.`)
      for (const frame of answers[index]!)
        expect(frame).toMatchObject({ sessionId: name, turn: answers[index]![0]!.turn })
    }
  })

  it('behind another in its conversation waits for its turn', async () => {
    const gated = gatedBot()
    await using hub = await startHub({ bots: { gated: gated.provider } })
    using socket = await connectSocket(hub.url)
    const chats = ['one', 'two', 'three'].map((id) => socket.chat({ agentId: 'gated', id, message: id }))
    for (const text of ['three', 'two', 'one']) gated.finish(text)
    await Promise.all(chats)
    expect(gated.begun).toEqual(['one', 'two', 'three'])
    expect(socket.frames.filter(({ done }) => done).map(({ id }) => id)).toEqual(['one', 'two', 'three'])
  })

  it.each([...naughtyStrings, ' ', 'x'.repeat(300_000)].map((text) => [text.slice(0, 30), text]))(
    'brings %j back as it was',
    async (_, text) => {
      using socket = await connectSocket(shared.url)
      expect(textOf(await socket.chat({ agentId: 'echo', message: text }))).toBe(text)
      expect(textOf(await socket.chat({ agentId: 'echo', message: text, stream: false }))).toBe(text)
    },
  )

  it('of several messages says the whole text of the turn', async () => {
    await using hub = await startHub({ bots: { asgard: asgard({ simulated: true }) } })
    using socket = await connectSocket(hub.url)
    const frames = await socket.chat({ agentId: 'asgard', message: '!multi' })
    expect(textOf(frames)).toBe('The first message.\n\nThe second message.')
  })

  it('that fails ends with one error and no done', async () => {
    await using hub = await startHub({ bots })
    using socket = await connectSocket(hub.url)
    const frames = await socket.chat({ agentId: 'main', message: '/fail' })
    expect(textOf(frames)).toBe('This answer is going to fail ')
    const [end, ...more] = frames.filter(({ type }) => type !== 'stream')
    expect(more).toEqual([])
    expect(end).toMatchObject({ type: 'error', code: 'bot_failed', message: expect.any(String), turn: frames[0]!.turn })
    expect(frames.some(({ done }) => done)).toBe(false)
    // A later exchange comes behind everything the failed one could still have said.
    await socket.chat({ agentId: 'main', id: 'next', message: 'hello' })
    expect(socket.frames.filter(({ turn }) => turn === frames[0]!.turn)).toEqual(frames)
  })
})

describe('the frames beside chat', () => {
  it('resume in the middle of an answer goes on from there, and only once on a socket', async () => {
    const gated = gatedBot()
    await using hub = await startHub({ bots: { gated: gated.provider } })
    using socket = await connectSocket(hub.url)
    socket.send({ type: 'chat', agentId: 'gated', id: 'm', message: 'hello' })
    const { turn, seq } = await socket.frame(({ type }) => type === 'stream')
    using other = await connectSocket(hub.url)
    for (const each of [socket, other]) each.send({ type: 'resume', turn, after: seq })
    // Frames are handled in their order.
    await Promise.all([socket, other].map((each) => pinged(each)))
    gated.finish('hello')
    for (const each of [socket, other]) await each.frame(({ done }) => done === true)
    expect(textOf(socket.frames)).toBe('So: hello.')
    expect(textOf(other.frames)).toBe('hello.')
    const answers = other.frames.filter(({ type }) => type === 'stream')
    expect(answers.map(({ id }) => id)).toEqual(['m', 'm'])
  })

  it('resume in the middle of a turn whose events are gone is refused, and from its beginning is not', async () => {
    await using hub = await startHub({ bots, keep: { events: 0 } })
    const { turn } = await hub.ask('main', 'hello')
    await hub.sweep()
    using socket = await connectSocket(hub.url)
    socket.send({ type: 'resume', turn, after: 3, id: 'r' })
    expect(await socket.frame(({ type }) => type === 'error')).toMatchObject({ code: 'events_expired', turn, id: 'r' })
    socket.send({ type: 'resume', turn })
    await socket.frame(({ done }) => done === true)
    expect(textOf(socket.frames)).toContain('hello')
  })

  it('resume with an id of its own gets frames by that id, or the word that nothing more comes', async () => {
    await using hub = await startHub({ bots })
    using socket = await connectSocket(hub.url)
    const frames = await socket.chat({ agentId: 'main', id: 'm', message: 'hello' })
    const { turn, seq } = frames[2]!
    socket.send({ type: 'resume', turn, after: seq, id: 'r' })
    await socket.frame(({ id, done }) => id === 'r' && done === true)
    expect(textOf(socket.frames.filter(({ id }) => id === 'r'))).toBe(textOf(frames.slice(3)))
    socket.send({ type: 'resume', turn, after: frames.at(-1)!.seq, id: 'end' })
    expect(await socket.frame(({ id }) => id === 'end')).toEqual({ type: 'accepted', id: 'end', turn, over: true })
  })

  it('leave ends the frames of a turn for this socket, and for no other', async () => {
    const gated = gatedBot()
    await using hub = await startHub({ bots: { gated: gated.provider } })
    using socket = await connectSocket(hub.url)
    using viewer = await connectSocket(hub.url)
    socket.send({ type: 'chat', agentId: 'gated', message: 'hello' })
    const { turn } = await socket.frame(({ type }) => type === 'stream')
    viewer.send({ type: 'resume', turn })
    socket.send({ type: 'leave', turn, id: 'l' })
    expect(await socket.frame(({ id }) => id === 'l')).toEqual({ type: 'accepted', id: 'l', turn })
    gated.finish('hello')
    await viewer.frame(({ done }) => done === true)
    await pinged(socket)
    expect(textOf(socket.frames)).toBe('So: ')
  })

  it('tool-outputs answers the calls of the client, and the answer goes on', async () => {
    const bot: BotFunction = async function* ({ answers }) {
      if (answers?.type === 'tool_outputs') yield `It is ${JSON.stringify(answers.outputs[0]!.output)}.`
      else yield { type: 'tool.outputs_requested', calls: [{ call: 'c1', tool: 'get_time', input: {} }] }
    }
    await using hub = await startHub({ bots: { asking: local(bot) } })
    using socket = await connectSocket(hub.url)
    using helper = await connectSocket(hub.url)
    const [{ turn, calls, ...waiting } = { turn: '' }] = await socket.chat({ agentId: 'asking', message: 'the time?' })
    expect(waiting).toMatchObject({ type: 'waiting', for: 'tool_outputs' })
    expect(calls).toEqual([{ call: 'c1', tool: 'get_time', input: {} }])
    const outputs = [{ call: 'c1', output: { hour: 7 } }]
    helper.send({ type: 'tool-outputs', turn, outputs, id: 'o' })
    expect(await helper.frame(({ type }) => type === 'accepted')).toEqual({ type: 'accepted', id: 'o', turn })
    for (const each of [socket, helper]) {
      await each.frame(({ done }) => done === true)
      expect(textOf(each.frames)).toBe('It is {"hour":7}.')
    }
    helper.send({ type: 'tool-outputs', turn, outputs, id: 'again' })
    expect(await helper.frame(({ id }) => id === 'again')).toMatchObject({
      type: 'error',
      code: 'already_decided',
      turn,
    })
  })

  it('cancel, consent and tool-outputs with an id are answered by the same id', async () => {
    await using hub = await startHub({ bots })
    using socket = await connectSocket(hub.url)
    const [{ turn, calls } = { turn: '' }] = await socket.chat({ agentId: 'main', message: '/consent' })
    const decisions = calls!.map(({ call }) => ({ call, result: 'deny_once' }))
    socket.send({ type: 'consent', turn, decisions, id: 'd' })
    expect(await socket.frame(({ id }) => id === 'd')).toEqual({ type: 'accepted', id: 'd', turn })
    socket.send({ type: 'cancel', turn, id: 'x' })
    expect(await socket.frame(({ id }) => id === 'x')).toEqual({ type: 'accepted', id: 'x', turn })
  })

  it('ping is answered by pong, also in the middle of an answer', async () => {
    const gated = gatedBot()
    await using hub = await startHub({ bots: { gated: gated.provider } })
    using socket = await connectSocket(hub.url)
    socket.send({ type: 'ping' })
    expect(await socket.frame(({ type }) => type === 'pong')).toEqual({ type: 'pong' })
    const chat = socket.chat({ agentId: 'gated', message: 'hello' })
    await socket.frame(({ type }) => type === 'stream')
    socket.send({ type: 'ping' })
    await expect.poll(() => socket.frames.filter(({ type }) => type === 'pong').length, { timeout: 10_000 }).toBe(2)
    gated.finish('hello')
    expect(typesOf(await chat)).not.toContain('pong')
  })

  it('a ping of the protocol is answered by the protocol', async () => {
    await using hub = await startHub({ bots })
    using socket = await connectSocket(hub.url)
    socket.socket.ping('are you there?')
    const [payload] = (await once(socket.socket, 'pong')) as [Buffer]
    expect(payload.toString()).toBe('are you there?')
  })

  it('resume goes on behind any frame on another socket, in every form', async () => {
    await using hub = await startHub({ bots })
    using first = await connectSocket(hub.url)
    const frames = await first.chat({ agentId: 'main', id: 'm', message: 'hello' })
    const { turn } = frames[0]!
    for (const [index, { seq }] of frames.entries()) {
      if (frames[index + 1]?.seq === seq) continue
      using socket = await connectSocket(hub.url)
      socket.send({ type: 'resume', turn, after: seq })
      if (index === frames.length - 1) {
        socket.send({ type: 'ping' })
        await socket.frame(({ type }) => type === 'pong')
        expect(socket.frames).toEqual([{ type: 'pong' }])
        continue
      }
      await socket.frame(({ done }) => done === true)
      expect(textOf(socket.frames)).toBe(textOf(frames.slice(index + 1)))
      expect(socket.frames.map((frame) => frame.seq)).toEqual(frames.slice(index + 1).map((frame) => frame.seq))
    }
    using whole = await connectSocket(hub.url)
    whole.send({ type: 'resume', turn, stream: false })
    expect(await whole.frame(({ done }) => done === true)).toMatchObject({ type: 'message', content: textOf(frames) })
    using events = await connectSocket(hub.url)
    events.send({ type: 'resume', turn, after: 1, events: true })
    await events.frame(({ event }) => event?.type === 'turn.completed')
    expect(events.frames[0]).toMatchObject({ type: 'event', seq: 2, event: { type: 'message.started', seq: 2 } })
  })

  it('cancel ends the turn with one error, also for its other viewers', async () => {
    const gated = gatedBot()
    await using hub = await startHub({ bots: { gated: gated.provider } })
    using socket = await connectSocket(hub.url)
    using viewer = await connectSocket(hub.url)
    const chat = socket.chat({ agentId: 'gated', message: 'hello' })
    const { turn } = await socket.frame(({ type }) => type === 'stream')
    viewer.send({ type: 'resume', turn })
    await viewer.frame(({ type }) => type === 'stream')
    socket.send({ type: 'cancel', turn })
    expect((await chat).at(-1)).toMatchObject({ type: 'error', code: 'cancelled', by: 'client', turn })
    expect(await viewer.frame(({ type }) => type === 'error')).toMatchObject({ code: 'cancelled', turn })
    expect(await (await hub.api(`/turns/${turn}`)).json()).toMatchObject({ status: 'cancelled', text: 'So: ' })
  })

  it('consent decides, and the answer goes on once, in the form it began with', async () => {
    await using hub = await startHub({ bots })
    using socket = await connectSocket(hub.url)
    const frames = await socket.chat({ agentId: 'main', id: 'm', message: '/consent' })
    expect(frames).toMatchObject([{ type: 'waiting', for: 'consent', calls: [{ tool: 'send_mail' }], id: 'm' }])
    const { turn, calls } = frames[0]!
    const decide = (result: string) => ({
      type: 'consent',
      turn,
      decisions: calls!.map(({ call }) => ({ call, result })),
    })
    socket.send(decide('allow_once'))
    await socket.frame(({ done }) => done === true)
    expect(textOf(socket.frames)).toContain('The mail to ada@example.com was sent.')
    expect(socket.frames.filter(({ done }) => done)).toHaveLength(1)
    socket.send(decide('deny_once'))
    expect(await socket.frame(({ type }) => type === 'error')).toMatchObject({ code: 'already_decided', turn })
  })

  it('consent from another socket than the one that asked brings the answer to both', async () => {
    await using hub = await startHub({ bots })
    using asking = await connectSocket(hub.url)
    using deciding = await connectSocket(hub.url)
    const [{ turn, calls } = { turn: '' }] = await asking.chat({ agentId: 'main', message: '/consent' })
    const decisions = calls!.map(({ call }) => ({ call, result: 'allow_once' }))
    deciding.send({ type: 'consent', turn, decisions })
    for (const socket of [asking, deciding]) {
      await socket.frame(({ done }) => done === true)
      expect(textOf(socket.frames)).toContain('The mail to ada@example.com was sent.')
    }
  })
})

/** Resolves when everything sent before has been handled. */
async function pinged({ socket, frames, frame, send }: SocketClient): Promise<void> {
  const before = frames.filter(({ type }) => type === 'pong').length
  send({ type: 'ping' })
  await frame(() => frames.filter(({ type }) => type === 'pong').length > before || socket.readyState > 1)
}

const bad: readonly (readonly [what: string, frame: string, code: string, message: RegExp])[] = [
  ['bad JSON', '{"type":"chat"', 'bad_json', /JSON/],
  ['nothing', '', 'bad_json', /JSON/],
  ['deep nesting', `{"type":"chat","a":${'['.repeat(5000)}${']'.repeat(5000)}}`, 'bad_json', /nested/],
  ['no object', '["chat"]', 'invalid_request', /./],
  ['null', 'null', 'invalid_request', /./],
  ['no type', '{"message":"hello"}', 'invalid_request', /type/],
  ['an unknown type', '{"type":"shout","message":"hello"}', 'invalid_request', /type/],
  ['__proto__ for a type', '{"__proto__":{"type":"ping"}}', 'invalid_request', /type/],
  ['a chat without words', '{"type":"chat","agentId":"echo"}', 'invalid_request', /message/],
  ['a chat of a number', '{"type":"chat","agentId":"echo","message":7}', 'invalid_request', /message/],
  [
    'control characters in an id',
    '{"type":"chat","agentId":"echo","message":"x","id":"\\u0000"}',
    'invalid_request',
    /id/,
  ],
  ['an unknown bot', '{"type":"chat","agentId":"ehco","message":"x"}', 'unknown_bot', /did you mean "echo"\?/],
  ['a resume without turn', '{"type":"resume"}', 'invalid_request', /turn/],
  ['a resume of nothing', '{"type":"resume","turn":"turn_0"}', 'unknown_turn', /./],
  ['a resume behind -1', '{"type":"resume","turn":"turn_0","after":-1}', 'invalid_request', /after/],
  ['a cancel of nothing', '{"type":"cancel","turn":"turn_0"}', 'unknown_turn', /./],
  ['a consent without decisions', '{"type":"consent","turn":"turn_0"}', 'invalid_request', /decisions/],
]

describe('a socket', () => {
  const stillThere = async (socket: SocketClient) =>
    expect(textOf(await socket.chat({ agentId: 'echo', message: 'still here' }))).toBe('still here')

  it.each(bad)('stays open at %s, which is answered by an error', async (_, frame, code, message) => {
    using socket = await connectSocket(shared.url)
    socket.socket.send(frame)
    expect(await socket.frame(() => true)).toMatchObject({
      type: 'error',
      code,
      message: expect.stringMatching(message),
    })
    await stillThere(socket)
  })

  it('names in an error the exchange it belongs to', async () => {
    await using hub = await startHub({ bots })
    using socket = await connectSocket(hub.url)
    socket.send({ type: 'chat', agentId: 'echo', sessionId: 's', id: 'm' })
    expect(await socket.frame(() => true)).toMatchObject({ type: 'error', agentId: 'echo', sessionId: 's', id: 'm' })
  })

  it('is closed with 1001 when the hub stops', async () => {
    const hub = await startHub({ bots })
    using socket = await connectSocket(hub.url)
    await stillThere(socket)
    await hub[Symbol.asyncDispose]()
    expect(await socket.closed).toBe(1001)
    const { retryAfterMs, ...error } = await socket.frame(({ type }) => type === 'error')
    expect(error).toMatchObject({ code: 'shutting_down' })
    expect(retryAfterMs).toBeGreaterThanOrEqual(1000)
    expect(retryAfterMs).toBeLessThanOrEqual(5000)
    expect(socket.reason()).toBe(
      `The hub is stopping. Connect again in ${Math.ceil(retryAfterMs! / 1000)} s and resume.`,
    )
  })

  it('is read at the rate of its channel, and loses nothing', async () => {
    await using hub = await startHub({ bots, channels: { ws: websocket({ rate: 20 }) } })
    using socket = await connectSocket(hub.url)
    const from = performance.now()
    for (let count = 0; count < 30; count++)
      socket.send({ type: 'chat', agentId: 'echo', id: `${count}`, message: 'x' })
    await expect.poll(() => socket.frames.filter(({ done }) => done).length, { timeout: 10_000 }).toBe(30)
    // Twenty at once, and the other ten in half a second.
    expect(performance.now() - from).toBeGreaterThan(450)
    expect(socket.frames.filter(({ done }) => done).map(({ id }) => Number(id))).toEqual([...Array(30).keys()])
  })

  it('follows 100 turns at once, and takes another when one has ended', async () => {
    const gated = gatedBot()
    const gates = { provider: gated.provider, maxConcurrent: 200 }
    await using hub = await startHub({ bots: { gates }, channels: { ws: websocket({ rate: 1000 }) } })
    using socket = await connectSocket(hub.url)
    const ask = (id: string) => socket.send({ type: 'chat', agentId: 'gates', sessionId: id, id, message: id })
    for (let count = 0; count < 101; count++) ask(`${count}`)
    expect(await socket.frame(({ type }) => type === 'error')).toMatchObject({ code: 'queue_full', id: '100' })
    gated.finish('0')
    await socket.frame(({ done }) => done === true)
    await pinged(socket)
    ask('more')
    gated.finish('more')
    await socket.frame(({ id, done }) => id === 'more' && done === true)
  })

  it('takes no compression, so that nobody pays for it in memory', async () => {
    await using hub = await startHub({ bots })
    using socket = await connectSocket(hub.url, { perMessageDeflate: true })
    expect(socket.socket.extensions).toBe('')
    await stillThere(socket)
  })

  it('leaves the answer running when its client goes, for whoever comes back', async () => {
    const gated = gatedBot()
    await using hub = await startHub({ bots: { gated: gated.provider } })
    const { turn, seq } = await (async () => {
      using socket = await connectSocket(hub.url)
      socket.send({ type: 'chat', agentId: 'gated', message: 'hello' })
      return await socket.frame(({ type }) => type === 'stream')
    })()
    gated.finish('hello')
    using again = await connectSocket(hub.url)
    again.send({ type: 'resume', turn, after: seq })
    await again.frame(({ done }) => done === true)
    expect(textOf(again.frames)).toBe('hello.')
  })
})

/** The status of a handshake: 101 when it is accepted. */
async function handshake(url: string, headers: Record<string, string>): Promise<number> {
  const socket = new WebSocket(`${url.replace('http', 'ws')}/api/v1/ws`, { headers })
  socket.on('error', () => {})
  const status = await new Promise<number>((resolve) => {
    socket.on('open', () => resolve(101))
    socket.on('unexpected-response', (_, response) => resolve(response.statusCode ?? 0))
  })
  socket.terminate()
  return status
}

describe('who asks', () => {
  const key = 'a key/of+ada=0001'
  const secure = { bots: { ...bots, who: local(({ principal }) => `${principal.key} ${principal.user ?? ''}`) } }
  const closed = () =>
    startHub({
      ...secure,
      auth: [
        apiKey({ name: 'ada', key: 'key-of-ada/+==', trusted: true }),
        apiKey({ name: 'bob', key: 'key-of-bob-0002' }),
      ],
    })
  const who = async (socket: SocketClient, more = {}) =>
    textOf(await socket.chat({ agentId: 'who', message: 'who am I?', ...more }))

  it('is told by a header', async () => {
    await using hub = await closed()
    using socket = await connectSocket(hub.url, { headers: { authorization: 'Bearer key-of-bob-0002' } })
    expect(await who(socket)).toBe('bob ')
    using other = await connectSocket(hub.url, { headers: { 'x-api-key': 'key-of-ada/+==', 'x-hub-user': 'eve' } })
    expect(await who(other)).toBe('ada eve')
    expect(await who(other, { user: 'dora' })).toBe('ada dora')
  })

  it('is told by a subprotocol, which is never said back', async () => {
    await using hub = await closed()
    using plain = await connectSocket(hub.url, { protocols: ['bothub', 'bearer.key-of-bob-0002'] })
    expect(plain.socket.protocol).toBe('bothub')
    expect(await who(plain)).toBe('bob ')
    const encoded = Buffer.from('key-of-ada/+==').toString('base64url')
    using other = await connectSocket(hub.url, { protocols: [`bearer64.${encoded}`, 'bothub'] })
    expect(other.socket.protocol).toBe('bothub')
    expect(await who(other)).toBe('ada ')
  })

  it('is told by the first frame, and by a later one from then on', async () => {
    await using hub = await closed()
    using socket = await connectSocket(hub.url)
    socket.send({ type: 'auth', key: 'key-of-bob-0002', id: 'a' })
    expect(await socket.frame(() => true)).toEqual({ type: 'authenticated', id: 'a' })
    expect(await who(socket)).toBe('bob ')
    socket.send({ type: 'auth', key: 'key-of-nobody' })
    expect(await socket.frame(({ type }) => type === 'error')).toMatchObject({ code: 'unauthorized' })
    expect(await who(socket)).toBe('bob ')
    socket.send({ type: 'auth', key: 'key-of-ada/+==', id: 'b' })
    await socket.frame(({ id }) => id === 'b')
    expect(await who(socket)).toBe('ada ')
  })

  it.each([
    ['a wrong key', { type: 'auth', key: 'key-of-nobody' }, 'unauthorized'],
    ['a key with a space', { type: 'auth', key }, 'unauthorized'],
    ['no key', { type: 'auth' }, 'invalid_request'],
    ['anything else', { type: 'chat', agentId: 'who', message: 'hello' }, 'unauthorized'],
    ['a ping', { type: 'ping' }, 'unauthorized'],
  ])('is not told by a first frame with %s, which closes the socket', async (_, frame, code) => {
    await using hub = await closed()
    using socket = await connectSocket(hub.url)
    socket.send(frame)
    expect(await socket.frame(() => true)).toMatchObject({ type: 'error', code })
    expect(await socket.closed).toBe(1008)
    expect(socket.frames).toHaveLength(1)
  })

  it('has to be told within 10 s', async () => {
    await using hub = await closed()
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] })
    try {
      using silent = await connectSocket(hub.url)
      using known = await connectSocket(hub.url)
      known.send({ type: 'auth', key: 'key-of-bob-0002' })
      await known.frame(({ type }) => type === 'authenticated')
      vi.advanceTimersByTime(10_000)
      expect(await silent.frame(() => true)).toMatchObject({ type: 'error', code: 'unauthorized' })
      expect(await silent.closed).toBe(1008)
      vi.useRealTimers()
      expect(await who(known)).toBe('bob ')
    } finally {
      vi.useRealTimers()
    }
  })

  it('is refused at the door with a wrong key, which is written down', async () => {
    await using hub = await closed()
    expect(await handshake(hub.url, { authorization: 'Bearer key-of-nobody' })).toBe(401)
    expect(await handshake(hub.url, { 'sec-websocket-protocol': 'bothub, bearer.key-of-nobody' })).toBe(401)
    using socket = await connectSocket(hub.url)
    socket.send({ type: 'auth', key: 'key-of-nobody' })
    await socket.closed
    const { items } = await hub.hub.audit.page({ limit: 10 })
    expect(items).toMatchObject([{ what: 'credential refused', details: { count: 3 } }])
    expect(JSON.stringify([items, hub.log])).not.toContain('key-of-nobody')
  })

  it('need not be told where there is no auth, and a key is taken there as any other', async () => {
    await using hub = await startHub(secure)
    using socket = await connectSocket(hub.url, { protocols: ['bothub', 'bearer.anything'] })
    socket.send({ type: 'auth', key: 'anything', id: 'a' })
    expect(await socket.frame(() => true)).toEqual({ type: 'authenticated', id: 'a' })
    expect(await who(socket)).toBe('local ')
  })
})

describe('a page', () => {
  it.each([
    ['https://evil.example', 403],
    ['http://localhost.evil.example', 403],
    ['http://127.0.0.1.evil.example', 403],
    ['null', 403],
    ['file://', 403],
    ['http://localhost:3000', 101],
    ['http://127.0.0.1:8080', 101],
    ['http://[::1]:8080', 101],
    ['https://localhost', 101],
  ])('from %s that connects gets %i', async (origin, status) => {
    expect(await handshake(shared.url, { origin })).toBe(status)
  })

  it('from the hub itself, or none at all, may connect', async () => {
    await using hub = await startHub({ bots })
    expect(await handshake(hub.url, { origin: hub.url })).toBe(101)
    expect(await handshake(hub.url, {})).toBe(101)
  })

  it('from an origin the channel lists may connect, and then no other, not even a loopback one', async () => {
    await using hub = await startHub({ bots, channels: { ws: websocket({ origins: ['https://www.example.com'] }) } })
    expect(await handshake(hub.url, { origin: 'https://www.example.com' })).toBe(101)
    expect(await handshake(hub.url, { origin: 'https://www.example.com.evil.example' })).toBe(403)
    expect(await handshake(hub.url, { origin: 'http://localhost:3000' })).toBe(403)
  })
})
