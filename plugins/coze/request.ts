import { createHash } from 'node:crypto'
import { z } from 'zod'
import type { Principal } from '../../core/auth.ts'
import { HubError } from '../../core/errors.ts'
import type { FileRef, Json, JsonObject } from '../../core/message.ts'
import type { Turn } from '../../core/turn.ts'

/** What a config says of every chat. */
export interface ChatSettings {
  readonly botId: string | undefined
  readonly workflowId?: string | undefined
  readonly appId?: string | undefined
  readonly autoSaveHistory: boolean
  readonly customVariables?: Readonly<Record<string, string>> | undefined
  readonly parameters?: JsonObject | undefined
  readonly metaData?: Readonly<Record<string, string>> | undefined
}

/** A chat to be posted. */
export interface ChatPost {
  /** With its query. */
  readonly path: string
  readonly body: JsonObject
}

/** The chat that a turn becomes: one of the bot, or of the chatflow where the config names one. */
export const chatPost = (turn: Turn, conversationId: string, settings: ChatSettings): ChatPost =>
  settings.workflowId === undefined
    ? {
        path: `/v3/chat?${new URLSearchParams({ conversation_id: conversationId }).toString()}`,
        body: botChat(turn, settings),
      }
    : { path: '/v1/workflows/chat', body: chatflowChat(turn, conversationId, settings) }

/** What begins a conversation at Coze. */
export const conversationPost = (turn: Turn, { botId }: ChatSettings): JsonObject => ({
  ...(botId === undefined ? {} : { bot_id: botId }),
  meta_data: { hub_conversation_id: short(turn.conversation.id) },
})

/** Whether a message of Coze's is the turn's own, by the id it was sent with. */
export const isOwn = (turn: Turn, metaData: Readonly<Record<string, string>>): boolean =>
  metaData['hub_message_id'] === short(turn.message.id)

function botChat(turn: Turn, settings: ChatSettings): JsonObject {
  const asked = wishesOf(turn.message.payload)
  const parameters = { ...asked.parameters, ...settings.parameters }
  return {
    bot_id: settings.botId!,
    user_id: userId(turn.principal),
    stream: true,
    auto_save_history: settings.autoSaveHistory,
    // The last of them is the question.
    additional_messages: [...earlier(turn, 99), question(turn)],
    ...filled('custom_variables', { ...asked.customVariables, ...settings.customVariables }),
    ...filled('extra_params', { ...asked.extraParams }),
    ...filled('meta_data', { ...asked.metaData, ...settings.metaData }),
    ...filled('parameters', parameters),
    ...(asked.shortcutCommand ? { shortcut_command: asked.shortcutCommand } : {}),
  }
}

/** A chatflow takes text only, and has no place for a user but the one that its plugins look into. */
function chatflowChat(turn: Turn, conversationId: string, settings: ChatSettings): JsonObject {
  if (turn.message.files.length > 0) throw new HubError('unknown_file')
  const asked = wishesOf(turn.message.payload)
  return {
    workflow_id: settings.workflowId!,
    ...(settings.appId === undefined ? {} : { app_id: settings.appId }),
    ...(settings.botId === undefined ? {} : { bot_id: settings.botId }),
    conversation_id: conversationId,
    additional_messages: [...earlier(turn, 49), question(turn)],
    parameters: { ...asked.parameters, ...settings.parameters },
    ext: { ...asked.extraParams, user_id: userId(turn.principal) },
  }
}

const filled = (name: string, fields: JsonObject): JsonObject =>
  Object.keys(fields).length > 0 ? { [name]: fields } : {}

const strings = z.record(z.string(), z.string())
const shortcut = z.object({
  command_id: z.string(),
  // Each is a list of items, as JSON in a string.
  parameters: z
    .record(
      z.string(),
      z.json().transform((value) => (typeof value === 'string' ? value : JSON.stringify(value))),
    )
    .exactOptional(),
})

/**
 * What a message asks for beside its text. A field of the payload that is one of Coze's own, and fits it, is that; all
 * others are inputs.
 */
function wishesOf(payload: JsonObject = {}) {
  const inputs: Record<string, Json> = { ...payload }
  const take = <T>(name: string, shape: z.ZodType<T>): T | undefined => {
    const found = shape.safeParse(inputs[name])
    if (found.success) delete inputs[name]
    return found.data
  }
  const customVariables = take('custom_variables', strings)
  const extraParams = take('extra_params', strings)
  const metaData = take('meta_data', strings)
  const shortcutCommand = take('shortcut_command', shortcut)
  const own = take('parameters', z.record(z.string(), z.json()))
  return { customVariables, extraParams, metaData, shortcutCommand, parameters: { ...inputs, ...own } }
}

const earlier = ({ history }: Turn, atMost: number): JsonObject[] =>
  history
    .slice(-atMost)
    .map(({ role, text }) =>
      role === 'user'
        ? { role: 'user', type: 'question', content: text, content_type: 'text' }
        : { role: 'assistant', type: 'answer', content: text, content_type: 'text' },
    )

const question = ({ message }: Turn): JsonObject => ({
  role: 'user',
  type: 'question',
  ...contentOf(message.text, message.files),
  meta_data: { hub_message_id: short(message.id) },
})

function contentOf(text: string, files: readonly FileRef[]): JsonObject {
  if (files.length === 0) return { content: text, content_type: 'text' }
  // A message of media alone is refused (4000), so the files' names stand in for the words.
  const words = text.trim() === '' ? files.map((file) => file.name).join(', ') : text
  const items = files.map((file) => ({ type: mediaType(file.mime), file_id: fileIdOf(file) }))
  return { content: JSON.stringify([{ type: 'text', text: words }, ...items]), content_type: 'object_string' }
}

const mediaType = (mime: string) => /^(image|audio)\//.exec(mime)?.[1] ?? 'file'

function fileIdOf(file: FileRef): string {
  const found = z.object({ fileId: z.string() }).safeParse(file.upstream)
  if (!found.success) throw new HubError('unknown_file')
  return found.data.fileId
}

/** Two principals never share the memory Coze keeps of a user, and none can choose another's name. */
const userId = ({ key, user }: Principal) => `u_${sha256(`${key}\0${user ?? ''}`).slice(0, 24)}`

/** As a value of `meta_data`, whose limit is 512 characters. */
const short = (id: string) => (id.length > 0 && id.length <= 512 ? id : sha256(id))
const sha256 = (text: string) => createHash('sha256').update(text).digest('hex')
