import type {
  AcceptInput,
  AcceptResult,
  Append,
  Appended,
  Page,
  Recovered,
  TimedEvent,
  TurnItem,
  TurnResult,
  TurnRow,
  TurnSearch,
  TurnStatus,
} from '../../core/store.ts'
import type { NumberedEvent } from '../../core/events.ts'
import type { ConversationRef, Json, Message } from '../../core/message.ts'
import { isEnded, isHook, startedEvent, toTurnEnd } from '../../core/store.ts'
import type { ConversationTable } from './conversations.ts'
import { addRows, eventsOf } from './event-rows.ts'
import type { EventRow } from './event-rows.ts'
import { Journal } from './journal.ts'
import { toDelivery } from './outbox.ts'
import type { OutboxTable } from './outbox.ts'
import type { RecordTable } from './records.ts'
import { searchWindow, toPage, toSearchPage } from './sql.ts'
import type { Sql } from './sql.ts'

/** Events are read in pages of about this size, in characters, however many are asked for. */
const maxPageLength = 262_144

/** What a compacted turn keeps, for whoever sends its message again. */
const keptTypes = [
  'turn.started',
  'message.completed',
  'turn.completed',
  'turn.failed',
  'turn.cancelled',
  'turn.interrupted',
]
  .map((type) => `'${type}'`)
  .join(', ')

/** What has no type of its own is several deltas. */
const typeOfRow = "COALESCE(json_extract(body, '$.type'), 'message.delta')"

interface TurnColumns {
  readonly number: number
  readonly id: string
  readonly conversation: string
  readonly bot: string
  readonly key: string
  readonly user: string
  readonly name: string
  readonly thread: string | null
  readonly message_id: string
  readonly message: string
  readonly fingerprint: string
  readonly channel: string
  readonly debug: number
  readonly bypass: number
  readonly detached: number
  readonly compacted: number
  readonly status: TurnStatus
  readonly epoch: number
  readonly seq: number
  readonly cursor: string | null
  readonly expires_at: number | null
  readonly ran_ms: number
  readonly leg_at: number | null
  readonly created_at: number
  readonly started_at: number | null
  readonly ended_at: number | null
}

interface ItemColumns extends Pick<
  TurnColumns,
  'number' | 'id' | 'bot' | 'key' | 'user' | 'conversation' | 'name' | 'message_id' | 'channel' | 'status'
> {
  readonly created_at: number
  readonly started_at: number | null
  readonly ended_at: number | null
  readonly by: 'operator' | null
  readonly error: string | null
}

/** A live turn's row is not written for every event: its events tell how many there are. */
const lastSeq = `COALESCE(
  (SELECT MAX(e.seq) FROM events e WHERE turns.ended_at IS NULL AND e.turn = turns.number), turns.seq) AS seq`
const turnColumns = `turns.number, turns.id, turns.conversation, turns.message_id, turns.message, turns.fingerprint,
  turns.channel, turns.debug, turns.bypass, turns.detached, turns.compacted, turns.status, turns.epoch, ${lastSeq}, turns.cursor, turns.expires_at,
  turns.ran_ms, turns.leg_at,
  turns.created_at, turns.started_at, turns.ended_at, c.bot, c.key, c.user, c.name, c.thread
  FROM turns JOIN conversations c ON c.id = turns.conversation`

const itemColumns = `turns.number, turns.id, turns.conversation, turns.message_id, turns.channel, turns.status,
  turns.created_at, turns.started_at, turns.ended_at, c.bot, c.key, c.user, c.name,
  json_extract(turns.message, '$.by') AS by, json_extract(turns.result, '$.error.code') AS error`

/** What a turn's commits write to beside its own tables. */
export interface Neighbours {
  readonly conversations: ConversationTable
  readonly records: RecordTable
  readonly outbox: OutboxTable
}

/** The tables of turns and their logs. What writes is run inside a commit. */
export class TurnTable {
  readonly #sql: Sql
  readonly #epoch: number
  readonly #conversations: ConversationTable
  readonly #records: RecordTable
  readonly #outbox: OutboxTable
  readonly #journal: Journal

  constructor(sql: Sql, epoch: number, { conversations, records, outbox }: Neighbours) {
    this.#sql = sql
    this.#epoch = epoch
    this.#conversations = conversations
    this.#records = records
    this.#outbox = outbox
    this.#journal = new Journal(sql)
  }

  accept(input: AcceptInput): AcceptResult {
    const { receipt } = input
    if (!receipt) return this.#accept(input)
    const known = this.#sql.get<{ turn: string; names: string }>(
      'SELECT turn, names FROM receipts WHERE id = ? AND until >= ?',
      receipt.id,
      input.at,
    )
    if (known) {
      const turn = this.turn(known.turn)
      if (!turn) return { outcome: 'replayed', forgotten: known.turn }
      if (known.names !== receipt.names) return { outcome: 'mismatch', turn }
    }
    const result = this.#accept(input)
    if (!known && (result.outcome === 'created' || result.outcome === 'duplicate')) {
      this.#sql.run('DELETE FROM receipts WHERE until < ?', input.at)
      const { id, names, until } = receipt
      this.#sql.run(
        'INSERT INTO receipts (id, names, turn, until) VALUES (?, ?, ?, ?)',
        id,
        names,
        result.turn.id,
        until,
      )
    }
    return result
  }

  #accept(input: AcceptInput): AcceptResult {
    const conversation = this.#conversationFor(input)
    if (!conversation) return { outcome: input.knownOnly ? 'unknown_message' : 'unknown_conversation' }
    const twin = this.#sql.get<TurnColumns>(
      `SELECT ${turnColumns} WHERE turns.conversation = ? AND turns.message_id = ?`,
      conversation.id,
      input.message.id,
    )
    if (twin) {
      if (twin.fingerprint !== input.fingerprint) return { outcome: 'mismatch', turn: this.#toTurn(twin) }
      this.#owe(twin, input)
      if (input.detached) this.#sql.run('UPDATE turns SET detached = 1 WHERE number = ?', twin.number)
      return { outcome: 'duplicate', turn: this.#toTurn(twin) }
    }
    if (this.#conversations.isTaken(conversation.id)) return this.#acceptTaken(input, conversation)
    if (input.message.by) return { outcome: 'not_handed_over' }
    if (input.knownOnly) return { outcome: 'unknown_message' }
    const alive = this.#alive(conversation.id)
    const waiting = alive.find(({ status }) => status === 'waiting')
    const full = alive.length > input.queueLimit
    if (!waiting && !full) {
      const status = alive.length === 0 ? 'running' : 'queued'
      return { outcome: 'created', turn: this.#insertTurn(input, conversation, status) }
    }
    if (!input.refusal)
      return waiting ? { outcome: 'waiting', turn: this.turn(waiting.id)! } : { outcome: 'queue_full' }
    const turn = this.#insertTurn(input, conversation, 'running')
    this.append([failedStep(turn, waiting ? input.refusal.waiting : input.refusal.queueFull, input.at)])
    return { outcome: 'created', turn: this.turn(turn.id)! }
  }

  /** An operator has the conversation: no bot sees the message, and its turn ends in the commit that takes it. */
  #acceptTaken(input: AcceptInput, conversation: ConversationRef): AcceptResult {
    const { by, text } = input.message
    const owedTo = by ? [...this.#outbox.channelsOf(conversation.id), ...(input.owedTo ?? [])] : input.owedTo
    const turn = this.#insertTurn({ ...input, ...(owedTo ? { owedTo } : {}) }, conversation, 'running')
    this.#appendOne(by ? spokenStep(turn, text, input.at) : handedOverStep(turn, input.at), true)
    return { outcome: 'created', turn: this.turn(turn.id)! }
  }

  /** With its first event, the user's record and what is owed for it. */
  #insertTurn(input: AcceptInput, conversation: ConversationRef, status: TurnStatus): TurnRow {
    const { lastInsertRowid: number } = this.#sql.run(
      `INSERT INTO turns (id, conversation, message_id, message, fingerprint, channel, debug, bypass, detached, status, epoch, seq, leg_at, created_at, started_at)
       VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 1, ?, ?, ?)`,
      input.turn,
      conversation.id,
      input.message.id,
      JSON.stringify(input.message),
      input.fingerprint,
      input.channel,
      Number(input.debug),
      Number(input.bypassConsent),
      Number(input.detached),
      status,
      this.#epoch,
      status === 'running' ? input.at : null,
      input.at,
      status === 'running' ? input.at : null,
    )
    const turn = this.turn(input.turn)!
    this.#writeEvents(number, [{ seq: 1, ...startedEvent(turn) }], input.at)
    if (!input.message.nudge) this.#records.addMessage(conversation.id, number, input)
    this.#conversations.touch(conversation.id, input.at)
    for (const lane of input.owedTo ?? []) this.#outbox.owe(number, lane)
    return turn
  }

  /** Somebody else's copy of a message is owed its answer too, also when the turn has ended or parked already. */
  #owe(turn: TurnColumns, { owedTo, at }: AcceptInput): void {
    const rests = isEnded(turn.status) || turn.status === 'waiting'
    // Hooks were owed it from the start, or were not there.
    for (const lane of (owedTo ?? []).filter((each) => !isHook(each))) {
      if (!this.#outbox.owe(turn.number, lane) || !rests) continue
      this.#outbox.add(toDelivery(turn.id, lane, { seq: turn.seq, type: `turn.${turn.status}` }, at))
    }
  }

  #conversationFor(input: AcceptInput): ConversationRef | undefined {
    return input.knownOnly
      ? this.#conversations.find(input, input.conversation)
      : this.#conversations.findOrMake(input, input.conversation, input.newConversation, input.at, input.ephemeral)
  }

  append(steps: readonly Append[]): Appended {
    const refused: string[] = []
    const claimed: TurnRow[] = []
    let deliveries = 0
    for (const step of steps) {
      const journaled = this.#journal.add(step, steps.length === 1)
      if (journaled) {
        for (const event of step.events) this.#conversations.note(journaled.conversation, event)
        continue
      }
      const result = this.#appendOne(step)
      if (!result) refused.push(step.turn)
      deliveries += result?.deliveries ?? 0
      if (result?.claimed) claimed.push(result.claimed)
    }
    this.#journal.write()
    return { refused, claimed, deliveries }
  }

  /** `unanswered`: no bot had a part in the turn, and it was in nobody's way. */
  #appendOne(step: Append, unanswered = false): { deliveries: number; claimed?: TurnRow | undefined } | undefined {
    let deliveries = 0
    this.#journal.settle(step.turn)
    const turn = this.#sql.get<{ number: number; conversation: string; epoch: number; ended_at: number | null }>(
      'SELECT number, conversation, epoch, ended_at FROM turns WHERE id = ?',
      step.turn,
    )
    if (!turn || turn.ended_at !== null || turn.epoch !== step.epoch) return undefined
    this.#addEvents(turn, step.events, step.at)
    this.#changeTurn(turn.number, step)
    this.#keepTime(turn.number, step)
    if (step.thread !== undefined) {
      this.#conversations.setThread(turn.conversation, step.thread)
    }
    if (step.status === 'waiting') deliveries += this.#outbox.addAll(turn.number, step, undefined)
    if (step.status && isEnded(step.status)) {
      const end = () => toTurnEnd(this.turn(step.turn)!, step.result, step.at)
      deliveries += this.#outbox.addAll(turn.number, step, end)
    }
    if (!step.status || !isEnded(step.status)) return { deliveries }
    this.#conversations.touch(turn.conversation, step.at)
    if (unanswered) return { deliveries }
    if (step.result?.text || !this.#isNudge(turn.number)) this.#records.addBot(turn, step)
    return { deliveries, claimed: this.#claimNext(turn.conversation, step.at) }
  }

  #addEvents(
    turn: { readonly number: number; readonly conversation: string },
    events: readonly NumberedEvent[],
    at: number,
  ): void {
    this.#writeEvents(turn.number, events, at)
    for (const event of events) this.#conversations.note(turn.conversation, event)
  }

  #writeEvents(turn: number | bigint, events: readonly NumberedEvent[], at: number): void {
    addRows(
      this.#sql,
      turn,
      events.map((event) => ({ event, at })),
    )
  }

  #changeTurn(number: number, step: Append): void {
    if (!step.status && step.cursor === undefined && step.expiresAt === undefined && !step.result) return
    this.#sql.run(
      `UPDATE turns SET seq = COALESCE(?, seq), status = COALESCE(?, status), cursor = COALESCE(?, cursor),
         expires_at = CASE WHEN ? THEN ? ELSE expires_at END, result = ?, ended_at = ?
       WHERE number = ?`,
      step.events.at(-1)?.seq ?? null,
      step.status ?? null,
      step.cursor === undefined ? null : JSON.stringify(step.cursor),
      Number(step.expiresAt !== undefined),
      step.expiresAt ?? null,
      step.result ? JSON.stringify(step.result) : null,
      step.status && isEnded(step.status) ? step.at : null,
      number,
    )
  }

  /** What a turn waits does not count against its deadline. */
  #keepTime(number: number, { status, at }: Append): void {
    if (status === 'running') this.#sql.run('UPDATE turns SET leg_at = ? WHERE number = ?', at, number)
    if (status !== 'waiting') return
    this.#sql.run('UPDATE turns SET ran_ms = ran_ms + MAX(0, ? - leg_at) WHERE number = ?', at, number)
  }

  /** A nudge leaves no record, unless something is said to it. */
  #isNudge(number: number): boolean {
    const nudge = "SELECT 1 FROM turns WHERE number = ? AND json_extract(message, '$.nudge')"
    return this.#sql.get(nudge, number) !== undefined
  }

  #claimNext(conversation: string, at: number): TurnRow | undefined {
    const [next] = this.#alive(conversation)
    if (next?.status !== 'queued') return undefined
    this.#sql.run(
      `UPDATE turns SET status = 'running', epoch = ?, leg_at = ?, started_at = ? WHERE id = ?`,
      this.#epoch,
      at,
      at,
      next.id,
    )
    return this.turn(next.id)
  }

  turn(id: string): TurnRow | undefined {
    const row = this.#sql.get<TurnColumns>(`SELECT ${turnColumns} WHERE turns.id = ?`, id)
    return row && this.#toTurn(row)
  }

  result(turn: string): TurnResult | undefined {
    const row = this.#sql.get<{ result: string | null }>('SELECT result FROM turns WHERE id = ?', turn)
    return row?.result ? (JSON.parse(row.result) as TurnResult) : undefined
  }

  read(turn: string, after: number, limit: number): readonly NumberedEvent[] {
    return this.readTimed(turn, after, limit).map(({ event }) => event)
  }

  readTimed(turn: string, after: number, limit: number): readonly TimedEvent[] {
    const page: TimedEvent[] = []
    let length = 0
    for (const row of this.#rows(turn, after, limit)) {
      for (const timed of eventsOf(row)) if (timed.event.seq > after && page.length < limit) page.push(timed)
      length += row.body.length
      if (page.length === limit || length >= maxPageLength) return page
    }
    // In their order: what is not in the table yet comes behind all that is.
    return [...page, ...this.#journal.unmoved(turn, after).slice(0, limit - page.length)]
  }

  #rows(turn: string, after: number, limit: number): Iterable<EventRow> {
    return this.#sql.iterate<EventRow>(
      `SELECT seq, body, at FROM events WHERE turn = (SELECT number FROM turns WHERE id = ?) AND seq > ?
       ORDER BY seq LIMIT ?`,
      turn,
      after,
      limit,
    )
  }

  search({ live, bots, bot, status, before, limit }: TurnSearch): Page<TurnItem> {
    const wanted = `(@bots IS NULL OR c.bot IN (SELECT value FROM json_each(@bots)))
      AND (@bot IS NULL OR c.bot = @bot) AND (@status IS NULL OR turns.status = @status)
      ORDER BY turns.number DESC LIMIT @count`
    const values = {
      bots: bots ? JSON.stringify(bots) : null,
      bot: bot ?? null,
      status: status ?? null,
      count: limit + 1,
    }
    if (live) {
      const rows = this.#sql.all<ItemColumns>(
        // By itself SQLite would look through all that have ended, to find them in order.
        `SELECT ${itemColumns} FROM turns INDEXED BY turns_alive JOIN conversations c ON c.id = turns.conversation
         WHERE turns.ended_at IS NULL AND turns.number < @before AND ${wanted}`,
        { ...values, before: before === undefined ? Number.MAX_SAFE_INTEGER : Number(before) },
      )
      return toPage(rows, limit, placeOf, toTurnItem)
    }
    const window = searchWindow(this.#sql, 'turns', before)
    const rows = this.#sql.all<ItemColumns>(
      `SELECT ${itemColumns} FROM turns JOIN conversations c ON c.id = turns.conversation
       WHERE turns.number < @before AND turns.number >= @from AND ${wanted}`,
      { ...values, before: window.before, from: window.from },
    )
    return toSearchPage(window, rows, limit, placeOf, toTurnItem)
  }

  recover(at: number): Recovered {
    this.#journal.empty()
    this.#sql.run('UPDATE turns SET epoch = ? WHERE ended_at IS NULL', this.#epoch)
    const alive = this.#sql
      .all<TurnColumns>(`SELECT ${turnColumns} WHERE turns.ended_at IS NULL ORDER BY turns.number`)
      .map(this.#toTurn)
    const busy = new Set(alive.filter((turn) => turn.status !== 'queued').map((turn) => turn.conversation.id))
    const idle = new Set(alive.map((turn) => turn.conversation.id).filter((id) => !busy.has(id)))
    return {
      broken: alive.filter((turn) => turn.status === 'running'),
      waiting: alive.filter((turn) => turn.status === 'waiting'),
      claimed: [...idle].map((conversation) => this.#claimNext(conversation, at)!),
    }
  }

  /** How many wait behind the live one of their conversation. */
  queued(): number {
    return this.#sql.get<{ queued: number }>(
      `SELECT COUNT(*) AS queued FROM turns WHERE ended_at IS NULL AND status = 'queued'`,
    )!.queued
  }

  /** Which of a conversation have not ended, oldest first. */
  #alive(conversation: string): Pick<TurnRow, 'id' | 'status'>[] {
    return this.#sql.all(
      'SELECT id, status FROM turns WHERE conversation = ? AND ended_at IS NULL ORDER BY number',
      conversation,
    )
  }

  /** Those of a conversation that have not ended, oldest first. */
  live(conversation: string): TurnRow[] {
    return this.#sql
      .all<TurnColumns>(
        `SELECT ${turnColumns} WHERE turns.conversation = ? AND turns.ended_at IS NULL ORDER BY turns.number`,
        conversation,
      )
      .map(this.#toTurn)
  }

  idsOf(conversation: string): string[] {
    return this.#sql
      .all<{ id: string }>('SELECT id FROM turns WHERE conversation = ? ORDER BY number', conversation)
      .map(({ id }) => id)
  }

  next(conversation: string, after?: string): TurnRow | undefined {
    const row =
      after === undefined
        ? this.#sql.get<TurnColumns>(
            `SELECT ${turnColumns} WHERE turns.conversation = ? ORDER BY turns.number DESC LIMIT 1`,
            conversation,
          )
        : this.#sql.get<TurnColumns>(
            `SELECT ${turnColumns} WHERE turns.conversation = ? AND turns.number > (SELECT number FROM turns WHERE id = ?)
             ORDER BY turns.number LIMIT 1`,
            conversation,
            after,
          )
    return row && this.#toTurn(row)
  }

  compact(endedBefore: number, limit: number): number {
    const turns = this.#sql.all<{ number: number }>(
      'SELECT number FROM turns WHERE compacted = 0 AND ended_at < ? ORDER BY ended_at LIMIT ?',
      endedBefore,
      limit,
    )
    if (turns.length > 0) this.#journal.clean()
    for (const { number } of turns) {
      this.#sql.run(`DELETE FROM events WHERE turn = ? AND ${typeOfRow} NOT IN (${keptTypes})`, number)
      this.#sql.run('UPDATE turns SET compacted = 1 WHERE number = ?', number)
    }
    return turns.length
  }

  prune(endedBefore: number, limit: number): number {
    const turns = this.#sql.all<{ number: number; conversation: string }>(
      `SELECT number, conversation FROM turns WHERE compacted = 1 AND ended_at < ?
         AND NOT EXISTS (SELECT 1 FROM outbox WHERE outbox.turn = turns.id AND outbox.state = 'pending'
           AND outbox.lane NOT IN (SELECT lane FROM closed_lanes))
       ORDER BY ended_at LIMIT ?`,
      endedBefore,
      limit,
    )
    if (turns.length > 0) this.#journal.clean()
    for (const { number } of turns) this.#sql.run('DELETE FROM turns WHERE number = ?', number)
    for (const { conversation } of turns) this.#conversations.forgetSpent(conversation)
    this.#outbox.prune(endedBefore)
    return turns.length
  }

  /** Deletes a conversation with everything that hangs on it. */
  forget(conversation: string): void {
    this.#journal.settleAll(conversation)
    this.#conversations.forget(conversation)
    this.#journal.clean()
  }

  /** Brings the events of live turns to where those of others are. */
  settle(): void {
    this.#journal.empty()
  }

  readonly #toTurn = (row: TurnColumns): TurnRow => ({ ...toTurn(row), ...this.#journal.newer(row.id) })
}

const failedStep = (turn: TurnRow, result: TurnResult, at: number): Append => ({
  turn: turn.id,
  epoch: turn.epoch,
  events: [{ seq: turn.seq + 1, type: 'turn.failed', text: '', error: result.error! }],
  status: 'failed',
  result,
  at,
})

const handedOverStep = (turn: TurnRow, at: number): Append => ({
  turn: turn.id,
  epoch: turn.epoch,
  events: [{ seq: turn.seq + 1, type: 'turn.completed', text: '', handedOver: true }],
  status: 'completed',
  result: { text: '', messages: [], handedOver: true },
  at,
})

/** What an operator says, in the events that a bot would say it in. */
function spokenStep(turn: TurnRow, text: string, at: number): Append {
  const message = `${turn.id}_operator`
  return {
    turn: turn.id,
    epoch: turn.epoch,
    events: [
      { seq: turn.seq + 1, type: 'message.started', message },
      { seq: turn.seq + 2, type: 'message.delta', message, text },
      { seq: turn.seq + 3, type: 'message.completed', message, text },
      { seq: turn.seq + 4, type: 'turn.completed', text },
    ],
    status: 'completed',
    result: { text, messages: [{ id: message, text }] },
    at,
  }
}

const placeOf = ({ number }: { readonly number: number }): string => String(number)

const toTurnItem = (row: ItemColumns): TurnItem => ({
  id: row.id,
  bot: row.bot,
  key: row.key,
  ...(row.user === '' ? {} : { user: row.user }),
  conversation: { id: row.conversation, name: row.name },
  message: row.message_id,
  ...(row.by === null ? {} : { by: row.by }),
  channel: row.channel,
  status: row.status,
  createdAt: row.created_at,
  ...startedOf(row),
  ...(row.ended_at === null ? {} : { endedAt: row.ended_at }),
  ...(row.error === null ? {} : { error: row.error }),
})

/** One that was put back waits for its turn again. */
const startedOf = (row: Pick<TurnColumns, 'started_at' | 'status'>): { startedAt?: number } =>
  row.started_at === null || row.status === 'queued' ? {} : { startedAt: row.started_at }

const toTurn = (row: TurnColumns): TurnRow => ({
  id: row.id,
  bot: row.bot,
  key: row.key,
  ...(row.user === '' ? {} : { user: row.user }),
  conversation: { id: row.conversation, name: row.name },
  message: JSON.parse(row.message) as Message,
  status: row.status,
  channel: row.channel,
  debug: row.debug === 1,
  bypassConsent: row.bypass === 1,
  detached: row.detached === 1,
  compacted: row.compacted === 1,
  seq: row.seq,
  epoch: row.epoch,
  ...(row.cursor === null ? {} : { cursor: JSON.parse(row.cursor) as Json }),
  ...(row.thread === null ? {} : { thread: JSON.parse(row.thread) as Json }),
  ...(row.expires_at === null ? {} : { expiresAt: row.expires_at }),
  ranMs: row.ran_ms,
  ...(row.leg_at === null ? {} : { legAt: row.leg_at }),
  createdAt: row.created_at,
  ...startedOf(row),
  ...(row.ended_at === null ? {} : { endedAt: row.ended_at }),
})
