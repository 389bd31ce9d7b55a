import { HubError } from '../../core/errors.ts'
import type { HubEvent } from '../../core/events.ts'
import type { Json, JsonObject } from '../../core/message.ts'
import type { Turn } from '../../core/turn.ts'

/** One frame of the upstream's stream. */
export interface SseFrame {
  /** `message` where the frame names none. */
  readonly event: string
  readonly data: string
  /** The data, parsed; undefined when it is no JSON. An integer beyond 2^53 is a string. */
  readonly json: Json | undefined
  readonly id?: string
}

/** What a frame says: words of the answer, an event of the hub, or that the answer is whole. */
export type SseStep =
  | string
  | Exclude<
      HubEvent,
      { readonly type: 'consent.requested' | 'consent.answered' | 'tool.outputs_requested' | 'attempt.failed' }
    >
  | { readonly type: 'end' }

/**
 * Reads a frame: one step, several, or undefined for a frame that says nothing. A `HubError` it throws fails the turn;
 * any other exception means that the frame was not understood, which is logged and passed over.
 */
export type SseMap = (frame: SseFrame, turn: Turn) => SseStep | readonly SseStep[] | undefined

/** What is asked of the upstream. */
export interface SseRequest {
  /** Sent as JSON. */
  readonly body: Json
  /** Added to those of the options. */
  readonly headers?: Readonly<Record<string, string>>
  /** Where to, when that depends on the turn; relative to the `url` of the options. */
  readonly url?: string | URL
}

/**
 * The plain format: `event: message` with `{ "content": "…" }`, then `event: done`, or the data `[DONE]`; `event: error`
 * with `{ "code", "message" }` is a failure. A map of your own may hand it what it does not know.
 * @example map: (frame) => (frame.event === 'hint' ? { type: 'suggestion', text: frame.data } : plainFrames(frame))
 */
export function plainFrames({ event, data, json }: SseFrame): SseStep | undefined {
  if (event === 'done' || data.trim() === '[DONE]' || json === '[DONE]') return { type: 'end' }
  const fields = asObject(json)
  if (event === 'error') throw failureIn(fields, data)
  const { content } = fields
  return event === 'message' && typeof content === 'string' ? content : undefined
}

/** The plain request: the message, what was said before it, whose conversation it is, and the message's own id. */
export const plainRequest = ({ message, history, conversation, principal }: Turn): SseRequest => ({
  body: {
    id: message.id,
    message: message.text,
    history: history.map(({ role, text }) => ({ role: role === 'user' ? 'user' : 'assistant', content: text })),
    conversation: conversation.id,
    // Escaped, so that no two people are one.
    user: [principal.key, ...(principal.user === undefined ? [] : [principal.user])].map(encodeURIComponent).join('/'),
    ...(message.payload ? { payload: message.payload } : {}),
  },
})

/** A failure in the upstream's words, which are for the log; clients may see its code. */
export function failureIn(fields: JsonObject, words: string): HubError {
  const { code, message } = fields['error'] === undefined ? fields : { ...fields, ...asObject(fields['error']) }
  const known = typeof code === 'number' ? String(code) : code
  return new HubError('upstream_failed', {
    cause: new Error(typeof message === 'string' ? message : words.slice(0, 1000)),
    ...(typeof known === 'string' ? { upstream: { code: known } } : {}),
  })
}

/** The value when it is a JSON object, else an empty one. */
export const asObject = (value: Json | undefined): JsonObject =>
  typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as JsonObject) : {}
