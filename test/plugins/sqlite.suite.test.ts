import { storeSuite } from '../suites/store.ts'
import { sqliteSubject } from './sqlite.subject.ts'

storeSuite('sqlite', sqliteSubject)
