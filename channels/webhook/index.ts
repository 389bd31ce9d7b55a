import { randomBytes } from 'node:crypto'
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { z } from 'zod'
import { check, parseJson, readBytes } from '../../core/body.ts'
import { checkTaken, isPrivate, postCallback } from '../../core/callback.ts'
import type { ChannelContext, ChannelSpec, RequestContext } from '../../core/channel.ts'
import { channelOptions, defineChannel } from '../../core/channel.ts'
import { HubError } from '../../core/errors.ts'
import { under } from '../../core/native.ts'
import { Secret, secret, setting } from '../../core/settings.ts'
import { canSign, flawOf, signWebhook, verifyWebhook } from '../../core/signature.ts'
import type { TurnDelivery } from '../../core/store.ts'
import { messageBody } from '../../core/wire.ts'
import { platformChannel } from './platform.ts'
import { schemeOption } from './scheme-option.ts'

const inbound = messageBody
  .pick({ text: true, conversation: true, id: true, user: true, payload: true })
  .meta({ id: 'WebhookMessage' })
const accepted = z.object({ turn: z.string() }).meta({ id: 'WebhookAccepted' })
const signed = z.object({
  'webhook-id': z.string().describe("The message's id, where the body has none."),
  'webhook-timestamp': z.string().describe('Seconds since the epoch.'),
  'webhook-signature': z
    .string()
    .describe('`v1,` and the HMAC-SHA256 of id, timestamp and body, or `v1a,` and their Ed25519 signature, in base64.'),
})

const signature = 'Signed as [Standard Webhooks](https://www.standardwebhooks.com) says.'
const readLater = `${signature} The answer is read at \`GET /api/v1/turns/{turn}\`.`
const calledBack =
  `${signature} The answer is POSTed to the callback of the channel, signed the same way, as ` +
  '`{ type, timestamp, data }`, where `data` is the turn object and `type` how it ended, or `turn.waiting`.'

/** Function declarations are there before the options are. */
function signingSecret() {
  return secret().superRefine((given, context) => {
    const message = flawOf(given)
    if (message) context.addIssue({ code: 'custom', message })
  })
}

const webhookOptions = z.strictObject({
  ...channelOptions,
  bot: z.string().describe('The bot that answers.'),
  as: z.string().optional().describe('The API key it acts as; needed where the hub has `auth`.'),
  secret: z
    .union([signingSecret(), z.array(signingSecret()).min(1)])
    .exactOptional()
    .describe(
      'Signs both ways; several while one is replaced by another. `whsec_…` is shared, `whsk_…` and `whpk_…` are the ' +
        'private key of one side and the public key of the other (Ed25519). Without one the first start makes it.',
    ),
  callback: setting()
    .pipe(z.url({ protocol: /^https?$/ }))
    .exactOptional()
    .describe('Where answers are POSTed. Without it they are read at `GET /api/v1/turns/{turn}`.'),
  scheme: schemeOption()
    .exactOptional()
    .describe(
      'A platform that signs and is answered in its own way, such as `slack({ … })`; without it Standard Webhooks.',
    ),
  allowPrivate: z
    .boolean()
    .default(false)
    .describe('Lets `callback`, or the API of the platform, be on loopback or in a private network.'),
})

/**
 * Takes signed messages in at `POST /api/v1/webhooks/{name}` and POSTs the answers to `callback`, signed the same way
 * (Standard Webhooks). A message is acknowledged with 202 once it is durable, before its bot answers; an answer is
 * delivered at least once, under one `webhook-id`. With a `scheme` it speaks to a platform in the platform's own way.
 * @example webhook({ bot: 'sales', as: 'crm', secret: env('CRM_SECRET'), callback: env('CRM_URL') })
 */
export const webhook: <const Bot extends string = never>(
  options: Omit<z.input<typeof webhookOptions>, 'bot' | 'bots'> & { bot: Bot; bots?: readonly Bot[] },
) => ChannelSpec<Bot> = defineChannel({
  name: 'webhook',
  // `as` is there even when it is not given, so that the loader sees a channel that acts for a key.
  options: webhookOptions
    .refine(
      ({ secret: given, callback }) => !given || callback === undefined || [given].flat().some(canSign),
      '`callback` is signed, and a public key (whpk_…) cannot sign; give it a secret of its own beside that',
    )
    .refine(
      ({ callback, allowPrivate }) =>
        callback === undefined || allowPrivate || !URL.canParse(callback) || !isPrivate(new URL(callback)),
      {
        path: ['callback'],
        message: 'is on this machine or in a private network; say `allowPrivate: true` if it is meant to be',
      },
    )
    .refine(
      ({ scheme, secret: given, callback }) => !scheme || (given === undefined && callback === undefined),
      '`secret` and `callback` are those of Standard Webhooks; a scheme has what it needs among its own options',
    )
    .transform(({ as, ...rest }) => ({ as, ...rest })),
  create({ path, bot, as, secret: given, callback, scheme, allowPrivate }, context) {
    const door = under(path, `/api/v1/webhooks/${context.name}`)
    if (scheme) return platformChannel({ bot, as, scheme, allowPrivate, door }, context)
    const { secrets, notices } = given ? { secrets: [given].flat(), notices: [] } : ownSecret(context)
    return {
      door: `POST ${door}`,
      notices,
      routes: [
        {
          method: 'POST',
          path: door,
          anonymous: true,
          describe: {
            summary: `Send a signed message to ${bot}`,
            description: callback === undefined ? readLater : calledBack,
            headers: signed,
            body: { 'application/json': inbound },
            answers: {
              202: {
                description: 'The message is kept; its answer follows.',
                content: { 'application/json': accepted },
              },
            },
          },
          handle: (ctx) => receive(ctx, context, { bot, as, secrets, owed: callback !== undefined }),
        },
      ],
      ...(callback === undefined
        ? {}
        : {
            deliver: (delivery: TurnDelivery, signal: AbortSignal) =>
              deliver(delivery, context, { callback, secrets, allowPrivate, signal }),
          }),
    }
  },
})

async function receive(
  ctx: RequestContext,
  context: ChannelContext,
  { bot, as, secrets, owed }: { bot: string; as: string | undefined; secrets: readonly Secret[]; owed: boolean },
): Promise<void> {
  const body = await readBytes(ctx)
  const id = verifySender(ctx, context, secrets, body)
  const message = check(inbound, parseJson(body))
  const sent = {
    ...message,
    id: message.id ?? id,
    bot,
    channel: context.name,
    acceptAnyway: true,
    owed,
    request: id,
  }
  const turn = await context.hub.send(context.actAs(as), sent).then(
    ({ turn: row }) => row.id,
    // It was taken before, and has been forgotten since.
    (error: unknown) => {
      if (error instanceof HubError && error.code === 'unknown_turn' && error.turn !== undefined) return error.turn
      throw error
    },
  )
  ctx.status = 202
  ctx.body = { turn }
}

function verifySender(ctx: RequestContext, context: ChannelContext, secrets: readonly Secret[], body: Buffer): string {
  try {
    return verifyWebhook(secrets, ctx.headers, body, context.clock.now())
  } catch (error) {
    context.audit.refused(`webhook ${context.name}: signature`, ctx.req.socket.remoteAddress ?? 'unknown')
    throw error
  }
}

async function deliver(
  delivery: TurnDelivery,
  { hub, clock }: ChannelContext,
  to: { callback: string; secrets: readonly Secret[]; allowPrivate: boolean; signal: AbortSignal },
): Promise<void> {
  const turn = await hub.view(delivery.turn)
  // Somebody answered before this could be delivered: the question is no longer one.
  if (delivery.type === 'turn.waiting' && turn.status !== 'waiting') return
  const body = JSON.stringify({
    type: delivery.type,
    timestamp: new Date(delivery.at).toISOString(),
    data: turn,
  })
  const headers = { ...signWebhook(to.secrets, delivery.id, clock.now(), body) }
  checkTaken(await postCallback(to.callback, headers, body, to), clock.now())
}

/** A secret of the hub's own, made at the first start and shown then. */
function ownSecret({ name, folder, isTrial }: ChannelContext): {
  secrets: readonly Secret[]
  notices: readonly string[]
} {
  const file = join(folder, 'data', `webhook-${name}.secret`)
  if (existsSync(file)) return { secrets: [new Secret(readFileSync(file, 'utf8').trim())], notices: [] }
  const made = `whsec_${randomBytes(24).toString('base64')}`
  // It is shown once, at the first start.
  if (isTrial) return { secrets: [new Secret(made)], notices: [] }
  try {
    mkdirSync(join(folder, 'data'), { recursive: true })
    writeFileSync(file, `${made}\n`, { mode: 0o600, flag: 'wx' })
  } catch (error) {
    throw new HubError('config_invalid', {
      message: `channels.${name}: webhook() has no secret, and none could be kept in ${file}. Give it one: secret: env('…')`,
      cause: error,
    })
  }
  return {
    secrets: [new Secret(made)],
    notices: [`channels.${name}: its signing secret, kept in ${file} and shown this once: ${made}`],
  }
}
