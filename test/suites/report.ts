import type { Reporter, TestCase, TestModule } from 'vitest/node'
import type { FaultMeta, SuiteMeta } from './suite.ts'

/** Prints, at the end of a run, what the suites did with each subject, and what became of the planted faults. */
export class SuiteReport implements Reporter {
  onTestRunEnd(modules: readonly TestModule[]): void {
    const tests = modules.flatMap((each) => [...each.children.allTests()])
    const suites = tests.flatMap((test) => (test.meta().suite ? [{ test, suite: test.meta().suite! }] : []))
    const faults = tests.flatMap((test) => (test.meta().fault ? [{ test, fault: test.meta().fault! }] : []))
    if (suites.length > 0) print(subjectTable(suites))
    if (faults.length === 0) return
    // Everything about them, when they are what was asked for; else how many there are.
    if (modules.length === 1) print(faultTable(faults))
    else
      print([`Planted faults: ${faults.length}, caught ${faults.filter(isCaught).length}. npm run faults lists them.`])
  }
}

const print = (lines: readonly string[]): boolean => process.stdout.write(`${lines.join('\n')}\n\n`)

function subjectTable(cases: readonly { readonly test: TestCase; readonly suite: SuiteMeta }[]): string[] {
  const subjects = Map.groupBy(cases, ({ suite }) => `${suite.kind} ${suite.subject}`)
  const rows = Array.from(subjects, ([subject, all]) => {
    const states = Object.groupBy(all, ({ test }) => test.result().state)
    const reasons = Object.groupBy(states.skipped ?? [], ({ test }) => noteOf(test))
    return [
      subject,
      String(states.passed?.length ?? 0),
      String(states.failed?.length ?? 0),
      Object.entries(reasons)
        .map(([reason, skipped]) => `${skipped!.length}: ${reason}`)
        .join('; '),
    ]
  })
  return table(['subject', 'cases passed', 'failed', 'skipped, because'], rows.toSorted(byFirst))
}

const noteOf = (test: TestCase): string => {
  const result = test.result()
  return (result.state === 'skipped' ? result.note : undefined) ?? 'no reason given'
}

const isCaught = ({ test }: { readonly test: TestCase }): boolean => test.result().state === 'passed'

function faultTable(faults: readonly { readonly test: TestCase; readonly fault: FaultMeta }[]): string[] {
  const rows = faults.map((each) => [
    each.fault.planted,
    isCaught(each) ? each.fault.caughtBy : 'NOT CAUGHT',
    each.fault.saying ?? '',
  ])
  return table(['planted fault', 'caught by the case', 'which said'], rows)
}

const byFirst = ([one]: readonly string[], [other]: readonly string[]): number => (one! < other! ? -1 : 1)

function table(head: readonly string[], rows: readonly (readonly string[])[]): string[] {
  const widths = head.map((title, column) => Math.max(title.length, ...rows.map((row) => row[column]!.length)))
  const line = (cells: readonly string[]) =>
    cells
      .map((cell, column) => (column === cells.length - 1 ? cell : cell.padEnd(widths[column]!)))
      .join(' | ')
      .trimEnd()
  return [line(head), widths.map((width) => '-'.repeat(width)).join('-|-'), ...rows.map(line)]
}
