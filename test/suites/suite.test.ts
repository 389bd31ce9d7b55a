import { describe, expect, it } from 'vitest'
import { limited, reasonToSkip, registerSuite, within } from './suite.ts'
import type { Case, Subject } from './suite.ts'

const never: Case<Subject & { readonly wings: boolean }> = {
  title: 'flies',
  skip: ({ wings }) => (wings ? undefined : 'it has no wings'),
  run: () => new Promise(() => {}),
}

describe('a case', () => {
  it('is skipped for the reason that its subject gives, or the one that it reads from it', () => {
    expect(reasonToSkip(never, { wings: true })).toBeUndefined()
    expect(reasonToSkip(never, { wings: false })).toBe('it has no wings')
    expect(reasonToSkip(never, { wings: true, skips: { flies: 'it is tired' } })).toBe('it is tired')
  })

  it('cannot be skipped under a title that it does not have', () => {
    const skips = { fleis: 'it is tired' }
    expect(() => registerSuite('bird', 'emu', { wings: true, skips }, [never])).toThrow('"fleis"')
  })

  it('fails with the name of what did not happen in time', async () => {
    const waiting = limited(10, () => within(never.run({ wings: true }), 'the take-off'))
    await expect(waiting).rejects.toThrow('the take-off: nothing of it within 10 ms')
    expect(await within(Promise.resolve('in the air'), 'the take-off')).toBe('in the air')
  })
})
