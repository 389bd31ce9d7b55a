import { expect } from 'vitest'
import { parseEvents } from '../../core/sse.ts'
import { asgardRelay, rest } from '../../index.ts'
import type { BotFunction, HubConfig } from '../../index.ts'
import { readEvent } from '../../plugins/asgard/wire.ts'
import type { AsgardEvent } from '../../plugins/asgard/wire.ts'
import { startHub } from '../support/hub.ts'
import type { TestHub } from '../support/hub.ts'

// A front end of Asgard's, as far as tests need one.

export interface Seen {
  readonly id: string | undefined
  readonly event: AsgardEvent
}

export const relayHub = (bots: HubConfig['bots'], more: Partial<HubConfig> = {}): Promise<TestHub> =>
  startHub({ bots, channels: { rest: rest(), relay: asgardRelay() }, ...more })

export const base = (url: string, bot: string) => `${url}/ns/any/bot-provider/${bot}`
export const jsonType = { 'content-type': 'application/json' }

/** Requests of a front end to one bot. */
export function frontEnd(url: string, bot: string, headers: Record<string, string> = {}) {
  const call = (method: string, path: string, body?: unknown, more: Record<string, string> = {}) =>
    fetch(`${base(url, bot)}${path}`, {
      method,
      headers: { ...(body === undefined ? {} : jsonType), ...headers, ...more },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    })
  const post = (path: string, channel: string, text: string, more: object = {}, head: Record<string, string> = {}) =>
    call('POST', path, { customChannelId: channel, customMessageId: '', text, action: 'NONE', ...more }, head)
  return {
    call,
    post,
    say: async (channel: string, text: string, more: object = {}, head: Record<string, string> = {}) =>
      framesOf(await post('/message/sse', channel, text, more, head)),
    replay: async (channel: string, head: Record<string, string> = {}) =>
      framesOf(await call('GET', `/message/sse?custom_channel_id=${channel}`, undefined, head)),
    metadata: (channel: string) => call('GET', `/channel/metadata?custom_channel_id=${channel}`),
    suspend: (channel: string, more = '') => call('POST', `/message/suspend?custom_channel_id=${channel}${more}`),
  }
}

export async function framesOf(response: Response): Promise<Seen[]> {
  expect(response.status).toBe(200)
  expect(response.headers.get('content-type')).toBe('text/event-stream')
  return (await Array.fromAsync(parseEvents(response.body!))).map(({ id, data }) => ({ id, event: readEvent(data) }))
}

export const typesOf = (frames: readonly Seen[]) => frames.map(({ event }) => event.eventType.replace('asgard.', ''))
export const withoutDeltas = (frames: readonly Seen[]) => typesOf(frames).filter((type) => !/(delta|start)$/.test(type))
export const factOf = (frame: Seen | undefined): unknown =>
  Object.values(frame?.event.fact ?? {}).find((each) => each !== null)
export const find = (frames: readonly Seen[], type: string) =>
  factOf(frames.find(({ event }) => event.eventType === `asgard.${type}`))
export const saidIn = (frames: readonly Seen[]): string[] =>
  frames.flatMap(({ event }) => {
    const fact = event.fact['messageComplete'] as { readonly message: { readonly text: string } } | null | undefined
    return fact ? [fact.message.text] : []
  })
export const bodyOf = async (response: Promise<Response>) => {
  const answer = await response
  return { status: answer.status, body: (await answer.json()) as Record<string, unknown> }
}

export const asking: BotFunction = async function* ({ answers }) {
  if (answers?.type === 'consent') {
    yield answers.decisions.map(({ call, result, reason }) => [call, result, reason ?? ''].join(' ')).join(', ')
    return
  }
  yield 'May I?'
  const calls = ['one', 'two'].map((call) => ({ call, tool: 'send_mail', input: { to: call }, alreadyAllowed: false }))
  yield { type: 'consent.requested', calls }
}
export const allow = (...calls: readonly string[]) => ({
  action: 'RESPONSE_TOOL_CALL_CONSENT',
  toolCallConsents: calls.map((toolCallId) => ({ toolCallId, result: 'ALLOW_ONCE' })),
})
