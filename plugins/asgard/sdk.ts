/**
 * bothub/asgard: a client for one bot provider of Asgard, usable by itself, without a hub. Its names are those of
 * Asgard's own backend SDK for Node.
 */
import type { AsgardAction, AsgardEventType } from './wire.ts'

export { BotProviderClient } from './client.ts'
export { BotProviderStreamer } from './streamer.ts'
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

/** An ordinary message; with an empty text, the opening of a channel. */
export const PostBackActionNone = 'NONE' as const satisfies AsgardAction
/** Forgets the channel and takes the message as its first. To begin anew, `deleteChannel` is the better way. */
export const PostBackActionResetChannel = 'RESET_CHANNEL' as const satisfies AsgardAction
/** Answers the calls that wait for consent. */
export const PostBackActionResponseToolCallConsent = 'RESPONSE_TOOL_CALL_CONSENT' as const satisfies AsgardAction
/** Lets the workflow go on without a word of the user. */
export const PostBackActionNudge = 'NUDGE' as const satisfies AsgardAction

/** A run begins. */
export const SseEventTypeRunInit = 'asgard.run.init' as const satisfies AsgardEventType
/** A run has ended, also by being suspended or by pausing for consent. */
export const SseEventTypeRunDone = 'asgard.run.done' as const satisfies AsgardEventType
/** A run has failed; a streamer throws it. */
export const SseEventTypeRunError = 'asgard.run.error' as const satisfies AsgardEventType
/** A step of the workflow begins; with `isDebug` only. */
export const SseEventTypeProcessStart = 'asgard.process.start' as const satisfies AsgardEventType
/** A step of the workflow has ended; with `isDebug` only. */
export const SseEventTypeProcessComplete = 'asgard.process.complete' as const satisfies AsgardEventType
/** A message of the bot begins. */
export const SseEventTypeMessageStart = 'asgard.message.start' as const satisfies AsgardEventType
/** A piece of a message. */
export const SseEventTypeMessageDelta = 'asgard.message.delta' as const satisfies AsgardEventType
/** A whole message, which is the last word on its text. */
export const SseEventTypeMessageComplete = 'asgard.message.complete' as const satisfies AsgardEventType
/** The bot begins to think aloud. */
export const SseEventTypeMessageThinkingStart = 'asgard.message.thinking.start' as const satisfies AsgardEventType
/** A piece of a thought. */
export const SseEventTypeMessageThinkingDelta = 'asgard.message.thinking.delta' as const satisfies AsgardEventType
/** A whole thought. */
export const SseEventTypeMessageThinkingComplete = 'asgard.message.thinking.complete' as const satisfies AsgardEventType
/** A canvas begins. */
export const SseEventTypeMessageCanvasStart = 'asgard.message.canvas.start' as const satisfies AsgardEventType
/** A piece of a canvas. */
export const SseEventTypeMessageCanvasDelta = 'asgard.message.canvas.delta' as const satisfies AsgardEventType
/** A whole canvas; without a template it is to be thrown away. */
export const SseEventTypeMessageCanvasComplete = 'asgard.message.canvas.complete' as const satisfies AsgardEventType
/** What the user had said; in a replay only. */
export const SseEventTypeMessageUser = 'asgard.message.user' as const satisfies AsgardEventType
/** What a user thinks of a message. */
export const SseEventTypeMessageFeedback = 'asgard.message.feedback' as const satisfies AsgardEventType
/** A tool begins to run. */
export const SseEventTypeToolCallStart = 'asgard.tool_call.start' as const satisfies AsgardEventType
/** A tool has run. */
export const SseEventTypeToolCallComplete = 'asgard.tool_call.complete' as const satisfies AsgardEventType
/** The run pauses until every pending call is answered. */
export const SseEventTypeToolCallConsent = 'asgard.tool_call.consent' as const satisfies AsgardEventType
/** What a model has used, in tokens. */
export const SseEventTypeCompletionModelUsage = 'asgard.completion_model.usage' as const satisfies AsgardEventType
/** A sandbox is being started. */
export const SseEventTypeSandboxLaunch = 'asgard.sandbox.launch' as const satisfies AsgardEventType
/** A sandbox runs. */
export const SseEventTypeSandboxReady = 'asgard.sandbox.ready' as const satisfies AsgardEventType
/** A subagent begins. */
export const SseEventTypeSubagentStart = 'asgard.subagent.start' as const satisfies AsgardEventType
/** A subagent has ended. */
export const SseEventTypeSubagentComplete = 'asgard.subagent.complete' as const satisfies AsgardEventType
/** The channel has a new title. */
export const SseEventTypeChannelTitleUpdate = 'asgard.channel.title.update' as const satisfies AsgardEventType
/** The channel has a new status. */
export const SseEventTypeChannelStatusUpdate = 'asgard.channel.status.update' as const satisfies AsgardEventType
/** What the user might say next. */
export const SseEventTypePromptSuggestion = 'asgard.prompt_suggestion' as const satisfies AsgardEventType
