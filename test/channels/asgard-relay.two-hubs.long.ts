import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { asgard } from '../../index.ts'
import { startAsgardSimulator } from '../../plugins/asgard/simulator.ts'
import type { AsgardSimulator } from '../../plugins/asgard/simulator.ts'
import { templateTypes } from '../../plugins/asgard/wire.ts'
import type { TestHub } from '../support/hub.ts'
import { find, framesOf, frontEnd, jsonType, relayHub, typesOf } from './asgard-relay.front-end.ts'
import type { Seen } from './asgard-relay.front-end.ts'

/** What Asgard says, and what is left of it behind two hubs, each of which has the one before it for a bot of Asgard. */
let edge: AsgardSimulator
let first: TestHub
let second: TestHub
beforeAll(async () => {
  edge = await startAsgardSimulator({ apiKey: 'k' })
  const { namespace, botProviderName } = edge
  first = await relayHub({ bot: asgard({ edgeServerHost: edge.url, namespace, botProviderName, apiKey: 'k' }) })
  const through = { edgeServerHost: first.url, namespace: 'any', botProviderName: 'bot', apiKey: 'none' }
  second = await relayHub({ bot: asgard(through) })
})
afterAll(async () => {
  await second[Symbol.asyncDispose]()
  await first[Symbol.asyncDispose]()
  await edge.close()
})

type Ask = (channel: string, text: string, more?: object) => Promise<Seen[]>

const atTheStart: Ask = async (customChannelId, text, more = {}) => {
  const base = `${edge.url}/ns/${edge.namespace}/bot-provider/${edge.botProviderName}`
  const body = JSON.stringify({ customChannelId, customMessageId: 'm', text, action: 'NONE', ...more })
  const headers = { ...jsonType, 'x-api-key': 'k' }
  return framesOf(await fetch(`${base}/message/sse?is_debug=true`, { method: 'POST', headers, body }))
}
const atTheEnd: Ask = async (channel, text, more = {}) =>
  framesOf(
    await frontEnd(second.url, 'bot').post('/message/sse?is_debug=true', channel, text, {
      customMessageId: 'm',
      ...more,
    }),
  )

describe('what comes out behind two hubs', () => {
  it.each([
    'hello',
    'one\ntwo 👩‍🚀',
    '/think',
    '/card',
    '/tools',
    '/consent',
    '!tool-error',
    '!multi',
    '!usage',
    '!subagent',
    '!sandbox',
    '!suggest',
    '!canvas',
    '!debug',
    '!title',
    '!unknown-event',
    ...templateTypes.map((type) => `!template-${type.toLowerCase()}`),
  ])('is what Asgard said to %j, in type, order and fact', async (text) => {
    const channel = crypto.randomUUID()
    const [start, end] = [await atTheStart(channel, text), await atTheEnd(channel, text)]
    expect(end.length).toBeGreaterThan(2)
    expect(renamed(end)).toEqual(renamed(start))
  })

  it('is what Asgard did after a consent that was given at the end', async () => {
    const said = await Promise.all(
      [atTheStart, atTheEnd].map(async (ask) => {
        const { pendingCalls } = find(await ask('consent', '!consent-two'), 'tool_call.consent') as {
          readonly pendingCalls: readonly { readonly toolCallId: string }[]
        }
        const results = ['ALLOW_ONCE', 'DENY_ONCE']
        return ask('consent', '', {
          action: 'RESPONSE_TOOL_CALL_CONSENT',
          toolCallConsents: pendingCalls.map(({ toolCallId }, index) => ({
            toolCallId,
            result: results[index],
            denyReason: index === 1 ? 'no' : '',
          })),
        })
      }),
    )
    expect(typesOf(said[0]!)).toContain('tool_call.complete')
    expect(renamed(said[1]!)).toEqual(renamed(said[0]!))
  })

  it('fails when Asgard does, in the words of the hub', async () => {
    const [start, end] = [await atTheStart('fail', '/fail'), await atTheEnd('fail', '/fail')]
    expect(typesOf(end)).toEqual(typesOf(start))
    expect(find(end, 'run.error')).toMatchObject({ error: { code: 'upstream_failed' } })
    expect(JSON.stringify(end)).not.toContain('the demo failed as asked')
  })
})

const idKeys = /^(messageId|replyToCustomMessageId|processId|toolUseId|toolCallId|customMessageId)$/

/**
 * Types and facts, with every id as the number of its first appearance. Facts that are not there are null or absent, and
 * `isPreset` is nothing that the hub knows.
 */
function renamed(frames: readonly Seen[]): unknown {
  const names = new Map<unknown, string>()
  const rename = (value: unknown, key = ''): unknown => {
    if (typeof value === 'string' && idKeys.test(key)) {
      if (!names.has(value)) names.set(value, `id ${names.size}`)
      return names.get(value)
    }
    if (Array.isArray(value)) return value.map((each) => rename(each))
    if (typeof value !== 'object' || value === null) return value
    return Object.fromEntries(
      Object.entries(value).flatMap(([name, each]) =>
        each === null || name === 'isPreset' ? [] : [[name, rename(each, name)]],
      ),
    )
  }
  return frames.map(({ event: { eventType, fact } }) => rename({ eventType, fact }))
}
