import { describe, expect, it } from 'vitest'
import { z } from 'zod'
import type { ClassicFrame } from '../../channels/cloudbase-api/encode.ts'
import { defineProvider } from '../../core/plugin.ts'
import { parseEvents } from '../../core/sse.ts'
import { apiKey, cloudbaseApi, echo, local, rest } from '../../index.ts'
import type { BotFunction, HubConfig } from '../../index.ts'
import { gatedBot } from '../fakes/gated-bot.ts'
import { startHub } from '../support/hub.ts'
import type { TestHub } from '../support/hub.ts'

const cloudbaseHub = (bots: HubConfig['bots'], more: Partial<HubConfig> = {}): Promise<TestHub> =>
  startHub({ bots, channels: { rest: rest(), cloudbase: cloudbaseApi() }, ...more })

interface Answered {
  readonly status: number
  readonly body: Record<string, unknown>
}

/** Requests of a client to one bot. */
function clientOf(hub: TestHub, bot = 'main', headers: Record<string, string> = {}) {
  const call = (method: string, path: string, body?: unknown, more: Record<string, string> = {}) =>
    fetch(`${hub.url}/v1/aibot/bots/${bot}${path}`, {
      method,
      headers: { ...(body === undefined ? {} : { 'content-type': 'application/json' }), ...headers, ...more },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    })
  const json = async (...given: Parameters<typeof call>): Promise<Answered> => {
    const answer = await call(...given)
    return { status: answer.status, body: (await answer.json()) as Answered['body'] }
  }
  const send = (msg: string, more: object = {}, head: Record<string, string> = {}) =>
    call('POST', '/send-message', { msg, ...more }, head)
  return {
    call,
    json,
    send,
    say: async (...given: Parameters<typeof send>) => framesOf(await send(...given)),
    records: async (query = 'sort=asc') => (await json('GET', `/records?${query}`)).body,
    questions: async (body: object = {}) =>
      textOf(await framesOf(await call('POST', '/recommend-questions', { msg: 'hello', history: [], ...body }))),
  }
}

type Frame = ClassicFrame & { readonly id: string | undefined }

/** All frames of a stream, which ends with `[DONE]`. */
async function framesOf(response: Response): Promise<Frame[]> {
  expect(response.status).toBe(200)
  const events = await Array.fromAsync(parseEvents(response.body!))
  expect(events.pop()?.data).toBe('[DONE]')
  return events.map(({ id, data }) => ({ ...(JSON.parse(data) as ClassicFrame), id }))
}

const textOf = (frames: readonly Frame[]) => frames.map(({ content }) => content).join('')
const contents = ({ recordList }: Answered['body']) =>
  (recordList as readonly { readonly content: string }[]).map(({ content }) => content)
const parrot: BotFunction = ({ message }) => message.text

describe('a bot', () => {
  it('is known by its name, and by an id that ends with it', async () => {
    await using hub = await cloudbaseHub({ main: local(() => 'main'), 'my-main': local(() => 'my-main') })
    const answerOf = async (id: string) => textOf(await clientOf(hub, id).say('who?'))
    expect(await answerOf('main')).toBe('main')
    expect(await answerOf('ibot-local-main')).toBe('main')
    expect(await answerOf('ibot-local-my-main')).toBe('my-main')
    expect(await answerOf('ibot-a-b-c-main')).toBe('main')
    for (const id of ['ibot-main', 'bot-main', 'ibot-local-other', 'nobody']) {
      expect(await clientOf(hub, id).json('GET', '')).toMatchObject({ status: 404, body: { code: 'unknown_bot' } })
    }
  })

  it('shows its profile under the id that was asked for', async () => {
    const profile = { name: 'Main', description: 'Helps.', welcome: 'Hello!', avatar: 'https://a', starters: ['Who?'] }
    await using hub = await cloudbaseHub({ main: { provider: echo(), profile } })
    expect(await clientOf(hub, 'ibot-x-main').json('GET', '')).toMatchObject({
      status: 200,
      body: {
        botId: 'ibot-x-main',
        name: 'Main',
        introduction: 'Helps.',
        welcomeMessage: 'Hello!',
        avatar: 'https://a',
        initQuestions: ['Who?'],
      },
    })
  })

  it('answers by methods of its own where it has them', async () => {
    const able = defineProvider({
      manifest: { name: 'able', suggests: true, methods: 'cloudbase' },
      options: z.strictObject({}),
      create: () => ({
        async *respond() {
          yield { type: 'message.delta', message: 'm', text: 'hello' }
        },
        async *suggest({ text, payload }) {
          yield `Why ${text}?`
          yield `Who\nis ${JSON.stringify(payload?.['name'])}?`
        },
        methods: {
          names: new Set(['getBotInfo', 'speechToText', 'deleteConversation', 'wxSendMessage']),
          invoke: async (name, input) => (name === 'deleteConversation' ? undefined : { name, ...input }),
        },
      }),
    })
    await using hub = await cloudbaseHub({ main: able() })
    const { json, call, questions } = clientOf(hub)
    expect((await json('GET', '?a=b')).body).toEqual({ name: 'getBotInfo', a: 'b' })
    expect((await json('POST', '/speech-to-text', { url: 'u' })).body).toEqual({ name: 'speechToText', url: 'u' })
    expect((await json('POST', '/wx-send-message', { triggerSrc: 'x' })).body).toMatchObject({ triggerSrc: 'x' })
    expect((await call('DELETE', '/conversation/c')).status).toBe(204)
    expect(await questions({ name: 'Ada' })).toBe('Why hello?\nWho is "Ada"?\n')
    expect(await json('POST', '/text-to-speech', { text: 't' })).toMatchObject({
      status: 501,
      body: { code: 'unsupported' },
    })
  })
})

describe('a message', () => {
  it('without a conversation is of one conversation for each bot and principal', async () => {
    const auth = ['ada', 'bob'].map((name) => apiKey({ name, key: `key-of-${name}-000001`, trusted: name === 'bob' }))
    await using hub = await cloudbaseHub({ main: local(parrot), other: local(parrot) }, { auth })
    const as = (name: string, bot = 'main', more: Record<string, string> = {}) =>
      clientOf(hub, bot, { authorization: `Bearer key-of-${name}-000001`, ...more })
    await as('ada').say('one')
    await as('ada').say('two')
    await as('ada', 'other').say('elsewhere')
    await as('bob').say('not yours')
    await as('bob', 'main', { 'x-hub-user': 'cleo' }).say('nor yours')
    expect(contents(await as('ada').records())).toEqual(['one', 'one', 'two', 'two'])
    expect(contents(await as('bob').records())).toEqual(['not yours', 'not yours'])
    expect(contents(await as('bob', 'main', { 'x-hub-user': 'cleo' }).records())).toEqual(['nor yours', 'nor yours'])
  })

  it('takes what comes beside it to the bot', async () => {
    const seen: unknown[] = []
    await using hub = await cloudbaseHub({
      main: local(({ message }) => {
        seen.push(message.payload)
        return 'here'
      }),
    })
    const history = [{ role: 'user', content: 'before' }]
    await clientOf(hub).say('hello', { history, searchEnable: true, files: ['cloud://a/b.png'] })
    await clientOf(hub).say('hello', { history: [], searchEnable: false, files: null, conversationId: '' })
    expect(seen).toEqual([{ history, searchEnable: true, files: ['cloud://a/b.png'] }, undefined])
    const unknown = await clientOf(hub).send('hello', { files: ['file_unknown'] })
    expect(await unknown.json()).toMatchObject({ code: 'unknown_file' })
  })

  it('whose turn fails before it has said a word is answered as JSON, in the language of the bot', async () => {
    await using hub = await cloudbaseHub({
      main: {
        provider: local(() => Promise.reject(new Error('a secret of the bot'))),
        profile: { language: 'zh-Hans' },
      },
    })
    const { status, body } = await clientOf(hub).json('POST', '/send-message', { msg: 'hello' })
    expect(status).toBe(502)
    expect(body).toEqual({
      code: 'bot_failed',
      message: '机器人发生错误，请再试一次。',
      requestId: expect.stringMatching(/^turn_/) as string,
    })
    expect(await clientOf(hub).records()).toMatchObject({ total: 2, recordList: [{}, { content: '', partial: true }] })
  })

  it('opens its stream, with heartbeats, when the bot says nothing for long', async () => {
    const bot = gatedBot()
    const silent = local(async function* ({ message }) {
      await bot.began(message.text)
      yield 'at last'
    })
    await using hub = await cloudbaseHub({ main: silent, gate: bot.provider })
    const response = await clientOf(hub).send('hello')
    expect(response.headers.get('x-request-id')).toMatch(/^turn_/)
    let received = ''
    let isHeard = false
    for await (const chunk of response.body!.pipeThrough(new TextDecoderStream())) {
      received += chunk
      // What begins elsewhere lets the silent bot speak.
      if (isHeard) continue
      isHeard = true
      void clientOf(hub, 'gate')
        .send('hello')
        .catch(() => {})
    }
    expect(received).toMatch(/^: heartbeat\n\n/)
    expect(received).toContain('at last')
    bot.finish('hello')
  })

  it('that waits shows what for, and goes on behind the last frame when it was answered', async () => {
    await using hub = await cloudbaseHub({
      main: local(async function* ({ answers }) {
        if (answers) yield 'Thank you.'
        else {
          yield 'May I? '
          const calls = [{ call: 'c', tool: 'send_mail', input: { to: 'ada' }, alreadyAllowed: false }]
          yield { type: 'consent.requested', calls }
        }
      }),
    })
    const { say, send } = clientOf(hub)
    const frames = await say('send it')
    expect(frames.map(({ type }) => type)).toEqual(['text', 'tool-call', 'error'])
    const last = frames.at(-1)!
    expect(last.error?.code).toBe('turn_waiting')
    expect(await (await send('and now?')).json()).toMatchObject({ code: 'turn_waiting' })
    const turn = last.record_id.replace('_bot', '')
    await hub.api(`/turns/${turn}/consent`, { decisions: [{ call: 'c', result: 'allow_once' }] })
    const later = await say('', {}, { 'last-event-id': last.id! })
    expect(later.map(({ type, content }) => [type, content])).toEqual([
      ['text', '\n\nThank you.'],
      ['finish', ''],
    ])
    for (const [cursor, code] of [
      ['7', 'bad_cursor'],
      ['turn_0abc/1', 'unknown_turn'],
    ] as const) {
      expect(await (await send('', {}, { 'last-event-id': cursor })).json()).toMatchObject({ code })
    }
  })
})

describe('records', () => {
  it('come by pages, from either end', async () => {
    await using hub = await cloudbaseHub({ main: local(parrot) })
    const { say, records } = clientOf(hub)
    expect(await records()).toEqual({ recordList: [], total: 0 })
    for (const text of ['1', '2', '3']) await say(text)
    expect(contents(await records('sort=asc&pageSize=4&pageNumber=1'))).toEqual(['1', '1', '2', '2'])
    expect(contents(await records('sort=asc&pageSize=4&pageNumber=2'))).toEqual(['3', '3'])
    expect(contents(await records('pageSize=4&pageNumber=undefined'))).toEqual(['3', '3', '2', '2'])
    expect(await records('sort=desc&pageSize=4&pageNumber=3')).toEqual({ recordList: [], total: 6 })
    expect(await records('pageSize=undefined&conversationId=undefined&sort=undefined&botId=main')).toMatchObject({
      total: 6,
    })
    expect(await records('pageSize=none')).toMatchObject({ code: 'invalid_request' })
    expect(await records('conversationId=elsewhere')).toMatchObject({ code: 'unknown_conversation' })
  })

  it('name the answer of a message', async () => {
    await using hub = await cloudbaseHub({ main: local(parrot) })
    const [frame] = await clientOf(hub).say('hello')
    const { recordList } = await clientOf(hub, 'ibot-x-main').records()
    expect(recordList).toMatchObject([
      { botId: 'ibot-x-main', role: 'user', reply: frame!.record_id, conversation: 'default', triggerSrc: 'TCB' },
      { botId: 'ibot-x-main', role: 'assistant', recordId: frame!.record_id, content: 'hello' },
    ])
  })
})

describe('conversations', () => {
  it('are opened, listed by pages, given titles and deleted', async () => {
    await using hub = await cloudbaseHub({ main: local(parrot) })
    const { json, call, say } = clientOf(hub)
    const made: string[] = []
    for (const title of [undefined, 'second', 'third']) {
      const { status, body } = await json('POST', '/conversation', { title })
      expect(status).toBe(201)
      expect(body).toMatchObject({ title: title ?? '新会话', createTime: body['updateTime'] })
      made.push(body['conversationId'] as string)
    }
    await say('hello', { conversationId: made[0] })
    await say('hello')
    const page = async (query: string) => {
      const { body } = await json('GET', `/conversation/?${query}`)
      return [(body['data'] as { conversationId: string }[]).map((each) => each.conversationId), body['total']]
    }
    expect(await page('limit=2&offset=0')).toEqual([[made[0], made[2]], 3])
    expect(await page('limit=2&offset=2&isDefault=undefined')).toEqual([[made[1]], 3])
    expect(await page('isDefault=true')).toEqual([['default'], 1])
    expect((await json('PATCH', `/conversation/${made[0]}`, { title: 'first' })).body).toEqual({ count: 1 })
    expect((await json('GET', '/conversation?limit=1')).body['data']).toMatchObject([{ title: 'first' }])
    expect((await json('DELETE', `/conversation/${made[0]}`, {})).body).toEqual({ count: 1 })
    expect((await call('DELETE', `/conversation/${made[0]}`)).status).toBe(404)
    expect(await page('limit=10&offset=0')).toEqual([[made[2], made[1]], 2])
  })

  it('of somebody else are not there', async () => {
    const auth = ['ada', 'bob'].map((name) => apiKey({ name, key: `key-of-${name}-000001` }))
    await using hub = await cloudbaseHub({ main: local(parrot) }, { auth })
    const as = (name: string) => clientOf(hub, 'main', { authorization: `Bearer key-of-${name}-000001` })
    const { body } = await as('ada').json('POST', '/conversation', {})
    const conversationId = String(body['conversationId'])
    const [frame] = await as('ada').say('mine', { conversationId })
    const bob = as('bob')
    const recordId = frame!.record_id
    const codes = [
      await bob.json('GET', `/records?conversationId=${conversationId}`),
      await bob.json('POST', '/send-message', { msg: 'hello', conversationId }),
      await bob.json('PATCH', `/conversation/${conversationId}`, { title: 'mine' }),
      await bob.json('DELETE', `/conversation/${conversationId}`),
      await bob.json('POST', '/recommend-questions', { conversationId }),
    ]
    expect(codes.map(({ status, body: { code } }) => [status, code])).toEqual(
      codes.map(() => [404, 'unknown_conversation']),
    )
    expect(await bob.json('POST', '/feedback', { recordId, type: 'upvote' })).toMatchObject({
      status: 404,
      body: { code: 'unknown_message' },
    })
    const resumed = await bob.send('', {}, { 'last-event-id': frame!.id! })
    expect(await resumed.json()).toMatchObject({ code: 'unknown_turn' })
    expect((await bob.json('GET', '/conversation')).body).toEqual({ data: [], total: 0 })
    expect(await (await clientOf(hub).send('hello')).json()).toMatchObject({ code: 'unauthorized' })
  })
})

describe('feedback', () => {
  it('is kept once for each answer, and found by what it says', async () => {
    await using hub = await cloudbaseHub({ main: local(parrot) })
    const { say, json } = clientOf(hub)
    const ids: string[] = []
    for (const text of ['one', 'two']) ids.push((await say(text))[0]!.record_id)
    const rate = (recordId: string | undefined, type: string, more: object = {}) =>
      json('POST', '/feedback', { recordId, type, botId: 'main', ...more })
    expect(await rate(ids[0], 'upvote', { rating: 5, tags: ['clear'], comment: 'Good' })).toEqual({
      status: 200,
      body: { status: 'success' },
    })
    await rate(ids[1], 'upvote')
    await rate(ids[1], 'downvote', { rating: 1 })
    const found = async (query: string) => {
      const { body } = await json('GET', `/feedback?${query}`)
      return [(body['feedbackList'] as { recordId: string }[]).map(({ recordId }) => recordId), body['total']]
    }
    expect(await found('pageSize=undefined&pageNumber=1&type=undefined&sender=undefined')).toEqual([
      [ids[1], ids[0]],
      2,
    ])
    expect(await found('pageSize=1&pageNumber=2')).toEqual([[ids[0]], 2])
    expect(await found('type=downvote')).toEqual([[ids[1]], 1])
    expect(await found('minRating=4&maxRating=5')).toEqual([[ids[0]], 1])
    expect(await found('sender=loc&senderFilter=prefix')).toEqual([[ids[1], ids[0]], 2])
    expect(await found('sender=local&senderFilter=exclude')).toEqual([[], 0])
    expect(await found(`from=${Math.floor(Date.now() / 1000) + 60}`)).toEqual([[], 0])
    expect(await found(`to=${Date.now() + 60_000}`)).toEqual([[ids[1], ids[0]], 2])
    expect(await rate('turn_0abc_bot', 'upvote')).toMatchObject({ status: 404, body: { code: 'unknown_message' } })
    expect(await rate(ids[0], 'sideways')).toMatchObject({ status: 422, body: { code: 'invalid_request' } })
  })
})

describe('recommended questions', () => {
  it('are those of the last answer, else the starters of the profile, else none', async () => {
    const profile = { starters: ['Who are you?', 'What can you do?'] }
    const suggesting: BotFunction = async function* ({ message }) {
      yield 'here'
      if (message.text === 'more') yield { type: 'suggestion', text: 'And then?' }
    }
    await using hub = await cloudbaseHub({
      main: { provider: local(suggesting), profile },
      plain: local(parrot),
    })
    const { questions, say } = clientOf(hub)
    expect(await questions()).toBe('Who are you?\nWhat can you do?\n')
    await say('more')
    expect(await questions()).toBe('And then?\n')
    await say('less')
    expect(await questions()).toBe('Who are you?\nWhat can you do?\n')
    expect(await clientOf(hub, 'plain').questions()).toBe('')
  })
})

describe('what fails in front of a stream', () => {
  it('is said in the dialect, on every path of it', async () => {
    await using hub = await cloudbaseHub({ main: local(parrot) })
    const at = async (path: string, init: RequestInit = {}) => {
      const answer = await fetch(`${hub.url}/v1/aibot${path}`, init)
      const body = (await answer.json()) as Record<string, unknown>
      expect(Object.keys(body).toSorted()).toEqual(['code', 'message', 'requestId'])
      return `${answer.status} ${String(body['code'])}`
    }
    const post = (body: string, type = 'application/json') => ({
      method: 'POST',
      body,
      headers: { 'content-type': type },
    })
    const send = '/bots/main/send-message'
    expect(await at('/bots')).toBe('404 not_found')
    expect(await at('/bots/main/files', post('{}'))).toBe('404 not_found')
    expect(await at(send)).toBe('405 method_not_allowed')
    expect(await at(send, post('msg', 'text/plain'))).toBe('415 unsupported_media_type')
    expect(await at(send, post(JSON.stringify({ msg: 'x'.repeat(1_048_577) })))).toBe('413 payload_too_large')
    expect(await at(send, post('{"msg":7}'))).toBe('422 invalid_request')
    expect(await at(send, post('{"msg":'))).toBe('400 bad_json')
    expect(await at('/bots/main/feedback', post('{}'))).toBe('422 invalid_request')
    expect(await at('/bots/main/conversation/c', { ...post('{}'), method: 'PATCH' })).toBe('422 invalid_request')
    const bot = gatedBot()
    await using stopping = await cloudbaseHub({ main: bot.provider })
    const live = clientOf(stopping).send('hello')
    await bot.began('hello')
    const stopped = stopping.hub.stop()
    expect(await clientOf(stopping).json('POST', '/send-message', { msg: 'late' })).toMatchObject({
      status: 503,
      body: { code: 'shutting_down' },
    })
    bot.finish('hello')
    await Promise.all([live, stopped])
  })

  it('and what does not is open to pages of the origins that the config names', async () => {
    const origins = ['https://www.example.com']
    await using hub = await startHub({
      bots: { main: local(parrot) },
      channels: { cloudbase: cloudbaseApi({ origins }) },
    })
    const preflight = (origin: string) =>
      fetch(`${hub.url}/v1/aibot/bots/main/send-message`, {
        method: 'OPTIONS',
        headers: {
          origin,
          'access-control-request-method': 'POST',
          'access-control-request-headers': 'authorization,content-type,x-sdk-version,x-tcb-region',
        },
      })
    const allowed = await preflight('https://www.example.com')
    expect(allowed.headers.get('access-control-allow-origin')).toBe('https://www.example.com')
    expect(allowed.headers.get('access-control-allow-headers')).toContain('x-tcb-region')
    expect((await preflight('https://evil.example')).headers.get('access-control-allow-origin')).toBeNull()
  })
})
