import { once } from 'node:events'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { apiKey, asgard, asgardRelay, local } from '../../index.ts'
import { asgardEvent, encodeFrame } from '../../plugins/asgard/wire.ts'
import type { TestHub } from '../support/hub.ts'
import { connectRaw } from '../support/raw.ts'
import { startUpstream } from '../support/upstream.ts'
import { base, bodyOf, frontEnd, relayHub } from './asgard-relay.front-end.ts'

const upstreamKey = 'key-of-the-upstream-7b1d'
const keys = { ada: 'key-of-ada-0000000001', bob: 'key-of-bob-0000000001', server: 'key-of-a-server-0001' }

interface Asked {
  readonly method: string
  readonly path: string
  readonly query: URLSearchParams
  readonly headers: IncomingMessage['headers']
  readonly body: Buffer
}

/** What reached the upstream, apart from messages. */
const asked: Asked[] = []
/** What it does with the next call; else it says that all is well. */
let answerNext: ((request: IncomingMessage, response: ServerResponse, call: Asked) => unknown) | undefined

/** An Edge Server whose every message starts a sandbox that is called as the message says. */
async function edge(request: IncomingMessage, response: ServerResponse): Promise<void> {
  const url = new URL(request.url!, 'http://edge')
  const path = url.pathname.replace(/^\/ns\/ns\/bot-provider\/bot/, '')
  const chunks: Buffer[] = []
  const call = (body: Buffer): Asked => ({
    method: request.method!,
    path,
    query: url.searchParams,
    headers: request.headers,
    body,
  })
  const act = path === '/message/sse' ? undefined : answerNext
  if (act) {
    answerNext = undefined
    return void (await act(request, response, call(Buffer.alloc(0))))
  }
  for await (const chunk of request as AsyncIterable<Buffer>) chunks.push(chunk)
  if (path !== '/message/sse') {
    asked.push(call(Buffer.concat(chunks)))
    response.setHeader('content-type', 'application/json')
    response.setHeader('set-cookie', 'session=upstream')
    return void response.end(envelope({ ok: true }))
  }
  const { text, customChannelId } = JSON.parse(Buffer.concat(chunks).toString()) as Record<string, string>
  const ids = {
    requestId: 'r',
    namespace: 'ns',
    botProviderName: 'bot',
    customChannelId: customChannelId!,
    eventId: '1',
  }
  response.setHeader('content-type', 'text/event-stream')
  response.write(encodeFrame(asgardEvent('asgard.run.init', {}, ids), '0'))
  response.write(
    encodeFrame(asgardEvent('asgard.sandbox.launch', { sandboxName: text!, blueprintName: 'python' }, ids), '0'),
  )
  response.end(encodeFrame(asgardEvent('asgard.run.done', {}, ids), '0'))
}

const envelope = (content: unknown, error: string | null = null, errorCode: string | null = null) =>
  JSON.stringify({ isSuccess: error === null, data: content, error, errorCode })

let upstream: Awaited<ReturnType<typeof startUpstream>>
let hub: TestHub
beforeAll(async () => {
  upstream = await startUpstream(edge)
  hub = await relayHub(
    {
      edge: asgard({ edgeServerHost: upstream.url, namespace: 'ns', botProviderName: 'bot', apiKey: upstreamKey }),
      other: local(() => 'here'),
    },
    {
      auth: [
        apiKey({ name: 'ada', key: keys.ada }),
        apiKey({ name: 'bob', key: keys.bob }),
        apiKey({ name: 'server', key: keys.server, trusted: true, bypassConsent: true }),
      ],
      channels: { relay: asgardRelay({ origins: ['https://page.example'] }) },
    },
  )
})
afterAll(async () => {
  await hub[Symbol.asyncDispose]()
  await upstream[Symbol.asyncDispose]()
})

const pageOf = (who: keyof typeof keys, bot = 'edge') => frontEnd(hub.url, bot, { 'x-api-key': keys[who] })

/** Lets the bot start a sandbox in a channel of somebody's. */
async function launch(who: keyof typeof keys, channel: string, name: string): Promise<void> {
  await pageOf(who).say(channel, name)
}

describe('a call that only Asgard has', () => {
  it("reaches the upstream with the hub's key and the upstream's name of the channel, and nothing of the caller's", async () => {
    await launch('ada', 'home', 'box-a')
    const answer = await pageOf('ada').call(
      'GET',
      '/sandbox/box-a/fs/list?custom_channel_id=home&path=%2Fwork%2Fa%20b&user=eve&other=1',
      undefined,
      { cookie: 'session=browser', 'x-forwarded-for': '10.0.0.1' },
    )
    expect(await bodyOf(Promise.resolve(answer))).toMatchObject({ status: 200, body: { data: { ok: true } } })
    expect(answer.headers.get('set-cookie')).toBeNull()
    expect(answer.headers.get('content-security-policy')).toBe('sandbox')
    const call = asked.at(-1)!
    expect([call.method, call.path]).toEqual(['GET', '/sandbox/box-a/fs/list'])
    expect(call.headers['x-api-key']).toBe(upstreamKey)
    expect(Object.fromEntries(call.query)).toEqual({
      path: '/work/a b',
      custom_channel_id: expect.stringMatching(/^hub-[0-9a-f]{32}$/) as string,
    })
    expect(JSON.stringify(call.headers)).not.toContain(keys.ada)
    for (const name of ['cookie', 'authorization', 'x-forwarded-for']) expect(call.headers).not.toHaveProperty(name)
  })

  it("is refused about a sandbox or a channel that is somebody else's, as if there were none", async () => {
    await launch('ada', 'mine', 'box-b')
    await launch('ada', 'another', 'box-c')
    const before = asked.length
    const refused: readonly [keyof typeof keys, string, string][] = [
      ['bob', '/sandbox/box-b/heartbeat', 'unknown_sandbox'],
      ['bob', '/sandbox/nowhere/heartbeat', 'unknown_sandbox'],
      ['ada', '/sandbox/box-b/heartbeat?custom_channel_id=another', 'unknown_sandbox'],
      ['bob', '/sandbox/box-b/heartbeat?custom_channel_id=mine', 'CHANNEL_NOT_FOUND'],
      ['bob', '/channel/clear?custom_channel_id=mine', 'CHANNEL_NOT_FOUND'],
      ['ada', '/sandbox/..%2Fx/heartbeat', 'unknown_sandbox'],
      ['ada', '/channel/clear', 'INVALID_ARGUMENT'],
    ]
    for (const [who, path, errorCode] of refused) {
      expect((await bodyOf(pageOf(who).call('POST', path))).body, path).toMatchObject({ isSuccess: false, errorCode })
    }
    expect(asked.length).toBe(before)
    for (const path of ['/sandbox/box-b/heartbeat', '/sandbox/box-b/heartbeat?custom_channel_id=mine']) {
      expect((await pageOf('ada').call('POST', path)).status).toBe(200)
    }
    expect(asked.length).toBe(before + 2)
    await pageOf('ada').call('DELETE', '/channel?custom_channel_id=mine')
    expect((await pageOf('ada').call('POST', '/sandbox/box-b/heartbeat')).status).toBe(404)
  })

  it('that asks nobody for consent needs a key that may bypass it, and is audited', async () => {
    const before = asked.length
    const body = { order: [1, { deep: '好' }] }
    const refused = await bodyOf(pageOf('ada').call('POST', '/json', body))
    expect(refused).toMatchObject({ status: 403, body: { errorCode: 'bypass_forbidden' } })
    expect(asked.length).toBe(before)
    expect((await pageOf('server').call('POST', '/json', body)).status).toBe(200)
    expect(JSON.parse(asked.at(-1)!.body.toString())).toEqual(body)
    expect((await hub.hub.audit.page({ limit: 10 })).items).toContainEqual(
      expect.objectContaining({ what: 'consent bypassed', by: 'server', bot: 'edge', details: { path: '/json' } }),
    )
    const form = new FormData()
    form.set('json', '{"a":1}')
    form.set('file', new File([new Uint8Array(300_000).fill(7)], 'seven.bin'))
    const sent = await fetch(`${base(hub.url, 'edge')}/form`, {
      method: 'POST',
      headers: { 'x-api-key': keys.server },
      body: form,
    })
    expect(sent.status).toBe(200)
    const got = await new Response(new Uint8Array(asked.at(-1)!.body), {
      headers: { 'content-type': asked.at(-1)!.headers['content-type']! },
    }).formData()
    expect(got.get('json')).toBe('{"a":1}')
    expect((got.get('file') as File).size).toBe(300_000)
  })

  it.each([
    ['PUT', '/sandbox/s/fs/file?path=a', 'passthrough_unsupported'],
    ['POST', '/form', 'passthrough_unsupported'],
    ['POST', '/blob', 'files_unsupported'],
  ])('is refused for a bot that has no such thing before its body comes: %s %s', async (method, path, code) => {
    using connection = await connectRaw(hub.url)
    connection.write(
      [
        `${method} /ns/any/bot-provider/other${path} HTTP/1.1`,
        'Host: localhost',
        `X-Api-Key: ${keys.server}`,
        'Content-Type: multipart/form-data; boundary=b',
        'Content-Length: 1000000',
        '\r\n',
      ].join('\r\n'),
    )
    expect(await connection.closed).toContain(`"errorCode":"${code}"`)
  })

  it.each<[string, string, Record<string, string>, number, string]>([
    ['of another type', 'PUT /sandbox/box-l/fs/file', { 'content-type': 'text/plain' }, 415, 'unsupported_media_type'],
    [
      'that is too long',
      'PUT /sandbox/box-l/fs/file',
      { 'content-type': 'multipart/form-data; boundary=b', 'content-length': String(101 * 1_048_576) },
      413,
      'payload_too_large',
    ],
    ['of another type', 'POST /blob', { 'content-type': 'text/plain' }, 415, 'unsupported_media_type'],
    [
      'that is too long',
      'POST /blob',
      { 'content-type': 'multipart/form-data; boundary=b', 'content-length': String(101 * 1_048_576) },
      413,
      'payload_too_large',
    ],
    ['of another type', 'POST /json', { 'content-type': 'text/plain' }, 415, 'unsupported_media_type'],
    [
      'that is too long',
      'POST /json',
      { 'content-type': 'application/json', 'content-length': '2000000' },
      413,
      'payload_too_large',
    ],
  ])('refuses a body %s of %s before it comes', async (_, request, headers, status, code) => {
    await launch('server', 'limits', 'box-l')
    const [method, path] = request.split(' ')
    const all = { host: 'localhost', 'x-api-key': keys.server, 'content-length': '1000', ...headers }
    using connection = await connectRaw(hub.url)
    const lines = Object.entries(all).map(([name, value]) => `${name}: ${value}`)
    connection.write([`${method} /ns/any/bot-provider/edge${path} HTTP/1.1`, ...lines, '\r\n'].join('\r\n'))
    const answer = await connection.closed
    expect(answer).toContain(`HTTP/1.1 ${status} `)
    expect(answer).toContain(`"errorCode":"${code}"`)
  })

  it("keeps Asgard's status and code of a refusal, and none of its words", async () => {
    await launch('ada', 'home', 'box-d')
    answerNext = (_, response) => {
      response.writeHead(412, { 'content-type': 'application/json' })
      response.end(envelope(null, 'open sesame, says the vendor', 'FAILED_PRECONDITION'))
    }
    const { status, body } = await bodyOf(pageOf('ada').call('POST', '/sandbox/box-d/heartbeat'))
    expect([status, body['errorCode']]).toEqual([412, 'FAILED_PRECONDITION'])
    expect(JSON.stringify(body)).not.toContain('sesame')
    for (const [theirs, ours, code] of [
      [401, 502, 'upstream_auth'],
      [500, 502, 'upstream_failed'],
      [302, 502, 'upstream_failed'],
      [429, 429, 'upstream_rate_limited'],
    ] as const) {
      answerNext = (_, response) => void response.writeHead(theirs, { location: 'http://127.0.0.1:9/' }).end('<h1>')
      const refused = await bodyOf(pageOf('ada').call('POST', '/sandbox/box-d/heartbeat'))
      expect(refused).toMatchObject({ status: ours, body: { errorCode: code } })
    }
  })

  it('is streamed both ways: what is written arrives before the rest is sent, and what is read before it ends', async () => {
    await launch('ada', 'home', 'box-e')
    const firstSeen = Promise.withResolvers<void>()
    answerNext = async (request, response) => {
      const [chunk] = (await once(request, 'data')) as [Buffer]
      expect(chunk.toString()).toContain('first')
      firstSeen.resolve()
      for await (const _ of request);
      response.end(envelope({ bytesWritten: 11 }))
    }
    async function* body() {
      yield new TextEncoder().encode('--b\r\nfirst ')
      await firstSeen.promise
      yield new TextEncoder().encode('second\r\n--b--\r\n')
    }
    const written = await fetch(`${base(hub.url, 'edge')}/sandbox/box-e/fs/file?path=a&mode=420`, {
      method: 'PUT',
      headers: { 'x-api-key': keys.ada, 'content-type': 'multipart/form-data; boundary=b' },
      body: ReadableStream.from(body()),
      duplex: 'half',
    })
    expect(await written.json()).toMatchObject({ data: { bytesWritten: 11 } })

    const left = Promise.withResolvers<void>()
    const more = Promise.withResolvers<void>()
    answerNext = async (_, response) => {
      response.writeHead(200, { 'content-type': 'text/event-stream' })
      response.write('event: ready\ndata: {}\n\n')
      response.on('close', left.resolve)
      await more.promise
      response.write('event: change\ndata: {"op":"WRITE","path":"a","mtimeUnix":1}\n\n')
    }
    const leave = new AbortController()
    const watched = await fetch(`${base(hub.url, 'edge')}/sandbox/box-e/fs/watch?path=a&recursive=true`, {
      headers: { 'x-api-key': keys.ada },
      signal: leave.signal,
    })
    expect(watched.headers.get('content-type')).toBe('text/event-stream')
    const reader = watched.body!.pipeThrough(new TextDecoderStream()).getReader()
    expect((await reader.read()).value).toBe('event: ready\ndata: {}\n\n')
    more.resolve()
    expect((await reader.read()).value).toContain('event: change')
    leave.abort()
    await left.promise
  })

  it('gives a file back byte for byte, with what pages may read of its headers', async () => {
    await launch('ada', 'home', 'box-f')
    const bytes = Uint8Array.from({ length: 200_000 }, (_, index) => index % 251)
    answerNext = (_, response) =>
      response
        .writeHead(200, {
          'content-type': 'text/html',
          'content-disposition': 'attachment; filename="a.html"',
          'x-total-bytes': '500000',
          'x-truncated': 'true',
        })
        .end(bytes)
    const answer = await pageOf('ada').call(
      'GET',
      '/channel-home/download?custom_channel_id=home&relative_path=a',
      undefined,
      {
        origin: 'https://page.example',
      },
    )
    expect(Object.fromEntries(answer.headers)).toMatchObject({
      'content-type': 'text/html',
      'content-disposition': 'attachment; filename="a.html"',
      'x-total-bytes': '500000',
      'x-truncated': 'true',
      'x-content-type-options': 'nosniff',
      'access-control-expose-headers': expect.stringContaining('X-Total-Bytes') as string,
    })
    expect(Buffer.from(await answer.arrayBuffer()).equals(bytes)).toBe(true)
  })

  it('that breaks off upstream is broken off for the client, not whole', async () => {
    await launch('ada', 'home', 'box-g')
    answerNext = (_, response) => {
      response.writeHead(200, { 'content-type': 'application/octet-stream' })
      response.write('half', () => response.destroy())
    }
    const answer = await pageOf('ada').call('GET', '/sandbox/box-g/fs/file?path=a')
    await expect(answer.text()).rejects.toThrow()
  })

  it('shows of the metadata of a bot provider how the front end is to look, and nothing else', async () => {
    const look = '{"embedConfig":{"title":"Support"}}'
    answerNext = (_, response, { path }) => {
      expect(path).toBe('/metadata')
      const annotations = { 'asgard-ai.com/additional-annotation': look, 'applied-configuration': upstreamKey }
      response.end(envelope({ name: 'bot', annotations }))
    }
    expect((await bodyOf(pageOf('ada').call('GET', '/metadata'))).body).toMatchObject({
      data: { annotations: { 'asgard-ai.com/additional-annotation': look } },
    })
    answerNext = (_, response) => void response.end(envelope({ annotations: { secret: upstreamKey } }))
    expect((await bodyOf(pageOf('ada').call('GET', '/metadata'))).body['data']).toEqual({ annotations: {} })
    const refused = await bodyOf(pageOf('ada', 'other').call('GET', '/metadata'))
    expect(refused).toMatchObject({ status: 404, body: { errorCode: 'passthrough_unsupported' } })
  })

  it('never shows the key of the upstream', async () => {
    expect(asked.length).toBeGreaterThan(0)
    expect(JSON.stringify(hub.log)).not.toContain(upstreamKey)
  })
})

describe('the sandboxes of a channel', () => {
  it('are in its metadata, as Asgard describes them, or by name when it does not answer', async () => {
    await launch('ada', 'boxes', 'box-m')
    const sandbox = {
      sandboxName: 'box-m',
      sandboxBlueprintName: 'python',
      workingDirectory: '/w',
      browserEnabled: true,
    }
    const foreign = { ...sandbox, sandboxName: 'somebody-elses' }
    answerNext = (_, response, { path }) => {
      expect(path).toBe('/channel/metadata')
      response.end(envelope({ launchedSandboxes: [sandbox, foreign] }))
    }
    const { body } = await bodyOf(pageOf('ada').metadata('boxes'))
    expect(body).toMatchObject({ data: { launchedSandboxes: [sandbox] } })
    expect(JSON.stringify(body)).not.toContain('somebody-elses')
    answerNext = (_, response) => void response.destroy()
    expect((await bodyOf(pageOf('ada').metadata('boxes'))).body).toMatchObject({
      data: { launchedSandboxes: [{ sandboxName: 'box-m', sandboxBlueprintName: 'python', browserEnabled: false }] },
    })
  })
})
