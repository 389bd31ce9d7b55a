import { createHash } from 'node:crypto'
import { z } from 'zod'
import type { Principal } from '../../core/auth.ts'
import type { Clock } from '../../core/clock.ts'
import { HubError } from '../../core/errors.ts'
import type { HubEvent, ToolCall, ToolOutput, Usage } from '../../core/events.ts'
import { flatMap, inParts, oneByOne } from '../../core/flow.ts'
import type { Parts } from '../../core/flow.ts'
import { parseExactJson } from '../../core/json.ts'
import type { Json, JsonObject } from '../../core/message.ts'
import { defineProvider } from '../../core/plugin.ts'
import { env, Secret, secret, setting } from '../../core/settings.ts'
import { localTools, settleCalls } from '../../core/tools.ts'
import type { LocalTools } from '../../core/tools.ts'
import type { Turn } from '../../core/turn.ts'
import { openaiClient } from './client.ts'
import type { OpenaiClient } from './client.ts'
import { startOpenaiSimulator } from './simulator.ts'
import { CallCollector } from './wire.ts'
import type { OpenaiChunk } from './wire.ts'

/** A function that the model may call and the client runs: what it gives comes as a tool output. */
const clientTool = z.strictObject({
  description: z.string().optional().describe('What the model is told of it.'),
  parameters: z
    .custom<z.ZodType>((value) => value instanceof z.ZodType, 'must be a zod schema')
    .optional()
    .describe('The schema of its input; any object without one.'),
})

/** Fields of the request that are made here, and options that say what to write instead. */
const taken = { messages: 'instructions', model: 'model', tools: 'tools', stream: undefined, n: undefined } as const

const options = z
  .strictObject({
    /** Where the server is, with the version in the path. Default: OPENAI_BASE_URL, else `https://api.openai.com/v1`. */
    baseUrl: setting().optional(),
    /** Default: OPENAI_API_KEY, where `baseUrl` is not set. A local server may need none. */
    apiKey: secret().optional(),
    /** The model. Default: OPENAI_MODEL. */
    model: setting().optional(),
    /** What the model is told before anything else. */
    instructions: z.string().min(1).optional(),
    /**
     * Further fields of the request, such as `temperature`, `max_completion_tokens` or `reasoning_effort`. Null leaves out
     * one that the hub sends and the server does not take: `stream_options`, `user`.
     */
    parameters: z
      .record(z.string(), z.json())
      .default({})
      .superRefine((given, context) => {
        for (const [field, instead] of Object.entries(taken)) {
          if (given[field] === undefined) continue
          const hint = instead === undefined ? 'leave it out' : `use the option \`${instead}\` instead`
          context.addIssue({ code: 'custom', path: [field], message: `is set by the hub; ${hint}` })
        }
      }),
    /** Functions of the hub that the model may call, by name. */
    tools: localTools(),
    /** Functions of the client that the model may call, by name; the turn waits for their outputs. */
    clientTools: z.record(z.string(), clientTool).default({}),
    /** How often in one turn the model may call tools. */
    maxRounds: z.int().positive().default(10),
    /** Longest silence of a stream, in ms. */
    idleTimeoutMs: z.int().positive().default(60_000),
    /** Answers come from a simulator in the hub's own process; no account, key or network is needed. */
    simulated: z.boolean().default(false),
  })
  .superRefine((given, context) => {
    const twice = Object.keys(given.clientTools).find((name) => Object.hasOwn(given.tools, name))
    if (twice !== undefined) {
      context.addIssue({ code: 'custom', path: ['clientTools', twice], message: 'is also one of `tools`; keep one' })
    }
    if (given.simulated) return
    const needed = [
      ...(given.model === undefined ? [['model', 'OPENAI_MODEL']] : []),
      ...(given.apiKey === undefined && given.baseUrl === undefined && !process.env['OPENAI_BASE_URL']
        ? [['apiKey', 'OPENAI_API_KEY']]
        : []),
    ] as const
    for (const [key, name] of needed) {
      const found = setting().safeParse(env(name!))
      for (const { message } of found.error?.issues ?? []) context.addIssue({ code: 'custom', path: [key!], message })
    }
  })

type OpenaiOptions = z.output<typeof options>

/**
 * A model at OpenAI or at any server that speaks its chat completions: DeepSeek, Qwen, Ollama, vLLM, LM Studio and many
 * more. It is told the conversation as the hub remembers it, and may call functions of the hub (`tools`), which ask first
 * where `consent()` says so, or of the client (`clientTools`).
 * @example openai({ model: 'gpt-5', instructions: 'You are a patient teacher.' }) // OPENAI_API_KEY
 * @example openai({ baseUrl: 'http://127.0.0.1:11434/v1', model: 'llama3.2' }) // Ollama, which needs no key
 */
export const openai = defineProvider({
  manifest: { name: 'openai', consent: true, toolOutputs: true, idleTimeoutMs: 60_000 },
  options,
  async create(given, { fetch, clock }) {
    const simulator = given.simulated ? await startOpenaiSimulator() : undefined
    const client = openaiClient({
      baseUrl: simulator?.url ?? given.baseUrl ?? setting().parse(env('OPENAI_BASE_URL', 'https://api.openai.com/v1')),
      apiKey: simulator ? new Secret(simulator.apiKey) : keyOf(given),
      fetch,
      idleTimeoutMs: given.idleTimeoutMs,
    })
    const model = given.model ?? simulator?.model ?? setting().parse(env('OPENAI_MODEL'))
    return {
      simulated: simulator !== undefined,
      respond: (turn) => inParts(() => respond(turn, { ...given, model, client, clock })),
      close: () => simulator?.close(),
    }
  },
})

/** The key in the environment is for the server in the environment: another one is not shown it. */
function keyOf({ apiKey, baseUrl }: OpenaiOptions): Secret | undefined {
  if (apiKey !== undefined || baseUrl !== undefined) return apiKey
  return process.env['OPENAI_API_KEY'] ? secret().parse(env('OPENAI_API_KEY')) : undefined
}

type Events<Result> = Parts<HubEvent, Result>
type Settings = OpenaiOptions & { readonly model: string; readonly client: OpenaiClient; readonly clock: Clock }

/** How often a request with the outputs of tools is made again that was not taken, and the longest pause before it. */
const maxTries = 4
const maxPauseMs = 30_000

/** A turn on its way through its rounds: the model speaks, calls tools, is given what they gave, and speaks again. */
interface Run {
  readonly turn: Turn
  /** What came after the user's message, as the model has to be told it again. */
  messages: JsonObject[]
  /** The calls that the last round made, until they are settled. */
  calls: readonly ToolCall[]
  outputs: readonly ToolOutput[]
  rounds: number
}

async function* respond(turn: Turn, settings: Settings): Events<void> {
  const run = startRun(turn)
  for (;;) {
    if (run.calls.length > 0 && !(yield* settle(run, settings))) return
    yield* speak(run, settings)
    if (run.calls.length === 0) return
    if (run.rounds > settings.maxRounds) {
      const cause = new Error(`the model called tools more than ${settings.maxRounds} times`)
      throw new HubError('upstream_failed', { cause })
    }
  }
}

/** One request: what the model says, and the calls it makes, which are kept for the next round. */
async function* speak(run: Run, settings: Settings): Events<void> {
  const round = ++run.rounds
  const said = yield* read(await ask(run, settings), round)
  if (said.calls.length === 0) return
  const used = new Set(run.messages.flatMap(callIdsIn))
  const calls = said.calls.map(({ id, ...call }, index) => {
    // Some servers give no ids, or the same ones in every round.
    const unique = id !== undefined && !used.has(id) ? id : `call-${round}-${index + 1}`
    used.add(unique)
    return { ...call, id: unique }
  })
  run.messages.push(assistantMessage(said, calls))
  run.calls = calls.map(({ id, name, arguments: input }) => ({ call: id, tool: name, input: inputOf(input) }))
}

/**
 * A first request that was not taken is the business of `retry`. Behind tools that have run the turn could not be begun
 * again, so there it is made again here.
 */
async function ask(run: Run, settings: Settings): ReturnType<OpenaiClient['chat']> {
  const { signal } = run.turn
  for (let tries = 1; ; tries++) {
    try {
      return await settings.client.chat(requestOf(run, settings), signal)
    } catch (error) {
      const isRefused = error instanceof HubError && error.notStarted && run.rounds > 1
      const pauseMs = isRefused ? (error.retryAfterMs ?? 500 * 2 ** tries) : Number.POSITIVE_INFINITY
      if (tries === maxTries || pauseMs > maxPauseMs) throw error
      await settings.clock.sleep(pauseMs + Math.random() * 500, signal)
    }
  }
}

interface Said {
  readonly text: string
  readonly reasoning: { readonly field: string; readonly text: string } | undefined
  readonly calls: CallCollector['calls']
}

/** Reads one answer to its end. */
async function* read(chunks: AsyncIterable<OpenaiChunk>, round: number): Events<Said> {
  const message = `answer-${round}`
  const thoughts = `thoughts-${round}`
  const collector = new CallCollector()
  const content: string[] = []
  let reasoning: Said['reasoning']
  let thinking = false
  let cost: Usage | undefined
  function closeThoughts(): HubEvent[] {
    if (!thinking) return []
    thinking = false
    return [{ type: 'reasoning.completed', message: thoughts, text: reasoning!.text }]
  }
  try {
    yield flatMap(chunks, ({ delta, usage }) => {
      const events: HubEvent[] = []
      if (delta.reasoning) {
        thinking = true
        reasoning = { field: delta.reasoning.field, text: (reasoning?.text ?? '') + delta.reasoning.text }
        events.push({ type: 'reasoning.delta', message: thoughts, text: delta.reasoning.text })
      }
      if (delta.content !== '') {
        events.push(...closeThoughts(), { type: 'message.delta', message, text: delta.content })
        content.push(delta.content)
      }
      collector.add(delta.calls)
      // Some servers tell with every chunk what it has cost so far.
      cost = usage ?? cost
      return events
    })
  } catch (error) {
    if (cost) yield [{ type: 'usage', ...cost }]
    throw error
  }
  yield closeThoughts()
  const text = content.join('')
  if (text !== '') yield [{ type: 'message.completed', message, text }]
  if (cost) yield [{ type: 'usage', ...cost }]
  return { text, reasoning, calls: collector.calls }
}

/** The thoughts go back with the calls that came of them: DeepSeek refuses the outputs without. */
const assistantMessage = (
  { text, reasoning }: Said,
  calls: readonly { readonly id: string; readonly name: string; readonly arguments: string }[],
): JsonObject => ({
  role: 'assistant',
  content: text === '' ? null : text,
  ...(reasoning ? { [reasoning.field]: reasoning.text } : {}),
  tool_calls: calls.map(({ id, name, arguments: input }) => ({
    id,
    type: 'function',
    function: { name, arguments: input },
  })),
})

/** Unreadable arguments stay the text they are. */
const inputOf = (written: string): Json => (written.trim() === '' ? {} : (parseExactJson(written) ?? written))

/** Gathers the outputs of the calls. False when somebody else has to answer first. */
async function* settle(run: Run, { tools, clientTools }: Settings): Events<boolean> {
  for (const call of run.calls) {
    const problem = problemWith(call, tools, clientTools)
    if (problem === undefined || run.outputs.some((output) => output.call === call.call)) continue
    run.outputs = [...run.outputs, { call: call.call, output: problem }]
    yield [
      { type: 'tool.started', ...call },
      { type: 'tool.completed', call: call.call, output: problem, isError: true },
    ]
  }
  yield [cursorOf(run)]
  const { outputs, settled } = yield* oneByOne(settleCalls(run.turn, tools, run.calls, run.outputs))
  run.outputs = outputs
  if (!settled) {
    yield [cursorOf(run)]
    return false
  }
  for (const { call } of run.calls) {
    const output = outputs.find((each) => each.call === call)?.output ?? null
    run.messages.push({ role: 'tool', tool_call_id: call, content: asText(output) })
  }
  run.calls = []
  run.outputs = []
  return true
}

/** What is wrong with a call, in words for the model that made it. */
function problemWith(
  { tool, input }: ToolCall,
  tools: LocalTools,
  clientTools: OpenaiOptions['clientTools'],
): string | undefined {
  if (!Object.hasOwn(tools, tool) && !Object.hasOwn(clientTools, tool)) return `There is no tool called "${tool}".`
  if (typeof input === 'string') return 'The arguments are not valid JSON. Call the tool again.'
  return undefined
}

function requestOf(
  { turn, messages }: Run,
  { model, instructions, parameters, tools, clientTools }: Settings,
): JsonObject {
  const declared = Object.entries<z.infer<typeof clientTool>>({ ...tools, ...clientTools })
  const further = { stream_options: { include_usage: true }, user: userId(turn.principal), ...parameters }
  return {
    ...Object.fromEntries(Object.entries(further).filter(([, value]) => value !== null)),
    model,
    messages: [
      ...(instructions === undefined ? [] : [{ role: 'system', content: instructions }]),
      ...turn.history.map(({ role, text }) => ({ role: role === 'user' ? 'user' : 'assistant', content: text })),
      { role: 'user', content: turn.message.text },
      ...messages,
    ],
    ...(declared.length === 0 ? {} : { tools: declared.map(([name, each]) => toolObject(name, each)) }),
    stream: true,
  }
}

const toolObject = (name: string, { description, parameters }: z.infer<typeof clientTool>): JsonObject => ({
  type: 'function',
  function: {
    name,
    ...(description === undefined ? {} : { description }),
    parameters: parameters ? schemaOf(parameters) : { type: 'object', properties: {} },
  },
})

const schemaOf = (parameters: z.ZodType): JsonObject => {
  const { $schema: _, ...schema } = z.toJSONSchema(parameters, { io: 'input', unrepresentable: 'any' })
  return z.record(z.string(), z.json()).parse(JSON.parse(JSON.stringify(schema)))
}

/** Two principals are never one to the platform, and none can choose another's name. */
const userId = ({ key, user }: Principal): string =>
  `u_${createHash('sha256')
    .update(`${key}\0${user ?? ''}`)
    .digest('hex')
    .slice(0, 24)}`

const cursorShape = z.object({
  messages: z.array(z.record(z.string(), z.json())),
  calls: z.array(z.object({ call: z.string(), tool: z.string(), input: z.json() })),
  outputs: z.array(z.object({ call: z.string(), output: z.json() })),
  rounds: z.int(),
})

/** A turn that goes on after a pause is told by its cursor what was said and called before. */
function startRun(turn: Turn): Run {
  const cursor = cursorShape.safeParse(turn.resume).data
  return { turn, ...(cursor ?? { messages: [], calls: [], outputs: [], rounds: 0 }) }
}

const cursorOf = ({ messages, calls, outputs, rounds }: Run): HubEvent => ({
  type: 'upstream',
  cursor: {
    messages,
    calls: calls.map((call) => ({ ...call })),
    outputs: outputs.map((output) => ({ ...output })),
    rounds,
  },
})

function callIdsIn({ tool_calls: calls }: JsonObject): string[] {
  return (
    z
      .array(z.object({ id: z.string() }))
      .safeParse(calls)
      .data?.map(({ id }) => id) ?? []
  )
}

const asText = (output: Json): string => (typeof output === 'string' ? output : JSON.stringify(output))
