import { providerSuite } from '../../suites/provider.ts'
import { sseBotSubject } from './dialect.ts'

providerSuite('sse-bot', sseBotSubject)
