import { HubError } from '../../core/errors.ts'
import type { BotClass } from './bot-core.ts'
import type { BotFunction } from './index.ts'
import { isBotClass } from './run-bot.ts'

/**
 * Loads the module of a bot, and finds the bot in it: the export of that name, else `default`, else its only class on
 * BotCore.
 * @throws HubError `config_invalid`
 */
export async function loadBot(module: URL, name: string | undefined): Promise<BotClass | BotFunction> {
  const exported = await load(module)
  const classes = Object.values(exported).filter(isBotClass)
  const bot =
    name === undefined ? (exported['default'] ?? (classes.length === 1 ? classes[0] : undefined)) : exported[name]
  if (typeof bot === 'function') return bot as BotClass | BotFunction
  throw new HubError('config_invalid', {
    message: `The module ${module.href} has ${name === undefined ? 'no bot: export one as `default`, or name it with `export`' : `no bot ${JSON.stringify(name)}`}. It exports ${Object.keys(exported).join(', ') || 'nothing'}.`,
  })
}

async function load(module: URL): Promise<Readonly<Record<string, unknown>>> {
  try {
    return (await import(module.href)) as Readonly<Record<string, unknown>>
  } catch (error) {
    throw new HubError('config_invalid', {
      message: `The bot ${module.href} could not be loaded: ${error instanceof Error ? error.message : 'no reason given'}`,
      cause: error,
    })
  }
}
