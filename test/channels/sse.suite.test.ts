import { channelSuite } from '../suites/channel.ts'
import { sseSubject } from './clients.ts'

channelSuite('sse', sseSubject)
