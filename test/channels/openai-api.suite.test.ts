import { channelSuite } from '../suites/channel.ts'
import { openaiApiSubject } from './openai-api.subject.ts'

channelSuite('openaiApi', openaiApiSubject)
