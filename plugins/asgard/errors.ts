import { HubError } from '../../core/errors.ts'
import { failureOf, readAnswer, reasonOf } from './wire.ts'
import type { AsgardErrorDetail } from './wire.ts'

/** What is known of a failed call beside its words. */
export interface AsgardErrorOptions {
  /** Default 0. */
  readonly statusCode?: number
  /** Default empty. */
  readonly errorCode?: string
  readonly detail?: AsgardErrorDetail | undefined
  readonly cause?: unknown
}

/**
 * A call that Asgard refused, a run that failed, or a connection that did not come about or was lost. The message may
 * hold Asgard's own words: it is for your log, not for your users.
 */
export class AsgardError extends Error {
  override readonly name = 'AsgardError'
  /** HTTP status; 0 where the failure has none: a failed run, a lost connection, a silence. */
  readonly statusCode: number
  /** The server's own code, such as `CHANNEL_NOT_FOUND`; empty where it gave none. */
  readonly errorCode: string
  /** Of a failed run: where in its workflow it failed. */
  readonly detail: AsgardErrorDetail | undefined

  constructor(message: string, options: AsgardErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause })
    this.statusCode = options.statusCode ?? 0
    this.errorCode = options.errorCode ?? ''
    this.detail = options.detail
  }
}

/** The HTTP status of an `AsgardError`; 0 for one without a status, and for anything else. */
export const statusCodeOf = (error: unknown): number => (error instanceof AsgardError ? error.statusCode : 0)

/** Whether the request was not one the server takes: a missing parameter, or a message while a consent is pending. */
export const isBadRequest = (error: unknown): boolean => statusCodeOf(error) === 400
/** Whether the key is missing or wrong. */
export const isUnauthorized = (error: unknown): boolean => statusCodeOf(error) === 401
/** Whether the key may not do this, or somebody else was asked for the consent. */
export const isForbidden = (error: unknown): boolean => statusCodeOf(error) === 403
/** Whether there is no such channel, message or file. */
export const isNotFound = (error: unknown): boolean => statusCodeOf(error) === 404
/** Whether something is in the way: another run, or a file of that name. */
export const isConflict = (error: unknown): boolean => statusCodeOf(error) === 409
/** Whether the sandbox does not run; a message to the bot starts it. */
export const isPreconditionFailed = (error: unknown): boolean => statusCodeOf(error) === 412

/** The error of an answer that refuses. Its cause is the same failure in the hub's terms. */
export function refusalOf(response: {
  readonly status: number
  readonly headers: Headers
  readonly body: string
}): AsgardError {
  const { code, message } = reasonOf(readAnswer(response.body))
  return new AsgardError(message || `Asgard answered ${response.status} and gave no reason.`, {
    statusCode: response.status,
    errorCode: code,
    cause: failureOf(response),
  })
}

/** The error of a failed connection, whose cause is the hub's name for it; what is no such failure stays itself. */
export const lossOf = (error: unknown): unknown =>
  error instanceof HubError ? new AsgardError(error.message, { cause: error }) : error

/** A failure of the client in the hub's terms; anything else stays itself. */
export const hubErrorOf = (error: unknown): unknown =>
  error instanceof AsgardError && error.cause instanceof HubError ? error.cause : error
