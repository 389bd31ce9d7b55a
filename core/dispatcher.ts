import { closest } from 'fastest-levenshtein'
import type { Audit, AuditEntry } from './audit.ts'
import type { Principal } from './auth.ts'
import { mayUse, speakingFor } from './auth.ts'
import type { Bot, BotItem } from './bot.ts'
import { toBotItem } from './bot.ts'
import type { Clock } from './clock.ts'
import { asHubError, HubError } from './errors.ts'
import type { CancelledBy, ConsentDecision, LoggedEvent, NumberedEvent, TerminalEvent, ToolOutput } from './events.ts'
import { digest, newId } from './ids.ts'
import type { Logger } from './log.ts'
import type { ConversationRef, FileRef, JsonObject, Message } from './message.ts'
import type { Metrics } from './metrics.ts'
import type { Thread, Upload } from './plugin.ts'
import type {
  AcceptInput,
  ConversationItem,
  Owner,
  Page,
  PageOptions,
  RecordItem,
  Store,
  TurnRow,
  TurnStatus,
} from './store.ts'
import { isEnded } from './store.ts'
import { Transcript } from './transcript.ts'
import { TurnLog } from './turn-log.ts'
import type { Turn } from './turn.ts'
import type { TurnObject } from './wire.ts'
import { toTurnObject } from './wire.ts'

/** How long a provider may take to stop after its signal aborted, before its turn ends without it. */
const stopWithinMs = 5000

/** A message as a channel read it. */
export interface Inbound {
  readonly bot: string
  readonly text: string
  /** Name in the config of the channel it came by. */
  readonly channel: string
  /** A name or a `conv_…` id; without one a new conversation is opened. */
  readonly conversation?: string | undefined
  readonly id?: string | undefined
  /** For whom a trusted key speaks. */
  readonly user?: string | undefined
  readonly files?: readonly string[] | undefined
  readonly payload?: JsonObject | undefined
  readonly debug?: boolean | undefined
  readonly bypassConsent?: boolean | undefined
  /** The channel is owed the turn's end, and delivers it from the outbox. */
  readonly owed?: boolean
  /** A message that cannot run now is taken all the same, and its turn fails at once. */
  readonly acceptAnyway?: boolean
}

export interface DispatcherOptions {
  readonly bots: ReadonlyMap<string, Bot>
  readonly store: Store
  readonly clock: Clock
  readonly logger: Logger
  readonly audit: Audit
  readonly metrics: Metrics
  /** Called when something is owed to a channel. */
  readonly onOwed: () => void
}

/** A turn that is being answered by this process. */
interface Run {
  readonly abort: AbortController
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
 * The one way through the hub: makes a message durable, lets one turn of a conversation run at a time, writes what its
 * bot yields into the log, and decides what a principal may see. Channels call it; it calls nobody but bots and store.
 */
export class Dispatcher {
  readonly #bots: ReadonlyMap<string, Bot>
  readonly #store: Store
  readonly #clock: Clock
  readonly #logger: Logger
  readonly #audit: Audit
  readonly #metrics: Metrics
  readonly #onOwed: () => void
  readonly #log: TurnLog
  readonly #runs = new Map<string, Run>()
  readonly #expiries = new Map<string, NodeJS.Timeout>()
  readonly #locks = new Map<string, Promise<unknown>>()
  #draining = false

  constructor({ bots, store, clock, logger, audit, metrics, onOwed }: DispatcherOptions) {
    this.#bots = bots
    this.#store = store
    this.#clock = clock
    this.#logger = logger
    this.#audit = audit
    this.#metrics = metrics
    this.#onOwed = onOwed
    this.#log = new TurnLog(store, clock, {
      onCommit: (durationMs) => metrics.commit(durationMs),
      onOwed,
      onClaimed: (turns) => turns.forEach((turn) => this.#start(turn)),
      onRefused: (turn) =>
        this.#runs.get(turn)?.abort.abort(new HubError('internal', { message: 'Another hub took this turn over.' })),
    })
  }

  /** Whether new messages are taken. */
  get ready(): boolean {
    return !this.#draining
  }

  /**
   * Accepts a message: it is durable when this resolves, and its turn runs or is queued. The same message again gives
   * the same turn, with `created: false`.
   * @throws HubError `unknown_bot`, `unknown_conversation`, `unknown_file`, `invalid_request`, `idempotency_mismatch`,
   * `turn_waiting`, `queue_full`, `bypass_forbidden`, `shutting_down`, `store_unavailable`
   */
  async send(caller: Principal, inbound: Inbound): Promise<{ readonly turn: TurnRow; readonly created: boolean }> {
    if (this.#draining) throw new HubError('shutting_down', { retryAfterMs: 5000 })
    const principal = speakingFor(caller, inbound.user)
    const bot = this.#bot(principal, inbound.bot)
    if (inbound.bypassConsent && !principal.bypassConsent) throw new HubError('bypass_forbidden')
    const owner = ownerOf(bot, principal)
    const id = inbound.id || newId('msg')
    const conversation = conversationOf(inbound)
    const message: Message = {
      id,
      text: inbound.text,
      files: await this.#files(owner, inbound),
      ...(inbound.payload ? { payload: inbound.payload } : {}),
    }
    const result = await this.#store.accept({
      ...owner,
      turn: newId('turn'),
      conversation,
      newConversation: newId('conv'),
      message,
      fingerprint: digest(message.text, JSON.stringify(inbound.files ?? []), JSON.stringify(message.payload ?? null)),
      channel: inbound.channel,
      debug: bot.raw || (principal.trusted && (inbound.debug ?? false)),
      bypassConsent: inbound.bypassConsent ?? false,
      at: this.#clock.now(),
      queueLimit: bot.queueLimit,
      ...(inbound.owed ? { owedTo: inbound.channel } : {}),
      ...(inbound.acceptAnyway ? { refusal: refusalOf(bot) } : {}),
    })
    if (inbound.owed) this.#onOwed()
    switch (result.outcome) {
      case 'created':
        if (result.turn.bypassConsent) this.#audited('consent bypassed', result.turn, principal)
        if (result.turn.status === 'running') this.#start(result.turn)
        return { turn: result.turn, created: true }
      case 'duplicate':
        return { turn: result.turn, created: false }
      case 'mismatch':
        throw new HubError('idempotency_mismatch', { turn: result.turn.id })
      case 'waiting':
        throw new HubError('turn_waiting', { turn: result.turn.id })
      case 'queue_full':
        throw new HubError('queue_full', { retryAfterMs: 1000 })
      case 'unknown_conversation':
        throw new HubError('unknown_conversation')
    }
  }

  /** @throws HubError `unknown_turn`, also for somebody else's */
  async turn(principal: Principal, id: string): Promise<TurnRow> {
    const turn = await this.#store.turn(id)
    if (!turn || turn.key !== principal.key || !mayUse(principal, turn.bot)) throw new HubError('unknown_turn')
    return turn
  }

  /** The turn as clients see it, now. */
  async view(id: string): Promise<TurnObject> {
    const turn = await this.#store.turn(id)
    if (!turn) throw new HubError('unknown_turn')
    return toTurnObject(turn, (await this.#store.result(id)) ?? (await this.#transcript(turn)))
  }

  /** The events of a turn in groups, as they are committed: see `TurnLog.follow`. */
  follow(turn: string, after: number, signal: AbortSignal): AsyncIterable<readonly NumberedEvent[]> {
    return this.#log.follow(turn, after, signal)
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
  async cancel(turn: TurnRow, by: CancelledBy): Promise<void> {
    const run = this.#runs.get(turn.id)
    run?.abort.abort(new TurnCancelled(by))
    await run?.done
    await this.#exclusively(turn.id, async () => {
      const now = await this.#store.turn(turn.id)
      if (!now || isEnded(now.status)) return
      const transcript = await this.#transcript(now)
      await this.#end(now, transcript, { type: 'turn.cancelled', text: transcript.text, by })
      if (now.status === 'waiting') this.#release(now, transcript)
    })
  }

  /**
   * Answers calls that wait for consent. When every call has its decision the turn goes on.
   * @throws HubError `not_waiting`, `already_decided`, `invalid_request`
   */
  async decide(turn: TurnRow, principal: Principal, decisions: readonly ConsentDecision[]): Promise<void> {
    await this.#answer(turn, 'consent', decisions, [{ type: 'consent.answered', decisions, by: 'user' }])
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
    await this.#answer(turn, 'tool_outputs', outputs, events)
  }

  async #answer(
    { id }: TurnRow,
    kind: 'consent' | 'tool_outputs',
    answers: readonly { readonly call: string }[],
    events: readonly LoggedEvent[],
  ): Promise<void> {
    if (this.#draining) throw new HubError('shutting_down', { retryAfterMs: 5000 })
    await this.#exclusively(id, async () => {
      let turn = (await this.#store.turn(id))!
      // An answer may come between the commit that parks a turn and the end of the run that parked it.
      if (turn.status === 'waiting') await this.#runs.get(id)?.done
      turn = (await this.#store.turn(id))!
      const transcript = await this.#transcript(turn)
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
      this.#log.open(turn)
      this.#log.push({ turn: id, events, ...(goesOn ? { status: 'running', expiresAt: null } : {}) })
      await this.#log.commit()
      if (goesOn) {
        this.#stopExpiry(id)
        this.#start({ ...turn, seq: this.#log.seq(id) })
      } else this.#log.close(id)
    })
  }

  /** The bots the principal may use. */
  bots(principal: Principal): readonly BotItem[] {
    return [...this.#bots.values()].filter((bot) => mayUse(principal, bot.name)).map(toBotItem)
  }

  /** @throws HubError `unknown_bot` */
  conversations(principal: Principal, bot: string, options: PageOptions): Promise<Page<ConversationItem>> {
    return this.#store.conversations(ownerOf(this.#bot(principal, bot), principal), options)
  }

  /** @throws HubError `unknown_bot`, `unknown_conversation` */
  async records(
    principal: Principal,
    bot: string,
    conversation: string,
    options: PageOptions,
  ): Promise<Page<RecordItem>> {
    return this.#store.records((await this.#conversation(principal, bot, conversation)).id, options)
  }

  /**
   * Deletes a conversation, here and upstream; a live turn of it ends as `turn.cancelled`, `by: "deleted"`.
   * @throws HubError `unknown_bot`, `unknown_conversation`
   */
  async forget(principal: Principal, botName: string, nameOrId: string): Promise<void> {
    const bot = this.#bot(principal, botName)
    const conversation = await this.#conversation(principal, botName, nameOrId)
    const live = await this.#store.liveTurns(conversation.id)
    // Queued ones first, so that none starts when the live one ends.
    for (const turn of live.toReversed()) {
      const run = this.#runs.get(turn.id)
      await this.cancel(turn, 'deleted')
      await run?.done
    }
    const thread = await this.#thread(bot, principal, conversation)
    await this.#store.forget(conversation.id)
    this.#audit.record({
      what: 'conversation deleted',
      by: principal.key,
      bot: bot.name,
      details: { conversation: conversation.id },
    })
    await bot.provider.forget?.(thread).catch((error: unknown) => {
      this.#logger.warn(
        { err: error, bot: bot.name, conversation: conversation.id },
        'upstream kept a deleted conversation',
      )
    })
  }

  /**
   * Streams a file to the bot's upstream.
   * @throws HubError `unknown_bot`, `unknown_conversation`, `files_unsupported`, or what the provider throws
   */
  async upload(
    principal: Principal,
    botName: string,
    conversationName: string,
    upload: Upload,
    signal: AbortSignal,
  ): Promise<FileRef> {
    const bot = this.#bot(principal, botName)
    if (!bot.manifest.files || !bot.provider.upload) throw new HubError('files_unsupported')
    const owner = ownerOf(bot, principal)
    const conversation = isConversationId(conversationName)
      ? await this.#conversation(principal, botName, conversationName)
      : await this.#store.openConversation(owner, conversationName, newId('conv'), this.#clock.now())
    const thread = await this.#thread(bot, principal, conversation)
    let bytes = 0
    async function* counted(): AsyncGenerator<Uint8Array> {
      for await (const chunk of upload.stream) {
        bytes += chunk.length
        yield chunk
      }
    }
    const upstream = await bot.provider.upload({ ...upload, stream: counted() }, thread, signal)
    const file: FileRef = { id: newId('file'), name: upload.name, bytes, mime: upload.mime, upstream }
    await this.#store.addFile({ ...file, conversation: conversation.id }, this.#clock.now())
    return file
  }

  async #thread(bot: Bot, principal: Principal, conversation: ConversationRef): Promise<Thread> {
    const thread = await this.#store.thread(conversation.id)
    return { bot: bot.name, principal, conversation, ...(thread === undefined ? {} : { thread }) }
  }

  async #conversation(principal: Principal, bot: string, nameOrId: string): Promise<ConversationRef> {
    const found = await this.#store.conversation(ownerOf(this.#bot(principal, bot), principal), nameOrId)
    if (!found) throw new HubError('unknown_conversation')
    return found
  }

  async #files(owner: Owner, { conversation, files = [] }: Inbound): Promise<readonly FileRef[]> {
    if (files.length === 0) return []
    const where = conversation ? await this.#store.conversation(owner, conversation) : undefined
    const found = where ? await this.#store.files(where.id, files) : []
    const missing = files.find((id) => !found.some((file) => file.id === id))
    if (missing) {
      throw new HubError('unknown_file', {
        message: `There is no file "${missing}" in this conversation. Upload it with the same \`conversation\` first.`,
      })
    }
    return found
  }

  #bot(principal: Principal, name: string): Bot {
    const bot = this.#bots.get(name)
    if (bot && mayUse(principal, name)) return bot
    const known = this.bots(principal).map((each) => each.bot)
    const meant = known.length > 0 ? `; did you mean ${JSON.stringify(closest(name, known))}?` : '.'
    throw new HubError('unknown_bot', {
      message: `There is no bot ${JSON.stringify(name)}${meant} GET /api/v1/bots lists those you may use.`,
    })
  }

  /** Goes on with what an earlier process left. */
  async recover(): Promise<void> {
    const { broken, waiting, claimed } = await this.#store.recover()
    for (const turn of waiting) this.#expireLater(turn)
    for (const turn of claimed) this.#start(turn)
    for (const turn of broken) {
      const bot = this.#bots.get(turn.bot)
      if (bot?.manifest.resumes && turn.cursor !== undefined) this.#start(turn)
      else await this.#endInterrupted(turn)
    }
    const left = broken.length + waiting.length + claimed.length
    if (left > 0)
      this.#logger.info({ broken: broken.length, waiting: waiting.length, queued: claimed.length }, 'turns taken over')
  }

  async #endInterrupted(turn: TurnRow): Promise<void> {
    const transcript = await this.#transcript(turn)
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
    await this.#log.commit().catch(() => {})
  }

  async #settled(): Promise<void> {
    while (this.#runs.size > 0) await Promise.all(Array.from(this.#runs.values(), (run) => run.done))
  }

  #stopAll(): void {
    for (const run of this.#runs.values()) run.abort.abort(new HubError('shutting_down'))
  }

  /** Runs one leg of a turn: from its start, from an answer to it, or from where a crash left it. */
  #start(turn: TurnRow): void {
    if (this.#draining) return this.#putBack(turn)
    const abort = new AbortController()
    const done = this.#run(turn, abort)
      .catch((error: unknown) => this.#logger.error({ err: error, turn: turn.id }, 'a turn could not be written'))
      .finally(() => {
        this.#runs.delete(turn.id)
        this.#log.close(turn.id)
      })
    this.#runs.set(turn.id, { abort, done })
  }

  /** What the last commit took from the queue stays for the next start. */
  #putBack(turn: TurnRow): void {
    this.#log.open(turn)
    this.#log.push({ turn: turn.id, events: [], status: 'queued' })
  }

  async #run(row: TurnRow, abort: AbortController): Promise<void> {
    const bot = this.#bots.get(row.bot)
    if (!bot) return this.#endInterrupted(row)
    this.#log.open(row)
    const transcript = await this.#transcript(row)
    const deadline = setTimeout(() => abort.abort(new HubError('deadline_exceeded')), bot.deadlineMs)
    try {
      await this.#pump(bot, toTurn(row, transcript, abort.signal), transcript)
      await this.#close(bot, row, transcript)
    } catch (error) {
      await this.#fail(bot, row, transcript, asHubError(error, 'bot_failed'))
    } finally {
      clearTimeout(deadline)
    }
  }

  /** Moves what the bot yields into the log until it ends, throws, or does not stop in time after an abort. */
  async #pump(bot: Bot, turn: Turn, transcript: Transcript): Promise<void> {
    let over = false
    const overdue = Promise.withResolvers<never>()
    const stop = () => setTimeout(() => overdue.reject(turn.signal.reason), stopWithinMs).unref()
    turn.signal.addEventListener('abort', stop, { once: true })
    const pump = async () => {
      for await (const event of bot.respond(turn)) {
        if (over) return
        turn.signal.throwIfAborted()
        if (event.type === 'upstream') {
          const { type: _, ...stored } = event
          this.#log.push({ turn: turn.id, events: [], ...stored })
        } else {
          const events = transcript.add(event)
          if (events.length > 0) this.#log.push({ turn: turn.id, events: events.map((each) => this.#dated(bot, each)) })
        }
        if (this.#log.crowded) await this.#log.commit()
      }
      turn.signal.throwIfAborted()
    }
    try {
      await Promise.race([pump(), overdue.promise])
    } finally {
      over = true
      turn.signal.removeEventListener('abort', stop)
    }
  }

  #dated(bot: Bot, event: LoggedEvent): LoggedEvent {
    if (event.type !== 'consent.requested' && event.type !== 'tool.outputs_requested') return event
    return { ...event, expiresAt: new Date(this.#clock.now() + bot.answerWithinMs).toISOString() }
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
    this.#log.push({
      turn: row.id,
      events: [...last, { type: 'turn.waiting', for: pending.for }],
      status: 'waiting',
      expiresAt,
    })
    await this.#log.commit()
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
    this.#log.open(turn)
    this.#log.push({
      turn: turn.id,
      events: [...before, end],
      status,
      expiresAt: null,
      result: { ...transcript.result, ...('error' in end ? { error: end.error } : {}) },
    })
    await this.#log.commit()
    this.#metrics.turnEnded(turn, status, this.#clock.now() - turn.createdAt)
    if (!this.#runs.has(turn.id)) this.#log.close(turn.id)
  }

  async #transcript(turn: TurnRow): Promise<Transcript> {
    const transcript = new Transcript({ debug: turn.debug })
    for (let after = 0; after < turn.seq;) {
      const events = await this.#store.read(turn.id, after, 500)
      if (events.length === 0) break
      transcript.replay(events)
      after = events.at(-1)!.seq
    }
    return transcript
  }

  #expireLater(turn: TurnRow): void {
    if (turn.expiresAt === undefined) return
    const expire = () =>
      this.#exclusively(turn.id, async () => {
        const now = await this.#store.turn(turn.id)
        if (now?.status !== 'waiting') return
        const transcript = await this.#transcript(now)
        const error = new HubError('consent_expired').public(this.#bots.get(now.bot)?.profile.language)
        await this.#end(now, transcript, { type: 'turn.failed', text: transcript.text, error })
        this.#release(now, transcript)
      }).catch((error: unknown) =>
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
    const bot = this.#bots.get(row.bot)
    const turn = toTurn(row, transcript, AbortSignal.timeout(60_000))
    void bot?.provider.release?.(turn).catch((error: unknown) => {
      this.#logger.warn(
        { err: error, turn: row.id, bot: row.bot },
        'the upstream of an unanswered turn was not released',
      )
    })
  }

  /** Runs `work` when everything asked of the same turn before has been done. */
  async #exclusively<T>(turn: string, work: () => Promise<T>): Promise<T> {
    const before = this.#locks.get(turn) ?? Promise.resolve()
    const mine = before.then(work, work)
    const settled = mine.catch(() => {})
    this.#locks.set(turn, settled)
    try {
      return await mine
    } finally {
      if (this.#locks.get(turn) === settled) this.#locks.delete(turn)
    }
  }

  #audited(what: AuditEntry['what'], turn: TurnRow, principal: Principal, details?: JsonObject): void {
    this.#audit.record({ what, by: principal.key, bot: turn.bot, turn: turn.id, ...(details ? { details } : {}) })
  }
}

/** How turns end that were taken though they could not run. */
function refusalOf({ profile }: Bot): NonNullable<AcceptInput['refusal']> {
  const result = (code: 'turn_waiting' | 'queue_full') => ({
    text: '',
    messages: [],
    error: new HubError(code).public(profile.language),
  })
  return { waiting: result('turn_waiting'), queueFull: result('queue_full') }
}

const ownerOf = (bot: Bot, principal: Principal): Owner => ({
  bot: bot.name,
  key: principal.key,
  ...(principal.user ? { user: principal.user } : {}),
})

const isConversationId = (name: string): boolean => name.startsWith('conv_')

function conversationOf({ conversation, id }: Inbound): { name: string } | { id: string } | 'new' {
  if (conversation) return isConversationId(conversation) ? { id: conversation } : { name: conversation }
  // Derived from the id, so that the same message finds the conversation it opened.
  return id ? { name: `message:${id}` } : 'new'
}

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
    history: [],
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
