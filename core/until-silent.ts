import { HubError } from './errors.ts'
import type { FailureCode } from './errors.ts'

/**
 * Passes a stream on until it is silent for `idleMs`, or the signal aborts, whichever its source heeds or not.
 * @throws HubError `code` after the silence, or the signal's reason
 */
export async function* untilSilent<T>(
  source: AsyncIterable<T>,
  idleMs: number,
  code: FailureCode,
  signal: AbortSignal,
): AsyncGenerator<T> {
  const iterator = source[Symbol.asyncIterator]()
  const stopped = Promise.withResolvers<never>()
  // Nobody may be waiting for it when it comes.
  stopped.promise.catch(() => {})
  const stop = () => stopped.reject(signal.reason)
  if (signal.aborted) stop()
  else signal.addEventListener('abort', stop, { once: true })
  const timer = setTimeout(() => stopped.reject(new HubError(code)), idleMs)
  try {
    for (;;) {
      const step = await Promise.race([iterator.next(), stopped.promise])
      if (step.done) return
      timer.refresh()
      yield step.value
    }
  } finally {
    clearTimeout(timer)
    signal.removeEventListener('abort', stop)
    // Not awaited: a generator's return waits behind the very await that is silent.
    void iterator.return?.().catch(() => {})
  }
}
