import { HubError } from '../../core/errors.ts'
import type { Json } from '../../core/message.ts'
import { Edge, expectAnswer } from './edge.ts'
import type { AsgardFile, BotProviderConfig, CallOptions, EdgeRequest } from './edge.ts'
import { AsgardError } from './errors.ts'
import type { FileUpload } from './multipart.ts'
import {
  readBlob,
  readBytes,
  readEntries,
  readFileChange,
  readFileStat,
  readMetadata,
  readReceipt,
  readReply,
} from './replies.ts'
import type {
  ChannelMetadata,
  GenericBotReply,
  SandboxBrowserSession,
  SandboxEntries,
  SandboxFileChange,
  SandboxFileStat,
} from './replies.ts'
import { BotProviderStreamer } from './streamer.ts'
import type { AsgardBlob, GenericBotMessage } from './wire.ts'
import { objectOf, parseJson, textOf } from './wire.ts'

/** How one message is sent. */
export interface MessageRequestOptions extends CallOptions {
  /** Asks for the events of the debugger; counts where the app's debug mode is on demand. */
  readonly isDebug?: boolean
  /** Nobody is asked before a tool runs; `sendMessage` knows no such thing. */
  readonly bypassToolCallConsent?: boolean
  /** Whom Asgard shall know the end user as; at most 128 characters, fit for a header. */
  readonly userIdentityHint?: string | undefined
}

/** How a run is followed. */
export interface StreamRequestOptions extends MessageRequestOptions {
  /** Go on behind this place of a run that was started before, `streamer.lastEventId`; the message is not sent again. */
  readonly lastEventId?: string | undefined
}

/** What a sandbox is asked for, when a relay in between wants to know on whose behalf. */
export interface SandboxOptions extends CallOptions {
  /** Asked for by some relays; Asgard itself does not need it. */
  readonly customChannelId?: string | undefined
}

/** What the user thinks of one message of the bot. */
export interface MessageFeedback {
  readonly customChannelId: string
  readonly messageId: string
  readonly verdict: 'GOOD' | 'BAD'
  /** At most 8 KiB. */
  readonly comment?: string
}

/**
 * Calls one bot provider of Asgard from a server. One instance serves the whole process: it holds no state between
 * calls, and any number of them may be under way. Every failure is an `AsgardError`; a call that is aborted throws the
 * signal's reason. Nothing is tried again by itself.
 * @example
 * const bpClient = new BotProviderClient({ namespace, botProviderName, botProviderApiKey })
 * const streamer = await bpClient.newStreamer({ customChannelId: 'c1', text: 'Hello', action: 'NONE' })
 * for await (const { fact } of streamer) process.stdout.write(fact.messageDelta?.message.text ?? '')
 */
export class BotProviderClient {
  readonly #edge: Edge

  constructor(config: BotProviderConfig) {
    this.#edge = new Edge(config)
  }

  /** Sends a message and returns its run as a stream, once Asgard has taken it. */
  async newStreamer(message: GenericBotMessage, options: StreamRequestOptions = {}): Promise<BotProviderStreamer> {
    const response = await this.#edge.events({
      ...posted('/message/sse', message, options),
      headers: { ...hinted(options), 'last-event-id': options.lastEventId },
    })
    return new BotProviderStreamer(response, options.signal)
  }

  /**
   * Replays a channel, the whole of it or what is behind `lastEventId`, and follows the run that is under way to its
   * end. Starts nothing.
   */
  async newChannelStreamer(
    customChannelId: string,
    options: Omit<StreamRequestOptions, 'bypassToolCallConsent'> = {},
  ): Promise<BotProviderStreamer> {
    const response = await this.#edge.events({
      method: 'GET',
      path: '/message/sse',
      query: { custom_channel_id: customChannelId, ...debugged(options) },
      headers: { ...hinted(options), 'last-event-id': options.lastEventId },
      signal: options.signal,
    })
    return new BotProviderStreamer(response, options.signal)
  }

  /** Sends a message and waits for the whole reply. A run that failed is a reply with `errorDetail`, not an error. */
  async sendMessage(message: GenericBotMessage, options: MessageRequestOptions = {}): Promise<GenericBotReply> {
    const { bypassToolCallConsent: _, ...known } = options
    return readReply(await this.#json(posted('/message', message, known)))
  }

  /** Sends a message and does not wait for the reply; follow it with `newChannelStreamer`. */
  async dispatch(
    message: GenericBotMessage,
    options: MessageRequestOptions = {},
  ): Promise<{ readonly requestId: string; readonly customChannelId: string }> {
    const receipt = objectOf(await this.#json(posted('/message/dispatch', message, options)))
    return { requestId: textOf(receipt['requestId']), customChannelId: textOf(receipt['customChannelId']) }
  }

  /** Stops the channel's run, or the one named; one that is over stays as it is. `force` when that did not help. */
  async suspendChannel(
    customChannelId: string,
    options: CallOptions & { readonly requestId?: string | undefined; readonly force?: boolean } = {},
  ): Promise<void> {
    await this.#edge.call({
      method: 'POST',
      path: '/message/suspend',
      query: {
        custom_channel_id: customChannelId,
        request_id: options.requestId,
        force: options.force ? 'true' : undefined,
      },
      signal: options.signal,
    })
  }

  /** Tells what the user thinks of a message; the last word counts. A message that is unknown is 404. */
  async sendMessageFeedback(
    feedback: MessageFeedback,
    options: CallOptions & Pick<MessageRequestOptions, 'userIdentityHint'> = {},
  ): Promise<{ readonly messageId: string; readonly seq: number }> {
    return readReceipt(
      await this.#json({
        method: 'POST',
        path: '/message/feedback',
        json: feedback,
        headers: hinted(options),
        signal: options.signal,
      }),
    )
  }

  /** Streams a file to a channel; its `blobId` then goes into `blobIds` of messages to the same channel. */
  async uploadBlob(customChannelId: string, file: FileUpload, options: CallOptions = {}): Promise<AsgardBlob> {
    return readBlob(
      await this.#json({
        method: 'POST',
        path: '/blob',
        form: { fields: { customChannelId }, file },
        signal: options.signal,
      }),
    )
  }

  /** How a channel is called and what it is doing; one that Asgard does not know is 404. */
  async channelMetadata(customChannelId: string, options: CallOptions = {}): Promise<ChannelMetadata> {
    return readMetadata(await this.#json(onChannel('GET', '/channel/metadata', customChannelId, options)))
  }

  /** Deletes a channel with its history; one that is not there is fine. With a live sandbox it can take a minute. */
  async deleteChannel(customChannelId: string, options: CallOptions = {}): Promise<void> {
    await this.#edge.call(onChannel('DELETE', '/channel', customChannelId, options))
  }

  /** Clears a channel. What that leaves of it is not documented; to begin anew, delete it. */
  async clearChannel(customChannelId: string, options: CallOptions = {}): Promise<void> {
    await this.#edge.call(onChannel('POST', '/channel/clear', customChannelId, options))
  }

  /** A file of the channel's home, such as one that a message links to by `channel-home://`. */
  async downloadChannelHomeFile(
    customChannelId: string,
    relativePath: string,
    options: CallOptions = {},
  ): Promise<AsgardFile> {
    const request = onChannel('GET', '/channel-home/download', customChannelId, options)
    return this.#edge.download({ ...request, query: { ...request.query, relative_path: relativePath } })
  }

  /** Runs the bot provider's workflow once, with JSON in and JSON out. Tools run without consent. */
  async triggerJson(body: Readonly<Record<string, unknown>>, options: CallOptions = {}): Promise<Json> {
    return this.#json({ method: 'POST', path: '/json', json: body, signal: options.signal })
  }

  /** The same with a file. */
  async triggerForm(
    body: Readonly<Record<string, unknown>>,
    file?: FileUpload,
    options: CallOptions = {},
  ): Promise<Json> {
    const form = { fields: { json: JSON.stringify(body) }, file }
    return this.#json({ method: 'POST', path: '/form', form, signal: options.signal })
  }

  /** What the bot provider says of itself, as it says it. */
  async botProviderMetadata(options: CallOptions = {}): Promise<Json> {
    return this.#json({ method: 'GET', path: '/metadata', signal: options.signal })
  }

  /** Keeps a sandbox alive and says when it would be shut down (RFC 3339). One that does not run is 412. */
  async sandboxHeartbeat(sandboxName: string, options: SandboxOptions = {}): Promise<{ readonly shutdownAt: string }> {
    const answer = objectOf(await this.#json(inSandbox('POST', sandboxName, '/heartbeat', {}, options)))
    return { shutdownAt: textOf(answer['shutdownAt']) }
  }

  /** An address that opens the sandbox's editor once. */
  async sandboxEditorOpenUrl(sandboxName: string, options: SandboxOptions = {}): Promise<{ readonly openURL: string }> {
    return this.#openUrl(sandboxName, '/editor/open-url', options)
  }

  /** An address that opens the sandbox's browser once, and soon. */
  async sandboxBrowserOpenUrl(
    sandboxName: string,
    options: SandboxOptions = {},
  ): Promise<{ readonly openURL: string }> {
    return this.#openUrl(sandboxName, '/browser/open-url', options)
  }

  /** How to connect to the sandbox's browser. The token is a secret. */
  async sandboxBrowserSession(sandboxName: string, options: SandboxOptions = {}): Promise<SandboxBrowserSession> {
    const answer = objectOf(await this.#json(inSandbox('POST', sandboxName, '/browser/session', {}, options)))
    return { wsUrl: textOf(answer['wsUrl']), token: textOf(answer['token']) }
  }

  /** What is in a folder. */
  async sandboxFsList(sandboxName: string, path: string, options: SandboxOptions = {}): Promise<SandboxEntries> {
    return readEntries(await this.#json(inSandbox('GET', sandboxName, '/fs/list', { path }, options)))
  }

  /** What is at a path; nothing is an answer, too. */
  async sandboxFsStat(sandboxName: string, path: string, options: SandboxOptions = {}): Promise<SandboxFileStat> {
    return readFileStat(await this.#json(inSandbox('GET', sandboxName, '/fs/stat', { path }, options)))
  }

  /** Reads a file, or a part of it. */
  async sandboxFsReadFile(
    sandboxName: string,
    path: string,
    options: SandboxOptions & { readonly offsetBytes?: number; readonly limitBytes?: number } = {},
  ): Promise<AsgardFile> {
    const part = { offset_bytes: options.offsetBytes?.toString(), limit_bytes: options.limitBytes?.toString() }
    return this.#edge.download(inSandbox('GET', sandboxName, '/fs/file', { path, ...part }, options))
  }

  /** Writes a file. `mode` is its permissions; with `createOnly` one that exists is 409. */
  async sandboxFsWriteFile(
    sandboxName: string,
    path: string,
    file: FileUpload,
    options: SandboxOptions & { readonly mode?: number; readonly createOnly?: boolean } = {},
  ): Promise<{ readonly bytesWritten: number }> {
    const { mode, createOnly } = options
    const query = { path, mode: mode?.toString(), create_only: createOnly ? 'true' : undefined }
    const request = inSandbox('PUT', sandboxName, '/fs/file', query, options)
    return { bytesWritten: readBytes(await this.#json({ ...request, form: { fields: {}, file } }), 'bytesWritten') }
  }

  /** Makes a folder. */
  async sandboxFsMkdir(sandboxName: string, path: string, options: SandboxOptions = {}): Promise<void> {
    await this.#edge.call(inSandbox('POST', sandboxName, '/fs/mkdir', { path }, options))
  }

  /** Removes a file or an empty folder. */
  async sandboxFsRemove(sandboxName: string, path: string, options: SandboxOptions = {}): Promise<void> {
    await this.#edge.call(inSandbox('DELETE', sandboxName, '/fs/item', { path }, options))
  }

  /** Removes a folder with all that is in it. */
  async sandboxFsRemoveAll(sandboxName: string, path: string, options: SandboxOptions = {}): Promise<void> {
    await this.#edge.call(inSandbox('DELETE', sandboxName, '/fs/all', { path }, options))
  }

  /** Copies a file. Without `overwrite`, one that exists is 409. */
  async sandboxFsCopy(
    sandboxName: string,
    src: string,
    dst: string,
    options: SandboxOptions & { readonly overwrite?: boolean } = {},
  ): Promise<{ readonly bytesCopied: number }> {
    const query = { src, dst, overwrite: options.overwrite ? 'true' : undefined }
    const answer = await this.#json(inSandbox('POST', sandboxName, '/fs/copy', query, options))
    return { bytesCopied: readBytes(answer, 'bytesCopied') }
  }

  /** Moves a file. Without `overwrite`, one that exists is 409. */
  async sandboxFsMove(
    sandboxName: string,
    src: string,
    dst: string,
    options: SandboxOptions & { readonly overwrite?: boolean } = {},
  ): Promise<void> {
    const query = { src, dst, overwrite: options.overwrite ? 'true' : undefined }
    await this.#edge.call(inSandbox('POST', sandboxName, '/fs/move', query, options))
  }

  /**
   * The changes below a path as they happen, from when this resolves until its loop is left. Whoever was cut off has
   * missed what happened meanwhile.
   */
  async sandboxFsWatch(
    sandboxName: string,
    path: string,
    options: SandboxOptions & { readonly recursive?: boolean } = {},
  ): Promise<AsyncGenerator<SandboxFileChange, void, undefined>> {
    const query = { path, recursive: options.recursive ? 'true' : undefined }
    return changes(await this.#edge.events(inSandbox('GET', sandboxName, '/fs/watch', query, options)), options.signal)
  }

  async #openUrl(sandboxName: string, path: string, options: SandboxOptions): Promise<{ readonly openURL: string }> {
    const answer = objectOf(await this.#json(inSandbox('POST', sandboxName, path, {}, options)))
    return { openURL: textOf(answer['openURL']) }
  }

  async #json(request: EdgeRequest): Promise<Json> {
    return expectAnswer(await this.#edge.call(request))
  }
}

const posted = (path: string, message: GenericBotMessage, options: MessageRequestOptions): EdgeRequest => ({
  method: 'POST',
  path,
  query: { ...debugged(options), bypass_tool_call_consent: options.bypassToolCallConsent ? 'true' : undefined },
  headers: hinted(options),
  json: message,
  signal: options.signal,
})

const debugged = ({ isDebug }: MessageRequestOptions) => ({ is_debug: isDebug ? 'true' : undefined })
const hinted = ({ userIdentityHint }: Pick<MessageRequestOptions, 'userIdentityHint'>) => ({
  'x-asgard-user-identity-hint': userIdentityHint || undefined,
})

const onChannel = (
  method: EdgeRequest['method'],
  path: string,
  customChannelId: string,
  { signal }: CallOptions,
): EdgeRequest => ({ method, path, query: { custom_channel_id: customChannelId }, signal })

const inSandbox = (
  method: EdgeRequest['method'],
  sandboxName: string,
  path: string,
  query: Readonly<Record<string, string | undefined>>,
  { customChannelId, signal }: SandboxOptions,
): EdgeRequest => ({
  method,
  path: `/sandbox/${encodeURIComponent(sandboxName)}${path}`,
  query: { ...query, custom_channel_id: customChannelId },
  signal,
})

async function* changes(
  response: Awaited<ReturnType<Edge['events']>>,
  signal: AbortSignal | undefined,
): AsyncGenerator<SandboxFileChange, void, undefined> {
  try {
    for await (const { event, data } of response.events()) {
      const change = event === 'ready' ? undefined : readFileChange(parseJson(data))
      if (change) yield change
    }
    throw new HubError('upstream_cut')
  } catch (error) {
    if (signal?.aborted) throw signal.reason
    throw error instanceof HubError ? new AsgardError(error.message, { cause: error }) : error
  } finally {
    response.close()
  }
}
