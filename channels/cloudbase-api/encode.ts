import { isTerminal } from '../../core/events.ts'
import type { NumberedEvent, PublicError, ToolCall, Usage } from '../../core/events.ts'
import type { Json } from '../../core/message.ts'
import { recordIds } from '../../core/records.ts'
import type { TurnRow } from '../../core/store.ts'

/*
 * From the hub's events to the objects of CloudBase's classic dialect. Nothing here asks anybody: the same events give
 * the same frames, so a client that comes back gets what it would have got.
 */

/** What stands in the `data:` of a frame. Clients tell by `type` which of the fields are there. */
export interface ClassicFrame {
  readonly type: 'text' | 'thinking' | 'tool-call' | 'tool-result' | 'finish' | 'error'
  readonly role: 'assistant'
  readonly record_id: string
  /** Milliseconds since the epoch; of the turn, so that every reader sees the same. */
  readonly created: number
  readonly model: string
  readonly content: string
  readonly finish_reason: 'continue' | 'stop' | 'error'
  readonly reasoning_content?: string
  readonly tool_call?: {
    readonly index: number
    readonly id: string
    readonly type: 'function'
    readonly function: { readonly name: string; readonly arguments: Json }
  }
  readonly toolCallId?: string
  readonly toolName?: string
  readonly args?: Json
  readonly result?: Json
  readonly usage?: { readonly promptTokens: number; readonly completionTokens: number; readonly totalTokens: number }
  readonly error?: { readonly code: string; readonly message: string }
}

/** Whose frames they are. */
export type ClassicTurn = Pick<TurnRow, 'id' | 'bot' | 'createdAt'>

const silent: ReadonlySet<NumberedEvent['type']> = new Set<NumberedEvent['type']>([
  'turn.started',
  'message.started',
  'canvas.delta',
  'canvas.completed',
  'agent.started',
  'agent.completed',
  'sandbox.started',
  'sandbox.ready',
  'conversation.updated',
  'consent.answered',
  'suggestion',
  'usage',
  'attempt.failed',
  'raw',
])

/** Whether an event may come to a frame. */
export const isShown = (event: NumberedEvent): boolean => !silent.has(event.type)

/** What a turn that did not end well says; undefined for every other event. */
export function failureIn(event: NumberedEvent): Pick<PublicError, 'code' | 'message' | 'retryAfterMs'> | undefined {
  if (!isTerminal(event) || event.type === 'turn.completed') return undefined
  return 'error' in event ? event.error : { code: 'cancelled', message: 'The turn was cancelled.' }
}

/** Encodes the events of one turn, from its first one on and in their order. */
export class ClassicEncoder {
  readonly #turn: ClassicTurn
  /** Messages of which something was said. */
  readonly #begun = new Set<string>()
  readonly #thoughts = new Set<string>()
  readonly #calls = new Map<string, ToolCall>()

  constructor(turn: ClassicTurn) {
    this.#turn = turn
  }

  /** The frames of one event; often none. */
  encode(event: NumberedEvent): readonly ClassicFrame[] {
    switch (event.type) {
      case 'message.delta':
        return this.#text(event.message, event.text)
      case 'message.completed':
        return this.#begun.has(event.message) ? [] : this.#text(event.message, event.text)
      case 'reasoning.delta':
        this.#thoughts.add(event.message)
        return [this.#frame('thinking', { reasoning_content: event.text })]
      case 'reasoning.completed':
        return this.#thoughts.has(event.message) ? [] : [this.#frame('thinking', { reasoning_content: event.text })]
      case 'tool.started':
        return this.#toolCall(event)
      case 'tool.completed':
        return this.#toolResult(event)
      case 'consent.requested':
      case 'tool.outputs_requested':
        return event.calls.filter(({ call }) => !this.#calls.has(call)).flatMap((call) => this.#toolCall(call))
      case 'turn.waiting':
        return [this.#error({ code: 'turn_waiting', message: waitsFor[event.for] })]
      case 'turn.completed':
        return [this.finish(event.usage)]
      case 'turn.failed':
      case 'turn.interrupted':
      case 'turn.cancelled':
        return [this.#error(failureIn(event)!)]
      default:
        return []
    }
  }

  /** Words that are of no message. */
  say(content: string): ClassicFrame {
    return this.#frame('text', { content })
  }

  /** The good end. */
  finish(usage?: Usage): ClassicFrame {
    return this.#frame('finish', {
      finish_reason: 'stop',
      ...(usage
        ? {
            usage: {
              promptTokens: usage.inputTokens,
              completionTokens: usage.outputTokens,
              totalTokens: usage.totalTokens,
            },
          }
        : {}),
    })
  }

  /** One stream of text for all messages of a turn, joined as its record joins them. */
  #text(message: string, text: string): readonly ClassicFrame[] {
    if (text === '') return []
    const joint = this.#begun.size > 0 && !this.#begun.has(message) ? '\n\n' : ''
    this.#begun.add(message)
    return [this.say(joint + text)]
  }

  #toolCall({ call, tool, input }: ToolCall): readonly ClassicFrame[] {
    const index = this.#calls.size
    this.#calls.set(call, { call, tool, input })
    const named = { name: tool, arguments: input }
    return [this.#frame('tool-call', { tool_call: { index, id: call, type: 'function', function: named } })]
  }

  #toolResult({ call, output }: { readonly call: string; readonly output: Json }): readonly ClassicFrame[] {
    // A card of the client's is closed by the result of its call, and must have been opened.
    const opened = this.#calls.has(call) ? [] : this.#toolCall({ call, tool: 'tool', input: {} })
    const { tool, input } = this.#calls.get(call)!
    return [...opened, this.#frame('tool-result', { toolCallId: call, toolName: tool, args: input, result: output })]
  }

  #error({ code, message }: { readonly code: string; readonly message: string }): ClassicFrame {
    return this.#frame('error', { finish_reason: 'error', error: { code, message } })
  }

  #frame(type: ClassicFrame['type'], fields: Partial<ClassicFrame>): ClassicFrame {
    const { id, bot, createdAt } = this.#turn
    return {
      type,
      role: 'assistant',
      record_id: recordIds(id).bot,
      created: createdAt,
      model: bot,
      content: '',
      finish_reason: 'continue',
      ...fields,
    }
  }
}

/** This dialect has no words for either, so that somebody else has to give them. */
const waitsFor = {
  consent: 'The bot waits for consent to use a tool, which is not given here.',
  tool_outputs: 'The bot waits for the output of a tool, which is not given here.',
} as const

/** A frame as it is written: `id`, when it is given, is what a client comes back with. */
export const toText = (frame: unknown, id?: string): string =>
  `${id === undefined ? '' : `id: ${id}\n`}data: ${JSON.stringify(frame)}\n\n`

/** What ends every stream; clients stop reading at it. */
export const done = 'data: [DONE]\n\n'
