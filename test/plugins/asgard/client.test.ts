import { getEventListeners, once } from 'node:events'
import { createServer } from 'node:http'
import type { RequestListener } from 'node:http'
import { Readable } from 'node:stream'
import { inspect } from 'node:util'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import {
  AsgardError,
  BotProviderClient,
  isBadRequest,
  isConflict,
  isForbidden,
  isNotFound,
  isPreconditionFailed,
  isUnauthorized,
  PostBackActionNone,
  PostBackActionNudge,
  PostBackActionResetChannel,
  PostBackActionResponseToolCallConsent,
  SseEventTypeMessageComplete,
  SseEventTypeMessageDelta,
  SseEventTypeMessageUser,
  SseEventTypeProcessStart,
  SseEventTypePromptSuggestion,
  SseEventTypeRunDone,
  SseEventTypeRunInit,
  SseEventTypeToolCallComplete,
  SseEventTypeToolCallConsent,
  statusCodeOf,
} from 'bothub/asgard'
import * as sdk from 'bothub/asgard'
import type { BotProviderConfig, BotProviderStreamer, GenericBotMessage, GenericBotSseEvent } from 'bothub/asgard'
import { startAsgardSimulator } from '../../../plugins/asgard/simulator.ts'
import type { AsgardSimulator } from '../../../plugins/asgard/simulator.ts'
import { factKeys } from '../../../plugins/asgard/wire.ts'
import { eventually } from '../../support/eventually.ts'

let edge: AsgardSimulator
let client: BotProviderClient

const configOf = (changes: Partial<BotProviderConfig> = {}): BotProviderConfig => ({
  edgeServerHost: edge.url,
  namespace: edge.namespace,
  botProviderName: edge.botProviderName,
  botProviderApiKey: edge.apiKey,
  ...changes,
})
const clientOf = (changes: Partial<BotProviderConfig> = {}) => new BotProviderClient(configOf(changes))

beforeAll(async () => {
  edge = await startAsgardSimulator()
  client = clientOf()
})
afterAll(async () => {
  // Nothing that was opened here is open still.
  await eventually(() => expect(edge.openAnswers).toBe(0))
  await edge.close()
})

let messages = 0
/** A message to a channel of its own. */
const message = (text: string, changes: Partial<GenericBotMessage> = {}): GenericBotMessage => {
  messages += 1
  return {
    customChannelId: `channel-${messages}`,
    customMessageId: `message-${messages}`,
    text,
    action: PostBackActionNone,
    ...changes,
  }
}
const requestsOf = (path: string) => edge.requests.filter((request) => request.path === path)
const lastRequest = () => {
  const request = edge.requests.at(-1)
  if (!request) throw new Error('nothing was sent')
  return request
}
const typesOf = (events: readonly GenericBotSseEvent[]) => events.map(({ eventType }) => eventType)
const wordsOf = (events: readonly GenericBotSseEvent[]) =>
  events.flatMap(({ fact }) => (fact.messageComplete ? [fact.messageComplete.message.text] : []))
const said = async (asked: GenericBotMessage, options = {}) => Array.fromAsync(await client.newStreamer(asked, options))
/** What a promise failed with. */
const failureOf = async (work: PromiseLike<unknown>): Promise<unknown> => {
  try {
    await work
  } catch (error) {
    return error
  }
  throw new Error('it did not fail')
}
/** What a stream brought, and what it threw. */
const drained = async (streamer: BotProviderStreamer) => {
  const events: GenericBotSseEvent[] = []
  try {
    for await (const event of streamer) events.push(event)
  } catch (error) {
    return { events, error }
  }
  return { events, error: undefined }
}
/** An upstream that does as this listener does, and nothing else. */
const upstream = async (listener: RequestListener) => {
  const server = createServer(listener)
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const address = server.address()
  return {
    url: `http://127.0.0.1:${typeof address === 'object' ? address?.port : ''}`,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections()
      server.close()
      await once(server, 'close')
    },
  }
}

describe('a streamer', () => {
  it('brings a run from its start to its end, and ends there', async () => {
    const asked = message('hello')
    const streamer = await client.newStreamer(asked)
    const events = await Array.fromAsync(streamer)
    expect(typesOf(events)[0]).toBe(SseEventTypeRunInit)
    expect(typesOf(events).at(-1)).toBe(SseEventTypeRunDone)
    const deltas = events.flatMap(({ eventType, fact }) =>
      eventType === SseEventTypeMessageDelta ? [fact.messageDelta?.message.text] : [],
    )
    expect(deltas.length).toBeGreaterThan(2)
    expect(wordsOf(events)).toEqual([deltas.join('')])
    expect(events[0]).toMatchObject({ customChannelId: asked.customChannelId, botProviderName: edge.botProviderName })
    expect(streamer.err()).toBeUndefined()
    expect(streamer.traceId).toMatch(/.+/)
    expect(lastRequest()).toMatchObject({ method: 'POST', path: '/message/sse', body: asked, query: {} })
  })

  it('throws the error of a run, and keeps the same object', async () => {
    const streamer = await client.newStreamer(message('/fail'))
    expect(streamer.err()).toBeUndefined()
    const { events, error } = await drained(streamer)
    expect(typesOf(events).filter((type) => type === SseEventTypeMessageDelta)).toHaveLength(3)
    expect(error).toBeInstanceOf(AsgardError)
    expect(error).toMatchObject({
      message: 'the demo failed as asked',
      errorCode: 'INTERNAL',
      statusCode: 0,
      detail: { code: 'INTERNAL', location: { workflowName: '' } },
    })
    expect(streamer.err()).toBe(error)
  })

  it('takes a connection that ends before its run for an error', async () => {
    const { events, error } = await drained(await client.newStreamer(message('!no-terminal')))
    expect(wordsOf(events)).toEqual(['This is all there is.'])
    expect(error).toBeInstanceOf(AsgardError)
    expect(statusCodeOf(error)).toBe(0)
  })

  it('is closed by leaving its loop, and the run goes on without it', async () => {
    const asked = message('!steady')
    const started = edge.requests.length
    for await (const { eventType } of await client.newStreamer(asked)) {
      if (eventType === SseEventTypeMessageDelta) break
    }
    await eventually(() => expect(edge.requests[started]?.left).toBe(true))
    expect((await client.channelMetadata(asked.customChannelId)).runState).toBe('RUNNING')
    await client.suspendChannel(asked.customChannelId)
  })

  it('ends a loop that waits when it is closed, without an error', async () => {
    const asked = message('!hang-mid')
    const streamer = await client.newStreamer(asked)
    const { events, error } = await (async () => {
      const drain = drained(streamer)
      await eventually(async () => {
        expect((await client.channelMetadata(asked.customChannelId)).runState).toBe('RUNNING')
      })
      streamer.close()
      streamer.close()
      return drain
    })()
    expect(error).toBeUndefined()
    expect(streamer.err()).toBeUndefined()
    expect(typesOf(events)).not.toContain(SseEventTypeRunDone)
    await client.suspendChannel(asked.customChannelId)
  })

  it('is closed before it was read, too, and by `using`', async () => {
    const asked = message('!hang')
    const started = edge.requests.length
    {
      // A run that says nothing has no answer yet, so another brings the head.
      using streamer = await client.newStreamer(message('!steady', { customChannelId: asked.customChannelId }))
      expect(streamer.traceId).toBeDefined()
    }
    await eventually(() => expect(edge.requests[started]?.left).toBe(true))
    await client.suspendChannel(asked.customChannelId)
  })

  it.each(['with a reason', 'while it is opened'])('is aborted by a signal %s', async (when) => {
    const controller = new AbortController()
    const reason = new Error('the browser has gone')
    const asked = message(when === 'with a reason' ? '!hang-mid' : '!hang')
    const opening = client.newStreamer(asked, { signal: controller.signal })
    if (when === 'with a reason') {
      const streamer = await opening
      const failed = failureOf(
        (async () => {
          for await (const { eventType } of streamer) {
            if (eventType === SseEventTypeMessageDelta) controller.abort(reason)
          }
        })(),
      )
      expect(await failed).toBe(reason)
      expect(streamer.err()).toBe(reason)
    } else {
      const failed = failureOf(opening)
      await eventually(() => expect(JSON.stringify(lastRequest().body)).toContain(asked.customMessageId!))
      controller.abort(reason)
      expect(await failed).toBe(reason)
    }
    await client.suspendChannel(asked.customChannelId)
  })

  it('leaves no listener on a signal that outlives it', async () => {
    const { signal } = new AbortController()
    await said(message('hello'), { signal })
    await drained(await client.newStreamer(message('/fail'), { signal }))
    await failureOf(client.newStreamer(message('!error-500'), { signal }))
    expect(getEventListeners(signal, 'abort')).toEqual([])
  })

  it('is given up after a silence, which is an error', async () => {
    const asked = message('!hang-mid')
    const impatient = clientOf({ idleTimeoutMs: 600 })
    const { events, error } = await drained(await impatient.newStreamer(asked))
    expect(typesOf(events)).toContain(SseEventTypeMessageDelta)
    expect(error).toBeInstanceOf(AsgardError)
    expect((error as AsgardError).message).toMatch(/stopped answering|silent/i)
    await client.suspendChannel(asked.customChannelId)
  })

  it('may be silent for longer than other answers', async () => {
    const events = await Array.fromAsync(await clientOf({ timeoutMs: 1 }).newStreamer(message('hello')))
    expect(typesOf(events).at(-1)).toBe(SseEventTypeRunDone)
  })

  it.each(['!crlf', '!split', '!bom', '!heartbeats', '!unknown-event', '!wrong-types', '!after-end', '!no-start'])(
    'reads %s',
    async (text) => {
      const events = await said(message(text))
      expect(wordsOf(events)).toHaveLength(1)
      expect(typesOf(events).at(-1)).toBe(SseEventTypeRunDone)
    },
  )

  it('is refused as an error with its status, though the answer calls itself a success', async () => {
    expect(await failureOf(client.newStreamer(message('!json-200')))).toMatchObject({
      statusCode: 200,
      errorCode: 'INVALID_ARGUMENT',
      message: 'the message is not valid',
    })
    expect(await failureOf(client.newStreamer(message('!error-html')))).toMatchObject({
      statusCode: 200,
      errorCode: '',
    })
  })

  it('opens a channel with a greeting, nudges it in silence and resets it', async () => {
    const { customChannelId } = message('')
    const act = (action: GenericBotMessage['action']) => said(message('', { customChannelId, action }))
    expect(wordsOf(await act(PostBackActionNone))).toEqual(['Welcome! Say something.'])
    expect(typesOf(await act(PostBackActionNudge))).toEqual([SseEventTypeRunInit, SseEventTypeRunDone])
    await act(PostBackActionResetChannel)
    const replayed = await Array.fromAsync(await client.newChannelStreamer(customChannelId))
    expect(wordsOf(replayed)).toHaveLength(1)
  })
})

describe('how a message is sent', () => {
  it('is by default with nothing special', async () => {
    await said(message('hello'))
    expect(lastRequest().query).toEqual({})
    expect(lastRequest().headers).not.toHaveProperty('x-asgard-user-identity-hint')
    expect(lastRequest().headers).not.toHaveProperty('last-event-id')
  })

  it('may ask for debug events, for one message', async () => {
    const events = await said(message('!debug'), { isDebug: true })
    expect(typesOf(events)).toContain(SseEventTypeProcessStart)
    expect(lastRequest().query).toEqual({ is_debug: 'true' })
  })

  it('may bypass consent, on a stream', async () => {
    const events = await said(message('/consent'), { bypassToolCallConsent: true })
    expect(typesOf(events)).not.toContain(SseEventTypeToolCallConsent)
    expect(typesOf(events)).toContain(SseEventTypeToolCallComplete)
    expect(lastRequest().query).toEqual({ bypass_tool_call_consent: 'true' })
    const reply = await client.sendMessage(message('/consent'), { bypassToolCallConsent: true })
    expect(reply.toolCallConsentRequest?.pendingCalls).toHaveLength(1)
    expect(lastRequest().query).toEqual({})
  })

  it.each(['newStreamer', 'sendMessage', 'dispatch'] as const)('may name the user: %s', async (method) => {
    const asked = message('hello')
    await client[method](asked, { userIdentityHint: 'ada', isDebug: true })
    expect(lastRequest()).toMatchObject({
      headers: { 'x-asgard-user-identity-hint': 'ada' },
      query: { is_debug: 'true' },
      body: asked,
    })
    await Array.fromAsync(await client.newChannelStreamer(asked.customChannelId))
  })
})

describe('a message without a stream', () => {
  it('has the whole reply', async () => {
    const asked = message('!multi')
    const reply = await client.sendMessage(asked)
    expect(reply).toMatchObject({
      customChannelId: asked.customChannelId,
      requestId: expect.stringMatching(/.+/) as string,
      errorDetail: null,
    })
    expect(reply.messages.map(({ text }) => text)).toEqual(['The first message.', 'The second message.'])
    expect(reply.messages[0]?.replyToCustomMessageId).toBe(asked.customMessageId)
    expect(reply).not.toHaveProperty('toolCallConsentRequest')
  })

  it('keeps a template whole', async () => {
    const {
      messages: [card],
    } = await client.sendMessage(message('/card'))
    expect(card?.template).toMatchObject({ type: 'BUTTON', title: 'A card' })
  })

  it('says why its run failed', async () => {
    const { errorDetail } = await client.sendMessage(message('/fail'))
    expect(errorDetail).toMatchObject({ code: 'INTERNAL', message: 'the demo failed as asked' })
  })

  it('may be dispatched and followed later', async () => {
    const asked = message('!multi')
    const receipt = await client.dispatch({ ...asked, invocationId: 'i1' })
    expect(receipt).toEqual({
      requestId: expect.stringMatching(/.+/) as string,
      customChannelId: asked.customChannelId,
    })
    expect(lastRequest().body).toHaveProperty('invocationId', 'i1')
    const events = await Array.fromAsync(await client.newChannelStreamer(asked.customChannelId))
    expect(typesOf(events)).toContain(SseEventTypeMessageUser)
    expect(wordsOf(events)).toHaveLength(2)
  })
})

describe('going on', () => {
  it('is by the last event id, and starts nothing', async () => {
    const asked = message('!drop-after-cursor')
    const streamer = await client.newStreamer(asked)
    const { events, error } = await drained(streamer)
    expect(error).toBeInstanceOf(AsgardError)
    expect(wordsOf(events)).toEqual(['All of this is kept.'])
    const { lastEventId } = streamer
    expect(lastEventId).toMatch(/^[1-9]\d*$/)
    const rest = await said(asked, { lastEventId })
    expect(wordsOf(rest)).toEqual(['This answer is cut in the middle, and yet it comes to its end.'])
    expect(lastRequest().headers).toHaveProperty('last-event-id', lastEventId)
    const replay = await Array.fromAsync(await client.newChannelStreamer(asked.customChannelId))
    expect(typesOf(replay).filter((type) => type === SseEventTypeMessageUser)).toHaveLength(1)
  })

  it('may be a replay of the channel', async () => {
    const { customChannelId } = message('')
    await said(message('hello', { customChannelId }))
    await said(message('/tools', { customChannelId }))
    const streamer = await client.newChannelStreamer(customChannelId, { userIdentityHint: 'ada' })
    expect(typesOf(await Array.fromAsync(streamer))).toEqual([
      SseEventTypeMessageUser,
      SseEventTypeMessageComplete,
      SseEventTypeMessageUser,
      SseEventTypeToolCallComplete,
      SseEventTypeMessageComplete,
      SseEventTypeRunDone,
    ])
    expect(lastRequest()).toMatchObject({
      method: 'GET',
      query: { custom_channel_id: customChannelId },
      headers: { 'x-asgard-user-identity-hint': 'ada' },
    })
    await Array.fromAsync(await client.newChannelStreamer(customChannelId, { lastEventId: streamer.lastEventId }))
    expect(lastRequest().headers).toHaveProperty('last-event-id', streamer.lastEventId)
  })

  it('is to suspend, which ends the stream of a run, the one named only', async () => {
    const asked = message('!hang-mid')
    const streamer = await client.newStreamer(asked)
    const events: GenericBotSseEvent[] = []
    for await (const event of streamer) {
      events.push(event)
      if (event.eventType !== SseEventTypeMessageDelta) continue
      await client.suspendChannel(asked.customChannelId, { requestId: 'another' })
      await client.suspendChannel(asked.customChannelId, { requestId: event.requestId, force: true })
    }
    expect(typesOf(events).at(-1)).toBe(SseEventTypeRunDone)
    expect(requestsOf('/message/suspend').at(-1)?.query).toEqual({
      custom_channel_id: asked.customChannelId,
      request_id: events[0]?.requestId,
      force: 'true',
    })
  })
})

describe('a consent', () => {
  const pendingIn = (events: readonly GenericBotSseEvent[]) =>
    events.flatMap(({ fact }) => fact.toolCallConsent?.pendingCalls ?? [])

  it.each([
    ['ALLOW_ONCE', 'You allowed it: send_mail has run.'],
    ['ALLOW_ALWAYS', 'You allowed it: send_mail has run.'],
    ['DENY_ONCE', 'You denied it: send_mail did not run. You said: not now'],
  ] as const)('is answered with %s on a stream', async (result, words) => {
    const asked = message('/consent')
    const pending = pendingIn(await said(asked, { userIdentityHint: 'ada' }))
    expect(pending).toMatchObject([{ toolName: 'send_mail', reason: 'The mail goes out at once.' }])
    const answer: GenericBotMessage = {
      ...asked,
      text: '',
      action: PostBackActionResponseToolCallConsent,
      toolCallConsents: pending.map(({ toolCallId }) => ({
        toolCallId,
        result,
        ...(result === 'DENY_ONCE' ? { denyReason: 'not now' } : {}),
      })),
    }
    expect(isForbidden(await failureOf(client.newStreamer(answer, { userIdentityHint: 'grace' })))).toBe(true)
    expect(wordsOf(await said(answer, { userIdentityHint: 'ada' }))).toEqual([words])
    const again = pendingIn(await said(message('/consent', { customChannelId: asked.customChannelId })))
    expect(again).toHaveLength(result === 'ALLOW_ALWAYS' ? 0 : 1)
  })

  it('is answered without a stream, and keeps other messages out until then', async () => {
    const asked = message('/consent')
    const { customChannelId } = asked
    const { toolCallConsentRequest } = await client.sendMessage(asked)
    expect(isBadRequest(await failureOf(client.sendMessage(message('hello', { customChannelId }))))).toBe(true)
    const reply = await client.sendMessage({
      customChannelId,
      action: PostBackActionResponseToolCallConsent,
      toolCallConsents: toolCallConsentRequest!.pendingCalls.map(({ toolCallId }) => ({
        toolCallId,
        result: 'ALLOW_ONCE',
      })),
    })
    expect(reply.messages.map(({ text }) => text)).toEqual(['You allowed it: send_mail has run.'])
  })
})

describe('an upload', () => {
  async function* pieces(count: number, length: number) {
    for (let piece = 0; piece < count; piece += 1) yield Buffer.alloc(length, piece)
  }

  it.each<[string, () => sdk.FileSource, number]>([
    ['a Node stream', () => Readable.from(pieces(3, 5)), 15],
    ['a web stream', () => ReadableStream.from(pieces(3, 5)), 15],
    ['a generator', () => pieces(3, 5), 15],
    ['text', () => Readable.from(['näh', 'e']), 5],
    ['a list of pieces', () => [Buffer.from('one'), 'two'], 6],
    ['bytes', () => new Uint8Array(7), 7],
    ['a blob', () => new Blob(['12345']), 5],
    ['a file', () => new File(['123'], 'other.txt'), 3],
    ['nothing', () => [], 0],
  ])('takes %s', async (_, source, size) => {
    const blob = await client.uploadBlob('uploads', { stream: source(), filename: 'image.png', mime: 'image/png' })
    expect(blob).toEqual({
      channelId: expect.stringMatching(/^\d+$/) as string,
      blobId: expect.stringMatching(/^\d+$/) as string,
      fileType: 'IMAGE',
      fileName: 'image.png',
      size,
      mime: 'image/png',
    })
  })

  it('needs no type, and is then sent with its message', async () => {
    const { customChannelId } = message('')
    const { blobId, mime } = await client.uploadBlob(customChannelId, { stream: pieces(1, 1), filename: 'x' })
    expect(mime).toBe('application/octet-stream')
    await said(message('look', { customChannelId, blobIds: [blobId] }))
    const [user] = await Array.fromAsync(await client.newChannelStreamer(customChannelId))
    expect(user?.fact.messageUser?.blobs).toMatchObject([{ blobId, fileName: 'x', size: 1 }])
  })

  it('is passed on while it is read, whatever its size', async () => {
    const started = requestsOf('/blob').length
    async function* slowly() {
      yield Buffer.alloc(65_536)
      await eventually(() => expect(requestsOf('/blob')[started]?.received).toBeGreaterThan(0))
      yield* pieces(64, 65_536)
    }
    const { size } = await client.uploadBlob('uploads', { stream: slowly(), filename: 'big' })
    expect(size).toBe(65 * 65_536)
  })

  it('whose source fails, fails with what the source said', async () => {
    const reason = new Error('the disk is gone')
    async function* broken() {
      yield* pieces(1, 1)
      throw reason
    }
    expect(await failureOf(client.uploadBlob('uploads', { stream: broken(), filename: 'x' }))).toBe(reason)
  })

  it('that is refused is read no further, and its source is closed', async () => {
    let read = 0
    async function* counted() {
      for await (const piece of pieces(10_000, 65_536)) {
        read += 1
        yield piece
      }
    }
    const source = Readable.from(counted())
    const refused = clientOf({ botProviderApiKey: 'wrong' }).uploadBlob('uploads', { stream: source, filename: 'x' })
    expect(isUnauthorized(await failureOf(refused))).toBe(true)
    await eventually(() => expect(source.destroyed).toBe(true))
    expect(read).toBeLessThan(1000)
  })

  it('can be given up', async () => {
    const controller = new AbortController()
    const reason = new Error('enough')
    async function* endless() {
      for (;;) {
        yield Buffer.alloc(1024)
        await new Promise((resolve) => setImmediate(resolve))
        controller.abort(reason)
      }
    }
    const upload = client.uploadBlob('uploads', { stream: endless(), filename: 'x' }, { signal: controller.signal })
    expect(await failureOf(upload)).toBe(reason)
  })
})

describe('triggers', () => {
  it('take JSON and give JSON', async () => {
    expect(await client.triggerJson({ a: [1] })).toEqual({ received: { a: [1] } })
    expect(requestsOf('/json').at(-1)).toMatchObject({ method: 'POST', body: { a: [1] } })
  })

  it('take a form with a file and without', async () => {
    expect(await client.triggerForm({ a: 1 })).toEqual({ received: { a: 1 }, file: null })
    const file = { stream: Readable.from(['12345']), filename: 'a.txt', mime: 'text/plain' }
    expect(await client.triggerForm({ a: 2 }, file)).toEqual({
      received: { a: 2 },
      file: { name: 'a.txt', mime: 'text/plain', bytes: 5 },
    })
  })
})

describe('a channel', () => {
  it('has metadata until it is deleted', async () => {
    const { customChannelId } = message('')
    const metadata = () => client.channelMetadata(customChannelId)
    expect(isNotFound(await failureOf(metadata()))).toBe(true)
    const before = Date.now()
    await said(message('!title', { customChannelId }))
    const known = await metadata()
    expect(known).toEqual({
      customChannelId,
      title: 'A talk with a name',
      runState: 'IDLE',
      conversationStatus: 'COMPLETED',
      lastActivityAt: expect.any(Number) as number,
      launchedSandboxes: [],
    })
    expect(known.lastActivityAt).toBeGreaterThanOrEqual(before)
    await client.deleteChannel(customChannelId)
    await client.deleteChannel(customChannelId)
    expect(await failureOf(metadata())).toMatchObject({ statusCode: 404, errorCode: 'CHANNEL_NOT_FOUND' })
  })

  it('is cleared', async () => {
    const { customChannelId } = message('')
    await said(message('hello', { customChannelId }))
    await client.clearChannel(customChannelId)
    expect(typesOf(await Array.fromAsync(await client.newChannelStreamer(customChannelId)))).toEqual([
      SseEventTypeRunDone,
    ])
  })

  it('takes feedback on what the bot said', async () => {
    const asked = message('hello')
    const {
      messages: [first],
    } = await client.sendMessage(asked)
    const feedback = { customChannelId: asked.customChannelId, messageId: first!.messageId, verdict: 'BAD' } as const
    expect(await client.sendMessageFeedback({ ...feedback, comment: 'so so' }, { userIdentityHint: 'ada' })).toEqual({
      messageId: expect.stringMatching(/^\d+$/) as string,
      seq: 3,
    })
    expect(lastRequest().headers).toHaveProperty('x-asgard-user-identity-hint', 'ada')
    const unknown = await failureOf(client.sendMessageFeedback({ ...feedback, messageId: 'm1' }))
    expect(unknown).toMatchObject({ statusCode: 404, errorCode: 'MESSAGE_NOT_FOUND', message: 'message m1 not found' })
  })

  it('has files at home', async () => {
    const asked = message('hello')
    await said(asked)
    const file = await client.downloadChannelHomeFile(asked.customChannelId, 'report.pdf')
    expect(file).toMatchObject({ mime: 'application/pdf', fileName: 'report.pdf', truncated: false })
    expect(await new Response(file.body).text()).toContain('a report')
    expect(isNotFound(await failureOf(client.downloadChannelHomeFile(asked.customChannelId, 'none')))).toBe(true)
  })

  it('belongs to a bot provider, which says who it is', async () => {
    expect(await client.botProviderMetadata()).toMatchObject({ name: edge.botProviderName })
  })
})

describe('a sandbox', () => {
  const name = 'sandbox-1'
  const bytesOf = async (path: string, options = {}) => {
    const { body, ...rest } = await client.sandboxFsReadFile(name, path, options)
    return { text: await new Response(body).text(), ...rest }
  }
  const write = (path: string, text: string, options = {}) =>
    client.sandboxFsWriteFile(name, path, { stream: [text], filename: 'x' }, options)

  it('is not there before a message has launched it', async () => {
    const error = await failureOf(client.sandboxHeartbeat('never launched'))
    expect(isPreconditionFailed(error)).toBe(true)
    expect(error).toMatchObject({ statusCode: 412, errorCode: 'FAILED_PRECONDITION', message: 'sandbox not running' })
    expect(lastRequest().path).toBe('/sandbox/never%20launched/heartbeat')
  })

  describe('that runs', () => {
    beforeAll(async () => {
      await said(message('!sandbox', { customChannelId: 'boxed' }))
    })

    it('is kept alive', async () => {
      const { shutdownAt } = await client.sandboxHeartbeat(name, { customChannelId: 'boxed' })
      expect(Date.parse(shutdownAt)).toBeGreaterThan(Date.now())
      expect(lastRequest().query).toEqual({ custom_channel_id: 'boxed' })
      expect((await client.channelMetadata('boxed')).launchedSandboxes).toMatchObject([{ sandboxName: name }])
    })

    it('has an editor and a browser', async () => {
      const editor = await client.sandboxEditorOpenUrl(name)
      expect(lastRequest()).toMatchObject({
        path: `/sandbox/${name}/editor/open-url`,
        headers: { 'content-type': 'application/json' },
      })
      const browser = await client.sandboxBrowserOpenUrl(name)
      for (const { openURL } of [editor, browser]) expect(openURL).toMatch(/^https:/)
      expect(editor.openURL).not.toBe(browser.openURL)
      expect(await client.sandboxBrowserSession(name)).toEqual({
        wsUrl: expect.stringMatching(/^wss:/) as string,
        token: expect.stringMatching(/.+/) as string,
      })
    })

    it('has files that can be written, read in parts, and listed', async () => {
      expect(await write('/files/a.txt', 'hello there', { mode: 0o600 })).toEqual({ bytesWritten: 11 })
      expect(await bytesOf('/files/a.txt')).toMatchObject({ text: 'hello there', totalBytes: 11, truncated: false })
      expect(await bytesOf('/files/a.txt', { offsetBytes: 6, limitBytes: 2 })).toMatchObject({
        text: 'th',
        totalBytes: 11,
        truncated: true,
      })
      await client.sandboxFsMkdir(name, '/files/deep')
      expect(await client.sandboxFsList(name, '/files')).toEqual({
        entries: [
          { name: 'a.txt', isDir: false, sizeBytes: 11, mtimeUnix: expect.any(Number) as number, mode: 0o600 },
          { name: 'deep', isDir: true, sizeBytes: 0, mtimeUnix: expect.any(Number) as number, mode: 0o755 },
        ],
        truncated: false,
      })
      expect(await client.sandboxFsStat(name, '/files/a.txt')).toMatchObject({
        exists: true,
        sizeBytes: 11,
        mode: 0o600,
      })
      expect(await client.sandboxFsStat(name, '/files/none')).toMatchObject({ exists: false })
    })

    it('has files that can be copied, moved and removed', async () => {
      await write('/moves/a', 'one')
      expect(await client.sandboxFsCopy(name, '/moves/a', '/moves/b')).toEqual({ bytesCopied: 3 })
      await client.sandboxFsMove(name, '/moves/a', '/moves/c')
      await client.sandboxFsMove(name, '/moves/c', '/moves/b', { overwrite: true })
      await client.sandboxFsCopy(name, '/moves/b', '/moves/d', { overwrite: true })
      await client.sandboxFsRemove(name, '/moves/d')
      const { entries } = await client.sandboxFsList(name, '/moves')
      expect(entries.map((entry) => entry.name)).toEqual(['b'])
      await client.sandboxFsRemoveAll(name, '/moves')
      expect(await client.sandboxFsStat(name, '/moves')).toMatchObject({ exists: false })
    })

    it('says what is in the way, and what is not there', async () => {
      await write('/conflict/a', 'one')
      await write('/conflict/b', 'two')
      const conflicts = [
        write('/conflict/a', 'again', { createOnly: true }),
        client.sandboxFsCopy(name, '/conflict/a', '/conflict/b'),
        client.sandboxFsMove(name, '/conflict/a', '/conflict/b'),
        client.sandboxFsRemove(name, '/conflict'),
      ]
      for (const error of await Promise.all(conflicts.map(failureOf))) expect(isConflict(error)).toBe(true)
      expect(isNotFound(await failureOf(client.sandboxFsReadFile(name, '/none')))).toBe(true)
      expect(isBadRequest(await failureOf(client.sandboxFsList(name, '/../etc')))).toBe(true)
    })

    it('tells of changes while somebody watches', async () => {
      const watched = await client.sandboxFsWatch(name, '/watched', { recursive: true })
      const changes: unknown[] = []
      await write('/elsewhere', '')
      await write('/watched/deep/a', 'one')
      await write('/watched/deep/a', 'two')
      await client.sandboxFsRemove(name, '/watched/deep/a')
      for await (const { op, path } of watched) if (changes.push([op, path]) === 5) break
      expect(changes).toEqual([
        ['CREATE', '/watched'],
        ['CREATE', '/watched/deep'],
        ['CREATE', '/watched/deep/a'],
        ['WRITE', '/watched/deep/a'],
        ['REMOVE', '/watched/deep/a'],
      ])
      await eventually(() => expect(requestsOf(`/sandbox/${name}/fs/watch`)[0]?.left).toBe(true))
    })

    it('is not watched any longer than is wanted', async () => {
      const controller = new AbortController()
      const watched = await client.sandboxFsWatch(name, '/', { signal: controller.signal })
      const next = failureOf(watched.next())
      const reason = new Error('enough')
      controller.abort(reason)
      expect(await next).toBe(reason)
    })
  })
})

describe('errors', () => {
  const predicates = { isBadRequest, isUnauthorized, isForbidden, isNotFound, isConflict, isPreconditionFailed }

  it.each<[string, keyof typeof predicates | undefined, number, string]>([
    ['!error-400', 'isBadRequest', 400, 'INVALID_ARGUMENT'],
    ['!error-401', 'isUnauthorized', 401, 'UNAUTHENTICATED'],
    ['!error-403', 'isForbidden', 403, 'PERMISSION_DENIED'],
    ['!error-404', 'isNotFound', 404, 'CHANNEL_NOT_FOUND'],
    ['!error-409', 'isConflict', 409, 'CONFLICT'],
    ['!error-412', 'isPreconditionFailed', 412, 'FAILED_PRECONDITION'],
    ['!error-429', undefined, 429, 'RATE_LIMITED'],
    ['!error-500', undefined, 500, 'INTERNAL'],
    ['!error-503', undefined, 503, ''],
    ['!error-detail', undefined, 200, 'INVALID_ARGUMENT'],
  ])('of %s are the same with and without a stream: %s', async (text, predicate, statusCode, errorCode) => {
    for (const error of [await failureOf(client.newStreamer(message(text))), await failureOf(refusedByRest(text))]) {
      expect(error).toBeInstanceOf(AsgardError)
      expect(error).toMatchObject({ statusCode, errorCode, name: 'AsgardError' })
      expect(statusCodeOf(error)).toBe(statusCode)
      const held = Object.entries(predicates).filter(([, holds]) => holds(error))
      expect(held.map(([name]) => name)).toEqual(predicate ? [predicate] : [])
    }
  })
  /** A reply that holds its error is no failure there. */
  const refusedByRest = async (text: string) => {
    if (text === '!error-detail') return client.newStreamer(message(text))
    return client.sendMessage(message(text))
  }

  it('of others are none of these', () => {
    for (const other of [new Error('404'), { statusCode: 404 }, undefined, null, 'isNotFound'])
      for (const holds of Object.values(predicates)) expect(holds(other)).toBe(false)
    expect(statusCodeOf({ statusCode: 404 })).toBe(0)
  })

  it('of a server that is not there have no status', async () => {
    const gone = await startAsgardSimulator()
    await gone.close()
    const nobody = clientOf({ edgeServerHost: gone.url })
    for (const error of [await failureOf(nobody.newStreamer(message(''))), await failureOf(nobody.triggerJson({}))]) {
      expect(error).toBeInstanceOf(AsgardError)
      expect(error).toMatchObject({ statusCode: 0, errorCode: '', cause: { code: 'upstream_unreachable' } })
    }
  })

  it('say when an answer cannot be used', async () => {
    await using proxy = await upstream((_, response) => void response.end('<h1>Welcome</h1>'))
    const lost = clientOf({ edgeServerHost: proxy.url })
    const calls = [lost.channelMetadata('c'), lost.uploadBlob('c', { stream: [], filename: 'x' })]
    for (const error of await Promise.all(calls.map(failureOf)))
      expect(error).toMatchObject({ name: 'AsgardError', statusCode: 200 })
    await lost.suspendChannel('c')
    await using empty = await upstream((_, response) => void response.end('{"isSuccess":true,"data":[{}]}'))
    const upload = clientOf({ edgeServerHost: empty.url }).uploadBlob('c', { stream: [], filename: 'x' })
    expect(await failureOf(upload)).toMatchObject({ message: expect.stringContaining('blobId') as string })
  })

  it('keep the status of a refusal whose body breaks off', async () => {
    await using broken = await upstream((_, response) => {
      response.writeHead(404, { 'content-length': 100 })
      response.write('{', () => response.destroy())
    })
    const cut = clientOf({ edgeServerHost: broken.url })
    const calls = [cut.newStreamer(message('')), cut.channelMetadata('c'), cut.downloadChannelHomeFile('c', 'f')]
    for (const error of await Promise.all(calls.map(failureOf))) expect(isNotFound(error)).toBe(true)
  })

  it('say that settings are missing, before anything is sent', async () => {
    const unset = new BotProviderClient({ namespace: '', botProviderName: '', botProviderApiKey: '' })
    for (const error of await Promise.all([unset.newStreamer(message('')), unset.triggerJson({})].map(failureOf)))
      expect(error).toMatchObject({
        name: 'TypeError',
        message: expect.stringContaining('namespace') as string,
      })
  })

  it('and the client show no key', async () => {
    const secretive = clientOf({ botProviderApiKey: 'a-secret-key', headers: { authorization: 'another-secret' } })
    const error = await failureOf(secretive.triggerJson({}))
    const shown = [
      inspect(secretive, { depth: 9, showHidden: true }),
      JSON.stringify(secretive),
      inspect(error, { depth: 9 }),
    ]
    expect(shown.join()).not.toMatch(/secret-key|another-secret/)
  })
})

describe('an answer of a relay', () => {
  it.each<[string, string]>([
    ['in an envelope', '{"isSuccess":true,"data":{"title":"T","lastActivityAt":"2026-01-01T00:00:00Z"}}'],
    ['by itself', '{"title":"T","lastActivityAt":1767225600000}'],
  ])('is read %s', async (_, body) => {
    await using relay = await upstream((_request, response) => void response.end(body))
    expect(await clientOf({ edgeServerHost: relay.url }).channelMetadata('c')).toMatchObject({
      title: 'T',
      lastActivityAt: 1_767_225_600_000,
      launchedSandboxes: [],
    })
  })
})

describe('the connection', () => {
  it('carries the headers of the config, but no other key', async () => {
    const traced = clientOf({ headers: { 'x-trace-id': 'abc-123', 'X-API-KEY': 'not this', accept: 'x/y' } })
    await traced.sendMessage(message('hello'))
    expect(lastRequest().headers).toMatchObject({ 'x-trace-id': 'abc-123', accept: 'x/y' })
    await Array.fromAsync(await traced.newStreamer(message('hello')))
    expect(lastRequest().headers).toMatchObject({ 'x-trace-id': 'abc-123', accept: 'text/event-stream' })
  })

  it('goes through a fetch of one’s own, every call of it', async () => {
    const calls: string[] = []
    let failures = 2
    /** Traces, counts and tries again. */
    const instrumented: typeof fetch = async (input, init) => {
      const request = new Request(input, init)
      request.headers.set('x-span', '7')
      calls.push(`${request.method} ${new URL(request.url).pathname.split('/').slice(5).join('/')}`)
      const response = await fetch(request)
      if (response.status !== 429 || failures === 0) return response
      failures -= 1
      return instrumented(input, init)
    }
    const own = clientOf({ fetch: instrumented })
    await Array.fromAsync(await own.newStreamer(message('/busy')))
    expect(lastRequest().headers).toHaveProperty('x-span', '7')
    await own.uploadBlob('uploads', { stream: ['1'], filename: 'x' })
    await failureOf(own.sandboxFsReadFile('none', '/'))
    expect(calls).toEqual([
      'POST message/sse',
      'POST message/sse',
      'POST message/sse',
      'POST blob',
      'GET sandbox/none/fs/file',
    ])
  })

  it('goes through a dispatcher of one’s own', async () => {
    const dispatched: string[] = []
    const pool = (globalThis as Record<symbol, unknown>)[Symbol.for('undici.globalDispatcher.1')]
    const dispatcher = new Proxy(pool as NonNullable<BotProviderConfig['dispatcher']>, {
      get(target, property) {
        if (property !== 'dispatch') return Reflect.get(target, property) as unknown
        return (options: { path: string }, handler: never) => {
          dispatched.push(options.path.split('/').slice(5).join('/'))
          return target.dispatch(options as never, handler)
        }
      },
    })
    const own = clientOf({ dispatcher })
    await own.triggerJson({})
    await Array.fromAsync(await own.newStreamer(message('hello')))
    expect(dispatched).toEqual(['json', 'message/sse'])
  })

  it('is given up after the timeout, which is for answers that are no stream', async () => {
    await using silent = await upstream(() => {})
    const impatient = clientOf({ edgeServerHost: silent.url, timeoutMs: 50 })
    const calls = [
      impatient.sendMessage(message('')),
      impatient.deleteChannel('c'),
      impatient.sandboxFsReadFile('s', '/'),
    ]
    for (const error of await Promise.all(calls.map(failureOf)))
      expect(error).toMatchObject({ name: 'AsgardError', statusCode: 0 })
  })

  it('of a download that stands still is given up, one that goes on is not', async () => {
    await using stuck = await upstream((_, response) => void response.write('some'))
    const file = await clientOf({ edgeServerHost: stuck.url, timeoutMs: 600 }).sandboxFsReadFile('s', '/')
    expect(await failureOf(new Response(file.body).text())).toMatchObject({ name: 'AsgardError' })
  })

  it('is one for the whole process: many runs at once stay apart', async () => {
    const runs = Array.from({ length: 40 }, async (_, index) => {
      const asked = message(`my name is ${String.fromCodePoint(0x4e00 + index)}`)
      return { asked, events: await said(asked, { userIdentityHint: `user-${index}` }) }
    })
    for (const { asked, events } of await Promise.all(runs)) {
      expect(new Set(events.map(({ customChannelId }) => customChannelId))).toEqual(new Set([asked.customChannelId]))
      expect(wordsOf(events).join()).toContain(asked.text!.slice('my name is '.length))
    }
  })
})

describe('the constants', () => {
  it('name every documented event', () => {
    const named = Object.entries(sdk).flatMap(([name, value]) => (name.startsWith('SseEventType') ? [value] : []))
    expect(named).toHaveLength(Object.keys(factKeys).length)
    expect(new Set(named)).toEqual(new Set(Object.keys(factKeys)))
    expect(SseEventTypePromptSuggestion).toBe('asgard.prompt_suggestion')
  })
})
