/**
 * bothub/asgard: a client for one bot provider of Asgard, usable by itself, without a hub. Its names are those of
 * Asgard's own backend SDK for Node.
 */
export { BotProviderClient } from './client.ts'
export { BotProviderStreamer } from './streamer.ts'
export * from './constants.ts'
export {
  AsgardError,
  isBadRequest,
  isConflict,
  isForbidden,
  isNotFound,
  isPreconditionFailed,
  isUnauthorized,
  statusCodeOf,
} from './errors.ts'

export type { MessageFeedback, MessageRequestOptions, SandboxOptions, StreamRequestOptions } from './client.ts'
export type { AsgardFile, BotProviderConfig, CallOptions } from './edge.ts'
export type { AsgardErrorOptions } from './errors.ts'
export type { FileSource, FileUpload } from './multipart.ts'
export type {
  ChannelMetadata,
  GenericBotReply,
  LaunchedSandbox,
  SandboxBrowserSession,
  SandboxEntries,
  SandboxEntry,
  SandboxFileChange,
  SandboxFileStat,
} from './replies.ts'
export type { AsgardFact, GenericBotSseEvent } from './streamer.ts'
export type {
  AsgardAction,
  AsgardBlob,
  AsgardErrorDetail,
  AsgardMessage,
  AsgardPendingCall,
  AsgardTemplate,
  AsgardToolCall,
  ConsentResult,
  GenericBotMessage,
  ToolCallConsentAnswer,
} from './wire.ts'
