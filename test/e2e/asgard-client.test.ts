import { afterAll, beforeAll, expect, it } from 'vitest'
import { BotProviderClient, isNotFound, PostBackActionNone, PostBackActionResponseToolCallConsent } from 'bothub/asgard'
import type { GenericBotMessage, GenericBotSseEvent } from 'bothub/asgard'
import { asgard, asgardRelay, demoBot, local } from '../../index.ts'
import { startHub } from '../support/hub.ts'
import type { TestHub } from '../support/hub.ts'
import { eventually } from '../support/eventually.ts'

/*
 * The backend client before the relay channel: a backend that was written for Asgard takes the hub for it, with any bot
 * behind.
 */

let hub: TestHub
beforeAll(async () => {
  const bots = { main: local(demoBot), upstream: asgard({ simulated: true }) }
  hub = await startHub({ bots, channels: { relay: asgardRelay() } })
})
afterAll(() => hub[Symbol.asyncDispose]())

const clientOf = (bot: string) =>
  new BotProviderClient({
    edgeServerHost: hub.url,
    namespace: 'any',
    botProviderName: bot,
    botProviderApiKey: 'unused',
  })
const message = (customChannelId: string, text: string): GenericBotMessage => ({
  customChannelId,
  customMessageId: crypto.randomUUID(),
  text,
  action: PostBackActionNone,
})
const wordsOf = (events: readonly GenericBotSseEvent[]) =>
  events.flatMap(({ fact }) => (fact.messageComplete ? [fact.messageComplete.message.text] : []))

it.each(['main', 'upstream'])('streams from the bot %s, replays and deletes', async (bot) => {
  const client = clientOf(bot)
  const events = await Array.fromAsync(await client.newStreamer(message('c1', 'my name is Ada')))
  expect(events.at(-1)?.eventType).toBe('asgard.run.done')
  expect(events.flatMap(({ fact }) => fact.messageDelta?.message.text ?? []).join('')).toBe(wordsOf(events).join(''))
  const { messages } = await client.sendMessage(message('c1', 'what is my name?'))
  expect(messages.map(({ text }) => text).join()).toContain('Ada')
  const replay = await Array.fromAsync(await client.newChannelStreamer('c1'))
  expect(wordsOf(replay)).toEqual([...wordsOf(events), ...messages.map(({ text }) => text)])
  expect(await client.channelMetadata('c1')).toMatchObject({ customChannelId: 'c1', runState: 'IDLE' })
  await client.deleteChannel('c1')
  const gone = await client.channelMetadata('c1').catch((error: unknown) => error)
  expect(isNotFound(gone)).toBe(true)
})

it('is told of a failed run, and of a suspended one', async () => {
  const client = clientOf('upstream')
  const failing = await client.newStreamer(message('c2', '/fail'))
  const error = await Array.fromAsync(failing).catch((reason: unknown) => reason)
  expect(error).toMatchObject({ name: 'AsgardError', errorCode: 'upstream_failed' })
  expect(failing.err()).toBe(error)
  const seen: string[] = []
  for await (const { eventType, requestId } of await client.newStreamer(message('c2', '!hang-mid'))) {
    seen.push(eventType)
    if (eventType === 'asgard.message.delta' && seen.filter((each) => each === eventType).length === 1)
      await client.suspendChannel('c2', { requestId })
  }
  expect(seen.at(-1)).toBe('asgard.run.done')
  expect(seen).not.toContain('asgard.message.complete')
})

it('goes on behind the last event it saw, without asking again', async () => {
  const client = clientOf('upstream')
  const asked = message('c3', '/cut')
  const first = await client.newStreamer(asked)
  let words = ''
  for await (const { fact } of first) {
    words += fact.messageDelta?.message.text ?? ''
    if (words) break
  }
  const rest = await Array.fromAsync(await client.newStreamer(asked, { lastEventId: first.lastEventId }))
  expect(wordsOf(rest)).toEqual(['This answer is cut in the middle, and yet it comes to its end.'])
})

it('answers a consent', async () => {
  const client = clientOf('upstream')
  const asked = message('c4', '/consent')
  const events = await Array.fromAsync(await client.newStreamer(asked))
  const pending = events.flatMap(({ fact }) => fact.toolCallConsent?.pendingCalls ?? [])
  expect(pending).toMatchObject([{ toolName: 'send_mail' }])
  const answer: GenericBotMessage = {
    ...asked,
    text: '',
    action: PostBackActionResponseToolCallConsent,
    toolCallConsents: pending.map(({ toolCallId }) => ({ toolCallId, result: 'ALLOW_ONCE' })),
  }
  expect(wordsOf(await Array.fromAsync(await client.newStreamer(answer)))).toEqual([
    'You allowed it: send_mail has run.',
  ])
})

it('dispatches, and uploads a file that the bot then gets', async () => {
  const client = clientOf('upstream')
  const { requestId } = await client.dispatch(message('c5', 'hello'))
  expect(requestId).toMatch(/^turn_/)
  await eventually(async () => expect((await client.channelMetadata('c5')).runState).toBe('IDLE'))
  const { blobId } = await client.uploadBlob('c5', { stream: ['12345'], filename: 'a.txt', mime: 'text/plain' })
  const reply = await client.sendMessage({ ...message('c5', 'look'), blobIds: [blobId] })
  expect(reply.errorDetail).toBeNull()
  expect(reply.messages).toHaveLength(1)
})
