import { z } from 'zod'
import { check } from '../../core/body.ts'
import { HubError } from '../../core/errors.ts'
import type { ConsentDecision, NumberedEvent, PendingCall, ToolCall, ToolOutput, Usage } from '../../core/events.ts'
import { clientName } from '../../core/ids.ts'
import type { Json } from '../../core/message.ts'
import { recordIds } from '../../core/records.ts'
import type { TurnRow } from '../../core/store.ts'
import { defaultConversation } from './bots.ts'
import type { Call } from './bots.ts'
import { failureIn } from './encode.ts'
import { besides } from './requests.ts'
import type { Answering, Encoder } from './streams.ts'

/*
 * The AG-UI dialect, which newer agents of CloudBase speak on the same path. Source: the schemas of `@ag-ui/core` 1.0.
 */

const part = z.looseObject({ type: z.string(), text: z.string().optional() })
const content = z.union([z.string(), z.array(part)])
const message = z.looseObject({
  id: clientName.optional(),
  role: z.string(),
  content: content.nullish(),
  toolCallId: z.string().nullish(),
})
const decided = z.object({
  result: z.enum(['allow_once', 'allow_always', 'deny_once']),
  reason: z.string().max(8192).exactOptional(),
})
const resumption = z.looseObject({
  interruptId: z.string(),
  status: z.enum(['resolved', 'cancelled']),
  payload: z.unknown().optional(),
})

/** Body of `POST /send-message` in the AG-UI dialect: only its last message is new to the hub. */
export const runInput = z
  .object({
    threadId: z.union([z.literal('').transform(() => undefined), clientName]).nullish(),
    runId: z.string().max(256).default(''),
    messages: z.array(message),
    resume: z.array(resumption).nullish().describe('Answers to what the last run asked: consent for its calls.'),
    forwardedProps: z
      .looseObject({
        files: z.array(z.string().min(1).max(2048)).max(20).nullish(),
        searchEnable: z.boolean().nullish(),
      })
      .nullish(),
  })
  .meta({ id: 'AgUiRun' })
type RunInput = z.output<typeof runInput>

/** Whether a body is of this dialect; one with a `msg` is of the classic one. */
export const isRunInput = (body: object): boolean => 'messages' in body && !('msg' in body)

/** Does what a run asks for: a new turn, or an answer to one that waits. */
export async function beginRun(call: Call, body: object): Promise<Answering> {
  const input = check(runInput, body)
  const { turn, after } = await turnFor(call, input)
  const run = { threadId: input.threadId ?? turn.conversation.name, runId: input.runId }
  return { turn, after, encoder: new AgUiEncoder(turn, run), begin: [{ type: 'RUN_STARTED', ...run }], end: '' }
}

interface Begun {
  readonly turn: TurnRow
  readonly after: number
}

function turnFor(call: Call, input: RunInput): Promise<Begun> {
  if (input.resume?.length) return decide(call, input.resume)
  const outputs = toolOutputsIn(input)
  return outputs.length > 0 ? giveOutputs(call, outputs) : send(call, input)
}

async function send({ ctx, context, bot }: Call, { threadId, messages, forwardedProps }: RunInput): Promise<Begun> {
  const last = messages.at(-1)
  if (last?.role !== 'user') {
    throw new HubError('invalid_request', { message: 'messages: the last one must be by the user, or a tool.' })
  }
  const { turn } = await context.hub.send(ctx.principal, {
    bot,
    channel: context.name,
    conversation: threadId ?? defaultConversation,
    id: last.id,
    text: textOf(last.content),
    ...besides(forwardedProps ?? {}),
  })
  return { turn, after: 0 }
}

const textOf = (said: z.output<typeof content> | null | undefined): string =>
  typeof said === 'string' ? said : (said ?? []).map(({ text = '' }) => text).join('')

interface Addressed {
  readonly turn: string
  readonly call: string
}

/** Bots may use an id of a call again in another turn; clients of AG-UI may not see that. */
const callIdOf = (turn: string, call: string): string => `${turn}/${call}`

/** @throws HubError `invalid_request` */
function readCallId(id: string): Addressed {
  const parts = /^(?<turn>turn_[0-9a-z]+)\/(?<call>.+)$/s.exec(id)?.groups
  if (!parts) throw new HubError('invalid_request', { message: 'Answer a call by the id it was shown with.' })
  return { turn: parts['turn']!, call: parts['call']! }
}

/** The messages of tools behind the last one of anybody else. */
function toolOutputsIn({ messages }: RunInput): readonly (ToolOutput & Addressed)[] {
  const behind = messages.slice(messages.findLastIndex(({ role }) => role !== 'tool') + 1)
  return behind.map(({ toolCallId, content: output }) => ({
    ...readCallId(toolCallId ?? ''),
    output: textOf(output),
  }))
}

async function giveOutputs(call: Call, outputs: readonly (ToolOutput & Addressed)[]): Promise<Begun> {
  const turn = await waitingTurn(call, outputs)
  await call.context.hub.giveOutputs(
    turn,
    outputs.map(({ call: id, output }) => ({ call: id, output })),
  )
  return { turn, after: turn.seq }
}

async function decide(call: Call, entries: NonNullable<RunInput['resume']>): Promise<Begun> {
  const decisions = entries.map((entry) => ({ ...readCallId(entry.interruptId), ...decisionIn(entry) }))
  const turn = await waitingTurn(call, decisions)
  await call.context.hub.decide(
    turn,
    call.ctx.principal,
    decisions.map(({ call: id, result, reason }) => ({
      call: id,
      result,
      ...(reason === undefined ? {} : { reason }),
    })),
  )
  return { turn, after: turn.seq }
}

const decisionIn = ({ status, payload }: z.output<typeof resumption>): Omit<ConsentDecision, 'call'> =>
  status === 'cancelled' ? { result: 'deny_once' } : check(decided, payload)

/** The one turn that all of them answer. */
async function waitingTurn({ ctx, context, bot }: Call, answers: readonly Addressed[]): Promise<TurnRow> {
  const turn = await context.hub.turn(ctx.principal, answers[0]!.turn)
  if (turn.bot !== bot) throw new HubError('unknown_turn')
  if (answers.some((each) => each.turn !== turn.id)) {
    throw new HubError('invalid_request', { message: 'Answer the calls of one run at a time.' })
  }
  return turn
}

type AgUiEvent = { readonly type: string; readonly [field: string]: unknown }

/** Encodes the events of one turn, from its first one on and in their order. */
class AgUiEncoder implements Encoder {
  readonly #turn: TurnRow
  readonly #run: { readonly threadId: string; readonly runId: string }
  readonly #messages: string[] = []
  readonly #thoughts = new Set<string>()
  readonly #calls = new Set<string>()
  #asked: { readonly calls: readonly (ToolCall & Partial<PendingCall>)[]; readonly expiresAt?: string } = { calls: [] }

  constructor(turn: TurnRow, run: { readonly threadId: string; readonly runId: string }) {
    this.#turn = turn
    this.#run = run
  }

  encode(event: NumberedEvent): readonly AgUiEvent[] {
    switch (event.type) {
      case 'message.delta':
        return this.#text(event.message, event.text)
      case 'message.completed':
        return this.#completed(event.message, event.text)
      case 'reasoning.delta':
        return this.#thought(event.message, event.text)
      case 'reasoning.completed':
        return this.#thoughtCompleted(event.message, event.text)
      case 'tool.started':
        return this.#toolCall(event)
      case 'tool.completed':
        return this.#toolResult(event)
      case 'consent.requested':
      case 'tool.outputs_requested':
        this.#asked = event
        return event.calls.flatMap((call) => this.#toolCall(call))
      case 'consent.answered': {
        const answered = new Set(event.decisions.map(({ call }) => call))
        this.#asked = { ...this.#asked, calls: this.#asked.calls.filter(({ call }) => !answered.has(call)) }
        return []
      }
      case 'turn.waiting':
        return [this.#finished(event.for === 'consent' ? this.#interrupt() : this.#pending())]
      case 'turn.completed':
        return [{ ...this.#finished({ type: 'success' }), ...usageOf(event.usage) }]
      case 'turn.failed':
      case 'turn.interrupted':
      case 'turn.cancelled': {
        const { code, message: sentence } = failureIn(event)!
        return [{ type: 'RUN_ERROR', message: sentence, code }]
      }
      default:
        return []
    }
  }

  /** The first message has the id of the turn's record, so that it can be rated by it. */
  #messageId(id: string): string {
    const place = this.#messages.indexOf(id)
    const { bot } = recordIds(this.#turn.id)
    return place === 0 ? bot : `${bot}.${place}`
  }

  #text(id: string, delta: string): readonly AgUiEvent[] {
    const isNew = !this.#messages.includes(id)
    if (isNew) this.#messages.push(id)
    const messageId = this.#messageId(id)
    return [
      ...(isNew ? [{ type: 'TEXT_MESSAGE_START', messageId, role: 'assistant' }] : []),
      ...(delta === '' ? [] : [{ type: 'TEXT_MESSAGE_CONTENT', messageId, delta }]),
    ]
  }

  #completed(id: string, text: string): readonly AgUiEvent[] {
    const begun = this.#messages.includes(id) ? [] : this.#text(id, text)
    return [...begun, { type: 'TEXT_MESSAGE_END', messageId: this.#messageId(id) }]
  }

  /** In the words of AG-UI before 1.0, which CloudBase's UI knows; later clients know both. */
  #thought(id: string, delta: string): readonly AgUiEvent[] {
    const isNew = !this.#thoughts.has(id)
    this.#thoughts.add(id)
    return [
      ...(isNew ? [{ type: 'THINKING_START' }, { type: 'THINKING_TEXT_MESSAGE_START' }] : []),
      ...(delta === '' ? [] : [{ type: 'THINKING_TEXT_MESSAGE_CONTENT', delta }]),
    ]
  }

  #thoughtCompleted(id: string, text: string): readonly AgUiEvent[] {
    const begun = this.#thoughts.has(id) ? [] : this.#thought(id, text)
    return [...begun, { type: 'THINKING_TEXT_MESSAGE_END' }, { type: 'THINKING_END' }]
  }

  #toolCall({ call, tool, input }: ToolCall): readonly AgUiEvent[] {
    if (this.#calls.has(call)) return []
    this.#calls.add(call)
    const toolCallId = callIdOf(this.#turn.id, call)
    return [
      { type: 'TOOL_CALL_START', toolCallId, toolCallName: tool },
      { type: 'TOOL_CALL_ARGS', toolCallId, delta: JSON.stringify(input) },
      { type: 'TOOL_CALL_END', toolCallId },
    ]
  }

  #toolResult({ call, output }: { readonly call: string; readonly output: Json }): readonly AgUiEvent[] {
    const toolCallId = callIdOf(this.#turn.id, call)
    const text = typeof output === 'string' ? output : JSON.stringify(output)
    return [
      ...this.#toolCall({ call, tool: 'tool', input: {} }),
      { type: 'TOOL_CALL_RESULT', messageId: `${toolCallId}/result`, toolCallId, content: text, role: 'tool' },
    ]
  }

  #finished(outcome: object): AgUiEvent {
    return { type: 'RUN_FINISHED', ...this.#run, outcome }
  }

  /** The client is to run its tools, and to bring what came of it. */
  #pending(): object {
    return { type: 'success', pendingToolCallIds: this.#asked.calls.map(({ call }) => callIdOf(this.#turn.id, call)) }
  }

  #interrupt(): object {
    const { calls, expiresAt } = this.#asked
    return {
      type: 'interrupt',
      interrupts: calls.map(({ call, tool, reason }) => ({
        id: callIdOf(this.#turn.id, call),
        reason: 'consent',
        message: reason ?? `May the bot use ${tool}?`,
        toolCallId: callIdOf(this.#turn.id, call),
        responseSchema: decisionSchema,
        ...(expiresAt === undefined ? {} : { expiresAt }),
      })),
    }
  }
}

const decisionSchema = z.toJSONSchema(decided)

const usageOf = (usage: Usage | undefined): object =>
  usage
    ? {
        usage: [
          {
            inputTokens: usage.inputTokens,
            outputTokens: usage.outputTokens,
            totalTokens: usage.totalTokens,
            ...(usage.model === undefined ? {} : { model: usage.model }),
          },
        ],
      }
    : {}
