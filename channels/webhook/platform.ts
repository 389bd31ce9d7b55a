import { z } from 'zod'
import { check, readBytes } from '../../core/body.ts'
import { postCallback } from '../../core/callback.ts'
import type { Channel, ChannelContext, RequestContext, Route } from '../../core/channel.ts'
import { HubError } from '../../core/errors.ts'
import { clientName } from '../../core/ids.ts'
import { Replies } from './replies.ts'
import type { PlatformMessage, Reading, SchemeContext, SchemeSpec, WebhookScheme } from './scheme.ts'
import { toAnswer } from './scheme.ts'

/** What a channel is made of that a platform sends messages to. */
export interface PlatformOptions {
  readonly bot: string
  readonly as: string | undefined
  /** With its options checked. */
  readonly scheme: SchemeSpec
  readonly allowPrivate: boolean
  /** Where the platform sends to: `/api/v1/webhooks/{name}`. */
  readonly door: string
}

/** A channel that a platform sends messages to and is answered through its API. */
export async function platformChannel(options: PlatformOptions, context: ChannelContext): Promise<Channel> {
  const { bot, as, door } = options
  const scheme = await options.scheme.create(options.scheme.options, schemeContext(options, context))
  const replies = new Replies({ scheme, context, principal: context.actAs(as) })
  const route = (method: 'GET' | 'POST'): Route => ({
    method,
    path: door,
    anonymous: true,
    describe: {
      summary: method === 'GET' ? 'Show the platform that the address is ours' : `Send a message to ${bot}`,
      description: `For ${options.scheme.name} alone, which signs what it sends.`,
      answers: { 200: { description: 'The message is kept; its answer follows through the API of the platform.' } },
    },
    handle: (ctx) => receive(ctx, context, { bot, as, scheme, replies }),
  })
  return {
    door: `POST ${door}`,
    routes: [route('POST'), ...(scheme.comesByGet ? [route('GET')] : [])],
    deliver: (delivery, signal) => replies.deliver(delivery, signal),
    close: () => replies.close(),
  }
}

const schemeContext = ({ allowPrivate }: PlatformOptions, { clock }: ChannelContext): SchemeContext => ({
  clock,
  async call(url, { method, headers = {}, body }, signal) {
    const text = body === undefined ? '' : JSON.stringify(body)
    return toAnswer(await postCallback(url, headers, text, { allowPrivate, signal, method }), clock.now())
  },
})

/** What a platform calls its things has to be good as names here too. */
const names = z.object({ id: clientName, conversation: clientName, user: clientName })

async function receive(
  ctx: RequestContext,
  context: ChannelContext,
  { bot, as, scheme, replies }: { bot: string; as: string | undefined; scheme: WebhookScheme; replies: Replies },
): Promise<void> {
  const reading = read(scheme, ctx, context, await readBytes(ctx))
  if (reading.type === 'message' && reading.text.trim() !== '') {
    await accept({ ...reading, ...check(names, reading) }, context, { bot, as, replies })
  }
  ctx.status = 200
  if (reading.type === 'challenge') ctx.type = reading.contentType
  ctx.body = reading.type === 'challenge' ? reading.answer : ''
}

function read(scheme: WebhookScheme, ctx: RequestContext, context: ChannelContext, body: Buffer): Reading {
  try {
    return scheme.read({ method: ctx.method, query: new URLSearchParams(ctx.querystring), headers: ctx.headers, body })
  } catch (error) {
    if (error instanceof HubError && error.code === 'bad_signature') {
      context.audit.refused(`webhook ${context.name}: signature`, ctx.req.socket.remoteAddress ?? 'unknown')
    }
    throw error
  }
}

async function accept(
  { id, text, conversation, user, replyTo }: PlatformMessage,
  context: ChannelContext,
  { bot, as, replies }: { readonly bot: string; readonly as: string | undefined; readonly replies: Replies },
): Promise<void> {
  try {
    const { turn, created } = await context.hub.send(context.actAs(as), {
      id,
      text,
      conversation,
      user,
      bot,
      channel: context.name,
      acceptAnyway: true,
      owed: true,
      request: id,
      ...(replyTo === undefined ? {} : { metadata: { replyTo } }),
    })
    if (created) replies.stream(turn)
  } catch (error) {
    // It was taken before, and has been forgotten since.
    if (error instanceof HubError && error.code === 'unknown_turn') return
    throw error
  }
}
