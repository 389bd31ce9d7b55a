import { readFileSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { demoPieces, demoWords, languageOf } from '../../core/demo.ts'
import config from '../../hub.config.ts'
import type { NumberedEvent, TurnObject } from '../../index.ts'
import { jsonOf, readEvents, startHub } from '../support/hub.ts'
import type { TestHub } from '../support/hub.ts'
import type { Frame } from '../support/socket.ts'
import { connectSocket } from '../support/socket.ts'

// Some words take ten seconds, and on a busy machine longer.
vi.setConfig({ testTimeout: 60_000, hookTimeout: 60_000 })

const page = readFileSync(new URL('../../docs/demo-bots.md', import.meta.url), 'utf8')

/** The rows of the table whose first column has this title, by their first column and the titles of the others. */
function table(title: string): Record<string, Record<string, string>> {
  const rows = (page.split(`\n| ${title} `)[1] ?? '')
    .split('\n\n')[0]!
    .split('\n')
    .map((line) => line.split('|'))
  const [head = [], , ...body] = rows.map((cells) => cells.map((cell) => cell.trim().replaceAll(/^`|`$/g, '')))
  // The title itself was cut away, so the head begins with what followed it.
  const bots = head.slice(1, -1)
  return Object.fromEntries(
    body.map(([, first, ...cells]) => [first!, Object.fromEntries(bots.map((bot, index) => [bot, cells[index]!]))]),
  )
}

const words = table('Word')
const decisions = table('Decision on `/consent`')
const bots = ['main', 'asgard-demo', 'coze-demo'] as const
const channels = ['rest', 'sse', 'websocket'] as const
type ChannelName = (typeof channels)[number]

/** The event that a cell begins with, and the code it names where it is a failure. */
function promised(cell: string): { readonly ending: string; readonly code: string | undefined } {
  const [, ending] = /^`?(turn\.\w+)`/.exec(cell)!
  return { ending: ending!, code: ending === 'turn.failed' ? /: `(\w+)`\.?$|`(\w+_\w+)`/.exec(cell)?.[1] : undefined }
}

/** How a client saw an answer, or the part of it up to a pause. */
interface Outcome {
  readonly ending: string
  readonly text: string
  readonly code: string | undefined
  readonly turn: string
  readonly calls: readonly { readonly call: string; readonly tool: string }[]
  /** Of those channels that show them. */
  readonly events: readonly NumberedEvent[]
}

const ofTurn = ({ status, text, error, turn, waiting }: TurnObject): Outcome => ({
  ending: `turn.${status}`,
  text,
  code: error?.code,
  turn,
  calls: waiting?.calls ?? [],
  events: [],
})

function ofEvents(events: readonly NumberedEvent[], turn: string): Outcome {
  const last = events.at(-1)!
  return {
    ending: last.type,
    text: 'text' in last ? last.text : '',
    code: 'error' in last ? last.error.code : undefined,
    turn,
    calls: events.flatMap((event) => (event.type === 'consent.requested' ? event.calls : [])),
    events,
  }
}

function ofFrames(frames: readonly Frame[]): Outcome {
  const last = frames.at(-1)!
  return {
    ending: { stream: 'turn.completed', error: 'turn.failed', waiting: 'turn.waiting' }[last.type] ?? last.type,
    text: frames.map(({ content = '' }) => content).join(''),
    code: last.code,
    turn: last.turn!,
    calls: last.calls ?? [],
    events: [],
  }
}

/** Says one thing over each channel. */
const ask: Record<ChannelName, (hub: TestHub, bot: string, text: string) => Promise<Outcome>> = {
  rest: async (hub, bot, text) => ofTurn(await hub.ask(bot, text)),
  async sse(hub, bot, text) {
    const events = await hub.stream(bot, text)
    return ofEvents(events, events[0]?.type === 'turn.started' ? events[0].turn : '')
  },
  async websocket(hub, bot, text) {
    using socket = await connectSocket(hub.url)
    return ofFrames(await socket.chat({ agentId: bot, message: text }))
  },
}

/** Says /consent and decides, all over one channel; the outcome is of what came after the pause. */
async function consent(hub: TestHub, bot: string, result: string, channel: ChannelName): Promise<Outcome> {
  if (channel === 'websocket') {
    using socket = await connectSocket(hub.url)
    const frames = await socket.chat({ agentId: bot, message: '/consent', id: 'c' })
    const { turn, calls } = ofFrames(frames)
    socket.send({ type: 'consent', turn, decisions: calls.map(({ call }) => ({ call, result })) })
    await socket.frame(({ type, done }) => done === true || type === 'error')
    return { ...ofFrames(socket.frames.slice(frames.length)), calls }
  }
  const { turn, calls } = await ask[channel](hub, bot, '/consent')
  const body = { decisions: calls.map(({ call }) => ({ call, result })) }
  const answer = await hub.api(`/turns/${turn}/consent`, body, channel === 'sse' ? { accept: 'text/event-stream' } : {})
  return channel === 'sse'
    ? { ...ofEvents(await readEvents(answer), turn), calls }
    : { ...ofTurn(await jsonOf<TurnObject>(answer)), calls }
}

let hub: TestHub
const outcomes = new Map<string, Promise<Outcome>>()
const outcome = (...of: string[]): Promise<Outcome> => outcomes.get(of.join(' '))!

const results = ['allow_once', 'allow_always', 'deny_once'] as const
const greetings = { en: 'hello there', 'zh-Hant': '你們好嗎', 'zh-Hans': '你们好吗' } as const

beforeAll(async () => {
  hub = await startHub({ ...config, listen: { port: 0 } })
  const begin = (work: Promise<Outcome>, ...of: string[]) => {
    // Whoever awaits it sees the failure.
    work.catch(() => {})
    outcomes.set(of.join(' '), work)
  }
  // All at once: some words take ten seconds.
  for (const bot of bots) {
    for (const channel of channels) {
      for (const word of demoWords) begin(ask[channel](hub, bot, word), bot, channel, word)
      for (const text of Object.values(greetings)) begin(ask[channel](hub, bot, text), bot, channel, text)
      for (const result of results) begin(consent(hub, bot, result, channel), bot, channel, result)
    }
  }
})
afterAll(() => hub[Symbol.asyncDispose]())

const everywhere = bots.flatMap((bot) => channels.map((channel) => [bot, channel] as const))

describe('the page about the demonstration bots', () => {
  it('has a row for every word and a column for every bot', () => {
    expect(Object.keys(words)).toEqual([...demoWords])
    for (const row of [...Object.values(words), ...Object.values(decisions)])
      expect(Object.keys(row)).toEqual([...bots])
  })
})

describe.each(everywhere)('%s over %s', (bot, channel) => {
  it.each(demoWords)('ends %s as its page says', async (word) => {
    const { ending, code } = promised(words[word]![bot]!)
    const seen = await outcome(bot, channel, word)
    expect([seen.ending, seen.code]).toEqual([ending, code])
    const { text } = await outcome(bot, 'rest', word)
    expect(seen.text).toBe(ending === 'turn.waiting' ? '' : text)
    if (ending === 'turn.completed') expect(text).not.toBe('')
    if (ending === 'turn.waiting') expect(seen.calls).toEqual([expect.objectContaining({ tool: 'send_mail' })])
  })

  it.each(results)('goes on after %s as its page says', async (result) => {
    const [, row] = Object.entries(decisions).find(([title]) => title.includes(result))!
    const seen = await outcome(bot, channel, result)
    expect(seen.calls).toHaveLength(1)
    expect(seen.ending).toBe(promised(row[bot]!).ending)
    expect(seen.text).not.toBe('')
    const [allowed, denied] = await Promise.all(['allow_once', 'deny_once'].map((each) => outcome(bot, channel, each)))
    expect(allowed!.text).not.toBe(denied!.text)
  })

  it.each(Object.entries(greetings))('answers in the language of the question: %s', async (language, text) => {
    const seen = await outcome(bot, channel, text)
    expect(seen.ending).toBe('turn.completed')
    expect(seen.text).toContain(text)
    expect(languageOf(seen.text)).toBe(language)
  })
})

describe.each(bots)('the events of %s', (bot) => {
  const eventsOf = async (word: string) => (await outcome(bot, 'sse', word)).events
  const of = <Type extends NumberedEvent['type']>(events: readonly NumberedEvent[], type: Type) =>
    events.filter((event): event is Extract<NumberedEvent, { type: Type }> => event.type === type)

  it.each(['/long', '/slow'] as const)('have every word of %s in one message', async (word) => {
    const events = await eventsOf(word)
    expect(of(events, 'message.delta').map(({ text }) => text)).toEqual(demoPieces(word))
    expect(of(events, 'message.completed')).toHaveLength(1)
  })

  it.each(Object.values(greetings))('have at least three deltas, in one message: %s', async (text) => {
    const events = await eventsOf(text)
    expect(of(events, 'message.delta').length).toBeGreaterThanOrEqual(3)
    expect(of(events, 'message.completed')).toHaveLength(1)
  })

  it('have three deltas before /fail fails', async () => {
    const events = await eventsOf('/fail')
    expect(of(events, 'message.delta').map(({ text }) => text)).toEqual(demoPieces('/fail'))
    expect(of(events, 'message.completed')).toEqual([])
    expect(events.at(-1)).toMatchObject({ type: 'turn.failed', text: demoPieces('/fail').join('') })
  })

  it('have two refusals with their pauses before the answer to /busy', async () => {
    const failed = of(await eventsOf('/busy'), 'attempt.failed')
    expect(failed.map(({ attempt, error }) => [attempt, error.code, error.retryAfterMs])).toEqual([
      [1, 'upstream_rate_limited', 1000],
      [2, 'upstream_rate_limited', 1000],
    ])
    for (const { retryInMs } of failed) expect(retryInMs).toBeGreaterThanOrEqual(1000)
  })

  it('have every word of /cut once', async () => {
    const events = await eventsOf('/cut')
    const said = of(events, 'message.delta')
      .map(({ text }) => text)
      .join('')
    expect(said).not.toBe('')
    expect(of(events, 'message.completed').map(({ text }) => text)).toEqual([said])
  })

  it('show the tool of /tools and what it gave, and ask nobody', async () => {
    const events = await eventsOf('/tools')
    const [started] = of(events, 'tool.started')
    expect(started).toMatchObject({ tool: 'get_weather' })
    expect(of(events, 'tool.completed')).toEqual([expect.objectContaining({ call: started!.call, isError: false })])
    expect(of(events, 'consent.requested')).toEqual([])
  })

  it('show the thinking of /think apart from the words', async () => {
    const events = await eventsOf('/think')
    const thought = of(events, 'reasoning.delta')
      .map(({ text }) => text)
      .join('')
    expect(thought).not.toBe('')
    expect(of(events, 'reasoning.completed').map(({ text }) => text)).toEqual([thought])
    expect(events.at(-1)).not.toMatchObject({ text: expect.stringContaining(thought) })
  })

  it('have rich content for /card', async () => {
    const templates = of(await eventsOf('/card'), 'message.completed').flatMap(({ template }) => template ?? [])
    expect(templates).toHaveLength(1)
  })

  it.each(['allow_once', 'allow_always'])('show the tool run after %s', async (result) => {
    const events = await eventsOf(result)
    const { calls } = await outcome(bot, 'sse', result)
    expect(of(events, 'consent.answered')).toMatchObject([
      { decisions: [{ call: calls[0]!.call, result }], by: 'user' },
    ])
    expect(of(events, 'tool.started')).toMatchObject([{ tool: 'send_mail' }])
    expect(of(events, 'tool.completed')).toMatchObject([{ isError: false }])
  })

  it('show no tool that gave something after deny_once', async () => {
    const events = await eventsOf('deny_once')
    expect(of(events, 'consent.answered')).toMatchObject([{ decisions: [{ result: 'deny_once' }], by: 'user' }])
    expect(of(events, 'tool.completed').filter(({ isError }) => !isError)).toEqual([])
  })
})
