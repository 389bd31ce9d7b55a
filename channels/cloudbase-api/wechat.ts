import { z } from 'zod'
import { speakingFor } from '../../core/auth.ts'
import type { Principal } from '../../core/auth.ts'
import { readJson } from '../../core/body.ts'
import { checkTaken, postCallback } from '../../core/callback.ts'
import type { ChannelContext } from '../../core/channel.ts'
import { HubError } from '../../core/errors.ts'
import { secret, setting } from '../../core/settings.ts'
import { signWebhook } from '../../core/signature.ts'
import type { TurnDelivery, TurnRow } from '../../core/store.ts'
import { isEnded } from '../../core/store.ts'
import { leaving } from '../../core/upload.ts'
import type { TurnObject } from '../../core/wire.ts'
import type { Call, Handler } from './bots.ts'

/*
 * WeChat's four channels. The platform that receives their callbacks has decrypted them and POSTs plain JSON; it is
 * answered with WeChat's reply where WeChat waits for one, and with nothing where the answer is pushed.
 */

/** How answers reach people of WeChat. Times in ms. */
export const wechatOptions = z.strictObject({
  push: z
    .strictObject({
      url: setting()
        .pipe(z.url({ protocol: /^https?$/ }))
        .describe('The address of that listener.'),
      secret: secret().describe('Signs what is pushed, as Standard Webhooks says.'),
      allowPrivate: z.boolean().default(false).describe('Lets `url` be on loopback or in a private network.'),
    })
    .exactOptional()
    .describe('Where answers are POSTed that WeChat does not wait for; whoever listens there sends them to WeChat.'),
  holdMs: z
    .int()
    .positive()
    .default(5000)
    .describe('How long a callback is held back without an answer; WeChat gives up then and calls again.'),
  hintAfterMs: z
    .int()
    .positive()
    .default(11_000)
    .describe(
      'The age of a message from which on WeChat does not call again: its sender is told to ask for the answer.',
    ),
})

/** See `wechatOptions`. */
export type WechatOptions = z.output<typeof wechatOptions>

const wechatName = z.string().regex(/^[\w.@-]{1,128}$/)
/** WeChat numbers its messages with more digits than a number of JSON may hold, so that it is not taken at its word. */
const wechatId = z.union([z.number().nonnegative().transform(String), wechatName])
const time = z.union([
  z.int().nonnegative(),
  z
    .string()
    .regex(/^\d{1,13}$/)
    .transform(Number),
])

const customerServiceMessage = z.object({
  externalUserId: wechatName,
  openKfId: wechatName,
  sendTime: time,
  msgId: wechatId,
  msgType: z.string(),
  text: z.object({ content: z.string() }).nullish(),
})
const accountMessage = z.object({
  fromUserName: wechatName,
  toUserName: wechatName,
  createTime: time,
  msgId: wechatId,
  msgType: z.string(),
  content: z.string().nullish(),
})

/** Body of `POST /wx-send-message`. */
export const wechatBody = z
  .discriminatedUnion('triggerSrc', [
    z.object({ triggerSrc: z.literal('WXCustomerService'), callbackData: customerServiceMessage }),
    z.object({
      triggerSrc: z.enum(['WXSubscription', 'WXService', 'WXMiniapp']),
      callbackData: accountMessage,
      wxVerify: z.boolean().nullish().describe('The account is verified, so that answers can be pushed to it.'),
    }),
  ])
  .meta({ id: 'WeChatCallback' })

/** What WeChat is answered with. */
export const wechatReply = z
  .object({
    ToUserName: z.string(),
    FromUserName: z.string(),
    CreateTime: z.number().describe('Seconds since the epoch.'),
    MsgType: z.literal('text'),
    Content: z.string(),
  })
  .meta({ id: 'WeChatReply' })

/** A callback, whatever channel it came by. */
interface WechatMessage {
  readonly source: z.output<typeof wechatBody>['triggerSrc']
  /** Who says it, as WeChat names them. */
  readonly sender: string
  /** The account, or the customer-service desk, it was said to. */
  readonly account: string
  /** The same for every repetition of the callback. */
  readonly id: string
  /** Undefined for anything but words. */
  readonly text: string | undefined
  /** Its answer is pushed, as WeChat does not wait for it. */
  readonly pushed: boolean
}

function toMessage(body: z.output<typeof wechatBody>): WechatMessage {
  const source = body.triggerSrc
  if (source === 'WXCustomerService') {
    const { externalUserId: sender, openKfId: account, msgId, sendTime, msgType, text } = body.callbackData
    const said = msgType === 'text' ? text?.content : undefined
    return { source, sender, account, id: `${source}${msgId}${sendTime}`, text: said, pushed: true }
  }
  const { fromUserName: sender, toUserName: account, msgId, createTime, msgType, content } = body.callbackData
  const said = msgType === 'text' ? (content ?? undefined) : undefined
  // Only a verified account may push, and only an unverified one has to answer at once.
  const pushed = source === 'WXMiniapp' || body.wxVerify === true
  return { source, sender, account, id: `${source}${msgId}${createTime}`, text: said, pushed }
}

/** Words of the hub's own, in the language of those who use WeChat. */
const words = {
  onlyText: '暂不支持此类消息，请发送文字。',
  askForMore: '正在思考中，请稍后回复“继续”查看回答。',
  nothingMore: '暂时没有新的回答，请重新提问。',
  waiting: '此操作需要授权，无法在微信中完成。',
} as const
const continues = /^\s*(?:继续|繼續)\s*$/
const keptMs = 5 * 60_000

/** Takes a callback of WeChat's, once however often it comes, and answers it or leaves the answer to be pushed. */
export const receiveWechat =
  (options: WechatOptions): Handler =>
  async (call) => {
    const { ctx, context } = call
    const body = await readJson(ctx, wechatBody)
    if (!ctx.principal.trusted) {
      throw new HubError('forbidden', { message: 'Callbacks of WeChat are taken from a trusted key.' })
    }
    const message = toMessage(body)
    const said = message.pushed
      ? await receivePushed(call, message, options)
      : await receiveHeld(call, message, options)
    if (said === undefined) ctx.status = 204
    else ctx.body = toReply(message, said, context.clock.now())
  }

const toReply = ({ sender, account }: WechatMessage, content: string, now: number): z.output<typeof wechatReply> => ({
  ToUserName: sender,
  FromUserName: account,
  CreateTime: Math.floor(now / 1000),
  MsgType: 'text',
  Content: content,
})

/** The answer is owed; WeChat is told nothing. */
async function receivePushed(call: Call, message: WechatMessage, { push }: WechatOptions): Promise<undefined> {
  if (!push) {
    throw new HubError('unsupported', {
      message: 'This hub has nowhere to push answers to. Give its channel `wechat: { push: { url, secret } }`.',
    })
  }
  if (message.text !== undefined) await begin(call, message, message.text)
  // Of what is no message, nothing is kept that could be owed.
  else
    await post(push, { ...message, id: `${message.id}_refused`, bot: call.bot, content: words.onlyText }, call.context)
}

/** The sender's principal: a server says for whom it asks. */
const principalOf = ({ ctx }: Call, { sender }: WechatMessage): Principal => speakingFor(ctx.principal, sender)

async function begin(call: Call, message: WechatMessage, text: string): Promise<TurnRow> {
  const { context, bot } = call
  const { turn } = await context.hub.send(principalOf(call, message), {
    bot,
    channel: context.name,
    conversation: conversationNameOf(message),
    id: message.id,
    text,
    detached: true,
    owed: message.pushed,
    // There is nobody to be told of a refusal but the sender.
    acceptAnyway: true,
  })
  return turn
}

/** What has to be known to push an answer is in the name of its conversation. No part of it has a colon. */
const conversationNameOf = ({ source, account, sender }: WechatMessage): string => `${source}:${account}:${sender}`

function readConversationName(conversation: string): Pick<Pushed, 'source' | 'account' | 'sender'> {
  const [source = '', account = '', sender = ''] = conversation.split(':')
  return { source, account, sender }
}

/** Which of WeChat's channels a conversation is of; undefined for any other. */
export const sourceIn = (conversation: string): string | undefined => /^WX[A-Za-z]+(?=:)/.exec(conversation)?.[0]

/**
 * What WeChat is to be answered, which waits 5 s for it, three times. Undefined when there is nothing to say yet, so late
 * that WeChat has given up and calls again.
 */
async function receiveHeld(call: Call, message: WechatMessage, options: WechatOptions): Promise<string | undefined> {
  if (message.text === undefined) return words.onlyText
  if (!continues.test(message.text)) return held(call, await begin(call, message, message.text), options)
  const latest = await latestTurn(call, message)
  const isOver = !latest || (isEnded(latest.turn.status) && call.context.clock.now() - latest.at > keptMs)
  return isOver ? words.nothingMore : held(call, latest.turn, options)
}

async function held({ ctx, context }: Call, turn: TurnRow, options: WechatOptions): Promise<string | undefined> {
  const age = () => context.clock.now() - turn.createdAt
  if (!isEnded(turn.status) && age() < options.hintAfterMs) {
    using left = leaving(ctx)
    await rests(context, turn, AbortSignal.any([left.signal, AbortSignal.timeout(options.holdMs)]))
  }
  const now = await context.hub.view(turn.id)
  if (isEnded(now.status) || now.status === 'waiting') return contentOf(now)
  return age() < options.hintAfterMs ? undefined : words.askForMore
}

async function rests({ hub }: ChannelContext, { id }: TurnRow, signal: AbortSignal): Promise<void> {
  for await (const events of hub.follow(id, 0, signal)) {
    if (events.some(({ type }) => type === 'turn.waiting')) return
  }
}

/** The turn that was answered last, or is being answered; `at` is when its last record was written. */
async function latestTurn(
  call: Call,
  message: WechatMessage,
): Promise<{ readonly turn: TurnRow; readonly at: number } | undefined> {
  const { context, bot } = call
  const principal = principalOf(call, message)
  try {
    const { records } = await context.conversations.findRecords(principal, bot, conversationNameOf(message), {
      orderBy: [{ property: 'number', direction: 'desc' }],
      limit: 1,
    })
    const last = records[0]
    return last && { turn: await context.hub.turn(principal, last.turn), at: last.at }
  } catch (error) {
    if (error instanceof HubError && /^unknown_(conversation|turn)$/.test(error.code)) return undefined
    throw error
  }
}

/** What was said, and why it is not all. */
const contentOf = ({ text, error, status }: TurnObject): string =>
  [text, error?.message ?? '', status === 'waiting' ? words.waiting : ''].filter((part) => part !== '').join('\n\n')

/** Brings the answer of a turn to its sender. */
export const deliverWechat =
  (context: ChannelContext, push: Push) =>
  async (delivery: TurnDelivery, signal: AbortSignal): Promise<void> => {
    const turn = await context.hub.view(delivery.turn)
    // Somebody answered before this could be delivered: the question is no longer one.
    if (delivery.type === 'turn.waiting' && turn.status !== 'waiting') return
    const content = contentOf(turn)
    if (content === '') return
    await post(
      push,
      { ...readConversationName(turn.conversation), id: delivery.id, bot: turn.bot, content },
      context,
      signal,
    )
  }

type Push = NonNullable<WechatOptions['push']>

/** Words for a person of WeChat. */
interface Pushed {
  readonly id: string
  readonly bot: string
  readonly source: string
  readonly account: string
  readonly sender: string
  readonly content: string
}

/** In the words of CloudBase's own `sendWxClientMessage`, so that whoever listens can hand them on. */
async function post(
  { url, secret: key, allowPrivate }: Push,
  { id, bot, source, account, sender, content }: Pushed,
  { clock }: ChannelContext,
  signal = AbortSignal.timeout(20_000),
): Promise<void> {
  const body = JSON.stringify({
    botId: bot,
    triggerSrc: source,
    message: {
      msgType: 'text',
      touser: sender,
      text: { content },
      ...(source === 'WXCustomerService' ? { openKfId: account } : {}),
    },
  })
  const headers = { ...signWebhook(key, id, clock.now(), body) }
  checkTaken(await postCallback(url, headers, body, { allowPrivate, signal }), clock.now())
}
