import { channelSuite } from '../suites/channel.ts'
import { cozeApiSubject } from './coze-api.subject.ts'

channelSuite('cozeApi', cozeApiSubject)
