import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { ChunkedBody } from '../../core/chunked-body.ts'

/** What a body gives when its bytes come in these pieces. */
function decode(bytes: Buffer, cuts: readonly number[] = []) {
  const body = new ChunkedBody()
  let text = ''
  let unused = 0
  let from = 0
  for (const cut of [...cuts.toSorted((a, b) => a - b), bytes.length]) {
    const piece = Buffer.from(bytes.subarray(from, cut))
    from = Math.max(from, cut)
    const { contentTo, usedTo } = body.feed(piece, 0, piece.length)
    text += piece.subarray(0, contentTo).toString('latin1')
    unused += piece.length - usedTo
  }
  return { text, unused, isOver: body.isOver }
}

const chunk = (text: string, extension = '') => `${text.length.toString(16)}${extension}\r\n${text}\r\n`

describe('a chunked body', () => {
  it('gives the same content however it is chunked and however its bytes are cut', async () => {
    const word = fc.string({ unit: fc.constantFrom('a', '0', '\r', '\n', ';', '\u00e9'), minLength: 1, maxLength: 40 })
    await fc.assert(
      fc.asyncProperty(
        fc.array(word, { maxLength: 8 }),
        fc.array(fc.nat(400), { maxLength: 30 }),
        async (words, cuts) => {
          const bytes = Buffer.from(`${words.map((each) => chunk(each)).join('')}0\r\n\r\n`, 'latin1')
          const inside = cuts.filter((cut) => cut < bytes.length)
          expect(decode(bytes, inside)).toEqual({ text: words.join(''), unused: 0, isOver: true })
        },
      ),
    )
  })

  it('passes over extensions, blanks and trailers, and stops where the body does', () => {
    const body = `${chunk('one', ';name="a;b"')}${chunk(' two', ' ')}0;last\r\nexpires: never\r\nx: y\r\n\r\nHTTP/1.1`
    const bytes = Buffer.from(body)
    for (let cut = 0; cut <= bytes.length; cut++) {
      expect(decode(bytes, [cut])).toEqual({ text: 'one two', unused: 8, isOver: true })
    }
  })

  it('is not over before its last chunk and the empty line behind it', () => {
    const bytes = Buffer.from(`${chunk('one')}0\r\n\r\n`)
    for (let length = 0; length < bytes.length; length++) {
      expect(decode(bytes.subarray(0, length)).isOver).toBe(false)
    }
  })

  it.each([
    ['no size', '\r\nabc\r\n'],
    ['a word for a size', 'abx\r\n'],
    ['a size below zero', '-1\r\n'],
    ['a size in 0x', '0x3\r\nabc\r\n'],
    ['a size that no number holds', `${'f'.repeat(13)}\r\n`],
    ['a size whose line does not end', '3\rabc\r\n'],
    ['more than it said', '3\r\nabcd\r\n'],
    ['no line end behind its data', '3\r\nabc3\r\n'],
    ['an extension that ends in a line feed alone', '3;x\nabc\r\n'],
    ['a trailer that ends in a line feed alone', '0\r\nx: y\n\r\n'],
    ['an extension without an end', `3;${'x'.repeat(20_000)}`],
    ['trailers without an end', `0\r\n${'x: y\r\n'.repeat(4000)}`],
  ])('is refused with %s', (_what, body) => {
    const bytes = Buffer.from(body)
    expect(() => decode(bytes)).toThrow(/chunk/)
    expect(() => decode(bytes, [...bytes.keys()].slice(0, 50))).toThrow(/chunk/)
  })
})
