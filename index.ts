/**
 * bothub: everything a config, a plugin or a test needs, from one place.
 */
import type { HubConfig } from './core/config.ts'
import { startAsgardSimulator } from './plugins/asgard/simulator.ts'
import { startCozeSimulator } from './plugins/coze/simulator.ts'
import { startOpenaiSimulator } from './plugins/openai/simulator.ts'
import { history } from './plugins/history/index.ts'
import { retry } from './plugins/retry/index.ts'
import { sqlite } from './plugins/sqlite/index.ts'
import { consolePage } from './channels/console/index.ts'

/**
 * Types a config: names of bots and options of plugins are checked as you write. The store is `sqlite()`, the
 * middleware `[history(), retry()]` and the page at `/` `consolePage()` unless it says otherwise.
 * @example
 * export default defineConfig({
 *   bots: { support: asgard() },
 *   channels: { rest: rest(), sse: sse() },
 * })
 */
export const defineConfig = <const Bot extends string>(config: HubConfig<Bot>): HubConfig<Bot> => ({
  store: sqlite(),
  use: [history(), retry()],
  console: consolePage(),
  ...config,
})

export { apiKey, jwt } from './core/auth.ts'
export { env, secret, secretFile, setting } from './core/settings.ts'
export { tool } from './core/tools.ts'
export { HubError } from './core/errors.ts'
export { connectionError, encodeEvent, requestEvents, retryAfterMs } from './core/sse.ts'
export { channelOptions } from './core/channel.ts'
export { check, readJson } from './core/body.ts'
export { openEventStream } from './core/event-stream.ts'
export { defineChannel } from './core/channel.ts'
export { defineMiddleware, defineProvider, defineStore } from './core/plugin.ts'
export { createHub } from './core/hub.ts'
export { checkConfig } from './core/config.ts'

export { asgard } from './plugins/asgard/index.ts'
export { consent } from './plugins/consent/index.ts'
export { coze } from './plugins/coze/index.ts'
export { echo } from './plugins/echo/index.ts'
export { history } from './plugins/history/index.ts'
export { BotCore } from './plugins/local/bot-core.ts'
export { demoBot } from './plugins/local/demo-bot.ts'
export { local } from './plugins/local/index.ts'
export { openai } from './plugins/openai/index.ts'
export { retry } from './plugins/retry/index.ts'
export { sqlite } from './plugins/sqlite/index.ts'
export { sseBot } from './plugins/sse-bot/index.ts'
export { plainFrames, plainRequest } from './plugins/sse-bot/wire.ts'

export { asgardRelay } from './channels/asgard-relay/index.ts'
export { cloudbaseApi } from './channels/cloudbase-api/index.ts'
export { consolePage } from './channels/console/index.ts'
export { cozeApi } from './channels/coze-api/index.ts'
export { openaiApi } from './channels/openai-api/index.ts'
export { rest } from './channels/rest.ts'
export { sse } from './channels/sse.ts'
export { webhook } from './channels/webhook/index.ts'
export { defineScheme } from './channels/webhook/scheme.ts'
export { feishu } from './channels/webhook/schemes/feishu.ts'
export { slack } from './channels/webhook/schemes/slack.ts'
export { telegram } from './channels/webhook/schemes/telegram.ts'
export { wecom } from './channels/webhook/schemes/wecom.ts'
export { websocket } from './channels/websocket/index.ts'

export type { WebhookScheme } from './channels/webhook/scheme.ts'
export type { Authenticate, Caller, Principal } from './core/auth.ts'
export type { HubConfig, BotConfig } from './core/config.ts'
export type { HubEvent, NumberedEvent, ToolCall, Usage } from './core/events.ts'
export type { Json, JsonObject, Message, HistoryMessage } from './core/message.ts'
export type { Channel, ChannelContext, RequestContext, Route } from './core/channel.ts'
export type {
  MessageRating,
  PassthroughAnswer,
  PassthroughRequest,
  PluginContext,
  Provider,
  ProviderManifest,
  Thread,
  Upload,
} from './core/plugin.ts'
export type { EventRequest, EventResponse, SourceEvent } from './core/sse.ts'
export type { Store } from './core/store.ts'
export type { LocalTool } from './core/tools.ts'
export type { Middleware, Respond, Turn } from './core/turn.ts'
export type { EndedTurn, TurnHook } from './core/turn-hooks.ts'
export type { TurnObject } from './core/wire.ts'
export type { SendMessageInput } from './plugins/local/bot-core.ts'
export type { BotFunction } from './plugins/local/index.ts'
export type { SseFrame, SseMap, SseRequest, SseStep } from './plugins/sse-bot/wire.ts'

/** The simulated upstreams of `bothub simulate`. */
export const simulators = {
  async asgard(options: { readonly port: number; readonly host: string }) {
    const simulator = await startAsgardSimulator(options)
    const { url, namespace, botProviderName, apiKey } = simulator
    const hint = `asgard({ edgeServerHost: '${url}', namespace: '${namespace}', botProviderName: '${botProviderName}', apiKey: '${apiKey}' })`
    return { url, hints: [hint], close: () => simulator.close() }
  },
  async coze(options: { readonly port: number; readonly host: string }) {
    const simulator = await startCozeSimulator(options)
    const { url, token, botId } = simulator
    return {
      url,
      hints: [`coze({ baseUrl: '${url}', token: '${token}', botId: '${botId}' })`],
      close: () => simulator.close(),
    }
  },
  async openai(options: { readonly port: number; readonly host: string }) {
    const simulator = await startOpenaiSimulator(options)
    const { url, apiKey, model } = simulator
    return {
      url: new URL(url).origin,
      hints: [`openai({ baseUrl: '${url}', apiKey: '${apiKey}', model: '${model}' })`],
      close: () => simulator.close(),
    }
  },
}
