/**
 * `bothub/testing`: what every provider, channel and store has to do, as tests for Vitest, and what the subjects of
 * these tests are made of.
 */
export { channelSuite, doorName } from './channel.ts'
export { providerSuite } from './provider.ts'
export { storeSuite } from './store.ts'
export { SuiteReport } from './report.ts'
export { startHub } from '../support/hub.ts'
export { codeIn, reader, requester } from '../channels/clients.ts'

export type { Answer, AskOptions, Caller, ChannelSubject, Client, Door, Said } from './channel.ts'
export type { ProviderSubject } from './provider.ts'
export type { Receiver } from './receiver.ts'
export type { Dialect, Step, UpstreamAnswer, UpstreamRequest } from './scripted.ts'
export type { StoreSubject } from './store.ts'
export type { TestHub, TestHubOptions } from '../support/hub.ts'
