import { channel as diagnostics } from 'node:diagnostics_channel'
import type { Socket } from 'node:net'
import { expect } from 'vitest'
import type { ChannelContext, ChannelSpec } from '../../core/channel.ts'
import type { Dispatcher } from '../../core/dispatcher.ts'
import { HubError } from '../../core/errors.ts'
import type { FailureCode } from '../../core/errors.ts'
import type { ConsentDecision, ToolCall } from '../../core/events.ts'
import { apiKey, local, sqlite } from '../../index.ts'
import type { BotFunction } from '../../index.ts'
import type { StoreSpec } from '../../core/plugin.ts'
import { startHub } from '../support/hub.ts'
import type { TestHub } from '../support/hub.ts'
import { naughtyStrings } from './naughty.ts'
import { openReceiver } from './receiver.ts'
import type { Receiver } from './receiver.ts'
import { registerSuite, within } from './suite.ts'
import type { Case, Subject } from './suite.ts'

/** A channel, and how to try it. */
export interface ChannelSubject extends Subject {
  /** The factory call of a config; `door` is there where the channel `callsBack`. */
  readonly mount: (options: { readonly bots?: readonly string[] }, door?: Door) => ChannelSpec
  /** Whether words reach the client while they are said; false: the answer comes whole. */
  readonly streams: boolean
  /**
   * Its answers leave by callback, so it is mounted once for each bot and each caller, under the name that `doorName`
   * gives, and told where that caller is called back.
   */
  readonly callsBack?: boolean
  /** Channels that its clients use too, by name, for what it does not do itself, such as taking decisions. */
  readonly beside?: Readonly<Record<string, ChannelSpec>>
  /** The code for somebody who does not prove to be who they say; `unauthorized` by default. */
  readonly refusesStrangers?: FailureCode
  /** A client of the hub at this address; `receiver` is there where the channel `callsBack`. */
  readonly connect: (url: string, caller?: Caller, receiver?: Receiver) => Promise<Client>
}

/** Who a client says to be: the name of an API key, and the key, if it has one to show. */
export interface Caller {
  readonly name: string
  readonly key?: string
}

/** What one mount of a channel that calls back is for. */
export interface Door {
  readonly bot: string
  /** Undefined where the hub has no `auth`. */
  readonly caller: Caller | undefined
  /** Where its answers go. */
  readonly callback: string
}

/** The name under which a channel that calls back is mounted for a bot and a caller. */
export const doorName = (bot: string, caller: Caller | undefined): string => (caller ? `${bot}-${caller.name}` : bot)

/** Somebody at the other end of a channel. */
export interface Client {
  /** Sends a message. A refusal is an answer too. */
  ask(bot: string, text: string, options?: AskOptions): Answer
  /** What comes behind `after`, the place of something that was said. Where there are no places, the whole answer. */
  resume(turn: string, after: number): Answer
  /** Decides about the calls of a turn that waits, and gets what comes then. */
  decide(turn: string, decisions: readonly ConsentDecision[]): Answer
  /** Sends what is no message, and gets the code of the failure. */
  sendRaw(body: string): Promise<string>
  /** Asks for an answer and never reads it; resolves when the question is on its way. Only where the channel streams. */
  stall(bot: string, text: string): Promise<void>
  /** Everything that came over the wire so far. */
  received(): string
  /** Hangs up without a word. */
  vanish(): void
}

export interface AskOptions {
  readonly conversation?: string
  readonly id?: string
}

/** An answer as it comes; ends behind `waiting`, or what is last. */
export type Answer = AsyncIterable<Said>

/** What a channel tells its client, in nobody's dialect. */
export type Said =
  | { readonly type: 'text'; readonly text: string; readonly turn: string; readonly place: number }
  | { readonly type: 'waiting'; readonly turn: string; readonly calls: readonly ToolCall[] }
  /** The last one of an answer. */
  | { readonly type: 'done' | 'cancelled'; readonly turn: string }
  | { readonly type: 'failed'; readonly code: string; readonly turn?: string }

/**
 * Registers the cases that every channel passes.
 * @example channelSuite('sse', { mount: (options) => sse(options), streams: true, connect: connectSse })
 */
export const channelSuite = (name: string, subject: ChannelSubject): void =>
  registerSuite('channel', name, subject, channelCases)

const noStream = ({ streams }: ChannelSubject) => (streams ? undefined : 'its answers come whole')
const oneBot = ({ callsBack }: ChannelSubject) => (callsBack ? 'each of its mounts is for one bot' : undefined)
const noReader = ({ callsBack }: ChannelSubject) =>
  callsBack ? 'its answers leave by callback, so nobody follows a turn' : undefined

const vendorWords = 'open sesame, says the vendor'
const driverWords = 'the disk is full, says the driver'
const call: ToolCall = { call: 'call-1', tool: 'send_mail', input: { to: 'a@example.com' } }
const callers = {
  ada: { name: 'ada', key: 'key-of-ada-00000001' },
  bob: { name: 'bob', key: 'key-of-bob-00000002' },
}
/** What a reader that does not read may leave in the hub's memory, in bytes. */
const maxQueuedBytes = 2 * 1_048_576

/** What every channel does; the report names them by these titles. */
export const channelCases: readonly Case<ChannelSubject>[] = [
  {
    title: 'brings the words in the order in which they were said',
    async run(subject) {
      const pieces = Array.from({ length: 300 }, (_, index) => `${index} `)
      await using stage = await setStage(subject, {
        async *counter() {
          yield* pieces
        },
      })
      const said = await allOf((await stage.connect()).ask('counter', 'count'))
      expect(textOf(said)).toBe(pieces.join(''))
      expect(said.at(-1)).toMatchObject({ type: 'done' })
      if (subject.streams) expect(said.filter(({ type }) => type === 'text').length).toBeGreaterThan(1)
    },
  },
  {
    title: 'brings every naughty string there and back as it was',
    async run(subject) {
      const heard: string[] = []
      await using stage = await setStage(subject, {
        async *parrot({ message }) {
          heard.push(message.text)
          yield message.text
        },
      })
      const client = await stage.connect()
      const back: string[] = []
      for (const text of naughtyStrings) back.push(textOf(await allOf(client.ask('parrot', text))))
      expect(back).toEqual(naughtyStrings)
      expect(heard).toEqual(naughtyStrings)
    },
  },
  {
    title: 'brings the first word before the last is thought of',
    skip: noStream,
    async run(subject) {
      const heard = Promise.withResolvers<void>()
      await using stage = await setStage(subject, {
        async *slow() {
          yield 'first '
          await heard.promise
          yield 'last'
        },
      })
      const said: Said[] = []
      for await (const each of stepwise((await stage.connect()).ask('slow', 'speak'))) {
        said.push(each)
        if (textOf(said) === 'first ') heard.resolve()
      }
      expect(textOf(said)).toBe('first last')
    },
  },
  {
    title: 'brings an answer of 10,000 pieces whole',
    async run(subject) {
      const pieces = Array.from({ length: 10_000 }, (_, index) => `${index} `)
      await using stage = await setStage(subject, {
        async *counter() {
          yield* pieces
        },
      })
      const said = await allOf((await stage.connect()).ask('counter', 'count'))
      expect(textOf(said)).toBe(pieces.join(''))
      expect(said.at(-1)).toMatchObject({ type: 'done' })
    },
  },
  {
    title: 'keeps answers at the same time apart',
    async run(subject) {
      const names = ['ada', 'bob', 'cleo', 'dora']
      const all = Promise.withResolvers<void>()
      let arrived = 0
      await using stage = await setStage(subject, {
        async *parrot({ message }) {
          if (++arrived === names.length) all.resolve()
          await all.promise
          for (let piece = 0; piece < 20; piece++) yield `${message.text} `
        },
      })
      const client = await stage.connect()
      const answers = await Promise.all(names.map((name) => allOf(client.ask('parrot', name, { conversation: name }))))
      expect(answers.map(textOf)).toEqual(names.map((name) => `${name} `.repeat(20)))
    },
  },
  {
    title: 'tells a failure before the first word, by its code, and lives on',
    async run(subject) {
      await using stage = await setStage(subject, {
        ...parrot,
        broken() {
          throw new HubError('upstream_quota', { cause: new Error(vendorWords) })
        },
      })
      const client = await stage.connect()
      const said = await allOf(client.ask('broken', 'hello'))
      expect(said.map(({ type }) => type)).toEqual(['failed'])
      expect(said[0]).toMatchObject({ code: 'upstream_quota' })
      expect(client.received()).not.toContain(vendorWords)
      expect(textOf(await allOf(client.ask('parrot', 'still here')))).toBe('still here')
    },
  },
  {
    title: 'tells a failure behind the words that were said, and never calls that an end',
    async run(subject) {
      await using stage = await setStage(subject, {
        async *broken() {
          yield 'I was about '
          yield 'to say '
          throw new HubError('upstream_cut', { cause: new Error(vendorWords) })
        },
      })
      const client = await stage.connect()
      const said = await allOf(client.ask('broken', 'hello'))
      expect(textOf(said)).toBe('I was about to say ')
      expect(said.filter(({ type }) => type !== 'text')).toEqual([
        expect.objectContaining({ type: 'failed', code: 'upstream_cut' }),
      ])
      expect(client.received()).not.toContain(vendorWords)
    },
  },
  {
    title: 'answers what is no message with a code, and takes the next one',
    async run(subject) {
      await using stage = await setStage(subject, parrot)
      const client = await stage.connect()
      const codes: string[] = []
      for (const body of malformed) codes.push(await within(client.sendRaw(body), `an answer to ${body.slice(0, 40)}`))
      expect(codes).toHaveLength(malformed.length)
      expect(codes.filter((code) => code !== 'bad_json' && code !== 'invalid_request')).toEqual([])
      // Where each bot has a door of its own, there is none for a bot that does not exist.
      const code = subject.callsBack ? 'not_found' : 'unknown_bot'
      expect(await allOf(client.ask('nobody', 'hello'))).toMatchObject([{ type: 'failed', code }])
      expect(textOf(await allOf(client.ask('parrot', 'still here')))).toBe('still here')
    },
  },
  {
    title: 'takes no message that could not be kept, and takes it when it comes again',
    async run(subject) {
      let isFull = true
      await using stage = await setStage(subject, parrot, { isFull: () => isFull })
      const client = await stage.connect()
      const ask = () => allOf(client.ask('parrot', 'hello', { conversation: 'c-1', id: 'm-1' }))
      expect(await ask()).toMatchObject([{ type: 'failed', code: 'store_unavailable' }])
      expect(client.received()).not.toContain(driverWords)
      isFull = false
      expect(textOf(await ask())).toBe('hello')
    },
  },
  {
    title: 'lets clients in to the bots of its `bots` option alone',
    skip: oneBot,
    async run(subject) {
      await using stage = await setStage(subject, { ...parrot, hidden: () => 'a secret' }, { offers: ['parrot'] })
      const client = await stage.connect()
      expect(await allOf(client.ask('hidden', 'hello'))).toMatchObject([{ type: 'failed', code: 'unknown_bot' }])
      expect(textOf(await allOf(client.ask('parrot', 'hello')))).toBe('hello')
    },
  },
  {
    title: 'gives the same message the same turn, while it lives and after it has ended',
    async run(subject) {
      let asked = 0
      const speak = Promise.withResolvers<void>()
      const begun = Promise.withResolvers<void>()
      await using stage = await setStage(subject, {
        async *once() {
          asked += 1
          yield 'one '
          begun.resolve()
          await speak.promise
          yield 'two'
        },
      })
      const [first, second] = [await stage.connect(), await stage.connect()]
      const message = { id: 'm-1', conversation: 'c-1' }
      const live = allOf(first.ask('once', 'hello', message))
      await within(begun.promise, 'the first words')
      const attached = allOf(second.ask('once', 'hello', message))
      speak.resolve()
      const replayed = [await live, await attached, await allOf(second.ask('once', 'hello', message))]
      expect(replayed.map(textOf)).toEqual(['one two', 'one two', 'one two'])
      expect(new Set(replayed.map((said) => said.at(-1)?.turn)).size).toBe(1)
      expect(asked).toBe(1)
      const other = await allOf(second.ask('once', 'other words', message))
      expect(other).toMatchObject([{ type: 'failed', code: 'idempotency_mismatch' }])
      expect(asked).toBe(1)
    },
  },
  {
    title: 'goes on for a client that vanished and came back, without a gap or a repeat',
    async run(subject) {
      const gone = Promise.withResolvers<void>()
      const begun = Promise.withResolvers<string>()
      await using stage = await setStage(subject, {
        async *counter({ id }) {
          for (let count = 0; count < 50; count++) yield `${count} `
          begun.resolve(id)
          await gone.promise
          for (let count = 50; count < 100; count++) yield `${count} `
        },
      })
      const first = await stage.connect()
      const heard: Said[] = []
      const reading = (async () => {
        for await (const each of first.ask('counter', 'count')) {
          heard.push(each)
          if (subject.streams && textOf(heard).includes('20 ')) break
        }
      })().catch(() => {})
      const turn = await within(begun.promise, 'the question arrives')
      if (subject.streams) await within(reading, 'the first words')
      first.vanish()
      gone.resolve()
      const last = heard.at(-1)
      const after = last?.type === 'text' ? last.place : 0
      const rest = await allOf((await stage.connect()).resume(turn, after))
      expect(rest.at(-1)).toMatchObject({ type: 'done' })
      expect(textOf(heard) + textOf(rest)).toBe(Array.from({ length: 100 }, (_, index) => `${index} `).join(''))
    },
  },
  {
    title: 'stops following a turn when its client has gone',
    skip: noReader,
    async run(subject) {
      const begun = Promise.withResolvers<string>()
      await using stage = await setStage(subject, {
        ...parrot,
        silent({ id, signal }) {
          begun.resolve(id)
          return new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason as Error)))
        },
      })
      const client = await stage.connect()
      const reading = allOf(client.ask('silent', 'hello')).catch(() => {})
      await within(begun.promise, 'the question arrives')
      await within(stage.follows(1), 'somebody follows the turn')
      client.vanish()
      await within(stage.follows(0), 'nobody follows the turn')
      await within(reading, 'the end of the answer that nobody waits for')
      expect(textOf(await allOf((await stage.connect()).ask('parrot', 'still here')))).toBe('still here')
    },
  },
  {
    title: 'lets a reader that does not read cost no memory, and nobody else a word',
    skip: noStream,
    async run(subject) {
      const done = Promise.withResolvers<string>()
      const piece = 'x'.repeat(60_000)
      await using stage = await setStage(subject, {
        ...parrot,
        async *flood({ id }) {
          for (let count = 0; count < 200; count++) yield piece
          done.resolve(id)
        },
      })
      const idle = await stage.connect()
      await idle.stall('flood', 'speak')
      const turn = await within(done.promise, 'the bot has said all')
      expect(textOf(await allOf((await stage.connect()).ask('parrot', 'still here')))).toBe('still here')
      // Another reader gets everything, which shows that it was there to be had.
      const whole = await allOf((await stage.connect()).resume(turn, 0))
      expect(textOf(whole).length).toBe(piece.length * 200)
      expect(stage.queuedBytes()).toBeLessThan(maxQueuedBytes)
      idle.vanish()
      await within(stage.follows(0), 'nobody follows a turn')
    },
  },
  {
    title: 'tells a client that its turn waits, and goes on with what was decided',
    async run(subject) {
      await using stage = await setStage(subject, {
        async *asking({ answers }) {
          if (answers?.type === 'consent') yield `I may: ${answers.decisions[0]!.result}`
          else {
            yield 'May I? '
            yield { type: 'consent.requested', calls: [{ ...call, alreadyAllowed: false }] }
          }
        },
      })
      for (const result of ['allow_once', 'deny_once'] as const) {
        const client = await stage.connect()
        const said = await allOf(client.ask('asking', 'send it', { conversation: result }))
        expect(textOf(said)).toContain('May I? ')
        const waiting = said.at(-1)
        if (waiting?.type !== 'waiting') throw new Error(`the answer ended with ${JSON.stringify(waiting)}`)
        expect(waiting.calls).toMatchObject([call])
        const second = await allOf(client.decide(waiting.turn, [{ call: call.call, result }]))
        expect(textOf(second)).toContain(`I may: ${result}`)
        // Where nothing streams, the whole answer comes again.
        expect(textOf(second).includes('May I? ')).toBe(!subject.streams)
        expect(second.at(-1)).toMatchObject({ type: 'done', turn: waiting.turn })
        const again = await allOf(client.decide(waiting.turn, [{ call: call.call, result: 'deny_once' }]))
        expect(again).toMatchObject([{ type: 'failed', code: 'already_decided' }])
      }
    },
  },
  {
    title: 'lets the hub stop while a client listens',
    async run(subject) {
      const begun = Promise.withResolvers<void>()
      await using stage = await setStage(subject, {
        async *silent({ signal }) {
          yield 'wait '
          begun.resolve()
          await new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason as Error)))
        },
      })
      const client = await stage.connect()
      const answer = allOf(client.ask('silent', 'hello')).catch(() => [])
      await within(begun.promise, 'the question arrives')
      await within(stage.hub.hub.stop(0), 'the hub stops')
      // Whoever is called back sees nothing of the stop, and would wait for the next start.
      if (subject.callsBack) client.vanish()
      const said = await within(answer, 'the end of the answer')
      expect(said.filter(({ type }) => type === 'done')).toEqual([])
    },
  },
  {
    title: 'shows nobody what another key has asked',
    async run(subject) {
      const conversations = new Set<string>()
      await using stage = await setStage(
        subject,
        {
          parrot({ message, conversation }) {
            conversations.add(conversation.id)
            return message.text
          },
        },
        { callers: [callers.ada, callers.bob] },
      )
      const [ada, bob] = [await stage.connect(callers.ada), await stage.connect(callers.bob)]
      const said = await allOf(ada.ask('parrot', 'mine', { conversation: '1', id: 'm-1' }))
      expect(textOf(said)).toBe('mine')
      const turn = said.at(-1)!.turn!
      expect(await allOf(bob.resume(turn, 0))).toMatchObject([{ type: 'failed', code: 'unknown_turn' }])
      // Names that clients choose do not meet either.
      expect(textOf(await allOf(bob.ask('parrot', 'not yours', { conversation: '1', id: 'm-1' })))).toBe('not yours')
      expect(bob.received()).not.toContain(turn)
      expect(conversations.size).toBe(2)
      expect(textOf(await allOf(ada.resume(turn, 0)))).toBe('mine')
      for (const stranger of [{ name: 'ada' }, { name: 'ada', key: 'key-of-nobody-000003' }]) {
        const refused = await allOf((await stage.connect(stranger)).ask('parrot', 'hello'))
        const code = subject.refusesStrangers ?? 'unauthorized'
        expect(refused).toMatchObject([{ type: 'failed', code }])
      }
    },
  },
]

const parrot = { parrot: ({ message }) => message.text } satisfies Record<string, BotFunction>

const malformed = ['', '{', 'null', '[]', '7', '"hello"', '{}', '{"text":7,"message":7}', '['.repeat(5000), '\u0000']

/** A hub with the channel, what its clients use beside it, and nothing else on it. */
interface Stage extends AsyncDisposable {
  readonly hub: TestHub
  connect(caller?: Caller): Promise<Client>
  /** Resolves when so many readers follow a turn by the channel. */
  follows(count: number): Promise<void>
  /** What all connections of the hub have been given and have not taken. */
  queuedBytes(): number
}

interface StageOptions {
  readonly offers?: readonly string[]
  /** Everybody is let in where there are none. */
  readonly callers?: readonly Required<Caller>[]
  /** Whether the store can keep no message now. */
  readonly isFull?: () => boolean
}

async function setStage(
  subject: ChannelSubject,
  bots: Readonly<Record<string, BotFunction>>,
  { offers, callers: known = [], isFull = () => false }: StageOptions = {},
): Promise<Stage> {
  let following = 0
  let watchers: (() => void)[] = []
  const changed = () => {
    for (const watcher of watchers.splice(0)) watcher()
  }
  const watched = (spec: ChannelSpec) =>
    overHub(spec, (hub) => ({
      async *follow(turn, after, signal) {
        following += 1
        changed()
        try {
          yield* hub.follow(turn, after, signal)
        } finally {
          following -= 1
          changed()
        }
      },
    }))
  await using opening = new AsyncDisposableStack()
  const receivers = new Map<string | undefined, Receiver>()
  const doors: Record<string, ChannelSpec> = {}
  if (subject.callsBack) {
    for (const caller of known.length > 0 ? known : [undefined]) {
      const receiver = opening.use(await openReceiver())
      receivers.set(caller?.name, receiver)
      for (const bot of Object.keys(bots)) {
        doors[doorName(bot, caller)] = watched(subject.mount({}, { bot, caller, callback: receiver.url }))
      }
    }
  } else {
    doors['door'] = watched(subject.mount(offers ? { bots: offers } : {}))
  }
  const sockets = new Set<Socket>()
  const accepted = (message: unknown) => sockets.add((message as { readonly socket: Socket }).socket)
  diagnostics('net.server.socket').subscribe(accepted)
  const hub = await startHub({
    bots: Object.fromEntries(Object.entries(bots).map(([name, bot]) => [name, local(bot)])),
    channels: { ...subject.beside, ...doors },
    store: thatMayBeFull(sqlite({ file: ':memory:' }), isFull),
    ...(known.length > 0 ? { auth: known.map((caller) => apiKey(caller)) } : {}),
  })
  const clients: Client[] = []
  const port = Number(new URL(hub.url).port)
  const opened = opening.move()
  return {
    hub,
    async connect(caller) {
      const client = await subject.connect(hub.url, caller, receivers.get(caller?.name))
      clients.push(client)
      return client
    },
    async follows(count) {
      for (;;) {
        if (following === count) return
        await new Promise<void>((resolve) => watchers.push(resolve))
      }
    },
    queuedBytes: () =>
      [...sockets]
        .filter((socket) => socket.localPort === port)
        .reduce((sum, socket) => sum + socket.writableLength, 0),
    async [Symbol.asyncDispose]() {
      diagnostics('net.server.socket').unsubscribe(accepted)
      for (const client of clients) client.vanish()
      await hub[Symbol.asyncDispose]()
      await opened.disposeAsync()
    },
  }
}

/** A store that keeps no message while it is full. */
export const thatMayBeFull = (spec: StoreSpec, isFull: () => boolean): StoreSpec => ({
  ...spec,
  async create(options, context) {
    const store = await spec.create(options, context)
    return withReplaced(store, {
      accept: async (input: Parameters<typeof store.accept>[0]) => {
        if (isFull()) throw new Error(driverWords)
        return store.accept(input)
      },
    })
  },
})

/** The same channel, with some of what it can ask of the hub replaced. */
export const overHub = (
  spec: ChannelSpec,
  replace: (hub: Dispatcher) => Partial<Pick<Dispatcher, 'send' | 'follow' | 'decide' | 'turn' | 'view' | 'changed'>>,
): ChannelSpec => ({
  ...spec,
  create(options, context: ChannelContext) {
    return spec.create(options, { ...context, hub: withReplaced(context.hub, replace(context.hub)) })
  },
})

/** The same object, with some of its methods replaced. */
function withReplaced<T extends object>(original: T, methods: { readonly [Name in keyof T]?: T[Name] }): T {
  const replaced: Readonly<Record<PropertyKey, unknown>> = { ...methods }
  return new Proxy(original, {
    get(target, name) {
      if (Object.hasOwn(replaced, name)) return replaced[name]
      const value: unknown = Reflect.get(target, name, target)
      // Its private fields are the original's, not the proxy's.
      return typeof value === 'function' ? (value.bind(target) as unknown) : value
    },
  })
}

async function allOf(answer: Answer): Promise<Said[]> {
  const said: Said[] = []
  for await (const each of stepwise(answer)) said.push(each)
  return said
}

async function* stepwise(answer: Answer): Answer {
  const iterator = answer[Symbol.asyncIterator]()
  for (;;) {
    const step = await within(iterator.next(), 'the next word of the answer')
    if (step.done) return
    yield step.value
  }
}

const textOf = (said: readonly Said[]): string => said.map((each) => (each.type === 'text' ? each.text : '')).join('')
