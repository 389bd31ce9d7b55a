import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'

const root = join(import.meta.dirname, '../..')

/** Each block of a page that says where it is from. */
function excerpts(page: string): readonly (readonly [file: string, code: string])[] {
  const text = readFileSync(join(root, page), 'utf8')
  const found = text.matchAll(/<!-- from: (?<file>\S+) -->\n\n```\w+\n(?<code>[\s\S]*?)^```$/gm)
  return Array.from(found, ({ groups }) => [groups!['file']!, groups!['code']!] as const)
}

/** Without what an excerpt loses: the indentation it had in its file. */
const flat = (code: string): string => code.replaceAll(/^ +/gm, '').trim()

describe.each([
  ['docs/writing-a-provider.md', 4],
  ['docs/writing-a-channel.md', 3],
])('%s', (page, count) => {
  it('shows the code as it is in its file', () => {
    const shown = excerpts(page)
    expect(shown).toHaveLength(count)
    for (const [file, code] of shown) {
      expect(code.length).toBeGreaterThan(50)
      expect(flat(readFileSync(join(root, file), 'utf8')), `${page} shows ${file}`).toContain(flat(code))
    }
  })
})

describe('the made-up vendor', () => {
  it('needs no more than 80 lines, and nothing but bothub and zod', () => {
    const source = readFileSync(join(root, 'examples/made-up-vendor.ts'), 'utf8')
    expect(source.trimEnd().split('\n').length).toBeLessThanOrEqual(80)
    const imports = Array.from(source.matchAll(/from '(?<from>[^']+)'/g), ({ groups }) => groups!['from'])
    expect(new Set(imports)).toEqual(new Set(['bothub', 'zod']))
  })
})
