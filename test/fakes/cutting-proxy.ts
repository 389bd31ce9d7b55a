import { once } from 'node:events'
import type { AddressInfo, Socket } from 'node:net'
import { connect, createServer } from 'node:net'

/** A TCP proxy whose connections die in the middle of what the server says. */
export interface CuttingProxy extends AsyncDisposable {
  /** `http://127.0.0.1:…` */
  readonly url: string
  /** How many connections have been made, and how many of them were cut. */
  readonly connections: () => number
  readonly cuts: () => number
}

/**
 * Stands in front of a server. Its first connection is destroyed when `cutAfter[0]` bytes of answers have passed, its
 * second after `cutAfter[1]`, and so on; later ones are left alone.
 */
export async function startCuttingProxy(target: string, cutAfter: readonly number[]): Promise<CuttingProxy> {
  const { hostname, port } = new URL(target)
  const sockets = new Set<Socket>()
  let connections = 0
  let cuts = 0
  const server = createServer((client) => {
    const upstream = connect(Number(port), hostname)
    let left = cutAfter[connections++] ?? Infinity
    for (const socket of [client, upstream]) {
      sockets.add(socket)
      socket.on('error', () => socket.destroy())
      socket.on('close', () => sockets.delete(socket))
    }
    const cut = () => {
      client.destroy()
      upstream.destroy()
    }
    client.on('data', (chunk: Buffer) => upstream.write(chunk))
    client.on('close', () => upstream.destroy())
    upstream.on('close', () => client.end())
    upstream.on('data', (chunk: Buffer) => {
      const passed = chunk.subarray(0, left)
      left -= passed.length
      if (left > 0) return void client.write(passed)
      cuts += 1
      // What was let through arrives; the connection dies behind it.
      upstream.pause()
      client.write(passed, cut)
    })
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    connections: () => connections,
    cuts: () => cuts,
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy()
      server.close()
      await once(server, 'close')
    },
  }
}
