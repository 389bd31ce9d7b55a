import axe from 'axe-core'
import type { Page } from 'playwright-core'
import { describe, expect, it } from 'vitest'
import { apiKey, asgard, consent, consolePage, demoBot, local } from '../../index.ts'
import type { HubConfig, HubEvent } from '../../index.ts'
import { gatedBot } from '../fakes/gated-bot.ts'
import { inChromium } from '../support/chromium.ts'
import { startHub } from '../support/hub.ts'

const sizes = [
  ['a phone', { width: 390, height: 844 }],
  ['a desktop', { width: 1280, height: 800 }],
] as const

const demo = { main: { provider: local(demoBot), use: [consent({ allow: ['get_weather'] })] } }

const startConsole = (bots: HubConfig['bots'] = demo) => startHub({ bots, console: consolePage() })

async function say(page: Page, text: string): Promise<void> {
  await page.getByRole('textbox', { name: 'Message' }).fill(text)
  await page.keyboard.press('Enter')
}

const turn = (page: Page) => page.locator('.exchange').last()
const prose = (page: Page) => turn(page).locator('.prose')
const note = (page: Page, words: string) => page.locator('.events .note', { hasText: words })
const tab = (page: Page, name: 'Messages' | 'Events') =>
  page.locator('.tabs').getByRole('button', { name, exact: true })

/** Waits until the latest turn is so far. */
const reaches = (page: Page, status: string) =>
  expect.poll(() => turn(page).locator('.status').textContent(), { timeout: 15_000 }).toBe(status)

/** Waits until the latest answer says this. */
const says = (page: Page, text: string) =>
  expect.poll(() => prose(page).allTextContents(), { timeout: 15_000 }).toEqual([text])

/** Presses a button over the events, which are on the other tab of a phone. */
async function press(page: Page, name: string): Promise<void> {
  const isPhone = await tab(page, 'Events').isVisible()
  if (isPhone) await tab(page, 'Events').click()
  await page.locator('.tools').getByRole('button', { name }).click()
  if (isPhone) await tab(page, 'Messages').click()
}

const numbers = async (page: Page): Promise<readonly number[]> =>
  (await page.locator('.events .seq').allTextContents()).map(Number)

const upTo = (last: number): readonly number[] => Array.from({ length: last }, (_, index) => index + 1)

/** What axe-core finds wrong with the page as it is now. */
async function violations(page: Page): Promise<unknown> {
  // The page's own policy lets no other script in; a debugger is above it.
  await page.evaluate(axe.source)
  return page.evaluate(
    'axe.run().then(({ violations }) => violations.flatMap(({ id, nodes }) => nodes.map(({ html }) => `${id}: ${html}`)))',
  )
}

inChromium('the page', (browser) => {
  describe.each(sizes)('on %s', (_, viewport) => {
    it('shows an answer with its numbered events, and sends a duplicate, which is the same turn', async () => {
      await using hub = await startConsole()
      await using open = await browser.visit(hub.url, { viewport })
      const { page, problems } = open
      await say(page, 'my name is Ada')
      await reaches(page, 'completed')
      expect(await prose(page).textContent()).toBe('Nice to meet you, Ada. I will remember that.')
      const shown = await numbers(page)
      expect(shown).toEqual(upTo(8))
      await press(page, 'Send duplicate')
      await expect.poll(() => note(page, 'Same turn, 8 events again, 0 new').count()).toBe(1)
      expect(await page.locator('.exchange').count()).toBe(1)
      expect(problems).toEqual([])
    })

    it('cuts the connection, and misses nothing', async () => {
      const bot = gatedBot()
      await using hub = await startConsole({ main: bot.provider })
      await using open = await browser.visit(hub.url, { viewport })
      const { page, problems } = open
      await say(page, 'hello')
      await says(page, 'So: ')
      await press(page, 'Cut connection')
      await expect.poll(() => note(page, 'Connected again, asking for what comes after event 3').count()).toBe(1)
      bot.finish('hello')
      await reaches(page, 'completed')
      expect(await prose(page).textContent()).toBe('So: hello.')
      expect(await numbers(page)).toEqual(upTo(6))
      expect(await note(page, 'Connection cut after event 3').count()).toBe(1)
      expect(problems).toEqual([])
    })

    it('cancels a turn', async () => {
      const bot = gatedBot()
      await using hub = await startConsole({ main: bot.provider })
      await using open = await browser.visit(hub.url, { viewport })
      const { page, problems } = open
      await say(page, 'hello')
      await says(page, 'So: ')
      await press(page, 'Cancel')
      await reaches(page, 'cancelled')
      expect(problems).toEqual([])
    })

    it('shows the same answer when it is loaded again, still streaming', async () => {
      const bot = gatedBot()
      await using hub = await startConsole({ main: bot.provider })
      await using open = await browser.visit(hub.url, { viewport })
      const { page, problems } = open
      await say(page, 'hello')
      await says(page, 'So: ')
      await page.reload()
      await says(page, 'So: ')
      await reaches(page, 'answering')
      bot.finish('hello')
      await reaches(page, 'completed')
      expect(await prose(page).textContent()).toBe('So: hello.')
      expect(await numbers(page)).toEqual(upTo(6))
      expect(await page.locator('.said').allTextContents()).toEqual(['You: hello'])
      expect(problems).toEqual([])
    })

    it('answers a consent, once, for always, and with a no', async () => {
      await using hub = await startConsole()
      await using open = await browser.visit(hub.url, { viewport })
      const { page, problems } = open
      for (const [choice, result] of [
        ['Allow once', 'allow_once'],
        ['Always allow', 'allow_always'],
        ['Deny', 'deny_once'],
      ] as const) {
        await page.getByRole('button', { name: 'New conversation' }).click()
        await say(page, '/consent')
        await reaches(page, 'waiting for you')
        await turn(page).getByRole('button', { name: choice }).click()
        await reaches(page, 'completed')
        expect(await turn(page).locator('.question').count()).toBe(0)
        const answered = page.locator('.events li', { hasText: 'consent.answered' }).locator('pre')
        expect(await answered.textContent()).toContain(result)
        expect(await note(page, 'Connected again').count()).toBe(0)
      }
      expect(problems).toEqual([])
    })

    it('folds reasoning and tools away, and has buttons for cards and suggestions', async () => {
      await using hub = await startConsole({ main: local(showsAll) })
      await using open = await browser.visit(hub.url, { viewport })
      const { page, problems } = open
      await say(page, 'hello')
      await reaches(page, 'completed')
      expect(await turn(page).locator('details.fold').count()).toBe(2)
      expect(await turn(page).locator('details[open]').count()).toBe(0)
      expect(await turn(page).locator('.code code').textContent()).toBe('const one = 1')
      expect(await turn(page).getByRole('row').count()).toBe(2)
      await turn(page).getByRole('button', { name: 'Go on' }).click()
      await reaches(page, 'completed')
      await turn(page).getByRole('button', { name: 'And then?' }).click()
      await reaches(page, 'completed')
      expect(await page.locator('.said').allTextContents()).toEqual(['You: hello', 'You: on we go', 'You: And then?'])
      expect(problems).toEqual([])
    })

    it.each(['light', 'dark'] as const)('has nothing for axe-core to find, in %s', async (colorScheme) => {
      await using hub = await startConsole({ main: { provider: local(showsAll) }, other: demo.main })
      await using open = await browser.visit(hub.url, { viewport, colorScheme })
      const { page } = open
      await page.getByRole('textbox', { name: 'Message' }).waitFor()
      expect(await violations(page)).toEqual([])
      await say(page, 'hello')
      await reaches(page, 'completed')
      for (const each of await turn(page).locator('summary').all()) await each.click()
      expect(await violations(page)).toEqual([])
      await page.getByRole('combobox', { name: 'Bot' }).selectOption('other')
      await say(page, '/consent')
      await reaches(page, 'waiting for you')
      expect(await violations(page)).toEqual([])
      if (await tab(page, 'Events').isVisible()) await tab(page, 'Events').click()
      await page.locator('.events summary').first().click()
      expect(await violations(page)).toEqual([])
      expect(await page.evaluate('document.documentElement.scrollWidth <= innerWidth')).toBe(true)
    })
  })

  it('has nothing for axe-core to find while the hub does not answer yet', async () => {
    await using hub = await startConsole()
    await using open = await browser.visit('about:blank')
    const { page } = open
    await page.route('**/console/session', () => {})
    await page.goto(hub.url)
    expect(await page.getByRole('heading', { name: 'bothub' }).isVisible()).toBe(true)
    expect(await violations(page)).toEqual([])
  })

  it('leaves what a bot says inert', async () => {
    await using hub = await startConsole({ main: local(hostile) })
    await using open = await browser.visit(hub.url)
    const { page, problems } = open
    const foreign: string[] = []
    page.on('request', (request) => request.url().startsWith(hub.url) || foreign.push(request.url()))
    await say(page, 'hello')
    await reaches(page, 'completed')
    expect(await prose(page).first().textContent()).toContain('<script>globalThis.pwned = 1</script>')
    expect(await page.locator('.log :is(script, img, iframe, object, style, form, svg)').count()).toBe(0)
    expect(await page.locator('.log a').evaluateAll((links) => links.map((link) => link.getAttribute('href')))).toEqual(
      ['https://example.com/picture.png', 'https://example.com/', 'https://example.com/far.png'],
    )
    expect(
      await page.evaluate(
        `[...document.querySelectorAll('.log *')].flatMap((each) => [...each.attributes]).filter(({ name }) => /^on/.test(name)).length`,
      ),
    ).toBe(0)
    expect(await page.evaluate('globalThis.pwned')).toBeUndefined()
    expect(foreign).toEqual([])
    expect(problems).toEqual([])
  })

  it('sends files to a bot that takes them', async () => {
    await using hub = await startConsole({ main: asgard({ simulated: true }) })
    await using open = await browser.visit(hub.url)
    const { page, problems } = open
    await page
      .getByLabel('Attach files')
      .and(page.locator('input'))
      .setInputFiles([{ name: 'notes.txt', mimeType: 'text/plain', buffer: Buffer.from('hello') }])
    await expect.poll(() => page.locator('.attached').textContent()).toContain('notes.txt')
    await say(page, 'hello')
    await reaches(page, 'completed')
    expect(await page.locator('.said').textContent()).toContain('notes.txt')
    expect(problems).toEqual([])
  })

  it.each([
    ['zh-TW', 'zh-Hant', '傳送'],
    ['zh-CN', 'zh-Hans', '发送'],
    ['fr', 'en', 'Send'],
  ])('speaks to a browser in %s in %s', async (locale, language, send) => {
    await using hub = await startConsole()
    await using open = await browser.visit(hub.url, { locale })
    const { page } = open
    await page.getByRole('button', { name: send, exact: true }).waitFor()
    expect(await page.locator('html').getAttribute('lang')).toBe(language)
    await page.locator('.bar select').nth(1).selectOption('zh-Hant')
    await page.getByRole('button', { name: '傳送', exact: true }).waitFor()
  })

  it('offers the words of the demonstration on simulated platforms alone', async () => {
    const begun = { provider: local(demoBot), profile: { starters: ['Who are you?'] } }
    await using hub = await startConsole({ own: local(demoBot), begun, demo: asgard({ simulated: true }) })
    await using open = await browser.visit(hub.url)
    const { page } = open
    const offered = () => page.locator('.greeting .choices button').allTextContents()
    const bots = page.locator('.bar select').first()
    await page.locator('.greeting').waitFor()
    expect(await offered()).toEqual([])
    await bots.selectOption('begun')
    await expect.poll(offered).toEqual(['Who are you?'])
    await bots.selectOption('demo')
    await expect.poll(offered).toEqual(expect.arrayContaining(['/long', '/consent']))
  })

  it('opens at an address that is nonsense', async () => {
    await using hub = await startConsole()
    await using open = await browser.visit(`${hub.url}/#/%E0%A4%A/%`)
    const { page } = open
    await say(page, 'my name is Ada')
    await reaches(page, 'completed')
    expect(await prose(page).textContent()).toContain('Ada')
  })

  it('can be used by keyboard alone', async () => {
    await using hub = await startConsole()
    await using open = await browser.visit(hub.url)
    const { page, problems } = open
    await page.getByRole('textbox', { name: 'Message' }).waitFor()
    await page.keyboard.press('Tab')
    await page.keyboard.press('Enter')
    await page.keyboard.type('/consent')
    await page.keyboard.press('Enter')
    await reaches(page, 'waiting for you')
    const allow = turn(page).getByRole('button', { name: 'Allow once' })
    for (let left = 20; left > 0 && !(await allow.evaluate((button) => button.matches(':focus'))); left -= 1) {
      await page.keyboard.press('Shift+Tab')
    }
    await page.keyboard.press('Enter')
    await reaches(page, 'completed')
    expect(problems).toEqual([])
  })

  it('asks for an admin key where the hub has keys', async () => {
    await using hub = await startHub({
      bots: demo,
      console: consolePage(),
      auth: [
        apiKey({ name: 'admin', key: 'an-admin-key-for-the-page', admin: true }),
        apiKey({ name: 'user', key: 'a-key-without-any-rights' }),
      ],
    })
    await using open = await browser.visit(hub.url)
    const { page } = open
    const key = page.getByLabel('Admin key')
    for (const wrong of ['nonsense', 'a-key-without-any-rights']) {
      await key.fill(wrong)
      await page.keyboard.press('Enter')
      await page.getByText('This key is not known, or is no admin key.').waitFor()
      expect(await page.getByRole('textbox', { name: 'Message' }).count()).toBe(0)
    }
    expect(await violations(page)).toEqual([])
    await key.fill('an-admin-key-for-the-page')
    await page.keyboard.press('Enter')
    await say(page, 'my name is Ada')
    await reaches(page, 'completed')
    expect(await prose(page).textContent()).toContain('Ada')
  })
})

/** Everything a bot can show. */
async function* showsAll(): AsyncGenerator<HubEvent> {
  const text =
    '# A heading\n\nSome **words**, `code` and a [link](https://example.com).\n\n```ts\nconst one = 1\n```\n\n> quoted\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n- one\n- two'
  yield { type: 'reasoning.delta', message: 'thoughts', text: 'Let me think.' }
  yield { type: 'reasoning.completed', message: 'thoughts', text: 'Let me think.' }
  yield { type: 'tool.started', call: 'one', tool: 'look_up', input: { word: 'hub' } }
  yield { type: 'tool.completed', call: 'one', output: 'The middle of a wheel.', isError: false }
  yield { type: 'message.delta', message: 'm', text }
  yield {
    type: 'message.completed',
    message: 'm',
    text,
    template: {
      type: 'BUTTON',
      title: 'A card',
      text: 'With a button.',
      buttons: [{ label: 'Go on', action: { type: 'MESSAGE', text: 'on we go' } }],
    },
  }
  yield { type: 'suggestion', text: 'And then?' }
  yield { type: 'usage', inputTokens: 3, outputTokens: 4, totalTokens: 7 }
}

/** What a bot says that somebody has made say it. */
async function* hostile(): AsyncGenerator<HubEvent> {
  const text = [
    '<script>globalThis.pwned = 1</script>',
    '<img src=x onerror="globalThis.pwned = 1"> <svg onload="globalThis.pwned = 1"></svg>',
    '<iframe srcdoc="<script>parent.pwned = 1</script>"></iframe>',
    '[click](javascript:globalThis.pwned=1) [or](data:text/html,<script>1</script>) [or this](JaVaScRiPt:alert(1))',
    '![far](https://example.com/picture.png)',
    '[fine](https://example.com/)',
  ].join('\n\n')
  yield {
    type: 'message.completed',
    message: 'm',
    text,
    template: {
      type: 'BUTTON',
      title: '<b onclick="globalThis.pwned = 1">title</b>',
      thumbnailImageUrl: 'https://example.com/far.png',
      canvas: { html: '<script>globalThis.pwned = 1</script>' },
      buttons: [{ label: 'run', action: { type: 'URI', uri: 'javascript:globalThis.pwned=1' } }],
    },
  }
}
