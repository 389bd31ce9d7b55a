import { fetchEventSource } from '@microsoft/fetch-event-source'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { decodePlace } from '../../channels/asgard-relay/encode.ts'
import { parseEvents } from '../../core/sse.ts'
import { apiKey, asgard, asgardRelay, consent, coze, demoBot, local } from '../../index.ts'
import type { HubConfig } from '../../index.ts'
import { startAsgardSimulator } from '../../plugins/asgard/simulator.ts'
import { readEvent } from '../../plugins/asgard/wire.ts'
import type { AsgardEvent } from '../../plugins/asgard/wire.ts'
import { startCuttingProxy } from '../fakes/cutting-proxy.ts'
import { gatedBot } from '../fakes/gated-bot.ts'
import {
  allow,
  asking,
  base,
  bodyOf,
  factOf,
  find,
  framesOf,
  frontEnd,
  jsonType,
  relayHub,
  saidIn,
  typesOf,
  withoutDeltas,
} from './asgard-relay.front-end.ts'
import type { Seen } from './asgard-relay.front-end.ts'

describe('a message', () => {
  it('is answered with a run whose first frame has an id, and whose ids name a turn of the hub', async () => {
    await using hub = await relayHub({ main: local(demoBot) })
    const sent = { customMessageId: 'm-1', payload: { a: 1 } }
    const frames = await frontEnd(hub.url, 'main').say('c', 'hello', sent)
    expect(typesOf(frames).slice(0, 3)).toEqual(['run.init', 'message.start', 'message.delta'])
    expect(typesOf(frames).slice(-2)).toEqual(['message.complete', 'run.done'])
    const { requestId } = frames[0]!.event
    expect(frames.map(({ id }) => decodePlace(id!))).toEqual(
      frames.map((_, index) => ({ turn: requestId, seq: index + 1 })),
    )
    expect(find(frames, 'message.complete')).toMatchObject({ message: { replyToCustomMessageId: 'm-1' } })
    const turn = await hub.api(`/turns/${requestId}`)
    expect(await turn.json()).toMatchObject({ conversation: 'c', message: 'm-1', text: saidIn(frames)[0] })
  })

  it('is answered on the old paths too', async () => {
    await using hub = await relayHub({ main: local(() => 'here') })
    const legacy = base(hub.url, 'main').replace('/ns/', '/generic/ns/')
    const body = JSON.stringify({ customChannelId: 'c', text: 'hello', action: 'NONE' })
    const answer = await fetch(`${legacy}/message/sse`, { method: 'POST', headers: jsonType, body })
    expect(saidIn(await framesOf(answer))).toEqual(['here'])
  })

  it('can be waited for, with what was said, what failed, or what is asked', async () => {
    await using hub = await relayHub({
      main: local(() => 'here'),
      asking: local(asking),
      broken: local(() => Promise.reject(new Error('a secret of the bot'))),
    })
    const ask = (bot: string) => bodyOf(frontEnd(hub.url, bot).post('/message', 'c', 'hello'))
    expect(await ask('main')).toMatchObject({
      status: 200,
      body: { isSuccess: true, data: { customChannelId: 'c', messages: [{ text: 'here' }], errorDetail: null } },
    })
    const broken = await ask('broken')
    expect(broken).toMatchObject({ status: 200, body: { data: { errorDetail: { code: 'bot_failed' } } } })
    expect(JSON.stringify(broken)).not.toContain('secret')
    expect(await ask('asking')).toMatchObject({
      body: {
        data: { messages: [{ text: 'May I?' }], toolCallConsentRequest: { pendingCalls: [{ toolCallId: 'one' }, {}] } },
      },
    })
  })

  it('can be dispatched, and its run watched by who comes later', async () => {
    const bot = gatedBot()
    await using hub = await relayHub({ main: bot.provider })
    const page = frontEnd(hub.url, 'main')
    const { status, body } = await bodyOf(page.post('/message/dispatch', 'c', 'hello', { invocationId: 'i' }))
    expect(status).toBe(202)
    await bot.began('hello')
    const watched = await page.call('GET', '/message/sse?custom_channel_id=c')
    const frames: Seen[] = []
    for await (const { id, data } of parseEvents(watched.body!)) {
      frames.push({ id, event: readEvent(data) })
      bot.finish('hello')
    }
    expect(typesOf(frames).slice(0, 2)).toEqual(['message.user', 'run.init'])
    expect(saidIn(frames)).toEqual(['So: hello.'])
    expect(body).toMatchObject({ data: { customChannelId: 'c', requestId: frames[1]!.event.requestId } })
  })

  it('that is sent again under its id has the run it had', async () => {
    await using hub = await relayHub({ main: local(({ id }) => id) })
    const page = frontEnd(hub.url, 'main')
    const first = await page.say('c', 'hello', { customMessageId: 'm' })
    expect(saidIn(first)).toHaveLength(1)
    expect(await page.say('c', 'hello', { customMessageId: 'm' })).toEqual(first)
  })

  it('shows raw events to trusted callers that ask for them, and to nobody else', async () => {
    await using hub = await relayHub(
      {
        main: local(async function* () {
          yield {
            type: 'raw',
            source: 'asgard',
            name: 'asgard.process.start',
            data: { processStart: { processId: 'p' } },
          }
          yield 'here'
        }),
      },
      {
        auth: [
          apiKey({ name: 'server', key: 'key-of-a-server-0001', trusted: true }),
          apiKey({ name: 'browser', key: 'key-of-a-browser-001' }),
        ],
      },
    )
    const typesFor = async (key: string) => {
      const page = frontEnd(hub.url, 'main', { 'x-api-key': key })
      return typesOf(await framesOf(await page.post('/message/sse?is_debug=true', 'c', 'hello')))
    }
    expect(await typesFor('key-of-a-server-0001')).toContain('process.start')
    expect(await typesFor('key-of-a-browser-001')).toEqual([
      'run.init',
      'message.start',
      'message.delta',
      'message.complete',
      'run.done',
    ])
    const bypass = frontEnd(hub.url, 'main', { 'x-api-key': 'key-of-a-server-0001' })
    const refused = await bodyOf(bypass.post('/message/sse?bypass_tool_call_consent=true', 'c', 'hello'))
    expect(refused).toMatchObject({ status: 403, body: { isSuccess: false, errorCode: 'bypass_forbidden' } })
  })
})

describe('a channel', () => {
  it.each(['NONE', 'RESET_CHANNEL'])(
    'is opened by %s with the welcome of the bot, which is not asked',
    async (action) => {
      let asked = 0
      await using hub = await relayHub({
        main: { provider: local(() => `${++asked}`), profile: { welcome: 'Welcome!' } },
        shy: local(() => `${++asked}`),
      })
      const page = frontEnd(hub.url, 'main')
      expect((await page.metadata('c')).status).toBe(404)
      const frames = await page.say('c', '', { action })
      expect(frames[0]).toMatchObject({ id: '0', event: { requestId: expect.stringMatching(/^turn_/) as string } })
      expect(saidIn(frames)).toEqual(['Welcome!'])
      expect(typesOf(frames).at(-1)).toBe('run.done')
      expect(saidIn(await page.say('c', '', { action }, { 'last-event-id': '0' }))).toEqual(['Welcome!'])
      expect(typesOf(await frontEnd(hub.url, 'shy').say('c', '', { action }))).toEqual(['run.init', 'run.done'])
      expect((await page.metadata('c')).status).toBe(404)
      expect(asked).toBe(0)
      expect(saidIn(await page.say('c', 'hello'))).toEqual(['1'])
    },
  )

  it('is reset, and forgets what was said', async () => {
    await using hub = await relayHub({ main: local(({ message }) => message.text) })
    const page = frontEnd(hub.url, 'main')
    await page.say('c', 'old words')
    await page.say('c', 'new words', { action: 'RESET_CHANNEL' })
    expect(saidIn(await page.replay('c'))).toEqual(['new words'])
    const refused = await bodyOf(page.post('/message/sse', 'c', '', { action: 'RESET_CHANNEL', blobIds: ['b'] }))
    expect(refused).toMatchObject({ status: 400, body: { errorCode: 'INVALID_ARGUMENT' } })
    expect(saidIn(await page.replay('c'))).toEqual(['new words'])
  })

  it('is known by its metadata, from the first words to its deletion', async () => {
    const bot = gatedBot()
    await using hub = await relayHub({
      main: bot.provider,
      asking: local(asking),
      broken: local(() => Promise.reject(new Error())),
    })
    const page = frontEnd(hub.url, 'main')
    const unknown = await bodyOf(page.metadata('c'))
    expect(unknown).toMatchObject({ status: 404, body: { isSuccess: false, errorCode: 'CHANNEL_NOT_FOUND' } })
    const run = page.say('c', 'hello')
    await bot.began('hello')
    expect((await bodyOf(page.metadata('c'))).body).toMatchObject({
      data: { customChannelId: 'c', runState: 'RUNNING' },
    })
    bot.finish('hello')
    await run
    expect((await bodyOf(page.metadata('c'))).body).toMatchObject({
      data: { runState: 'IDLE', lastActivityAt: expect.any(Number) as number, launchedSandboxes: [] },
    })
    for (const [name, state] of [
      ['asking', { runState: 'IDLE', conversationStatus: 'NEEDS_INPUT' }],
      ['broken', { runState: 'ERROR' }],
    ] as const) {
      const other = frontEnd(hub.url, name)
      await other.say('c', 'hello')
      expect((await bodyOf(other.metadata('c'))).body).toMatchObject({ data: state })
    }
    for (const _ of [1, 2]) expect((await page.call('DELETE', '/channel?custom_channel_id=c')).status).toBe(204)
    expect((await page.metadata('c')).status).toBe(404)
    expect((await page.call('DELETE', '/channel')).status).toBe(400)
  })

  it('is replayed as its history, and behind a cursor as the rest of it', async () => {
    await using hub = await relayHub({
      main: local(async function* ({ message }) {
        yield { type: 'reasoning.delta', message: 'r', text: 'Hm' }
        yield { type: 'reasoning.completed', message: 'r', text: 'Hm' }
        yield { type: 'tool.started', call: 'k', tool: 'look', input: null }
        yield { type: 'tool.completed', call: 'k', output: 'seen', isError: false }
        yield `So: ${message.text}`
        if (message.text === 'two') throw new Error('broken off')
      }),
    })
    const page = frontEnd(hub.url, 'main')
    await page.say('c', 'one', { customMessageId: 'm-1' })
    await page.say('c', 'two', { customMessageId: 'm-2' })
    const all = await page.replay('c')
    const once = ['message.user', 'message.thinking.complete', 'tool_call.complete', 'message.complete']
    expect(typesOf(all)).toEqual([...once, ...once, 'run.done'])
    expect(all.every(({ event }) => event.requestId === '')).toBe(true)
    expect(saidIn(all)).toEqual(['So: one', 'So: two'])
    expect(factOf(all[0])).toMatchObject({ text: 'one', customMessageId: 'm-1' })
    const keys = all.flatMap(({ event }) => {
      const fact = event.fact['toolCallComplete'] as { processId: string; callSeq: number } | null | undefined
      return fact ? [`${fact.processId}-${fact.callSeq}`] : []
    })
    expect(new Set(keys).size).toBe(2)
    for (const place of [0, 2, 3, 5]) {
      expect(await page.replay('c', { 'last-event-id': all[place]!.id! })).toMatchObject(
        place < 4 ? all.slice(place + 1).map(({ id }) => ({ id })) : expect.arrayContaining([]),
      )
    }
    expect(await page.replay('c', { 'last-event-id': '0' })).toEqual(all)
    expect(typesOf(await page.say('c', 'never sent', {}, { 'last-event-id': '0' }))).toEqual(typesOf(all))
    expect(await page.replay('c')).toEqual(all)
    const elsewhere = await page.say('d', 'one')
    const refused = await bodyOf(
      page.call('GET', '/message/sse?custom_channel_id=c', undefined, { 'last-event-id': elsewhere[0]!.id! }),
    )
    expect(refused).toMatchObject({ status: 400, body: { errorCode: 'bad_cursor' } })
  })

  it('is replayed from its records when its turns are gone', async () => {
    await using hub = await relayHub(
      { main: local(({ message }) => `So: ${message.text}`) },
      {
        keep: { events: 0, messageIds: 0 },
      },
    )
    const page = frontEnd(hub.url, 'main')
    const live = await page.say('c', 'one')
    expect(saidIn(live)).toEqual(['So: one'])
    await hub.sweep()
    await hub.sweep()
    expect((await hub.api(`/turns/${live[0]!.event.requestId}`)).status).toBe(404)
    expect(withoutDeltas(await page.replay('c'))).toEqual(['message.user', 'message.complete', 'run.done'])
  })
})

describe('a run', () => {
  it('is only resubscribed by a POST with a cursor, at every place, live and ended', async () => {
    const bot = gatedBot()
    await using hub = await relayHub({ main: bot.provider })
    const page = frontEnd(hub.url, 'main')
    const whole = page.say('c', 'hello')
    await bot.began('hello')
    const { items } = (await (await hub.api('/bots/main/conversations/c/messages')).json()) as {
      items: { turn: string }[]
    }
    bot.finish('hello')
    const frames = await whole
    expect(frames[0]!.event.requestId).toBe(items[0]!.turn)
    for (const [index, { id }] of frames.slice(0, -1).entries()) {
      expect(await page.say('c', 'another text', {}, { 'last-event-id': id! })).toEqual(frames.slice(index + 1))
    }
    expect(typesOf(await page.say('c', 'hello', {}, { 'last-event-id': frames.at(-1)!.id! }))).toEqual(['run.done'])
    expect(bot.begun).toEqual(['hello'])
  })

  it('ends with run.done when it is suspended, and only the one that is named', async () => {
    const bot = gatedBot()
    await using hub = await relayHub({ main: bot.provider })
    const page = frontEnd(hub.url, 'main')
    const run = page.say('c', 'hello')
    await bot.began('hello')
    expect((await page.suspend('c', '&request_id=turn_another')).status).toBe(204)
    expect((await bodyOf(page.metadata('c'))).body).toMatchObject({ data: { runState: 'RUNNING' } })
    expect((await page.suspend('c')).status).toBe(204)
    const frames = await run
    expect(typesOf(frames).at(-1)).toBe('run.done')
    const turn = (await (await hub.api(`/turns/${frames[0]!.event.requestId}`)).json()) as { status: string }
    expect(turn.status).toBe('cancelled')
    expect((await page.suspend('c', '&force=true')).status).toBe(204)
    expect((await page.suspend('nowhere')).status).toBe(404)
    expect(saidIn(await page.replay('c'))).toEqual(['So: '])
  })

  it('pauses for consent, shows its pause to who comes back, and goes on with the answer', async () => {
    await using hub = await relayHub({ main: local(asking) })
    const page = frontEnd(hub.url, 'main')
    const asked = await page.say('c', 'hello', { customMessageId: 'm' })
    expect(typesOf(asked).slice(-2)).toEqual(['tool_call.consent', 'run.done'])
    const blocked = await bodyOf(page.post('/message/sse', 'c', 'something else'))
    expect(blocked).toMatchObject({ status: 400, body: { errorCode: 'turn_waiting' } })
    const pause = ['run.init', 'tool_call.consent', 'run.done']
    const replayed = await page.replay('c')
    expect(typesOf(replayed)).toEqual(['message.user', 'message.complete', ...pause])
    expect(factOf(replayed.at(-2))).toEqual(factOf(asked.at(-2)))
    expect(typesOf(await page.say('c', '', {}, { 'last-event-id': asked.at(-1)!.id! }))).toEqual(pause)

    const part = await page.say('c', '', allow('one'))
    expect(typesOf(part)).toEqual(pause)
    expect(factOf(part[1])).toMatchObject({ pendingCalls: [{ toolCallId: 'two' }] })
    const denied = { toolCallConsents: [{ toolCallId: 'two', result: 'DENY_ONCE', denyReason: 'no' }] }
    const answered = await page.say('c', '', { ...allow(), ...denied })
    expect(answered[0]).toMatchObject({ id: expect.any(String) as string, event: { eventType: 'asgard.run.init' } })
    expect(saidIn(answered).at(-1)).toContain('one allow_once , two deny_once no')
    expect(typesOf(answered).at(-1)).toBe('run.done')
    expect((await page.post('/message/sse', 'c', '', allow('one'))).status).toBe(409)
    expect((await page.post('/message/sse', 'nowhere', '', allow('one'))).status).toBe(404)
  })

  it('takes a consent only under the hint that asked, which is no part of the name', async () => {
    await using hub = await relayHub({ main: local(asking) })
    const page = frontEnd(hub.url, 'main')
    const [ada, grace] = ['ada', 'grace'].map((name) => ({ 'x-asgard-user-identity-hint': name }))
    await page.say('c', 'hello', {}, ada)
    for (const other of [{}, grace!]) {
      const refused = await bodyOf(page.post('/message/sse', 'c', '', allow('one', 'two'), other))
      expect(refused).toMatchObject({ status: 403, body: { errorCode: 'forbidden' } })
    }
    expect(factOf((await page.replay('c'))[0])).toMatchObject({ text: 'hello', identityHint: 'ada' })
    expect(saidIn(await page.say('c', '', allow('one', 'two'), ada)).at(-1)).toContain('two allow_once')
  })

  it('passes the hint on to an Asgard bot, in one channel for all of them', async () => {
    const edge = await startAsgardSimulator({ apiKey: 'k' })
    const { namespace, botProviderName } = edge
    await using hub = await relayHub({
      edge: asgard({ edgeServerHost: edge.url, namespace, botProviderName, apiKey: 'k' }),
    })
    const page = frontEnd(hub.url, 'edge')
    for (const name of ['ada', 'grace']) await page.say('c', 'hello', {}, { 'x-asgard-user-identity-hint': name })
    const asked = edge.requests.filter(({ body }) => JSON.stringify(body)?.includes('"text":"hello"'))
    expect(asked.map(({ headers }) => headers['x-asgard-user-identity-hint'])).toEqual(['ada', 'grace'])
    const channels = asked.map(({ body }) => (body as { readonly customChannelId: string }).customChannelId)
    expect(new Set(channels).size).toBe(1)
    await edge.close()
  })

  it('that waits for tool outputs says that they cannot be given here, and can be suspended', async () => {
    await using hub = await relayHub({ coze: coze({ simulated: true }) })
    const page = frontEnd(hub.url, 'coze')
    const frames = await page.say('c', '/tools')
    expect(factOf(frames.at(-1))).toMatchObject({ error: { code: 'turn_waiting' } })
    expect((await page.suspend('c')).status).toBe(204)
    expect(typesOf(await page.say('c', 'hello')).at(-1)).toBe('run.done')
  })
})

describe('an upload', () => {
  it.each([
    ['in front of', ['customChannelId', 'file']],
    ['behind', ['file', 'customChannelId']],
  ])('finds its channel %s the file, and reaches the bot', async (_, order) => {
    const edge = await startAsgardSimulator({ apiKey: 'k' })
    const { namespace, botProviderName } = edge
    await using hub = await relayHub({
      edge: asgard({ edgeServerHost: edge.url, namespace, botProviderName, apiKey: 'k' }),
    })
    const form = new FormData()
    for (const field of order) {
      if (field === 'file') form.set('file', new File(['12345'], 'image.png', { type: 'image/png' }))
      else form.set(field, 'c')
    }
    const upload = await bodyOf(fetch(`${base(hub.url, 'edge')}/blob`, { method: 'POST', body: form }))
    expect(upload).toMatchObject({
      status: 200,
      body: { isSuccess: true, data: [{ fileType: 'IMAGE', fileName: 'image.png', size: 5, mime: 'image/png' }] },
    })
    const [{ blobId }] = upload.body['data'] as [{ blobId: string }]
    const page = frontEnd(hub.url, 'edge')
    await page.say('c', 'see', { blobIds: [blobId] })
    expect(edge.requests.some(({ body }) => JSON.stringify(body)?.includes('"blobIds":["'))).toBe(true)
    expect(factOf((await page.replay('c'))[0])).toMatchObject({ blobIds: [blobId], blobs: [{ fileName: 'image.png' }] })
    await edge.close()
  })

  it('without a channel, or without a file, is refused', async () => {
    await using hub = await relayHub({ edge: asgard({ simulated: true }) })
    for (const field of ['file', 'customChannelId']) {
      const form = new FormData()
      form.set(field, field === 'file' ? new File(['x'], 'x.txt') : 'c')
      const answer = await bodyOf(fetch(`${base(hub.url, 'edge')}/blob`, { method: 'POST', body: form }))
      expect(answer).toMatchObject({ status: 400, body: { isSuccess: false } })
    }
  })
})

describe('what fails in front of a stream', () => {
  const message = { customChannelId: 'c', text: 'hello', action: 'NONE' }
  const cases: readonly [string, string, string, RequestInit, number, string][] = [
    ['an unknown path', 'main', '/nothing', {}, 404, 'not_found'],
    ['an unknown bot', 'nobody', '/message/sse', { method: 'POST', headers: jsonType, body: '{}' }, 404, 'unknown_bot'],
    ['an unknown channel', 'main', '/message/sse?custom_channel_id=x', {}, 404, 'CHANNEL_NOT_FOUND'],
    ['no channel', 'main', '/message/sse', {}, 400, 'INVALID_ARGUMENT'],
    ['another method', 'main', '/message/sse', { method: 'PUT' }, 405, 'method_not_allowed'],
    ['broken JSON', 'main', '/message/sse', { method: 'POST', headers: jsonType, body: '{' }, 400, 'bad_json'],
    ['another type', 'main', '/message/sse', { method: 'POST', body: 'hello' }, 415, 'unsupported_media_type'],
    [
      'too much',
      'main',
      '/message/sse',
      { method: 'POST', headers: jsonType, body: JSON.stringify({ ...message, text: 'x'.repeat(1_100_000) }) },
      413,
      'payload_too_large',
    ],
    [
      'an unknown action',
      'main',
      '/message/sse',
      { method: 'POST', headers: jsonType, body: JSON.stringify({ ...message, action: 'NEXT' }) },
      400,
      'INVALID_ARGUMENT',
    ],
    [
      'a nudge',
      'main',
      '/message/sse',
      { method: 'POST', headers: jsonType, body: JSON.stringify({ ...message, text: '', action: 'NUDGE' }) },
      400,
      'INVALID_ARGUMENT',
    ],
    [
      'an unknown file',
      'main',
      '/message/sse',
      { method: 'POST', headers: jsonType, body: JSON.stringify({ ...message, blobIds: ['b'] }) },
      404,
      'unknown_file',
    ],
    ['a sandbox', 'main', '/sandbox/s/heartbeat', { method: 'POST' }, 404, 'passthrough_unsupported'],
    [
      'a one-shot call',
      'main',
      '/json',
      { method: 'POST', headers: jsonType, body: '{}' },
      404,
      'passthrough_unsupported',
    ],
  ]

  it.each(cases)('is told in the envelope: %s', async (_, bot, path, request, status, errorCode) => {
    await using hub = await relayHub({ main: local(() => 'here') })
    const answer = await bodyOf(fetch(`${base(hub.url, bot)}${path}`, request))
    expect(answer).toEqual({
      status,
      body: { isSuccess: false, data: null, error: expect.stringMatching(/\w/) as string, errorCode },
    })
  })

  it("is told in the envelope to strangers and while the hub stops, and in the hub's own form elsewhere", async () => {
    const bot = gatedBot()
    await using hub = await relayHub(
      { main: bot.provider },
      { auth: [apiKey({ name: 'a', key: 'key-of-a-browser-001' })] },
    )
    const page = frontEnd(hub.url, 'main', { authorization: 'Bearer key-of-a-browser-001' })
    const stranger = await bodyOf(frontEnd(hub.url, 'main').post('/message/sse', 'c', 'hello'))
    expect(stranger).toMatchObject({ status: 401, body: { isSuccess: false, errorCode: 'unauthorized' } })
    expect((await bodyOf(hub.api('/bots'))).body).toMatchObject({ error: { code: 'unauthorized' } })
    const run = page.say('c', 'hello')
    await bot.began('hello')
    const stopping = hub.hub.stop(5000)
    const refused = await page.post('/message/sse', 'd', 'hello')
    expect(refused.headers.get('retry-after')).toBe('5')
    expect(await bodyOf(Promise.resolve(refused))).toMatchObject({ status: 503, body: { errorCode: 'shutting_down' } })
    bot.finish('hello')
    expect(saidIn(await run)).toEqual(['So: hello.'])
    await stopping
  })

  it('can be read by pages of allowed origins, as can everything else', async () => {
    await using hub = await relayHub(
      { main: local(() => 'here') },
      { channels: { relay: asgardRelay({ origins: ['https://page.example'] }) } },
    )
    const origin = { origin: 'https://page.example' }
    const preflight = await fetch(`${base(hub.url, 'main')}/message/sse`, {
      method: 'OPTIONS',
      headers: {
        ...origin,
        'access-control-request-method': 'POST',
        'access-control-request-headers': 'content-type,last-event-id,x-asgard-user-identity-hint',
      },
    })
    expect(preflight.status).toBe(204)
    expect(preflight.headers.get('access-control-allow-headers')).toContain('last-event-id')
    const page = frontEnd(hub.url, 'main', origin)
    for (const answer of [await page.metadata('c'), await page.post('/message/sse', 'c', 'hello')]) {
      expect(answer.headers.get('access-control-allow-origin')).toBe('https://page.example')
      await answer.text()
    }
    const other = await frontEnd(hub.url, 'main', { origin: 'https://other.example' }).metadata('c')
    expect(other.headers.get('access-control-allow-origin')).toBeNull()
  })
})

describe("the front end's own transport", () => {
  beforeAll(() => {
    // It was written for browsers, and asks them for these.
    vi.stubGlobal('window', { setTimeout, clearTimeout, fetch })
    vi.stubGlobal('document', { hidden: false, addEventListener() {}, removeEventListener() {} })
  })
  afterAll(() => {
    vi.unstubAllGlobals()
  })

  /** As the SDK handles a stream: every frame is JSON with its fact, and the end of the response is the end. */
  async function transport(
    url: string,
    bot: string,
    sent: object | string,
    onEvent: (event: AsgardEvent) => void = () => {},
  ) {
    const seen: Seen[] = []
    const errors: unknown[] = []
    const query = typeof sent === 'string' ? `?custom_channel_id=${sent}` : ''
    await fetchEventSource(`${base(url, bot)}/message/sse${query}`, {
      method: typeof sent === 'string' ? 'GET' : 'POST',
      headers: { 'content-type': 'application/json' },
      ...(typeof sent === 'string' ? {} : { body: JSON.stringify(sent) }),
      openWhenHidden: true,
      async onopen(response) {
        if (!response.ok) throw new Error(`HTTP ${response.status}`)
      },
      onmessage({ id, data }) {
        const event = JSON.parse(data) as AsgardEvent
        expect(Object.values(event.fact).filter((fact) => fact !== null)).toHaveLength(1)
        seen.push({ id: id || undefined, event })
        onEvent(event)
      },
      onerror(error) {
        errors.push(error)
        // Without a cursor the SDK gives up; what a status says is final, too.
        if (!seen.some(({ id }) => id) || (error as Error).message.startsWith('HTTP')) throw error
        return 1
      },
    })
    return { seen, errors }
  }
  const sent = (text: string, more: object = {}) => ({
    customChannelId: 'c',
    customMessageId: '',
    text,
    action: 'NONE',
    ...more,
  })

  it('streams a run, answers a consent and replays the channel', async () => {
    await using hub = await relayHub({ main: local(asking) })
    const asked = await transport(hub.url, 'main', sent('hello'))
    expect(typesOf(asked.seen).slice(-2)).toEqual(['tool_call.consent', 'run.done'])
    const answered = await transport(hub.url, 'main', sent('', allow('one', 'two')))
    expect(saidIn(answered.seen).at(-1)).toContain('two allow_once')
    const { seen, errors } = await transport(hub.url, 'main', 'c')
    expect(withoutDeltas(seen)).toEqual(['message.user', 'message.complete', 'message.complete', 'run.done'])
    expect([...asked.errors, ...answered.errors, ...errors]).toEqual([])
  })

  it('is cut again and again, comes back by itself, and has every word once', async () => {
    const pieces = Array.from({ length: 100 }, (_, index) => `${index} `)
    let asked = 0
    await using hub = await relayHub({
      main: local(async function* () {
        asked += 1
        yield* pieces
      }),
    })
    await using proxy = await startCuttingProxy(hub.url, [3000, 2000, 9000, 5000])
    const { seen, errors } = await transport(proxy.url, 'main', sent('count'))
    expect(proxy.cuts()).toBe(4)
    expect(errors).toHaveLength(4)
    const deltas = seen.flatMap(({ event }) => {
      const fact = event.fact['messageDelta'] as { message: { text: string; idx: number } } | null
      return fact ? [fact.message] : []
    })
    expect(deltas.map(({ text }) => text).join('')).toBe(pieces.join(''))
    expect(deltas.map(({ idx }) => idx)).toEqual(deltas.map((_, index) => index))
    expect(typesOf(seen).slice(-2)).toEqual(['message.complete', 'run.done'])
    expect(asked).toBe(1)
  })

  it('stops a run and sees its end', async () => {
    const bot = gatedBot()
    await using hub = await relayHub({ main: bot.provider })
    let stopped: Promise<Response> | undefined
    const { seen } = await transport(hub.url, 'main', sent('hello'), ({ eventType, requestId }) => {
      if (eventType === 'asgard.message.delta')
        stopped = frontEnd(hub.url, 'main').suspend('c', `&request_id=${requestId}`)
    })
    expect((await stopped)?.status).toBe(204)
    expect(typesOf(seen).at(-1)).toBe('run.done')
  })

  const weather = { provider: local(demoBot), use: [consent({ allow: ['get_weather'] })] }
  it.each<[string, HubConfig['bots']]>([
    ['a local bot', { bot: weather }],
    ['a Coze bot', { bot: coze({ simulated: true }) }],
    ['an Asgard bot', { bot: asgard({ simulated: true }) }],
  ])('talks to %s', async (_, bots) => {
    await using hub = await relayHub(bots)
    const { seen, errors } = await transport(hub.url, 'bot', sent('hello'))
    expect(errors).toEqual([])
    expect(typesOf(seen)[0]).toBe('run.init')
    expect(saidIn(seen).join('')).toMatch(/\w/)
    expect(typesOf(seen).at(-1)).toBe('run.done')
  })
})
