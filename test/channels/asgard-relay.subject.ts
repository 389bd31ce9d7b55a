import { decodePlace, encodePlace } from '../../channels/asgard-relay/encode.ts'
import type { ToolCall } from '../../core/events.ts'
import { parseEvents } from '../../core/sse.ts'
import { asgardRelay } from '../../index.ts'
import type { AsgardEvent, AsgardPendingCall } from '../../plugins/asgard/wire.ts'
import type { Answer, ChannelSubject, Client } from '../suites/channel.ts'
import { requester } from './clients.ts'
import type { Caller } from './clients.ts'

/** Where a turn is: Asgard's clients know its channel, and the suite does not. */
interface Address {
  readonly bot: string
  readonly channel: string
}

const addresses = new Map<string, Address>()
/** Of a client that never reads, nobody knows the turn. */
let stalled: Address = { bot: 'parrot', channel: 'none' }

async function connectRelay(url: string, caller?: Caller): Promise<Client> {
  const http = requester(url, caller)
  const base = (bot: string) => `/ns/any/bot-provider/${bot}/message/sse`
  async function* answer(bot: string, body: string, headers: Record<string, string> = {}): Answer {
    const response = await http.send(base(bot), 'text/event-stream', body, headers)
    if (!response.ok) return yield { type: 'failed', code: codeIn(await http.text(response)) }
    let calls: readonly ToolCall[] = []
    for await (const { id, data } of parseEvents(http.chunks(response), { maxEventLength: 64 * 1_048_576 })) {
      const { eventType, fact, requestId: turn, customChannelId } = JSON.parse(data) as AsgardEvent
      addresses.set(turn, { bot, channel: customChannelId })
      const place = decodePlace(id ?? '')?.seq ?? 0
      if (eventType === 'asgard.message.delta') yield { type: 'text', text: textIn(fact['messageDelta']), turn, place }
      if (eventType === 'asgard.tool_call.consent') calls = callsIn(fact['toolCallConsent'])
      if (eventType === 'asgard.run.done')
        yield calls.length > 0 ? { type: 'waiting', turn, calls } : { type: 'done', turn }
      if (eventType !== 'asgard.run.error') continue
      const code = errorIn(fact['runError'])
      yield code === 'cancelled' ? { type: 'cancelled', turn } : { type: 'failed', code, turn }
    }
  }
  const message = (text: string, more: object) => JSON.stringify({ customMessageId: '', text, action: 'NONE', ...more })
  return {
    ask: (bot, text, { conversation = crypto.randomUUID(), id = '' } = {}) =>
      answer(bot, message(text, { customChannelId: conversation, customMessageId: id })),
    resume(turn, after) {
      const { bot, channel } = addresses.get(turn) ?? stalled
      return answer(bot, message('', { customChannelId: channel }), {
        'last-event-id': encodePlace({ turn, seq: after }),
      })
    },
    decide(turn, decisions) {
      const toolCallConsents = decisions.map(({ call, result, reason }) => ({
        toolCallId: call,
        result: result.toUpperCase(),
        denyReason: reason ?? '',
      }))
      const { bot, channel } = addresses.get(turn)!
      const action = 'RESPONSE_TOOL_CALL_CONSENT'
      return answer(bot, message('', { customChannelId: channel, action, toolCallConsents }))
    },
    sendRaw: async (body) => codeIn(await http.text(await http.send(base('parrot'), 'text/event-stream', body))),
    stall(bot, text) {
      stalled = { bot, channel: crypto.randomUUID() }
      return http.stall(base(bot), 'text/event-stream', message(text, { customChannelId: stalled.channel }))
    },
    received: http.received,
    vanish: () => http.gone.abort(),
  }
}

/** A run is looked for in its channel, so it is the channel that is not found. */
const asgardCodes: Readonly<Record<string, string>> = {
  CHANNEL_NOT_FOUND: 'unknown_turn',
  INVALID_ARGUMENT: 'invalid_request',
}

function codeIn(body: string): string {
  const { errorCode } = JSON.parse(body) as { readonly errorCode: string }
  return asgardCodes[errorCode] ?? errorCode
}

const textIn = (fact: unknown): string => (fact as { readonly message: { readonly text: string } }).message.text
const errorIn = (fact: unknown): string => (fact as { readonly error: { readonly code: string } }).error.code
const callsIn = (fact: unknown): readonly ToolCall[] =>
  (fact as { readonly pendingCalls: readonly AsgardPendingCall[] }).pendingCalls.map((call) => ({
    call: call.toolCallId,
    tool: call.toolName,
    input: call.parameter,
  }))

export const asgardRelaySubject: ChannelSubject = {
  mount: (options) => asgardRelay(options),
  streams: true,
  connect: connectRelay,
}
