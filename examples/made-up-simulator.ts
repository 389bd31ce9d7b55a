import { once } from 'node:events'
import { createServer } from 'node:http'
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { json } from 'node:stream/consumers'

/** What the simulated Murmur is told. */
export interface MurmurSimulatorOptions {
  /** Default 0: any free port. */
  readonly port?: number
  /** Default 127.0.0.1. */
  readonly host?: string
}

/** A running one; `url` and `key` are options of `murmur()`. */
export interface MurmurSimulator {
  readonly url: string
  readonly key: string
  close(): Promise<void>
}

/** Starts a Murmur that needs no account: it says what it is told, word by word. */
export async function startMurmurSimulator({
  port = 0,
  host = '127.0.0.1',
}: MurmurSimulatorOptions = {}): Promise<MurmurSimulator> {
  const key = 'murmur-demo-key'
  const server = createServer((request, response) => void answer(request, response, key))
  server.listen(port, host)
  await once(server, 'listening')
  return {
    url: `http://${host}:${(server.address() as AddressInfo).port}`,
    key,
    async close() {
      server.close()
      server.closeAllConnections()
    },
  }
}

async function answer(request: IncomingMessage, response: ServerResponse, key: string): Promise<void> {
  if (request.headers.authorization !== `Bearer ${key}`) return refuse(response, 401, 'E401')
  if (`${request.method} ${request.url}` !== 'POST /v1/answers') return refuse(response, 404, 'E404')
  const { said = [] } = (await json(request)) as { readonly said?: readonly { readonly text: string }[] }
  response.writeHead(200, { 'content-type': 'text/event-stream' })
  for (const word of (said.at(-1)?.text ?? '').split(/(?<= )/)) response.write(frame('word', { text: word }))
  response.end(frame('end', {}))
}

const refuse = (response: ServerResponse, status: number, code: string) =>
  void response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify({ code, reason: 'no' }))

const frame = (event: string, content: unknown) => `event: ${event}\ndata: ${JSON.stringify(content)}\n\n`
