import type { Pulse } from './pulse.ts'

const none: readonly never[] = []

/**
 * A stream whose items are taken by plain calls: what is there is there at once, through all layers, and a promise is
 * made only where nothing is there. An event passes a dozen layers between its upstream and the log; with 200 streams
 * that speak in turn all that the hub does took 158 µs of CPU a delta while they were async generators, and 114 since.
 *
 * A flow can be iterated over like any stream, and `flowOf` makes one of any, so that a plugin needs to know nothing of
 * this. Why: docs/decisions/2026-11-21-streams-are-taken.md.
 */
export abstract class Flow<T> implements AsyncIterable<T> {
  /**
   * What is there: perhaps nothing yet; undefined when it is over.
   * @throws what the stream failed with, after all that came before
   */
  abstract take(): readonly T[] | undefined

  /** Calls back, once and never at once, when there may be more to take. One waits at a time. */
  abstract whenReady(wake: () => void): void

  /** Leaves the stream. Whoever takes from it closes it when it stops before the end. */
  abstract close(): Promise<void>

  /** Resolves when there may be more to take. */
  ready(): Promise<void> {
    return new Promise((resolve) => this.whenReady(resolve))
  }

  #isOver = false
  #failure: { readonly error: unknown } | undefined

  protected get isOver(): boolean {
    return this.#isOver
  }

  protected end(): void {
    this.#isOver = true
  }

  protected fail(error: unknown): void {
    if (!this.#isOver) this.#failure = { error }
    this.#isOver = true
  }

  /** What is to be taken where no item is there: nothing yet, the end, or the failure, which is thrown once. */
  protected rest(): readonly never[] | undefined {
    const failure = this.#failure
    this.#failure = undefined
    if (failure) throw failure.error
    return this.#isOver ? undefined : none
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<T> {
    try {
      for (let items = this.take(); items; items = this.take()) {
        if (items.length === 0) await this.ready()
        yield* items
      }
    } finally {
      await this.close()
    }
  }
}

/**
 * Does something with every item of a stream, one after the other, as a `for await` would, and waits only where there is
 * something to wait for. `stop` is its `break`. It waits by a callback: with a promise for each chunk, and what belongs to
 * it, a delta left 1.2 KB more to be collected.
 */
export async function forEach<T>(stream: AsyncIterable<T>, work: Work<T>): Promise<void> {
  const flow = flowOf(stream)
  try {
    await untilOver(flow, work)
  } finally {
    await flow.close()
  }
}

type Work<T> = (item: T, stop: () => void) => Promise<void> | void

const untilOver = <T>(flow: Flow<T>, work: Work<T>): Promise<void> =>
  new Promise((resolve, reject) => {
    let items: readonly T[] = none
    let next = 0
    let isStopped = false
    const stop = () => (isStopped = true)
    const goOn = (): void => {
      try {
        for (;;) {
          if (isStopped) return resolve()
          if (next < items.length) {
            const working = work(items[next++]!, stop)
            if (working) return void Promise.resolve(working).then(goOn, reject)
            continue
          }
          const taken = flow.take()
          if (!taken) return resolve()
          if (taken.length === 0) return flow.whenReady(goOn)
          items = taken
          next = 0
        }
      } catch (error) {
        reject(error)
      }
    }
    goOn()
  })

/** Any stream as a flow. */
export const flowOf = <T>(stream: AsyncIterable<T>): Flow<T> => (stream instanceof Flow ? stream : new Iterated(stream))

/** Takes from an iterator, one promise an item. */
class Iterated<T> extends Flow<T> {
  readonly #iterator: AsyncIterator<T>
  #asked: Promise<void> | undefined
  #items: readonly T[] = none

  constructor(stream: AsyncIterable<T>) {
    super()
    this.#iterator = stream[Symbol.asyncIterator]()
  }

  take(): readonly T[] | undefined {
    const items = this.#items
    this.#items = none
    if (items.length > 0) return items
    const rest = this.rest()
    if (rest) this.#asked ??= this.#ask()
    return rest
  }

  whenReady(wake: () => void): void {
    if (this.#asked) void this.#asked.then(wake)
    else queueMicrotask(wake)
  }

  async close(): Promise<void> {
    if (!this.isOver) await this.#iterator.return?.()
    this.end()
  }

  async #ask(): Promise<void> {
    try {
      const { done, value } = await this.#iterator.next()
      if (done) this.end()
      else this.#items = [value]
    } catch (error) {
      this.fail(error)
    }
    this.#asked = undefined
  }
}

/** Items that one side pushes and the other takes. */
export class Queue<T> extends Flow<T> {
  #items: T[] = []
  #wake: (() => void) | undefined
  readonly #onTaken: (() => void) | undefined
  /** Runs what wakes those who wait for an item. */
  readonly #soon: (wake: () => void) => void

  /** `onTaken` is told when all that was there has been taken; `pulse` wakes those who wait, of all its queues together. */
  constructor({ onTaken, pulse }: { readonly onTaken?: () => void; readonly pulse?: Pulse } = {}) {
    super()
    this.#onTaken = onTaken
    this.#soon = pulse ? (wake) => pulse.next(wake) : queueMicrotask
  }

  get ended(): boolean {
    return this.isOver
  }

  push(item: T): void {
    if (this.isOver) return
    this.#items.push(item)
    this.#awaken(this.#soon)
  }

  override end(): void {
    super.end()
    this.#awaken(queueMicrotask)
  }

  /** Ends it, and throws where it is taken from, after what was pushed. */
  override fail(error: unknown): void {
    super.fail(error)
    this.#awaken(queueMicrotask)
  }

  #awaken(when: (wake: () => void) => void): void {
    const wake = this.#wake
    this.#wake = undefined
    if (wake) when(wake)
  }

  take(): readonly T[] | undefined {
    const items = this.#items
    if (items.length > 0) {
      this.#items = []
      this.#onTaken?.()
      return items
    }
    return this.rest()
  }

  whenReady(wake: () => void): void {
    if (this.#items.length > 0 || this.isOver) queueMicrotask(wake)
    else this.#wake = wake
  }

  async close(): Promise<void> {
    this.#items = []
    this.end()
  }
}

/**
 * What a stream becomes where a function says, item by item, what to say in its place: nothing, one thing or several.
 * Where the function throws, or calls `stop`, that is the end, behind what it gave before.
 */
export const flatMap = <T, U>(stream: AsyncIterable<T>, map: (item: T, stop: () => void) => Iterable<U>): Flow<U> =>
  new Each(flowOf(stream), map)

class Each<T, U> extends Flow<U> {
  readonly #source: Flow<T>
  readonly #map: (item: T, stop: () => void) => Iterable<U>

  constructor(source: Flow<T>, map: (item: T, stop: () => void) => Iterable<U>) {
    super()
    this.#source = source
    this.#map = map
  }

  take(): readonly U[] | undefined {
    while (!this.isOver) {
      const items = this.#source.take()
      if (!items) return undefined
      if (items.length === 0) return none
      const given = this.#mapped(items)
      if (given.length > 0) return given
    }
    return this.rest()
  }

  whenReady(wake: () => void): void {
    if (this.isOver) queueMicrotask(wake)
    else this.#source.whenReady(wake)
  }

  close(): Promise<void> {
    return this.#source.close()
  }

  #mapped(items: readonly T[]): readonly U[] {
    const given: U[] = []
    try {
      for (const item of items) {
        const mapped = this.#map(item, this.#stop)
        // As it mostly is: a chunk with one event.
        if (items.length === 1 && isItems(mapped)) return mapped
        for (const one of mapped) given.push(one)
        if (this.isOver) break
      }
    } catch (error) {
      this.fail(error)
    }
    return given
  }

  readonly #stop = (): void => this.end()
}

/** The same stream, with somebody who looks at every item. */
export const tap = <T>(stream: AsyncIterable<T>, look: (item: T) => void): Flow<T> => new Watched(flowOf(stream), look)

class Watched<T> extends Flow<T> {
  readonly #source: Flow<T>
  readonly #look: (item: T) => void

  constructor(source: Flow<T>, look: (item: T) => void) {
    super()
    this.#source = source
    this.#look = look
  }

  take(): readonly T[] | undefined {
    const items = this.#source.take()
    if (items) for (const item of items) this.#look(item)
    return items
  }

  whenReady(wake: () => void): void {
    this.#source.whenReady(wake)
  }

  close(): Promise<void> {
    return this.#source.close()
  }
}

/** A part of a stream: some items, or another stream to its end. */
export type Part<T> = readonly T[] | AsyncIterable<T>

/**
 * One stream of the parts that an async generator yields, one after the other. What `yield*` is to a generator, `yield`
 * is here, without its cost for each item: the generator goes on behind a part when all of it was taken, the failure of
 * a part is thrown at its `yield`, and leaving the stream runs the `finally` blocks.
 */
export const inParts = <T>(parts: () => AsyncGenerator<Part<T>, void>): Flow<T> => new InParts(parts())

/** The items of a generator as parts, for `yield*`: it keeps what the generator returns. */
export async function* oneByOne<T, Result>(items: AsyncGenerator<T, Result>): AsyncGenerator<readonly T[], Result> {
  for (;;) {
    const { done, value } = await items.next()
    if (done) return value
    yield [value]
  }
}

class InParts<T> extends Flow<T> {
  readonly #parts: AsyncGenerator<Part<T>, void>
  #part: Flow<T> | undefined
  #items: readonly T[] = none
  #going: Promise<void> | undefined

  constructor(parts: AsyncGenerator<Part<T>, void>) {
    super()
    this.#parts = parts
  }

  take(): readonly T[] | undefined {
    if (this.#part) return this.#takePart(this.#part)
    const items = this.#items
    this.#items = none
    if (items.length > 0) return items
    const rest = this.rest()
    if (rest) this.#going ??= this.#go(this.#parts.next())
    return rest
  }

  whenReady(wake: () => void): void {
    if (this.#going) void this.#going.then(wake)
    else if (this.#part) this.#part.whenReady(wake)
    else queueMicrotask(wake)
  }

  async close(): Promise<void> {
    const part = this.#part
    this.#part = undefined
    try {
      await part?.close()
    } finally {
      if (!this.isOver) await this.#parts.return()
      this.end()
    }
  }

  #takePart(part: Flow<T>): readonly T[] {
    try {
      const items = part.take()
      if (items) return items
      this.#going = this.#go(part.close().then(() => this.#parts.next()))
    } catch (error) {
      const leave = part.close().catch(() => {})
      this.#going = this.#go(leave.then(() => this.#parts.throw(error)))
    }
    this.#part = undefined
    return none
  }

  async #go(step: Promise<IteratorResult<Part<T>, void>>): Promise<void> {
    try {
      const { done, value } = await step
      if (done) this.end()
      else if (isItems(value)) this.#items = value
      else this.#part = flowOf(value)
    } catch (error) {
      this.fail(error)
    }
    this.#going = undefined
  }
}

const isItems = <T>(part: Part<T> | Iterable<T>): part is readonly T[] => Array.isArray(part)
