import { channelSuite } from '../suites/channel.ts'
import { restSubject } from './clients.ts'

channelSuite('rest', restSubject)
