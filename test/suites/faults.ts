import type { ChannelContext, ChannelSpec, RequestContext } from '../../core/channel.ts'
import type { Dispatcher } from '../../core/dispatcher.ts'
import { HubError } from '../../core/errors.ts'
import type { HubEvent, NumberedEvent } from '../../core/events.ts'
import type { Provider, ProviderSpec } from '../../core/plugin.ts'
import type { RecordCondition } from '../../core/records.ts'
import type { Delivery, Page, Store, TurnRow } from '../../core/store.ts'
import type { Respond, Turn } from '../../core/turn.ts'
import { restSubject, sseSubject, websocketSubject } from '../channels/clients.ts'
import { webhookSubject } from '../channels/webhook.subject.ts'
import { murmurSubject } from '../examples/murmur.ts'
import { asgardSubject } from '../plugins/asgard/dialect.ts'
import { cozeSubject } from '../plugins/coze/dialect.ts'
import { openSqlite, sqliteSubject } from '../plugins/sqlite.subject.ts'
import { overHub } from './channel.ts'
import type { ChannelSubject } from './channel.ts'
import type { ProviderSubject } from './provider.ts'
import type { StoreSubject } from './store.ts'

/** A subject that is broken on purpose, and the case that has to find it out. */
export interface Fault<S> {
  /** What is wrong, behind "a provider that": `does not hear its signal`. */
  readonly does: string
  /** The title of the case. */
  readonly caughtBy: string
  /** What the case says then, so that nothing else passes for having caught it. */
  readonly says: RegExp
  /** The case waits for something that never comes; it is not given long. */
  readonly hangs?: boolean
  readonly subject: S
}

const saysAll = 'says all it was told, and ends once'
const naughty = 'brings every naughty string there and back as it was'
const wait429 = 'says of a 429 that nothing was started, and how long to wait'
const refused500 = 'does not take a 500 for nothing started'
const stops = 'stops at once when its signal aborts, and leaves the upstream'
const consents = 'waits for consent, and does what was decided'
const rates = 'tells its upstream what people think of its messages'
const restarts = 'goes on where a restart of the hub broke it off, without asking again'

/** Providers, each with one fault. */
export const providerFaults: readonly Fault<ProviderSubject>[] = [
  {
    does: 'keeps what people say of its messages to itself',
    caughtBy: rates,
    says: /good/,
    subject: providing(asgardSubject, ({ feedback, ...rest }) => ({
      ...rest,
      feedback: ({ message, verdict }, ...more) => feedback!({ message, verdict }, ...more),
    })),
  },
  {
    does: 'lets requests that are passed through out of its own address',
    caughtBy: 'passes requests of its dialect through as they are, with its own key',
    says: /answered with 200/,
    subject: providing(asgardSubject, ({ passThrough, ...rest }) => ({
      ...rest,
      passThrough: ({ path, ...request }, ...more) =>
        passThrough!({ ...request, path: path.filter((segment) => segment !== '..') }, ...more),
    })),
  },
  {
    does: 'loses the last word',
    caughtBy: saysAll,
    says: /this is 一個答覆 in/,
    subject: responding(async function* (turn, respond) {
      let held: HubEvent | undefined
      for await (const event of respond(turn)) {
        if (held && !(held.type === 'message.delta' && event.type === 'message.completed')) yield held
        held = event
      }
      if (held) yield held
    }),
  },
  {
    does: 'says its words in another order',
    caughtBy: saysAll,
    says: /expected '.*Hello, '/,
    subject: responding(async function* (turn, respond) {
      const words: HubEvent[] = []
      for await (const event of respond(turn)) {
        if (event.type === 'message.delta') words.unshift(event)
        else yield* [...words.splice(0), event]
      }
    }),
  },
  {
    does: 'ends twice',
    caughtBy: saysAll,
    says: /after the message was whole/,
    subject: responding(async function* (turn, respond) {
      for await (const event of respond(turn)) {
        yield event
        if (event.type === 'message.completed') yield event
      }
    }),
  },
  {
    does: 'trims its words',
    caughtBy: naughty,
    says: /leading and trailing/,
    subject: mapping((event) => ('text' in event && event.text ? { ...event, text: event.text.trim() } : event)),
  },
  {
    does: 'decodes every chunk of bytes on its own',
    caughtBy: 'reads bytes one at a time, also inside a character',
    says: /一個/,
    subject: fetching((body) => {
      const encoder = new TextEncoder()
      return body.pipeThrough(
        new TransformStream<Uint8Array, Uint8Array>({
          transform: (chunk, out) => out.enqueue(encoder.encode(new TextDecoder().decode(chunk))),
        }),
      )
    }),
  },
  {
    does: 'takes a CR for a part of its line',
    caughtBy: 'reads lines that end in CRLF, behind a byte order mark',
    says: /the turn failed/,
    subject: rewriting((text) => text.replaceAll('\r\n', '\\r\n')),
  },
  {
    does: 'breaks at a frame it does not know',
    caughtBy: 'passes over frames it does not know',
    says: /the turn failed/,
    subject: rewriting((text) => {
      if (text.includes('weather')) throw new Error('what is a weather?')
      return text
    }),
  },
  {
    does: 'waits for the connection to close, though the answer is over',
    caughtBy: 'ends when the answer does, though the upstream stays on the line and goes on',
    says: /the end of the turn: nothing of it/,
    hangs: true,
    subject: rewriting((text) => text.replaceAll('event: end', 'event: nothing')),
  },
  {
    does: 'calls a 429 something that may have been started',
    caughtBy: wait429,
    says: /upstream_rate_limited/,
    subject: failing((error) => changed(error, { notStarted: false })),
  },
  {
    does: 'does not read Retry-After',
    caughtBy: wait429,
    says: /undefined/,
    subject: failing(
      (error) => new HubError(error.code, { notStarted: error.notStarted, ...upstreamOf(error), cause: error.cause }),
    ),
  },
  {
    does: 'takes a Retry-After that is a date for none',
    caughtBy: 'reads a Retry-After that is a date',
    says: /undefined/,
    subject: failing((error) =>
      (error.retryAfterMs ?? 0) > 10_000 ? new HubError(error.code, { notStarted: true, ...upstreamOf(error) }) : error,
    ),
  },
  {
    does: 'calls a 500 nothing started',
    caughtBy: refused500,
    says: /upstream_failed/,
    subject: failing((error) => changed(error, { notStarted: true })),
  },
  {
    does: 'tries a 500 again by itself',
    caughtBy: refused500,
    says: /the message was sent once/,
    subject: again('upstream_failed'),
  },
  {
    does: "passes the vendor's words on to clients",
    caughtBy: refused500,
    says: /open sesame/,
    subject: failing((error) => changed(error, { message: (error.cause as Error).message })),
  },
  {
    does: 'takes a 401 for trouble that passes',
    caughtBy: 'says whose fault a 401 is',
    says: /upstream_auth/,
    subject: failing((error) => (error.code === 'upstream_auth' ? new HubError('upstream_failed') : error)),
  },
  {
    does: 'takes a page for an answer',
    caughtBy: 'takes no page for an answer, whatever its status says',
    says: /text\/html/,
    subject: withFetch((fetch) => async (input, init) => {
      const response = await fetch(input, init)
      if (!response.headers.get('content-type')?.startsWith('text/html')) return response
      const word = JSON.stringify({ text: await response.text() })
      return new Response(`event: word\ndata: ${word}\n\nevent: end\ndata: {}\n\n`, {
        headers: { 'content-type': 'text/event-stream' },
      })
    }),
  },
  {
    does: 'calls a failure in the middle nothing started',
    caughtBy: 'fails when the upstream does in the middle, and keeps what was said',
    says: /expected true to be false/,
    subject: failing((error) => changed(error, { notStarted: true })),
  },
  {
    does: 'takes a hang-up for the end',
    caughtBy: 'takes a hang-up for no end, wherever it comes',
    says: /what the turn ended with/,
    subject: swallowing('upstream_cut'),
  },
  {
    does: 'takes the end of the bytes for the end of the answer',
    caughtBy: 'takes a stream that ends without its last word for no end',
    says: /what the turn ended with/,
    subject: swallowing('upstream_cut', { type: 'message.completed', message: 'answer', text: 'one two three' }),
  },
  {
    does: 'asks again after it has spoken',
    caughtBy: 'never asks again after a cut: it finds the rest, or says that it cannot know',
    says: /the message was sent once/,
    subject: again('upstream_cut'),
  },
  {
    does: 'takes heartbeats for words',
    caughtBy: 'gives up on an upstream that sends heartbeats and no words',
    says: /the end of the turn: nothing of it/,
    hangs: true,
    subject: { ...murmurSubject, impatient: murmurSubject.create },
  },
  {
    does: 'calls an upstream that nobody can reach a cut',
    caughtBy: 'says that nothing was started when nobody can be reached',
    says: /upstream_unreachable/,
    subject: failing((error) => (error.code === 'upstream_unreachable' ? new HubError('upstream_cut') : error)),
  },
  {
    does: 'does not hear its signal',
    caughtBy: stops,
    says: /the end of the turn: nothing of it/,
    hangs: true,
    subject: responding((turn, respond) => respond(deaf(turn))),
  },
  {
    does: 'stops without telling the upstream',
    caughtBy: stops,
    says: /the upstream sees the client hang up: nothing of it/,
    hangs: true,
    subject: responding(async function* (turn, respond) {
      const iterator = respond(deaf(turn))[Symbol.asyncIterator]()
      const aborted = new Promise<never>((_, reject) =>
        turn.signal.addEventListener('abort', () => reject(turn.signal.reason as Error)),
      )
      for (;;) {
        const step = await Promise.race([iterator.next(), aborted])
        if (step.done) return
        yield step.value
      }
    }),
  },
  {
    does: 'stops with an error of its own',
    caughtBy: stops,
    says: /toBe|Object.is/,
    subject: failing((error) => (error.code === 'cancelled' ? new HubError('upstream_cut') : error)),
  },
  {
    does: 'asks the upstream though its turn was stopped before',
    caughtBy: 'does nothing when its signal has aborted before',
    says: /\[\]|to deeply equal/,
    subject: responding(async function* (turn, respond) {
      for await (const event of respond(deaf(turn))) {
        turn.signal.throwIfAborted()
        yield event
      }
    }),
  },
  {
    does: 'mixes up turns at the same time',
    caughtBy: 'keeps turns at the same time apart',
    says: /emil/,
    subject: (() => {
      let latest: Turn
      return responding(async function* (turn, respond) {
        latest = turn
        await new Promise((resolve) => setImmediate(resolve))
        yield* respond({ ...turn, message: latest.message })
      })
    })(),
  },
  {
    does: 'forgets what was said before',
    caughtBy: 'tells the upstream what was said before',
    says: /my name is Ada|\[\]/,
    subject: responding((turn, respond) => respond({ ...turn, history: [] })),
  },
  {
    does: 'is one user for everybody',
    caughtBy: 'makes two people of two people, and one of one',
    says: /expected 1 to be 4/,
    subject: responding((turn, respond) => {
      const { user: _, ...principal } = turn.principal
      return respond({ ...turn, principal: { ...principal, key: 'local' } })
    }),
  },
  {
    does: 'passes over an event that is too large',
    caughtBy: 'ends an answer by an event too large for it, with what was said',
    says: /what the turn ended with/,
    subject: swallowing('answer_too_large'),
  },
  {
    does: 'puts its key into its errors',
    caughtBy: 'shows its key to the upstream and to nobody else',
    says: /murmur-key/,
    subject: failing((error) => changed(error, { message: `The key ${murmurSubject.dialect.secret} did not do.` })),
  },
  {
    does: 'leaves a listener on the signal of every turn',
    caughtBy: 'leaves nothing open behind a turn, however it ended',
    says: /listeners on the signal/,
    subject: responding((turn, respond) => {
      turn.signal.addEventListener('abort', () => {})
      return respond(turn)
    }),
  },
  {
    does: 'keeps its connection when its reader leaves',
    caughtBy: 'leaves nothing open behind a turn, however it ended',
    says: /every connection is let go of: nothing of it/,
    hangs: true,
    subject: responding((turn, respond) => {
      const iterator = respond(turn)[Symbol.asyncIterator]()
      return { [Symbol.asyncIterator]: () => ({ next: () => iterator.next() }) }
    }),
  },
  {
    does: 'claims to take files, and takes none',
    caughtBy: 'takes files up, and names them in the message',
    says: /claims an ability/,
    subject: claiming({ files: true }),
  },
  {
    does: 'claims to go on after a restart, and cannot',
    caughtBy: restarts,
    says: /one two one two/,
    subject: claiming({ resumes: true }),
  },
  {
    does: 'claims to find the rest after a cut, and does not',
    caughtBy: 'never asks again after a cut: it finds the rest, or says that it cannot know',
    says: /a provider that resumes finds the rest/,
    subject: claiming({ resumes: true }),
  },
  {
    does: 'forgets the files of a message',
    caughtBy: 'takes files up, and names them in the message',
    says: /length/,
    subject: responding(
      (turn, respond) => respond({ ...turn, message: { ...turn.message, files: [] } }),
      asgardSubject,
    ),
  },
  {
    does: 'allows what was denied',
    caughtBy: consents,
    says: /to contain 'deny'/,
    subject: responding((turn, respond) => {
      if (turn.answers?.type !== 'consent') return respond(turn)
      const decisions = turn.answers.decisions.map(({ call }) => ({ call, result: 'allow_once' as const }))
      return respond({ ...turn, answers: { ...turn.answers, decisions } })
    }, asgardSubject),
  },
  {
    does: 'uses a tool before anybody was asked',
    caughtBy: consents,
    says: /undefined/,
    subject: responding((turn, respond) => respond({ ...turn, asksConsent: () => false }), cozeSubject),
  },
  {
    does: 'passes on nothing of what a tool of the client gave',
    caughtBy: 'waits for what a tool of the client gives, and passes it on',
    says: /celsius|null/,
    subject: responding((turn, respond) => {
      if (turn.answers?.type !== 'tool_outputs') return respond(turn)
      const outputs = turn.answers.outputs.map(({ call }) => ({ call, output: 'null' }))
      return respond({ ...turn, answers: { type: 'tool_outputs', outputs } })
    }, cozeSubject),
  },
  {
    does: 'asks again after a restart',
    caughtBy: restarts,
    says: /one two one two/,
    subject: responding((turn, respond) => {
      const { resume: _, ...fresh } = turn
      return respond({ ...fresh, shown: [] })
    }, asgardSubject),
  },
  {
    does: 'repeats after a restart what was shown before it',
    caughtBy: restarts,
    says: /one two one/,
    subject: responding((turn, respond) => respond({ ...turn, shown: [] }), asgardSubject),
  },
]

const order = 'brings the words in the order in which they were said'
const duplicates = 'gives the same message the same turn, while it lives and after it has ended'
const comesBack = 'goes on for a client that vanished and came back, without a gap or a repeat'
const waits = 'tells a client that its turn waits, and goes on with what was decided'

/** Channels, each with one fault. */
export const channelFaults: readonly Fault<ChannelSubject>[] = [
  {
    does: 'loses a word',
    caughtBy: order,
    says: /expected '0 1 /,
    subject: reading(sseSubject, (events) => events.filter((event) => event.seq !== 7)),
  },
  {
    does: 'turns words round',
    caughtBy: order,
    says: /expected '/,
    subject: reading(websocketSubject, (events) => (events.length > 10 ? events.toReversed() : events)),
  },
  {
    does: 'lets a text end its line, and so forge an event',
    caughtBy: naughty,
    says: /expected|JSON/,
    subject: writing((write) => (text) => write(text.replaceAll('\\n', '\n'))),
  },
  {
    does: 'holds all words back until the last',
    caughtBy: 'brings the first word before the last is thought of',
    says: /the next word of the answer: nothing of it/,
    hangs: true,
    subject: following(sseSubject, async function* (follow, turn, after, signal) {
      const all: NumberedEvent[] = []
      for await (const events of follow(turn, after, signal)) all.push(...events)
      yield all
    }),
  },
  {
    does: 'stops reading after 5,000 events',
    caughtBy: 'brings an answer of 10,000 pieces whole',
    says: /expected '0 1 /,
    subject: following(sseSubject, async function* (follow, turn, after, signal) {
      for await (const events of follow(turn, after, signal)) {
        yield events
        if (events.at(-1)!.seq > 5000) return
      }
    }),
  },
  {
    does: 'mixes up the answers of a client',
    caughtBy: 'keeps answers at the same time apart',
    says: /ada|dora/,
    subject: (() => {
      let latest = ''
      return hubbing(sseSubject, (hub) => ({
        async send(caller, inbound) {
          const sent = await hub.send(caller, inbound)
          latest = sent.turn.id
          return sent
        },
        async *follow(_turn, after, signal) {
          await new Promise((resolve) => setTimeout(resolve, 100))
          yield* hub.follow(latest, after, signal)
        },
      }))
    })(),
  },
  {
    does: 'calls a failure the end',
    caughtBy: 'tells a failure behind the words that were said, and never calls that an end',
    says: /done/,
    subject: reading(sseSubject, (events) =>
      events.map((event) =>
        event.type === 'turn.interrupted'
          ? { type: 'turn.completed' as const, seq: event.seq, text: event.text }
          : event,
      ),
    ),
  },
  {
    does: 'says nothing of a failure before the first word',
    caughtBy: 'tells a failure before the first word, by its code, and lives on',
    says: /failed/,
    subject: reading(sseSubject, (events) => events.filter(({ type }) => type !== 'turn.failed')),
  },
  {
    does: "shows the vendor's words",
    caughtBy: 'tells a failure before the first word, by its code, and lives on',
    says: /not to contain|open sesame/,
    subject: reading(websocketSubject, (events) =>
      events.map((event) =>
        event.type === 'turn.failed'
          ? { ...event, error: { ...event.error, message: 'open sesame, says the vendor' } }
          : event,
      ),
    ),
  },
  {
    does: 'hangs up on what is no message',
    caughtBy: 'answers what is no message with a code, and takes the next one',
    says: /fetch failed|terminated/,
    subject: handling(async (ctx, handle) => {
      try {
        await handle(ctx)
      } catch (error) {
        ctx.respond = false
        ctx.res.destroy()
        throw error
      }
    }),
  },
  {
    does: 'calls what is no message a fault of its own',
    caughtBy: 'answers what is no message with a code, and takes the next one',
    says: /internal/,
    subject: handling(async (ctx, handle) => {
      try {
        await handle(ctx)
      } catch (error) {
        throw error instanceof HubError && error.code === 'bad_json' ? new Error('unexpected token') : error
      }
    }),
  },
  {
    does: 'lets clients in to every bot',
    caughtBy: 'lets clients in to the bots of its `bots` option alone',
    says: /a secret/,
    subject: inContext(restSubject, () => ({ offers: () => true })),
  },
  {
    does: 'begins a new turn when a message comes again',
    caughtBy: duplicates,
    says: /expected|one two/,
    subject: hubbing(sseSubject, (hub) => ({
      send: (caller, inbound) => hub.send(caller, { ...inbound, id: undefined }),
    })),
  },
  {
    does: 'takes other words under the same id for the same message',
    caughtBy: duplicates,
    says: /'one '/,
    subject: hubbing(sseSubject, (hub) => ({
      async send(caller, inbound) {
        try {
          return await hub.send(caller, inbound)
        } catch (error) {
          if (!(error instanceof HubError) || !error.turn) throw error
          return { turn: await hub.turn(caller, error.turn), created: false }
        }
      },
    })),
  },
  {
    does: 'repeats a word to a client that came back',
    caughtBy: comesBack,
    says: /expected '0 1 /,
    subject: following(sseSubject, (follow, turn, after, signal) => follow(turn, Math.max(0, after - 1), signal)),
  },
  {
    does: 'keeps a word from a client that came back',
    caughtBy: comesBack,
    says: /expected '0 1 /,
    subject: following(sseSubject, (follow, turn, after, signal) => follow(turn, after && after + 1, signal)),
  },
  {
    does: 'follows a turn for a client that has gone',
    caughtBy: 'stops following a turn when its client has gone',
    says: /nobody follows the turn: nothing of it/,
    hangs: true,
    subject: following(sseSubject, (follow, turn, after) => follow(turn, after, new AbortController().signal)),
  },
  {
    does: 'does not wait for its reader',
    caughtBy: 'lets a reader that does not read cost no memory, and nobody else a word',
    says: /to be less than/,
    subject: writing((write) => (text) => {
      write(text)
      return true
    }),
  },
  {
    does: 'does not say that a turn waits',
    caughtBy: waits,
    says: /the next word of the answer: nothing of it/,
    hangs: true,
    subject: reading(websocketSubject, (events) => events.filter(({ type }) => type !== 'turn.waiting')),
  },
  {
    does: 'allows what was denied',
    caughtBy: waits,
    says: /deny_once/,
    subject: hubbing(sseSubject, (hub) => ({
      decide: (turn, principal, decisions) =>
        hub.decide(
          turn,
          principal,
          decisions.map(({ call }) => ({ call, result: 'allow_once' })),
        ),
    })),
  },
  {
    does: 'keeps the hub from stopping',
    caughtBy: 'lets the hub stop while a client listens',
    says: /the hub stops: nothing of it/,
    hangs: true,
    subject: closing(websocketSubject, () => new Promise((resolve) => setTimeout(resolve, 1500))),
  },
  {
    does: "shows everybody everybody's turns",
    caughtBy: 'shows nobody what another key has asked',
    says: /mine/,
    subject: hubbing(sseSubject, (hub) => ({
      turn: (principal, id) => hub.turn({ ...principal, key: 'ada' }, id),
    })),
  },
  {
    does: 'acknowledges a message before it is durable',
    caughtBy: 'takes no message that could not be kept, and takes it when it comes again',
    says: /the next word of the answer: nothing of it/,
    hangs: true,
    subject: hubbing(webhookSubject, (hub) => ({
      async send(caller, inbound) {
        const turn = (id: string) => ({ turn: { id } as TurnRow, created: true })
        return hub.send(caller, inbound).catch(() => turn('turn_of_a_message_that_is_lost'))
      },
    })),
  },
  {
    does: 'calls back without a signature',
    caughtBy: order,
    says: /signature|headers/,
    subject: mounting(webhookSubject, (spec) => ({
      ...spec,
      async create(options, context) {
        const channel = await spec.create(options, context)
        return {
          ...channel,
          async deliver({ type, at, turn }) {
            const timestamp = new Date(at).toISOString()
            const body = JSON.stringify({ type, timestamp, data: await context.hub.view(turn) })
            await fetch(callbackOf(options), { method: 'POST', body })
          },
        }
      },
    })),
  },
  {
    does: 'acts as one key for all',
    caughtBy: 'shows nobody what another key has asked',
    says: /not yours/,
    subject: inContext(webhookSubject, ({ actAs }) => ({ actAs: () => actAs('ada') })),
  },
]

/** Where a webhook of the suite calls back. */
const callbackOf = (options: unknown): string => (options as { readonly callback: string }).callback

const known = 'knows a message again by its id, in its conversation only'
const ends = 'writes the end of a turn, its record and the claim of the next in one commit'
const owes = 'owes what is owed in the commit that ends or parks a turn, until it is delivered'
const oneHub = 'belongs to one hub at a time, and to the next as soon as the first has gone'

/** Stores, each with one fault. */
export const storeFaults: readonly Fault<StoreSubject>[] = [
  {
    does: "shows a bot everybody's records",
    caughtBy: "never shows or touches anybody else's records",
    says: /to deeply equal \[\]/,
    subject: storing((store) => ({
      findRecords: (scope, query) => store.findRecords({ ...scope, user: 'ada' }, query),
    })),
  },
  {
    does: 'adds the answer of a turn although its bot has made it early',
    caughtBy: "lets a turn's own answer be made early, and ends with two records all the same",
    says: /to match object \[ \{ role: 'user' \}/,
    subject: storing((store) => ({
      addRecords: (owner, records, at) =>
        store.addRecords(
          owner,
          records.map((each) => ({ ...each, own: false })),
          at,
        ),
    })),
  },
  {
    does: 'shows a bot what it was made to forget',
    caughtBy: 'shows a bot that was made to forget only what came after, and everybody else all of it',
    says: /to deeply equal/,
    subject: storing((store) => ({
      findRecords: (scope, query) => store.findRecords(scope, { ...query, remembered: false }),
    })),
  },
  {
    does: 'takes "any of" for "all of"',
    caughtBy: 'finds by any condition what a plain filter finds, in any order and page',
    says: /Property failed/,
    subject: storing((store) => {
      const turned = (where: RecordCondition): RecordCondition =>
        where.type === 'any' ? { ...where, type: 'all' } : where
      return {
        findRecords: (scope, { where, ...query }) =>
          store.findRecords(scope, { ...query, ...(where ? { where: turned(where) } : {}) }),
      }
    }),
  },
  {
    does: 'reads a conversation by time',
    caughtBy: 'reads a conversation from its beginning, turn by turn',
    says: /turn_\d+ user/,
    subject: storing((store) => ({
      async recordsByTurn(conversation, options) {
        const page = await store.recordsByTurn(conversation, options)
        return { ...page, items: page.items.toSorted((a, b) => Number(a.id) - Number(b.id)) }
      },
    })),
  },
  {
    does: 'gives a conversation to whoever wrote in it last',
    caughtBy: 'makes a conversation before its first message, which says whose it is',
    says: /bob/,
    subject: storing((store) => ({
      async accept(input) {
        const result = await store.accept(input)
        return 'turn' in result && input.user ? { ...result, turn: { ...result.turn, user: input.user } } : result
      },
    })),
  },
  {
    does: 'shows a sandbox to every key',
    caughtBy: 'keeps what a bot says of a conversation: its title, its status and the sandboxes in it',
    says: /conv_/,
    subject: storing((store) => ({
      sandboxUsers: (_, sandbox) => store.sandboxUsers({ bot: 'bot', key: 'local' }, sandbox),
    })),
  },
  {
    does: 'forgets who said what of an answer',
    caughtBy: 'keeps what people think of answers, the last word of each on a message',
    says: /deeply equal/,
    subject: storing((store) => ({
      addFeedback: (feedback, at) => store.addFeedback({ ...feedback, speaker: 'anybody' }, at),
    })),
  },
  {
    does: 'clears nothing',
    caughtBy: 'shows a model one section of a conversation, and its client all',
    says: /greater than 0/,
    subject: storing(() => ({ clear: async () => {} })),
  },
  {
    does: 'accepts a message twice',
    caughtBy: known,
    says: /duplicate/,
    subject: storing((store) => ({
      accept: (input) => store.accept({ ...input, message: { ...input.message, id: crypto.randomUUID() } }),
    })),
  },
  {
    does: 'makes several turns of a message that comes many times at once',
    caughtBy: 'makes one turn of a message that comes many times at once',
    says: /length/,
    subject: storing((store) => {
      const seen = new Set<string>()
      return {
        async accept(input) {
          // Looks first and writes later, with a gap between the two.
          const isNew = !seen.has(input.message.id)
          await new Promise((resolve) => setImmediate(resolve))
          seen.add(input.message.id)
          const id = isNew ? crypto.randomUUID() : input.message.id
          return store.accept({ ...input, message: { ...input.message, id } })
        },
      }
    }),
  },
  {
    does: 'forgets a message when its turn has ended',
    caughtBy: 'knows a message again after its turn has ended',
    says: /created/,
    subject: storing((store) => ({
      async accept(input) {
        const result = await store.accept(input)
        if (result.outcome !== 'duplicate' || result.turn.status !== 'completed') return result
        return { outcome: 'created', turn: result.turn }
      },
    })),
  },
  {
    does: 'takes another message under the same id for the same',
    caughtBy: 'tells another message under the same id',
    says: /mismatch/,
    subject: storing((store) => ({
      async accept(input) {
        const result = await store.accept(input)
        return result.outcome === 'mismatch' ? { ...result, outcome: 'duplicate' } : result
      },
    })),
  },
  {
    does: 'has one list of names for all users',
    caughtBy: known,
    says: /created|mismatch/,
    subject: storing((store) => ({
      accept(input) {
        const { user: _, ...anybody } = input
        return store.accept(anybody)
      },
    })),
  },
  {
    does: 'runs two turns of a conversation at once',
    caughtBy: 'runs the first message of a conversation and queues those behind it',
    says: /queued/,
    subject: storing((store) => ({
      async accept(input) {
        const result = await store.accept(input)
        return 'turn' in result ? { ...result, turn: { ...result.turn, status: 'running' } } : result
      },
    })),
  },
  {
    does: 'has a queue without an end',
    caughtBy: 'refuses what the queue has no place for, and leaves no trace of it',
    says: /queue_full/,
    subject: storing((store) => ({ accept: (input) => store.accept({ ...input, queueLimit: 1000 }) })),
  },
  {
    does: 'brings text into another form',
    caughtBy: 'brings every naughty string back as it was',
    says: /to deeply equal/,
    subject: storing((store) => ({
      append: (steps) => store.append(JSON.parse(JSON.stringify(steps).normalize('NFC')) as typeof steps),
    })),
  },
  {
    does: 'reads one event too many',
    caughtBy: 'keeps events in order, and reads them from any place',
    says: /17/,
    subject: storing((store) => ({ read: (turn, after, limit) => store.read(turn, Math.max(0, after - 1), limit) })),
  },
  {
    does: 'leaves the next turn in the queue',
    caughtBy: ends,
    says: /to match object/,
    subject: storing((store) => ({
      append: async (steps) => ({ ...(await store.append(steps)), claimed: [] }),
    })),
  },
  {
    does: 'writes no record of the answer',
    caughtBy: ends,
    says: /to deeply equal/,
    subject: storing((store) => ({
      async records(conversation, options) {
        const page = await store.records(conversation, options)
        return { ...page, items: page.items.filter(({ role }) => role !== 'bot') }
      },
    })),
  },
  {
    does: 'lets a writer of an older epoch write',
    caughtBy: 'refuses a writer of another epoch, and writes the steps beside it',
    says: /to deeply equal/,
    subject: storing(unfenced),
  },
  {
    does: 'does not fence the writer of an earlier process',
    caughtBy: 'takes over what was left, and fences the writer before',
    says: /to deeply equal/,
    subject: storing(unfenced),
  },
  {
    does: 'leaves lie what an earlier process left',
    caughtBy: 'takes over what was left, and fences the writer before',
    says: /to deeply equal/,
    subject: storing((store) => ({
      recover: async (at) => ({ ...(await store.recover(at)), broken: [] }),
    })),
  },
  {
    does: 'shows an admin of some bots the turns of all',
    caughtBy: 'finds turns, conversations and audit entries of everybody, by what is asked for',
    says: /to deeply equal/,
    subject: storing((store) => ({
      searchTurns: (search) => store.searchTurns({ ...search, bots: undefined }),
    })),
  },
  {
    does: 'loses when events were written',
    caughtBy: 'keeps when a turn left the queue and when its events were written, as long as they are there',
    says: /to deeply equal/,
    subject: storing((store) => ({
      readTimed: async (...given) => (await store.readTimed(...given)).map(({ event }) => ({ event })),
    })),
  },
  {
    does: 'writes behind the end of a turn',
    caughtBy: 'refuses to write to a turn that has ended',
    says: /refused: \[\]/,
    subject: storing((store) => ({
      append: async (steps) => ({ ...(await store.append(steps)), refused: [] }),
    })),
  },
  {
    does: 'commits the steps of a commit one by one',
    caughtBy: 'writes all of a commit or nothing of it',
    says: /running/,
    subject: storing((store) => ({
      async append(steps) {
        const results = []
        for (const step of steps) results.push(await store.append([step]))
        return {
          refused: results.flatMap(({ refused }) => refused),
          claimed: results.flatMap(({ claimed }) => claimed),
          deliveries: results.reduce((sum, { deliveries }) => sum + deliveries, 0),
        }
      },
    })),
  },
  {
    does: 'loses the cursor',
    caughtBy: 'keeps the cursor, the thread, and until when a turn waits',
    says: /cursor/,
    subject: storing((store) => ({
      append: (steps) =>
        store.append(
          steps.map((step) => {
            const { cursor: _, ...rest } = step
            return rest
          }),
        ),
    })),
  },
  {
    does: 'keeps everything in memory',
    caughtBy: 'has everything again when it is opened again',
    says: /expected/,
    subject: { open: (folder) => openSqlite(folder, { file: ':memory:' }) },
  },
  {
    does: 'lets a second hub in',
    caughtBy: oneHub,
    says: /resolved|rejects/,
    subject: {
      open: (folder) => sqliteSubject.open(folder).catch(() => openSqlite(folder, { file: ':memory:' })),
    },
  },
  {
    does: 'never lets go of its lock',
    caughtBy: oneHub,
    says: /Another hub has/,
    subject: storing((store) => {
      let isClosed = false
      return {
        // The second time is the clearing up behind the case.
        async close() {
          if (isClosed) await store.close()
          isClosed = true
        },
      }
    }),
  },
  {
    does: 'shows history by time',
    caughtBy: 'shows a model what was said before a turn, by turns and not by time',
    says: /to deeply equal/,
    subject: storing((store) => ({
      async history(conversation, { limit }) {
        const { items } = await store.records(conversation, { limit })
        return items.map(({ role, text }) => ({ role, text }))
      },
    })),
  },
  {
    does: 'shows a model half an answer',
    caughtBy: 'shows a model no partial and no empty answer, and its client both',
    says: /half/,
    subject: storing((store) => ({
      async history(conversation, { limit }) {
        const { items } = await store.records(conversation, { limit })
        return items.filter(({ text }) => text !== '').map(({ role, text }) => ({ role, text }))
      },
    })),
  },
  {
    does: 'loses an item between two pages',
    caughtBy: 'pages from the newest back, oldest first inside a page',
    says: /to deeply equal/,
    subject: storing((store) => ({
      async records(conversation, options) {
        const page = await store.records(conversation, options)
        return page.before ? { ...page, items: page.items.slice(1) } : page
      },
    })),
  },
  {
    does: 'gives pages without an end',
    caughtBy: 'pages from the newest back, oldest first inside a page',
    says: /no end/,
    subject: storing((store) => {
      const endless = <Item>(page: Page<Item>): Page<Item> => ({ ...page, before: page.before ?? '1' })
      return { records: async (conversation, options) => endless(await store.records(conversation, options)) }
    }),
  },
  {
    does: 'shows files in every conversation',
    caughtBy: 'shows files in their conversation alone, in the order they are asked for',
    says: /to deeply equal/,
    subject: storing((store) => {
      const homes = new Map<string, string>()
      return {
        async addFile(file, at) {
          homes.set(file.id, file.conversation)
          await store.addFile(file, at)
        },
        files: (conversation, ids) => store.files(homes.get(ids[0] ?? '') ?? conversation, ids),
      }
    }),
  },
  {
    does: 'keeps the events of a forgotten conversation',
    caughtBy: 'forgets a conversation with everything in it, and nothing else',
    says: /to deeply equal/,
    subject: storing((store) => {
      const kept = new Map<string, readonly NumberedEvent[]>()
      return {
        async append(steps) {
          const result = await store.append(steps)
          for (const { turn } of steps) kept.set(turn, await store.read(turn, 0, 100))
          return result
        },
        async read(turn, after, limit) {
          const events = await store.read(turn, after, limit)
          return events.length > 0 ? events : (kept.get(turn) ?? [])
        },
      }
    }),
  },
  {
    does: 'tells nobody of a conversation that is deleted',
    caughtBy: 'forgets a conversation with everything in it, and nothing else',
    says: /expected \[\] to deeply equal/,
    subject: storing((store) => ({ forget: (id) => store.forget(id) })),
  },
  {
    does: 'lets the deletion of a conversation take what hooks are owed',
    caughtBy: 'owes hooks the end of a turn alone, with all that is to be said, also when the turn is gone',
    says: /to match object \[/,
    subject: storing((store) => {
      let gone = false
      return {
        async forget(id, owed) {
          gone = true
          await store.forget(id, owed)
        },
        async dueDeliveries(now, underWay) {
          const { due, ...next } = await store.dueDeliveries(now, underWay)
          return { ...next, due: gone ? due.filter(({ lane }) => !lane.startsWith('hook:')) : due }
        },
      }
    }),
  },
  {
    does: 'takes a caught request for a new one when its turn is forgotten',
    caughtBy: 'knows a signed request again while it counts, also when its turn is forgotten',
    says: /'mismatch'/,
    subject: storing((store) => ({
      accept({ ...message }) {
        delete message.receipt
        return store.accept(message)
      },
    })),
  },
  {
    does: 'forgets that an operator has a conversation',
    caughtBy: 'shows no bot a message of a conversation that was handed over, and keeps what an operator says in it',
    says: /to match object \{ id: 'conv/,
    subject: storing(() => ({ handOver: async () => {} })),
  },
  {
    does: 'goes on sending to a receiver that refused',
    caughtBy: 'closes a lane whose receiver refuses, and opens it when somebody has that tried again',
    says: /to deeply equal/,
    subject: storing((store) => ({
      settleDelivery: (id, state) =>
        store.settleDelivery(id, state.state === 'refused' ? { ...state, state: 'failed' } : state),
    })),
  },
  {
    does: 'forgets how far a delivery has got',
    caughtBy: 'keeps how far each lane has got with a turn that it is owed, also for the next process',
    says: /to deeply equal/,
    subject: storing(() => ({ keepProgress: async () => {} })),
  },
  {
    does: 'forgets what it owes when it is delivered once and in vain',
    caughtBy: owes,
    says: /to deeply equal \{ due: \[\], nextAt/,
    subject: storing((store) => ({ settleDelivery: (id) => store.settleDelivery(id, { state: 'delivered' }) })),
  },
  {
    does: 'goes on owing a pause behind which there is another one',
    caughtBy: 'owes one pause of a turn at a time, also where an earlier one is being told of',
    says: /to match object/,
    subject: storing((store) => {
      const seen = new Map<string, Delivery>()
      return {
        async dueDeliveries(now, underWay) {
          for (const each of (await store.dueDeliveries(now, underWay)).due) seen.set(each.id, each)
          return { due: [...seen.values()] }
        },
      }
    }),
  },
  {
    does: 'owes nothing for a turn that waits',
    caughtBy: owes,
    says: /expected \+0 to be 1/,
    subject: storing((store) => ({
      async append(steps) {
        const result = await store.append(steps)
        return steps.some(({ status }) => status === 'waiting') ? { ...result, deliveries: 0 } : result
      },
    })),
  },
  {
    does: 'refuses a message that it must take',
    caughtBy: 'takes a message that cannot run, when it must, and ends its turn at once',
    says: /the message was not accepted: queue_full/,
    subject: storing((store) => ({
      accept(input) {
        const { refusal: _, ...refusable } = input
        return store.accept(refusable)
      },
    })),
  },
]

// ---- How faults are planted ----

type BrokenRespond = (turn: Turn, respond: Respond) => AsyncIterable<HubEvent>

/** A provider whose `respond` goes through another one. */
function responding(broken: BrokenRespond, subject: ProviderSubject = murmurSubject): ProviderSubject {
  return providing(subject, ({ respond, ...rest }) => ({ ...rest, respond: (turn) => broken(turn, respond) }))
}

/** A provider with its events changed. */
function mapping(change: (event: HubEvent) => HubEvent): ProviderSubject {
  return responding(async function* (turn, respond) {
    for await (const event of respond(turn)) yield change(event)
  })
}

/** A provider with its errors changed. */
function failing(change: (error: HubError) => unknown): ProviderSubject {
  return responding(async function* (turn, respond) {
    try {
      yield* respond(turn)
    } catch (error) {
      throw error instanceof HubError ? change(error) : error
    }
  })
}

/** A provider that does not mind an error. */
function swallowing(code: HubError['code'], last?: HubEvent): ProviderSubject {
  return responding(async function* (turn, respond) {
    try {
      yield* respond(turn)
    } catch (error) {
      if (!(error instanceof HubError) || error.code !== code) throw error
      if (last) yield last
    }
  })
}

/** A provider that tries again by itself. */
function again(code: HubError['code']): ProviderSubject {
  return responding(async function* (turn, respond) {
    try {
      yield* respond(turn)
    } catch (error) {
      if (!(error instanceof HubError) || error.code !== code) throw error
      yield* respond(turn)
    }
  })
}

/** A provider whose manifest says more than it can do. */
function claiming(abilities: Partial<ProviderSubject['manifest']>): ProviderSubject {
  return { ...murmurSubject, manifest: { ...murmurSubject.manifest, ...abilities } }
}

/** A provider that reads other bytes than its upstream wrote. */
function fetching(change: (body: ReadableStream<Uint8Array>) => ReadableStream<Uint8Array>): ProviderSubject {
  return withFetch((fetch) => async (input, init) => {
    const response = await fetch(input, init)
    return new Response(response.body && change(response.body), response)
  })
}

/** The same, chunk by chunk as text. */
function rewriting(change: (text: string) => string): ProviderSubject {
  const encoder = new TextEncoder()
  return fetching((body) => {
    const decoder = new TextDecoder('utf-8', { ignoreBOM: true })
    return body.pipeThrough(
      new TransformStream<Uint8Array, Uint8Array>({
        transform: (chunk, out) => out.enqueue(encoder.encode(change(decoder.decode(chunk, { stream: true })))),
      }),
    )
  })
}

function withFetch(change: (real: typeof fetch) => typeof fetch): ProviderSubject {
  return building(murmurSubject, (spec) => ({
    ...spec,
    create: (options, context) => spec.create(options, { ...context, fetch: change(context.fetch) }),
  }))
}

function providing(subject: ProviderSubject, change: (provider: Provider) => Provider): ProviderSubject {
  return building(subject, (spec) => ({
    ...spec,
    create: async (options, context) => change(await spec.create(options, context)),
  }))
}

function building(subject: ProviderSubject, change: (spec: ProviderSpec) => ProviderSpec): ProviderSubject {
  const { create, impatient } = subject
  return {
    ...subject,
    create: (url) => change(create(url)),
    ...(impatient ? { impatient: (url: string) => change(impatient(url)) } : {}),
  }
}

const deaf = (turn: Turn): Turn => ({ ...turn, signal: new AbortController().signal })

const upstreamOf = ({ upstream }: HubError) => (upstream ? { upstream } : {})

const changed = (error: HubError, changes: { readonly notStarted?: boolean; readonly message?: string }): HubError =>
  new HubError(error.code, {
    notStarted: error.notStarted,
    ...(error.retryAfterMs === undefined ? {} : { retryAfterMs: error.retryAfterMs }),
    ...upstreamOf(error),
    cause: error.cause,
    ...changes,
  })

type Follow = Dispatcher['follow']

/** A channel that asks something else of the hub. */
function hubbing(subject: ChannelSubject, replace: Parameters<typeof overHub>[1]): ChannelSubject {
  return mounting(subject, (spec) => overHub(spec, replace))
}

/** A channel that follows turns in another way. */
function following(
  subject: ChannelSubject,
  broken: (follow: Follow, ...rest: Parameters<Follow>) => ReturnType<Follow>,
): ChannelSubject {
  return hubbing(subject, (hub) => ({
    follow: (...rest) => broken((turn, after, signal) => hub.follow(turn, after, signal), ...rest),
  }))
}

/** A channel that gets other events than were written. */
function reading(
  subject: ChannelSubject,
  change: (events: readonly NumberedEvent[]) => readonly NumberedEvent[],
): ChannelSubject {
  return following(subject, async function* (follow, turn, after, signal) {
    for await (const events of follow(turn, after, signal)) yield change(events)
  })
}

/** A channel with another context. */
function inContext(
  subject: ChannelSubject,
  change: (context: ChannelContext) => Partial<ChannelContext>,
): ChannelSubject {
  return mounting(subject, (spec) => ({
    ...spec,
    create: (options, context) => spec.create(options, { ...context, ...change(context) }),
  }))
}

/** An SSE channel whose requests go through another function first. */
function handling(
  broken: (ctx: RequestContext, handle: (ctx: RequestContext) => Promise<void> | void) => Promise<void>,
): ChannelSubject {
  return mounting(sseSubject, (spec) => ({
    ...spec,
    async create(options, context) {
      const { routes = [], ...rest } = await spec.create(options, context)
      return {
        ...rest,
        routes: routes.map((route) => ({ ...route, handle: (ctx: RequestContext) => broken(ctx, route.handle) })),
      }
    },
  }))
}

/** An SSE channel that writes its events in another way: the hub writes them to the socket, each write one chunk of HTTP. */
function writing(change: (write: (text: string) => boolean) => (text: string) => boolean): ChannelSubject {
  return handling(async (ctx, handle) => {
    const socket = ctx.res.socket!
    const write = socket.write.bind(socket)
    const writeEvents = change((text) => write(chunkOf(text)))
    socket.write = (text: string | Uint8Array) => {
      const isEvents = typeof text === 'string' && /^[0-9a-f]+\r\nid: /.test(text)
      return isEvents ? writeEvents(text.slice(text.indexOf('\n') + 1, -2)) : write(text)
    }
    ctx.res.once('close', () => (socket.write = write))
    await handle(ctx)
  })
}

const chunkOf = (text: string): string => `${Buffer.byteLength(text).toString(16)}\r\n${text}\r\n`

/** A channel that takes its time to close. */
function closing(subject: ChannelSubject, wait: () => Promise<unknown>): ChannelSubject {
  return mounting(subject, (spec) => ({
    ...spec,
    async create(options, context) {
      const channel = await spec.create(options, context)
      return {
        ...channel,
        async close() {
          await wait()
          await channel.close?.()
        },
      }
    },
  }))
}

function mounting(subject: ChannelSubject, change: (spec: ChannelSpec) => ChannelSpec): ChannelSubject {
  return { ...subject, mount: (...where) => change(subject.mount(...where)) }
}

/** A SQLite store with some of its methods replaced. */
function storing(replace: (store: Store) => Partial<Store>): StoreSubject {
  return {
    async open(folder) {
      const store = await sqliteSubject.open(folder)
      const replaced: Readonly<Record<PropertyKey, unknown>> = { ...replace(store) }
      return new Proxy(store, {
        get(target, name) {
          if (Object.hasOwn(replaced, name)) return replaced[name]
          const value: unknown = Reflect.get(target, name, target)
          return typeof value === 'function' ? (value.bind(target) as unknown) : value
        },
      })
    },
  }
}

/** Writes whatever the epoch of the writer. */
function unfenced(store: Store): Partial<Store> {
  return {
    async append(steps) {
      const current = await Promise.all(
        steps.map(async (step) => ({ ...step, epoch: (await store.turn(step.turn))?.epoch ?? step.epoch })),
      )
      return store.append(current)
    },
  }
}
