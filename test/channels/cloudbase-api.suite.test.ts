import { channelSuite } from '../suites/channel.ts'
import { cloudbaseApiSubject } from './cloudbase-api.subject.ts'

channelSuite('cloudbaseApi', cloudbaseApiSubject)
