import { providerSuite } from '../suites/provider.ts'
import { murmurSubject } from './murmur.ts'

providerSuite('murmur', murmurSubject)
