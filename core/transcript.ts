import { HubError } from './errors.ts'
import type { ConsentDecision, HubEvent, LoggedEvent, PendingCall, ToolCall, ToolOutput, Usage } from './events.ts'
import type { Answers, ShownMessage } from './turn.ts'
import type { BotMessage, TurnResult } from './store.ts'

/** The most text one turn may hold, in characters; past it the turn fails with what was shown kept. */
const maxTurnLength = 16 * 1_048_576

type Request =
  | { readonly for: 'consent'; readonly calls: readonly PendingCall[]; readonly decisions: ConsentDecision[] }
  | { readonly for: 'tool_outputs'; readonly calls: readonly ToolCall[]; readonly outputs: ToolOutput[] }

/**
 * What a turn has said so far: a fold over its events, the same whether they come from a provider or from the log.
 * It also mends the grammar: a message starts before its first words, is completed once, and nothing follows it.
 */
export class Transcript {
  readonly #messages = new Map<string, { parts: string[]; completed?: BotMessage }>()
  readonly #debug: boolean
  #usage: Usage | undefined
  #request: Request | undefined
  readonly #answered = new Set<string>()
  /** Something was said since the last request was made or answered. */
  #wentOn = false
  #length = 0

  /** `debug` keeps `raw` events. */
  constructor(options: { readonly debug: boolean }) {
    this.#debug = options.debug
  }

  /** Takes in what is in the log already. */
  replay(events: Iterable<LoggedEvent>): void {
    for (const event of events) this.#fold(event)
  }

  /**
   * Takes in what a provider yielded and returns what goes into the log for it.
   * @throws HubError `answer_too_large`
   */
  add(event: Exclude<HubEvent, { type: 'upstream' }>): readonly LoggedEvent[] {
    switch (event.type) {
      case 'message.started':
        return []
      case 'raw':
        return this.#debug ? [event] : []
      case 'message.delta':
      case 'message.completed': {
        const known = this.#messages.get(event.message)
        if (known?.completed || (event.type === 'message.delta' && event.text === '')) return []
        this.#fold(event)
        return known ? [event] : [{ type: 'message.started', message: event.message }, event]
      }
      default:
        this.#fold(event)
        return [event]
    }
  }

  /** Completes what a provider that ended well left open. */
  close(): readonly LoggedEvent[] {
    const open = [...this.#messages].filter(([, message]) => !message.completed)
    return open.flatMap(([id, message]) =>
      this.add({ type: 'message.completed', message: id, text: message.parts.join('') }),
    )
  }

  #fold(event: LoggedEvent): void {
    this.#wentOn = true
    switch (event.type) {
      case 'message.delta':
        this.#grow(event.text)
        this.#message(event.message).parts.push(event.text)
        break
      case 'message.completed': {
        const message = this.#message(event.message)
        if (message.parts.length === 0) this.#grow(event.text)
        const { type: _, message: id, ...rest } = event
        message.completed = { id, text: rest.text, ...pick(rest) }
        break
      }
      case 'reasoning.delta':
      case 'canvas.delta':
        this.#grow(event.text)
        break
      case 'usage':
        this.#usage = addUsage(this.#usage, event)
        break
      case 'consent.requested':
        this.#request = { for: 'consent', calls: event.calls, decisions: [] }
        break
      case 'tool.outputs_requested':
        this.#request = { for: 'tool_outputs', calls: event.calls, outputs: [] }
        break
      case 'consent.answered':
        if (this.#request?.for !== 'consent') break
        this.#request.decisions.push(...event.decisions)
        for (const { call } of event.decisions) this.#answered.add(call)
        this.#wentOn = false
        break
      case 'tool.completed':
        if (this.#request?.for !== 'tool_outputs') break
        this.#request.outputs.push({ call: event.call, output: event.output })
        this.#answered.add(event.call)
        this.#wentOn = false
        break
      default:
        break
    }
  }

  #message(id: string): { parts: string[]; completed?: BotMessage } {
    const known = this.#messages.get(id)
    if (known) return known
    const message = { parts: [] }
    this.#messages.set(id, message)
    return message
  }

  #grow(text: string): void {
    this.#length += text.length
    if (this.#length > maxTurnLength) throw new HubError('answer_too_large')
  }

  /** All messages, joined by a blank line, with what an unfinished one has so far. */
  get text(): string {
    return this.messages
      .map((message) => message.text)
      .filter((text) => text !== '')
      .join('\n\n')
  }

  get messages(): readonly BotMessage[] {
    return Array.from(this.#messages, ([id, message]) => message.completed ?? { id, text: message.parts.join('') })
  }

  get usage(): Usage | undefined {
    return this.#usage
  }

  /** For `turn.shown`. */
  get shown(): readonly ShownMessage[] {
    return Array.from(this.#messages, ([id, message]) => ({
      id,
      text: message.completed?.text ?? message.parts.join(''),
      completed: message.completed !== undefined,
    }))
  }

  /** The calls that still wait for somebody. */
  get pending(): { readonly for: 'consent' | 'tool_outputs'; readonly calls: readonly ToolCall[] } | undefined {
    if (!this.#request) return undefined
    const answered = answeredCalls(this.#request)
    const calls = this.#request.calls.filter((call) => !answered.has(call.call))
    return calls.length > 0 ? { for: this.#request.for, calls } : undefined
  }

  /** Whether the call was asked for, by whichever request, and has its answer. */
  isAnswered(call: string): boolean {
    return this.#answered.has(call)
  }

  /** For `turn.answers`: the answers to the last request, once all are there and until the bot goes on. */
  get answers(): Answers | undefined {
    if (!this.#request || this.pending || this.#wentOn) return undefined
    return this.#request.for === 'consent'
      ? { type: 'consent', calls: this.#request.calls, decisions: this.#request.decisions }
      : { type: 'tool_outputs', outputs: this.#request.outputs }
  }

  /** What stays of the turn when it has ended. */
  get result(): Omit<TurnResult, 'error'> {
    return { text: this.text, messages: this.messages, ...(this.#usage ? { usage: this.#usage } : {}) }
  }
}

const answeredCalls = (request: Request): ReadonlySet<string> =>
  new Set((request.for === 'consent' ? request.decisions : request.outputs).map((answer) => answer.call))

const pick = (event: Pick<BotMessage, 'template' | 'payload'>): Pick<BotMessage, 'template' | 'payload'> => ({
  ...(event.template === undefined ? {} : { template: event.template }),
  ...(event.payload === undefined ? {} : { payload: event.payload }),
})

const addUsage = (sum: Usage | undefined, usage: Usage): Usage => ({
  inputTokens: (sum?.inputTokens ?? 0) + usage.inputTokens,
  outputTokens: (sum?.outputTokens ?? 0) + usage.outputTokens,
  totalTokens: (sum?.totalTokens ?? 0) + usage.totalTokens,
  ...((usage.model ?? sum?.model) ? { model: (usage.model ?? sum?.model)! } : {}),
})
