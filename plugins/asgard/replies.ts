import { HubError } from '../../core/errors.ts'
import type { Json, JsonObject } from '../../core/message.ts'
import { AsgardError } from './errors.ts'
import { asgardMessage, errorDetailOf, listOf, objectOf, textOf } from './wire.ts'
import type { AsgardBlob, AsgardErrorDetail, AsgardMessage, AsgardPendingCall } from './wire.ts'

/*
 * Reads the `data` of answers. Fields of a wrong type are empty, unknown ones are left out: an answer is refused only
 * where nothing could be done with it.
 */

/** The whole reply to a message that was sent without a stream. */
export interface GenericBotReply {
  readonly requestId: string
  readonly namespace: string
  readonly botProviderName: string
  readonly customChannelId: string
  readonly messages: readonly AsgardMessage[]
  /** Why the run failed. */
  readonly errorDetail: AsgardErrorDetail | null
  /** The run waits for an answer to these. */
  readonly toolCallConsentRequest?: { readonly pendingCalls: readonly AsgardPendingCall[] }
}

/** How a channel is called and what it is doing. */
export interface ChannelMetadata {
  readonly customChannelId: string
  readonly title: string | null
  /** `IDLE`, `RUNNING`, `ERROR`, or what a later Asgard says. */
  readonly runState: string
  /** `NEEDS_INPUT`, `COMPLETED`, or what a later Asgard says. */
  readonly conversationStatus: string | null
  /** Ms since the epoch. */
  readonly lastActivityAt: number | null
  readonly launchedSandboxes: readonly LaunchedSandbox[]
}

/** A sandbox that belongs to a channel. */
export interface LaunchedSandbox {
  readonly sandboxName: string
  readonly sandboxBlueprintName: string
  readonly workingDirectory: string
  readonly editorServerEnabled: boolean
  readonly browserEnabled: boolean
}

/** How to connect to the browser in a sandbox. */
export interface SandboxBrowserSession {
  readonly wsUrl: string
  readonly token: string
}

/** What is in a folder of a sandbox. */
export interface SandboxEntries {
  readonly entries: readonly SandboxEntry[]
  /** There are more. */
  readonly truncated: boolean
}

/** A file or folder in a sandbox; its time is in seconds since the epoch. */
export interface SandboxEntry {
  readonly name: string
  readonly isDir: boolean
  readonly sizeBytes: number
  readonly mtimeUnix: number
  readonly mode: number
}

/** What is at a path of a sandbox. */
export interface SandboxFileStat extends Omit<SandboxEntry, 'name'> {
  readonly exists: boolean
  readonly etag?: string
}

/** A change in a sandbox's files. */
export interface SandboxFileChange {
  /** `CREATE`, `WRITE`, `REMOVE`, `RENAME`, `CHMOD`, or what a later Asgard says. */
  readonly op: string
  readonly path: string
  /** Seconds since the epoch. */
  readonly mtimeUnix: number
}

/** Reads the reply of `POST /message`. */
export function readReply(answer: Json): GenericBotReply {
  const reply = objectOf(answer)
  const request = reply['toolCallConsentRequest']
  return {
    requestId: textOf(reply['requestId']),
    namespace: textOf(reply['namespace']),
    botProviderName: textOf(reply['botProviderName']),
    customChannelId: textOf(reply['customChannelId']),
    messages: listOf(reply['messages']).map((message) => readMessage(objectOf(message))),
    errorDetail: errorDetailOf(reply['errorDetail']) ?? null,
    ...(request
      ? { toolCallConsentRequest: { pendingCalls: listOf(objectOf(request)['pendingCalls']).map(readPendingCall) } }
      : {}),
  }
}

function readMessage(message: JsonObject): AsgardMessage {
  const template = message['template']
  const parent = textOf(message['parentToolUseId'])
  return asgardMessage({
    messageId: textOf(message['messageId']),
    replyToCustomMessageId: textOf(message['replyToCustomMessageId']),
    text: textOf(message['text']),
    payload: message['payload'] ?? null,
    isDebug: message['isDebug'] === true,
    idx: numberOf(message['idx']) ?? null,
    template: isTemplate(template) ? template : null,
    ...(parent ? { parentToolUseId: parent } : {}),
  })
}

// A type that is new is passed on like the others.
const isTemplate = (template: Json | undefined): template is NonNullable<AsgardMessage['template']> =>
  textOf(objectOf(template)['type']) !== ''

function readPendingCall(value: Json): AsgardPendingCall {
  const call = objectOf(value)
  return {
    toolCallId: textOf(call['toolCallId']),
    toolsetName: textOf(call['toolsetName']),
    toolName: textOf(call['toolName']),
    parameter: call['parameter'] ?? null,
    reason: textOf(call['reason']),
    alreadyAllowed: call['alreadyAllowed'] === true,
  }
}

/**
 * Reads the answer to an upload, which is a list of one.
 * @throws AsgardError where there is no `blobId` in it
 */
export function readBlob(answer: Json): AsgardBlob {
  const blob = objectOf(Array.isArray(answer) ? listOf(answer)[0] : answer)
  const blobId = textOf(blob['blobId'])
  if (!blobId) throw unusable('the upload was answered without a blobId')
  const channelId = textOf(blob['channelId'])
  return {
    ...(channelId ? { channelId } : {}),
    blobId,
    fileType: fileTypes.find((type) => type === blob['fileType']) ?? 'BINARY',
    fileName: typeof blob['fileName'] === 'string' ? blob['fileName'] : null,
    size: numberOf(blob['size']) ?? 0,
    mime: textOf(blob['mime']),
  }
}

const fileTypes = ['BINARY', 'IMAGE', 'VIDEO', 'AUDIO', 'DOCUMENT'] as const

/** Reads what a channel says of itself. */
export function readMetadata(answer: Json): ChannelMetadata {
  const metadata = objectOf(answer)
  return {
    customChannelId: textOf(metadata['customChannelId']),
    title: textOf(metadata['title']) || null,
    runState: textOf(metadata['runState']),
    conversationStatus: textOf(metadata['conversationStatus']) || null,
    lastActivityAt: timeOf(metadata['lastActivityAt']),
    launchedSandboxes: listOf(metadata['launchedSandboxes']).map((value) => {
      const sandbox = objectOf(value)
      return {
        sandboxName: textOf(sandbox['sandboxName']),
        sandboxBlueprintName: textOf(sandbox['sandboxBlueprintName']),
        workingDirectory: textOf(sandbox['workingDirectory']),
        editorServerEnabled: sandbox['editorServerEnabled'] === true,
        browserEnabled: sandbox['browserEnabled'] === true,
      }
    }),
  }
}

/** Reads where feedback has gone. */
export function readReceipt(answer: Json): { readonly messageId: string; readonly seq: number } {
  const receipt = objectOf(answer)
  return { messageId: textOf(receipt['messageId']), seq: numberOf(receipt['seq']) ?? 0 }
}

/** Reads a list of files. */
export function readEntries(answer: Json): SandboxEntries {
  const { entries, truncated } = objectOf(answer)
  return {
    entries: listOf(entries).map((value) => ({ name: textOf(objectOf(value)['name']), ...attributesOf(value) })),
    truncated: truncated === true,
  }
}

/** Reads what is at a path. */
export function readFileStat(answer: Json): SandboxFileStat {
  const stat = objectOf(answer)
  const etag = textOf(stat['etag'])
  return { exists: stat['exists'] === true, ...attributesOf(answer), ...(etag ? { etag } : {}) }
}

/** Reads one change; undefined for what is none. */
export function readFileChange(value: Json | undefined): SandboxFileChange | undefined {
  const change = objectOf(value)
  const op = textOf(change['op'])
  return op ? { op, path: textOf(change['path']), mtimeUnix: numberOf(change['mtimeUnix']) ?? 0 } : undefined
}

/** Reads a number of bytes. */
export const readBytes = (answer: Json, field: string): number => numberOf(objectOf(answer)[field]) ?? 0

function attributesOf(value: Json): Omit<SandboxEntry, 'name'> {
  const entry = objectOf(value)
  return {
    isDir: entry['isDir'] === true,
    sizeBytes: numberOf(entry['sizeBytes']) ?? 0,
    mtimeUnix: numberOf(entry['mtimeUnix']) ?? 0,
    mode: numberOf(entry['mode']) ?? 0,
  }
}

const numberOf = (value: Json | undefined): number | undefined => (typeof value === 'number' ? value : undefined)

/** Some servers write times as text. */
function timeOf(value: Json | undefined): number | null {
  const time = typeof value === 'string' ? Date.parse(value) : value
  return typeof time === 'number' && Number.isFinite(time) ? time : null
}

const unusable = (reason: string): AsgardError =>
  new AsgardError(`Asgard's answer cannot be used: ${reason}.`, {
    statusCode: 200,
    cause: new HubError('upstream_failed', { cause: new Error(reason) }),
  })
