import { echo } from '../../plugins/echo/index.ts'
import { providerSuite } from '../suites/provider.ts'

providerSuite('echo', {
  manifest: echo().manifest,
  create: () => echo(),
  silent: () => echo({ pauseMs: 600_000 }),
})
