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
export const PostBackActionNone = 'NONE' satisfies AsgardAction
/** Forgets the channel and takes the message as its first. To begin anew, `deleteChannel` is the better way. */
export const PostBackActionResetChannel = 'RESET_CHANNEL' satisfies AsgardAction
/** Answers the calls that wait for consent. */
export const PostBackActionResponseToolCallConsent = 'RESPONSE_TOOL_CALL_CONSENT' satisfies AsgardAction
/** Lets the workflow go on without a word of the user. */
export const PostBackActionNudge = 'NUDGE' satisfies AsgardAction

/** A run begins. */
export const SseEventTypeRunInit = 'asgard.run.init' satisfies AsgardEventType
/** A run has ended, also by being suspended or by pausing for consent. */
export const SseEventTypeRunDone = 'asgard.run.done' satisfies AsgardEventType
/** A run has failed; a streamer throws it. */
export const SseEventTypeRunError = 'asgard.run.error' satisfies AsgardEventType
/** A step of the workflow begins; with `isDebug` only. */
export const SseEventTypeProcessStart = 'asgard.process.start' satisfies AsgardEventType
/** A step of the workflow has ended; with `isDebug` only. */
export const SseEventTypeProcessComplete = 'asgard.process.complete' satisfies AsgardEventType
/** A message of the bot begins. */
export const SseEventTypeMessageStart = 'asgard.message.start' satisfies AsgardEventType
/** A piece of a message. */
export const SseEventTypeMessageDelta = 'asgard.message.delta' satisfies AsgardEventType
/** A whole message, which is the last word on its text. */
export const SseEventTypeMessageComplete = 'asgard.message.complete' satisfies AsgardEventType
/** The bot begins to think aloud. */
export const SseEventTypeMessageThinkingStart = 'asgard.message.thinking.start' satisfies AsgardEventType
/** A piece of a thought. */
export const SseEventTypeMessageThinkingDelta = 'asgard.message.thinking.delta' satisfies AsgardEventType
/** A whole thought. */
export const SseEventTypeMessageThinkingComplete = 'asgard.message.thinking.complete' satisfies AsgardEventType
/** A canvas begins. */
export const SseEventTypeMessageCanvasStart = 'asgard.message.canvas.start' satisfies AsgardEventType
/** A piece of a canvas. */
export const SseEventTypeMessageCanvasDelta = 'asgard.message.canvas.delta' satisfies AsgardEventType
/** A whole canvas; without a template it is to be thrown away. */
export const SseEventTypeMessageCanvasComplete = 'asgard.message.canvas.complete' satisfies AsgardEventType
/** What the user had said; in a replay only. */
export const SseEventTypeMessageUser = 'asgard.message.user' satisfies AsgardEventType
/** What a user thinks of a message. */
export const SseEventTypeMessageFeedback = 'asgard.message.feedback' satisfies AsgardEventType
/** A tool begins to run. */
export const SseEventTypeToolCallStart = 'asgard.tool_call.start' satisfies AsgardEventType
/** A tool has run. */
export const SseEventTypeToolCallComplete = 'asgard.tool_call.complete' satisfies AsgardEventType
/** The run pauses until every pending call is answered. */
export const SseEventTypeToolCallConsent = 'asgard.tool_call.consent' satisfies AsgardEventType
/** What a model has used, in tokens. */
export const SseEventTypeCompletionModelUsage = 'asgard.completion_model.usage' satisfies AsgardEventType
/** A sandbox is being started. */
export const SseEventTypeSandboxLaunch = 'asgard.sandbox.launch' satisfies AsgardEventType
/** A sandbox runs. */
export const SseEventTypeSandboxReady = 'asgard.sandbox.ready' satisfies AsgardEventType
/** A subagent begins. */
export const SseEventTypeSubagentStart = 'asgard.subagent.start' satisfies AsgardEventType
/** A subagent has ended. */
export const SseEventTypeSubagentComplete = 'asgard.subagent.complete' satisfies AsgardEventType
/** The channel has a new title. */
export const SseEventTypeChannelTitleUpdate = 'asgard.channel.title.update' satisfies AsgardEventType
/** The channel has a new status. */
export const SseEventTypeChannelStatusUpdate = 'asgard.channel.status.update' satisfies AsgardEventType
/** What the user might say next. */
export const SseEventTypePromptSuggestion = 'asgard.prompt_suggestion' satisfies AsgardEventType
