import { z } from 'zod'
import { clientName } from './ids.ts'
import type { PublicError, ToolCall, Usage } from './events.ts'

import type { BotMessage, TurnResult, TurnRow, TurnStatus } from './store.ts'
import type { Transcript } from './transcript.ts'

/** The hub's own surface under `/api/v1`: what its clients send, and the turn object they get. */

/** Any JSON value. */
export const json = z.json().register(z.globalRegistry, { id: 'Json', description: 'Any JSON value.' })
/** Any JSON object. */
export const jsonObject = z.record(z.string(), json)

/** As `clientName`; an empty one is none. */
const optionalName = z.union([z.literal('').transform(() => undefined), clientName]).optional()

/** The body of `POST /bots/{bot}/messages`. Fields it does not know are ignored. */
export const messageBody = z
  .object({
    text: z.string(),
    conversation: optionalName.describe('A name of your own or a `conv_…` id; without it a new one is opened.'),
    id: optionalName.describe('Sent again under the same id, a message is answered with the turn it already has.'),
    user: optionalName.describe('For whom a trusted key asks.'),
    files: z.array(clientName).max(20).optional().describe('Ids of files uploaded before.'),
    payload: jsonObject.optional().describe('Anything the bot is to see beside the text.'),
    debug: z.boolean().optional().describe('Upstream events the hub has no word for come as `raw`; for a trusted key.'),
    bypassConsent: z.boolean().optional().describe('Nobody is asked about tools; for a key that has the right.'),
  })
  .meta({ id: 'NewMessage' })

/** The body of `POST /turns/{turn}/consent`: one decision at least, for a part of the calls or for all. */
export const decisionsBody = z
  .object({
    decisions: z
      .array(
        z.object({
          call: z.string().min(1),
          result: z.enum(['allow_once', 'allow_always', 'deny_once']),
          reason: z.string().max(8192).exactOptional(),
        }),
      )
      .min(1),
  })
  .meta({ id: 'Decisions' })

/** The body of `POST /turns/{turn}/tool-outputs`. */
export const outputsBody = z
  .object({ outputs: z.array(z.object({ call: z.string().min(1), output: json })).min(1) })
  .meta({ id: 'ToolOutputs' })

/** The body of `POST /conversations/{conversation}/messages`: what an operator says. */
export const operatorBody = z
  .object({
    text: z.string().min(1).max(100_000),
    id: optionalName.describe('Sent again under the same id, it is said once.'),
  })
  .meta({ id: 'OperatorMessage' })

/** A turn as `GET /api/v1/turns/{turn}` answers. */
export interface TurnObject {
  readonly turn: string
  readonly status: TurnStatus
  readonly bot: string
  readonly conversation: string
  readonly message: string
  /** All messages, joined by a blank line; what was shown so far while it runs. */
  readonly text: string
  readonly messages: readonly BotMessage[]
  readonly usage?: Usage
  readonly waiting?: {
    readonly for: 'consent' | 'tool_outputs'
    readonly calls: readonly ToolCall[]
    /** ISO 8601. */
    readonly expiresAt?: string
  }
  /** An operator has the conversation: the message was kept, and no bot has seen it. */
  readonly handedOver?: true
  readonly error?: PublicError
}

/** `said` is the result of a turn that has ended, else its transcript. */
export function toTurnObject(turn: TurnRow, said: TurnResult | Transcript): TurnObject {
  const result: TurnResult = 'result' in said ? said.result : said
  const { text, messages, usage, handedOver, error } = result
  const pending = turn.status === 'waiting' && 'pending' in said ? said.pending : undefined
  return {
    turn: turn.id,
    status: turn.status,
    bot: turn.bot,
    conversation: turn.conversation.name,
    message: turn.message.id,
    text,
    messages,
    ...(usage ? { usage } : {}),
    ...(pending
      ? {
          waiting: {
            ...pending,
            ...(turn.expiresAt === undefined ? {} : { expiresAt: new Date(turn.expiresAt).toISOString() }),
          },
        }
      : {}),
    ...(handedOver ? { handedOver } : {}),
    ...(error ? { error } : {}),
  }
}
