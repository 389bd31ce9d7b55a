import { HubError } from '../../core/errors.ts'
import { fromNumbered, toNumbered } from '../../core/ids.ts'
import type { NumberedEvent, PendingCall, PublicError, ToolCall } from '../../core/events.ts'
import type { FileRef, Json, JsonObject } from '../../core/message.ts'
import type { BotMessage, FeedbackItem } from '../../core/store.ts'
import { asgardEvent, asgardMessage } from '../../plugins/asgard/wire.ts'
import type {
  AsgardBlob,
  AsgardErrorDetail,
  AsgardEvent,
  AsgardEventType,
  AsgardFacts,
  AsgardFrame,
  AsgardMessage,
  AsgardPendingCall,
  AsgardTemplate,
  ToolCallStartFact,
} from '../../plugins/asgard/wire.ts'

/*
 * From the hub's events to Asgard's frames. Nothing here asks anybody: the same events give the same frames, so a client
 * that comes back gets what it would have got.
 */

/** A place in a channel: behind event `seq` of a turn; 0 is before its first. */
export interface RelayPlace {
  readonly turn: string
  readonly seq: number
}

const turnForm = /^turn_[0-9a-z]{25}$/

/**
 * The `id:` of a frame: one decimal number that says which turn and which event of it, and grows with both. It needs no
 * table to be read, but more than 64 bits to be counted with.
 */
export const encodePlace = ({ turn, seq }: RelayPlace): string => toNumbered(turn, seq)

/** The place that an id names; undefined for what is no id of this channel. */
export function decodePlace(id: string): RelayPlace | undefined {
  const place = fromNumbered('turn', id)
  return place && { turn: place.id, seq: place.number }
}

/** Whose frames they are. */
export interface RelayRun {
  readonly turn: string
  /** The id of the message that the turn answers. */
  readonly message: string
  readonly namespace: string
  readonly botProviderName: string
  readonly customChannelId: string
}

/** A message's id in the channel. Bots may use an id again in another turn; Asgard's clients may not see that. */
export const relayMessageId = (turn: string, message: string): string => `${turn}.${message}`

/** The id of feedback in the channel. */
export const relayFeedbackId = ({ turn, id }: Pick<FeedbackItem, 'turn' | 'id'>): string => `${turn}.feedback-${id}`

/** The turn and the bot's own id of a message; undefined for an id that is none of this channel. */
export function readMessageId(id: string): { readonly turn: string; readonly message: string } | undefined {
  const [turn = ''] = id.split('.', 1)
  return turnForm.test(turn) && id.length > turn.length + 1 ? { turn, message: id.slice(turn.length + 1) } : undefined
}

/** Encodes the events of one turn, from its first one on and in their order. */
export class RunEncoder {
  readonly #run: RelayRun
  /** How many deltas of each open text there were. */
  readonly #open = new Map<string, number>()
  readonly #calls = new Map<string, { readonly fact: ToolCallStartFact }>()
  readonly #parents = new Map<string, { readonly parentToolUseId: string; readonly subagentType?: string }>()
  #pending: readonly PendingCall[] = []
  /** The last stream ended with a pause, so that the next event begins a stream. */
  #paused = false

  constructor(run: RelayRun) {
    this.#run = run
  }

  /** Messages that began and were not completed. */
  get incomplete(): readonly string[] {
    return [...this.#open.keys()].flatMap((key) => (key.startsWith('message:') ? [key.slice('message:'.length)] : []))
  }

  /** The frames of one event. The last one has the event's id, so that a client never misses half of an event. */
  encode(event: NumberedEvent): readonly AsgardFrame[] {
    const begun = this.#paused ? [this.#event('asgard.run.init', {})] : []
    const events = [...begun, ...this.#events(event)]
    const isPart = event.type === 'consent.answered' && this.#pending.length > 0
    this.#paused = event.type === 'turn.waiting' || isPart
    return this.#framed(events, event.seq)
  }

  /** What stays of an event in a replayed history: whole messages, thoughts, canvases and tool calls. */
  replay(event: NumberedEvent): readonly AsgardFrame[] {
    const events = this.#events(event).filter(({ eventType }) => replayed.has(eventType))
    return this.#framed(events, event.seq).map(asHistory)
  }

  /** A message that was broken off, as a history shows it: with what was said of it. */
  replayPartial(message: BotMessage, seq: number): readonly AsgardFrame[] {
    return this.#framed([this.#completed(message)], seq).map(asHistory)
  }

  /** The user's own words, which only a replay has. */
  replayUser(
    { text, files, hint }: { readonly text: string; readonly files: readonly FileRef[]; readonly hint?: string },
    id?: string,
  ): readonly AsgardFrame[] {
    const fact: AsgardFacts['asgard.message.user'] = {
      messageId: relayMessageId(this.#run.turn, 'user'),
      text,
      ...(hint === undefined ? {} : { identityHint: hint }),
      ...(id === undefined ? {} : { customMessageId: id }),
      ...(files.length === 0 ? {} : { blobIds: files.map((file) => file.id), blobs: files.map(toBlob) }),
    }
    return this.#framed([this.#event('asgard.message.user', fact)], 0).map(asHistory)
  }

  /** What somebody thinks of a message, which only a replay has. It has no place of its own, so no `id:`. */
  replayFeedback(item: FeedbackItem): AsgardFrame {
    const fact: AsgardFacts['asgard.message.feedback'] = {
      messageId: relayFeedbackId(item),
      targetMessageId: relayMessageId(this.#run.turn, item.message),
      verdict: item.verdict === 'good' ? 'GOOD' : 'BAD',
      ...(item.comment === undefined ? {} : { text: item.comment }),
      ...(item.speaker === undefined ? {} : { identityHint: item.speaker }),
    }
    const event = this.#event('asgard.message.feedback', fact)
    return asHistory({ event: { ...event, eventId: `${encodePlace({ turn: this.#run.turn, seq: 0 })}9${item.id}` } })
  }

  /** The pause of a turn that waits for consent, for whoever was not there when it began. */
  replayPause(seq: number): readonly AsgardFrame[] {
    const events = [
      this.#event('asgard.run.init', {}),
      this.#event('asgard.tool_call.consent', this.#consent(this.#pending)),
      this.#event('asgard.run.done', {}),
    ]
    return this.#framed(events, seq)
  }

  /** The end that a client gets when it has had everything else. */
  idle(seq: number): readonly AsgardFrame[] {
    return this.#framed([this.#event('asgard.run.done', {})], seq)
  }

  #events(event: NumberedEvent): readonly AsgardEvent[] {
    switch (event.type) {
      case 'turn.started':
        return [this.#event('asgard.run.init', {})]
      case 'message.started':
        return this.#begin('message', event.message)
      case 'message.delta':
        return this.#delta('message', event)
      case 'message.completed':
        this.#open.delete(`message:${event.message}`)
        return [this.#completed({ ...event, id: event.message })]
      case 'reasoning.delta':
        return this.#delta('reasoning', event)
      case 'reasoning.completed':
        this.#open.delete(`reasoning:${event.message}`)
        return [this.#said('asgard.message.thinking.complete', { message: event.message, text: event.text })]
      case 'canvas.delta':
        return this.#delta('canvas', event)
      case 'canvas.completed': {
        this.#open.delete(`canvas:${event.message}`)
        const template = event.template ?? { type: 'CANVAS', canvas: { html: event.text } }
        return [this.#said('asgard.message.canvas.complete', { message: event.message, text: event.text, template })]
      }
      case 'tool.started':
        return this.#toolStarted(event)
      case 'tool.completed':
        return this.#toolCompleted(event)
      case 'agent.started':
        return [this.#agentStarted(event)]
      case 'agent.completed': {
        const parent = this.#parents.get(event.agent) ?? { parentToolUseId: '' }
        const summary = event.summary === undefined ? {} : { summary: event.summary }
        return [
          this.#event('asgard.subagent.complete', {
            agentId: event.agent,
            ...parent,
            status: agentStatus(event.status),
            ...summary,
          }),
        ]
      }
      case 'sandbox.started':
      case 'sandbox.ready': {
        const type = event.type === 'sandbox.ready' ? 'asgard.sandbox.ready' : 'asgard.sandbox.launch'
        return [this.#event(type, { sandboxName: event.name, blueprintName: event.blueprint })]
      }
      case 'conversation.updated':
        return this.#updated(event)
      case 'consent.requested':
        this.#pending = event.calls
        return [this.#event('asgard.tool_call.consent', this.#consent(event.calls))]
      case 'consent.answered': {
        const decided = new Set(event.decisions.map(({ call }) => call))
        this.#pending = this.#pending.filter(({ call }) => !decided.has(call))
        return []
      }
      case 'tool.outputs_requested':
        return event.calls.filter(({ call }) => !this.#calls.has(call)).flatMap((call) => this.#toolStarted(call))
      case 'suggestion':
        return [this.#event('asgard.prompt_suggestion', { suggestion: event.text })]
      case 'usage':
        return [
          this.#event('asgard.completion_model.usage', {
            processId: this.#run.turn,
            completionModelName: event.model ?? '',
            inputTokens: event.inputTokens,
            outputTokens: event.outputTokens,
            totalTokens: event.totalTokens,
            isPreset: false,
          }),
        ]
      case 'raw':
        return event.source === 'asgard' ? [this.#raw(event)] : []
      case 'turn.waiting':
        return [
          event.for === 'consent'
            ? this.#event('asgard.run.done', {})
            : this.#event('asgard.run.error', { error: errorDetail(outputsWanted) }),
        ]
      case 'turn.completed':
        return [this.#event('asgard.run.done', {})]
      case 'turn.cancelled':
        // Who stopped it himself, or took the channel away, knows; for anybody else it is no good end.
        return [
          event.by === 'client' || event.by === 'deleted'
            ? this.#event('asgard.run.done', {})
            : this.#event('asgard.run.error', { error: errorDetail(new HubError('cancelled').public()) }),
        ]
      case 'turn.failed':
      case 'turn.interrupted':
        return [this.#event('asgard.run.error', { error: errorDetail(event.error) })]
      // Nothing was shown, and nothing is to be shown of it.
      case 'attempt.failed':
        return []
    }
  }

  #event<Type extends AsgardEventType>(type: Type, fact: AsgardFacts[Type]): AsgardEvent {
    const { turn, message: _, ...run } = this.#run
    return asgardEvent(type, fact, { ...run, requestId: turn, eventId: '' })
  }

  #framed(events: readonly AsgardEvent[], seq: number): readonly AsgardFrame[] {
    const id = encodePlace({ turn: this.#run.turn, seq })
    return events.map((event, index) => ({
      ...(index === events.length - 1 ? { id } : {}),
      event: { ...event, eventId: `${id}${index}` },
    }))
  }

  #said(
    type: keyof AsgardFacts & `asgard.message.${string}${'start' | 'delta' | 'complete'}`,
    parts: {
      readonly message: string
      readonly text?: string
      readonly idx?: number
      readonly template?: JsonObject | undefined
      readonly payload?: Json | undefined
    },
  ): AsgardEvent {
    const { message, text = '', idx = null, template, payload = null } = parts
    return this.#event(type, {
      message: asgardMessage({
        messageId: relayMessageId(this.#run.turn, message),
        replyToCustomMessageId: this.#run.message,
        text,
        idx,
        payload,
        template: (template as AsgardTemplate | undefined) ?? null,
      }),
    })
  }

  #begin(kind: TextKind, message: string): readonly AsgardEvent[] {
    this.#open.set(`${kind}:${message}`, 0)
    const template = kind === 'message' ? { type: 'TEXT', text: '' } : undefined
    return [this.#said(textTypes[kind].start, { message, template })]
  }

  #delta(kind: TextKind, { message, text }: { message: string; text: string }): readonly AsgardEvent[] {
    const idx = this.#open.get(`${kind}:${message}`)
    const begun = idx === undefined ? this.#begin(kind, message) : []
    this.#open.set(`${kind}:${message}`, (idx ?? 0) + 1)
    return [...begun, this.#said(textTypes[kind].delta, { message, text, idx: idx ?? 0 })]
  }

  #completed({ id, text, template, payload }: BotMessage): AsgardEvent {
    return this.#said('asgard.message.complete', {
      message: id,
      text,
      template: template ?? { type: 'TEXT', text },
      payload,
    })
  }

  #toolStarted({ call, toolset = '', tool, input, reason = '' }: ToolCall): readonly AsgardEvent[] {
    // Clients know a call by process and number, which no later run may use again.
    const fact: ToolCallStartFact = {
      processId: this.#run.turn,
      callSeq: this.#calls.size,
      toolCall: { toolsetName: toolset, toolName: tool, parameter: input, reason },
      // Asgard's own calls are named by process and number, and need no other name.
      ...(/-\d+$/.test(call) ? {} : { toolUseId: call }),
    }
    this.#calls.set(call, { fact })
    return [this.#event('asgard.tool_call.start', fact)]
  }

  #toolCompleted(event: { readonly call: string; readonly output: Json; readonly isError: boolean }) {
    const begun = this.#calls.has(event.call) ? [] : this.#toolStarted({ call: event.call, tool: 'tool', input: null })
    const { fact } = this.#calls.get(event.call)!
    const isError = event.isError ? { isError: true } : {}
    return [...begun, this.#event('asgard.tool_call.complete', { ...fact, toolCallResult: event.output, ...isError })]
  }

  #agentStarted(event: Extract<NumberedEvent, { type: 'agent.started' }>): AsgardEvent {
    const known = {
      parentToolUseId: event.parent ?? '',
      ...(event.kind === undefined ? {} : { subagentType: event.kind }),
    }
    this.#parents.set(event.agent, known)
    return this.#event('asgard.subagent.start', {
      agentId: event.agent,
      ...known,
      ...(event.description === undefined ? {} : { description: event.description }),
    })
  }

  #updated({ title, status }: { readonly title?: string; readonly status?: string }): readonly AsgardEvent[] {
    return [
      ...(title === undefined ? [] : [this.#event('asgard.channel.title.update', { title })]),
      ...(status === 'NEEDS_INPUT' || status === 'COMPLETED'
        ? [this.#event('asgard.channel.status.update', { status })]
        : []),
    ]
  }

  #consent(calls: readonly PendingCall[]): AsgardFacts['asgard.tool_call.consent'] {
    return { processId: this.#run.turn, pendingCalls: calls.map(toPendingCall) }
  }

  /** An event of an Asgard upstream that the hub has no word for, as it came. */
  #raw({ name, data }: { readonly name: string; readonly data: Json }): AsgardEvent {
    const frame = this.#event('asgard.run.init', {})
    const facts = typeof data === 'object' && data !== null && !Array.isArray(data) ? (data as JsonObject) : {}
    return { ...frame, eventType: name, fact: { ...frame.fact, runInit: null, ...facts } }
  }
}

type TextKind = 'message' | 'reasoning' | 'canvas'
const textTypes = {
  message: { start: 'asgard.message.start', delta: 'asgard.message.delta' },
  reasoning: { start: 'asgard.message.thinking.start', delta: 'asgard.message.thinking.delta' },
  canvas: { start: 'asgard.message.canvas.start', delta: 'asgard.message.canvas.delta' },
} as const

const replayed: ReadonlySet<string> = new Set<AsgardEventType>([
  'asgard.message.complete',
  'asgard.message.thinking.complete',
  'asgard.message.canvas.complete',
  'asgard.tool_call.complete',
])

/** Replayed history belongs to no run. */
const asHistory = (frame: AsgardFrame): AsgardFrame => ({ ...frame, event: { ...frame.event, requestId: '' } })

/** The messages of an answer that is not streamed. */
export const toMessage = (run: RelayRun, { id, text, template, payload }: BotMessage): AsgardMessage =>
  asgardMessage({
    messageId: relayMessageId(run.turn, id),
    replyToCustomMessageId: run.message,
    text,
    payload: payload ?? null,
    template: (template as AsgardTemplate | undefined) ?? { type: 'TEXT', text },
  })

/** A call that waits, in Asgard's words. */
export const toPendingCall = (call: ToolCall & Partial<PendingCall>): AsgardPendingCall => ({
  toolCallId: call.call,
  toolsetName: call.toolset ?? '',
  toolName: call.tool,
  parameter: call.input,
  reason: call.reason ?? '',
  alreadyAllowed: call.alreadyAllowed ?? false,
})

/** A file as an upload answers it. */
export const toBlob = ({ id, name, bytes, mime }: FileRef): AsgardBlob => ({
  blobId: id,
  fileType: fileTypeOf(mime),
  fileName: name,
  size: bytes,
  mime,
})

function fileTypeOf(mime: string): AsgardBlob['fileType'] {
  const [kind = ''] = mime.toLowerCase().split('/', 1)
  if (kind === 'image' || kind === 'video' || kind === 'audio') return upper[kind]
  return kind === 'text' || /pdf|word|excel|powerpoint|officedocument|opendocument/.test(mime) ? 'DOCUMENT' : 'BINARY'
}

const upper = { image: 'IMAGE', video: 'VIDEO', audio: 'AUDIO' } as const

/** A failure in Asgard's form: the hub's code, and in `inner` that of the upstream, never its words. */
export const errorDetail = ({ code, message, upstream }: Pick<PublicError, 'code' | 'message' | 'upstream'>) =>
  ({
    message,
    code,
    inner: upstream?.code ?? '',
    location: {
      namespace: '',
      workflowName: '',
      processorName: '',
      processorType: '',
      processorConfigName: '',
      processId: '',
    },
  }) satisfies AsgardErrorDetail

/** This dialect has no way to bring outputs, so its clients can only wait for somebody else to do it, or suspend. */
const outputsWanted = {
  code: 'turn_waiting',
  message: 'The bot waits for the output of a tool, which cannot be given here.',
} as const

const agentStatus = (status: string) =>
  status === 'failed' || status === 'cancelled' ? status : ('completed' as const)
