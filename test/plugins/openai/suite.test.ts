import { providerSuite } from '../../suites/provider.ts'
import { openaiSubject } from './dialect.ts'

providerSuite('openai', openaiSubject)
