import { z } from 'zod'
import { consentFunction, readConsent } from '../../core/consent-call.ts'
import { HubError } from '../../core/errors.ts'
import type { ConsentDecision } from '../../core/events.ts'
import { clientName } from '../../core/ids.ts'
import type { HistoryMessage } from '../../core/message.ts'
import { readCallId } from './encode.ts'

/** What OpenAI's clients send, read as far as a bot of the hub can do something with it. */

/** As `clientName`; an empty one is none. */
const optionalName = z.union([z.literal('').transform(() => undefined), clientName]).nullish()

const part = z.object({
  type: z.string(),
  text: z.string().nullish(),
  file: z.object({ file_id: z.string().nullish() }).nullish(),
})

const chatMessage = z.object({
  role: z.enum(['system', 'developer', 'user', 'assistant', 'tool', 'function']),
  content: z.union([z.string(), z.array(part)]).nullish(),
  tool_call_id: z.string().nullish().describe('Of a message of the role `tool`: the `id` of the call it answers.'),
})

/** Body of `POST /v1/chat/completions`. Fields it does not know, such as `temperature`, are the bot's own affair. */
export const chatBody = z
  .object({
    model: z.string().describe('A bot.'),
    messages: z.array(chatMessage).min(1),
    stream: z.boolean().nullish(),
    stream_options: z.object({ include_usage: z.boolean().nullish() }).nullish(),
    n: z.literal(1, 'a bot gives one answer; leave it out').nullish(),
    tools: z.array(z.unknown()).nullish().describe('Left out: a bot has its own.'),
    user: optionalName.describe('For whom a trusted key asks.'),
    sessionId: optionalName.describe('The name of a conversation that the hub remembers; without it the client does.'),
  })
  .meta({ id: 'ChatCompletionRequest' })

/** Headers that a request may have. */
export const chatHeaders = z.object({
  'X-Session-Id': clientName.optional().describe('Stands for `sessionId` where the body has none.'),
  'Idempotency-Key': clientName.optional().describe('Sent again under the same key, a message is answered once.'),
})

type ChatMessage = z.output<typeof chatMessage>

/** What is asked: something new, or to go on with the outputs of calls. */
export type Question =
  | {
      readonly type: 'message'
      readonly text: string
      /** Ids of files of the hub. */
      readonly files: readonly string[]
      readonly history: readonly HistoryMessage[]
    }
  | { readonly type: 'outputs'; readonly turn: string; readonly outputs: readonly CallOutput[] }

/** What a client gives for a call; `place` is that of its message, for errors. */
export interface CallOutput {
  readonly call: string
  readonly text: string
  readonly place: number
}

/**
 * Reads the messages of a request. The last one is what is asked; what a bot is told of those before are their words.
 * @throws HubError `invalid_request`, `files_unsupported`
 */
export function readQuestion(messages: readonly ChatMessage[]): Question {
  const said = messages
    .map((message, place) => ({ ...message, place }))
    .filter(({ role }) => role !== 'system' && role !== 'developer')
  const last = said.at(-1)
  if (last?.role === 'tool') return readOutputs(said.slice(said.findLastIndex(({ role }) => role !== 'tool') + 1))
  if (last?.role !== 'user') {
    throw new HubError('invalid_request', { message: 'messages: the last one must be of the role user, or tool.' })
  }
  return { type: 'message', ...readWords(last), history: said.slice(0, -1).flatMap(toHistory) }
}

/** Calls of several turns cannot be answered at once: those of the latest one are meant. */
function readOutputs(messages: readonly (ChatMessage & { readonly place: number })[]): Question {
  const outputs = messages.map((message) => {
    const id = readCallId(message.tool_call_id ?? '')
    if (!id) {
      throw new HubError('invalid_request', {
        message: `messages.${message.place}.tool_call_id: is not the id of a call that this hub made.`,
      })
    }
    return { ...id, text: textOf(message), place: message.place }
  })
  const turn = outputs.at(-1)!.turn
  return { type: 'outputs', turn, outputs: outputs.filter((output) => output.turn === turn) }
}

function readWords(message: ChatMessage & { readonly place: number }): { text: string; files: readonly string[] } {
  if (message.content === undefined || message.content === null) {
    throw new HubError('invalid_request', { message: `messages.${message.place}.content: must be text.` })
  }
  const parts = typeof message.content === 'string' ? [] : message.content
  const files = parts.flatMap(({ file }) => file?.file_id ?? [])
  const media = parts.find(({ type, file }) => type !== 'text' && !file?.file_id)
  if (media) {
    throw new HubError('files_unsupported', {
      message:
        `messages.${message.place}.content: "${media.type}" is not taken here. Upload the file to ` +
        '/api/v1/bots/{bot}/files for the conversation `sessionId`, and send { "type": "file", "file": { "file_id": "file_…" } }.',
    })
  }
  return { text: textOf(message), files }
}

const textOf = ({ content }: ChatMessage): string =>
  typeof content === 'string' ? content : (content ?? []).flatMap(({ text }) => text ?? []).join('\n')

const toHistory = (message: ChatMessage): readonly HistoryMessage[] => {
  if (message.role !== 'user' && message.role !== 'assistant') return []
  const text = textOf(message)
  return text === '' ? [] : [{ role: message.role === 'user' ? 'user' : 'bot', text }]
}

/** Whether a request says more than a bot of the hub takes, and what is left out of it; for the header `X-Hub-Warning`. */
export function warningsAbout(
  { messages, tools }: z.output<typeof chatBody>,
  isHistoryLeftOut: boolean,
): readonly string[] {
  return [
    ...(isHistoryLeftOut ? ['This bot takes no history: it was told the last user message alone.'] : []),
    ...(messages.some(({ role }) => role === 'system' || role === 'developer')
      ? ['A bot has its own instructions: messages of the roles system and developer were left out.']
      : []),
    ...(tools?.length ? ['A bot has its own tools: those of the request were left out.'] : []),
  ]
}

/**
 * The decision that a client gave as the output of `hub_consent`; see `readConsent`.
 * @throws HubError `invalid_request`
 */
export function readDecision({ call, text, place }: CallOutput): ConsentDecision {
  const decision = readConsent(call, text)
  if (decision) return decision
  throw new HubError('invalid_request', {
    message: `messages.${place}.content: answer ${consentFunction} with allow, allow_always or deny.`,
  })
}
