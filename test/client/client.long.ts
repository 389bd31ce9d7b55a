import { readFileSync } from 'node:fs'
import { createServer } from 'node:http'
import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { rolldown } from 'rolldown'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { WebSocket as OtherWebSocket } from 'ws'
import { z } from 'zod'
import type { Answer, HubClientOptions, NumberedEvent } from '../../client/index.ts'
import { hubClient, HubClientError } from '../../client/index.ts'
import { apiKey, consent, defineProvider, demoBot, echo, local } from '../../index.ts'
import type { BotFunction } from '../../index.ts'
import { startCuttingProxy } from '../fakes/cutting-proxy.ts'
import { gatedBot } from '../fakes/gated-bot.ts'
import { inChromium } from '../support/chromium.ts'
import { readEvents, startHub } from '../support/hub.ts'
import type { TestHub } from '../support/hub.ts'
import { root } from '../support/program.ts'

let asked: string[] = []
const counter: BotFunction = async function* ({ message }) {
  asked.push(message.text)
  for (let count = 0; count < 40; count++) yield `${count} 字😀 `
}
const waiter: BotFunction = async function* ({ answers }) {
  if (answers?.type === 'tool_outputs') yield `It is ${JSON.stringify(answers.outputs[0]!.output)}.`
  else yield { type: 'tool.outputs_requested', calls: [{ call: 'c1', tool: 'get_time', input: {} }] }
}
const bots = {
  main: { provider: local(demoBot), use: [consent()] },
  counter: local(counter),
  waiter: local(waiter),
  echo: echo(),
}

let hub: TestHub
beforeAll(async () => {
  hub = await startHub({ bots })
})
afterAll(() => hub[Symbol.asyncDispose]())

const all = (answer: Answer): Promise<NumberedEvent[]> => Array.fromAsync(answer)

/** The events of a turn as the hub has them. */
const kept = async (turn: string | undefined): Promise<NumberedEvent[]> =>
  readEvents(await hub.api(`/turns/${turn}/events`))

const failed = (code: string) => expect.objectContaining({ name: 'HubClientError', code })

describe('the bundle', () => {
  it('has 5 kB at most, and nothing in it that is not the client', async () => {
    await using made = await rolldown({ input: join(root, 'client/index.ts'), platform: 'browser' })
    const { output } = await made.generate({ format: 'es', minify: true, comments: false })
    expect(output).toHaveLength(1)
    expect(output[0].imports).toEqual([])
    expect(output[0].moduleIds.every((id) => id.startsWith(join(root, 'client/')))).toBe(true)
    expect(Buffer.byteLength(output[0].code)).toBeLessThanOrEqual(5000)
  })

  it('is what `bothub/client` leads to', async () => {
    const { exports } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as {
      exports: Readonly<Record<string, string>>
    }
    expect(exports['./client']).toBe('./client/index.ts')
  })
})

describe.each(['sse', 'websocket'] as const)('a client over %s', (transport) => {
  const client = (url = hub.url, more: Partial<HubClientOptions> = {}) => hubClient({ url, transport, ...more })

  it('gets the events of an answer, and its text', async () => {
    using bothub = client()
    const answer = bothub.ask('main', 'hello')
    expect([answer.turn, answer.seq]).toEqual([undefined, 0])
    const events = await all(answer)
    expect(events.length).toBeGreaterThan(5)
    expect(events).toEqual(await kept(answer.turn))
    expect(answer.seq).toBe(events.length)
    expect(await bothub.ask('echo', 'to you').text()).toBe('to you')
  })

  it('sends what may be said beside the words', async () => {
    using bothub = client(`${hub.url}/`)
    const options = { conversation: 'beside/it', id: 'm-1', payload: { a: [1] }, user: 'ada' }
    const [started] = await all(bothub.ask('echo', 'hello', options))
    expect(started).toMatchObject({ type: 'turn.started', conversation: 'beside/it', message: 'm-1' })
    // The same message is the same turn, and another one under its id is none.
    const again = bothub.ask('echo', 'hello', options)
    expect(await again.text()).toBe('hello')
    expect(again.turn).toBe(started?.type === 'turn.started' && started.turn)
    await expect(bothub.ask('echo', 'other', options).text()).rejects.toThrow(failed('idempotency_mismatch'))
  })

  it('keeps answers at the same time apart, also where their messages have one id', async () => {
    using bothub = client()
    const names = ['one', 'two', 'three', 'four', 'five']
    const texts = names.map((name) => bothub.ask('echo', name, { conversation: name, id: '1' }).text())
    expect(await Promise.all(texts)).toEqual(names)
  })

  it('loses and repeats nothing wherever the connection is cut, and asks once', async () => {
    asked = []
    // All through an answer, several times in a row, and before the first byte of it.
    const places = Array.from({ length: 24 }, (_, index) => [
      index * 230,
      (index * 67) % 900,
      300 + ((index * 31) % 400),
    ])
    const cuts = await Promise.all(
      places.map(async (cutAfter, index) => {
        await using proxy = await startCuttingProxy(hub.url, cutAfter)
        using bothub = client(proxy.url)
        const answer = bothub.ask('counter', `${index}`)
        const events = await all(answer)
        expect(events.map(({ seq }) => seq)).toEqual(events.map((_, place) => place + 1))
        expect(events).toEqual(await kept(answer.turn))
        return proxy.cuts()
      }),
    )
    expect(cuts.reduce((sum, count) => sum + count, 0)).toBeGreaterThan(40)
    expect(asked.toSorted()).toEqual(places.map((_, index) => `${index}`).toSorted())
  })

  it('decides about consent, and sees the answer go on', async () => {
    using bothub = client()
    const answer = bothub.ask('main', '/consent')
    const events: NumberedEvent[] = []
    for await (const event of answer) {
      events.push(event)
      if (event.type === 'consent.requested') {
        const decisions = event.calls.map(({ call }) => ({ call, result: 'allow_once' as const }))
        // The turn waits when its bot has said all.
        await expect
          .poll(async () => await (await hub.api(`/turns/${answer.turn}`)).json())
          .toMatchObject({ status: 'waiting' })
        await answer.decide(decisions)
        await expect(answer.decide(decisions)).rejects.toThrow(failed('already_decided'))
      }
    }
    expect(events).toEqual(await kept(answer.turn))
    expect(events.at(-1)).toMatchObject({ type: 'turn.completed', text: expect.stringContaining('was sent') })
  })

  it('gives outputs of tools though the connection is cut under them, once', async () => {
    for (const cutAfter of [
      [1200, 150],
      [1200, 260],
      [1200, 400],
    ]) {
      await using proxy = await startCuttingProxy(hub.url, cutAfter)
      using bothub = client(proxy.url)
      const answer = bothub.ask('waiter', 'what time is it?')
      const events: NumberedEvent[] = []
      for await (const event of answer) {
        events.push(event)
        if (event.type === 'turn.waiting') await answer.giveOutputs([{ call: 'c1', output: { hour: 7 } }])
      }
      expect(events).toEqual(await kept(answer.turn))
      expect(events.at(-1)).toMatchObject({ type: 'turn.completed', text: 'It is {"hour":7}.' })
    }
  })

  it('cancels', async () => {
    const gated = gatedBot()
    await using own = await startHub({ bots: { gated: gated.provider } })
    using bothub = client(own.url)
    const answer = bothub.ask('gated', 'hello')
    const types: string[] = []
    for await (const event of answer) {
      types.push(event.type)
      if (event.type === 'message.delta') await answer.cancel()
    }
    expect(types.at(-1)).toBe('turn.cancelled')
    await answer.cancel()
  })

  it('goes on where a loop was left, or a page was closed', async () => {
    using bothub = client()
    const answer = bothub.ask('counter', 'count')
    const events: NumberedEvent[] = []
    for await (const event of answer) {
      events.push(event)
      if (event.seq === 10) break
    }
    for await (const event of answer) {
      events.push(event)
      if (event.seq === 20) break
    }
    using other = client()
    events.push(...(await all(other.follow(answer.turn!, { after: 20 }))))
    expect(events).toEqual(await kept(answer.turn))
    // Nothing comes after the end.
    expect(await all(other.follow(answer.turn!, { after: events.length }))).toEqual([])
    expect(await all(other.follow(answer.turn!))).toEqual(events)
  })

  it('reads a turn that failed to its end, and throws only where its text is wanted', async () => {
    using bothub = client()
    const events = await all(bothub.ask('main', '/fail'))
    expect(events.at(-1)).toMatchObject({ type: 'turn.failed' })
    await expect(bothub.ask('main', '/fail').text()).rejects.toThrow(failed('bot_failed'))
  })

  it('throws what is refused, at once and with its code', async () => {
    using bothub = client()
    const error = await bothub
      .ask('nobody', 'hello')
      .text()
      .catch((reason: unknown) => reason)
    expect(error).toBeInstanceOf(HubClientError)
    expect(error).toMatchObject({ code: 'unknown_bot', retryable: false, message: expect.stringMatching(/bot/) })
    await expect(all(bothub.follow('turn_0'))).rejects.toThrow(failed('unknown_turn'))
    await expect(bothub.ask('echo', 'hello').cancel()).rejects.toThrow('Read the first event before.')
  })

  it('says that events are gone rather than leaving some out', async () => {
    await using own = await startHub({ bots, keep: { events: 0 } })
    const { turn } = await own.ask('main', 'hello')
    await own.sweep()
    using bothub = client(own.url)
    await expect(all(bothub.follow(turn, { after: 3 }))).rejects.toThrow(failed('events_expired'))
  })

  it('shows a key, got anew for each connection', async () => {
    await using own = await startHub({
      bots: { who: local(({ principal }) => principal.key) },
      auth: [apiKey({ name: 'ada', key: 'key-of-ada-0001' })],
    })
    await using proxy = await startCuttingProxy(own.url, [420])
    let count = 0
    const key = async () => `key-of-ada-000${++count > 0 ? 1 : 2}`
    using bothub = client(proxy.url, { key })
    expect(await bothub.ask('who', 'who am I?').text()).toBe('ada')
    expect(count).toBeGreaterThan(proxy.cuts())
    for (const wrong of ['key-of-nobody', undefined]) {
      using stranger = client(own.url, wrong === undefined ? {} : { key: wrong })
      await expect(stranger.ask('who', 'who am I?').text()).rejects.toThrow(failed('unauthorized'))
    }
  })

  it('goes on over a restart of the hub', async () => {
    const reached = Promise.withResolvers<void>()
    const resuming = defineProvider({
      manifest: { name: 'resuming', resumes: true },
      options: z.strictObject({}),
      create: () => ({
        async *respond({ resume, signal }) {
          if (resume === undefined) yield { type: 'upstream', cursor: 'here' }
          for (let count = resume === undefined ? 0 : 30; count < 60; count++) {
            if (count === 30 && resume === undefined) {
              reached.resolve()
              await new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason as Error)))
            }
            yield { type: 'message.delta', message: 'm', text: `${count} ` }
          }
        },
      }),
    })
    const first = await startHub({ bots: { resuming: resuming() } })
    using bothub = client(first.url)
    const answer = bothub.ask('resuming', 'count')
    const reading = all(answer)
    await reached.promise
    // In the same place, as a restart is.
    const { folder } = first
    await first.hub.stop(0)
    await using second = await startHub(
      { bots: { resuming: resuming() }, listen: { port: Number(new URL(first.url).port) } },
      { folder },
    )
    const events = await reading
    await first[Symbol.asyncDispose]()
    expect(events.map(({ seq }) => seq)).toEqual(events.map((_, index) => index + 1))
    const words = Array.from({ length: 60 }, (_, index) => `${index} `).join('')
    expect(events.at(-1)).toMatchObject({ type: 'turn.completed', text: words })
    expect(second.url).toBe(first.url)
  })

  it('gives up when there is no hub for too long, and says so', async () => {
    const nobody = createServer().listen(0, '127.0.0.1')
    await once(nobody, 'listening')
    const { port } = nobody.address() as AddressInfo
    nobody.close()
    await once(nobody, 'close')
    using bothub = client(`http://127.0.0.1:${port}`, { giveUpAfterMs: 300 })
    await expect(bothub.ask('echo', 'hello').text()).rejects.toThrow(failed('unreachable'))
  })

  it('stops reading when its signal aborts, also before it has begun', async () => {
    const gated = gatedBot()
    await using own = await startHub({ bots: { gated: gated.provider } })
    using bothub = client(own.url)
    const left = new AbortController()
    const answer = bothub.ask('gated', 'hello', { signal: left.signal })
    const reason = new Error('enough')
    await expect(
      (async () => {
        for await (const event of answer) if (event.type === 'message.delta') left.abort(reason)
      })(),
    ).rejects.toThrow(reason)
    await expect(all(answer)).rejects.toThrow(reason)
    expect(await (await own.api(`/turns/${answer.turn}`)).json()).toMatchObject({ status: 'running' })
    gated.finish('hello')
    expect(await bothub.follow(answer.turn!).text()).toBe('So: hello.')
  })

  inChromium('in Chromium', (browser) => {
    it('loses and repeats nothing wherever the connection is cut', async () => {
      await using opened = await browser.open({
        script: `
          import { hubClient } from '../../client/index.ts'
          globalThis.read = async (url, text) => {
            using hub = hubClient({ url, transport: '${transport}' })
            const answer = hub.ask('counter', text)
            const events = []
            for await (const event of answer) events.push(event)
            return { turn: answer.turn, events }
          }
        `,
      })
      await Promise.all(
        Array.from({ length: 8 }, async (_, index) => {
          await using proxy = await startCuttingProxy(hub.url, [index * 600, 500 + index * 90, (index * 67) % 900])
          const { turn, events } = await opened.page.evaluate(
            ([url, text]) => (globalThis as unknown as Page).read(url!, text!),
            [proxy.url, `chromium ${index}`],
          )
          expect(events.length).toBeGreaterThan(40)
          expect(events).toEqual(await kept(turn))
          expect(proxy.cuts()).toBeGreaterThan(1)
        }),
      )
    })
  })
})

/** What the script gives the page. */
interface Page {
  read(url: string, text: string): Promise<{ readonly turn: string; readonly events: NumberedEvent[] }>
}

describe('a client over websocket', () => {
  it('uses one socket for many answers, and another WebSocket where it is given one', async () => {
    await using proxy = await startCuttingProxy(hub.url, [])
    using bothub = hubClient({
      url: proxy.url,
      transport: 'websocket',
      WebSocket: OtherWebSocket as unknown as typeof WebSocket,
    })
    expect(await bothub.ask('echo', 'one').text()).toBe('one')
    expect(await Promise.all(['two', 'three'].map((text) => bothub.ask('echo', text).text()))).toEqual(['two', 'three'])
    expect(proxy.connections()).toBe(1)
    bothub.close()
    expect(await bothub.ask('echo', 'four').text()).toBe('four')
    expect(proxy.connections()).toBe(2)
  })
})

describe('a client over sse', () => {
  it('tells an address where there is no hub from a hub that cannot be reached', async () => {
    const site = createServer((request, response) => {
      response.statusCode = request.url!.includes('gateway') ? 502 : 404
      response.end('<h1>nothing here</h1>')
    }).listen(0, '127.0.0.1')
    await once(site, 'listening')
    const url = `http://127.0.0.1:${(site.address() as AddressInfo).port}`
    await expect(hubClient({ url }).ask('echo', 'hello').text()).rejects.toThrow(failed('not_a_hub'))
    const behind = hubClient({ url: `${url}/gateway`, giveUpAfterMs: 300 })
    await expect(behind.ask('echo', 'hello').text()).rejects.toThrow(failed('unreachable'))
    site.closeAllConnections()
    site.close()
  })
})
