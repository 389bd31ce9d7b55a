/** Notices when nobody has been listening to a live turn for its grace period. */
export class Attendance {
  readonly #onAbandoned: (turn: string) => void
  readonly #listeners = new Map<string, number>()
  readonly #watched = new Map<string, { readonly graceMs: number; timer: NodeJS.Timeout | undefined }>()

  constructor(onAbandoned: (turn: string) => void) {
    this.#onAbandoned = onAbandoned
  }

  /** From now on the turn may be abandoned. */
  watch(turn: string, graceMs: number): void {
    this.#watched.set(turn, { graceMs, timer: undefined })
    if (!this.#listeners.has(turn)) this.#wait(turn)
  }

  /** The turn goes on whoever listens, or is over. */
  release(turn: string): void {
    clearTimeout(this.#watched.get(turn)?.timer)
    this.#watched.delete(turn)
  }

  /** Somebody asked about the turn without staying: the grace period begins anew. */
  touch(turn: string): void {
    this.#watched.get(turn)?.timer?.refresh()
  }

  arrive(turn: string): void {
    this.#listeners.set(turn, (this.#listeners.get(turn) ?? 0) + 1)
    const watched = this.#watched.get(turn)
    clearTimeout(watched?.timer)
    if (watched) watched.timer = undefined
  }

  leave(turn: string): void {
    const left = (this.#listeners.get(turn) ?? 1) - 1
    if (left > 0) this.#listeners.set(turn, left)
    else {
      this.#listeners.delete(turn)
      this.#wait(turn)
    }
  }

  #wait(turn: string): void {
    const watched = this.#watched.get(turn)
    if (watched) watched.timer = setTimeout(() => this.#onAbandoned(turn), watched.graceMs).unref()
  }
}
