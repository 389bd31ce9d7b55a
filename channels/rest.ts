import { z } from 'zod'
import { botList, conversationPage, fileAnswer, handoverAnswer, recordPage, turnObject } from '../core/answers.ts'
import { check, readJson } from '../core/body.ts'
import type { ChannelContext, RequestContext, Route } from '../core/channel.ts'
import { channelOptions, defineChannel } from '../core/channel.ts'
import { HubError } from '../core/errors.ts'
import type { FileRef } from '../core/message.ts'
import { answerTurn, nativePaths, nativeRequests, respondsAsync, sendMessage, turnOf, under } from '../core/native.ts'
import { leaving, receiveUpload } from '../core/upload.ts'
import type { Page, PageOptions, TurnRow } from '../core/store.ts'
import { isEnded } from '../core/store.ts'
import { clientName } from '../core/ids.ts'
import { operatorBody } from '../core/wire.ts'

const maxWaitSeconds = 60

/**
 * Answers in JSON: a message's answer when its turn ends or waits, or 202 at once with `Prefer: respond-async`; and
 * everything about turns, bots, conversations and files.
 */
export const rest = defineChannel({
  name: 'rest',
  options: z.strictObject({ ...channelOptions }),
  create({ path }, context) {
    const json = 'json' as const
    const at = (native: string) => under(path, native)
    return {
      door: `POST ${at('/api/v1/bots/{bot}/messages')}`,
      routes: [
        {
          method: 'POST',
          path: at(nativePaths.messages),
          accepts: json,
          describe: {
            ...nativeRequests.messages,
            headers: nativeRequests.messages.headers.extend(prefer.shape),
            answers: turnAnswers,
          },
          async handle(ctx) {
            const { turn, after } = await sendMessage(ctx, context)
            await answer(ctx, context, turn, after)
          },
        },
        ...(['consent', 'toolOutputs'] as const).map((kind) => ({
          method: 'POST' as const,
          path: at(nativePaths[kind]),
          accepts: json,
          describe: { ...nativeRequests[kind], headers: prefer, answers: turnAnswers },
          async handle(ctx: RequestContext) {
            const { turn, after } = await answerTurn(ctx, context, kind)
            await answer(ctx, context, turn, after)
          },
        })),
        {
          method: 'GET',
          path: at(nativePaths.turn),
          describe: {
            summary: 'Read a turn',
            query: waitQuery,
            answers: { 200: ofJson('The turn as it is now.', turnObject) },
          },
          handle: (ctx) => getTurn(ctx, context),
        },
        {
          method: 'POST',
          path: at(nativePaths.cancel),
          describe: {
            summary: 'Cancel a turn',
            description:
              'Its upstream is stopped, and it ends with `turn.cancelled`; one that has ended stays as it is.',
            answers: { 202: ofJson('The turn as it is now.', turnObject) },
          },
          handle: (ctx) => cancel(ctx, context),
        },
        {
          method: 'GET',
          path: at('/api/v1/bots'),
          describe: { summary: 'List the bots you may use', answers: { 200: ofJson('The bots.', botList) } },
          handle(ctx) {
            ctx.body = { bots: context.bots.list(ctx.principal).filter(({ bot }) => context.offers(bot)) }
          },
        },
        {
          method: 'GET',
          path: at('/api/v1/bots/:bot/conversations'),
          describe: {
            summary: 'List your conversations with a bot',
            query: pageQuery,
            answers: { 200: ofJson('A page, from the latest back.', conversationPage) },
          },
          async handle(ctx) {
            const page = await context.conversations.list(ctx.principal, botOf(ctx, context), pageOptions(ctx))
            ctx.body = dated(page, ({ createdAt, updatedAt, ...item }) => ({
              ...item,
              createdAt: isoTime(createdAt),
              updatedAt: isoTime(updatedAt),
            }))
          },
        },
        {
          method: 'GET',
          path: at('/api/v1/bots/:bot/conversations/:conversation/messages'),
          describe: {
            summary: 'Read what was said in a conversation',
            query: pageQuery,
            answers: { 200: ofJson('A page, from the latest back.', recordPage) },
          },
          async handle(ctx) {
            const bot = botOf(ctx, context)
            const page = await context.conversations.records(
              ctx.principal,
              bot,
              ctx.params['conversation']!,
              pageOptions(ctx),
            )
            ctx.body = dated(page, (item) => ({ ...item, at: isoTime(item.at) }))
          },
        },
        {
          method: 'DELETE',
          path: at('/api/v1/bots/:bot/conversations/:conversation'),
          describe: {
            summary: 'Delete a conversation',
            description: 'Here and upstream. A live turn of it ends with `turn.cancelled`.',
            answers: { 204: { description: 'It is forgotten.' } },
          },
          async handle(ctx) {
            await context.conversations.forget(ctx.principal, botOf(ctx, context), ctx.params['conversation']!)
            ctx.status = 204
          },
        },
        ...operatorRoutes(at, context),
        {
          method: 'POST',
          path: at('/api/v1/bots/:bot/files'),
          describe: {
            summary: 'Upload a file for a conversation',
            description: 'Streamed to the bot. `conversation` stands before `file` in the form, or in the query.',
            query: z.object({ conversation: clientName.optional() }),
            body: { 'multipart/form-data': z.object({ conversation: clientName.optional(), file: z.file() }) },
            answers: { 201: ofJson('The file, to be named in `files` of a message.', fileAnswer) },
          },
          async handle(ctx) {
            const { id, name, bytes, mime } = await receiveFile(ctx, context)
            ctx.status = 201
            ctx.body = { id, name, bytes, mime }
          },
        },
      ],
    }
  },
})

/** For people who take a conversation from its bot; each of them needs an admin. */
function operatorRoutes(at: (native: string) => string, context: ChannelContext): readonly Route[] {
  const { conversations } = context
  const conversationOf = (ctx: RequestContext) => ctx.params['conversation']!
  const admins = 'For an admin, whoever the conversation belongs to; it is named by its `conv_…` id.'
  return [
    {
      method: 'POST',
      path: at('/api/v1/conversations/:conversation/handover'),
      describe: {
        summary: 'Take a conversation from its bot',
        description: `${admins} What the bot is busy with is cancelled, and messages are kept and answered by nobody.`,
        answers: { 200: ofJson('It is yours.', handoverAnswer) },
      },
      async handle(ctx) {
        const { id, bot, name, user } = await conversations.handOver(ctx.principal, conversationOf(ctx), 'operator')
        ctx.body = { conversation: id, bot, name, ...(user ? { user } : {}), takenBy: ctx.principal.key }
      },
    },
    {
      method: 'DELETE',
      path: at('/api/v1/conversations/:conversation/handover'),
      describe: {
        summary: 'Give a conversation back to its bot',
        description: admins,
        answers: { 204: { description: 'The bot answers again.' } },
      },
      async handle(ctx) {
        await conversations.handOver(ctx.principal, conversationOf(ctx), 'bot')
        ctx.status = 204
      },
    },
    {
      method: 'POST',
      path: at('/api/v1/conversations/:conversation/messages'),
      describe: {
        summary: 'Say something to the user of a conversation you took',
        description: `${admins} It is a turn of its own, for everybody who follows the conversation and for its webhook.`,
        body: { 'application/json': operatorBody },
        answers: { 200: ofJson('The turn.', turnObject) },
      },
      async handle(ctx) {
        const said = { ...(await readJson(ctx, operatorBody)), channel: context.name }
        const { id } = await conversations.speak(ctx.principal, conversationOf(ctx), said)
        ctx.body = await context.hub.view(id)
      },
    },
    {
      method: 'GET',
      path: at('/api/v1/conversations/:conversation/messages'),
      describe: {
        summary: 'Read what was said in a conversation you took',
        description: admins,
        query: pageQuery,
        answers: { 200: ofJson('A page, from the latest back.', recordPage) },
      },
      async handle(ctx) {
        const page = await conversations.heldRecords(ctx.principal, conversationOf(ctx), pageOptions(ctx))
        ctx.body = dated(page, (item) => ({ ...item, at: isoTime(item.at) }))
      },
    },
  ]
}

const ofJson = (description: string, schema: z.ZodType) => ({ description, content: { 'application/json': schema } })

const prefer = z.object({
  Prefer: z.string().optional().describe('`respond-async`: answer 202 at once, and read the turn later.'),
})
const turnAnswers = {
  200: ofJson('The turn, when it ends or waits, whatever its status.', turnObject),
  202: ofJson('With `Prefer: respond-async`: the turn as it is now.', turnObject),
} as const

const waitQuery = z.object({
  wait: z.coerce
    .number()
    .min(0)
    .default(0)
    .describe(`How long to hold the answer until the status changes, in seconds; at most ${maxWaitSeconds}.`),
})
const pageQuery = z.object({
  before: z
    .string()
    .regex(/^[\w.]{1,64}$/, 'must be the `before` of an earlier page')
    .optional()
    .describe('The `before` of the page after it.'),
  limit: z.coerce.number().int().min(1).max(200).default(50),
})

async function answer(ctx: RequestContext, { hub }: ChannelContext, turn: TurnRow, after: number): Promise<void> {
  ctx.set('location', ctx.path.replace(/\/api\/v1\/.*$/, `/api/v1/turns/${turn.id}`))
  if (respondsAsync(ctx)) {
    ctx.status = 202
    ctx.set('preference-applied', 'respond-async')
  } else await restsOrLeaves(ctx, hub, turn.id, after)
  ctx.body = await hub.view(turn.id)
}

/** Resolves when the turn ends or waits, or its client has gone. */
async function restsOrLeaves(
  ctx: RequestContext,
  hub: ChannelContext['hub'],
  turn: string,
  after: number,
): Promise<void> {
  using left = leaving(ctx)
  for await (const events of hub.follow(turn, after, left.signal)) {
    if (events.some((event) => event.type === 'turn.waiting')) return
  }
}

async function getTurn(ctx: RequestContext, context: ChannelContext): Promise<void> {
  const turn = await turnOf(ctx, context)
  const { wait } = check(waitQuery, ctx.query)
  if (wait > 0 && !isEnded(turn.status)) {
    using left = leaving(ctx)
    const late = AbortSignal.timeout(Math.min(wait, maxWaitSeconds) * 1000)
    await context.hub.changed(turn.id, turn.status, AbortSignal.any([left.signal, late]))
  }
  ctx.body = await context.hub.view(turn.id)
}

async function cancel(ctx: RequestContext, context: ChannelContext): Promise<void> {
  const turn = await turnOf(ctx, context)
  // The upstream may take its time to stop; who wants to see the end reads the turn.
  void context.hub
    .cancel(turn, 'client')
    .catch((error: unknown) => context.logger.error({ err: error }, 'cancel failed'))
  ctx.status = 202
  ctx.body = await context.hub.view(turn.id)
}

function botOf(ctx: RequestContext, { offers }: ChannelContext): string {
  const bot = ctx.params['bot']!
  if (!offers(bot)) throw new HubError('unknown_bot')
  return bot
}

function pageOptions(ctx: RequestContext): PageOptions {
  const { before, limit } = check(pageQuery, ctx.query)
  return { limit, ...(before === undefined ? {} : { before }) }
}

const isoTime = (at: number): string => new Date(at).toISOString()

const dated = <Item, Shown>(page: Page<Item>, show: (item: Item) => Shown) => ({ ...page, items: page.items.map(show) })

/** Streams the file to the bot's upstream; `conversation` stands before it or in the query. */
const receiveFile = (ctx: RequestContext, context: ChannelContext): Promise<FileRef> => {
  const bot = botOf(ctx, context)
  return receiveUpload(ctx, (upload, fields, signal) => {
    const conversation = clientName.safeParse(fields['conversation'] ?? ctx.query['conversation'])
    if (!conversation.success) {
      throw new HubError('invalid_request', {
        message: 'conversation: name the conversation in a field before `file`, or as ?conversation=.',
      })
    }
    return context.conversations.upload(ctx.principal, bot, conversation.data, upload, signal)
  })
}
