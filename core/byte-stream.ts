import { once } from 'node:events'
import type { Writable } from 'node:stream'
import type { ChannelContext, RequestContext } from './channel.ts'
import { HubError } from './errors.ts'
import { maxFileBytes, uploadIdleMs } from './upload.ts'

const readTimeoutMs = 30_000

/**
 * The body of a request as it arrives, for whoever passes it on: nothing of it is held. It may take as long as it likes,
 * but not pause for longer than 15 s while it is waited for.
 * @throws HubError `payload_too_large`: at once when the request says so, else where the body gets longer than that
 */
export function receiveBytes(ctx: RequestContext, maxBytes = maxFileBytes): AsyncGenerator<Uint8Array> {
  const tooLarge = () => new HubError('payload_too_large', { message: `The body is larger than ${maxBytes} bytes.` })
  if (Number(ctx.get('content-length')) > maxBytes) throw tooLarge()
  return (async function* () {
    let bytes = 0
    // Not destroyed with its reader: the request may still be answered.
    const chunks = ctx.req.iterator({ destroyOnReturn: false }) as AsyncIterator<Buffer>
    for (;;) {
      const next = await inTime(chunks.next())
      if (next.done) return
      bytes += next.value.length
      if (bytes > maxBytes) throw tooLarge()
      yield next.value
    }
  })()
}

async function inTime<T>(chunk: Promise<T>): Promise<T> {
  const late = Promise.withResolvers<never>()
  const timer = setTimeout(() => late.reject(new HubError('request_timeout')), uploadIdleMs)
  try {
    return await Promise.race([chunk, late.promise])
  } catch (error) {
    throw error instanceof HubError ? error : new HubError('bad_upload', { cause: error })
  } finally {
    clearTimeout(timer)
  }
}

/** An answer as it comes from elsewhere. */
export interface ByteAnswer {
  readonly status: number
  readonly headers: Readonly<Record<string, string>>
  readonly body: AsyncIterable<Uint8Array>
}

/**
 * Answers a request with bytes as they come. Next to nothing is queued: the source is asked for more when the client has
 * taken what there was, and a client that takes nothing for 30 s is cut. Where the source fails the connection is
 * destroyed, so that nobody takes a part for the whole.
 */
export async function sendBytes(
  ctx: RequestContext,
  { openStreams, logger }: Pick<ChannelContext, 'openStreams' | 'logger'>,
  { status, headers, body }: ByteAnswer,
  signal: AbortSignal,
): Promise<void> {
  const response = ctx.res
  ctx.respond = false
  ctx.status = status
  response.writeHead(status, headers)
  response.flushHeaders()
  openStreams.inc()
  try {
    for await (const chunk of body) {
      if (signal.aborted) break
      if (!response.write(chunk)) await drained(response, signal)
    }
    response.end()
  } catch (error) {
    if (!signal.aborted) logger.warn({ err: error }, 'an answer broke off that was being passed on')
    response.destroy()
  } finally {
    openStreams.dec()
  }
}

/** Resolves when a client has taken what was written or has gone; one that takes nothing for 30 s is cut. */
export async function drained(client: Writable, signal: AbortSignal): Promise<void> {
  const timer = setTimeout(() => client.destroy(), readTimeoutMs)
  await once(client, 'drain', { signal }).catch(() => {})
  clearTimeout(timer)
}
