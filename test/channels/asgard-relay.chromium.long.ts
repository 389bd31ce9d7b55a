import { expect, it } from 'vitest'
import type { Page } from 'playwright-core'
import { asgard, local } from '../../index.ts'
import { startAsgardSimulator } from '../../plugins/asgard/simulator.ts'
import { startCuttingProxy } from '../fakes/cutting-proxy.ts'
import { gatedBot } from '../fakes/gated-bot.ts'
import { inChromium } from '../support/chromium.ts'
import { allow, asking, base, relayHub } from './asgard-relay.front-end.ts'

/** What the page has seen of one stream. */
interface Streamed {
  readonly types: readonly string[]
  /** What its messages say, by the increments and by the whole. */
  readonly deltas: string
  readonly wholes: readonly string[]
  /** How often it connected. */
  readonly opened: number
  readonly error?: string
}

/** A page with the front-end SDK's transport and its handler rules, told what to do by the test. */
const script = `
import { fetchEventSource } from '@microsoft/fetch-event-source'

// As the SDK does: an id makes a drop worth coming back for, a refusal is final, the stream is over when the response is.
globalThis.stream = async (url, body, onFrame = () => {}) => {
  const seen = { types: [], deltas: '', wholes: [], opened: 0 }
  let cursor = ''
  try {
    await fetchEventSource(url, {
      method: body ? 'POST' : 'GET',
      headers: { 'Content-Type': 'application/json' },
      ...(body ? { body: JSON.stringify(body) } : {}),
      openWhenHidden: true,
      async onopen(response) {
        seen.opened += 1
        if (!response.ok) throw Object.assign(new Error('HTTP ' + response.status), { final: true })
      },
      onmessage({ id, data }) {
        cursor = id || cursor
        const { eventType, fact, requestId } = JSON.parse(data)
        seen.types.push(eventType.replace('asgard.', ''))
        if (fact.messageDelta) seen.deltas += fact.messageDelta.message.text
        if (fact.messageComplete) seen.wholes.push(fact.messageComplete.message.text)
        onFrame({ eventType, requestId })
      },
      onerror(error) {
        if (error.final || !cursor) throw error
        return 10
      },
    })
  } catch (error) {
    seen.error = String(error)
  }
  return seen
}
`

/** Runs one stream in the page: a message with a body, else a replay. */
const stream = (page: Page, url: string, body?: object): Promise<Streamed> =>
  page.evaluate(`stream(${JSON.stringify(url)}, ${JSON.stringify(body)})`)

const message = (text: string, more: object = {}) => ({
  customChannelId: 'c',
  customMessageId: crypto.randomUUID(),
  text,
  action: 'NONE',
  ...more,
})
const sse = (url: string, bot: string) => `${base(url, bot)}/message/sse`
const replay = (url: string, bot: string) => `${sse(url, bot)}?custom_channel_id=c`

inChromium('a page with the front-end SDK’s transport', (browser) => {
  it('streams a run, answers a consent, and has everything again when it is loaded again', async () => {
    await using hub = await relayHub({ main: local(asking) })
    await using open = await browser.open({ script })
    const { page, problems } = open
    const asked = await stream(page, sse(hub.url, 'main'), message('hello'))
    expect(asked.types.slice(-2)).toEqual(['tool_call.consent', 'run.done'])
    expect(asked).toMatchObject({ deltas: 'May I?', wholes: ['May I?'], opened: 1 })

    await page.reload()
    const paused = await stream(page, replay(hub.url, 'main'))
    expect(paused.types).toEqual(['message.user', 'message.complete', 'run.init', 'tool_call.consent', 'run.done'])
    const answered = await stream(page, sse(hub.url, 'main'), message('', allow('one', 'two')))
    expect(answered.wholes.at(-1)).toContain('two allow_once')

    await page.reload()
    const { types, wholes, error } = await stream(page, replay(hub.url, 'main'))
    expect(types).toEqual(['message.user', 'message.complete', 'message.complete', 'run.done'])
    expect(wholes).toEqual([...asked.wholes, ...answered.wholes.slice(-1)])
    expect([error, ...problems]).toEqual([undefined])
  })

  it('is cut again and again, comes back with its cursor, and asks nothing twice', async () => {
    const edge = await startAsgardSimulator({ apiKey: 'key-of-the-upstream' })
    const { namespace, botProviderName, apiKey } = edge
    await using hub = await relayHub({ edge: asgard({ edgeServerHost: edge.url, namespace, botProviderName, apiKey }) })
    // Enough for a frame with an id; which of them the browser opens for what is its own affair.
    await using proxy = await startCuttingProxy(
      hub.url,
      Array.from({ length: 6 }, () => 4000),
    )
    await using open = await browser.open({ script })
    const seen = await stream(open.page, sse(proxy.url, 'edge'), message('!steady'))
    expect(seen.opened).toBeGreaterThan(2)
    expect(proxy.cuts()).toBeGreaterThanOrEqual(seen.opened - 1)
    expect(seen.wholes).toEqual([seen.deltas])
    expect(seen.types.slice(-2)).toEqual(['message.complete', 'run.done'])
    const runs = edge.requests.filter(({ path, headers }) => path === '/message/sse' && !('last-event-id' in headers))
    expect(runs).toHaveLength(1)
    expect(await open.page.content()).not.toContain(apiKey)
    await edge.close()
  })

  it('stops a run, whose stream ends, and reads of the others what it may', async () => {
    const bot = gatedBot()
    await using hub = await relayHub({ main: bot.provider })
    await using open = await browser.open({ script })
    const { page } = open
    const stopped = (await page.evaluate(`new Promise((resolve, reject) => {
      const base = ${JSON.stringify(base(hub.url, 'main'))}
      let suspended
      stream(base + '/message/sse', ${JSON.stringify(message('hello'))}, ({ eventType, requestId }) => {
        if (eventType !== 'asgard.message.delta') return
        suspended = fetch(base + '/message/suspend?custom_channel_id=c&request_id=' + requestId, { method: 'POST' })
      }).then(async (seen) => resolve({ ...seen, status: (await suspended).status })).catch(reject)
    })`)) as Streamed & { readonly status: number }
    expect(stopped.status).toBe(204)
    expect(stopped.types.at(-1)).toBe('run.done')
    expect(stopped.error).toBeUndefined()

    const refused = await stream(page, sse(hub.url, 'nobody'), message('hello'))
    expect(refused.error).toContain('HTTP 404')
    const [reset, known] = (await page.evaluate(`(async () => {
      const url = ${JSON.stringify(base(hub.url, 'main'))}
      const gone = await fetch(url + '/channel?custom_channel_id=c', { method: 'DELETE' })
      const unknown = await fetch(url + '/channel/metadata?custom_channel_id=c')
      return [gone.status, await unknown.json()]
    })()`)) as [number, object]
    expect(reset).toBe(204)
    expect(known).toMatchObject({ isSuccess: false, errorCode: 'CHANNEL_NOT_FOUND' })
  })
})
