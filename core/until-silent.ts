import { HubError } from './errors.ts'
import type { FailureCode } from './errors.ts'
import { Flow, flowOf } from './flow.ts'
import { Silence } from './silence.ts'

/**
 * Passes a stream on until it is silent for `idleMs`, or the signal aborts, whichever its source heeds or not.
 * @throws HubError `code` after the silence, or the signal's reason
 */
export const untilSilent = <T>(
  source: AsyncIterable<T>,
  idleMs: number,
  code: FailureCode,
  signal: AbortSignal,
): Flow<T> => new UntilSilent(flowOf(source), idleMs, code, signal)

class UntilSilent<T> extends Flow<T> {
  readonly #source: Flow<T>
  readonly #signal: AbortSignal
  readonly #begin: () => Silence
  #silence: Silence | undefined
  #wake: (() => void) | undefined

  constructor(source: Flow<T>, idleMs: number, code: FailureCode, signal: AbortSignal) {
    super()
    this.#source = source
    this.#signal = signal
    this.#begin = () => new Silence(idleMs, () => this.fail(new HubError(code)))
  }

  take(): readonly T[] | undefined {
    if (!this.#silence) this.#listen()
    if (this.isOver) return this.rest()
    const items = this.#source.take()
    if (!items) this.#leave()
    else if (items.length > 0) this.#silence?.heard()
    return items
  }

  override get hasItems(): boolean {
    return this.#silence !== undefined && !this.isOver && this.#source.hasItems
  }

  whenReady(wake: () => void): void {
    if (this.isOver) return queueMicrotask(wake)
    this.#wake = wake
    this.#source.whenReady(this.#awaken)
  }

  /** Either the source has more, or it is over without it. */
  readonly #awaken = (): void => {
    const wake = this.#wake
    this.#wake = undefined
    wake?.()
  }

  async close(): Promise<void> {
    this.#leave()
    // Not awaited: a generator's return waits behind the very await that is silent.
    void this.#source.close().catch(() => {})
  }

  #listen(): void {
    this.#silence = this.#begin()
    if (this.#signal.aborted) this.#stop()
    else this.#signal.addEventListener('abort', this.#stop, { once: true })
  }

  readonly #stop = (): void => this.fail(this.#signal.reason)

  protected override fail(error: unknown): void {
    this.#leave()
    super.fail(error)
    queueMicrotask(this.#awaken)
  }

  #leave(): void {
    this.#silence?.end()
    this.#signal.removeEventListener('abort', this.#stop)
  }
}
