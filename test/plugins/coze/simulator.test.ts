import { readFileSync, readdirSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { startCozeSimulator } from '../../../plugins/coze/simulator.ts'
import type { CozeSimulatorOptions } from '../../../plugins/coze/simulator.ts'
import { samples } from './rig.ts'

interface Envelope {
  readonly code: number
  readonly data: Record<string, unknown>
  readonly message: Record<string, unknown>
  readonly detail: { readonly logid: string }
}

async function simulator(options: CozeSimulatorOptions = {}) {
  const started = await startCozeSimulator({ samples, ...options })
  const request = (method: string, path: string, body?: unknown, headers: Record<string, string> = {}) =>
    fetch(started.url + path, {
      method,
      headers: { authorization: `Bearer ${started.token}`, 'content-type': 'application/json', ...headers },
      ...(body === undefined ? {} : { body: typeof body === 'string' ? body : JSON.stringify(body) }),
    })
  const call = async (method: string, path: string, body?: unknown) =>
    (await (await request(method, path, body)).json()) as Envelope
  return {
    ...started,
    request,
    call,
    chat: (text: string, more: object = {}, conversation?: unknown) =>
      request('POST', `/v3/chat${conversation ? `?conversation_id=${conversation as string}` : ''}`, {
        bot_id: '1',
        user_id: 'u',
        stream: true,
        additional_messages: [{ role: 'user', content: text, content_type: 'text' }],
        ...more,
      }),
    [Symbol.asyncDispose]: () => started.close(),
  }
}

describe('the bytes', () => {
  const files = readdirSync(samples).filter((name) => /\.(sse|json)$/.test(name))

  it('are there to be compared', () => {
    expect(files.length).toBeGreaterThan(30)
  })

  it.each(files)('of %s are sent as they are', async (name) => {
    await using coze = await simulator()
    const response = await coze.chat(`!sample-${name.replace(/\.\w+$/, '')}`)
    const body = Buffer.from(await response.arrayBuffer())
    expect(body.length).toBeGreaterThan(0)
    expect(body).toEqual(readFileSync(samples + name))
  })

  it('of an ordinary answer are framed as the cloud frames them', async () => {
    await using coze = await simulator()
    const response = await coze.chat('Hello')
    expect(response.headers.get('content-type')).toBe('text/event-stream')
    expect(response.headers.get('x-tt-logid')).toMatch(/^\w+$/)
    const body = await response.text()
    expect(body.endsWith('event:done\ndata:"[DONE]"\n\n')).toBe(true)
    const events = body.slice(0, -2).split('\n\n')
    expect(events.every((event) => /^event:[\w.]+\ndata:[^\n]+$/.test(event))).toBe(true)
    expect(events.map((event) => /^event:conversation\.(.+)/.exec(event)?.[1])).toEqual([
      'chat.created',
      'chat.in_progress',
      ...Array<string>(4).fill('message.delta'),
      ...Array<string>(5).fill('message.completed'),
      'chat.completed',
      undefined,
    ])
  })

  it('of an error are one line without an end, under 200', async () => {
    await using coze = await simulator()
    const response = await coze.request('POST', '/v3/chat', {})
    expect(response.status).toBe(200)
    expect(await response.text()).toMatch(/^\{"code":4000,.*\}$/)
  })
})

describe('the rules', () => {
  const asked = { bot_id: '1', user_id: 'u', stream: true }

  it.each<[string, string, string, unknown, number, number]>([
    ['a chat without a bot', 'POST', '/v3/chat', { ...asked, bot_id: undefined }, 200, 4000],
    ['a chat without a user', 'POST', '/v3/chat', { ...asked, user_id: '' }, 200, 4000],
    ['a body that is no JSON', 'POST', '/v3/chat', '{broken', 200, 4000],
    ['a poll of an unsaved chat', 'POST', '/v3/chat', { ...asked, stream: false, auto_save_history: false }, 200, 4007],
    ['meta_data over its limits', 'POST', '/v3/chat', { ...asked, meta_data: { a: 'x'.repeat(513) } }, 200, 4003],
    [
      '101 messages',
      'POST',
      '/v3/chat',
      { ...asked, additional_messages: Array.from({ length: 101 }, () => ({})) },
      200,
      4004,
    ],
    ['an unknown conversation', 'POST', '/v3/chat?conversation_id=1', asked, 200, 4002],
    ['an unknown chat', 'GET', '/v3/chat/retrieve?conversation_id=1&chat_id=1', undefined, 200, 4001],
    ['an unknown message', 'GET', '/v1/conversation/message/retrieve?conversation_id=1', undefined, 200, 4002],
    ['an unknown file', 'GET', '/v1/files/retrieve?file_id=1', undefined, 200, 4200],
    ['an unknown endpoint', 'POST', '/v2/chat', {}, 404, 4000],
  ])('refuse %s', async (_what, method, path, body, status, code) => {
    await using coze = await simulator()
    const response = await coze.request(method, path, body)
    expect(response.status).toBe(status)
    expect(((await response.json()) as Envelope).code).toBe(code)
  })

  it('refuse a bad token in two ways', async () => {
    await using coze = await simulator({ token: 'pat_right' })
    const headers = { authorization: 'Bearer pat_wrong' }
    const chat = await coze.request('POST', '/v3/chat', asked, headers)
    expect([chat.status, ((await chat.json()) as Envelope).code]).toEqual([200, 4101])
    const other = await coze.request('GET', '/v3/chat/retrieve?conversation_id=1&chat_id=1', undefined, headers)
    expect([other.status, ((await other.json()) as Envelope).code]).toEqual([401, 700012006])
  })

  it('know one bot when they are given one', async () => {
    await using coze = await simulator({ botId: '7' })
    expect(coze.botId).toBe('7')
    expect((await coze.call('POST', '/v3/chat', asked)).code).toBe(4006)
  })

  it('let one chat of a conversation run, which cancelling ends, and nothing cancels it twice', async () => {
    await using coze = await simulator()
    const conversation = (await coze.call('POST', '/v1/conversation/create', {})).data['id']
    const body = { ...asked, stream: false, additional_messages: [{ role: 'user', content: '!long-run' }] }
    const chat = await coze.call('POST', `/v3/chat?conversation_id=${conversation as string}`, body)
    expect(chat.data['status']).toBe('in_progress')
    expect(((await (await coze.chat('Hello', {}, conversation)).json()) as Envelope).code).toBe(4016)
    const ref = { conversation_id: conversation, chat_id: chat.data['id'] }
    expect((await coze.call('POST', '/v3/chat/cancel', ref)).data['status']).toBe('canceled')
    expect((await coze.call('POST', '/v3/chat/cancel', ref)).code).toBe(4104)
    expect(await (await coze.chat('Hello', {}, conversation)).text()).toContain('event:done')
  })

  it('let a chat go on when its client leaves', async () => {
    await using coze = await simulator()
    const conversation = (await coze.call('POST', '/v1/conversation/create', {})).data['id'] as string
    const leaving = new AbortController()
    const response = await fetch(`${coze.url}/v3/chat?conversation_id=${conversation}`, {
      method: 'POST',
      headers: { authorization: `Bearer ${coze.token}` },
      body: JSON.stringify({ ...asked, additional_messages: [{ role: 'user', content: '!slow-answer' }] }),
      signal: leaving.signal,
    })
    const reader = response.body!.getReader()
    const first = new TextDecoder().decode((await reader.read()).value)
    const chat = /"id":"(\d+)"/.exec(first)![1]!
    leaving.abort()
    const status = async () =>
      (await coze.call('GET', `/v3/chat/retrieve?conversation_id=${conversation}&chat_id=${chat}`)).data['status']
    await expect.poll(status, { timeout: 2000 }).toBe('completed')
  })

  it('keep a page of a conversation at a time, and answer a change under another key', async () => {
    await using coze = await simulator()
    const id = (await coze.call('POST', '/v1/conversation/create', { meta_data: { a: 'b' } })).data['id'] as string
    for (const content of ['one', 'two', 'three']) {
      await coze.call('POST', `/v1/conversation/message/create?conversation_id=${id}`, { role: 'user', content })
    }
    const page = async (body: object) => {
      const answer = await coze.call('POST', `/v1/conversation/message/list?conversation_id=${id}`, body)
      const { data: items, ...rest } = answer as unknown as {
        data: { content: string }[]
        last_id: string
        has_more: boolean
      }
      return { words: items.map((item) => item.content), ...rest }
    }
    const newest = await page({ limit: 2 })
    expect(newest).toMatchObject({ words: ['three', 'two'], has_more: true })
    expect(await page({ limit: 2, after_id: newest.last_id })).toMatchObject({ words: ['one'], has_more: false })
    expect(await page({ order: 'asc', before_id: newest.last_id })).toMatchObject({ words: ['one'] })
    const path = `conversation_id=${id}&message_id=${newest.last_id}`
    const changed = await coze.call('POST', `/v1/conversation/message/modify?${path}`, { content: 'zwei' })
    expect(changed.message).toMatchObject({ content: 'zwei' })
    expect((await coze.call('GET', `/v1/conversation/message/retrieve?${path}`)).data).toMatchObject({
      content: 'zwei',
    })
    await coze.call('POST', `/v1/conversation/message/delete?${path}`)
    expect((await page({})).words).toEqual(['three', 'one'])
  })

  it('rename, clear and delete conversations', async () => {
    await using coze = await simulator()
    const id = (await coze.call('POST', '/v1/conversation/create', {})).data['id'] as string
    expect(await (await coze.chat('My name is Ada', {}, id)).text()).toContain('Ada')
    expect((await coze.call('PUT', `/v1/conversations/${id}`, { name: 'New' })).data).toMatchObject({ name: 'New' })
    const section = (await coze.call('POST', `/v1/conversations/${id}/clear`)).data['id']
    expect(section).toMatch(/^\d{19}$/)
    expect(await (await coze.chat('What is my name?', {}, id)).text()).not.toContain('Ada')
    expect((await coze.call('DELETE', `/v1/conversations/${id}`)).code).toBe(0)
    expect((await coze.call('GET', `/v1/conversation/retrieve?conversation_id=${id}`)).code).toBe(4002)
  })

  it('refuse tool outputs that are incomplete or that nobody waits for', async () => {
    await using coze = await simulator()
    const body = { ...asked, stream: false, additional_messages: [{ role: 'user', content: '/tools' }] }
    const chat = (await coze.call('POST', '/v3/chat', body)).data
    const ref = `conversation_id=${chat['conversation_id'] as string}&chat_id=${chat['id'] as string}`
    const retrieve = () => coze.call('GET', `/v3/chat/retrieve?${ref}`)
    await expect.poll(async () => (await retrieve()).data['status']).toBe('requires_action')
    const submit = (outputs: unknown[]) =>
      coze.call('POST', `/v3/chat/submit_tool_outputs?${ref}`, { tool_outputs: outputs, stream: false })
    expect((await submit([])).code).toBe(4000)
    expect((await coze.call('POST', '/v3/chat/cancel', Object.fromEntries(new URLSearchParams(ref)))).code).toBe(4104)
    const action = (await retrieve()).data['required_action'] as {
      submit_tool_outputs: { tool_calls: { id: string; function: { arguments: string } }[] }
    }
    const [call] = action.submit_tool_outputs.tool_calls
    expect(JSON.parse(call!.function.arguments)).toEqual({ city: 'Taipei' })
    expect((await submit([{ tool_call_id: call!.id, output: 'rain' }])).data['status']).toBe('in_progress')
    await expect.poll(async () => (await retrieve()).data['status']).toBe('completed')
    expect((await submit([{ tool_call_id: call!.id, output: 'rain' }])).code).toBe(4000)
  })

  it('remember the newest requests', async () => {
    await using coze = await simulator()
    await coze.call('GET', '//v1/users/me?a=b')
    expect(coze.requests).toEqual([{ method: 'GET', path: '/v1/users/me', query: { a: 'b' }, body: {} }])
  })
})
