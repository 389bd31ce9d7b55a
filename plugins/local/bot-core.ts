import type { HubEvent } from '../../core/events.ts'
import type { Logger } from '../../core/log.ts'
import type { Json } from '../../core/message.ts'
import type { Turn } from '../../core/turn.ts'

/** What the hub hands to a bot's constructor. */
export interface BotContext {
  readonly turn: Turn
  /** The bot's name in the config. */
  readonly botId: string
  readonly logger: Logger
}

/** A class on `BotCore`; the hub makes one object a turn. */
export type BotClass = new (context: BotContext) => BotCore

/** What `sendMessage` is called with, as CloudBase calls it. */
export interface SendMessageInput {
  readonly msg: string
  readonly history: readonly ChatMessage[]
  readonly conversationId: string
}

/** An earlier message in CloudBase's words: `assistant` is the bot. */
export interface ChatMessage {
  readonly role: 'user' | 'assistant'
  readonly content: string
}

/** Streams an answer to the client. */
export interface SSESender {
  /** `content` is the next piece of the answer, `reasoning_content` of the thinking before it. */
  send(event: {
    readonly data: {
      readonly content?: string
      readonly reasoning_content?: string
      readonly [key: string]: Json | undefined
    }
  }): void
  /** The answer is whole. What the bot does after it is waited for, what it sends after it is dropped. */
  end(): void
}

/**
 * A base class with the interface of Tencent CloudBase's function-type agents: extend it, and answer in `sendMessage`
 * through `this.sseSender`. Source of the interface: docs.cloudbase.net, "BotCore".
 */
export abstract class BotCore {
  readonly context: BotContext
  readonly sseSender: SSESender
  readonly #said: AsyncQueue<string | HubEvent> = new AsyncQueue()

  constructor(context: BotContext) {
    this.context = context
    this.sseSender = {
      send: (event) => this.#send(event),
      end: () => this.#said.end(),
    }
  }

  abstract sendMessage(input: SendMessageInput): Promise<void> | void

  /** The bot's name in the config. */
  get botId(): string {
    return this.context.botId
  }

  /** The third part of an id like `ibot-name-tag`; for other names the name itself. */
  get botTag(): string {
    return this.botId.split('-')[2] ?? this.botId
  }

  /**
   * Earlier messages, oldest first: it starts with the user, alternates, holds nothing empty, and ends with the bot
   * unless `removeLastUser` is false. `size` is how many records are read, so there may be fewer.
   */
  async getHistoryMessages({ size = 10, removeLastUser = true } = {}): Promise<ChatMessage[]> {
    const { history, message } = this.context.turn
    const records = [...history, { role: 'user' as const, text: message.text }].slice(-size)
    const alternating: ChatMessage[] = []
    for (const record of records) {
      if (record.text === '') continue
      const role = record.role === 'user' ? 'user' : 'assistant'
      if (alternating.at(-1)?.role === role) alternating.pop()
      if (alternating.length > 0 || role === 'user') alternating.push({ role, content: record.text })
    }
    if (removeLastUser && alternating.at(-1)?.role === 'user') alternating.pop()
    return alternating
  }

  /** Runs `sendMessage` and gives what it sends; for the hub. */
  async *answer(): AsyncGenerator<string | HubEvent> {
    const { turn, logger } = this.context
    const working = Promise.try(() =>
      this.sendMessage({
        msg: turn.message.text,
        history: turn.history.map(({ role, text }) => ({
          role: role === 'user' ? 'user' : 'assistant',
          content: text,
        })),
        conversationId: turn.conversation.name,
      }),
    )
    working.then(
      () => {
        if (!this.#said.ended) logger.warn({ turn: turn.id }, 'the bot returned without sseSender.end()')
        this.#said.end()
      },
      (error: unknown) => this.#said.fail(error),
    )
    yield* this.#said
    await working
  }

  #send(event: unknown): void {
    if (this.#said.ended) {
      this.context.logger.warn({ turn: this.context.turn.id }, 'dropped what the bot sent after sseSender.end()')
      return
    }
    const payload = typeof event === 'object' && event !== null && 'data' in event ? event.data : undefined
    if (typeof payload !== 'object' || payload === null) {
      throw new TypeError('sseSender.send takes { data: { content: string } }')
    }
    const { content, reasoning_content: thought } = payload as { content?: unknown; reasoning_content?: unknown }
    if (typeof thought === 'string' && thought !== '') {
      this.#said.push({ type: 'reasoning.delta', message: 'thoughts', text: thought })
    }
    if (typeof content === 'string') this.#said.push(content)
  }
}

/** Values that one side pushes and the other iterates over. */
class AsyncQueue<T> {
  readonly #values: T[] = []
  #wake: (() => void) | undefined
  #failure: { readonly error: unknown } | undefined
  ended = false

  push(value: T): void {
    this.#values.push(value)
    this.#wake?.()
  }

  end(): void {
    this.ended = true
    this.#wake?.()
  }

  fail(error: unknown): void {
    this.#failure = { error }
    this.end()
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<T> {
    for (;;) {
      while (this.#values.length > 0) yield this.#values.shift()!
      if (this.#failure) throw this.#failure.error
      if (this.ended) return
      await new Promise<void>((resolve) => (this.#wake = resolve))
    }
  }
}
