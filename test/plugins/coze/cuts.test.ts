import { describe, expect, it } from 'vitest'
import { tool } from '../../../core/tools.ts'
import type { HubEvent } from '../../../core/events.ts'
import { coze } from '../../../plugins/coze/index.ts'
import { startCozeSimulator } from '../../../plugins/coze/simulator.ts'
import { hastyClock } from '../../fakes/hasty-clock.ts'
import { buildProvider, collect, pluginContext, turnOf } from '../../fakes/turn.ts'
import { answers, spoken } from './rig.ts'

const tools = { get_weather: tool({ run: () => 'Sunny.' }) }

/** A provider before a simulator whose streams are cut behind so many bytes, and then tell what became of the chat. */
async function cuttable() {
  const simulator = await startCozeSimulator()
  let atByte = Number.POSITIVE_INFINITY
  let breaks = false
  let longest = 0
  const provider = await buildProvider(
    coze({ botId: simulator.botId, token: simulator.token, baseUrl: simulator.url, tools }),
    pluginContext({
      clock: hastyClock(),
      async fetch(input, init) {
        const response = await fetch(input, init)
        if (!response.headers.get('content-type')?.startsWith('text/event-stream')) return response
        const bytes = new Uint8Array(await response.arrayBuffer())
        longest = Math.max(longest, bytes.length)
        return new Response(cut(bytes, atByte, breaks), { headers: response.headers })
      },
    }),
  )
  return {
    async answer(text: string, cutAt = Number.POSITIVE_INFINITY, breaking = false) {
      atByte = cutAt
      breaks = breaking
      const before = posts()
      const outcome = await collect(provider.respond(turnOf(text)))
      return { ...outcome, chats: posts() - before }
    },
    longest: () => longest,
    async [Symbol.asyncDispose]() {
      await provider.close?.()
      await simulator.close()
    },
  }

  function posts(): number {
    return simulator.requests.filter(({ path }) => path === '/v3/chat').length
  }
}

function cut(bytes: Uint8Array, at: number, breaks: boolean): ReadableStream<Uint8Array> {
  let sent = false
  return new ReadableStream({
    pull(controller) {
      if (!sent && at > 0) controller.enqueue(bytes.subarray(0, at))
      else if (breaks && at < bytes.length) controller.error(new TypeError('terminated'))
      else controller.close()
      sent = true
    },
  })
}

/** What a reader has of an answer: its words as they came, its messages, and how often each other thing was said. */
const told = (events: readonly HubEvent[]) => ({
  spoken: spoken(events),
  answers: answers(events),
  suggestions: events.flatMap((event) => (event.type === 'suggestion' ? [event.text] : [])),
  tools: events.filter(({ type }) => type === 'tool.started' || type === 'tool.completed').length,
})

describe('an answer whose streams are cut', () => {
  it.each(['我叫小明 🙂', '!multi', '!cloud-tool', '/tools'])(
    'anywhere (%s) is the whole answer all the same, of one chat',
    async (text) => {
      await using bot = await cuttable()
      const whole = await bot.answer(text)
      expect(whole.error).toBeUndefined()
      expect(whole.chats).toBe(1)
      const length = bot.longest()
      // Steps of a prime number of bytes, so that cuts fall into every part of a frame.
      for (let at = 0; at < length; at += 127) {
        const { events, error, chats } = await bot.answer(text, at, at % 2 === 0)
        expect([at, error, chats]).toEqual([at, undefined, 1])
        expect([at, told(events)]).toEqual([at, told(whole.events)])
      }
    },
  )

  it('and fails is a failure all the same', async () => {
    await using bot = await cuttable()
    const codes = new Set<unknown>()
    for (const text of ['!failed-a', '!failed-b', '!failed-c']) {
      for (let at = 0; at < 1500; at += 331) {
        const { error, chats } = await bot.answer(text, at)
        expect(chats).toBe(1)
        codes.add((error as { readonly code: string } | undefined)?.code)
      }
    }
    expect([...codes]).toEqual(['upstream_failed'])
  })
})
