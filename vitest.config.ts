import { defineConfig } from 'vitest/config'
import { SuiteReport } from './test/suites/report.ts'

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    // Only what is broken takes this long, also on a machine that is busy with other things.
    testTimeout: 60_000,
    hookTimeout: 60_000,
    pool: 'threads',
    // Files that share a worker load every module once; no test leaves anything behind in one.
    isolate: false,
    // Most of a test's time is spent waiting for sockets and clocks, so more files run at once than there are cores.
    maxWorkers: 4,
    reporters: ['default', new SuiteReport()],
  },
})
