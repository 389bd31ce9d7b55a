import { assert, integer, property, string } from 'fast-check'
import { describe, expect, it } from 'vitest'
import { splitText } from '../../channels/webhook/split.ts'

const bytes = (text: string) => Buffer.byteLength(text)
const bare = (text: string) => text.replaceAll(/\s/g, '')

describe('a text that is longer than a message', () => {
  it.each([
    ['short', 10, ['short']],
    ['', 10, []],
    ['  \n ', 10, []],
    ['One is here. Two is there.', 20, ['One is here.', 'Two is there.']],
    ['first lines\n\nsecond part of it', 20, ['first lines', 'second part of it']],
    ['一句話。第二句話。', 6, ['一句話。', '第二句話。']],
    ['unbreakable', 4, ['unbr', 'eaka', 'ble']],
    ['👍👍👍', 3, ['👍', '👍', '👍']],
  ])('is cut at a sensible place: %j', (text, maxLength, parts) => {
    expect(splitText(text, maxLength)).toEqual(parts)
  })

  it('loses nothing but space, never exceeds the limit, and cuts no character', () => {
    assert(
      property(string({ unit: 'grapheme', maxLength: 200 }), integer({ min: 4, max: 40 }), (text, maxLength) => {
        const parts = splitText(text, maxLength, bytes)
        expect(bare(parts.join(''))).toBe(bare(text))
        for (const part of parts) {
          expect(bytes(part)).toBeLessThanOrEqual(maxLength)
          expect(part.isWellFormed()).toBe(true)
        }
      }),
    )
  })

  it('is cut in front as it was while there was less of it', () => {
    assert(
      property(string({ maxLength: 200 }), string({ maxLength: 100 }), (text, more) => {
        const before = splitText(text.trimStart(), 16)
        expect(splitText(text.trimStart() + more, 16).slice(0, before.length - 1)).toEqual(before.slice(0, -1))
      }),
    )
  })
})
