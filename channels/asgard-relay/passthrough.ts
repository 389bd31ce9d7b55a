import { parseJson, readBytes } from '../../core/body.ts'
import { receiveBytes, sendBytes } from '../../core/byte-stream.ts'
import type { Principal } from '../../core/auth.ts'
import type { ChannelContext, RequestContext, Route } from '../../core/channel.ts'
import { asHubError, HubError } from '../../core/errors.ts'
import type { JsonObject } from '../../core/message.ts'
import type { PassthroughRequest } from '../../core/plugin.ts'
import { leaving } from '../../core/upload.ts'
import { objectOf, readAnswer } from '../../plugins/asgard/wire.ts'
import { failure } from './requests.ts'

/** A call that only Asgard itself can answer. */
export interface PassedCall {
  readonly method: Route['method'] & PassthroughRequest['method']
  /** Below the bot provider's own; `:sandbox` is one that was started in the caller's conversations. */
  readonly path: string
  /** What of the query is passed on. */
  readonly query?: readonly string[]
  readonly body?: 'json' | 'form'
  /** It is about the channel in `custom_channel_id`; a call about a sandbox may name its channel. */
  readonly channel?: true
  /** Its tools ask nobody. */
  readonly bypassesConsent?: true
}

const sandbox = (method: PassedCall['method'], path: string, ...query: readonly string[]): PassedCall => ({
  method,
  path: `/sandbox/:sandbox/${path}`,
  query,
})

/** What is passed through to a bot whose platform is Asgard; for any other bot it is refused. */
export const passedCalls: readonly PassedCall[] = [
  { method: 'POST', path: '/json', body: 'json', bypassesConsent: true },
  { method: 'POST', path: '/form', body: 'form', bypassesConsent: true },
  { method: 'POST', path: '/channel/clear', channel: true },
  { method: 'GET', path: '/channel-home/download', channel: true, query: ['relative_path'] },
  sandbox('POST', 'heartbeat'),
  sandbox('POST', 'editor/open-url'),
  sandbox('POST', 'browser/open-url'),
  sandbox('POST', 'browser/session'),
  sandbox('GET', 'fs/list', 'path'),
  sandbox('GET', 'fs/stat', 'path'),
  sandbox('GET', 'fs/file', 'path', 'offset_bytes', 'limit_bytes'),
  { ...sandbox('PUT', 'fs/file', 'path', 'mode', 'create_only'), body: 'form' },
  sandbox('POST', 'fs/mkdir', 'path'),
  sandbox('DELETE', 'fs/item', 'path'),
  sandbox('DELETE', 'fs/all', 'path'),
  sandbox('POST', 'fs/copy', 'src', 'dst', 'overwrite'),
  sandbox('POST', 'fs/move', 'src', 'dst', 'overwrite'),
  sandbox('GET', 'fs/watch', 'path', 'recursive'),
]

/** The dialect that a provider has to speak. */
const dialect = 'asgard'

// What comes from a sandbox is anybody's work: it may be shown, and run nothing in the hub's name.
const harmless = {
  'x-content-type-options': 'nosniff',
  'content-security-policy': 'sandbox',
  'cache-control': 'no-cache, no-transform',
  'x-accel-buffering': 'no',
}

/**
 * Passes one call through: whether the caller may is settled before a byte of the body is read, both bodies are streamed,
 * and of headers only those go on that say what a body is.
 * @throws HubError as `Conversations.openPassage` does, or for what Asgard refused
 */
export async function passThrough(
  ctx: RequestContext,
  context: ChannelContext,
  bot: string,
  call: PassedCall,
): Promise<void> {
  const channel = one(ctx, 'custom_channel_id')
  if (call.channel && !channel) {
    throw new HubError('invalid_request', { message: 'custom_channel_id: name the channel.' })
  }
  const name = ctx.params['sandbox']
  const send = await context.conversations.openPassage(ctx.principal, {
    bot,
    dialect,
    sandbox: name,
    conversation: call.channel || name !== undefined ? channel : undefined,
    bypassesConsent: call.bypassesConsent,
  })
  using left = leaving(ctx)
  try {
    const answer = await send(await requestOf(ctx, call), left.signal)
    await sendBytes(ctx, context, { ...answer, headers: { ...answer.headers, ...harmless } }, left.signal)
  } catch (error) {
    answerRefusal(ctx, error)
  }
}

/** What these mean is Asgard's to say: a sandbox that does not run, a file that is not there. Its words stay here. */
const itsOwn: ReadonlySet<number | undefined> = new Set([400, 404, 409, 412, 413, 415, 416, 422])

/** @throws what is no refusal of the call itself */
function answerRefusal(ctx: RequestContext, error: unknown): void {
  if (!(error instanceof HubError) || !error.upstream || !itsOwn.has(error.upstream.status)) throw error
  if (!ctx.req.complete) ctx.set('connection', 'close')
  ctx.status = error.upstream.status!
  ctx.body = failure(error.upstream.code ?? error.code, "The bot's platform did not take this call.")
}

async function requestOf(
  ctx: RequestContext,
  { method, path, query = [], body }: PassedCall,
): Promise<PassthroughRequest> {
  const asked = query.flatMap((name) => {
    const value = one(ctx, name)
    return value === undefined ? [] : [[name, value] as const]
  })
  return {
    method,
    path: path
      .slice(1)
      .split('/')
      .map((segment) => (segment === ':sandbox' ? ctx.params['sandbox']! : segment)),
    query: Object.fromEntries(asked),
    ...(body ? await contentOf(ctx, body) : { headers: {} }),
  }
}

async function contentOf(
  ctx: RequestContext,
  kind: 'json' | 'form',
): Promise<Pick<PassthroughRequest, 'headers' | 'body'>> {
  const headers = { 'content-type': ctx.get('content-type') }
  if (kind === 'form') {
    if (!ctx.is('multipart/form-data')) {
      throw new HubError('unsupported_media_type', { message: 'Send the body as multipart/form-data.' })
    }
    return { headers, body: receiveBytes(ctx) }
  }
  if (!ctx.is('json', '+json')) throw new HubError('unsupported_media_type')
  const bytes = await readBytes(ctx)
  parseJson(bytes)
  return { headers, body: ReadableStream.from([bytes]) }
}

/** A field of the query; the first one where it is there more than once. */
function one(ctx: RequestContext, name: string): string | undefined {
  const value = ctx.query[name]
  return (Array.isArray(value) ? value[0] : value) || undefined
}

/** More than any metadata has, in characters. */
const maxMetadataLength = 1_048_576
const metadataTimeoutMs = 5000

/**
 * What Asgard itself says of a bot provider (`['metadata']`), or of the channel that is named (`['channel', 'metadata']`).
 * @throws HubError as `Conversations.openPassage` does, or for what Asgard refused
 */
export async function askMetadata(
  { conversations }: ChannelContext,
  principal: Principal,
  about: { readonly bot: string; readonly conversation?: string },
  path: readonly string[],
): Promise<JsonObject> {
  const send = await conversations.openPassage(principal, { ...about, dialect })
  const request = { method: 'GET', path, query: {}, headers: {} } as const
  try {
    const { body } = await send(request, AbortSignal.timeout(metadataTimeoutMs))
    return objectOf(readAnswer(await textOf(body))?.data)
  } catch (error) {
    throw asHubError(error, 'upstream_silent')
  }
}

async function textOf(body: AsyncIterable<Uint8Array>): Promise<string> {
  const decoder = new TextDecoder()
  let text = ''
  for await (const chunk of body) {
    text += decoder.decode(chunk, { stream: true })
    if (text.length > maxMetadataLength) throw new HubError('answer_too_large')
  }
  return text
}
