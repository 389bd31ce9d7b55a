import { providerSuite } from '../../suites/provider.ts'
import { cozeSubject } from './dialect.ts'

providerSuite('coze', cozeSubject)
