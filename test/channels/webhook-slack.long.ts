import { createHmac } from 'node:crypto'
import { describe, expect, it, vi } from 'vitest'
import { deploy, startProgram } from '../support/program.ts'
import { startPlatform } from '../support/platform.ts'

// Programs are started here, on a machine that may be busy.
vi.setConfig({ testTimeout: 60_000 })

const signingSecret = 'signing-secret-of-the-app'

const send = (url: string, text: string, id: string) => {
  const event = { type: 'message', channel_type: 'im', channel: 'D1', user: 'U1', text, ts: '1.1' }
  const body = JSON.stringify({ type: 'event_callback', event_id: id, event })
  const timestamp = String(Math.floor(Date.now() / 1000))
  const signature = `v0=${createHmac('sha256', signingSecret).update(`v0:${timestamp}:${body}`).digest('hex')}`
  const headers = { 'x-slack-request-timestamp': timestamp, 'x-slack-signature': signature }
  return fetch(`${url}/api/v1/webhooks/slack`, { method: 'POST', body, headers })
}

const startSlack = () =>
  startPlatform(({ path, body }, state) => {
    const { channel, text, ts } = body as Record<'channel' | 'text' | 'ts', string>
    if (path === '/chat.update') return { body: { ok: state.edit(ts, text), ts } }
    return { body: { ok: true, ts: state.post({ conversation: channel, text }).id } }
  })

const configFor = (baseUrl: string) => `import { defineConfig, local, slack, webhook } from 'bothub'
const bot = local(async function* ({ message }) {
  yield 'half'
  if (message.text === 'stay') {
    await fetch('${baseUrl}/until-shown')
    yield ' of it'
    await new Promise(() => {})
  }
  yield ' and whole'
})
const scheme = slack({ signingSecret: '${signingSecret}', token: 'xoxb-of-the-bot', editEvery: 20, baseUrl: '${baseUrl}' })
export default defineConfig({
  bots: { bot },
  channels: { slack: webhook({ bot: 'bot', scheme, allowPrivate: true }) },
})
`

describe('an answer on a platform', () => {
  it('is one message that says how it ended, though the process that began it was killed', async () => {
    await using slack = await startSlack()
    slack.interrupt = async ({ path }) => {
      if (path !== '/until-shown') return undefined
      await vi.waitFor(() => expect(slack.shown).toEqual(['half']), { timeout: 20_000 })
      return { body: {} }
    }
    using deployment = deploy(configFor(slack.url))
    await using first = await startProgram(deployment)
    expect((await send(first.url, 'stay', 'Ev1')).status).toBe(200)
    // The second text shows that the first was noted: a kill in between would repeat it.
    await vi.waitFor(() => expect(slack.shown).toEqual(['half', 'half of it']), { timeout: 20_000 })
    await first.stop('SIGKILL')
    await using second = await startProgram(deployment)
    await vi.waitFor(() => expect(slack.shown).toHaveLength(3), { timeout: 20_000 })
    expect(slack.messages.map(({ text }) => text)).toEqual([
      'half of it\n\nThe hub was restarted while the bot answered, and its answer may be incomplete.',
    ])
    // The platform sends it again: it is the same turn, and has its answer.
    expect((await send(second.url, 'stay', 'Ev1')).status).toBe(200)
    await send(second.url, 'go', 'Ev2')
    await vi.waitFor(() => expect(slack.messages.map(({ text }) => text)[1]).toBe('half and whole'), {
      timeout: 20_000,
    })
    expect(slack.messages).toHaveLength(2)
  })

  it('is not posted again when the process is killed before the delivery was marked', async () => {
    await using slack = await startSlack()
    using deployment = deploy(configFor(slack.url))
    await using first = await startProgram(deployment, { env: { HUB_FAULT_POINT: 'delivery.before-mark' } })
    await send(first.url, 'go', 'Ev1')
    await first.exited
    expect(slack.messages.map(({ text }) => text)).toEqual(['half and whole'])
    const calls = slack.calls.length
    await using second = await startProgram(deployment)
    await vi.waitFor(async () => {
      expect(await (await second.api('/outbox')).json()).toEqual({ items: [], closed: [] })
    })
    expect(slack.calls).toHaveLength(calls)
  })
})
