import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, globSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { basename, dirname, join, relative } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'

const root = join(import.meta.dirname, '../..')
const translations = ['README.zh-Hant.md', 'README.zh-Hans.md']
const pages = ['README.md', ...globSync('docs/**/*.md', { cwd: root })]

/** A fenced block of a page. */
interface Block {
  readonly page: string
  /** Of its first fence, from 1. */
  readonly line: number
  readonly language: string
  readonly code: string
  /** Of the comment before it: `<!-- not run: … -->`, `<!-- hub: my/hub.config.ts -->`. */
  readonly note: string | undefined
}

function blocksOf(page: string): Block[] {
  const text = readFileSync(join(root, page), 'utf8')
  const fences = text.matchAll(/(?:<!-- (?<note>.+?) -->\n\n)?^```(?<language>\w*)\n(?<code>[\s\S]*?)^```$/gm)
  return Array.from(fences, ({ index, groups }) => ({
    page,
    line: text.slice(0, text.indexOf('```', index)).split('\n').length,
    language: groups!['language']!,
    code: groups!['code']!,
    note: groups!['note'],
  }))
}

const blocks = pages.flatMap(blocksOf)

/** The file a block says it is, by its first line: `// my/greeter.ts`. */
const fileOf = ({ code, line }: Block): string => /^\/\/ (\S+\.ts)\n/.exec(code)?.[1] ?? `line-${line}.ts`

/** A snippet for a shell, with the block after it, which is what it prints. */
interface Snippet {
  readonly place: string
  readonly code: string
  readonly output: Block
  /** The config of the hub it talks to; the repository's own unless it says so. */
  readonly config: string | undefined
}

const isOutput = ({ language }: Block) => language === 'json' || language === 'text'

const snippets: readonly Snippet[] = blocks.flatMap((block, index) => {
  const output = blocks[index + 1]
  if (block.language !== 'sh' || block.note?.startsWith('not run: ')) return []
  if (!output || output.page !== block.page || !isOutput(output)) {
    throw new Error(`${block.page}:${block.line} does not show what it prints`)
  }
  const config = block.note?.startsWith('hub: ') ? join(block.page, block.note.slice('hub: '.length)) : undefined
  return { place: `${block.page}:${block.line}`, code: block.code, output, config }
})

/** Whether a text is what a page shows; `…` stands for anything on a line. */
function looksLike(actual: string, shown: string): boolean {
  const pattern = shown
    .trim()
    .split('…')
    .map((part) => RegExp.escape(part))
    .join('[^\\n]*')
  return new RegExp(`^${pattern}$`).test(actual.trim())
}

/** The same for JSON: `…` in a string stands for anything, all else is as it is shown. */
function resembles(actual: unknown, shown: unknown): boolean {
  if (typeof shown === 'string') return typeof actual === 'string' && looksLike(actual, shown)
  if (typeof shown !== 'object' || shown === null) return actual === shown
  if (typeof actual !== 'object' || actual === null || Array.isArray(actual) !== Array.isArray(shown)) return false
  const [have, want] = [Object.keys(actual), Object.keys(shown)]
  return (
    have.length === want.length &&
    want.every((key) => Object.hasOwn(actual, key) && resembles(at(actual, key), at(shown, key)))
  )
}

const at = (value: object, key: string): unknown => (value as Record<string, unknown>)[key]

// Inside the repository, so that they find `bothub` as the reader's files do; `data/` is what git leaves alone.
mkdirSync(join(root, 'data'), { recursive: true })
const folder = mkdtempSync(join(root, 'data/docs-'))
const ownConfig = 'own/hub.config.ts'

function write(path: string, text: string): string {
  const file = join(folder, path)
  mkdirSync(dirname(file), { recursive: true })
  writeFileSync(file, text)
  return file
}

const pathOf = (block: Block): string => join(block.page, fileOf(block))
const programs = blocks.filter(({ language }) => language === 'ts')
const configs = programs.filter((block) => basename(fileOf(block)) === 'hub.config.ts')
for (const block of programs) write(pathOf(block), block.code)
write(ownConfig, "export { default } from '../../../hub.config.ts'\n")
write('tsconfig.json', JSON.stringify({ extends: '../../tsconfig.json', include: ['**/*.ts'] }))

/** What the configs of the pages take from their environment; nobody is asked with it. */
const settings = {
  NAMESPACE: 'example',
  BOT_PROVIDER_NAME: 'example',
  BOT_PROVIDER_API_KEY: 'example',
  SALES_BOT: '7300000000000000001',
  SALES_TOKEN: 'example',
  DEEPSEEK_API_KEY: 'example',
  CRM_KEY: 'the-key-of-the-example',
  CRM_SECRET: 'the-secret-of-the-example',
  CRM_URL: 'https://crm.example.com/answers',
}

interface RunningHub {
  /** `127.0.0.1:40123` */
  readonly host: string
  /** Stops it as Ctrl-C does, and gives its exit code. */
  stop(): Promise<number | null>
}

/** Starts the hub of a config as `npm start` does, and waits until it says where it listens. */
async function startHub(config: string, env: Record<string, string>): Promise<RunningHub> {
  const hub = spawn(
    process.execPath,
    ['bin/bothub.mjs', 'start', '--host', '127.0.0.1', '--port', '0', '--config', config],
    {
      cwd: root,
      env: { PATH: process.env['PATH'], ...env },
    },
  )
  const exited = once(hub, 'exit') as Promise<[number | null]>
  let said = ''
  hub.stderr.on('data', (chunk: Buffer) => (said += chunk.toString()))
  const listens = new Promise<string>((resolve, reject) => {
    hub.stdout.on('data', (chunk: Buffer) => {
      said += chunk.toString()
      const host = /listens on http:\/\/([\d.:]+) /.exec(said)?.[1]
      if (host) resolve(host)
    })
    exited.then(([code]) => reject(new Error(`the hub of ${config} ended with ${code}: ${said}`)), reject)
  })
  return {
    host: await listens,
    async stop() {
      hub.kill('SIGTERM')
      const [code] = await exited
      return code
    },
  }
}

const run = promisify(execFile)

describe('the snippets of the pages', () => {
  const hubs = new Map<string, RunningHub>()

  beforeAll(async () => {
    hubs.set(ownConfig, await startHub(join(folder, ownConfig), {}))
    for (const config of configs) {
      hubs.set(pathOf(config), await startHub(join(folder, pathOf(config)), settings))
    }
  })

  afterAll(async () => {
    for (const hub of hubs.values()) expect(await hub.stop()).toBe(0)
    rmSync(folder, { recursive: true, force: true })
  })

  it('compile', async () => {
    expect(programs.map(fileOf)).toContain('my/hub.config.ts')
    const compiler = join(root, 'node_modules/typescript/bin/tsc')
    const { stdout } = await run(process.execPath, [compiler, '-p', folder], { cwd: root }).catch(
      (error: { stdout: string }) => error,
    )
    // What is wrong elsewhere is found by `npm run check:types`.
    const ours = [relative(root, folder), 'error '].map((start) => start.replaceAll('\\', '/'))
    expect(stdout.split('\n').filter((line) => ours.some((start) => line.startsWith(start)))).toEqual([])
  })

  it('are written in a language that is looked at', () => {
    const languages = new Set(blocks.map(({ language }) => language))
    // `typescript` is an excerpt of a file here, which writing.test.ts holds to it.
    // What docs/deploying.md has for other programs is run by e2e/deploying.long.ts.
    expect(['dockerfile', 'ini', 'json', 'mermaid', 'nginx', 'sh', 'text', 'ts', 'typescript']).toEqual(
      expect.arrayContaining([...languages]),
    )
    const shown = new Set(snippets.map(({ output }) => output))
    expect(blocks.filter((block) => isOutput(block) && !shown.has(block))).toEqual([])
  })

  it.each(snippets)('print what $place shows', async ({ code, config, output }) => {
    const { host } = hubs.get(config ?? ownConfig)!
    const { stdout } = await run('bash', ['-euc', code.replaceAll('localhost:9527', host)], {
      // As for who has just started the repository's own hub: `data/` is that of its config.
      cwd: join(folder, dirname(ownConfig)),
      env: { ...process.env, ...settings, PATH: `${join(root, 'node_modules/.bin')}:${process.env['PATH']}` },
    })
    const fits =
      output.language === 'json'
        ? resembles(JSON.parse(stdout), JSON.parse(output.code))
        : looksLike(stdout, output.code)
    expect(fits, `it printed:\n${stdout}`).toBe(true)
  })

  it.each(configs)('start as a hub: $page:$line', async (config) => {
    const answer = await fetch(`http://${hubs.get(pathOf(config))!.host}/api/v1/bots`, {
      headers: { 'x-api-key': settings.CRM_KEY },
    })
    const { bots } = (await answer.json()) as { bots: { bot: string }[] }
    expect(bots.length).toBeGreaterThan(0)
    for (const { bot } of bots) expect(config.code).toContain(`${bot}: `)
  })
})

describe('the pages', () => {
  it.each(translations)('%s has the snippets of README.md, in their order', (page) => {
    const snippetsOf = (name: string) => blocksOf(name).map(({ language, code }) => ({ language, code }))
    expect(snippetsOf('README.md').length).toBeGreaterThan(10)
    expect(snippetsOf(page)).toEqual(snippetsOf('README.md'))
  })

  it.each(translations)('%s has the sections of README.md', (page) => {
    const levels = (name: string) => readFileSync(join(root, name), 'utf8').match(/^#+ /gm)
    expect(levels(page)).toEqual(levels('README.md'))
  })

  it.each([...pages, ...translations])('%s links to files that exist', (page) => {
    const links = readFileSync(join(root, page), 'utf8').matchAll(/\]\((?!https?:)([^)#]+)/g)
    const broken = Array.from(links, ([, link]) => link!).filter((link) => !existsSync(join(root, dirname(page), link)))
    expect(broken).toEqual([])
  })
})

describe('how a page is compared', () => {
  it.each([
    ['turn_0a/1 ok\n', 'turn_…/1 ok', true],
    ['turn_0a/2 ok', 'turn_…/1 ok', false],
    ['one\ntwo', 'one…', false],
    ['one\ntwo', 'one\ntwo', true],
    ['a+b', 'a+b', true],
    ['aab', 'a+b', false],
  ])('takes %j for %j: %s', (actual, shown, expected) => {
    expect(looksLike(actual, shown)).toBe(expected)
  })

  it.each([
    [{ a: 'x1', b: [1] }, { a: 'x…', b: [1] }, true],
    [{ a: 'x1', b: [1, 2] }, { a: 'x…', b: [1] }, false],
    [{ a: 'x1', c: true }, { a: 'x1' }, false],
    [{ a: 'x1' }, { a: 'x1', c: true }, false],
    [{ a: 1 }, { a: '…' }, false],
    [null, {}, false],
    [[], {}, false],
  ])('takes %j for %j: %s', (actual, shown, expected) => {
    expect(resembles(actual, shown)).toBe(expected)
  })
})
