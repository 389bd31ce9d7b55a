import { EventEmitter, once } from 'node:events'
import { createServer } from 'node:http'
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'

/** Takes whatever is POSTed to it, and leaves it to a channel's client to say what it means. */
export interface Receiver extends AsyncDisposable {
  /** `http://127.0.0.1:40123/answers` */
  readonly url: string
  /** What has come so far, the oldest first. */
  readonly callbacks: readonly Callback[]
  /** Resolves when there are more than `count` callbacks. */
  moreThan(count: number, signal: AbortSignal): Promise<void>
}

/** One request, its body exactly as it came. */
export interface Callback {
  readonly headers: Readonly<Record<string, string>>
  readonly body: string
}

/** Listens on a free loopback port; every request is answered with 204. */
export async function openReceiver(): Promise<Receiver> {
  const callbacks: Callback[] = []
  const came = new EventEmitter().setMaxListeners(0)
  const take = async (request: IncomingMessage, response: ServerResponse) => {
    const chunks = (await Array.fromAsync(request)) as Buffer[]
    const headers = Object.entries(request.headers).map(([name, value]) => [name, String(value)])
    callbacks.push({ headers: Object.fromEntries(headers), body: Buffer.concat(chunks).toString() })
    response.writeHead(204).end()
    came.emit('callback')
  }
  const server = createServer((request, response) => {
    // A hub that stops hangs up in the middle of a callback, which is then none.
    take(request, response).catch(() => response.destroy())
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/answers`,
    callbacks,
    async moreThan(count, signal) {
      while (callbacks.length <= count) await once(came, 'callback', { signal })
    },
    async [Symbol.asyncDispose]() {
      const closed = once(server, 'close')
      server.close()
      server.closeAllConnections()
      await closed
    },
  }
}
