import { once } from 'node:events'
import { createServer } from 'node:http'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { asgardDialect, cozeDialect, openaiDialect } from './dialects.ts'
import type { Dialect } from './dialects.ts'
import { mark, orderIn } from './delta.ts'
import { announce } from './servers/announce.ts'

// The simulated upstream, in a process of its own: it does what a message orders (`delta.ts`) and nothing else, so that
// it takes little of the machine from the server that is measured.

/** Deltas that are handed to the network together, where they come as fast as they go. */
const burstLength = 32

/** Aborted by a request that ends all streams which are under way. */
let talk = new AbortController()

announce(
  createServer((request, response) => {
    answer(request, response).catch(() => response.destroy())
  }),
)

async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
  const chunks: Buffer[] = await Array.fromAsync(request)
  const { pathname } = new URL(request.url ?? '/', 'http://upstream')
  if (pathname === '/hush') hush()
  const dialect = dialectOf(pathname)
  if (!dialect) {
    response.setHeader('content-type', 'application/json')
    return void response.end('{"code":0,"data":{"id":"7500000000000000001"}}')
  }
  const { deltas, everyMs } = orderIn(Buffer.concat(chunks).toString())
  response.writeHead(200, { 'content-type': 'text/event-stream' })
  response.socket?.setNoDelay(true)
  const voice = dialect()
  response.write(voice.begin())
  if (everyMs > 0) pace(response, voice, deltas, everyMs)
  else await burst(response, voice, deltas)
}

function hush(): void {
  talk.abort()
  talk = new AbortController()
}

function dialectOf(path: string): (() => Dialect) | undefined {
  if (path.endsWith('/chat/completions')) return openaiDialect
  if (path.endsWith('/v3/chat')) return cozeDialect
  return path.endsWith('/message/sse') ? asgardDialect : undefined
}

/** Streams that began together do not speak together. */
function pace(response: ServerResponse, voice: Dialect, deltas: number, everyMs: number): void {
  const { signal } = talk
  let said = 0
  let timer = setTimeout(() => {
    timer = setInterval(() => {
      response.write(voice.delta(mark()))
      said += 1
      if (said < deltas && !signal.aborted) return
      clearInterval(timer)
      response.end(voice.end())
    }, everyMs)
  }, Math.random() * everyMs)
  response.once('close', () => clearInterval(timer))
}

async function burst(response: ServerResponse, voice: Dialect, deltas: number): Promise<void> {
  const { signal } = talk
  for (let said = 0; said < deltas && !signal.aborted && !response.destroyed; said += burstLength) {
    let free = true
    // Each in a chunk of its own, as servers write that flush after every event.
    response.cork()
    for (let count = Math.min(burstLength, deltas - said); count > 0; count--)
      free = response.write(voice.delta(mark()))
    response.uncork()
    if (!free) await Promise.race([once(response, 'drain'), once(response, 'close')])
    else await new Promise(setImmediate)
  }
  response.end(voice.end())
}
