import { once } from 'node:events'
import { createServer } from 'node:http'
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { Webhook } from 'standardwebhooks'
import type { Random } from './random.ts'
import type { ReceivedDelivery } from './records.ts'

/** How often the first try at a delivery is turned away, so that there is a second one. */
const refuseChance = 0.05

/** The server that the hub's webhooks call back. */
export interface Receiver extends AsyncDisposable {
  readonly url: string
  readonly deliveries: readonly ReceivedDelivery[]
  /** Resolves with the next delivery it takes that fits, or with one it has taken already. */
  delivered(fits: (delivery: ReceivedDelivery) => boolean, signal: AbortSignal): Promise<ReceivedDelivery>
}

export async function startReceiver(secret: string, random: Random): Promise<Receiver> {
  const verifier = new Webhook(secret)
  const deliveries: ReceivedDelivery[] = []
  const refused = new Set<string>()
  const listeners = new Set<() => void>()

  async function receive(request: IncomingMessage, response: ServerResponse): Promise<void> {
    response.on('error', () => {})
    let body = ''
    try {
      for await (const chunk of request.setEncoding('utf8') as AsyncIterable<string>) body += chunk
    } catch {
      return
    }
    const id = String(request.headers['webhook-id'])
    const event = verifier.verify(body, request.headers as Record<string, string>) as {
      type: string
      data: { turn: string }
    }
    const taken = refused.has(id) || !random.chance(refuseChance)
    if (!taken) refused.add(id)
    const channel = id.slice(id.indexOf('_hook-') + 1)
    deliveries.push({ id, channel, turn: event.data.turn, type: event.type, body, taken })
    response.writeHead(taken ? 204 : 500).end()
    for (const listener of listeners) listener()
  }

  const server = createServer((request, response) => {
    receive(request, response).catch(() => response.writeHead(400).end())
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/`,
    deliveries,
    delivered: (fits, signal) =>
      new Promise((resolve, reject) => {
        const stop = () => {
          listeners.delete(look)
          reject(signal.reason as Error)
        }
        const look = () => {
          const found = deliveries.find((delivery) => delivery.taken && fits(delivery))
          if (!found) return
          listeners.delete(look)
          signal.removeEventListener('abort', stop)
          resolve(found)
        }
        if (signal.aborted) return stop()
        signal.addEventListener('abort', stop, { once: true })
        listeners.add(look)
        look()
      }),
    async [Symbol.asyncDispose]() {
      server.close()
      server.closeAllConnections()
      await once(server, 'close')
    },
  }
}
