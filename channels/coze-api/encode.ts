import { consentArguments, consentFunction } from '../../core/consent-call.ts'
import type { Json, JsonObject } from '../../core/message.ts'
import { HubError } from '../../core/errors.ts'
import type { NumberedEvent, PublicError, ToolCall, Usage } from '../../core/events.ts'
import { toNumbered } from '../../core/ids.ts'
import type { BotMessage, TurnRow } from '../../core/store.ts'
import type { TurnObject } from '../../core/wire.ts'
import { chatObject, doneFrame, encodeFrame, messageObject } from '../../plugins/coze/wire.ts'
import type { ChatParts, CozeStatus, MessageParts } from '../../plugins/coze/wire.ts'
import { cozeCode } from './errors.ts'
import { toCozeId, toMessageId } from './ids.ts'
import type { MessageKind } from './ids.ts'

/*
 * From the hub's events to Coze's. Nothing here asks anybody: the same events give the same frames, so a client that
 * comes back gets what it would have got.
 */

/** One event of a chat stream. */
export interface ChatFrame {
  readonly event: string
  readonly body: JsonObject
  /** Where it is in its turn, on the last frame of an event: for clients that come back. */
  readonly id?: string
}

/** Whose frames they are. */
export interface Chat {
  readonly turn: string
  /** `conv_…` */
  readonly conversation: string
  readonly bot: string
  /** In ms since the epoch. */
  readonly createdAt: number
  readonly metaData?: Readonly<Record<string, string>>
  /** Ids of the messages in the order in which they began, where the log no longer tells. */
  readonly order?: readonly string[]
}

/** The chat of a turn. */
export const chatOf = ({ id, conversation, bot, createdAt, message }: TurnRow, order?: readonly string[]): Chat => {
  const metaData = stringsIn(message.metadata?.['chat'])
  return {
    turn: id,
    conversation: conversation.id,
    bot,
    createdAt,
    ...(metaData ? { metaData } : {}),
    ...(order ? { order } : {}),
  }
}

/** What a turn is asked to give back, as it was given: pairs of strings. */
export function stringsIn(value: unknown): Readonly<Record<string, string>> | undefined {
  if (typeof value !== 'object' || value === null) return undefined
  return Object.fromEntries(
    Object.entries(value).filter((pair): pair is [string, string] => typeof pair[1] === 'string'),
  )
}

/** One message of the answer while it is told. */
interface Said {
  readonly number: number
  text: string
  reasoning: string
  completed: boolean
}

/** Encodes the events of one turn, from its first one on and in their order. */
export class ChatEncoder {
  readonly #chat: Chat
  readonly #said = new Map<string, Said>()
  readonly #calls = new Map<string, number>()
  /** Reasoning of a message that has no words yet. */
  #thought = ''
  readonly #suggestions: { readonly text: string; readonly seq: number }[] = []
  #usage: Usage | undefined
  #pending: Pending | undefined
  /** The last stream ended with a pause, so that the next event begins a stream. */
  #paused = false

  constructor(chat: Chat) {
    this.#chat = chat
    for (const id of chat.order ?? []) this.#begin(id)
  }

  /** The frames of one event; `endedAt` (ms since the epoch) goes into the last ones. The last one has the event's id. */
  encode(event: NumberedEvent, endedAt?: number): readonly ChatFrame[] {
    const events = this.#events(event, endedAt)
    const isAnswer = event.type === 'consent.answered' || (event.type === 'tool.completed' && this.#isPending(event))
    const begun = this.#paused ? [this.#status('in_progress')] : []
    if (isAnswer) this.#settle(event)
    this.#paused = event.type === 'turn.waiting' || (isAnswer && this.#pending !== undefined)
    const frames = [...begun, ...events]
    const id = toNumbered(this.#chat.turn, event.seq)
    return frames.map((frame, index) => (index === frames.length - 1 ? { ...frame, id } : frame))
  }

  /** The pause of a turn that waits, for whoever answered some of its calls only, or was not there when it began. */
  pause(seq: number): readonly ChatFrame[] {
    const id = toNumbered(this.#chat.turn, seq)
    return [this.#requiresAction(), { ...done, id }]
  }

  /** The end that a client gets when it has had everything else. */
  idle(seq: number): readonly ChatFrame[] {
    return [{ ...done, id: toNumbered(this.#chat.turn, seq) }]
  }

  /** What was said of messages that were never completed. */
  partial(): readonly JsonObject[] {
    return [...this.#said.values()]
      .filter(({ completed, text }) => !completed && text !== '')
      .map(({ number, text }) => this.#message('answer', number, 'answer', text))
  }

  /** What a client hears in every silence: a real event, since one official client takes no comments. */
  heartbeat(): string {
    return toText(this.#status('in_progress'))
  }

  #events(event: NumberedEvent, endedAt: number | undefined): readonly ChatFrame[] {
    switch (event.type) {
      case 'turn.started':
        return [this.#status('created'), this.#status('in_progress')]
      case 'message.started':
        this.#begin(event.message)
        return []
      case 'message.delta': {
        const said = this.#begin(event.message)
        said.text += event.text
        return [this.#delta(said, { content: event.text })]
      }
      case 'message.completed':
        return [this.#completed(event)]
      case 'reasoning.delta':
        return [this.#reasoning(event.message, event.text)]
      case 'reasoning.completed':
        // What is whole comes with the answer; only what nobody has heard yet is told here.
        return this.#hasReasoning(event.message) ? [] : [this.#reasoning(event.message, event.text)]
      case 'canvas.completed':
      case 'agent.started':
      case 'agent.completed':
      case 'sandbox.started':
      case 'sandbox.ready':
      case 'conversation.updated':
        return [this.#note(event)]
      case 'tool.started':
        return [this.#call(event, cloudPlugin)]
      case 'tool.completed':
        return [this.#output(event)]
      case 'tool.outputs_requested':
        this.#pending = { for: 'tool_outputs', calls: event.calls }
        return event.calls.filter(({ call }) => !this.#calls.has(call)).map((call) => this.#call(call, localPlugin))
      case 'consent.requested':
        this.#pending = { for: 'consent', calls: event.calls }
        return []
      case 'usage':
        this.#usage = event
        return []
      case 'suggestion':
        this.#suggestions.push({ text: event.text, seq: event.seq })
        return []
      case 'turn.waiting':
        return [
          this.#verbose('note', event.seq, 'interrupt', ''),
          this.#verbose('finish', event.seq, 'generate_answer_finish', finishOf(1)),
          this.#requiresAction(),
          done,
        ]
      case 'turn.completed':
        return [
          this.#verbose('finish', event.seq, 'generate_answer_finish', finishOf(0)),
          ...this.#suggestions.map(({ text, seq }) => this.#whole(this.#message('note', seq, 'follow_up', text))),
          this.#status('completed', { ...endOf(endedAt), ...usageOf(event.usage ?? this.#usage) }),
          done,
        ]
      case 'turn.failed':
      case 'turn.interrupted':
        return [this.#failed(event.error, endedAt), done]
      case 'turn.cancelled':
        // Who stopped it himself, or took the conversation away, knows; for anybody else it is a failure.
        return event.by === 'client' || event.by === 'deleted'
          ? [this.#status('canceled', endOf(endedAt)), done]
          : [this.#failed(new HubError('cancelled').public(), endedAt), done]
      case 'canvas.delta':
      case 'consent.answered':
      case 'attempt.failed':
      case 'raw':
        return []
    }
  }

  #status(status: CozeStatus, more: Partial<ChatParts> = {}): ChatFrame {
    return { event: `conversation.chat.${status}`, body: toChat(this.#chat, status, more) }
  }

  #failed(error: PublicError, endedAt: number | undefined): ChatFrame {
    const { event, body } = this.#status('failed', {
      ...(endedAt === undefined ? {} : { failedAt: seconds(endedAt) }),
      ...usageOf(this.#usage),
    })
    return { event, body: { ...body, last_error: lastError(error) } }
  }

  #begin(id: string): Said {
    const known = this.#said.get(id)
    if (known) return known
    const said = { number: this.#said.size + 1, text: '', reasoning: this.#thought, completed: false }
    this.#thought = ''
    this.#said.set(id, said)
    return said
  }

  #hasReasoning(id: string): boolean {
    return (this.#said.get(id)?.reasoning ?? this.#thought) !== ''
  }

  /** Coze's reasoning belongs to an answer: to the one it names, or to the next. */
  #reasoning(id: string, text: string): ChatFrame {
    const said = this.#said.get(id)
    if (said) said.reasoning += text
    else this.#thought += text
    const number = said?.number ?? this.#said.size + 1
    return this.#delta({ number }, { content: '', reasoning: text })
  }

  #delta({ number }: { readonly number: number }, said: Pick<MessageParts, 'content' | 'reasoning'>): ChatFrame {
    return {
      event: 'conversation.message.delta',
      body: messageObject({ ...this.#parts('answer', number, 'answer'), ...said }),
    }
  }

  #completed(event: Omit<BotMessage, 'id'> & { readonly message: string }): ChatFrame {
    const said = this.#begin(event.message)
    said.completed = true
    const { reasoning } = said
    return this.#whole(
      messageObject({
        ...this.#parts('answer', said.number, 'answer'),
        ...contentOf(event),
        ...(reasoning === '' ? {} : { reasoning }),
      }),
    )
  }

  #call({ call, toolset, tool, input }: ToolCall, pluginType: number): ChatFrame {
    const number = this.#calls.get(call) ?? this.#calls.size
    this.#calls.set(call, number)
    const named = toolset === undefined ? {} : { plugin_name: toolset }
    const called = { name: tool, arguments: input, ...named, api_name: tool, plugin_type: pluginType }
    return this.#whole(this.#message('call', number, 'function_call', JSON.stringify(called)))
  }

  #output({ call, output }: { readonly call: string; readonly output: Json }): ChatFrame {
    const number = this.#calls.get(call) ?? this.#calls.size
    this.#calls.set(call, number)
    return this.#whole(this.#message('output', number, 'tool_response', textOf(output)))
  }

  /** What Coze has no word for goes where its clients do not look, and whoever knows the hub may. */
  #note({ seq, type, ...rest }: NumberedEvent): ChatFrame {
    return this.#verbose('note', seq, type, JSON.stringify(rest))
  }

  #verbose(kind: MessageKind, seq: number, name: string, content: string): ChatFrame {
    const note = { msg_type: name, data: content, from_module: null, from_unit: null }
    return this.#whole(this.#message(kind, seq, 'verbose', JSON.stringify(note)))
  }

  #requiresAction(): ChatFrame {
    return this.#status('requires_action', { calls: toCalls(this.#pending), ...usageOf(this.#usage) })
  }

  #isPending({ call }: { readonly call: string }): boolean {
    return this.#pending?.calls.some((each) => each.call === call) ?? false
  }

  #settle(event: Extract<NumberedEvent, { type: 'consent.answered' | 'tool.completed' }>): void {
    const answered = new Set(event.type === 'tool.completed' ? [event.call] : event.decisions.map(({ call }) => call))
    const calls = this.#pending?.calls.filter(({ call }) => !answered.has(call)) ?? []
    this.#pending = this.#pending && calls.length > 0 ? { ...this.#pending, calls } : undefined
  }

  #message(kind: MessageKind, number: number, type: string, content: string): JsonObject {
    return messageObject({ ...this.#parts(kind, number, type), content })
  }

  #parts(kind: MessageKind, number: number, type: string): Omit<MessageParts, 'content'> {
    const { turn, conversation, bot } = this.#chat
    return {
      id: toMessageId({ turn, kind, number }),
      conversationId: toCozeId(conversation),
      botId: bot,
      chatId: toCozeId(turn),
      role: 'assistant',
      type,
      contentType: 'text',
    }
  }

  #whole(body: JsonObject): ChatFrame {
    return { event: messageCompleted, body }
  }
}

/** The event that brings a whole message. */
export const messageCompleted = 'conversation.message.completed'

const done: ChatFrame = { event: 'done', body: {} }

/** The calls a turn waits for. */
type Pending = NonNullable<Pick<NonNullable<TurnObject['waiting']>, 'for' | 'calls'>>

/** `plugin_type` of tools that the bot runs, and of those that its client runs. */
const cloudPlugin = 1
const localPlugin = 6

const finishOf = (reason: number): string => JSON.stringify({ finish_reason: reason, FinData: '' })
const textOf = (output: Json): string => (typeof output === 'string' ? output : JSON.stringify(output))
const usageOf = (usage: Usage | undefined) => (usage ? { usage } : {})
const endOf = (endedAt: number | undefined) => (endedAt === undefined ? {} : { completedAt: seconds(endedAt) })

/** Coze's times. */
export const seconds = (ms: number): number => Math.floor(ms / 1000)

function toChat({ turn, conversation, bot, createdAt, metaData }: Chat, status: CozeStatus, more: Partial<ChatParts>) {
  return chatObject({
    id: toCozeId(turn),
    conversationId: toCozeId(conversation),
    botId: bot,
    status,
    createdAt: seconds(createdAt),
    ...(metaData ? { metaData } : {}),
    ...more,
  })
}

const lastError = ({ code, message }: PublicError): JsonObject => ({
  code: cozeCode(code),
  msg: message,
  hub_code: code,
})

/** What the client has to answer: tools to run, or whether a tool may be used. */
const toCalls = (pending: Pending | undefined): NonNullable<ChatParts['calls']> =>
  (pending?.calls ?? []).map((call) =>
    pending?.for === 'consent'
      ? { id: call.call, name: consentFunction, arguments: consentArguments(call) }
      : { id: call.call, name: call.tool, arguments: JSON.stringify(call.input) },
  )

/** A message's content: text, or a card or parts where the bot is one of Coze's. */
export function contentOf({
  text,
  template,
  payload,
}: Omit<BotMessage, 'id'>): Pick<MessageParts, 'content' | 'contentType' | 'metaData'> {
  if (template?.['type'] === 'card') {
    const { type: _card, ...card } = template
    return { content: JSON.stringify(card), contentType: 'card' }
  }
  if (isParts(payload)) return { content: JSON.stringify(payload), contentType: 'object_string' }
  const metaData = template ? { template: JSON.stringify(template) } : undefined
  return { content: text, contentType: 'text', ...(metaData ? { metaData } : {}) }
}

const partTypes: ReadonlySet<unknown> = new Set(['text', 'image', 'file', 'audio'])
const isParts = (payload: Json | undefined): boolean =>
  Array.isArray(payload) &&
  payload.length > 0 &&
  payload.every(
    (part: unknown) => typeof part === 'object' && part !== null && 'type' in part && partTypes.has(part.type),
  )

/** The chat of a turn as it is now. */
export function chatNow(turn: TurnRow, view: TurnObject | undefined, isCanceled: boolean): JsonObject {
  const chat = chatOf(turn)
  const status = statusOf(turn.status, isCanceled)
  const { endedAt } = turn
  const failure = status === 'failed' ? (view?.error ?? new HubError('cancelled').public()) : undefined
  const body = toChat(chat, status, {
    ...(endedAt === undefined ? {} : status === 'failed' ? { failedAt: seconds(endedAt) } : endOf(endedAt)),
    ...usageOf(view?.usage),
    ...(view?.waiting ? { calls: toCalls(view.waiting) } : {}),
  })
  return failure ? { ...body, last_error: lastError(failure) } : body
}

function statusOf(status: TurnRow['status'], isCanceled: boolean): CozeStatus {
  switch (status) {
    case 'queued':
    case 'running':
      return 'in_progress'
    case 'waiting':
      return 'requires_action'
    case 'completed':
      return 'completed'
    case 'failed':
    case 'interrupted':
      return 'failed'
    case 'cancelled':
      return isCanceled ? 'canceled' : 'failed'
  }
}

/** A frame as it is written; with its id for clients that asked for ids, since one official client bears none. */
export function toText({ event, body, id }: ChatFrame, withId = false): string {
  const frame = event === done.event ? doneFrame() : encodeFrame(event, body)
  // Its last line, as some take a cursor before they have read what it stands for.
  return withId && id !== undefined ? `${frame.slice(0, -1)}id: ${id}\n\n` : frame
}
