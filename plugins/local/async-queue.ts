/** Values that one side pushes and the other iterates over. */
export class AsyncQueue<T> {
  readonly #values: T[] = []
  #wake: (() => void) | undefined
  #failure: { readonly error: unknown } | undefined
  #ended = false

  get ended(): boolean {
    return this.#ended
  }

  push(value: T): void {
    if (this.#ended) return
    this.#values.push(value)
    this.#wake?.()
  }

  end(): void {
    this.#ended = true
    this.#wake?.()
  }

  /** Ends it, and throws where it is iterated over, after what was pushed. */
  fail(error: unknown): void {
    this.#failure ??= { error }
    this.end()
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<T> {
    for (;;) {
      yield* this.#values.splice(0)
      if (this.#values.length > 0) continue
      if (this.#failure) throw this.#failure.error
      if (this.#ended) return
      await new Promise<void>((resolve) => (this.#wake = resolve))
    }
  }
}
