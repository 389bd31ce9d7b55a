import type { CheckedConfig } from '../core/config.ts'
import { nativePaths, under } from '../core/native.ts'

/**
 * A first request to a hub, as lines to print: to a channel that it has, with what that channel and its `auth` want.
 * Undefined where neither `sse` nor `rest` is there, for clients of other channels have programs of their own.
 */
export function tryIt({ channels, bots, auth }: CheckedConfig, url: string): string | undefined {
  const all = [...channels.values()]
  const channel = all.find(({ name }) => name === 'sse') ?? all.find(({ name }) => name === 'rest')
  if (!channel) return undefined
  const { path, bots: offered } = channel.options as { readonly path: string; readonly bots?: readonly string[] }
  const bot = offered?.[0] ?? [...bots.keys()][0] ?? ''
  const isStream = channel.name === 'sse'
  const words = [
    `curl${isStream ? ' -N' : ''} ${url}${under(path, nativePaths.messages).replace(':bot', bot)}`,
    ...(auth ? ['-H "authorization: Bearer $HUB_KEY"'] : []),
    "-H 'content-type: application/json'",
    ...(isStream ? ["-H 'accept: text/event-stream'"] : []),
    `-d '{"text":"hello"}'`,
  ]
  return `Try it${auth ? ', with a key of this hub in HUB_KEY' : ''}:\n  ${words.join(' ')}\n`
}
