import { check } from '../../core/body.ts'
import type { Json } from '../../core/message.ts'
import type { StoredRecord } from '../../core/records.ts'
import { conversationOf } from './bots.ts'
import type { Handler } from './bots.ts'
import { recordsQuery } from './requests.ts'
import { sourceIn } from './wechat.ts'

/** A page of what was said in a conversation. */
export const getRecords: Handler = async (call) => {
  const { ctx, context, bot, botId } = call
  const { sort, pageSize, pageNumber, conversationId } = check(recordsQuery, ctx.query)
  const conversation = await conversationOf(call, conversationId ?? undefined)
  if (!conversation) {
    ctx.body = { recordList: [], total: 0 }
    return
  }
  const { records, total } = await context.conversations.findRecords(ctx.principal, bot, conversation.id, {
    orderBy: [{ property: 'number', direction: sort }],
    limit: pageSize,
    offset: (pageNumber - 1) * pageSize,
    count: true,
  })
  ctx.body = { recordList: records.map((record) => toCloudBase(record, botId)), total }
}

/** What the hub has no word for is there when the bot wrote it. */
const toCloudBase = ({ id, role, text, conversation, fields, reply, partial, at }: StoredRecord, botId: string) => ({
  botId,
  recordId: id,
  role: role === 'user' ? 'user' : 'assistant',
  content: text,
  conversation: conversation.name,
  type: fields['type'] ?? 'text',
  image: fields['image'] ?? '',
  triggerSrc: fields['trigger_src'] ?? sourceIn(conversation.name) ?? 'TCB',
  reply: reply ?? '',
  replyTo: fields['reply_to'] ?? '',
  createTime: new Date(at).toISOString(),
  ...(fields['origin_msg'] === undefined ? {} : { origin_msg: fields['origin_msg'] satisfies Json }),
  ...(fields['trace_id'] === undefined ? {} : { trace_id: fields['trace_id'] satisfies Json }),
  ...(partial ? { partial } : {}),
})
