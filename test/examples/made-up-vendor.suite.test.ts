import { providerSuite } from 'bothub/testing'
import { murmurSubject } from './murmur.ts'

providerSuite('murmur', murmurSubject)
