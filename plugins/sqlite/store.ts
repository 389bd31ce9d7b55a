import type Database from 'better-sqlite3'
import type {
  AcceptInput,
  AcceptResult,
  Append,
  Appended,
  AuditEntry,
  AuditItem,
  AuditSearch,
  Backlog,
  ConversationDetails,
  ConversationItem,
  ConversationPageOptions,
  ConversationRow,
  ConversationSearch,
  Delivery,
  DeliveryState,
  FeedbackItem,
  HistoryOptions,
  Lane,
  NewFeedback,
  NewConversation,
  OutboxItem,
  OutboxRetry,
  Owner,
  Page,
  PageOptions,
  RecordItem,
  Recovered,
  Store,
  StoredFile,
  TimedEvent,
  TurnItem,
  TurnPage,
  TurnPageOptions,
  TurnResult,
  TurnRow,
  TurnSearch,
} from '../../core/store.ts'
import type { NumberedEvent } from '../../core/events.ts'
import type { ConversationRef, FileRef, HistoryMessage, Json, JsonObject } from '../../core/message.ts'
import type {
  ChangedRecords,
  FoundRecords,
  NewRecord,
  RecordChange,
  RecordCondition,
  RecordQuery,
  RecordScope,
  StoredRecord,
} from '../../core/records.ts'
import { BotRecordTable } from './bot-records.ts'
import { ConversationTable } from './conversations.ts'
import { FeedbackTable } from './feedback.ts'
import { OutboxTable } from './outbox.ts'
import { RecordTable } from './records.ts'
import { searchWindow, Sql, toSearchPage } from './sql.ts'
import { TurnTable } from './turns.ts'

/** The right to be the one hub of a file; closing it gives it up. */
export interface Lock {
  close(): void
}

/** The store on an open database. Every method is one commit; better-sqlite3 is synchronous inside it. */
export class SqliteStore implements Store {
  readonly #sql: Sql
  readonly #lock: Lock | undefined
  readonly #conversations: ConversationTable
  readonly #records: RecordTable
  readonly #botRecords: BotRecordTable
  readonly #outbox: OutboxTable
  readonly #feedback: FeedbackTable
  readonly #turns: TurnTable

  constructor(database: Database.Database, lock?: Lock) {
    const sql = new Sql(database)
    this.#sql = sql
    this.#lock = lock
    this.#conversations = new ConversationTable(sql)
    this.#records = new RecordTable(sql)
    this.#botRecords = new BotRecordTable(sql, this.#conversations)
    this.#outbox = new OutboxTable(sql)
    this.#feedback = new FeedbackTable(sql)
    const { boot } = sql.get<{ boot: number }>('UPDATE meta SET boot = boot + 1 RETURNING boot')!
    this.#turns = new TurnTable(sql, boot, {
      conversations: this.#conversations,
      records: this.#records,
      outbox: this.#outbox,
    })
    // What a hub that was killed has left.
    sql.atomically(() => this.#turns.settle())
  }

  async accept(input: AcceptInput): Promise<AcceptResult> {
    return this.#sql.together(() => this.#turns.accept(input))
  }

  async append(steps: readonly Append[]): Promise<Appended> {
    return this.#sql.atOnce(() => this.#turns.append(steps))
  }

  async turn(id: string): Promise<TurnRow | undefined> {
    return this.#turns.turn(id)
  }

  async result(turn: string): Promise<TurnResult | undefined> {
    return this.#turns.result(turn)
  }

  async read(turn: string, after: number, limit: number): Promise<readonly NumberedEvent[]> {
    return this.#turns.read(turn, after, limit)
  }

  async readTimed(turn: string, after: number, limit: number): Promise<readonly TimedEvent[]> {
    return this.#turns.readTimed(turn, after, limit)
  }

  async searchTurns(search: TurnSearch): Promise<Page<TurnItem>> {
    return this.#turns.search(search)
  }

  async searchConversations(search: ConversationSearch): Promise<Page<ConversationRow>> {
    return this.#conversations.search(search)
  }

  async recover(at: number): Promise<Recovered> {
    return this.#sql.atomically(() => this.#turns.recover(at))
  }

  async liveTurns(conversation: string): Promise<readonly TurnRow[]> {
    return this.#turns.live(conversation)
  }

  async turnsOf(conversation: string): Promise<readonly string[]> {
    return this.#turns.idsOf(conversation)
  }

  async nextTurn(conversation: string, after?: string): Promise<TurnRow | undefined> {
    return this.#turns.next(conversation, after)
  }

  async compact(endedBefore: number, limit: number): Promise<number> {
    return this.#sql.atomically(() => this.#turns.compact(endedBefore, limit))
  }

  async prune(endedBefore: number, limit: number): Promise<number> {
    return this.#sql.atomically(() => this.#turns.prune(endedBefore, limit))
  }

  async conversation(owner: Owner, nameOrId: string): Promise<ConversationRef | undefined> {
    return this.#conversations.named(owner, nameOrId)
  }

  async openConversation(owner: Owner, name: string, newId: string, at: number): Promise<ConversationRef> {
    return this.#sql.atomically(() => this.#conversations.findOrMake(owner, { name }, newId, at)!)
  }

  async addConversation(conversation: NewConversation, at: number): Promise<ConversationRow> {
    return this.#sql.atomically(() => this.#conversations.add(conversation, at))
  }

  async conversationOf(key: string, id: string): Promise<ConversationRow | undefined> {
    return this.#conversations.ofKey(key, id)
  }

  async anyConversation(id: string): Promise<ConversationRow | undefined> {
    return this.#conversations.any(id)
  }

  async handOver(id: string, takenBy: string | undefined): Promise<void> {
    this.#conversations.handOver(id, takenBy)
  }

  async conversationsOf(owner: Pick<Owner, 'bot' | 'key'>, options: PageOptions): Promise<Page<ConversationRow>> {
    return this.#conversations.listOfKey(owner, options)
  }

  async setMetadata(conversation: string, metadata: JsonObject): Promise<void> {
    this.#conversations.setMetadata(conversation, metadata)
  }

  async clear(conversation: string): Promise<void> {
    this.#conversations.clear(conversation)
  }

  async thread(conversation: string): Promise<Json | undefined> {
    return this.#conversations.thread(conversation)
  }

  async conversations(owner: Owner, options: ConversationPageOptions): Promise<Page<ConversationItem>> {
    return this.#conversations.list(owner, options)
  }

  async countConversations(owner: Owner, without?: string): Promise<number> {
    return this.#conversations.count(owner, without)
  }

  async retitle(conversation: string, title: string): Promise<void> {
    this.#conversations.retitle(conversation, title)
  }

  async details(conversation: string): Promise<ConversationDetails | undefined> {
    return this.#conversations.details(conversation)
  }

  async sandboxUsers(owner: Pick<Owner, 'bot' | 'key'>, sandbox: string): Promise<readonly string[]> {
    return this.#conversations.sandboxUsers(owner, sandbox)
  }

  async forget(conversation: string, owed?: Omit<Delivery, 'attempts'>): Promise<void> {
    this.#sql.atomically(() => {
      this.#sql.wiping(() => this.#turns.forget(conversation))
      if (owed) this.#outbox.add(owed)
    })
  }

  async records(conversation: string, options: PageOptions): Promise<Page<RecordItem>> {
    return this.#records.list(conversation, options)
  }

  async recordsByTurn(conversation: string, options: TurnPageOptions): Promise<TurnPage> {
    return this.#records.byTurn(conversation, options)
  }

  async addFeedback(feedback: NewFeedback, at: number): Promise<FeedbackItem> {
    return this.#feedback.add(feedback, at)
  }

  async feedback(of: { readonly turn: string } | Owner, options: PageOptions): Promise<Page<FeedbackItem>> {
    return this.#feedback.page(of, options)
  }

  async findRecords(scope: RecordScope, query: RecordQuery): Promise<FoundRecords> {
    return this.#botRecords.find(scope, query)
  }

  async addRecords(owner: Owner, records: readonly NewRecord[], at: number): Promise<readonly StoredRecord[]> {
    return this.#sql.together(() => this.#botRecords.add(owner, records, at))
  }

  async changeRecords(scope: RecordScope, change: RecordChange, at: number): Promise<ChangedRecords> {
    return this.#sql.together(() => this.#botRecords.change(scope, change, at))
  }

  async deleteRecords(scope: RecordScope, where: RecordCondition, limit?: number): Promise<number> {
    return this.#sql.together(() => this.#botRecords.delete(scope, where, limit))
  }

  async history(conversation: string, options: HistoryOptions): Promise<readonly HistoryMessage[]> {
    return this.#records.history(conversation, options)
  }

  async backlog(): Promise<Backlog> {
    return { queued: this.#turns.queued(), outbox: this.#outbox.pending() }
  }

  async dueDeliveries(
    now: number,
    underWay: readonly string[],
  ): Promise<{ due: readonly Delivery[]; nextAt?: number }> {
    return this.#outbox.due(now, underWay)
  }

  async settleDelivery(id: string, state: DeliveryState): Promise<void> {
    this.#sql.atomically(() => this.#outbox.settle(id, state))
  }

  async progress(turn: string, lane: Lane): Promise<Json | undefined> {
    return this.#outbox.progress(turn, lane)
  }

  async keepProgress(turn: string, lane: Lane, progress: Json): Promise<void> {
    this.#outbox.keepProgress(turn, lane, progress)
  }

  async undelivered(options: PageOptions): Promise<Page<OutboxItem> & { readonly closed: readonly Lane[] }> {
    return this.#outbox.undelivered(options)
  }

  async retryDeliveries(which: OutboxRetry, at: number): Promise<number> {
    return this.#sql.atomically(() => this.#outbox.retry(which, at))
  }

  async audit({ what, by, bot, turn, details }: AuditEntry, at: number): Promise<void> {
    this.#sql.run(
      'INSERT INTO audit (at, what, by, bot, turn, details) VALUES (?, ?, ?, ?, ?, ?)',
      at,
      what,
      by,
      bot ?? null,
      turn ?? null,
      details ? JSON.stringify(details) : null,
    )
  }

  async audited({ before, limit, what, bots }: AuditSearch): Promise<Page<AuditItem>> {
    const window = searchWindow(this.#sql, 'audit', before)
    const rows = this.#sql.all<{ number: number; at: number; details: string | null } & Omit<AuditEntry, 'details'>>(
      `SELECT * FROM audit WHERE number < @before AND number >= @from AND (@what IS NULL OR what = @what)
         AND (@bots IS NULL OR bot IS NULL OR bot IN (SELECT value FROM json_each(@bots)))
       ORDER BY number DESC LIMIT @count`,
      {
        before: window.before,
        from: window.from,
        what: what ?? null,
        bots: bots ? JSON.stringify(bots) : null,
        count: limit + 1,
      },
    )
    return toSearchPage(
      window,
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

  async addFile(file: StoredFile, at: number): Promise<void> {
    this.#sql.run(
      'INSERT OR IGNORE INTO files (id, conversation, name, bytes, mime, upstream, at) VALUES (?, ?, ?, ?, ?, ?, ?)',
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
      const row = this.#sql.get<FileColumns>(
        'SELECT id, name, bytes, mime, upstream FROM files WHERE id = ? AND conversation = ?',
        id,
        conversation,
      )
      return row ? [toFile(row)] : []
    })
  }

  async filesOf(conversation: string): Promise<readonly FileRef[]> {
    return this.#sql
      .all<FileColumns>(
        'SELECT id, name, bytes, mime, upstream FROM files WHERE conversation = ? ORDER BY id',
        conversation,
      )
      .map(toFile)
  }

  async close(): Promise<void> {
    this.#sql.close(() => this.#turns.settle())
    this.#lock?.close()
  }
}

type FileColumns = Omit<FileRef, 'upstream'> & { readonly upstream: string }

const toFile = (row: FileColumns): FileRef => ({ ...row, upstream: JSON.parse(row.upstream) as Json })
