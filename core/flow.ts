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

  /** Whether `take` gives items now, and can neither fail nor be over. What a source does not know, it denies. */
  get hasItems(): boolean {
    return false
  }

  /** How its items come here, for now. */
  get way(): Way {
    return new Way(this)
  }

  /** Resolves when there may be more to take. */
  ready(): Promise<void> {
    return new Promise((resolve) => this.whenReady(resolve))
  }

  #isOver = false
  #failure: { readonly error: unknown } | undefined

  /** Whether nothing more comes in: what is there already can still be taken. */
  get isOver(): boolean {
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

/** A layer whose types the way need not know. */
type Passing = Pick<Layer<never, unknown>, 'pass' | 'isOver'>

/**
 * The short way of items through a stream: from their source through what is done to them, past all that only stands
 * around. It ends as soon as one of its layers is over; who has ended, and what comes then, the stream knows.
 * Why: docs/decisions/2026-11-22-items-take-a-short-way.md.
 */
export class Way {
  readonly #source: Flow<unknown>
  readonly #layers: readonly Passing[]

  constructor(source: Flow<unknown>, layers: readonly Passing[] = []) {
    this.#source = source
    this.#layers = layers
  }

  with(layer: Passing): Way {
    return new Way(this.#source, [...this.#layers, layer])
  }

  /** Whether nothing on it is over. */
  get isOpen(): boolean {
    for (const layer of this.#layers) if (layer.isOver) return false
    return true
  }

  /** Items that are there. */
  take(): readonly unknown[] {
    if (!this.#source.hasItems || !this.isOpen) return none
    let items = this.#source.take() ?? none
    for (const layer of this.#layers) items = layer.pass(items as readonly never[])
    return items
  }

  whenReady(wake: () => void): void {
    this.#source.whenReady(wake)
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
    let { way } = flow
    let isStopped = false
    const stop = () => (isStopped = true)

    /** Whether all of them are done. Otherwise the work takes its time, and the others are done, and more, behind it. */
    const areDone = (items: readonly T[], from: number): boolean => {
      for (let next = from; next < items.length; next++) {
        if (isStopped) break
        const working = work(items[next]!, stop)
        if (!working) continue
        const rest = () => void (areDone(items, next + 1) && goOn())
        void Promise.resolve(working).then(rest).catch(reject)
        return false
      }
      return true
    }

    const goOn = (): void => {
      try {
        for (let isShort = false; ;) {
          if (isStopped) return resolve()
          const near = way.take() as readonly T[]
          if (near.length > 0) {
            if (!areDone(near, 0)) return
            isShort = true
            continue
          }
          if (isShort && way.isOpen) return way.whenReady(goOn)
          isShort = false
          const items = flow.take()
          if (!items) return resolve()
          if (items.length === 0) {
            ;({ way } = flow)
            return way.whenReady(goOn)
          }
          if (!areDone(items, 0)) return
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

  override get hasItems(): boolean {
    return this.#items.length > 0
  }

  whenReady(wake: () => void): void {
    if (this.hasItems || this.isOver) queueMicrotask(wake)
    else void (this.#asked ??= this.#ask()).then(wake)
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
  /** None while there is nothing: an empty array would wait for the next item, grow old, and be garbage then. */
  #items: T[] | undefined
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

  push(item: T): void {
    if (this.isOver) return
    if (this.#items) this.#items.push(item)
    else this.#items = [item]
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
    if (!items) return this.rest()
    this.#items = undefined
    this.#onTaken?.()
    return items
  }

  override get hasItems(): boolean {
    return this.#items !== undefined
  }

  whenReady(wake: () => void): void {
    if (this.hasItems || this.isOver) queueMicrotask(wake)
    else this.#wake = wake
  }

  async close(): Promise<void> {
    this.#items = undefined
    this.end()
  }
}

/** What is done to the items of a stream. */
abstract class Layer<T, U> extends Flow<U> {
  readonly #source: Flow<T>

  constructor(source: Flow<T>) {
    super()
    this.#source = source
  }

  /** What becomes of items; of none, none. It throws nothing: it is over instead, and `rest` throws. */
  abstract pass(items: readonly T[]): readonly U[]

  take(): readonly U[] | undefined {
    while (!this.isOver) {
      const items = this.#source.take()
      if (!items) return undefined
      if (items.length === 0) return none
      const given = this.pass(items)
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

  override get way(): Way {
    return this.#source.way.with(this)
  }
}

/**
 * What a stream becomes where a function says, item by item, what to say in its place: nothing, one thing or several.
 * Where the function throws, or calls `stop`, that is the end, behind what it gave before.
 */
export const flatMap = <T, U>(stream: AsyncIterable<T>, map: (item: T, stop: () => void) => Iterable<U>): Flow<U> =>
  new Each(flowOf(stream), map)

class Each<T, U> extends Layer<T, U> {
  readonly #map: (item: T, stop: () => void) => Iterable<U>

  constructor(source: Flow<T>, map: (item: T, stop: () => void) => Iterable<U>) {
    super(source)
    this.#map = map
  }

  pass(items: readonly T[]): readonly U[] {
    let given: U[] | undefined
    try {
      for (const item of items) {
        const mapped = this.#map(item, this.#stop)
        // As it mostly is: a chunk with one event.
        if (items.length === 1 && isItems(mapped)) return mapped
        given ??= []
        for (const one of mapped) given.push(one)
        if (this.isOver) break
      }
    } catch (error) {
      this.fail(error)
    }
    return given ?? none
  }

  readonly #stop = (): void => this.end()
}

/** The same stream, with somebody who looks at every item. */
export const tap = <T>(stream: AsyncIterable<T>, look: (item: T) => void): Flow<T> => new Watched(flowOf(stream), look)

class Watched<T> extends Layer<T, T> {
  readonly #look: (item: T) => void

  constructor(source: Flow<T>, look: (item: T) => void) {
    super(source)
    this.#look = look
  }

  pass(items: readonly T[]): readonly T[] {
    let seen = 0
    try {
      for (; seen < items.length; seen++) this.#look(items[seen]!)
    } catch (error) {
      this.fail(error)
    }
    return seen === items.length ? items : items.slice(0, seen)
  }
}

/** A part of a stream: some items, or another stream to its end. */
export type Part<T> = readonly T[] | AsyncIterable<T>

/** The parts of a stream, one after the other, and what is to be known behind the last. */
export type Parts<T, Result = void> = AsyncGenerator<Part<T>, Result>

/**
 * One stream of the parts that an async generator yields, one after the other. What `yield*` is to a generator, `yield`
 * is here, without its cost for each item: the generator goes on behind a part when all of it was taken, the failure of
 * a part is thrown at its `yield`, and leaving the stream runs the `finally` blocks. A generator function that is there
 * already begins in 0.6 µs; one that is made for a stream has a prototype of its own, and takes ten times as long and 430
 * bytes more.
 */
export const inParts = <T>(parts: () => Parts<T>): Flow<T> => new InParts(parts())

/** The items of a generator as parts, for `yield*`: it keeps what the generator returns. */
export async function* oneByOne<T, Result>(items: AsyncGenerator<T, Result>): AsyncGenerator<readonly T[], Result> {
  for (;;) {
    const { done, value } = await items.next()
    if (done) return value
    yield [value]
  }
}

class InParts<T> extends Flow<T> {
  readonly #parts: Parts<T>
  #part: Flow<T> | undefined
  #items: readonly T[] = none
  #going: Promise<void> | undefined

  constructor(parts: Parts<T>) {
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

  override get way(): Way {
    return this.#part?.way ?? super.way
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
