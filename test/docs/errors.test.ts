import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import type { FailureCode } from '../../core/errors.ts'
import { failures, HubError } from '../../core/errors.ts'

interface DocumentedFailure {
  readonly code: string
  readonly status: number
  readonly retryable: boolean
  readonly ends: string | undefined
  readonly meaning: string
  readonly remedy: string
}

const documented: readonly DocumentedFailure[] = readFileSync(join(import.meta.dirname, '../../docs/errors.md'), 'utf8')
  .split('\n')
  .filter((line) => line.startsWith('| `'))
  .map((line) => {
    const [code = '', status, retryable, ends = '', meaning = '', remedy = ''] = line
      .split('|')
      .slice(1, -1)
      .map((cell) => cell.trim())
    expect(retryable).toMatch(/^(yes|no)$/)
    return {
      code: code.replaceAll('`', ''),
      status: Number(status),
      retryable: retryable === 'yes',
      ends: ends === '—' ? undefined : ends.replaceAll('`', ''),
      meaning,
      remedy,
    }
  })

const documentedAs = (code: string) => documented.find((each) => each.code === code)

describe('docs/errors.md', () => {
  it('names every code once, and no other', () => {
    expect(documented.map(({ code }) => code).toSorted()).toEqual(Object.keys(failures).toSorted())
  })

  it.each(Object.keys(failures) as FailureCode[])('says of %s what the code does', (code) => {
    const { failure } = new HubError(code)
    expect(documentedAs(code)).toMatchObject({
      status: failure.status,
      retryable: failure.retryable,
      // A turn that somebody stops is cancelled, whatever the table says.
      ends: code === 'cancelled' ? 'turn.cancelled' : failure.ends && `turn.${failure.ends}`,
    })
  })

  it.each(documented.map(({ code, meaning, remedy }) => [code, meaning, remedy]))(
    'explains %s and says what to do',
    (_, meaning, remedy) => {
      expect(meaning).toMatch(/\w.*\.$/)
      expect(remedy).toMatch(/\w.*\.$/)
    },
  )
})
