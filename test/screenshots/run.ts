import { join } from 'node:path'
import { chromium } from 'playwright-core'
import type { Page } from 'playwright-core'
import { asgard, consent, consolePage, local } from '../../index.ts'
import type { HubEvent } from '../../index.ts'
import { startHub } from '../support/hub.ts'
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
