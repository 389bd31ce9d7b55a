import type { NumberedEvent } from '../../core/events.ts'
import type {
  AcceptInput,
  ConversationDetails,
  ConversationItem,
  ConversationPageOptions,
  ConversationRow,
  ConversationSearch,
  NewConversation,
  Owner,
  Page,
  PageOptions,
} from '../../core/store.ts'
import type { ConversationRef, Json, JsonObject } from '../../core/message.ts'
import { searchReach, toPage } from './sql.ts'
import type { Sql } from './sql.ts'

interface ConversationColumns extends DetailColumns {
  readonly bot: string
  readonly key: string
  readonly user: string
  readonly unclaimed: number
  readonly metadata: string | null
  readonly section: number
  readonly taken_by: string | null
}

/** The table of conversations. */
export class ConversationTable {
  readonly #sql: Sql

  constructor(sql: Sql) {
    this.#sql = sql
  }

  find(owner: Owner, wanted: AcceptInput['conversation']): ConversationRef | undefined {
    if (wanted === 'new') return undefined
    const found =
      'id' in wanted
        ? this.#sql.get<ConversationColumns>(
            "SELECT * FROM conversations WHERE id = ? AND key = ? AND (bot = ? OR bot = '')",
            wanted.id,
            owner.key,
            owner.bot,
          )
        : this.#sql.get<ConversationColumns>(
            'SELECT * FROM conversations WHERE bot = ? AND key = ? AND user = ? AND name = ?',
            owner.bot,
            owner.key,
            owner.user ?? '',
            wanted.name,
          )
    return found && { id: found.id, name: found.name }
  }

  findOrMake(
    owner: Owner,
    wanted: AcceptInput['conversation'],
    newId: string,
    at: number,
    ephemeral = false,
  ): ConversationRef | undefined {
    const found = this.find(owner, wanted)
    if (found && wanted !== 'new' && 'id' in wanted) this.#claim(found.id, owner)
    if (found || (wanted !== 'new' && 'id' in wanted)) return found
    const name = wanted === 'new' ? newId : wanted.name
    this.#sql.run(
      `INSERT INTO conversations (id, bot, key, user, name, created_at, updated_at, ephemeral)
       VALUES (?, ?, ?, ?, ?, ?, ?, ?)`,
      newId,
      owner.bot,
      owner.key,
      owner.user ?? '',
      name,
      at,
      at,
      Number(ephemeral),
    )
    return { id: newId, name }
  }

  /** The first message in a conversation says whose it is, as far as that was not said before. */
  #claim(id: string, { bot, user = '' }: Owner): void {
    this.#sql.run(
      `UPDATE conversations SET bot = ?, user = CASE user WHEN '' THEN ? ELSE user END, unclaimed = 0
       WHERE id = ? AND unclaimed = 1`,
      bot,
      user,
      id,
    )
  }

  add({ id, key, bot = '', user = '', metadata }: NewConversation, at: number): ConversationRow {
    this.#sql.run(
      `INSERT INTO conversations (id, bot, key, user, name, unclaimed, metadata, created_at, updated_at)
       VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`,
      id,
      bot,
      key,
      user,
      id,
      Number(bot === '' || user === ''),
      metadata ? JSON.stringify(metadata) : null,
      at,
      at,
    )
    return this.ofKey(key, id)!
  }

  ofKey(key: string, id: string): ConversationRow | undefined {
    const row = this.#sql.get<ConversationColumns>('SELECT * FROM conversations WHERE id = ? AND key = ?', id, key)
    return row && toRow(row)
  }

  any(id: string): ConversationRow | undefined {
    const row = this.#sql.get<ConversationColumns>('SELECT * FROM conversations WHERE id = ?', id)
    return row && toRow(row)
  }

  handOver(id: string, takenBy: string | undefined): void {
    this.#sql.run('UPDATE conversations SET taken_by = ? WHERE id = ?', takenBy ?? null, id)
  }

  /** Whether an operator has it. */
  isTaken(id: string): boolean {
    return this.#sql.get('SELECT 1 FROM conversations WHERE id = ? AND taken_by IS NOT NULL', id) !== undefined
  }

  setMetadata(conversation: string, metadata: JsonObject): void {
    this.#sql.run('UPDATE conversations SET metadata = ? WHERE id = ?', JSON.stringify(metadata), conversation)
  }

  /** What is shown to a bot begins behind the last record. */
  clear(conversation: string): void {
    this.#sql.run(
      `UPDATE conversations SET thread = NULL,
         section = COALESCE((SELECT MAX(number) FROM records WHERE conversation = conversations.id), section)
       WHERE id = ?`,
      conversation,
    )
  }

  /** By its id, or by the name its owner gave it. */
  named(owner: Owner, nameOrId: string): ConversationRef | undefined {
    const row = this.#sql.get<ConversationColumns>(
      `SELECT * FROM conversations
       WHERE key = ? AND ((id = ? AND (bot = ? OR bot = '')) OR (bot = ? AND user = ? AND name = ?))`,
      owner.key,
      nameOrId,
      owner.bot,
      owner.bot,
      owner.user ?? '',
      nameOrId,
    )
    return row && { id: row.id, name: row.name }
  }

  thread(conversation: string): Json | undefined {
    const row = this.#sql.get<{ thread: string | null }>('SELECT thread FROM conversations WHERE id = ?', conversation)
    return row?.thread ? (JSON.parse(row.thread) as Json) : undefined
  }

  setThread(conversation: string, thread: Json): void {
    this.#sql.run('UPDATE conversations SET thread = ? WHERE id = ?', JSON.stringify(thread), conversation)
  }

  /** Something was said in it. */
  touch(conversation: string, at: number): void {
    this.#sql.run('UPDATE conversations SET updated_at = ? WHERE id = ?', at, conversation)
  }

  list(owner: Owner, { before, limit, skip = 0, without }: ConversationPageOptions): Page<ConversationItem> {
    const rows = this.#sql.all<DetailColumns>(
      `SELECT ${detailColumns} FROM conversations
       WHERE bot = ? AND key = ? AND user = ? AND ephemeral = 0 AND (updated_at, id) < (?, ?) AND name IS NOT ?
       ORDER BY updated_at DESC, id DESC LIMIT ? OFFSET ?`,
      owner.bot,
      owner.key,
      owner.user ?? '',
      ...placeBefore(before),
      without ?? null,
      limit + 1,
      skip,
    )
    return toPage(rows, limit, (row) => `${row.updated_at}.${row.id}`, toItem)
  }

  count({ bot, key, user = '' }: Owner, without: string | undefined): number {
    return this.#sql.get<{ count: number }>(
      'SELECT COUNT(*) AS count FROM conversations WHERE bot = ? AND key = ? AND user = ? AND ephemeral = 0 AND name IS NOT ?',
      bot,
      key,
      user,
      without ?? null,
    )!.count
  }

  retitle(conversation: string, title: string): void {
    this.#sql.run('UPDATE conversations SET title = ? WHERE id = ?', title, conversation)
  }

  details(conversation: string): ConversationDetails | undefined {
    const row = this.#sql.get<DetailColumns>(`SELECT ${detailColumns} FROM conversations WHERE id = ?`, conversation)
    if (!row) return undefined
    const sandboxes = this.#sql.all<ConversationDetails['sandboxes'][number]>(
      'SELECT name, blueprint FROM sandboxes WHERE conversation = ? ORDER BY name',
      conversation,
    )
    return { ...toItem(row), ...(row.status === null ? {} : { status: row.status }), sandboxes }
  }

  sandboxUsers({ bot, key }: Pick<Owner, 'bot' | 'key'>, sandbox: string): readonly string[] {
    return this.#sql
      .all<{ id: string }>(
        `SELECT c.id FROM sandboxes JOIN conversations c ON c.id = sandboxes.conversation
         WHERE sandboxes.name = ? AND c.bot = ? AND c.key = ?`,
        sandbox,
        bot,
        key,
      )
      .map(({ id }) => id)
  }

  /** What an event says of its conversation as a whole. */
  note(conversation: string, event: NumberedEvent): void {
    if (event.type === 'conversation.updated') {
      this.#sql.run(
        'UPDATE conversations SET title = COALESCE(?, title), status = COALESCE(?, status) WHERE id = ?',
        event.title ?? null,
        event.status ?? null,
        conversation,
      )
    }
    if (event.type !== 'sandbox.started' && event.type !== 'sandbox.ready') return
    this.#sql.run(
      `INSERT INTO sandboxes (name, conversation, blueprint) VALUES (?, ?, ?)
       ON CONFLICT DO UPDATE SET blueprint = excluded.blueprint`,
      event.name,
      conversation,
      event.blueprint,
    )
  }

  /** An ephemeral one goes with its last turn. */
  forgetSpent(conversation: string): void {
    this.#sql.run(
      `DELETE FROM conversations WHERE id = ? AND ephemeral = 1
         AND NOT EXISTS (SELECT 1 FROM turns WHERE turns.conversation = conversations.id)`,
      conversation,
    )
  }

  listOfKey({ bot, key }: Pick<Owner, 'bot' | 'key'>, { before, limit }: PageOptions): Page<ConversationRow> {
    const rows = this.#sql.all<ConversationColumns>(
      `SELECT * FROM conversations WHERE bot = ? AND key = ? AND ephemeral = 0 AND (updated_at, id) < (?, ?)
       ORDER BY updated_at DESC, id DESC LIMIT ?`,
      bot,
      key,
      ...placeBefore(before),
      limit + 1,
    )
    return toPage(rows, limit, (row) => `${row.updated_at}.${row.id}`, toRow)
  }

  /** The latest made first: that order costs nobody anything while messages come. */
  search({ bots, bot, key, user, taken, ephemeral = false, before, limit }: ConversationSearch): Page<ConversationRow> {
    const values = {
      before: before ?? '~',
      bots: bots ? JSON.stringify(bots) : null,
      bot: bot ?? null,
      key: key ?? null,
      user: user ?? null,
      taken: taken ? 1 : null,
      ephemeral: Number(ephemeral),
      count: limit + 1,
    }
    const rows = this.#sql.all<ConversationColumns>(
      `SELECT * FROM (SELECT * FROM conversations WHERE id < @before AND (ephemeral = 0 OR @ephemeral) ORDER BY id DESC LIMIT ${searchReach})
       WHERE (@bots IS NULL OR bot IN (SELECT value FROM json_each(@bots))) AND (@bot IS NULL OR bot = @bot)
         AND (@key IS NULL OR key = @key) AND (@user IS NULL OR user = @user)
         AND (@taken IS NULL OR taken_by IS NOT NULL)
       ORDER BY id DESC LIMIT @count`,
      values,
    )
    const page = toPage(rows, limit, (row) => row.id, toRow)
    if (page.before !== undefined) return page
    const last = this.#sql.get<{ id: string }>(
      `SELECT id FROM conversations WHERE id < ? AND (ephemeral = 0 OR ?) ORDER BY id DESC LIMIT 1 OFFSET ${searchReach - 1}`,
      values.before,
      values.ephemeral,
    )
    return last ? { ...page, before: last.id } : page
  }

  /** With everything that hangs on it. */
  forget(conversation: string): void {
    this.#sql.run('DELETE FROM conversations WHERE id = ?', conversation)
  }
}

const detailColumns = 'id, name, title, status, created_at, updated_at'

interface DetailColumns {
  readonly id: string
  readonly name: string
  readonly title: string | null
  readonly status: string | null
  readonly created_at: number
  readonly updated_at: number
}

const toItem = (row: DetailColumns): ConversationItem => ({
  id: row.id,
  name: row.name,
  ...(row.title === null ? {} : { title: row.title }),
  createdAt: row.created_at,
  updatedAt: row.updated_at,
})

const toRow = (row: ConversationColumns): ConversationRow => ({
  ...toItem(row),
  key: row.key,
  ...(row.bot === '' ? {} : { bot: row.bot }),
  ...(row.user === '' ? {} : { user: row.user }),
  ...(row.metadata === null ? {} : { metadata: JSON.parse(row.metadata) as JsonObject }),
  ...(row.taken_by === null ? {} : { takenBy: row.taken_by }),
  section: row.section,
})

/** A cursor is the place of the oldest item of the page it came with. */
function placeBefore(cursor: string | undefined): [time: number, id: string] {
  const [time, id] = cursor?.split('.', 2) ?? []
  return time === undefined ? [Number.MAX_SAFE_INTEGER, ''] : [Number(time), id ?? '']
}
