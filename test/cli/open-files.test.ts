import { execFileSync } from 'node:child_process'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { openFilesLimit, openFilesLine } from '../../cli/open-files.ts'
import { root } from '../support/program.ts'

describe('open files', () => {
  it.each([
    [1024, 'about 462 streams', true],
    [20_000, 'about 9,950 streams', false],
    [65_536, '65,536 open files', false],
    [50, 'about 0 streams', true],
  ])('of %d are %s', (limit, words, isRaised) => {
    expect(openFilesLine(limit)).toContain(words)
    expect(openFilesLine(limit).includes('Raise it')).toBe(isRaised)
  })

  it('are as many as the shell says that starts the program', () => {
    const source = join(root, 'cli/open-files.ts')
    const program = `import(${JSON.stringify(source)}).then((m) => console.log(m.openFilesLimit()))`
    const said = execFileSync('bash', ['-c', 'ulimit -n 512; exec "$0" -e "$1"', process.execPath, program], {
      encoding: 'utf8',
    })
    expect(Number(said)).toBe(512)
    expect(openFilesLimit()).toBeGreaterThan(0)
  })
})
