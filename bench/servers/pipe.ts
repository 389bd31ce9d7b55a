import { Agent, createServer, request } from 'node:http'
import { announce } from './announce.ts'

// The floor of Node: bytes from the upstream to the client, not looked at.

const upstream = process.argv[2]!
const agent = new Agent({ keepAlive: true })

announce(
  createServer((incoming, response) => {
    const { method = 'GET', url = '/', headers } = incoming
    const outgoing = request(upstream + url, { method, headers, agent }, (answer) => {
      response.writeHead(answer.statusCode ?? 502, answer.headers)
      response.socket?.setNoDelay(true)
      answer.pipe(response)
    })
    outgoing.on('error', () => response.destroy())
    response.on('close', () => outgoing.destroy())
    incoming.pipe(outgoing)
  }),
)
