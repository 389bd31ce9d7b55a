import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { configurationPage } from '../../build/configuration.ts'

const root = join(import.meta.dirname, '../..')
const shown = readFileSync(join(root, 'docs/configuration.md'), 'utf8')

/** Without the spaces and dashes that a formatter lines tables up with. */
const unaligned = (page: string): string => page.replaceAll(/ +\|/g, ' |').replaceAll(/-{3,}/g, '---')

/** Rows of options: option, what it takes, default, words. */
const rows = shown
  .split('\n')
  .filter((line) => /^\| `[a-z]/.test(line))
  .map((line) => line.split(/(?<!\\)\|/).map((cell) => cell.trim()))

describe('docs/configuration.md', () => {
  it('is what `npm run docs` makes of the schemas', () => {
    expect(unaligned(shown)).toBe(unaligned(configurationPage()))
  })

  it('has a kind and words for every option', () => {
    expect(rows.length).toBeGreaterThan(80)
    expect(rows.filter(([, option, takes, , words]) => !option || !takes || takes === 'any' || !words)).toEqual([])
  })

  it('has every factory that a config can call', () => {
    const index = readFileSync(join(root, 'index.ts'), 'utf8')
    const exported = index.matchAll(
      /^export \{ (\w+) \} from '\.\/(?:plugins\/[\w-]+\/index|channels\/[\w/-]+)\.ts'$/gm,
    )
    const names = Array.from(exported, ([, name]) => name!).filter((name) => !name.startsWith('define'))
    expect(names.length).toBeGreaterThan(15)
    const sections = Array.from(shown.matchAll(/^### (\w+)$/gm), ([, name]) => name!)
    expect(sections.toSorted()).toEqual([...names, 'apiKey', 'jwt'].toSorted())
  })
})
