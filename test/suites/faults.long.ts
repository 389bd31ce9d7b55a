import { inspect } from 'node:util'
import { describe, expect, it } from 'vitest'
import { channelCases } from './channel.ts'
import { channelFaults, providerFaults, storeFaults } from './faults.ts'
import type { Fault } from './faults.ts'
import { providerCases } from './provider.ts'
import { storeCases } from './store.ts'
import { limited, reasonToSkip } from './suite.ts'
import type { Case, Subject } from './suite.ts'

/** How long a case waits for what never comes. */
const hangingMs = 1000
/** How long it waits for anything else. */
const patientMs = 30_000

describe('planted faults', () => {
  plant('provider', providerFaults, providerCases)
  plant('channel', channelFaults, channelCases)
  plant('store', storeFaults, storeCases)
})

function plant<S extends Subject>(kind: string, faults: readonly Fault<S>[], cases: readonly Case<S>[]): void {
  for (const { does, caughtBy, subject, says, hangs } of faults) {
    it.concurrent(`a ${kind} that ${does} is caught`, async ({ task }) => {
      const found = cases.find(({ title }) => title === caughtBy)
      if (!found) throw new Error(`no case of the ${kind} suite is called "${caughtBy}"`)
      expect(reasonToSkip(found, subject), 'the case applies').toBeUndefined()
      const outcome = await limited(hangs ? hangingMs : patientMs, () => found.run(subject)).then(
        () => undefined,
        whatItSays,
      )
      task.meta.fault = { planted: `${kind}: ${does}`, caughtBy, ...(outcome ? { saying: firstLine(outcome) } : {}) }
      expect(outcome, 'what the case said').toMatch(says)
    })
  }
}

/** The message of a failed case, and what it found where it expected something else. */
function whatItSays(error: unknown): string {
  const { message, actual } = error as Error & { readonly actual?: unknown }
  return `${message}\n${inspect(actual, { depth: 5, breakLength: Infinity })}`
}

const firstLine = (text: string): string => text.split('\n', 1)[0]!.slice(0, 100)
