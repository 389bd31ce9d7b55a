import type { Json } from '../../core/message.ts'
import type { BotHost } from './bot-host.ts'

/** The names of CloudBase's tools for bots. */
const toolNames = [
  'searchDB',
  'searchFile',
  'searchKnowledgeBase',
  'searchNetwork',
  'sendWxClientMessage',
  'speechToText',
  'textToSpeech',
  'getTextToSpeech',
  'getWxMediaContent',
] as const

/**
 * CloudBase's tools, each called with the bot's id first. Those that `local()` was given a function for run it; the
 * others, and those whose function throws, resolve to a `code` and a `message`.
 */
export type AITools = Readonly<Record<(typeof toolNames)[number], (...given: readonly Json[]) => Promise<Json>>>

/** Functions of the config that stand for CloudBase's tools; they are called as the tools are, the bot's id first. */
export type BotTools = Partial<Readonly<Record<(typeof toolNames)[number], (...given: never[]) => unknown>>>

/** A bot's tools on what its object stands on. */
export function aiTools(host: BotHost): AITools {
  const run =
    (name: string) =>
    async (...given: readonly Json[]) => {
      try {
        return (await host.callTool(name, given)) ?? missing(name)
      } catch (error) {
        host.logger.warn({ err: error, tool: name }, 'a tool of the bot failed')
        return { code: 'TOOL_FAILED', message: `${name} failed; the log of the hub says why.` }
      }
    }
  // Every name is given its function just above.
  return Object.fromEntries(toolNames.map((name) => [name, run(name)])) as AITools
}

/** Runs one of the config's functions; undefined where there is none of that name. */
export async function runTool(tools: BotTools, name: string, given: readonly Json[]): Promise<Json | undefined> {
  const tool: unknown = Object.hasOwn(tools, name) ? Reflect.get(tools, name) : undefined
  if (typeof tool !== 'function') return undefined
  const output: unknown = await Reflect.apply(tool, undefined, given)
  return output === undefined ? null : (JSON.parse(JSON.stringify(output)) as Json)
}

const missing = (name: string) => ({
  code: 'NOT_SUPPORTED',
  message: `This hub has no ${name}. Give one to the bot: local(MyBot, { tools: { ${name}: async (botId, …) => … } }).`,
})
