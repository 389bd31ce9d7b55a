import { once } from 'node:events'
import { createServer } from 'node:http'
import type { IncomingMessage, OutgoingHttpHeaders, Server, ServerResponse } from 'node:http'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setImmediate as nextTick } from 'node:timers/promises'
import { Busboy } from '@fastify/busboy'
import { systemClock } from '../../core/clock.ts'
import { demoPauseMs, demoPieces, smallTalk } from '../../core/demo.ts'
import type { Json, JsonObject } from '../../core/message.ts'
import { SandboxFiles, SandboxRefusal } from './sandbox-simulator.ts'
import { asgardEvent, asgardMessage, encodeFrame, listOf, objectOf, parseJson, templateTypes, textOf } from './wire.ts'
import type {
  AsgardBlob,
  AsgardErrorDetail,
  AsgardEvent,
  AsgardEventType,
  AsgardFacts,
  AsgardMessage,
  AsgardPendingCall,
  AsgardTemplate,
  AsgardToolCall,
  RunIds,
  ToolCallConsentAnswer,
} from './wire.ts'

const maxChannels = 1000
const maxTranscript = 1000
const maxRequests = 1000
const maxJsonBytes = 1_048_576
const maxUnreadBytes = 16_777_216
const maxCommentBytes = 8192

export interface AsgardSimulatorOptions {
  /** Default 0: any free port. */
  readonly port?: number
  /** Default 127.0.0.1. */
  readonly host?: string
  /** Default `demo-key`. */
  readonly apiKey?: string
  /** Folder of recorded streams: `!sample-NAME` answers with the bytes of its `NAME.sse`. */
  readonly samples?: string
}

/** One request as the simulator saw it; the last 1,000 are kept. */
export interface AsgardSimulatorRequest {
  readonly method: string
  /** Behind the bot provider's own path, such as `/message/sse`. */
  readonly path: string
  readonly query: Readonly<Record<string, string>>
  /** All but the key. */
  readonly headers: Readonly<Record<string, string>>
  /** The JSON, or what a form held; undefined until it has been read. */
  readonly body: Json | undefined
  /** Bytes of the body that have come so far. */
  readonly received: number
  /** The client hung up before the answer was whole. */
  readonly left: boolean
}

export interface AsgardSimulator {
  /** The `edgeServerHost` to give a client. */
  readonly url: string
  readonly host: string
  readonly port: number
  readonly namespace: string
  readonly botProviderName: string
  readonly apiKey: string
  readonly requests: readonly AsgardSimulatorRequest[]
  /** How many answers are being given or waited for. */
  readonly openAnswers: number
  close(): Promise<void>
}

/**
 * Starts an Edge Server with one bot provider that needs no account. Its bot makes small talk, knows the demo words,
 * and misbehaves on request: see `scenes` and `refusals` for the words that start with `!`.
 */
export async function startAsgardSimulator(options: AsgardSimulatorOptions = {}): Promise<AsgardSimulator> {
  const edge = new EdgeServer(options.apiKey ?? 'demo-key', options.samples)
  const host = options.host ?? '127.0.0.1'
  await new Promise<void>((resolve, reject) => {
    edge.server.once('error', reject)
    edge.server.listen(options.port ?? 0, host, resolve)
  })
  const address = edge.server.address()
  const port = typeof address === 'object' && address ? address.port : 0
  return {
    url: `http://${host.includes(':') ? `[${host}]` : host}:${port}`,
    host,
    port,
    namespace,
    botProviderName,
    apiKey: edge.apiKey,
    requests: edge.requests,
    get openAnswers() {
      return edge.openAnswers
    },
    close: () => edge.close(),
  }
}

const namespace = 'demo'
const botProviderName = 'demo-bot'

// ---- What the bot says ----

/** One thing that happens in a run. A run whose steps end without a terminal event ends its stream without one. */
type Step =
  | { readonly do: 'event'; readonly type: AsgardEventType; readonly fact: AsgardFacts[AsgardEventType] }
  | { readonly do: 'pause'; readonly ms: number }
  /** Sent as they are to whoever listens. */
  | { readonly do: 'bytes'; readonly bytes: string | Uint8Array }
  /** The sockets of whoever listens die; the run goes on. */
  | { readonly do: 'cut' }
  /** Nothing more, until somebody suspends the run. */
  | { readonly do: 'hang' }
  /** Asks, unless consent is bypassed or was given for all of it; a later run goes on with `next`. */
  | { readonly do: 'consent'; readonly calls: readonly AsgardPendingCall[]; readonly next: Continuation }

type Continuation = (answers: readonly ToolCallConsentAnswer[]) => readonly Step[]

/** What a message makes the bot do, and how its frames are spelled. */
interface Scene {
  readonly steps: readonly Step[]
  /** Default true: frames carry cursors. */
  readonly ids?: boolean
  /** A frame in other bytes that mean the same; each chunk is written by itself. */
  readonly spell?: (frame: string, index: number) => readonly (string | Uint8Array)[]
}

interface Ask {
  readonly text: string
  /** What the user said before in this channel. */
  readonly earlier: readonly string[]
}

const event = <Type extends AsgardEventType>(type: Type, fact: AsgardFacts[Type]): Step => ({ do: 'event', type, fact })
const pause = (ms: number): Step => ({ do: 'pause', ms })
const cut: readonly Step[] = [pause(20), { do: 'cut' }]
const hang: Step = { do: 'hang' }
const bytes = (text: string): Step => ({ do: 'bytes', bytes: text })
const init = event('asgard.run.init', {})
const done = event('asgard.run.done', {})
const run = (...steps: (Step | readonly Step[])[]): Scene => ({ steps: [init, ...steps.flat(), done] })

interface Saying {
  readonly kind?: 'message' | 'message.thinking' | 'message.canvas'
  /** Before each piece. */
  readonly pauseMs?: number
  readonly template?: AsgardTemplate
  readonly parts?: Partial<AsgardMessage>
  /** What else happens before the piece of this index. */
  readonly before?: Readonly<Record<number, readonly Step[]>>
}

/** One message: its start, its pieces, the whole. */
function say(pieces: readonly string[], saying: Saying = {}): Step[] {
  const { kind = 'message', pauseMs = 5, parts = {}, before = {} } = saying
  const whole = pieces.join('')
  const template = saying.template ?? (kind === 'message' ? { type: 'TEXT', text: whole } : null)
  const message = (own: Partial<AsgardMessage>) => ({ message: asgardMessage({ messageId, ...parts, ...own }) })
  const messageId = newId()
  return [
    event(`asgard.${kind}.start`, message({ template: kind === 'message' ? { type: 'TEXT', text: '' } : null })),
    ...pieces.flatMap((text, idx) => [
      pause(pauseMs),
      ...(before[idx] ?? []),
      event(`asgard.${kind}.delta`, message({ text, idx })),
    ]),
    event(`asgard.${kind}.complete`, message({ text: whole, template })),
  ]
}

/** A tool that runs at once. */
function callTool(toolCall: AsgardToolCall, toolCallResult: Json, isError = false): Step[] {
  const call = { processId: processId(), callSeq: 0, toolCall }
  return [
    event('asgard.tool_call.start', call),
    pause(5),
    event('asgard.tool_call.complete', { ...call, toolCallResult, ...(isError ? { isError } : {}) }),
  ]
}

const sendMail: AsgardToolCall = {
  toolsetName: 'demo',
  toolName: 'send_mail',
  parameter: { to: 'ada@example.com', subject: 'Hello' },
  reason: 'The mail goes out at once.',
}
const deleteNote: AsgardToolCall = {
  toolsetName: 'demo',
  toolName: 'delete_note',
  parameter: { note: 'n1' },
  reason: '',
}
const getWeather: AsgardToolCall = {
  toolsetName: 'demo',
  toolName: 'get_weather',
  parameter: { city: 'Taipei' },
  reason: '',
}

/** Asks for consent to each tool and then says what became of it. */
function askFor(...tools: readonly AsgardToolCall[]): Extract<Step, { do: 'consent' }> {
  const calls = tools.map((tool) => ({ toolCallId: `call_${newId()}`, ...tool, alreadyAllowed: false }))
  return {
    do: 'consent',
    calls,
    next: (answers) =>
      calls.flatMap((call, index) => {
        const answer = answers.find(({ toolCallId }) => toolCallId === call.toolCallId)
        if (answer?.result !== 'DENY_ONCE')
          return [
            ...callTool(tools[index]!, { ok: true }),
            ...say(['You allowed it: ', `${call.toolName} `, 'has run.']),
          ]
        const why = answer.denyReason ? [` You said: ${answer.denyReason}`] : []
        return say(['You denied it: ', `${call.toolName} `, 'did not run.', ...why])
      }),
  }
}

const errorDetail = (message: string, code = 'INTERNAL'): AsgardErrorDetail => ({
  message,
  code,
  inner: '',
  location: {
    namespace: '',
    workflowName: '',
    processorName: '',
    processorType: '',
    processorConfigName: '',
    processId: '',
  },
})
const fail = (message: string, code?: string): Step => event('asgard.run.error', { error: errorDetail(message, code) })

const emit = (text: string, payload: JsonObject = {}) => ({ type: 'MESSAGE', text, uri: '', payload })
const card = {
  title: 'A card',
  text: 'Pick what to see next.',
  thumbnailImageUrl: 'https://example.com/card.png',
  imageAspectRatio: 'rectangle',
  imageSize: 'cover',
  imageBackgroundColor: '#ffffff',
  defaultAction: emit('/card'),
  buttons: [
    { label: 'A tool', action: emit('/tools') },
    { label: 'A website', action: { type: 'URI', text: '', uri: 'https://example.com/' } },
  ],
}
const media = { originalContentUrl: 'https://example.com/full', previewImageUrl: 'https://example.com/preview.png' }

const templates: Record<(typeof templateTypes)[number], JsonObject> = {
  TEXT: { text: 'With quick replies.', quickReplies: [{ text: '/card' }, { text: '/tools' }] },
  HINT: { text: 'Only a hint.' },
  IMAGE: media,
  VIDEO: { ...media, duration: 1200 },
  AUDIO: { originalContentUrl: media.originalContentUrl, duration: 1200 },
  LOCATION: { title: 'Taipei 101', text: 'No. 7, Section 5, Xinyi Road', latitude: 25.034, longitude: 121.5645 },
  BUTTON: { ...card, quickReplies: [{ text: '/think' }] },
  CAROUSEL: { columns: [card, { ...card, title: 'Another card' }] },
  CHART: {
    title: 'Messages',
    text: 'By day.',
    chartOptions: [{ type: 'bar', title: 'Bars', spec: { mark: 'bar', data: { values: [{ day: 1, count: 3 }] } } }],
    defaultChart: 'bar',
  },
  TABLE: {
    title: 'Messages',
    table: {
      rowType: 'OBJECT',
      columns: [
        { header: 'Day', key: 'day', format: 'DATE' },
        { header: 'Count', key: 'count' },
      ],
      pagination: { size: 10 },
      data: [{ day: '2026-01-01', count: 3 }],
    },
  },
  ATTACHMENT: {
    attachments: [
      { title: 'report.pdf', text: '', defaultAction: { type: 'URI', text: '', uri: 'channel-home://report.pdf' } },
    ],
  },
  QUESTION: {
    text: 'One question.',
    questions: [
      {
        question: 'Which colour?',
        header: 'Colour',
        multiSelect: false,
        options: [{ label: 'Red' }, { label: 'Blue', description: 'like the sky' }],
      },
    ],
  },
  CANVAS: { title: 'A page', canvas: { html: '<p>Hello</p>' } },
}

const sayTemplate = (type: (typeof templateTypes)[number], text: string): Scene =>
  run(say([text], { template: { type, ...templates[type] } }))

const canvasPieces = ['<h1>', 'Hello', '</h1>']
const agent = { agentId: 'agent-1', parentToolUseId: 'toolu-1', subagentType: 'researcher' }
const sandbox = { sandboxName: 'sandbox-1', blueprintName: 'python' }
const cutPieces = ['This answer ', 'is cut ', 'in the middle, ', 'and yet ', 'it comes ', 'to its end.']
const malformed: readonly unknown[] = [
  7,
  { eventType: 9, fact: {} },
  { eventType: 'asgard.message.delta', fact: 'text' },
  { eventType: 'asgard.message.delta', fact: { messageDelta: { message: null } } },
  { eventType: 'asgard.message.delta', fact: { messageDelta: { message: { messageId: 5, text: 'lost' } } } },
  { eventType: 'asgard.message.delta', fact: { messageDelta: { message: { messageId: 'm', text: 5, idx: 'x' } } } },
  { eventType: 'asgard.message.complete', fact: { messageComplete: [] } },
  { eventType: 'asgard.tool_call.start', fact: { toolCallStart: { callSeq: '0', toolCall: [] } } },
  { eventType: 'asgard.tool_call.consent', fact: { toolCallConsent: { pendingCalls: { toolCallId: 'c' } } } },
  { eventType: 'asgard.completion_model.usage', fact: { completionModelUsage: { inputTokens: 'many' } } },
  { eventType: 'asgard.subagent.start', fact: { subagentStart: null } },
]

/** What the bot does at these words; at all others it makes small talk. */
const scenes: Readonly<Record<string, (ask: Ask) => Scene>> = {
  '/long': () => run(say(demoPieces('/long'), { pauseMs: demoPauseMs['/long'] })),
  '/slow': () => run(say(demoPieces('/slow'), { pauseMs: demoPauseMs['/slow'] })),
  '/fail': () => ({ steps: [init, ...say(demoPieces('/fail')).slice(0, -1), fail('the demo failed as asked')] }),
  '/busy': () => run(say(['That was ', 'a busy moment; ', 'here is your answer.'])),
  '/cut': () => run(say(cutPieces, { before: { 3: cut } })),
  '/consent': () => run(askFor(sendMail)),
  '/tools': () => run(callTool(getWeather, { city: 'Taipei', celsius: 24 }), say(['It is ', '24 °C ', 'in Taipei.'])),
  '/think': () =>
    run(
      say(['The user ', 'wants to see ', 'me think.'], { kind: 'message.thinking' }),
      say(['I have ', 'thought ', 'about it.']),
    ),
  '/card': () => sayTemplate('BUTTON', 'Here is a card.'),

  '!steady': () => run(say(demoPieces('/long').slice(0, 60), { pauseMs: 10 })),
  '!multi': () => run(say(['The first ', 'message.']), say(['The ', 'second ', 'message.'])),
  '!tool-error': () => run(callTool(getWeather, { error: 'no such city' }, true), say(['The tool ', 'failed.'])),
  '!consent-two': () => run(say(['Let me ', 'do two things.']), askFor(sendMail, deleteNote)),
  '!consent-again': () => run({ ...askFor(sendMail), next: () => [askFor(deleteNote)] }),
  '!consent-cut': () =>
    run(callTool(getWeather, { celsius: 24 }), {
      ...askFor(sendMail),
      next: () => say(cutPieces, { before: { 3: cut } }),
    }),
  '!drop-before-cursor': () => ({ ...run(say(cutPieces, { before: { 1: cut } })), ids: false }),
  '!drop-after-cursor': () =>
    run(say(['All of ', 'this is kept.']), say(cutPieces, { before: { 2: cut, 3: [pause(150)] } })),
  '!no-terminal': () => ({ steps: [init, ...say(['This is ', 'all ', 'there is.'])] }),
  '!oversized': () => run(say(['Small, ', 'x'.repeat(2_097_152), 'small again.'])),
  '!no-start': () => run(say(['There was ', 'no ', 'start.']).slice(1)),
  '!complete-only': () => run(say(['All ', 'at ', 'once.']).slice(-1)),
  '!no-idx': () =>
    run(say(['Nobody ', 'counts.']).map((step) => withMessage(step, (message) => ({ ...message, idx: null })))),
  '!unknown-event': () =>
    run(
      bytes(
        'event: asgard.mood.change\ndata: {"eventType":"asgard.mood.change","fact":{"moodChange":{"mood":"good"}}}\n\n',
      ),
      say(['Nothing ', 'was ', 'broken.']),
    ),
  '!wrong-types': () =>
    run(
      [bytes('data: this is not JSON\n\n'), ...malformed.map((value) => bytes(`data: ${JSON.stringify(value)}\n\n`))],
      say(['Nothing ', 'was ', 'broken.']),
    ),
  '!crlf': () => ({
    ...run(say(['Lines end ', 'in two ', 'characters.'])),
    spell: (frame) => [frame.replaceAll('\n', '\r\n')],
  }),
  '!split': () => ({
    ...run(say(['位元組 ', 'one by one ', '👩‍🚀.'])),
    spell: (frame) => Array.from(Buffer.from(frame), (byte) => Uint8Array.of(byte)),
  }),
  '!bom': () => ({
    ...run(say(['There is ', 'a mark ', 'before this.'])),
    spell: (frame, index) => [index === 0 ? `\uFEFF${frame}` : frame],
  }),
  '!heartbeats': () =>
    run(bytes(': ping\n'), say(['Still ', 'here.'], { before: { 1: [bytes(': ping\n\n'), bytes(': ping\n')] } })),
  '!heartbeats-only': () => ({ steps: Array.from({ length: 200 }, () => [bytes(': ping\n\n'), pause(20)]).flat() }),
  '!after-end': () => {
    const { steps } = run(say(['This is ', 'the end.']))
    return { steps: [...steps, ...say(['But ', 'there is more.'])] }
  },
  '!hang': () => ({ steps: [hang] }),
  '!hang-mid': () => run(say(['This goes on ', 'and then ', 'stops.'], { before: { 2: [hang] } })),
  '!suggest': () =>
    run(say(['Anything ', 'else?']), event('asgard.prompt_suggestion', { suggestion: 'Show me a card' })),
  '!usage': () =>
    run(
      say(['That was ', 'cheap.']),
      event('asgard.completion_model.usage', {
        processId: processId(),
        completionModelName: 'demo-model',
        inputTokens: 11,
        outputTokens: 7,
        totalTokens: 18,
        isPreset: true,
      }),
    ),
  '!subagent': () =>
    run(
      event('asgard.subagent.start', { ...agent, description: 'Looks things up' }),
      say(['Said ', 'in the back room.'], { parts: { parentToolUseId: agent.parentToolUseId } }),
      event('asgard.subagent.complete', { ...agent, status: 'completed', summary: 'Looked up' }),
      say(['My helper ', 'has looked.']),
    ),
  '!sandbox': () =>
    run(
      event('asgard.sandbox.launch', sandbox),
      event('asgard.sandbox.ready', sandbox),
      say(['The sandbox ', 'is ready.']),
    ),
  '!title': () =>
    run(
      say(['This talk ', 'has a name.']),
      event('asgard.channel.title.update', { title: 'A talk with a name' }),
      event('asgard.channel.status.update', { status: 'COMPLETED' }),
    ),
  '!canvas': () =>
    run(
      say(canvasPieces, {
        kind: 'message.canvas',
        template: { type: 'CANVAS', title: 'A page', canvas: { html: canvasPieces.join('') } },
      }),
      say(['There is ', 'a page.']),
    ),
  '!debug': () => {
    const process = { processId: processId() }
    return run(
      event('asgard.process.start', { ...process, task: { meta: { type: 'llm-completion' } } }),
      say(['For ', 'developers.'], { parts: { isDebug: true } }),
      event('asgard.process.complete', { ...process, taskResult: { destRelationship: 'success', errorDetail: null } }),
      say(['For ', 'everybody.']),
    )
  },
  ...Object.fromEntries(
    templateTypes.map((type) => [`!template-${type.toLowerCase()}`, () => sayTemplate(type, `Here is ${type}.`)]),
  ),
}

/** Answers before there is a stream. */
interface Refusal {
  readonly status: number
  readonly headers?: OutgoingHttpHeaders
  readonly body: string
  /** How often the same message is refused; always when not said. */
  readonly times?: number
}

const refuse = (
  status: number,
  error: string,
  errorCode: string | null,
  headers: OutgoingHttpHeaders = {},
): Refusal => ({
  status,
  headers,
  body: JSON.stringify({ isSuccess: false, data: null, error, errorCode }),
})

const refusals: Readonly<Record<string, Refusal>> = {
  '/busy': { ...refuse(429, 'too many requests', 'RATE_LIMITED', { 'retry-after': '1' }), times: 2 },
  '!error-400': refuse(400, 'the message is not valid', 'INVALID_ARGUMENT'),
  '!error-401': refuse(401, 'invalid api key', 'UNAUTHENTICATED'),
  '!error-403': refuse(403, 'not yours', 'PERMISSION_DENIED'),
  '!error-404': refuse(404, 'channel not found', 'CHANNEL_NOT_FOUND'),
  '!error-409': refuse(409, 'there is a run already', 'CONFLICT'),
  '!error-412': refuse(412, 'sandbox not running', 'FAILED_PRECONDITION'),
  '!error-429': refuse(429, 'too many requests', 'RATE_LIMITED', { 'retry-after': '1' }),
  '!error-500': refuse(500, 'internal error', 'INTERNAL'),
  '!error-503': refuse(503, 'being deployed', null, { 'retry-after': '2' }),
  '!error-detail': {
    status: 200,
    body: JSON.stringify({ isSuccess: true, data: { errorDetail: errorDetail('the run failed', 'INVALID_ARGUMENT') } }),
  },
  '!error-html': { status: 200, headers: { 'content-type': 'text/html' }, body: '<h1>Bad gateway</h1>' },
  '!json-200': refuse(200, 'the message is not valid', 'INVALID_ARGUMENT'),
}

/** Other words in a message step; for scenes that bend one of `say`. */
function withMessage(step: Step, change: (message: AsgardMessage) => AsgardMessage): Step {
  if (step.do !== 'event' || !('message' in step.fact)) return step
  return { ...step, fact: { message: change(step.fact.message) } }
}

// ---- The server ----

/** Refuses a request: thrown by the routes, written as the envelope. */
class Refused extends Error {
  readonly refusal: Refusal

  constructor(refusal: Refusal) {
    super(refusal.body)
    this.refusal = refusal
  }
}

function refusalFor(error: unknown): Refusal {
  if (error instanceof Refused) return error.refusal
  if (error instanceof SandboxRefusal) return refuse(error.status, error.message, error.code)
  return refuse(500, 'internal error', 'INTERNAL')
}

const invalid = (error: string) => new Refused(refuse(400, error, 'INVALID_ARGUMENT'))

type Mutable<T> = { -readonly [Key in keyof T]: T[Key] }

interface Call {
  readonly request: IncomingMessage
  readonly response: ServerResponse
  readonly seen: Mutable<AsgardSimulatorRequest>
}

interface Transcribed {
  readonly seq: number
  readonly event: AsgardEvent
}

/** A conversation with everything that is remembered of it. */
interface Channel {
  readonly id: string
  readonly internalId: string
  seq: number
  readonly transcript: Transcribed[]
  run: Run | undefined
  /** How the last run ended; undefined when it said nothing about that. */
  terminal: 'done' | AsgardErrorDetail | undefined
  pending:
    | { readonly calls: readonly AsgardPendingCall[]; readonly next: Continuation; readonly hint: string }
    | undefined
  readonly allowed: Set<string>
  readonly blobs: Map<string, AsgardBlob>
  title: string | null
  status: 'NEEDS_INPUT' | 'COMPLETED' | null
  lastActivityAt: number
  readonly sandboxes: Set<string>
}

/** One execution. It goes on without viewers; only suspending ends it early. */
interface Run {
  readonly ids: RunIds
  readonly scene: Scene
  readonly customMessageId: string
  readonly hint: string
  readonly bypass: boolean
  readonly viewers: Set<ServerResponse>
  readonly stop: AbortController
  /** What its frames carry as `id:`: the last event that was transcribed. */
  lastId: string
  frames: number
  readonly messages: AsgardMessage[]
  readonly finished: PromiseWithResolvers<void>
}

class EdgeServer {
  readonly apiKey: string
  readonly server: Server
  readonly requests: AsgardSimulatorRequest[] = []
  readonly #samples: string | undefined
  readonly #channels = new Map<string, Channel>()
  readonly #refused = new Map<string, number>()
  readonly #sandboxes = new Map<string, SandboxFiles>()
  openAnswers = 0

  constructor(apiKey: string, samples: string | undefined) {
    this.apiKey = apiKey
    this.#samples = samples
    this.server = createServer((request, response) => void this.#serve(request, response))
  }

  async close(): Promise<void> {
    for (const { run: current } of this.#channels.values()) current?.stop.abort()
    const closed = new Promise<void>((resolve) => this.server.close(() => resolve()))
    this.server.closeAllConnections()
    await closed
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(request.url ?? '/', 'http://edge')
    const { legacy, path } = pathOf(url.pathname)
    const { 'x-api-key': key, 'x-asgard-webhook-token': token, ...headers } = request.headers
    const seen = {
      method: request.method ?? '',
      path: path ?? url.pathname,
      query: Object.fromEntries(url.searchParams),
      headers: Object.fromEntries(Object.entries(headers).map(([name, value]) => [name, String(value)])),
      body: undefined,
      received: 0,
      left: false,
    }
    this.requests.push(seen)
    if (this.requests.length > maxRequests) this.requests.shift()
    request.on('error', () => {})
    response.on('error', () => {})
    this.openAnswers += 1
    response.on('close', () => {
      seen.left = !response.writableFinished
      this.openAnswers -= 1
    })
    try {
      if (path === undefined) throw new Refused(refuse(404, 'bot provider not found', 'BOT_PROVIDER_NOT_FOUND'))
      if (key !== this.apiKey && token !== this.apiKey)
        throw new Refused(refuse(401, 'invalid api key', 'UNAUTHENTICATED'))
      await this.#route({ request, response, seen }, path, legacy)
    } catch (error) {
      if (response.headersSent || response.destroyed) return void response.destroy()
      const refusal = refusalFor(error)
      send(response, refusal.status, refusal.body, refusal.headers)
    }
  }

  async #route(call: Call, path: string, legacy: boolean): Promise<void> {
    const [, sandboxName, inside] = /^\/sandbox\/([^/]+)(\/.+)$/.exec(path) ?? []
    if (sandboxName && inside) return this.#sandbox(call, decodeURIComponent(sandboxName), inside)
    const name = `${call.seen.method} ${path}`
    const route = Object.hasOwn(this.#routes, name) ? this.#routes[name] : undefined
    if (!route || (legacy && newRoutes.has(name))) throw new Refused(refuse(404, 'not found', 'NOT_FOUND'))
    await route(call)
  }

  readonly #routes: Readonly<Record<string, (call: Call) => void | Promise<void>>> = {
    'POST /message/sse': async (call) => {
      const message = await readMessage(call)
      const cursor = call.seen.headers['last-event-id']
      if (cursor !== undefined) return this.#resubscribe(call, message.channel, Number(cursor) || 0)
      this.#begin(call, message, await this.#sample(message.text), call.response)
    },
    'GET /message/sse': (call) => this.#resubscribe(call, channelIn(call), 0),
    'POST /message': async (call) => {
      const message = await readMessage(call)
      const current = this.#begin(call, message, undefined)
      await current.finished.promise
      const { terminal, pending } = this.#channel(message.channel)
      answer(call, 200, {
        ...current.ids,
        messages: current.messages,
        errorDetail: typeof terminal === 'object' ? terminal : null,
        ...(pending ? { toolCallConsentRequest: { pendingCalls: pending.calls } } : {}),
      })
    },
    'POST /message/dispatch': async (call) => {
      const { ids } = this.#begin(call, await readMessage(call), undefined)
      answer(call, 202, { requestId: ids.requestId, customChannelId: ids.customChannelId })
    },
    'POST /message/suspend': (call) => {
      const current = this.#channels.get(channelIn(call))?.run
      const named = call.seen.query['request_id']
      if (current && (!named || named === current.ids.requestId)) current.stop.abort()
      send(call.response, 204)
    },
    'POST /message/feedback': async (call) => this.#feedback(call, await readObject(call)),
    'POST /blob': (call) => this.#blob(call),
    'GET /channel/metadata': (call) => {
      answer(call, 200, metadataOf(this.#known(channelIn(call))))
    },
    'DELETE /channel': (call) => {
      this.#delete(channelIn(call))
      send(call.response, 204)
    },
    'GET /channel-home/download': (call) => {
      this.#known(channelIn(call))
      const name = call.seen.query['relative_path']
      if (name !== homeFile.name) throw new Refused(refuse(404, 'no such file', 'NOT_FOUND'))
      sendFile(call, homeFile.content, {
        'content-type': 'application/pdf',
        'content-disposition': `attachment; filename="${name}"`,
      })
    },
    'POST /channel/clear': (call) => {
      const channel = this.#channels.get(channelIn(call))
      if (channel) channel.transcript.length = 0
      send(call.response, 204)
    },
    'POST /json': async (call) => answer(call, 200, { received: await readObject(call) }),
    'POST /form': async (call) => {
      const { fields, file } = await readForm(call)
      answer(call, 200, { received: parseJson(fields['json'] ?? 'null') ?? null, file })
    },
    'GET /metadata': (call) => answer(call, 200, { name: botProviderName, namespace, annotations: {} }),
  }

  /** Checks a message as the Edge Server does and starts its run. */
  #begin(call: Call, message: BotMessage, sample: Scene | undefined, viewer?: ServerResponse): Run {
    const hint = call.seen.headers['x-asgard-user-identity-hint'] ?? 'primary'
    if (message.action === 'RESET_CHANNEL') {
      if (message.blobIds.length > 0) throw invalid('RESET_CHANNEL takes no blobIds')
      this.#delete(message.channel)
    }
    const existing = this.#channels.get(message.channel)
    const pending = existing?.pending
    if (pending && message.action !== 'RESPONSE_TOOL_CALL_CONSENT')
      throw invalid('channel is awaiting a tool-call consent response')
    if (existing?.run) throw new Refused(refuse(409, 'channel has a run in progress', 'CONFLICT'))
    this.#refuseByText(message)
    if (message.blobIds.some((id) => !existing?.blobs.has(id))) throw invalid('unknown blob')

    const isAnswer = message.action === 'RESPONSE_TOOL_CALL_CONSENT'
    const scene = isAnswer ? this.#answerConsent(existing, message, hint) : undefined
    const channel = this.#channel(message.channel)
    const earlier = channel.transcript.flatMap(({ event: { fact } }) => userTextOf(fact['messageUser']))
    const current: Run = {
      ids: {
        requestId: crypto.randomUUID().replaceAll('-', ''),
        namespace,
        botProviderName,
        customChannelId: channel.id,
      },
      scene: scene ?? sample ?? sceneOf(message, earlier),
      customMessageId: message.customMessageId,
      hint,
      // An answer without a stream knows no bypass.
      bypass: call.seen.query['bypass_tool_call_consent'] === 'true' && call.seen.path !== '/message',
      viewers: new Set(),
      stop: new AbortController(),
      lastId: '0',
      frames: 0,
      messages: [],
      finished: Promise.withResolvers(),
    }
    if (!isAnswer && message.action !== 'NUDGE') this.#transcribeUser(channel, current, message)
    channel.run = current
    channel.terminal = undefined
    channel.lastActivityAt = Date.now()
    if (viewer) watch(current, viewer)
    void this.#play(channel, current)
    return current
  }

  #refuseByText({ text, channel, customMessageId, action }: BotMessage): void {
    const refusal = Object.hasOwn(refusals, text.trim()) ? refusals[text.trim()] : undefined
    if (!refusal || action === 'RESPONSE_TOOL_CALL_CONSENT') return
    const key = JSON.stringify([channel, customMessageId])
    const before = this.#refused.get(key) ?? 0
    if (before >= (refusal.times ?? Infinity)) return void this.#refused.delete(key)
    if (this.#refused.size > maxRequests) this.#refused.clear()
    if (refusal.times) this.#refused.set(key, before + 1)
    throw new Refused(refusal)
  }

  #answerConsent(channel: Channel | undefined, { consents }: BotMessage, hint: string): Scene {
    const pending = channel?.pending
    if (!pending) throw invalid('channel is not awaiting a tool-call consent response')
    if (pending.hint !== hint) throw new Refused(refuse(403, 'another user was asked', 'PERMISSION_DENIED'))
    const answered = new Set(consents.map(({ toolCallId }) => toolCallId))
    if (answered.size !== pending.calls.length || pending.calls.some(({ toolCallId }) => !answered.has(toolCallId)))
      throw invalid('every pending call needs one answer')
    for (const { toolCallId, result } of consents) {
      const call = pending.calls.find((each) => each.toolCallId === toolCallId)!
      if (result === 'ALLOW_ALWAYS') channel.allowed.add(toolKey(call))
    }
    channel.pending = undefined
    return { steps: [init, ...pending.next(consents), done] }
  }

  #transcribeUser(channel: Channel, current: Run, { text, customMessageId, blobIds }: BotMessage): void {
    if (!text && blobIds.length === 0) return
    const blobs = blobIds.map((id) => channel.blobs.get(id)!)
    transcribe(
      channel,
      asgardEvent(
        'asgard.message.user',
        {
          messageId: newId(),
          text,
          identityHint: current.hint,
          ...(customMessageId ? { customMessageId } : {}),
          ...(blobIds.length > 0 ? { blobIds, blobs } : {}),
        },
        { ...current.ids, eventId: newId() },
      ),
    )
  }

  async #play(channel: Channel, current: Run): Promise<void> {
    try {
      for (const step of current.scene.steps) if (!(await this.#perform(channel, current, step))) break
    } catch (error) {
      if (!current.stop.signal.aborted) throw error
      this.#emit(channel, current, 'asgard.run.done', {})
    } finally {
      if (channel.run === current) channel.run = undefined
      channel.lastActivityAt = Date.now()
      for (const viewer of current.viewers) {
        openStream(viewer)
        viewer.end()
      }
      current.finished.resolve()
    }
  }

  /** False when the run is over early. */
  async #perform(channel: Channel, current: Run, step: Step): Promise<boolean> {
    current.stop.signal.throwIfAborted()
    switch (step.do) {
      case 'event':
        this.#emit(channel, current, step.type, step.fact)
        // So that no run, however long its list, keeps the others waiting.
        await nextTick()
        return true
      case 'pause':
        await systemClock.sleep(step.ms, current.stop.signal)
        return true
      case 'bytes':
        for (const viewer of current.viewers) write(viewer, step.bytes)
        return true
      case 'cut':
        for (const viewer of current.viewers) viewer.socket?.destroy()
        current.viewers.clear()
        return true
      case 'hang':
        await once(current.stop.signal, 'abort')
        current.stop.signal.throwIfAborted()
        return true
      default:
        return this.#ask(channel, current, step.calls, step.next)
    }
  }

  async #ask(
    channel: Channel,
    current: Run,
    calls: readonly AsgardPendingCall[],
    next: Continuation,
  ): Promise<boolean> {
    const pending = calls.map((call) => ({ ...call, alreadyAllowed: channel.allowed.has(toolKey(call)) }))
    if (!current.bypass && pending.some((call) => !call.alreadyAllowed)) {
      channel.pending = { calls: pending, next, hint: current.hint }
      this.#emit(channel, current, 'asgard.tool_call.consent', { processId: processId(), pendingCalls: pending })
      this.#emit(channel, current, 'asgard.run.done', {})
      return false
    }
    const allowed = calls.map(({ toolCallId }) => ({ toolCallId, result: 'ALLOW_ONCE' as const, denyReason: '' }))
    for (const step of next(allowed)) if (!(await this.#perform(channel, current, step))) return false
    return true
  }

  #emit<Type extends AsgardEventType>(channel: Channel, current: Run, type: Type, fact: AsgardFacts[Type]): void {
    const own = 'message' in fact ? replyTo(current.customMessageId, fact) : fact
    const frame = asgardEvent(type, own, { ...current.ids, eventId: newId() })
    const isFirst = current.frames === 0
    const isEnd = type === 'asgard.run.done' || type === 'asgard.run.error'
    if (isTranscribed(type)) current.lastId = String(transcribe(channel, frame))
    if (isEnd) {
      channel.terminal = 'error' in fact ? fact.error : 'done'
      // Whoever hears of it may send the next message at once.
      if (channel.run === current) channel.run = undefined
    }
    if ('title' in fact) channel.title = fact.title
    if ('status' in fact && (fact.status === 'COMPLETED' || fact.status === 'NEEDS_INPUT')) channel.status = fact.status
    if ('sandboxName' in fact) channel.sandboxes.add(fact.sandboxName)
    if (type === 'asgard.message.complete' && 'message' in own) current.messages.push(own.message)
    const hasId = current.scene.ids !== false && (isFirst || isEnd || isTranscribed(type))
    const text = encodeFrame(frame, hasId ? current.lastId : undefined)
    const chunks = current.scene.spell?.(text, current.frames) ?? [text]
    for (const viewer of current.viewers) for (const chunk of chunks) write(viewer, chunk)
    current.frames += 1
  }

  /** The transcript behind a cursor, then the rest of the live run, or how the last one ended. Nothing is started. */
  #resubscribe({ response }: Call, id: string, after: number): void {
    const channel = this.#known(id)
    openStream(response)
    for (const { seq, event: frame } of channel.transcript)
      if (seq > after) write(response, encodeFrame({ ...frame, requestId: '' }, String(seq)))
    if (channel.run) return watch(channel.run, response)
    const last = String(Math.max(after, channel.seq))
    for (const frame of closingOf(channel)) write(response, encodeFrame(frame, last))
    response.end()
  }

  #feedback(call: Call, body: JsonObject): void {
    const channel = this.#channels.get(textOf(body['customChannelId']))
    const target = textOf(body['messageId'])
    const comment = textOf(body['comment'])
    if (Buffer.byteLength(comment) > maxCommentBytes) throw invalid('comment is longer than 8 KiB')
    const known = channel?.transcript.some(
      ({ event: { eventType, fact } }) =>
        eventType === 'asgard.message.complete' &&
        JSON.stringify(fact).includes(`"messageId":${JSON.stringify(target)}`),
    )
    if (!channel || !known) throw new Refused(refuse(404, `message ${target} not found`, 'MESSAGE_NOT_FOUND'))
    const messageId = newId()
    const frame = asgardEvent(
      'asgard.message.feedback',
      {
        messageId,
        targetMessageId: target,
        verdict: body['verdict'] === 'BAD' ? 'BAD' : 'GOOD',
        ...(comment ? { text: comment } : {}),
      },
      { requestId: '', namespace, botProviderName, customChannelId: channel.id, eventId: newId() },
    )
    const seq = transcribe(channel, frame)
    for (const viewer of channel.run?.viewers ?? []) write(viewer, encodeFrame(frame, String(seq)))
    answer(call, 200, { messageId, seq })
  }

  async #blob(call: Call): Promise<void> {
    const { fields, file } = await readForm(call)
    if (!fields['customChannelId'] || !file) throw invalid('customChannelId and file are required')
    const channel = this.#channel(fields['customChannelId'])
    const blob: AsgardBlob = {
      blobId: newId(),
      fileType: fileTypeOf(file.mime),
      fileName: file.name || null,
      size: file.bytes,
      mime: file.mime,
    }
    channel.blobs.set(blob.blobId, blob)
    answer(call, 200, [{ channelId: channel.internalId, ...blob }])
  }

  async #sandbox(call: Call, name: string, path: string): Promise<void> {
    const route = `${call.seen.method} ${path}`
    if (!Object.hasOwn(sandboxRoutes, route)) throw new Refused(refuse(404, 'not found', 'NOT_FOUND'))
    if (![...this.#channels.values()].some(({ sandboxes }) => sandboxes.has(name)))
      throw new Refused(refuse(412, 'sandbox not running', 'FAILED_PRECONDITION'))
    const files = this.#sandboxes.get(name) ?? new SandboxFiles()
    this.#sandboxes.set(name, files)
    await sandboxRoutes[route]!(call, files)
  }

  /** `!sample-NAME`: a recorded stream, byte for byte. */
  async #sample(text: string): Promise<Scene | undefined> {
    const name = /^!sample-([\w-]+)$/.exec(text.trim())?.[1]
    if (!name || !this.#samples) return undefined
    return { steps: [{ do: 'bytes', bytes: await readFile(join(this.#samples, `${name}.sse`)) }] }
  }

  #known(id: string): Channel {
    const channel = this.#channels.get(id)
    if (!channel) throw new Refused(refuse(404, 'channel not found', 'CHANNEL_NOT_FOUND'))
    return channel
  }

  #channel(id: string): Channel {
    const known = this.#channels.get(id)
    if (known) return known
    const channel: Channel = {
      id,
      internalId: newId(),
      seq: 0,
      transcript: [],
      run: undefined,
      terminal: 'done',
      pending: undefined,
      allowed: new Set(),
      blobs: new Map(),
      title: null,
      status: null,
      lastActivityAt: Date.now(),
      sandboxes: new Set(),
    }
    this.#channels.set(id, channel)
    const oldest = this.#channels.keys().next().value
    if (this.#channels.size > maxChannels && oldest !== undefined) this.#delete(oldest)
    return channel
  }

  #delete(id: string): void {
    this.#channels.get(id)?.run?.stop.abort()
    this.#channels.delete(id)
  }
}

const homeFile = { name: 'report.pdf', content: Buffer.from('%PDF-1.7 a report') } as const

type SandboxRoute = (call: Call, files: SandboxFiles) => void | Promise<void>

const openUrl: SandboxRoute = (call) =>
  answer(call, 200, { openURL: `https://sandbox.example.com/open/${crypto.randomUUID()}` })
const done204 = ({ response }: Call): void => send(response, 204)
const numberIn = (text: string | undefined, otherwise: number): number =>
  text !== undefined && /^\d+$/.test(text) ? Number(text) : otherwise

/** What a sandbox that runs can be asked. */
const sandboxRoutes: Readonly<Record<string, SandboxRoute>> = {
  'POST /heartbeat': (call) => answer(call, 200, { shutdownAt: new Date(Date.now() + 600_000).toISOString() }),
  'POST /editor/open-url': openUrl,
  'POST /browser/open-url': openUrl,
  'POST /browser/session': (call) =>
    answer(call, 200, { wsUrl: 'wss://sandbox.example.com/browser', token: crypto.randomUUID() }),
  'GET /fs/list': (call, files) => answer(call, 200, files.list(pathIn(call))),
  'GET /fs/stat': (call, files) => answer(call, 200, files.stat(pathIn(call))),
  'GET /fs/file': (call, files) => {
    const offset = numberIn(call.seen.query['offset_bytes'], 0)
    const { part, total } = files.read(pathIn(call), offset, numberIn(call.seen.query['limit_bytes'], Infinity))
    sendFile(call, part, {
      'content-type': 'application/octet-stream',
      'x-total-bytes': total,
      'x-truncated': String(offset + part.length < total),
    })
  },
  'PUT /fs/file': async (call, files) => {
    const chunks: Buffer[] = []
    const { file } = await readForm(call, (chunk) => chunks.push(chunk))
    if (!file) throw invalid('file is required')
    const mode = numberIn(call.seen.query['mode'], 0o644)
    const createOnly = call.seen.query['create_only'] === 'true'
    answer(call, 200, files.write(pathIn(call), Buffer.concat(chunks), { mode, createOnly }))
  },
  'POST /fs/mkdir': (call, files) => {
    files.mkdir(pathIn(call))
    done204(call)
  },
  'DELETE /fs/item': (call, files) => {
    files.remove(pathIn(call), false)
    done204(call)
  },
  'DELETE /fs/all': (call, files) => {
    files.remove(pathIn(call), true)
    done204(call)
  },
  'POST /fs/copy': (call, files) => answer(call, 200, files.copy(...pathsIn(call))),
  'POST /fs/move': (call, files) => {
    files.move(...pathsIn(call))
    done204(call)
  },
  'GET /fs/watch': (call, files) => {
    const { response } = call
    openStream(response)
    write(response, 'event: ready\ndata: {}\n\n')
    const stop = files.watch(pathIn(call), call.seen.query['recursive'] === 'true', (change) =>
      write(response, `event: change\ndata: ${JSON.stringify(change)}\n\n`),
    )
    response.on('close', stop)
  },
}

const pathIn = ({ seen }: Call): string => seen.query['path'] ?? ''
const pathsIn = ({ seen: { query } }: Call): [string, string, boolean] => [
  query['src'] ?? '',
  query['dst'] ?? '',
  query['overwrite'] === 'true',
]

/** What the twin under `/generic` does not have. */
const newRoutes = new Set(['POST /message/feedback', 'GET /metadata', 'GET /channel/metadata', 'DELETE /channel'])

function pathOf(pathname: string): { readonly legacy: boolean; readonly path: string | undefined } {
  const base = `/ns/${namespace}/bot-provider/${botProviderName}`
  const legacy = pathname.startsWith('/generic/')
  const plain = legacy ? pathname.slice('/generic'.length) : pathname
  return { legacy, path: plain.startsWith(`${base}/`) ? plain.slice(base.length) : undefined }
}

function sceneOf({ text, action }: BotMessage, earlier: readonly string[]): Scene {
  if (action === 'NUDGE') return run()
  if (!text) return run(say(['Welcome! ', 'Say ', 'something.']))
  const scene = Object.hasOwn(scenes, text.trim()) ? scenes[text.trim()] : undefined
  return scene?.({ text, earlier }) ?? run(say(smallTalk(text, earlier)))
}

const isTranscribed = (type: AsgardEventType): boolean =>
  ['message', 'message.thinking', 'message.canvas', 'tool_call'].some((kind) => type === `asgard.${kind}.complete`)

function transcribe(channel: Channel, frame: AsgardEvent): number {
  channel.seq += 1
  channel.transcript.push({ seq: channel.seq, event: frame })
  if (channel.transcript.length > maxTranscript) channel.transcript.shift()
  return channel.seq
}

/** What a stream on an idle channel ends with. */
function closingOf(channel: Channel): AsgardEvent[] {
  const ids = { requestId: '', namespace, botProviderName, customChannelId: channel.id, eventId: newId() }
  const end = asgardEvent('asgard.run.done', {}, ids)
  if (channel.pending) {
    const consent = { processId: processId(), pendingCalls: channel.pending.calls }
    return [asgardEvent('asgard.run.init', {}, ids), asgardEvent('asgard.tool_call.consent', consent, ids), end]
  }
  if (channel.terminal === undefined) return []
  return channel.terminal === 'done' ? [end] : [asgardEvent('asgard.run.error', { error: channel.terminal }, ids)]
}

const metadataOf = (channel: Channel): JsonObject => ({
  customChannelId: channel.id,
  title: channel.title,
  runState: channel.run ? 'RUNNING' : typeof channel.terminal === 'object' ? 'ERROR' : 'IDLE',
  conversationStatus: channel.status,
  lastActivityAt: channel.lastActivityAt,
  launchedSandboxes: [...channel.sandboxes].map((sandboxName) => ({
    sandboxName,
    sandboxBlueprintName: sandbox.blueprintName,
    workingDirectory: '/workspace',
    editorServerEnabled: false,
    browserEnabled: false,
  })),
})

const toolKey = ({ toolsetName, toolName }: AsgardPendingCall): string => JSON.stringify([toolsetName, toolName])

function replyTo<Fact extends object>(customMessageId: string, fact: Fact): Fact {
  if (!('message' in fact) || typeof fact.message !== 'object') return fact
  return { ...fact, message: { ...fact.message, replyToCustomMessageId: customMessageId } }
}

function userTextOf(fact: Json | undefined): string[] {
  const user = objectOf(fact)
  return typeof user['text'] === 'string' && user['text'] ? [user['text']] : []
}

function fileTypeOf(mime: string): AsgardBlob['fileType'] {
  if (mime.startsWith('image/')) return 'IMAGE'
  if (mime.startsWith('video/')) return 'VIDEO'
  if (mime.startsWith('audio/')) return 'AUDIO'
  return mime.startsWith('text/') || mime === 'application/pdf' ? 'DOCUMENT' : 'BINARY'
}

// ---- HTTP ----

function watch(current: Run, viewer: ServerResponse): void {
  current.viewers.add(viewer)
  viewer.on('close', () => current.viewers.delete(viewer))
}

function openStream(response: ServerResponse): void {
  if (response.headersSent) return
  response.writeHead(200, {
    'content-type': 'text/event-stream',
    'cache-control': 'no-cache, no-transform',
    'x-accel-buffering': 'no',
    'x-trace-id': crypto.randomUUID(),
  })
  response.flushHeaders()
}

function write(response: ServerResponse, chunk: string | Uint8Array): void {
  openStream(response)
  response.write(chunk)
  if (response.writableLength > maxUnreadBytes) response.destroy()
}

function send(response: ServerResponse, status: number, body?: string, headers: OutgoingHttpHeaders = {}): void {
  response.writeHead(status, { ...(body === undefined ? {} : { 'content-type': 'application/json' }), ...headers })
  response.end(body)
}

function sendFile({ response }: Call, content: Buffer, headers: OutgoingHttpHeaders): void {
  response.writeHead(200, { ...headers, 'content-length': content.length })
  response.end(content)
}

const answer = ({ response }: Call, status: number, content: unknown): void =>
  send(response, status, JSON.stringify({ isSuccess: true, data: content, paging: null, error: null, errorCode: null }))

function channelIn({ seen }: Call): string {
  const id = seen.query['custom_channel_id']
  if (!id) throw invalid('custom_channel_id is required')
  return id
}

interface BotMessage {
  readonly channel: string
  readonly customMessageId: string
  readonly text: string
  readonly action: string
  readonly blobIds: readonly string[]
  readonly consents: readonly ToolCallConsentAnswer[]
}

const actions = ['NONE', 'RESET_CHANNEL', 'RESPONSE_TOOL_CALL_CONSENT', 'NUDGE']
const results = ['ALLOW_ONCE', 'ALLOW_ALWAYS', 'DENY_ONCE'] as const

async function readMessage(call: Call): Promise<BotMessage> {
  const body = await readObject(call)
  const message = {
    channel: textOf(body['customChannelId']),
    customMessageId: textOf(body['customMessageId']),
    text: textOf(body['text']),
    action: textOf(body['action']),
    blobIds: listOf(body['blobIds']).map(textOf),
    consents: listOf(body['toolCallConsents']).map(readConsent),
  }
  if (!message.channel) throw invalid('customChannelId is required')
  if (!actions.includes(message.action)) throw invalid('action is not valid')
  return message
}

function readConsent(value: Json): ToolCallConsentAnswer {
  const consent = objectOf(value)
  const result = results.find((each) => each === consent['result'])
  if (!result) throw invalid('result is not valid')
  return {
    toolCallId: textOf(consent['toolCallId']),
    result,
    denyReason: textOf(consent['denyReason']),
  }
}

async function readObject({ request, seen }: Call): Promise<JsonObject> {
  const chunks: Buffer[] = []
  for await (const chunk of request as AsyncIterable<Buffer>) {
    seen.received += chunk.length
    if (seen.received > maxJsonBytes) throw new Refused(refuse(413, 'body is too large', 'INVALID_ARGUMENT'))
    chunks.push(chunk)
  }
  const body = parseJson(Buffer.concat(chunks).toString())
  if (typeof body !== 'object' || body === null || Array.isArray(body)) throw invalid('body is not a JSON object')
  seen.body = body
  return objectOf(body)
}

interface Form {
  readonly fields: Readonly<Record<string, string>>
  /** The bytes are counted here, and kept only by `onChunk`. */
  readonly file: { readonly name: string; readonly mime: string; readonly bytes: number } | null
}

async function readForm({ request, seen }: Call, onChunk: (chunk: Buffer) => void = () => {}): Promise<Form> {
  const contentType = request.headers['content-type'] ?? ''
  if (!/^multipart\/form-data;.*boundary=/i.test(contentType)) throw invalid('body is not multipart/form-data')
  const fields: Record<string, string> = {}
  let file: Mutable<NonNullable<Form['file']>> | null = null
  await new Promise<void>((resolve, reject) => {
    const parser = new Busboy({
      headers: { ...request.headers, 'content-type': contentType },
      limits: { files: 1, fieldSize: maxJsonBytes },
    })
    parser.on('field', (name: string, value: string) => (fields[name] = value))
    parser.on('file', (_: string, stream: NodeJS.ReadableStream, name: string, _encoding: string, mime: string) => {
      const counted = (file = { name: name ?? '', mime, bytes: 0 })
      stream.on('data', (chunk: Buffer) => {
        counted.bytes += chunk.length
        onChunk(chunk)
      })
    })
    parser.on('finish', resolve)
    parser.on('error', () => reject(invalid('the form cannot be read')))
    request.on('data', (chunk: Buffer) => (seen.received += chunk.length))
    request.on('close', () => {
      if (!request.complete) reject(invalid('the upload was cut'))
    })
    request.pipe(parser)
  })
  seen.body = { ...fields, file }
  return { fields, file }
}

let ids = BigInt(Date.now()) << 22n
/** Like Asgard's own: a decimal number that grows. */
function newId(): string {
  ids += 1n
  return String(ids)
}

const processId = (): string => crypto.randomUUID().replaceAll('-', '').slice(0, 16)
