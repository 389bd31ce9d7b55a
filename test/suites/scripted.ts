import { once } from 'node:events'
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { ToolCall } from '../../core/events.ts'
import type { Json } from '../../core/message.ts'
import type { MessageRating } from '../../core/plugin.ts'
import { startUpstream } from '../support/upstream.ts'

/** What an upstream may do in a reply, in nobody's dialect. */
export type Step =
  /** The first of every reply. */
  | { readonly type: 'begin' }
  /** A piece of the one message of the answer. */
  | { readonly type: 'say'; readonly text: string }
  /** The message is whole. */
  | { readonly type: 'finish'; readonly text: string }
  /** Asks whether the bot may use a tool; the last of its reply. */
  | { readonly type: 'ask'; readonly calls: readonly ToolCall[] }
  /** Asks for what a tool of the client's gives; the last of its reply. */
  | { readonly type: 'call'; readonly calls: readonly ToolCall[] }
  /** The answer has failed; `words` are the vendor's own. */
  | { readonly type: 'fail'; readonly words: string }
  /** The answer is over, and all is well. */
  | { readonly type: 'end' }

/** A request as it reached the upstream. */
export interface UpstreamRequest {
  readonly method: string
  /** Without the query. */
  readonly path: string
  readonly query: Readonly<Record<string, string>>
  readonly headers: Readonly<Record<string, string>>
  readonly text: string
  /** Undefined when the body is no JSON. */
  readonly json: Json | undefined
}

export interface UpstreamAnswer {
  /** Default 200. */
  readonly status?: number
  /** Default `application/json`. */
  readonly type?: string
  readonly body: string
  /** The body is not over, but nothing more comes. */
  readonly open?: boolean
}

/** How a vendor spells what a script says, and where its requests hold what a case looks for. */
export interface Dialect {
  /** The key that `create` puts into the options. */
  readonly secret: string
  /**
   * Whether the request begins an answer, or goes on with one behind a pause: those are what a script replies to.
   * Asking again for an answer that was begun is none.
   */
  readonly isMessage: (request: UpstreamRequest) => boolean
  /**
   * Answers any other request: an upload, a look at what became of an answer. `truth` is all that the upstream knows
   * of the last answer, `messages` are those that came so far. Undefined is 404.
   */
  readonly answer?: (
    request: UpstreamRequest,
    truth: readonly Step[],
    messages: readonly UpstreamRequest[],
  ) => UpstreamAnswer | undefined
  /** Begins a reply: gives the function that spells its steps as bytes of the body. */
  readonly speak: (request: UpstreamRequest) => (step: Step) => string
  /** The body of a refusal, with the vendor's own words in it; status 200 is an error that calls itself a success. */
  readonly refuse: (status: number, words: string) => UpstreamAnswer
  /** Frames of the right form that mean nothing: unknown events, wrong types, comments. */
  readonly noise: readonly string[]
  /** The words of the user in a message. */
  readonly textOf: (request: UpstreamRequest) => string
  /** Whom the upstream takes the user for. Not given: it has no place for it. */
  readonly userOf?: (request: UpstreamRequest) => string
  /** The earlier words in a message, oldest first. */
  readonly historyOf?: (request: UpstreamRequest) => readonly string[]
  /** What names the files of a message. */
  readonly filesOf?: (request: UpstreamRequest) => readonly Json[]
  /** What a message that goes on says about the call of an `ask`. */
  readonly decisionOf?: (request: UpstreamRequest) => 'allow' | 'deny'
  /** What a request says of a message, when it is one that does. */
  readonly ratingOf?: (request: UpstreamRequest) => MessageRating | undefined
  /** What a message that goes on gives for the call of a `call`. */
  readonly outputOf?: (request: UpstreamRequest) => Json
}

/** One reply of the script. */
export interface Reply {
  readonly request: UpstreamRequest
  /** From 1, in the order in which messages came. */
  readonly nth: number
  /** Resolves when the client has hung up before the reply was over. */
  readonly left: Promise<void>
  /** Opens the reply, and says the steps. */
  send(...steps: readonly Step[]): Promise<void>
  /** The pieces, the whole, the end. */
  tell(...pieces: readonly string[]): Promise<void>
  raw(bytes: string | Uint8Array): Promise<void>
  /** Ends the body as it should be ended. */
  end(): void
  /** Destroys the connection. */
  cut(): void
  refuse(answer: UpstreamAnswer, headers?: Readonly<Record<string, string>>): void
  /** The bytes of the steps, not sent. */
  spell(...steps: readonly Step[]): string
}

/** The steps of an answer that is told whole. */
export const answerIn = (...pieces: readonly string[]): Step[] => [
  ...pieces.map((text) => ({ type: 'say', text }) as const),
  { type: 'finish', text: pieces.join('') },
  { type: 'end' },
]

export type Script = (reply: Reply) => unknown

/** An upstream on a real socket that says what a script says, in a vendor's words. */
export interface ScriptedUpstream extends AsyncDisposable {
  readonly url: string
  /** All requests, and those that are messages. */
  readonly requests: readonly UpstreamRequest[]
  readonly messages: readonly UpstreamRequest[]
  /** How many requests are being answered. */
  readonly open: number
  /** Resolves when none is. */
  idle(): Promise<void>
  /** What the upstream knows of the answer from now on, whatever it has said. */
  knows(...steps: readonly Step[]): void
}

/** Starts it on a free loopback port. */
export async function startScripted(dialect: Dialect, script: Script): Promise<ScriptedUpstream> {
  const requests: UpstreamRequest[] = []
  const messages: UpstreamRequest[] = []
  let truth: readonly Step[] = []
  let open = 0
  let onIdle: (() => void)[] = []
  const server = await startUpstream(async (incoming, response) => {
    open += 1
    response.once('close', () => {
      open -= 1
      if (open > 0) return
      for (const resolve of onIdle) resolve()
      onIdle = []
    })
    response.on('error', () => {})
    const request = await readRequest(incoming).catch(() => undefined)
    if (!request) return response.destroy()
    requests.push(request)
    if (!dialect.isMessage(request)) return answer(response, dialect.answer?.(request, truth, messages) ?? nothing)
    messages.push(request)
    const reply = replyTo(dialect, request, messages.length, response, (step) => (truth = [...truth, step]))
    await script(reply)
  })
  return {
    url: server.url,
    requests,
    messages,
    get open() {
      return open
    },
    idle: () => (open === 0 ? Promise.resolve() : new Promise((resolve) => onIdle.push(resolve))),
    knows: (...steps) => (truth = [{ type: 'begin' }, ...steps]),
    [Symbol.asyncDispose]: () => server[Symbol.asyncDispose](),
  }
}

const nothing: UpstreamAnswer = { status: 404, body: '{}' }

async function readRequest(incoming: IncomingMessage): Promise<UpstreamRequest> {
  const chunks: Buffer[] = []
  for await (const chunk of incoming) chunks.push(chunk as Buffer)
  const text = Buffer.concat(chunks).toString()
  const { pathname, searchParams } = new URL(incoming.url ?? '/', 'http://upstream')
  return {
    method: incoming.method ?? '',
    path: pathname,
    query: Object.fromEntries(searchParams),
    headers: Object.fromEntries(Object.entries(incoming.headers).map(([name, value]) => [name, String(value)])),
    text,
    json: parse(text),
  }
}

function parse(text: string): Json | undefined {
  try {
    return JSON.parse(text) as Json
  } catch {
    return undefined
  }
}

function answer(
  response: ServerResponse,
  { status = 200, type = 'application/json', body, open = false }: UpstreamAnswer,
): void {
  response.writeHead(status, { 'content-type': type })
  response.flushHeaders()
  if (open) response.write(body)
  else response.end(body)
}

function replyTo(
  dialect: Dialect,
  request: UpstreamRequest,
  nth: number,
  response: ServerResponse,
  onStep: (step: Step) => void,
): Reply {
  let speak: ((step: Step) => string) | undefined
  const left = once(response, 'close').then(() => undefined)
  const spell = (steps: readonly Step[]) => {
    const all: readonly Step[] = speak ? steps : [{ type: 'begin' }, ...steps]
    const say = (speak ??= dialect.speak(request))
    return all
      .map((step) => {
        onStep(step)
        return say(step)
      })
      .join('')
  }
  const raw = (bytes: string | Uint8Array) => {
    if (!response.headersSent) {
      response.writeHead(200, { 'content-type': 'text/event-stream' })
      response.flushHeaders()
      response.socket?.setNoDelay(true)
    }
    // A client that has left is what some scripts wait for.
    return new Promise<void>((resolve) => response.write(bytes, () => resolve()))
  }
  return {
    request,
    nth,
    left,
    send: (...steps) => raw(spell(steps)),
    async tell(...pieces) {
      await raw(spell(answerIn(...pieces)))
      response.end()
    },
    raw,
    end: () => void response.end(),
    cut: () => response.destroy(),
    refuse(refusal, headers = {}) {
      for (const [name, value] of Object.entries(headers)) response.setHeader(name, value)
      answer(response, refusal)
    },
    spell: (...steps) => spell(steps),
  }
}
