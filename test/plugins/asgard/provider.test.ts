import { createServer } from 'node:http'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { systemClock } from '../../../core/clock.ts'
import { HubError } from '../../../core/errors.ts'
import type { HubEvent } from '../../../core/events.ts'
import type { Json } from '../../../core/message.ts'
import type { Provider } from '../../../core/plugin.ts'
import { env } from '../../../core/settings.ts'
import type { Turn } from '../../../core/turn.ts'
import { asgard } from '../../../plugins/asgard/index.ts'
import { startAsgardSimulator } from '../../../plugins/asgard/simulator.ts'
import type { AsgardSimulator } from '../../../plugins/asgard/simulator.ts'
import { buildProvider, collect, pluginContext, turnOf } from '../../fakes/turn.ts'
import { eventually } from '../../support/eventually.ts'

let edge: AsgardSimulator
let bot: Provider
const pauses: number[] = []

/** Reconnecting takes no time here; what it would take is in `pauses`. */
const context = pluginContext({
  clock: {
    ...systemClock,
    sleep(ms, signal) {
      pauses.push(ms)
      return systemClock.sleep(0, signal)
    },
  },
})
const target = (upstream: Pick<AsgardSimulator, 'url'> = edge) => ({
  edgeServerHost: upstream.url,
  namespace: edge.namespace,
  botProviderName: edge.botProviderName,
  apiKey: edge.apiKey,
})

beforeAll(async () => {
  edge = await startAsgardSimulator()
  bot = await buildProvider(asgard(target()), context)
})
afterAll(() => edge.close())

let conversations = 0
/** A turn of a conversation of its own. */
const turn = (text: string, changes: Partial<Turn> = {}): Turn => {
  conversations += 1
  return turnOf(text, { conversation: { id: `conv_${conversations}`, name: '1' }, ...changes })
}
const sent = (path: string, from = edge) => from.requests.filter((request) => request.path === path)
/** What the upstream saw of one turn's messages. */
const messagesOf = ({ message }: Turn) =>
  sent('/message/sse').filter(({ body }) => (body as { customMessageId?: string })?.customMessageId === message.id)
/** Those that may have started something. */
const startsOf = (asked: Turn) => messagesOf(asked).filter(({ headers }) => headers['last-event-id'] === undefined)
const visible = (events: readonly HubEvent[]) => events.filter(({ type }) => type !== 'upstream')
const types = (events: readonly HubEvent[]) => visible(events).map(({ type }) => type)
const textsOf = (events: readonly HubEvent[]) =>
  events.flatMap((event) => (event.type === 'message.completed' ? [event.text] : []))
const deltasOf = (events: readonly HubEvent[]) =>
  events.flatMap((event) => (event.type === 'message.delta' ? [event.text] : []))
const cursorOf = (events: readonly HubEvent[]): Json => {
  const cursor = events.findLast((event) => event.type === 'upstream')
  if (!cursor) throw new Error('there was no cursor')
  return cursor.cursor
}
const ask = async (asked: Turn, provider = bot) => collect(provider.respond(asked))
const says = async (text: string, changes: Partial<Turn> = {}) => {
  const { events, error } = await ask(turn(text, changes))
  expect(error).toBeUndefined()
  return events
}

type Script = readonly string[] | number | 'silence' | 'gone'
/**
 * An upstream that answers its requests with these streams, one after the other; each is cut at its end. `cursors`
 * are where they go on: undefined is a message that is sent.
 */
const scripted = async (...scripts: readonly Script[]) => {
  const cursors: (string | string[] | undefined)[] = []
  const suspended: (string | null)[] = []
  const server = createServer((request, response) => {
    const { pathname, searchParams } = new URL(request.url ?? '/', 'http://upstream')
    const script = pathname.endsWith('/message/sse') ? scripts[cursors.length] : 204
    if (script === 204) suspended.push(searchParams.get('custom_channel_id'))
    else cursors.push(request.method === 'GET' ? 'replay' : request.headers['last-event-id'])
    if (script === 'gone') server.close()
    if (script === undefined || script === 'gone') return void response.destroy()
    if (typeof script === 'number') return void response.writeHead(script, { 'retry-after': '1' }).end()
    response.writeHead(200, { 'content-type': 'text/event-stream' })
    if (script === 'silence') return response.flushHeaders()
    // A head for an empty script, too: the connection is lost behind it.
    response.write(script.join('') || ':\n', () => response.destroy())
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const address = server.address()
  const url = `http://127.0.0.1:${typeof address === 'object' ? address?.port : ''}`
  const provider = await buildProvider(asgard(target({ url })), context)
  return {
    cursors,
    suspended,
    provider,
    [Symbol.dispose]() {
      server.close()
      server.closeAllConnections()
    },
  }
}
const frame = (type: string, key: string, fact: object, id?: string, requestId = 'r') =>
  `${id === undefined ? '' : `id: ${id}\n`}data: ${JSON.stringify({ eventType: `asgard.${type}`, requestId, fact: { [key]: fact } })}\n\n`
const init = frame('run.init', 'runInit', {}, '0')
const done = frame('run.done', 'runDone', {}, undefined, '')
const delta = (text: string, idx: number, messageId = 'm') =>
  frame('message.delta', 'messageDelta', { message: { messageId, text, idx } })
const complete = (text: string, id: string, messageId = 'm', requestId = '') =>
  frame('message.complete', 'messageComplete', { message: { messageId, text } }, id, requestId)
const userFrame = (customMessageId: string, id: string) =>
  frame('message.user', 'messageUser', { messageId: 'u', text: 'hello', customMessageId }, id, '')

describe('an answer', () => {
  it.concurrent('comes in deltas that add up to the message', async () => {
    const events = await says('hello')
    expect(types(events)).toEqual([
      'message.delta',
      'message.delta',
      'message.delta',
      'message.delta',
      'message.completed',
    ])
    expect(deltasOf(events).join('')).toBe(textsOf(events)[0])
    expect(textsOf(events)[0]).toContain('hello')
  })

  it.concurrent('has as many pieces as the demo words promise', async () => {
    const events = await says('/long')
    expect(deltasOf(events)).toHaveLength(300)
    expect(textsOf(events)).toEqual([deltasOf(events).join('')])
  })

  it.concurrent.each<[string, string[], string[]]>([
    [
      '/think',
      ['reasoning.delta', 'reasoning.completed', 'message.delta', 'message.completed'],
      ['I have thought about it.'],
    ],
    ['/tools', ['tool.started', 'tool.completed', 'message.delta', 'message.completed'], ['It is 24 °C in Taipei.']],
    ['!tool-error', ['tool.started', 'tool.completed', 'message.delta', 'message.completed'], ['The tool failed.']],
    [
      '!multi',
      ['message.delta', 'message.completed', 'message.delta', 'message.completed'],
      ['The first message.', 'The second message.'],
    ],
    ['!no-start', ['message.delta', 'message.completed'], ['There was no start.']],
    ['!complete-only', ['message.delta', 'message.completed'], ['All at once.']],
    ['!no-idx', ['message.delta', 'message.completed'], ['Nobody counts.']],
    ['!unknown-event', ['raw', 'message.delta', 'message.completed'], ['Nothing was broken.']],
    ['!wrong-types', ['raw', 'message.delta', 'message.completed'], ['Nothing was broken.']],
    ['!crlf', ['message.delta', 'message.completed'], ['Lines end in two characters.']],
    ['!split', ['message.delta', 'message.completed'], ['位元組 one by one 👩‍🚀.']],
    ['!bom', ['message.delta', 'message.completed'], ['There is a mark before this.']],
    ['!heartbeats', ['message.delta', 'message.completed'], ['Still here.']],
    ['!after-end', ['message.delta', 'message.completed'], ['This is the end.']],
    ['!suggest', ['message.delta', 'message.completed', 'suggestion'], ['Anything else?']],
    ['!usage', ['message.delta', 'message.completed', 'usage'], ['That was cheap.']],
    [
      '!subagent',
      ['agent.started', 'raw', 'agent.completed', 'message.delta', 'message.completed'],
      ['My helper has looked.'],
    ],
    ['!sandbox', ['sandbox.started', 'sandbox.ready', 'message.delta', 'message.completed'], ['The sandbox is ready.']],
    ['!title', ['message.delta', 'message.completed', 'conversation.updated'], ['This talk has a name.']],
    ['!canvas', ['canvas.delta', 'canvas.completed', 'message.delta', 'message.completed'], ['There is a page.']],
    ['!debug', ['raw', 'message.delta', 'message.completed'], ['For everybody.']],
  ])('to %s has the events %j', async (text, kinds, texts) => {
    const events = await says(text)
    const seen = types(events)
    expect(seen.filter((type, index) => type !== seen[index - 1])).toEqual(kinds)
    expect(textsOf(events)).toEqual(texts)
  })

  it.concurrent('carries a tool call from its start to its failure', async () => {
    const events = await says('!tool-error')
    const started = events.find((event) => event.type === 'tool.started')
    expect(started).toMatchObject({ toolset: 'demo', tool: 'get_weather', input: { city: 'Taipei' } })
    expect(events.find((event) => event.type === 'tool.completed')).toEqual({
      type: 'tool.completed',
      call: started?.call,
      output: { error: 'no such city' },
      isError: true,
    })
  })

  it.concurrent.each([
    'hint',
    'image',
    'video',
    'audio',
    'location',
    'button',
    'carousel',
    'chart',
    'table',
    'attachment',
    'question',
    'canvas',
    'text',
  ])('brings a template of type %s whole', async (type) => {
    const completed = (await says(`!template-${type}`)).find((event) => event.type === 'message.completed')
    expect(completed?.template).toMatchObject({ type: type.toUpperCase() })
    expect(Object.keys(completed?.template ?? {}).length).toBeGreaterThan(1)
  })

  it.concurrent('brings the card', async () => {
    const completed = (await says('/card')).find((event) => event.type === 'message.completed')
    expect(completed).toMatchObject({ text: 'Here is a card.', template: { type: 'BUTTON', title: 'A card' } })
  })

  it('remembers the conversation, and keeps two people with the same name for it apart', async () => {
    const conversation = { id: 'conv_shared', name: '1' }
    const of = (user: string) => ({ conversation, principal: { ...turn('').principal, user } })
    await says('my name is Ada', of('ada'))
    await says('my name is Grace', of('grace'))
    expect(textsOf(await says('what is my name?', of('ada')))).toEqual(['Your name is Ada.'])
    expect(textsOf(await says('what is my name?', of('grace')))).toEqual(['Your name is Grace.'])
    const channels = new Set(
      sent('/message/sse')
        .slice(-4)
        .map(({ body }) => (body as { customChannelId: string }).customChannelId),
    )
    expect(channels.size).toBe(2)
    for (const channel of channels) expect(channel).toMatch(/^hub-[0-9a-f]{32}$/)
  })
})

describe('a request', () => {
  const sentFor = async (changes: Partial<Turn>, provider = bot) => {
    const asked = turn('hello', changes)
    expect((await ask(asked, provider)).error).toBeUndefined()
    const request = edge.requests.at(-1)
    if (!request) throw new Error('nothing was sent')
    return request
  }

  it('says who asks, and asks for nothing special', async () => {
    const request = await sentFor({ message: { id: 'm-1', text: 'hello', files: [] } })
    expect(request.body).toEqual({
      customChannelId: expect.any(String) as string,
      customMessageId: 'm-1',
      text: 'hello',
      action: 'NONE',
    })
    expect(request.query).toEqual({})
    expect(request.headers).toMatchObject({ 'x-asgard-user-identity-hint': 'ada', 'content-type': 'application/json' })
    expect(request.headers).not.toHaveProperty('last-event-id')
  })

  it.each([
    [undefined, undefined],
    ['Ada Lovelace', 'Ada Lovelace'],
    ['艾達', '%E8%89%BE%E9%81%94'],
    ['a%b', 'a%25b'],
    [' a\r\nx-evil: 1', '%20a%0D%0Ax-evil%3A%201'],
    ['x'.repeat(129), expect.stringMatching(/^[0-9a-f]{64}$/)],
  ])('names the user %j as %j', async (user, hint) => {
    const { user: _, ...nobody } = turn('').principal
    const { headers } = await sentFor({ principal: user === undefined ? nobody : { ...nobody, user } })
    expect(headers['x-asgard-user-identity-hint']).toEqual(hint)
  })

  it('passes on debug and bypass as switches of the query', async () => {
    expect((await sentFor({ debug: true, bypassConsent: true })).query).toEqual({
      is_debug: 'true',
      bypass_tool_call_consent: 'true',
    })
  })

  it('keeps an id that Asgard could not take as a hash of it', async () => {
    const { body } = await sentFor({ message: { id: 'm'.repeat(129), text: 'hello', files: [] } })
    expect(body).toHaveProperty('customMessageId', expect.stringMatching(/^hub-[0-9a-f]{64}$/))
  })

  it('lets the payload and headers of the config win, but not over the key', async () => {
    const provider = await buildProvider(
      asgard({
        ...target(),
        payload: { tenant: 'ours' },
        debug: true,
        headers: { 'x-trace': '1', 'X-API-KEY': 'not this' },
      }),
    )
    const message = { id: 'm', text: 'hello', files: [], payload: { tenant: 'theirs', more: [1] } }
    const request = await sentFor({ message }, provider)
    expect(request.body).toHaveProperty('payload', { tenant: 'ours', more: [1] })
    expect(request.headers).toHaveProperty('x-trace', '1')
    expect(request.query).toEqual({ is_debug: 'true' })
  })
})

describe('a failure', () => {
  it.each<[string, object]>([
    ['!error-400', { code: 'upstream_rejected', upstream: { status: 400, code: 'INVALID_ARGUMENT' } }],
    ['!error-401', { code: 'upstream_auth', notStarted: false }],
    ['!error-403', { code: 'upstream_auth', notStarted: false }],
    ['!error-404', { code: 'upstream_rejected', upstream: { status: 404, code: 'CHANNEL_NOT_FOUND' } }],
    ['!error-409', { code: 'upstream_conflict', notStarted: false }],
    ['!error-412', { code: 'upstream_rejected', upstream: { status: 412, code: 'FAILED_PRECONDITION' } }],
    ['!error-429', { code: 'upstream_rate_limited', notStarted: true, retryAfterMs: 1000 }],
    ['!error-500', { code: 'upstream_failed', notStarted: false, upstream: { status: 500, code: 'INTERNAL' } }],
    ['!error-503', { code: 'bot_unavailable', notStarted: true, retryAfterMs: 2000 }],
    ['!error-html', { code: 'upstream_failed', notStarted: false, upstream: { status: 200 } }],
    ['!error-detail', { code: 'upstream_rejected', upstream: { status: 200, code: 'INVALID_ARGUMENT' } }],
    ['!json-200', { code: 'upstream_rejected', upstream: { status: 200, code: 'INVALID_ARGUMENT' } }],
  ])('before the stream, %s, is %j', async (text, expected) => {
    const asked = turn(text)
    const { events, error } = await ask(asked)
    expect(visible(events)).toEqual([])
    expect(error).toBeInstanceOf(HubError)
    expect(error).toMatchObject(expected)
    // Whether to try again is not the provider's to decide.
    expect(messagesOf(asked)).toHaveLength(1)
  })

  it('in the stream keeps what was said', async () => {
    const { events, error } = await ask(turn('/fail'))
    expect(deltasOf(events)).toHaveLength(3)
    expect(error).toMatchObject({ code: 'upstream_failed', upstream: { code: 'INTERNAL' } })
  })

  it('of a busy upstream is over when the same message comes the third time', async () => {
    const asked = turn('/busy')
    const outcomes = [await ask(asked), await ask(asked), await ask(asked)]
    expect(outcomes.map(({ error }) => (error as HubError | undefined)?.code)).toEqual([
      'upstream_rate_limited',
      'upstream_rate_limited',
      undefined,
    ])
    expect(textsOf(outcomes[2]!.events)).toEqual(['That was a busy moment; here is your answer.'])
  })

  it('with a wrong key is not the turn to blame', async () => {
    const provider = await buildProvider(asgard({ ...target(), apiKey: 'another key' }))
    expect((await ask(turn('hello'), provider)).error).toMatchObject({
      code: 'upstream_auth',
      upstream: { status: 401 },
    })
  })

  it('to connect is provably no start', async () => {
    const gone = await startAsgardSimulator()
    await gone.close()
    const provider = await buildProvider(asgard(target(gone)))
    expect((await ask(turn('hello'), provider)).error).toMatchObject({ code: 'upstream_unreachable', notStarted: true })
  })

  it('by an event too large keeps what was said and stops the run', async () => {
    const asked = turn('!oversized')
    const { events, error } = await ask(asked)
    expect(deltasOf(events)).toEqual(['Small, '])
    expect(error).toMatchObject({ code: 'answer_too_large' })
    expect(messagesOf(asked)).toHaveLength(1)
    const { request } = cursorOf(events) as { request: string }
    expect(sent('/message/suspend').at(-1)?.query).toMatchObject({ request_id: request })
  })

  it.concurrent.each(['!hang', '!heartbeats-only'])(
    'to say anything is silence, after one more try: %s',
    async (text) => {
      const provider = await buildProvider(asgard({ ...target(), idleTimeoutMs: 600 }), context)
      const asked = turn(text)
      const { events, error } = await ask(asked, provider)
      expect(types(events).filter((type) => type !== 'raw')).toEqual([])
      expect(error).toMatchObject({ code: 'upstream_silent', notStarted: false })
      expect(startsOf(asked)).toHaveLength(1)
      const { channel } = cursorOf(events) as { channel: string }
      const replays = sent('/message/sse').filter(({ query }) => query['custom_channel_id'] === channel)
      expect(messagesOf(asked).length + replays.length).toBe(2)
    },
  )
})

describe('a lost connection', () => {
  const whole = 'This answer is cut in the middle, and yet it comes to its end.'

  it('is resumed to the whole answer', async () => {
    pauses.length = 0
    const asked = turn('/cut')
    const { events, error } = await ask(asked)
    expect(error).toBeUndefined()
    expect(textsOf(events)).toEqual([whole])
    expect(deltasOf(events).join('')).toBe(whole)
    const [first, ...again] = messagesOf(asked)
    expect(first?.headers).not.toHaveProperty('last-event-id')
    expect(again.length).toBeGreaterThan(0)
    for (const { headers } of again) expect(headers['last-event-id']).toMatch(/^\d+$/)
    expect(pauses[0]).toBe(500)
  })

  it('does not bring back what older turns of the channel said', async () => {
    const conversation = { id: 'conv_long', name: 'long' }
    await says('hello', { conversation })
    await says('!multi', { conversation })
    const events = await says('/cut', { conversation })
    expect(textsOf(events)).toEqual([whole])
    expect(deltasOf(events).join('')).toBe(whole)
  })

  it('leaves no gap and repeats nothing when deltas were missed', async () => {
    const events = await says('!drop-after-cursor')
    expect(textsOf(events)).toEqual(['All of this is kept.', whole])
    expect(deltasOf(events).join('|')).toBe(
      'All of |this is kept.|This answer |is cut |in the middle, and yet it comes to its end.',
    )
  })

  it('is given up after five tries that brought nothing new', async () => {
    pauses.length = 0
    const asked = turn('!no-terminal')
    const { events, error } = await ask(asked)
    expect(textsOf(events)).toEqual(['This is all there is.'])
    expect(error).toMatchObject({ code: 'upstream_cut', notStarted: false })
    expect(pauses).toEqual([500, 1000, 2000, 4000, 5000])
    expect(messagesOf(asked)).toHaveLength(6)
  })

  it('by silence is looked after as well, and ends as silence', async () => {
    const provider = await buildProvider(asgard({ ...target(), idleTimeoutMs: 600 }), context)
    const asked = turn('!hang-mid')
    const { events, error } = await ask(asked, provider)
    expect(deltasOf(events)).toEqual(['This goes on ', 'and then '])
    expect(error).toMatchObject({ code: 'upstream_silent', notStarted: false })
    expect(messagesOf(asked)).toHaveLength(2)
  })

  it('never lets a refused resubscription pass for a message that was not started', async () => {
    using upstream = await scripted([init], 429, 429, 429, 429, 429)
    const { error } = await ask(turn('hello'), upstream.provider)
    expect(error).toMatchObject({ code: 'upstream_cut', notStarted: false, upstream: { status: 429 } })
    expect(upstream.cursors).toEqual([undefined, '0', '0', '0', '0', '0'])
  })

  it('may be lost any number of times while something new comes', async () => {
    const pieces = Array.from({ length: 12 }, (_, idx) => String(idx))
    using upstream = await scripted([init], ...pieces.map((text, idx) => [delta(text, idx)]), [
      complete(pieces.join(''), '2', 'm', 'r'),
      done,
    ])
    const { events, error } = await ask(turn('hello'), upstream.provider)
    expect(error).toBeUndefined()
    expect(deltasOf(events)).toEqual(pieces)
    expect(upstream.cursors).toHaveLength(14)
  })

  const usage = (inputTokens: number, requestId?: string) =>
    frame('completion_model.usage', 'completionModelUsage', { inputTokens, outputTokens: 1 }, undefined, requestId)

  it('shows nothing twice, however often it is lost, and is given up when nothing new comes', async () => {
    const extras = [
      usage(3),
      frame('prompt_suggestion', 'promptSuggestion', { suggestion: 'More?' }),
      frame('channel.title.update', 'channelTitleUpdate', { title: 'A talk' }),
      frame('sandbox.ready', 'sandboxReady', { sandboxName: 's', blueprintName: 'b' }),
      frame('subagent.start', 'subagentStart', { agentId: 'a' }),
    ]
    using upstream = await scripted([init, ...extras], extras, extras, extras, extras, extras, extras)
    const { events, error } = await ask(turn('hello'), upstream.provider)
    expect(types(events)).toEqual(['usage', 'suggestion', 'conversation.updated', 'sandbox.ready', 'agent.started'])
    expect(error).toMatchObject({ code: 'upstream_cut' })
    expect(upstream.cursors).toHaveLength(6)
  })

  it('counts what two models used, though they used the same, before and after it', async () => {
    const identified = (text: string, eventId: string) => text.replace('{', `{"eventId":"${eventId}",`)
    using upstream = await scripted(
      [init, usage(3), usage(3)],
      [identified(usage(3), '7'), identified(usage(3), '8'), complete('a', '1', 'm', 'r'), done],
    )
    const { events, error } = await ask(turn('hello'), upstream.provider)
    expect(error).toBeUndefined()
    expect(types(events).filter((type) => type === 'usage')).toHaveLength(4)
  })

  it('by a crash of the hub, to a run that has ended meanwhile without a word, leaves the outcome unknown', async () => {
    using upstream = await scripted([init, done])
    const { error } = await ask(turn('hello', { resume: { channel: 'hub-1', lastEventId: '1' } }), upstream.provider)
    expect(error).toMatchObject({ code: 'upstream_cut', notStarted: false })
  })

  it('while the history was replayed is looked for from the same place', async () => {
    const asked = turn('hello')
    const history = [userFrame('earlier', '1'), complete('old', '2', 'old')]
    using upstream = await scripted([init], history, [
      ...history,
      userFrame(asked.message.id, '3'),
      complete('new', '4'),
      done,
    ])
    const { events, error } = await ask(asked, upstream.provider)
    expect(error).toBeUndefined()
    expect(upstream.cursors).toEqual([undefined, '0', '0'])
    expect(textsOf(events)).toEqual(['new'])
  })

  it.each<[string, string[], string[]]>([
    ['our message is not in the history', [init], [userFrame('earlier', '1'), done]],
    ['a message that was begun is never completed', [init, complete('a', '2', 'm1', 'r'), delta('b', 0, 'm2')], [done]],
  ])('is an unknown outcome when %s', async (_, first, second) => {
    using upstream = await scripted(first, second)
    const { error } = await ask(turn('hello'), upstream.provider)
    expect(error).toMatchObject({ code: 'upstream_cut', notStarted: false })
    expect(upstream.cursors).toHaveLength(2)
  })

  it('is not looked for any longer than the turn is wanted', async () => {
    using upstream = await scripted([init], 'silence')
    const controller = new AbortController()
    const ended = ask(turn('hello', { signal: controller.signal }), upstream.provider)
    await eventually(() => expect(upstream.cursors).toHaveLength(2))
    const reason = new HubError('cancelled')
    controller.abort(reason)
    expect((await ended).error).toBe(reason)
  })

  it.each([
    ['with nothing of it shown', 1],
    ['with half of it shown', 3],
    ['with all of it shown', 7],
  ])('by a crash of the hub is resumed from the log, %s', async (_, kept) => {
    const asked = turn('hello again')
    const { events } = await ask(asked)
    const log = visible(events).slice(0, kept - 1)
    const text = deltasOf(log).join('')
    const completed = textsOf(log).length > 0
    const cursor = events.find(
      (event) => event.type === 'upstream' && (event.cursor as { lastEventId?: string }).lastEventId !== undefined,
    )
    const id = events.flatMap((event) => (event.type === 'message.delta' ? [event.message] : []))[0]
    if (cursor?.type !== 'upstream' || !id) throw new Error('the answer had no cursor or no words')

    const again = await ask({ ...asked, resume: cursor.cursor, shown: text ? [{ id, text, completed }] : [] })
    expect(again.error).toBeUndefined()
    expect(text + deltasOf(again.events).join('')).toBe(textsOf(events)[0])
    expect(textsOf(again.events)).toEqual(completed ? [] : textsOf(events))
    const requests = messagesOf(asked)
    expect(requests).toHaveLength(2)
    expect(requests[1]?.headers).toHaveProperty('last-event-id', '0')
  })

  it.each([{ channel: 'hub-never-seen', lastEventId: '4' }, { channel: 'hub-never-seen' }])(
    'by a crash of the upstream, which has forgotten the channel, is an unknown outcome: %j',
    async (resume) => {
      const asked = turn('hello', { resume })
      const { events, error } = await ask(asked)
      expect(visible(events)).toEqual([])
      expect(error).toMatchObject({ code: 'upstream_cut', notStarted: false, upstream: { status: 404 } })
      expect(startsOf(asked)).toEqual([])
    },
  )

  describe.concurrent('without a cursor', () => {
    /** What the log has of an answer of which nothing came. */
    const crashed = (asked: Turn, events: readonly HubEvent[]): Turn => {
      const first = events[0]
      if (first?.type !== 'upstream') throw new Error('nothing was stored before the message was sent')
      expect(first.cursor).toEqual({ channel: expect.stringMatching(/^hub-/) as string })
      return { ...asked, resume: first.cursor, signal: new AbortController().signal }
    }
    /** A conversation with turns that ended well and badly. */
    const talked = async () => {
      const { conversation } = turn('')
      for (const text of ['hello', '/tools', '/fail']) await ask(turn(text, { conversation }))
      return conversation
    }

    it('is found again in the channel, to the exact answer and nothing of earlier turns', async () => {
      const asked = turn('!drop-before-cursor', { conversation: await talked() })
      const { events, error } = await ask(asked)
      expect(error).toBeUndefined()
      expect(new Set(types(events))).toEqual(new Set(['raw', 'message.delta', 'message.completed']))
      expect(deltasOf(events)[0]).toBe('This answer ')
      expect(deltasOf(events).join('')).toBe(whole)
      expect(textsOf(events)).toEqual([whole])
      expect(startsOf(asked)).toHaveLength(1)
      const { channel } = cursorOf(events) as { channel: string }
      const replays = sent('/message/sse').filter(({ query }) => query['custom_channel_id'] === channel)
      expect(replays).toMatchObject([{ method: 'GET', body: undefined }])
    })

    it('is found after a crash of the hub, when the answer is over', async () => {
      const asked = turn('hello', { conversation: await talked() })
      const { events } = await ask(asked)
      const again = await ask(crashed(asked, events))
      expect(again.error).toBeUndefined()
      expect(types(again.events)).toEqual(['raw', 'message.delta', 'message.completed'])
      expect(textsOf(again.events)).toEqual(textsOf(events))
      expect(deltasOf(again.events)).toEqual(textsOf(events))
      expect(startsOf(asked)).toHaveLength(1)
    })

    it('is found after a crash of the hub, while the answer goes on', async () => {
      const controller = new AbortController()
      const asked = turn('!steady', { conversation: await talked(), signal: controller.signal })
      const before: HubEvent[] = []
      for await (const event of bot.respond(asked)) {
        before.push(event)
        if (event.type === 'message.delta') break
      }
      const { events, error } = await ask(crashed(asked, before))
      expect(error).toBeUndefined()
      expect(textsOf(events)).toHaveLength(1)
      expect(textsOf(events)[0]).toMatch(/word 1 .*word 60 /)
      expect(deltasOf(events).join('')).toBe(textsOf(events)[0])
      expect(startsOf(asked)).toHaveLength(1)
    })

    it('is found after a crash of the hub, when it failed, as the failure', async () => {
      const asked = turn('/fail')
      const { events } = await ask(asked)
      expect((await ask(crashed(asked, events))).error).toMatchObject({ code: 'upstream_failed' })
    })

    it.each(['hello', '/fail', '/consent'])(
      'is an unknown outcome when all that came is an earlier %s',
      async (text) => {
        const { conversation } = turn('')
        const { events: earlier } = await ask(turn(text, { conversation }))
        const asked = turn('hello', { conversation })
        const { events, error } = await ask(crashed(asked, earlier))
        expect(visible(events)).toEqual([])
        expect(error).toMatchObject({ code: 'upstream_cut', notStarted: false })
        expect(startsOf(asked)).toEqual([])
      },
    )

    it('is found waiting for consent, and goes on with the answer', async () => {
      const { conversation } = turn('')
      await ask(turn('hello', { conversation }))
      const asked = turn('/consent', { conversation })
      const { events } = await ask(asked)
      const again = await ask(crashed(asked, events))
      expect(again.error).toBeUndefined()
      expect(types(again.events)).toEqual(['raw', 'consent.requested'])
      const calls = again.events.flatMap((event) => (event.type === 'consent.requested' ? event.calls : []))
      expect(calls).toMatchObject([{ tool: 'send_mail' }])
      expect(cursorOf(again.events)).toMatchObject({ pending: calls.map(({ call }) => call) })
      const decisions = calls.map(({ call }) => ({ call, result: 'allow_once' as const }))
      const answers = { type: 'consent' as const, calls, decisions }
      const { events: rest, error } = await ask({ ...asked, resume: cursorOf(again.events), answers })
      expect(error).toBeUndefined()
      expect(textsOf(rest)).toEqual(['You allowed it: send_mail has run.'])
      // Once to ask, once to answer.
      expect(startsOf(asked)).toHaveLength(2)
    })

    const pendingCalls = [{ toolCallId: 'c1', toolName: 'mail', parameter: {} }]
    const consent = (requestId: string) =>
      frame('tool_call.consent', 'toolCallConsent', { processId: 'p', pendingCalls }, undefined, requestId)
    const begin = frame('run.init', 'runInit', {})

    it('is found waiting though a message was open, and the question is not put twice', async () => {
      const asked = turn('hello')
      using upstream = await scripted(
        [begin, delta('May I? ', 0), consent('r')],
        [userFrame(asked.message.id, '1'), frame('run.init', 'runInit', {}, '1', ''), consent(''), done],
      )
      const { events, error } = await ask(asked, upstream.provider)
      expect(error).toBeUndefined()
      expect(types(events)).toEqual(['message.delta', 'consent.requested', 'raw'])
      expect(cursorOf(events)).toMatchObject({ pending: ['c1'] })
      expect(upstream.cursors).toEqual([undefined, 'replay'])
    })

    it('repeats no tool call, however often the replay is lost', async () => {
      const asked = turn('hello')
      const tool = (type: 'start' | 'complete', key: string) =>
        frame(`tool_call.${type}`, key, { processId: 'p', callSeq: 0, toolCall: { toolName: 'weather' } })
      const history = [userFrame(asked.message.id, '').replace('id: \n', ''), tool('complete', 'toolCallComplete')]
      using upstream = await scripted(
        [begin, tool('start', 'toolCallStart'), tool('complete', 'toolCallComplete'), delta('a', 0)],
        history,
        history,
        [...history, complete('abc', '3'), done],
      )
      const { events, error } = await ask(asked, upstream.provider)
      expect(error).toBeUndefined()
      expect(types(events).filter((type) => type !== 'raw')).toEqual([
        'tool.started',
        'tool.completed',
        'message.delta',
        'message.delta',
        'message.completed',
      ])
      expect(deltasOf(events)).toEqual(['a', 'bc'])
      expect(upstream.cursors).toEqual([undefined, 'replay', 'replay', 'replay'])
    })

    it.each<[string, Script[], object]>([
      ['429', [[], 429, 429, 429, 429, 429], { upstream: { status: 429 } }],
      ['503 with Retry-After', [[], 503, 503, 503, 503, 503], { upstream: { status: 503 } }],
      ['401', [[], 401], { upstream: { status: 401 } }],
      ['nobody there', ['gone'], {}],
    ])('never lets a replay that is refused pass for a message that was not started: %s', async (_, scripts, more) => {
      using upstream = await scripted(...scripts)
      const { events, error } = await ask(turn('hello'), upstream.provider)
      expect(visible(events)).toEqual([])
      expect(error).toMatchObject({ code: 'upstream_cut', notStarted: false, ...more })
      expect(upstream.cursors).toEqual(scripts.map((_script, index) => (index === 0 ? undefined : 'replay')))
    })

    it.each([
      ['after the connection was lost', undefined],
      ['after a crash of the hub', { channel: 'hub-1' }],
    ])('is stopped upstream when it is looked for in vain and nobody wants it: %s', async (_, resume) => {
      using upstream = await scripted(...(resume ? [] : [[]]), 'silence')
      const controller = new AbortController()
      const asked = turn('hello', { signal: controller.signal, ...(resume ? { resume } : {}) })
      const ended = ask(asked, upstream.provider)
      await eventually(() => expect(upstream.cursors.at(-1)).toBe('replay'))
      const reason = new HubError('cancelled')
      controller.abort(reason)
      expect((await ended).error).toBe(reason)
      expect(upstream.suspended).toEqual([resume ? 'hub-1' : expect.stringMatching(/^hub-[0-9a-f]{32}$/)])
    })

    it('is stopped upstream when nobody wanted it any more before it was looked for', async () => {
      using upstream = await scripted()
      const reason = new HubError('cancelled')
      const asked = turn('hello', { signal: AbortSignal.abort(reason), resume: { channel: 'hub-1' } })
      expect((await ask(asked, upstream.provider)).error).toBe(reason)
      expect(upstream.suspended).toEqual(['hub-1'])
      expect(upstream.cursors).toEqual([])
    })

    it('is not looked for behind an answered question, which came from the same message', async () => {
      using upstream = await scripted([begin, consent('r'), done], [begin, delta('a', 0)])
      const asked = turn('hello')
      const { events } = await ask(asked, upstream.provider)
      const calls = events.flatMap((event) => (event.type === 'consent.requested' ? event.calls : []))
      expect(calls).toHaveLength(1)
      const decisions = [{ call: 'c1', result: 'allow_once' as const }]
      const answers = { type: 'consent' as const, calls, decisions }
      const goesOn = await ask({ ...asked, resume: cursorOf(events), answers }, upstream.provider)
      expect(deltasOf(goesOn.events)).toEqual(['a'])
      expect(goesOn.error).toMatchObject({ code: 'upstream_cut', notStarted: false })
      // Nor by the next process.
      const restarted = await ask({ ...asked, resume: cursorOf(goesOn.events) }, upstream.provider)
      expect(restarted.error).toMatchObject({ code: 'upstream_cut', notStarted: false })
      expect(upstream.cursors).toEqual([undefined, undefined])
    })
  })
})

describe('an answer to a question', () => {
  const pendingCalls = [{ toolCallId: 'c1', toolName: 'mail', parameter: {} }]
  const consent = (requestId: string) =>
    frame('tool_call.consent', 'toolCallConsent', { processId: 'p', pendingCalls }, undefined, requestId)
  const pause = [init, consent('r'), done]
  const pauseAgain = [frame('run.init', 'runInit', {}, '0', ''), consent(''), done]
  const goesOn = [init, delta('sent', 0), complete('sent', '2', 'm', 'r'), done]
  const lost: readonly string[] = []

  /** Asks, and answers the question; `crash` is what a hub that is started again has to go on with. */
  const answered = async (upstream: Awaited<ReturnType<typeof scripted>>) => {
    const asked = turn('hello')
    const { events } = await ask(asked, upstream.provider)
    const calls = events.flatMap((event) => (event.type === 'consent.requested' ? event.calls : []))
    const answers = { type: 'consent' as const, calls, decisions: [{ call: 'c1', result: 'allow_once' as const }] }
    return { ...asked, resume: cursorOf(events), answers }
  }

  it('that was lost on its way is sent again when the question is still there', async () => {
    using upstream = await scripted(pause, lost, pauseAgain, goesOn)
    const { events, error } = await ask(await answered(upstream), upstream.provider)
    expect(error).toBeUndefined()
    expect(types(events)).toEqual(['message.delta', 'message.completed'])
    expect(upstream.cursors).toEqual([undefined, undefined, '0', undefined])
  })

  it('that arrived is not sent again when only what follows was lost', async () => {
    using upstream = await scripted(pause, lost, goesOn)
    const { events, error } = await ask(await answered(upstream), upstream.provider)
    expect(error).toBeUndefined()
    expect(textsOf(events)).toEqual(['sent'])
    expect(upstream.cursors).toEqual([undefined, undefined, '0'])
  })

  /** The turn as the next process finds it, when this one dies behind the answer's request. */
  const crashed = async (asked: Turn, upstream: Awaited<ReturnType<typeof scripted>>): Promise<Turn> => {
    for await (const event of upstream.provider.respond(asked)) {
      if (event.type === 'upstream') return { ...asked, resume: event.cursor }
    }
    throw new Error('nothing was stored before the answer was sent')
  }

  it.each<[string, readonly Script[], readonly (string | undefined)[]]>([
    ['is looked for and found', [goesOn], ['0']],
    ['is sent again, because the question is still there', [pauseAgain, goesOn], ['0', undefined]],
    ['came late, so that the second one is refused', [pauseAgain, 400, goesOn], ['0', undefined, '0']],
    ['came late, so that the second one meets its run', [pauseAgain, 409, goesOn], ['0', undefined, '0']],
  ])('that was under way when the hub crashed %s', async (_, scripts, cursors) => {
    using upstream = await scripted(pause, ...scripts)
    const { events, error } = await ask(await crashed(await answered(upstream), upstream), upstream.provider)
    expect(error).toBeUndefined()
    expect(textsOf(events)).toEqual(['sent'])
    expect(types(events)).not.toContain('consent.requested')
    expect(upstream.cursors).toEqual([undefined, ...cursors])
  })

  it('of which nothing can be found, nor its question, has an unknown outcome', async () => {
    using upstream = await scripted(pause, [done])
    const { events, error } = await ask(await crashed(await answered(upstream), upstream), upstream.provider)
    expect(visible(events)).toEqual([])
    expect(error).toMatchObject({ code: 'upstream_cut', notStarted: false })
  })

  it.each<[string, readonly Script[]]>([
    ['is lost', Array.from({ length: 20 }, (_, index) => (index % 2 === 0 ? lost : pauseAgain))],
    ['only brings the same question', [lost, ...Array.from({ length: 20 }, () => pauseAgain)]],
  ])('that %s each time is given up', async (_, scripts) => {
    using upstream = await scripted(pause, ...scripts)
    const { events, error } = await ask(await answered(upstream), upstream.provider)
    expect(visible(events)).toEqual([])
    expect(error).toMatchObject({ code: 'upstream_cut', notStarted: false })
    expect(upstream.cursors.length).toBeLessThan(10)
  })

  it('that is refused the first time is a refusal', async () => {
    using upstream = await scripted(pause, 403)
    const { error } = await ask(await answered(upstream), upstream.provider)
    expect(error).toMatchObject({ code: 'upstream_auth', upstream: { status: 403 } })
    expect(upstream.cursors).toHaveLength(2)
  })
})

describe('consent', () => {
  /** Asks, and returns how the turn goes on with these decisions. */
  const pausedBy = async (text: string, changes: Partial<Turn> = {}) => {
    const asked = turn(text, changes)
    const { events, error } = await ask(asked)
    expect(error).toBeUndefined()
    const request = events.findLast((event) => event.type === 'consent.requested')
    if (!request) throw new Error('nobody was asked')
    const goOn = (result: 'allow_once' | 'allow_always' | 'deny_once', reason?: string): Turn => ({
      ...asked,
      resume: cursorOf(events),
      answers: {
        type: 'consent',
        calls: request.calls,
        decisions: request.calls.map(({ call }) => ({ call, result, ...(reason ? { reason } : {}) })),
      },
    })
    return { asked, events, calls: request.calls, goOn }
  }

  it('ends the leg with the pending call and a cursor that names it', async () => {
    const { events, calls } = await pausedBy('/consent')
    expect(types(events)).toEqual(['consent.requested'])
    expect(calls).toMatchObject([
      { toolset: 'demo', tool: 'send_mail', reason: 'The mail goes out at once.', alreadyAllowed: false },
    ])
    expect(cursorOf(events)).toMatchObject({ pending: calls.map(({ call }) => call) })
  })

  it('that is given lets the tool run', async () => {
    const { asked, goOn } = await pausedBy('/consent')
    const { events, error } = await ask(goOn('allow_once'))
    expect(error).toBeUndefined()
    expect(types(events).slice(0, 2)).toEqual(['tool.started', 'tool.completed'])
    expect(textsOf(events)).toEqual(['You allowed it: send_mail has run.'])
    expect(cursorOf(events)).not.toHaveProperty('pending')
    const answer = messagesOf(asked).at(-1)
    expect(answer?.body).toMatchObject({
      text: '',
      action: 'RESPONSE_TOOL_CALL_CONSENT',
      toolCallConsents: [{ result: 'ALLOW_ONCE', denyReason: '' }],
    })
    expect(answer?.headers).toHaveProperty('x-asgard-user-identity-hint', 'ada')
  })

  it('that is denied reaches the bot with its reason', async () => {
    const { goOn } = await pausedBy('/consent')
    const { events } = await ask(goOn('deny_once', 'not today'))
    expect(textsOf(events)).toEqual(['You denied it: send_mail did not run. You said: not today'])
    expect(types(events)).not.toContain('tool.started')
  })

  it('that is given for good is not asked for again in the conversation', async () => {
    const { asked, goOn } = await pausedBy('/consent')
    await ask(goOn('allow_always'))
    const events = await says('/consent', { conversation: asked.conversation })
    expect(textsOf(events)).toEqual(['You allowed it: send_mail has run.'])
  })

  it('is not asked for when it is bypassed', async () => {
    const events = await says('/consent', { bypassConsent: true })
    expect(types(events)).not.toContain('consent.requested')
    expect(textsOf(events)).toEqual(['You allowed it: send_mail has run.'])
  })

  it('for several calls is answered in one request', async () => {
    const { asked, calls, goOn } = await pausedBy('!consent-two')
    expect(calls.map(({ tool }) => tool)).toEqual(['send_mail', 'delete_note'])
    const { events } = await ask(goOn('deny_once'))
    expect(textsOf(events)).toHaveLength(2)
    expect(messagesOf(asked)).toHaveLength(2)
  })

  it('is followed by an answer that survives a cut, and repeats nothing from before the pause', async () => {
    const { asked, events, goOn } = await pausedBy('!consent-cut')
    expect(types(events)).toEqual(['tool.started', 'tool.completed', 'consent.requested'])
    const { events: more, error } = await ask(goOn('allow_once'))
    expect(error).toBeUndefined()
    expect(new Set(types(more))).toEqual(new Set(['message.delta', 'message.completed']))
    expect(deltasOf(more).join('')).toBe('This answer is cut in the middle, and yet it comes to its end.')
    const { lastEventId } = cursorOf(events) as { lastEventId: string }
    expect(messagesOf(asked)[2]?.headers).toHaveProperty('last-event-id', lastEventId)
  })

  it('can be asked for again by the answer', async () => {
    const { goOn } = await pausedBy('!consent-again')
    const { events, error } = await ask(goOn('allow_once'))
    expect(error).toBeUndefined()
    expect(types(events)).toEqual(['consent.requested'])
    expect(events.find((event) => event.type === 'consent.requested')?.calls).toMatchObject([{ tool: 'delete_note' }])
  })

  it('keeps the conversation from going on until it is answered', async () => {
    const { asked } = await pausedBy('/consent')
    const { error } = await ask(turn('hello', { conversation: asked.conversation }))
    expect(error).toMatchObject({ code: 'upstream_rejected', upstream: { status: 400 } })
  })

  it.each(['/consent', '!consent-again'])(
    'that nobody answers is released, and the conversation goes on: %s',
    async (text) => {
      const { asked, goOn } = await pausedBy(text)
      const { answers: _, ...waiting } = goOn('deny_once')
      await bot.release?.({ ...waiting, signal: AbortSignal.abort(new HubError('consent_expired')) })
      const denials = messagesOf(asked).filter(({ body }) => JSON.stringify(body).includes('"DENY_ONCE"'))
      expect(denials).toHaveLength(text === '/consent' ? 1 : 2)
      expect(sent('/message/suspend').at(-1)?.query).toHaveProperty('custom_channel_id')
      expect(textsOf(await says('hello', { conversation: asked.conversation }))[0]).toContain('hello')
    },
  )
})

describe('a turn that is stopped', () => {
  const stopAfter = async (text: string, reason: Error, isReady: (events: readonly HubEvent[]) => boolean) => {
    const controller = new AbortController()
    const asked = turn(text, { signal: controller.signal })
    const events: HubEvent[] = []
    const ended = (async () => {
      for await (const event of bot.respond(asked)) events.push(event)
    })().catch((error: unknown) => error)
    await eventually(() => expect(messagesOf(asked).length > 0 && isReady(events)).toBe(true))
    const suspended = sent('/message/suspend').length
    const at = performance.now()
    controller.abort(reason)
    const error = await ended
    return { events, error, asked, ms: performance.now() - at, suspensions: sent('/message/suspend').slice(suspended) }
  }
  const talking = (events: readonly HubEvent[]) => deltasOf(events).length > 1

  it('closes its stream, stops its run and ends with the reason', async () => {
    const reason = new HubError('cancelled')
    const { error, events, suspensions, asked, ms } = await stopAfter('!hang-mid', reason, talking)
    expect(error).toBe(reason)
    expect(ms).toBeLessThan(1000)
    const { request, channel } = cursorOf(events) as { request: string; channel: string }
    expect(suspensions.map(({ query }) => query)).toEqual([{ custom_channel_id: channel, request_id: request }])
    await eventually(() => expect(messagesOf(asked)[0]?.left).toBe(true))
    expect(textsOf(await says('hello', { conversation: asked.conversation }))[0]).toContain('hello')
  })

  it('is stopped before it has said anything, too', async () => {
    const reason = new HubError('cancelled')
    const { error, suspensions } = await stopAfter('!hang', reason, () => true)
    expect(error).toBe(reason)
    expect(suspensions).toHaveLength(1)
  })

  it('because the hub shuts down runs on, and is found again', async () => {
    const reason = new HubError('shutting_down')
    const { error, events, suspensions, asked } = await stopAfter('!steady', reason, talking)
    expect(error).toBe(reason)
    expect(suspensions).toEqual([])
    const message = events.find((event) => event.type === 'message.delta')?.message ?? ''
    const shown = [{ id: message, text: deltasOf(events).join(''), completed: false }]
    const { signal: _, ...rest } = asked
    const again = await ask({ ...rest, shown, resume: cursorOf(events), signal: new AbortController().signal })
    expect(again.error).toBeUndefined()
    expect(shown[0]!.text + deltasOf(again.events).join('')).toBe(textsOf(again.events)[0])
    expect(textsOf(again.events)[0]).toContain('word 60 ')
  })

  it('before it began sends nothing at all', async () => {
    const before = edge.requests.length
    const reason = new HubError('cancelled')
    expect((await ask(turn('hello', { signal: AbortSignal.abort(reason) }))).error).toBe(reason)
    expect(edge.requests.length).toBe(before)
  })
})

describe('files', () => {
  const file = (stream: AsyncIterable<Uint8Array>, name = 'a.txt', mime = 'text/plain') => ({ name, mime, stream })
  async function* bytesOf(...texts: readonly string[]) {
    for (const text of texts) yield new TextEncoder().encode(text)
  }
  const upload = (uploaded: ReturnType<typeof file>, asked: Turn, signal = asked.signal) =>
    bot.upload!(uploaded, asked, signal)

  it('are uploaded to the channel of the conversation and sent with its message', async () => {
    const asked = turn('hello')
    const upstream = await upload(file(bytesOf('one ', 'two'), 'naïve "file".txt'), asked)
    expect(sent('/blob').at(-1)?.body).toMatchObject({
      customChannelId: expect.stringMatching(/^hub-/) as string,
      file: { name: 'naïve %22file%22.txt', mime: 'text/plain', bytes: 7 },
    })
    const files = [{ id: 'file_1', name: 'a.txt', bytes: 7, mime: 'text/plain', upstream }]
    await says('hello', { conversation: asked.conversation, message: { id: 'with-file', text: 'hello', files } })
    expect(edge.requests.at(-1)?.body).toHaveProperty('blobIds', [(upstream as { blobId: string }).blobId])
  })

  it('are passed on while they come', async () => {
    const started = sent('/blob').length
    let seenBeforeTheEnd = 0
    async function* slowly() {
      yield new Uint8Array(65_536)
      await eventually(() => expect(sent('/blob')[started]?.received).toBeGreaterThan(0))
      seenBeforeTheEnd = sent('/blob')[started]!.received
      yield new Uint8Array(10)
    }
    await upload(file(slowly(), 'a.bin', 'not a type\r\n'), turn('hello'))
    expect(seenBeforeTheEnd).toBeGreaterThan(0)
    expect(sent('/blob')[started]?.body).toMatchObject({ file: { bytes: 65_546, mime: 'application/octet-stream' } })
  })

  it('that are broken off upstream of the hub are broken off at the upstream', async () => {
    const started = sent('/blob').length
    const controller = new AbortController()
    async function* endless() {
      for (;;) {
        yield new Uint8Array(1024)
        await new Promise((resolve) => setImmediate(resolve))
        if (sent('/blob')[started]) controller.abort(new HubError('cancelled'))
      }
    }
    await expect(upload(file(endless()), turn('hello'), controller.signal)).rejects.toMatchObject({ code: 'cancelled' })
    await eventually(() => expect(sent('/blob')[started]?.left).toBe(true))
  })

  it('may take longer than the timeout, but not stand still for so long', async () => {
    const provider = await buildProvider(asgard({ ...target(), timeoutMs: 200 }))
    const { signal } = new AbortController()
    async function* steadily() {
      for (let chunk = 0; chunk < 6; chunk += 1) {
        yield new Uint8Array(10)
        await systemClock.sleep(60)
      }
    }
    await expect(provider.upload!(file(steadily()), turn('hello'), signal)).resolves.toHaveProperty('blobId')
    async function* stuck() {
      yield new Uint8Array(10)
      await new Promise(() => {})
    }
    await expect(provider.upload!(file(stuck()), turn('hello'), signal)).rejects.toMatchObject({
      code: 'upstream_silent',
    })
  })

  it('that are refused say why', async () => {
    const provider = await buildProvider(asgard({ ...target(), apiKey: 'another key' }))
    await expect(
      provider.upload!(file(bytesOf('one')), turn('hello'), new AbortController().signal),
    ).rejects.toMatchObject({
      code: 'upstream_auth',
    })
  })
})

it('forgets a conversation, also one that never was', async () => {
  const asked = turn('my name is Ada')
  await ask(asked)
  await bot.forget?.(asked, asked.signal)
  await bot.forget?.(asked, asked.signal)
  expect(sent('/channel').map(({ method }) => method)).toEqual(['DELETE', 'DELETE'])
  expect(textsOf(await says('what is my name?', { conversation: asked.conversation }))).toEqual([
    'You have not told me your name yet.',
  ])
})

it('does not wait for ever for an upstream that does not answer', async () => {
  const server = createServer(() => {})
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const address = server.address()
  const url = `http://127.0.0.1:${typeof address === 'object' ? address?.port : ''}`
  const provider = await buildProvider(asgard({ ...target({ url }), timeoutMs: 100 }))
  await expect(provider.forget?.(turn('hello'), new AbortController().signal)).rejects.toMatchObject({
    code: 'upstream_silent',
  })
  server.closeAllConnections()
  server.close()
})

describe('the options', () => {
  const names = ['NAMESPACE', 'BOT_PROVIDER_NAME', 'BOT_PROVIDER_API_KEY', 'EDGE_SERVER_HOST']

  it('come from the environment', async () => {
    const values = [edge.namespace, edge.botProviderName, edge.apiKey, edge.url]
    for (const [index, name] of names.entries()) vi.stubEnv(name, values[index])
    try {
      const provider = await buildProvider(asgard())
      expect(textsOf((await ask(turn('hello'), provider)).events)[0]).toContain('hello')
    } finally {
      vi.unstubAllEnvs()
    }
  })

  it('that are missing are all named', () => {
    for (const name of names) vi.stubEnv(name, '')
    try {
      const { schema, options } = asgard({ apiKey: env('BOT_PROVIDER_API_KEY') })
      const { error } = schema.safeParse(options)
      expect(error?.issues.map(({ path }) => path.join('.'))).toEqual(['namespace', 'botProviderName', 'apiKey'])
      expect(error?.issues[0]?.message).toContain('NAMESPACE')
    } finally {
      vi.unstubAllEnvs()
    }
  })

  it.each([
    // @ts-expect-error there is no such option
    ['an unknown one', asgard({ simulated: true, nmaespace: 'x' })],
    [
      'an address that is none',
      asgard({ edgeServerHost: 'ftp://x', namespace: 'n', botProviderName: 'b', apiKey: 'k' }),
    ],
  ])('are refused with %s', (_, { schema, options }) => {
    expect(schema.safeParse(options).success).toBe(false)
  })

  it('may be only that the upstream is simulated', async () => {
    const provider = await buildProvider(asgard({ simulated: true }))
    expect(provider.simulated).toBe(true)
    expect(textsOf((await ask(turn('hello'), provider)).events)[0]).toContain('hello')
    await provider.close?.()
    expect((await ask(turn('hello'), provider)).error).toMatchObject({ code: 'upstream_unreachable' })
  })
})
