import { execFile, spawnSync } from 'node:child_process'
import { cpSync, globSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { publint } from 'publint'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { startMurmurSimulator } from '../../examples/made-up-simulator.ts'
import { launch, root } from '../support/program.ts'

const dist = join(root, 'dist')
const outside = mkdtempSync(join(tmpdir(), 'bothub-package-'))
const project = join(outside, 'project')

/**
 * What programs are started with: not what npm told this test, which it started too. What the project has is found as
 * npx finds it, which hands no signal on.
 */
const environment = {
  ...Object.fromEntries(Object.entries(process.env).filter(([name]) => !/^npm_/i.test(name))),
  PATH: `${join(project, 'node_modules/.bin')}:${process.env['PATH']}`,
} as Record<string, string>

const inProject = async (command: string, ...args: readonly string[]) =>
  promisify(execFile)(command, args, { cwd: project, env: environment, maxBuffer: 1e8 }).catch(
    (error: Error & { readonly stdout: string; readonly stderr: string }) => {
      throw new Error(`${command} ${args.join(' ')}\n${error.stdout}\n${error.stderr}`, { cause: error })
    },
  )

/** The code that a page shows of a file, one piece after the other. */
const shown = (page: string, file: string): string =>
  Array.from(
    readFileSync(join(root, page), 'utf8').matchAll(/<!-- from: (\S+) -->\n\n```\w+\n([\s\S]*?)^```$/gm),
    ([, from, code]) => (from === file ? code! : ''),
  ).join('\n')

const bytesIn = (pattern: string): number =>
  globSync(pattern, { cwd: project, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .reduce((sum, { parentPath, name }) => sum + statSync(join(parentPath, name)).size, 0)

/** Packages beside the hub that it would not be without: its store, which brings a database for every platform. */
const besides = ['better-sqlite3', 'node-addon-api']
let installedBytes = 0
/** What the package is called as a file. */
let packedAs = ''

beforeAll(async () => {
  mkdirSync(project)
  const built = spawnSync(process.execPath, [join(root, 'build/run.ts')], { encoding: 'utf8' })
  expect(built.status, built.stdout + built.stderr).toBe(0)
  const packed = await inProject('npm', 'pack', '--json', '--pack-destination', outside, dist)
  packedAs = (JSON.parse(packed.stdout) as [{ readonly filename: string }])[0].filename
  await inProject('npm', 'install', '--prefer-offline', join(outside, packedAs))
  installedBytes =
    bytesIn('node_modules/**') - besides.reduce((sum, name) => sum + bytesIn(`node_modules/${name}/**`), 0)
  const { devDependencies } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as {
    readonly devDependencies: Readonly<Record<string, string>>
  }
  const tools = ['vitest', 'typescript', '@types/node'].map((name) => `${name}@${devDependencies[name]}`)
  await inProject('npm', 'install', '--prefer-offline', 'node@24', ...tools)
}, 300_000)
afterAll(() => rmSync(outside, { recursive: true, force: true }))

describe('the package', () => {
  it('is clean to publint', async () => {
    const { messages } = await publint({ pkgDir: dist, strict: true })
    expect(messages).toEqual([])
  })

  it.each(['README.md', 'README.zh-Hant.md', 'README.zh-Hans.md'])('is the file that %s installs', (page) => {
    expect(readFileSync(join(root, page), 'utf8')).toContain(`npm install /path/to/${packedAs} node@24 && `)
  })

  it('takes no more than 15 MB, installed, beside better-sqlite3', () => {
    expect(installedBytes).toBeGreaterThan(1e6)
    expect(installedBytes).toBeLessThanOrEqual(15e6)
  })

  it('has the types of everything that it exports', async () => {
    const { exports } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { readonly exports: object }
    const imports = Object.keys(exports).map((path, index) => {
      const name = path.replace('.', 'bothub')
      return `import * as m${index} from '${name}'\nexport type M${index} = keyof typeof m${index}\n`
    })
    writeFileSync(
      join(project, 'every-export.ts'),
      `${imports.join('')}// @ts-expect-error it is not there\nimport { nothing } from 'bothub'\n`,
    )
    const tsc = [
      '--strict',
      '--noEmit',
      '--module',
      'nodenext',
      '--target',
      'es2025',
      '--lib',
      'es2025,esnext.disposable',
    ]
    await inProject('node', 'node_modules/typescript/bin/tsc', ...tsc, '--types', 'node', 'every-export.ts')
  })
})

describe('a project that has it', () => {
  it('is installed in the container of docs/deploying.md from what is copied before', async () => {
    const [home, image] = [join(outside, 'home'), join(outside, 'image')]
    mkdirSync(home)
    mkdirSync(image)
    writeFileSync(join(home, 'package.json'), '{ "private": true, "type": "module" }')
    cpSync(join(outside, packedAs), join(home, packedAs))
    await inProject('npm', 'install', '--prefer-offline', '--package-lock-only', '--prefix', home, join(home, packedAs))
    const page = readFileSync(join(root, 'docs/deploying.md'), 'utf8')
    const copied = /^COPY (package\.json .*) \.\/\nRUN npm ci --omit=dev$/m.exec(page)![1]!.split(' ')
    for (const path of globSync(copied, { cwd: home })) cpSync(join(home, path), join(image, path))
    await inProject('npm', 'ci', '--prefer-offline', '--omit=dev', '--dry-run', '--prefix', image)
  })

  it('answers by a provider that was written there from the docs', async () => {
    writeFileSync(join(project, 'murmur.ts'), shown('docs/writing-a-provider.md', 'examples/made-up-vendor.ts'))
    writeFileSync(
      join(project, 'hub.config.ts'),
      `import { defineConfig, env, rest, sse } from 'bothub'
import { murmur } from './murmur.ts'
export default defineConfig({
  bots: { whisper: murmur({ url: env('MURMUR_URL'), key: env('MURMUR_KEY') }) },
  channels: { rest: rest(), sse: sse() },
})
`,
    )
    await using simulator = await murmurSimulator()
    const settings = { ...environment, MURMUR_URL: simulator.url, MURMUR_KEY: simulator.key }
    const check = launch('npx', ['bothub', 'check', '--live'], settings, project)
    expect(await check.exited, check.output()).toBe(0)
    expect(check.output()).toMatch(/whisper {2}murmur\(\)/)
    expect(check.output()).toMatch(/whisper {2}answers/)
    await using hub = await startedIn(project, settings)
    const answer = await fetch(`${hub.url}/api/v1/bots/whisper/messages`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ text: 'one two three' }),
    })
    expect(await answer.json()).toMatchObject({ status: 'completed', text: 'one two three' })
    expect(await modulesOf(hub.url)).toEqual(expect.arrayContaining(['main.ts', 'turn-view.js', 'style.css']))
    expect(await hub.stop()).toBe(0)
  })

  it('passes the suites with what the docs show, and with what `bothub new` writes', async () => {
    const { stdout } = await inProject('npx', 'bothub', 'new', 'provider', 'hum')
    expect(stdout).toContain('  npm install zod && npx vitest run ')
    const shared = ['plugins/hum/index.ts', 'plugins/hum/simulator.ts', 'test/plugins/hum.subject.ts']
    expect(stdout).toContain(`change them together:\n${shared.map((path) => `  ${path}\n`).join('')}`)
    await inProject('npx', 'bothub', 'new', 'channel', 'tapes')
    const page = 'docs/writing-a-provider.md'
    writeFileSync(join(project, 'murmur.ts'), shown(page, 'examples/made-up-vendor.ts'))
    const subject = shown(page, 'test/examples/murmur.ts').replace('../../examples/made-up-vendor.ts', './murmur.ts')
    writeFileSync(join(project, 'murmur.subject.ts'), subject)
    const suite = shown(page, 'test/examples/made-up-vendor.suite.test.ts').replace(
      './murmur.ts',
      './murmur.subject.ts',
    )
    writeFileSync(join(project, 'murmur.test.ts'), suite)
    await inProject('npx', 'vitest', 'run', '--reporter', 'json', '--outputFile', 'report.json')
    const { numFailedTests, testResults } = JSON.parse(readFileSync(join(project, 'report.json'), 'utf8')) as {
      readonly numFailedTests: number
      readonly testResults: readonly { readonly name: string; readonly assertionResults: readonly object[] }[]
    }
    expect(numFailedTests).toBe(0)
    const counts = testResults.map(({ name, assertionResults }) => [
      name.slice(project.length + 1),
      assertionResults.length,
    ])
    expect(Object.fromEntries(counts)).toEqual({
      'murmur.test.ts': expect.toSatisfy((count: number) => count > 25),
      'test/plugins/hum.suite.test.ts': expect.toSatisfy((count: number) => count > 25),
      'test/plugins/hum.test.ts': 1,
      'test/channels/tapes.suite.test.ts': expect.toSatisfy((count: number) => count > 12),
    })
  })
})

describe('an empty folder', () => {
  it.each(['--yes', '--demo'])('is checked by the compiler with what `init %s` writes', async (flag) => {
    const folder = join(project, `typed${flag}`)
    mkdirSync(folder)
    writeFileSync(join(folder, 'package.json'), '{ "name": "fresh", "type": "commonjs" }')
    const begun = launch('npx', ['bothub', 'init', flag, folder], environment, project)
    expect(await begun.exited, begun.output()).toBe(0)
    const misspelt = "import { defineConfig, echo, rest } from 'bothub'\n// @ts-expect-error it is `channels`\n"
    writeFileSync(
      join(folder, 'misspelt.ts'),
      `${misspelt}defineConfig({ bots: { one: echo() }, chanels: { rest: rest() } })\n`,
    )
    await inProject('npx', 'tsc', '-p', folder, '--skipLibCheck', 'false')
  })

  it('becomes the hub of the README, and says of itself that it is a module', async () => {
    const folder = join(project, 'demo')
    mkdirSync(folder)
    writeFileSync(join(folder, 'package.json'), '{ "name": "fresh", "type": "commonjs" }')
    const begun = launch('npx', ['bothub', 'init', '--demo', folder], environment, project)
    expect(await begun.exited, begun.output()).toBe(0)
    expect(JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'))).toEqual({ name: 'fresh', type: 'module' })
    await using hub = await startedIn(folder, environment)
    const { bots } = (await (await fetch(`${hub.url}/api/v1/bots`)).json()) as {
      readonly bots: readonly { readonly bot: string }[]
    }
    expect(bots.map(({ bot }) => bot)).toEqual(['main', 'asgard-demo', 'coze-demo'])
    expect(await hub.stop()).toBe(0)
  })
})

/** The hub of a folder, on a free port. */
async function startedIn(folder: string, settings: Readonly<Record<string, string>>) {
  const hub = launch('bothub', ['start', '--port', '0'], settings, folder)
  const [, url] = await hub.printed(/listens on (http:\S+)/)
  return {
    url: url!,
    stop() {
      hub.signal('SIGTERM')
      return hub.exited
    },
    async [Symbol.asyncDispose]() {
      hub.signal('SIGKILL')
      await hub.exited
    },
  }
}

async function murmurSimulator() {
  const simulator = await startMurmurSimulator()
  return { ...simulator, [Symbol.asyncDispose]: () => simulator.close() }
}

/** The files that a browser would load for the page, all of which are there. */
async function modulesOf(url: string): Promise<string[]> {
  const page = await (await fetch(url)).text()
  const found = new Set(Array.from(page.matchAll(/"(\/console\/[^"]+)"/g), ([, path]) => path!))
  for (const path of found) {
    const answer = await fetch(new URL(path, url))
    expect([path, answer.status]).toEqual([path, 200])
    const imports = (await answer.text()).matchAll(/^(?:import|export) [^'"]*['"](\.[^'"]+)['"]/gm)
    for (const [, target] of imports) found.add(new URL(target!, new URL(path, url)).pathname)
  }
  return Array.from(found, (path) => path.split('/').at(-1)!)
}
