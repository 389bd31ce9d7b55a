import { parseEvents } from '../../core/sse.ts'
import type { ToolCall } from '../../core/events.ts'
import type { ClassicFrame } from '../../channels/cloudbase-api/encode.ts'
import { cloudbaseApi, rest } from '../../index.ts'
import type { Answer, ChannelSubject, Client } from '../suites/channel.ts'
import { codeIn, requester } from './clients.ts'
import type { Caller } from './clients.ts'

/** Of a turn, the client needs to know whose bot it is, and the suite does not. */
const bots = new Map<string, string>()
/** Of a client that never reads, nobody knows the turn. */
let stalled = 'parrot'
/** Where in a turn its client was told that it waits. */
const waits = new Map<string, number>()

async function connectCloudBase(url: string, caller?: Caller): Promise<Client> {
  const http = requester(url, caller)
  const path = (bot: string) => `/v1/aibot/bots/${bot}/send-message`
  async function* answer(bot: string, body: object, headers: Record<string, string>): Answer {
    const response = await http.send(path(bot), 'text/event-stream', JSON.stringify(body), headers)
    if (!response.ok) return yield { type: 'failed', code: failureIn(await http.text(response)) }
    const turn = response.headers.get('x-request-id')!
    bots.set(turn, bot)
    const calls: ToolCall[] = []
    for await (const { id, data } of parseEvents(http.chunks(response), { maxEventLength: 64 * 1_048_576 })) {
      if (data === '[DONE]') return
      const { type, content, tool_call, error } = JSON.parse(data) as ClassicFrame
      const place = Number(id?.split('/')[1] ?? 0)
      if (type === 'text') yield { type, text: content, turn, place }
      if (tool_call) {
        calls.push({ call: tool_call.id, tool: tool_call.function.name, input: tool_call.function.arguments })
      }
      if (type === 'finish') yield { type: 'done', turn }
      if (error?.code === 'turn_waiting') {
        waits.set(turn, place)
        yield { type: 'waiting', turn, calls }
      } else if (error?.code === 'cancelled') yield { type: 'cancelled', turn }
      else if (error) yield { type: 'failed', code: error.code, turn }
    }
  }
  const resume = (turn: string, after: number) =>
    answer(bots.get(turn) ?? stalled, { msg: '' }, { 'last-event-id': `${turn}/${after}` })
  return {
    ask: (bot, text, { conversation = crypto.randomUUID(), id = '' } = {}) =>
      answer(bot, { msg: text, conversationId: conversation }, { 'idempotency-key': id }),
    resume,
    // This dialect has no word for a decision: it is given over REST, and what comes then is read here.
    async *decide(turn, decisions) {
      const decided = await http.send(
        `/api/v1/turns/${turn}/consent`,
        'application/json',
        JSON.stringify({ decisions }),
        { prefer: 'respond-async' },
      )
      if (!decided.ok) return yield { type: 'failed', code: codeIn(await http.text(decided)) }
      yield* resume(turn, waits.get(turn)!)
    },
    sendRaw: async (body) => failureIn(await http.text(await http.send(path('parrot'), 'text/event-stream', body))),
    stall(bot, text) {
      stalled = bot
      return http.stall(path(bot), 'text/event-stream', JSON.stringify({ msg: text }))
    },
    received: http.received,
    vanish: () => http.gone.abort(),
  }
}

const failureIn = (body: string): string => (JSON.parse(body) as { readonly code: string }).code

export const cloudbaseApiSubject: ChannelSubject = {
  mount: (options) => cloudbaseApi(options),
  streams: true,
  beside: { rest: rest() },
  connect: connectCloudBase,
}
