import { describe, expect, it } from 'vitest'
import { apiKey, asgard, local } from '../../index.ts'
import { startAsgardSimulator } from '../../plugins/asgard/simulator.ts'
import { gatedBot } from '../fakes/gated-bot.ts'
import { bodyOf, factOf, find, frontEnd, relayHub, saidIn, typesOf } from './asgard-relay.front-end.ts'
import type { Seen } from './asgard-relay.front-end.ts'

/** A hub with a bot of a simulated Asgard whose requests can be seen. */
async function simulated() {
  const edge = await startAsgardSimulator({ apiKey: 'k' })
  const { namespace, botProviderName } = edge
  const hub = await relayHub({
    edge: asgard({ edgeServerHost: edge.url, namespace, botProviderName, apiKey: 'k' }),
  })
  return {
    edge,
    page: frontEnd(hub.url, 'edge'),
    hub,
    async [Symbol.asyncDispose]() {
      await hub[Symbol.asyncDispose]()
      await edge.close()
    },
  }
}

const idOf = (frames: readonly Seen[]): string =>
  (find(frames, 'message.complete') as { readonly message: { readonly messageId: string } }).message.messageId
const feedbackIn = (frames: readonly Seen[]) =>
  frames.flatMap(({ event }) => (event.eventType === 'asgard.message.feedback' ? [event.fact['messageFeedback']] : []))

describe('feedback', () => {
  it('on what the bot said is kept, and replayed behind the turn it is about', async () => {
    await using hub = await relayHub({ main: local(({ message }) => `So: ${message.text}`) })
    const page = frontEnd(hub.url, 'main')
    const messageId = idOf(await page.say('c', 'hello'))
    await page.say('c', 'more')
    const rate = (more: object, head = {}) =>
      bodyOf(page.call('POST', '/message/feedback', { customChannelId: 'c', messageId, verdict: 'BAD', ...more }, head))
    const ada = { 'x-asgard-user-identity-hint': 'ada' }
    expect(await rate({ comment: 'so so' })).toMatchObject({ status: 200, body: { data: { seq: 1 } } })
    const { body } = await rate({ verdict: 'GOOD' }, ada)
    await rate({ comment: 'no' })
    const replayed = await page.replay('c')
    const types = ['message.user', 'message.complete', 'message.feedback', 'message.feedback']
    expect(typesOf(replayed)).toEqual([...types, ...types.slice(0, 2), 'run.done'])
    expect(feedbackIn(replayed)).toEqual([
      {
        messageId: (body['data'] as { messageId: string }).messageId,
        targetMessageId: messageId,
        verdict: 'GOOD',
        identityHint: 'ada',
      },
      { messageId: expect.any(String) as string, targetMessageId: messageId, verdict: 'BAD', text: 'no' },
    ])
    expect(new Set(replayed.map(({ event }) => event.eventId)).size).toBe(replayed.length)
    expect(await page.replay('c')).toEqual(replayed)
    for (const other of ['m1', `${messageId}0`, messageId.replace(/^turn_./, 'turn_9')]) {
      expect(await rate({ messageId: other })).toMatchObject({ status: 404, body: { errorCode: 'MESSAGE_NOT_FOUND' } })
    }
    expect(await rate({ customChannelId: 'd' })).toMatchObject({
      status: 404,
      body: { errorCode: 'CHANNEL_NOT_FOUND' },
    })
    expect((await rate({ comment: '好'.repeat(3000) })).status).toBe(400)
  })

  it("is told to a bot of Asgard, and is kept when that does not take it; nobody rates another key's answers", async () => {
    const edge = await startAsgardSimulator({ apiKey: 'k' })
    const { namespace, botProviderName } = edge
    await using hub = await relayHub(
      { edge: asgard({ edgeServerHost: edge.url, namespace, botProviderName, apiKey: 'k' }) },
      { auth: ['ada', 'bob'].map((name) => apiKey({ name, key: `key-of-${name}-000000001` })) },
    )
    const [ada, bob] = ['ada', 'bob'].map((name) =>
      frontEnd(hub.url, 'edge', { 'x-api-key': `key-of-${name}-000000001` }),
    )
    const messageId = idOf(await ada!.say('c', 'hello'))
    await bob!.say('c', 'hello')
    const feedback = { customChannelId: 'c', messageId, verdict: 'GOOD', comment: 'fine' }
    expect((await bob!.call('POST', '/message/feedback', feedback)).status).toBe(404)
    expect((await ada!.call('POST', '/message/feedback', feedback)).status).toBe(200)
    const told = edge.requests.filter(({ path }) => path === '/message/feedback')
    expect(told.map(({ body }) => body)).toEqual([
      {
        customChannelId: expect.stringMatching(/^hub-/) as string,
        messageId: messageId.slice(messageId.indexOf('.') + 1),
        verdict: 'GOOD',
        comment: 'fine',
      },
    ])
    await edge.close()
    expect((await ada!.call('POST', '/message/feedback', { ...feedback, verdict: 'BAD' })).status).toBe(200)
    expect(feedbackIn(await ada!.replay('c'))).toMatchObject([{ verdict: 'BAD' }])
    expect(hub.log).toContainEqual(expect.objectContaining({ msg: 'the upstream was not told what somebody thinks' }))
  })
})

describe('the title of a channel', () => {
  it('is in its metadata, and where conversations are listed, once the bot has said it', async () => {
    await using stage = await simulated()
    await stage.page.say('c', 'hello')
    const metadata = async () => (await bodyOf(stage.page.metadata('c'))).body['data']
    expect(await metadata()).toMatchObject({ title: null, conversationStatus: null })
    await stage.page.say('c', '!title')
    expect(await metadata()).toMatchObject({ title: 'A talk with a name', conversationStatus: 'COMPLETED' })
    expect(await (await stage.hub.api('/bots/edge/conversations')).json()).toMatchObject({
      items: [{ name: 'c', title: 'A talk with a name' }],
    })
  })
})

describe('a nudge', () => {
  const nudge = { action: 'NUDGE', payload: { a: 1 } }

  it('is a turn of a bot of Asgard, says nothing, and leaves nothing to replay', async () => {
    await using stage = await simulated()
    await stage.page.say('c', 'hello')
    const before = await stage.page.replay('c')
    expect(typesOf(await stage.page.say('c', '', nudge))).toEqual(['run.init', 'run.done'])
    expect(stage.edge.requests.at(-1)!.body).toMatchObject({ action: 'NUDGE', text: '', payload: { a: 1 } })
    expect(typesOf(await stage.page.replay('c'))).toEqual(typesOf(before))
    const records = (await (await stage.hub.api('/bots/edge/conversations/c/messages')).json()) as { items: object[] }
    expect(records.items).toHaveLength(2)
    expect(typesOf(await stage.page.replay('c', { 'last-event-id': before.at(-1)!.id! }))).toEqual(['run.done'])
    const words = await bodyOf(stage.page.post('/message/sse', 'c', 'words', nudge))
    expect(words).toMatchObject({ status: 400, body: { errorCode: 'INVALID_ARGUMENT' } })
  })

  it('is refused while the channel waits for consent, and by a bot that cannot be nudged', async () => {
    await using stage = await simulated()
    await stage.page.say('c', '/consent')
    const refused = await bodyOf(stage.page.post('/message/sse', 'c', '', nudge))
    expect(refused).toMatchObject({ status: 400, body: { errorCode: 'turn_waiting' } })
    await using hub = await relayHub({ main: local(() => 'here') })
    const other = await bodyOf(frontEnd(hub.url, 'main').post('/message/sse', 'c', '', nudge))
    expect(other).toMatchObject({ status: 400, body: { errorCode: 'INVALID_ARGUMENT' } })
  })
})

describe('a long channel', () => {
  it('is replayed whole, in its order, and what waits in it is found behind any number of turns', async () => {
    const bot = gatedBot()
    await using hub = await relayHub({
      main: local(async function* ({ message, answers }) {
        if (message.text !== 'ask' || answers) return yield `So: ${message.text}`
        yield { type: 'consent.requested', calls: [{ call: 'k', tool: 't', input: null, alreadyAllowed: false }] }
      }),
      gated: bot.provider,
    })
    const words = Array.from({ length: 120 }, (_, index) => `${index}`)
    for (const text of words) await hub.ask('main', text, { conversation: 'c' })
    const page = frontEnd(hub.url, 'main')
    await page.say('c', 'ask')
    const replayed = await page.replay('c')
    expect(saidIn(replayed)).toEqual(words.map((text) => `So: ${text}`))
    expect(typesOf(replayed).slice(-4)).toEqual(['message.user', 'run.init', 'tool_call.consent', 'run.done'])
    const middle = replayed.find((frame) => JSON.stringify(factOf(frame)).includes('So: 60'))!
    const rest = await page.replay('c', { 'last-event-id': middle.id! })
    expect(saidIn(rest)).toEqual(words.slice(61).map((text) => `So: ${text}`))

    // Turns queue, however many, behind the one that lives.
    const gated = frontEnd(hub.url, 'gated')
    const live = gated.say('c', 'first')
    await bot.began('first')
    for (const text of words.slice(0, 60))
      await hub.api('/bots/gated/messages', { text, conversation: 'c' }, { prefer: 'respond-async' })
    expect((await bodyOf(gated.metadata('c'))).body['data']).toMatchObject({ runState: 'RUNNING' })
    expect((await gated.suspend('c')).status).toBe(204)
    expect(typesOf(await live).at(-1)).toBe('run.done')
    expect((await bodyOf(gated.metadata('c'))).body['data']).toMatchObject({ runState: 'IDLE' })
    expect(bot.begun).toEqual(['first'])
  })
})
