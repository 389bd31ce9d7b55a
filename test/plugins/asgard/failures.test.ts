import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { systemClock } from '../../../core/clock.ts'
import { HubError } from '../../../core/errors.ts'
import type { FailureCode } from '../../../core/errors.ts'
import { asgard } from '../../../plugins/asgard/index.ts'
import { startAsgardSimulator } from '../../../plugins/asgard/simulator.ts'
import type { AsgardSimulator } from '../../../plugins/asgard/simulator.ts'
import { buildProvider, collect, pluginContext, turnOf } from '../../fakes/turn.ts'
import { jsonOf, startHub } from '../../support/hub.ts'
import type { TestHub } from '../../support/hub.ts'
import type { TurnObject } from '../../../index.ts'
import { eventually } from '../../support/eventually.ts'

/*
 * Every way in which the simulator fails, from end to end: what the turn comes to, that its message is sent upstream
 * once, and that no connection is left.
 */

let edge: AsgardSimulator
beforeAll(async () => {
  edge = await startAsgardSimulator()
})
afterAll(async () => {
  await eventually(() => expect(edge.openAnswers).toBe(0))
  await edge.close()
})

const target = () => ({
  edgeServerHost: edge.url,
  namespace: edge.namespace,
  botProviderName: edge.botProviderName,
  apiKey: edge.apiKey,
})
const cutAnswer = 'This answer is cut in the middle, and yet it comes to its end.'

describe('a turn', () => {
  /** Reconnecting takes no time here. */
  const context = pluginContext({
    clock: { ...systemClock, sleep: (_, signal) => systemClock.sleep(0, signal) },
  })
  it.concurrent.each<[string, { readonly says: string } | { readonly fails: FailureCode }]>([
    ['hello', { says: 'You said: “hello”.' }],
    ['/cut', { says: cutAnswer }],
    ['!drop-before-cursor', { says: cutAnswer }],
    ['!drop-after-cursor', { says: `All of this is kept.\n${cutAnswer}` }],
    ['!no-start', { says: 'There was no start.' }],
    ['!complete-only', { says: 'All at once.' }],
    ['!no-idx', { says: 'Nobody counts.' }],
    ['!unknown-event', { says: 'Nothing was broken.' }],
    ['!wrong-types', { says: 'Nothing was broken.' }],
    ['!crlf', { says: 'Lines end in two characters.' }],
    ['!split', { says: '位元組 one by one 👩‍🚀.' }],
    ['!bom', { says: 'There is a mark before this.' }],
    ['!heartbeats', { says: 'Still here.' }],
    ['!after-end', { says: 'This is the end.' }],
    ['/fail', { fails: 'upstream_failed' }],
    ['!no-terminal', { fails: 'upstream_cut' }],
    ['!oversized', { fails: 'answer_too_large' }],
    ['!hang', { fails: 'upstream_silent' }],
    ['!hang-mid', { fails: 'upstream_silent' }],
    ['!heartbeats-only', { fails: 'upstream_silent' }],
    ['/busy', { fails: 'upstream_rate_limited' }],
    ['!error-400', { fails: 'upstream_rejected' }],
    ['!error-401', { fails: 'upstream_auth' }],
    ['!error-403', { fails: 'upstream_auth' }],
    ['!error-404', { fails: 'upstream_rejected' }],
    ['!error-409', { fails: 'upstream_conflict' }],
    ['!error-412', { fails: 'upstream_rejected' }],
    ['!error-429', { fails: 'upstream_rate_limited' }],
    ['!error-500', { fails: 'upstream_failed' }],
    ['!error-503', { fails: 'bot_unavailable' }],
    ['!error-html', { fails: 'upstream_failed' }],
    ['!error-detail', { fails: 'upstream_rejected' }],
    ['!json-200', { fails: 'upstream_rejected' }],
  ])('of %s comes to %j, with one start upstream', async (text, expected) => {
    const isSilent = 'fails' in expected && expected.fails === 'upstream_silent'
    const options = { ...target(), ...(isSilent ? { idleTimeoutMs: 600 } : {}) }
    const provider = await buildProvider(asgard(options), context)
    const turn = turnOf(text, { conversation: { id: `conv_${text}`, name: text } })
    const { events, error } = await collect(provider.respond(turn))
    const said = events.flatMap((event) => (event.type === 'message.completed' ? [event.text] : [])).join('\n')
    if ('says' in expected) {
      expect(error).toBeUndefined()
      expect(said).toContain(expected.says)
    } else {
      expect(error).toBeInstanceOf(HubError)
      expect(error).toMatchObject({ code: expected.fails })
    }
    const starts = edge.requests.filter(
      ({ path, method, headers, body }) =>
        path.startsWith('/message') &&
        method === 'POST' &&
        headers['last-event-id'] === undefined &&
        JSON.stringify(body ?? null).includes(turn.message.id),
    )
    expect(starts).toHaveLength(1)
  })
})

describe('a client that leaves', () => {
  let hub: TestHub
  beforeAll(async () => {
    hub = await startHub({
      bots: {
        stops: { provider: asgard(target()), onAbandon: { cancelAfter: 50 } },
        goesOn: { provider: asgard(target()), onAbandon: 'continue' },
      },
    })
  })
  afterAll(() => hub[Symbol.asyncDispose]())

  /** Reads until the bot talks, then hangs up. */
  const leave = async (bot: string, text: string): Promise<string> => {
    const controller = new AbortController()
    const response = await fetch(`${hub.url}/api/v1/bots/${bot}/messages`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', accept: 'text/event-stream' },
      body: JSON.stringify({ text, conversation: 'left' }),
      signal: controller.signal,
    })
    let seen = ''
    for await (const chunk of response.body!.pipeThrough(new TextDecoderStream())) {
      seen += chunk
      if (seen.includes('"message.delta"')) break
    }
    controller.abort()
    const turn = /"turn":"(turn_[^"]+)"/.exec(seen)?.[1]
    if (!turn) throw new Error(`the stream named no turn: ${seen}`)
    return turn
  }
  const turnOfHub = async (id: string) => jsonOf<TurnObject>(await hub.api(`/turns/${id}?wait=10`))
  const sent = (method: string, path: string) =>
    edge.requests.filter((request) => request.method === method && request.path === path)

  it('ends the run upstream, where the bot says so', async () => {
    const before = sent('POST', '/message/suspend').length
    const id = await leave('stops', '!hang-mid')
    // Whoever asks for the turn is somebody who listens, so the upstream is asked first.
    await eventually(() => expect(sent('POST', '/message/suspend')).toHaveLength(before + 1))
    await eventually(async () => expect((await turnOfHub(id)).status).toBe('cancelled'))
    await eventually(() => expect(edge.openAnswers).toBe(0))
    // The channel is free again.
    expect((await hub.ask('stops', 'hello', { conversation: 'left' })).status).toBe('completed')
  })

  it('leaves it to its end, where the bot says that', async () => {
    const before = sent('POST', '/message/suspend').length
    const id = await leave('goesOn', '!steady')
    await eventually(async () => expect((await turnOfHub(id)).status).toBe('completed'))
    expect((await turnOfHub(id)).text).toContain('word 60 ')
    expect(sent('POST', '/message/suspend')).toHaveLength(before)
  })

  it('for good takes the conversation along, upstream as well', async () => {
    await hub.ask('stops', 'my name is Ada', { conversation: 'deleted' })
    const response = await fetch(`${hub.url}/api/v1/bots/stops/conversations/deleted`, { method: 'DELETE' })
    expect(response.ok).toBe(true)
    await eventually(() => expect(sent('DELETE', '/channel')).toHaveLength(1))
    const { text } = await hub.ask('stops', 'what is my name?', { conversation: 'deleted' })
    expect(text).toBe('You have not told me your name yet.')
  })
})
