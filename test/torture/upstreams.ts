import { once } from 'node:events'
import { createServer, request as requestHttp } from 'node:http'
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { startAsgardSimulator } from '../../plugins/asgard/simulator.ts'
import { startCozeSimulator } from '../../plugins/coze/simulator.ts'
import type { Random } from './random.ts'
import type { UpstreamRequest } from './records.ts'

/** How often a stream of an upstream dies under way. */
const cutChance = 0.04
const longestCut = 4000

/** Both simulated upstreams, behind proxies that write down what was asked and now and then cut a stream. */
export interface Upstreams extends AsyncDisposable {
  readonly edge: {
    readonly edgeServerHost: string
    readonly namespace: string
    readonly botProviderName: string
    readonly apiKey: string
  }
  readonly studio: { readonly baseUrl: string; readonly token: string; readonly botId: string }
  readonly requests: readonly UpstreamRequest[]
}

export async function startUpstreams(random: Random): Promise<Upstreams> {
  const edge = await startAsgardSimulator()
  const studio = await startCozeSimulator()
  const requests: UpstreamRequest[] = []
  const proxies = [
    await startProxy(edge.url, 'asgard', requests, random),
    await startProxy(studio.url, 'coze', requests, random),
  ] as const
  return {
    edge: {
      edgeServerHost: proxies[0].url,
      namespace: edge.namespace,
      botProviderName: edge.botProviderName,
      apiKey: edge.apiKey,
    },
    studio: { baseUrl: proxies[1].url, token: studio.token, botId: studio.botId },
    requests,
    async [Symbol.asyncDispose]() {
      for (const proxy of proxies) await proxy.close()
      await edge.close()
      await studio.close()
    },
  }
}

async function startProxy(target: string, vendor: UpstreamRequest['vendor'], seen: UpstreamRequest[], random: Random) {
  const server = createServer((request, response) => void relay(request, response))
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')

  async function relay(request: IncomingMessage, response: ServerResponse): Promise<void> {
    response.on('error', () => {})
    const body = await bodyOf(request)
    // A request that broke off half-way never reached an upstream.
    if (body === undefined) return
    const path = new URL(request.url ?? '/', target).pathname
    const record: Mutable<UpstreamRequest> = {
      vendor,
      path,
      ...readings[vendor](path, request, body),
      outcome: 'unanswered',
      at: Date.now(),
    }
    seen.push(record)
    const { method, headers, url } = request
    const outgoing = requestHttp(new URL(url ?? '/', target), { method, headers: { ...headers, connection: 'close' } })
    // From here on the upstream has the message, whether or not the hub still lives.
    response.on('close', () => outgoing.destroy())
    outgoing.on('error', () => response.destroy())
    outgoing.on('response', (answer) => {
      const { statusCode = 502, headers: answered } = answer
      const streams = statusCode === 200 && answered['content-type'] === 'text/event-stream'
      record.outcome = streams || record.kind === 'other' ? 'taken' : 'refused'
      response.writeHead(statusCode, answered)
      response.flushHeaders()
      let left = streams && random.chance(cutChance) ? random.between(0, longestCut) : Number.POSITIVE_INFINITY
      answer.on('data', (chunk: Buffer) => {
        left -= chunk.length
        if (left < 0) return void response.destroy()
        response.write(chunk)
      })
      answer.on('end', () => response.end())
      answer.on('error', () => response.destroy())
    })
    outgoing.end(body)
  }

  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    async close() {
      server.close()
      server.closeAllConnections()
      await once(server, 'close')
    },
  }
}

type Mutable<T> = { -readonly [Key in keyof T]: T[Key] }
type Reading = Pick<UpstreamRequest, 'kind' | 'message' | 'calls'>

/** What a request is about, in the words of its vendor. */
const readings: Readonly<
  Record<UpstreamRequest['vendor'], (path: string, request: IncomingMessage, body: Buffer) => Reading>
> = {
  asgard(path, { method, headers }, body) {
    if (!path.endsWith('/message/sse')) return { kind: 'other' }
    if (method === 'GET' || headers['last-event-id'] !== undefined) return { kind: 'resume' }
    const { customMessageId: message, toolCallConsents: consents } = JSON.parse(body.toString()) as {
      customMessageId: string
      toolCallConsents?: { toolCallId: string }[]
    }
    return consents
      ? { kind: 'answer', message, calls: consents.map(({ toolCallId }) => toolCallId) }
      : { kind: 'start', message }
  },
  coze(path, _request, body) {
    if (path === '/v3/chat') {
      const { additional_messages: messages } = JSON.parse(body.toString()) as {
        additional_messages: { meta_data?: { hub_message_id?: string } }[]
      }
      return { kind: 'start', message: messages.at(-1)?.meta_data?.hub_message_id ?? '' }
    }
    if (path === '/v3/chat/submit_tool_outputs') {
      const { tool_outputs: outputs } = JSON.parse(body.toString()) as { tool_outputs: { tool_call_id: string }[] }
      return { kind: 'answer', calls: outputs.map(({ tool_call_id: call }) => call) }
    }
    return { kind: 'other' }
  },
}

async function bodyOf(request: IncomingMessage): Promise<Buffer | undefined> {
  const chunks: Buffer[] = []
  try {
    for await (const chunk of request as AsyncIterable<Buffer>) chunks.push(chunk)
  } catch {
    return undefined
  }
  return Buffer.concat(chunks)
}
