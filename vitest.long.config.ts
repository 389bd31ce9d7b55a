import { defineConfig } from 'vitest/config'
import { SuiteReport } from './test/suites/report.ts'

/**
 * `npm run test:long`: tests that start the program many times, open browsers, wait for clocks or measure the machine,
 * more files at once than cores, since much of their time is waiting.
 */
export default defineConfig({
  test: {
    include: ['test/**/*.long.ts'],
    testTimeout: 120_000,
    hookTimeout: 60_000,
    pool: 'threads',
    maxWorkers: 3,
    reporters: ['default', new SuiteReport()],
  },
})
