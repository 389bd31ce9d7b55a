import { z } from 'zod'
import type { Inbound } from '../../core/acceptance.ts'
import type { HubError } from '../../core/errors.ts'
import { clientName } from '../../core/ids.ts'
import type { JsonObject } from '../../core/message.ts'
import { jsonObject } from '../../core/wire.ts'

/** What clients of CloudBase's agents send. They write a value they do not have as nothing, `null` or `undefined`. */

const absent = z.literal(['', 'undefined', 'null']).transform(() => undefined)
const optional = <Schema extends z.ZodType>(schema: Schema) => z.union([absent, schema]).nullish()
const wholeNumber = (least: number, most: number, otherwise: number) =>
  optional(z.coerce.number().int().min(least)).transform((given) => Math.min(given ?? otherwise, most))

const maxPageSize = 200
const conversationId = optional(clientName).describe('Without one it is the default conversation.')
const pages = {
  pageSize: wholeNumber(1, maxPageSize, 10).describe(`At most ${maxPageSize}.`),
  pageNumber: wholeNumber(1, Number.MAX_SAFE_INTEGER, 1),
}

/** What was said before, in a client's words. */
export const chatMessages = z.array(z.looseObject({ role: z.string(), content: z.unknown() }))

/** Body of `POST /send-message`, and of `POST /preview`, in the classic dialect. */
export const sendBody = z
  .object({
    msg: z.string(),
    conversationId,
    history: z.array(jsonObject).nullish().describe('Goes to the bot beside the message.'),
    searchEnable: z.boolean().nullish().describe('Goes to the bot beside the message.'),
    files: z
      .array(z.string().min(1).max(2048))
      .max(20)
      .nullish()
      .describe('Ids of files uploaded to the hub; other names and addresses go to the bot beside the message.'),
  })
  .meta({ id: 'CloudBaseMessage' })

/** What a message may have beside its words. */
type Beside = Partial<Pick<z.output<typeof sendBody>, 'history' | 'searchEnable' | 'files'>>

/** What comes with a message: files of the hub, and what only the bot can make something of. */
export function besides({ history, searchEnable, files }: Beside): Pick<Inbound, 'files' | 'payload'> {
  const [ours, others] = [true, false].map((isOurs) => (files ?? []).filter((id) => isOurs === id.startsWith('file_')))
  const payload: JsonObject = {
    ...(history?.length ? { history } : {}),
    ...(searchEnable ? { searchEnable } : {}),
    ...(others?.length ? { files: others } : {}),
  }
  return {
    ...(ours?.length ? { files: ours } : {}),
    ...(Object.keys(payload).length > 0 ? { payload } : {}),
  }
}

/** Headers of `POST /send-message` that CloudBase itself does not know. */
export const sendHeaders = z.object({
  'Idempotency-Key': clientName.optional().describe('Sent again under it, a message has the answer it already has.'),
  'Last-Event-ID': z.string().optional().describe('Only resubscribes, behind this frame; nothing is sent again.'),
})

/** Query of `GET /records`. */
export const recordsQuery = z.object({
  sort: z.enum(['asc', 'desc']).catch('desc').describe('By time; the newest first by default.'),
  ...pages,
  conversationId,
})

/** Body of `POST /recommend-questions`. */
export const suggestBody = z.object({
  msg: z.string().nullish(),
  history: chatMessages.nullish(),
  conversationId,
  name: z.string().nullish(),
  introduction: z.string().nullish(),
  agentSetting: z.string().nullish(),
})

/** Body of `POST /feedback`. */
export const feedbackBody = z
  .object({
    recordId: z.string().min(1),
    type: z.enum(['upvote', 'downvote']),
    comment: z.string().max(8192).nullish(),
    rating: z.number().int().min(1).max(5).nullish(),
    tags: z.array(z.string().max(256)).max(50).nullish(),
  })
  .meta({ id: 'CloudBaseFeedback' })

/** Query of `GET /feedback`; times in seconds or ms since the epoch. */
export const feedbackQuery = z.object({
  type: optional(z.enum(['upvote', 'downvote'])),
  sender: optional(z.string()),
  senderFilter: z.enum(['include', 'exclude', 'equal', 'unequal', 'prefix']).catch('equal'),
  minRating: optional(z.coerce.number()),
  maxRating: optional(z.coerce.number()),
  from: optional(z.coerce.number()),
  to: optional(z.coerce.number()),
  ...pages,
})

const title = z.string().max(256)

/** Body of `POST /conversation`. */
export const newConversationBody = z.object({ title: optional(title) })
/** Body of `PATCH /conversation/{conversation}`. */
export const renameBody = z.object({ title: title.min(1) })
/** Query of `GET /conversation`. */
export const conversationsQuery = z.object({
  limit: wholeNumber(1, 100, 10).describe('At most 100.'),
  offset: wholeNumber(0, Number.MAX_SAFE_INTEGER, 0),
  isDefault: z
    .literal('true')
    .transform(() => true)
    .catch(false)
    .describe('`true`: the conversation of messages that name none, if there is one.'),
})

/** Any JSON object: what a bot's own method is given. */
export const anyBody = z.record(z.string(), z.json())

/** What every failure is told with; its `code` makes a client of CloudBase throw. */
export const failureBody = z
  .object({ code: z.string(), message: z.string(), requestId: z.string() })
  .meta({ id: 'CloudBaseError' })

/** A failure in front of a stream: the hub's code, and the turn it is about, if there is one. */
export const encodeFailure = (error: HubError): { readonly body: z.output<typeof failureBody> } => ({
  body: { code: error.code, message: error.public().message, requestId: error.turn ?? '' },
})
