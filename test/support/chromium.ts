import { existsSync } from 'node:fs'
import { createServer } from 'node:http'
import type { Server } from 'node:http'
import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { chromium } from 'playwright-core'
import type { Browser, Page } from 'playwright-core'
import { rolldown } from 'rolldown'
import type { Plugin } from 'rolldown'
import { afterAll, beforeAll, describe } from 'vitest'
import { root } from './program.ts'

const executablePath = '/usr/bin/chromium'

/** A group of tests that need Debian's Chromium (`apt-get install chromium`); skipped, and saying so, without it. */
export function inChromium(name: string, tests: (browser: SharedBrowser) => void): void {
  const isThere = existsSync(executablePath)
  describe.skipIf(!isThere)(isThere ? name : `${name} (skipped: chromium is not installed)`, () =>
    tests(shareBrowser()),
  )
}

/** One browser for all tests of a group. */
export interface SharedBrowser {
  /**
   * Opens an empty page of a web site of its own on loopback, and runs `script` in it: an ES module, which may import
   * packages. What a page throws or logs as an error is in `problems`.
   */
  open(options?: { readonly html?: string; readonly script?: string }): Promise<OpenPage>
  /** Opens the page of another server, as a visitor with nothing kept from before does. */
  visit(url: string, options?: Visit): Promise<OpenPage>
}

/** What a visitor's browser is like. */
export interface Visit {
  /** Default: 1280×800. */
  readonly viewport?: { readonly width: number; readonly height: number }
  readonly colorScheme?: 'light' | 'dark'
  /** A language tag; `en` by default. */
  readonly locale?: string
}

/** A page, which is closed with the test. */
export interface OpenPage extends AsyncDisposable {
  readonly page: Page
  /** Uncaught exceptions and lines of `console.error`, in order. */
  readonly problems: readonly string[]
}

function shareBrowser(): SharedBrowser {
  let browser: Browser
  let site: Server
  const pages = new Map<string, string>()
  beforeAll(async () => {
    site = createServer((request, response) => {
      response.setHeader('content-type', 'text/html; charset=utf-8')
      response.end(pages.get(request.url ?? '') ?? '<!doctype html><title>nothing here</title>')
    }).listen(0, '127.0.0.1')
    // The tests may run as root, for whom Chromium has no sandbox.
    browser = await chromium.launch({ executablePath, args: ['--no-sandbox'] })
    if (!site.listening) await once(site, 'listening')
  })
  afterAll(async () => {
    await browser.close()
    site.closeAllConnections()
    site.close()
  })
  return {
    async open({ html = '', script } = {}) {
      const path = `/${pages.size}`
      const code = script === undefined ? '' : `<script type="module">${escaped(await bundle(script))}</script>`
      pages.set(path, `<!doctype html><html lang="en"><meta charset="utf-8"><title>test</title>${html}${code}</html>`)
      return openPage(browser, `http://127.0.0.1:${(site.address() as AddressInfo).port}${path}`)
    },
    visit: (url, options) => openPage(browser, url, options),
  }
}

async function openPage(
  browser: Browser,
  url: string,
  { viewport = { width: 1280, height: 800 }, colorScheme = 'light', locale = 'en' }: Visit = {},
): Promise<OpenPage> {
  const context = await browser.newContext({ viewport, colorScheme, locale })
  const page = await context.newPage()
  const problems: string[] = []
  page.on('pageerror', (error) => problems.push(String(error)))
  page.on('console', (line) => line.type() === 'error' && problems.push(line.text()))
  await page.goto(url)
  return { page, problems, [Symbol.asyncDispose]: () => context.close() }
}

const escaped = (code: string): string => code.replaceAll('</script', String.raw`<\/script`)

/** There is no such file: the page imports as one here would. */
const entry = join(root, 'test/support/page.js')

/** The module with everything that it imports, for a browser. */
async function bundle(source: string): Promise<string> {
  const page: Plugin = {
    name: 'page',
    resolveId: (id) => (id === entry ? id : null),
    load: (id) => (id === entry ? source : null),
  }
  await using made = await rolldown({ input: entry, platform: 'browser', plugins: [page], logLevel: 'silent' })
  const { output } = await made.generate({ format: 'es' })
  return output[0].code
}
