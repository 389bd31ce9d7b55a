import { describe, expect, it } from 'vitest'
import { localPrincipal } from '../../../core/auth.ts'
import { tool } from '../../../core/tools.ts'
import { coze as cozeBot } from '../../../plugins/coze/index.ts'
import { collect, turnOf } from '../../fakes/turn.ts'
import { answers, cursorAfter, failure, rig, spoken, threadAfter } from './rig.ts'

const workflowId = '7400000000000000001'
type Options = NonNullable<Parameters<typeof rig>[0]>
const flowRig = (options: Options = {}) => rig({ workflowId, ...options })
type Rig = Awaited<ReturnType<typeof rig>>
const flows = (coze: Rig) =>
  coze.requests('POST', '/v1/workflows/chat').map(({ body }) => body as Record<string, unknown>)

describe('a chatflow', () => {
  it('answers in the place of a bot, in one conversation, with its inputs and for one user', async () => {
    await using coze = await flowRig({ appId: '7400000000000000002', parameters: { CONVERSATION_NAME: 'Default' } })
    const payload = { CONVERSATION_NAME: 'other', page: '/a', extra_params: { latitude: '1' } }
    const turn = turnOf('My name is Ada', { message: { id: 'm-1', text: 'My name is Ada', files: [], payload } })
    const first = await collect(coze.provider.respond(turn))
    expect(first.error).toBeUndefined()
    const thread = threadAfter(first.events)
    const second = await collect(coze.provider.respond(turnOf('What is my name?', { thread })))
    expect(answers(second.events)).toEqual(['Your name is Ada.'])
    const { conversationId } = thread as Record<string, unknown>
    expect(flows(coze)).toEqual([
      {
        workflow_id: workflowId,
        app_id: '7400000000000000002',
        conversation_id: conversationId,
        additional_messages: [
          {
            role: 'user',
            type: 'question',
            content: 'My name is Ada',
            content_type: 'text',
            meta_data: { hub_message_id: 'm-1' },
          },
        ],
        parameters: { CONVERSATION_NAME: 'Default', page: '/a' },
        ext: { latitude: '1', user_id: expect.stringMatching(/^u_/) },
      },
      expect.objectContaining({ conversation_id: conversationId }),
    ])
    expect(coze.posts()).toBe(0)
  })

  it('knows two principals as two users in two conversations', async () => {
    await using coze = await flowRig()
    for (const user of ['ada', 'bob']) {
      const { error } = await collect(coze.provider.respond(turnOf('Hi', { principal: localPrincipal(user) })))
      expect(error).toBeUndefined()
    }
    expect(new Set(flows(coze).map((body) => body['conversation_id'])).size).toBe(2)
    expect(new Set(flows(coze).map((body) => (body['ext'] as Record<string, unknown>)['user_id'])).size).toBe(2)
  })

  it('asks a question, which ends the turn, and takes the next message for the answer', async () => {
    await using coze = await flowRig()
    const asked = await collect(coze.provider.respond(turnOf('!question')))
    expect(asked.error).toBeUndefined()
    expect(answers(asked.events)).toEqual(['Which city?'])
    const next = await collect(coze.provider.respond(turnOf('Oslo', { thread: threadAfter(asked.events) })))
    expect(next.error).toBeUndefined()
    expect(spoken(next.events)).toContain('Oslo')
    expect(coze.requests('POST', '/v3/chat/submit_tool_outputs')).toEqual([])
  })

  it('that wants tool outputs fails, for there is no way to hand them in', async () => {
    await using coze = await flowRig()
    const { error } = await collect(coze.provider.respond(turnOf('/tools')))
    expect(failure(error)).toMatchObject({ code: 'upstream_failed', notStarted: false })
    expect(coze.requests('POST', '/v3/chat/submit_tool_outputs')).toEqual([])
  })

  it.each(['/cut', '!drop', '!idle', '!done-only'])(
    'whose stream is lost (%s) is made whole, and posted once',
    async (text) => {
      await using coze = await flowRig({ idleTimeoutMs: 150 })
      const { events, error } = await collect(coze.provider.respond(turnOf(text)))
      expect(error).toBeUndefined()
      expect(answers(events)).toEqual([spoken(events)])
      expect(flows(coze)).toHaveLength(1)
    },
  )

  it.each([
    ['!failed-c', 'upstream_failed'],
    ['!json-200', 'upstream_auth'],
    ['!error-429', 'upstream_rate_limited'],
    ['!code-4016', 'upstream_conflict'],
  ])('fails as a bot does (%s)', async (text, code) => {
    await using coze = await flowRig()
    const { error } = await collect(coze.provider.respond(turnOf(text)))
    expect(failure(error).code).toBe(code)
    expect(flows(coze)).toHaveLength(1)
  })

  it('sends no more history than a chatflow takes, and takes no files', async () => {
    await using coze = await flowRig()
    const history = Array.from({ length: 80 }, (_, index) => ({ role: 'user' as const, text: `${index}` }))
    const { error } = await collect(coze.provider.respond(turnOf('Hello', { history })))
    expect(error).toBeUndefined()
    expect(flows(coze)[0]?.['additional_messages']).toHaveLength(50)
    const thread = { bot: 'bot', principal: localPrincipal(), conversation: { id: 'conv_1', name: '1' } }
    const file = { name: 'a', mime: 'text/plain', stream: (async function* () {})() }
    const upload = coze.provider.upload!(file, thread, new AbortController().signal)
    await expect(upload).rejects.toMatchObject({ code: 'files_unsupported' })
  })

  it('may be simulated', async () => {
    await using coze = await flowRig({ simulated: true })
    const { events, error } = await collect(coze.provider.respond(turnOf('Hello')))
    expect(error).toBeUndefined()
    expect(spoken(events)).toContain('Hello')
  })
})

describe('a coze-studio', () => {
  const studioRig = (options: Options = {}) => rig({ server: 'studio', ...options }, { studio: true })

  it.each([
    ['Hello', /Hello/],
    ['/think', /Forty-two/],
    ['!multi', /The first answer\.,The second answer\./],
    ['!split', /字 and 🙂/],
    ['!sample-S14', /^Hi$/],
  ])('answers %s to its own end', async (text, expected) => {
    await using coze = await studioRig()
    const { events, error } = await collect(coze.provider.respond(turnOf(text)))
    expect(error).toBeUndefined()
    expect(answers(events).join()).toMatch(expected)
    expect(coze.posts()).toBe(1)
  })

  it.each([
    ['!studio-error', 'upstream_failed', '103000000'],
    ['!failed-b', 'upstream_failed', '701231'],
    ['!cut-canceled', 'upstream_failed', 'canceled'],
  ])('that fails (%s) fails the turn, although it calls the chat completed', async (text, code, upstream) => {
    await using coze = await studioRig()
    const { error } = await collect(coze.provider.respond(turnOf(text)))
    expect(failure(error)).toMatchObject({ code, upstream: { code: upstream } })
  })

  it.each(['/cut', '!half-event', '!done-only'])(
    'tells what became of a chat (%s) under its own names',
    async (text) => {
      await using coze = await studioRig()
      const { events, error } = await collect(coze.provider.respond(turnOf(text)))
      expect(error).toBeUndefined()
      expect(answers(events)).toEqual([spoken(events)])
      expect(coze.posts()).toBe(1)
    },
  )

  it('that puts the chat into another conversation is followed there', async () => {
    await using coze = await studioRig()
    const unknown = { conversationId: '7500000000000000999' }
    const first = await collect(coze.provider.respond(turnOf('My name is Ada', { thread: unknown })))
    expect(first.error).toBeUndefined()
    const thread = threadAfter(first.events)
    expect(thread).not.toEqual(unknown)
    const second = await collect(coze.provider.respond(turnOf('What is my name?', { thread })))
    expect(answers(second.events)).toEqual(['Your name is Ada.'])
  })

  it('refuses a bad token and a bad request in its own ways', async () => {
    await using coze = await studioRig()
    await using wrong = await studioRig({ token: 'pat_wrong' })
    expect(failure((await collect(wrong.provider.respond(turnOf('Hello')))).error).code).toBe('upstream_auth')
    const response = await fetch(`${coze.simulator.url}/v3/chat`, {
      method: 'POST',
      headers: { authorization: `Bearer ${coze.simulator.token}` },
      body: '{}',
    })
    expect([response.status, await response.json()]).toMatchObject([400, { code: 400 }])
  })

  it('runs chatflows too', async () => {
    await using coze = await studioRig({ workflowId })
    const { events, error } = await collect(coze.provider.respond(turnOf('!drop')))
    expect(error).toBeUndefined()
    expect(answers(events)).toEqual(['The first half, the second half.'])
    expect(cursorAfter(events)).toMatchObject({ chatId: expect.any(String) })
  })

  it('answers in the hub itself', async () => {
    await using coze = await rig({ server: 'studio', simulated: true })
    expect((await collect(coze.provider.respond(turnOf('Hello')))).error).toBeUndefined()
  })
})

describe('the options of a mode', () => {
  const tools = { get_weather: tool({ run: () => 'Sunny.' }) }

  it.each<[Parameters<typeof cozeBot>[0], string[]]>([
    [{ workflowId, token: 'pat_x' }, []],
    [{ workflowId, appId: '1', token: 'pat_x' }, []],
    [{ botId: '7', appId: '1', token: 'pat_x' }, ['appId: needs `workflowId`: an app chats by its chatflow']],
    [{ workflowId, token: 'pat_x', tools }, ['tools: are not taken by a chatflow; leave them out']],
    [{ botId: '7', token: 'pat_x', server: 'studio', tools }, ['tools: are not taken by coze-studio; leave them out']],
  ])('%j fit together or say what does not', (options, expected) => {
    const { error } = cozeBot().schema.safeParse(options)
    expect(error?.issues.map(({ path, message }) => `${path.join('.')}: ${message}`) ?? []).toEqual(expected)
  })
})
