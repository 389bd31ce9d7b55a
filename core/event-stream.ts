import { drained } from './byte-stream.ts'
import type { ChannelContext, RequestContext } from './channel.ts'

const heartbeatMs = 5000
/** In characters. */
const maxQueued = 65_536

/** An open server-sent event stream to a client. */
export interface EventStream {
  /** Aborted when the client has left, does not read, or the stream was closed. */
  readonly signal: AbortSignal
  /**
   * Resolves when the client can take more. At most 64 KiB and one frame are queued for it, and a client that takes
   * nothing for 30 s is cut.
   */
  write(frames: Iterable<string>): Promise<void>
  close(): void
}

/** A comment of one line: a blank line after it would be an empty event to some clients. */
const comment = ': \n'

/**
 * Answers a request with a stream of events. The head goes out at once, and silence is broken by a `heartbeat` at most
 * `everyMs`: a comment, or a frame for clients that take no comments.
 */
export function openEventStream(
  ctx: RequestContext,
  { openStreams }: ChannelContext,
  heartbeatFrame = comment,
  everyMs = heartbeatMs,
): EventStream {
  const response = ctx.res
  const left = new AbortController()
  ctx.respond = false
  ctx.status = 200
  response.writeHead(200, {
    'content-type': 'text/event-stream',
    'cache-control': 'no-cache, no-transform',
    'x-accel-buffering': 'no',
  })
  response.flushHeaders()
  response.socket?.setNoDelay(true)
  const heartbeat = setInterval(() => response.write(heartbeatFrame), everyMs)
  openStreams.inc()
  const leave = () => {
    if (left.signal.aborted) return
    clearInterval(heartbeat)
    openStreams.dec()
    left.abort()
  }
  response.once('close', leave)
  if (response.destroyed) leave()

  return {
    signal: left.signal,
    async write(frames) {
      heartbeat.refresh()
      for (const piece of pieces(frames)) {
        if (left.signal.aborted) return
        if (!response.write(piece)) await drained(response, left.signal)
      }
    },
    close() {
      leave()
      response.end()
    },
  }
}

/** Frames joined to as few writes as the limit allows. */
function* pieces(frames: Iterable<string>): Generator<string> {
  let piece = ''
  for (const frame of frames) {
    piece += frame
    if (piece.length < maxQueued) continue
    yield piece
    piece = ''
  }
  if (piece !== '') yield piece
}
