import type { Server } from 'node:http'
import type { AddressInfo } from 'node:net'

/** Listens on a free port of loopback and says where, for whoever started this process. */
export function announce(server: Server): void {
  server.listen(0, '127.0.0.1', 4096, () => {
    process.stdout.write(`listens on http://127.0.0.1:${(server.address() as AddressInfo).port}\n`)
  })
}
