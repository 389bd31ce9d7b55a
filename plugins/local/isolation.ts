import { failures, HubError } from '../../core/errors.ts'
import type { FailureCode, HubErrorOptions } from '../../core/errors.ts'
import type { Json, JsonObject } from '../../core/message.ts'
import type { SuggestionRequest } from '../../core/plugin.ts'
import type { Turn } from '../../core/turn.ts'
import type { BotRecords } from './bot-host.ts'
import type { Asked } from './run-bot.ts'

/** What a worker is started with. */
export interface WorkerStart {
  /** URL of the module with the bot. */
  readonly module: string
  readonly export: string | undefined
  /** Counts on while the worker's thread gives way. */
  readonly beats: SharedArrayBuffer
}

/** Something asked of a bot, without what cannot be moved to another thread. */
export type PlainAsked = Omit<Asked, 'signal' | 'turn'> & {
  readonly turn?: Omit<Turn, 'signal' | 'asksConsent'>
}

/** What is wanted of a bot in a worker. */
export type Job =
  | { readonly type: 'answer' }
  | { readonly type: 'suggest'; readonly request: SuggestionRequest }
  | { readonly type: 'invoke'; readonly name: string; readonly input: JsonObject }

/** How much a log line matters. */
export type LogLevel = 'debug' | 'info' | 'warn' | 'error'

/** Something that a bot's object asks of the hub. */
export type HubCall =
  | { readonly of: 'records'; readonly name: keyof BotRecords; readonly given: readonly unknown[] }
  | { readonly of: 'tools'; readonly name: string; readonly given: readonly Json[] }

/** An exception in a form that can be moved to another thread. */
export type PlainError =
  | { readonly code: FailureCode; readonly options: HubErrorOptions }
  | { readonly name: string; readonly message: string; readonly stack: string | undefined }

/** Takes an exception apart. */
export function toPlainError(error: unknown): PlainError {
  if (error instanceof HubError) {
    const { code, message, notStarted, retryAfterMs, upstream, turn } = error
    return {
      code,
      options: {
        notStarted,
        // The table's own sentence is said in the language of the bot, over there.
        ...(message === failures[code].en ? {} : { message }),
        ...(retryAfterMs === undefined ? {} : { retryAfterMs }),
        ...(upstream ? { upstream } : {}),
        ...(turn === undefined ? {} : { turn }),
        ...(error.cause === undefined ? {} : { cause: causeOf(error.cause) }),
      },
    }
  }
  if (error instanceof Error) return { name: error.name, message: error.message, stack: error.stack }
  return { name: 'Error', message: String(error), stack: undefined }
}

/** Puts an exception together again. */
export function fromPlainError(plain: PlainError): Error {
  if ('code' in plain) return new HubError(plain.code, plain.options)
  const error = new Error(plain.message)
  error.name = plain.name
  if (plain.stack !== undefined) error.stack = plain.stack
  return error
}

const causeOf = (cause: unknown): string =>
  cause instanceof Error ? (cause.stack ?? cause.message) : `thrown: ${String(cause)}`
