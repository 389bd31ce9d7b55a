import { z } from 'zod'
import { check, readJson } from '../../core/body.ts'
import type { ChannelContext, RequestContext, Route, RouteDescription } from '../../core/channel.ts'
import { channelOptions, defineChannel } from '../../core/channel.ts'
import { HubError } from '../../core/errors.ts'
import { clientName } from '../../core/ids.ts'
import type { JsonObject } from '../../core/message.ts'
import { under } from '../../core/native.ts'
import { leaving } from '../../core/upload.ts'
import { beginRun, isRunInput, runInput } from './agui.ts'
import { callOf, defaultConversation, getBotInfo } from './bots.ts'
import type { Call, Handler } from './bots.ts'
import { createConversation, deleteConversation, listConversations, updateConversation } from './conversations.ts'
import { ClassicEncoder } from './encode.ts'
import { getFeedback, sendFeedback } from './feedback.ts'
import { getRecords } from './records.ts'
import {
  anyBody,
  besides,
  conversationsQuery,
  encodeFailure,
  feedbackBody,
  feedbackQuery,
  newConversationBody,
  recordsQuery,
  renameBody,
  sendBody,
  sendHeaders,
  suggestBody,
} from './requests.ts'
import { answer, resumed } from './streams.ts'
import { recommendQuestions } from './suggest.ts'
import { deliverWechat, receiveWechat, wechatBody, wechatOptions, wechatReply } from './wechat.ts'
import type { WechatOptions } from './wechat.ts'

/**
 * Answers as a function-type agent of Tencent CloudBase does, for its web SDK (`app.ai({ baseUrl })`) and its mini-program
 * UI: `/v1/aibot/bots/{bot}/…`, where `{bot}` is a bot of the config or `ibot-{any}-{bot}`, of whatever platform. The
 * client sends a key or token of the hub, or none where there is no `auth`. `docs/dialects.md` says what is served.
 * @example cloudbaseApi({ origins: ['https://www.example.com'] })
 */
export const cloudbaseApi = defineChannel({
  name: 'cloudbaseApi',
  options: z.strictObject({
    ...channelOptions,
    wechat: wechatOptions.prefault({}).describe('How WeChat is answered; see `POST …/wx-send-message`.'),
  }),
  create({ path, wechat }, context) {
    const base = under(path, '/v1/aibot/bots/:bot')
    const own = under(path, '/v1/aibot/')
    return {
      door: `POST ${under(path, '/v1/aibot/bots/{bot}/send-message')}`,
      routes: [...endpoints, wechatEndpoint(wechat)].map((endpoint) => routeOf(endpoint, base, context)),
      encodeError: (error, requested) => (requested.startsWith(own) ? encodeFailure(error) : undefined),
      ...(wechat.push ? { deliver: deliverWechat(context, wechat.push) } : {}),
    }
  },
})

interface Endpoint {
  readonly method: Route['method']
  /** Below the bot. */
  readonly path: string
  /** The method of a bot on `BotCore` that answers instead, where it has it. */
  readonly own?: string
  readonly describe: RouteDescription
  readonly handler: Handler
}

function routeOf({ method, path, own, describe, handler }: Endpoint, base: string, context: ChannelContext): Route {
  return {
    method,
    path: `${base}${path}`,
    describe,
    async handle(ctx) {
      // Before the body: a bot that is not there is not there for anybody's message.
      const call = callOf(ctx, context)
      if (own !== undefined && context.conversations.methods(ctx.principal, call.bot, dialect).has(own)) {
        await invoke(call, own)
      } else await handler(call)
    },
  }
}

/** The words in which a bot on `BotCore` has methods. */
const dialect = 'cloudbase'

/** Lets a bot's own method answer: it is given what the client sent, and what it returns is the answer. */
async function invoke({ ctx, context, bot }: Call, method: string): Promise<void> {
  const { conversation } = ctx.params
  const sent = ctx.method === 'POST' || ctx.method === 'PATCH' ? await readJson(ctx, anyBody) : queryOf(ctx)
  const input = { ...sent, ...(conversation === undefined ? {} : { conversationId: conversation }) }
  using left = leaving(ctx)
  const asking = { principal: ctx.principal, bot, signal: left.signal }
  const result = await context.conversations.invoke(asking, dialect, method, input)
  if (result === undefined) ctx.status = 204
  else ctx.body = JSON.stringify(result)
  if (result !== undefined) ctx.type = 'json'
}

const queryOf = ({ query }: RequestContext): JsonObject =>
  Object.fromEntries(Object.entries(query).map(([name, value]) => [name, value === undefined ? null : value]))

/** Takes a message in either dialect and streams its answer. */
const sendMessage: Handler = async (call) => {
  const { ctx, context, bot } = call
  const given = await readJson(ctx, z.looseObject({}))
  if (isRunInput(given)) return answer(ctx, context, await beginRun(call, given))
  const body = check(sendBody, given)
  const { turn, after } = (await resumed(ctx, context, bot)) ?? (await begin(call, body))
  await answer(ctx, context, { turn, after, encoder: new ClassicEncoder(turn) })
}

async function begin({ ctx, context, bot }: Call, body: z.output<typeof sendBody>) {
  const { turn } = await context.hub.send(ctx.principal, {
    bot,
    channel: context.name,
    conversation: body.conversationId ?? defaultConversation,
    id: idOf(ctx),
    text: body.msg,
    ...besides(body),
  })
  return { turn, after: 0 }
}

function idOf(ctx: RequestContext): string | undefined {
  const key = ctx.get('idempotency-key')
  return key === '' ? undefined : check(clientName, key, 'Idempotency-Key')
}

/** Speech is an ability of a bot's own. */
const unsupported: Handler = () => {
  throw new HubError('unsupported')
}

const json = (schema: z.ZodType) => ({ 'application/json': schema })
const object = z.looseObject({})
const answers = (description: string, status = 200) => ({ [status]: { description, content: json(object) } })
const streamed = {
  200: {
    description: 'Frames of CloudBase, to `data: [DONE]`.',
    content: { 'text/event-stream': z.string() },
  },
} as const

const wechatEndpoint = (options: WechatOptions): Endpoint => ({
  method: 'POST',
  path: '/wx-send-message',
  own: 'wxSendMessage',
  describe: {
    summary: 'Take a message of WeChat, decrypted',
    body: json(wechatBody),
    answers: {
      200: { description: 'What WeChat is answered.', content: json(wechatReply) },
      204: { description: 'Nothing, now: the answer is pushed, or WeChat calls again.' },
    },
  },
  handler: receiveWechat(options),
})

const endpoints: readonly Endpoint[] = [
  {
    method: 'POST',
    path: '/send-message',
    describe: {
      summary: 'Send a message, as to an agent of CloudBase',
      body: json(z.union([sendBody, runInput])),
      headers: sendHeaders,
      answers: streamed,
    },
    handler: sendMessage,
  },
  {
    method: 'GET',
    path: '',
    own: 'getBotInfo',
    describe: { summary: 'See a bot, as CloudBase shows it', answers: answers('Its profile.') },
    handler: getBotInfo,
  },
  {
    method: 'GET',
    path: '/records',
    own: 'getChatRecords',
    describe: { summary: 'Read a conversation', query: recordsQuery, answers: answers('A page of it.') },
    handler: getRecords,
  },
  {
    method: 'POST',
    path: '/recommend-questions',
    describe: { summary: 'Ask for questions to ask', body: json(suggestBody), answers: streamed },
    handler: recommendQuestions,
  },
  {
    method: 'POST',
    path: '/feedback',
    describe: { summary: 'Rate an answer', body: json(feedbackBody), answers: answers('It is kept.') },
    handler: sendFeedback,
  },
  {
    method: 'GET',
    path: '/feedback',
    own: 'getFeedback',
    describe: { summary: 'Read your ratings', query: feedbackQuery, answers: answers('A page of them.') },
    handler: getFeedback,
  },
  {
    method: 'POST',
    path: '/conversation',
    own: 'createConversation',
    describe: {
      summary: 'Open a conversation',
      body: json(newConversationBody),
      answers: answers('The conversation.', 201),
    },
    handler: createConversation,
  },
  {
    method: 'GET',
    path: '/conversation',
    own: 'getConversation',
    describe: { summary: 'List your conversations', query: conversationsQuery, answers: answers('A page of them.') },
    handler: listConversations,
  },
  {
    method: 'PATCH',
    path: '/conversation/:conversation',
    own: 'updateConversation',
    describe: { summary: 'Give a conversation a title', body: json(renameBody), answers: answers('How many have it.') },
    handler: updateConversation,
  },
  {
    method: 'DELETE',
    path: '/conversation/:conversation',
    own: 'deleteConversation',
    describe: { summary: 'Delete a conversation', answers: answers('How many are gone.') },
    handler: deleteConversation,
  },
  {
    method: 'POST',
    path: '/speech-to-text',
    own: 'speechToText',
    describe: { summary: 'Understand speech, where the bot can', body: json(anyBody), answers: answers('The words.') },
    handler: unsupported,
  },
  {
    method: 'POST',
    path: '/text-to-speech',
    own: 'textToSpeech',
    describe: { summary: 'Speak, where the bot can', body: json(anyBody), answers: answers('The task.') },
    handler: unsupported,
  },
  {
    method: 'GET',
    path: '/text-to-speech',
    own: 'getTextToSpeechResult',
    describe: { summary: 'Fetch what was spoken', answers: answers('The task.') },
    handler: unsupported,
  },
]
