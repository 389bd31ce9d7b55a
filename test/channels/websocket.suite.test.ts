import { channelSuite } from '../suites/channel.ts'
import { websocketSubject } from './clients.ts'

channelSuite('websocket', websocketSubject)
