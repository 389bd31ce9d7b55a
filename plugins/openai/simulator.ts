import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { createServer } from 'node:http'
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { z } from 'zod'
import { demoPauseMs, demoPieces, smallTalk } from '../../core/demo.ts'
import { parseExactJson } from '../../core/json.ts'
import type { Json, JsonObject } from '../../core/message.ts'
import { chunkObject, completionObject, doneFrame, encodeFrame, errorObject, modelObject, usageChunk } from './wire.ts'
import type { AnswerHead, FinishReason, OpenaiCall } from './wire.ts'

export interface OpenaiSimulatorOptions {
  /** 0, the default, takes a free port. */
  readonly port?: number
  /** Default 127.0.0.1. */
  readonly host?: string
  /** The only key it takes; default `sk-simulator`. */
  readonly apiKey?: string
}

/** A request as the simulator saw it. */
export interface SeenRequest {
  readonly method: string
  readonly path: string
  readonly body: Json
}

export interface OpenaiSimulator {
  /** With the version in its path, such as `http://127.0.0.1:41234/v1`. */
  readonly url: string
  readonly apiKey: string
  /** The only model it has. */
  readonly model: string
  /** The newest 1,000 requests, oldest first. */
  readonly requests: readonly SeenRequest[]
  close(): Promise<void>
}

const model = 'simulated-1'
const maxRequests = 1000
const maxBodyLength = 16 * 1_048_576

/**
 * Starts a server that speaks OpenAI's chat completions, streamed and whole, and lists its one model. It answers ordinary
 * words and the demo words; a message that begins with `!` plays one of the scenes below.
 */
export async function startOpenaiSimulator(options: OpenaiSimulatorOptions = {}): Promise<OpenaiSimulator> {
  const world = new World(options.apiKey ?? 'sk-simulator')
  const server = createServer((request, response) => void world.answer(request, response))
  server.listen(options.port ?? 0, options.host ?? '127.0.0.1')
  await once(server, 'listening')
  const { address, family, port } = server.address() as AddressInfo
  return {
    url: `http://${family === 'IPv6' ? `[${address}]` : address}:${port}/v1`,
    apiKey: world.apiKey,
    model,
    requests: world.requests,
    async close() {
      world.stopped.abort()
      server.closeAllConnections()
      if (server.listening) await new Promise<unknown>((resolve) => server.close(resolve))
    },
  }
}

/** One way in which an answer may go. */
interface Scene {
  /** Answers the request without an answer of the model. */
  refuse?(ask: Ask): HttpAnswer | undefined
  /** What the model says; what the scene leaves open is finished after it. */
  play?(stage: Stage): Promise<void>
  readonly style?: StreamStyle
}

/** What was asked, as far as scenes look at it. */
interface Ask {
  readonly text: string
  /** What the user said before. */
  readonly earlier: readonly string[]
  /** Names of the functions that were declared. */
  readonly tools: readonly string[]
  /** What the tools gave that were called since the user spoke, in their order. */
  readonly outputs: readonly string[]
  /** How often this very request was refused. */
  readonly refusals: number
}

interface HttpAnswer {
  readonly status?: number
  readonly headers?: Readonly<Record<string, string>>
  readonly type?: string
  readonly body: string
  /** The socket dies instead. */
  readonly cut?: boolean
}

interface StreamStyle {
  readonly crlf?: boolean
  readonly bom?: boolean
  /** Every byte travels alone. */
  readonly split?: boolean
  /** The stream ends behind its finish reason, without `[DONE]`. */
  readonly noDone?: boolean
  /** Thoughts come in the field `reasoning`. */
  readonly reasoning?: 'reasoning'
  /** The server sends the whole answer as JSON, whatever was asked for. */
  readonly deafToStream?: boolean
}

const failure = (message: string, type = 'invalid_request_error', code: string | null = null): string =>
  JSON.stringify(errorObject({ message, type, code }))

const refusing = (answer: HttpAnswer): Scene => ({ refuse: () => answer })
const told = (style: StreamStyle): Scene => ({ style, play: (stage) => stage.say('Words, 字 and ', '🙂', '.') })
const tooMany = (seconds: number): HttpAnswer => ({
  status: 429,
  headers: { 'retry-after': String(seconds) },
  body: failure('Rate limit reached for simulated-1.', 'requests', 'rate_limit_exceeded'),
})

/** Calls each tool that was declared, then speaks; of one that was not, it says so. */
const calling = (
  rounds: readonly Readonly<Record<string, Json | string>>[],
  speak: (stage: Stage, outputs: readonly string[]) => Promise<void>,
): Scene => ({
  async play(stage) {
    const { tools, outputs } = stage.ask
    const missing = rounds.flatMap(Object.keys).find((name) => !tools.includes(name))
    if (missing !== undefined) return stage.say('I was ', 'not given a tool ', `called ${missing}.`)
    const done = rounds.findIndex((_, index) => outputs.length < countIn(rounds.slice(0, index + 1)))
    if (done < 0) return speak(stage, outputs)
    await stage.call(rounds[done]!)
  },
})

const countIn = (rounds: readonly object[]): number => rounds.reduce((sum, round) => sum + Object.keys(round).length, 0)

/** What each word does. Words with `/` are for people, those with `!` for tests. */
const scenes: Readonly<Record<string, Scene>> = {
  '/long': paced('/long'),
  '/slow': paced('/slow'),
  '/fail': {
    async play(stage) {
      await stage.say(...demoPieces('/fail'))
      await stage.fail('The server had an error while processing your request.', 'server_error')
    },
  },
  '/busy': {
    refuse: ({ refusals }) => (refusals < 2 ? tooMany(1) : undefined),
    play: (stage) => stage.say('It was busy, ', 'twice; ', 'now it is not.'),
  },
  '/cut': {
    async play(stage) {
      await stage.say('This half arrives ', 'on the stream, ')
      await stage.cut()
    },
  },
  '/consent': calling(
    [{ send_mail: { to: 'ada@example.com', subject: 'A greeting from the model' } }],
    (stage, [said]) => stage.say('I asked ', 'to send a mail. ', `The tool said: ${said}`),
  ),
  '/tools': calling([{ get_weather: { city: 'Taipei' } }], (stage, [said]) =>
    stage.say('I looked ', 'at the weather in Taipei: ', `${said}`),
  ),
  '/think': {
    async play(stage) {
      await stage.think('The question is short, ', 'so the answer ', 'can be short too.')
      await stage.say('Forty', '-', 'two.')
    },
  },
  '/card': { play: (stage) => stage.say('A model has words ', 'and no cards, ', 'so here are the words.') },

  '!reasoning': {
    style: { reasoning: 'reasoning' },
    async play(stage) {
      await stage.think('Hm. ', 'So be it.')
      await stage.say('It ', 'is so.')
    },
  },
  '!thought-tools': {
    async play(stage) {
      if (stage.ask.outputs.length > 0) return stage.say('It said: ', stage.ask.outputs.join())
      await stage.think('I need ', 'the weather.')
      await stage.say('Let me see. ')
      await stage.call({ get_weather: { city: 'Oslo' } })
    },
  },
  '!two-tools': calling([{ get_weather: { city: 'Oslo' }, get_time: { zone: 'CET' } }], (stage, outputs) =>
    stage.say(outputs.join(' and ')),
  ),
  '!rounds': calling([{ get_weather: { city: 'Oslo' } }, { get_weather: { city: 'Bergen' } }], (stage, outputs) =>
    stage.say(outputs.join(' and ')),
  ),
  '!client-tool': calling([{ open_door: { door: 'front' } }], (stage, [said]) => stage.say(`The door: ${said}`)),
  '!mixed-tools': calling([{ get_weather: { city: 'Oslo' }, open_door: { door: 'front' } }], (stage, outputs) =>
    stage.say(outputs.join(' and ')),
  ),
  '!bad-input': calling([{ get_weather: { city: 7 } }], (stage, [said]) => stage.say(`${said}`)),
  '!bad-json': calling([{ get_weather: '{"city":' }], (stage, [said]) => stage.say(`${said}`)),
  '!no-input': calling([{ get_weather: '' }], (stage, [said]) => stage.say(`${said}`)),
  '!endless-tools': { play: (stage) => stage.call({ get_weather: { city: 'Oslo' } }) },
  '!unknown-tool': {
    async play(stage) {
      if (stage.ask.outputs.length > 0) return stage.say(stage.ask.outputs.join())
      await stage.call({ no_such_tool: {} })
    },
  },
  '!busy-tools': {
    ...calling([{ get_weather: { city: 'Oslo' } }], (stage, [said]) => stage.say(`${said}`)),
    refuse: ({ outputs, refusals }) => (outputs.length > 0 && refusals < 2 ? tooMany(1) : undefined),
  },
  '!dead-tools': {
    ...calling([{ get_weather: { city: 'Oslo' } }], async () => {}),
    refuse: ({ outputs }) => (outputs.length > 0 ? tooMany(1) : undefined),
  },
  '!same-ids': {
    async play(stage) {
      const { length } = stage.ask.outputs
      if (length === 2) return stage.say(stage.ask.outputs.join(' and '))
      await stage.call({ get_weather: { city: length === 0 ? 'Oslo' : 'Bergen' } }, () => 'call_0')
    },
  },
  '!stop-with-calls': {
    async play(stage) {
      if (stage.ask.outputs.length > 0) return stage.say(stage.ask.outputs.join())
      await stage.call({ get_weather: { city: 'Oslo' } })
      stage.finish('stop')
    },
  },

  '!length': {
    async play(stage) {
      await stage.say('As far as ', 'it goes')
      stage.finish('length')
    },
  },
  '!content-filter': {
    async play(stage) {
      await stage.say('What I ')
      stage.finish('content_filter')
    },
  },
  '!refusal': {
    async play(stage) {
      for (const text of ['I cannot ', 'help with that.']) await stage.delta({ refusal: text })
    },
  },
  '!continuous-usage': {
    async play(stage) {
      for (const [index, text] of ['One ', 'two ', 'three.'].entries()) {
        const usage = { prompt_tokens: 5, completion_tokens: index + 1, total_tokens: index + 6 }
        await stage.frame({ choices: [{ index: 0, delta: { content: text }, finish_reason: null }], usage })
      }
    },
  },

  '!error-event': {
    async play(stage) {
      await stage.say('So far ')
      await stage.fail('Rate limit reached.', 'requests', 'rate_limit_exceeded')
    },
  },
  '!error-number': {
    async play(stage) {
      await stage.frame({ error: { message: 'Provider returned error', code: 502 } })
      await stage.hangUp()
    },
  },
  '!error-text': {
    async play(stage) {
      await stage.frame({ error: 'llama runner process has terminated' })
      await stage.hangUp()
    },
  },
  '!drop': {
    async play(stage) {
      await stage.say('The first half, ')
      await stage.hangUp()
    },
  },
  '!done-only': {
    async play(stage) {
      await stage.say('All that ', 'there is.')
      await stage.bytes(doneFrame)
      await stage.hangUp()
    },
  },
  '!half-event': {
    async play(stage) {
      await stage.say('The first half, ')
      await stage.bytes('data: {"choices":[{"index":0,"del')
      await stage.hangUp()
    },
  },
  '!idle': {
    async play(stage) {
      await stage.say('The first half, ')
      await stage.mute()
    },
  },
  '!open-end': {
    async play(stage) {
      await stage.say('The end.')
      await stage.end()
      await stage.mute()
    },
  },
  '!cut-behind-end': {
    async play(stage) {
      await stage.say('The end.')
      await stage.end()
      await stage.cut()
    },
  },
  '!after-end': {
    async play(stage) {
      await stage.say('The end.')
      await stage.end()
      await stage.say(' Or not?')
    },
  },
  '!unknown-frames': {
    async play(stage) {
      await stage.bytes(': a comment\n\nevent: weather\ndata: {"celsius":21}\n\ndata: not json\n\nid: 5\n\n')
      await stage.frame({ choices: [] })
      await stage.frame({ choices: [{ index: 1, delta: { content: 'of another choice' } }] })
      await stage.say('Still ', 'here.')
    },
  },
  '!wrong-types': {
    async play(stage) {
      const wrong = [null, 7, 'text', [], { choices: 'none' }, { choices: [null, 7] }, { choices: [{ delta: 7 }] }]
      for (const frame of wrong) await stage.frame(frame)
      await stage.frame({ choices: [{ index: 0, delta: { content: 7, tool_calls: 'x', reasoning_content: {} } }] })
      await stage.frame({ choices: [{ index: 0, delta: { tool_calls: [null, {}, { function: 7 }] } }], usage: 'much' })
      await stage.say('Still ', 'here.')
    },
  },
  '!oversized': { play: (stage) => stage.say('Small. ', 'x'.repeat(1_200_000)) },

  '!split': told({ split: true }),
  '!crlf': told({ crlf: true }),
  '!bom': told({ bom: true }),
  '!no-done': told({ noDone: true }),
  '!not-streamed': told({ deafToStream: true }),

  '!json-200': refusing({ type: 'application/json', body: failure('Something is wrong.') }),
  '!json-200-sse': refusing({ type: 'text/event-stream', body: failure('Something is wrong.') }),
  '!html-200': refusing({ type: 'text/html', body: '<html><body>Sign in</body></html>' }),
  '!error-403': refusing({ status: 403, body: failure('Country not supported.', 'request_forbidden') }),
  '!error-400': refusing({ status: 400, body: failure('Too long.', undefined, 'context_length_exceeded') }),
  '!error-filter': refusing({ status: 400, body: failure('Not this.', undefined, 'content_filter') }),
  '!error-402': refusing({ status: 402, body: failure('Insufficient Balance', 'unknown_error') }),
  '!error-quota': refusing({ status: 429, body: failure('No credit.', 'insufficient_quota', 'insufficient_quota') }),
  '!error-429': refusing(tooMany(2)),
  '!error-429-ms': refusing({ ...tooMany(2), headers: { 'retry-after-ms': '250', 'retry-after': '1' } }),
  '!error-500': refusing({ status: 500, body: failure('The server had an error.', 'server_error') }),
  '!error-500html': refusing({ status: 500, type: 'text/html', body: '<html><h1>Internal Server Error</h1></html>' }),
  '!error-503': refusing({ status: 503, body: failure('Overloaded.', 'server_error') }),
  '!error-503-later': refusing({ status: 503, headers: { 'retry-after': '3' }, type: 'text/plain', body: 'later' }),
  '!cut-unseen': refusing({ body: '', cut: true }),
}

const talk: Scene = { play: (stage) => stage.say(...smallTalk(stage.ask.text, stage.ask.earlier)) }

function paced(word: '/long' | '/slow'): Scene {
  return {
    async play(stage) {
      for (const piece of demoPieces(word)) {
        await stage.pause(demoPauseMs[word])
        await stage.say(piece)
      }
    },
  }
}

/** Thrown where the answer is over before its scene is. */
class Over extends Error {}

/** What a scene may do to its answer, which is written as it comes, or gathered where it was not to be streamed. */
class Stage {
  readonly ask: Ask
  readonly #head: AnswerHead
  readonly #response: ServerResponse
  readonly #style: StreamStyle
  readonly #streams: boolean
  readonly #includeUsage: boolean
  readonly #stopped: AbortSignal
  #content = ''
  #reasoning = ''
  #calls: OpenaiCall[] = []
  #finish: FinishReason | undefined
  #ended = false

  constructor(ask: Ask, request: ChatRequest, response: ServerResponse, style: StreamStyle, stopped: AbortSignal) {
    this.ask = ask
    this.#head = { id: `chatcmpl-${randomBytes(15).toString('base64url')}`, created: seconds(), model }
    this.#response = response
    this.#style = style
    this.#streams = request.stream === true && style.deafToStream !== true
    this.#includeUsage = request.stream_options?.include_usage === true
    this.#stopped = stopped
  }

  async play(scene: Scene): Promise<void> {
    try {
      if (this.#streams) this.#open()
      if (this.#streams) await this.frame(chunkObject(this.#head, { role: 'assistant', content: '' }))
      await scene.play?.(this)
      await this.end()
      if (this.#streams && !this.#style.noDone) await this.bytes(doneFrame)
      this.#response.end()
    } catch (error) {
      if (!(error instanceof Over)) this.#response.destroy()
    }
  }

  #open(): void {
    this.#response.writeHead(200, { 'content-type': 'text/event-stream; charset=utf-8' })
    this.#response.flushHeaders()
    this.#response.socket?.setNoDelay(true)
    if (this.#style.bom) this.#response.write('\uFEFF')
  }

  async pause(ms: number): Promise<void> {
    await sleep(ms, undefined, { signal: this.#stopped })
  }

  async say(...pieces: readonly string[]): Promise<void> {
    for (const piece of pieces) {
      this.#content += piece
      await this.frame(chunkObject(this.#head, { content: piece }))
    }
  }

  async think(...pieces: readonly string[]): Promise<void> {
    for (const piece of pieces) {
      this.#reasoning += piece
      if (this.#style.reasoning) await this.delta({ reasoning: piece })
      else await this.frame(chunkObject(this.#head, { reasoning: piece }))
    }
  }

  /** Calls functions by name with their arguments; a string is sent as it is. The arguments travel in pieces. */
  async call(
    calls: Readonly<Record<string, Json | string>>,
    idOf: (index: number) => string = () => `call_${randomBytes(12).toString('hex')}`,
  ): Promise<void> {
    for (const [name, input] of Object.entries(calls)) {
      const index = this.#calls.length
      const written = typeof input === 'string' ? input : JSON.stringify(input)
      this.#calls.push({ id: idOf(index), name, arguments: written })
      const first = { index, id: this.#calls[index]!.id, type: 'function', function: { name, arguments: '' } }
      await this.delta({ tool_calls: [first] })
      for (const piece of written.match(/[^]{1,7}/g) ?? []) {
        await this.delta({ tool_calls: [{ index, function: { arguments: piece } }] })
      }
    }
  }

  finish(reason: FinishReason): void {
    this.#finish = reason
  }

  async delta(delta: JsonObject): Promise<void> {
    await this.frame({ ...chunkObject(this.#head, {}), choices: [{ index: 0, delta, finish_reason: null }] })
  }

  async frame(frame: Json): Promise<void> {
    await this.bytes(encodeFrame(frame))
  }

  async bytes(text: string): Promise<void> {
    if (!this.#streams) return
    const spelt = this.#style.crlf ? text.replaceAll('\n', '\r\n') : text
    if (!this.#style.split) return void this.#response.write(spelt)
    for (const byte of Buffer.from(spelt)) {
      this.#response.write(Buffer.of(byte))
      // Lets each byte leave before the next is written.
      await new Promise(setImmediate)
    }
  }

  /** The answer ends as it should. */
  async end(): Promise<void> {
    if (this.#ended) return
    this.#ended = true
    const finish = this.#finish ?? (this.#calls.length > 0 ? 'tool_calls' : 'stop')
    const usage = { inputTokens: 10, outputTokens: 5, totalTokens: 15 }
    if (!this.#streams) {
      const answer = { content: this.#content, reasoning: this.#reasoning, calls: this.#calls, finish, usage }
      return sendJson(this.#response, completionObject(this.#head, answer))
    }
    await this.frame(chunkObject(this.#head, { finish }))
    if (this.#includeUsage) await this.frame(usageChunk(this.#head, usage))
  }

  async fail(message: string, type: string, code: string | null = null): Promise<void> {
    if (!this.#streams) sendJson(this.#response, errorObject({ message, type, code }), 500)
    await this.frame(errorObject({ message, type, code }))
    await this.hangUp()
  }

  /** Ends the body, without a word more. */
  async hangUp(): Promise<never> {
    this.#response.end()
    throw new Over()
  }

  async cut(): Promise<never> {
    // What was said has left before the socket dies.
    await new Promise(setImmediate)
    this.#response.destroy()
    throw new Over()
  }

  /** Says nothing more, and stays on the line. */
  async mute(): Promise<never> {
    await once(this.#response, 'close')
    throw new Over()
  }
}

const textPart = z.looseObject({ type: z.literal('text'), text: z.string() })
const content = z.union([z.string(), z.array(textPart)])
const toolCalls = z.array(z.looseObject({ id: z.string(), function: z.looseObject({ name: z.string() }) })).min(1)
const chatMessage = z.discriminatedUnion('role', [
  z.looseObject({ role: z.enum(['system', 'developer', 'user']), content }),
  z.looseObject({ role: z.literal('assistant'), content: content.nullish(), tool_calls: toolCalls.optional() }),
  z.looseObject({ role: z.literal('tool'), content, tool_call_id: z.string() }),
])
const chatRequest = z.looseObject({
  model: z.string(),
  messages: z.array(chatMessage).min(1),
  stream: z.boolean().nullish(),
  stream_options: z.looseObject({ include_usage: z.boolean().optional() }).nullish(),
  tools: z
    .array(
      z.looseObject({
        type: z.literal('function'),
        function: z.looseObject({ name: z.string().regex(/^[\w-]{1,64}$/) }),
      }),
    )
    .min(1)
    .optional(),
})
type ChatRequest = z.infer<typeof chatRequest>

class World {
  readonly apiKey: string
  readonly requests: SeenRequest[] = []
  readonly stopped = new AbortController()
  readonly #refusals = new Map<string, number>()

  constructor(apiKey: string) {
    this.apiKey = apiKey
  }

  async answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    response.on('error', () => {})
    try {
      const { pathname: path } = new URL((request.url ?? '/').replace(/^\/+/, '/'), 'http://simulator')
      const method = request.method ?? 'GET'
      const body = await bodyOf(request)
      this.requests.push({ method, path, body })
      if (this.requests.length > maxRequests) this.requests.shift()
      if (request.headers.authorization !== `Bearer ${this.apiKey}`) {
        return refuse(response, 401, 'Incorrect API key provided.', 'invalid_api_key')
      }
      if (`${method} ${path}` === 'POST /v1/chat/completions') return await this.#chat(body, response)
      if (`${method} ${path}` === 'GET /v1/models') return sendJson(response, { object: 'list', data: [own] })
      if (`${method} ${path}` === `GET /v1/models/${model}`) return sendJson(response, own)
      refuse(response, 404, `Unknown request URL: ${method} ${path}.`, 'unknown_url')
    } catch (error) {
      if (!response.headersSent) refuse(response, 500, String(error), 'internal')
    }
  }

  async #chat(body: Json, response: ServerResponse): Promise<void> {
    const parsed = chatRequest.safeParse(body)
    if (!parsed.success) {
      const [issue] = parsed.error.issues
      return refuse(response, 400, `${issue!.message}: '${issue!.path.join('.')}'`, 'invalid_type')
    }
    const request = parsed.data
    if (request.model !== model) {
      return refuse(response, 404, `The model \`${request.model}\` does not exist.`, 'model_not_found')
    }
    const problem = outOfPlace(request)
    if (problem) return refuse(response, 400, problem, 'invalid_value')
    const key = JSON.stringify(body)
    const ask = askOf(request, this.#refusals.get(key) ?? 0)
    const word = ask.text.trim()
    const scene = Object.hasOwn(scenes, word) ? scenes[word]! : talk
    const refusal = scene.refuse?.(ask)
    if (!refusal) {
      this.#refusals.delete(key)
      return new Stage(ask, request, response, scene.style ?? {}, this.stopped.signal).play(scene)
    }
    this.#refusals.set(key, ask.refusals + 1)
    if (refusal.cut) return void response.destroy()
    send(response, refusal)
  }
}

const own = modelObject(model, 1_750_000_000, 'simulator')

/** As OpenAI has it, every call is answered before anything else is said, and only calls are answered. */
function outOfPlace({ messages }: ChatRequest): string | undefined {
  let open = new Set<string>()
  for (const message of messages) {
    if (message.role === 'tool') {
      if (!open.delete(message.tool_call_id)) {
        return "Messages with role 'tool' must be a response to a preceding message with 'tool_calls'."
      }
    } else if (open.size > 0) {
      return `These tool_call_ids did not have response messages: ${[...open].join(', ')}.`
    }
    if (message.role === 'assistant') open = new Set(message.tool_calls?.map(({ id }) => id))
  }
  return open.size > 0 ? `These tool_call_ids did not have response messages: ${[...open].join(', ')}.` : undefined
}

function askOf({ messages, tools }: ChatRequest, refusals: number): Ask {
  const texts = messages.flatMap((message) => (message.role === 'user' ? [wordsIn(message.content)] : []))
  const last = messages.findLastIndex(({ role }) => role === 'user')
  const outputs = messages
    .slice(last + 1)
    .flatMap((message) => (message.role === 'tool' ? [wordsIn(message.content)] : []))
  return {
    text: texts.at(-1) ?? '',
    earlier: texts.slice(0, -1),
    tools: (tools ?? []).map((each) => each.function.name),
    outputs,
    refusals,
  }
}

const wordsIn = (given: z.infer<typeof content>): string =>
  typeof given === 'string' ? given : given.map(({ text }) => text).join('')

async function bodyOf(request: IncomingMessage): Promise<Json> {
  let text = ''
  request.setEncoding('utf8')
  for await (const chunk of request) {
    text += String(chunk)
    if (text.length > maxBodyLength) throw new Error('the body is too large')
  }
  return parseExactJson(text) ?? null
}

const seconds = (): number => Math.floor(Date.now() / 1000)

function refuse(response: ServerResponse, status: number, message: string, code: string): void {
  send(response, { status, body: failure(message, status >= 500 ? 'server_error' : undefined, code) })
}

function sendJson(response: ServerResponse, body: JsonObject, status = 200): void {
  if (!response.headersSent) send(response, { status, body: JSON.stringify(body) })
}

function send(
  response: ServerResponse,
  { status = 200, headers = {}, type = 'application/json', body }: HttpAnswer,
): void {
  response.writeHead(status, { 'content-type': type, ...headers })
  response.end(body)
}
