import { setImmediate } from 'node:timers/promises'
import type { Audit } from './audit.ts'
import type { Conversations } from './conversations.ts'
import { scopeOf } from './conversations.ts'
import type { Json } from './message.ts'
import type { ConversationRow, Store, TurnRow } from './store.ts'

const pageLength = 200

/** Whose data it is: of a user, as every key has them, or as one does. */
export interface UserOf {
  readonly user: string
  readonly key?: string | undefined
  /** Only what they have with these bots. */
  readonly bots?: readonly string[] | undefined
}

/** One thing that is kept of a user. */
export interface UserLine {
  readonly type: 'conversation' | 'record' | 'turn' | 'event' | 'feedback' | 'file'
  readonly [field: string]: unknown
}

/** What user data is read from and deleted by. */
export interface UserDataOptions {
  readonly store: Store
  readonly conversations: Pick<Conversations, 'discardAny'>
  readonly audit: Pick<Audit, 'record'>
}

/** Everything that is kept of one user, to be handed out or deleted. */
export class UserData {
  readonly #options: UserDataOptions

  constructor(options: UserDataOptions) {
    this.#options = options
  }

  /**
   * Everything that is kept: conversations, each with its records, its turns with their results, events and feedback,
   * and the names of its files; times as ISO 8601. `by` is who asks.
   */
  async *export(of: UserOf, by: string): AsyncGenerator<UserLine, void> {
    this.#options.audit.record({ what: 'user exported', by, details: detailsOf(of) })
    for await (const line of this.#lines(of)) yield dated(line)
  }

  async *#lines(of: UserOf): AsyncGenerator<UserLine> {
    for await (const conversation of this.#conversations(of)) {
      const { takenBy: _, section: __, ...shown } = conversation
      yield { type: 'conversation', ...shown }
      yield* this.#inside(conversation)
    }
  }

  /** Deletes all of it, upstream through the outbox, and says how many conversations there were. Audit entries stay. */
  async erase(of: UserOf, by: string): Promise<number> {
    let count = 0
    for await (const conversation of this.#conversations(of)) {
      await this.#options.conversations.discardAny(conversation)
      count += 1
    }
    this.#options.audit.record({ what: 'user erased', by, details: { ...detailsOf(of), conversations: count } })
    return count
  }

  async *#conversations({ user, key, bots }: UserOf): AsyncGenerator<ConversationRow> {
    let before: string | undefined
    do {
      const page = await this.#options.store.searchConversations({
        user,
        key,
        bots,
        ephemeral: true,
        before,
        limit: pageLength,
      })
      yield* page.items.toReversed()
      before = page.before
      await setImmediate()
    } while (before !== undefined)
  }

  async *#inside(conversation: ConversationRow): AsyncGenerator<UserLine> {
    const { store } = this.#options
    const place = { conversation: conversation.id }
    for (const { upstream: _, ...file } of await store.filesOf(conversation.id))
      yield { type: 'file', ...place, ...file }
    for (let offset = 0; ; offset += pageLength) {
      const { records } = await store.findRecords(scopeOf(conversation), { limit: pageLength, offset })
      for (const { number: _, conversation: __, ...record } of records) yield { type: 'record', ...place, ...record }
      if (records.length < pageLength) break
    }
    for await (const turn of this.#turns(conversation.id)) yield* this.#turn(turn)
  }

  async *#turns(conversation: string): AsyncGenerator<TurnRow> {
    const { store } = this.#options
    for (const id of await store.turnsOf(conversation)) {
      const turn = await store.turn(id)
      if (turn) yield turn
    }
  }

  async *#turn(turn: TurnRow): AsyncGenerator<UserLine> {
    const { store } = this.#options
    const { id, message, status, channel, createdAt, startedAt, endedAt, conversation } = turn
    const { files, ...said } = message
    yield {
      type: 'turn',
      conversation: conversation.id,
      id,
      status,
      channel,
      createdAt,
      startedAt,
      endedAt,
      message: { ...said, files: files.map((file) => file.id) },
      result: await store.result(id),
    }
    for (let after = 0; after < turn.seq;) {
      const events = await store.readTimed(id, after, pageLength)
      for (const { event, at } of events) yield { type: 'event', turn: id, at, event }
      const last = events.at(-1)
      if (!last) break
      after = last.event.seq
      await setImmediate()
    }
    const { items } = await store.feedback({ turn: id }, { limit: pageLength })
    for (const item of items) yield { type: 'feedback', ...item }
  }
}

const detailsOf = ({ user, key, bots }: UserOf): Record<string, Json> => ({
  user,
  ...(key === undefined ? {} : { key }),
  ...(bots === undefined ? {} : { bots: [...bots] }),
})

const times: ReadonlySet<string> = new Set(['at', 'createdAt', 'updatedAt', 'startedAt', 'endedAt'])

/** With its times for people. */
const dated = (line: UserLine): UserLine => ({
  ...(Object.fromEntries(
    Object.entries(line).map(([name, value]) => [
      name,
      times.has(name) && typeof value === 'number' ? new Date(value).toISOString() : value,
    ]),
  ) as Record<string, unknown>),
  type: line.type,
})
