import type { ToolCall } from '../../../core/events.ts'
import type { Json } from '../../../core/message.ts'
import { tool } from '../../../core/tools.ts'
import { coze } from '../../../plugins/coze/index.ts'
import { chatObject, doneFrame, encodeFrame, messageObject } from '../../../plugins/coze/wire.ts'
import type { CozeStatus } from '../../../plugins/coze/wire.ts'
import { askedCall } from '../../suites/provider.ts'
import type { ProviderSubject } from '../../suites/provider.ts'
import type { Dialect, Step, UpstreamAnswer, UpstreamRequest } from '../../suites/scripted.ts'

/** The parts of a request that are looked at here. */
interface ChatRequest {
  readonly user_id: string
  readonly additional_messages: readonly { readonly content: string; readonly content_type: string }[]
  readonly tool_outputs?: readonly { readonly tool_call_id: string; readonly output: string }[]
}

const chatIn = ({ json }: UpstreamRequest) => json as unknown as ChatRequest
const ids = { conversationId: '7500000000000000001', botId: '7500000000000000002' }
const chatId = '7500000000000000010'

const chat = (status: CozeStatus, more: { readonly calls?: readonly ToolCall[]; readonly words?: string } = {}) =>
  chatObject({
    ...ids,
    id: chatId,
    status,
    createdAt: 1_718_792_949,
    ...(more.words === undefined ? {} : { lastError: { code: 5000, msg: more.words } }),
    ...(more.calls
      ? {
          calls: more.calls.map(({ call, tool: name, input }) => ({
            id: call,
            name,
            arguments: JSON.stringify(input),
          })),
        }
      : {}),
  })

const answer = (content: string) =>
  messageObject({
    ...ids,
    id: '7500000000000000020',
    chatId,
    role: 'assistant',
    type: 'answer',
    content,
    contentType: 'text',
  })

function spell(step: Step): string {
  switch (step.type) {
    case 'begin':
      return (
        encodeFrame('conversation.chat.created', chat('created')) +
        encodeFrame('conversation.chat.in_progress', chat('in_progress'))
      )
    case 'say':
      return encodeFrame('conversation.message.delta', answer(step.text))
    case 'finish':
      return encodeFrame('conversation.message.completed', answer(step.text))
    case 'ask':
    case 'call':
      return encodeFrame('conversation.chat.requires_action', chat('requires_action', step)) + doneFrame()
    case 'fail':
      return encodeFrame('conversation.chat.failed', chat('failed', step)) + doneFrame()
    case 'end':
      return encodeFrame('conversation.chat.completed', chat('completed')) + doneFrame()
  }
}

const success = (content: Json): UpstreamAnswer => ({ body: JSON.stringify({ code: 0, msg: '', data: content }) })

/** What Coze tells of a chat to whoever looks for it. */
function look(path: string, truth: readonly Step[]): UpstreamAnswer | undefined {
  if (path === '/v3/chat/message/list') {
    return success(truth.flatMap((step) => (step.type === 'finish' ? [answer(step.text)] : [])))
  }
  if (path !== '/v3/chat/retrieve') return undefined
  const last = truth.at(-1)
  if (last?.type === 'ask' || last?.type === 'call') return success(chat('requires_action', last))
  return success(chat(last?.type === 'end' ? 'completed' : 'in_progress'))
}

const dialect: Dialect = {
  secret: 'coze-token-93e0d4f6',
  isMessage: ({ path }) => path === '/v3/chat' || path === '/v3/chat/submit_tool_outputs',
  answer({ path }, truth) {
    if (path === '/v1/conversation/create') return success({ id: ids.conversationId })
    if (path === '/v1/files/upload') return success({ id: '7500000000000000030' })
    return look(path, truth)
  },
  speak: () => spell,
  refuse: (status, words) => ({ body: JSON.stringify({ code: codes[status] ?? 5000, msg: words }) }),
  noise: [
    ': a comment\n\n',
    encodeFrame('conversation.weather', { celsius: 21 }),
    encodeFrame('conversation.message.delta', { ...answer('x'), content: 7 }),
    encodeFrame('conversation.message.delta', null),
    encodeFrame('conversation.message.completed', [1, 2]),
    encodeFrame('conversation.message.completed', { ...answer('not for you'), id: '7', type: 'verbose' }),
    'event:conversation.message.delta\ndata:{"id":\n\n',
    'event:conversation.message.delta\n\n',
    'data:hello\n\n',
    'nonsense\n\n',
  ],
  textOf: (request) => chatIn(request).additional_messages.at(-1)!.content,
  userOf: (request) => chatIn(request).user_id,
  filesOf(request) {
    const content = chatIn(request).additional_messages.at(-1)!.content
    const items = JSON.parse(content) as readonly { readonly file_id?: string }[]
    return items.flatMap(({ file_id: id }) => (id === undefined ? [] : [id]))
  },
  decisionOf: (request) => (outputIn(request, askedCall.call) === 'mail sent' ? 'allow' : 'deny'),
  outputOf: (request) => JSON.parse(outputIn(request, 'call-2')) as Json,
}

/** The documented codes of refusals. */
const codes: Readonly<Record<number, number>> = { 200: 4000, 400: 4000, 401: 4100, 429: 4020, 500: 5000 }

function outputIn(request: UpstreamRequest, call: string): string {
  const found = chatIn(request).tool_outputs?.find(({ tool_call_id: id }) => id === call)
  if (!found) throw new Error(`nothing was given for ${call}`)
  return found.output
}

const target = (baseUrl: string) => ({
  baseUrl,
  botId: ids.botId,
  token: dialect.secret,
  // How long it looks for what became of a lost chat, once a second.
  timeoutMs: 20_000,
  // Bytes that come one at a time take long on a busy machine.
  idleTimeoutMs: 60_000,
  tools: { [askedCall.tool]: tool({ run: () => 'mail sent' }) },
})

/** The Coze provider before an upstream that speaks its dialect. */
export const cozeSubject: ProviderSubject & { readonly dialect: Dialect } = {
  manifest: coze(target('http://127.0.0.1')).manifest,
  create: (url) => coze(target(url)),
  impatient: (url) => coze({ ...target(url), idleTimeoutMs: 100 }),
  dialect,
}
