import { z } from 'zod'
import type { BotItem } from './bot.ts'
import type { FailureCode } from './errors.ts'
import { failures } from './errors.ts'
import type { ConsentDecision, LoggedEvent, PendingCall, PublicError, ToolCall, Usage } from './events.ts'
import type { FileRef } from './message.ts'
import type { BotMessage, ConversationItem, RecordItem } from './store.ts'
import type { TurnObject } from './wire.ts'
import { json, jsonObject } from './wire.ts'

/*
 * What the hub answers under `/api/v1`, as schemas for `GET /openapi.json`. The types are the source: a field that is
 * added to one of them has to be added here before it compiles.
 */

/** A schema for every field of a type, optional or not. */
type Fields<T> = { readonly [Key in keyof T]-?: z.ZodType<T[Key]> }

/** The fields of one kind of event. */
type EventFields<Type> = Fields<Omit<EventOf<LoggedEvent, Type>, 'type'>>
type EventOf<Event extends LoggedEvent, Type> = Event extends LoggedEvent
  ? Type extends Event['type']
    ? Event
    : never
  : never

/** A time as answers have it. */
export const isoTime = z.string().meta({ format: 'date-time', description: 'ISO 8601, in UTC.' })

const codes = Object.entries(failures) as readonly (readonly [FailureCode, (typeof failures)[FailureCode]])[]
const code = z.enum(codes.map(([name]) => name)).meta({
  id: 'ErrorCode',
  description: codes.map(([name, { status, en }]) => `- \`${name}\` (${status}): ${en}`).join('\n'),
})

const errorFields = {
  code,
  message: z.string().describe('A sentence for a person.'),
  retryable: z.boolean().describe('Sending the message again, under a new id, may work.'),
  retryAfterMs: z.number().exactOptional(),
  upstream: z
    .object({ status: z.number().exactOptional(), code: z.string().exactOptional() })
    .exactOptional()
    .describe("The upstream's own status and code."),
} satisfies Fields<PublicError>

const publicError = z
  .object(errorFields)
  .meta({ id: 'TurnError', description: 'Why a turn, or a try to answer it, failed.' })

/** What is answered, with the status of its code, when something fails before there is a turn. */
export const errorAnswer = z
  .object({
    error: z.object({ ...errorFields, turn: z.string().exactOptional().describe('The turn this is about.') }),
  })
  .meta({ id: 'Error' })

const usageFields = {
  inputTokens: z.number(),
  outputTokens: z.number(),
  totalTokens: z.number(),
  model: z.string().exactOptional(),
} satisfies Fields<Usage>
const usage = z.object(usageFields).meta({ id: 'Usage', description: 'What a turn cost at its model, in tokens.' })

const callFields = {
  call: z.string().describe('Unique within the turn.'),
  toolset: z.string().exactOptional(),
  tool: z.string(),
  input: json,
  reason: z.string().exactOptional().describe('Why the bot wants it, in its own words.'),
} satisfies Fields<ToolCall>
const toolCall = z.object(callFields).meta({ id: 'ToolCall' })
const pendingCall = z
  .object({
    ...callFields,
    alreadyAllowed: z.boolean().describe('The same tool was allowed before with `allow_always`.'),
  } satisfies Fields<PendingCall>)
  .meta({ id: 'PendingCall', description: 'A tool call that waits for consent.' })

const decision = z.object({
  call: z.string(),
  result: z.enum(['allow_once', 'allow_always', 'deny_once']),
  reason: z.string().exactOptional(),
} satisfies Fields<ConsentDecision>)

const botMessage = z
  .object({
    id: z.string(),
    text: z.string(),
    template: jsonObject.exactOptional().describe('Rich content.'),
    payload: json.exactOptional(),
  } satisfies Fields<BotMessage>)
  .meta({ id: 'BotMessage', description: "One message of the bot's answer." })

const handedOver = z
  .literal(true)
  .exactOptional()
  .describe('An operator has the conversation: the message was kept, and no bot has seen it.')

const waitsFor = z.enum(['consent', 'tool_outputs'])

/** The turn object. */
export const turnObject = z
  .object({
    turn: z.string(),
    status: z.enum(['queued', 'running', 'waiting', 'completed', 'failed', 'cancelled', 'interrupted']),
    bot: z.string(),
    conversation: z.string().describe('The name the client gave it, or its `conv_…` id.'),
    message: z.string().describe('The id of the message that is answered.'),
    text: z.string().describe('All messages, joined by a blank line; what was shown so far while it runs.'),
    messages: z.array(botMessage),
    usage: usage.exactOptional(),
    waiting: z
      .object({
        for: waitsFor,
        calls: z.array(z.union([pendingCall, toolCall])),
        expiresAt: isoTime.exactOptional(),
      } satisfies Fields<NonNullable<TurnObject['waiting']>>)
      .exactOptional(),
    handedOver,
    error: publicError.exactOptional(),
  } satisfies Fields<TurnObject>)
  .meta({ id: 'Turn', description: 'The answering of one message.' }) satisfies z.ZodType<TurnObject>

const said = { message: z.string(), text: z.string() }
const shown = z.string().describe('What was shown: all messages, joined by a blank line.')
const expiresAt = isoTime.exactOptional()

const eventFields = {
  'turn.started': {
    turn: z.string(),
    bot: z.string(),
    conversation: z.string(),
    message: z.string(),
    by: z.literal('operator').exactOptional().describe('Nobody asked: an operator speaks to the user.'),
  },
  'turn.waiting': { for: waitsFor },
  'turn.completed': { text: shown, usage: usage.exactOptional(), handedOver },
  'turn.failed': { text: shown, error: publicError },
  'turn.cancelled': {
    text: shown,
    by: z.enum(['client', 'abandoned', 'superseded', 'deleted', 'shutdown', 'admin']),
  },
  'turn.interrupted': { text: shown, error: publicError },
  'message.started': { message: z.string() },
  'message.delta': said,
  'message.completed': { ...said, template: jsonObject.exactOptional(), payload: json.exactOptional() },
  'reasoning.delta': said,
  'reasoning.completed': said,
  'canvas.delta': said,
  'canvas.completed': { ...said, template: jsonObject.exactOptional() },
  'tool.started': callFields,
  'tool.completed': { call: z.string(), output: json, isError: z.boolean() },
  'agent.started': {
    agent: z.string(),
    parent: z.string().exactOptional(),
    kind: z.string().exactOptional(),
    description: z.string().exactOptional(),
  },
  'agent.completed': { agent: z.string(), status: z.string(), summary: z.string().exactOptional() },
  'sandbox.started': { name: z.string(), blueprint: z.string() },
  'sandbox.ready': { name: z.string(), blueprint: z.string() },
  'conversation.updated': { title: z.string().exactOptional(), status: z.string().exactOptional() },
  'consent.requested': { calls: z.array(pendingCall), expiresAt },
  'consent.answered': { decisions: z.array(decision), by: z.enum(['user', 'policy']) },
  'tool.outputs_requested': { calls: z.array(toolCall), expiresAt },
  suggestion: { text: z.string() },
  usage: usageFields,
  'attempt.failed': { attempt: z.number(), error: publicError, retryInMs: z.number() },
  raw: { source: z.string(), name: z.string(), data: json },
} satisfies { readonly [Type in LoggedEvent['type']]: EventFields<Type> }

const [firstEvent, ...moreEvents] = Object.entries(eventFields).map(([type, fields]) =>
  z
    .object({ seq: z.int().min(1), type: z.literal(type), ...(fields as Readonly<Record<string, z.ZodType>>) })
    .meta({ id: `${pascalCase(type)}Event` }),
)

/** A numbered event, as the `data:` of a stream holds it. */
export const numberedEvent = z.discriminatedUnion('type', [firstEvent!, ...moreEvents]).meta({
  id: 'Event',
  description:
    'One numbered thing that happened in a turn; `seq` is dense from 1. Exactly one of `turn.completed`, `turn.failed`, ' +
    '`turn.cancelled` and `turn.interrupted` ends a turn. Ignore types you do not know: there will be more.',
})

function pascalCase(type: string): string {
  return type.replaceAll(/(?:^|[._])([a-z])/g, (_, letter: string) => letter.toUpperCase())
}

const bot = z
  .object({
    bot: z.string().describe('Its name in paths.'),
    name: z.string().optional(),
    description: z.string().optional(),
    avatar: z.string().optional().describe('URL of a picture.'),
    welcome: z.string().optional().describe('What it says before anybody has said a word.'),
    starters: z.array(z.string()).optional().describe('Questions to begin with.'),
    language: z.enum(['en', 'zh-Hant', 'zh-Hans']).optional().describe('The language it fails in.'),
    supports: z.array(z.string()).describe('What it can do beside answering, such as `consent` or `files`.'),
    simulated: z.boolean().describe('Its upstream is a simulator of the hub.'),
  } satisfies Fields<BotItem>)
  .meta({ id: 'Bot' })

/** What `GET /bots` answers. */
export const botList = z.object({ bots: z.array(bot) }).meta({ id: 'BotList' })

/** A page of a list that is read from its end. */
export const pageOf = <Item extends z.ZodType>(item: Item) =>
  z.object({
    items: z.array(item).describe('Oldest first.'),
    before: z.string().exactOptional().describe('Pass it as `before` to get the page before this one.'),
  })

const conversation = z
  .object({
    id: z.string().describe('`conv_…`'),
    name: z.string().describe('The name the client gave it, or its id.'),
    title: z.string().exactOptional().describe('What the bot last called it.'),
    createdAt: isoTime,
    updatedAt: isoTime,
  } satisfies Record<keyof ConversationItem, z.ZodType>)
  .meta({ id: 'Conversation' })

/** A page of conversations. */
export const conversationPage = pageOf(conversation).meta({ id: 'ConversationPage' })

const record = z
  .object({
    id: z.string(),
    role: z.enum(['user', 'bot', 'operator']),
    text: z.string(),
    turn: z.string(),
    at: isoTime,
    partial: z.boolean().exactOptional().describe('The answer of a turn that did not complete.'),
  } satisfies Record<keyof RecordItem, z.ZodType>)
  .meta({ id: 'Record', description: 'One thing that was said in a conversation.' })

/** A page of what was said in a conversation. */
export const recordPage = pageOf(record).meta({ id: 'RecordPage' })

/** What an upload is answered with. */
export const fileAnswer = z
  .object({
    id: z.string().describe('For `files` of a message.'),
    name: z.string(),
    bytes: z.number(),
    mime: z.string(),
  } satisfies Fields<Omit<FileRef, 'upstream'>>)
  .meta({ id: 'File' })

/** What taking a conversation is answered with. */
export const handoverAnswer = z
  .object({
    conversation: z.string().describe('`conv_…`'),
    bot: z.string(),
    name: z.string().describe('The name the client gave it, or its id.'),
    user: z.string().exactOptional().describe('For whom its key asks, where that says so.'),
    takenBy: z.string().describe('The key that has it now.'),
  })
  .meta({ id: 'Handover' })
