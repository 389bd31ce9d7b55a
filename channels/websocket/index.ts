import type { IncomingMessage } from 'node:http'
import { WebSocketServer } from 'ws'
import type { PerMessageDeflateOptions } from 'ws'
import { z } from 'zod'
import { channelOptions, defineChannel } from '../../core/channel.ts'
import { under } from '../../core/native.ts'
import { Connection } from './connection.ts'

/** Sockets that have shown no key yet, all together; the next one is closed with 1013. */
const maxStrangers = 1000
/** How long the other side has to answer a close. */
const closeWithinMs = 2000
/** Of one message. */
const maxFragments = 1024

/**
 * Answers over WebSocket in the dialect of TPCLAW's channel page: `chat` and `ping` in, `stream … done: true`, `error`
 * and `pong` out; and, for clients that know them, `resume`, `leave`, `cancel`, `consent`, `tool-outputs`, `auth`,
 * `waiting` and `event`. A socket gets the answers it asked for, and no other.
 */
export const websocket = defineChannel({
  name: 'websocket',
  options: z.strictObject({
    ...channelOptions,
    bot: z.string().optional().describe('The bot of a `chat` without `agentId`.'),
    maxFrameBytes: z
      .int()
      .min(1024)
      .max(16 * 1_048_576)
      .default(1_048_576)
      .describe('A message larger than this, in one frame or in fragments, closes its socket with 1009.'),
    rate: z
      .number()
      .positive()
      .default(50)
      .describe(
        'Frames a second that are read of a socket, and as many again at once; the others wait in the network.',
      ),
    compression: z
      .boolean()
      .default(false)
      .describe('Offer permessage-deflate, at about 50 KiB for each socket that uses it.'),
  }),
  create({ path, bot, maxFrameBytes, rate, compression }, context) {
    const options = {
      noServer: true,
      maxPayload: maxFrameBytes,
      maxFragments,
      perMessageDeflate: compression && boundedDeflate,
      handleProtocols: (offered: ReadonlySet<string>) =>
        [...offered].find((protocol) => !credential.test(protocol)) ?? false,
      closeTimeout: closeWithinMs,
    } as const
    const server = new WebSocketServer(options)
    const connections = new Set<Connection>()
    const isCrowded = () => [...connections].filter((each) => each.isStranger).length >= maxStrangers
    return {
      door: `ws ${under(path, '/api/v1/ws')}`,
      upgrades: [
        {
          path: under(path, '/api/v1/ws'),
          takesStrangers: true,
          credentialOf,
          handle(request, socket, head, visitor) {
            server.handleUpgrade(request, socket, head, (webSocket) => {
              if (visitor.principal === undefined && isCrowded()) return webSocket.close(1013, 'Come back in a minute.')
              const connection = new Connection(webSocket, socket, visitor, context, { bot, rate })
              connections.add(connection)
              webSocket.once('close', () => connections.delete(connection))
            })
          },
        },
      ],
      async close() {
        await Promise.all(Array.from(connections, (connection) => connection.goAway()))
        server.close()
      },
    }
  },
})

/** Small windows and no memory of earlier messages: what a socket costs stays small, whatever the other side asks for. */
const boundedDeflate: PerMessageDeflateOptions = {
  threshold: 1024,
  concurrencyLimit: 4,
  serverNoContextTakeover: true,
  clientNoContextTakeover: true,
  serverMaxWindowBits: 10,
  zlibDeflateOptions: { memLevel: 4 },
}

/** A key among the subprotocols, the one place where a page can put it: as it is, or as base64url. */
const credential = /^bearer(?<encoded>64)?\.(?<key>.+)$/

function credentialOf(request: IncomingMessage): string | undefined {
  const offered = request.headers['sec-websocket-protocol']?.split(/\s*,\s*/) ?? []
  for (const protocol of offered) {
    const { encoded, key } = credential.exec(protocol)?.groups ?? {}
    if (key !== undefined) return encoded ? Buffer.from(key, 'base64url').toString() : key
  }
  return undefined
}
