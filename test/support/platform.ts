import { createServer } from 'node:http'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { once } from 'node:events'
import type { AddressInfo } from 'node:net'

/** One message as the people of a platform see it. */
export interface PostedMessage {
  readonly id: string
  readonly conversation: string
  text: string
  /** What it was posted as an answer to. */
  readonly replyTo?: string
}

/** A call as a platform gets it. */
export interface ApiCall {
  readonly method: string
  /** With its query. */
  readonly path: string
  readonly headers: IncomingMessage['headers']
  readonly body: Readonly<Record<string, unknown>>
}

/** What a platform answers a call with. */
export interface ApiAnswer {
  readonly status?: number
  readonly headers?: Readonly<Record<string, string>>
  readonly body: unknown
}

/** The side of a platform that keeps messages, whatever its dialect. */
export interface PlatformState {
  readonly messages: PostedMessage[]
  /** Every text that was to be seen, posted or edited, in that order. */
  readonly shown: string[]
  readonly typing: string[]
  post(message: Omit<PostedMessage, 'id'>): PostedMessage
  /** False for a message there is none of. */
  edit(id: string, text: string): boolean
}

/** A platform's API on a free loopback port, that behaves. */
export interface FakePlatform extends PlatformState, AsyncDisposable {
  readonly url: string
  readonly calls: readonly ApiCall[]
  /** Called before each call is answered; what it gives is the answer then, and nothing is posted. */
  interrupt: ((call: ApiCall) => ApiAnswer | undefined | Promise<ApiAnswer | undefined>) | undefined
}

/** Starts a platform that answers in a dialect. */
export async function startPlatform(
  answer: (call: ApiCall, state: PlatformState) => ApiAnswer,
  idOf: (number: number) => string = String,
): Promise<FakePlatform> {
  const calls: ApiCall[] = []
  const state: PlatformState = {
    messages: [],
    shown: [],
    typing: [],
    post(message) {
      const posted = { id: idOf(state.messages.length + 1), ...message }
      state.messages.push(posted)
      state.shown.push(message.text)
      return posted
    },
    edit(id, text) {
      const message = state.messages.find((each) => each.id === id)
      if (!message) return false
      message.text = text
      state.shown.push(text)
      return true
    },
  }
  const take = async (request: IncomingMessage, response: ServerResponse) => {
    const text = Buffer.concat((await Array.fromAsync(request)) as Buffer[]).toString()
    const body = (text === '' ? {} : JSON.parse(text)) as Readonly<Record<string, unknown>>
    const call = { method: request.method!, path: request.url!, headers: request.headers, body }
    calls.push(call)
    const { status = 200, headers = {}, body: said } = (await platform.interrupt?.(call)) ?? answer(call, state)
    response.writeHead(status, { 'content-type': 'application/json', ...headers }).end(JSON.stringify(said))
  }
  const server = createServer((request, response) => void take(request, response).catch(() => response.destroy()))
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const platform: FakePlatform = {
    ...state,
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    calls,
    interrupt: undefined,
    async [Symbol.asyncDispose]() {
      server.close()
      server.closeAllConnections()
    },
  }
  return platform
}
