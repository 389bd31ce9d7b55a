import { closest } from 'fastest-levenshtein'
import type { Principal } from './auth.ts'
import { mayUse } from './auth.ts'
import type { Bot, BotItem } from './bot.ts'
import { toBotItem } from './bot.ts'
import { HubError } from './errors.ts'
import type { Owner } from './store.ts'

/** The bots of the config, and which of them somebody may use. */
export class Bots {
  readonly #bots: ReadonlyMap<string, Bot>

  constructor(bots: ReadonlyMap<string, Bot>) {
    this.#bots = bots
  }

  /** Any bot, for turns that were accepted; undefined when it is no longer in the config. */
  get(name: string): Bot | undefined {
    return this.#bots.get(name)
  }

  /** @throws HubError `unknown_bot`, also for one the principal may not use */
  find(principal: Principal, name: string): Bot {
    const bot = this.#bots.get(name)
    if (bot && mayUse(principal, name)) return bot
    const known = this.list(principal).map((each) => each.bot)
    const meant = known.length > 0 ? `; did you mean ${JSON.stringify(closest(name, known))}?` : '.'
    throw new HubError('unknown_bot', {
      message: `There is no bot ${JSON.stringify(name)}${meant} GET /api/v1/bots lists those you may use.`,
    })
  }

  /** The bots the principal may use. */
  list(principal: Principal): readonly BotItem[] {
    return [...this.#bots.values()].filter((bot) => mayUse(principal, bot.name)).map(toBotItem)
  }
}

/** Whose a conversation is. */
export const ownerOf = (bot: Bot, principal: Principal): Owner => ({
  bot: bot.name,
  key: principal.key,
  ...(principal.user ? { user: principal.user } : {}),
})
