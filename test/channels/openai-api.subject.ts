import { consentFunction } from '../../core/consent-call.ts'
import { readCallId } from '../../channels/openai-api/encode.ts'
import type { ToolCall } from '../../core/events.ts'
import { parseEvents } from '../../core/sse.ts'
import { openaiApi, sse } from '../../index.ts'
import type { Answer, ChannelSubject, Client, Said } from '../suites/channel.ts'
import { codeIn, requester, sseSubject } from './clients.ts'
import type { Caller } from './clients.ts'

interface Chunk {
  readonly choices: readonly {
    readonly delta: {
      readonly content?: string
      readonly tool_calls?: readonly {
        readonly id: string
        readonly function: { readonly name: string; readonly arguments: string }
      }[]
    }
    readonly finish_reason: string | null
  }[]
  readonly hub: { readonly turn: string; readonly seq: number }
  readonly error?: { readonly code: string }
}

/** OpenAI's clients look for codes of their own. */
const hubCodes: Readonly<Record<string, string>> = { model_not_found: 'unknown_bot', invalid_api_key: 'unauthorized' }
const hubCode = (code: string): string => hubCodes[code] ?? code

const path = '/v1/chat/completions'

/** A client that knows OpenAI's dialect, and reads a turn on over `sse`, which OpenAI has no word for. */
async function connectOpenai(url: string, caller?: Caller): Promise<Client> {
  const http = requester(url, caller)
  const beside = await sseSubject.connect(url, caller)
  const bots = new Map<string, string>()
  const calls = new Map<string, readonly { readonly id: string; readonly call: string }[]>()

  async function* answer(body: object, headers: Record<string, string> = {}): Answer {
    const { model: bot } = body as { readonly model: string }
    const response = await http.send(path, 'text/event-stream', JSON.stringify({ stream: true, ...body }), headers)
    if (!response.ok) return yield { type: 'failed', code: hubCode(codeIn(await http.text(response))) }
    const turn = response.headers.get('x-request-id')!
    bots.set(turn, bot)
    let end: Said | undefined
    for await (const { data } of parseEvents(http.chunks(response), { maxEventLength: 64 * 1_048_576 })) {
      if (data === '[DONE]') return yield end!
      const { choices, hub, error } = JSON.parse(data) as Chunk
      if (error)
        return yield error.code === 'cancelled'
          ? { type: 'cancelled', turn }
          : { type: 'failed', code: error.code, turn }
      const [choice] = choices
      if (choice?.delta.content) yield { type: 'text', text: choice.delta.content, turn, place: hub.seq }
      const asked = choice?.delta.tool_calls ?? []
      if (asked.length > 0) {
        calls.set(
          turn,
          asked.map(({ id }) => ({ id, call: readCallId(id)!.call })),
        )
        end = { type: 'waiting', turn, calls: asked.map(callIn) }
      }
      if (choice?.finish_reason === 'stop') end = { type: 'done', turn }
    }
  }

  return {
    ask: (bot, text, { conversation, id } = {}) =>
      answer(
        { model: bot, messages: [{ role: 'user', content: text }], sessionId: conversation ?? crypto.randomUUID() },
        id === undefined ? {} : { 'idempotency-key': id },
      ),
    resume: (turn, after) => beside.resume(turn, after),
    decide(turn, decisions) {
      const outputs = decisions.map(({ call, result, reason }) => ({
        role: 'tool',
        tool_call_id: calls.get(turn)!.find((each) => each.call === call)!.id,
        content: reason === undefined ? result : JSON.stringify({ result, reason }),
      }))
      return answer({ model: bots.get(turn)!, messages: [{ role: 'user', content: 'as before' }, ...outputs] })
    },
    sendRaw: async (body) => codeIn(await http.text(await http.send(path, 'text/event-stream', body))),
    stall: (bot, text) =>
      http.stall(
        path,
        'text/event-stream',
        JSON.stringify({ model: bot, messages: [{ role: 'user', content: text }], stream: true }),
      ),
    received: () => http.received() + beside.received(),
    vanish() {
      http.gone.abort()
      beside.vanish()
    },
  }
}

/** What is asked about. */
function callIn({
  id,
  function: called,
}: NonNullable<Chunk['choices'][number]['delta']['tool_calls']>[number]): ToolCall {
  const input = JSON.parse(called.arguments) as ToolCall
  const { call } = readCallId(id)!
  return called.name === consentFunction ? { ...input, call } : { call, tool: called.name, input: input as never }
}

export const openaiApiSubject: ChannelSubject = {
  mount: (options) => openaiApi(options),
  streams: true,
  beside: { sse: sse() },
  connect: connectOpenai,
}
