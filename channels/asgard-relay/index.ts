import { z } from 'zod'
import { check, readJson } from '../../core/body.ts'
import type { ChannelContext, RequestContext, Route, RouteDescription } from '../../core/channel.ts'
import { channelOptions, defineChannel } from '../../core/channel.ts'
import { HubError } from '../../core/errors.ts'
import { openEventStream } from '../../core/event-stream.ts'
import { isTerminal } from '../../core/events.ts'
import type { ConsentDecision } from '../../core/events.ts'
import type { JsonObject } from '../../core/message.ts'
import { newId } from '../../core/ids.ts'
import type { ConversationRef } from '../../core/message.ts'
import { under } from '../../core/native.ts'
import type { ConversationDetails, TurnRow } from '../../core/store.ts'
import { leaving } from '../../core/upload.ts'
import { receiveBlob } from './blob.ts'
import { listOf, objectOf, textOf } from '../../plugins/asgard/wire.ts'
import { errorDetail, readMessageId, relayFeedbackId, toMessage, toPendingCall } from './encode.ts'
import { askMetadata, passedCalls, passThrough } from './passthrough.ts'
import {
  channelQuery,
  encodeFailure,
  envelope,
  feedbackBody,
  genericBotMessage,
  hintOf,
  messageHeaders,
  messageQuery,
  succeed,
  suspendQuery,
} from './requests.ts'
import { replayChannel, resubscribe, runOf, streamRun, toText, turnOf, turnsOf, welcomeFrames } from './streams.ts'
import type { Relay } from './streams.ts'

/**
 * Makes the hub a backend of Asgard's front-end SDK: its `botProviderEndpoint` is `/ns/{any}/bot-provider/{bot}` here, and
 * any bot answers. A channel of Asgard's is a conversation of the hub, a run is a turn. The browser sends a key or token
 * of the hub, or none where there is no `auth`; keys of upstreams stay here. `docs/dialects.md` says what is served.
 * @example asgardRelay({ origins: ['https://www.example.com'] })
 */
export const asgardRelay = defineChannel({
  name: 'asgardRelay',
  options: z.strictObject({ ...channelOptions }),
  create({ path }, context) {
    const base = under(path, '/ns/:namespace/bot-provider/:bot')
    const legacy = under(path, '/generic/ns/:namespace/bot-provider/:bot')
    const own = new RegExp(`^${RegExp.escape(path === '/' ? '' : path)}(?:/generic)?/ns/[^/]+/bot-provider/`)
    return {
      exposedHeaders: ['X-Trace-Id', 'X-Total-Bytes', 'X-Truncated'],
      door: `POST ${under(path, '/ns/{any}/bot-provider/{bot}')}/message/sse`,
      routes: [base, legacy].flatMap((prefix) =>
        routesOf(context).map((route) => ({ ...route, path: `${prefix}${route.path}` })),
      ),
      encodeError: (error, requested) => (own.test(requested) ? encodeFailure(error) : undefined),
    }
  },
})

type Handler = (ctx: RequestContext, context: ChannelContext) => Promise<void>

function routesOf(context: ChannelContext): readonly Route[] {
  const route = (method: Route['method'], path: string, describe: RouteDescription, handler: Handler): Route => ({
    method,
    path,
    describe,
    handle: (ctx) => handler(ctx, context),
  })
  const asks = { body: { 'application/json': genericBotMessage }, query: messageQuery, headers: messageHeaders }
  return [
    route('POST', '/message/sse', { summary: 'Send a message, as Asgard does', ...asks, answers: streamed }, send),
    route('GET', '/message/sse', { summary: 'Replay a channel', query: channelQuery, answers: streamed }, rejoin),
    route('POST', '/message', { summary: 'Send a message and wait', ...asks, answers: wrapped }, sendAndWait),
    route('POST', '/message/dispatch', { summary: 'Send a message and go', ...asks, answers: dispatched }, dispatch),
    route('POST', '/message/suspend', { summary: 'Stop a run', query: suspendQuery, answers: nothing }, suspend),
    route(
      'POST',
      '/message/feedback',
      { summary: 'Rate a message', body: { 'application/json': feedbackBody }, answers: wrapped },
      rate,
    ),
    route('POST', '/blob', { summary: 'Upload a file', body: blobBody, answers: wrapped }, upload),
    route('GET', '/channel/metadata', { summary: 'See a channel', query: channelQuery, answers: wrapped }, metadata),
    route('DELETE', '/channel', { summary: 'Delete a channel', query: channelQuery, answers: nothing }, forget),
    route('GET', '/metadata', { summary: 'How Asgard wants the front end to look', answers: wrapped }, appearance),
    ...passedCalls.map((call) =>
      route(call.method, call.path, { summary: 'Passed through to a bot of Asgard', answers: passed }, (ctx) =>
        passThrough(ctx, context, botOf(ctx, context), call),
      ),
    ),
  ]
}

const streamed = {
  200: { description: 'Frames of Asgard, to the end of the run.', content: { 'text/event-stream': z.string() } },
} as const
const wrapped = { 200: { description: 'In the envelope.', content: { 'application/json': envelope } } } as const
const dispatched = { 202: { description: 'The run.', content: { 'application/json': envelope } } } as const
const passed = { 200: { description: 'What Asgard answers.' } } as const
const nothing = { 204: { description: 'Done.' } } as const
const blobBody = { 'multipart/form-data': z.object({ customChannelId: z.string(), file: z.file() }) } as const

function botOf(ctx: RequestContext, { bots, offers }: ChannelContext): string {
  const { name } = bots.find(ctx.principal, ctx.params['bot']!)
  if (!offers(name)) throw new HubError('unknown_bot')
  return name
}

/** What every answer about a channel is made with. */
const relayOf = (ctx: RequestContext, context: ChannelContext, customChannelId: string): Relay => ({
  context,
  principal: ctx.principal,
  bot: botOf(ctx, context),
  namespace: ctx.params['namespace']!,
  botProviderName: ctx.params['bot']!,
  customChannelId,
})

/** The conversation of a channel; undefined where there is none yet. */
async function known({ context, principal, bot, customChannelId }: Relay): Promise<ConversationRef | undefined> {
  try {
    return await context.conversations.find(principal, bot, customChannelId)
  } catch (error) {
    if (error instanceof HubError && error.code === 'unknown_conversation') return undefined
    throw error
  }
}

type GenericMessage = z.output<typeof genericBotMessage>

const send: Handler = async (ctx, context) => {
  // Before the body: a bot that is not there is not there for anybody's message.
  botOf(ctx, context)
  const message = await readJson(ctx, genericBotMessage)
  const relay = relayOf(ctx, context, message.customChannelId)
  // A client that comes back asks nothing again; only a welcome is of no turn, and begins anew.
  const begun = (await resumed(ctx, relay, message)) ?? (await begin(ctx, relay, message, false))
  if (begun === 'replay') return rejoinAt(ctx, relay, '')
  const client = openEventStream(ctx, context)
  if (begun === 'welcome') await client.write(welcomeFrames(relay, newId('turn'), profileOf(relay)).map(toText))
  else await streamRun(client, relay, begun.turn, begun.after)
  client.close()
}

/** Where a client goes on that names the last frame it has; undefined when it names none. */
async function resumed(
  ctx: RequestContext,
  relay: Relay,
  message: GenericMessage,
): Promise<Begun | 'welcome' | 'replay' | undefined> {
  const cursor = ctx.get('last-event-id')
  if (!cursor) return undefined
  const conversation = await known(relay)
  if (!conversation && cursor === '0' && isOpening(message)) return 'welcome'
  if (!conversation) throw new HubError('unknown_conversation')
  if (cursor === '0') return 'replay'
  const { turn, seq } = await resubscribe(relay, conversation, cursor)
  return { turn, after: seq }
}

const rejoin: Handler = async (ctx, context) => {
  const relay = relayOf(ctx, context, check(channelQuery, ctx.query).custom_channel_id)
  await rejoinAt(ctx, relay, ctx.get('last-event-id'))
}

/** Without a cursor, or at 0, which is before everything, the whole channel is replayed. */
async function rejoinAt(ctx: RequestContext, relay: Relay, cursor: string): Promise<void> {
  const conversation = await known(relay)
  if (!conversation) throw new HubError('unknown_conversation')
  const from = cursor === '' || cursor === '0' ? undefined : await resubscribe(relay, conversation, cursor)
  const client = openEventStream(ctx, relay.context)
  await replayChannel(client, relay, conversation, from)
  client.close()
}

const isOpening = ({ action, text, blobIds }: GenericMessage): boolean =>
  (action === 'NONE' || action === 'RESET_CHANNEL') && text === '' && !blobIds?.length

interface Begun {
  readonly turn: TurnRow
  /** The number of the last event that the client has no need of. */
  readonly after: number
}

/** Does what a message asks for: a new turn, an answer to one that waits, or a welcome. */
async function begin(
  ctx: RequestContext,
  relay: Relay,
  message: GenericMessage,
  detached: boolean,
): Promise<Begun | 'welcome'> {
  const { context, bot, customChannelId } = relay
  const { action, text, blobIds, payload, customMessageId } = message
  if (action === 'RESPONSE_TOOL_CALL_CONSENT') return decide(ctx, relay, message)
  if (action === 'RESET_CHANNEL') {
    if (blobIds?.length) {
      throw new HubError('invalid_request', { message: 'blobIds: a channel that is reset has no files.' })
    }
    if (await known(relay)) await context.conversations.forget(ctx.principal, bot, customChannelId)
  }
  if (isOpening(message) && !(await known(relay))) return 'welcome'
  const { is_debug, bypass_tool_call_consent } = check(messageQuery, ctx.query)
  const nudge = action === 'NUDGE'
  if (nudge && (text !== '' || blobIds?.length)) {
    throw new HubError('invalid_request', { message: 'action: a nudge has neither text nor files.' })
  }
  const { turn } = await context.hub.send(ctx.principal, {
    bot,
    nudge,
    channel: context.name,
    conversation: customChannelId,
    id: customMessageId ?? undefined,
    text,
    files: blobIds ?? undefined,
    payload: payload ?? undefined,
    speaker: hintOf(ctx),
    debug: is_debug === 'true',
    bypassConsent: bypass_tool_call_consent === 'true',
    detached,
  })
  return { turn, after: 0 }
}

const decisions = { ALLOW_ONCE: 'allow_once', ALLOW_ALWAYS: 'allow_always', DENY_ONCE: 'deny_once' } as const

/** Hands the decisions to the turn that waits. What follows is a stream of its own. */
async function decide(ctx: RequestContext, relay: Relay, { toolCallConsents }: GenericMessage): Promise<Begun> {
  const conversation = await known(relay)
  if (!conversation) throw new HubError('unknown_conversation')
  const { live, latest } = await turnsOf(relay, conversation)
  const turn = live.find(({ status }) => status === 'waiting') ?? latest
  if (!turn) throw new HubError('not_waiting')
  if (!toolCallConsents?.length) {
    throw new HubError('invalid_request', { message: 'toolCallConsents: answer every call that waits.' })
  }
  if (turn.message.speaker !== hintOf(ctx)) {
    throw new HubError('forbidden', { message: 'Only the user who was asked may answer this.', turn: turn.id })
  }
  const answers: ConsentDecision[] = toolCallConsents.map(({ toolCallId, result, denyReason }) => ({
    call: toolCallId,
    result: decisions[result],
    ...(denyReason ? { reason: denyReason } : {}),
  }))
  await relay.context.hub.decide(turn, ctx.principal, answers)
  return { turn, after: turn.seq }
}

const sendAndWait: Handler = async (ctx, context) => {
  botOf(ctx, context)
  const message = await readJson(ctx, genericBotMessage)
  const relay = relayOf(ctx, context, message.customChannelId)
  const begun = await begin(ctx, relay, message, false)
  const { namespace, botProviderName, customChannelId } = relay
  const common = { namespace, botProviderName, customChannelId }
  if (begun === 'welcome') {
    const { welcome } = profileOf(relay)
    const run = { ...common, turn: newId('turn'), message: '' }
    const messages = welcome ? [toMessage(run, { id: 'welcome', text: welcome })] : []
    return succeed(ctx, { requestId: run.turn, ...common, messages, errorDetail: null })
  }
  await restsOrLeaves(ctx, context, begun)
  const turn = await context.hub.view(begun.turn.id)
  const calls = turn.waiting?.for === 'consent' ? turn.waiting.calls.map(toPendingCall) : undefined
  succeed(ctx, {
    requestId: turn.turn,
    ...common,
    messages: turn.messages.map((each) => toMessage(runOf(relay, begun.turn), each)),
    errorDetail: turn.error ? errorDetail(turn.error) : null,
    ...(calls ? { toolCallConsentRequest: { pendingCalls: calls } } : {}),
  })
}

async function restsOrLeaves(ctx: RequestContext, { hub }: ChannelContext, { turn, after }: Begun): Promise<void> {
  using left = leaving(ctx)
  for await (const events of hub.follow(turn.id, after, left.signal)) {
    if (events.some((event) => event.type === 'turn.waiting' || isTerminal(event))) return
    // Decisions on some of its calls leave it waiting.
    if ((await hub.view(turn.id)).waiting) return
  }
}

const dispatch: Handler = async (ctx, context) => {
  botOf(ctx, context)
  const message = await readJson(ctx, genericBotMessage)
  const begun = await begin(ctx, relayOf(ctx, context, message.customChannelId), message, true)
  const requestId = begun === 'welcome' ? newId('turn') : begun.turn.id
  succeed(ctx, { requestId, customChannelId: message.customChannelId }, 202)
}

/** Stops the run that is named, or whatever of the channel lives. One that has ended is left as it is. */
const suspend: Handler = async (ctx, context) => {
  const { custom_channel_id, request_id } = check(suspendQuery, ctx.query)
  const relay = relayOf(ctx, context, custom_channel_id)
  const conversation = await known(relay)
  if (!conversation) throw new HubError('unknown_conversation')
  const { live } = await turnsOf(relay, conversation)
  // Queued ones first, so that none starts when the live one ends.
  for (const turn of live.toReversed()) {
    if (!request_id || turn.id === request_id) await context.hub.cancel(turn, 'client')
  }
  ctx.status = 204
}

const rate: Handler = async (ctx, context) => {
  const bot = botOf(ctx, context)
  const { customChannelId, messageId, verdict, comment } = await readJson(ctx, feedbackBody)
  const relay = relayOf(ctx, context, customChannelId)
  const conversation = await known(relay)
  if (!conversation) throw new HubError('unknown_conversation')
  const said = readMessageId(messageId)
  const turn = said && (await turnOf(relay, said.turn))
  if (turn?.conversation.id !== conversation.id) throw new HubError('unknown_message')
  const item = await context.conversations.rate(ctx.principal, {
    bot,
    ...said!,
    verdict: verdict === 'GOOD' ? 'good' : 'bad',
    speaker: hintOf(ctx),
    ...(comment ? { comment } : {}),
  })
  succeed(ctx, { messageId: relayFeedbackId(item), seq: Number(item.id) })
}

const upload: Handler = async (ctx, context) => {
  const bot = botOf(ctx, context)
  // Before the body: its channel may be named behind the file, and nobody is to send that for nothing.
  if (!context.bots.get(bot)?.manifest.files) throw new HubError('files_unsupported')
  succeed(ctx, [await receiveBlob(ctx, context, bot)])
}

const metadata: Handler = async (ctx, context) => {
  const relay = relayOf(ctx, context, check(channelQuery, ctx.query).custom_channel_id)
  const details = await context.conversations.details(ctx.principal, relay.bot, relay.customChannelId)
  const { live, latest } = await turnsOf(relay, details)
  const { runState, conversationStatus } = states[(live[0] ?? latest)?.status ?? 'completed']
  succeed(ctx, {
    customChannelId: relay.customChannelId,
    title: details.title ?? null,
    runState,
    conversationStatus: conversationStatus ?? knownStatus(details.status),
    lastActivityAt: details.updatedAt,
    launchedSandboxes: details.sandboxes.length > 0 ? await sandboxesOf(relay, details) : [],
  })
}

const embedAnnotation = 'asgard-ai.com/additional-annotation'

/** How the front end is to look. What else an operator has written of a bot provider is nothing for browsers. */
const appearance: Handler = async (ctx, context) => {
  const said = await askMetadata(context, ctx.principal, { bot: botOf(ctx, context) }, ['metadata'])
  const embed = objectOf(said['annotations'])[embedAnnotation]
  succeed(ctx, { annotations: embed === undefined ? {} : { [embedAnnotation]: embed } })
}

const knownStatus = (status: string | undefined) => (status === 'NEEDS_INPUT' || status === 'COMPLETED' ? status : null)

/** Which of them have an editor or a browser, Asgard alone knows. */
async function sandboxesOf(relay: Relay, { sandboxes }: ConversationDetails): Promise<readonly JsonObject[]> {
  const { context, principal, bot, customChannelId: conversation } = relay
  const said = await askMetadata(context, principal, { bot, conversation }, ['channel', 'metadata']).catch(
    (error: unknown) => context.logger.debug({ err: error, bot }, 'a platform said nothing of its channel'),
  )
  const asked = said?.['launchedSandboxes']
  const names = new Set(sandboxes.map(({ name }) => name))
  const running = listOf(asked)
    .map(objectOf)
    .filter((sandbox) => names.has(textOf(sandbox['sandboxName'])))
  if (asked !== undefined) return running
  return sandboxes.map(({ name, blueprint }) => ({
    sandboxName: name,
    sandboxBlueprintName: blueprint,
    workingDirectory: '',
    editorServerEnabled: false,
    browserEnabled: false,
  }))
}

const states = {
  queued: { runState: 'RUNNING', conversationStatus: null },
  running: { runState: 'RUNNING', conversationStatus: null },
  waiting: { runState: 'IDLE', conversationStatus: 'NEEDS_INPUT' },
  completed: { runState: 'IDLE', conversationStatus: null },
  cancelled: { runState: 'IDLE', conversationStatus: null },
  failed: { runState: 'ERROR', conversationStatus: null },
  interrupted: { runState: 'ERROR', conversationStatus: null },
} as const satisfies Record<TurnRow['status'], object>

const forget: Handler = async (ctx, context) => {
  const relay = relayOf(ctx, context, check(channelQuery, ctx.query).custom_channel_id)
  if (await known(relay)) await context.conversations.forget(ctx.principal, relay.bot, relay.customChannelId)
  ctx.status = 204
}

const profileOf = ({ context, bot }: Relay) => context.bots.get(bot)?.profile ?? {}
