import { expect, it } from 'vitest'
import { utf8Decoder } from '../../core/utf8.ts'

/** All ways to cut bytes into at most three pieces. */
function* cuts(bytes: Buffer): Generator<readonly Buffer[]> {
  for (let first = 0; first <= bytes.length; first++) {
    for (let second = first; second <= bytes.length; second++) {
      yield [bytes.subarray(0, first), bytes.subarray(first, second), bytes.subarray(second)]
    }
  }
}

it.each([
  ['what is said in any script', Buffer.from('a é 漢字 😀 b')],
  ['a mark of the byte order, which is no text at the beginning', Buffer.from('\uFEFFa\n\uFEFFé\uFEFF')],
  ['bytes that are no UTF-8', Buffer.from([0x61, 0xc3, 0x28, 0xff, 0x0a, 0xf0, 0x9f, 0x61, 0xef, 0xbb, 0x62])],
])('decodes %s as a TextDecoder does, wherever it is cut', (_, bytes) => {
  for (const pieces of cuts(bytes)) {
    const standard = new TextDecoder()
    const decode = utf8Decoder()
    const expected = pieces.map((piece) => standard.decode(piece, { stream: true })).join('')
    expect(pieces.map((piece) => decode(piece)).join(''), pieces.map((piece) => piece.toString('hex')).join(' ')).toBe(
      expected,
    )
  }
})

it('decodes a part of a buffer', () => {
  const decode = utf8Decoder()
  const bytes = Buffer.from('xxé,漢xx')
  expect(decode(bytes, 2, 5) + decode(bytes, 5, 6) + decode(bytes, 6, 8)).toBe('é,漢')
})
