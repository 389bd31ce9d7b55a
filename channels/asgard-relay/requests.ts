import { z } from 'zod'
import type { RequestContext } from '../../core/channel.ts'
import type { HubError } from '../../core/errors.ts'
import { clientName } from '../../core/ids.ts'
import { jsonObject } from '../../core/wire.ts'

/** What clients of Asgard's Bot Provider API send, and the envelope of what is no stream. */

/** Body of `POST /message`, `/message/sse` and `/message/dispatch`. */
export const genericBotMessage = z
  .object({
    customChannelId: clientName.describe('The name of the conversation.'),
    customMessageId: z
      .union([z.literal('').transform(() => undefined), clientName])
      .nullish()
      .describe('Sent again under the same id, a message is answered with the run it already has.'),
    text: z.string().default(''),
    action: z.enum(['NONE', 'RESET_CHANNEL', 'RESPONSE_TOOL_CALL_CONSENT', 'NUDGE']),
    blobIds: z.array(clientName).max(20).nullish(),
    payload: jsonObject.nullish(),
    toolCallConsents: z
      .array(
        z.object({
          toolCallId: z.string().min(1),
          result: z.enum(['ALLOW_ONCE', 'ALLOW_ALWAYS', 'DENY_ONCE']),
          denyReason: z.string().max(8192).nullish(),
        }),
      )
      .nullish(),
  })
  .meta({ id: 'AsgardMessage' })

/** Body of `POST /message/feedback`. */
export const feedbackBody = z
  .object({
    customChannelId: clientName,
    messageId: z.string().min(1).max(512),
    verdict: z.enum(['GOOD', 'BAD']),
    comment: z
      .string()
      .refine((text) => Buffer.byteLength(text) <= 8192, 'must be at most 8 KiB')
      .nullish(),
  })
  .meta({ id: 'AsgardFeedback' })

/** The query of everything about a channel. */
export const channelQuery = z.object({ custom_channel_id: clientName.describe('The name of the conversation.') })
/** The query of `POST /message/suspend`. */
export const suspendQuery = channelQuery.extend({
  request_id: z.string().optional().describe('Stops this run only.'),
  force: z.string().optional().describe('Every stop is one by force here.'),
})
/** The switches of a message. */
export const messageQuery = z.object({
  is_debug: z.string().optional().describe('`true`: events of the upstream come too; for a trusted key.'),
  bypass_tool_call_consent: z.string().optional().describe('`true`: nobody is asked; for a key with the right.'),
})
/** Headers that a message may have. */
export const messageHeaders = z.object({
  'Last-Event-ID': z.string().optional().describe('Only resubscribes, behind this frame; nothing is sent again.'),
  'X-ASGARD-USER-IDENTITY-HINT': z.string().optional().describe('Who says it, by the word of a trusted key.'),
})

/** What every answer that is no stream is wrapped in. */
export const envelope = z
  .object({
    isSuccess: z.boolean(),
    data: z.json(),
    error: z.string().nullable(),
    errorCode: z.string().nullable(),
  })
  .meta({ id: 'AsgardAnswer' })

const maxHintLength = 128
/** The identity hint of a request; undefined when there is none. It counts from trusted keys alone. */
export function hintOf(ctx: RequestContext): string | undefined {
  const hint = ctx.get('x-asgard-user-identity-hint')
  return hint && ctx.principal.trusted ? hint.slice(0, maxHintLength) : undefined
}

/** Answers with data in the envelope. */
export function succeed(ctx: RequestContext, payload: unknown, status = 200): void {
  ctx.status = status
  ctx.body = { isSuccess: true, data: payload, error: null, errorCode: null }
}

/** A failure in the envelope. */
export const failure = (errorCode: string, error: string) => ({ isSuccess: false, data: null, error, errorCode })

/** Where Asgard has a status or a code of its own for what the hub calls otherwise. */
const itsOwn: Partial<Record<HubError['code'], { readonly status: number; readonly errorCode?: string }>> = {
  unknown_conversation: { status: 404, errorCode: 'CHANNEL_NOT_FOUND' },
  unknown_message: { status: 404, errorCode: 'MESSAGE_NOT_FOUND' },
  invalid_request: { status: 400, errorCode: 'INVALID_ARGUMENT' },
  internal: { status: 500, errorCode: 'INTERNAL' },
  turn_waiting: { status: 400 },
}

/** A failure before there is a stream, in Asgard's envelope: the hub's code, or Asgard's where it has one. */
export function encodeFailure(error: HubError): { readonly status: number; readonly body: unknown } {
  const { status = error.failure.status, errorCode = error.code } = itsOwn[error.code] ?? {}
  return { status, body: failure(errorCode, error.public().message) }
}
