import type Database from 'better-sqlite3'
import type {
  AcceptInput,
  AcceptResult,
  Append,
  Appended,
  AuditEntry,
  AuditItem,
  Backlog,
  ConversationItem,
  Delivery,
  DeliveryState,
  Owner,
  Page,
  PageOptions,
  RecordItem,
  Recovered,
  Store,
  StoredFile,
  TurnResult,
  TurnRow,
  TurnStatus,
} from '../../core/store.ts'
import type { NumberedEvent } from '../../core/events.ts'
import type { ConversationRef, FileRef, HistoryMessage, Json, JsonObject, Message } from '../../core/message.ts'
import { isEnded, startedEvent } from '../../core/store.ts'

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

interface ConversationColumns {
  readonly id: string
  readonly bot: string
  readonly key: string
  readonly user: string
  readonly name: string
}

interface TurnColumns extends Omit<ConversationColumns, 'id'> {
  readonly number: number
  readonly id: string
  readonly conversation: string
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
  readonly created_at: number
}

const turnColumns = `turns.number, turns.id, turns.conversation, turns.message_id, turns.message, turns.fingerprint,
  turns.channel, turns.debug, turns.bypass, turns.detached, turns.compacted, turns.status, turns.epoch, turns.seq, turns.cursor, turns.expires_at,
  turns.created_at, c.bot, c.key, c.user, c.name, c.thread
  FROM turns JOIN conversations c ON c.id = turns.conversation`

/** The store on an open database. Every method is one transaction; better-sqlite3 is synchronous inside it. */
export class SqliteStore implements Store {
  readonly #database: Database.Database
  readonly #lock: Database.Database | undefined
  readonly #statements = new Map<string, Database.Statement>()
  readonly #epoch: number
  readonly #appendAll: (steps: readonly Append[]) => Appended
  readonly #accept: (input: AcceptInput) => AcceptResult

  constructor(database: Database.Database, lock?: Database.Database) {
    this.#database = database
    this.#lock = lock
    this.#epoch = this.#get<{ boot: number }>('UPDATE meta SET boot = boot + 1 RETURNING boot')!.boot
    this.#appendAll = database.transaction((steps) => this.#appendSteps(steps))
    const accept = database.transaction((input: AcceptInput) => this.#acceptMessage(input))
    this.#accept = (input) => accept.immediate(input)
  }

  async accept(input: AcceptInput): Promise<AcceptResult> {
    return this.#accept(input)
  }

  #acceptMessage(input: AcceptInput): AcceptResult {
    const conversation = this.#conversationFor(input)
    if (!conversation) return { outcome: input.knownOnly ? 'unknown_message' : 'unknown_conversation' }
    const twin = this.#get<TurnColumns>(
      `SELECT ${turnColumns} WHERE turns.conversation = ? AND turns.message_id = ?`,
      conversation.id,
      input.message.id,
    )
    if (twin) {
      if (twin.fingerprint !== input.fingerprint) return { outcome: 'mismatch', turn: toTurn(twin) }
      this.#owe(twin, input)
      if (input.detached) this.#run('UPDATE turns SET detached = 1 WHERE number = ?', twin.number)
      return { outcome: 'duplicate', turn: toTurn(twin) }
    }
    if (input.knownOnly) return { outcome: 'unknown_message' }
    const alive = this.#liveTurns(conversation.id)
    const waiting = alive.find((turn) => turn.status === 'waiting')
    const full = alive.length > input.queueLimit
    if (!waiting && !full) {
      const status = alive.length === 0 ? 'running' : 'queued'
      return { outcome: 'created', turn: this.#insertTurn(input, conversation, status) }
    }
    if (!input.refusal) return waiting ? { outcome: 'waiting', turn: waiting } : { outcome: 'queue_full' }
    const turn = this.#insertTurn(input, conversation, 'running')
    this.#appendSteps([failedStep(turn, waiting ? input.refusal.waiting : input.refusal.queueFull, input.at)])
    return { outcome: 'created', turn: this.#turn(turn.id)! }
  }

  /** With its first event, the user's record and what is owed for it. */
  #insertTurn(input: AcceptInput, conversation: ConversationRef, status: TurnStatus): TurnRow {
    const { lastInsertRowid: number } = this.#run(
      `INSERT INTO turns (id, conversation, message_id, message, fingerprint, channel, debug, bypass, detached, status, epoch, seq, created_at)
       VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 1, ?)`,
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
      input.at,
    )
    const turn = this.#turn(input.turn)!
    this.#addEvent(number, { seq: 1, ...startedEvent(turn) })
    this.#run(
      `INSERT INTO records (conversation, turn, turn_number, role, text, at) VALUES (?, ?, ?, 'user', ?, ?)`,
      conversation.id,
      input.turn,
      number,
      input.message.text,
      input.at,
    )
    this.#run('UPDATE conversations SET updated_at = ? WHERE id = ?', input.at, conversation.id)
    if (input.owedTo) this.#run('INSERT INTO owed (turn, channel) VALUES (?, ?)', number, input.owedTo)
    return turn
  }

  /** Somebody else's copy of a message is owed its answer too, also when the turn has ended or parked already. */
  #owe(turn: TurnColumns, { owedTo, at }: AcceptInput): void {
    if (!owedTo) return
    const { changes } = this.#run('INSERT OR IGNORE INTO owed (turn, channel) VALUES (?, ?)', turn.number, owedTo)
    const rests = isEnded(turn.status) || turn.status === 'waiting'
    if (changes > 0 && rests) this.#addDelivery(turn.id, owedTo, { seq: turn.seq, type: `turn.${turn.status}` }, at)
  }

  #addDelivery(
    turn: string,
    channel: string,
    event: { readonly seq: number; readonly type: string },
    at: number,
  ): void {
    this.#run(
      'INSERT INTO outbox (id, channel, turn, type, at, next_at) VALUES (?, ?, ?, ?, ?, ?)',
      `${turn}_${event.seq}_${channel}`,
      channel,
      turn,
      event.type,
      at,
      at,
    )
  }

  #conversationFor(input: AcceptInput): ConversationRef | undefined {
    return input.knownOnly
      ? this.#find(input, input.conversation)
      : this.#findOrMake(input, input.conversation, input.newConversation, input.at)
  }

  #find(owner: Owner, wanted: AcceptInput['conversation']): ConversationRef | undefined {
    if (wanted === 'new') return undefined
    const found =
      'id' in wanted
        ? this.#get<ConversationColumns>(
            'SELECT * FROM conversations WHERE id = ? AND bot = ? AND key = ?',
            wanted.id,
            owner.bot,
            owner.key,
          )
        : this.#get<ConversationColumns>(
            'SELECT * FROM conversations WHERE bot = ? AND key = ? AND user = ? AND name = ?',
            owner.bot,
            owner.key,
            owner.user ?? '',
            wanted.name,
          )
    return found && { id: found.id, name: found.name }
  }

  #findOrMake(
    owner: Owner,
    wanted: AcceptInput['conversation'],
    newId: string,
    at: number,
  ): ConversationRef | undefined {
    const found = this.#find(owner, wanted)
    if (found || (wanted !== 'new' && 'id' in wanted)) return found
    const name = wanted === 'new' ? newId : wanted.name
    this.#run(
      'INSERT INTO conversations (id, bot, key, user, name, created_at, updated_at) VALUES (?, ?, ?, ?, ?, ?, ?)',
      newId,
      owner.bot,
      owner.key,
      owner.user ?? '',
      name,
      at,
      at,
    )
    return { id: newId, name }
  }

  async append(steps: readonly Append[]): Promise<Appended> {
    return this.#appendAll(steps)
  }

  #appendSteps(steps: readonly Append[]): Appended {
    const refused: string[] = []
    const claimed: TurnRow[] = []
    let deliveries = 0
    for (const step of steps) {
      const turn = this.#get<{ number: number; conversation: string; epoch: number; ended_at: number | null }>(
        'SELECT number, conversation, epoch, ended_at FROM turns WHERE id = ?',
        step.turn,
      )
      if (!turn || turn.ended_at !== null || turn.epoch !== step.epoch) {
        refused.push(step.turn)
        continue
      }
      for (const event of step.events) this.#addEvent(turn.number, event)
      this.#changeTurn(turn.number, step)
      if (step.thread !== undefined) {
        this.#run('UPDATE conversations SET thread = ? WHERE id = ?', JSON.stringify(step.thread), turn.conversation)
      }
      if (step.status === 'waiting' || (step.status && isEnded(step.status))) {
        deliveries += this.#addDeliveries(turn.number, step)
      }
      if (!step.status || !isEnded(step.status)) continue
      this.#addBotRecord(turn, step)
      const next = this.#claimNext(turn.conversation)
      if (next) claimed.push(next)
    }
    return { refused, claimed, deliveries }
  }

  /** In the commit of the event they tell of, for every channel that is owed it. */
  #addDeliveries(number: number, step: Append): number {
    const owed = this.#all<{ channel: string }>('SELECT channel FROM owed WHERE turn = ?', number)
    const last = step.events.at(-1)
    if (last) for (const { channel } of owed) this.#addDelivery(step.turn, channel, last, step.at)
    return owed.length
  }

  #addEvent(turn: number | bigint, event: NumberedEvent): void {
    this.#run('INSERT INTO events (turn, seq, body) VALUES (?, ?, ?)', turn, event.seq, JSON.stringify(event))
  }

  #changeTurn(number: number, step: Append): void {
    this.#run(
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

  /** One row per turn and role, whatever the answer looked like. */
  #addBotRecord({ conversation, number }: { conversation: string; number: number }, step: Append): void {
    this.#run(
      `INSERT INTO records (conversation, turn, turn_number, role, text, messages, partial, at)
       VALUES (?, ?, ?, 'bot', ?, ?, ?, ?)`,
      conversation,
      step.turn,
      number,
      step.result?.text ?? '',
      JSON.stringify(step.result?.messages ?? []),
      Number(step.status !== 'completed'),
      step.at,
    )
    this.#run('UPDATE conversations SET updated_at = ? WHERE id = ?', step.at, conversation)
  }

  #claimNext(conversation: string): TurnRow | undefined {
    const alive = this.#liveTurns(conversation)
    const next = alive[0]
    if (next?.status !== 'queued') return undefined
    this.#run(`UPDATE turns SET status = 'running', epoch = ? WHERE id = ?`, this.#epoch, next.id)
    return this.#turn(next.id)
  }

  async turn(id: string): Promise<TurnRow | undefined> {
    return this.#turn(id)
  }

  #turn(id: string): TurnRow | undefined {
    const row = this.#get<TurnColumns>(`SELECT ${turnColumns} WHERE turns.id = ?`, id)
    return row && toTurn(row)
  }

  async result(turn: string): Promise<TurnResult | undefined> {
    const row = this.#get<{ result: string | null }>('SELECT result FROM turns WHERE id = ?', turn)
    return row?.result ? (JSON.parse(row.result) as TurnResult) : undefined
  }

  async read(turn: string, after: number, limit: number): Promise<readonly NumberedEvent[]> {
    const rows = this.#prepare(
      `SELECT body FROM events WHERE turn = (SELECT number FROM turns WHERE id = ?) AND seq > ? ORDER BY seq LIMIT ?`,
    ).iterate(turn, after, limit) as IterableIterator<{ body: string }>
    const events: NumberedEvent[] = []
    let length = 0
    for (const { body } of rows) {
      events.push(JSON.parse(body) as NumberedEvent)
      length += body.length
      if (length >= maxPageLength) break
    }
    return events
  }

  async recover(): Promise<Recovered> {
    return this.#database.transaction(() => {
      this.#run('UPDATE turns SET epoch = ? WHERE ended_at IS NULL', this.#epoch)
      const alive = this.#all<TurnColumns>(
        `SELECT ${turnColumns} WHERE turns.ended_at IS NULL ORDER BY turns.number`,
      ).map(toTurn)
      const busy = new Set(alive.filter((turn) => turn.status !== 'queued').map((turn) => turn.conversation.id))
      const idle = new Set(alive.map((turn) => turn.conversation.id).filter((id) => !busy.has(id)))
      return {
        broken: alive.filter((turn) => turn.status === 'running'),
        waiting: alive.filter((turn) => turn.status === 'waiting'),
        claimed: [...idle].map((conversation) => this.#claimNext(conversation)!),
      }
    })()
  }

  async conversation(owner: Owner, nameOrId: string): Promise<ConversationRef | undefined> {
    const row = this.#get<ConversationColumns>(
      'SELECT * FROM conversations WHERE bot = ? AND key = ? AND (id = ? OR (user = ? AND name = ?))',
      owner.bot,
      owner.key,
      nameOrId,
      owner.user ?? '',
      nameOrId,
    )
    return row && { id: row.id, name: row.name }
  }

  async openConversation(owner: Owner, name: string, newId: string, at: number): Promise<ConversationRef> {
    const open = this.#database.transaction(() => this.#findOrMake(owner, { name }, newId, at)!)
    return open()
  }

  async thread(conversation: string): Promise<Json | undefined> {
    const row = this.#get<{ thread: string | null }>('SELECT thread FROM conversations WHERE id = ?', conversation)
    return row?.thread ? (JSON.parse(row.thread) as Json) : undefined
  }

  async conversations(owner: Owner, { before, limit }: PageOptions): Promise<Page<ConversationItem>> {
    const rows = this.#all<{ id: string; name: string; created_at: number; updated_at: number }>(
      `SELECT id, name, created_at, updated_at FROM conversations
       WHERE bot = ? AND key = ? AND user = ? AND (updated_at, id) < (?, ?)
       ORDER BY updated_at DESC, id DESC LIMIT ?`,
      owner.bot,
      owner.key,
      owner.user ?? '',
      ...placeBefore(before),
      limit + 1,
    )
    return toPage(
      rows,
      limit,
      (row) => `${row.updated_at}.${row.id}`,
      (row) => ({
        id: row.id,
        name: row.name,
        createdAt: row.created_at,
        updatedAt: row.updated_at,
      }),
    )
  }

  async records(conversation: string, { before, limit }: PageOptions): Promise<Page<RecordItem>> {
    const rows = this.#all<{
      number: number
      turn: string
      role: RecordItem['role']
      text: string
      partial: number
      at: number
    }>(
      `SELECT number, turn, role, text, partial, at FROM records WHERE conversation = ? AND number < ?
       ORDER BY number DESC LIMIT ?`,
      conversation,
      before === undefined ? Number.MAX_SAFE_INTEGER : Number(before),
      limit + 1,
    )
    return toPage(
      rows,
      limit,
      (row) => String(row.number),
      (row) => ({
        id: String(row.number),
        role: row.role,
        text: row.text,
        turn: row.turn,
        at: row.at,
        ...(row.partial ? { partial: true } : {}),
      }),
    )
  }

  async history(conversation: string, limit: number, before?: string): Promise<readonly HistoryMessage[]> {
    // By turn and not by time: a message that had to queue comes after the answer it waited for.
    return this.#all<HistoryMessage>(
      `SELECT role, text FROM records
       WHERE conversation = ? AND turn_number < COALESCE((SELECT number FROM turns WHERE id = ?), ${Number.MAX_SAFE_INTEGER})
         AND partial = 0 AND text <> ''
       ORDER BY turn_number DESC, number DESC LIMIT ?`,
      conversation,
      before ?? null,
      limit,
    ).toReversed()
  }

  async backlog(): Promise<Backlog> {
    const { queued } = this.#get<{ queued: number }>(
      `SELECT COUNT(*) AS queued FROM turns WHERE ended_at IS NULL AND status = 'queued'`,
    )!
    const { outbox } = this.#get<{ outbox: number }>(`SELECT COUNT(*) AS outbox FROM outbox WHERE state = 'pending'`)!
    return { queued, outbox }
  }

  async liveTurns(conversation: string): Promise<readonly TurnRow[]> {
    return this.#liveTurns(conversation)
  }

  #liveTurns(conversation: string): TurnRow[] {
    return this.#all<TurnColumns>(
      `SELECT ${turnColumns} WHERE turns.conversation = ? AND turns.ended_at IS NULL ORDER BY turns.number`,
      conversation,
    ).map(toTurn)
  }

  async nextTurn(conversation: string, after?: string): Promise<TurnRow | undefined> {
    const row =
      after === undefined
        ? this.#get<TurnColumns>(
            `SELECT ${turnColumns} WHERE turns.conversation = ? ORDER BY turns.number DESC LIMIT 1`,
            conversation,
          )
        : this.#get<TurnColumns>(
            `SELECT ${turnColumns} WHERE turns.conversation = ? AND turns.number > (SELECT number FROM turns WHERE id = ?)
             ORDER BY turns.number LIMIT 1`,
            conversation,
            after,
          )
    return row && toTurn(row)
  }

  async compact(endedBefore: number, limit: number): Promise<number> {
    const compact = this.#database.transaction(() => {
      const turns = this.#all<{ number: number }>(
        'SELECT number FROM turns WHERE compacted = 0 AND ended_at < ? ORDER BY ended_at LIMIT ?',
        endedBefore,
        limit,
      )
      for (const { number } of turns) {
        this.#run(`DELETE FROM events WHERE turn = ? AND json_extract(body, '$.type') NOT IN (${keptTypes})`, number)
        this.#run('UPDATE turns SET compacted = 1 WHERE number = ?', number)
      }
      return turns.length
    })
    return compact()
  }

  async prune(endedBefore: number, limit: number): Promise<number> {
    return this.#run(
      `DELETE FROM turns WHERE number IN (
         SELECT number FROM turns WHERE compacted = 1 AND ended_at < ?
           AND NOT EXISTS (SELECT 1 FROM outbox WHERE outbox.turn = turns.id AND outbox.state = 'pending')
         ORDER BY ended_at LIMIT ?)`,
      endedBefore,
      limit,
    ).changes
  }

  async forget(conversation: string): Promise<void> {
    this.#run('DELETE FROM conversations WHERE id = ?', conversation)
  }

  async audit({ what, by, bot, turn, details }: AuditEntry, at: number): Promise<void> {
    this.#run(
      'INSERT INTO audit (at, what, by, bot, turn, details) VALUES (?, ?, ?, ?, ?, ?)',
      at,
      what,
      by,
      bot ?? null,
      turn ?? null,
      details ? JSON.stringify(details) : null,
    )
  }

  async audited({ before, limit }: PageOptions): Promise<Page<AuditItem>> {
    const rows = this.#all<{ number: number; at: number; details: string | null } & Omit<AuditEntry, 'details'>>(
      'SELECT * FROM audit WHERE number < ? ORDER BY number DESC LIMIT ?',
      before === undefined ? Number.MAX_SAFE_INTEGER : Number(before),
      limit + 1,
    )
    return toPage(
      rows,
      limit,
      (row) => String(row.number),
      ({ number, details, bot, turn, ...row }) => ({
        id: String(number),
        ...row,
        ...(bot ? { bot } : {}),
        ...(turn ? { turn } : {}),
        ...(details ? { details: JSON.parse(details) as JsonObject } : {}),
      }),
    )
  }

  async dueDeliveries(
    now: number,
    underWay: readonly string[],
  ): Promise<{ due: readonly Delivery[]; nextAt?: number }> {
    const due = this.#all<Delivery>(
      // A few of each channel, so that one with many dead ones, or one that is gone, hides nobody else's.
      `SELECT id, channel, turn, type, at, attempts FROM (
         SELECT *, ROW_NUMBER() OVER (PARTITION BY channel ORDER BY number) AS place FROM outbox
         WHERE state = 'pending' AND next_at <= ? AND id NOT IN (SELECT value FROM json_each(?)))
       WHERE place <= 10 ORDER BY number`,
      now,
      JSON.stringify(underWay),
    )
    const next = this.#get<{ at: number | null }>(
      `SELECT MIN(next_at) AS at FROM outbox WHERE state = 'pending' AND next_at > ?`,
      now,
    )
    return { due, ...(next?.at ? { nextAt: next.at } : {}) }
  }

  async settleDelivery(id: string, settled: DeliveryState): Promise<void> {
    this.#run(
      'UPDATE outbox SET state = ?, attempts = attempts + 1, next_at = COALESCE(?, next_at) WHERE id = ?',
      settled.state,
      settled.state === 'pending' ? settled.retryAt : null,
      id,
    )
  }

  async addFile(file: StoredFile, at: number): Promise<void> {
    this.#run(
      'INSERT INTO files (id, conversation, name, bytes, mime, upstream, at) VALUES (?, ?, ?, ?, ?, ?, ?)',
      file.id,
      file.conversation,
      file.name,
      file.bytes,
      file.mime,
      JSON.stringify(file.upstream),
      at,
    )
  }

  async files(conversation: string, ids: readonly string[]): Promise<readonly FileRef[]> {
    return ids.flatMap((id) => {
      const row = this.#get<Omit<FileRef, 'upstream'> & { upstream: string }>(
        'SELECT id, name, bytes, mime, upstream FROM files WHERE id = ? AND conversation = ?',
        id,
        conversation,
      )
      return row ? [{ ...row, upstream: JSON.parse(row.upstream) as Json }] : []
    })
  }

  async close(): Promise<void> {
    this.#database.close()
    this.#lock?.close()
  }

  #prepare(sql: string): Database.Statement {
    const known = this.#statements.get(sql)
    if (known) return known
    const statement = this.#database.prepare(sql)
    this.#statements.set(sql, statement)
    return statement
  }

  #run(sql: string, ...values: readonly unknown[]): Database.RunResult {
    return this.#prepare(sql).run(...values)
  }

  #get<Row>(sql: string, ...values: readonly unknown[]): Row | undefined {
    return this.#prepare(sql).get(...values) as Row | undefined
  }

  #all<Row>(sql: string, ...values: readonly unknown[]): Row[] {
    return this.#prepare(sql).all(...values) as Row[]
  }
}

const failedStep = (turn: TurnRow, result: TurnResult, at: number): Append => ({
  turn: turn.id,
  epoch: turn.epoch,
  events: [{ seq: turn.seq + 1, type: 'turn.failed', text: '', error: result.error! }],
  status: 'failed',
  result,
  at,
})

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
  createdAt: row.created_at,
})

/** A cursor is the place of the oldest item of the page it came with. */
function placeBefore(cursor: string | undefined): [time: number, id: string] {
  const [time, id] = cursor?.split('.', 2) ?? []
  return time === undefined ? [Number.MAX_SAFE_INTEGER, ''] : [Number(time), id ?? '']
}

/** Rows come newest first, with one more than the page holds when there is another. */
function toPage<Row, Item>(
  rows: readonly Row[],
  limit: number,
  place: (row: Row) => string,
  item: (row: Row) => Item,
): Page<Item> {
  const shown = rows.slice(0, limit)
  const oldest = shown.at(-1)
  return {
    items: shown.map(item).toReversed(),
    ...(rows.length > limit && oldest ? { before: place(oldest) } : {}),
  }
}
