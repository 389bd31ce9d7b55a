import { describe, expect, it } from 'vitest'
import { echo, local } from '../../index.ts'
import { startHub } from '../support/hub.ts'
import { echoPath, rawPost, statusOf } from '../support/raw-request.ts'
import { connectRaw } from '../support/raw.ts'

const started = () => startHub({ bots: { echo: echo() } })

describe('oversized requests', () => {
  it('refuses a body over its limit before it is sent, and one that lied about its length as it comes', async () => {
    await using hub = await started()
    using declared = await connectRaw(hub.url)
    declared.write(rawPost(hub, { 'Content-Length': 2_000_000 }))
    expect(statusOf(await declared.closed)).toBe(413)

    using chunked = await connectRaw(hub.url)
    chunked.write(rawPost(hub, { 'Transfer-Encoding': 'chunked' }))
    const chunk = `10000\r\n${'x'.repeat(65_536)}\r\n`
    for (let sent = 0; sent < 32 && chunked.received() === ''; sent++) {
      chunked.write(chunk)
      await new Promise((resolve) => setImmediate(resolve))
    }
    const answer = await chunked.closed
    expect(statusOf(answer)).toBe(413)
    expect(answer).toContain('"code":"payload_too_large"')
    expect((await hub.ask('echo', 'still here')).text).toBe('still here')
  })

  it('takes a body that comes in pieces', async () => {
    await using hub = await started()
    using connection = await connectRaw(hub.url)
    connection.write(rawPost(hub, { 'Content-Length': 15 }, '{"te'))
    for (const piece of ['xt":', '"slow', '"}']) {
      await new Promise((resolve) => setImmediate(resolve))
      connection.write(piece)
    }
    await expect.poll(() => statusOf(connection.received()), { timeout: 5000 }).toBe(200)
  })
})

describe('odd requests', () => {
  const shorten = (text: string) => (text.length > 40 ? `${text.slice(0, 40)}…` : text)
  const bodies: [string, number, string][] = [
    ['{"text": "x"', 400, 'bad_json'],
    ['', 400, 'bad_json'],
    ['[]', 422, 'invalid_request'],
    ['"x"', 422, 'invalid_request'],
    ['{}', 422, 'invalid_request'],
    ['{"text":5}', 422, 'invalid_request'],
    [`{"text":"x","payload":${'['.repeat(100)}${']'.repeat(100)}}`, 400, 'bad_json'],
    ['['.repeat(500_000), 400, 'bad_json'],
    ['{"text":"x","id":"a\\u0000b"}', 422, 'invalid_request'],
    ['{"text":"x","conversation":"a\\nb"}', 422, 'invalid_request'],
    [`{"text":"x","id":"${'i'.repeat(300)}"}`, 422, 'invalid_request'],
    ['{"text":"x","conversation":"conv_nobody"}', 404, 'unknown_conversation'],
    ['{"text":"x","files":["file_nobody"]}', 404, 'unknown_file'],
  ]
  it.each(bodies.map(([body, code, name]) => [shorten(body), body, code, name] as const))(
    'the body %s is refused with its code, and the hub goes on',
    async (_, body, code, name) => {
      await using hub = await started()
      const response = await fetch(`${hub.url}${echoPath}`, {
        method: 'POST',
        body,
        headers: { 'content-type': 'application/json' },
      })
      expect(response.status).toBe(code)
      const { error } = (await response.json()) as { error: { code: string; message: string } }
      expect(error.code).toBe(name)
      expect(error.message).not.toMatch(/node_modules|\.ts:/)
      expect((await hub.ask('echo', 'still here')).text).toBe('still here')
    },
  )

  it('bytes that are no UTF-8 are refused', async () => {
    await using hub = await started()
    const body = Buffer.concat([Buffer.from('{"text":"'), Buffer.from([0xff, 0xfe]), Buffer.from('"}')])
    const response = await fetch(`${hub.url}${echoPath}`, {
      method: 'POST',
      body,
      headers: { 'content-type': 'application/json' },
    })
    expect(response.status).toBe(400)
  })

  it('__proto__ in a body changes nothing', async () => {
    await using hub = await started()
    const body = '{"text":"x","__proto__":{"bypassConsent":true},"payload":{"__proto__":{"polluted":1}}}'
    const response = await fetch(`${hub.url}${echoPath}`, {
      method: 'POST',
      body,
      headers: { 'content-type': 'application/json' },
    })
    expect(response.status).toBe(200)
    expect(({} as { polluted?: number }).polluted).toBeUndefined()
  })

  it.each([
    ['GET', echoPath, 405],
    ['PATCH', '/api/v1/bots', 405],
    ['GET', '/api/v1/nothing', 404],
    ['GET', '/', 404],
    ['POST', '/healthz', 405],
    ['GET', '/api/v1/turns/..%2f..%2fetc', 404],
    ['GET', '/api/v1/turns/%00', 404],
    ['GET', '/api/v1/turns/%ff', 404],
  ])('%s %s is %i', async (method, target, expected) => {
    await using hub = await started()
    using connection = await connectRaw(hub.url)
    connection.write(`${method} ${target} HTTP/1.1\r\nHost: ${new URL(hub.url).host}\r\nConnection: close\r\n\r\n`)
    const answer = await connection.closed
    expect(statusOf(answer)).toBe(expected)
    expect(answer).toContain('"error":{"code":"')
    if (expected === 405) expect(answer).toMatch(/\r\nallow: [A-Z, ]+\r\n/i)
  })

  it('a form, a text or nothing as content type is 415 where a body is read', async () => {
    await using hub = await started()
    for (const type of ['application/x-www-form-urlencoded', 'text/plain', 'multipart/form-data; boundary=x']) {
      const response = await fetch(`${hub.url}${echoPath}`, {
        method: 'POST',
        body: '{"text":"x"}',
        headers: { 'content-type': type },
      })
      expect([type, response.status]).toEqual([type, 415])
    }
  })

  it('X-Forwarded-* changes neither who asks nor where', async () => {
    await using hub = await startHub({ bots: { who: local(({ principal }) => principal.user ?? 'nobody') } })
    const headers = { 'x-forwarded-host': 'evil.example', 'x-forwarded-for': '1.2.3.4', 'x-forwarded-user': 'eve' }
    const response = await hub.api('/bots/who/messages', { text: 'x' }, headers)
    expect(await response.json()).toMatchObject({ text: 'nobody' })
    expect(response.headers.get('location')).toMatch(/^\/api\/v1\/turns\//)
  })
})
