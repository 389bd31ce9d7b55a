import { vi } from 'vitest'

/** Waits until the work no longer throws, for as long as a busy machine may need; it is looked at often. */
export const eventually = <T>(work: () => T | Promise<T>): Promise<T> =>
  vi.waitFor(work, { timeout: 15_000, interval: 20 })
