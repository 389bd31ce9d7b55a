import type { Principal } from './auth.ts'
import type { Bot } from './bot.ts'
import { ownerOf } from './bots.ts'
import type { Clock } from './clock.ts'
import { HubError } from './errors.ts'
import { digest, isConversationId, newId } from './ids.ts'
import type { FileRef, HistoryMessage, JsonObject, Message } from './message.ts'
import type { AcceptInput, HookLane, Owner, Store } from './store.ts'

/** How long a signed request is known again: its timestamp counts five minutes before and after its time. */
const receiptMs = 600_000

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
  /** Who says this one message, by a trusted key's word; unlike `user` it is no part of the conversation's name. */
  readonly speaker?: string | undefined
  readonly files?: readonly string[] | undefined
  readonly payload?: JsonObject | undefined
  /**
   * What was said before, by the word of a client that keeps the conversation itself; it stands for what the hub
   * remembers. Left out where the bot takes none (`Bot.takesHistory`).
   */
  readonly history?: readonly HistoryMessage[] | undefined
  /** A conversation that it opens is for this message alone: it is not listed, and goes when its turn does. */
  readonly ephemeral?: boolean
  /** What the client wants back with the message. The same message may come again with other metadata. */
  readonly metadata?: JsonObject | undefined
  readonly debug?: boolean | undefined
  readonly bypassConsent?: boolean | undefined
  /** It has no words and only wakes the bot. */
  readonly nudge?: boolean | undefined
  /** The channel is owed the turn's end, and delivers it from the outbox. */
  readonly owed?: boolean
  /**
   * The name of a signed request that may be caught and sent again: while its signature is good it is taken once,
   * whatever is forgotten meanwhile, and names one message.
   */
  readonly request?: string
  /** Its client does not stay: the turn goes on though nobody listens. */
  readonly detached?: boolean
  /** A message that cannot run now is taken all the same, and its turn fails at once. */
  readonly acceptAnyway?: boolean
}

/** What a message is accepted with. */
export interface AcceptanceOptions {
  readonly store: Pick<Store, 'conversation' | 'files'>
  readonly clock: Clock
  /** Whom the end of every turn is owed. */
  readonly hooks: readonly HookLane[]
}

/**
 * What the store takes of a message for a bot: with ids, and a fingerprint that tells it from another one under its id.
 * @throws HubError `unknown_file`
 */
export async function toAcceptInput(
  bot: Bot,
  principal: Principal,
  inbound: Inbound,
  { store, clock, hooks }: AcceptanceOptions,
): Promise<AcceptInput> {
  const owner = ownerOf(bot, principal)
  const message: Message = {
    id: inbound.id || newId('msg'),
    text: inbound.text,
    files: await filesOf(owner, inbound, store),
    ...(inbound.payload ? { payload: inbound.payload } : {}),
    ...(inbound.metadata ? { metadata: inbound.metadata } : {}),
    ...(inbound.speaker && principal.trusted ? { speaker: inbound.speaker } : {}),
    ...(inbound.nudge ? { nudge: true } : {}),
    ...(inbound.history?.length && bot.takesHistory ? { history: inbound.history } : {}),
  }
  const fingerprint = digest(
    message.text,
    JSON.stringify(inbound.files ?? []),
    JSON.stringify(message.payload ?? null),
    ...(message.nudge ? ['nudge'] : []),
    // Left out where there is none, so that every channel has the same digest of the same message.
    ...(inbound.history?.length ? [JSON.stringify(inbound.history)] : []),
  )
  return {
    ...owner,
    turn: newId('turn'),
    conversation: conversationOf(inbound),
    newConversation: newId('conv'),
    message,
    fingerprint,
    ...(inbound.request === undefined
      ? {}
      : {
          receipt: {
            id: digest(inbound.channel, inbound.request),
            names: digest(message.id, inbound.conversation ?? '', owner.user ?? '', fingerprint),
            until: clock.now() + receiptMs,
          },
        }),
    channel: inbound.channel,
    debug: bot.raw || (principal.trusted && (inbound.debug ?? false)),
    bypassConsent: inbound.bypassConsent ?? false,
    detached: (inbound.detached ?? false) || (inbound.owed ?? false),
    ...(inbound.ephemeral ? { ephemeral: true } : {}),
    at: clock.now(),
    queueLimit: bot.whenBusy === 'reject' ? 0 : bot.queueLimit,
    owedTo: [...(inbound.owed ? [`channel:${inbound.channel}` as const] : []), ...hooks],
  }
}

async function filesOf(
  owner: Owner,
  { conversation, files = [] }: Inbound,
  store: Pick<Store, 'conversation' | 'files'>,
): Promise<readonly FileRef[]> {
  if (files.length === 0) return []
  const where = conversation ? await store.conversation(owner, conversation) : undefined
  const found = where ? await store.files(where.id, files) : []
  const missing = files.find((id) => !found.some((file) => file.id === id))
  if (missing) {
    throw new HubError('unknown_file', {
      message: `There is no file "${missing}" in this conversation. Upload it with the same \`conversation\` first.`,
    })
  }
  return found
}

/** How turns end that were taken though they could not run. */
export function refusalOf({ profile }: Bot): NonNullable<AcceptInput['refusal']> {
  const result = (code: 'turn_waiting' | 'queue_full') => ({
    text: '',
    messages: [],
    error: new HubError(code).public(profile.language),
  })
  return { waiting: result('turn_waiting'), queueFull: result('queue_full') }
}

function conversationOf({ conversation, id }: Inbound): { name: string } | { id: string } | 'new' {
  if (conversation) return isConversationId(conversation) ? { id: conversation } : { name: conversation }
  // Derived from the id, so that the same message finds the conversation it opened.
  return id ? { name: `message:${id}` } : 'new'
}
