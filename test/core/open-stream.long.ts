import { once } from 'node:events'
import { createServer } from 'node:net'
import type { AddressInfo, Socket } from 'node:net'
import { expect, it } from 'vitest'
import { requestEvents } from '../../core/sse.ts'

it(
  'gives up on an upstream that never shakes hands, and knows that nothing was sent',
  { timeout: 30_000 },
  async () => {
    const sockets: Socket[] = []
    const silent = createServer((socket) => sockets.push(socket)).listen(0, '127.0.0.1')
    await once(silent, 'listening')
    const { port } = silent.address() as AddressInfo
    const { signal } = new AbortController()
    const asked = requestEvents({ fetch, url: `https://127.0.0.1:${port}/`, body: {}, signal, idleTimeoutMs: 60_000 })
    await expect(asked).rejects.toMatchObject({ code: 'upstream_unreachable', notStarted: true })
    for (const socket of sockets) socket.destroy()
    silent.close()
  },
)
