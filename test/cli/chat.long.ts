import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { apiKey, consent, demoBot, local } from '../../index.ts'
import { gatedBot } from '../fakes/gated-bot.ts'
import type { TestHub } from '../support/hub.ts'
import { startHub } from '../support/hub.ts'
import { run } from '../support/program.ts'

// Programs are started here, on a machine that may be busy.
vi.setConfig({ testTimeout: 60_000 })

const gated = gatedBot()
let hub: TestHub
let locked: TestHub
beforeAll(async () => {
  hub = await startHub({
    bots: {
      main: { provider: local(demoBot), use: [consent({ allow: ['get_weather'] })] },
      gated: { provider: gated.provider, onAbandon: 'continue' },
    },
  })
  locked = await startHub({ auth: [apiKey({ name: 'crm', key: 'a-key-of-the-crm' })], bots: { main: local(demoBot) } })
})
afterAll(() => Promise.all([hub[Symbol.asyncDispose](), locked[Symbol.asyncDispose]()]))

describe.concurrent('bothub chat', () => {
  it('holds a conversation with the first bot, and asks before a tool runs', async () => {
    const chat = run(['chat', '--url', hub.url])
    chat.type('my name is Ada', 'what is my name?', '/consent', 'perhaps', 'y', '/fail')
    chat.type()
    expect(await chat.exited, chat.output()).toBe(0)
    const lines = chat.output().split('\n')
    expect(lines).toEqual(expect.arrayContaining(['main> Your name is Ada.', 'you> /consent']))
    expect(lines.filter((line) => line.startsWith('May it run send_mail'))).toHaveLength(2)
    expect(lines).toContain('main> The tool says: "The mail to ada@example.com was sent."')
    expect(chat.output()).toContain('[bot_failed: ')
    // Colours are for terminals.
    expect(chat.output()).not.toContain('\u001B')
  })

  it('says at Ctrl-C how to go on, and reads on there', async () => {
    const first = run(['chat', 'gated', '--url', hub.url])
    first.type('a story')
    await first.printed(/gated> So: /)
    first.signal('SIGINT')
    expect(await first.exited, first.output()).toBe(0)
    const [, place] = /npx bothub chat gated --url http:\S+ --resume (\S+)/.exec(first.output()) ?? []
    gated.finish('a story')
    const second = run(['chat', '--url', hub.url, '--resume', place!])
    second.type()
    expect(await second.exited, second.output()).toBe(0)
    expect(second.output()).toContain('gated> a story.\n')
    expect(second.output()).not.toContain('So: ')
  })

  it.each([
    ['no hub is', 'main', () => 'http://127.0.0.1:1', '', 'No hub answers at http://127.0.0.1:1. Start one'],
    ['a bot is misspelt', 'gatde', () => hub.url, '', 'There is no bot "gatde" for you here; did you mean "gated"?\n'],
    ['a key is wanted', 'main', () => locked.url, '', 'This hub wants a key: put one of its keys into HUB_KEY.'],
    ['a key is wrong', 'main', () => locked.url, 'wrong', 'This hub does not know the key in HUB_KEY'],
  ])('says before anybody types what to do where %s', async (_, bot, url, key, said) => {
    const chat = run(['chat', bot, '--url', url()], { env: { HUB_KEY: key } })
    expect(await chat.exited).toBe(1)
    expect(chat.output()).toContain(said)
    expect(chat.output()).not.toContain('conversation')
  })
})
