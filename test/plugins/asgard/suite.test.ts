import { providerSuite } from '../../suites/provider.ts'
import { asgardSubject } from './dialect.ts'

providerSuite('asgard', asgardSubject)
