import { describe, expect, it } from 'vitest'
import type { ViolationKind } from './checker.ts'
import { check, violationKinds } from './checker.ts'
import type { ClientRecord, FrameRecord, Records, StoredTurn, UpstreamRequest } from './records.ts'

/** The log of a turn that said two words. */
const log = (turn: string, message: string): string[] =>
  [
    { type: 'turn.started', turn, message },
    { type: 'message.started', message: 'm' },
    { type: 'message.delta', message: 'm', text: 'Hello ' },
    { type: 'message.delta', message: 'm', text: 'there.' },
    { type: 'message.completed', message: 'm', text: 'Hello there.' },
    { type: 'turn.completed', text: 'Hello there.' },
  ].map((event, index) => JSON.stringify({ seq: index + 1, ...event }))

const storedTurn = (id: string, message: string): StoredTurn => ({
  id,
  bot: 'asgard',
  conversation: 'conv_1',
  message,
  status: 'completed',
  seq: 6,
  text: 'Hello there.',
  events: log(id, message).map((body, index) => ({ seq: index + 1, body })),
})

const frames = (from: number, to: number): FrameRecord[] =>
  log('turn_1', 'one')
    .map((event, index) => ({ seq: index + 1, event, bytes: `data: ${event}\n\n`, at: 0 }))
    .slice(from - 1, to)

const wordFrames: readonly FrameRecord[] = [
  { seq: 3, bytes: 'stream Hello', words: 'Hello ', at: 0 },
  { seq: 4, bytes: 'stream there.', words: 'there.', at: 0 },
  { seq: 6, bytes: 'stream done', words: '', at: 0 },
]

const end = { type: 'ended', status: 'completed' } as const
const object = JSON.stringify({ turn: 'turn_1', status: 'completed', text: 'Hello there.' })
const client = (name: string, changes: Partial<ClientRecord>): ClientRecord => ({
  name,
  dialect: 'sse',
  message: 'one',
  turns: ['turn_1'],
  connections: [],
  end,
  ...changes,
})

const whole = client('whole', { connections: [{ after: 0, frames: frames(1, 6) }] })
const cut = client('cut', {
  connections: [
    { after: 0, frames: frames(1, 3) },
    { after: 3, frames: [] },
    { after: 3, frames: frames(4, 6) },
  ],
})
const listener = client('listener', {
  dialect: 'socket-words',
  connections: [
    { after: 0, frames: wordFrames.slice(0, 1) },
    { after: 3, frames: wordFrames.slice(1) },
  ],
})
const reader = client('reader', { dialect: 'rest', object })
const hook = client('hook', { dialect: 'webhook' })

const start: UpstreamRequest = {
  vendor: 'asgard',
  path: '/message/sse',
  kind: 'start',
  message: 'one',
  outcome: 'taken',
  at: 0,
}
const refusal: UpstreamRequest = { ...start, outcome: 'refused' }
const answer: UpstreamRequest = { ...start, kind: 'answer', calls: ['call-1'] }

const delivery = {
  id: 'turn_1_6_hook-asgard',
  channel: 'hook-asgard',
  turn: 'turn_1',
  type: 'turn.completed',
  body: object,
  taken: true,
}
const { body: _body, taken: _taken, channel: _channel, ...row } = delivery
const delivered = { ...row, lane: 'channel:hook-asgard' }

/** Nothing is wrong with these, though much went wrong while they were made. */
const sound: Records = {
  messages: [{ id: 'one', bot: 'asgard', text: 'hello', whole: 'Hello there.' }],
  clients: [whole, cut, listener, reader, hook],
  upstream: [refusal, refusal, start, answer],
  deliveries: [{ ...delivery, taken: false }, delivery, delivery],
  store: {
    turns: [storedTurn('turn_1', 'one')],
    owed: [{ turn: 'turn_1', lane: 'channel:hook-asgard' }],
    outbox: [{ ...delivered, state: 'delivered' }],
  },
}

const withClient = (...clients: ClientRecord[]): Records => ({ ...sound, clients: [...sound.clients, ...clients] })
const withTurn = (changes: Partial<StoredTurn>): Records => ({
  ...sound,
  store: { ...sound.store, turns: [{ ...storedTurn('turn_1', 'one'), ...changes }] },
})
const withUpstream = (...requests: UpstreamRequest[]): Records => ({
  ...sound,
  upstream: [...sound.upstream, ...requests],
})
const stored = storedTurn('turn_1', 'one').events
const renumbered = (bodies: readonly string[]) => bodies.map((body, index) => ({ seq: index + 1, body }))
const bodies = stored.map(({ body }) => body)

/** Records with one lie in them, by the kind of violation that finds it. */
const doctored: Readonly<Record<ViolationKind, Readonly<Record<string, Records>>>> = {
  lost: {
    'a turn that a client was given is not in the store': withClient(
      client('told', { message: 'two', turns: ['turn_2'] }),
    ),
    'an event that a client saw is not in the store': withTurn({
      seq: 4,
      status: 'interrupted',
      events: [...stored.slice(0, 3), { seq: 4, body: JSON.stringify({ type: 'turn.interrupted', text: 'Hello ' }) }],
    }),
  },
  'repeated upstream start': {
    'a message was sent again though the first one was taken': withUpstream(start),
    'a message was sent again though nobody knows of the first one': withUpstream({ ...start, outcome: 'unanswered' }),
  },
  'started before it was kept': {
    'an upstream was asked for a message without a turn': withUpstream({ ...start, message: 'two' }),
    'it refused, but it was asked': withUpstream({ ...refusal, message: 'two' }),
  },
  'repeated answer': { 'a decision was taken twice': withUpstream(answer) },
  'second turn': {
    'the store has two turns of a message': {
      ...sound,
      store: { ...sound.store, turns: [storedTurn('turn_1', 'one'), storedTurn('turn_2', 'one')] },
    },
    'two clients with one message were given two turns': {
      ...withClient(client('other', { turns: ['turn_2'] })),
      store: { ...sound.store, turns: [storedTurn('turn_1', 'one'), storedTurn('turn_2', 'two')] },
    },
  },
  gap: {
    'the log misses a number': withTurn({ events: stored.toSpliced(2, 1) }),
    'the log is shorter than the turn says': withTurn({ seq: 7 }),
    'a stream misses a number': withClient(
      client('gap', { connections: [{ after: 0, frames: frames(1, 6).toSpliced(2, 1) }] }),
    ),
    'a stream goes on too late': withClient(
      client('late', {
        connections: [
          { after: 0, frames: frames(1, 2) },
          { after: 2, frames: frames(4, 6) },
        ],
      }),
    ),
    'a socket misses words that another one got': withClient(
      client('deaf', { dialect: 'socket-words', connections: [{ after: 0, frames: wordFrames.toSpliced(1, 1) }] }),
    ),
  },
  repeat: {
    'the log has a number twice': withTurn({ events: stored.toSpliced(2, 0, stored[2]!) }),
    'a stream goes on too early': withClient(
      client('early', {
        connections: [
          { after: 0, frames: frames(1, 3) },
          { after: 3, frames: frames(3, 6) },
        ],
      }),
    ),
    'a socket gets words again': withClient(
      client('echo', { dialect: 'socket-words', connections: [{ after: 3, frames: wordFrames }] }),
    ),
  },
  difference: {
    'a client saw other words than the store has': withTurn({
      events: stored.with(2, { seq: 3, body: bodies[2]!.replace('Hello', 'Howdy') }),
    }),
    'two clients saw other bytes under one number': withClient(
      client('other', {
        connections: [
          {
            after: 0,
            frames: frames(1, 6).map((frame) => ({ ...frame, bytes: frame.bytes.replace('data: ', 'data:') })),
          },
        ],
      }),
    ),
    'two clients read other turn objects': withClient(
      client('other', { dialect: 'rest', object: object.replace('{', '{ ') }),
    ),
    'a client saw another end': withClient(client('other', { end: { type: 'ended', status: 'failed' } })),
    'a delivery came with another body the second time': {
      ...sound,
      deliveries: [delivery, { ...delivery, body: object.replace('there', 'where') }],
    },
  },
  unended: {
    'a turn still runs': withTurn({ status: 'running' }),
    'a log ends without an end': withTurn({ seq: 5, events: stored.slice(0, 5) }),
    'a client waits in vain': withClient({
      name: 'waits',
      dialect: 'sse',
      message: 'one',
      turns: ['turn_1'],
      connections: [{ after: 0, frames: frames(1, 3) }],
    }),
  },
  'second end': {
    'a turn ends twice': withTurn({ seq: 7, events: renumbered([...bodies, bodies[5]!]) }),
  },
  'wrong words': {
    'a complete answer is not whole': withTurn({ text: 'Hello ' }),
    'a partial answer says something else': withTurn({ status: 'interrupted', text: 'Howdy' }),
    'a piece was said twice': withTurn({ events: stored.with(3, { seq: 4, body: bodies[2]!.replace('3', '4') }) }),
    'a socket heard only half of it': withClient(
      client('half', {
        dialect: 'socket-words',
        connections: [{ after: 4, frames: wordFrames.slice(2) }],
      }),
    ),
  },
  undelivered: {
    'the receiver never took it': { ...sound, deliveries: [{ ...delivery, taken: false }] },
    'nothing was ever sent': { ...sound, deliveries: [] },
    'the outbox never had it': { ...sound, store: { ...sound.store, outbox: [] } },
    'nobody noted that it is owed': { ...sound, store: { ...sound.store, owed: [] } },
  },
  denied: {
    'a client was told that its turn is unknown': withClient(
      client('denied', { end: { type: 'refused', status: 404, code: 'unknown_turn' } }),
    ),
  },
}

describe('the checker of the torture', () => {
  it('finds nothing where clients came back, refusals were retried and deliveries repeated', () => {
    expect(check(sound)).toEqual([])
  })

  it.each(
    violationKinds.flatMap((kind) =>
      Object.entries(doctored[kind]).map(([what, records]) => [kind, what, records] as const),
    ),
  )('finds %s: %s', (kind, _what, records) => {
    expect(check(records).map((violation) => violation.kind)).toContain(kind)
  })

  it('calls a message that was refused many times and then taken once no repeated start', () => {
    expect(check({ ...sound, upstream: [refusal, refusal, refusal, start] })).toEqual([])
  })
})
