import { createHmac } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import { verifySlack } from '../../channels/webhook/schemes/slack.ts'
import { Secret } from '../../core/settings.ts'
import { checkConfig, defineConfig, echo, local, slack, webhook } from '../../index.ts'
import type { SchemeSpec } from '../../channels/webhook/scheme.ts'
import { deliverTo, hubBehind, schemeSuite } from '../suites/scheme.ts'
import type { Saying, SchemeSubject, SignedRequest } from '../suites/scheme.ts'
import { eventually } from '../support/eventually.ts'
import { startPlatform } from '../support/platform.ts'
import type { ApiAnswer, ApiCall, PlatformState } from '../support/platform.ts'

const signingSecret = 'signing-secret-of-the-app'
const token = 'xoxb-token-of-the-bot'

function sign(body: string, secret = signingSecret, at = Date.now()): SignedRequest {
  const timestamp = String(Math.floor(at / 1000))
  const signature = `v0=${createHmac('sha256', secret).update(`v0:${timestamp}:${body}`).digest('hex')}`
  const headers = { 'x-slack-request-timestamp': timestamp, 'x-slack-signature': signature }
  return { headers: { 'content-type': 'application/json', ...headers }, body }
}

const escape = (text: string) => text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;')
const unescape = (text: string) => text.replaceAll('&lt;', '<').replaceAll('&gt;', '>').replaceAll('&amp;', '&')

const eventOf = (id: string, event: Record<string, unknown>) => ({
  token: 'deprecated',
  team_id: 'T1',
  api_app_id: 'A1',
  type: 'event_callback',
  event_id: id,
  event_time: 1,
  authorizations: [{ team_id: 'T1', user_id: 'UBOT', is_bot: true }],
  event: { event_ts: '1.1', ts: '1700000000.000100', ...event },
})

const directMessage = ({ id, text, conversation, user }: Saying) =>
  eventOf(id, { type: 'message', channel_type: 'im', channel: conversation, user, text: escape(text) })

/** The part of Slack's Web API that posts and edits. */
function answer({ path, headers, body }: ApiCall, state: PlatformState): ApiAnswer {
  const {
    channel,
    text,
    ts,
    thread_ts: thread,
  } = body as Record<'channel' | 'text', string> & { ts?: string; thread_ts?: string }
  if (headers.authorization !== `Bearer ${token}`) return { body: { ok: false, error: 'invalid_auth' } }
  if (text.length > 4000) return { body: { ok: false, error: 'msg_too_long' } }
  if (path === '/chat.postMessage') {
    const conversation = thread === undefined ? channel : `${channel}:${thread}`
    return { body: { ok: true, channel, ts: state.post({ conversation, text: unescape(text) }).id } }
  }
  if (path !== '/chat.update') return { body: { ok: false, error: 'unknown_method' } }
  if (!state.edit(ts!, unescape(text))) return { body: { ok: false, error: 'message_not_found' } }
  return { body: { ok: true, channel, ts, text } }
}

let sayings = 0

const subject: SchemeSubject = {
  scheme: (baseUrl): SchemeSpec => slack({ signingSecret, token, editEvery: 20, baseUrl }),
  secrets: [signingSecret, token],
  start: () => startPlatform(answer, (number) => `1700000001.${String(number).padStart(6, '0')}`),
  saying: (text) => ({ text, id: `Ev${++sayings}`, conversation: `D${sayings}`, user: `U${sayings}` }),
  send: (saying) => sign(JSON.stringify(directMessage(saying))),
  forge: (saying) => sign(JSON.stringify(directMessage(saying)), 'another-secret'),
  broken: { 'no JSON': sign('{"type":'), 'no event': sign('[]'), 'no text': sign('') },
  posts: ({ path }) => path === '/chat.postMessage',
  tooOften: { status: 429, headers: { 'retry-after': '1' }, body: { ok: false, error: 'ratelimited' } },
  gone: { body: { ok: false, error: 'channel_not_found' } },
  maxLength: 4000,
  streams: true,
}

schemeSuite('slack', subject)

describe('slack', () => {
  it('signs as in the example that Slack publishes, and for five minutes', () => {
    // "Verifying requests from Slack", https://docs.slack.dev/authentication/verifying-requests-from-slack
    const body =
      'token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V&channel_name=foobar' +
      '&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=' +
      '&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN' +
      '&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c'
    const headers = {
      'x-slack-request-timestamp': '1531420618',
      'x-slack-signature': 'v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503',
    }
    const given = new Secret('8f742231b10e8888abcd99yyyzzz85a5')
    const at =
      (seconds: number, text = body) =>
      () =>
        verifySlack(
          given,
          { method: 'POST', query: new URLSearchParams(), headers, body: Buffer.from(text) },
          (1_531_420_618 + seconds) * 1000,
        )
    expect(at(0)).not.toThrow()
    expect(at(299)).not.toThrow()
    expect(at(-299)).not.toThrow()
    expect(at(301)).toThrow('five minutes')
    expect(at(-301)).toThrow('five minutes')
    expect(at(0, `${body} `)).toThrow()
  })

  it('refuses a request that is stale, however well it is signed', async () => {
    await using platform = await subject.start()
    await using hub = await hubBehind(subject, platform)
    const body = JSON.stringify(directMessage(subject.saying('hello')))
    expect((await deliverTo(hub, sign(body, signingSecret, Date.now() - 400_000))).status).toBe(401)
  })

  it('answers the challenge by which Slack sees that the address is ours', async () => {
    await using platform = await subject.start()
    await using hub = await hubBehind(subject, platform)
    const body = JSON.stringify({ token: 'x', challenge: '3eZbrw1aBm2rZgRNFdxV2595E9CY', type: 'url_verification' })
    const response = await deliverTo(hub, sign(body))
    expect([response.status, await response.json()]).toEqual([200, { challenge: '3eZbrw1aBm2rZgRNFdxV2595E9CY' }])
    expect((await deliverTo(hub, sign(body, 'another-secret'))).status).toBe(401)
  })

  it('answers mentions in their thread, and nothing that is an edit, of a bot or not for the bot', async () => {
    await using platform = await subject.start()
    const asked: string[] = []
    await using hub = await hubBehind(
      subject,
      platform,
      local(({ message }) => {
        asked.push(message.text)
        return `to ${message.text}`
      }),
    )
    const events = [
      { type: 'message', channel_type: 'im', channel: 'D', user: 'U', text: 'of a bot', bot_id: 'B1' },
      { type: 'message', channel_type: 'im', channel: 'D', subtype: 'message_changed', message: { text: 'edited' } },
      { type: 'message', channel_type: 'im', channel: 'D', subtype: 'bot_message', text: 'of a bot' },
      { type: 'message', channel_type: 'channel', channel: 'C', user: 'U', text: 'to others' },
      { type: 'reaction_added', user: 'U', reaction: 'x' },
      { type: 'app_mention', channel: 'C', user: 'U', text: '<@UBOT> ask <@U2> &lt;b&gt;' },
      {
        type: 'app_mention',
        channel: 'C',
        user: 'U',
        text: '<@UBOT>: again',
        ts: '2.2',
        thread_ts: '1700000000.000100',
      },
      { type: 'app_mention', channel: 'C', user: 'U', text: '<@UBOT>' },
    ]
    for (const [index, event] of events.entries()) {
      const response = await deliverTo(hub, sign(JSON.stringify(eventOf(`Ev-mention-${index}`, event))))
      expect([index, response.status]).toEqual([index, 200])
    }
    await eventually(() => expect(platform.messages).toHaveLength(2))
    expect(platform.messages).toMatchObject([
      { conversation: 'C:1700000000.000100', text: 'to ask <@U2> <b>' },
      { conversation: 'C:1700000000.000100', text: 'to again' },
    ])
    expect(asked).toEqual(['ask <@U2> <b>', 'again'])
  })

  it('posts anew what cannot be edited any more', async () => {
    await using platform = await subject.start()
    const opened = Promise.withResolvers<void>()
    const bot = local(async function* () {
      yield 'half'
      await opened.promise
      yield ' and whole'
    })
    await using hub = await hubBehind(subject, platform, bot)
    await deliverTo(hub, subject.send(subject.saying('hello')))
    await eventually(() => expect(platform.messages).toHaveLength(1))
    platform.messages.length = 0
    opened.resolve()
    await eventually(() => expect(platform.messages.map(({ text }) => text)).toEqual(['half and whole']))
  })

  it('has its options checked with the rest of the config', () => {
    const check =
      (options: unknown, more = {}) =>
      () =>
        checkConfig(
          defineConfig({
            bots: { bot: echo() },
            channels: { chat: webhook({ bot: 'bot', scheme: slack(options as Parameters<typeof slack>[0]), ...more }) },
          }),
        )
    expect(check({ signingSecret, token })).not.toThrow()
    expect(check({ signingSecert: 'x', token })).toThrow('did you mean "signingSecret"?')
    expect(check({ signingSecret, token: { from: 'env', name: 'NO_SUCH_TOKEN' } })).toThrow('NO_SUCH_TOKEN is not set')
    expect(check({ signingSecret, token }, { secret: 'whsec_c2VjcmV0LXNlY3JldA==' })).toThrow(
      'a scheme has what it needs',
    )
    expect(() =>
      checkConfig(
        defineConfig({ bots: { bot: echo() }, channels: { chat: webhook({ bot: 'bot', scheme: 'slack' as never }) } }),
      ),
    ).toThrow('must be a scheme')
  })
})
