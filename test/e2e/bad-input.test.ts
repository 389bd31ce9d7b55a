import { once } from 'node:events'
import { describe, expect, it, vi } from 'vitest'
import { WebSocket } from 'ws'
import type { TurnObject } from '../../index.ts'
import { jsonOf } from '../support/hub.ts'
import { sharedProgram } from '../support/program.ts'
import { connectRaw } from '../support/raw.ts'

// Programs are started here, on a machine that may be busy.
vi.setConfig({ testTimeout: 60_000, hookTimeout: 60_000 })

const shared = sharedProgram()

interface Request {
  readonly method?: string
  readonly path?: string
  readonly headers?: Readonly<Record<string, string>>
  readonly body?: string | Uint8Array
}

interface Answer {
  readonly status: number
  readonly headers: string
  readonly body: string
}

/** Sends bytes no well-behaved client would send; says that JSON comes unless the request does. */
async function send({ method = 'POST', path = '/api/v1/bots/main/messages', headers = {}, body = '' }: Request) {
  using connection = await connectRaw(shared.program.url)
  const bytes = typeof body === 'string' ? Buffer.from(body) : body
  const lines = {
    Host: new URL(shared.program.url).host,
    'Content-Type': 'application/json',
    Connection: 'close',
    ...headers,
  }
  const head = Object.entries({ ...lines, 'Content-Length': String(bytes.length) }).map((line) => line.join(': '))
  connection.write([`${method} ${path} HTTP/1.1`, ...head, '', ''].join('\r\n'))
  connection.write(bytes)
  const received = await connection.closed
  const [top = '', rest = ''] = received.split(/\r\n\r\n(.*)/s)
  return { status: Number(top.split(' ')[1]), headers: top.toLowerCase(), body: rest } satisfies Answer
}

const message = (more: object) => JSON.stringify({ text: 'hello', ...more })
const nested = `{"text":"x","payload":{"a":${'['.repeat(10_000)}${']'.repeat(10_000)}}}`

const refused: readonly (readonly [what: string, request: Request, status: number, code: string])[] = [
  ['broken JSON', { body: '{"text": "hello"' }, 400, 'bad_json'],
  ['an empty body', { body: '' }, 400, 'bad_json'],
  ['invalid UTF-8', { body: Buffer.from([...Buffer.from('{"text":"'), 0xc3, 0x28, 0x22, 0x7d]) }, 400, 'bad_json'],
  ['UTF-16', { body: Buffer.from('{"text":"hello"}', 'utf16le') }, 400, 'bad_json'],
  ['10,000 arrays inside each other', { body: nested }, 400, 'bad_json'],
  ['an array for an object', { body: '["hello"]' }, 422, 'invalid_request'],
  ['a missing field', { body: '{"conversation":"1"}' }, 422, 'invalid_request'],
  ['a number for a text', { body: '{"text":7}' }, 422, 'invalid_request'],
  ['control characters in an id', { body: message({ id: 'a\u0000b' }) }, 422, 'invalid_request'],
  ['control characters in a conversation', { body: message({ conversation: 'a\nb' }) }, 422, 'invalid_request'],
  ['control characters in a user', { body: message({ user: 'a\u007fb' }) }, 422, 'invalid_request'],
  ['an id of 10,000 characters', { body: message({ id: 'i'.repeat(10_000) }) }, 422, 'invalid_request'],
  ['a __proto__ that is no message', { body: '{"__proto__":{"text":"hello"}}' }, 422, 'invalid_request'],
  ['text/plain', { headers: { 'Content-Type': 'text/plain' }, body: message({}) }, 415, 'unsupported_media_type'],
  [
    'a form',
    { headers: { 'Content-Type': 'application/x-www-form-urlencoded' }, body: 'text=hello' },
    415,
    'unsupported_media_type',
  ],
  ['a file nobody uploaded', { body: message({ conversation: '1', files: ['file_0'] }) }, 404, 'unknown_file'],
  ['a conv_ id nobody has', { body: message({ conversation: 'conv_0' }) }, 404, 'unknown_conversation'],
  ['an unknown path', { path: '/api/v1/bots/main/message', body: message({}) }, 404, 'not_found'],
  ['a path that climbs', { path: '/api/v1/../../etc/passwd', body: message({}) }, 404, 'not_found'],
  ['an unknown turn', { method: 'GET', path: '/api/v1/turns/turn_0' }, 404, 'unknown_turn'],
  ['the events of an unknown turn', { method: 'GET', path: '/api/v1/turns/turn_0/events' }, 404, 'unknown_turn'],
  ['cancelling an unknown turn', { path: '/api/v1/turns/turn_0/cancel' }, 404, 'unknown_turn'],
  [
    'a decision on an unknown turn',
    { path: '/api/v1/turns/turn_0/consent', body: '{"decisions":[{"call":"c","result":"allow_once"}]}' },
    404,
    'unknown_turn',
  ],
  [
    'the messages of an unknown conversation',
    { method: 'GET', path: '/api/v1/bots/main/conversations/nobody/messages' },
    404,
    'unknown_conversation',
  ],
  ['a file that is no form', { path: '/api/v1/bots/asgard-demo/files', body: '{}' }, 415, 'unsupported_media_type'],
  ['a forged Host', { headers: { Host: 'evil.example' }, body: message({}) }, 403, 'forbidden_host'],
  ['a Host that only begins well', { headers: { Host: '127.0.0.1.evil.example' } }, 403, 'forbidden_host'],
]

const wrongMethods: readonly (readonly [method: string, path: string, allowed: readonly string[]])[] = [
  ['GET', '/api/v1/bots/main/messages', ['POST']],
  ['PUT', '/api/v1/bots/main/messages', ['POST']],
  ['DELETE', '/api/v1/turns/turn_0', ['GET']],
  ['GET', '/api/v1/turns/turn_0/cancel', ['POST']],
  ['POST', '/api/v1/bots', ['GET']],
  ['POST', '/api/v1/turns/turn_0/events', ['GET']],
  ['POST', '/healthz', ['GET']],
]

/** A clear answer in the hub's own words. */
function expectError({ status, headers, body }: Answer, expectedStatus: number, code: string): void {
  expect([status, body]).toEqual([expectedStatus, expect.stringContaining(`"code":"${code}"`)])
  expect(headers).toContain('content-type: application/json')
  const { error } = JSON.parse(body) as { error: { message: string; retryable: boolean } }
  expect(error.message).toMatch(/^.{10,}[.)]$/)
  expect(error.message).not.toMatch(/node_modules|\.ts\b|zod/i)
  expect(error.retryable).toBe(false)
}

async function expectGoingOn(): Promise<void> {
  const answer = await shared.program.api('/bots/main/messages', { text: 'still here' })
  expect(answer.status).toBe(200)
  expect(await jsonOf<TurnObject>(answer)).toMatchObject({
    status: 'completed',
    text: expect.stringContaining('still here'),
  })
}

describe('a client that sends', () => {
  it.each(refused)('%s is told so, and the hub goes on', async (_, request, status, code) => {
    expectError(await send(request), status, code)
    await expectGoingOn()
  })

  it.each(wrongMethods)('%s %s is told what is allowed', async (method, path, allowed) => {
    const answer = await send({ method, path, body: '{}' })
    expectError(answer, 405, 'method_not_allowed')
    const allow = /^allow: (.*)$/m.exec(answer.headers)?.[1] ?? ''
    const methods = allow.toUpperCase().split(', ')
    expect(methods).toEqual(expect.arrayContaining([...allowed]))
    expect(methods).not.toContain(method)
    await expectGoingOn()
  })

  it.each([
    ['asgard-dmeo', 'asgard-demo'],
    ['Main', 'main'],
    ['coze_demo', 'coze-demo'],
  ])('to the unknown bot %s is told which was probably meant', async (bot, meant) => {
    const answer = await shared.program.api(`/bots/${bot}/messages`, { text: 'hello' })
    expect(answer.status).toBe(404)
    expect(await answer.json()).toMatchObject({
      error: { code: 'unknown_bot', message: expect.stringContaining(`did you mean "${meant}"?`) },
    })
    await expectGoingOn()
  })

  it.each(['/api/v1/bots/main/messages', '/api/v1/turns/turn_0/consent'])(
    'fields nobody knows to %s finds them ignored, __proto__ among them',
    async (path) => {
      const polluted = '{"polluted":true,"bypassConsent":true,"toString":1}'
      const body = `{"text":"hello","decisions":[{"call":"c","result":"deny_once"}],"__proto__":${polluted},"constructor":{"prototype":${polluted}},"payload":{"__proto__":${polluted}}}`
      const { status } = await send({ path, body })
      expect(status).toBe(path.endsWith('messages') ? 200 : 404)
      const bots = (await (await shared.program.api('/bots')).json()) as { bots: object[] }
      expect(bots.bots[0]).not.toHaveProperty('polluted')
      const asks = await jsonOf<TurnObject>(await shared.program.api('/bots/main/messages', { text: '/consent' }))
      expect(asks.status).toBe('waiting')
    },
  )

  it('2 MB is told so while it still sends', async () => {
    const answer = await shared.program.api('/bots/main/messages', { text: 'x'.repeat(2_000_000) })
    expect(answer.status).toBe(413)
    expect(await answer.json()).toMatchObject({ error: { code: 'payload_too_large', retryable: false } })
    await expectGoingOn()
  })

  it('a cursor that is none of the turn is told so', async () => {
    const ask = () =>
      shared.program.api('/bots/main/messages', { text: 'hello' }).then((answer) => jsonOf<TurnObject>(answer))
    const [{ turn }, { turn: other }] = await Promise.all([ask(), ask()])
    for (const cursor of ['x', '-1', '1.5', `${turn}/`, `${turn}/x`, `${other}/1`, '1e3', '99999999999999999999']) {
      const byHeader = await shared.program.api(`/turns/${turn}/events`, undefined, { 'last-event-id': cursor })
      const byQuery = await shared.program.api(`/turns/${turn}/events?after=${encodeURIComponent(cursor)}`)
      for (const answer of [byHeader, byQuery]) {
        expect([cursor, answer.status]).toEqual([cursor, 400])
        expect(await answer.json()).toMatchObject({ error: { code: 'bad_cursor' } })
      }
    }
    await expectGoingOn()
  })

  it('no HTTP at all is answered 400 and hung up on', async () => {
    using connection = await connectRaw(shared.program.url)
    connection.write('\u0016\u0003\u0001 hello\r\n\r\n')
    expect(await connection.closed).toMatch(/^HTTP\/1\.1 400 /)
    await expectGoingOn()
  })

  it('a WebSocket handshake from a foreign page, or to no socket, is refused with a status', async () => {
    const statusOf = async (path: string, headers: Record<string, string>) => {
      const socket = new WebSocket(`${shared.program.url.replace('http', 'ws')}${path}`, { headers })
      socket.on('error', () => {})
      const [, response] = (await once(socket, 'unexpected-response')) as [unknown, { statusCode: number }]
      socket.terminate()
      return response.statusCode
    }
    expect(await statusOf('/api/v1/ws', { origin: 'https://evil.example' })).toBe(403)
    expect(await statusOf('/api/v1/ws', { host: 'evil.example' })).toBe(403)
    expect(await statusOf('/api/v1/wss', {})).toBe(404)
    await expectGoingOn()
  })

  it('any of this leaves no stack in the log', () => {
    expect(shared.program.output()).toContain('listens on')
    expect(shared.program.output()).not.toMatch(/^\s+at /m)
    expect(shared.program.output()).not.toContain('"level":50')
  })
})
