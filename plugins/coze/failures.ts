import { HubError } from '../../core/errors.ts'
import type { FailureCode } from '../../core/errors.ts'

/** Whether it is a `HubError`, with one of these codes. */
export const isHubError = (error: unknown, ...codes: readonly FailureCode[]): error is HubError =>
  error instanceof HubError && codes.includes(error.code)

/** Whether the same call may well succeed a moment later. */
export const mayPass = (error: unknown): error is HubError =>
  isHubError(
    error,
    'upstream_cut',
    'upstream_silent',
    'upstream_unreachable',
    'upstream_rate_limited',
    'upstream_failed',
  )

/** The failure of a call that may be made twice, such as one for a token: when it is a passing one, `notStarted`. */
export function repeatable(error: unknown): unknown {
  if (!mayPass(error)) return error
  // A cut here leaves nothing unknown that matters, so it must not end the turn as interrupted.
  const lost = error.code === 'upstream_cut' || error.code === 'upstream_silent'
  return new HubError(lost ? 'upstream_unreachable' : error.code, {
    cause: error,
    notStarted: true,
    ...(error.retryAfterMs === undefined ? {} : { retryAfterMs: error.retryAfterMs }),
    ...(error.upstream ? { upstream: error.upstream } : {}),
  })
}
