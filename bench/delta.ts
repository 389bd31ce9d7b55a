/**
 * What upstreams say and loads count: every delta is a mark with the time it was said at, `@123456.78 `, by the clock
 * that all processes of a machine share.
 */

/** What a message asks of an upstream: so many deltas, one every so many ms, or as fast as they go where that is 0. */
export interface Order {
  readonly deltas: number
  readonly everyMs: number
}

/** An order as the text of a message. */
export const orderText = ({ deltas, everyMs }: Order): string => `Say ${deltas} deltas every ${everyMs} ms.`

/** The order in the body of a request, in whatever dialect it is. */
export function orderIn(body: string): Order {
  const [, deltas, everyMs] = /Say (\d+) deltas every (\d+) ms\./.exec(body) ?? []
  return { deltas: Number(deltas ?? 1), everyMs: Number(everyMs ?? 0) }
}

/** Ms, by a clock that only goes forward and is the same in all processes. */
export const clockMs = (): number => Number(process.hrtime.bigint() / 1000n) / 1000

/** One delta, said now. */
export const mark = (): string => `@${clockMs().toFixed(2)} `

const markSign = 0x40
const markEnd = 0x20

/** Counts the marks of one stream; those behind the last delta repeat it as a whole and are no deltas. */
export class MarkReader {
  readonly #deltas: number
  readonly #onMark: (latencyMs: number | undefined) => void
  count = 0

  /** `onMark` is told how old a mark is, unless the chunk ends inside it. */
  constructor(deltas: number, onMark: (latencyMs: number | undefined) => void) {
    this.#deltas = deltas
    this.#onMark = onMark
  }

  read(chunk: Buffer): void {
    const now = clockMs()
    for (let at = chunk.indexOf(markSign); at >= 0; at = chunk.indexOf(markSign, at + 1)) {
      if (this.count === this.#deltas) return
      this.count += 1
      const end = chunk.indexOf(markEnd, at)
      this.#onMark(end < 0 ? undefined : now - Number(chunk.toString('latin1', at + 1, end)))
    }
  }
}
