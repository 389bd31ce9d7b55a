import { TextDecoder } from 'node:util'

/** Of the three bytes of a byte order mark. */
const firstOfMark = 0xef

/**
 * Decodes UTF-8 that may be cut inside a character, as a `TextDecoder` does. Where it is not, neither here nor before, a
 * slice of the buffer is the text: half of what a `TextDecoder` takes for a delta, and most streams never need one.
 */
export function utf8Decoder(): (bytes: Buffer, from?: number, to?: number) => string {
  let decoder: TextDecoder | undefined
  let hasBegun = false
  let isBetweenCharacters = true
  return (bytes, from = 0, to = bytes.length) => {
    if (to === from) return ''
    const endsInAscii = bytes[to - 1]! < 0x80
    // Only as the very first bytes such a mark is no text.
    const isWhole = isBetweenCharacters && endsInAscii && (hasBegun || bytes[from] !== firstOfMark)
    if (!isWhole) decoder ??= new TextDecoder('utf-8', { ignoreBOM: hasBegun })
    hasBegun = true
    isBetweenCharacters = endsInAscii
    return isWhole ? bytes.toString('utf8', from, to) : decoder!.decode(bytes.subarray(from, to), { stream: true })
  }
}
