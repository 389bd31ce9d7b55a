import { defineConfig } from 'vitest/config'
import { SuiteReport } from './test/suites/report.ts'

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    testTimeout: 20_000,
    // Hooks start programs, on a machine that may be busy.
    hookTimeout: 60_000,
    pool: 'threads',
    // Most of a test's time is spent waiting for sockets and clocks, so more files run at once than there are cores.
    maxWorkers: 4,
    reporters: ['default', new SuiteReport()],
  },
})
