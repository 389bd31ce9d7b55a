import { numbered } from './deltas.ts'
import type { HubError } from './errors.ts'
import { asHubError } from './errors.ts'
import type { LoggedEvent, NumberedEvent } from './events.ts'
import { isTerminal } from './events.ts'
import { faultPoint } from './fault-points.ts'
import { Flow, inParts } from './flow.ts'
import type { Parts } from './flow.ts'
import type { Clock } from './clock.ts'
import { Pulse } from './pulse.ts'
import type { Append, Store, TurnRow } from './store.ts'
import { isEnded } from './store.ts'

/**
 * How long it is from one commit to the next, in terms of what one takes here: the process waits for the disk a third of
 * its time at most.
 */
const commitEvery = 3
const longestGatherMs = 10
/** How much a writer may be ahead of the store, in events, before it has to wait. */
const maxPending = 4096
/** A reader that lags holds one page and no more. */
const pageLength = 128
const none: readonly never[] = []

/** What a step changes beside adding events. */
export type Change = Omit<Append, 'turn' | 'events' | 'epoch' | 'at'>

/** A turn that is being written. */
export interface OpenTurn {
  readonly id: string
  readonly epoch: number
  readonly watchers: Set<Watcher>
  /** Nobody writes it any more. */
  isClosed: boolean
  /** Number of the last event given to the log, and of the last that is committed. */
  seq: number
  committed: number
  /** What the log's last commit has of it, which is all that readers find here: what stays longer is garbage grown old. */
  fresh: readonly NumberedEvent[]
  /** What was added last, and to which batch, until that is committed. */
  last: { readonly step: Step; readonly batch: Batch } | undefined
}

interface Step extends Append {
  readonly events: NumberedEvent[]
  at: number
}

interface Batch {
  readonly steps: Step[]
  /** Whose they are, in the same order. */
  readonly turns: OpenTurn[]
  readonly done: PromiseWithResolvers<void>
}

/** What a log tells its owner after a commit. */
export interface TurnLogOptions {
  /** Turns that left the queue in a commit: they are `running` and nobody runs them yet. */
  readonly onClaimed: (turns: readonly TurnRow[]) => void
  /** Something is owed to a channel since the last commit. */
  readonly onOwed: () => void
  /** A commit took this long, in ms. */
  readonly onCommit: (durationMs: number) => void
  /** A turn that another writer has taken over or ended: its writer here has to stop. */
  readonly onRefused: (turn: string) => void
}

/**
 * Numbers events, commits them in groups, and lets any number of readers follow. An event is read by nobody before it
 * is committed.
 */
export class TurnLog {
  readonly #store: Store
  readonly #clock: Clock
  readonly #options: TurnLogOptions
  readonly #open = new Map<string, OpenTurn>()
  readonly #watchers = new Map<string, Set<Watcher>>()
  #batch: Batch | undefined
  #pending = 0
  /** What a commit takes, as of late, in ms. */
  #commitMs = 0
  #committing: Promise<void> = Promise.resolve()
  /** Turns of the last commit. */
  #published: readonly OpenTurn[] = none
  readonly #pulse = new Pulse(() => Math.min(longestGatherMs, commitEvery * this.#commitMs))

  constructor(store: Store, clock: Clock, options: TurnLogOptions) {
    this.#store = store
    this.#clock = clock
    this.#options = options
  }

  /** Takes a turn up for writing, unless it is open; its numbers go on after `seq`. */
  open({ id, epoch, seq }: TurnRow): OpenTurn {
    const known = this.#open.get(id)
    if (known) return known
    const watchers = this.#watchersOf(id)
    const turn: OpenTurn = { id, epoch, watchers, isClosed: false, seq, committed: seq, fresh: none, last: undefined }
    this.#open.set(id, turn)
    return turn
  }

  /** Ends the writing; readers go on from the store. */
  close(turn: string): void {
    const open = this.#open.get(turn)
    if (open) open.isClosed = true
    this.#open.delete(turn)
    this.#wake(turn)
    this.#forgetWatchers(turn)
  }

  /** Adds a step to the next commit: events, which are numbered here, and what else changes. */
  push(turn: OpenTurn, events: readonly LoggedEvent[], change?: Change): void {
    if (turn.isClosed) throw new Error(`turn ${turn.id} is not open for writing`)
    const batch = (this.#batch ??= this.#schedule())
    if (turn.last?.batch !== batch) {
      turn.last = { step: { turn: turn.id, epoch: turn.epoch, events: [], at: 0 }, batch }
      batch.steps.push(turn.last.step)
      batch.turns.push(turn)
    }
    const { step } = turn.last
    for (const event of events) step.events.push(numbered(++turn.seq, event))
    if (change) Object.assign(step, change)
    step.at = this.#clock.now()
    this.#pending += events.length
  }

  /**
   * Resolves when everything pushed so far is durable.
   * @throws HubError `store_unavailable`
   */
  commit(): Promise<void> {
    return this.#batch?.done.promise ?? this.#committing
  }

  /** Whether a writer should wait for `commit` before it takes more from its upstream. */
  get crowded(): boolean {
    return this.#pending > maxPending
  }

  /**
   * The events of a turn after `after`, in groups as they were committed, until it ends or the signal aborts.
   * Goes on past `turn.waiting`.
   * @throws HubError `store_unavailable`, so that no reader takes a lost end for a long silence
   */
  follow(turn: string, after: number, signal: AbortSignal): Flow<readonly NumberedEvent[]> {
    return inParts(() => this.#follow(turn, after, signal))
  }

  async *#follow(turn: string, after: number, signal: AbortSignal): Parts<readonly NumberedEvent[]> {
    const watcher = new Watcher()
    this.#watch(turn, watcher)
    signal.addEventListener('abort', watcher.notify)
    try {
      let cursor = after
      while (!signal.aborted) {
        watcher.reset()
        const open = this.#open.get(turn)
        if (open) {
          const live = new Live(open, watcher, cursor, signal)
          yield live
          cursor = live.cursor
          if (live.hasEnded || signal.aborted) return
        }
        // Its reader lags behind the last commit, or it is not written here.
        const events = await this.#store.read(turn, cursor, pageLength)
        const last = events.at(-1)
        if (last) {
          yield [events]
          cursor = last.seq
          if (isTerminal(last)) return
        } else if (!this.#open.has(turn) && (await this.#hasEnded(turn))) return
        else await watcher.changed()
      }
    } finally {
      signal.removeEventListener('abort', watcher.notify)
      this.#unwatch(turn, watcher)
    }
  }

  async #hasEnded(turn: string): Promise<boolean> {
    const row = await this.#store.turn(turn)
    return !row || isEnded(row.status)
  }

  /** Waits for what is announced under a name, until the signal aborts. */
  watch(name: string, signal: AbortSignal): { reset(): void; changed(): Promise<void> } {
    const watcher = new Watcher()
    this.#watch(name, watcher)
    const stop = () => {
      this.#unwatch(name, watcher)
      watcher.notify()
    }
    if (signal.aborted) stop()
    else signal.addEventListener('abort', stop, { once: true })
    return watcher
  }

  /** Tells the watchers of a name that something is new. */
  announce(name: string): void {
    this.#wake(name)
  }

  #schedule(): Batch {
    const batch: Batch = { steps: [], turns: [], done: Promise.withResolvers() }
    // A batch nobody waits for must not bring the process down; its failure reaches the next commit() of its writers.
    batch.done.promise.catch(() => {})
    this.#pulse.next(() => void this.#flush(batch))
    return batch
  }

  async #flush(batch: Batch): Promise<void> {
    if (this.#batch === batch) this.#batch = undefined
    const { steps, turns } = batch
    const before = this.#committing
    this.#committing = batch.done.promise
    await before.catch(() => {})
    try {
      const ends = steps.some(({ status }) => status && isEnded(status))
      faultPoint(ends ? 'end.before-commit' : 'append.before-commit')
      const from = performance.now()
      const { refused, claimed, deliveries } = await this.#store.append(steps)
      const tookMs = performance.now() - from
      this.#commitMs += (tookMs - this.#commitMs) / 8
      this.#options.onCommit(tookMs)
      faultPoint(ends ? 'end.after-commit' : 'append.after-commit')
      for (const turn of this.#published) turn.fresh = none
      this.#published = turns
      steps.forEach((step, index) => {
        if (refused.includes(step.turn)) this.#options.onRefused(step.turn)
        else this.#publish(step, turns[index]!)
      })
      batch.done.resolve()
      this.#options.onClaimed(claimed)
      if (deliveries > 0) this.#options.onOwed()
    } catch (error) {
      const failure = asHubError(error, 'store_unavailable')
      for (const step of steps) for (const watcher of this.#watchers.get(step.turn) ?? []) watcher.fail(failure)
      batch.done.reject(failure)
    } finally {
      for (const step of steps) this.#pending -= step.events.length
    }
  }

  #publish(step: Step, turn: OpenTurn): void {
    if (turn.last?.step === step) turn.last = undefined
    turn.committed = step.events.at(-1)?.seq ?? turn.committed
    turn.fresh = step.events
    if (turn.isClosed) this.#wake(step.turn)
    else for (const watcher of turn.watchers) watcher.notify()
  }

  #watch(turn: string, watcher: Watcher): void {
    this.#watchersOf(turn).add(watcher)
  }

  #unwatch(turn: string, watcher: Watcher): void {
    this.#watchers.get(turn)?.delete(watcher)
    this.#forgetWatchers(turn)
  }

  #watchersOf(turn: string): Set<Watcher> {
    const known = this.#watchers.get(turn)
    if (known) return known
    const watchers = new Set<Watcher>()
    this.#watchers.set(turn, watchers)
    return watchers
  }

  /** An open turn keeps the place of those who are to come. */
  #forgetWatchers(turn: string): void {
    if (this.#watchers.get(turn)?.size === 0 && !this.#open.has(turn)) this.#watchers.delete(turn)
  }

  #wake(turn: string): void {
    for (const watcher of this.#watchers.get(turn) ?? []) watcher.notify()
  }
}

/** Remembers that something changed between looking and waiting. */
class Watcher {
  #changed = false
  #failure: HubError | undefined
  #wake: (() => void) | undefined

  get hasFailed(): boolean {
    return this.#failure !== undefined
  }

  /** From here on counts what is new. */
  reset(): void {
    this.#changed = false
    if (this.#failure) throw this.#failure
  }

  readonly notify = (): void => {
    this.#changed = true
    const wake = this.#wake
    this.#wake = undefined
    wake?.()
  }

  fail(error: HubError): void {
    this.#failure = error
    this.notify()
  }

  /** Calls back at the next notice, or soon if there was one since `reset`, which throws when that was a failure. */
  whenChanged(wake: () => void): void {
    if (this.#changed) queueMicrotask(wake)
    else this.#wake = wake
  }

  changed(): Promise<void> {
    return new Promise((resolve) => this.whenChanged(resolve))
  }
}

/** What is committed of an open turn behind a place, for as long as the store need not be asked. */
class Live extends Flow<readonly NumberedEvent[]> {
  readonly #turn: OpenTurn
  readonly #watcher: Watcher
  readonly #signal: AbortSignal
  /** Number of the last event that was taken. */
  cursor: number
  hasEnded = false

  constructor(turn: OpenTurn, watcher: Watcher, cursor: number, signal: AbortSignal) {
    super()
    this.#turn = turn
    this.#watcher = watcher
    this.cursor = cursor
    this.#signal = signal
  }

  override get hasItems(): boolean {
    return this.#isLive && !this.#watcher.hasFailed && this.#turn.committed > this.cursor
  }

  take(): readonly (readonly NumberedEvent[])[] | undefined {
    this.#watcher.reset()
    if (!this.#isLive) return undefined
    const { fresh, committed } = this.#turn
    const count = committed - this.cursor
    if (count <= 0) return none
    const events = count < fresh.length ? fresh.slice(-count) : fresh
    const last = events.at(-1)!
    this.cursor = last.seq
    this.hasEnded = isTerminal(last)
    return [events]
  }

  whenReady(wake: () => void): void {
    this.#watcher.whenChanged(wake)
  }

  async close(): Promise<void> {}

  /** Whether there is more to come here: the store need not be asked, and it is not over. */
  get #isLive(): boolean {
    const { committed, fresh, isClosed } = this.#turn
    return this.cursor >= committed - fresh.length && !isClosed && !this.hasEnded && !this.#signal.aborted
  }
}
