import { z } from 'zod'
import { HubError } from '../../core/errors.ts'
import type { HubEvent } from '../../core/events.ts'
import { flatMap, inParts } from '../../core/flow.ts'
import type { Parts } from '../../core/flow.ts'
import { parseExactJson } from '../../core/json.ts'
import { defineProvider } from '../../core/plugin.ts'
import type { PluginContext, ProviderSpec } from '../../core/plugin.ts'
import { secret, setting } from '../../core/settings.ts'
import { failureOfStatus, requestEvents, retryAfterMs } from '../../core/sse.ts'
import type { EventResponse, SourceEvent } from '../../core/sse.ts'
import type { Turn } from '../../core/turn.ts'
import { wordsToEvents } from '../../core/words.ts'
import { asObject, failureIn, plainFrames, plainRequest } from './wire.ts'
import type { SseFrame, SseMap, SseRequest, SseStep } from './wire.ts'

const functionOf = <F>(shape: string) =>
  z.custom<F>((value) => typeof value === 'function', `must be a function ${shape}`)

const options = z.strictObject({
  /** Where a message is posted. */
  url: setting().refine((url) => /^https?:$/.test(URL.parse(url)?.protocol ?? ''), 'must be an http(s) URL'),
  /** Sent as `Authorization: Bearer …`. */
  token: secret().optional(),
  /** Further headers, such as `x-api-key`; their values are never printed. */
  headers: z.record(z.string(), secret()).default({}),
  /** What is posted. Default: `{ id, message, history: [{ role, content }], conversation, user, payload? }`. */
  request: functionOf<(turn: Turn) => SseRequest>('`(turn) => ({ body })`').optional(),
  /** What the frames mean. Default: `event: message` with `{ "content" }`, and `event: done`. */
  map: functionOf<SseMap>('`(frame, turn) => …`').optional(),
  /**
   * The upstream has no last frame: a body that ends in good order is a whole answer. A cut that looks like an end
   * cannot be told from one then.
   */
  endsWithBody: z.boolean().default(false),
  /** The upstream keeps the conversation itself, so it is sent no history. */
  remembers: z.boolean().default(false),
  /** Longest silence, in ms, to the first frame and between two. */
  idleTimeoutMs: z.int().positive().default(60_000),
})

type Options = z.output<typeof options>

/**
 * A bot of your own behind an address that answers with server-sent events: the plain format of many in-house bots, and
 * by `request` and `map` their cousins.
 * @example sseBot({ url: 'https://bots.example.com/chat', token: env('BOT_TOKEN') })
 * @example
 * sseBot({
 *   url: 'https://bots.example.com/v2/ask',
 *   request: ({ message }) => ({ body: { q: message.text } }),
 *   map: ({ event, data }) => (event === 'end' ? { type: 'end' } : data),
 * })
 */
export const sseBot = (given: z.input<typeof options>): ProviderSpec => {
  const spec = provider(given)
  const { remembers } = spec.options as Partial<Options>
  return remembers ? { ...spec, manifest: { ...spec.manifest, remembers: true } } : spec
}

const provider = defineProvider({
  manifest: { name: 'sse-bot' },
  options,
  create: (given, context) => ({
    respond: (turn) =>
      wordsToEvents(
        inParts(() => say(turn, given, context)),
        turn.shown.length,
      ),
  }),
})

async function* say(turn: Turn, given: Options, context: PluginContext): Parts<string | HubEvent> {
  const response = await post(turn, given, context)
  try {
    let frames = 0
    let isEnd = false
    yield flatMap(response.events(refuseStray(response)), function* (event, stop): Generator<string | HubEvent> {
      frames += 1
      for (const step of stepsIn(event, turn, given, context)) {
        if (typeof step === 'object' && step.type === 'end') {
          isEnd = true
          return stop()
        }
        yield step
      }
    })
    if (!isEnd && (!given.endsWithBody || frames === 0)) throw new HubError('upstream_cut')
  } finally {
    response.close()
  }
}

async function post(turn: Turn, given: Options, { fetch }: PluginContext): Promise<EventResponse> {
  const { body, headers = {}, url = given.url } = requestOf(turn, given)
  const response = await requestEvents({
    fetch,
    url: new URL(url, given.url),
    headers: { accept: 'text/event-stream', ...headers, ...secretHeaders(given) },
    body,
    signal: turn.signal,
    idleTimeoutMs: given.idleTimeoutMs,
  })
  const { status, mediaType } = response
  if (status !== 200 || mediaType === 'application/json') throw refusal(response, await response.errorText())
  return response
}

/** Nothing was sent when it throws, but asking again would throw again. */
function requestOf(turn: Turn, { request = plainRequest }: Options): SseRequest {
  try {
    return request(turn)
  } catch (error) {
    throw error instanceof HubError ? error : new HubError('bot_failed', { cause: error })
  }
}

const secretHeaders = ({ token, headers }: Options): Record<string, string> => ({
  ...Object.fromEntries(Object.entries(headers).map(([name, value]) => [name, value.reveal()])),
  ...(token ? { authorization: `Bearer ${token.reveal()}` } : {}),
})

function stepsIn(
  { event = 'message', data, id }: SourceEvent,
  turn: Turn,
  { map = plainFrames }: Options,
  { logger }: PluginContext,
): readonly SseStep[] {
  const frame: SseFrame = { event, data, json: parseExactJson(data), ...(id === undefined ? {} : { id }) }
  try {
    const steps = map(frame, turn)
    if (steps === undefined) return []
    return isList(steps) ? steps : [steps]
  } catch (error) {
    if (error instanceof HubError) throw error
    logger.warn({ err: error, turn: turn.id, event }, 'a frame was not understood')
    return []
  }
}

const isList = (steps: SseStep | readonly SseStep[]): steps is readonly SseStep[] => Array.isArray(steps)

/** A body without a single event is no answer, whatever its status and type say. */
const refuseStray = (response: EventResponse) => (body: string) => {
  const text = body.trim()
  // Anything else without an event is a stream that was cut in its first one.
  if (text.startsWith('{') || text.startsWith('<')) throw refusal(response, text)
}

function refusal({ status, headers }: EventResponse, body: string): HubError {
  const told = failureIn(asObject(parseExactJson(body)), body)
  const wait = retryAfterMs(headers.get('retry-after'))
  return new HubError(status < 300 ? 'upstream_failed' : failureOfStatus(status), {
    cause: told.cause,
    notStarted: status === 429 || (status === 503 && wait !== undefined),
    upstream: { ...told.upstream, status },
    ...(wait === undefined ? {} : { retryAfterMs: wait }),
  })
}
