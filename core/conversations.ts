import type { Audit } from './audit.ts'
import type { Principal } from './auth.ts'
import { mayUse } from './auth.ts'
import type { Bot } from './bot.ts'
import type { Bots } from './bots.ts'
import { ownerOf } from './bots.ts'
import type { Clock } from './clock.ts'
import type { Dispatcher } from './dispatcher.ts'
import { asHubError, HubError } from './errors.ts'
import { digest, isConversationId, newId } from './ids.ts'
import type { Logger } from './log.ts'
import type { ConversationRef, FileRef, Json, JsonObject } from './message.ts'
import type { Deliverer } from './outbox.ts'
import type { Asker, PassthroughAnswer, PassthroughRequest, SuggestionRequest, Thread, Upload } from './plugin.ts'
import type { FoundRecords, NewRecord, RecordChange, RecordQuery, RecordScope, StoredRecord } from './records.ts'
import type {
  ConversationDetails,
  ConversationItem,
  ConversationPageOptions,
  ConversationRow,
  FeedbackItem,
  Page,
  PageOptions,
  Rating,
  RecordItem,
  Store,
  TurnPage,
  TurnPageOptions,
  TurnRow,
} from './store.ts'
import { untilSilent } from './until-silent.ts'

/** How long an upstream has to take note of feedback. */
const feedbackTimeoutMs = 10_000

/** How long a bot may take to answer what is no message, in ms. */
const askWithinMs = 300_000

/** Who asks which bot for something that is no message. */
export interface Asking {
  readonly principal: Principal
  readonly bot: string
  /** A name or a `conv_…` id of a conversation there is; without one it is about none. */
  readonly conversation?: string | undefined
  /** Aborts when the client has gone. */
  readonly signal: AbortSignal
}

/** What conversations are read from; live turns are stopped through the dispatcher. */
export interface ConversationsOptions {
  readonly bots: Bots
  readonly store: Store
  readonly dispatcher: Dispatcher
  readonly clock: Clock
  readonly logger: Logger
  /** Called when something was written to the outbox. */
  readonly onOwed: () => void
  readonly audit: Audit
}

/** What somebody thinks of an answer. */
export interface Rated extends Rating {
  readonly bot: string
  readonly turn: string
  /** Which message of the answer; the last one when it is not said. */
  readonly message?: string | undefined
  /** Who says it, by a trusted key's word. */
  readonly speaker?: string | undefined
}

/** What a request that is passed through is about, so that nobody reaches what is somebody else's. */
export interface Passage {
  readonly bot: string
  /** The dialect it is written in. */
  readonly dialect: string
  /** A conversation, by its name or id. */
  readonly conversation?: string | undefined
  /** A sandbox, by its name at the upstream. */
  readonly sandbox?: string | undefined
  /** It runs tools and asks nobody. */
  readonly bypassesConsent?: boolean | undefined
}

/** Sends one request through a passage that was opened. */
export type SendThrough = (request: PassthroughRequest, signal: AbortSignal) => Promise<PassthroughAnswer>

/** A conversation that has a bot, and can be taken from it. */
export type Held = ConversationRow & { readonly bot: string }

/** What a principal may see and do beside sending messages: its conversations, their records, files and feedback. */
export class Conversations {
  readonly #options: ConversationsOptions

  constructor(options: ConversationsOptions) {
    this.#options = options
  }

  /** @throws HubError `unknown_bot` */
  async list(principal: Principal, bot: string, options: ConversationPageOptions): Promise<Page<ConversationItem>> {
    const { bots, store } = this.#options
    return store.conversations(ownerOf(bots.find(principal, bot), principal), options)
  }

  /** @throws HubError `unknown_bot`, `unknown_conversation` */
  async find(principal: Principal, bot: string, nameOrId: string): Promise<ConversationRef> {
    const { bots, store } = this.#options
    const found = await store.conversation(ownerOf(bots.find(principal, bot), principal), nameOrId)
    if (!found) throw new HubError('unknown_conversation')
    return found
  }

  /** @throws HubError `unknown_bot`, `unknown_conversation` */
  async records(
    principal: Principal,
    bot: string,
    conversation: string,
    options: PageOptions,
  ): Promise<Page<RecordItem>> {
    return this.#options.store.records((await this.find(principal, bot, conversation)).id, options)
  }

  /**
   * Everything that was said, from the beginning.
   * @throws HubError `unknown_bot`, `unknown_conversation`
   */
  async recordsByTurn(
    principal: Principal,
    bot: string,
    conversation: string,
    options: TurnPageOptions,
  ): Promise<TurnPage> {
    return this.#options.store.recordsByTurn((await this.find(principal, bot, conversation)).id, options)
  }

  /**
   * How many conversations there are, but for the one of the name `without`.
   * @throws HubError `unknown_bot`
   */
  async count(principal: Principal, bot: string, without?: string): Promise<number> {
    const { bots, store } = this.#options
    return store.countConversations(ownerOf(bots.find(principal, bot), principal), without)
  }

  /**
   * Its title, and what else its turns have said of it as a whole.
   * @throws HubError `unknown_bot`, `unknown_conversation`
   */
  async details(principal: Principal, bot: string, conversation: string): Promise<ConversationDetails> {
    const details = await this.#options.store.details((await this.find(principal, bot, conversation)).id)
    if (!details) throw new HubError('unknown_conversation')
    return details
  }

  /**
   * The turns that have not ended, oldest first, and the one that was accepted last.
   * @throws HubError `unknown_bot`, `unknown_conversation`
   */
  async turns(
    principal: Principal,
    bot: string,
    conversation: string,
  ): Promise<{ readonly live: readonly TurnRow[]; readonly latest: TurnRow | undefined }> {
    const { id } = await this.find(principal, bot, conversation)
    const { store } = this.#options
    return { live: await store.liveTurns(id), latest: await store.nextTurn(id) }
  }

  /**
   * Keeps what somebody thinks of a message, and tells the bot's upstream where it takes such.
   * @throws HubError `unknown_bot`, `unknown_turn`, `unknown_message`
   */
  async rate(principal: Principal, { bot: name, turn: id, message, speaker, ...rating }: Rated): Promise<FeedbackItem> {
    const { bots, store, dispatcher, clock, logger } = this.#options
    const bot = bots.find(principal, name)
    const turn = await dispatcher.turn(principal, id)
    if (turn.bot !== bot.name) throw new HubError('unknown_turn')
    const { messages } = await dispatcher.view(id)
    const rated = message === undefined ? messages.at(-1) : messages.find((each) => each.id === message)
    if (!rated) throw new HubError('unknown_message', { turn: id })
    const { conversation } = turn
    const said = speaker && principal.trusted ? { speaker } : {}
    const item = await store.addFeedback(
      { conversation: conversation.id, turn: id, message: rated.id, ...said, ...rating },
      clock.now(),
    )
    const { verdict, comment } = rating
    const thread = await this.#thread(bot, principal, conversation)
    const told = { message: rated.id, verdict, ...(comment ? { comment } : {}) }
    await bot.provider.feedback?.(told, thread, AbortSignal.timeout(feedbackTimeoutMs)).catch((error: unknown) => {
      logger.warn({ err: error, bot: bot.name, turn: id }, 'the upstream was not told what somebody thinks')
    })
    return item
  }

  /**
   * What was thought of a turn's messages, or, without one, of a bot's answers to the principal.
   * @throws HubError `unknown_bot`, `unknown_turn`
   */
  async feedback(
    principal: Principal,
    { bot, turn }: { readonly bot: string; readonly turn?: string | undefined },
    options: PageOptions,
  ): Promise<Page<FeedbackItem>> {
    const { bots, store, dispatcher } = this.#options
    const owner = ownerOf(bots.find(principal, bot), principal)
    if (turn === undefined) return store.feedback(owner, options)
    return store.feedback({ turn: (await dispatcher.turn(principal, turn)).id }, options)
  }

  /**
   * Gives a conversation another title; its bot may do so too.
   * @throws HubError `unknown_bot`, `unknown_conversation`
   */
  async retitle(principal: Principal, bot: string, conversation: string, title: string): Promise<void> {
    const { id } = await this.find(principal, bot, conversation)
    await this.#options.store.retitle(id, title)
  }

  /**
   * Opens a way for a request of the vendor's own. A conversation has to be the principal's; a sandbox has to be one
   * that was started in that conversation, or, where none is named, in any of the principal's key.
   * @throws HubError `unknown_bot`, `passthrough_unsupported`, `unknown_conversation`, `unknown_sandbox`,
   * `bypass_forbidden`, `shutting_down`
   */
  async openPassage(principal: Principal, passage: Passage): Promise<SendThrough> {
    const { bots, store, dispatcher, audit } = this.#options
    if (!dispatcher.ready) throw new HubError('shutting_down', { retryAfterMs: 5000 })
    const bot = bots.find(principal, passage.bot)
    const { provider } = bot
    if (!provider.passThrough || bot.manifest.passthrough !== passage.dialect) {
      throw new HubError('passthrough_unsupported')
    }
    if (passage.bypassesConsent && !principal.bypassConsent) throw new HubError('bypass_forbidden')
    const conversation =
      passage.conversation === undefined ? undefined : await this.find(principal, bot.name, passage.conversation)
    if (passage.sandbox !== undefined) {
      const users = await store.sandboxUsers(ownerOf(bot, principal), passage.sandbox)
      const isTheirs = conversation ? users.includes(conversation.id) : users.length > 0
      if (!isTheirs) throw new HubError('unknown_sandbox')
    }
    const thread = conversation && (await this.#thread(bot, principal, conversation))
    return async (request, signal) => {
      if (passage.bypassesConsent) {
        const details = { path: `/${request.path.join('/')}` }
        audit.record({ what: 'consent bypassed', by: principal.key, bot: bot.name, details })
      }
      return provider.passThrough!(request, thread, signal)
    }
  }

  /**
   * Makes a conversation before its first message, which says for which bot and user it is where this does not.
   * @throws HubError `unknown_bot`
   */
  async create(
    principal: Principal,
    { bot, metadata }: { readonly bot?: string | undefined; readonly metadata?: JsonObject | undefined },
  ): Promise<ConversationRow> {
    const { bots, store, clock } = this.#options
    const at = clock.now()
    return store.addConversation(
      {
        id: newId('conv', at),
        key: principal.key,
        ...(bot === undefined ? {} : { bot: bots.find(principal, bot).name }),
        ...(principal.user ? { user: principal.user } : {}),
        ...(metadata ? { metadata } : {}),
      },
      at,
    )
  }

  /**
   * A conversation by its id alone.
   * @throws HubError `unknown_conversation`, also for one with a bot that the principal may not use
   */
  async get(principal: Principal, id: string): Promise<ConversationRow> {
    const found = await this.#options.store.conversationOf(principal.key, id)
    if (!found || (found.bot !== undefined && !mayUse(principal, found.bot))) throw new HubError('unknown_conversation')
    return found
  }

  /**
   * Takes a conversation from its bot, or gives it back, for an admin, whoever's it is. What the bot was busy with in it
   * ends as `turn.cancelled`, `by: "admin"`.
   * @throws HubError `forbidden`, `unknown_conversation`
   */
  async handOver(admin: Principal, id: string, to: 'operator' | 'bot'): Promise<Held> {
    const { store, dispatcher, audit } = this.#options
    const found = await this.#held(admin, id)
    await store.handOver(found.id, to === 'operator' ? admin.key : undefined)
    if (to === 'operator') {
      // Queued ones first, so that none starts when the live one ends.
      for (const turn of (await store.liveTurns(found.id)).toReversed()) await dispatcher.cancel(turn, 'admin')
    }
    const what = to === 'operator' ? 'conversation handed over' : 'conversation given back'
    audit.record({ what, by: admin.key, bot: found.bot, details: { conversation: found.id } })
    return found
  }

  /**
   * Says something to the user of a conversation that was handed over.
   * @throws HubError `forbidden`, `unknown_conversation`, `not_handed_over`, and see `Dispatcher.speak`
   */
  async speak(
    admin: Principal,
    id: string,
    said: { readonly text: string; readonly id?: string | undefined; readonly channel: string },
  ): Promise<TurnRow> {
    const found = await this.#held(admin, id)
    const { turn, created } = await this.#options.dispatcher.speak(found, said)
    if (created) this.#options.audit.record({ what: 'operator spoke', by: admin.key, bot: found.bot, turn: turn.id })
    return turn
  }

  /**
   * What was said in a conversation that was handed over, for an admin.
   * @throws HubError `forbidden`, `unknown_conversation`, `not_handed_over`
   */
  async heldRecords(admin: Principal, id: string, options: PageOptions): Promise<Page<RecordItem>> {
    const found = await this.#held(admin, id)
    // Whoever reads what is not theirs has taken it before, and that is written down.
    if (found.takenBy === undefined) throw new HubError('not_handed_over')
    return this.#options.store.records(found.id, options)
  }

  async #held(admin: Principal, id: string): Promise<Held> {
    if (!admin.admin) throw new HubError('forbidden')
    const found = await this.#options.store.anyConversation(id)
    if (found?.bot === undefined || !mayUse(admin, found.bot)) throw new HubError('unknown_conversation')
    return { ...found, bot: found.bot }
  }

  /**
   * The conversations of a key with a bot, whoever their users are.
   * @throws HubError `unknown_bot`
   */
  async listOfKey(principal: Principal, bot: string, options: PageOptions): Promise<Page<ConversationRow>> {
    const { bots, store } = this.#options
    return store.conversationsOf({ bot: bots.find(principal, bot).name, key: principal.key }, options)
  }

  /**
   * Replaces what the client wants back with a conversation.
   * @throws HubError `unknown_conversation`
   */
  async describe(principal: Principal, id: string, metadata: JsonObject): Promise<ConversationRow> {
    const found = await this.get(principal, id)
    await this.#options.store.setMetadata(found.id, metadata)
    return { ...found, metadata }
  }

  /**
   * Lets the bot forget what was said, here and upstream; clients still see it.
   * @throws HubError `unknown_conversation`, `turn_running`, or what the provider throws
   */
  async clear(principal: Principal, id: string, signal: AbortSignal): Promise<ConversationRow> {
    const { bots, store } = this.#options
    const found = await this.get(principal, id)
    if ((await store.liveTurns(found.id)).length > 0) throw new HubError('turn_running')
    if (found.bot !== undefined) {
      const bot = bots.find(principal, found.bot)
      // Not by the outbox: what comes late would take the next section away too.
      await bot.provider.forget?.(await this.#thread(bot, principal, found), signal)
    }
    await store.clear(found.id)
    return this.get(principal, id)
  }

  /**
   * Deletes a conversation by its id alone; see `forget`.
   * @throws HubError `unknown_conversation`
   */
  async discard(principal: Principal, id: string): Promise<void> {
    const found = await this.get(principal, id)
    if (found.bot === undefined) await this.#options.store.forget(found.id)
    else await this.forget(principal, found.bot, found.id)
  }

  /**
   * The records of one conversation, or of all that the principal has with the bot, with what the bot wrote beside them.
   * @throws HubError `unknown_bot`, `unknown_conversation`
   */
  async findRecords(
    principal: Principal,
    bot: string,
    conversation: string | undefined,
    query: RecordQuery,
  ): Promise<FoundRecords> {
    const owner = ownerOf(this.#options.bots.find(principal, bot), principal)
    const where = conversation === undefined ? {} : { conversation: (await this.find(principal, bot, conversation)).id }
    return this.#options.store.findRecords({ ...owner, ...where }, query)
  }

  /**
   * The records of a conversation by its id alone, also of one that has no bot yet.
   * @throws HubError `unknown_conversation`
   */
  async recordsOf(principal: Principal, id: string, query: RecordQuery): Promise<readonly StoredRecord[]> {
    const scope = scopeOf(await this.get(principal, id))
    return (await this.#options.store.findRecords(scope, query)).records
  }

  /**
   * Writes into a conversation what nobody is asked to answer. Bots that the hub shows what was said are shown it too;
   * the upstream of one that remembers itself is told with its next turn, where its provider sends a history.
   * @throws HubError `unknown_conversation`
   */
  async addRecords(
    principal: Principal,
    id: string,
    records: readonly Pick<NewRecord, 'role' | 'text' | 'fields'>[],
  ): Promise<readonly StoredRecord[]> {
    const found = await this.get(principal, id)
    const place = { turn: '', conversation: { id: found.id }, newConversation: found.id }
    const added = records.map((record) => ({ ...record, ...place }))
    return this.#options.store.addRecords(scopeOf(found), added, this.#options.clock.now())
  }

  /**
   * Changes one record, or deletes it. What clients saw of its turn stays in the turn's log.
   * @throws HubError `unknown_conversation`
   */
  async rewrite(
    principal: Principal,
    id: string,
    { number, turn }: Pick<StoredRecord, 'number' | 'turn'>,
    set: Pick<RecordChange['set'], 'text' | 'fields'> | 'delete',
  ): Promise<void> {
    const { store, clock, audit } = this.#options
    const found = await this.get(principal, id)
    const where = { type: 'equal', property: 'number', value: number } as const
    if (set === 'delete') await store.deleteRecords(scopeOf(found), where)
    else await store.changeRecords(scopeOf(found), { where, set }, clock.now())
    audit.record({
      what: set === 'delete' ? 'message deleted' : 'message changed',
      by: principal.key,
      ...(found.bot === undefined ? {} : { bot: found.bot }),
      ...(turn === '' ? {} : { turn }),
      details: { conversation: found.id },
    })
  }

  /**
   * Deletes a conversation here, and upstream by the outbox; a live turn of it ends as `turn.cancelled`,
   * `by: "deleted"`.
   * @throws HubError `unknown_bot`, `unknown_conversation`
   */
  async forget(principal: Principal, botName: string, nameOrId: string): Promise<void> {
    const bot = this.#options.bots.find(principal, botName)
    const conversation = await this.find(principal, botName, nameOrId)
    await this.#forget(bot, principal, conversation)
    this.#options.audit.record({
      what: 'conversation deleted',
      by: principal.key,
      bot: bot.name,
      details: { conversation: conversation.id },
    })
  }

  /**
   * Deletes a conversation that a principal of its own may not name any more, as when its user is erased: as `forget`
   * does, or, where its bot is in the config no more, here alone.
   */
  async discardAny(row: ConversationRow): Promise<void> {
    const bot = row.bot === undefined ? undefined : this.#options.bots.get(row.bot)
    const principal = { key: row.key, trusted: true, admin: false, bypassConsent: false }
    if (bot) return this.#forget(bot, principal, row)
    await this.#stopTurns(row.id)
    await this.#options.store.forget(row.id)
  }

  async #stopTurns(conversation: string): Promise<void> {
    const { store, dispatcher } = this.#options
    // Queued ones first, so that none starts when the live one ends.
    for (const turn of (await store.liveTurns(conversation)).toReversed()) await dispatcher.cancel(turn, 'deleted')
  }

  async #forget(bot: Bot, principal: Principal, conversation: ConversationRef): Promise<void> {
    const { store, dispatcher, clock, onOwed } = this.#options
    await this.#stopTurns(conversation.id)
    await store.forget(
      conversation.id,
      bot.provider.forget && {
        id: `${conversation.id}_deleted`,
        lane: `bot:${bot.name}`,
        type: 'conversation.deleted',
        payload: toPayload(await this.#thread(bot, principal, conversation)),
        at: clock.now(),
      },
    )
    onOwed()
    dispatcher.conversationChanged(conversation.id)
  }

  /**
   * Streams a file to the bot's upstream. With an `origin`, the name of a file that stays what it is, it is sent only
   * once to a conversation, and has the same id there ever after.
   * @throws HubError `unknown_bot`, `unknown_conversation`, `files_unsupported`, or what the provider throws
   */
  async upload(
    principal: Principal,
    botName: string,
    conversationName: string,
    upload: Upload,
    signal: AbortSignal,
    origin?: string,
  ): Promise<FileRef> {
    const { bots, store, clock } = this.#options
    const bot = bots.find(principal, botName)
    if (!bot.manifest.files || !bot.provider.upload) throw new HubError('files_unsupported')
    const conversation = isConversationId(conversationName)
      ? await this.find(principal, botName, conversationName)
      : await store.openConversation(ownerOf(bot, principal), conversationName, newId('conv'), clock.now())
    const id = origin === undefined ? newId('file') : `file_${digest(origin, conversation.id).slice(0, 25)}`
    const [known] = origin === undefined ? [] : await store.files(conversation.id, [id])
    if (known) return known
    const thread = await this.#thread(bot, principal, conversation)
    let bytes = 0
    async function* counted(): AsyncGenerator<Uint8Array> {
      for await (const chunk of upload.stream) {
        bytes += chunk.length
        yield chunk
      }
    }
    const upstream = await bot.provider.upload({ ...upload, stream: counted() }, thread, signal)
    const file: FileRef = { id, name: upload.name, bytes, mime: upload.mime, upstream }
    await store.addFile({ ...file, conversation: conversation.id }, clock.now())
    return file
  }

  /**
   * Questions that the user may ask next, as the bot thinks of them.
   * @throws HubError `unknown_bot`, `unknown_conversation`, `unsupported`, `deadline_exceeded`, or what the provider
   * throws, as `bot_failed` where that is no `HubError`
   */
  async *suggest(asking: Asking, request: SuggestionRequest): AsyncGenerator<string> {
    const { provider } = this.#options.bots.find(asking.principal, asking.bot)
    if (!provider.suggest) throw new HubError('unsupported')
    const asker = await this.#asker(asking)
    yield* limited(asking.signal, (signal) => provider.suggest!(request, asker, signal))
  }

  /**
   * The names of the methods that a bot has in a dialect.
   * @throws HubError `unknown_bot`
   */
  methods(principal: Principal, bot: string, dialect: string): ReadonlySet<string> {
    const { manifest, provider } = this.#options.bots.find(principal, bot)
    return manifest.methods === dialect && provider.methods ? provider.methods.names : new Set()
  }

  /**
   * Calls a method of a bot that it has in a dialect; see `methods`.
   * @throws HubError `unknown_bot`, `unknown_conversation`, `unsupported`, `deadline_exceeded`, or what the provider
   * throws, as `bot_failed` where that is no `HubError`
   */
  async invoke(asking: Asking, dialect: string, method: string, input: JsonObject): Promise<Json | undefined> {
    const { provider } = this.#options.bots.find(asking.principal, asking.bot)
    const known = this.methods(asking.principal, asking.bot, dialect)
    if (!known.has(method)) throw new HubError('unsupported')
    const asker = await this.#asker(asking)
    const answer = limited(asking.signal, async function* (signal) {
      yield await provider.methods!.invoke(method, input, asker, signal)
    })
    for await (const output of answer) return output
    return undefined
  }

  async #asker({ principal, bot, conversation }: Asking): Promise<Asker> {
    if (conversation === undefined) return { bot, principal }
    return this.#thread(
      this.#options.bots.find(principal, bot),
      principal,
      await this.find(principal, bot, conversation),
    )
  }

  async #thread(bot: Bot, principal: Principal, { id, name }: ConversationRef): Promise<Thread> {
    const { store } = this.#options
    const [thread, row] = await Promise.all([store.thread(id), store.conversationOf(principal.key, id)])
    return {
      bot: bot.name,
      // One that no message has claimed yet becomes the user's who asks.
      principal: row?.bot === undefined ? principal : ofUser(principal, row),
      conversation: { id, name },
      ...(thread === undefined ? {} : { thread }),
    }
  }
}

/** Whose the records of a conversation are. */
/** Where the records of a conversation are. */
export const scopeOf = ({ id, key, bot = '' }: ConversationRow): RecordScope & { readonly conversation: string } => ({
  bot,
  key,
  conversation: id,
})

/** The principal as the conversation's turns have it: an upstream may keep each user's apart. */
const ofUser = ({ key, trusted, admin, bypassConsent, bots }: Principal, { user }: ConversationRow): Principal => ({
  key,
  trusted,
  admin,
  bypassConsent,
  ...(bots ? { bots } : {}),
  ...(user === undefined ? {} : { user }),
})

/** Tells a bot's upstream what the outbox holds for it: which conversations are gone. */
export const delivererTo =
  ({ provider }: Bot): Deliverer =>
  async ({ payload }, signal) =>
    provider.forget?.(payload as unknown as Thread, signal)

// A thread is plain, and the store gives back what it was given.
const toPayload = (thread: Thread): Json => thread as unknown as Json

/** Stops what a bot does when its client has gone, or when it takes too long, whether it heeds the signal or not. */
async function* limited<T>(
  client: AbortSignal,
  work: (signal: AbortSignal) => AsyncIterable<T>,
): AsyncGenerator<T, undefined> {
  const over = new AbortController()
  try {
    yield* untilSilent(work(AbortSignal.any([client, over.signal])), askWithinMs, 'deadline_exceeded', client)
  } catch (error) {
    throw asHubError(error, 'bot_failed')
  } finally {
    over.abort()
  }
}
