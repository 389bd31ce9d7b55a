import { createHash, timingSafeEqual } from 'node:crypto'
import type { IncomingHttpHeaders } from 'node:http'
import { z } from 'zod'
import type { CallbackAnswer } from '../../core/callback.ts'
import type { Clock } from '../../core/clock.ts'
import { HubError } from '../../core/errors.ts'
import type { Json } from '../../core/message.ts'
import { parseExactJson } from '../../core/json.ts'
import { DeliveryImpossible, DeliveryPostponed } from '../../core/outbox.ts'
import type { Definition, PluginSpec } from '../../core/plugin-spec.ts'
import { toSpec } from '../../core/plugin-spec.ts'
import { setting } from '../../core/settings.ts'
import { retryAfterMs } from '../../core/sse.ts'

/** A request as a platform sent it. */
export interface PlatformRequest {
  readonly method: string
  readonly query: URLSearchParams
  readonly headers: IncomingHttpHeaders
  /** Exactly as it came, since it is what was signed. */
  readonly body: Buffer
}

/** What a request turned out to be. */
export type Reading =
  | ({ readonly type: 'message' } & PlatformMessage)
  /** The platform asks whether the address is ours, and wants to hear this. */
  | { readonly type: 'challenge'; readonly answer: string; readonly contentType: string }
  /** Nothing that somebody said to the bot: it is acknowledged, and that is all. */
  | { readonly type: 'ignored' }

/** What somebody said on a platform. */
export interface PlatformMessage {
  /** The platform's id of the event; the same when it is sent again. */
  readonly id: string
  readonly text: string
  /** Where it was said. It is all that `post` is given of it, so it names everything an answer needs to get there. */
  readonly conversation: string
  readonly user: string
  /** The platform's id of the message, where an answer may point at it. */
  readonly replyTo?: string | undefined
}

/** Where an answer goes. */
export interface Destination {
  /** As `read` named it. */
  readonly conversation: string
  /** As `read` gave it; absent for what an operator says unasked. */
  readonly replyTo?: string | undefined
}

/**
 * How one platform signs what it sends, and how it is answered. The channel does the rest: it makes the message durable
 * before it acknowledges it, writes the answer while it streams, splits it, and tries again what did not arrive.
 */
export interface WebhookScheme {
  /** The platform also comes by GET, to see whether the address is ours. */
  readonly comesByGet?: boolean
  /**
   * Checks who sends a request, and says what it is.
   * @throws HubError `bad_signature`, `bad_json`, `invalid_request`
   */
  read(request: PlatformRequest): Reading
  /** How long one message may be, in what `measure` counts. */
  readonly maxLength: number
  /** How much of `maxLength` a text takes, added up character by character; UTF-16 units without it. */
  readonly measure?: (text: string) => number
  /**
   * Posts a message and gives the platform's id of it. `key` is the same for the same words at the same place, for
   * platforms that take a message once.
   * @throws Error, to be called again later; DeliveryPostponed where the platform says when; DeliveryImpossible, see
   * `notToBeReached`
   */
  post(to: Destination, text: string, key: string, signal: AbortSignal): Promise<string>
  /** Left out where a message stays as it was posted; then it is posted when the answer is whole. */
  readonly edits?: MessageEdits
  /** Shows that an answer is being written, for some seconds. */
  showTyping?(to: Destination, signal: AbortSignal): Promise<void>
}

/** How the messages of a platform are changed. */
export interface MessageEdits {
  /** The pause between two edits of a conversation while its answer streams, in ms. */
  everyMs(to: Destination): number
  /** How often a message may be edited while it streams; as often as there is something new, without it. */
  readonly atMost?: number
  /**
   * Changes a message. False when the platform does not let it be changed any more: then it is posted anew.
   * @throws as `post` does
   */
  edit(to: Destination, message: string, text: string, signal: AbortSignal): Promise<boolean>
}

/** What a scheme is given when the hub builds it. */
export interface SchemeContext {
  readonly clock: Clock
  /**
   * Calls the platform: public addresses only, unless the channel has `allowPrivate`; 20 s at most, no redirects. What
   * is wrong with an address is in no error, since some platforms have their secrets in it.
   * @throws CallbackFailed
   */
  readonly call: (url: string, request: PlatformCall, signal: AbortSignal) => Promise<PlatformAnswer>
}

/** A call of a platform's API. `body` is sent as JSON. */
export interface PlatformCall {
  readonly method?: 'GET' | 'POST' | 'PUT'
  readonly headers?: Readonly<Record<string, string>>
  readonly body?: Json
}

/** What a platform answered. */
export interface PlatformAnswer {
  readonly status: number
  /** `Retry-After`, in ms. */
  readonly retryAfterMs: number | undefined
  /** Parsed, with long numbers as strings; undefined where it is no JSON. */
  readonly body: Json | undefined
}

/** What `slack()` or another scheme factory leaves in the config. */
export type SchemeSpec = PluginSpec<'scheme', SchemeContext, WebhookScheme>

/**
 * Makes a scheme's factory. Its options are checked with those of the channel.
 * @example export const acme = defineScheme({ name: 'acme', options: z.strictObject({ … }), create: (options, { call }) => ({ … }) })
 */
export const defineScheme =
  <Schema extends z.ZodObject>(definition: Definition<Schema, SchemeContext, WebhookScheme>) =>
  (options: z.input<Schema>): SchemeSpec =>
    toSpec('scheme', definition, options)

/** Reads what a platform's API answered. */
export const toAnswer = ({ status, retryAfter, body }: CallbackAnswer, nowMs: number): PlatformAnswer => ({
  status,
  retryAfterMs: retryAfterMs(retryAfter, nowMs),
  body: parseExactJson(body),
})

/** The option that says where a platform's API is. */
export const apiUrl = (usual: string) =>
  setting()
    .pipe(z.url({ protocol: /^https?$/ }))
    .transform((url) => url.replace(/\/+$/, ''))
    .prefault(usual)

/** How long a platform is left alone that has had enough and does not say for how long, in ms. */
const defaultPauseMs = 5000

/** The failure of a call, with the platform's own word for it, which is for the log alone. */
export const callFailed = (platform: string, status: number, reason: string): Error =>
  new Error(`${platform} answered ${status}: ${reason}`)

/** The failure of a call for somebody who has left, or wants to hear nothing from the bot: no other try will do. */
export const notToBeReached = (platform: string, reason: string): DeliveryImpossible =>
  new DeliveryImpossible(`${platform} lets nobody be reached there: ${reason}`)

/** The failure of a call that came too soon after others. */
export const calledTooOften = (platform: string, pauseMs: number | undefined): DeliveryPostponed =>
  new DeliveryPostponed(`${platform} was called too often`, pauseMs ?? defaultPauseMs)

/**
 * Compares in a time that tells nothing of either.
 * @throws HubError `bad_signature`
 */
export function checkEqual(given: string | undefined | null, expected: string): void {
  const digestOf = (text: string) => createHash('sha256').update(text).digest()
  if (typeof given === 'string' && timingSafeEqual(digestOf(given), digestOf(expected))) return
  throw new HubError('bad_signature')
}

/** A header that may be there once. */
export const headerOf = (headers: IncomingHttpHeaders, name: string): string | undefined => {
  const value = headers[name]
  return typeof value === 'string' ? value : undefined
}
