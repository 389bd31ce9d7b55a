import { globSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'

const root = join(import.meta.dirname, '../..')
const files = globSync(
  ['core/**/*.ts', 'cli/**/*.ts', 'channels/**/*.ts', 'client/**/*.ts', 'plugins/**/*.ts', 'index.ts'],
  {
    cwd: root,
  },
).filter((file) => !file.endsWith('simulator.ts'))

/** What the exports of a file are called, and whether they say what they are for. */
interface Export {
  readonly name: string
  readonly line: number
  readonly hasComment: boolean
}

const declaration =
  /^export (?:declare |abstract |async )*(?:const|let|function\*?|class|interface|type) (?<name>[\w$]+)/
/** Exports of names that are declared elsewhere in the file, or all at once: what they are for has no place of its own. */
const list = /^export (?<name>(?:type |const |let )?\{[^}]*\}|default\b)(?! from )/

/** The exports that a file declares itself, in their order; an overloaded function once, by its first signature. */
function exportsOf(text: string): Export[] {
  const found = Array.from(text.matchAll(/^export /gm), ({ index }): Export[] => {
    const name = (declaration.exec(text.slice(index)) ?? list.exec(text.slice(index)))?.groups!['name']
    if (name === undefined) return []
    const before = text.slice(0, index)
    return [{ name, line: before.split('\n').length, hasComment: endsWithDocComment(before) }]
  }).flat()
  return found.filter(({ name }, index) => found.findIndex((earlier) => earlier.name === name) === index)
}

/** Whether the last thing in a text, and the line above the next one, is a doc comment that says something. */
function endsWithDocComment(text: string): boolean {
  const start = text.lastIndexOf('/**')
  const comment = text.slice(start)
  return start >= 0 && comment.endsWith('*/\n') && comment.indexOf('*/') === comment.length - 3 && /\w/.test(comment)
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
    for (const file of [
      'core/plugin.ts',
      'channels/webhook/index.ts',
      'client/index.ts',
      'plugins/coze/wire.ts',
      'index.ts',
    ]) {
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
export {
  a as b,
} from './a.ts'
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
      [29, 'const { nine, ten }'],
      [30, 'default'],
    ])
  })
})
