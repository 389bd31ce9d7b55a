import { asgard } from '../../../plugins/asgard/index.ts'
import { asgardEvent, asgardMessage, encodeFrame, listOf, objectOf, textOf } from '../../../plugins/asgard/wire.ts'
import type { AsgardEvent } from '../../../plugins/asgard/wire.ts'
import type { ProviderSubject } from '../../suites/provider.ts'
import type { Dialect, Step, UpstreamAnswer, UpstreamRequest } from '../../suites/scripted.ts'

const bodyOf = ({ json }: UpstreamRequest) => objectOf(json)
const isStream = ({ path }: UpstreamRequest) => path.endsWith('/message/sse')

/** A run as the Edge Server writes it: every frame is one further in the channel's transcript. */
function speak(request: UpstreamRequest, run = runOf(request)): (step: Step) => string {
  const body = bodyOf(request)
  let id = 0
  let idx = 0
  const frame = (event: AsgardEvent) => encodeFrame(event, String(++id))
  const message = (text: string, place: number | null) =>
    asgardMessage({ messageId: 'message', replyToCustomMessageId: textOf(body['customMessageId']), text, idx: place })
  return (step) => {
    switch (step.type) {
      case 'begin':
        return frame(asgardEvent('asgard.run.init', {}, run))
      case 'say':
        return frame(asgardEvent('asgard.message.delta', { message: message(step.text, idx++) }, run))
      case 'finish':
        return frame(asgardEvent('asgard.message.complete', { message: message(step.text, null) }, run))
      case 'ask': {
        const pendingCalls = step.calls.map(({ call, toolset = '', tool, input }) => ({
          toolCallId: call,
          toolsetName: toolset,
          toolName: tool,
          parameter: input,
          reason: 'to help',
          alreadyAllowed: false,
        }))
        return (
          frame(asgardEvent('asgard.tool_call.consent', { processId: 'process', pendingCalls }, run)) +
          frame(asgardEvent('asgard.run.done', {}, run))
        )
      }
      case 'fail':
        return frame(asgardEvent('asgard.run.error', { error: { ...noError, message: step.words } }, run))
      case 'end':
        return frame(asgardEvent('asgard.run.done', {}, run))
      case 'call':
        throw new Error('Asgard asks no client for outputs')
    }
  }
}

function runOf(request: UpstreamRequest) {
  const body = bodyOf(request)
  return {
    requestId: `run-of-${textOf(body['customMessageId'])}`,
    namespace: 'ns',
    botProviderName: 'bot',
    customChannelId: textOf(body['customChannelId']),
    eventId: 'event',
  }
}

const noError = {
  message: '',
  code: 'INTERNAL',
  inner: '',
  location: {
    namespace: '',
    workflowName: '',
    processorName: '',
    processorType: '',
    processorConfigName: '',
    processId: '',
  },
}

/** The frames behind a cursor. */
function resubscribed(request: UpstreamRequest, truth: readonly Step[]): UpstreamAnswer {
  const after = Number(request.headers['last-event-id'])
  const frames = truth
    .map(speak(request))
    .join('')
    .split(/(?<=\n\n)/)
  return streamOf(frames.slice(after).join(''), truth)
}

/** All that was said in the channel of a message, without its pieces, and how it ended. */
function replayed(
  request: UpstreamRequest,
  truth: readonly Step[],
  messages: readonly UpstreamRequest[],
): UpstreamAnswer {
  const channel = request.query['custom_channel_id']
  const message = messages.findLast((each) => bodyOf(each)['customChannelId'] === channel)
  if (!message || truth.length === 0)
    return { status: 404, body: envelope({ isSuccess: false, errorCode: 'CHANNEL_NOT_FOUND' }) }
  const run = { ...runOf(message), requestId: '' }
  const { text, customMessageId } = bodyOf(message)
  const user = { messageId: 'user', text: textOf(text), customMessageId: textOf(customMessageId) }
  const say = speak(message, run)
  const frames = truth.flatMap((step) => {
    const frame = say(step)
    if (step.type === 'begin') return [encodeFrame(asgardEvent('asgard.message.user', user, run), '1')]
    return step.type === 'say' ? [] : [frame]
  })
  return streamOf(frames.join(''), truth)
}

/** A run that has said nothing yet is waited for; any other has no more to say than is known of it. */
const streamOf = (body: string, truth: readonly Step[]): UpstreamAnswer => ({
  type: 'text/event-stream',
  body,
  open: truth.length === 1,
})

const envelope = (parts: object) =>
  JSON.stringify({ isSuccess: true, data: null, error: null, errorCode: null, ...parts })

const dialect: Dialect = {
  secret: 'asgard-key-5b1d77c2',
  isMessage: (request) =>
    isStream(request) && request.method === 'POST' && request.headers['last-event-id'] === undefined,
  answer(request, truth, messages) {
    if (isStream(request) && request.method === 'GET') return replayed(request, truth, messages)
    if (isStream(request)) return resubscribed(request, truth)
    if (request.path.endsWith('/blob')) return { body: envelope({ data: [{ blobId: 'blob-1' }] }) }
    return { body: envelope({}) }
  },
  speak: (request) => speak(request),
  refuse: (status, words) => ({
    body: envelope({ isSuccess: false, error: words, errorCode: status === 200 ? 'INVALID_ARGUMENT' : `E${status}` }),
  }),
  noise: [
    ': \n',
    'event: asgard.weather\ndata: {"eventType":"asgard.weather","fact":{"weather":{"celsius":21}}}\n\n',
    'event: asgard.message.delta\ndata: {"eventType":"asgard.message.delta","fact":{"messageDelta":{"message":7}}}\n\n',
    'event: asgard.message.delta\ndata: {"eventType":"asgard.message.delta","fact":null}\n\n',
    'event: asgard.message.delta\ndata: null\n\n',
    'event: asgard.message.delta\ndata: {"eventType":\n\n',
    'event: asgard.message.delta\n\n',
    'data: [1,2,3]\n\n',
    'nonsense\n\n',
  ],
  textOf: (request) => textOf(bodyOf(request)['text']),
  userOf: (request) => textOf(bodyOf(request)['customChannelId']),
  filesOf: (request) => listOf(bodyOf(request)['blobIds']),
  ratingOf(request) {
    if (!request.path.endsWith('/message/feedback')) return undefined
    const { messageId, verdict, comment } = bodyOf(request)
    const told = textOf(comment)
    return {
      message: textOf(messageId),
      verdict: verdict === 'GOOD' ? 'good' : 'bad',
      ...(told ? { comment: told } : {}),
    }
  },
  decisionOf(request) {
    const [consent] = listOf(bodyOf(request)['toolCallConsents'])
    const { toolCallId, result } = objectOf(consent)
    if (toolCallId !== 'call-1') throw new Error(`there is no call ${JSON.stringify(toolCallId)}`)
    return result === 'ALLOW_ONCE' ? 'allow' : 'deny'
  },
}

const target = (edgeServerHost: string) => ({
  edgeServerHost,
  namespace: 'ns',
  botProviderName: 'bot',
  apiKey: dialect.secret,
})

/** The Asgard provider before an upstream that speaks its dialect. */
export const asgardSubject: ProviderSubject & { readonly dialect: Dialect } = {
  manifest: asgard(target('http://127.0.0.1')).manifest,
  create: (url) => asgard(target(url)),
  impatient: (url) => asgard({ ...target(url), idleTimeoutMs: 100 }),
  dialect,
}
