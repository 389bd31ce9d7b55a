import { refusalOf, toAcceptInput } from './acceptance.ts'
import type { Inbound } from './acceptance.ts'
import type { Audit } from './audit.ts'
import type {
  AcceptInput,
  AcceptResult,
  AuditEntry,
  ConversationRow,
  HookLane,
  Store,
  TurnRow,
  TurnStatus,
} from './store.ts'
import type { Principal } from './auth.ts'
import { mayUse, speakingFor } from './auth.ts'
import type { Bot } from './bot.ts'
import type { Bots } from './bots.ts'
import type { Clock } from './clock.ts'
import { HubError } from './errors.ts'
import { faultPoint } from './fault-points.ts'
import { inParts } from './flow.ts'
import type { Parts } from './flow.ts'
import type { CancelledBy, ConsentDecision, NumberedEvent, ToolOutput } from './events.ts'
import { digest, newId } from './ids.ts'
import type { Logger } from './log.ts'
import type { JsonObject } from './message.ts'
import type { Metrics } from './metrics.ts'
import { isEnded } from './store.ts'
import type { TurnRunner } from './turn-runner.ts'
import type { TurnObject } from './wire.ts'
import { toTurnObject } from './wire.ts'

/** What a dispatcher works with; one to a store. */
export interface DispatcherOptions {
  readonly bots: Bots
  readonly store: Store
  readonly clock: Clock
  readonly logger: Logger
  readonly audit: Audit
  readonly metrics: Metrics
  /** Called when something may be owed to somebody. */
  readonly onOwed: () => void
  /** Whom the end of every turn is owed. */
  readonly hooks: readonly HookLane[]
  readonly runner: TurnRunner
}

/**
 * The one way into the hub, which channels call: makes a message durable, has its turn run, lets who may follow it, answer it
 * or cancel it, and decides what a principal may see.
 */
export class Dispatcher {
  readonly #bots: Bots
  readonly #store: Store
  readonly #clock: Clock
  readonly #logger: Logger
  readonly #audit: Audit
  readonly #metrics: Metrics
  readonly #onOwed: () => void
  readonly #hooks: readonly HookLane[]
  readonly #runner: TurnRunner

  constructor({ bots, store, clock, logger, audit, metrics, onOwed, hooks, runner }: DispatcherOptions) {
    this.#bots = bots
    this.#store = store
    this.#clock = clock
    this.#logger = logger
    this.#audit = audit
    this.#metrics = metrics
    this.#onOwed = onOwed
    this.#hooks = hooks
    this.#runner = runner
  }

  /** Whether new messages are taken. */
  get ready(): boolean {
    return this.#runner.ready
  }

  /**
   * Accepts a message: it is durable when this resolves, and its turn runs or is queued. The same message again gives
   * the same turn, with `created: false`.
   * @throws HubError `unknown_bot`, `unknown_conversation`, `unknown_file`, `invalid_request`, `idempotency_mismatch`,
   * `turn_waiting`, `turn_running`, `queue_full`, `bypass_forbidden`, `bot_unavailable`, `shutting_down`, `store_unavailable`
   */
  async send(caller: Principal, inbound: Inbound): Promise<{ readonly turn: TurnRow; readonly created: boolean }> {
    if (!this.ready) throw new HubError('shutting_down', { retryAfterMs: 5000 })
    const principal = speakingFor(caller, inbound.user)
    const bot = this.#bots.find(principal, inbound.bot)
    if (inbound.bypassConsent && !principal.bypassConsent) throw new HubError('bypass_forbidden')
    if (inbound.nudge && !bot.manifest.nudges) {
      throw new HubError('invalid_request', { message: 'This bot cannot be nudged. Send it a message.' })
    }
    // A bot that is out of order takes nothing new; what it has answered before is still there to be had.
    const outOfOrder = inbound.acceptAnyway ? undefined : bot.gate.outOfOrder
    const input = await toAcceptInput(bot, principal, inbound, {
      store: this.#store,
      clock: this.#clock,
      hooks: this.#hooks,
    })
    const result = await this.#accept(bot, { ...input, ...(outOfOrder ? { knownOnly: true } : {}) }, inbound)
    if (inbound.owed) this.#onOwed()
    switch (result.outcome) {
      case 'created':
        this.conversationChanged(result.turn.conversation.id)
        if (result.turn.bypassConsent) this.#audited('consent bypassed', result.turn, principal)
        if (result.turn.status === 'running') this.#runner.start(result.turn)
        else if (isEnded(result.turn.status)) this.#endedAtOnce(result.turn)
        else if (bot.whenBusy === 'interrupt') this.#inBackground(this.#interrupt(result.turn), result.turn)
        return { turn: result.turn, created: true }
      case 'duplicate':
        if (inbound.detached || inbound.owed) this.#runner.attendance.release(result.turn.id)
        return { turn: result.turn, created: false }
      case 'replayed':
        throw new HubError('unknown_turn', { turn: result.forgotten })
      case 'mismatch':
        throw new HubError('idempotency_mismatch', { turn: result.turn.id })
      case 'waiting':
        throw new HubError('turn_waiting', { turn: result.turn.id })
      case 'queue_full':
        if (bot.whenBusy === 'reject') throw new HubError('turn_running')
        throw new HubError('queue_full', { retryAfterMs: 1000 })
      case 'unknown_conversation':
        throw new HubError('unknown_conversation')
      case 'unknown_message':
      case 'not_handed_over':
        throw outOfOrder ?? new HubError('bot_unavailable')
    }
  }

  /**
   * Says something to the user of a conversation that an operator has, as a turn of its own.
   * @throws HubError `not_handed_over`, `unknown_conversation`, `idempotency_mismatch`, `shutting_down`,
   * `store_unavailable`
   */
  async speak(
    { id: conversation, key, bot, user }: ConversationRow & { readonly bot: string },
    { text, id, channel }: { readonly text: string; readonly id?: string | undefined; readonly channel: string },
  ): Promise<{ readonly turn: TurnRow; readonly created: boolean }> {
    if (!this.ready) throw new HubError('shutting_down', { retryAfterMs: 5000 })
    const result = await this.#store.accept({
      bot,
      key,
      ...(user === undefined ? {} : { user }),
      turn: newId('turn'),
      conversation: { id: conversation },
      newConversation: newId('conv'),
      message: { id: id ?? newId('msg'), text, files: [], by: 'operator' },
      fingerprint: digest(text, 'operator'),
      channel,
      debug: false,
      bypassConsent: false,
      detached: true,
      at: this.#clock.now(),
      queueLimit: 0,
      owedTo: this.#hooks,
    })
    switch (result.outcome) {
      case 'created':
        this.conversationChanged(conversation)
        this.#endedAtOnce(result.turn)
        return { turn: result.turn, created: true }
      case 'duplicate':
        return { turn: result.turn, created: false }
      case 'mismatch':
        throw new HubError('idempotency_mismatch', { turn: result.turn.id })
      case 'not_handed_over':
        throw new HubError('not_handed_over')
      default:
        throw new HubError('unknown_conversation')
    }
  }

  /** A turn that ended in the commit that took it: something may be owed by now. */
  #endedAtOnce(turn: TurnRow): void {
    this.#metrics.turnEnded(turn, turn.status, 0)
    this.#onOwed()
  }

  /** The turns of a conversation in which an operator speaks, from the one behind `after` on, until the signal aborts. */
  async *operatorTurns(conversation: string, after: string, signal: AbortSignal): AsyncGenerator<TurnRow> {
    const news = this.#runner.log.watch(conversation, signal)
    let last = after
    while (!signal.aborted) {
      news.reset()
      const next = await this.#store.nextTurn(conversation, last)
      if (!next) await news.changed()
      else {
        last = next.id
        if (next.message.by) yield next
      }
    }
  }

  /** Accepts a message; one that is refused is tried again where the bot or the channel wants it. */
  async #accept(bot: Bot, input: AcceptInput, { acceptAnyway }: Inbound): Promise<AcceptResult> {
    faultPoint('accept.before-commit')
    let result = await this.#store.accept(input)
    faultPoint('accept.after-commit')
    if (result.outcome === 'waiting' && bot.whenWaiting === 'deny') {
      await this.#deny(result.turn)
      result = await this.#store.accept(input)
    }
    const refused = result.outcome === 'waiting' || result.outcome === 'queue_full'
    return refused && acceptAnyway ? this.#store.accept({ ...input, refusal: refusalOf(bot) }) : result
  }

  /** A new message answers for the user: no. The turn goes on without the calls, and the message after it. */
  async #deny(turn: TurnRow): Promise<void> {
    const { pending } = await this.#runner.transcript(turn)
    if (pending?.for !== 'consent') return this.cancel(turn, 'superseded')
    const decisions = pending.calls.map(({ call }) => ({ call, result: 'deny_once' }) as const)
    try {
      await this.#runner.answer(turn, 'consent', decisions, [{ type: 'consent.answered', decisions, by: 'policy' }])
    } catch (error) {
      // Somebody else answered first; that counts.
      if (!(error instanceof HubError && /^(already_decided|not_waiting)$/.test(error.code))) throw error
    }
  }

  /** A new message ends what its conversation was busy with, the queued ones first so that none of them starts. */
  async #interrupt(turn: TurnRow): Promise<void> {
    const others = (await this.#store.liveTurns(turn.conversation.id)).filter((other) => other.id !== turn.id)
    for (const other of others.toReversed()) {
      if (other.createdAt <= turn.createdAt) await this.cancel(other, 'superseded')
    }
  }

  /** For what no caller waits for: its failure is written down and nothing else. */
  #inBackground(work: Promise<void>, turn: TurnRow): void {
    work.catch((error: unknown) => this.#logger.error({ err: error, turn: turn.id }, 'a turn could not be cancelled'))
  }

  /** @throws HubError `unknown_turn`, also for somebody else's */
  async turn(principal: Principal, id: string): Promise<TurnRow> {
    const turn = await this.#store.turn(id)
    if (!turn || turn.key !== principal.key || !mayUse(principal, turn.bot)) throw new HubError('unknown_turn')
    this.#runner.attendance.touch(id)
    return turn
  }

  /** The turn as clients see it, now. */
  async view(id: string): Promise<TurnObject> {
    const turn = await this.#store.turn(id)
    if (!turn) throw new HubError('unknown_turn')
    const result = isEnded(turn.status) ? await this.#store.result(id) : undefined
    return toTurnObject(turn, result ?? (await this.#runner.transcript(turn)))
  }

  /** The events of a turn in groups, as they are committed: see `TurnLog.follow`. Whoever follows is listening. */
  follow(turn: string, after: number, signal: AbortSignal): AsyncIterable<readonly NumberedEvent[]> {
    return inParts(() => this.#attended(turn, after, signal))
  }

  async *#attended(turn: string, after: number, signal: AbortSignal): Parts<readonly NumberedEvent[]> {
    this.#runner.attendance.arrive(turn)
    try {
      yield this.#runner.log.follow(turn, after, signal)
    } finally {
      this.#runner.attendance.leave(turn)
    }
  }

  /**
   * The events of every turn of a conversation, one turn after the other: from the place of the cursor, or from the
   * turns that are live now. Ends when the conversation is deleted or the signal aborts.
   */
  async *followConversation(
    conversation: string,
    cursor: { readonly turn: string; readonly seq: number } | undefined,
    signal: AbortSignal,
  ): AsyncGenerator<{ readonly turn: string; readonly events: readonly NumberedEvent[] }> {
    const news = this.#runner.log.watch(conversation, signal)
    const [live] = cursor ? [] : await this.#store.liveTurns(conversation)
    let last = cursor?.turn ?? live?.id ?? (await this.#store.nextTurn(conversation))?.id
    if (cursor || live) yield* this.#labelled(last!, cursor?.seq ?? 0, signal)
    while (!signal.aborted) {
      news.reset()
      const next = await this.#store.nextTurn(conversation, last)
      // The last turn can be gone only with its conversation, or because it is older than anything is kept.
      if (next && next.id !== last) {
        last = next.id
        yield* this.#labelled(next.id, 0, signal)
      } else if (last !== undefined && !(await this.#store.turn(last))) return
      else await news.changed()
    }
  }

  async *#labelled(turn: string, after: number, signal: AbortSignal) {
    for await (const events of this.follow(turn, after, signal)) yield { turn, events }
  }

  /** Tells those who follow a conversation that it has a new turn, or is gone. */
  conversationChanged(conversation: string): void {
    this.#runner.log.announce(conversation)
  }

  /** Resolves when the status is no longer `status`, or the signal aborts. */
  async changed(turn: string, status: TurnStatus, signal: AbortSignal): Promise<void> {
    const now = await this.#store.turn(turn)
    if (now?.status !== status) return
    for await (const _ of this.follow(turn, now.seq, signal)) {
      if ((await this.#store.turn(turn))?.status !== status) return
    }
  }

  /** Cancels a turn; nothing happens when it has ended. Resolves when it has. */
  cancel(turn: TurnRow, by: CancelledBy): Promise<void> {
    return this.#runner.cancel(turn, by)
  }

  /**
   * Answers calls that wait for consent. When every call has its decision the turn goes on.
   * @throws HubError `not_waiting`, `already_decided`, `invalid_request`
   */
  async decide(turn: TurnRow, principal: Principal, decisions: readonly ConsentDecision[]): Promise<void> {
    await this.#runner.answer(turn, 'consent', decisions, [{ type: 'consent.answered', decisions, by: 'user' }])
    this.#audited('consent decided', turn, principal, { decisions: decisions.map((decision) => ({ ...decision })) })
  }

  /**
   * Gives the outputs of calls that wait for them. When every call has its output the turn goes on.
   * @throws HubError `not_waiting`, `already_decided`, `invalid_request`
   */
  async giveOutputs(turn: TurnRow, outputs: readonly ToolOutput[]): Promise<void> {
    const events = outputs.map(
      ({ call, output }) => ({ type: 'tool.completed', call, output, isError: false }) as const,
    )
    await this.#runner.answer(turn, 'tool_outputs', outputs, events)
  }

  #audited(what: AuditEntry['what'], turn: TurnRow, principal: Principal, details?: JsonObject): void {
    this.#audit.record({ what, by: principal.key, bot: turn.bot, turn: turn.id, ...(details ? { details } : {}) })
  }
}
