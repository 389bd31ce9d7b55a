import { z } from 'zod'
import type { HubError } from '../../core/errors.ts'
import { asHubError } from '../../core/errors.ts'
import type { HubEvent } from '../../core/events.ts'
import { inParts, tap } from '../../core/flow.ts'
import type { Parts } from '../../core/flow.ts'
import { defineMiddleware } from '../../core/plugin.ts'
import type { Respond, Turn } from '../../core/turn.ts'

/**
 * Tries again what provably never started, as long as nothing of the answer was shown: exponential backoff with full
 * jitter; a longer `Retry-After` of the upstream is waited for, with jitter on top, so that many turns do not wake
 * together.
 */
export const retry = defineMiddleware({
  name: 'retry',
  options: z.strictObject({
    retries: z.int().min(0).max(20).default(5).describe('Tries after the first one.'),
    baseMs: z.int().positive().default(500).describe('Longest first pause; doubles with every try.'),
    maxMs: z.int().positive().default(30_000).describe('Longest pause.'),
    maxRetryAfterMs: z
      .int()
      .positive()
      .default(120_000)
      .describe('An upstream that wants a longer pause than this is not waited for.'),
  }),
  create: ({ retries, baseMs, maxMs, maxRetryAfterMs }, { bot, clock, logger }) => {
    const pauseFor = (error: HubError, attempt: number): number => {
      const asked = error.retryAfterMs ?? 0
      return Math.round(asked + Math.random() * Math.min(maxMs, baseMs * 2 ** (attempt - 1)))
    }
    async function* untilDone(turn: Turn, next: Respond): Parts<HubEvent> {
      for (let attempt = 1; ; attempt++) {
        let shown = false
        try {
          yield tap(next({ ...turn, attempt }), (event) => (shown ||= !silent.has(event.type)))
          return
        } catch (cause) {
          const error = asHubError(cause, 'bot_failed')
          const waited = (error.retryAfterMs ?? 0) <= maxRetryAfterMs
          if (shown || !error.notStarted || !waited || attempt > retries || turn.signal.aborted) throw error
          const retryInMs = pauseFor(error, attempt)
          logger.warn(
            { turn: turn.id, bot: bot.name, attempt, code: error.code, retryInMs, err: error.cause },
            'trying again',
          )
          yield [{ type: 'attempt.failed', attempt, error: error.public(), retryInMs }]
          await clock.sleep(retryInMs, turn.signal)
        }
      }
    }
    return (turn, next) => inParts(() => untilDone(turn, next))
  },
})

/** Events that show nothing of an answer. */
const silent: ReadonlySet<HubEvent['type']> = new Set(['attempt.failed', 'usage', 'upstream'])
