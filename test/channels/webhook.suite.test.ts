import { channelSuite } from '../suites/channel.ts'
import { webhookSubject } from './webhook.subject.ts'

channelSuite('webhook', webhookSubject)
