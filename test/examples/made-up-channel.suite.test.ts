import { channelSuite } from '../suites/channel.ts'
import { linesSubject } from './lines.ts'

channelSuite('lines', linesSubject)
