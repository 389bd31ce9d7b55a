import { Busboy } from '@fastify/busboy'
import type { BusboyFileStream, BusboyInstance } from '@fastify/busboy'
import type { RequestContext } from './channel.ts'
import { asHubError, HubError } from './errors.ts'
import type { Upload } from './plugin.ts'

/** The most bytes a file may have. */
export const maxFileBytes = 100 * 1_048_576
/** An upload may take as long as it likes, but not pause for longer than this, in ms. */
export const uploadIdleMs = 15_000

/** A signal that aborts when the client goes before its answer. */
export function leaving(ctx: RequestContext): { readonly signal: AbortSignal } & Disposable {
  const left = new AbortController()
  const leave = () => left.abort(new HubError('request_timeout'))
  ctx.res.once('close', leave)
  return { signal: left.signal, [Symbol.dispose]: () => ctx.res.off('close', leave) }
}

/**
 * Hands the part `file` of a multipart body to `take` as it arrives, with the fields that stood before it; those behind
 * it join them until `whole` resolves, which needs the file to be read. Nothing is held in memory; 100 MiB at most.
 * @throws HubError `unsupported_media_type`, `bad_upload`, `payload_too_large`, `request_timeout`, or what `take` throws
 */
export async function receiveUpload<Result>(
  ctx: RequestContext,
  take: (
    upload: Upload,
    fields: Readonly<Record<string, string>>,
    signal: AbortSignal,
    whole: Promise<void>,
  ) => Promise<Result>,
): Promise<Result> {
  if (!ctx.is('multipart/form-data')) {
    throw new HubError('unsupported_media_type', { message: 'Send the file as multipart/form-data.' })
  }
  if (Number(ctx.get('content-length')) > maxFileBytes + 65_536) throw tooLarge()
  using left = leaving(ctx)
  const received = Promise.withResolvers<Result>()
  const parsed = Promise.withResolvers<void>()
  const fields: Record<string, string> = Object.create(null)
  const parser = openParser(ctx)
  let begun = false
  parser.on('error', (error: unknown) => received.reject(new HubError('bad_upload', { cause: error })))
  parser.on('field', (name: string, value: string) => (fields[name] = value))
  parser.on('file', (field: string, file: BusboyFileStream, fileName: string | undefined, _: string, mime: string) => {
    if (field !== 'file' || begun) return file.resume()
    begun = true
    Promise.try(take, { name: fileName ?? 'file', mime, stream: whole(file) }, fields, left.signal, parsed.promise)
      .then(received.resolve, received.reject)
      .finally(() => file.resume())
  })
  parser.on('finish', () => {
    if (!begun) received.reject(new HubError('bad_upload'))
    parsed.resolve()
  })
  ctx.req.setTimeout(uploadIdleMs, () => received.reject(new HubError('request_timeout')))
  // What fails before the end fails for whoever waits for it.
  received.promise.catch(parsed.reject)
  parsed.promise.catch(() => {})
  ctx.req.pipe(parser)
  try {
    return await received.promise
  } finally {
    ctx.req.setTimeout(0)
    ctx.req.unpipe(parser)
    ctx.req.resume()
  }
}

function openParser(ctx: RequestContext): BusboyInstance {
  try {
    const limits = { files: 2, fields: 10, fieldSize: 1024, fileSize: maxFileBytes }
    return new Busboy({ headers: { ...ctx.headers, 'content-type': ctx.get('content-type') }, limits })
  } catch (error) {
    throw asHubError(error, 'bad_upload')
  }
}

/** A file that broke its limit must not look whole to the upstream. */
async function* whole(file: BusboyFileStream): AsyncGenerator<Uint8Array> {
  for await (const chunk of file) yield chunk as Uint8Array
  if (file.truncated) throw tooLarge()
}

const tooLarge = (): HubError =>
  new HubError('payload_too_large', { message: `The file is larger than ${maxFileBytes} bytes.` })
