import { readdirSync, readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { fetchEventSource } from '@microsoft/fetch-event-source'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { parseEvents } from '../../../core/sse.ts'
import { startAsgardSimulator } from '../../../plugins/asgard/simulator.ts'
import type { AsgardSimulator } from '../../../plugins/asgard/simulator.ts'
import { readEvent } from '../../../plugins/asgard/wire.ts'

const samples = fileURLToPath(new URL('../../fixtures/asgard/', import.meta.url))
const fixture = (name: string) => readFileSync(`${samples}${name}`, 'utf8')

let edge: AsgardSimulator
beforeAll(async () => {
  edge = await startAsgardSimulator({ samples, apiKey: 'the-key' })
})
afterAll(() => edge.close())

const base = (prefix = '') => `${edge.url}${prefix}/ns/${edge.namespace}/bot-provider/${edge.botProviderName}`
const call = (method: string, path: string, body?: object, headers: Record<string, string> = {}, prefix = '') =>
  fetch(`${base(prefix)}${path}`, {
    method,
    headers: { 'x-api-key': 'the-key', 'content-type': 'application/json', ...headers },
    ...(body ? { body: JSON.stringify(body) } : {}),
  })
let messages = 0
const message = (customChannelId: string, text: string, more: object = {}) => {
  messages += 1
  return { customChannelId, customMessageId: `m${messages}`, text, action: 'NONE', ...more }
}
const json = async (response: Response) => ({ status: response.status, body: (await response.json()) as object })
const frames = async (response: Response) => {
  expect(response.status).toBe(200)
  const events = await Array.fromAsync(parseEvents(response.body!))
  return events.map(({ id, data }) => ({ id, event: readEvent(data) }))
}
const types = (list: Awaited<ReturnType<typeof frames>>) =>
  list.map(({ event }) => event.eventType.replace('asgard.', ''))

describe('the simulated Edge Server', () => {
  it('streams a run from id 0 to its end, with cursors on what it will remember', async () => {
    const asked = message('whole', 'hello')
    const response = await call('POST', '/message/sse', asked)
    expect(Object.fromEntries(response.headers)).toMatchObject({
      'content-type': 'text/event-stream',
      'cache-control': 'no-cache, no-transform',
      'x-trace-id': expect.any(String) as string,
    })
    const list = await frames(response)
    expect(types(list)).toEqual([
      'run.init',
      'message.start',
      ...Array.from({ length: 4 }, () => 'message.delta'),
      'message.complete',
      'run.done',
    ])
    expect(list.map(({ id }) => id).filter((id) => id !== undefined)).toEqual(['0', '2', '2'])
    expect(new Set(list.map(({ event }) => event.requestId)).size).toBe(1)
    expect(list[2]!.event.fact['messageDelta']).toMatchObject({
      message: { idx: 0, replyToCustomMessageId: asked.customMessageId },
    })
    expect(list[2]!.event.fact).toHaveProperty('runDone', null)
  })

  it.each([
    ['no key', { 'x-api-key': '' }, 401],
    ['a wrong key', { 'x-api-key': 'the-keys' }, 401],
    ['the old header', { 'x-api-key': '', 'x-asgard-webhook-token': 'the-key' }, 200],
  ])('answers %s accordingly', async (_, headers, status) => {
    const answer = await call('POST', '/message', message('keys', 'hello'), headers)
    expect(answer.status).toBe(status)
  })

  it('serves the old paths, without what came later', async () => {
    expect((await call('POST', '/message', message('old', 'hello'), {}, '/generic')).status).toBe(200)
    expect((await call('GET', '/channel/metadata?custom_channel_id=old', undefined, {}, '/generic')).status).toBe(404)
    expect((await call('GET', '/channel/metadata?custom_channel_id=old')).status).toBe(200)
  })

  it.each([
    ['no channel', { customMessageId: 'm', text: 'hello', action: 'NONE' }],
    ['an unknown action', message('bad', 'hello', { action: 'NEXT' })],
    ['a reset with blobs', message('bad', '', { action: 'RESET_CHANNEL', blobIds: ['1'] })],
    ['a blob of nowhere', message('bad', 'hello', { blobIds: ['1'] })],
    ['a consent nobody asked for', message('bad', '', { action: 'RESPONSE_TOOL_CALL_CONSENT' })],
  ])('refuses %s', async (_, body) => {
    const { status, body: answer } = await json(await call('POST', '/message/sse', body))
    expect(status).toBe(400)
    expect(answer).toMatchObject({ isSuccess: false, errorCode: 'INVALID_ARGUMENT' })
  })

  it('replays a channel as its collapsed history, and only what is behind a cursor', async () => {
    await frames(await call('POST', '/message/sse', message('replay', '!multi')))
    await frames(await call('POST', '/message/sse', message('replay', '/tools')))
    const all = await frames(await call('GET', '/message/sse?custom_channel_id=replay'))
    expect(types(all)).toEqual([
      'message.user',
      'message.complete',
      'message.complete',
      'message.user',
      'tool_call.complete',
      'message.complete',
      'run.done',
    ])
    expect(all.map(({ id }) => id)).toEqual(['1', '2', '3', '4', '5', '6', '6'])
    expect(all.every(({ event }) => event.requestId === '')).toBe(true)
    const before = edge.requests.length
    const rest = await call('POST', '/message/sse', message('replay', 'never sent'), { 'last-event-id': '4' })
    expect(types(await frames(rest))).toEqual(['tool_call.complete', 'message.complete', 'run.done'])
    const again = await frames(await call('GET', '/message/sse?custom_channel_id=replay'))
    expect(again).toHaveLength(all.length)
    expect(edge.requests.length).toBe(before + 2)
  })

  it('lets a run go on without anybody listening, and a second one watch it', async () => {
    const { body } = await json(await call('POST', '/message/dispatch', message('dispatched', '!steady')))
    expect(body).toMatchObject({ isSuccess: true, data: { customChannelId: 'dispatched' } })
    const watched = await frames(await call('GET', '/message/sse?custom_channel_id=dispatched'))
    expect(types(watched)).toContain('message.delta')
    expect(types(watched).slice(-2)).toEqual(['message.complete', 'run.done'])
  })

  it('ends a suspended run with run.done, and only the one named', async () => {
    const response = await call('POST', '/message/sse', message('suspended', '!hang-mid'))
    const list = frames(response)
    const suspend = (query: string) => call('POST', `/message/suspend?custom_channel_id=suspended${query}`)
    expect((await suspend('&request_id=another')).status).toBe(204)
    const metadata = await json(await call('GET', '/channel/metadata?custom_channel_id=suspended'))
    expect(metadata.body).toMatchObject({ data: { runState: 'RUNNING' } })
    expect((await suspend('')).status).toBe(204)
    expect(types(await list).at(-1)).toBe('run.done')
    expect((await suspend('')).status).toBe(204)
  })

  it('answers without a stream as well, with the messages or the pending calls', async () => {
    expect(await json(await call('POST', '/message', message('rest', '!multi')))).toMatchObject({
      body: { isSuccess: true, data: { messages: [{ text: 'The first message.' }, {}], errorDetail: null } },
    })
    expect(await json(await call('POST', '/message', message('rest', '/fail')))).toMatchObject({
      status: 200,
      body: { data: { errorDetail: { code: 'INTERNAL' } } },
    })
    expect(await json(await call('POST', '/message', message('rest', '/consent')))).toMatchObject({
      body: { data: { toolCallConsentRequest: { pendingCalls: [{ toolName: 'send_mail' }] } } },
    })
  })

  it('replays a pause, and takes the consent only whole and from whom it asked', async () => {
    const hint = { 'x-asgard-user-identity-hint': 'ada' }
    const asked = await frames(await call('POST', '/message/sse', message('paused', '!consent-two'), hint))
    expect(types(asked).slice(-2)).toEqual(['tool_call.consent', 'run.done'])
    const replayed = await frames(await call('GET', '/message/sse?custom_channel_id=paused'))
    expect(types(replayed).slice(-3)).toEqual(['run.init', 'tool_call.consent', 'run.done'])

    const fact = asked.at(-2)!.event.fact['toolCallConsent'] as { pendingCalls: { toolCallId: string }[] }
    const consents = fact.pendingCalls.map(({ toolCallId }) => ({ toolCallId, result: 'ALLOW_ONCE' }))
    const answer = (toolCallConsents: object[], headers = hint) =>
      call(
        'POST',
        '/message/sse',
        message('paused', '', { action: 'RESPONSE_TOOL_CALL_CONSENT', toolCallConsents }),
        headers,
      )
    expect((await call('POST', '/message/sse', message('paused', 'hello'), hint)).status).toBe(400)
    expect((await answer(consents.slice(1))).status).toBe(400)
    expect((await answer(consents, { 'x-asgard-user-identity-hint': 'grace' })).status).toBe(403)
    expect(types(await frames(await answer(consents))).filter((type) => type === 'tool_call.complete')).toHaveLength(2)
  })

  it('opens a channel with a welcome, nudges it in silence and resets it', async () => {
    expect(types(await frames(await call('POST', '/message/sse', message('opened', ''))))).toContain('message.complete')
    const nudge = await call('POST', '/message/sse', message('opened', '', { action: 'NUDGE' }))
    expect(types(await frames(nudge))).toEqual(['run.init', 'run.done'])
    await frames(await call('POST', '/message/sse', message('opened', '', { action: 'RESET_CHANNEL' })))
    const history = await frames(await call('GET', '/message/sse?custom_channel_id=opened'))
    expect(types(history)).toEqual(['message.complete', 'run.done'])
  })

  it('knows a channel by its metadata until it is deleted, twice if need be', async () => {
    const metadata = () => call('GET', '/channel/metadata?custom_channel_id=known')
    const unknown = await metadata()
    expect(unknown.status).toBe(404)
    expect(await unknown.text()).toBe(fixture('S8-metadata-404.json'))
    await frames(await call('POST', '/message/sse', message('known', '!title')))
    expect((await json(await metadata())).body).toMatchObject({
      data: { title: 'A talk with a name', runState: 'IDLE', conversationStatus: 'COMPLETED' },
    })
    for (const _ of [1, 2]) expect((await call('DELETE', '/channel?custom_channel_id=known')).status).toBe(204)
    expect((await metadata()).status).toBe(404)
    expect((await call('DELETE', '/channel')).status).toBe(400)
  })

  it('clears a channel', async () => {
    await frames(await call('POST', '/message/sse', message('cleared', 'hello')))
    expect((await call('POST', '/channel/clear?custom_channel_id=cleared')).status).toBe(204)
    expect(types(await frames(await call('GET', '/message/sse?custom_channel_id=cleared')))).toEqual(['run.done'])
  })

  it('takes feedback on what the bot said, and on nothing else', async () => {
    const list = await frames(await call('POST', '/message/sse', message('rated', 'hello')))
    const said = list.at(-2)!.event.fact['messageComplete'] as { message: { messageId: string } }
    const rate = (messageId: string, comment = '') =>
      call('POST', '/message/feedback', { customChannelId: 'rated', messageId, verdict: 'BAD', comment })
    expect(await json(await rate(said.message.messageId, 'so so'))).toMatchObject({
      status: 200,
      body: { data: { seq: 3 } },
    })
    expect(await json(await rate('m1'))).toMatchObject({
      status: 404,
      body: { error: 'message m1 not found', errorCode: 'MESSAGE_NOT_FOUND' },
    })
    expect((await rate(said.message.messageId, 'x'.repeat(8193))).status).toBe(400)
    expect(types(await frames(await call('GET', '/message/sse?custom_channel_id=rated')))).toContain('message.feedback')
  })

  it('answers an upload with a list, whatever the order of its fields', async () => {
    const form = new FormData()
    form.set('file', new File(['12345'], 'image.png', { type: 'image/png' }))
    form.set('customChannelId', 'uploads')
    const response = await fetch(`${base()}/blob`, { method: 'POST', headers: { 'x-api-key': 'the-key' }, body: form })
    const answer = (await response.json()) as { data: object[] }
    const sample = JSON.parse(fixture('S6-blob.json')) as { data: object[] }
    expect(Object.keys(answer)).toEqual(Object.keys(sample))
    expect(Object.keys(answer.data[0]!)).toEqual(Object.keys(sample.data[0]!))
    expect(answer).toMatchObject({ data: [{ fileType: 'IMAGE', fileName: 'image.png', size: 5, mime: 'image/png' }] })
    const bad = await fetch(`${base()}/blob`, { method: 'POST', headers: { 'x-api-key': 'the-key' }, body: 'text' })
    expect(bad.status).toBe(400)
  })

  it('keeps a sandbox alive once it has been launched', async () => {
    const beat = () => call('POST', '/sandbox/sandbox-1/heartbeat')
    expect(await json(await beat())).toMatchObject({ status: 412, body: { errorCode: 'FAILED_PRECONDITION' } })
    await frames(await call('POST', '/message/sse', message('boxed', '!sandbox')))
    expect(await json(await beat())).toMatchObject({
      status: 200,
      body: { data: { shutdownAt: expect.any(String) as string } },
    })
  })

  it('serves one-shot calls, its metadata and nothing unknown', async () => {
    expect((await json(await call('POST', '/json', { a: 1 }))).body).toMatchObject({ data: { received: { a: 1 } } })
    const form = new FormData()
    form.set('json', '{"a":1}')
    const posted = await fetch(`${base()}/form`, { method: 'POST', headers: { 'x-api-key': 'the-key' }, body: form })
    expect((await json(posted)).body).toMatchObject({ data: { received: { a: 1 } } })
    expect((await json(await call('GET', '/metadata'))).body).toMatchObject({ data: { name: edge.botProviderName } })
    expect((await call('GET', '/nothing')).status).toBe(404)
    expect((await fetch(`${edge.url}/ns/other/bot-provider/none/message`)).status).toBe(404)
  })

  it('refuses a body larger than it keeps', async () => {
    expect((await call('POST', '/json', { text: 'x'.repeat(1_100_000) })).status).toBe(413)
  })

  const streams = readdirSync(samples).filter((name) => name.endsWith('.sse'))

  it.each(streams)('emits the bytes of %s', async (name) => {
    const response = await call('POST', '/message/sse', message('samples', `!sample-${name.slice(0, -4)}`))
    expect(Buffer.from(await response.arrayBuffer()).equals(readFileSync(`${samples}${name}`))).toBe(true)
  })

  it('takes the documented requests', async () => {
    for (const name of ['S7-reset.json', 'S7-file.json']) {
      const body = JSON.parse(fixture(name)) as { blobIds?: string[] }
      const response = await call('POST', '/message/sse', { ...body, ...(body.blobIds ? { blobIds: [] } : {}) })
      expect(types(await frames(response)).at(-1)).toBe('run.done')
    }
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

  const streamed = async (channel: string, text: string) => {
    const seen: { id: string; type: string; fact: Record<string, unknown> }[] = []
    const sent = message(channel, text)
    await fetchEventSource(`${base()}/message/sse`, {
      method: 'POST',
      headers: { 'x-api-key': 'the-key', 'content-type': 'application/json' },
      body: JSON.stringify(sent),
      openWhenHidden: true,
      onmessage({ id, data }) {
        const event = JSON.parse(data) as { eventType: string; fact: Record<string, unknown> }
        seen.push({ id, type: event.eventType, fact: event.fact })
      },
    })
    const requests = edge.requests.filter(({ body }) => JSON.stringify(body)?.includes(`"${sent.customMessageId}"`))
    return { seen, requests }
  }

  it('streams a run to its end', async () => {
    const { seen, requests } = await streamed('browser', 'hello')
    expect(seen[0]).toMatchObject({ id: '0', type: 'asgard.run.init' })
    expect(seen.at(-1)?.type).toBe('asgard.run.done')
    expect(requests).toHaveLength(1)
  })

  it('is cut, comes back by itself with its cursor, and gets the rest', async () => {
    const { seen, requests } = await streamed('browser-cut', '/cut')
    expect(requests.map(({ headers }) => headers['last-event-id'])).toEqual([undefined, '0'])
    const complete = seen.filter(({ type }) => type === 'asgard.message.complete')
    expect(complete).toHaveLength(1)
    expect(complete[0]?.fact['messageComplete']).toMatchObject({
      message: { text: 'This answer is cut in the middle, and yet it comes to its end.' },
    })
    expect(seen.at(-1)?.type).toBe('asgard.run.done')
  })
})
