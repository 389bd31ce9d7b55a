import { channelSuite } from 'bothub/testing'
import { linesSubject } from './lines.ts'

channelSuite('lines', linesSubject)
