import { join } from 'node:path'
import { z } from 'zod'
import type { Principal } from '../../core/auth.ts'
import { speakingFor } from '../../core/auth.ts'
import { check } from '../../core/body.ts'
import type { ChannelContext, RequestContext, Route, RouteDescription } from '../../core/channel.ts'
import { channelOptions, defineChannel } from '../../core/channel.ts'
import { HubError } from '../../core/errors.ts'
import { clientName, fromNumbered } from '../../core/ids.ts'
import type { JsonObject } from '../../core/message.ts'
import { under } from '../../core/native.ts'
import type { ConversationRow, TurnRow } from '../../core/store.ts'
import { isEnded } from '../../core/store.ts'
import { leaving, receiveUpload } from '../../core/upload.ts'
import { toBot, toBotItem } from './bots.ts'
import { seconds, stringsIn } from './encode.ts'
import { encodeFailure } from './errors.ts'
import { FileShelf, handOver } from './files.ts'
import type { KeptFile } from './files.ts'
import { conversationOf, fromMessageId, toCozeId, toSectionId, turnOfChat } from './ids.ts'
import { addMessages, editMessage, findMessage, listMessages } from './messages.ts'
import {
  botsQuery,
  changedMessageBody,
  chatQuery,
  chatRequest,
  conversationBody,
  conversationQuery,
  decisionIn,
  envelope,
  feedbackBody,
  fileQuery,
  listQuery,
  messageListBody,
  messageQuery,
  newMessageBody,
  payloadOf,
  questionIn,
  readBody,
  readOptionalBody,
  renameBody,
  succeed,
  textOf,
  toolOutputsBody,
} from './requests.ts'
import type { ChatRequest, Question } from './requests.ts'
import { attend, chatObjectOf, messagesOf, streamChat } from './streams.ts'

const dayMs = 86_400_000

const options = z.strictObject({
  ...channelOptions,
  files: z
    .strictObject({
      folder: z.string().default('data/coze-files').describe("Beside the config's folder."),
      keepDays: z.number().positive().default(90).describe('How long an uploaded file is kept.'),
      maxBytes: z.number().positive().default(1_073_741_824).describe('Of all together; the oldest make room.'),
    })
    .prefault({})
    .describe('Uploaded files wait here for the chats that name them.'),
})

/**
 * Lets Coze's clients talk to the hub: with its address for a base URL, code that was written for Coze's open API v3
 * reaches any bot, whose name is the `bot_id`. A conversation of Coze's is one of the hub, a chat is a turn. The token is a
 * key of the hub, or anything where there is no `auth`. `docs/dialects.md` says what is served.
 * @example cozeApi({ bots: ['support'], origins: ['https://www.example.com'] })
 */
export const cozeApi = defineChannel({
  name: 'cozeApi',
  options,
  create({ path, files }, context) {
    const { folder, keepDays, maxBytes } = files
    const shelf = new FileShelf({
      folder: join(context.folder, folder),
      keepMs: keepDays * dayMs,
      maxBytes,
      clock: context.clock,
    })
    const closing = new AbortController()
    const door: Door = { context, shelf, closing: closing.signal }
    const own = new RegExp(`^${RegExp.escape(path === '/' ? '' : path)}/(v3/chat|v1/(conversations?|files|bots))(/|$)`)
    return {
      door: `POST ${under(path, '/v3/chat')}`,
      routes: routesOf(door).map((route) => ({ ...route, path: under(path, route.path) })),
      encodeError: (error, requested) => (own.test(requested) ? encodeFailure(error, requested) : undefined),
      close: () => closing.abort(),
    }
  },
})

/** What every handler works with. */
interface Door {
  readonly context: ChannelContext
  readonly shelf: FileShelf
  /** Aborted when the hub stops. */
  readonly closing: AbortSignal
}

type Handler = (ctx: RequestContext, door: Door) => Promise<void>

function routesOf(door: Door): readonly Route[] {
  const route = (
    method: Route['method'],
    path: string,
    handler: Handler,
    describe: Omit<RouteDescription, 'answers'>,
    answers: RouteDescription['answers'] = wrapped,
  ): Route => ({ method, path, describe: { ...describe, answers }, handle: (ctx) => handler(ctx, door) })
  const retrieve = { summary: 'See a chat of Coze', query: chatQuery }
  return [
    route('POST', '/v3/chat', chat, { summary: 'Send a message, as Coze does', body: json(chatRequest) }, streamed),
    route('GET', '/v3/chat/retrieve', retrieveChat, retrieve),
    route('POST', '/v3/chat/retrieve', retrieveChat, retrieve),
    route('GET', '/v3/chat/message/list', listChat, { summary: 'List what a chat has said', query: chatQuery }),
    route('POST', '/v3/chat/cancel', cancel, { summary: 'Stop a chat', body: json(chatQuery) }),
    route(
      'POST',
      '/v3/chat/submit_tool_outputs',
      submit,
      { summary: 'Answer the calls a chat waits for', query: chatQuery, body: json(toolOutputsBody) },
      streamed,
    ),
    route('POST', '/v1/conversation/create', create, {
      summary: 'Make a conversation',
      body: json(conversationBody),
    }),
    route('GET', '/v1/conversation/retrieve', retrieveConversation, {
      summary: 'See a conversation',
      query: conversationQuery,
    }),
    route('GET', '/v1/conversations', listConversations, { summary: 'List conversations', query: listQuery }),
    route('PUT', '/v1/conversations/:conversation', renameConversation, {
      summary: 'Name a conversation',
      body: json(renameBody),
    }),
    route('DELETE', '/v1/conversations/:conversation', forget, { summary: 'Delete a conversation' }),
    route('POST', '/v1/conversations/:conversation/clear', clear, { summary: 'Clear the context of a conversation' }),
    route('POST', '/v1/conversation/message/list', listConversation, {
      summary: 'List what was said in a conversation',
      query: conversationQuery,
      body: json(messageListBody),
    }),
    route('GET', '/v1/conversation/message/retrieve', retrieveMessage, {
      summary: 'See a message',
      query: messageQuery,
    }),
    route('POST', '/v1/conversations/:conversation/messages/:message/feedback', rate, {
      summary: 'Rate a message of a bot',
      body: json(feedbackBody),
    }),
    route('POST', '/v1/files/upload', upload, { summary: 'Upload a file', body: fileBody }),
    route('GET', '/v1/files/retrieve', retrieveFile, { summary: 'See a file', query: fileQuery }),
    route('GET', '/v1/bots', listBots, { summary: 'List the bots, as Coze does', query: botsQuery }),
    route('GET', '/v1/bots/:bot', retrieveBot, { summary: 'See a bot, as Coze does' }),
    route('POST', '/v1/conversation/message/create', createMessage, {
      summary: 'Write a message that nobody is asked to answer',
      query: conversationQuery,
      body: json(newMessageBody),
    }),
    route('POST', '/v1/conversation/message/modify', modifyMessage, {
      summary: 'Change a message',
      query: messageQuery,
      body: json(changedMessageBody),
    }),
    route('POST', '/v1/conversation/message/delete', deleteMessage, {
      summary: 'Delete a message',
      query: messageQuery,
    }),
  ]
}

const json = (schema: z.ZodType) => ({ 'application/json': schema })
const wrapped = { 200: { description: 'In the envelope.', content: json(envelope) } } as const
const streamed = {
  200: {
    description: 'Events of Coze with `stream: true`, else the chat as it is now.',
    content: { 'text/event-stream': z.string(), ...json(envelope) },
  },
} as const
const fileBody = { 'multipart/form-data': z.object({ file: z.file() }) } as const

const chat: Handler = async (ctx, door) => {
  const request = await readBody(ctx, chatRequest)
  const cursor = ctx.get('last-event-id')
  // A client that comes back asks nothing again; "0" is before everything, so it begins, and gets ids to come back with.
  const resumed = cursor !== '' && cursor !== '0' ? await placeOf(ctx, door, cursor) : undefined
  const { turn, after } = resumed ?? { turn: await begin(ctx, door, request), after: 0 }
  if (request.stream) return streamChat(ctx, door.context, { turn, after, withIds: cursor !== '' })
  succeed(ctx, { data: await chatObjectOf(door.context, turn) })
}

/** @throws HubError `bad_cursor`, `unknown_turn` */
async function placeOf(ctx: RequestContext, door: Door, cursor: string) {
  const place = fromNumbered('turn', cursor)
  if (!place) throw new HubError('bad_cursor', { message: 'Send the id of an event of a chat.' })
  return { turn: await turnOf(ctx, door, place.id), after: place.number }
}

async function begin(ctx: RequestContext, door: Door, request: ChatRequest): Promise<TurnRow> {
  const { context } = door
  const bot = botOf(ctx, context, request.bot_id)
  const question = questionIn(request.additional_messages ?? [])
  const id = idOf(ctx, request, question)
  const conversation = conversationIn(ctx, request)
  const { where, files } =
    question.files.length === 0
      ? { where: conversation, files: [] }
      : await send(ctx, door, { bot, conversation, id, request, question })
  const { turn } = await context.hub.send(ctx.principal, {
    bot,
    channel: context.name,
    conversation: where,
    id,
    user: request.user_id,
    text: question.text,
    files,
    history: question.history,
    payload: payloadOf(request),
    metadata: metadataOf(request, question),
    detached: !request.stream,
  })
  return turn
}

/** An id that the client gives its message: by the header of other dialects, or as a hub does that asks another. */
function idOf(ctx: RequestContext, { meta_data: chatData }: ChatRequest, { metaData }: Question): string | undefined {
  const id = ctx.get('idempotency-key') || metaData?.['hub_message_id'] || chatData?.['hub_message_id']
  return id ? check(clientName, id, 'The id of the message') : undefined
}

/** @throws HubError `unknown_conversation` for what is no id of the hub's */
function conversationIn(ctx: RequestContext, request: ChatRequest): string | undefined {
  const { conversation_id: named } = check(conversationQuery.partial(), ctx.query)
  const given = named || request.conversation_id
  return given ? hubConversation(given) : undefined
}

function hubConversation(id: string): string {
  const conversation = conversationOf(id)
  if (conversation === undefined) throw new HubError('unknown_conversation')
  return conversation
}

interface Sending {
  readonly bot: string
  readonly conversation: string | undefined
  readonly id: string | undefined
  readonly request: ChatRequest
  readonly question: Question
}

/** Sends the files of a question to the bot, in the conversation that the question then goes to. */
async function send(
  ctx: RequestContext,
  { context, shelf }: Door,
  { bot, conversation, id, request, question }: Sending,
): Promise<{ readonly where: string; readonly files: readonly string[] }> {
  const caller = speakingFor(ctx.principal, request.user_id)
  const { conversations } = context
  const row = conversation === undefined ? undefined : await conversations.get(caller, conversation)
  const principal = row?.user === undefined ? caller : { ...caller, user: row.user }
  const opened = () => (id === undefined ? conversations.create(caller, { bot }) : { id: `message:${id}` })
  const where = (row ?? (await opened())).id
  using left = leaving(ctx)
  const files = await handOver(context, shelf, question.files, { principal, bot, conversation: where }, left.signal)
  return { where, files }
}

function metadataOf({ meta_data: chatData }: ChatRequest, { metaData, files }: Question): JsonObject | undefined {
  const metadata = {
    ...(chatData ? { chat: chatData } : {}),
    ...(metaData ? { message: metaData } : {}),
    ...(files.length > 0 ? { files } : {}),
  }
  return Object.keys(metadata).length > 0 ? metadata : undefined
}

/** @throws HubError `unknown_bot` */
function botOf({ principal }: RequestContext, { bots, offers }: ChannelContext, id: string): string {
  const { name } = bots.find(principal, id)
  if (!offers(name)) throw new HubError('unknown_bot')
  return name
}

/** @throws HubError `unknown_turn` */
async function turnOf({ principal }: RequestContext, { context }: Door, id: string): Promise<TurnRow> {
  const turn = await context.hub.turn(principal, id)
  if (!context.offers(turn.bot)) throw new HubError('unknown_turn')
  return turn
}

/** The turn of a chat, which has to be of the conversation. */
async function chatIn(
  ctx: RequestContext,
  door: Door,
  { conversation_id: conversation, chat_id: chatId }: z.output<typeof chatQuery>,
): Promise<TurnRow> {
  const id = turnOfChat(chatId)
  const turn = id === undefined ? undefined : await turnOf(ctx, door, id)
  if (!turn || turn.conversation.id !== conversationOf(conversation)) throw new HubError('unknown_turn')
  return turn
}

const retrieveChat: Handler = async (ctx, door) => {
  const turn = await chatIn(ctx, door, check(chatQuery, ctx.query))
  succeed(ctx, { data: await chatObjectOf(door.context, turn) })
}

const listChat: Handler = async (ctx, door) => {
  const turn = await chatIn(ctx, door, check(chatQuery, ctx.query))
  succeed(ctx, { data: await messagesOf(door.context, turn) })
}

const cancel: Handler = async (ctx, door) => {
  const { hub } = door.context
  const turn = await chatIn(ctx, door, await readBody(ctx, chatQuery))
  if (isEnded(turn.status)) throw new HubError('turn_ended', { turn: turn.id })
  await hub.cancel(turn, 'client')
  succeed(ctx, { data: await chatObjectOf(door.context, await hub.turn(ctx.principal, turn.id)) })
}

/** What answers a question of consent is a decision, everything else is the output of a tool. */
const submit: Handler = async (ctx, door) => {
  const { hub } = door.context
  const turn = await chatIn(ctx, door, check(chatQuery, ctx.query))
  const { tool_outputs: given, stream } = await readBody(ctx, toolOutputsBody)
  const outputs = given.map(({ tool_call_id: call, output }) => ({ call, output }))
  const { waiting } = await hub.view(turn.id)
  if (waiting?.for === 'consent') {
    const decisions = outputs.map(({ call, output }) => decisionIn(call, output))
    await hub.decide(turn, ctx.principal, decisions)
  } else await hub.giveOutputs(turn, outputs)
  if (stream) return streamChat(ctx, door.context, { turn, after: turn.seq, withIds: ctx.get('last-event-id') !== '' })
  if (!turn.detached) attend(door.context, turn, door.closing)
  succeed(ctx, { data: await chatObjectOf(door.context, await hub.turn(ctx.principal, turn.id)) })
}

const create: Handler = async (ctx, { context }) => {
  const { bot_id: bot, name, meta_data: metaData, messages } = await readOptionalBody(ctx, conversationBody)
  // Nothing is made where one of them cannot be read.
  for (const message of messages ?? []) textOf(message)
  const row = await context.conversations.create(ctx.principal, {
    bot: bot ? botOf(ctx, context, bot) : undefined,
    metadata: { ...(name ? { name } : {}), ...(metaData ? { meta_data: metaData } : {}) },
  })
  if (messages?.length) await addMessages({ context, principal: ctx.principal, row }, messages)
  succeed(ctx, { data: toConversation(row) })
}

/** @throws HubError `unknown_conversation` */
async function rowOf({ principal }: RequestContext, { context }: Door, id: string): Promise<ConversationRow> {
  const row = await context.conversations.get(principal, hubConversation(id))
  if (row.bot !== undefined && !context.offers(row.bot)) throw new HubError('unknown_conversation')
  return row
}

/** It is called what its client calls it, else what its bot does. */
const nameOf = ({ id, name, title, metadata }: ConversationRow): string => {
  const given = metadata?.['name']
  return typeof given === 'string' ? given : (title ?? (name === id ? '' : name))
}

const toConversation = (row: ConversationRow): JsonObject => ({
  id: toCozeId(row.id),
  name: nameOf(row),
  meta_data: stringsIn(row.metadata?.['meta_data']) ?? {},
  created_at: seconds(row.createdAt),
  updated_at: seconds(row.updatedAt),
  last_section_id: toSectionId(row.id, row.section),
})

const retrieveConversation: Handler = async (ctx, door) => {
  const { conversation_id: id } = check(conversationQuery, ctx.query)
  succeed(ctx, { data: toConversation(await rowOf(ctx, door, id)) })
}

/** Pages by number are read from the newest on, so that there is an end to them. */
const maxListed = 1000

const listConversations: Handler = async (ctx, { context }) => {
  const { bot_id: id, page_num: page, page_size: size, sort_order: order } = check(listQuery, ctx.query)
  const bot = botOf(ctx, context, id)
  const { items } = await context.conversations.listOfKey(ctx.principal, bot, { limit: maxListed })
  const theirs = items.filter((row) => isOf(ctx.principal, row))
  const ordered = order.toLowerCase() === 'asc' ? theirs : theirs.toReversed()
  succeed(ctx, {
    data: {
      conversations: ordered.slice((page - 1) * size, page * size).map(toConversation),
      has_more: ordered.length > page * size,
    },
  })
}

/** Who asks for one user sees that user's only. */
const isOf = ({ user }: Principal, row: ConversationRow): boolean => user === undefined || row.user === user

const renameConversation: Handler = async (ctx, door) => {
  const row = await rowOf(ctx, door, ctx.params['conversation']!)
  const { name } = await readBody(ctx, renameBody)
  const named = await door.context.conversations.describe(ctx.principal, row.id, { ...row.metadata, name })
  succeed(ctx, { data: toConversation(named) })
}

const forget: Handler = async (ctx, door) => {
  const { id } = await rowOf(ctx, door, ctx.params['conversation']!)
  await door.context.conversations.discard(ctx.principal, id)
  succeed(ctx, {})
}

const clear: Handler = async (ctx, door) => {
  const { id } = await rowOf(ctx, door, ctx.params['conversation']!)
  using left = leaving(ctx)
  const { section } = await door.context.conversations.clear(ctx.principal, id, left.signal)
  succeed(ctx, { data: { id: toSectionId(id, section), conversation_id: toCozeId(id) } })
}

const listConversation: Handler = async (ctx, door) => {
  const { context } = door
  const row = await rowOf(ctx, door, check(conversationQuery, ctx.query).conversation_id)
  const {
    order,
    chat_id: chatId,
    before_id: before,
    after_id: after,
    limit,
  } = await readOptionalBody(ctx, messageListBody)
  const { items, hasMore } = await listMessages(
    { context, principal: ctx.principal, row },
    {
      order: order ?? 'desc',
      chat: chatId || undefined,
      before: cursorIn(before),
      after: cursorIn(after),
      limit: limit ?? 50,
    },
  )
  const [first, last] = [items[0], items.at(-1)]
  succeed(ctx, { data: items, first_id: first?.['id'] ?? '', last_id: last?.['id'] ?? '', has_more: hasMore })
}

/** Coze says `0` for none. */
const cursorIn = (id: string | null | undefined): string | undefined => (id && id !== '0' ? id : undefined)

const retrieveMessage: Handler = async (ctx, door) => {
  const { conversation_id: conversation, message_id: id } = check(messageQuery, ctx.query)
  const row = await rowOf(ctx, door, conversation)
  const { context } = door
  succeed(ctx, { data: await findMessage({ context, principal: ctx.principal, row }, id) })
}

const createMessage: Handler = async (ctx, door) => {
  const row = await rowOf(ctx, door, check(conversationQuery, ctx.query).conversation_id)
  const message = await readBody(ctx, newMessageBody)
  const [added] = await addMessages({ context: door.context, principal: ctx.principal, row }, [message])
  succeed(ctx, { data: added! })
}

/** Coze answers this one beside `data`. */
const modifyMessage: Handler = async (ctx, door) => {
  const { conversation_id: conversation, message_id: id } = check(messageQuery, ctx.query)
  const row = await rowOf(ctx, door, conversation)
  const edit = await readBody(ctx, changedMessageBody)
  succeed(ctx, { message: await editMessage({ context: door.context, principal: ctx.principal, row }, id, edit) })
}

const deleteMessage: Handler = async (ctx, door) => {
  const { conversation_id: conversation, message_id: id } = check(messageQuery, ctx.query)
  const row = await rowOf(ctx, door, conversation)
  succeed(ctx, { data: await editMessage({ context: door.context, principal: ctx.principal, row }, id, 'delete') })
}

const rate: Handler = async (ctx, door) => {
  const row = await rowOf(ctx, door, ctx.params['conversation']!)
  const place = fromMessageId(ctx.params['message']!)
  const { feedback_type: type, comment, reason_types: tags } = await readBody(ctx, feedbackBody)
  const turn = place?.kind === 'answer' ? await turnOf(ctx, door, place.turn) : undefined
  if (!place || !turn || turn.conversation.id !== row.id) throw new HubError('unknown_message')
  const { messages } = await door.context.hub.view(turn.id)
  const rated = messages[place.number - 1]
  if (!rated) throw new HubError('unknown_message')
  await door.context.conversations.rate(ctx.principal, {
    bot: turn.bot,
    turn: turn.id,
    message: rated.id,
    verdict: type === 'like' ? 'good' : 'bad',
    ...(comment ? { comment } : {}),
    ...(tags?.length ? { tags } : {}),
  })
  succeed(ctx, {})
}

const upload: Handler = async (ctx, { shelf }) => {
  const kept = await receiveUpload(ctx, (file, _fields, signal) => shelf.keep(ctx.principal.key, file, signal))
  succeed(ctx, { data: toFile(kept) })
}

const retrieveFile: Handler = async (ctx, { shelf }) => {
  succeed(ctx, { data: toFile(await shelf.find(ctx.principal.key, check(fileQuery, ctx.query).file_id)) })
}

const toFile = ({ id, name, bytes, at }: KeptFile): JsonObject => ({
  id: toCozeId(id),
  bytes,
  file_name: name,
  created_at: seconds(at),
})

const listBots: Handler = async (ctx, { context }) => {
  const { page_num: page, page_size: size } = check(botsQuery, ctx.query)
  const bots = context.bots.list(ctx.principal).filter(({ bot }) => context.offers(bot))
  const items = bots.slice((page - 1) * size, page * size).map(toBotItem)
  succeed(ctx, { data: { total: bots.length, items } })
}

const retrieveBot: Handler = async (ctx, { context }) => {
  const name = botOf(ctx, context, ctx.params['bot']!)
  const bot = context.bots.list(ctx.principal).find((each) => each.bot === name)
  if (!bot) throw new HubError('unknown_bot')
  succeed(ctx, { data: toBot(bot) })
}
