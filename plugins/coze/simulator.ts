import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { importSPKI, jwtVerify } from 'jose'
import { demoPauseMs, demoPieces, smallTalk } from '../../core/demo.ts'
import { parseExactJson } from '../../core/json.ts'
import type { Json, JsonObject } from '../../core/message.ts'
import { chatObject, doneFrame, encodeFrame, messageObject } from './wire.ts'
import type { ChatParts, CozeStatus, FrameStyle, MessageParts } from './wire.ts'

export interface CozeSimulatorOptions {
  /** 0, the default, takes a free port. */
  readonly port?: number
  /** Default 127.0.0.1. */
  readonly host?: string
  /** The only token it takes; default `pat_simulator`. */
  readonly token?: string
  /** The only bot it knows; without it any bot id will do. */
  readonly botId?: string
  /** Behave as coze-studio does, the open-source server. */
  readonly studio?: boolean
  /** Write every id as a JSON number, which is larger than a JavaScript number holds. */
  readonly numericIds?: boolean
  /** The OAuth app whose assertions are exchanged for tokens; `publicKey` is PEM. Tokens live for 900 s by default. */
  readonly oauth?: {
    readonly appId: string
    readonly publicKeyId: string
    readonly publicKey: string
    readonly lifeSeconds?: number
  }
  /** Folder of literal streams: the message `!sample-S1` is answered with the bytes of its `S1.sse` or `S1.json`. */
  readonly samples?: string
}

/** A request as the simulator saw it. */
export interface SeenRequest {
  readonly method: string
  readonly path: string
  readonly query: Readonly<Record<string, string>>
  /** Parsed JSON; an upload is `{ file_name, bytes }`. */
  readonly body: Json
}

export interface CozeSimulator {
  /** Such as `http://127.0.0.1:41234`. */
  readonly url: string
  readonly token: string
  readonly botId: string
  /** The newest 1,000 requests, oldest first. */
  readonly requests: readonly SeenRequest[]
  /** The tokens that OAuth has given out, the newest last. */
  tokens(): readonly string[]
  /** Takes back all of them. */
  revokeTokens(): void
  close(): Promise<void>
}

/**
 * Starts a server that speaks Coze's open API: chats (streamed and polled), tool outputs, chatflows, conversations,
 * messages, files and the tokens of an OAuth app. It answers ordinary words and the demo words; a message that begins with `!` plays one of the scenes below.
 */
export async function startCozeSimulator(options: CozeSimulatorOptions = {}): Promise<CozeSimulator> {
  const world = new World(options)
  const server = createServer((request, response) => void world.answer(request, response))
  server.listen(options.port ?? 0, options.host ?? '127.0.0.1')
  await once(server, 'listening')
  const { address, family, port } = server.address() as AddressInfo
  return {
    url: `http://${family === 'IPv6' ? `[${address}]` : address}:${port}`,
    token: world.token,
    botId: options.botId ?? '7300000000000000001',
    requests: world.requests,
    tokens: () => [...world.issued.keys()],
    revokeTokens: () => world.issued.clear(),
    async close() {
      world.stopped.abort()
      server.closeAllConnections()
      if (server.listening) await new Promise<unknown>((resolve) => server.close(resolve))
    },
  }
}

/** One way in which a chat may go. */
interface Scene {
  /** Answers the request without beginning a chat. */
  refuse?(ask: Ask): HttpAnswer | undefined
  /** Plays the chat; what the scene leaves open is completed after it. */
  play?(stage: Stage): Promise<void>
  readonly style?: StreamStyle
  /** The chat begins without saying so. */
  readonly silentStart?: boolean
}

interface Ask {
  readonly text: string
  /** The same for the same message, however often it is sent. */
  readonly key: string
  readonly world: World
}

interface HttpAnswer {
  readonly status?: number
  readonly headers?: Readonly<Record<string, string>>
  readonly type?: string
  readonly body?: string
  /** The socket dies instead. */
  readonly cut?: boolean
}

interface StreamStyle extends FrameStyle {
  readonly bom?: boolean
  /** Every byte travels alone. */
  readonly split?: boolean
  /** How the stream says that it is over; default `cloud`. */
  readonly done?: 'cloud' | 'studio' | 'chatflow' | 'none'
  readonly numericIds?: boolean
}

const talk: Scene = {
  async play(stage) {
    await stage.answer(...smallTalk(stage.text, stage.earlier))
    await stage.suggest('What is my name?', 'Show me /tools', 'Show me /card')
  },
}

const paced = (word: '/long' | '/slow'): Scene => ({
  async play(stage) {
    for (const piece of demoPieces(word)) {
      await stage.pause(demoPauseMs[word])
      await stage.say(piece)
    }
    await stage.finish()
  },
})

/** A chat that goes on in silence once `lose` has broken its stream. */
const lost = (lose: (stage: Stage) => Promise<void> | void, scene: Omit<Scene, 'play'> = {}): Scene => ({
  ...scene,
  async play(stage) {
    await lose(stage)
    await stage.answer('the second half.')
  },
})

const failing = (form: 'a' | 'b' | 'c'): Scene => ({
  async play(stage) {
    await stage.say('So far ')
    await stage.fail(form === 'a' ? 5000 : 701231, 'event interval error', form)
  },
})

const refusing = (answer: HttpAnswer): Scene => ({ refuse: () => answer })
const told = (style: StreamStyle): Scene => ({ style, play: (stage) => stage.answer('Words, 字 and ', '🙂', '.') })

const badToken = JSON.stringify({ code: 4101, msg: 'The token you entered is incorrect. Please check it.' })

/** What each word does. Words with `/` are for people, those with `!` for tests. */
const scenes: Readonly<Record<string, Scene>> = {
  '/long': paced('/long'),
  '/slow': paced('/slow'),
  '/fail': {
    async play(stage) {
      await stage.say(...demoPieces('/fail'))
      await stage.fail(5000, 'the demo model failed', 'a')
    },
  },
  '/busy': {
    refuse: ({ world, key }) => {
      const refused = world.refusals.get(key) ?? 0
      if (refused < 2) {
        world.refusals.set(key, refused + 1)
        return tooMany(1)
      }
      world.refusals.delete(key)
      return undefined
    },
    play: (stage) => stage.answer('It was busy, ', 'twice; ', 'now it is not.'),
  },
  '/cut': {
    async play(stage) {
      await stage.say('This half arrives on the stream, ')
      await stage.cut()
      await stage.say('this one ', 'after asking again.')
      await stage.finish()
      await stage.suggest('And once more?')
    },
  },
  '/consent': {
    async play(stage) {
      const { send_mail: output } = await stage.callTools({
        send_mail: { to: 'ada@example.com', subject: 'A greeting from the bot' },
      })
      await stage.answer('I asked ', 'to send a mail. ', `The tool said: ${output}`)
    },
  },
  '/tools': {
    async play(stage) {
      const { get_weather: output } = await stage.callTools({ get_weather: { city: 'Taipei' } })
      await stage.answer('I looked ', 'at the weather in Taipei: ', `${output}`)
      await stage.suggest('And tomorrow?')
    },
  },
  '/think': {
    async play(stage) {
      await stage.think('The question is short, ', 'so the answer ', 'can be short too.')
      await stage.answer('Forty', '-', 'two.')
    },
  },
  '/card': {
    async play(stage) {
      const card = { card_type: 3, template_url: 'https://example.com/card', response_type: 'card', title: 'A card' }
      await stage.answer('Here ', 'is ', 'a card:')
      await stage.tell('answer', JSON.stringify(card), 'card')
    },
  },

  '!multi': {
    async play(stage) {
      await stage.answer('The first ', 'answer.')
      await stage.answer('The second ', 'answer.')
      await stage.suggest('One?', 'Two?', 'Three?')
    },
  },
  '!knowledge': {
    async play(stage) {
      await stage.tell('verbose', JSON.stringify({ msg_type: 'knowledge_recall', data: 'slice' }))
      await stage.tell('knowledge', '---\nrecall slice 1:text\n')
      await stage.answer('It is ', 'written.')
    },
  },
  '!cloud-tool': {
    async play(stage) {
      await stage.tell('function_call', functionCall('weatherbox', 'now', { city: 'Oslo' }, 1))
      await stage.tell('tool_response', '{"content_type":1,"response_for_model":"sunny","type_for_model":1}')
      await stage.answer('It is ', 'sunny.')
    },
  },
  '!two-tools': {
    async play(stage) {
      const outputs = await stage.callTools({ get_weather: { city: 'Oslo' }, get_time: { zone: 'CET' } })
      await stage.answer(`${outputs['get_weather']} `, `${outputs['get_time']}`)
    },
  },
  '!client-tool': {
    async play(stage) {
      const { open_door: output } = await stage.callTools({ open_door: { door: 'front' } })
      await stage.answer(`The door: ${output}`)
    },
  },
  '!mixed-tools': {
    async play(stage) {
      const outputs = await stage.callTools({ get_weather: { city: 'Oslo' }, open_door: { door: 'front' } })
      await stage.answer(`${outputs['get_weather']} `, `${outputs['open_door']}`)
    },
  },
  '!rounds': {
    async play(stage) {
      const first = await stage.callTools({ get_weather: { city: 'Oslo' } })
      const second = await stage.callTools({ get_weather: { city: 'Bergen' } })
      await stage.answer(`${first['get_weather']} `, `${second['get_weather']}`)
    },
  },
  '!bad-arguments': {
    async play(stage) {
      const { get_weather: output } = await stage.callTools({ get_weather: { city: 7 } })
      await stage.answer(`${output}`)
    },
  },
  '!question': {
    async play(stage) {
      await stage.answer('Which ', 'city?')
      await stage.ask()
    },
  },
  '!cut-after-tools': {
    async play(stage) {
      const { get_weather: output } = await stage.callTools({ get_weather: { city: 'Oslo' } })
      await stage.say('The weather: ')
      await stage.cut()
      await stage.answer(`${output}`)
    },
  },
  '!cut-at-submit': {
    async play(stage) {
      stage.loseSubmits = 1
      const { get_weather: output } = await stage.callTools({ get_weather: { city: 'Oslo' } })
      await stage.answer(`${output}`)
    },
  },
  '!busy-submit': {
    async play(stage) {
      stage.busySubmits = 1
      const { get_weather: output } = await stage.callTools({ get_weather: { city: 'Oslo' } })
      await stage.answer(`${output}`)
    },
  },
  '!cut-at-tools': {
    async play(stage) {
      await stage.say('Let me see. ')
      await stage.finish()
      await stage.cut()
      const { get_weather: output } = await stage.callTools({ get_weather: { city: 'Oslo' } })
      await stage.answer(`${output}`)
    },
  },
  '!audio': {
    async play(stage) {
      await stage.answer('hi')
      await stage.complete()
      await stage.frame('conversation.audio.delta', stage.message('answer', 'KgAxAC8ALgAvAC0AKgA=', 'audio'))
    },
  },
  '!object-string': {
    async play(stage) {
      const items = [
        { type: 'text', text: 'A picture:' },
        { type: 'image', file_url: 'https://example.com/a.png' },
      ]
      await stage.tell('answer', JSON.stringify(items), 'object_string')
    },
  },
  '!failed-a': failing('a'),
  '!failed-b': failing('b'),
  '!failed-c': failing('c'),
  '!error-event': {
    async play(stage) {
      await stage.say('So far ')
      await stage.frame('error', { code: 4000, msg: 'Request parameter error' })
      await stage.fail(4000, 'Request parameter error', 'silent')
    },
  },
  '!busy-event': {
    async play(stage) {
      await stage.frame('error', { code: 4009, msg: 'too many requests, try later' })
      await stage.fail(4009, 'too many requests, try later', 'silent')
    },
  },
  '!error-event-empty': {
    async play(stage) {
      await stage.frame('error', {})
      await stage.fail(5000, 'internal', 'silent')
    },
  },
  '!canceled': {
    async play(stage) {
      await stage.say('So far ')
      stage.cancel()
      await stage.frame('conversation.chat.canceled', stage.chatObject())
    },
  },
  '!slow-answer': {
    async play(stage) {
      await stage.say('One, ')
      await stage.pause(400)
      await stage.answer('two.')
    },
  },
  '!long-run': {
    async play(stage) {
      await stage.say('I begin, ')
      await stage.pause(60_000)
    },
  },

  '!slow-start': {
    silentStart: true,
    play: (stage) => stage.pause(60_000),
  },

  '!json-200': refusing({ type: 'application/json', body: badToken }),
  '!json-200-newline': refusing({ type: 'application/json', body: `${badToken}\n` }),
  '!json-200-sse': refusing({ type: 'text/event-stream', body: badToken }),
  '!json-200-sse-newline': refusing({ type: 'text/event-stream', body: `${badToken}\n` }),
  '!html-200': refusing({ type: 'text/html', body: '<html><body>Sign in</body></html>' }),
  '!error-401': refusing({ status: 401, body: JSON.stringify({ code: 700012006, msg: 'access token invalid' }) }),
  '!error-404': refusing({ status: 404, body: JSON.stringify({ code: 4000, msg: 'The requested API endpoint …' }) }),
  '!error-429': { refuse: () => tooMany(2) },
  '!error-500html': refusing({ status: 500, type: 'text/html', body: '<html><h1>Internal Server Error</h1></html>' }),
  '!error-503': refusing({ status: 503, headers: { 'retry-after': '3' }, type: 'text/plain', body: 'later' }),

  '!drop-before-first': lost((stage) => stage.cut(), { silentStart: true }),
  '!drop-unseen': refusing({ cut: true }),
  '!drop': lost(async (stage) => {
    await stage.say('The first half, ')
    await stage.cut()
  }),
  '!half-event': lost(async (stage) => {
    await stage.say('The first half, ')
    await stage.bytes('event:conversation.message.delta\ndata:{"id":"75000')
    stage.hangUp()
  }),
  '!idle': lost(async (stage) => {
    await stage.say('The first half, ')
    stage.mute()
  }),
  '!done-only': lost(async (stage) => {
    await stage.say('The first half, ')
    await stage.bytes(doneFrame())
    stage.hangUp()
  }),
  '!cut-failed': {
    async play(stage) {
      await stage.say('The first half, ')
      await stage.cut()
      await stage.fail(4013, 'model service error', 'a')
    },
  },
  '!cut-canceled': {
    async play(stage) {
      await stage.say('The first half, ')
      await stage.cut()
      stage.cancel()
    },
  },
  '!cut-endless': {
    async play(stage) {
      await stage.say('The first half, ')
      await stage.cut()
      await stage.pause(60_000)
    },
  },
  '!other-words': {
    async play(stage) {
      await stage.say('What was shown ')
      await stage.cut()
      stage.revise('What is true.')
      await stage.finish()
    },
  },
  '!rich-cut': {
    async play(stage) {
      await stage.tell('function_call', functionCall('weatherbox', 'now', { city: 'Oslo' }, 1))
      await stage.tell('tool_response', '"sunny"')
      await stage.answer('It is sunny.')
      await stage.cut()
      await stage.answer('Bring a hat.')
      await stage.suggest('How warm?')
    },
  },

  '!split': told({ split: true }),
  '!crlf': told({ crlf: true }),
  '!spaced': told({ space: true }),
  '!bom': told({ bom: true }),
  '!no-done': told({ done: 'none' }),
  '!open-end': {
    async play(stage) {
      await stage.answer('Words, 字 and ', '🙂', '.')
      await stage.complete()
      stage.mute()
    },
  },
  '!studio': told({ done: 'studio' }),
  '!studio-error': {
    style: { done: 'studio' },
    play: (stage) => stage.frame('error', { code: 103000000, msg: 'the model failed' }),
  },
  '!unknown-event': {
    async play(stage) {
      await stage.frame('conversation.chat.dreaming', { of: 'sheep' })
      await stage.bytes('event:nonsense\ndata:not json\n\n: a comment\n\nid:5\n\n')
      await stage.tell('poem', 'Roses are red')
      await stage.answer('Still ', 'here.')
    },
  },
  '!wrong-types': {
    async play(stage) {
      await stage.frame('conversation.message.delta', null)
      await stage.frame('conversation.message.delta', 7)
      await stage.frame('conversation.message.delta', { id: 7, type: 'answer', content: { not: 'text' } })
      await stage.frame('conversation.message.completed', ['a list'])
      await stage.frame('conversation.message.completed', { id: 'x', type: 'answer', content: 5 })
      await stage.frame('conversation.chat.in_progress', 'a string')
      await stage.frame('conversation.chat.in_progress', { usage: 'many', required_action: [], last_error: 'none' })
      await stage.answer('Still ', 'here.')
    },
  },
  '!after-end': {
    async play(stage) {
      await stage.answer('The end.')
      await stage.complete()
      await stage.frame('conversation.message.delta', stage.message('answer', ' Or not?', 'text'))
      await stage.frame('conversation.chat.failed', { code: 5000, msg: 'too late' })
    },
  },
  '!oversized': {
    async play(stage) {
      await stage.say('Small. ')
      await stage.say('x'.repeat(1_200_000))
      await stage.finish()
    },
  },
}

const sampleStatus: Readonly<Record<string, number>> = { S7c: 401, S7d: 404, S7f: 429 }
const sampleTypes: Readonly<Record<string, string>> = { S7b: 'text/event-stream' }
const sampleChat = '7500000000000000010'

function sceneOf(text: string, samples: string | undefined): Scene {
  const word = text.trim()
  if (Object.hasOwn(scenes, word)) return scenes[word]!
  const code = /^!code-(\w+)$/.exec(word)?.[1]
  if (code) return refusing({ body: JSON.stringify({ code: Number(code), msg: `the words of code ${code}` }) })
  const sample = /^!sample-([\w-]+)$/.exec(word)?.[1]
  if (sample && samples) return refusing(sampleAnswer(samples, sample))
  return talk
}

function sampleAnswer(folder: string, name: string): HttpAnswer {
  const read = (kind: string) => {
    try {
      return readFileSync(join(folder, `${name}.${kind}`), 'utf8')
    } catch {
      return undefined
    }
  }
  const stream = read('sse')
  const body = stream ?? read('json')
  if (body === undefined) return { status: 404, body: JSON.stringify({ code: 4000, msg: `no sample ${name}` }) }
  const status = sampleStatus[name] ?? 200
  return {
    status,
    type: sampleTypes[name] ?? (stream === undefined ? 'application/json' : 'text/event-stream'),
    ...(status === 429 ? { headers: { 'retry-after': '2' } } : {}),
    body,
  }
}

const tooMany = (seconds: number): HttpAnswer => ({
  status: 429,
  headers: { 'retry-after': String(seconds) },
  body: JSON.stringify({ code: 4009, msg: 'too many requests, try later' }),
})

/** The content of a `function_call` message, whose ids are bare integers beyond 2^53. */
const functionCall = (plugin: string, api: string, input: JsonObject, pluginType: number): string =>
  `{"name":"ts-${plugin}-${api}","arguments":${JSON.stringify(input)},"plugin_id":7379227414322217010,` +
  `"plugin_name":"${plugin}","api_id":7379227414322233394,"api_name":"${api}","plugin_type":${pluginType},"thought":""}`

interface Conversation {
  readonly id: string
  name: string
  readonly metaData: JsonObject
  readonly botId: string
  readonly createdAt: number
  updatedAt: number
  sectionId: string
  /** The user's messages and the answers. */
  messages: MessageParts[]
  /** Where the context begins: what was before was cleared. */
  contextFrom: number
  running?: Chat | undefined
}

interface Chat {
  readonly id: string
  readonly conversation: Conversation
  /** A chatflow has none. */
  readonly botId: string | undefined
  readonly createdAt: number
  readonly metaData: Readonly<Record<string, string>> | undefined
  /** Not saved, it can be neither looked at nor given tool outputs. */
  readonly saved: boolean
  readonly stage: Stage
  status: CozeStatus
  completedAt?: number
  failedAt?: number
  lastError?: { readonly code: number; readonly msg: string }
  calls?: NonNullable<ChatParts['calls']>
  messages: MessageParts[]
  outputTokens: number
}

/** A response that is written as a stream of events. */
class Output {
  readonly #response: ServerResponse
  readonly style: StreamStyle

  constructor(response: ServerResponse, style: StreamStyle) {
    this.#response = response
    this.style = style
    response.writeHead(200, { 'content-type': 'text/event-stream', 'x-tt-logid': logId() })
    response.flushHeaders()
    if (style.bom) response.write('\uFEFF')
  }

  async bytes(text: string): Promise<void> {
    const spelled = this.style.numericIds ? withNumericIds(text) : text
    if (!this.style.split) return void this.#response.write(spelled)
    this.#response.socket?.setNoDelay(true)
    for (const byte of Buffer.from(spelled)) {
      this.#response.write(Buffer.of(byte))
      // Lets each byte leave before the next is written.
      await new Promise(setImmediate)
    }
  }

  async finish(): Promise<void> {
    const { done } = this.style
    if (done === 'studio') await this.bytes('event:conversation.stream.done\ndata:\n\n')
    else if (done === 'chatflow') await this.bytes(encodeFrame('done', { debug_url: debugUrl }, this.style))
    else if (done !== 'none') await this.bytes(doneFrame(this.style))
    this.#response.end()
  }

  hangUp(): void {
    this.#response.end()
  }

  cut(): void {
    this.#response.destroy()
  }
}

const debugUrl = 'https://www.coze.cn/work_flow?execute_id=1&space_id=2&workflow_id=3'

const withNumericIds = (json: string): string =>
  json.replaceAll(/"((?:\w+_)?id)":"(\d{16,19})"/g, (_, name: string, id: string) => `"${name}":${id}`)

/** What a scene may do to its chat. The chat goes on whether or not anybody still listens. */
class Stage {
  readonly text: string
  /** What the user said before in this conversation. */
  readonly earlier: readonly string[]
  /** How many submissions are to vanish before they arrive. */
  loseSubmits = 0
  /** How many submissions are to be refused for now. */
  busySubmits = 0
  readonly #world: World
  #chat!: Chat
  #output: Output | undefined
  #answer: { id: string; text: string; reasoning: string } | undefined
  #finished = false
  #resume: ((outputs: ReadonlyMap<string, string>) => void) | undefined

  constructor(world: World, text: string, earlier: readonly string[]) {
    this.#world = world
    this.text = text
    this.earlier = earlier
  }

  async play(scene: Scene, chat: Chat, output: Output | undefined): Promise<void> {
    this.#chat = chat
    this.#output = output
    try {
      if (!scene.silentStart) await this.frame('conversation.chat.created', this.chatObject())
      chat.status = 'in_progress'
      if (!scene.silentStart) await this.frame('conversation.chat.in_progress', this.chatObject())
      await scene.play?.(this)
      await this.complete()
      await this.#output?.finish()
    } catch (error) {
      if (this.#world.stopped.signal.aborted) return
      chat.lastError = { code: 5000, msg: String(error) }
      this.#settle('failed')
      this.#output?.cut()
    }
  }

  async pause(ms: number): Promise<void> {
    await sleep(ms, undefined, { signal: this.#world.stopped.signal })
  }

  async say(...pieces: readonly string[]): Promise<void> {
    for (const piece of pieces) {
      const answer = (this.#answer ??= { id: this.#world.id(), text: '', reasoning: '' })
      answer.text += piece
      await this.frame('conversation.message.delta', this.#delta(answer.id, piece))
    }
  }

  async think(...pieces: readonly string[]): Promise<void> {
    for (const piece of pieces) {
      const answer = (this.#answer ??= { id: this.#world.id(), text: '', reasoning: '' })
      answer.reasoning += piece
      await this.frame('conversation.message.delta', { ...this.#delta(answer.id, ''), reasoning_content: piece })
    }
  }

  /** Completes the answer that `say` began. */
  async finish(): Promise<void> {
    const answer = this.#answer
    if (!answer) return
    this.#answer = undefined
    await this.#add({
      ...this.#parts('answer', answer.text, 'text'),
      id: answer.id,
      ...(answer.reasoning ? { reasoning: answer.reasoning } : {}),
    })
  }

  async answer(...pieces: readonly string[]): Promise<void> {
    await this.say(...pieces)
    await this.finish()
  }

  /** The answer is to be complete with other words than were sent. */
  revise(text: string): void {
    if (this.#answer) this.#answer.text = text
  }

  /** A message that comes whole. */
  async tell(type: string, content: string, contentType = 'text'): Promise<void> {
    await this.#add(this.#parts(type, content, contentType))
  }

  async suggest(...questions: readonly string[]): Promise<void> {
    await this.#finishAnswers(0)
    for (const question of questions) await this.tell('follow_up', question)
  }

  /** Lets the client run tools, by name with their arguments, and resolves with their outputs by name. */
  async callTools(tools: Readonly<Record<string, JsonObject>>): Promise<Readonly<Record<string, string>>> {
    const chat = this.#chat
    await this.finish()
    for (const [name, input] of Object.entries(tools)) {
      await this.tell('function_call', functionCall('demo', name, input, 6))
    }
    await this.tell('verbose', verbose('interrupt', ''))
    await this.#finishAnswers(1)
    this.#finished = false
    const calls = Object.entries(tools).map(([name, input]) => ({
      id: `BUJJ${randomBytes(45).toString('base64')}`,
      name,
      arguments: JSON.stringify(input),
    }))
    const answered = new Promise<ReadonlyMap<string, string>>((resolve) => (this.#resume = resolve))
    chat.calls = calls
    chat.status = 'requires_action'
    chat.completedAt = now()
    await this.frame('conversation.chat.requires_action', this.chatObject())
    await this.#output?.finish()
    this.#output = undefined
    const outputs = await answered
    await this.frame('conversation.chat.in_progress', this.chatObject())
    for (const call of calls) await this.tell('tool_response', outputs.get(call.id) ?? '')
    return Object.fromEntries(calls.map((call) => [call.name, outputs.get(call.id) ?? '']))
  }

  /** The question of a workflow: its answer is the next message, and nothing waits for it. */
  async ask(): Promise<void> {
    await this.tell('verbose', verbose('interrupt', ''))
    this.#settle('requires_action')
    const call = { id: '', type: 'reply_message', function: null, require_info: null }
    const action = { type: 'submit_tool_outputs', submit_tool_outputs: { tool_calls: [call] } }
    await this.frame('conversation.chat.requires_action', { ...this.chatObject(), required_action: action })
  }

  /** Goes on after `callTools`, on another response. */
  resume(outputs: ReadonlyMap<string, string>, output: Output | undefined): void {
    this.#output = output
    this.#chat.status = 'in_progress'
    delete this.#chat.calls
    this.#resume?.(outputs)
  }

  /** Ends the chat in one of the documented forms; `silent` only changes its status. */
  async fail(code: number, msg: string, form: 'a' | 'b' | 'c' | 'silent'): Promise<void> {
    this.#chat.lastError = { code, msg }
    this.#chat.failedAt = now()
    this.#settle('failed')
    if (form === 'a') await this.frame('conversation.chat.failed', this.chatObject())
    if (form === 'b') await this.frame('conversation.chat.failed', { code, msg })
    if (form === 'c') await this.frame('conversation.chat.failed', { code: String(code), msg })
  }

  /** Completes the chat, if it has not ended yet. */
  async complete(): Promise<void> {
    await this.finish()
    if (ended(this.#chat) || this.#chat.status === 'requires_action') return
    await this.#finishAnswers(0)
    this.#chat.completedAt = now()
    this.#settle('completed')
    await this.frame('conversation.chat.completed', this.chatObject())
  }

  /** As a cancel by another request: only the status changes, an open stream goes on. */
  cancel(): void {
    this.#settle('canceled')
  }

  async frame(event: string, content: Json): Promise<void> {
    await this.bytes(encodeFrame(event, content, this.#output?.style))
  }

  async bytes(text: string): Promise<void> {
    await this.#output?.bytes(text)
  }

  /** The socket dies, a moment after what was said before has arrived. */
  async cut(): Promise<void> {
    const output = this.#output
    this.#output = undefined
    if (!output) return
    await this.pause(20)
    output.cut()
  }

  /** The stream ends in good order, but too early. */
  hangUp(): void {
    this.#output?.hangUp()
    this.#output = undefined
  }

  /** The stream stays open and says nothing more. */
  mute(): void {
    this.#output = undefined
  }

  message(type: string, content: string, contentType: string): JsonObject {
    return messageObject(this.#parts(type, content, contentType))
  }

  chatObject(): JsonObject {
    return this.#world.chatObject(this.#chat, this.#output?.style.done === 'studio')
  }

  #delta(id: string, content: string): JsonObject {
    const { conversation, botId, id: chatId } = this.#chat
    return messageObject({
      id,
      conversationId: conversation.id,
      botId,
      chatId,
      role: 'assistant',
      type: 'answer',
      content,
      contentType: 'text',
    })
  }

  #parts(type: string, content: string, contentType: string): MessageParts {
    const { conversation, botId, id: chatId } = this.#chat
    return {
      id: this.#world.id(),
      conversationId: conversation.id,
      botId,
      chatId,
      role: 'assistant',
      type,
      content,
      contentType,
      createdAt: now(),
    }
  }

  async #add(message: MessageParts): Promise<void> {
    const chat = this.#chat
    chat.messages.push(message)
    if (message.type === 'answer') {
      chat.outputTokens += message.content.length
      if (chat.saved && chat.status !== 'canceled') chat.conversation.messages.push(message)
    }
    await this.frame('conversation.message.completed', messageObject(message))
  }

  async #finishAnswers(reason: 0 | 1): Promise<void> {
    if (this.#finished) return
    this.#finished = true
    await this.tell(
      'verbose',
      verbose('generate_answer_finish', JSON.stringify({ finish_reason: reason, FinData: '' })),
    )
  }

  #settle(status: CozeStatus): void {
    const chat = this.#chat
    if (ended(chat)) return
    chat.status = status
    delete chat.calls
    if (chat.conversation.running === chat) chat.conversation.running = undefined
  }
}

const studioStatus: Partial<Record<CozeStatus, string>> = { canceled: 'cancelled', requires_action: 'required_action' }
const ended = (chat: Chat) => chat.status === 'completed' || chat.status === 'failed' || chat.status === 'canceled'
const verbose = (type: string, content: string) =>
  JSON.stringify({ msg_type: type, data: content, from_module: null, from_unit: null })

/** A request that Coze would refuse, in its words. */
class Refusal extends Error {
  readonly code: number
  readonly status: number

  constructor(code: number, message: string, status = 200) {
    super(message)
    this.code = code
    this.status = status
  }
}

interface Call {
  readonly method: string
  readonly path: string
  readonly query: URLSearchParams
  readonly body: JsonObject
  /** The first group of the route's pattern. */
  readonly name: string
  readonly authorization: string
  readonly response: ServerResponse
}

/** Gives the JSON to answer with, or nothing when it has answered itself. */
type Handler = (world: World, call: Call) => JsonObject | undefined | Promise<JsonObject | undefined>

/** A chat that is asked for, of a bot or of a chatflow. */
interface Asked {
  readonly botId: string | undefined
  readonly conversationId: string
  readonly stream: boolean
  readonly saved: boolean
  readonly metaData: Readonly<Record<string, string>> | undefined
  readonly messages: readonly JsonObject[]
  readonly style: StreamStyle
}

const routes: readonly (readonly [methods: string, path: RegExp, handler: Handler])[] = [
  ['POST', /^\/v3\/chat$/, (world, call) => world.chat(call)],
  ['POST', /^\/v1\/workflows\/chat$/, (world, call) => world.chatflow(call)],
  ['GET POST', /^\/v3\/chat\/retrieve$/, (world, { query }) => success(world.chatObject(world.savedChat(query)))],
  ['GET', /^\/v3\/chat\/message\/list$/, (world, { query }) => success(listed(world.savedChat(query).messages))],
  ['POST', /^\/api\/permission\/oauth2(?:\/account\/\w+)?\/token$/, (world, call) => world.giveToken(call)],
  ['POST', /^\/v3\/chat\/cancel$/, (world, { body }) => world.cancel(body)],
  ['POST', /^\/v3\/chat\/submit_tool_outputs$/, (world, call) => world.submit(call)],
  ['POST', /^\/v1\/conversation\/create$/, (world, { body }) => success(conversationObject(world.converse(body)))],
  [
    'GET',
    /^\/v1\/conversation\/retrieve$/,
    (world, { query }) => success(conversationObject(world.conversation(query))),
  ],
  ['GET', /^\/v1\/conversations$/, (world, { query }) => world.conversations(query)],
  ['PUT', /^\/v1\/conversations\/(\d+)$/, (world, { name, body }) => world.rename(name, body)],
  ['DELETE', /^\/v1\/conversations\/(\d+)$/, (world, { name }) => world.forget(name)],
  ['POST', /^\/v1\/conversations\/(\d+)\/clear$/, (world, { name }) => world.clear(name)],
  ['POST', /^\/v1\/conversation\/message\/create$/, (world, { query, body }) => world.addMessage(query, body)],
  ['POST', /^\/v1\/conversation\/message\/list$/, (world, { query, body }) => world.messages(query, body)],
  [
    'GET',
    /^\/v1\/conversation\/message\/retrieve$/,
    (world, { query }) => success(messageObject(world.message(query))),
  ],
  ['POST', /^\/v1\/conversation\/message\/modify$/, (world, { query, body }) => world.modify(query, body)],
  ['POST', /^\/v1\/conversation\/message\/delete$/, (world, { query }) => world.removeMessage(query)],
  ['POST', /^\/v1\/files\/upload$/, (world, { body }) => world.keepFile(body)],
  ['GET', /^\/v1\/files\/retrieve$/, (world, { query }) => success(world.file(query.get('file_id') ?? ''))],
  [
    'GET',
    /^\/v1\/users\/me$/,
    () => success({ user_id: '1000000000001', user_name: 'simulator', nick_name: 'Simulator' }),
  ],
  ['GET', /^\/v1\/bots$/, (world) => success({ items: [world.botObject()], total: 1 })],
  ['GET', /^\/v1\/bots\/(\d+)$/, (world) => success(world.botObject())],
]

/** What coze-studio does otherwise: no tool outputs, no OAuth, and answers under the names of its own models. */
const studioRoutes: typeof routes = [
  ['POST', /^\/v3\/chat\/submit_tool_outputs$/, notThere],
  ['POST', /^\/api\/permission\/.*$/, notThere],
  ['POST', /^\/v3\/chat\/retrieve$/, notThere],
  [
    'GET',
    /^\/v3\/chat\/message\/list$/,
    (world, { query }) => ({ code: 0, msg: '', Messages: listed(world.savedChat(query).messages) }),
  ],
  [
    'POST',
    /^\/v3\/chat\/cancel$/,
    (world, { body }) => ({ code: 0, msg: '', ChatV3ChatDetail: world.cancel(body)['data'] ?? null, BaseResp: {} }),
  ],
]

function notThere(_: World, { method, path }: Call): never {
  throw new Refusal(4000, `The requested API endpoint ${method} ${path} does not exist.`, 404)
}

const success = (content: Json, rest: JsonObject = {}): JsonObject => ({
  code: 0,
  msg: '',
  data: content,
  ...rest,
  detail: { logid: logId() },
})

const maxKept = 10_000
const maxRequests = 1000
const maxBody = 100 * 1024 * 1024

/** The state behind the routes. */
class World {
  readonly token: string
  readonly requests: SeenRequest[] = []
  readonly refusals = new Map<string, number>()
  readonly stopped = new AbortController()
  /** The tokens that OAuth has given out, with the ends of their lives in seconds since the epoch. */
  readonly issued = new Map<string, number>()
  readonly #options: CozeSimulatorOptions
  readonly #conversations = new Map<string, Conversation>()
  readonly #chats = new Map<string, Chat>()
  readonly #files = new Map<string, JsonObject>()
  // Begins with the time, so that a later simulator does not give an earlier one's ids again.
  #lastId = 7_000_000_000_000_000_000n + BigInt(Date.now()) * 100_000n

  constructor(options: CozeSimulatorOptions) {
    this.#options = options
    this.token = options.token ?? 'pat_simulator'
  }

  /** A decimal string of 19 digits, beyond what a JavaScript number holds. */
  id(): string {
    this.#lastId += 7n
    return String(this.#lastId)
  }

  async answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    response.on('error', () => {})
    try {
      const url = new URL((request.url ?? '/').replace(/^\/+/, '/'), 'http://simulator')
      const method = request.method ?? 'GET'
      const body = await bodyOf(request)
      this.requests.push({ method, path: url.pathname, query: Object.fromEntries(url.searchParams), body })
      if (this.requests.length > maxRequests) this.requests.shift()
      const known = this.#options.studio ? [...studioRoutes, ...routes] : routes
      const route = known.find(([methods, path]) => methods.split(' ').includes(method) && path.test(url.pathname))
      if (!route) {
        throw new Refusal(4000, `The requested API endpoint ${method} ${url.pathname} does not exist.`, 404)
      }
      this.#authorize(request, url.pathname)
      const name = route[1].exec(url.pathname)?.[1] ?? ''
      const { authorization = '' } = request.headers
      const call = { method, path: url.pathname, query: url.searchParams, body, name, response, authorization }
      const answer = await route[2](this, call)
      if (answer) this.#send(response, answer)
    } catch (error) {
      const { code, status, message } = error instanceof Refusal ? error : new Refusal(5000, String(error))
      send(response, { status, body: JSON.stringify({ code, msg: message, detail: { logid: logId() } }) })
    }
  }

  #send(response: ServerResponse, answer: JsonObject): void {
    const json = JSON.stringify(answer)
    send(response, { body: this.#options.numericIds ? withNumericIds(json) : json })
  }

  /** As the cloud does it: a chat is refused under 200, everything else under 401. */
  #authorize(request: IncomingMessage, path: string): void {
    // Whoever asks for a token has none yet.
    if (path.startsWith('/api/permission/')) return
    const token = request.headers.authorization?.replace(/^Bearer /, '') ?? ''
    if (token === this.token || (this.issued.get(token) ?? 0) > now()) return
    if (this.#options.studio) throw new Refusal(4100, 'authentication is invalid')
    if (path === '/v3/chat') throw new Refusal(4101, 'The token you entered is incorrect. Please check it.')
    throw new Refusal(700012006, 'access token invalid', 401)
  }

  /** Exchanges an app's assertion for a token. Errors are in the form of OAuth and not in the envelope. */
  async giveToken({ authorization, body, response }: Call): Promise<JsonObject | undefined> {
    const app = this.#options.oauth
    const refuse = (code: string, message: string) =>
      send(response, { status: 400, body: JSON.stringify({ error_code: code, error: code, error_message: message }) })
    if (!app) throw new Refusal(4000, 'There is no OAuth app.', 404)
    const { host } = new URL(`http://${response.req.headers.host}`)
    try {
      const key = await importSPKI(app.publicKey, 'RS256')
      const checks = { issuer: app.appId, audience: host, requiredClaims: ['iat', 'exp', 'jti'] }
      const { protectedHeader } = await jwtVerify(authorization.replace(/^Bearer /, ''), key, checks)
      if (protectedHeader.kid !== app.publicKeyId) throw new Error('the key is not known')
    } catch (error) {
      return refuse('invalid_client', String(error))
    }
    const { grant_type: grant, duration_seconds: duration = 900 } = body
    if (grant !== 'urn:ietf:params:oauth:grant-type:jwt-bearer') return refuse('unsupported_grant_type', '')
    const token = `czs_${randomBytes(24).toString('base64url')}`
    const expiresAt = now() + (app.lifeSeconds ?? Number(duration))
    this.issued.set(token, expiresAt)
    return { access_token: token, expires_in: expiresAt, token_type: 'Bearer' }
  }

  chat({ query, body, response }: Call): JsonObject | undefined {
    return this.#begin(this.#chatRequest(body, query.get('conversation_id') ?? ''), response)
  }

  chatflow({ body, response }: Call): JsonObject | undefined {
    return this.#begin(this.#chatflowRequest(body), response)
  }

  #begin(asked: Asked, response: ServerResponse): JsonObject | undefined {
    const given = asked.conversationId
    const conversation = this.#conversations.get(given)
    // The open-source server makes a conversation of its own where it does not know one.
    if (given && !conversation && !this.#options.studio) throw new Refusal(4002, 'The conversation does not exist.')

    const texts = asked.messages.map(textOf)
    const text = texts.at(-1) ?? conversation?.messages.findLast((each) => each.role === 'user')?.content ?? ''
    const question = asked.messages.at(-1)
    const scene = sceneOf(text, this.#options.samples)
    const key = `${given} ${asText(asObject(question?.['meta_data'])['hub_message_id'] ?? text)}`
    const refusal = scene.refuse?.({ text, key, world: this })
    if (refusal) return send(response, refusal)
    if (conversation?.running) throw new Refusal(4016, 'A chat is already running in this conversation.')

    const thread = conversation ?? this.converse(asked.botId === undefined ? {} : { bot_id: asked.botId })
    const earlier = thread.messages.slice(thread.contextFrom).filter((each) => each.role === 'user')
    const stage = new Stage(this, text, [...earlier.map((each) => wordsOf(each)), ...texts.slice(0, -1)])
    const chat: Chat = {
      id: this.id(),
      conversation: thread,
      botId: asked.botId,
      createdAt: now(),
      metaData: asked.metaData,
      saved: asked.saved,
      stage,
      status: 'created',
      messages: [],
      outputTokens: 0,
    }
    this.#keep(this.#chats, chat.id, chat)
    thread.running = chat
    if (chat.saved && question) thread.messages.push(this.#userMessage(thread, chat, question))
    if (asked.stream) {
      void stage.play(scene, chat, new Output(response, { ...asked.style, ...scene.style }))
      return undefined
    }
    void stage.play(scene, chat, undefined)
    // A client that polls would stop at once on `created`.
    return { data: { ...this.chatObject(chat), status: 'in_progress' }, code: 0, msg: '' }
  }

  /** How this server spells its streams. */
  get #style(): StreamStyle {
    const { studio, numericIds } = this.#options
    return { ...(studio ? { done: 'studio' } : {}), ...(numericIds ? { numericIds } : {}) }
  }

  #chatRequest(body: JsonObject, conversationId: string): Asked {
    const { bot_id: botId, user_id: userId, stream, auto_save_history: saved = true, meta_data: metaData } = body
    if (typeof botId !== 'string' || !botId) throw this.#badRequest('bot_id is required.')
    if (typeof userId !== 'string' || !userId) {
      throw this.#badRequest('The field http body provided is not a valid json or chat request: user_id is required.')
    }
    if (this.#options.botId && botId !== this.#options.botId) throw new Refusal(4006, 'The bot does not exist.')
    const streams = stream === true || (stream === undefined && this.#options.studio === true)
    if (!streams && saved === false) throw new Refusal(4007, 'stream=false needs auto_save_history=true.')
    return {
      botId,
      conversationId,
      stream: streams,
      saved: saved !== false,
      metaData: metaData === undefined ? undefined : (metaData as Readonly<Record<string, string>>),
      messages: this.#messagesIn(body, 100),
      style: this.#style,
    }
  }

  #chatflowRequest(body: JsonObject): Asked {
    const { workflow_id: workflowId, parameters, conversation_id: conversationId } = body
    if (typeof workflowId !== 'string' || !workflowId) throw this.#badRequest('workflow_id is required.')
    if (typeof parameters !== 'object' || parameters === null) throw this.#badRequest('parameters is required.')
    const messages = this.#messagesIn(body, 50)
    if (messages.some((message) => message['content_type'] !== 'text')) throw this.#badRequest('Text only.')
    return {
      botId: undefined,
      conversationId: asText(conversationId),
      stream: true,
      saved: true,
      metaData: undefined,
      messages,
      style: { ...this.#style, space: true, done: 'chatflow' },
    }
  }

  #badRequest(message: string): Refusal {
    return this.#options.studio ? new Refusal(400, message, 400) : new Refusal(4000, message)
  }

  #messagesIn(body: JsonObject, atMost: number): readonly JsonObject[] {
    const messages = body['additional_messages'] ?? []
    if (!Array.isArray(messages)) throw this.#badRequest('additional_messages is not a list.')
    if (messages.length > atMost) throw new Refusal(4004, `additional_messages has more than ${atMost} items.`)
    for (const each of [body, ...(messages as JsonObject[])]) checkMetaData(asObject(each)['meta_data'])
    return (messages as Json[]).map(asObject)
  }

  #userMessage(conversation: Conversation, chat: Chat | undefined, message: JsonObject): MessageParts {
    const { role, content, content_type: contentType, meta_data: metaData } = message
    return {
      id: this.id(),
      conversationId: conversation.id,
      botId: chat?.botId ?? '',
      chatId: chat?.id ?? '',
      role: role === 'assistant' ? 'assistant' : 'user',
      type: chat ? 'question' : '',
      content: typeof content === 'string' ? content : '',
      contentType: typeof contentType === 'string' ? contentType : 'text',
      createdAt: now(),
      // The open-source server shows notes of its own run in the place of the caller's.
      metaData: (this.#options.studio ? { token: '12' } : (metaData ?? {})) as Readonly<Record<string, string>>,
    }
  }

  savedChat(query: URLSearchParams): Chat {
    const chat = this.#chats.get(query.get('chat_id') ?? '')
    if (!chat?.saved || chat.conversation.id !== query.get('conversation_id')) {
      throw new Refusal(4001, 'The chat does not exist.')
    }
    return chat
  }

  cancel(body: JsonObject): JsonObject {
    const chat = this.savedChat(new URLSearchParams(body as Record<string, string>))
    if (ended(chat) || chat.status === 'requires_action') throw new Refusal(4104, 'The chat cannot be canceled.')
    chat.stage.cancel()
    const { conversation } = chat
    // Neither the question nor the answer of a cancelled chat is part of the context.
    conversation.messages = conversation.messages.filter((message) => message.chatId !== chat.id)
    return success(this.chatObject(chat))
  }

  submit({ query, body, response }: Call): JsonObject | undefined {
    if (query.get('chat_id') === sampleChat && this.#options.samples) {
      return send(response, sampleAnswer(this.#options.samples, 'S4-leg2'))
    }
    const known = this.#chats.get(query.get('chat_id') ?? '')
    if (known && !known.saved) throw new Refusal(5000, 'The chat was not saved.')
    const chat = this.savedChat(query)
    if (chat.status !== 'requires_action') throw new Refusal(4000, 'The chat does not wait for tool outputs.')
    if (chat.stage.loseSubmits > 0) {
      chat.stage.loseSubmits--
      return send(response, { cut: true })
    }
    if (chat.stage.busySubmits > 0) {
      chat.stage.busySubmits--
      return send(response, tooMany(1))
    }
    const given = Array.isArray(body['tool_outputs']) ? (body['tool_outputs'] as Json[]).map(asObject) : []
    const outputs = new Map(given.map((each) => [asText(each['tool_call_id']), asText(each['output'])]))
    const missing = chat.calls?.find((call) => !outputs.has(call.id))
    if (missing) throw new Refusal(4000, `The output of ${missing.name} is missing.`)
    if (body['stream'] === true) {
      chat.stage.resume(outputs, new Output(response, {}))
      return undefined
    }
    chat.stage.resume(outputs, undefined)
    return { data: { ...this.chatObject(chat), status: 'in_progress' }, code: 0, msg: '' }
  }

  chatObject(chat: Chat, studio = this.#options.studio === true): JsonObject {
    const object = this.#chatObject(chat)
    if (!studio) return object
    const { last_error: _error, usage: _usage, ...rest } = object
    const status = studioStatus[chat.status] ?? chat.status
    return { ...rest, status, completed_at: chat.completedAt ?? 0, failed_at: chat.failedAt ?? 0 }
  }

  #chatObject(chat: Chat): JsonObject {
    const { conversation, outputTokens } = chat
    const inputTokens = conversation.messages.reduce((sum, message) => sum + message.content.length, 0)
    return chatObject({
      ...chat,
      conversationId: conversation.id,
      sectionId: conversation.sectionId,
      ...(chat.status === 'completed' || chat.status === 'failed'
        ? { usage: { inputTokens, outputTokens, totalTokens: inputTokens + outputTokens } }
        : { usage: { inputTokens: 0, outputTokens: 0, totalTokens: 0 } }),
    } as ChatParts)
  }

  converse(body: JsonObject): Conversation {
    checkMetaData(body['meta_data'])
    const at = now()
    const conversation: Conversation = {
      id: this.id(),
      name: typeof body['name'] === 'string' ? body['name'] : '',
      metaData: asObject(body['meta_data']),
      botId: typeof body['bot_id'] === 'string' ? body['bot_id'] : '',
      createdAt: at,
      updatedAt: at,
      sectionId: this.id(),
      messages: [],
      contextFrom: 0,
    }
    const messages = Array.isArray(body['messages']) ? (body['messages'] as Json[]) : []
    for (const message of messages)
      conversation.messages.push(this.#userMessage(conversation, undefined, asObject(message)))
    this.#keep(this.#conversations, conversation.id, conversation)
    return conversation
  }

  conversation(query: URLSearchParams): Conversation {
    return this.#conversation(query.get('conversation_id') ?? '')
  }

  #conversation(id: string): Conversation {
    const conversation = this.#conversations.get(id)
    if (!conversation) throw new Refusal(4002, 'The conversation does not exist.')
    return conversation
  }

  conversations(query: URLSearchParams): JsonObject {
    const size = Math.min(Number(query.get('page_size') ?? 50), 50)
    const from = (Number(query.get('page_num') ?? 1) - 1) * size
    const own = [...this.#conversations.values()].filter(({ botId }) => botId === query.get('bot_id'))
    const sorted = query.get('sort_order')?.toUpperCase() === 'ASC' ? own : own.toReversed()
    return success({
      has_more: sorted.length > from + size,
      conversations: sorted.slice(from, from + size).map(conversationObject),
    })
  }

  rename(id: string, body: JsonObject): JsonObject {
    const conversation = this.#conversation(id)
    conversation.name = asText(body['name'])
    conversation.updatedAt = now()
    return success(conversationObject(conversation))
  }

  forget(id: string): JsonObject {
    this.#conversation(id)
    this.#conversations.delete(id)
    return { code: 0, msg: '', detail: { logid: logId() } }
  }

  clear(id: string): JsonObject {
    const conversation = this.#conversation(id)
    conversation.sectionId = this.id()
    conversation.contextFrom = conversation.messages.length
    return success({ id: conversation.sectionId, conversation_id: id })
  }

  addMessage(query: URLSearchParams, body: JsonObject): JsonObject {
    const conversation = this.conversation(query)
    checkMetaData(body['meta_data'])
    const message = this.#userMessage(conversation, undefined, body)
    conversation.messages.push(message)
    return success(messageObject(message))
  }

  /** The user's messages and the answers of a conversation, a page of them. */
  messages(query: URLSearchParams, body: JsonObject): JsonObject {
    const { order, chat_id: chatId, before_id: before, after_id: after, limit } = body
    const all = this.conversation(query).messages.filter((message) => !chatId || message.chatId === chatId)
    const ordered = order === 'asc' ? all : all.toReversed()
    const last = before ? ordered.findIndex((message) => message.id === before) : -1
    const first = after ? ordered.findIndex((message) => message.id === after) + 1 : 0
    const size = Math.min(typeof limit === 'number' && limit > 0 ? limit : 50, 50)
    const rest = ordered.slice(first, last === -1 ? undefined : last)
    const page = rest.slice(0, size)
    return success(page.map(messageObject), {
      first_id: page[0]?.id ?? '',
      last_id: page.at(-1)?.id ?? '',
      has_more: rest.length > page.length,
    })
  }

  message(query: URLSearchParams): MessageParts {
    const found = this.conversation(query).messages.find((message) => message.id === query.get('message_id'))
    if (!found) throw new Refusal(4005, 'The message does not exist.')
    return found
  }

  modify(query: URLSearchParams, body: JsonObject): JsonObject {
    const message = this.message(query)
    const { content, content_type: contentType, meta_data: metaData } = body
    checkMetaData(metaData)
    const changed: MessageParts = {
      ...message,
      ...(typeof content === 'string' ? { content } : {}),
      ...(typeof contentType === 'string' ? { contentType } : {}),
      ...(metaData === undefined ? {} : { metaData: metaData as Readonly<Record<string, string>> }),
    }
    const { messages } = this.conversation(query)
    messages[messages.indexOf(message)] = changed
    // Unlike every other call, this one answers under `message`.
    return { code: 0, message: messageObject(changed), msg: '' }
  }

  removeMessage(query: URLSearchParams): JsonObject {
    const message = this.message(query)
    const conversation = this.conversation(query)
    conversation.messages = conversation.messages.filter((each) => each !== message)
    return success(messageObject(message))
  }

  keepFile(body: JsonObject): JsonObject {
    if (typeof body['bytes'] !== 'number') throw new Refusal(4000, 'The field `file` is missing.')
    if (body['bytes'] === 0) throw new Refusal(4300, 'The file is empty.')
    if (body['parts'] !== 1) throw new Refusal(4301, 'Exactly one file is taken.')
    const id = this.id()
    const file = { bytes: body['bytes'], created_at: now(), file_name: asText(body['file_name']), id }
    this.#keep(this.#files, id, file)
    return success(file)
  }

  file(id: string): JsonObject {
    const file = this.#files.get(id)
    if (!file) throw new Refusal(4200, 'The file does not exist.')
    return file
  }

  botObject(): JsonObject {
    return { bot_id: this.#options.botId ?? '7300000000000000001', name: 'Simulated bot', description: '' }
  }

  #keep<Value>(map: Map<string, Value>, id: string, value: Value): void {
    map.set(id, value)
    if (map.size <= maxKept) return
    for (const oldest of map.keys()) {
      map.delete(oldest)
      break
    }
  }
}

function send(response: ServerResponse, answer: HttpAnswer): undefined {
  if (answer.cut) {
    response.socket?.destroy()
    return undefined
  }
  response.writeHead(answer.status ?? 200, {
    'content-type': answer.type ?? 'application/json',
    'x-tt-logid': logId(),
    ...answer.headers,
  })
  response.end(answer.body)
  return undefined
}

async function bodyOf(request: IncomingMessage): Promise<JsonObject> {
  const chunks: Buffer[] = []
  let size = 0
  for await (const chunk of request as AsyncIterable<Buffer>) {
    size += chunk.length
    if (size > maxBody) throw new Refusal(4000, 'The body is too large.', 413)
    chunks.push(chunk)
  }
  const body = Buffer.concat(chunks)
  const type = request.headers['content-type'] ?? ''
  if (type.startsWith('multipart/form-data')) return uploadIn(body, type)
  if (body.length === 0) return {}
  const parsed = parseExactJson(body.toString())
  if (typeof parsed !== 'object' || parsed === null || Array.isArray(parsed)) {
    throw new Refusal(4000, 'The field http body provided is not a valid json or chat request.')
  }
  return parsed as JsonObject
}

async function uploadIn(body: Buffer<ArrayBuffer>, type: string): Promise<JsonObject> {
  const form = await new Response(body, { headers: { 'content-type': type } }).formData()
  const files = form.getAll('file').filter((part) => typeof part !== 'string')
  const file = files[0]
  return file ? { file_name: file.name, bytes: file.size, type: file.type, parts: files.length } : {}
}

function checkMetaData(metaData: Json | undefined): void {
  if (metaData === undefined || metaData === null) return
  const pairs = Object.entries(asObject(metaData))
  if (pairs.length > 16 || !pairs.every(fits)) throw new Refusal(4003, 'meta_data is over its limits.')
}

const fits = ([key, value]: [string, Json]): boolean =>
  key.length > 0 && key.length <= 64 && typeof value === 'string' && value.length > 0 && value.length <= 512

const conversationObject = (conversation: Conversation): JsonObject => ({
  id: conversation.id,
  name: conversation.name,
  meta_data: conversation.metaData,
  created_at: conversation.createdAt,
  creator_id: '1000000000001',
  connector_id: '1024',
  updated_at: conversation.updatedAt,
  last_section_id: conversation.sectionId,
})

/** The list of a chat's messages is not in the order of time: notes come first. */
const listed = (messages: readonly MessageParts[]): JsonObject[] =>
  messages
    .toSorted((one, other) => Number(other.type === 'verbose') - Number(one.type === 'verbose'))
    .map(messageObject)

/** The words of a message in a request: its text, or the text item of its `object_string`. */
function textOf(message: JsonObject): string {
  const content = typeof message['content'] === 'string' ? message['content'] : ''
  return message['content_type'] === 'object_string' ? textItem(content) : content
}

const wordsOf = (message: MessageParts): string =>
  message.contentType === 'object_string' ? textItem(message.content) : message.content

function textItem(content: string): string {
  const items = parseExactJson(content)
  const item = Array.isArray(items) ? items.map(asObject).find((each) => each['type'] === 'text') : undefined
  return typeof item?.['text'] === 'string' ? item['text'] : ''
}

const asObject = (value: unknown): JsonObject =>
  typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as JsonObject) : {}
const asText = (value: Json | undefined): string =>
  typeof value === 'string' ? value : value === undefined ? '' : JSON.stringify(value)
const now = () => Math.floor(Date.now() / 1000)
const logId = () => randomBytes(16).toString('hex').toUpperCase()
