import { z } from 'zod'
import { asHubError } from './errors.ts'
import type { HubEvent, ToolCall, ToolOutput } from './events.ts'
import type { Json } from './message.ts'
import type { Turn } from './turn.ts'
import { untilAborted } from './until-aborted.ts'

/** A function of the hub's config that a bot's model may call. */
export interface LocalTool<Input = unknown> {
  readonly description?: string
  /** Checks and types the input; without it any input goes. */
  readonly parameters?: z.ZodType<Input>
  /** Default 30,000. */
  readonly timeoutMs?: number
  /** Its result is JSON or a string; throwing tells the model that the tool failed. */
  run(input: Input, context: { readonly turn: Turn; readonly signal: AbortSignal }): unknown
}

/** Local tools by the name that the model calls them. */
export type LocalTools = Readonly<Record<string, LocalTool>>

/** An option that takes local tools; none by default. */
export const localTools = () =>
  z.custom<LocalTools>(isTools, 'must be an object of tools, each with a `run` function').default({})

function isTools(value: unknown): boolean {
  if (typeof value !== 'object' || value === null) return false
  return Object.values(value).every(
    (each: unknown) => typeof each === 'object' && each !== null && 'run' in each && typeof each.run === 'function',
  )
}

/**
 * Declares a local tool with its input typed by `parameters`.
 * @example tool({ parameters: z.object({ city: z.string() }), run: ({ city }) => `Sunny in ${city}.` })
 */
export const tool = <Input>(definition: LocalTool<Input>): LocalTool => definition

/**
 * Settles the calls an upstream has put to us: runs local tools, asks for consent where the bot's `consent` wants it,
 * and leaves the others to the client. Call it again with the same calls, and the outputs it gave, when the turn goes
 * on with `turn.answers`.
 *
 * Returns the outputs there are. When some are missing it has yielded the request for them, and the provider keeps
 * `outputs` in its cursor and returns.
 */
export async function* settleCalls(
  turn: Turn,
  tools: LocalTools,
  calls: readonly ToolCall[],
  before: readonly ToolOutput[] = [],
): AsyncGenerator<HubEvent, { outputs: readonly ToolOutput[]; settled: boolean }> {
  const outputs = new Map(before.map((output) => [output.call, output]))
  if (turn.answers?.type === 'tool_outputs') for (const output of turn.answers.outputs) outputs.set(output.call, output)
  const decisions = new Map(
    turn.answers?.type === 'consent' ? turn.answers.decisions.map((decision) => [decision.call, decision]) : [],
  )
  const open = calls.filter((call) => !outputs.has(call.call))
  const local = open.filter((call) => Object.hasOwn(tools, call.tool))
  const ask = local.filter((call) => !decisions.has(call.call) && turn.asksConsent?.(call))
  for (const call of local) {
    if (ask.includes(call)) continue
    const decision = decisions.get(call.call)
    yield { type: 'tool.started', ...call }
    const { output, isError } =
      decision?.result === 'deny_once'
        ? { output: `The user did not allow this call.${decision.reason ? ` ${decision.reason}` : ''}`, isError: true }
        : await runTool(turn, tools[call.tool]!, call)
    outputs.set(call.call, { call: call.call, output })
    yield { type: 'tool.completed', call: call.call, output, isError }
  }
  const client = open.filter((call) => !Object.hasOwn(tools, call.tool))
  if (ask.length > 0)
    yield { type: 'consent.requested', calls: ask.map((call) => ({ ...call, alreadyAllowed: false })) }
  else if (client.length > 0) yield { type: 'tool.outputs_requested', calls: client }
  return { outputs: [...outputs.values()], settled: ask.length + client.length === 0 }
}

async function runTool(turn: Turn, definition: LocalTool, call: ToolCall): Promise<{ output: Json; isError: boolean }> {
  const parsed = definition.parameters?.safeParse(call.input)
  if (parsed && !parsed.success) return { output: `The input is not valid: ${parsed.error.message}`, isError: true }
  const timeout = AbortSignal.timeout(definition.timeoutMs ?? 30_000)
  const signal = AbortSignal.any([turn.signal, timeout])
  try {
    const running = Promise.try(() => definition.run(parsed ? parsed.data : call.input, { turn, signal }))
    return { output: toJson(await untilAborted(running, signal)), isError: false }
  } catch (error) {
    if (turn.signal.aborted) throw turn.signal.reason
    if (timeout.aborted) return { output: 'The tool took too long.', isError: true }
    return {
      output: `The tool failed: ${asHubError(error).cause instanceof Error ? (error as Error).message : 'no reason given'}`,
      isError: true,
    }
  }
}

const toJson = (value: unknown): Json => (value === undefined ? null : (JSON.parse(JSON.stringify(value)) as Json))
