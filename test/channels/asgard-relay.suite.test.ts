import { channelSuite } from '../suites/channel.ts'
import { asgardRelaySubject } from './asgard-relay.subject.ts'

channelSuite('asgardRelay', asgardRelaySubject)
