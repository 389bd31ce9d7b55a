import { Webhook } from 'standardwebhooks'
import { describe, expect, it } from 'vitest'
import { apiKey, cloudbaseApi, local, rest } from '../../index.ts'
import type { BotFunction, HubConfig } from '../../index.ts'
import { gatedBot } from '../fakes/gated-bot.ts'
import { jsonOf, startHub } from '../support/hub.ts'
import type { TestHub } from '../support/hub.ts'
import { openReceiver } from '../suites/receiver.ts'
import type { Receiver } from '../suites/receiver.ts'

const secret = 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw'
type Wechat = NonNullable<Parameters<typeof cloudbaseApi>[0]>['wechat']

const wechatHub = (bots: HubConfig['bots'], wechat: Wechat = {}, more: Partial<HubConfig> = {}): Promise<TestHub> =>
  startHub({ bots, channels: { rest: rest(), cloudbase: cloudbaseApi({ wechat }) }, ...more })
const pushTo = ({ url }: Receiver): Wechat => ({ push: { url, secret, allowPrivate: true } })

let messages = 0
/** A callback of an account, decrypted. */
const callback = (content: string, more: object = {}) => ({
  fromUserName: 'ada',
  toUserName: 'gh_shop',
  createTime: 1_795_000_000,
  msgId: `${++messages}`,
  msgType: 'text',
  content,
  ...more,
})
/** A callback of a customer-service desk, decrypted. */
const deskCallback = (content: string) => ({
  externalUserId: 'wmAda',
  openKfId: 'wkDesk',
  sendTime: 1_795_000_000,
  msgId: `${++messages}`,
  msgType: 'text',
  text: { content },
})

async function post(hub: TestHub, body: object, headers: Record<string, string> = {}, bot = 'main') {
  const response = await fetch(`${hub.url}/v1/aibot/bots/${bot}/wx-send-message`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...headers },
    body: JSON.stringify(body),
  })
  const text = await response.text()
  return { status: response.status, body: text === '' ? undefined : (JSON.parse(text) as Record<string, unknown>) }
}

const service = (hub: TestHub, callbackData: object, more: object = {}) =>
  post(hub, { triggerSrc: 'WXService', callbackData, ...more })

const recordsOf = async (hub: TestHub, conversation: string, user: string) => {
  const query = `conversationId=${conversation}&sort=asc&user=${user}`
  const answer = await fetch(`${hub.url}/v1/aibot/bots/main/records?${query}`)
  return jsonOf<{ total: number; recordList: { content: string; triggerSrc: string }[] }>(answer)
}

const parrot: BotFunction = ({ message }) => `You said ${message.text}`

describe('a message of an account that may not push', () => {
  it.each(['WXService', 'WXSubscription'])(
    'is answered with the reply that WeChat waits for (%s)',
    async (triggerSrc) => {
      await using hub = await wechatHub({ main: local(parrot) })
      const { status, body } = await post(hub, { triggerSrc, callbackData: callback('hello'), wxVerify: false })
      expect(status).toBe(200)
      expect(body).toEqual({
        ToUserName: 'ada',
        FromUserName: 'gh_shop',
        CreateTime: expect.any(Number) as number,
        MsgType: 'text',
        Content: 'You said hello',
      })
      const { total, recordList } = await recordsOf(hub, `${triggerSrc}:gh_shop:ada`, 'ada')
      expect(total).toBe(2)
      expect(recordList.map((record) => record.triggerSrc)).toEqual([triggerSrc, triggerSrc])
    },
  )

  it('is answered once, by the callback that comes when the bot is done', async () => {
    const bot = gatedBot()
    await using hub = await wechatHub({ main: bot.provider }, { holdMs: 50 })
    const message = callback('hello')
    expect(await service(hub, message)).toEqual({ status: 204, body: undefined })
    const second = service(hub, message)
    bot.finish('hello')
    expect(await second).toMatchObject({ status: 200, body: { Content: 'So: hello.' } })
    expect(await service(hub, message)).toMatchObject({ status: 200, body: { Content: 'So: hello.' } })
    expect(bot.begun).toEqual(['hello'])
  })

  it('that takes too long is asked for with 继续, which is not kept', async () => {
    const bot = gatedBot()
    await using hub = await wechatHub({ main: bot.provider }, { holdMs: 20, hintAfterMs: 1 })
    const hint = await service(hub, callback('hello'))
    expect(hint.body?.['Content']).toContain('继续')
    const early = await service(hub, callback('继续'))
    expect(early.body?.['Content']).toBe(hint.body?.['Content'])
    bot.finish('hello')
    await expect.poll(() => service(hub, callback(' 继续 '))).toMatchObject({ body: { Content: 'So: hello.' } })
    expect((await recordsOf(hub, 'WXService:gh_shop:ada', 'ada')).total).toBe(2)
    expect(bot.begun).toEqual(['hello'])
    const stranger = await service(hub, callback('继续', { fromUserName: 'bob' }))
    expect(stranger.body?.['Content']).not.toContain('So')
  })

  it('that is no text is answered with an apology, and not kept', async () => {
    await using hub = await wechatHub({ main: local(parrot) })
    const voice = callback('', { msgType: 'voice', mediaId: 'm', format: 'amr' })
    expect((await service(hub, voice)).body?.['Content']).toContain('文字')
    const unknown = await fetch(`${hub.url}/v1/aibot/bots/main/records?conversationId=WXService:gh_shop:ada&user=ada`)
    expect(unknown.status).toBe(404)
  })

  it('that fails or waits says so', async () => {
    await using hub = await wechatHub({
      main: local(async function* () {
        yield 'May I?'
        yield { type: 'consent.requested', calls: [{ call: 'c', tool: 't', input: {}, alreadyAllowed: false }] }
      }),
      broken: {
        provider: local(() => Promise.reject(new Error('a secret of the bot'))),
        profile: { language: 'zh-Hans' },
      },
    })
    const waiting = await service(hub, callback('hello'))
    expect(waiting.body?.['Content']).toMatch(/^May I\?\n\n.*授权/)
    const again = await service(hub, callback('and now?'))
    expect(again.body?.['Content']).toContain('waits')
    const failed = await post(hub, { triggerSrc: 'WXService', callbackData: callback('hello') }, {}, 'broken')
    expect(failed.body?.['Content']).toBe('机器人发生错误，请再试一次。')
  })
})

describe('a message whose answer is pushed', () => {
  it.each([
    ['WXMiniapp', callback('hello'), false, { touser: 'ada' }],
    ['WXService', callback('hello'), true, { touser: 'ada' }],
    ['WXSubscription', callback('hello'), true, { touser: 'ada' }],
    ['WXCustomerService', deskCallback('hello'), false, { touser: 'wmAda', openKfId: 'wkDesk' }],
  ])('is acknowledged, and answered once (%s)', async (triggerSrc, callbackData, wxVerify, to) => {
    await using receiver = await openReceiver()
    await using hub = await wechatHub({ main: local(parrot) }, pushTo(receiver))
    const body = { triggerSrc, callbackData, wxVerify }
    expect(await post(hub, body)).toEqual({ status: 204, body: undefined })
    expect(await post(hub, body)).toEqual({ status: 204, body: undefined })
    await receiver.moreThan(0, AbortSignal.timeout(10_000))
    const [pushed, ...others] = receiver.callbacks
    expect(others).toEqual([])
    const message = { msgType: 'text', text: { content: 'You said hello' }, ...to }
    expect(new Webhook(secret).verify(pushed!.body, pushed!.headers)).toEqual({ botId: 'main', triggerSrc, message })
  })

  it('has an apology pushed for what is no text', async () => {
    await using receiver = await openReceiver()
    await using hub = await wechatHub({ main: local(parrot) }, pushTo(receiver))
    const image = callback('', { msgType: 'image' })
    expect((await post(hub, { triggerSrc: 'WXMiniapp', callbackData: image })).status).toBe(204)
    expect(receiver.callbacks[0]?.body).toContain('文字')
  })

  it('is refused where there is nowhere to push it to', async () => {
    await using hub = await wechatHub({ main: local(parrot) })
    const refused = await post(hub, { triggerSrc: 'WXMiniapp', callbackData: callback('hello') })
    expect(refused).toMatchObject({
      status: 501,
      body: { code: 'unsupported', message: expect.stringContaining('push') as string },
    })
  })
})

it('takes callbacks of WeChat from trusted keys alone, and none that are wrong', async () => {
  const auth = [
    apiKey({ name: 'server', key: 'key-of-a-server-0001', trusted: true }),
    apiKey({ name: 'browser', key: 'key-of-a-browser-001' }),
  ]
  await using hub = await wechatHub({ main: local(parrot) }, {}, { auth })
  const as = (key: string, body: object) => post(hub, body, { 'x-api-key': key })
  const body = { triggerSrc: 'WXService', callbackData: callback('hello') }
  expect(await as('key-of-a-browser-001', body)).toMatchObject({ status: 403, body: { code: 'forbidden' } })
  expect(await as('key-of-a-server-0001', body)).toMatchObject({ status: 200 })
  for (const wrong of [
    { ...body, triggerSrc: 'WXNothing' },
    { ...body, callbackData: callback('x', { fromUserName: 'a:b' }) },
  ]) {
    expect(await as('key-of-a-server-0001', wrong)).toMatchObject({ status: 422, body: { code: 'invalid_request' } })
  }
})
