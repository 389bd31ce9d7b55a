import { getEventListeners } from 'node:events'
import { inspect } from 'node:util'
import { expect } from 'vitest'
import { localPrincipal } from '../../core/auth.ts'
import { asHubError, HubError } from '../../core/errors.ts'
import type { FailureCode } from '../../core/errors.ts'
import type { ConsentDecision, HubEvent, PendingCall, ToolCall } from '../../core/events.ts'
import { createLogger } from '../../core/log.ts'
import type { FileRef, Json } from '../../core/message.ts'
import type { Provider, ProviderManifest, ProviderSpec } from '../../core/plugin.ts'
import type { Turn } from '../../core/turn.ts'
import { hastyClock } from '../fakes/hasty-clock.ts'
import { buildProvider, pluginContext, turnOf } from '../fakes/turn.ts'
import { naughtyStrings } from './naughty.ts'
import { answerIn, startScripted } from './scripted.ts'
import type { Dialect, Reply, Script, ScriptedUpstream } from './scripted.ts'
import { registerSuite, within } from './suite.ts'
import type { Case, Subject } from './suite.ts'

/** A provider, and how to try it. */
export interface ProviderSubject extends Subject {
  readonly manifest: ProviderManifest
  /**
   * The factory call of a config, with an upstream at this address. Where there is no `dialect`, the bot answers with
   * the words it is told.
   */
  readonly create: (upstream: string) => ProviderSpec
  /** How its vendor spells; a provider without an upstream has none, and cases that script one are skipped. */
  readonly dialect?: Dialect
  /** The same with an idle timeout of about 100 ms, for a provider that has an upstream. */
  readonly impatient?: (upstream: string) => ProviderSpec
  /** For a provider without an upstream: a bot that never says a word. */
  readonly silent?: () => ProviderSpec
  /** For one without an upstream: a bot that asks consent for `askedCall`, then says `allow` or `deny`. */
  readonly asks?: () => ProviderSpec
  /** For one without an upstream: a bot that asks for the output of `clientCall`, then says it. */
  readonly calls?: () => ProviderSpec
}

/** The call that is put to a user; a provider that runs tools itself has a tool of this name. */
export const askedCall: ToolCall = { call: 'call-1', tool: 'send_mail', input: { to: 'a@example.com' } }
/** The call that a client has to answer; no provider has a tool of this name. */
export const clientCall: ToolCall = { call: 'call-2', tool: 'read_sensor', input: { room: 7 } }

/**
 * Registers the cases that every provider passes.
 * @example
 * providerSuite('murmur', {
 *   manifest: murmur({ key: 'k' }).manifest,
 *   create: (url) => murmur({ url, key: dialect.secret }),
 *   dialect,
 * })
 */
export const providerSuite = (name: string, subject: ProviderSubject): void =>
  registerSuite('provider', name, subject, providerCases)

const noUpstream = ({ dialect }: ProviderSubject) => (dialect ? undefined : 'it has no upstream')
/** Skips what the manifest does not claim. */
const unless =
  (ability: 'consent' | 'feedback' | 'passthrough' | 'toolOutputs' | 'files' | 'resumes') =>
  ({ manifest }: ProviderSubject) =>
    manifest[ability] ? undefined : `its manifest has no \`${ability}\``

/** The vendor's own words, which are not for clients. */
const vendorWords = 'open sesame, says the vendor'

/** What every provider does; the report names them by these titles. */
export const providerCases: readonly Case<ProviderSubject>[] = [
  {
    title: 'says all it was told, and ends once',
    async run(subject) {
      const text = 'Hello, this is 一個答覆 in pieces. '
      await using stage = await setStage(subject, (reply) => reply.tell(...piecesOf(text)))
      const said = await stage.says(turnOf(text))
      expect(spoken(said.events)).toBe(text)
      expect(wholes(said.events)).toEqual([text])
      if (subject.dialect) expect(deltas(said.events)).toEqual(piecesOf(text))
    },
  },
  {
    title: 'brings every naughty string there and back as it was',
    async run(subject) {
      const seen: string[] = []
      await using stage = await setStage(subject, (reply) => {
        const text = subject.dialect!.textOf(reply.request)
        seen.push(text)
        return reply.tell(text)
      })
      const back = await Promise.all(
        naughtyStrings.map(async (text) => wholes((await stage.says(turnOf(text))).events).join()),
      )
      expect(back).toEqual(naughtyStrings)
      if (subject.dialect) expect(seen.toSorted()).toEqual(naughtyStrings.toSorted())
    },
  },
  {
    title: 'reads bytes one at a time, also inside a character',
    skip: noUpstream,
    async run(subject) {
      await using stage = await setStage(subject, async (reply) => {
        const steps = answerIn('一個👩‍🚀é done')
        const words = steps.filter(({ type }) => type === 'say')
        await reply.send()
        const bytes = Buffer.from(reply.spell(...words))
        // From the words on only: a vendor's frames may be long, and every byte is a journey of its own.
        const from = Math.max(0, bytes.findIndex((byte) => byte > 127) - 16)
        await reply.raw(bytes.subarray(0, from))
        for (const byte of bytes.subarray(from)) {
          await reply.raw(Uint8Array.of(byte))
          // Lets the client read it before the next one comes.
          await new Promise((resolve) => setImmediate(resolve))
        }
        await reply.send(...steps.filter((step) => !words.includes(step)))
        reply.end()
      })
      expect(wholes((await stage.says(turnOf('slowly'))).events)).toEqual(['一個👩‍🚀é done'])
    },
  },
  {
    title: 'reads lines that end in CRLF, behind a byte order mark',
    skip: noUpstream,
    async run(subject) {
      await using stage = await setStage(subject, async (reply) => {
        await reply.raw(`\ufeff${reply.spell(...answerIn('as ', 'Windows ', 'does')).replaceAll('\n', '\r\n')}`)
        reply.end()
      })
      expect(wholes((await stage.says(turnOf('hello'))).events)).toEqual(['as Windows does'])
    },
  },
  {
    title: 'passes over frames it does not know',
    skip: noUpstream,
    async run(subject) {
      const { noise } = subject.dialect!
      expect(noise.length).toBeGreaterThan(0)
      await using stage = await setStage(subject, async (reply) => {
        await reply.send({ type: 'say', text: 'still ' })
        for (const frame of noise) await reply.raw(frame)
        await reply.send({ type: 'say', text: 'here' }, { type: 'finish', text: 'still here' }, { type: 'end' })
        reply.end()
      })
      const { events } = await stage.says(turnOf('hello'))
      expect(spoken(events)).toBe('still here')
      expect(wholes(events)).toEqual(['still here'])
    },
  },
  {
    title: 'ends when the answer does, though the upstream stays on the line and goes on',
    skip: noUpstream,
    async run(subject) {
      await using stage = await setStage(subject, async (reply) => {
        await reply.raw(reply.spell(...answerIn('the ', 'end')))
        await reply.send({ type: 'say', text: ' and more' })
      })
      const { events } = await stage.says(turnOf('hello'))
      expect(spoken(events)).toBe('the end')
      expect(wholes(events)).toEqual(['the end'])
      await within(stage.upstream.idle(), 'the connection is let go of')
    },
  },
  ...refusals(),
  {
    title: 'takes no page for an answer, whatever its status says',
    skip: noUpstream,
    async run(subject) {
      const page = '<!doctype html>\n<title>Sign in</title>\n<p>data: hello</p>'
      const { body } = subject.dialect!.refuse(200, vendorWords)
      for (const answer of [
        { type: 'text/html', body: page },
        { type: 'text/event-stream', body: page },
        { type: 'application/json', body },
        { type: 'text/event-stream', body },
        { type: 'text/event-stream', body: '' },
      ]) {
        await using stage = await setStage(subject, (reply) => reply.refuse(answer))
        const { events, error } = await stage.ask(turnOf('hello'))
        expect(stage.upstream.messages, 'the message was sent once').toHaveLength(1)
        expect([spoken(events), ...wholes(events)], `${answer.type}: ${answer.body}`).toEqual([''])
        expectFailure(error)
      }
    },
  },
  {
    title: 'fails when the upstream does in the middle, and keeps what was said',
    skip: noUpstream,
    async run(subject) {
      await using stage = await setStage(subject, async (reply) => {
        await reply.send({ type: 'say', text: 'I was ' }, { type: 'fail', words: vendorWords })
        reply.end()
      })
      const { events, error } = await stage.ask(turnOf('hello'))
      expect(spoken(events)).toBe('I was ')
      expect(wholes(events)).toEqual([])
      expectFailure(error)
      expect(error.failure.ends).toBe('failed')
      expect(error.notStarted).toBe(false)
      expect(JSON.stringify(error.public())).not.toContain(vendorWords)
    },
  },
  ...(['hangs up', 'ends the stream'] as const).map((how): Case<ProviderSubject> => ({
    title:
      how === 'hangs up'
        ? 'takes a hang-up for no end, wherever it comes'
        : 'takes a stream that ends without its last word for no end',
    skip: noUpstream,
    async run(subject) {
      const pieces = ['one ', 'two ', 'three']
      // From nothing but the head to everything but the last word, mostly inside a frame.
      const tenths = Array.from({ length: 11 }, (_, index) => index)
      await Promise.all(tenths.map((tenth) => breakOff(tenth)))

      async function breakOff(tenth: number): Promise<void> {
        await using stage = await setStage(subject, async (reply) => {
          const bytes = Buffer.from(reply.spell(...answerIn(...pieces).slice(0, -1)))
          await reply.raw(bytes.subarray(0, Math.floor((bytes.length * tenth) / 10)))
          if (how === 'hangs up') reply.cut()
          else reply.end()
        })
        const { events, error } = await stage.ask(turnOf('count'))
        expect(stage.upstream.messages, 'the message was sent once').toHaveLength(1)
        expect(pieces.join('').startsWith(spoken(events))).toBe(true)
        expectFailure(error)
        expect([tenth, error.failure.ends, error.notStarted]).toEqual([tenth, 'interrupted', false])
      }
    },
  })),
  {
    title: 'gives up on an upstream that sends heartbeats and no words',
    skip: (subject) =>
      noUpstream(subject) ?? (subject.impatient ? undefined : 'its idle timeout cannot be set (`impatient`)'),
    async run(subject) {
      const beating: NodeJS.Timeout[] = []
      await using stage = await setStage(
        subject,
        async (reply) => {
          // Whoever looks for the answer elsewhere finds that it has begun, and no words.
          stage.upstream.knows()
          await reply.raw(': \n\n')
          beating.push(setInterval(() => void reply.raw(': \n\n'), 20))
          void reply.left.then(() => clearInterval(beating.at(-1)))
        },
        { create: (url) => subject.impatient!(url) },
      )
      try {
        const { events, error } = await stage.ask(turnOf('hello'))
        expect(spoken(events)).toBe('')
        expectFailure(error)
        expect([error.code, error.notStarted]).toEqual(['upstream_silent', false])
      } finally {
        for (const timer of beating) clearInterval(timer)
      }
    },
  },
  {
    title: 'says that nothing was started when nobody can be reached',
    skip: noUpstream,
    async run(subject) {
      const stage = await setStage(subject, (reply) => reply.end())
      await using _ = stage
      await stage.upstream[Symbol.asyncDispose]()
      const { events, error } = await stage.ask(turnOf('hello'))
      expect(spoken(events)).toBe('')
      expectFailure(error)
      expect([error.code, error.notStarted]).toEqual(['upstream_unreachable', true])
    },
  },
  {
    title: 'stops at once when its signal aborts, and leaves the upstream',
    async run(subject) {
      for (const wordsFirst of subject.dialect ? [true, false] : [false]) {
        const reached = Promise.withResolvers<Reply>()
        await using stage = await setStage(
          subject,
          async (reply) => {
            if (wordsFirst) await reply.send({ type: 'say', text: 'wait ' })
            reached.resolve(reply)
          },
          subject.silent ? { create: () => subject.silent!() } : {},
        )
        const abort = new AbortController()
        const reason = new HubError('cancelled')
        const heard = Promise.withResolvers<void>()
        const asked = stage.ask(turnOf('hello', { signal: abort.signal }), (event) => {
          if (event.type === 'message.delta') heard.resolve()
        })
        if (subject.dialect) await within(reached.promise, 'the upstream is asked')
        if (wordsFirst) await within(heard.promise, 'the first words')
        abort.abort(reason)
        const { error } = await within(asked, 'the end of the turn, when its signal aborts')
        expect(error).toBe(reason)
        if (!subject.dialect) continue
        await within((await reached.promise).left, 'the upstream sees the client hang up')
      }
    },
  },
  {
    title: 'does nothing when its signal has aborted before',
    skip: noUpstream,
    async run(subject) {
      await using stage = await setStage(subject, (reply) => reply.tell('too late'))
      const reason = new HubError('cancelled')
      const { events, error } = await stage.ask(turnOf('hello', { signal: AbortSignal.abort(reason) }))
      expect(error).toBe(reason)
      expect(spoken(events)).toBe('')
      expect(stage.upstream.messages).toEqual([])
      // And it was not deaf: the same bot answers when it may.
      expect(spoken((await stage.says(turnOf('hello'))).events)).toBe('too late')
    },
  },
  {
    title: 'keeps turns at the same time apart',
    async run(subject) {
      const names = ['ada', 'bob', 'cleo', 'dora', 'emil']
      const arrived: Reply[] = []
      const all = Promise.withResolvers<void>()
      await using stage = await setStage(subject, async (reply) => {
        arrived.push(reply)
        if (arrived.length === names.length) all.resolve()
        await all.promise
        const name = subject.dialect!.textOf(reply.request)
        // One piece of each in turn, for everybody's pieces to meet on their way.
        for (let piece = 0; piece < 4; piece++) {
          await reply.send({ type: 'say', text: `${name} ` })
          await new Promise((resolve) => setImmediate(resolve))
        }
        await reply.send({ type: 'finish', text: `${name} `.repeat(4) }, { type: 'end' })
        reply.end()
      })
      const said = await Promise.all(
        names.map((name) =>
          stage.says(
            turnOf(subject.dialect ? name : `${name} `.repeat(4), { conversation: { id: `conv_${name}`, name } }),
          ),
        ),
      )
      expect(said.map(({ events }) => spoken(events))).toEqual(names.map((name) => `${name} `.repeat(4)))
    },
  },
  {
    title: 'tells the upstream what was said before',
    skip: (subject) =>
      noUpstream(subject) ?? (subject.manifest.remembers ? 'its upstream remembers (manifest `remembers`)' : undefined),
    async run(subject) {
      const history = [
        { role: 'user', text: 'my name is Ada' },
        { role: 'bot', text: 'Hello, Ada.\nHow are you?' },
      ] as const
      await using stage = await setStage(subject, (reply) => reply.tell('Ada'))
      await stage.says(turnOf('what is my name?', { history }))
      const [request] = stage.upstream.messages
      expect(given(subject.dialect!.historyOf, 'historyOf')(request!)).toEqual(history.map(({ text }) => text))
      expect(subject.dialect!.textOf(request!)).toBe('what is my name?')
    },
  },
  {
    title: 'makes two people of two people, and one of one',
    skip: (subject) =>
      noUpstream(subject) ?? (subject.dialect!.userOf ? undefined : 'its upstream has no place for a user'),
    async run(subject) {
      await using stage = await setStage(subject, (reply) => reply.tell('hello'))
      const people = [
        localPrincipal('ada'),
        localPrincipal('bob'),
        { ...localPrincipal('ada'), key: 'other' },
        localPrincipal(),
        localPrincipal('ada'),
      ]
      for (const principal of people) await stage.says(turnOf('hello', { principal }))
      const users = stage.upstream.messages.map((request) => subject.dialect!.userOf!(request))
      expect(users).toHaveLength(people.length)
      expect(users[4]).toBe(users[0])
      expect(new Set(users).size).toBe(4)
    },
  },
  {
    title: 'ends an answer by an event too large for it, with what was said',
    skip: noUpstream,
    async run(subject) {
      await using stage = await setStage(subject, async (reply) => {
        await reply.send({ type: 'say', text: 'small ' })
        await reply.send({ type: 'say', text: 'x'.repeat(3 * 1_048_576) })
        await reply.tell('more')
      })
      const { events, error } = await stage.ask(turnOf('hello'))
      expect(spoken(events)).toBe('small ')
      expectFailure(error)
      expect(error.code).toBe('answer_too_large')
    },
  },
  {
    title: 'shows its key to the upstream and to nobody else',
    skip: noUpstream,
    async run(subject) {
      const { secret } = subject.dialect!
      await using stage = await setStage(subject, async (reply) => {
        if (reply.nth === 1) return reply.tell('hello')
        // A vendor that repeats what it was sent.
        if (reply.nth === 2) return reply.refuse(subject.dialect!.refuse(401, JSON.stringify(reply.request.headers)))
        await reply.send({ type: 'say', text: 'a' }, { type: 'fail', words: JSON.stringify(reply.request.headers) })
        reply.end()
      })
      const shown: unknown[] = []
      for (const turn of [turnOf('one'), turnOf('two'), turnOf('three')]) {
        const { events, error } = await stage.ask(turn)
        const failure = error === undefined ? undefined : asHubError(error)
        stage.logger.warn({ err: failure?.cause ?? failure }, 'turn failed')
        shown.push(events, failure?.public(), failure?.message)
      }
      expect(stage.upstream.messages).toHaveLength(3)
      for (const request of stage.upstream.requests) expect(JSON.stringify(request.headers)).toContain(secret)
      expect(stage.log.length).toBeGreaterThan(0)
      expect(stage.log.join('\n')).not.toContain(secret)
      expect(inspect(shown, { depth: 20 })).not.toContain(secret)
    },
  },
  {
    title: 'leaves nothing open behind a turn, however it ended',
    async run(subject) {
      await using stage = await setStage(subject, async (reply) => {
        if (reply.nth === 1) return reply.tell('one')
        if (reply.nth === 2) return reply.refuse(subject.dialect!.refuse(500, 'no'))
        await reply.send({ type: 'say', text: 'three ' })
      })
      const signal = new AbortController().signal
      await stage.says(turnOf('one', { signal }))
      if (subject.dialect) expect((await stage.ask(turnOf('two', { signal }))).error).toBeDefined()
      // Whoever listens may leave in the middle.
      let heard = ''
      for await (const event of stepByStep(stage.provider.respond(turnOf('three four', { signal })))) {
        if (event.type !== 'message.delta') continue
        heard = event.text
        break
      }
      expect(heard).toBe('three ')
      await within(stage.upstream.idle(), 'every connection is let go of')
      expect(getEventListeners(signal, 'abort'), 'listeners on the signal of the turn').toHaveLength(0)
      await within(Promise.resolve(stage.provider.close?.()), 'close()')
    },
  },
  {
    title: 'waits for consent, and does what was decided',
    skip: unless('consent'),
    async run(subject) {
      for (const result of ['allow_once', 'deny_once'] as const) {
        await using stage = await setStage(
          subject,
          async (reply) => {
            if (reply.nth > 1) return reply.tell(subject.dialect!.decisionOf!(reply.request))
            await reply.send({ type: 'say', text: 'May I? ' }, { type: 'ask', calls: [askedCall] })
            reply.end()
          },
          subject.dialect ? {} : { create: () => given(subject.asks, 'asks')() },
        )
        const turn = turnOf('send it', { asksConsent: () => true })
        const first = await stage.says(turn)
        const asked = first.events.find((event) => event.type === 'consent.requested')
        expect(asked?.calls).toMatchObject([{ tool: askedCall.tool, input: askedCall.input }])
        const calls: readonly PendingCall[] = asked!.calls
        const decisions: ConsentDecision[] = calls.map(({ call }) => ({ call, result }))
        const second = await stage.says(goingOn(turn, first.events, { type: 'consent', calls, decisions }))
        expect(second.events.filter(({ type }) => type === 'consent.requested')).toEqual([])
        expect(spoken(second.events)).toContain(result === 'allow_once' ? 'allow' : 'deny')
        if (subject.dialect) expect(stage.upstream.messages).toHaveLength(2)
      }
    },
  },
  {
    title: 'waits for what a tool of the client gives, and passes it on',
    skip: unless('toolOutputs'),
    async run(subject) {
      const output = { celsius: 21.5, note: 'naïve ☀️' }
      await using stage = await setStage(
        subject,
        async (reply) => {
          if (reply.nth > 1) return reply.tell(JSON.stringify(subject.dialect!.outputOf!(reply.request)))
          await reply.send({ type: 'call', calls: [clientCall] })
          reply.end()
        },
        subject.dialect ? {} : { create: () => given(subject.calls, 'calls')() },
      )
      const turn = turnOf('how warm is it?')
      const first = await stage.says(turn)
      const asked = first.events.find((event) => event.type === 'tool.outputs_requested')
      expect(asked?.calls).toMatchObject([{ tool: clientCall.tool, input: clientCall.input }])
      const outputs = asked!.calls.map(({ call }) => ({ call, output }))
      const second = await stage.says(goingOn(turn, first.events, { type: 'tool_outputs', outputs }))
      expect(JSON.parse(spoken(second.events))).toEqual(output)
    },
  },
  {
    title: 'takes files up, and names them in the message',
    skip: unless('files'),
    async run(subject) {
      const { filesOf } = subject.dialect ?? {}
      await using stage = await setStage(subject, (reply) => reply.tell('got it'))
      const { signal } = new AbortController()
      const upload = given(stage.provider.upload?.bind(stage.provider), 'upload')
      const bytes = Buffer.from('the bytes of a 文件')
      const { principal, conversation } = turnOf('')
      async function* stream() {
        for (const byte of bytes) yield Uint8Array.of(byte)
      }
      const file = { name: 'naïve "file".txt', mime: 'text/plain', stream: stream() }
      const upstream = await within(upload(file, { bot: 'bot', principal, conversation }, signal), 'the upload')
      expect(stage.upstream.requests.some(({ text }) => text.includes(bytes.toString()))).toBe(true)
      expect(JSON.parse(JSON.stringify(upstream))).toEqual(upstream)
      const files: FileRef[] = [{ id: 'file_1', name: file.name, mime: file.mime, bytes: bytes.length, upstream }]
      await stage.says(turnOf('look', { message: { id: 'm-1', text: 'look', files } }))
      const named = given(filesOf, 'filesOf')(stage.upstream.messages[0]!)
      expect(named).toHaveLength(1)
      expect(JSON.stringify(upstream)).toContain(JSON.stringify(named[0]))
    },
  },
  {
    title: 'tells its upstream what people think of its messages',
    skip: unless('feedback'),
    async run(subject) {
      await using stage = await setStage(subject, (reply) => reply.tell('rate me'))
      const turn = turnOf('hello')
      const { events } = await stage.says(turn)
      const message = events.find((event) => event.type === 'message.completed')!.message
      const tell = given(stage.provider.feedback?.bind(stage.provider), 'feedback')
      const thread = { bot: 'bot', principal: turn.principal, conversation: turn.conversation }
      const ratings = [
        { message, verdict: 'good' },
        { message, verdict: 'bad', comment: 'no "good"\n文' },
      ] as const
      const { signal } = new AbortController()
      for (const rating of ratings) await within(tell(rating, thread, signal), 'the feedback')
      const { ratingOf } = subject.dialect ?? {}
      const told = stage.upstream.requests.flatMap((request) => given(ratingOf, 'ratingOf')(request) ?? [])
      expect(told).toEqual(ratings)
      expect(stage.upstream.messages, 'nothing is asked for it').toHaveLength(1)
    },
  },
  {
    title: 'passes requests of its dialect through as they are, with its own key',
    skip: unless('passthrough'),
    async run(subject) {
      await using stage = await setStage(subject, (reply) => reply.tell('hello'))
      const pass = given(stage.provider.passThrough?.bind(stage.provider), 'passThrough')
      const left = new AbortController()
      const words = ['{"a":', '"文 b"}']
      async function* body() {
        for (const word of words) yield new TextEncoder().encode(word)
      }
      const { principal, conversation } = turnOf('')
      const thread = { bot: 'bot', principal, conversation }
      const headers = { 'content-type': 'application/json' }
      const request = { method: 'POST', path: ['a b/c', 'd'], query: { e: 'f&g' }, headers, body: body() } as const
      const answer = await within(pass(request, thread, left.signal), 'the answer')
      const [seen] = stage.upstream.requests
      expect(seen!.path.endsWith('/a%20b%2Fc/d')).toBe(true)
      expect(seen).toMatchObject({ method: 'POST', query: { e: 'f&g' }, headers, text: words.join('') })
      expect(JSON.stringify(seen!.headers)).toContain(subject.dialect!.secret)
      expect([answer.status, answer.headers['content-type']]).toEqual([200, 'application/json'])
      expect(JSON.stringify(answer.headers)).not.toContain(subject.dialect!.secret)
      expect((await Array.fromAsync(stepByStep(answer.body))).length).toBeGreaterThan(0)

      const refusalOf = (path: readonly string[]) =>
        pass({ method: 'GET', path, query: {}, headers: {} }, undefined, left.signal).then(
          ({ status }) => `it was answered with ${status}`,
          (error: unknown) => error,
        )
      for (const path of [['..', 'x'], ['a', '.'], ['']]) expect(await refusalOf(path)).toBeInstanceOf(HubError)
      expect(stage.upstream.requests, 'nobody gets out of its own address').toHaveLength(1)
      const reason = new HubError('request_timeout')
      left.abort(reason)
      expect(await refusalOf(['a'])).toBe(reason)
    },
  },
  {
    title: 'goes on where a restart of the hub broke it off, without asking again',
    skip: unless('resumes'),
    async run(subject) {
      const whole = 'one two three four'
      await using stage = await setStage(subject, (reply) =>
        // Whoever asks again is answered, and has the words twice.
        reply.nth > 1 ? reply.tell(whole) : reply.send({ type: 'say', text: 'one ' }, { type: 'say', text: 'two ' }),
      )
      const before = new AbortController()
      const heard: HubEvent[] = []
      const turn = turnOf('count', { signal: before.signal })
      const first = await stage.ask(turn, (event) => {
        heard.push(event)
        if (spoken(heard) === 'one two ' && heard.at(-1)?.type === 'upstream')
          before.abort(new HubError('shutting_down'))
        // The last cursor may have come before the last words.
        else if (spoken(heard) === 'one two ') setImmediate(() => before.abort(new HubError('shutting_down')))
      })
      expect(first.error).toMatchObject({ code: 'shutting_down' })
      stage.upstream.knows(
        { type: 'say', text: 'one ' },
        { type: 'say', text: 'two ' },
        { type: 'say', text: 'three ' },
        { type: 'say', text: 'four' },
        { type: 'finish', text: whole },
        { type: 'end' },
      )
      const restarted = await stage.rebuild()
      const second = await within(
        collect(restarted.respond({ ...goingOn(turn, heard), signal: new AbortController().signal })),
        'the rest of the answer',
      )
      expect(second.error).toBeUndefined()
      expect(spoken(heard) + spoken(second.events)).toBe(whole)
      expect(wholes(second.events)).toEqual([whole])
      expect(stage.upstream.messages, 'the message was sent once').toHaveLength(1)
    },
  },
  {
    title: 'never asks again after a cut: it finds the rest, or says that it cannot know',
    skip: noUpstream,
    async run(subject) {
      const whole = 'one two three'
      await using stage = await setStage(subject, async (reply) => {
        await reply.send({ type: 'say', text: 'one ' })
        stage.upstream.knows(
          { type: 'say', text: 'one ' },
          { type: 'say', text: 'two ' },
          { type: 'say', text: 'three' },
          { type: 'finish', text: whole },
          { type: 'end' },
        )
        reply.cut()
      })
      const { events, error } = await stage.ask(turnOf('count'))
      expect(stage.upstream.messages, 'the message was sent once').toHaveLength(1)
      if (error === undefined) {
        expect([spoken(events), ...wholes(events)]).toEqual([whole, whole])
        return
      }
      expectFailure(error)
      expect([spoken(events), error.failure.ends]).toEqual(['one ', 'interrupted'])
      expect(subject.manifest.resumes ?? false, 'a provider that resumes finds the rest').toBe(false)
    },
  },
]

/** Each is asked once, says nothing, and has the vendor's words in its cause alone. */
function refusals(): readonly Case<ProviderSubject>[] {
  // Made when a case runs: the cases themselves may be made long before.
  const inNinetySeconds = () => new Date(Math.ceil(Date.now() / 1000) * 1000 + 90_000).toUTCString()
  const table: readonly {
    readonly title: string
    readonly status: number
    readonly headers?: () => Readonly<Record<string, string>>
    readonly code: FailureCode
    readonly notStarted: boolean
    readonly wait?: readonly [number, number]
  }[] = [
    { title: 'says whose fault a 401 is', status: 401, code: 'upstream_auth', notStarted: false },
    { title: 'tells a 400 from trouble that passes', status: 400, code: 'upstream_rejected', notStarted: false },
    {
      title: 'says of a 429 that nothing was started, and how long to wait',
      status: 429,
      headers: () => ({ 'retry-after': '7' }),
      code: 'upstream_rate_limited',
      notStarted: true,
      wait: [7000, 7000],
    },
    {
      title: 'reads a Retry-After that is a date',
      status: 429,
      headers: () => ({ 'retry-after': inNinetySeconds() }),
      code: 'upstream_rate_limited',
      notStarted: true,
      wait: [60_000, 91_000],
    },
    { title: 'does not take a 500 for nothing started', status: 500, code: 'upstream_failed', notStarted: false },
  ]
  return table.map(({ title, status, headers, code, notStarted, wait }) => ({
    title,
    skip: noUpstream,
    async run(subject) {
      await using stage = await setStage(subject, (reply) =>
        reply.refuse({ status, ...subject.dialect!.refuse(status, vendorWords) }, headers?.()),
      )
      const { events, error } = await stage.ask(turnOf('hello'))
      expect(stage.upstream.messages, 'the message was sent once').toHaveLength(1)
      expect([spoken(events), ...wholes(events)]).toEqual([''])
      expectFailure(error)
      expect([error.code, error.notStarted]).toEqual([code, notStarted])
      if (wait) expect(error.retryAfterMs).toBeGreaterThanOrEqual(wait[0])
      if (wait) expect(error.retryAfterMs).toBeLessThanOrEqual(wait[1])
      expect(JSON.stringify(error.public())).not.toContain(vendorWords)
      expect(error.upstream?.status).toBe(status)
    },
  }))
}

/** A provider before a scripted upstream. */
interface Stage extends AsyncDisposable {
  readonly spec: ProviderSpec
  readonly provider: Provider
  readonly upstream: ScriptedUpstream
  readonly logger: ReturnType<typeof createLogger>
  /** Lines of the log, as the hub writes them. */
  readonly log: readonly string[]
  /** The events of a turn, and what it ended with. */
  ask(turn: Turn, onEvent?: (event: HubEvent) => void): Promise<Leg>
  /** The same for a turn that must end well. */
  says(turn: Turn): Promise<Leg>
  /** A new provider, as after a restart. */
  rebuild(): Promise<Provider>
}

interface Leg {
  readonly events: readonly HubEvent[]
  readonly error: unknown
}

/** An upstream that nobody asks, for a provider that has none. */
const mute: Dialect = {
  secret: '',
  isMessage: () => true,
  speak: () => () => '',
  refuse: () => ({ body: '' }),
  noise: [],
  textOf: () => '',
}

async function setStage(
  subject: ProviderSubject,
  script: Script,
  { create = subject.create }: { readonly create?: (upstream: string) => ProviderSpec } = {},
): Promise<Stage> {
  const upstream = await startScripted(subject.dialect ?? mute, script)
  const log: string[] = []
  const logger = createLogger({ write: (line: string) => void log.push(line) }, 'trace')
  const clock = hastyClock()
  const spec = create(upstream.url)
  const built: Provider[] = []
  const rebuild = async () => {
    const provider = await buildProvider(spec, pluginContext({ logger, clock }))
    built.push(provider)
    return provider
  }
  const provider = await rebuild()
  const ask: Stage['ask'] = (turn, onEvent) => within(collect(provider.respond(turn), onEvent), 'the end of the turn')
  return {
    spec,
    provider,
    upstream,
    logger,
    log,
    ask,
    async says(turn) {
      const leg = await ask(turn)
      if (leg.error !== undefined) throw new Error('the turn failed', { cause: leg.error })
      return leg
    },
    rebuild,
    async [Symbol.asyncDispose]() {
      for (const each of built) await each.close?.()
      await upstream[Symbol.asyncDispose]()
    },
  }
}

/** All events of one leg, checked against what every consumer of them relies on. */
async function collect(events: AsyncIterable<HubEvent>, onEvent?: (event: HubEvent) => void): Promise<Leg> {
  const collected: HubEvent[] = []
  let error: unknown
  try {
    for await (const event of events) {
      collected.push(event)
      onEvent?.(event)
    }
  } catch (thrown) {
    error = thrown
  }
  checkGrammar(collected)
  return { events: collected, error }
}

function checkGrammar(events: readonly HubEvent[]): void {
  const said = new Map<string, string>()
  const done = new Set<string>()
  for (const event of events) {
    expect(JSON.parse(JSON.stringify(event)), 'an event is JSON').toEqual(event)
    if (event.type === 'message.delta' || event.type === 'message.completed') {
      expect(done.has(event.message), `${event.type} after the message was whole`).toBe(false)
    }
    if (event.type === 'message.delta') said.set(event.message, `${said.get(event.message) ?? ''}${event.text}`)
    if (event.type === 'message.completed') done.add(event.message)
  }
}

/** The turn as the runner hands it to the provider when it goes on. */
function goingOn(turn: Turn, events: readonly HubEvent[], answers?: Turn['answers']): Turn {
  const cursors = events.filter((event) => event.type === 'upstream')
  const resume = cursors.at(-1)?.cursor
  const thread = cursors.findLast((event) => event.thread !== undefined)?.thread
  const text = spoken(events)
  const message = events.find((event) => event.type === 'message.delta')?.message
  const completed = events.some((event) => event.type === 'message.completed')
  return {
    ...turn,
    ...(resume === undefined ? {} : { resume: reparsed(resume) }),
    ...(thread === undefined ? {} : { thread: reparsed(thread) }),
    ...(answers ? { answers } : {}),
    shown: message === undefined ? [] : [{ id: message, text, completed }],
  }
}

const reparsed = (value: Json): Json => JSON.parse(JSON.stringify(value)) as Json

const deltas = (events: readonly HubEvent[]): string[] =>
  events.flatMap((event) => (event.type === 'message.delta' ? [event.text] : []))
const spoken = (events: readonly HubEvent[]): string => deltas(events).join('')
const wholes = (events: readonly HubEvent[]): string[] =>
  events.flatMap((event) => (event.type === 'message.completed' ? [event.text] : []))

const piecesOf = (text: string): string[] => text.split(/(?<=\s)/)

function expectFailure(error: unknown): asserts error is HubError {
  expect(error, 'what the turn ended with').toBeInstanceOf(HubError)
  expect((error as HubError).failure.ends, `${(error as HubError).code} may end a turn`).toBeDefined()
}

/** What a case cannot do without; whoever claims an ability has to bring it. */
function given<T>(value: T | undefined, name: string): T {
  if (value === undefined) throw new Error(`the manifest claims an ability, but \`${name}\` is not there`)
  return value
}

/** The same stream, with a limit on every step of it. */
async function* stepByStep<T>(source: AsyncIterable<T>): AsyncGenerator<T> {
  const iterator = source[Symbol.asyncIterator]()
  try {
    for (;;) {
      const step = await within(iterator.next(), 'the next event')
      if (step.done) return
      yield step.value
    }
  } finally {
    await within(Promise.resolve(iterator.return?.()), 'the stream lets go when its reader leaves')
  }
}
