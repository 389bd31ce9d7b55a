import { check, readJson } from '../../core/body.ts'
import type { ConversationItem } from '../../core/store.ts'
import { conversationOf, defaultConversation } from './bots.ts'
import type { Handler } from './bots.ts'
import { conversationsQuery, newConversationBody, renameBody } from './requests.ts'

/** What CloudBase calls a conversation that nobody has given a title. */
const untitled = '新会话'

/** Opens a conversation. It is empty, and listed from now on. */
export const createConversation: Handler = async ({ ctx, context, bot }) => {
  const { title } = await readJson(ctx, newConversationBody)
  const { id } = await context.conversations.create(ctx.principal, { bot })
  if (title) await context.conversations.retitle(ctx.principal, bot, id, title)
  ctx.status = 201
  ctx.body = toCloudBase(await context.conversations.details(ctx.principal, bot, id))
}

/** A page of the caller's conversations with the bot, the latest first; or the default one. */
export const listConversations: Handler = async (call) => {
  const { ctx, context, bot } = call
  const { limit, offset, isDefault } = check(conversationsQuery, ctx.query)
  if (isDefault) {
    const found = await conversationOf(call)
    const item = found && (await context.conversations.details(ctx.principal, bot, found.id))
    ctx.body = { data: item ? [toCloudBase(item)] : [], total: item ? 1 : 0 }
    return
  }
  const without = defaultConversation
  const { items } = await context.conversations.list(ctx.principal, bot, { limit, skip: offset, without })
  ctx.body = {
    data: items.toReversed().map(toCloudBase),
    total: await context.conversations.count(ctx.principal, bot, without),
  }
}

/** Gives a conversation another title. */
export const updateConversation: Handler = async ({ ctx, context, bot }) => {
  const { title } = await readJson(ctx, renameBody)
  await context.conversations.retitle(ctx.principal, bot, ctx.params['conversation']!, title)
  ctx.body = { count: 1 }
}

/** Deletes a conversation, here and upstream. */
export const deleteConversation: Handler = async ({ ctx, context, bot }) => {
  await context.conversations.forget(ctx.principal, bot, ctx.params['conversation']!)
  ctx.body = { count: 1 }
}

const toCloudBase = ({ name, title, createdAt, updatedAt }: ConversationItem) => ({
  conversationId: name,
  title: title ?? untitled,
  createTime: new Date(createdAt).toISOString(),
  updateTime: new Date(updatedAt).toISOString(),
})
