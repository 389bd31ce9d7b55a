import { fromDecimal, toDecimal, toNumbered } from '../../core/ids.ts'
import type { ToolCall } from '../../core/events.ts'
import type { Json } from '../../core/message.ts'
import { parseEvents } from '../../core/sse.ts'
import { cozeApi } from '../../index.ts'
import type { Answer, ChannelSubject, Client } from '../suites/channel.ts'
import { requester } from './clients.ts'
import type { Caller } from './clients.ts'

/** The fields of a Chat or Message object that matter here. */
interface Fields {
  readonly id: string
  readonly conversation_id: string
  readonly type: string
  readonly content: string
  readonly last_error: { readonly hub_code?: string }
  readonly required_action?: {
    readonly submit_tool_outputs: {
      readonly tool_calls: readonly { readonly id: string; readonly function: { readonly arguments: string } }[]
    }
  }
}

/** In which conversation a turn is: Coze's clients know it, and the suite does not. */
const conversations = new Map<string, string>()
/** Coze's clients make a conversation before they talk, and the suite has names for them. */
const named = new Map<string, Promise<string>>()

async function connectCoze(url: string, caller?: Caller): Promise<Client> {
  const http = requester(url, caller)
  const events = 'text/event-stream'
  async function* answer(path: string, body: object, cursor = '0'): Answer {
    const response = await http.send(path, events, JSON.stringify(body), { 'last-event-id': cursor })
    if (!response.ok) return yield { type: 'failed', code: codeIn(await http.text(response)) }
    for await (const event of parseEvents(http.chunks(response), { maxEventLength: 64 * 1_048_576 })) {
      const place = Number(event.id?.slice(-10) ?? 0)
      const fields = JSON.parse(event.data) as Fields
      const turn = fromDecimal('turn', fields.id ?? '') ?? ''
      switch (event.event) {
        case 'conversation.chat.created':
          conversations.set(turn, fields.conversation_id)
          break
        case 'conversation.message.delta':
          yield { type: 'text', text: fields.content, turn: fromDecimal('turn', event.id!.slice(0, -10))!, place }
          break
        case 'conversation.chat.requires_action':
          yield { type: 'waiting', turn, calls: callsIn(fields) }
          break
        case 'conversation.chat.completed':
          yield { type: 'done', turn }
          break
        case 'conversation.chat.canceled':
          yield { type: 'cancelled', turn }
          break
        case 'conversation.chat.failed': {
          const code = fields.last_error.hub_code!
          yield code === 'cancelled' ? { type: 'cancelled', turn } : { type: 'failed', code, turn }
        }
      }
    }
  }
  const make = async (): Promise<string> => {
    const response = await http.send('/v1/conversation/create', 'application/json', '{}')
    return (JSON.parse(await http.text(response)) as { readonly data: { readonly id: string } }).data.id
  }
  const known = (name: string): Promise<string> => {
    const mine = `${url} ${caller?.name ?? ''} ${name}`
    const id = named.get(mine) ?? make()
    named.set(mine, id)
    return id
  }
  const question = (bot: string, text: string, id?: string) => ({
    bot_id: bot,
    user_id: 'somebody',
    stream: true,
    additional_messages: [
      {
        role: 'user',
        content: text,
        content_type: 'text',
        ...(id === undefined ? {} : { meta_data: { hub_message_id: id } }),
      },
    ],
  })
  return {
    async *ask(bot, text, { conversation, id } = {}) {
      const query = conversation === undefined ? '' : `?conversation_id=${await known(conversation)}`
      yield* answer(`/v3/chat${query}`, question(bot, text, id))
    },
    resume: (turn, after) => answer('/v3/chat', question('parrot', ''), toNumbered(turn, after)),
    decide(turn, decisions) {
      const query = `conversation_id=${conversations.get(turn)}&chat_id=${toDecimal(turn)}`
      const outputs = decisions.map(({ call, result }) => ({ tool_call_id: call, output: result }))
      return answer(`/v3/chat/submit_tool_outputs?${query}`, { stream: true, tool_outputs: outputs })
    },
    sendRaw: async (body) => codeIn(await http.text(await http.send('/v3/chat', events, body))),
    stall: (bot, text) => http.stall('/v3/chat', events, JSON.stringify(question(bot, text))),
    received: http.received,
    vanish: () => http.gone.abort(),
  }
}

const codeIn = (body: string): string =>
  (JSON.parse(body) as { readonly detail: { readonly hub_code: string } }).detail.hub_code

/** What a client is asked whether a bot may do. */
const callsIn = ({ required_action: action }: Fields): readonly ToolCall[] =>
  (action?.submit_tool_outputs.tool_calls ?? []).map(({ id, function: called }) => ({
    call: id,
    ...(JSON.parse(called.arguments) as { readonly tool: string; readonly input: Json }),
  }))

export const cozeApiSubject: ChannelSubject = {
  mount: (options) => cozeApi(options),
  streams: true,
  connect: connectCoze,
}
