import { AsyncLocalStorage } from 'node:async_hooks'
import { describe, it } from 'vitest'

/** One thing that every subject of a kind must do. */
export interface Case<S> {
  /** A sentence about the subject: `reads bytes one at a time`. */
  readonly title: string
  /** Why the case does not apply, as the subject's manifest or description tells; undefined when it does. */
  skip?(subject: S): string | undefined
  /** Throws when the subject does something else. */
  run(subject: S): Promise<void>
}

/** What is tried: a provider, a channel or a store, with what its suite has to know of it. */
export interface Subject {
  /** Cases that do not apply, by title, each with its reason. A title that no case has is an error. */
  readonly skips?: Readonly<Record<string, string>>
}

/** What the report at the end of a run is made of. */
export interface SuiteMeta {
  readonly kind: string
  readonly subject: string
}

/** What it says of a planted fault. */
export interface FaultMeta {
  readonly planted: string
  /** The title of the case. */
  readonly caughtBy: string
  /** What the case said, its first line. */
  readonly saying?: string
}

declare module 'vitest' {
  interface TaskMeta {
    suite?: SuiteMeta
    fault?: FaultMeta
  }
}

/** For a whole case, also on a machine that is busy with other things; what is waited for has a limit of its own. */
const caseTimeoutMs = 60_000

/** Registers a test for every case; those that do not apply are skipped, with their reasons in the report. */
export function registerSuite<S extends Subject>(
  kind: string,
  name: string,
  subject: S,
  cases: readonly Case<S>[],
): void {
  const unknown = Object.keys(subject.skips ?? {}).find((title) => !cases.some((each) => each.title === title))
  if (unknown !== undefined)
    throw new Error(`${name} skips "${unknown}", but no case of the ${kind} suite is called so`)
  describe(`the ${kind} ${name}`, () => {
    for (const each of cases) {
      it.concurrent(each.title, { timeout: caseTimeoutMs }, async ({ task, skip }) => {
        task.meta.suite = { kind, subject: name }
        const reason = reasonToSkip(each, subject)
        if (reason !== undefined) skip(reason)
        await each.run(subject)
      })
    }
  })
}

/** Why a case does not apply to a subject; undefined when it does. */
export const reasonToSkip = <S extends Subject>(each: Case<S>, subject: S): string | undefined =>
  subject.skips?.[each.title] ?? each.skip?.(subject)

const limit = new AsyncLocalStorage<number>()
const defaultLimitMs = 20_000

/** Runs work in which nothing is waited for longer than `ms`: planted faults make it hang on purpose. */
export const limited = <T>(ms: number, work: () => Promise<T>): Promise<T> => limit.run(ms, work)

/** The promise's value, or an error that names what did not happen in time. */
export async function within<T>(
  promise: Promise<T>,
  what: string,
  ms = limit.getStore() ?? defaultLimitMs,
): Promise<T> {
  const late = Promise.withResolvers<never>()
  const timer = setTimeout(() => late.reject(new Error(`${what}: nothing of it within ${ms} ms`)), ms)
  try {
    return await Promise.race([promise, late.promise])
  } finally {
    clearTimeout(timer)
  }
}
