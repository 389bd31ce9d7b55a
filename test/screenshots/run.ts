import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { chromium } from 'playwright-core'
import type { Browser, Page } from 'playwright-core'
import { asgard, consent, consolePage, local, retry } from '../../index.ts'
import type { HubEvent, Turn } from '../../index.ts'
import { HubError } from '../../core/errors.ts'
import { startHub } from '../support/hub.ts'
import type { TestHub } from '../support/hub.ts'
import { root } from '../support/program.ts'

/** Takes the pictures of the page that the README shows: `npm run screenshots`. */
async function takeScreenshots(): Promise<void> {
  await using hub = await startHub({
    bots: {
      main: { provider: local(guide), profile: { name: 'Guide' } },
      'asgard-demo': { provider: asgard({ simulated: true }), profile: { name: 'Asgard demo' }, use: [consent()] },
    },
    console: consolePage(),
  })
  await using browser = await chromium.launch({ executablePath: '/usr/bin/chromium', args: ['--no-sandbox'] })
  const desktop = { viewport: { width: 1280, height: 800 }, deviceScaleFactor: 1 } as const
  for (const colorScheme of ['light', 'dark'] as const) {
    const page = await browser.newPage({ ...desktop, colorScheme, locale: 'en' })
    await page.goto(hub.url)
    await converse(page, 'How do I add a bot?')
    await page.screenshot({ path: pictureAt(`console-${colorScheme}`) })
  }
  const phone = await browser.newPage({ viewport: { width: 390, height: 844 }, colorScheme: 'light', locale: 'en' })
  await phone.goto(`${hub.url}/#/asgard-demo`)
  await converse(phone, '/consent')
  await phone.screenshot({ path: pictureAt('console-phone') })
  await takeOperatorScreenshots(browser)
}

/** Takes the pictures of the operator's view. */
async function takeOperatorScreenshots(browser: Browser): Promise<void> {
  await using hub = await startHub({
    bots: {
      support: {
        provider: local(support),
        use: [retry({ retries: 3, baseMs: 400 })],
        profile: { name: 'Support' },
      },
      'asgard-demo': { provider: asgard({ simulated: true }), profile: { name: 'Asgard demo' }, use: [consent()] },
    },
    console: consolePage(),
  })
  const told = await makeHistory(hub)
  const size = { width: 1280, height: 800 }
  for (const colorScheme of ['light', 'dark'] as const) {
    const page = await browser.newPage({ viewport: size, colorScheme, locale: 'en' })
    await page.goto(`${hub.url}/#operator/turns/${told.turn}`)
    await page.locator('.steps li').first().waitFor()
    await page.locator('.rows li').first().waitFor()
    await page.screenshot({ path: pictureAt(`operator-${colorScheme}`) })
  }
  const phone = await browser.newPage({ viewport: { width: 390, height: 844 }, colorScheme: 'light', locale: 'en' })
  await phone.goto(`${hub.url}/#operator/turns/${told.turn}`)
  await phone.locator('.steps li').first().waitFor()
  await phone.screenshot({ path: pictureAt('operator-phone') })
  const held = await browser.newPage({ viewport: size, colorScheme: 'light', locale: 'en' })
  await held.goto(`${hub.url}/#operator/conversations/${told.conversation}`)
  await held.getByRole('button', { name: 'Take over' }).click()
  await held
    .getByRole('textbox', { name: 'Write as the operator' })
    .fill('This is Grace from the shop. Your parcel left an hour ago.')
  await held.getByRole('button', { name: 'Send' }).click()
  await held.locator('.said-list .by-operator').waitFor()
  await held.screenshot({ path: pictureAt('operator-conversation') })
}

/** What an ordinary hour leaves: answers, a failure, one that waits, one that is under way. */
async function makeHistory(hub: TestHub): Promise<{ readonly turn: string; readonly conversation: string }> {
  await hub.ask('asgard-demo', 'hello', { user: 'mei', conversation: 'trip' })
  await hub.ask('asgard-demo', '/consent', { user: 'mei', conversation: 'trip' })
  await hub.ask('support', 'Where is my order?', { user: 'ada', conversation: 'order-7301' })
  await hub.ask('support', 'fail', { user: 'bo', conversation: 'returns' })
  const [{ turn }] = await Promise.all([
    hub.ask('support', 'busy', { user: 'ada', conversation: 'order-7301' }),
    hub.ask('asgard-demo', '/think', { user: 'lin', conversation: 'ideas' }),
  ])
  for (const text of ['wait', 'and this?']) {
    await hub.api('/bots/support/messages', { text, user: 'cleo', conversation: 'gift' }, { prefer: 'respond-async' })
  }
  const { items } = (await (await hub.api('/bots/support/conversations?user=ada')).json()) as {
    readonly items: readonly { readonly id: string }[]
  }
  return { turn, conversation: items[0]!.id }
}

let busyTries = 0

/** A bot with the troubles that bots have. */
async function* support({ message, signal }: Turn): AsyncGenerator<HubEvent> {
  if (message.text === 'busy' && ++busyTries < 3) throw new HubError('upstream_rate_limited', { notStarted: true })
  if (message.text === 'fail') throw new HubError('upstream_auth')
  yield { type: 'message.delta', message: 'answer', text: 'Let me look that up for you. ' }
  if (message.text === 'busy') await setTimeout(1400, undefined, { signal })
  if (message.text === 'wait') await setTimeout(60_000, undefined, { signal })
  for (const text of ['It was packed ', 'this morning ', 'and is **on its way**.']) {
    await setTimeout(150, undefined, { signal })
    yield { type: 'message.delta', message: 'answer', text }
  }
}

const pictureAt = (name: string): string => join(root, 'docs/images', `${name}.png`)

async function converse(page: Page, text: string): Promise<void> {
  await page.locator('#message').fill(text)
  await page.keyboard.press('Enter')
  await page.locator('.status:is([data-status="completed"], [data-status="waiting"])').waitFor()
  await page.locator('#message').blur()
}

/** Shows what a bot may say. */
async function* guide(): AsyncGenerator<HubEvent> {
  const lines = [
    'Name it in `hub.config.ts`, and every channel ',
    'of the hub offers it:\n\n```ts\nexport default defineConfig({\n',
    '  bots: { guide: local(myBot) },\n',
    '  channels: { rest: rest(), sse: sse() },\n})\n```\n\n',
    'Then `npm start`. What it says is **kept**: cut the connection, ',
    'or load the page again, and the answer goes on.',
  ]
  const thought = 'They have a bot of their own; local() is the shortest way.'
  yield { type: 'reasoning.delta', message: 'thoughts', text: thought }
  yield { type: 'reasoning.completed', message: 'thoughts', text: thought }
  yield { type: 'tool.started', call: 'one', tool: 'search_docs', input: { query: 'add a bot' } }
  yield { type: 'tool.completed', call: 'one', output: 'docs/local-bots.md', isError: false }
  for (const text of lines) yield { type: 'message.delta', message: 'answer', text }
  yield { type: 'suggestion', text: 'And a bot of Coze?' }
  yield { type: 'suggestion', text: 'What do channels do?' }
}

await takeScreenshots()
