import { globSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'

const root = join(import.meta.dirname, '../..')
const files = globSync(['core/**/*.ts', 'channels/**/*.ts', 'plugins/**/*.ts', 'index.ts'], { cwd: root }).filter(
  (file) => !file.endsWith('simulator.ts'),
)

/** What the exports of a file are called, and whether they say what they are for. */
interface Export {
  readonly name: string
  readonly line: number
  readonly hasComment: boolean
}

/** The exports that a file declares itself, in their order; an overloaded function once, by its first signature. */
function exportsOf(text: string): Export[] {
  const lines = text.split('\n')
  const found = lines.flatMap((line, index) => {
    const name = nameOf(line)
    return name === undefined ? [] : [{ name, line: index + 1, hasComment: endsWithDocComment(lines.slice(0, index)) }]
  })
  return found.filter(({ name }, index) => found.findIndex((earlier) => earlier.name === name) === index)
}

const declaration =
  /^export (?<isDefault>default )?(?:declare |abstract |async )*(?:(?:const|let|var|function\*?|class|interface|type) )?(?<name>[\w$]+|\{[^}]*\}?|.)/

/** `default` for a default export; the list for `export { … }` and for destructuring; undefined where nothing is declared. */
function nameOf(line: string): string | undefined {
  const { isDefault, name } = declaration.exec(line)?.groups ?? {}
  if (name === undefined || /^export (?:type )?(?:\*|\{.*\} from )/.test(line)) return undefined
  return isDefault ? 'default' : name
}

/** Whether the last of the lines end a doc comment that says something. */
function endsWithDocComment(lines: readonly string[]): boolean {
  const comment = /(?:^|\n)\/\*\*(?<text>(?:[^*]|\*(?!\/))*)\*\/$/.exec(lines.join('\n'))
  return /\w/.test(comment?.groups?.['text'] ?? '')
}

describe('doc comments', () => {
  it.each(files)('stand above every export of %s', (file) => {
    const exports = exportsOf(readFileSync(join(root, file), 'utf8'))
    expect(exports.length).toBeGreaterThan(0)
    expect(exports.filter(({ hasComment }) => !hasComment).map(({ name, line }) => `${file}:${line} ${name}`)).toEqual(
      [],
    )
  })

  it('are looked for in every folder', () => {
    for (const file of ['core/plugin.ts', 'channels/webhook/index.ts', 'plugins/coze/wire.ts', 'index.ts']) {
      expect(files).toContain(file)
    }
    expect(files.filter((file) => file.endsWith('simulator.ts'))).toEqual([])
  })
})

const madeUp = `/** About the whole file. */
import { a } from './a.ts'

/** Says what it is. */
export const one = 1

/**
 * Says what it does:
 * \`* / \` and * are only text.
 */
export async function* two() {}
export function three(): void

/** Not directly above. */

export interface Four {}
// Not a doc comment.
export type Five = string
/* Nor this. */
export abstract class Six {}
/** */
export let seven = 7
/** Of something else. */
const hidden = 1
export { hidden }
/** Of the first signature. */
export function eight(of: string): string
export function eight(of: number): number
export const { nine, ten } = one
export default hidden
export * from './a.ts'
export { a } from './a.ts'
export type { A } from './a.ts'
const text = \`export const eleven\`
`

describe('how they are found', () => {
  it('tells exports with one from those without', () => {
    const found = exportsOf(madeUp)
    expect(found.filter(({ hasComment }) => hasComment).map(({ name }) => name)).toEqual(['one', 'two', 'eight'])
    expect(found.filter(({ hasComment }) => !hasComment).map(({ name, line }) => [line, name])).toEqual([
      [12, 'three'],
      [16, 'Four'],
      [18, 'Five'],
      [20, 'Six'],
      [22, 'seven'],
      [25, '{ hidden }'],
      [29, '{ nine, ten }'],
      [30, 'default'],
    ])
  })
})
