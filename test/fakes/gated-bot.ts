import { local } from '../../index.ts'
import type { BotFunction } from '../../index.ts'
import type { ProviderSpec } from '../../core/plugin.ts'

/** A bot whose answers end when the test says so. */
export interface GatedBot {
  readonly provider: ProviderSpec
  /** The messages it has begun to answer, in their order. */
  readonly begun: readonly string[]
  /** Resolves when it has begun to answer this message. */
  began(text: string): Promise<void>
  /** Lets it finish the answer to this message, now or when it comes to it. */
  finish(text: string): void
}

/** Answers `hello` with `So: ` at once, and `hello.` when it may. */
export function gatedBot(): GatedBot {
  const begun: string[] = []
  const starts = new Map<string, PromiseWithResolvers<void>>()
  const gates = new Map<string, PromiseWithResolvers<void>>()
  const of = (map: typeof gates, text: string) => {
    const known = map.get(text) ?? Promise.withResolvers<void>()
    map.set(text, known)
    return known
  }
  const bot: BotFunction = async function* ({ message: { text }, signal }) {
    begun.push(text)
    of(starts, text).resolve()
    yield 'So: '
    const stopped = new Promise<never>((_, reject) =>
      signal.addEventListener('abort', () => reject(signal.reason as Error), { once: true }),
    )
    await Promise.race([of(gates, text).promise, stopped])
    yield `${text}.`
  }
  return {
    provider: local(bot),
    begun,
    began: (text) => of(starts, text).promise,
    finish: (text) => of(gates, text).resolve(),
  }
}
