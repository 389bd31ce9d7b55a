import { spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it, vi } from 'vitest'
import { launch, root } from '../support/program.ts'

// Programs are started here, on a machine that may be busy.
vi.setConfig({ testTimeout: 60_000 })

const hasScript = spawnSync('script', ['--version']).status === 0

/** `bothub init` at a terminal of its own, which Debian's `script` makes. */
function initAtTerminal({ columns, rows } = { columns: 100, rows: 40 }) {
  mkdirSync(join(root, 'data'), { recursive: true })
  const folder = mkdtempSync(join(root, 'data/init-'))
  const command = `stty cols ${columns} rows ${rows}; exec "${process.execPath}" "${join(root, 'bin/bothub.mjs')}" init "${folder}"`
  const program = launch('script', ['--quiet', '--return', '--flush', '--command', command, '/dev/null'], {
    PATH: process.env['PATH'] ?? '',
    TERM: 'xterm',
  })
  return {
    ...program,
    folder,
    async [Symbol.asyncDispose]() {
      program.signal('SIGKILL')
      await program.exited
      rmSync(folder, { recursive: true, force: true })
    },
  }
}

const keys = { down: '\u001B[B', space: ' ', enter: '\r', escape: '\u001B' } as const

describe.skipIf(!hasScript)('the questions of `bothub init` (skipped where there is no `script`)', () => {
  it('are answered with the keyboard, and what was chosen is written', async () => {
    await using program = initAtTerminal()
    await program.printed(/Which bots\?/)
    program.press(keys.space, keys.down, keys.space, keys.enter)
    await program.printed(/What else do your clients speak\?/)
    program.press(keys.space, keys.down, keys.space, keys.enter)
    expect(await program.exited, program.output()).toBe(0)
    expect(program.output()).toContain('Written: ')
    const config = readFileSync(join(program.folder, 'hub.config.ts'), 'utf8')
    expect(config).toContain("import { asgard, defineConfig, rest, sse, webhook } from 'bothub'")
    expect(config).not.toContain('local(')
  })

  it('can be read where a terminal does not say how wide it is', async () => {
    await using program = initAtTerminal({ columns: 0, rows: 0 })
    await program.printed(/Which bots\?[^]*a function of my own, in TypeScript/)
    program.press(keys.escape)
    expect(await program.exited).toBe(1)
  })

  it('write nothing for somebody who leaves', async () => {
    await using program = initAtTerminal()
    await program.printed(/Which bots\?/)
    program.press(keys.escape)
    expect(await program.exited).toBe(1)
    expect(program.output()).toContain('Nothing was written.')
    expect(readdirSync(program.folder)).toEqual([])
  })
})
