import { z } from 'zod'
import { defineMiddleware } from '../../core/plugin.ts'

/**
 * Shows a bot the earlier messages of its conversation. A bot whose upstream remembers them itself gets none, unless
 * its config says `history: true`. What a client brings along itself is shown as it is.
 */
export const history = defineMiddleware({
  name: 'history',
  options: z.strictObject({
    turns: z.int().min(0).max(1000).default(20).describe('How many earlier turns, a question and an answer each.'),
  }),
  create: ({ turns }, { bot, store }) =>
    async function* (turn, next) {
      if (turn.message.history) return yield* next(turn)
      const remembers = bot.manifest.remembers && !bot.history
      const earlier = remembers ? [] : await store.history(turn.conversation.id, turns * 2, turn.id)
      yield* next({ ...turn, history: earlier })
    },
})
