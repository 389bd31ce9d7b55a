import { z } from 'zod'
import type { Json } from '../../../core/message.ts'
import { tool } from '../../../core/tools.ts'
import { openai } from '../../../plugins/openai/index.ts'
import { chunkObject, doneFrame, encodeFrame, errorObject, usageChunk } from '../../../plugins/openai/wire.ts'
import type { ChunkParts } from '../../../plugins/openai/wire.ts'
import { askedCall, clientCall } from '../../suites/provider.ts'
import type { ProviderSubject } from '../../suites/provider.ts'
import type { Dialect, Step, UpstreamRequest } from '../../suites/scripted.ts'

/** The parts of a request that are looked at here. */
interface ChatRequest {
  readonly user: string
  readonly messages: readonly {
    readonly role: string
    readonly content: string
    readonly tool_call_id?: string
  }[]
}

const chatIn = ({ json }: UpstreamRequest) => json as unknown as ChatRequest
const head = { id: 'chatcmpl-1', created: 1_750_000_000, model: 'm-1' }
const chunk = (parts: ChunkParts) => encodeFrame(chunkObject(head, parts))
const frame = (choice: Json) => encodeFrame({ ...chunkObject(head, {}), choices: [choice] })

function spell(step: Step): string {
  switch (step.type) {
    case 'begin':
      return chunk({ role: 'assistant', content: '' })
    case 'say':
      return chunk({ content: step.text })
    case 'finish':
      return ''
    case 'ask':
    case 'call': {
      const calls = step.calls.map(({ call, tool: name, input }) => ({
        id: call,
        name,
        arguments: JSON.stringify(input),
      }))
      return chunk({ calls }) + chunk({ finish: 'tool_calls' }) + doneFrame
    }
    case 'fail':
      return encodeFrame(errorObject({ message: step.words, type: 'server_error', code: null }))
    case 'end':
      return (
        chunk({ finish: 'stop' }) +
        encodeFrame(usageChunk(head, { inputTokens: 1, outputTokens: 2, totalTokens: 3 })) +
        doneFrame
      )
  }
}

const dialect: Dialect = {
  secret: 'sk-51b07f9ac3',
  isMessage: ({ path, method }) => method === 'POST' && path === '/v1/chat/completions',
  speak: () => spell,
  refuse: (_, words) => ({
    body: JSON.stringify(errorObject({ message: words, type: 'invalid_request_error', code: null })),
  }),
  noise: [
    ': a comment\n\n',
    'event: weather\ndata: {"celsius":21}\n\n',
    encodeFrame(null),
    encodeFrame(7),
    encodeFrame({ choices: 'none' }),
    frame({ index: 1, delta: { content: 'of another choice' } }),
    frame({ index: 0, delta: { content: 7, tool_calls: [null, {}, { function: 'f' }] }, finish_reason: 7 }),
    frame({ index: 0, delta: null, usage: 'much' }),
    'data: {"choices":\n\n',
    'data: hello\n\n',
    'data\n\n',
    'nonsense\n\n',
  ],
  textOf: (request) => chatIn(request).messages.at(-1)!.content,
  userOf: (request) => chatIn(request).user,
  historyOf: (request) =>
    chatIn(request)
      .messages.slice(0, -1)
      .map(({ content }) => content),
  decisionOf: (request) => (outputIn(request, askedCall.call) === 'mail sent' ? 'allow' : 'deny'),
  outputOf: (request) => JSON.parse(outputIn(request, clientCall.call)) as Json,
}

function outputIn(request: UpstreamRequest, call: string): string {
  const found = chatIn(request).messages.find((message) => message.tool_call_id === call)
  if (!found) throw new Error(`nothing was given for ${call}`)
  return found.content
}

const target = (url: string) => ({
  baseUrl: new URL('/v1', url).href,
  apiKey: dialect.secret,
  model: 'm-1',
  tools: { [askedCall.tool]: tool({ run: () => 'mail sent' }) },
  clientTools: { [clientCall.tool]: { parameters: z.object({ room: z.number() }) } },
})

/** The OpenAI provider before an upstream that speaks its dialect. */
export const openaiSubject: ProviderSubject & { readonly dialect: Dialect } = {
  manifest: openai(target('http://127.0.0.1')).manifest,
  create: (url) => openai(target(url)),
  impatient: (url) => openai({ ...target(url), idleTimeoutMs: 100 }),
  dialect,
}
