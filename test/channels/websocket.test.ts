import { once } from 'node:events'
import { describe, expect, it } from 'vitest'
import { WebSocket } from 'ws'
import { asgard, consent, demoBot, echo, local, websocket } from '../../index.ts'
import { gatedBot } from '../fakes/gated-bot.ts'
import { naughtyStrings } from '../suites/naughty.ts'
import { startHub } from '../support/hub.ts'
import { connectSocket } from '../support/socket.ts'
import type { Frame, SocketClient } from '../support/socket.ts'

const textOf = (frames: readonly Frame[]): string => frames.map(({ content = '' }) => content).join('')
const typesOf = (frames: readonly Frame[]): string[] => frames.map(({ type }) => type)

const bots = { main: { provider: local(demoBot), use: [consent()] }, echo: echo() }
const channels = { ws: websocket({ bot: 'main' }) }

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
      await using hub = await startHub({ bots })
      using socket = await connectSocket(hub.url)
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
    await using hub = await startHub({ bots })
    using socket = await connectSocket(hub.url)
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

  it.each([
    ['a binary frame', 1003, (socket: WebSocket) => socket.send(Buffer.from('{"type":"ping"}'))],
    ['a frame over 1 MiB', 1009, (socket: WebSocket) => socket.send('x'.repeat(1_048_577))],
    // Text frames are UTF-8.
    ['bytes that are no UTF-8', 1007, (socket: WebSocket) => socket.send(Buffer.from([0xc3, 0x28]), { binary: false })],
  ])('is closed at %s, with %i', async (_, code, send) => {
    await using hub = await startHub({ bots })
    using socket = await connectSocket(hub.url)
    await stillThere(socket)
    send(socket.socket)
    expect(await socket.closed).toBe(code)
    using next = await connectSocket(hub.url)
    await stillThere(next)
  })

  it('is closed with 1001 when the hub stops', async () => {
    const hub = await startHub({ bots })
    using socket = await connectSocket(hub.url)
    await stillThere(socket)
    await hub[Symbol.asyncDispose]()
    expect(await socket.closed).toBe(1001)
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
    await using hub = await startHub({ bots })
    expect(await handshake(hub.url, { origin })).toBe(status)
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
