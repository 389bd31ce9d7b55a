import { consentArguments, consentFunction } from '../../core/consent-call.ts'
import { z } from 'zod'
import { failures, HubError, isFailureCode } from '../../core/errors.ts'
import type { NumberedEvent, PendingCall, PublicError, ToolCall, Usage } from '../../core/events.ts'
import type { JsonObject } from '../../core/message.ts'
import {
  chunkObject,
  completionObject,
  doneFrame,
  encodeFrame,
  errorObject,
  usageChunk,
} from '../../plugins/openai/wire.ts'
import type { AnswerHead, ChunkParts, FinishReason, OpenaiCall } from '../../plugins/openai/wire.ts'

/*
 * From the hub's events to OpenAI's chunks. Nothing here asks anybody: the same events give the same chunks, so a client
 * that sends its message again gets what it would have got.
 */

/** What one event brings for the client, in its order. */
export type AnswerPart =
  | { readonly type: 'chunk'; readonly parts: ChunkParts }
  /** The last one. */
  | { readonly type: 'finish'; readonly finish: FinishReason }
  | { readonly type: 'failed'; readonly error: PublicError }

/** What a turn waits for: one of these for each call. */
type OpenCall = (ToolCall | PendingCall) & { readonly asks: 'consent' | 'output' }

/**
 * Reads the events of one turn, from its first one on and in their order, and tells what those behind `after` bring: an
 * answer may end with calls, and the next one goes on behind them.
 */
export class AnswerReader {
  readonly #turn: string
  readonly #after: number
  readonly #until: number | undefined
  readonly #texts = { content: new SaidTexts(), reasoning: new SaidTexts() }
  #open: readonly OpenCall[] = []
  #calls: readonly OpenaiCall[] = []
  #usage: Usage | undefined
  #end: Exclude<AnswerPart, { type: 'chunk' }> | undefined

  /** `until`: the event behind which nothing comes, when calls are open still. */
  constructor({
    turn,
    after,
    until,
  }: {
    readonly turn: string
    readonly after: number
    readonly until?: number | undefined
  }) {
    this.#turn = turn
    this.#after = after
    this.#until = until
  }

  /** How the answer has ended; undefined while it has not. */
  get end(): Exclude<AnswerPart, { type: 'chunk' }> | undefined {
    return this.#end
  }

  /** What the answer has cost; undefined where nobody told. */
  get usage(): Usage | undefined {
    return this.#usage
  }

  /** The whole of what the answer brought. */
  get answer(): { readonly content: string; readonly reasoning: string; readonly calls: readonly OpenaiCall[] } {
    return { content: this.#texts.content.whole, reasoning: this.#texts.reasoning.whole, calls: this.#calls }
  }

  read(event: NumberedEvent): readonly AnswerPart[] {
    this.#follow(event)
    if (event.seq <= this.#after || this.#end) return []
    const waits = event.seq === this.#until && this.#open.length > 0
    const parts = waits ? this.#pause() : this.#partsOf(event)
    const end = parts.find((part) => part.type !== 'chunk')
    if (end) this.#end = end
    return parts
  }

  /** Which calls are open, also those of before. */
  #follow(event: NumberedEvent): void {
    const close = (calls: readonly string[]) => {
      this.#open = this.#open.filter(({ call }) => !calls.includes(call))
    }
    if (event.type === 'consent.requested') this.#open = event.calls.map((call) => ({ ...call, asks: 'consent' }))
    if (event.type === 'tool.outputs_requested') this.#open = event.calls.map((call) => ({ ...call, asks: 'output' }))
    if (event.type === 'consent.answered') close(event.decisions.map(({ call }) => call))
    if (event.type === 'tool.completed') close([event.call])
  }

  #partsOf(event: NumberedEvent): readonly AnswerPart[] {
    switch (event.type) {
      case 'message.delta':
        return this.#text('content', this.#texts.content.add(event.message, event.text))
      case 'message.completed':
        return this.#text('content', this.#texts.content.complete(event.message, event.text))
      case 'reasoning.delta':
        return this.#text('reasoning', this.#texts.reasoning.add(event.message, event.text))
      case 'reasoning.completed':
        return this.#text('reasoning', this.#texts.reasoning.complete(event.message, event.text))
      case 'usage':
        this.#usage = sumOf(this.#usage, event)
        return []
      case 'turn.waiting':
        return this.#pause()
      case 'turn.completed':
        return [{ type: 'finish', finish: 'stop' }]
      case 'turn.cancelled':
        return [{ type: 'failed', error: new HubError('cancelled').public() }]
      case 'turn.failed':
      case 'turn.interrupted':
        return [endOf(event.error)]
      default:
        return []
    }
  }

  /** Ends the answer with the calls that wait for the client. */
  #pause(): readonly AnswerPart[] {
    this.#calls = this.#open.map((call) => toCall(this.#turn, call))
    return [
      { type: 'chunk', parts: { calls: this.#calls } },
      { type: 'finish', finish: 'tool_calls' },
    ]
  }

  #text(kind: 'content' | 'reasoning', text: string): readonly AnswerPart[] {
    return text === '' ? [] : [{ type: 'chunk', parts: { [kind]: text } }]
  }
}

/** Several texts that become one, with a blank line between two, while they are said. */
class SaidTexts {
  readonly #texts = new Map<string, string>()
  #last: string | undefined

  /** What is to be sent for a piece. */
  add(id: string, piece: string): string {
    const isNext = this.#last !== undefined && this.#last !== id
    this.#texts.set(id, (this.#texts.get(id) ?? '') + piece)
    this.#last = id
    return isNext ? `\n\n${piece}` : piece
  }

  /** The rest of a text that is whole. Words that were not the whole truth cannot be taken back. */
  complete(id: string, whole: string): string {
    const said = this.#texts.get(id) ?? ''
    if (whole === said) return ''
    const rest = whole.startsWith(said) ? this.add(id, whole.slice(said.length)) : ''
    this.#texts.set(id, whole)
    return rest
  }

  get whole(): string {
    return [...this.#texts.values()].filter((text) => text !== '').join('\n\n')
  }
}

/** An answer that its platform cut short has an end in OpenAI's words, and is marked by it. */
const ownEnds: Partial<Record<string, FinishReason>> = {
  answer_cut_short: 'length',
  upstream_refused_content: 'content_filter',
}

function endOf(error: PublicError): AnswerPart {
  const finish = ownEnds[error.code]
  return finish ? { type: 'finish', finish } : { type: 'failed', error }
}

/** The id of a call says which turn it is of, so that its output finds the way without a table. */
export const callId = (turn: string, call: string): string => `${turn}.${call}`

/** The turn and the bot's own id of a call; undefined for an id that is none of this channel. */
export function readCallId(id: string): { readonly turn: string; readonly call: string } | undefined {
  const [turn = ''] = id.split('.', 1)
  return turn.startsWith('turn_') && id.length > turn.length + 1 ? { turn, call: id.slice(turn.length + 1) } : undefined
}

function toCall(turn: string, call: OpenCall): OpenaiCall {
  const id = callId(turn, call.call)
  return call.asks === 'output'
    ? { id, name: call.tool, arguments: JSON.stringify(call.input) }
    : { id, name: consentFunction, arguments: consentArguments(call) }
}

const sumOf = (sum: Usage | undefined, usage: Usage): Usage => ({
  inputTokens: (sum?.inputTokens ?? 0) + usage.inputTokens,
  outputTokens: (sum?.outputTokens ?? 0) + usage.outputTokens,
  totalTokens: (sum?.totalTokens ?? 0) + usage.totalTokens,
})

/** Whose answer it is. */
export interface AnswerNames extends AnswerHead {
  readonly turn: string
}

/** The first frame of every stream, before the bot has said a word. */
export const openingFrame = (names: AnswerNames, includeUsage: boolean): string =>
  chunkFrame(names, { role: 'assistant', content: '' }, 0, includeUsage)

/** The frames of a part; behind the last one of an answer that ended well come its cost, if it was asked for, and `[DONE]`. */
export function framesOf(
  names: AnswerNames,
  part: AnswerPart,
  {
    seq,
    usage,
    includeUsage,
  }: { readonly seq: number; readonly usage: Usage | undefined; readonly includeUsage: boolean },
): string {
  switch (part.type) {
    case 'chunk':
      return chunkFrame(names, part.parts, seq, includeUsage)
    case 'failed':
      return encodeFrame(errorBody(part.error))
    case 'finish': {
      const cost = includeUsage ? encodeFrame(usageChunk(names, usage)) : ''
      return chunkFrame(names, { finish: part.finish }, seq, includeUsage) + cost + doneFrame
    }
  }
}

/** With the place in the turn, from which it can be read on elsewhere; and as OpenAI has it, no cost before the end. */
const chunkFrame = (names: AnswerNames, parts: ChunkParts, seq: number, includeUsage: boolean): string =>
  encodeFrame({
    ...chunkObject(names, parts),
    ...(includeUsage ? { usage: null } : {}),
    hub: { turn: names.turn, seq },
  })

/** The whole answer as one object. */
export const wholeAnswer = (names: AnswerNames, reader: AnswerReader, finish: FinishReason): JsonObject => ({
  ...completionObject(names, { ...reader.answer, finish, usage: reader.usage }),
  hub: { turn: names.turn },
})

/** The failure of a turn, to be thrown where no stream is open yet. */
export const asThrown = (error: PublicError, turn: string): HubError =>
  new HubError(isFailureCode(error.code) ? error.code : 'internal', {
    message: error.message,
    turn,
    ...(error.retryAfterMs === undefined ? {} : { retryAfterMs: error.retryAfterMs }),
    ...(error.upstream ? { upstream: error.upstream } : {}),
  })

/** Whether a client may send the message of a failed turn again by itself: only what was not begun. */
export const mayRepeat = ({ code }: PublicError): boolean => [429, 503].includes(statusOf(code))

const statusOf = (code: string): number => (isFailureCode(code) ? failures[code].status : 500)

/** Codes that OpenAI's clients look for. */
const ownCodes: Readonly<Record<string, string>> = { unknown_bot: 'model_not_found', unauthorized: 'invalid_api_key' }

/** A failure in OpenAI's form: the hub's code, or OpenAI's where its clients know one. */
export const errorBody = ({ code, message }: Pick<PublicError, 'code' | 'message'>, param?: string): JsonObject =>
  errorObject({
    message,
    type: typeOf(code),
    code: ownCodes[code] ?? code,
    ...(param === undefined ? {} : { param }),
  })

function typeOf(code: string): string {
  const status = statusOf(code)
  if (status === 402) return 'insufficient_quota'
  if (status === 429) return 'rate_limit_error'
  return status >= 500 ? 'server_error' : 'invalid_request_error'
}

/** A failure before there is a stream. What cannot be understood is 400, as OpenAI has it. */
export function encodeFailure(error: HubError): { readonly status: number; readonly body: JsonObject } {
  const status = error.failure.status === 422 ? 400 : error.failure.status
  const path = error.cause instanceof z.ZodError ? error.cause.issues[0]?.path.join('.') : undefined
  return { status, body: errorBody(error.public(), path === '' ? undefined : path) }
}
