import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import axe from 'axe-core'
import type { Page } from 'playwright-core'
import { describe, expect, it } from 'vitest'
import { apiKey, consent, consolePage, demoBot, echo, local, rest, retry, sse, webhook } from '../../index.ts'
import type { HubConfig } from '../../index.ts'
import { HubError } from '../../core/errors.ts'
import { gatedBot } from '../fakes/gated-bot.ts'
import { inChromium } from '../support/chromium.ts'
import { jsonOf, startHub } from '../support/hub.ts'
import type { TestHub } from '../support/hub.ts'

const sizes = [
  ['a phone', { width: 390, height: 844 }],
  ['a desktop', { width: 1280, height: 800 }],
] as const

const demo: HubConfig['bots'] = { main: { provider: local(demoBot), use: [consent({ allow: ['get_weather'] })] } }

const startOperator = (config: Partial<HubConfig> = {}) => startHub({ bots: demo, console: consolePage(), ...config })

const rows = (page: Page, list: string) => page.getByRole('list', { name: list, exact: true }).locator('> li')
const pane = (page: Page) => page.locator('.operator .pane')
const part = (page: Page, name: string) => page.locator('.parts').getByRole('link', { name, exact: true })

/** Waits for an element to say this. */
const says = (locate: () => Promise<readonly string[] | string | null>, wanted: unknown) =>
  expect.poll(locate, { timeout: 15_000 }).toEqual(wanted)

const idOf = async (hub: TestHub, name: string): Promise<string> => {
  const { items } = await jsonOf<{ items: { id: string; name: string }[] }>(await hub.api('/admin/conversations'))
  return items.find((item) => item.name === name)!.id
}

/** What axe-core finds wrong with the page as it is now. */
async function violations(page: Page): Promise<unknown> {
  await page.evaluate(axe.source)
  return page.evaluate(
    'axe.run().then(({ violations }) => violations.flatMap(({ id, nodes }) => nodes.map(({ html }) => `${id}: ${html}`)))',
  )
}

/** A bot whose first tries are refused, as a busy platform does. */
function busyBot(): HubConfig['bots'] {
  let tries = 0
  const provider = local(async function* () {
    tries += 1
    if (tries < 3) throw new HubError('upstream_rate_limited', { notStarted: true })
    yield 'at last'
  })
  return { main: { provider, use: [retry({ retries: 3, baseMs: 1 })] } }
}

inChromium("the operator's view", (browser) => {
  describe.each(sizes)('on %s', (_, viewport) => {
    it('shows what lives as it comes and goes, and how a turn went', async () => {
      const bot = gatedBot()
      await using hub = await startOperator({ bots: { main: bot.provider } })
      await using open = await browser.visit(hub.url, { viewport })
      const { page, problems } = open
      await page.getByRole('link', { name: 'Operator', exact: true }).click()
      await page.getByText('Nothing is being answered.').waitFor()
      const asked = hub.ask('main', 'hello', { user: 'ada', conversation: 'c' })
      await says(() => rows(page, 'Live').locator('.status').allTextContents(), ['answering'])
      await rows(page, 'Live').getByRole('link').click()
      await says(() => pane(page).locator('.track .phase').allTextContents(), ['attempt 1'])
      expect(await pane(page).locator('.track .end').count()).toBe(0)
      bot.finish('hello')
      await asked
      await says(() => pane(page).locator('.track .end').getAttribute('data-status'), 'completed')
      expect(await pane(page).locator('.track .first').count()).toBe(1)
      expect(await pane(page).locator('.facts').textContent()).toContain('ada · local')
      await says(
        () => pane(page).locator('.events .type').allTextContents(),
        ['turn.started', 'message.started', 'message.delta', 'message.completed', 'turn.completed'],
      )
      await pane(page).getByRole('link', { name: 'Close' }).click()
      await page.getByText('Nothing is being answered.').waitFor()
      await says(() => rows(page, 'Recent').locator('.status').allTextContents(), ['completed'])
      expect(problems).toEqual([])
    })

    it('draws attempts, their errors and pauses, and finds turns by status', async () => {
      await using hub = await startOperator({ bots: { ...busyBot(), other: echo() } })
      await hub.ask('main', 'hello')
      await hub.ask('other', 'hello')
      await using open = await browser.visit(`${hub.url}/#operator`, { viewport })
      const { page, problems } = open
      await says(() => rows(page, 'Recent').locator('strong').allTextContents(), ['other', 'main'])
      await page.getByRole('combobox', { name: 'Bot' }).selectOption('main')
      await says(() => rows(page, 'Recent').locator('strong').allTextContents(), ['main'])
      await page.getByRole('combobox', { name: 'Status' }).selectOption('failed')
      await page.getByText('Nothing found here.').waitFor()
      await page.getByRole('combobox', { name: 'Status' }).selectOption('completed')
      await rows(page, 'Recent').getByRole('link').click()
      await says(() => pane(page).locator('.track .phase').count().then(String), '5')
      expect(await pane(page).locator('.track .phase.failed').count()).toBe(2)
      expect(await pane(page).locator('.steps code').allTextContents()).toEqual([
        'upstream_rate_limited',
        'upstream_rate_limited',
      ])
      expect(
        await pane(page)
          .getByRole('img', { name: /^Timeline: completed, / })
          .count(),
      ).toBe(1)
      expect(problems).toEqual([])
    })

    it('reads a conversation of anybody, takes it, speaks in it, and gives it back', async () => {
      await using hub = await startOperator({ bots: { main: echo(), other: echo() } })
      await hub.ask('main', 'hello', { user: 'ada', conversation: 'with ada' })
      await hub.ask('main', 'hi', { user: 'bob', conversation: 'with bob' })
      await hub.ask('other', 'hi', { user: 'ada', conversation: 'elsewhere' })
      await using open = await browser.visit(`${hub.url}/#operator/conversations`, { viewport })
      const { page, problems } = open
      const names = () => rows(page, 'Conversations').locator('strong').allTextContents()
      await says(names, ['elsewhere', 'with bob', 'with ada'])
      await page.getByRole('searchbox', { name: 'User' }).fill('ada')
      await page.keyboard.press('Enter')
      await says(names, ['elsewhere', 'with ada'])
      await page.getByRole('combobox', { name: 'Bot' }).selectOption('main')
      await says(names, ['with ada'])
      await rows(page, 'Conversations').getByRole('link').click()
      const said = () => pane(page).locator('.said-list li > :last-child').allTextContents()
      await says(said, ['hello', 'hello'])
      const words = page.getByRole('textbox', { name: 'Write as the operator' })
      expect(await words.isVisible()).toBe(false)

      await page.getByRole('button', { name: 'Take over' }).click()
      await words.fill('This is a person.')
      await page.getByRole('button', { name: 'Send' }).click()
      await says(said, ['hello', 'hello', 'This is a person.'])
      expect(await words.inputValue()).toBe('')
      const kept = await hub.ask('main', 'a person?', { user: 'ada', conversation: 'with ada' })
      expect(kept).toMatchObject({ handedOver: true })
      await says(said, ['hello', 'hello', 'This is a person.', 'a person?'])

      await page.getByRole('button', { name: 'Give back' }).click()
      await page.getByRole('button', { name: 'Take over' }).waitFor()
      expect(await words.isVisible()).toBe(false)
      expect((await hub.ask('main', 'echo?', { user: 'ada', conversation: 'with ada' })).text).toBe('echo?')
      await pane(page).locator('.said-list').getByRole('link', { name: 'Turn' }).first().click()
      await says(() => pane(page).locator('.track .end').getAttribute('data-status'), 'completed')
      expect(problems).toEqual([])
    })

    it('shows what was not delivered, and has it tried again', async () => {
      const closed = 'http://127.0.0.1:9/'
      const hook = webhook({ bot: 'main', secret: `whsec_${btoa('a secret')}`, callback: closed, allowPrivate: true })
      await using hub = await startOperator({
        bots: { main: echo() },
        channels: { rest: rest(), sse: sse(), crm: hook },
      })
      const { turn } = await hub.hub.dispatcher.send(
        { key: 'local', trusted: true, admin: true, bypassConsent: true },
        { bot: 'main', text: 'hello', channel: 'crm', owed: true },
      )
      await using open = await browser.visit(`${hub.url}/#operator/outbox`, { viewport })
      const { page, problems } = open
      await says(() => rows(page, 'Outbox').locator('strong').allTextContents(), ['channel:crm'])
      await rows(page, 'Outbox').getByText('127.0.0.1:9 did not take it').waitFor()
      const retried = async () => {
        const { items } = await hub.hub.audit.page({ limit: 9, what: 'outbox retried' })
        return String(items.length)
      }
      await rows(page, 'Outbox').getByRole('button', { name: 'Retry' }).click()
      await says(retried, '1')
      await page.getByRole('button', { name: 'Retry all' }).click()
      await says(retried, '2')
      await rows(page, 'Outbox').getByRole('link', { name: 'Turn' }).click()
      await says(() => pane(page).locator('.turn-id').textContent(), turn.id)
      expect(problems).toEqual([])
    })

    it('opens a lane again that its receiver has closed', async () => {
      let answer = 410
      const crm = createServer((_request, response) => response.writeHead(answer).end()).listen(0, '127.0.0.1')
      await once(crm, 'listening')
      const callback = `http://127.0.0.1:${(crm.address() as AddressInfo).port}/`
      const hook = webhook({ bot: 'main', secret: `whsec_${btoa('a secret')}`, callback, allowPrivate: true })
      await using hub = await startOperator({
        bots: { main: echo() },
        channels: { rest: rest(), sse: sse(), crm: hook },
      })
      await hub.hub.dispatcher.send(
        { key: 'local', trusted: true, admin: true, bypassConsent: true },
        { bot: 'main', text: 'hello', channel: 'crm', owed: true },
      )
      await using open = await browser.visit(`${hub.url}/#operator/outbox`, { viewport })
      const { page, problems } = open
      await page.getByText('Nothing is sent to channel:crm: its receiver wanted no more.').waitFor()
      answer = 204
      await page.getByRole('button', { name: 'Open again' }).click()
      await page.getByText('Everything has been delivered.').waitFor()
      expect(await page.getByRole('button', { name: 'Open again' }).count()).toBe(0)
      expect(problems).toEqual([])
      crm.close()
    })

    it('shows the audit table, by what was done', async () => {
      await using hub = await startOperator()
      await hub.ask('main', 'hello', { conversation: 'c' })
      await hub.api(`/conversations/${await idOf(hub, 'c')}/handover`, {})
      await using open = await browser.visit(`${hub.url}/#operator/audit`, { viewport })
      const { page, problems } = open
      await rows(page, 'Audit').filter({ hasText: 'conversation handed over' }).waitFor()
      await page.getByRole('combobox', { name: 'What' }).selectOption('conversation handed over')
      await says(() => rows(page, 'Audit').locator('strong').allTextContents(), ['conversation handed over'])
      await page.getByRole('combobox', { name: 'What' }).selectOption('admin read')
      await says(async () => String(new Set(await rows(page, 'Audit').locator('strong').allTextContents()).size), '1')
      expect(problems).toEqual([])
    })

    it('goes back in lists, and keeps what it has read', async () => {
      await using hub = await startOperator({ bots: { main: echo() } })
      for (let index = 0; index < 53; index += 1) await hub.ask('main', `text ${index}`, { conversation: 'c' })
      await using open = await browser.visit(`${hub.url}/#operator`, { viewport })
      const { page, problems } = open
      const count = () => rows(page, 'Recent').count().then(String)
      await says(count, '50')
      await page.getByRole('button', { name: 'Older' }).click()
      await says(count, '53')
      await hub.ask('main', 'one more', { conversation: 'c' })
      await says(count, '54')
      await page.goto(`${hub.url}/#operator/conversations/${await idOf(hub, 'c')}`)
      const said = () => pane(page).locator('.said-list li').count().then(String)
      await says(said, '50')
      await page.getByRole('button', { name: 'Earlier' }).click()
      await says(said, '100')
      expect(problems).toEqual([])
    })

    it('reads the events of a long turn page by page', async () => {
      const many = local(async function* () {
        for (let index = 0; index < 150; index += 1) {
          yield { type: 'tool.started', call: `c${index}`, tool: 'count', input: {} } as const
          yield { type: 'tool.completed', call: `c${index}`, output: index, isError: false } as const
        }
      })
      await using hub = await startOperator({ bots: { main: many } })
      const { turn } = await hub.ask('main', 'hello')
      await using open = await browser.visit(`${hub.url}/#operator/turns/${turn}`, { viewport })
      const { page, problems } = open
      const count = () => pane(page).locator('.events li').count().then(String)
      await says(count, '200')
      await page.getByRole('button', { name: 'More events' }).click()
      await says(count, '302')
      expect(await page.getByRole('button', { name: 'More events' }).isVisible()).toBe(false)
      expect(problems).toEqual([])
    })

    it.each(['light', 'dark'] as const)('has nothing for axe-core to find, in %s', async (colorScheme) => {
      const bot = gatedBot()
      await using hub = await startOperator({ bots: { ...busyBot(), gated: bot.provider, demo: demo['main']! } })
      const { turn } = await hub.ask('main', 'hello', { user: 'ada', conversation: 'c' })
      await hub.ask('demo', '/consent', { user: 'ada' })
      await hub.ask('demo', '/fail', { user: 'ada' })
      await hub.api('/bots/gated/messages', { text: 'hello' }, { prefer: 'respond-async' })
      const conversation = await idOf(hub, 'c')
      await hub.api(`/conversations/${conversation}/handover`, {})
      await using open = await browser.visit(`${hub.url}/#operator`, { viewport, colorScheme })
      const { page, problems } = open
      for (const [place, shown] of [
        ['turns', '.row-link'],
        [`turns/${turn}`, '.steps li'],
        ['conversations', '.row-link'],
        [`conversations/${conversation}`, '.said-list li'],
        ['outbox', '.operator .hint'],
        ['audit', '.row-plain'],
      ] as const) {
        await page.goto(`${hub.url}/#operator/${place}`)
        await page.locator(shown).filter({ visible: true }).first().waitFor()
        expect([place, await violations(page)]).toEqual([place, []])
        expect(await page.evaluate('document.documentElement.scrollWidth <= innerWidth')).toBe(true)
      }
      bot.finish('hello')
      expect(problems).toEqual([])
    })
  })

  it('can be used by keyboard alone, and leaves the focus where it is while lists change', async () => {
    await using hub = await startOperator({ bots: { main: echo() } })
    await hub.ask('main', 'hello', { conversation: 'c' })
    await using open = await browser.visit(hub.url)
    const { page, problems } = open
    const reach = async (wanted: string) => {
      for (let left = 40; left > 0; left -= 1) {
        await page.keyboard.press('Tab')
        if (await page.evaluate(`document.activeElement?.matches(${JSON.stringify(wanted)})`)) return
      }
      throw new Error(`${wanted} is not reached`)
    }
    await page.getByRole('textbox', { name: 'Message' }).waitFor()
    await reach('.views a[href="#operator"]')
    await page.keyboard.press('Enter')
    await rows(page, 'Recent').first().waitFor()
    await reach('.row-link')
    const focused = () => page.evaluate('document.activeElement?.getAttribute("href")')
    const before = await focused()
    await hub.ask('main', 'again', { conversation: 'c' })
    await says(() => rows(page, 'Recent').count().then(String), '2')
    expect(await focused()).toBe(before)
    await page.keyboard.press('Enter')
    await pane(page).locator('.track').waitFor()
    expect(problems).toEqual([])
  })

  it('goes back to the conversation one came from, and is at the same place when it is loaded again', async () => {
    await using hub = await startOperator({ bots: { main: echo() } })
    await using open = await browser.visit(hub.url)
    const { page, problems } = open
    await page.getByRole('textbox', { name: 'Message' }).fill('hello')
    await page.keyboard.press('Enter')
    await page.locator('.exchange .status[data-status=completed]').waitFor()
    await page.getByRole('link', { name: 'Operator', exact: true }).click()
    await rows(page, 'Recent').first().waitFor()
    await page.getByRole('link', { name: 'Chat', exact: true }).click()
    await says(() => page.locator('.said').allTextContents(), ['You: hello'])
    await page.getByRole('link', { name: 'Operator', exact: true }).click()
    await rows(page, 'Recent').getByRole('link').click()
    await pane(page).locator('.track .end').waitFor()
    await page.reload()
    await pane(page).locator('.track .end').waitFor()
    await page.goBack()
    await page.locator('.operator:not([data-detail])').waitFor()
    await part(page, 'Audit').click()
    await rows(page, 'Audit').first().waitFor()
    expect(problems).toEqual([])
  })

  it('tells a key without admin so, and shows nothing of the hub', async () => {
    await using hub = await startOperator({
      auth: [
        apiKey({ name: 'admin', key: 'an-admin-key-for-the-page', admin: true }),
        apiKey({ name: 'user', key: 'a-key-without-any-rights' }),
      ],
    })
    await using open = await browser.visit(`${hub.url}/#operator`)
    const { page } = open
    await page.getByLabel('Admin key').fill('a-key-without-any-rights')
    await page.keyboard.press('Enter')
    await page.getByText('This key is not known, or is no admin key.').waitFor()
    expect(await page.locator('.operator').count()).toBe(0)
    await page.getByLabel('Admin key').fill('an-admin-key-for-the-page')
    await page.keyboard.press('Enter')
    await page.getByText('Nothing is being answered.').waitFor()
  })

  it('says what the hub says where something is not there', async () => {
    await using hub = await startOperator()
    await using open = await browser.visit(`${hub.url}/#operator/turns/turn_none`)
    await open.page.getByRole('alert').filter({ hasText: 'There is no such turn.' }).waitFor()
  })

  it('leaves the words of users and bots inert', async () => {
    const nasty = '<img src=x onerror="globalThis.pwned = 1"> [x](javascript:globalThis.pwned=1)'
    await using hub = await startOperator({ bots: { main: echo() } })
    const { turn } = await hub.ask('main', nasty, { user: '<b>ada</b>', conversation: '<i>c</i>' })
    await using open = await browser.visit(`${hub.url}/#operator/turns/${turn}`)
    const { page, problems } = open
    await pane(page).locator('.events summary').last().click()
    await page.goto(`${hub.url}/#operator/conversations/${await idOf(hub, '<i>c</i>')}`)
    await says(() => pane(page).locator('.said-list li').count().then(String), '2')
    expect(await page.locator('.operator :is(img, script, b, i, iframe)').count()).toBe(0)
    expect(await page.locator('.operator a[href^="javascript"]').count()).toBe(0)
    expect(await page.evaluate('globalThis.pwned')).toBeUndefined()
    expect(problems).toEqual([])
  })

  it.each([
    ['zh-TW', '輪次', '目前沒有進行中的輪次。'],
    ['zh-CN', '轮次', '目前没有进行中的轮次。'],
  ])('speaks to a browser in %s', async (locale, turns, nothing) => {
    await using hub = await startOperator()
    await using open = await browser.visit(`${hub.url}/#operator`, { locale })
    await part(open.page, turns).waitFor()
    await open.page.getByText(nothing).waitFor()
  })
})
