import type { Audit } from './audit.ts'
import type { Principal } from './auth.ts'
import type { Bot } from './bot.ts'
import type { Bots } from './bots.ts'
import { ownerOf } from './bots.ts'
import type { Clock } from './clock.ts'
import type { Dispatcher } from './dispatcher.ts'
import { HubError } from './errors.ts'
import { isConversationId, newId } from './ids.ts'
import type { ConversationRef, FileRef, Json } from './message.ts'
import type { Deliverer } from './outbox.ts'
import type { Thread, Upload } from './plugin.ts'
import type { ConversationItem, Page, PageOptions, RecordItem, Store } from './store.ts'

/** What conversations are read from; live turns are stopped through the dispatcher. */
export interface ConversationsOptions {
  readonly bots: Bots
  readonly store: Store
  readonly dispatcher: Dispatcher
  readonly clock: Clock
  /** Called when something was written to the outbox. */
  readonly onOwed: () => void
  readonly audit: Audit
}

/** What a principal may see and do beside sending messages: its conversations, their records and files. */
export class Conversations {
  readonly #options: ConversationsOptions

  constructor(options: ConversationsOptions) {
    this.#options = options
  }

  /** @throws HubError `unknown_bot` */
  async list(principal: Principal, bot: string, options: PageOptions): Promise<Page<ConversationItem>> {
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
   * Deletes a conversation here, and upstream by the outbox; a live turn of it ends as `turn.cancelled`,
   * `by: "deleted"`.
   * @throws HubError `unknown_bot`, `unknown_conversation`
   */
  async forget(principal: Principal, botName: string, nameOrId: string): Promise<void> {
    const { bots, store, dispatcher, clock, audit, onOwed } = this.#options
    const bot = bots.find(principal, botName)
    const conversation = await this.find(principal, botName, nameOrId)
    // Queued ones first, so that none starts when the live one ends.
    for (const turn of (await store.liveTurns(conversation.id)).toReversed()) await dispatcher.cancel(turn, 'deleted')
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
    audit.record({
      what: 'conversation deleted',
      by: principal.key,
      bot: bot.name,
      details: { conversation: conversation.id },
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
    const { bots, store, clock } = this.#options
    const bot = bots.find(principal, botName)
    if (!bot.manifest.files || !bot.provider.upload) throw new HubError('files_unsupported')
    const conversation = isConversationId(conversationName)
      ? await this.find(principal, botName, conversationName)
      : await store.openConversation(ownerOf(bot, principal), conversationName, newId('conv'), clock.now())
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
    await store.addFile({ ...file, conversation: conversation.id }, clock.now())
    return file
  }

  async #thread(bot: Bot, principal: Principal, conversation: ConversationRef): Promise<Thread> {
    const thread = await this.#options.store.thread(conversation.id)
    return { bot: bot.name, principal, conversation, ...(thread === undefined ? {} : { thread }) }
  }
}

/** Tells a bot's upstream what the outbox holds for it: which conversations are gone. */
export const delivererTo =
  ({ provider }: Bot): Deliverer =>
  async ({ payload }, signal) =>
    provider.forget?.(payload as unknown as Thread, signal)

// A thread is plain, and the store gives back what it was given.
const toPayload = (thread: Thread): Json => thread as unknown as Json
