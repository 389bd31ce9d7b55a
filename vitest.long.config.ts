import { defineConfig } from 'vitest/config'
import { SuiteReport } from './test/suites/report.ts'

/**
 * `npm run test:long`: tests that start the program many times, open browsers, wait for clocks or measure the machine,
 * a file to each of two cores.
 */
export default defineConfig({
  test: {
    include: ['test/**/*.long.ts'],
    testTimeout: 120_000,
    hookTimeout: 60_000,
    pool: 'threads',
    maxWorkers: 2,
    reporters: ['default', new SuiteReport()],
  },
})
