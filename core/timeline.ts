import type { NumberedEvent } from './events.ts'
import { isTerminal } from './events.ts'
import type { Json } from './message.ts'
import type { TimedEvent, TurnRow } from './store.ts'
import { isEnded } from './store.ts'

/** How long nothing may come while a bot answers before it counts as a stall. */
const stallMs = 1000
/** How much before its time a timer may fire. */
const earlyMs = 20
/** As many stalls are listed; a turn that has more of them is known well enough. */
const maxStalls = 100
/** Names of an upstream are short; what is longer is something that was said. */
const maxNameLength = 256

/**
 * A stretch of a turn: it is queued, an attempt to answer it is under way, the next one is waited for, or it waits for
 * its user. Without `to` it is not over. Times in ms since the epoch.
 */
export interface Phase {
  readonly phase: 'queued' | 'attempt' | 'backoff' | 'waiting'
  readonly from: number
  readonly to?: number
  /** Of an attempt: its number, from 1; again from 1 after a wait. */
  readonly attempt?: number
  /** Of an attempt that failed: the code. */
  readonly error?: string
}

/** A time in which nothing came while the bot was answering. */
export interface Stall {
  readonly from: number
  readonly to?: number
  /** The number of the last event before it. */
  readonly after: number
}

/** How a turn went; times in ms since the epoch. */
export interface Timeline {
  readonly phases: readonly Phase[]
  /** When the first words of the answer were there to be read. */
  readonly firstDeltaAt?: number
  readonly stalls: readonly Stall[]
}

/**
 * Tells from its events how a turn went, as far as they have times: those of hubs before this kept none, and of a
 * compacted turn most are gone.
 */
export class TimelineReader {
  readonly #turn: TurnRow
  readonly #phases: Phase[] = []
  readonly #stalls: Stall[] = []
  readonly #open = new Set<string>()
  #current: Phase | undefined
  #last: { readonly seq: number; readonly at: number } | undefined
  #firstDeltaAt: number | undefined

  constructor(turn: TurnRow) {
    this.#turn = turn
    const { createdAt, startedAt, status } = turn
    const isQueued = status === 'queued'
    if (isQueued || (startedAt !== undefined && startedAt > createdAt)) this.#begin('queued', createdAt)
    if (!isQueued) this.#begin('attempt', startedAt ?? createdAt, { attempt: 1 })
  }

  /** Takes the next event. */
  add({ event, at }: TimedEvent): void {
    if (at === undefined || event.type === 'turn.started') return
    this.#hurry(event, at)
    const phase = this.#current
    this.#notice(event, at)
    // Nothing is late where nothing is expected, and how long an attempt takes to say its first is told by its beginning.
    this.#last = phase?.phase === 'attempt' && this.#current === phase ? { seq: event.seq, at } : undefined
  }

  /** An attempt may begin a little before its time, as timers do; only an end comes instead of it. */
  #hurry(event: NumberedEvent, at: number): void {
    const { from = at } = this.#current ?? {}
    if (from <= at || (isTerminal(event) && from - at > earlyMs)) return
    const pause = this.#phases.pop()
    if (pause) this.#phases.push({ ...pause, to: at })
    this.#current = { ...this.#current!, from: at }
  }

  #notice(event: NumberedEvent, at: number): void {
    this.#answer(event)
    if (this.#current?.phase === 'waiting' && this.#open.size === 0) this.#begin('attempt', at, { attempt: 1 })
    if (this.#last && at - this.#last.at > stallMs) this.#stall({ from: this.#last.at, to: at, after: this.#last.seq })
    if (event.type === 'message.delta' || event.type === 'message.completed') this.#firstDeltaAt ??= at
    if (event.type === 'attempt.failed') {
      this.#end(at, { error: event.error.code })
      this.#begin('backoff', at)
      this.#begin('attempt', at + event.retryInMs, { attempt: event.attempt + 1 })
    }
    if (event.type === 'turn.waiting') this.#begin('waiting', at)
    if (isTerminal(event)) this.#end(at, 'error' in event ? { error: event.error.code } : {})
  }

  /** Keeps which calls a waiting turn still waits for. */
  #answer(event: NumberedEvent): void {
    if (event.type === 'consent.requested' || event.type === 'tool.outputs_requested') {
      for (const { call } of event.calls) this.#open.add(call)
    }
    if (event.type === 'consent.answered') for (const { call } of event.decisions) this.#open.delete(call)
    if (event.type === 'tool.completed') this.#open.delete(event.call)
  }

  #stall(stall: Stall): void {
    if (this.#stalls.length < maxStalls) this.#stalls.push(stall)
  }

  #begin(phase: Phase['phase'], from: number, more: Pick<Phase, 'attempt'> = {}): void {
    this.#end(from)
    this.#current = { phase, from, ...more }
  }

  #end(to: number, more: Pick<Phase, 'error'> = {}): void {
    const current = this.#current
    this.#current = undefined
    if (!current) return
    // What would have begun later never did.
    const last = current.from <= to ? current : this.#phases.pop()
    if (last) this.#phases.push({ ...last, to, ...more })
  }

  /** What came of it so far; `now` in ms since the epoch. */
  read(now: number): Timeline {
    const { status, endedAt } = this.#turn
    if (this.#current && isEnded(status)) this.#end(endedAt ?? now)
    const current = this.#openPhases(now)
    const isLate = current.length > 0 && this.#last && now - this.#last.at > stallMs
    return {
      phases: [...this.#phases, ...current],
      ...(this.#firstDeltaAt === undefined ? {} : { firstDeltaAt: this.#firstDeltaAt }),
      stalls: isLate ? [...this.#stalls, { from: this.#last!.at, after: this.#last!.seq }] : this.#stalls,
    }
  }

  /** An attempt that is still to come is a pause for now. */
  #openPhases(now: number): readonly Phase[] {
    const current = this.#current
    if (!current || current.from <= now) return current ? [current] : []
    const { to: _, ...pause } = this.#phases.pop() ?? current
    return [pause]
  }
}

/** What an upstream calls a turn and its conversation: the names out of what the provider keeps with them. */
export const upstreamNames = ({ thread, cursor }: TurnRow): Readonly<Record<string, string>> => ({
  ...namesIn(thread),
  ...namesIn(cursor),
})

function namesIn(kept: Json | undefined): Record<string, string> {
  if (typeof kept !== 'object' || kept === null || Array.isArray(kept)) return {}
  return Object.fromEntries(
    Object.entries(kept).filter(
      (entry): entry is [string, string] => typeof entry[1] === 'string' && entry[1].length <= maxNameLength,
    ),
  )
}
