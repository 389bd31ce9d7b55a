import { HubError } from '../../core/errors.ts'
import type { FailureCode, HubErrorOptions } from '../../core/errors.ts'
import type { ConsentDecision, HubEvent, PendingCall, ToolCall } from '../../core/events.ts'
import type { Json, JsonObject } from '../../core/message.ts'
import type { ShownMessage } from '../../core/turn.ts'
import { failureOfStatus, retryAfterMs } from '../../core/sse.ts'

/*
 * Asgard's Bot Provider API, as its SDKs and documentation show it: what travels, and the pure functions between it
 * and the hub's events. Facts are type aliases, not interfaces, because only those are JSON objects to the compiler.
 */

/** The `action` of a request. `NUDGE` and `RESET_CHANNEL` are the front end's; the provider sends the other two. */
export type AsgardAction = 'NONE' | 'RESET_CHANNEL' | 'RESPONSE_TOOL_CALL_CONSENT' | 'NUDGE'

/** Body of `POST /message`, `/message/sse` and `/message/dispatch`. */
export interface GenericBotMessage {
  /** The conversation, in the caller's words; one that Asgard does not know is opened. */
  readonly customChannelId: string
  /** The caller's own id of the message; it comes back as `replyToCustomMessageId`. */
  readonly customMessageId?: string
  /** Empty opens a channel, or goes with an action that is no message. */
  readonly text?: string
  readonly action: AsgardAction
  /** Of blobs that were uploaded with the same `customChannelId`. */
  readonly blobIds?: readonly string[]
  /** Any JSON; the workflow reads it as `prevPayload.*`, for this turn only. */
  readonly payload?: Readonly<Record<string, unknown>>
  /** With `RESPONSE_TOOL_CALL_CONSENT` only: one answer to each pending call. */
  readonly toolCallConsents?: readonly ToolCallConsentAnswer[]
  /** Read by `/message/dispatch` only. */
  readonly invocationId?: string
}

/** What may be decided about a call, in Asgard's words. */
export type ConsentResult = 'ALLOW_ONCE' | 'ALLOW_ALWAYS' | 'DENY_ONCE'

/** One decision, as the message that answers a consent carries it; `denyReason` counts only where it denies. */
export interface ToolCallConsentAnswer {
  readonly toolCallId: string
  readonly result: ConsentResult
  readonly denyReason?: string
}

/** A stored file, as an upload answers and a replayed user turn repeats it. */
export type AsgardBlob = {
  readonly channelId?: string
  readonly blobId: string
  readonly fileType: 'BINARY' | 'IMAGE' | 'VIDEO' | 'AUDIO' | 'DOCUMENT'
  readonly fileName: string | null
  readonly size: number
  readonly mime: string
}

/** Rich content; `type` says which fields are there. Markup of a `CANVAS` is not to be trusted. */
export type AsgardTemplate = {
  readonly type: (typeof templateTypes)[number]
  readonly text?: string
  readonly title?: string
  readonly quickReplies?: readonly { readonly text: string }[]
  readonly references?: readonly { readonly title: string; readonly uri?: string }[]
} & JsonObject

/** Every template type that Asgard documents. */
export const templateTypes = [
  'TEXT',
  'HINT',
  'IMAGE',
  'VIDEO',
  'AUDIO',
  'LOCATION',
  'BUTTON',
  'CAROUSEL',
  'CHART',
  'TABLE',
  'ATTACHMENT',
  'QUESTION',
  'CANVAS',
] as const

/** The message inside `message.*`, thinking and canvas events. In a delta, `text` is the increment. */
export type AsgardMessage = {
  readonly messageId: string
  readonly replyToCustomMessageId: string
  readonly text: string
  readonly payload: Json
  readonly isDebug: boolean
  /** Place of a delta in its message, from 0. */
  readonly idx: number | null
  readonly template: AsgardTemplate | null
  /** Names the tool call of the subagent that says this; absent on the main line. */
  readonly parentToolUseId?: string
}

type MessageFact = { readonly message: AsgardMessage }

/** Which tool with what input, and why the bot wants it. */
export type AsgardToolCall = {
  /** Empty for a built-in tool. */
  readonly toolsetName: string
  readonly toolName: string
  readonly parameter: Json
  readonly reason: string
}

/** The fact of `asgard.tool_call.start`. */
export type ToolCallStartFact = {
  readonly processId: string
  readonly callSeq: number
  readonly toolCall: AsgardToolCall
  readonly toolUseId?: string
  readonly parentToolUseId?: string
}

/** The fact of `asgard.tool_call.complete`. */
export type ToolCallCompleteFact = ToolCallStartFact & {
  readonly toolCallResult: Json
  readonly toolUseResultSidecar?: Json
  readonly isError?: boolean
}

/** A call that waits for consent, as `asgard.tool_call.consent` lists them. */
export type AsgardPendingCall = {
  readonly toolCallId: string
  readonly toolsetName: string
  readonly toolName: string
  readonly parameter: Json
  readonly reason: string
  readonly alreadyAllowed: boolean
}

/** What `run.error` and a failed REST reply carry. The location is empty when no processor was reached. */
export type AsgardErrorDetail = {
  readonly message: string
  readonly code: string
  readonly inner: string
  readonly location: {
    readonly namespace: string
    readonly workflowName: string
    readonly processorName: string
    readonly processorType: string
    readonly processorConfigName: string
    readonly processId: string
  }
}

/** The fact of each event type. */
export type AsgardFacts = {
  'asgard.run.init': {}
  'asgard.run.done': {}
  'asgard.run.error': { readonly error: AsgardErrorDetail }
  'asgard.process.start': { readonly processId: string; readonly task: Json }
  'asgard.process.complete': { readonly processId: string; readonly taskResult: Json }
  'asgard.message.start': MessageFact
  'asgard.message.delta': MessageFact
  'asgard.message.complete': MessageFact
  'asgard.message.thinking.start': MessageFact
  'asgard.message.thinking.delta': MessageFact
  'asgard.message.thinking.complete': MessageFact
  'asgard.message.canvas.start': MessageFact
  'asgard.message.canvas.delta': MessageFact
  'asgard.message.canvas.complete': MessageFact
  'asgard.message.user': {
    readonly messageId: string
    readonly text: string
    readonly identityHint?: string
    readonly customMessageId?: string
    readonly blobIds?: readonly string[]
    readonly blobs?: readonly AsgardBlob[]
  }
  'asgard.message.feedback': {
    readonly messageId: string
    readonly targetMessageId: string
    readonly verdict: 'GOOD' | 'BAD'
    readonly text?: string
    readonly identityHint?: string
  }
  'asgard.tool_call.start': ToolCallStartFact
  'asgard.tool_call.complete': ToolCallCompleteFact
  'asgard.tool_call.consent': { readonly processId: string; readonly pendingCalls: readonly AsgardPendingCall[] }
  'asgard.completion_model.usage': {
    readonly processId: string
    readonly completionModelName: string
    readonly inputTokens: number
    readonly outputTokens: number
    readonly totalTokens: number
    readonly isPreset: boolean
  }
  'asgard.sandbox.launch': { readonly sandboxName: string; readonly blueprintName: string }
  'asgard.sandbox.ready': { readonly sandboxName: string; readonly blueprintName: string }
  'asgard.subagent.start': {
    readonly agentId: string
    readonly parentToolUseId: string
    readonly subagentType?: string
    readonly description?: string
  }
  'asgard.subagent.complete': {
    readonly agentId: string
    readonly parentToolUseId: string
    readonly subagentType?: string
    readonly status: 'completed' | 'failed' | 'cancelled'
    readonly summary?: string
  }
  'asgard.channel.title.update': { readonly title: string }
  'asgard.channel.status.update': { readonly status: 'NEEDS_INPUT' | 'COMPLETED' }
  'asgard.prompt_suggestion': { readonly suggestion: string }
}

/** The events that are documented; others may come. */
export type AsgardEventType = keyof AsgardFacts

/** Where each event keeps its fact in the envelope. */
export const factKeys = {
  'asgard.run.init': 'runInit',
  'asgard.run.done': 'runDone',
  'asgard.run.error': 'runError',
  'asgard.process.start': 'processStart',
  'asgard.process.complete': 'processComplete',
  'asgard.message.start': 'messageStart',
  'asgard.message.delta': 'messageDelta',
  'asgard.message.complete': 'messageComplete',
  'asgard.message.thinking.start': 'messageThinkingStart',
  'asgard.message.thinking.delta': 'messageThinkingDelta',
  'asgard.message.thinking.complete': 'messageThinkingComplete',
  'asgard.message.canvas.start': 'messageCanvasStart',
  'asgard.message.canvas.delta': 'messageCanvasDelta',
  'asgard.message.canvas.complete': 'messageCanvasComplete',
  'asgard.message.user': 'messageUser',
  'asgard.message.feedback': 'messageFeedback',
  'asgard.tool_call.start': 'toolCallStart',
  'asgard.tool_call.complete': 'toolCallComplete',
  'asgard.tool_call.consent': 'toolCallConsent',
  'asgard.completion_model.usage': 'completionModelUsage',
  'asgard.sandbox.launch': 'sandboxLaunch',
  'asgard.sandbox.ready': 'sandboxReady',
  'asgard.subagent.start': 'subagentStart',
  'asgard.subagent.complete': 'subagentComplete',
  'asgard.channel.title.update': 'channelTitleUpdate',
  'asgard.channel.status.update': 'channelStatusUpdate',
  'asgard.prompt_suggestion': 'promptSuggestion',
} as const satisfies Record<AsgardEventType, string>

/** The JSON of one frame. */
export interface AsgardEvent {
  /** One of `AsgardEventType`, or one of a later version. */
  readonly eventType: string
  /** The run; empty on replayed history. */
  readonly requestId: string
  readonly eventId?: string
  readonly namespace: string
  readonly botProviderName: string
  readonly customChannelId: string
  /** One key per event type; only that of this event is not null. */
  readonly fact: JsonObject
}

/** An event with the cursor its frame set. */
export interface AsgardFrame {
  /** Sequence number in the channel's transcript, a decimal integer; only on frames that set one. */
  readonly id?: string
  readonly event: AsgardEvent
}

/** Where to go on with a run: behind a frame, or wherever our message is in a replay of the whole channel. */
export type Place = { readonly lastEventId: string } | 'replay'

/** The envelope of every answer that is not a stream. */
export interface AsgardAnswer {
  readonly isSuccess: boolean
  readonly data: Json
  readonly error: string | null
  readonly errorCode: string | null
}

/** What an event says to the hub, and whether it is the run's last. */
export interface Decoded {
  readonly events: readonly HubEvent[]
  readonly end?: 'done' | HubError
  /** The upstream still waits for an answer that it was given: none has arrived. */
  readonly stillAsked?: boolean
}

// ---- From Asgard ----

/** Reads a frame's data. Never throws: what is missing or of a wrong type is empty. */
export function readEvent(text: string): AsgardEvent {
  const value = objectOf(parseJson(text))
  const eventId = textOf(value['eventId'])
  return {
    eventType: textOf(value['eventType']),
    requestId: textOf(value['requestId']),
    ...(eventId ? { eventId } : {}),
    namespace: textOf(value['namespace']),
    botProviderName: textOf(value['botProviderName']),
    customChannelId: textOf(value['customChannelId']),
    fact: objectOf(value['fact']),
  }
}

/**
 * Says in the hub's words what one event means, without knowing the others; `AnswerReader` puts them together.
 * What the hub has no word for, and what is malformed, becomes `raw`.
 */
export function decode(event: AsgardEvent): Decoded {
  const read = isEventType(event.eventType) ? decoders[event.eventType] : undefined
  const decoded = read?.(objectOf(event.fact[factKeyOf(event.eventType)]), event)
  return decoded ?? { events: [rawOf(event)] }
}

/** Reads the envelope of an answer; `undefined` for anything else, such as a proxy's HTML. */
export function readAnswer(body: string): AsgardAnswer | undefined {
  const value = parseJson(body)
  if (!isObject(value) || typeof value['isSuccess'] !== 'boolean') return undefined
  return {
    isSuccess: value['isSuccess'],
    data: value['data'] ?? null,
    error: textOf(value['error']) || textOf(value['message']) || null,
    errorCode: textOf(value['errorCode']) || null,
  }
}

/** The failure that a refused call is: by its status, or by the envelope's code when the status says all is well. */
export function failureOf(
  response: { readonly status: number; readonly headers: Headers; readonly body: string },
  now = Date.now(),
): HubError {
  const { status, headers, body } = response
  const answer = readAnswer(body)
  const wait = retryAfterMs(headers.get('retry-after'), now)
  const refused = { ...(wait === undefined ? {} : { retryAfterMs: wait }), notStarted: true }
  const { code, message } = reasonOf(answer)
  const rest = upstreamError(status, code, message || body)
  if (status < 400) return new HubError((status < 300 && codesOf200[code]) || 'upstream_failed', rest)
  if (status === 429) return new HubError('upstream_rate_limited', { ...rest, ...refused })
  if (status === 503 && wait !== undefined) return new HubError('bot_unavailable', { ...rest, ...refused })
  return new HubError(status === 409 ? 'upstream_conflict' : failureOfStatus(status), rest)
}

/**
 * Code and words of a refusal; both are empty where the upstream gave none. A workflow that fails can be a reply that
 * calls itself a success and has its error inside.
 */
export function reasonOf(answer: AsgardAnswer | undefined): { readonly code: string; readonly message: string } {
  const failed = errorDetailOf(objectOf(answer?.data)['errorDetail'])
  return {
    code: answer?.errorCode ?? failed?.code ?? '',
    message: answer?.error ?? failed?.message ?? '',
  }
}

const codesOf200: Readonly<Record<string, FailureCode>> = {
  INVALID_ARGUMENT: 'upstream_rejected',
  FAILED_PRECONDITION: 'upstream_rejected',
  CHANNEL_NOT_FOUND: 'upstream_rejected',
  MESSAGE_NOT_FOUND: 'upstream_rejected',
}

type Decoder = (fact: JsonObject, event: AsgardEvent) => Decoded | undefined

const silence: Decoded = { events: [] }
const one = (event: HubEvent): Decoded => ({ events: [event] })

const decoders: Partial<Record<AsgardEventType, Decoder>> = {
  'asgard.run.init': () => silence,
  'asgard.run.done': () => ({ events: [], end: 'done' }),
  'asgard.run.error': (fact) => ({ events: [], end: runFailure(objectOf(fact['error'])) }),
  // The runner opens a message with its first words.
  'asgard.message.start': mainLine(() => silence),
  'asgard.message.thinking.start': mainLine(() => silence),
  'asgard.message.canvas.start': mainLine(() => silence),
  'asgard.message.delta': mainLine(deltaOf('message.delta')),
  'asgard.message.thinking.delta': mainLine(deltaOf('reasoning.delta')),
  'asgard.message.canvas.delta': mainLine(deltaOf('canvas.delta')),
  'asgard.message.complete': mainLine(({ message, text, template, payload }) =>
    one({
      type: 'message.completed',
      message,
      text: text || plainText(template) || '',
      ...(template && plainText(template) === undefined ? { template } : {}),
      ...(isEmpty(payload) ? {} : { payload }),
    }),
  ),
  'asgard.message.thinking.complete': mainLine(({ message, text }) =>
    one({ type: 'reasoning.completed', message, text }),
  ),
  'asgard.message.canvas.complete': mainLine(({ message, text, template }) =>
    one({
      type: 'canvas.completed',
      message,
      text: text || textOf(objectOf(template?.['canvas'])['html']),
      ...(template ? { template } : {}),
    }),
  ),
  'asgard.tool_call.start': (fact) => {
    const call = toolCallOf(fact)
    return call && one({ type: 'tool.started', ...call })
  },
  'asgard.tool_call.complete': (fact) => {
    const call = toolCallOf(fact)
    const output = fact['toolCallResult'] ?? null
    return call && one({ type: 'tool.completed', call: call.call, output, isError: fact['isError'] === true })
  },
  'asgard.tool_call.consent': (fact) => {
    const calls = listOf(fact['pendingCalls']).flatMap(pendingCallOf)
    return calls.length > 0 ? one({ type: 'consent.requested', calls }) : undefined
  },
  'asgard.completion_model.usage': (fact) => {
    const [inputTokens, outputTokens, totalTokens] = [fact['inputTokens'], fact['outputTokens'], fact['totalTokens']]
    if (!isCount(inputTokens) || !isCount(outputTokens)) return undefined
    const model = textOf(fact['completionModelName'])
    return one({
      type: 'usage',
      inputTokens,
      outputTokens,
      totalTokens: isCount(totalTokens) ? totalTokens : inputTokens + outputTokens,
      ...(model ? { model } : {}),
    })
  },
  'asgard.sandbox.launch': (fact) => sandboxOf('sandbox.started', fact),
  'asgard.sandbox.ready': (fact) => sandboxOf('sandbox.ready', fact),
  'asgard.subagent.start': (fact) => {
    const agent = textOf(fact['agentId'])
    if (!agent) return undefined
    return one({
      type: 'agent.started',
      agent,
      ...optional('parent', textOf(fact['parentToolUseId'])),
      ...optional('kind', textOf(fact['subagentType'])),
      ...optional('description', textOf(fact['description'])),
    })
  },
  'asgard.subagent.complete': (fact) => {
    const agent = textOf(fact['agentId'])
    if (!agent) return undefined
    const status = textOf(fact['status']) || 'completed'
    return one({ type: 'agent.completed', agent, status, ...optional('summary', textOf(fact['summary'])) })
  },
  'asgard.channel.title.update': (fact) =>
    typeof fact['title'] === 'string' ? one({ type: 'conversation.updated', title: fact['title'] }) : undefined,
  'asgard.channel.status.update': (fact) =>
    typeof fact['status'] === 'string' ? one({ type: 'conversation.updated', status: fact['status'] }) : undefined,
  'asgard.prompt_suggestion': (fact) => {
    const text = textOf(fact['suggestion'])
    return text ? one({ type: 'suggestion', text }) : undefined
  },
}

interface MessageParts {
  readonly message: string
  readonly text: string
  readonly template: JsonObject | undefined
  readonly payload: Json
}

/** Debug messages and those of a subagent are no part of the answer. */
function mainLine(read: (parts: MessageParts) => Decoded): Decoder {
  return (fact) => {
    const message = objectOf(fact['message'])
    const id = textOf(message['messageId'])
    if (!id || message['isDebug'] === true || textOf(message['parentToolUseId'])) return undefined
    return read({
      message: id,
      text: textOf(message['text']),
      template: isObject(message['template']) ? message['template'] : undefined,
      payload: message['payload'] ?? null,
    })
  }
}

function deltaOf(type: 'message.delta' | 'reasoning.delta' | 'canvas.delta') {
  return ({ message, text }: MessageParts): Decoded => (text ? one({ type, message, text }) : silence)
}

/** The text of a template that has nothing else in it; `undefined` when it has to be passed on. */
function plainText(template: JsonObject | undefined): string | undefined {
  if (template?.['type'] !== 'TEXT') return undefined
  const others = Object.entries(template).filter(([key, value]) => key !== 'type' && key !== 'text' && !isEmpty(value))
  return others.length === 0 ? textOf(template['text']) : undefined
}

function toolCallOf(fact: JsonObject): ToolCall | undefined {
  const call = objectOf(fact['toolCall'])
  const tool = textOf(call['toolName'])
  const sequence = fact['callSeq']
  if (!tool || !isCount(sequence)) return undefined
  return {
    call: `${textOf(fact['processId'])}-${sequence}`,
    ...optional('toolset', textOf(call['toolsetName'])),
    tool,
    input: call['parameter'] ?? null,
    ...optional('reason', textOf(call['reason'])),
  }
}

function pendingCallOf(value: Json): PendingCall[] {
  const pending = objectOf(value)
  const call = textOf(pending['toolCallId'])
  if (!call) return []
  return [
    {
      call,
      ...optional('toolset', textOf(pending['toolsetName'])),
      tool: textOf(pending['toolName']),
      input: pending['parameter'] ?? null,
      ...optional('reason', textOf(pending['reason'])),
      alreadyAllowed: pending['alreadyAllowed'] === true,
    },
  ]
}

function sandboxOf(type: 'sandbox.started' | 'sandbox.ready', fact: JsonObject): Decoded | undefined {
  const name = textOf(fact['sandboxName'])
  return name ? one({ type, name, blueprint: textOf(fact['blueprintName']) }) : undefined
}

/** The failure that a `run.error` is. */
export const runFailure = (error: JsonObject): HubError =>
  new HubError(
    'upstream_failed',
    upstreamError(
      undefined,
      textOf(error['code']),
      [textOf(error['message']), textOf(error['inner'])].filter(Boolean).join(': '),
    ),
  )

/** The error of a run or of a reply, with what is missing empty; undefined where there is none. */
export function errorDetailOf(value: Json | undefined): AsgardErrorDetail | undefined {
  if (!isObject(value)) return undefined
  const place = objectOf(value['location'])
  return {
    message: textOf(value['message']),
    code: textOf(value['code']),
    inner: textOf(value['inner']),
    location: {
      namespace: textOf(place['namespace']),
      workflowName: textOf(place['workflowName']),
      processorName: textOf(place['processorName']),
      processorType: textOf(place['processorType']),
      processorConfigName: textOf(place['processorConfigName']),
      processId: textOf(place['processId']),
    },
  }
}

/** Status and code may be shown to clients, the vendor's text is for the log. */
function upstreamError(status: number | undefined, code: string | undefined, text: string): HubErrorOptions {
  return {
    upstream: {
      ...(status === undefined ? {} : { status }),
      ...(code && /^[A-Za-z0-9_.-]{1,64}$/.test(code) ? { code } : {}),
    },
    cause: new Error(text.slice(0, 1000) || 'no reason given'),
  }
}

const rawOf = (event: AsgardEvent): HubEvent => ({
  type: 'raw',
  source: 'asgard',
  name: event.eventType,
  data: Object.fromEntries(Object.entries(event.fact).filter(([, fact]) => fact !== null)),
})

// ---- One answer, over several connections ----

interface Progress {
  /** What of it was passed on. */
  text: string
  /** The `idx` its next delta has; unknown where the upstream counts none, or after a crash of the hub. */
  next: number | undefined
  /** Words were missed; only the complete message can tell them. */
  gap: boolean
  completed: boolean
}

type TextEvent = Extract<HubEvent, { readonly message: string; readonly text: string }>

/**
 * Puts the events of one run together, so that a resubscription neither repeats nor loses a word: what was passed on
 * is skipped, and after a gap the complete message brings the rest.
 */
export class AnswerReader {
  readonly #customMessageId: string
  readonly #progress = new Map<string, Progress>()
  readonly #openTools: Set<string>
  readonly #endedTools = new Set<string>()
  readonly #asked: Set<string>
  readonly #answered: ReadonlySet<string>
  readonly #goesOn: boolean
  readonly #shown = new Map<string, number>()
  readonly #shownIds = new Set<string>()
  #resumed = false
  #spoke = false
  /** What the connection has brought, to be held against `#shown`. */
  #brought = new Map<string, number>()
  /** Older history may be replayed before our message; it belongs to earlier turns. */
  #history: { readonly run: string | undefined; readonly strict: boolean } | undefined

  constructor(turn: {
    readonly customMessageId: string
    /** What an earlier process passed on. */
    readonly shown?: readonly ShownMessage[]
    readonly openTools?: readonly string[]
    /** Calls that were decided, whether the upstream has heard of it or not. */
    readonly answered?: readonly string[]
  }) {
    this.#customMessageId = turn.customMessageId
    this.#answered = new Set(turn.answered)
    this.#asked = new Set(turn.answered)
    this.#openTools = new Set(turn.openTools)
    this.#goesOn = (turn.shown?.length ?? 0) > 0
    for (const { id, text, completed } of turn.shown ?? [])
      this.#progress.set(`message:${id}`, { text, next: undefined, gap: false, completed })
  }

  /** Tool calls that have begun and not ended. */
  get openTools(): readonly string[] {
    return [...this.#openTools]
  }

  /** A message was begun whose end did not come. */
  get incomplete(): boolean {
    return [...this.#progress].some(([key, { text, completed }]) => key.startsWith('message:') && text && !completed)
  }

  /** Nothing of the answer was ever seen. */
  get silent(): boolean {
    return !this.#goesOn && !this.#spoke
  }

  /** The replay has not come to our message yet. */
  get searching(): boolean {
    return this.#history !== undefined
  }

  /**
   * The next events come from a new connection: behind a frame, or a replay of all that the channel ever said, in
   * which only what follows our own message counts. `run` is ours, when we know it.
   */
  resubscribed(place: Place, run: string | undefined): void {
    this.#resumed = true
    this.#brought = new Map()
    const strict = place === 'replay'
    // 0 is before everything the channel ever said, so the replay may begin with other turns.
    this.#history = strict || place.lastEventId === '0' ? { run, strict } : undefined
    for (const progress of this.#progress.values()) progress.gap ||= progress.next === undefined
  }

  read(event: AsgardEvent): Decoded {
    const decoded = decode(event)
    const stillAsked = this.#isStillAsked(decoded)
    if (this.#isHistory(event, decoded, stillAsked)) return silence
    const events = decoded.events.flatMap((each) => this.#merge(each, event))
    this.#spoke ||= events.some(({ type }) => type !== 'raw' && type !== 'usage')
    return { ...decoded, events, ...(stillAsked ? { stillAsked } : {}) }
  }

  #isStillAsked({ events: [event] }: Decoded): boolean {
    if (!this.#resumed || event?.type !== 'consent.requested') return false
    return event.calls.every(({ call }) => this.#answered.has(call))
  }

  #isHistory(event: AsgardEvent, { end }: Decoded, stillAsked: boolean): boolean {
    if (!this.#history) return false
    const ourMessage =
      event.eventType === 'asgard.message.user' &&
      objectOf(event.fact['messageUser'])['customMessageId'] === this.#customMessageId
    const { run, strict } = this.#history
    const ourRun = event.requestId !== '' && event.requestId === (run ?? (strict ? undefined : event.requestId))
    if (ourMessage || ourRun || stillAsked) this.#history = undefined
    return this.#history !== undefined && end === undefined
  }

  #merge(event: HubEvent, source: AsgardEvent): HubEvent[] {
    switch (event.type) {
      case 'message.delta':
      case 'reasoning.delta':
      case 'canvas.delta':
        return this.#delta(event, idxOf(source))
      case 'message.completed':
      case 'reasoning.completed':
      case 'canvas.completed':
        return this.#completed(event)
      case 'tool.started':
        if (this.#openTools.has(event.call) || this.#isRepeated(this.#endedTools, event.call)) return []
        this.#openTools.add(event.call)
        return [event]
      case 'tool.completed': {
        if (this.#isRepeated(this.#endedTools, event.call)) return []
        this.#endedTools.add(event.call)
        if (this.#openTools.delete(event.call)) return [event]
        const call = toolCallOf(objectOf(source.fact['toolCallComplete']))
        return call ? [{ type: 'tool.started', ...call }, event] : [event]
      }
      case 'consent.requested': {
        const calls = event.calls.filter(({ call }) => !this.#isRepeated(this.#asked, call))
        for (const { call } of calls) this.#asked.add(call)
        return calls.length > 0 ? [{ ...event, calls }] : []
      }
      default:
        return this.#isShown(event, source) ? [] : [event]
    }
  }

  /**
   * Whether an event that says everything at once was passed on before. A live one with an id of its own is new; any
   * other is held against those of the same content, as many of them as there were.
   */
  #isShown(event: HubEvent, { eventId, requestId }: AsgardEvent): boolean {
    const idIsKnown = eventId !== undefined && this.#shownIds.has(eventId)
    if (eventId !== undefined) this.#shownIds.add(eventId)
    if (idIsKnown && this.#resumed) return true
    // Raw events are for developers, and may be large: they are told apart by their ids alone.
    if (event.type === 'raw') return false
    const content = JSON.stringify(event)
    const brought = (this.#brought.get(content) ?? 0) + 1
    this.#brought.set(content, brought)
    const shown = this.#shown.get(content) ?? 0
    const isNew = !this.#resumed || brought > shown || (eventId !== undefined && requestId !== '')
    if (isNew) this.#shown.set(content, Math.max(shown, brought))
    return !isNew
  }

  /** Only another connection brings a thing again; within one, it is another thing of the same name. */
  #isRepeated(known: ReadonlySet<string>, call: string): boolean {
    return this.#resumed && known.has(call)
  }

  #delta(event: TextEvent, idx: number | undefined): HubEvent[] {
    const progress = this.#of(event)
    if (progress.completed || progress.gap) return []
    // Nothing can be missing or come twice within the first connection, whatever the upstream counts.
    if (this.#resumed && progress.next !== undefined && idx !== undefined && idx !== progress.next) return []
    progress.next = idx === undefined ? undefined : idx + 1
    progress.text += event.text
    return [event]
  }

  #completed(event: TextEvent): HubEvent[] {
    // After a crash, only messages say how much of them was shown.
    const unknown =
      this.#goesOn && this.#resumed && event.type !== 'message.completed' && !this.#progress.has(keyOf(event))
    const progress = this.#of(event)
    if (progress.completed) return []
    const rest = !unknown && event.text.startsWith(progress.text) ? event.text.slice(progress.text.length) : ''
    progress.completed = true
    progress.text = event.text
    if (!rest) return [event]
    return [{ type: deltaTypes[kindOf(event)], message: event.message, text: rest }, event]
  }

  #of(event: TextEvent): Progress {
    const key = keyOf(event)
    const known = this.#progress.get(key)
    if (known) return known
    const progress: Progress = { text: '', next: this.#resumed ? 0 : undefined, gap: false, completed: false }
    this.#progress.set(key, progress)
    return progress
  }
}

const deltaTypes = { message: 'message.delta', reasoning: 'reasoning.delta', canvas: 'canvas.delta' } as const
const kinds = {
  'message.delta': 'message',
  'message.completed': 'message',
  'reasoning.delta': 'reasoning',
  'reasoning.completed': 'reasoning',
  'canvas.delta': 'canvas',
  'canvas.completed': 'canvas',
} as const satisfies Record<TextEvent['type'], string>
const kindOf = (event: TextEvent) => kinds[event.type]
const keyOf = (event: TextEvent) => `${kindOf(event)}:${event.message}`

function idxOf(event: AsgardEvent): number | undefined {
  const idx = objectOf(objectOf(event.fact[factKeyOf(event.eventType)])['message'])['idx']
  return isCount(idx) ? idx : undefined
}

// ---- To Asgard ----

/** A decision in Asgard's words. */
export const consentAnswer = (decision: ConsentDecision): ToolCallConsentAnswer => ({
  toolCallId: decision.call,
  result: ({ allow_once: 'ALLOW_ONCE', allow_always: 'ALLOW_ALWAYS', deny_once: 'DENY_ONCE' } as const)[
    decision.result
  ],
  denyReason: decision.result === 'deny_once' ? (decision.reason ?? '') : '',
})

/** What every event of a run carries. */
export interface RunIds {
  readonly requestId: string
  readonly namespace: string
  readonly botProviderName: string
  readonly customChannelId: string
}

/** Builds an event with all facts null but its own, as the Edge Server writes it. */
export const asgardEvent = <Type extends AsgardEventType>(
  type: Type,
  fact: AsgardFacts[Type],
  run: RunIds & { readonly eventId: string },
): AsgardEvent => ({
  eventType: type,
  requestId: run.requestId,
  eventId: run.eventId,
  namespace: run.namespace,
  botProviderName: run.botProviderName,
  customChannelId: run.customChannelId,
  fact: { ...noFacts, [factKeys[type]]: fact },
})

/**
 * Encodes an event as a frame: a cursor if it has one, its type, one line of JSON. JSON escapes line ends, so no text
 * inside can forge a frame.
 */
export const encodeFrame = (event: AsgardEvent, id?: string): string =>
  `${id === undefined ? '' : `id: ${id}\n`}event: ${event.eventType}\ndata: ${JSON.stringify(event)}\n\n`

/** A message with everything empty but what is given. */
export const asgardMessage = (
  parts: Pick<AsgardMessage, 'messageId'> & Partial<Omit<AsgardMessage, 'messageId'>>,
): AsgardMessage => ({
  replyToCustomMessageId: '',
  text: '',
  payload: null,
  isDebug: false,
  idx: null,
  template: null,
  ...parts,
})

const noFacts: JsonObject = Object.fromEntries(Object.values(factKeys).map((key) => [key, null]))

// ---- Reading what may be anything ----

/** Whether an event's type is documented. */
export const isEventType = (type: string): type is AsgardEventType => Object.hasOwn(factKeys, type)
const factKeyOf = (type: string): string => (isEventType(type) ? factKeys[type] : '')
const isObject = (value: Json | undefined): value is JsonObject =>
  typeof value === 'object' && value !== null && !Array.isArray(value)
/** The object, or an empty one for anything else. */
export const objectOf = (value: Json | undefined): JsonObject => (isObject(value) ? value : {})
/** The list, or an empty one for anything else. */
export const listOf = (value: Json | undefined): readonly Json[] =>
  Array.isArray(value) ? (value as readonly Json[]) : []
/** The string, or an empty one for anything else. */
export const textOf = (value: Json | undefined): string => (typeof value === 'string' ? value : '')
const isCount = (value: Json | undefined): value is number =>
  typeof value === 'number' && Number.isInteger(value) && value >= 0
const isEmpty = (value: Json | undefined): boolean =>
  value === null ||
  value === undefined ||
  value === '' ||
  (Array.isArray(value) && value.length === 0) ||
  (isObject(value) && Object.keys(value).length === 0)
const optional = <Key extends string>(key: Key, value: string): { readonly [K in Key]?: string } =>
  (value ? { [key]: value } : {}) as { readonly [K in Key]?: string }

/** The JSON value, or undefined for what is none. */
export function parseJson(text: string): Json | undefined {
  try {
    return JSON.parse(text) as Json
  } catch {
    return undefined
  }
}
