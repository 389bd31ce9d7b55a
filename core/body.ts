import { getRawBody } from 'raw-body'
import type { z } from 'zod'
import { HubError } from './errors.ts'
import { issuesOf, issueWords } from './issue-words.ts'
import type { RequestContext } from './channel.ts'

const maxBodyBytes = 1_048_576
const maxDepth = 64
const bodyTimeoutMs = 15_000

/**
 * Reads a JSON body and checks it.
 * @throws HubError `unsupported_media_type`, `payload_too_large`, `request_timeout`, `bad_json`, `invalid_request`
 */
export async function readJson<Schema extends z.ZodType>(
  ctx: RequestContext,
  schema: Schema,
  maxBytes = maxBodyBytes,
): Promise<z.output<Schema>> {
  if (!ctx.is('json', '+json')) throw new HubError('unsupported_media_type')
  return check(schema, parseJson(await readBytes(ctx, maxBytes)))
}

/** The body as it came. A declared length over the limit is refused before a byte is read. */
export async function readBytes(ctx: RequestContext, maxBytes = maxBodyBytes): Promise<Buffer> {
  const late = Promise.withResolvers<never>()
  const timer = setTimeout(() => late.reject(new HubError('request_timeout')), bodyTimeoutMs)
  try {
    const body = getRawBody(ctx.req, { length: ctx.get('content-length'), limit: maxBytes })
    return await Promise.race([body, late.promise])
  } catch (error) {
    if (error instanceof HubError) throw error
    const type = error instanceof Error && 'type' in error ? error.type : undefined
    if (type === 'entity.too.large') {
      throw new HubError('payload_too_large', { message: `The body is larger than ${maxBytes} bytes.`, cause: error })
    }
    throw new HubError('bad_json', { message: 'The body did not arrive whole.', cause: error })
  } finally {
    clearTimeout(timer)
  }
}

/** @throws HubError `bad_json`, also for invalid UTF-8 and for nesting deeper than 64 */
export function parseJson(bytes: Uint8Array): unknown {
  try {
    const text = new TextDecoder('utf-8', { fatal: true }).decode(bytes)
    if (depth(text) > maxDepth)
      throw new HubError('bad_json', { message: `The body is nested deeper than ${maxDepth}.` })
    return JSON.parse(text)
  } catch (error) {
    throw error instanceof HubError ? error : new HubError('bad_json', { cause: error })
  }
}

/**
 * Checks what a client gave, which is `what` of its request.
 * @throws HubError `invalid_request`, naming every field that is missing or wrong
 */
export function check<Schema extends z.ZodType>(schema: Schema, value: unknown, what = 'The body'): z.output<Schema> {
  const result = schema.safeParse(value, { error: issueWords })
  if (result.success) return result.data
  const problems = issuesOf(result.error).map(({ path, message }) => {
    if (path.length > 0) return `${path.join('.')}: ${message}`
    return /^(is|must) /.test(message) ? `${what} ${message}` : message
  })
  throw new HubError('invalid_request', { message: `${problems.join('; ')}.`, cause: result.error })
}

/** Of brackets outside strings; JSON.parse itself would take any depth. */
function depth(text: string): number {
  let deepest = 0
  let now = 0
  let inString = false
  for (let index = 0; index < text.length; index++) {
    const code = text.charCodeAt(index)
    if (code === 0x22) inString = !inString
    else if (code === 0x5c && inString) index++
    else if (inString) continue
    else if (code === 0x5b || code === 0x7b) deepest = Math.max(deepest, ++now)
    else if (code === 0x5d || code === 0x7d) now--
  }
  return deepest
}
