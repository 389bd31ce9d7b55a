import type { Clock } from './clock.ts'
import { Secret } from './settings.ts'
import { untilAborted } from './until-aborted.ts'

/** Where the token of each call comes from. */
export interface TokenSource {
  /** A token that is good for a while yet. */
  take(signal: AbortSignal): Promise<Secret>
  /** The platform took this token for none. True when `take` will give another one. */
  refused(token: Secret): boolean
}

/** A token as a platform gives it out, and for how long from now, in ms. */
export interface GivenToken {
  readonly token: string
  readonly lifeMs: number
}

/** How long before its end a token is replaced, so that no call is made with one that has just run out. */
const marginMs = 60_000

/**
 * Tokens that run out: one is taken for all calls until shortly before its end, and then one new one is asked for,
 * however many calls wait for it. Where asking fails in a way that may pass, the old one is used to its end.
 */
export function expiringTokens(
  exchange: () => Promise<GivenToken>,
  clock: Clock,
  mayPass: (error: unknown) => boolean = () => true,
): TokenSource {
  let current: { readonly token: Secret; readonly staleAt: number; readonly expiresAt: number } | undefined
  let previous: Secret | undefined
  let refreshing: Promise<Secret> | undefined

  async function refresh(): Promise<Secret> {
    try {
      const { token, lifeMs } = await exchange()
      const now = clock.now()
      // Calls that are under way still carry the one before.
      previous?.expire()
      previous = current?.token
      current = {
        token: new Secret(token),
        staleAt: now + Math.max(lifeMs - marginMs, lifeMs / 2),
        expiresAt: now + lifeMs,
      }
      return current.token
    } catch (error) {
      if (current && mayPass(error) && clock.now() < current.expiresAt) return current.token
      throw error
    } finally {
      refreshing = undefined
    }
  }

  return {
    async take(signal) {
      if (current && clock.now() < current.staleAt) return current.token
      return untilAborted((refreshing ??= refresh()), signal)
    },
    refused(token) {
      if (current?.token === token) current = { token, staleAt: 0, expiresAt: 0 }
      return true
    },
  }
}
