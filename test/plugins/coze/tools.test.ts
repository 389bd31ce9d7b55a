import { describe, expect, it } from 'vitest'
import { z } from 'zod'
import { HubError } from '../../../core/errors.ts'
import type { HubEvent } from '../../../core/events.ts'
import type { Json } from '../../../core/message.ts'
import { tool } from '../../../core/tools.ts'
import type { LocalTools } from '../../../core/tools.ts'
import type { Turn } from '../../../core/turn.ts'
import { collect, turnOf } from '../../fakes/turn.ts'
import { answers, cursorAfter, rig, threadAfter, visible } from './rig.ts'

const weather = tool({ parameters: z.object({ city: z.string() }), run: ({ city }) => `Sunny in ${city}.` })

const submits = (coze: Awaited<ReturnType<typeof rig>>) =>
  coze
    .requests('POST', '/v3/chat/submit_tool_outputs')
    .map(({ body }) =>
      ((body as Record<string, Json>)['tool_outputs'] as { output: string }[]).map(({ output }) => output),
    )

/** The turn as the runner hands it on when it goes on after these events. */
const again = (turn: Turn, events: readonly HubEvent[], changes: Partial<Turn> = {}): Turn => ({
  ...turn,
  resume: cursorAfter(events),
  thread: threadAfter(events),
  ...changes,
})

const calls = (events: readonly HubEvent[]) =>
  events.flatMap((event) =>
    event.type === 'consent.requested' || event.type === 'tool.outputs_requested' ? event.calls : [],
  )

describe('a local tool', () => {
  it('is run by the hub, and its call is shown once', async () => {
    await using coze = await rig({ tools: { get_weather: weather } })
    const { events, error } = await collect(coze.provider.respond(turnOf('/tools')))
    expect(error).toBeUndefined()
    expect(visible(events)).toEqual([
      { type: 'tool.started', call: 'c1', tool: 'get_weather', input: { city: 'Taipei' } },
      { type: 'tool.completed', call: 'c1', output: 'Sunny in Taipei.', isError: false },
      { type: 'message.delta', message: 'm2', text: 'I looked ' },
      { type: 'message.delta', message: 'm2', text: 'at the weather in Taipei: ' },
      { type: 'message.delta', message: 'm2', text: 'Sunny in Taipei.' },
      { type: 'message.completed', message: 'm2', text: 'I looked at the weather in Taipei: Sunny in Taipei.' },
      { type: 'suggestion', text: 'And tomorrow?' },
    ])
    expect(coze.posts()).toBe(1)
  })

  it.each<[string, LocalTools, string, string[]]>([
    ['!rounds', { get_weather: weather }, 'Sunny in Oslo. Sunny in Bergen.', ['Sunny in Oslo.', 'Sunny in Bergen.']],
    [
      '!two-tools',
      { get_weather: weather, get_time: tool({ run: () => ({ hour: 12 }) }) },
      'Sunny in Oslo. {"hour":12}',
      ['Sunny in Oslo.', '{"hour":12}'],
    ],
    [
      '!sample-S4-leg1',
      { get_rain_probability: tool({ run: () => ({ probability: 0.5 }) }) },
      'The chance is 50%.',
      ['{"probability":0.5}'],
    ],
  ])('answers %s in as many rounds as it takes, objects as JSON', async (text, tools, answer, outputs) => {
    await using coze = await rig({ tools })
    const { events, error } = await collect(coze.provider.respond(turnOf(text)))
    expect(error).toBeUndefined()
    expect(answers(events)).toEqual([answer])
    expect(submits(coze).flat()).toEqual(outputs)
    expect(coze.posts()).toBe(1)
  })

  it.each<[string, LocalTools, RegExp]>([
    ['does not fit', { get_weather: weather }, /not valid/],
    [
      'throws',
      {
        get_weather: tool({
          run() {
            throw new Error('no barometer')
          },
        }),
      },
      /failed.*no barometer/,
    ],
    ['hangs', { get_weather: tool({ timeoutMs: 30, run: () => new Promise(() => {}) }) }, /too long/],
  ])('whose input or run %s tells the model so', async (kind, tools, output) => {
    await using coze = await rig({ tools })
    const text = kind === 'does not fit' ? '!bad-arguments' : '!busy-submit'
    const { events, error } = await collect(coze.provider.respond(turnOf(text)))
    expect(error).toBeUndefined()
    expect(events.find((event) => event.type === 'tool.completed')).toMatchObject({
      isError: true,
      output: expect.stringMatching(output),
    })
    expect(answers(events)).toEqual([expect.stringMatching(output)])
  })

  it.each([
    ['!busy-submit', 2],
    ['!cut-at-submit', 2],
    ['!cut-after-tools', 1],
    ['!cut-at-tools', 1],
  ])('is run once, whatever is lost on the way (%s)', async (text, submitted) => {
    let runs = 0
    await using coze = await rig({ tools: { get_weather: tool({ run: () => `Sunny ${++runs}.` }) } })
    const { events, error } = await collect(coze.provider.respond(turnOf(text)))
    expect(error).toBeUndefined()
    expect(answers(events).at(-1)).toContain('Sunny 1.')
    expect(runs).toBe(1)
    expect(submits(coze)).toHaveLength(submitted)
    expect(visible(events).filter((event) => (event as HubEvent).type === 'tool.started')).toHaveLength(1)
    expect(coze.posts()).toBe(1)
  })

  it('whose output is refused for now is handed in after the time Coze asks for', async () => {
    await using coze = await rig({ tools: { get_weather: weather } })
    const { error } = await collect(coze.provider.respond(turnOf('!busy-submit')))
    expect(error).toBeUndefined()
    expect(coze.sleeps).toEqual([1000])
  })

  it('that was begun before a crash is not run again, and its outcome is called unknown', async () => {
    let runs = 0
    await using coze = await rig({ tools: { get_weather: tool({ run: () => `Sunny ${++runs}.` }) } })
    const turn = turnOf('/tools')
    const before: HubEvent[] = []
    for await (const event of coze.provider.respond(turn)) {
      before.push(event)
      if (event.type === 'tool.started') break
    }
    expect(before.at(-1)?.type).toBe('tool.started')
    const { events, error } = await collect(coze.provider.respond(again(turn, before)))
    expect(error).toBeUndefined()
    expect(runs).toBe(0)
    expect(visible(events)[0]).toMatchObject({ type: 'tool.completed', isError: true })
    expect(answers(events)).toEqual([expect.stringContaining('Its outcome is unknown.')])
  })

  it('that had run before a crash is not run again either', async () => {
    let runs = 0
    await using coze = await rig({ tools: { get_weather: tool({ run: () => `Sunny ${++runs}.` }) } })
    const turn = turnOf('/tools')
    const before: HubEvent[] = []
    for await (const event of coze.provider.respond(turn)) {
      before.push(event)
      if (event.type === 'tool.completed') break
    }
    expect(runs).toBe(1)
    const { events } = await collect(coze.provider.respond(again(turn, before)))
    expect(runs).toBe(1)
    expect(answers(events)).toEqual(['I looked at the weather in Taipei: Sunny 1.'])
  })

  it('is left when its turn is stopped, and Coze gets an output all the same', async () => {
    const reason = new HubError('cancelled')
    const stopping = new AbortController()
    await using coze = await rig({
      tools: {
        get_weather: tool({
          run() {
            stopping.abort(reason)
            return new Promise(() => {})
          },
        }),
      },
    })
    const { events, error } = await collect(coze.provider.respond(turnOf('/tools', { signal: stopping.signal })))
    expect(error).toBe(reason)
    expect(submits(coze)).toEqual([['The user ended this turn.']])
    const next = await collect(coze.provider.respond(turnOf('Hello', { thread: threadAfter(events) })))
    expect(next.error).toBeUndefined()
    expect(answers(next.events)).toHaveLength(1)
  })
})

describe('consent', () => {
  const mail = (sent: unknown[]) => ({
    send_mail: tool({
      run(input) {
        sent.push(input)
        return 'Sent.'
      },
    }),
  })
  const input = { to: 'ada@example.com', subject: 'A greeting from the bot' }

  it.each([
    ['allow_once', true, 'The tool said: Sent.'],
    ['deny_once', false, 'The tool said: The user did not allow this call. Not today.'],
  ] as const)('is asked for, and %s is what happens', async (result, isRun, said) => {
    const sent: unknown[] = []
    await using coze = await rig({ tools: mail(sent) })
    const turn = turnOf('/consent', { asksConsent: () => true })
    const asked = await collect(coze.provider.respond(turn))
    expect(asked.error).toBeUndefined()
    expect(visible(asked.events)).toEqual([
      {
        type: 'consent.requested',
        calls: [{ call: 'c1', tool: 'send_mail', input, alreadyAllowed: false }],
      },
    ])
    expect(sent).toEqual([])

    const pending = asked.events.flatMap((event) => (event.type === 'consent.requested' ? event.calls : []))
    const decisions = pending.map(({ call }) => ({ call, result, reason: 'Not today.' }))
    const answer = { type: 'consent', calls: pending, decisions } as const
    const { events, error } = await collect(coze.provider.respond(again(turn, asked.events, { answers: answer })))
    expect(error).toBeUndefined()
    expect(sent).toEqual(isRun ? [input] : [])
    expect(visible(events).slice(0, 2)).toEqual([
      { type: 'tool.started', call: 'c1', tool: 'send_mail', input },
      expect.objectContaining({ type: 'tool.completed', call: 'c1', isError: !isRun }),
    ])
    expect(answers(events)).toEqual([expect.stringContaining(said)])
    expect(coze.posts()).toBe(1)
  })

  it('is not asked for where no middleware wants it', async () => {
    const sent: unknown[] = []
    await using coze = await rig({ tools: mail(sent) })
    const { events } = await collect(coze.provider.respond(turnOf('/consent')))
    expect(sent).toEqual([input])
    expect(answers(events)).toHaveLength(1)
  })

  it('that never comes sets the conversation free', async () => {
    await using coze = await rig({ tools: mail([]) })
    const turn = turnOf('/consent', { asksConsent: () => true })
    const { events } = await collect(coze.provider.respond(turn))
    expect(calls(events)).toHaveLength(1)
    const thread = threadAfter(events)
    await coze.provider.release!(again(turn, events))
    expect(submits(coze)).toEqual([['The user ended this turn.']])
    const next = await collect(coze.provider.respond(turnOf('Hello', { thread })))
    expect(next.error).toBeUndefined()
    expect(answers(next.events)).toHaveLength(1)
  })

  it('that was lost with the hub sets it free when the next message comes', async () => {
    await using coze = await rig({ tools: { get_weather: weather } })
    const { events } = await collect(coze.provider.respond(turnOf('!rounds', { asksConsent: () => true })))
    expect(calls(events)).toHaveLength(1)
    const next = await collect(coze.provider.respond(turnOf('Hello', { thread: threadAfter(events) })))
    expect(next.error).toBeUndefined()
    expect(answers(next.events)).toHaveLength(1)
    expect(submits(coze)).toEqual([['The user ended this turn.'], ['The user ended this turn.']])
  })

  it('is let go through every round that follows', async () => {
    await using coze = await rig({ tools: { get_weather: weather } })
    const turn = turnOf('!rounds', { asksConsent: () => true })
    const { events } = await collect(coze.provider.respond(turn))
    expect(calls(events)).toHaveLength(1)
    await coze.provider.release!(again(turn, events))
    expect(submits(coze)).toHaveLength(2)
    const next = await collect(coze.provider.respond(turnOf('Hello', { thread: threadAfter(events) })))
    expect(next.error).toBeUndefined()
  })
})

describe('a tool of the client', () => {
  it('is asked of the client, whose output is handed in', async () => {
    await using coze = await rig({ tools: { get_weather: weather } })
    const turn = turnOf('!client-tool')
    const asked = await collect(coze.provider.respond(turn))
    expect(visible(asked.events)).toEqual([
      { type: 'tool.outputs_requested', calls: [{ call: 'c1', tool: 'open_door', input: { door: 'front' } }] },
    ])
    const outputs = calls(asked.events).map(({ call }) => ({ call, output: { open: true } }))
    const { events, error } = await collect(
      coze.provider.respond(again(turn, asked.events, { answers: { type: 'tool_outputs', outputs } })),
    )
    expect(error).toBeUndefined()
    expect(answers(events)).toEqual(['The door: {"open":true}'])
    expect(submits(coze)).toEqual([['{"open":true}']])
  })

  it('waits beside a local one, which is run once', async () => {
    let runs = 0
    await using coze = await rig({ tools: { get_weather: tool({ run: () => `Sunny ${++runs}.` }) } })
    const turn = turnOf('!mixed-tools')
    const asked = await collect(coze.provider.respond(turn))
    expect(calls(asked.events).map((call) => call.tool)).toEqual(['open_door'])
    expect(submits(coze)).toEqual([])
    const outputs = calls(asked.events).map(({ call }) => ({ call, output: 'open' }))
    const { events } = await collect(
      coze.provider.respond(again(turn, asked.events, { answers: { type: 'tool_outputs', outputs } })),
    )
    expect(answers(events)).toEqual(['Sunny 1. open'])
    expect(runs).toBe(1)
  })

  it('is asked for again after a crash while the turn waits', async () => {
    await using coze = await rig()
    const turn = turnOf('!client-tool')
    const first = await collect(coze.provider.respond(turn))
    const second = await collect(coze.provider.respond(again(turn, first.events)))
    expect(calls(first.events)).toHaveLength(1)
    expect(calls(second.events)).toEqual(calls(first.events))
  })
})
