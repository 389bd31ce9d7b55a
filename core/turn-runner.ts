import { Attendance } from './attendance.ts'
import type { Bot } from './bot.ts'
import type { Bots } from './bots.ts'
import type { Clock } from './clock.ts'
import { asHubError, HubError } from './errors.ts'
import type { CancelledBy, HubEvent, LoggedEvent, TerminalEvent } from './events.ts'
import { forEach } from './flow.ts'
import type { Logger } from './log.ts'
import type { Metrics } from './metrics.ts'
import { OneAtATime } from './one-at-a-time.ts'
import { isEnded } from './store.ts'
import type { Store, TurnRow, TurnStatus } from './store.ts'
import { Transcript } from './transcript.ts'
import { TurnLog } from './turn-log.ts'
import type { OpenTurn } from './turn-log.ts'
import type { Turn } from './turn.ts'

/** How long a provider may take to stop after its signal aborted, before its turn ends without it. */
const stopWithinMs = 5000
/** How long the upstream of a turn that ended unanswered may take to be let go. */
const releaseWithinMs = 60_000

/** What a runner works with; one runner to a store. */
export interface TurnRunnerOptions {
  readonly bots: Bots
  readonly store: Store
  readonly clock: Clock
  readonly logger: Logger
  readonly metrics: Metrics
  /** Called when something may be owed to somebody. */
  readonly onOwed: () => void
}

/** A turn that is being answered by this process. */
interface Run {
  readonly abort: AbortController
  /** Which try at the answer is under way, from 1. */
  attempt: number
  /** Settles when the turn has ended, waits, or was left to the next start. */
  readonly done: Promise<void>
}

/** The reason of a signal that stops a turn, with who stopped it. */
class TurnCancelled extends HubError {
  readonly by: CancelledBy

  constructor(by: CancelledBy) {
    super('cancelled')
    this.by = by
  }
}

/**
 * Runs the turns of this process: asks the bot, writes what it yields into the log, and ends the turn, or parks it until it
 * is answered. Whoever accepts a message starts it here; the store says which one is next.
 */
export class TurnRunner {
  /** Of all turns, for who reads them. */
  readonly log: TurnLog
  /** Who reads a turn: one that nobody reads for a while is cancelled, unless it need not be read. */
  readonly attendance = new Attendance((turn) => this.#stop(turn, new TurnCancelled('abandoned')))
  readonly #bots: Bots
  readonly #store: Store
  readonly #clock: Clock
  readonly #logger: Logger
  readonly #metrics: Metrics
  readonly #runs = new Map<string, Run>()
  readonly #expiries = new Map<string, NodeJS.Timeout>()
  readonly #turns = new OneAtATime()
  readonly #releases = new Set<Promise<void>>()
  readonly #stopping = new AbortController()
  #draining = false

  constructor({ bots, store, clock, logger, metrics, onOwed }: TurnRunnerOptions) {
    this.#bots = bots
    this.#store = store
    this.#clock = clock
    this.#logger = logger
    this.#metrics = metrics
    this.log = new TurnLog(store, clock, {
      onCommit: (durationMs) => metrics.commit(durationMs),
      onOwed,
      onClaimed: (turns) => turns.forEach((turn) => this.start(turn)),
      onRefused: (turn) => this.#stop(turn, new HubError('internal', { message: 'Another hub took this turn over.' })),
    })
  }

  /** Whether turns are started. */
  get ready(): boolean {
    return !this.#draining
  }

  /** Runs one leg of a turn: from its start, from an answer to it, or from where a crash left it. */
  start(turn: TurnRow): void {
    if (this.#draining) return this.#putBack(turn)
    const abort = new AbortController()
    const done = this.#run(turn, abort)
      .catch((error: unknown) => this.#logger.error({ err: error, turn: turn.id }, 'a turn could not be written'))
      .finally(() => {
        this.#runs.delete(turn.id)
        this.attendance.release(turn.id)
        this.log.close(turn.id)
      })
    this.#runs.set(turn.id, { abort, done, attempt: 1 })
    const graceMs = this.#bots.get(turn.bot)?.abandonAfterMs
    if (!turn.detached && graceMs !== undefined) this.attendance.watch(turn.id, graceMs)
  }

  /** Cancels a turn; nothing happens when it has ended. Resolves when it has. */
  async cancel(turn: TurnRow, by: CancelledBy): Promise<void> {
    this.#stop(turn.id, new TurnCancelled(by))
    await this.#runs.get(turn.id)?.done
    await this.#turns.run(turn.id, async () => {
      const now = await this.#store.turn(turn.id)
      if (!now || isEnded(now.status)) return
      const transcript = await this.transcript(now)
      await this.#end(now, transcript, { type: 'turn.cancelled', text: transcript.text, by })
      if (now.status === 'waiting') this.#release(now, transcript)
    })
  }

  /**
   * Writes answers to calls that a turn waits for, and the events that say so. When every call has its answer the turn goes on.
   * @throws HubError `not_waiting`, `already_decided`, `invalid_request`, `shutting_down`, `store_unavailable`
   */
  async answer(
    { id }: TurnRow,
    kind: 'consent' | 'tool_outputs',
    answers: readonly { readonly call: string }[],
    events: readonly LoggedEvent[],
  ): Promise<void> {
    if (this.#draining) throw new HubError('shutting_down', { retryAfterMs: 5000 })
    await this.#turns.run(id, async () => {
      let turn = (await this.#store.turn(id))!
      // An answer may come between the commit that parks a turn and the end of the run that parked it.
      if (turn.status === 'waiting') await this.#runs.get(id)?.done
      turn = (await this.#store.turn(id))!
      const transcript = await this.transcript(turn)
      const known = answers.some((answer) => transcript.isAnswered(answer.call))
      const pending = turn.status === 'waiting' ? transcript.pending : undefined
      if (pending?.for !== kind) throw new HubError(known ? 'already_decided' : 'not_waiting', { turn: id })
      const open = new Set(pending.calls.map((call) => call.call))
      for (const { call } of answers) {
        if (open.delete(call)) continue
        if (transcript.isAnswered(call)) throw new HubError('already_decided', { turn: id })
        throw new HubError('invalid_request', { message: `The turn does not wait for a call "${call}".`, turn: id })
      }
      const goesOn = open.size === 0
      this.log.push(this.log.open(turn), events, goesOn ? { status: 'running', expiresAt: null } : undefined)
      await this.log.commit()
      if (goesOn) {
        this.#stopExpiry(id)
        this.start((await this.#store.turn(id))!)
      } else this.log.close(id)
    })
  }

  /** What a turn has said so far, from the store. */
  async transcript(turn: TurnRow): Promise<Transcript> {
    const transcript = new Transcript({ debug: turn.debug })
    // Event 1 is its start, of which nothing is to be remembered.
    for (let after = 1; after < turn.seq;) {
      const events = await this.#store.read(turn.id, after, 500)
      if (events.length === 0) break
      transcript.replay(events)
      after = events.at(-1)!.seq
    }
    return transcript
  }

  /** Which try at the answer is under way, from 1; undefined where none is. */
  attempt(turn: string): number | undefined {
    return this.#runs.get(turn)?.attempt
  }

  /** Goes on with what an earlier process left. */
  async recover(): Promise<void> {
    const { broken, waiting, claimed } = await this.#store.recover(this.#clock.now())
    for (const turn of waiting) this.#expireLater(turn)
    for (const turn of claimed) this.start(turn)
    for (const turn of broken) {
      const bot = this.#bots.get(turn.bot)
      if (bot?.manifest.resumes && turn.cursor !== undefined) this.start(turn)
      else await this.#endInterrupted(turn)
    }
    const left = broken.length + waiting.length + claimed.length
    if (left > 0)
      this.#logger.info({ broken: broken.length, waiting: waiting.length, queued: claimed.length }, 'turns taken over')
  }

  async #endInterrupted(turn: TurnRow): Promise<void> {
    const transcript = await this.transcript(turn)
    const error = new HubError('interrupted').public(this.#bots.get(turn.bot)?.profile.language)
    await this.#end(turn, transcript, { type: 'turn.interrupted', text: transcript.text, error })
  }

  /**
   * Takes nothing new and waits for the live turns, at most `graceMs`; then those that can go on after a restart are
   * left as they are, the others end as `turn.cancelled`, `by: "shutdown"`.
   */
  async drain(graceMs: number): Promise<void> {
    this.#draining = true
    for (const timer of this.#expiries.values()) clearTimeout(timer)
    const done = this.#settled()
    const timer = setTimeout(() => this.#stopAll(), graceMs)
    await done
    clearTimeout(timer)
    await this.log.commit().catch(() => {})
  }

  /** Resolves at a moment when no turn runs. */
  async idle(): Promise<void> {
    while (this.#runs.size > 0) await Promise.all(Array.from(this.#runs.values(), ({ done }) => done))
  }

  /** Also what was asked of a turn that does not run, and acknowledged before it was done. */
  async #settled(): Promise<void> {
    while (this.#runs.size > 0 || this.#turns.underWay.length > 0 || this.#releases.size > 0) {
      await Promise.all([
        ...Array.from(this.#runs.values(), ({ done }) => done),
        ...this.#turns.underWay,
        ...this.#releases,
      ])
    }
  }

  #stopAll(): void {
    this.#stopping.abort(new HubError('shutting_down'))
    for (const run of this.#runs.values()) run.abort.abort(this.#stopping.signal.reason)
  }

  #stop(turn: string, reason: HubError): void {
    this.#runs.get(turn)?.abort.abort(reason)
  }

  /** What the last commit took from the queue stays for the next start. */
  #putBack(turn: TurnRow): void {
    this.log.push(this.log.open(turn), [], { status: 'queued' })
  }

  async #run(row: TurnRow, abort: AbortController): Promise<void> {
    const bot = this.#bots.get(row.bot)
    if (!bot) return this.#endInterrupted(row)
    const open = this.log.open(row)
    const transcript = await this.transcript(row)
    const deadline = setTimeout(() => abort.abort(new HubError('deadline_exceeded')), this.#timeLeft(row, bot))
    try {
      await this.#pump(bot, toTurn(row, transcript, abort.signal), open, transcript)
      await this.#close(bot, row, transcript)
    } catch (error) {
      await this.#fail(bot, row, transcript, asHubError(error, 'bot_failed'))
    } finally {
      clearTimeout(deadline)
    }
  }

  /** Of a turn's deadline, in ms, whichever processes it ran in. */
  #timeLeft({ ranMs, legAt = this.#clock.now() }: TurnRow, { deadlineMs }: Bot): number {
    return Math.max(0, deadlineMs - ranMs - Math.max(0, this.#clock.now() - legAt))
  }

  /** Moves what the bot yields into the log until it ends, throws, or does not stop in time after an abort. */
  async #pump(bot: Bot, turn: Turn, open: OpenTurn, transcript: Transcript): Promise<void> {
    const { signal } = turn
    let over = false
    const overdue = Promise.withResolvers<never>()
    const stop = () => setTimeout(() => overdue.reject(signal.reason), stopWithinMs).unref()
    signal.addEventListener('abort', stop, { once: true })
    const pump = async () => {
      await forEach(bot.respond(turn), (event, leave) => {
        if (over) return leave()
        signal.throwIfAborted()
        if (this.#write(bot, open, transcript, event)) return this.log.commit()
      })
      signal.throwIfAborted()
    }
    try {
      await Promise.race([pump(), overdue.promise])
    } finally {
      over = true
      signal.removeEventListener('abort', stop)
    }
  }

  /** Gives an event to the log; true where the bot may not go on before that is durable. */
  #write(bot: Bot, turn: OpenTurn, transcript: Transcript, event: HubEvent): boolean {
    if (event.type === 'upstream') {
      const { type: _, soon = false, ...stored } = event
      this.log.push(turn, [], stored)
      // What it does next can be found again after a crash.
      return !soon || this.log.crowded
    }
    if (event.type === 'attempt.failed') this.#retrying(turn.id, event.attempt + 1)
    const events = transcript.add(event)
    if (events.length > 0) this.log.push(turn, this.#dated(bot, events))
    return this.log.crowded
  }

  #retrying(turn: string, attempt: number): void {
    const run = this.#runs.get(turn)
    if (run) run.attempt = attempt
  }

  /** A request says until when it waits. */
  #dated(bot: Bot, events: readonly LoggedEvent[]): readonly LoggedEvent[] {
    if (!events.some(isRequest)) return events
    const expiresAt = new Date(this.#clock.now() + bot.answerWithinMs).toISOString()
    return events.map((event) => (isRequest(event) ? { ...event, expiresAt } : event))
  }

  /** The bot has said all: the turn is complete, or waits for answers to its calls. */
  async #close(bot: Bot, row: TurnRow, transcript: Transcript): Promise<void> {
    const last = transcript.close()
    const pending = transcript.pending
    if (!pending) {
      const { text, usage } = transcript.result
      const end: TerminalEvent = { type: 'turn.completed', text, ...(usage ? { usage } : {}) }
      return this.#end(row, transcript, end, last)
    }
    const expiresAt = this.#clock.now() + bot.answerWithinMs
    const waiting: LoggedEvent = { type: 'turn.waiting', for: pending.for }
    this.log.push(this.log.open(row), [...last, waiting], { status: 'waiting', expiresAt })
    await this.log.commit()
    this.#expireLater({ ...row, expiresAt })
  }

  async #fail(bot: Bot, row: TurnRow, transcript: Transcript, error: HubError): Promise<void> {
    const { text } = transcript
    if (error instanceof TurnCancelled)
      return this.#end(row, transcript, { type: 'turn.cancelled', text, by: error.by })
    if (error.code === 'shutting_down') {
      if (bot.manifest.resumes) return
      return this.#end(row, transcript, { type: 'turn.cancelled', text, by: 'shutdown' })
    }
    this.#logger.warn({ turn: row.id, bot: bot.name, code: error.code, err: error.cause ?? error }, 'turn failed')
    const type = error.failure.ends === 'interrupted' ? 'turn.interrupted' : 'turn.failed'
    await this.#end(row, transcript, { type, text, error: error.public(bot.profile.language) })
  }

  /** Writes the end of a turn: the terminal event, the bot's record and the claim of the next turn are one commit. */
  async #end(
    turn: TurnRow,
    transcript: Transcript,
    end: TerminalEvent,
    before: readonly LoggedEvent[] = [],
  ): Promise<void> {
    const status = end.type.slice('turn.'.length) as TurnStatus
    this.#stopExpiry(turn.id)
    const result = { ...transcript.result, ...('error' in end ? { error: end.error } : {}) }
    this.log.push(this.log.open(turn), [...before, end], { status, expiresAt: null, result })
    await this.log.commit()
    this.#metrics.turnEnded(turn, status, this.#clock.now() - turn.createdAt)
    if (!this.#runs.has(turn.id)) this.log.close(turn.id)
  }

  #expireLater(turn: TurnRow): void {
    if (turn.expiresAt === undefined) return
    const expire = () =>
      this.#turns
        .run(turn.id, async () => {
          const now = await this.#store.turn(turn.id)
          if (now?.status !== 'waiting') return
          const transcript = await this.transcript(now)
          const error = new HubError('consent_expired').public(this.#bots.get(now.bot)?.profile.language)
          await this.#end(now, transcript, { type: 'turn.failed', text: transcript.text, error })
          this.#release(now, transcript)
        })
        .catch((error: unknown) =>
          this.#logger.error({ err: error, turn: turn.id }, 'a waiting turn could not be ended'),
        )
    const timer = setTimeout(() => void expire(), Math.max(0, turn.expiresAt - this.#clock.now()))
    this.#expiries.set(turn.id, timer.unref())
  }

  #stopExpiry(turn: string): void {
    clearTimeout(this.#expiries.get(turn))
    this.#expiries.delete(turn)
  }

  /** Frees the upstream of a turn that ended unanswered, in the background. */
  #release(row: TurnRow, transcript: Transcript): void {
    const provider = this.#bots.get(row.bot)?.provider
    if (!provider?.release) return
    const signal = AbortSignal.any([AbortSignal.timeout(releaseWithinMs), this.#stopping.signal])
    const released = Promise.race([provider.release(toTurn(row, transcript, signal)), rejected(signal)])
      .catch((error: unknown) =>
        this.#logger.warn(
          { err: error, turn: row.id, bot: row.bot },
          'the upstream of an unanswered turn was not released',
        ),
      )
      .finally(() => this.#releases.delete(released))
    this.#releases.add(released)
  }
}

const isRequest = ({ type }: LoggedEvent): boolean => type === 'consent.requested' || type === 'tool.outputs_requested'

/** Rejects with the reason of a signal: for work that may not heed it. */
const rejected = (signal: AbortSignal): Promise<never> =>
  new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason as Error), { once: true }))

function toTurn(row: TurnRow, transcript: Transcript, signal: AbortSignal): Turn {
  const { answers } = transcript
  return {
    id: row.id,
    bot: row.bot,
    principal: {
      key: row.key,
      ...(row.user ? { user: row.user } : {}),
      trusted: false,
      admin: false,
      bypassConsent: row.bypassConsent,
    },
    conversation: row.conversation,
    message: row.message,
    acceptedAt: row.createdAt,
    history: row.message.history ?? [],
    attempt: 1,
    debug: row.debug,
    bypassConsent: row.bypassConsent,
    shown: transcript.shown,
    signal,
    ...(answers ? { answers } : {}),
    ...(row.cursor === undefined ? {} : { resume: row.cursor }),
    ...(row.thread === undefined ? {} : { thread: row.thread }),
  }
}
