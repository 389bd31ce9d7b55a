import { z } from 'zod'
import { check, readJson } from '../../core/body.ts'
import type { ChannelContext, RequestContext, Route, RouteDescription } from '../../core/channel.ts'
import { channelOptions, defineChannel } from '../../core/channel.ts'
import { HubError } from '../../core/errors.ts'
import { openEventStream } from '../../core/event-stream.ts'
import type { NumberedEvent } from '../../core/events.ts'
import { clientName } from '../../core/ids.ts'
import { under } from '../../core/native.ts'
import type { TurnRow } from '../../core/store.ts'
import { leaving } from '../../core/upload.ts'
import { modelObject } from '../../plugins/openai/wire.ts'
import { AnswerReader, asThrown, encodeFailure, framesOf, mayRepeat, openingFrame, wholeAnswer } from './encode.ts'
import type { AnswerNames } from './encode.ts'
import { chatBody, chatHeaders, readDecision, readQuestion, warningsAbout } from './requests.ts'
import type { CallOutput, Question } from './requests.ts'

/**
 * Lets every client of OpenAI's chat completions talk to any bot: its base URL is this hub and `/v1` (or `/api/v1`), its
 * key one of the hub, and `model` a bot. A conversation is the client's own, as everywhere with OpenAI, or one that the
 * hub remembers where the request has a `sessionId`. `docs/dialects.md` says what is served.
 * @example openaiApi({ bots: ['support'] })
 */
export const openaiApi = defineChannel({
  name: 'openaiApi',
  options: z.strictObject({ ...channelOptions }),
  create({ path }, context) {
    const own = new RegExp(
      `^${RegExp.escape(path === '/' ? '' : path)}(?:/api)?/v1/(?:chat|models|completions|embeddings|responses)(?:/|$)`,
    )
    return {
      door: `POST ${under(path, '/v1/chat/completions')}`,
      exposedHeaders: ['X-Hub-Warning'],
      routes: ['/v1', '/api/v1'].flatMap((prefix) =>
        routesOf(context).map((route) => ({ ...route, path: under(path, `${prefix}${route.path}`) })),
      ),
      encodeError: (error, requested) => (own.test(requested) ? encodeFailure(error) : undefined),
    }
  },
})

function routesOf(context: ChannelContext): readonly Route[] {
  const since = Math.floor(context.clock.now() / 1000)
  const models = (ctx: RequestContext) =>
    context.bots
      .list(ctx.principal)
      .filter(({ bot }) => context.offers(bot))
      .map(({ bot }) => modelObject(bot, since, 'bothub'))
  return [
    {
      method: 'POST',
      path: '/chat/completions',
      describe: describeChat,
      handle: (ctx) => chat(ctx, context),
    },
    {
      method: 'GET',
      path: '/models',
      describe: { summary: 'List the bots, as OpenAI lists models', answers: { 200: ofJson('The bots.', modelList) } },
      handle(ctx) {
        ctx.body = { object: 'list', data: models(ctx) }
      },
    },
    {
      method: 'GET',
      path: '/models/:model',
      describe: { summary: 'See a bot, as OpenAI shows a model', answers: { 200: ofJson('The bot.', model) } },
      handle(ctx) {
        const found = models(ctx).find(({ id }) => id === ctx.params['model'])
        if (!found) throw unknownModel(ctx.params['model']!)
        ctx.body = found
      },
    },
  ]
}

const ofJson = (description: string, schema: z.ZodType) => ({ description, content: { 'application/json': schema } })

const model = z
  .object({ id: z.string(), object: z.literal('model'), created: z.int(), owned_by: z.string() })
  .meta({ id: 'Model' })
const modelList = z.object({ object: z.literal('list'), data: z.array(model) })
const describeChat: RouteDescription = {
  summary: 'Send messages, as to OpenAI',
  description:
    'Without `sessionId` the client keeps the conversation: what it says was said before is what the bot is told. ' +
    'Calls in the answer are answered by messages of the role `tool`.',
  body: { 'application/json': chatBody },
  headers: chatHeaders,
  answers: {
    200: {
      description: 'The answer: one object, or with `stream` its chunks.',
      content: {
        'application/json': z.looseObject({ object: z.literal('chat.completion') }),
        'text/event-stream': z.looseObject({ object: z.literal('chat.completion.chunk') }),
      },
    },
  },
}

const unknownModel = (name: string): HubError =>
  new HubError('unknown_bot', {
    message: `There is no bot ${JSON.stringify(name)}. GET /v1/models lists those you may use.`,
  })

type ChatRequest = z.output<typeof chatBody>

/** A turn, and the number of the last event that the client has no need of. */
interface Begun {
  readonly turn: TurnRow
  readonly after: number
  /** The turn waits: the number of its last event, behind which nothing comes. */
  readonly until?: number
}

async function chat(ctx: RequestContext, context: ChannelContext): Promise<void> {
  const request = await readJson(ctx, chatBody)
  const question = readQuestion(request.messages)
  const bot = botOf(ctx, context, request.model)
  const begun =
    question.type === 'message'
      ? await send(ctx, context, request, question, bot.takesHistory)
      : await goOn(ctx, context, request, question)
  ctx.set('x-request-id', begun.turn.id)
  await (request.stream ? stream(ctx, context, begun, request) : answerWhole(ctx, context, begun))
}

function botOf(ctx: RequestContext, { bots, offers }: ChannelContext, name: string) {
  const known = offers(name) && bots.list(ctx.principal).some(({ bot }) => bot === name)
  if (!known) throw unknownModel(name)
  return bots.find(ctx.principal, name)
}

/** A new message: of a conversation that the hub remembers, or of one that its client does. */
async function send(
  ctx: RequestContext,
  { hub, name }: ChannelContext,
  request: ChatRequest,
  { text, files, history }: Extract<Question, { type: 'message' }>,
  takesHistory: boolean,
): Promise<Begun> {
  const session = request.sessionId ?? nameIn(ctx, 'x-session-id')
  const { turn } = await hub.send(ctx.principal, {
    bot: request.model,
    channel: name,
    text,
    files,
    id: nameIn(ctx, 'idempotency-key'),
    user: request.user ?? undefined,
    ...(session === undefined ? { history, ephemeral: true } : { conversation: session }),
  })
  warn(ctx, request, session === undefined && history.length > 0 && !takesHistory)
  return { turn, after: 0 }
}

function warn(ctx: RequestContext, request: ChatRequest, isHistoryLeftOut = false): void {
  const warnings = warningsAbout(request, isHistoryLeftOut)
  if (warnings.length > 0) ctx.set('x-hub-warning', warnings.join(' '))
}

/** A name in a header; an empty one is none. */
function nameIn(ctx: RequestContext, header: string): string | undefined {
  const given = ctx.get(header)
  return given === '' ? undefined : check(clientName, given, header)
}

/** Hands what the client gave for its calls to the turn that waits for it. */
async function goOn(
  ctx: RequestContext,
  context: ChannelContext,
  request: ChatRequest,
  { turn: id, outputs }: Extract<Question, { type: 'outputs' }>,
): Promise<Begun> {
  const { hub } = context
  const turn = await hub.turn(ctx.principal, id)
  if (turn.bot !== request.model) throw new HubError('unknown_turn')
  warn(ctx, request)
  const { waiting } = await hub.view(id)
  const open = new Set(waiting?.calls.map(({ call }) => call))
  const given = outputs.filter(({ call }) => open.has(call))
  // Outputs that are sent again, as clients do by themselves after a cut: what came of them is read again.
  if (!waiting || given.length === 0) {
    return { turn, after: await answeredAt(ctx, context, turn, outputs), ...restOf(turn) }
  }
  if (waiting.for === 'consent') await hub.decide(turn, ctx.principal, given.map(readDecision))
  else
    await hub.giveOutputs(
      turn,
      given.map(({ call, text }) => ({ call, output: text })),
    )
  return { turn, after: turn.seq, ...restOf(await hub.turn(ctx.principal, id)) }
}

/** A turn that still waits has nothing more to say. */
const restOf = ({ status, seq }: TurnRow): Pick<Begun, 'until'> => (status === 'waiting' ? { until: seq } : {})

/**
 * Where the pause was that these outputs have ended.
 * @throws HubError `not_waiting` when there was none, `already_decided` when other ones, or decisions, have
 */
async function answeredAt(
  ctx: RequestContext,
  { hub }: ChannelContext,
  turn: TurnRow,
  outputs: readonly CallOutput[],
): Promise<number> {
  using left = leaving(ctx)
  let pause = 0
  for await (const events of hub.follow(turn.id, 0, left.signal)) {
    for (const event of events) {
      if (event.type === 'turn.waiting') pause = event.seq
      const output = pause > 0 && outputs.find(({ call }) => answersIn(event).includes(call))
      if (!output) continue
      if (isSame(event, output)) return pause
      throw new HubError('already_decided', { turn: turn.id })
    }
    if ((events.at(-1)?.seq ?? 0) >= turn.seq) break
  }
  throw new HubError('not_waiting', { turn: turn.id })
}

function answersIn(event: NumberedEvent): readonly string[] {
  if (event.type === 'consent.answered') return event.decisions.map(({ call }) => call)
  return event.type === 'tool.completed' ? [event.call] : []
}

/** A decision counts once, whoever repeats it. */
const isSame = (event: NumberedEvent, output: CallOutput): boolean =>
  event.type === 'tool.completed' && event.output === output.text

const namesOf = ({ turn, after }: Begun): AnswerNames => ({
  // Each answer of a turn that paused has an id of its own.
  id: `chatcmpl-${turn.id}${after === 0 ? '' : `-${after}`}`,
  created: Math.floor(turn.createdAt / 1000),
  model: turn.bot,
  turn: turn.id,
})

async function stream(ctx: RequestContext, context: ChannelContext, begun: Begun, request: ChatRequest): Promise<void> {
  const names = namesOf(begun)
  const includeUsage = request.stream_options?.include_usage === true
  const client = openEventStream(ctx, context)
  await client.write([openingFrame(names, includeUsage)])
  for await (const { reader, events } of read(context, begun, client.signal)) {
    await client.write(frames(reader, events))
    if (reader.end) break
  }
  client.close()

  /** One at a time, as they are taken: a client that does not read costs no frames. */
  function* frames(reader: AnswerReader, events: readonly NumberedEvent[]): Generator<string> {
    for (const event of events) {
      const parts = reader.read(event)
      for (const part of parts) yield framesOf(names, part, { seq: event.seq, usage: reader.usage, includeUsage })
    }
  }
}

async function answerWhole(ctx: RequestContext, context: ChannelContext, begun: Begun): Promise<void> {
  using left = leaving(ctx)
  for await (const { reader, events } of read(context, begun, left.signal)) {
    for (const event of events) reader.read(event)
    if (!reader.end) continue
    if (reader.end.type === 'finish') {
      ctx.body = wholeAnswer(namesOf(begun), reader, reader.end.finish)
      return
    }
    // OpenAI's clients repeat by themselves what failed; what a bot has begun to answer must not be asked again.
    ctx.set('x-should-retry', String(mayRepeat(reader.end.error)))
    throw asThrown(reader.end.error, begun.turn.id)
  }
  left.signal.throwIfAborted()
  throw new HubError('internal', { message: 'The turn has no end in the log.', turn: begun.turn.id })
}

/** The events of a turn in groups, from its first one on, with the reader that is to read them. */
async function* read({ hub }: ChannelContext, { turn, after, until }: Begun, signal: AbortSignal) {
  const reader = new AnswerReader({ turn: turn.id, after, until })
  for await (const events of hub.follow(turn.id, 0, signal)) yield { reader, events }
}
