import { HttpAgent } from '@ag-ui/client'
import type { BaseEvent, RunAgentParameters } from '@ag-ui/client'
import { describe, expect, it, vi } from 'vitest'
import { cloudbaseApi, demoBot, local, rest } from '../../index.ts'
import type { BotFunction, HubConfig } from '../../index.ts'
import { startHub } from '../support/hub.ts'
import type { TestHub } from '../support/hub.ts'

// It speaks of older words at length.
vi.stubEnv('SUPPRESS_TRANSFORMATION_WARNINGS', 'true')

const aguiHub = (bots: HubConfig['bots']): Promise<TestHub> =>
  startHub({ bots, channels: { rest: rest(), cloudbase: cloudbaseApi() } })

/** AG-UI's own client, and what it has understood. */
function agentOf(hub: TestHub, bot = 'main') {
  const agent = new HttpAgent({ url: `${hub.url}/v1/aibot/bots/${bot}/send-message`, threadId: 'thread-1' })
  const events: BaseEvent[] = []
  const run = async (given: RunAgentParameters = {}) => {
    events.length = 0
    return agent.runAgent(given, { onEvent: ({ event }) => void events.push(event) })
  }
  return {
    agent,
    events,
    run,
    say: (text: string) => {
      agent.addMessage({ id: crypto.randomUUID(), role: 'user', content: text })
      return run()
    },
    types: () => events.map(({ type }): string => type),
  }
}

const thinking: BotFunction = async function* ({ message }) {
  yield { type: 'reasoning.delta', message: 'r', text: 'Let me see' }
  yield { type: 'reasoning.completed', message: 'r', text: 'Let me see' }
  yield { type: 'tool.started', call: 'call-1', tool: 'look_up', input: { word: message.text } }
  yield { type: 'tool.completed', call: 'call-1', output: { found: true }, isError: false }
  yield 'I found '
  yield 'it.'
  yield { type: 'usage', inputTokens: 1, outputTokens: 2, totalTokens: 3 }
}

describe("AG-UI's own client", () => {
  it('holds a conversation, whose messages the hub keeps', async () => {
    await using hub = await aguiHub({ main: local(demoBot) })
    const { say, agent, types } = agentOf(hub)
    await say('my name is Ada')
    expect(types()[0]).toBe('RUN_STARTED')
    expect(types().at(-1)).toBe('RUN_FINISHED')
    await say('what is my name?')
    expect(agent.messages.map(({ role }) => role)).toEqual(['user', 'assistant', 'user', 'assistant'])
    expect(agent.messages.at(-1)?.content).toContain('Ada')
    const records = await fetch(`${hub.url}/v1/aibot/bots/main/records?conversationId=thread-1&sort=asc`)
    const { total, recordList } = (await records.json()) as { total: number; recordList: { recordId: string }[] }
    expect(total).toBe(4)
    expect(recordList[1]?.recordId).toBe(agent.messages[1]?.id)
  })

  it('understands thoughts, tool calls and usage', async () => {
    await using hub = await aguiHub({ main: local(thinking) })
    const { say, agent, events } = agentOf(hub)
    await say('hub')
    expect(agent.messages.map(({ role, content }) => [role, content])).toEqual([
      ['user', 'hub'],
      ['reasoning', 'Let me see'],
      ['assistant', undefined],
      ['tool', '{"found":true}'],
      ['assistant', 'I found it.'],
    ])
    expect(agent.messages[2]).toMatchObject({
      toolCalls: [{ function: { name: 'look_up', arguments: '{"word":"hub"}' } }],
    })
    expect(events.at(-1)).toMatchObject({ usage: [{ inputTokens: 1, outputTokens: 2, totalTokens: 3 }] })
  })

  it('runs tools of its own, and brings what came of them', async () => {
    await using hub = await aguiHub({
      main: local(async function* ({ answers }) {
        if (answers?.type === 'tool_outputs') yield `It is ${JSON.stringify(answers.outputs[0]?.output)}.`
        else yield { type: 'tool.outputs_requested', calls: [{ call: 'c', tool: 'get_time', input: {} }] }
      }),
    })
    const { say, run, agent, events } = agentOf(hub)
    await say('what time is it?')
    const finished = events.at(-1) as BaseEvent & { outcome: { type: string; pendingToolCallIds: string[] } }
    expect(finished.outcome).toMatchObject({ type: 'success', pendingToolCallIds: [expect.stringMatching(/\/c$/)] })
    const [toolCallId] = finished.outcome.pendingToolCallIds
    agent.addMessage({ id: crypto.randomUUID(), role: 'tool', toolCallId: toolCallId!, content: 'noon' })
    await run()
    expect(agent.messages.at(-1)?.content).toBe('It is "noon".')
  })

  it.each([
    ['resolved', { result: 'allow_always' }, 'allow_always'],
    ['cancelled', undefined, 'deny_once'],
  ] as const)('answers an interrupt that asks for consent (%s)', async (status, payload, decided) => {
    await using hub = await aguiHub({
      main: local(async function* ({ answers }) {
        if (answers?.type === 'consent') yield `So: ${answers.decisions[0]!.result}`
        else {
          const calls = [{ call: 'c', tool: 'send_mail', input: {}, alreadyAllowed: false }]
          yield { type: 'consent.requested', calls }
        }
      }),
    })
    const { say, run, agent } = agentOf(hub)
    await say('send it')
    const [interrupt] = agent.pendingInterrupts
    expect(interrupt).toMatchObject({ reason: 'consent', toolCallId: expect.stringMatching(/\/c$/) as string })
    await run({ resume: [{ interruptId: interrupt!.id, status, ...(payload ? { payload } : {}) }] })
    expect(agent.messages.at(-1)?.content).toBe(`So: ${decided}`)
    expect(agent.pendingInterrupts).toEqual([])
  })

  it('is told of a failure, in front of the stream and in it', async () => {
    await using hub = await aguiHub({
      main: local(async function* () {
        yield 'I was about'
        throw new Error('a secret of the bot')
      }),
    })
    // It writes down what it throws.
    using _silence = vi.spyOn(console, 'error').mockImplementation(() => {})
    const inStream = agentOf(hub)
    await inStream.say('hello').catch(() => {})
    expect(inStream.events.at(-1)).toMatchObject({ type: 'RUN_ERROR', code: 'bot_failed' })
    expect(JSON.stringify(inStream.events)).not.toContain('secret')
    await expect(agentOf(hub, 'nobody').say('hello')).rejects.toThrow('unknown_bot')
  })
})

it('refuses runs that bring nothing new, and answers to what nobody asked', async () => {
  await using hub = await aguiHub({ main: local(() => 'here') })
  const send = async (body: object) => {
    const answer = await fetch(`${hub.url}/v1/aibot/bots/main/send-message`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ threadId: 't', runId: 'r', ...body }),
    })
    return `${answer.status} ${((await answer.json()) as { code: string }).code}`
  }
  const tool = { role: 'tool', content: 'x' }
  expect(await send({ messages: [] })).toBe('422 invalid_request')
  expect(await send({ messages: 7 })).toBe('422 invalid_request')
  expect(await send({ messages: [{ role: 'assistant', content: 'hello' }] })).toBe('422 invalid_request')
  expect(await send({ messages: [{ ...tool, toolCallId: 'of-no-turn' }] })).toBe('422 invalid_request')
  expect(await send({ messages: [{ ...tool, toolCallId: 'turn_0abc/c' }] })).toBe('404 unknown_turn')
  const { turn } = await hub.ask('main', 'hello')
  expect(await send({ messages: [{ ...tool, toolCallId: `${turn}/c` }] })).toBe('409 not_waiting')
  const resume = [{ interruptId: `${turn}/c`, status: 'resolved', payload: { result: 'maybe' } }]
  expect(await send({ messages: [], resume })).toBe('422 invalid_request')
})
