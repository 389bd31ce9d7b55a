import type { Clock } from './clock.ts'
import type { FailureCode } from './errors.ts'
import { asHubError, HubError } from './errors.ts'
import type { HubEvent } from './events.ts'
import { inParts } from './flow.ts'
import type { Parts } from './flow.ts'
import type { Middleware, Respond, Turn } from './turn.ts'

/** A circuit opens after this many upstream failures in a row within the window, and lets one try through later. */
const failuresToOpen = 10
const failureWindowMs = 60_000
const openMs = 30_000
/** A pause the upstream asked for is waited out in line up to this; a longer one is the business of `retry`. */
const maxPauseMs = 30_000

const upstreamFailures: ReadonlySet<FailureCode> = new Set([
  'bot_unavailable',
  'upstream_unreachable',
  'upstream_failed',
  'upstream_cut',
  'upstream_silent',
])

/** How much one bot's upstream is asked to bear. */
export interface GateOptions {
  /** How many turns may be at the upstream at once; all by default. */
  readonly maxConcurrent: number | undefined
  /** How many turns may begin in a time; all by default. */
  readonly rate: { readonly turns: number; readonly perMs: number } | undefined
}

/**
 * Stands before one bot's upstream, innermost of all middleware: keeps the number of turns there, their rate, the pause
 * that a 429 asked for (one for all turns, so that they do not wake together), and a circuit.
 */
export class Gate {
  readonly #options: GateOptions
  readonly #clock: Clock
  readonly #line: (() => void)[] = []
  #inside = 0
  #closedUntil = 0
  #nextBegin = 0
  #failures: number[] = []
  #openUntil = 0
  #trying = false

  constructor(options: GateOptions, clock: Clock) {
    this.#options = options
    this.#clock = clock
  }

  /** Why nothing new can be taken while the circuit is open; undefined when it is closed, or a try is due. */
  get outOfOrder(): HubError | undefined {
    const waitMs = this.#openUntil - this.#clock.now()
    if (this.#openUntil === 0 || (waitMs <= 0 && !this.#trying)) return undefined
    return new HubError('bot_unavailable', { notStarted: true, retryAfterMs: Math.max(waitMs, 1000) })
  }

  readonly middleware: Middleware = (turn, next) => inParts(() => this.#pass(turn, next))

  async *#pass(turn: Turn, next: Respond): Parts<HubEvent> {
    await this.#enter(turn.signal)
    try {
      yield next(turn)
      this.#failures = []
      this.#openUntil = 0
    } catch (cause) {
      this.#note(asHubError(cause, 'bot_failed'))
      throw cause
    } finally {
      this.#trying = false
      this.#inside -= 1
      this.#line.shift()?.()
    }
  }

  async #enter(signal: AbortSignal): Promise<void> {
    const { maxConcurrent = Number.POSITIVE_INFINITY, rate } = this.#options
    while (this.#inside >= maxConcurrent) await this.#inLine(signal)
    const { outOfOrder } = this
    if (outOfOrder) throw outOfOrder
    this.#inside += 1
    if (this.#openUntil > 0) this.#trying = true
    try {
      await this.#waitOut(signal)
      if (rate) await this.#begin(rate, signal)
    } catch (error) {
      this.#trying = false
      this.#inside -= 1
      this.#line.shift()?.()
      throw error
    }
  }

  /** First come, first served; a turn that is stopped leaves the line. */
  async #inLine(signal: AbortSignal): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    const leave = () => {
      const place = this.#line.indexOf(resolve)
      if (place >= 0) this.#line.splice(place, 1)
      reject(signal.reason)
    }
    this.#line.push(resolve)
    signal.addEventListener('abort', leave, { once: true })
    if (signal.aborted) leave()
    try {
      await promise
    } finally {
      signal.removeEventListener('abort', leave)
    }
  }

  async #waitOut(signal: AbortSignal): Promise<void> {
    const pause = this.#closedUntil - this.#clock.now()
    if (pause <= 0) return
    if (pause > maxPauseMs) {
      throw new HubError('upstream_rate_limited', { notStarted: true, retryAfterMs: pause })
    }
    await this.#clock.sleep(pause + Math.random() * Math.min(1000, pause), signal)
  }

  async #begin({ turns, perMs }: NonNullable<GateOptions['rate']>, signal: AbortSignal): Promise<void> {
    const now = this.#clock.now()
    const at = Math.max(now, this.#nextBegin)
    this.#nextBegin = at + perMs / turns
    if (at > now) await this.#clock.sleep(at - now, signal)
  }

  #note(error: HubError): void {
    const now = this.#clock.now()
    if (error.code === 'upstream_rate_limited' && error.retryAfterMs !== undefined) {
      this.#closedUntil = Math.max(this.#closedUntil, now + error.retryAfterMs)
    }
    if (!upstreamFailures.has(error.code)) return
    this.#failures = [...this.#failures.filter((at) => now - at < failureWindowMs), now]
    if (this.#openUntil > 0 || this.#failures.length >= failuresToOpen) this.#openUntil = now + openMs
  }
}
