import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { describe, expect, it, vi } from 'vitest'
import { localPrincipal } from '../../../core/auth.ts'
import { HubError } from '../../../core/errors.ts'
import type { HubEvent } from '../../../core/events.ts'
import type { Json } from '../../../core/message.ts'
import { tool } from '../../../core/tools.ts'
import type { Turn } from '../../../core/turn.ts'
import { coze as cozeBot } from '../../../plugins/coze/index.ts'
import { buildProvider, collect, pluginContext, turnOf } from '../../fakes/turn.ts'
import { answers, cursorAfter, failure, rig, spoken, threadAfter, visible } from './rig.ts'

const object = (value: unknown) => value as Record<string, Json>

describe('an answer', () => {
  it('arrives in pieces, whole, with suggestions and usage', async () => {
    await using coze = await rig()
    const { events, error } = await collect(coze.provider.respond(turnOf('Hello')))
    expect(error).toBeUndefined()
    expect(events.filter((event) => event.type === 'message.delta').length).toBeGreaterThanOrEqual(3)
    expect(answers(events)).toEqual([spoken(events)])
    expect(spoken(events)).toContain('Hello')
    expect(events.filter((event) => event.type === 'suggestion')).toHaveLength(3)
    expect(events.at(-1)).toMatchObject({ type: 'usage', totalTokens: expect.any(Number) })
  })

  it('belongs to a conversation that Coze is told of once', async () => {
    await using coze = await rig()
    const first = await collect(coze.provider.respond(turnOf('My name is Ada')))
    const thread = threadAfter(first.events)
    const second = await collect(coze.provider.respond(turnOf('What is my name?', { thread })))
    expect(spoken(second.events)).toBe('Your name is Ada.')
    expect(coze.requests('POST', '/v1/conversation/create').map(({ body }) => body)).toEqual([
      { bot_id: coze.simulator.botId, meta_data: { hub_conversation_id: 'conv_1' } },
    ])
    expect(coze.requests('POST', '/v3/chat').map(({ query }) => query['conversation_id'])).toEqual(
      Array(2).fill(object(thread)['conversationId']),
    )
  })

  it('names its conversation before the chat is asked for, and the chat before its first word', async () => {
    await using coze = await rig()
    const kinds: string[] = []
    for await (const event of coze.provider.respond(turnOf('Hello'))) {
      if (event.type === 'upstream') kinds.push(`${Object.keys(object(event.cursor)).join('+')} after ${coze.posts()}`)
      else kinds.push(event.type)
    }
    expect(kinds.slice(0, 3)).toEqual(['conversationId after 0', 'conversationId+chatId after 1', 'message.delta'])
  })

  it('is asked for with the fields of the config, a stable opaque user and the id of the message', async () => {
    await using coze = await rig({
      customVariables: { tone: 'kind' },
      metaData: { team: 'sales' },
      parameters: { depth: 2 },
    })
    const turn = turnOf('Hello', {
      message: { id: 'm-1', text: 'Hello', files: [], payload: { depth: 9, page: '/a' } },
      history: [
        { role: 'user', text: 'Before' },
        { role: 'bot', text: 'Answer' },
      ],
    })
    await collect(coze.provider.respond(turn))
    expect(coze.requests('POST', '/v3/chat')[0]?.body).toEqual({
      bot_id: coze.simulator.botId,
      user_id: expect.stringMatching(/^u_[0-9a-f]{24}$/),
      stream: true,
      auto_save_history: true,
      additional_messages: [
        { role: 'user', type: 'question', content: 'Before', content_type: 'text' },
        { role: 'assistant', type: 'answer', content: 'Answer', content_type: 'text' },
        {
          role: 'user',
          type: 'question',
          content: 'Hello',
          content_type: 'text',
          meta_data: { hub_message_id: 'm-1' },
        },
      ],
      custom_variables: { tone: 'kind' },
      meta_data: { team: 'sales' },
      parameters: { depth: 2, page: '/a' },
    })
  })

  it('is asked for with what the message wants of Coze, within what the config says', async () => {
    await using coze = await rig({ customVariables: { tone: 'kind' }, metaData: { team: 'sales' } })
    const payload = {
      custom_variables: { tone: 'rude', city: 'Oslo' },
      extra_params: { latitude: '59.9' },
      meta_data: { team: 'other', ticket: '7' },
      shortcut_command: { command_id: '9', parameters: { a: [{ type: 'text', text: 'x' }], b: '[]' } },
      parameters: { depth: 2 },
      page: '/a',
    }
    const { error } = await collect(
      coze.provider.respond(turnOf('Hello', { message: { id: 'm-1', text: 'Hello', files: [], payload } })),
    )
    expect(error).toBeUndefined()
    expect(coze.requests('POST', '/v3/chat')[0]?.body).toMatchObject({
      custom_variables: { tone: 'kind', city: 'Oslo' },
      extra_params: { latitude: '59.9' },
      meta_data: { team: 'sales', ticket: '7' },
      shortcut_command: { command_id: '9', parameters: { a: '[{"type":"text","text":"x"}]', b: '[]' } },
      parameters: { depth: 2, page: '/a' },
    })
  })

  it('takes what only looks like a wish of Coze for an input', async () => {
    await using coze = await rig()
    const payload = { custom_variables: 7, shortcut_command: 'weather', parameters: [1] }
    await collect(coze.provider.respond(turnOf('Hello', { message: { id: 'm-1', text: 'Hello', files: [], payload } })))
    const body = object(coze.requests('POST', '/v3/chat')[0]?.body)
    expect(body['parameters']).toEqual(payload)
    expect(Object.keys(body)).not.toContain('custom_variables')
    expect(Object.keys(body)).not.toContain('shortcut_command')
  })

  it('sends no more history than Coze takes, and an id it can keep', async () => {
    await using coze = await rig()
    const history = Array.from({ length: 150 }, (_, index) => ({ role: 'user' as const, text: `${index}` }))
    const message = { id: 'x'.repeat(600), text: 'Hello', files: [] }
    const { error } = await collect(coze.provider.respond(turnOf('', { history, message })))
    expect(error).toBeUndefined()
    const sent = object(coze.requests('POST', '/v3/chat')[0]?.body)['additional_messages'] as Json[]
    expect(sent).toHaveLength(100)
    expect(object(sent[0])['content']).toBe('51')
    expect(object(object(sent[99])['meta_data'])['hub_message_id']).toMatch(/^[0-9a-f]{64}$/)
  })

  it('keeps two principals apart in their users and conversations', async () => {
    await using coze = await rig()
    const ask = async (changes: Partial<Turn>) =>
      threadAfter((await collect(coze.provider.respond(turnOf('Hi', changes)))).events)
    const threads = [
      await ask({ principal: localPrincipal('ada') }),
      await ask({ principal: localPrincipal('bob') }),
      await ask({ principal: { ...localPrincipal('ada'), key: 'crm' } }),
      await ask({ principal: { ...localPrincipal(), key: 'local\0ada' } }),
    ]
    expect(new Set(threads.map((thread) => object(thread)['conversationId'])).size).toBe(4)
    const users = coze.requests('POST', '/v3/chat').map(({ body }) => object(body)['user_id'])
    expect(new Set(users).size).toBe(4)
    const again = await collect(coze.provider.respond(turnOf('Hi', { principal: localPrincipal('ada') })))
    expect(again.error).toBeUndefined()
    expect(object(coze.requests('POST', '/v3/chat').at(-1)?.body)['user_id']).toBe(users[0])
  })

  it('keeps the digits of ids beyond 2^53', async () => {
    await using coze = await rig()
    const { events } = await collect(coze.provider.respond(turnOf('Hello')))
    const { conversationId, chatId } = object(cursorAfter(events))
    expect(coze.requests('POST', '/v3/chat')[0]?.query['conversation_id']).toBe(conversationId)
    for (const id of [conversationId, chatId]) {
      expect(id).toMatch(/^\d{19}$/)
      expect(String(Number(id))).not.toBe(id)
    }
  })

  it.each(['Hello', '/cut', '!rounds'])('keeps those digits also where Coze writes numbers (%s)', async (text) => {
    const tools = { get_weather: tool({ run: () => 'Sunny.' }) }
    await using coze = await rig({ tools }, { numericIds: true })
    const { events, error } = await collect(coze.provider.respond(turnOf(text)))
    expect(error).toBeUndefined()
    expect(answers(events)).toEqual([spoken(events)])
    const { conversationId, chatId } = object(cursorAfter(events))
    for (const id of [conversationId, chatId]) expect(id).toMatch(/^\d{19}$/)
    for (const { query } of coze.simulator.requests) {
      if ('conversation_id' in query) expect(query['conversation_id']).toBe(conversationId)
      if ('chat_id' in query) expect(query['chat_id']).toBe(chatId)
    }
  })

  it('goes on in a new conversation when Coze has forgotten the old one', async () => {
    await using coze = await rig()
    const turn = turnOf('Hello', { thread: { conversationId: '7500000000000000999' } })
    const { events, error } = await collect(coze.provider.respond(turn))
    expect(error).toBeUndefined()
    expect(spoken(events)).toContain('Hello')
    expect(threadAfter(events)).not.toEqual(turn.thread)
    expect(coze.posts()).toBe(2)
  })

  it.each<[string, unknown[]]>([
    [
      '!multi',
      [
        { type: 'message.delta', message: 'm1', text: 'The first ' },
        { type: 'message.delta', message: 'm1', text: 'answer.' },
        { type: 'message.completed', message: 'm1', text: 'The first answer.' },
        { type: 'message.delta', message: 'm2', text: 'The second ' },
        { type: 'message.delta', message: 'm2', text: 'answer.' },
        { type: 'message.completed', message: 'm2', text: 'The second answer.' },
        { type: 'suggestion', text: 'One?' },
        { type: 'suggestion', text: 'Two?' },
        { type: 'suggestion', text: 'Three?' },
      ],
    ],
    [
      '!cloud-tool',
      [
        { type: 'tool.started', call: 'c1', toolset: 'weatherbox', tool: 'ts-weatherbox-now', input: { city: 'Oslo' } },
        {
          type: 'tool.completed',
          call: 'c1',
          output: { content_type: 1, response_for_model: 'sunny', type_for_model: 1 },
          isError: false,
        },
        { type: 'message.delta', message: 'm2', text: 'It is ' },
        { type: 'message.delta', message: 'm2', text: 'sunny.' },
        { type: 'message.completed', message: 'm2', text: 'It is sunny.' },
      ],
    ],
    [
      '/think',
      [
        { type: 'reasoning.delta', message: 'm1', text: 'The question is short, ' },
        { type: 'reasoning.delta', message: 'm1', text: 'so the answer ' },
        { type: 'reasoning.delta', message: 'm1', text: 'can be short too.' },
        { type: 'message.delta', message: 'm1', text: 'Forty' },
        { type: 'message.delta', message: 'm1', text: '-' },
        { type: 'message.delta', message: 'm1', text: 'two.' },
        {
          type: 'reasoning.completed',
          message: 'm1',
          text: 'The question is short, so the answer can be short too.',
        },
        { type: 'message.completed', message: 'm1', text: 'Forty-two.' },
      ],
    ],
    [
      '!object-string',
      [
        {
          type: 'message.completed',
          message: 'm1',
          text: 'A picture:',
          payload: [
            { type: 'text', text: 'A picture:' },
            { type: 'image', file_url: 'https://example.com/a.png' },
          ],
        },
      ],
    ],
  ])('to %s is exactly what was said', async (text, expected) => {
    await using coze = await rig()
    const { events, error } = await collect(coze.provider.respond(turnOf(text)))
    expect(error).toBeUndefined()
    expect(visible(events)).toEqual(expected)
    expect(coze.posts()).toBe(1)
  })

  it('may be a card after words', async () => {
    await using coze = await rig()
    const { events } = await collect(coze.provider.respond(turnOf('/card')))
    expect(answers(events)).toEqual(['Here is a card:', ''])
    expect(events.findLast((event) => event.type === 'message.completed')).toMatchObject({
      template: { type: 'card', card_type: 3, title: 'A card' },
    })
  })

  it.each([
    ['!split', 'Words, 字 and 🙂.'],
    ['!crlf', 'Words, 字 and 🙂.'],
    ['!spaced', 'Words, 字 and 🙂.'],
    ['!bom', 'Words, 字 and 🙂.'],
    ['!no-done', 'Words, 字 and 🙂.'],
    ['!studio', 'Words, 字 and 🙂.'],
    ['!unknown-event', 'Still here.'],
    ['!wrong-types', 'Still here.'],
    ['!after-end', 'The end.'],
    ['!audio', 'hi'],
    ['!knowledge', 'It is written.'],
    ['!sample-S1', '20是星期二。'],
    ['!sample-S13', 'fine'],
    ['!sample-S14', 'Hi'],
  ])('to %s is whole, however the stream is spelled', async (text, expected) => {
    await using coze = await rig()
    const { events, error } = await collect(coze.provider.respond(turnOf(text)))
    expect(error).toBeUndefined()
    expect(answers(events)).toEqual([expected])
    expect(spoken(events)).toBe(expected)
    expect(coze.posts()).toBe(1)
    expect(coze.requests('GET', '/v3/chat/retrieve')).toEqual([])
  })

  it('is complete when Coze says so, though it leaves the stream open', async () => {
    await using coze = await rig()
    const startedAt = performance.now()
    const { events, error } = await collect(coze.provider.respond(turnOf('!open-end')))
    expect(error).toBeUndefined()
    expect(answers(events)).toEqual(['Words, 字 and 🙂.'])
    expect(performance.now() - startedAt).toBeLessThan(5000)
  })

  it('keeps notes, knowledge, audio and what is unknown as raw events, never as text', async () => {
    await using coze = await rig()
    const names = async (text: string) => {
      const { events } = await collect(coze.provider.respond(turnOf(text)))
      return events.flatMap((event) => (event.type === 'raw' ? [event.name] : []))
    }
    expect(await names('!audio')).toContain('conversation.audio.delta')
    expect(await names('!unknown-event')).toEqual(expect.arrayContaining(['conversation.chat.dreaming', 'nonsense']))
    expect((await names('!knowledge')).length).toBeGreaterThanOrEqual(3)
  })

  it('takes files by their ids, beside words or in the place of words', async () => {
    await using coze = await rig()
    const thread = { bot: 'bot', principal: localPrincipal(), conversation: { id: 'conv_1', name: '1' } }
    const signal = new AbortController().signal
    const upload = async (name: string, mime: string, ...parts: string[]) => ({
      id: `file_${name}`,
      name,
      mime,
      bytes: 1,
      upstream: await coze.provider.upload!({ name, mime, stream: pieces(parts) }, thread, signal),
    })
    const files = [
      await upload('ä"1.png', 'image/png', 'ab', 'c'),
      await upload('b.mp3', 'audio/mpeg', 'x'),
      await upload('c.pdf', 'application/pdf', 'yy'),
    ]
    expect(coze.requests('POST', '/v1/files/upload').map(({ body }) => body)).toEqual([
      { file_name: 'ä"1.png', bytes: 3, type: 'image/png', parts: 1 },
      { file_name: 'b.mp3', bytes: 1, type: 'audio/mpeg', parts: 1 },
      { file_name: 'c.pdf', bytes: 2, type: 'application/pdf', parts: 1 },
    ])
    for (const text of ['Look', '']) {
      const { error } = await collect(coze.provider.respond(turnOf(text, { message: { id: `m${text}`, text, files } })))
      expect(error).toBeUndefined()
    }
    const ids = files.map((file) => object(file.upstream)['fileId'])
    const contents = coze.requests('POST', '/v3/chat').map(({ body }) => {
      const [message] = object(body)['additional_messages'] as Json[]
      expect(object(message)['content_type']).toBe('object_string')
      return JSON.parse(object(message)['content'] as string) as unknown
    })
    const media = [
      { type: 'image', file_id: ids[0] },
      { type: 'audio', file_id: ids[1] },
      { type: 'file', file_id: ids[2] },
    ]
    expect(contents).toEqual([
      [{ type: 'text', text: 'Look' }, ...media],
      [{ type: 'text', text: 'ä"1.png, b.mp3, c.pdf' }, ...media],
    ])
  })

  it('cannot take a file that Coze does not take in time', async () => {
    await using silent = createServer(() => {}).listen(0, '127.0.0.1')
    await once(silent, 'listening')
    const baseUrl = `http://127.0.0.1:${(silent.address() as AddressInfo).port}`
    await using coze = await rig({ baseUrl, timeoutMs: 100 })
    const thread = { bot: 'bot', principal: localPrincipal(), conversation: { id: 'conv_1', name: '1' } }
    const file = { name: 'a', mime: 'text/plain', stream: pieces(['a']) }
    const upload = coze.provider.upload!(file, thread, new AbortController().signal)
    await expect(upload).rejects.toMatchObject({ code: 'upstream_silent' })
    silent.closeAllConnections()
  })

  it('is forgotten with its conversation, once and again', async () => {
    await using coze = await rig()
    const { events } = await collect(coze.provider.respond(turnOf('Hello')))
    const thread = threadAfter(events)
    const ref = { bot: 'bot', principal: localPrincipal(), conversation: { id: 'conv_1', name: '1' }, thread }
    await coze.provider.forget!(ref, new AbortController().signal)
    await coze.provider.forget!(ref, new AbortController().signal)
    const path = `/v1/conversations/${object(thread)['conversationId'] as string}`
    expect(coze.requests('DELETE', path)).toHaveLength(2)
  })
})

async function* pieces(parts: readonly string[]) {
  for (const part of parts) yield Buffer.from(part)
}

describe('a failure', () => {
  it.each<[string, string, object]>([
    ['/fail', 'This answer is going to fail ', { code: 'upstream_failed', upstream: { code: '5000' } }],
    ['!failed-a', 'So far ', { code: 'upstream_failed', upstream: { code: '5000' } }],
    ['!failed-b', 'So far ', { code: 'upstream_failed', upstream: { code: '701231' } }],
    ['!failed-c', 'So far ', { code: 'upstream_failed', upstream: { code: '701231' } }],
    ['!error-event', 'So far ', { code: 'upstream_rejected', upstream: { code: '4000' } }],
    ['!busy-event', '', { code: 'upstream_rate_limited', upstream: { code: '4009' } }],
    ['!error-event-empty', '', { code: 'upstream_failed' }],
    ['!studio-error', '', { code: 'upstream_failed', upstream: { code: '103000000' } }],
    ['!canceled', 'So far ', { code: 'upstream_failed', upstream: { code: 'canceled' } }],
    ['!json-200', '', { code: 'upstream_auth', upstream: { code: '4101' } }],
    ['!json-200-newline', '', { code: 'upstream_auth', upstream: { code: '4101' } }],
    ['!json-200-sse', '', { code: 'upstream_auth', upstream: { code: '4101' } }],
    ['!json-200-sse-newline', '', { code: 'upstream_auth', upstream: { code: '4101' } }],
    ['!sample-S7b', '', { code: 'upstream_auth', upstream: { code: '4100' } }],
    ['!html-200', '', { code: 'upstream_failed' }],
    ['!error-401', '', { code: 'upstream_auth', upstream: { status: 401, code: '700012006' } }],
    ['!error-404', '', { code: 'upstream_rejected', upstream: { status: 404, code: '4000' } }],
    ['!error-500html', '', { code: 'upstream_failed', upstream: { status: 500 } }],
    ['!code-4008', '', { code: 'upstream_quota', upstream: { code: '4008' } }],
    ['!code-4013', '', { code: 'upstream_failed', upstream: { code: '4013' } }],
    ['!code-4028', '', { code: 'upstream_quota', upstream: { code: '4028' } }],
    ['!code-4105', '', { code: 'upstream_refused_content', upstream: { code: '4105' } }],
    ['!code-4001', '', { code: 'upstream_rejected', upstream: { code: '4001' } }],
  ])('%s ends the turn after what was shown, and is not repeated', async (text, shown, expected) => {
    await using coze = await rig()
    const { events, error } = await collect(coze.provider.respond(turnOf(text)))
    expect(failure(error)).toEqual({ notStarted: false, ...expected })
    expect(spoken(events)).toBe(shown)
    expect(coze.posts()).toBe(1)
  })

  it.each<[string, object]>([
    ['!error-429', { code: 'upstream_rate_limited', retryAfterMs: 2000, upstream: { status: 429, code: '4009' } }],
    ['!sample-S7f', { code: 'upstream_rate_limited', retryAfterMs: 2000, upstream: { status: 429, code: '4009' } }],
    ['!error-503', { code: 'upstream_failed', retryAfterMs: 3000, upstream: { status: 503 } }],
    ['!code-4009', { code: 'upstream_rate_limited', upstream: { code: '4009' } }],
    ['!code-4020', { code: 'upstream_rate_limited', upstream: { code: '4020' } }],
    ['!code-4016', { code: 'upstream_conflict', upstream: { code: '4016' } }],
  ])('%s started nothing and says so', async (text, expected) => {
    await using coze = await rig()
    const { error } = await collect(coze.provider.respond(turnOf(text)))
    expect(failure(error)).toEqual({ notStarted: true, ...expected })
  })

  it('may be tried again in the conversation that was made for the first attempt', async () => {
    await using coze = await rig()
    const turn = turnOf('/busy')
    const codes: unknown[] = []
    for (const attempt of [1, 2, 3]) {
      const { events, error } = await collect(coze.provider.respond({ ...turn, attempt }))
      codes.push(error ? failure(error) : answers(events))
    }
    const busy = {
      code: 'upstream_rate_limited',
      notStarted: true,
      retryAfterMs: 1000,
      upstream: { status: 429, code: '4009' },
    }
    expect(codes).toEqual([busy, busy, ['It was busy, twice; now it is not.']])
    expect(coze.requests('POST', '/v1/conversation/create')).toHaveLength(1)
  })

  it('is notStarted when nothing listens, or when the conversation could not be made', async () => {
    const closed = await rig()
    await closed[Symbol.asyncDispose]()
    for (const thread of [undefined, { conversationId: '7500000000000000001' }]) {
      const turn = turnOf('Hello', thread ? { thread } : {})
      const { error } = await collect(closed.provider.respond(turn))
      expect(failure(error)).toEqual({ code: 'upstream_unreachable', notStarted: true })
    }
  })

  it('of the token is one of auth, wherever Coze reports it', async () => {
    await using right = await rig()
    await using wrong = await rig({ token: 'pat_wrong', baseUrl: right.simulator.url })
    for (const thread of [undefined, { conversationId: '7500000000000000001' }]) {
      const { error } = await collect(wrong.provider.respond(turnOf('Hello', thread ? { thread } : {})))
      expect(failure(error)).toMatchObject({ code: 'upstream_auth', notStarted: false })
    }
    expect(right.requests('POST', '/v3/chat')).toHaveLength(1)
  })

  it('of a conversation that stays busy comes in time, before anything is shown', async () => {
    await using coze = await rig({ timeoutMs: 5000 })
    const first = coze.provider.respond(turnOf('!long-run'))[Symbol.asyncIterator]()
    const seen: HubEvent[] = []
    while (seen.at(-1)?.type !== 'message.delta') seen.push((await first.next()).value as HubEvent)
    const { error } = await collect(coze.provider.respond(turnOf('Hello', { thread: threadAfter(seen) })))
    expect(failure(error)).toEqual({ code: 'upstream_conflict', notStarted: true, upstream: { code: '4016' } })
    expect(coze.requests('GET', '/v3/chat/retrieve').length).toBeGreaterThan(1)
    await first.return?.()
  })

  it('of a busy conversation is none when its last chat ends in time', async () => {
    await using coze = await rig()
    const first = coze.provider.respond(turnOf('!slow-answer'))[Symbol.asyncIterator]()
    const seen: HubEvent[] = []
    while (seen.at(-1)?.type !== 'message.delta') seen.push((await first.next()).value as HubEvent)
    await first.return?.()
    const { events, error } = await collect(coze.provider.respond(turnOf('Hello', { thread: threadAfter(seen) })))
    expect(error).toBeUndefined()
    expect(spoken(events)).toContain('Hello')
    // Refused once, and begun once.
    expect(coze.posts()).toBe(3)
  })

  it('by one event larger than the hub takes also stops the chat', async () => {
    await using coze = await rig()
    const { events, error } = await collect(coze.provider.respond(turnOf('!oversized')))
    expect(failure(error).code).toBe('answer_too_large')
    expect(spoken(events)).toBe('Small. ')
    expect(coze.requests('POST', '/v3/chat/cancel')).toHaveLength(1)
  })
})

describe('a lost stream', () => {
  it.each([
    ['/cut', 'This half arrives on the stream, this one after asking again.'],
    ['!drop', 'The first half, the second half.'],
    ['!drop-before-first', 'the second half.'],
    ['!half-event', 'The first half, the second half.'],
    ['!idle', 'The first half, the second half.'],
    ['!done-only', 'The first half, the second half.'],
  ])('(%s) is made whole by asking what became of the chat', async (text, expected) => {
    await using coze = await rig({ idleTimeoutMs: 150 })
    const { events, error } = await collect(coze.provider.respond(turnOf(text)))
    expect(error).toBeUndefined()
    expect(answers(events)).toEqual([expected])
    expect(spoken(events)).toBe(expected)
    expect(events.filter((event) => event.type === 'usage')).toHaveLength(1)
    expect(coze.posts()).toBe(1)
    expect(coze.requests('GET', '/v3/chat/retrieve').length).toBeGreaterThan(0)
  })

  it('shows tools, answers and suggestions once', async () => {
    await using coze = await rig()
    const { events } = await collect(coze.provider.respond(turnOf('!rich-cut')))
    expect(visible(events).map((event) => object(event)['type'])).toEqual([
      'tool.started',
      'tool.completed',
      'message.delta',
      'message.completed',
      'message.delta',
      'message.completed',
      'suggestion',
    ])
    expect(answers(events)).toEqual(['It is sunny.', 'Bring a hat.'])
  })

  it('tells the truth at the end when other words were shown', async () => {
    await using coze = await rig()
    const { events } = await collect(coze.provider.respond(turnOf('!other-words')))
    expect(spoken(events)).toBe('What was shown ')
    expect(answers(events)).toEqual(['What is true.'])
  })

  it.each([
    ['!cut-failed', { code: 'upstream_failed', notStarted: false, upstream: { code: '4013' } }],
    ['!cut-canceled', { code: 'upstream_failed', notStarted: false, upstream: { code: 'canceled' } }],
  ])('(%s) fails as its chat did', async (text, expected) => {
    await using coze = await rig()
    const { events, error } = await collect(coze.provider.respond(turnOf(text)))
    expect(spoken(events)).toBe('The first half, ')
    expect(failure(error)).toEqual(expected)
    expect(coze.posts()).toBe(1)
  })

  it('whose chat nobody knows of stays unknown: it is never asked for again', async () => {
    await using coze = await rig()
    const { events, error } = await collect(coze.provider.respond(turnOf('!drop-unseen')))
    expect(failure(error)).toEqual({ code: 'upstream_cut', notStarted: false })
    expect(visible(events)).toEqual([])
    expect(coze.posts()).toBe(1)
    expect(coze.requests('POST', '/v1/conversation/message/list')).toHaveLength(3)
  })

  it('that was no stream at all is looked for by the chat it named', async () => {
    await using coze = await rig()
    const { events, error } = await collect(coze.provider.respond(turnOf('!sample-S5-create')))
    expect(failure(error)).toEqual({ code: 'upstream_cut', notStarted: false })
    expect(cursorAfter(events)).toMatchObject({ chatId: '7500000000000000010' })
    expect(coze.requests('GET', '/v3/chat/retrieve').map(({ query }) => query)).toEqual([
      { conversation_id: '7500000000000000001', chat_id: '7500000000000000010' },
    ])
  })

  it('is looked for at most once a second, and no longer than the time limit', async () => {
    await using coze = await rig({ timeoutMs: 1500 })
    const { error } = await collect(coze.provider.respond(turnOf('!cut-endless')))
    expect(failure(error)).toEqual({ code: 'upstream_cut', notStarted: false })
    expect(coze.sleeps.length).toBeGreaterThan(0)
    expect(coze.sleeps.every((ms) => ms >= 1000)).toBe(true)
  })

  it('is looked for again when Coze cannot say for the moment', async () => {
    const passing = [
      () => new Response('<html>', { status: 500 }),
      () => Response.json({ code: 4009, msg: 'busy' }, { status: 429 }),
      () => Response.error(),
      () => new Response('no json'),
    ]
    await using coze = await rig({}, {}, (url) => (url.includes('/v3/chat/retrieve') ? passing.shift()?.() : undefined))
    const { events, error } = await collect(coze.provider.respond(turnOf('!drop')))
    expect(passing).toEqual([])
    expect(error).toBeUndefined()
    expect(answers(events)).toEqual(['The first half, the second half.'])
  })

  it('fails as one of auth when the token has run out meanwhile', async () => {
    const refused = () => Response.json({ code: 700012006, msg: 'access token invalid' }, { status: 401 })
    await using coze = await rig({}, {}, (url) => (url.includes('/v3/chat/retrieve') ? refused() : undefined))
    const { error } = await collect(coze.provider.respond(turnOf('!drop')))
    expect(failure(error)).toMatchObject({ code: 'upstream_auth', notStarted: false })
  })

  it('stays unknown when Coze was told not to keep the chat', async () => {
    await using coze = await rig({ autoSaveHistory: false })
    const { error } = await collect(coze.provider.respond(turnOf('!drop')))
    expect(failure(error).code).toBe('upstream_cut')
    expect(coze.requests('GET', '/v3/chat/retrieve')).toEqual([])
  })
})

describe('a turn that goes on after a crash', () => {
  const shownIn = (events: readonly HubEvent[]) => {
    const started = events.find((event) => event.type === 'message.delta')
    return started ? [{ id: started.message, text: spoken(events), completed: false }] : []
  }

  it('shows only what was not shown', async () => {
    await using coze = await rig()
    const stopping = new AbortController()
    const turn = turnOf('!slow-answer')
    const before: HubEvent[] = []
    const first = await collect(
      (async function* () {
        for await (const event of coze.provider.respond({ ...turn, signal: stopping.signal })) {
          before.push(event)
          yield event
          if (event.type === 'message.delta') stopping.abort(new HubError('shutting_down'))
        }
      })(),
    )
    expect(failure(first.error).code).toBe('shutting_down')
    expect(spoken(before)).toBe('One, ')
    expect(coze.requests('POST', '/v3/chat/cancel')).toEqual([])

    const resumed = { ...turn, resume: cursorAfter(before), thread: threadAfter(before), shown: shownIn(before) }
    const { events, error } = await collect(coze.provider.respond(resumed))
    expect(error).toBeUndefined()
    expect(spoken(events)).toBe('two.')
    expect(answers(events)).toEqual(['One, two.'])
    expect(coze.posts()).toBe(1)
  })

  it('shows no tool and no suggestion again', async () => {
    await using coze = await rig()
    const turn = turnOf('!cloud-tool')
    const before: HubEvent[] = []
    for await (const event of coze.provider.respond(turn)) {
      before.push(event)
      if (event.type === 'message.delta') break
    }
    expect(visible(before).map((event) => object(event)['type'])).toEqual([
      'tool.started',
      'tool.completed',
      'message.delta',
    ])
    const resumed = { ...turn, resume: cursorAfter(before), thread: threadAfter(before), shown: shownIn(before) }
    const { events, error } = await collect(coze.provider.respond(resumed))
    expect(error).toBeUndefined()
    expect(visible(events).map((event) => object(event)['type'])).toEqual(['message.delta', 'message.completed'])
  })

  it('finds its chat by the id of the message', async () => {
    await using coze = await rig()
    const turn = turnOf('Hello')
    const first = await collect(coze.provider.respond(turn))
    // What was stored before the chat was posted.
    const { conversationId } = object(threadAfter(first.events))
    const resume = { conversationId: conversationId! }
    const { events, error } = await collect(coze.provider.respond({ ...turn, resume, thread: resume }))
    expect(error).toBeUndefined()
    expect(answers(events)).toEqual(answers(first.events))
    expect(coze.posts()).toBe(1)
  })

  it('is interrupted when Coze never saw the message, and is not asked for again', async () => {
    await using coze = await rig()
    const first = await collect(coze.provider.respond(turnOf('Hello')))
    // What was stored before the chat was posted.
    const { conversationId } = object(threadAfter(first.events))
    const resume = { conversationId: conversationId! }
    const { events, error } = await collect(coze.provider.respond(turnOf('Again', { resume, thread: resume })))
    expect(failure(error)).toEqual({ code: 'interrupted', notStarted: false })
    expect(visible(events)).toEqual([])
    expect(coze.posts()).toBe(1)
  })

  it('is interrupted by a chat that Coze does not know, or by a cursor that is none', async () => {
    await using coze = await rig()
    for (const resume of [{ conversationId: '7500000000000000001', chatId: '7500000000000000010' }, 'nonsense']) {
      const { error } = await collect(coze.provider.respond(turnOf('Hello', { resume })))
      expect(failure(error).code).toBe('interrupted')
    }
    expect(coze.posts()).toBe(0)
  })
})

describe('a turn that is stopped', () => {
  it('is cancelled at Coze too, at once, and its conversation is free', async () => {
    await using coze = await rig()
    const stopping = new AbortController()
    const reason = new HubError('cancelled')
    const seen: HubEvent[] = []
    let stoppedAt = 0
    const { error } = await collect(
      (async function* () {
        for await (const event of coze.provider.respond(turnOf('!long-run', { signal: stopping.signal }))) {
          seen.push(event)
          yield event
          if (event.type !== 'message.delta') continue
          stoppedAt = performance.now()
          stopping.abort(reason)
        }
      })(),
    )
    expect(error).toBe(reason)
    expect(performance.now() - stoppedAt).toBeLessThan(1000)
    expect(spoken(seen)).toBe('I begin, ')
    const { conversationId, chatId } = object(cursorAfter(seen))
    expect(coze.requests('POST', '/v3/chat/cancel').map(({ body }) => body)).toEqual([
      { conversation_id: conversationId, chat_id: chatId },
    ])
    const next = await collect(coze.provider.respond(turnOf('Hello', { thread: threadAfter(seen) })))
    expect(next.error).toBeUndefined()
    expect(spoken(next.events)).toContain('Hello')
  })

  it('before Coze has named the chat is cancelled all the same', async () => {
    await using coze = await rig()
    const stopping = new AbortController()
    const reason = new HubError('cancelled')
    const answered = collect(coze.provider.respond(turnOf('!slow-start', { signal: stopping.signal })))
    await expect.poll(coze.posts, { interval: 5 }).toBe(1)
    stopping.abort(reason)
    const { events, error } = await answered
    expect(error).toBe(reason)
    expect(coze.requests('POST', '/v3/chat/cancel')).toHaveLength(1)
    const next = await collect(coze.provider.respond(turnOf('Hello', { thread: threadAfter(events) })))
    expect(next.error).toBeUndefined()
  })

  it('is cancelled also when its reader leaves without another look', async () => {
    await using coze = await rig()
    const stopping = new AbortController()
    let words = 0
    const reading = async () => {
      for await (const event of coze.provider.respond(turnOf('/long', { signal: stopping.signal }))) {
        if (event.type !== 'message.delta') continue
        words++
        stopping.abort(new HubError('cancelled'))
        stopping.signal.throwIfAborted()
      }
    }
    await expect(reading()).rejects.toMatchObject({ code: 'cancelled' })
    expect(words).toBe(1)
    expect(coze.requests('POST', '/v3/chat/cancel')).toHaveLength(1)
  })

  it('before it began asks for nothing', async () => {
    await using coze = await rig()
    const reason = new HubError('cancelled')
    const { error } = await collect(coze.provider.respond(turnOf('Hello', { signal: AbortSignal.abort(reason) })))
    expect(error).toBe(reason)
    expect(coze.simulator.requests).toEqual([])
  })

  it('while it looks for its chat stops looking', async () => {
    await using coze = await rig()
    const stopping = new AbortController()
    const reason = new HubError('deadline_exceeded')
    const stopped = collect(coze.provider.respond(turnOf('!cut-endless', { signal: stopping.signal })))
    await expect.poll(() => coze.requests('GET', '/v3/chat/retrieve').length, { interval: 5 }).toBeGreaterThan(0)
    stopping.abort(reason)
    expect((await stopped).error).toBe(reason)
  })
})

describe('the options', () => {
  it('come from the environment, which the config check names when it is not set', () => {
    try {
      for (const name of ['COZE_BOT_ID', 'COZE_API_TOKEN']) vi.stubEnv(name, undefined)
      const spec = cozeBot()
      const issues = spec.schema.safeParse(spec.options).error?.issues.map(({ path, message }) => [path, message])
      expect(issues).toEqual([
        [['botId'], expect.stringContaining('COZE_BOT_ID is not set')],
        [['token'], expect.stringContaining('COZE_API_TOKEN is not set')],
      ])
      vi.stubEnv('COZE_BOT_ID', '7')
      vi.stubEnv('COZE_API_TOKEN', 'pat_from_env')
      expect(spec.schema.safeParse(spec.options).success).toBe(true)
    } finally {
      vi.unstubAllEnvs()
    }
  })

  it('are strict', () => {
    const wrong = (options: unknown) => cozeBot().schema.safeParse(options).error?.issues[0]
    expect(wrong({ simulated: true, bot: '7' })).toMatchObject({ code: 'unrecognized_keys', keys: ['bot'] })
    expect(wrong({ simulated: true, tools: { a: 1 } })).toMatchObject({ path: ['tools'] })
    expect(wrong({ simulated: true, metaData: { a: '' } })).toMatchObject({ path: ['metaData', 'a'] })
    // @ts-expect-error there is no option called bot
    cozeBot({ bot: '7' })
  })

  it('take an address with a slash at its end', async () => {
    await using coze = await rig()
    await using slashed = await rig({ baseUrl: `${coze.simulator.url}/` })
    const { error } = await collect(slashed.provider.respond(turnOf('Hello')))
    expect(error).toBeUndefined()
    expect(coze.posts()).toBe(1)
  })

  it('let the hub answer by itself', async () => {
    const provider = await buildProvider(cozeBot({ simulated: true }), pluginContext())
    expect(provider.simulated).toBe(true)
    const { events } = await collect(provider.respond(turnOf('我叫小明')))
    expect(spoken(events)).toContain('小明')
    await provider.close?.()
    const { error } = await collect(provider.respond(turnOf('Hello')))
    expect(failure(error).code).toBe('upstream_unreachable')
  })
})
