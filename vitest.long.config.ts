import { defineConfig } from 'vitest/config'

/** `npm run test:long`: tests that take long or measure the machine, one file after the other. */
export default defineConfig({
  test: { include: ['test/**/*.long.ts'], testTimeout: 120_000, pool: 'threads', fileParallelism: false },
})
