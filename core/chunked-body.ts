/** How long the lines between chunks may be, extensions and trailers included, in bytes: as much as Node's own parser takes. */
const maxLinesLength = 16_384

const lineFeed = 0x0a
const carriageReturn = 0x0d
const semicolon = 0x3b
const space = 0x20
const tab = 0x09
/** As many hexadecimal digits as a number holds exactly. */
const maxDigits = 12

const badLine = 'the line of a chunk does not end as it should'
const noSize = 'a chunk does not say how long it is'
const tooLong = 'a chunk is longer than it said'

/** Where a decoder is: what the next byte belongs to. */
type Place = 'size' | 'extension' | 'size end' | 'data' | 'data return' | 'data end' | 'trailers' | 'over'

/**
 * A body in HTTP's chunked coding, decoded as its bytes come, however they are cut (RFC 9112, 7.1). Extensions and
 * trailers are passed over.
 */
export class ChunkedBody {
  #place: Place = 'size'
  /** Of the chunk that is being read, in bytes. */
  #left = 0
  /** Of the size that is being read: how many digits it has so far, and whether a blank is behind them. */
  #digits = 0
  #isPadded = false
  /** Since the last data, in bytes. */
  #linesLength = 0
  #trailer = ''

  /** Whether the last chunk, and what belongs to it, has come. */
  get isOver(): boolean {
    return this.#place === 'over'
  }

  /**
   * Takes the bytes of a buffer between two places, and moves what they hold of the content to the first of them.
   * @returns where the content ends, and which bytes were used: all of them, unless the body is over
   * @throws Error when this is no chunked coding
   */
  feed(bytes: Uint8Array, from: number, to: number): { readonly contentTo: number; readonly usedTo: number } {
    let contentTo = from
    let at = from
    while (at < to && this.#place !== 'over') {
      if (this.#place !== 'data') {
        this.#step(bytes[at++]!)
        continue
      }
      const end = Math.min(to, at + this.#left)
      bytes.copyWithin(contentTo, at, end)
      contentTo += end - at
      this.#left -= end - at
      at = end
      if (this.#left === 0) this.#place = 'data return'
    }
    return { contentTo, usedTo: at }
  }

  #step(byte: number): void {
    if (++this.#linesLength > maxLinesLength) throw new Error('the lines between two chunks do not end')
    switch (this.#place) {
      case 'size':
        if (byte === carriageReturn) this.#endSize('size end')
        else if (byte === semicolon) this.#endSize('extension')
        else this.#addDigit(byte)
        return
      case 'extension':
        if (byte === lineFeed) throw new Error(badLine)
        if (byte === carriageReturn) this.#place = 'size end'
        return
      case 'size end':
        if (byte !== lineFeed) throw new Error(badLine)
        this.#linesLength = 0
        this.#place = this.#left > 0 ? 'data' : 'trailers'
        return
      case 'data return':
        if (byte !== carriageReturn) throw new Error(tooLong)
        this.#place = 'data end'
        return
      case 'data end':
        if (byte !== lineFeed) throw new Error(tooLong)
        this.#place = 'size'
        return
      default:
        this.#trailers(byte)
    }
  }

  #addDigit(byte: number): void {
    if (byte === space || byte === tab) {
      this.#isPadded = true
      if (this.#digits === 0) throw new Error(noSize)
      return
    }
    const digit = digitOf(byte)
    if (digit < 0 || this.#isPadded || this.#digits === maxDigits) throw new Error(noSize)
    this.#left = this.#left * 16 + digit
    this.#digits++
  }

  #endSize(place: Place): void {
    if (this.#digits === 0) throw new Error(noSize)
    this.#digits = 0
    this.#isPadded = false
    this.#place = place
  }

  /** They end with an empty line. */
  #trailers(byte: number): void {
    if (byte !== lineFeed) {
      this.#trailer += String.fromCharCode(byte)
      return
    }
    if (!this.#trailer.endsWith('\r')) throw new Error(badLine)
    if (this.#trailer === '\r') this.#place = 'over'
    this.#trailer = ''
  }
}

/** Below 0 where the byte is none. */
function digitOf(byte: number): number {
  if (byte >= 0x30 && byte <= 0x39) return byte - 0x30
  // The case of a letter is one bit.
  const letter = byte | 0x20
  return letter >= 0x61 && letter <= 0x66 ? letter - 0x57 : -1
}
