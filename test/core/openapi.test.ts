import { Validator } from '@seriousme/openapi-schema-validator'
import { describe, expect, it } from 'vitest'
import { z } from 'zod'
import {
  apiKey,
  asgard,
  consent,
  coze,
  defineChannel,
  demoBot,
  echo,
  local,
  rest,
  sse,
  tool,
  webhook,
  websocket,
} from '../../index.ts'
import type { TurnObject } from '../../index.ts'
import { failures } from '../../core/errors.ts'
import { gatedBot } from '../fakes/gated-bot.ts'
import { jsonOf, readEvents, startHub } from '../support/hub.ts'
import type { TestHub } from '../support/hub.ts'

type Schema = Readonly<Record<string, unknown>>
type Contents = Readonly<Record<string, { readonly schema: Schema }>>

interface Operation {
  readonly summary: string
  readonly description?: string
  readonly parameters: readonly {
    readonly name: string
    readonly in: string
    readonly required: boolean
    readonly schema: Schema
  }[]
  readonly requestBody?: { readonly content: Contents }
  readonly responses: Readonly<Record<string, { readonly content?: Contents; readonly $ref?: string }>>
  readonly security?: readonly unknown[]
}

interface Document {
  readonly openapi: string
  readonly info: { readonly description: string }
  readonly paths: Readonly<Record<string, Readonly<Record<string, Operation>>>>
  readonly components: {
    readonly schemas: Readonly<Record<string, Schema>>
    readonly responses: { readonly Error: { readonly content: Contents } }
    readonly securitySchemes?: Readonly<Record<string, Schema>>
  }
  readonly security?: readonly unknown[]
}

const documentOf = async (hub: TestHub): Promise<Document> => jsonOf(await fetch(`${hub.url}/openapi.json`))

/** `GET /healthz` and the like, sorted. */
const operationsOf = ({ paths }: Document): readonly string[] =>
  Object.entries(paths)
    .flatMap(([path, operations]) => Object.keys(operations).map((method) => `${method.toUpperCase()} ${path}`))
    .toSorted()

/**
 * The problems a value has with a schema of the document. Stricter than the document itself: a field that it has no
 * word for is one, too.
 */
function problems(document: Document, schema: Schema | undefined, value: unknown): readonly string[] {
  if (!schema) return ['is not described']
  const result = checkerOf(document, schema).safeParse(value)
  return result.success ? [] : result.error.issues.map((issue) => `${issue.path.join('.')}: ${JSON.stringify(issue)}`)
}

/** Made once for each schema: thousands of events are checked with one. */
const checkers = new WeakMap<Schema, z.ZodType>()

function checkerOf(document: Document, schema: Schema): z.ZodType {
  const known = checkers.get(schema)
  if (known) return known
  const inner = JSON.stringify({ ...schema, $defs: document.components.schemas })
    .replaceAll('"#/components/schemas/', '"#/$defs/')
    .replaceAll('"type":"object","properties":{', '"additionalProperties":false,"type":"object","properties":{')
  const made = z.fromJSONSchema(JSON.parse(inner) as Parameters<typeof z.fromJSONSchema>[0])
  checkers.set(schema, made)
  return made
}

const answerSchema = (document: Document, operation: string, status: number, type = 'application/json') => {
  const [method = '', path = ''] = operation.split(' ')
  return document.paths[path]?.[method.toLowerCase()]?.responses[status]?.content?.[type]?.schema
}

const everywhere = [
  'DELETE /api/v1/admin/users/{person}',
  'GET /api/v1/admin/users/{person}',
  'GET /api/v1/admin/audit',
  'GET /api/v1/admin/conversations',
  'GET /api/v1/admin/conversations/{conversation}',
  'GET /api/v1/admin/conversations/{conversation}/messages',
  'GET /api/v1/admin/turns',
  'GET /api/v1/admin/turns/{turn}',
  'GET /api/v1/admin/turns/{turn}/events',
  'GET /api/v1/outbox',
  'GET /healthz',
  'GET /metrics',
  'GET /openapi.json',
  'GET /readyz',
  'POST /api/v1/outbox/retry',
]
const ofBoth = [
  'POST /api/v1/bots/{bot}/messages',
  'POST /api/v1/turns/{turn}/consent',
  'POST /api/v1/turns/{turn}/tool-outputs',
]
const ofRest = [
  'DELETE /api/v1/conversations/{conversation}/handover',
  'GET /api/v1/conversations/{conversation}/messages',
  'POST /api/v1/conversations/{conversation}/handover',
  'POST /api/v1/conversations/{conversation}/messages',
  'DELETE /api/v1/bots/{bot}/conversations/{conversation}',
  'GET /api/v1/bots',
  'GET /api/v1/bots/{bot}/conversations',
  'GET /api/v1/bots/{bot}/conversations/{conversation}/messages',
  'GET /api/v1/turns/{turn}',
  'POST /api/v1/bots/{bot}/files',
  'POST /api/v1/turns/{turn}/cancel',
]
const ofSse = ['GET /api/v1/bots/{bot}/conversations/{conversation}/events', 'GET /api/v1/turns/{turn}/events']

const bots = { echo: echo() }
const whole = {
  bots,
  channels: { rest: rest(), sse: sse(), socket: websocket(), crm: webhook({ bot: 'echo' }) },
}
const guarded = {
  ...whole,
  auth: [apiKey({ name: 'crm', key: 'a-key-for-this-test' })],
  channels: { ...whole.channels, crm: webhook({ bot: 'echo', as: 'crm', callback: 'https://example.com/answers' }) },
}

/** A channel that says nothing of its routes. */
const silent = defineChannel({
  name: 'silent',
  options: z.strictObject({}),
  create: () => ({
    door: 'GET /silent',
    routes: [{ method: 'GET', path: '/silent/:name', handle: (ctx) => void (ctx.body = ctx.params['name']) }],
  }),
})

describe('the description of a hub', () => {
  it.each([
    ['with every channel', whole],
    ['with auth', guarded],
    ['with rest alone', { bots, channels: { rest: rest() } }],
    ['with sse under a path', { bots, channels: { sse: sse({ path: '/hub' }) } }],
    ['with a channel that describes nothing', { bots, channels: { silent: silent() } }],
  ])('%s is valid OpenAPI 3.1', async (_, config) => {
    await using hub = await startHub(config)
    const document = await documentOf(hub)
    expect(document.openapi).toBe('3.1.0')
    expect(Object.keys(document.paths)).not.toEqual([])
    const validator = new Validator()
    expect(await validator.validate(structuredClone(document) as unknown as Record<string, unknown>)).toEqual({
      valid: true,
    })
    const references = JSON.stringify(document).matchAll(/"\$ref":"#\/components\/(?<kind>\w+)\/(?<name>[^"]+)"/g)
    for (const { groups } of references) {
      expect(Object.keys(document.components[groups!['kind'] as 'schemas' | 'responses'])).toContain(groups!['name'])
    }
  })

  it('would be told from one that is not valid', async () => {
    await using hub = await startHub(whole)
    const document = await documentOf(hub)
    const broken = { ...structuredClone(document), paths: { '/x': { get: { responses: 'none' } } } }
    expect((await new Validator().validate(broken as unknown as Record<string, unknown>)).valid).toBe(false)
  })

  it.each([
    ['every channel', whole, [...everywhere, ...ofBoth, ...ofRest, ...ofSse, 'POST /api/v1/webhooks/crm']],
    ['rest alone', { bots, channels: { rest: rest() } }, [...everywhere, ...ofBoth, ...ofRest]],
    ['sse alone', { bots, channels: { sse: sse() } }, [...everywhere, ...ofBoth, ...ofSse]],
    ['websocket alone', { bots, channels: { socket: websocket() } }, everywhere],
    [
      'a path',
      { bots, channels: { rest: rest({ path: '/hub' }), sse: sse() } },
      [
        ...everywhere,
        ...[...ofBoth, ...ofRest].map((operation) => operation.replace('/api', '/hub/api')),
        ...ofBoth,
        ...ofSse,
      ],
    ],
    [
      'metrics elsewhere',
      { bots, channels: { socket: websocket() }, metrics: { port: 0 } },
      everywhere.filter((operation) => operation !== 'GET /metrics'),
    ],
    [
      'a channel that describes nothing',
      { bots, channels: { silent: silent() } },
      [...everywhere, 'GET /silent/{name}'],
    ],
  ])('has what is mounted with %s, and nothing else', async (_, config, expected) => {
    await using hub = await startHub(config)
    expect(operationsOf(await documentOf(hub))).toEqual(expected.toSorted())
  })

  it('names the methods that its paths take', async () => {
    await using hub = await startHub(whole)
    const document = await documentOf(hub)
    for (const [path, operations] of Object.entries(document.paths)) {
      const answer = await fetch(hub.url + path.replaceAll(/[{}]/g, ''), { method: 'PUT' })
      expect([path, answer.status]).toEqual([path, 405])
      const allowed = answer.headers.get('allow')!.split(', ')
      const described = Object.keys(operations).map((method) => method.toUpperCase())
      expect([path, allowed.filter((method) => method !== 'HEAD').toSorted()]).toEqual([path, described.toSorted()])
    }
  })

  it('tells both forms of an answer where two channels share a path, and one where they do not', async () => {
    const forms = async (channels: Parameters<typeof startHub>[0]['channels']) => {
      await using hub = await startHub({ bots, channels: channels! })
      const { paths } = await documentOf(hub)
      return ofBoth.map((operation) =>
        Object.keys(paths[operation.split(' ')[1]!]!['post']!.responses['200']!.content!).toSorted(),
      )
    }
    const [json, events] = ['application/json', 'text/event-stream'] as const
    expect(await forms({ rest: rest(), sse: sse() })).toEqual(ofBoth.map(() => [json, events]))
    expect(await forms({ rest: rest() })).toEqual(ofBoth.map(() => [json]))
    expect(await forms({ sse: sse() })).toEqual(ofBoth.map(() => [events]))
  })

  it('has no word of events where none are streamed', async () => {
    await using hub = await startHub({ bots, channels: { rest: rest() } })
    const document = await documentOf(hub)
    expect(Object.keys(document.components.schemas)).toContain('Turn')
    expect(Object.keys(document.components.schemas)).not.toContain('Event')
    expect(JSON.stringify(document)).not.toContain('"text/event-stream"')
  })

  it.each([
    ['POST /api/v1/bots/{bot}/messages', ['path bot', 'header Idempotency-Key', 'header Prefer']],
    ['POST /api/v1/turns/{turn}/consent', ['path turn', 'header Prefer']],
    ['GET /api/v1/turns/{turn}', ['path turn', 'query wait']],
    ['GET /api/v1/turns/{turn}/events', ['path turn', 'query after', 'header Last-Event-ID']],
    [
      'GET /api/v1/bots/{bot}/conversations/{conversation}/messages',
      ['path bot', 'path conversation', 'query before', 'query limit'],
    ],
    [
      'GET /api/v1/bots/{bot}/conversations/{conversation}/events',
      ['path bot', 'path conversation', 'header Last-Event-ID'],
    ],
  ])('names the parameters of %s, with who may speak for a user', async (operation, expected) => {
    await using hub = await startHub(whole)
    const [method = '', path = ''] = operation.split(' ')
    const { parameters } = (await documentOf(hub)).paths[path]![method.toLowerCase()]!
    expect(parameters.map((each) => `${each.in} ${each.name}`).toSorted()).toEqual(
      [...expected, 'query user', 'header X-Hub-User'].toSorted(),
    )
    expect(parameters.filter(({ required }) => required).map((each) => each.in)).toEqual(
      expected.filter((each) => each.startsWith('path ')).map(() => 'path'),
    )
  })

  it('says that a webhook is signed, and needs no key', async () => {
    await using hub = await startHub(guarded)
    const { parameters, security } = (await documentOf(hub)).paths['/api/v1/webhooks/crm']!['post']!
    expect(parameters.map((each) => [each.name, each.required])).toEqual([
      ['webhook-id', true],
      ['webhook-timestamp', true],
      ['webhook-signature', true],
    ])
    expect(security).toEqual([])
  })

  it('asks for a key where the hub does, and is itself open to everybody', async () => {
    await using hub = await startHub(guarded)
    const document = await documentOf(hub)
    expect(document.security).toEqual([{ bearer: [] }, { apiKey: [] }])
    expect(document.components.securitySchemes).toMatchObject({
      bearer: { type: 'http', scheme: 'bearer' },
      apiKey: { type: 'apiKey', in: 'header', name: 'X-API-Key' },
    })
    for (const operation of operationsOf(document).filter((each) => each.startsWith('GET '))) {
      const path = operation.slice('GET '.length)
      const { status } = await fetch(hub.url + path.replaceAll(/[{}]/g, ''))
      const isPublic = document.paths[path]!['get']!.security?.length === 0
      expect([path, status]).toEqual([path, isPublic ? 200 : 401])
    }
  })

  it('says nothing of keys where there are none', async () => {
    await using hub = await startHub(whole)
    const document = await documentOf(hub)
    expect(document.components.securitySchemes).toBeUndefined()
    expect(JSON.stringify(document)).not.toContain('"security"')
  })

  it('mentions WebSocket where there is one', async () => {
    await using hub = await startHub(whole)
    expect((await documentOf(hub)).info.description).toContain('`/api/v1/ws`')
    await using without = await startHub({ bots, channels: { rest: rest() } })
    expect((await documentOf(without)).info.description).not.toContain('WebSocket')
  })

  it('lists every code an error may have', async () => {
    await using hub = await startHub(whole)
    expect((await documentOf(hub)).components.schemas['ErrorCode']!['enum']).toEqual(Object.keys(failures))
  })
})

const send_mail = tool({
  description: 'Sends a mail.',
  parameters: z.object({ to: z.string(), subject: z.string() }),
  run: () => 'sent',
})

const talkative = {
  bots: {
    echo: { provider: echo(), profile: { name: 'Echo', starters: ['hello'], language: 'en' as const } },
    main: { provider: local(demoBot), use: [consent({ allow: ['get_weather'] })] },
    'asgard-demo': asgard({ simulated: true }),
    'coze-demo': { provider: coze({ simulated: true, tools: { send_mail } }), use: [consent()] },
  },
}

describe('what a hub answers', () => {
  it('is as described: turns that end well, badly, and wait', async () => {
    const gated = gatedBot()
    await using hub = await startHub({ ...talkative, bots: { ...talkative.bots, gated: gated.provider } })
    const document = await documentOf(hub)
    const send = async (bot: string, text: string, headers = {}) => {
      const answer = await hub.api(`/bots/${bot}/messages`, { text }, headers)
      const turn = await jsonOf<TurnObject>(answer)
      const schema = answerSchema(document, 'POST /api/v1/bots/{bot}/messages', answer.status)
      expect(problems(document, schema, turn)).toEqual([])
      return turn
    }
    expect((await send('main', 'hello')).status).toBe('completed')
    expect((await send('main', '/fail')).error?.code).toBe('bot_failed')
    expect((await send('main', '/consent')).waiting?.for).toBe('consent')
    expect((await send('asgard-demo', '/card')).messages.some(({ template }) => template)).toBe(true)
    expect((await send('asgard-demo', '/consent')).waiting?.calls).not.toEqual([])
    expect((await send('coze-demo', 'hello')).usage).toBeDefined()
    expect((await send('coze-demo', '/tools')).waiting?.for).toBe('tool_outputs')

    const { turn } = await send('gated', 'wait', { prefer: 'respond-async' })
    await gated.began('wait')
    const running = await jsonOf<TurnObject>(await hub.api(`/turns/${turn}`))
    expect(running.status).toBe('running')
    expect(problems(document, answerSchema(document, 'GET /api/v1/turns/{turn}', 200), running)).toEqual([])
    const cancelled = await hub.api(`/turns/${turn}/cancel`, {})
    expect(cancelled.status).toBe(202)
    const schema = answerSchema(document, 'POST /api/v1/turns/{turn}/cancel', 202)
    expect(problems(document, schema, await cancelled.json())).toEqual([])
  })

  it('is as described: every event of every path of the demo bots', async () => {
    await using hub = await startHub(talkative)
    const document = await documentOf(hub)
    const schema = answerSchema(document, 'POST /api/v1/bots/{bot}/messages', 200, 'text/event-stream')
    const seen = new Set<string>()
    const check = (events: readonly { readonly type: string }[]) => {
      expect(events).not.toEqual([])
      for (const event of events) {
        seen.add(event.type)
        expect([event, ...problems(document, schema, event)]).toEqual([event])
      }
    }
    await Promise.all(
      Object.keys(talkative.bots).flatMap((bot) =>
        ['hello', '/fail', '/consent', '/tools', '/think', '/card', '/busy'].map(async (text) =>
          check(await hub.stream(bot, text, { debug: true })),
        ),
      ),
    )
    const waiting = await hub.ask('main', '/consent')
    const decisions = waiting.waiting!.calls.map(({ call }) => ({ call, result: 'allow_once' }))
    check(
      await readEvents(await hub.api(`/turns/${waiting.turn}/consent`, { decisions }, { accept: 'text/event-stream' })),
    )
    expect([...seen]).toEqual(
      expect.arrayContaining([
        'turn.started',
        'turn.waiting',
        'turn.completed',
        'turn.failed',
        'message.delta',
        'message.completed',
        'reasoning.delta',
        'tool.started',
        'tool.completed',
        'consent.requested',
        'consent.answered',
        'tool.outputs_requested',
        'usage',
        'attempt.failed',
        'raw',
      ]),
    )
  })

  it('is as described: lists, pages and files', async () => {
    await using hub = await startHub(talkative)
    const document = await documentOf(hub)
    await hub.ask('asgard-demo', 'hello', { conversation: 'c' })
    const { turn } = await hub.ask('main', '/fail', { conversation: 'c' })
    const { items } = await jsonOf<{ items: { id: string }[] }>(await hub.api('/bots/main/conversations'))
    const conversation = items[0]!.id
    const lists = [
      ['/admin/turns', 'GET /api/v1/admin/turns', 'items'],
      [`/admin/turns/${turn}`, 'GET /api/v1/admin/turns/{turn}', 'phases'],
      [`/admin/turns/${turn}/events`, 'GET /api/v1/admin/turns/{turn}/events', 'items'],
      ['/admin/conversations', 'GET /api/v1/admin/conversations', 'items'],
      [`/admin/conversations/${conversation}`, 'GET /api/v1/admin/conversations/{conversation}', 'id'],
      [
        `/admin/conversations/${conversation}/messages`,
        'GET /api/v1/admin/conversations/{conversation}/messages',
        'items',
      ],
      ['/admin/audit', 'GET /api/v1/admin/audit', 'items'],
      ['/bots', 'GET /api/v1/bots', 'bots'],
      ['/bots/main/conversations', 'GET /api/v1/bots/{bot}/conversations', 'items'],
      [
        '/bots/main/conversations/c/messages?limit=1',
        'GET /api/v1/bots/{bot}/conversations/{conversation}/messages',
        'items',
      ],
    ] as const
    for (const [path, operation, key] of lists) {
      const answer = await jsonOf<Readonly<Record<string, readonly unknown[]>>>(await hub.api(path))
      expect(answer[key]?.length).toBeGreaterThan(0)
      expect(problems(document, answerSchema(document, operation, 200), answer)).toEqual([])
    }
    const form = new FormData()
    form.append('conversation', 'c')
    form.append('file', new Blob(['hello'], { type: 'text/plain' }), 'hello.txt')
    const upload = await fetch(`${hub.url}/api/v1/bots/asgard-demo/files`, { method: 'POST', body: form })
    expect(upload.status).toBe(201)
    const schema = answerSchema(document, 'POST /api/v1/bots/{bot}/files', 201)
    expect(problems(document, schema, await upload.json())).toEqual([])
  })

  it.each([
    ['/bots/nobody/messages', { text: 'hello' }, 404],
    ['/bots/main/messages', { text: 1 }, 422],
    ['/nowhere', undefined, 404],
  ])('is as described: the error of %s with %j', async (path, body, status) => {
    await using hub = await startHub(talkative)
    const document = await documentOf(hub)
    const answer = await hub.api(path, body)
    expect(answer.status).toBe(status)
    const schema = document.components.responses.Error.content['application/json']!.schema
    expect(problems(document, schema, await answer.json())).toEqual([])
  })

  it('is as described: an error that names its turn', async () => {
    await using hub = await startHub(talkative)
    const document = await documentOf(hub)
    const { turn } = await hub.ask('main', '/consent', { conversation: 'c' })
    const answer = await hub.api('/bots/main/messages', { text: 'hello', conversation: 'c' })
    const error: unknown = await answer.json()
    expect(error).toMatchObject({ error: { code: 'turn_waiting', turn } })
    const schema = document.components.responses.Error.content['application/json']!.schema
    expect(problems(document, schema, error)).toEqual([])
  })

  it.each([
    ['Turn', { turn: 't', status: 'lost' }],
    ['Turn', { ...emptyTurn(), mood: 'good' }],
    ['Turn', { ...emptyTurn(), waiting: { for: 'rain', calls: [] } }],
    ['Event', { seq: 1, type: 'turn.vanished' }],
    ['Event', { seq: 0, type: 'suggestion', text: 'x' }],
    ['Event', { seq: 1, type: 'message.delta', message: 'm' }],
    ['Error', { error: { code: 'made_up', message: 'x', retryable: false } }],
  ])('would be told from what is not: %s %j', async (name, value) => {
    await using hub = await startHub({ bots })
    const document = await documentOf(hub)
    const schema = { $ref: `#/components/schemas/${name}` }
    expect(problems(document, { $ref: '#/components/schemas/Turn' }, emptyTurn())).toEqual([])
    expect(problems(document, schema, value)).not.toEqual([])
  })
})

describe('what a hub is sent', () => {
  it.each([
    [
      'POST /api/v1/bots/{bot}/messages',
      { text: 'hello', payload: { a: [1, { b: null }] }, files: ['f'], id: '' },
      true,
    ],
    ['POST /api/v1/bots/{bot}/messages', { conversation: 'c' }, false],
    ['POST /api/v1/turns/{turn}/consent', { decisions: [{ call: 'c', result: 'allow_once' }] }, true],
    ['POST /api/v1/turns/{turn}/consent', { decisions: [{ call: 'c', result: 'maybe' }] }, false],
    ['POST /api/v1/turns/{turn}/tool-outputs', { outputs: [{ call: 'c', output: null }] }, true],
    ['POST /api/v1/turns/{turn}/tool-outputs', { outputs: [] }, false],
    ['POST /api/v1/webhooks/crm', { text: 'hello', user: 'ada' }, true],
    ['POST /api/v1/webhooks/crm', { text: 1 }, false],
  ])('is described by what it is checked with: %s %j', async (operation, body, valid) => {
    await using hub = await startHub(whole)
    const document = await documentOf(hub)
    const { requestBody } = document.paths[operation.split(' ')[1]!]!['post']!
    expect(problems(document, requestBody!.content['application/json']!.schema, body).length === 0).toBe(valid)
  })
})

function emptyTurn(): TurnObject {
  return { turn: 't', status: 'queued', bot: 'b', conversation: 'c', message: 'm', text: '', messages: [] }
}
