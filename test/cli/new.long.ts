import { spawnSync } from 'node:child_process'
import { cpSync, globSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { launch, root, run } from '../support/program.ts'

/** What a clone of the repository holds that a new plugin has to do with. */
const parts = [
  'core cli client plugins channels examples demo bench build bin docs test index.ts hub.config.ts package.json',
  'tsconfig.json vitest.config.ts vitest.long.config.ts .oxlintrc.json .oxfmtrc.json README.md',
].flatMap((line) => line.split(' '))

let clone: string
beforeAll(() => {
  mkdirSync(join(root, 'data'), { recursive: true })
  clone = mkdtempSync(join(root, 'data/clone-'))
  for (const part of parts) cpSync(join(root, part), join(clone, part), { recursive: true })
  symlinkSync(join(root, 'node_modules'), join(clone, 'node_modules'))
})
afterAll(() => rmSync(clone, { recursive: true, force: true }))

const npx = (tool: string, ...args: readonly string[]) =>
  spawnSync(process.execPath, [join(root, 'node_modules', tool), ...args], { cwd: clone, encoding: 'utf8' })

describe('bothub new', () => {
  it('makes a provider and a channel that are green at once', async () => {
    for (const [kind, name] of [
      ['provider', 'whisper'],
      ['channel', 'tapes'],
    ] as const) {
      const begun = run(['new', kind, name, '--in', clone])
      expect(await begun.exited, begun.output()).toBe(0)
    }
    expect(readFileSync(join(clone, 'index.ts'), 'utf8')).toMatch(/whisper.*\n[^]*tapes/)
    const written = globSync('{plugins,channels,test/plugins,test/channels}/**/{whisper,tapes}{,.,/}**', { cwd: clone })
      .filter((path) => path.endsWith('.ts'))
      .map((path) => [path, readFileSync(join(clone, path), 'utf8')] as const)
    expect(written.length).toBe(8)
    expect(written.filter(([, text]) => /murmur|made-up|examples/i.test(text)).map(([path]) => path)).toEqual([])
    const tests = ['test/plugins/whisper', 'test/channels/tapes', 'test/docs/doc-comments', 'test/boundaries']
    const made = ['index.ts', 'plugins/whisper', 'channels/tapes.ts', 'test/plugins', 'test/channels']
    let said = ''
    for (const [tool, ...args] of [
      ['oxfmt/bin/oxfmt', ...made],
      ['typescript/bin/tsc', '-p', clone],
      ['oxlint/bin/oxlint', '--deny-warnings', ...made],
      ['vitest/vitest.mjs', 'run', '--root', clone, ...tests],
    ] as const) {
      const { status, stdout, stderr } = npx(tool, ...args)
      said = stdout + stderr
      expect(status, said).toBe(0)
    }
    expect(said).toMatch(/provider whisper \| \d\d +\| 0 /)
    expect(said).toMatch(/channel tapes +\| \d\d +\| 0 /)
  }, 300_000)

  it('overwrites nothing, and takes only names that can be one', async () => {
    const again = run(['new', 'provider', 'asgard', '--in', clone])
    expect(await again.exited).toBe(1)
    expect(again.output()).toContain('plugins/asgard/index.ts is there already')
    const name = run(['new', 'channel', 'my-lines', '--in', clone])
    expect(await name.exited).toBe(1)
    expect(name.output()).toContain('no name for a function')
    const nowhere = launch(process.execPath, [join(root, 'bin/bothub.mjs'), 'new', 'channel', 'tapes', '--in', '/'], {})
    expect(await nowhere.exited).toBe(1)
    expect(nowhere.output()).toContain('There is no bothub in /')
  })
})
