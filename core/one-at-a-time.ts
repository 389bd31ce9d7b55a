/** Lets one piece of work at a time run under a name, in the order in which it was given. */
export class OneAtATime {
  readonly #last = new Map<string, Promise<unknown>>()

  /** What has not settled yet; none of them rejects. */
  get underWay(): readonly Promise<unknown>[] {
    return [...this.#last.values()]
  }

  /** Runs `work` when what came before under this name is over, however that ended. */
  async run<T>(name: string, work: () => Promise<T>): Promise<T> {
    const before = this.#last.get(name) ?? Promise.resolve()
    const mine = before.then(work, work)
    const settled = mine.catch(() => {})
    this.#last.set(name, settled)
    try {
      return await mine
    } finally {
      if (this.#last.get(name) === settled) this.#last.delete(name)
    }
  }
}
