import { z } from 'zod'
import type { HubEvent } from '../../core/events.ts'
import { inParts } from '../../core/flow.ts'
import type { Parts } from '../../core/flow.ts'
import { defineMiddleware } from '../../core/plugin.ts'
import type { Respond, Turn } from '../../core/turn.ts'

/**
 * Shows a bot the earlier messages of its conversation. A bot whose upstream remembers them itself gets only those that
 * no turn has told it of, unless its config says `history: true`. What a client brings along itself is shown as it is.
 */
export const history = defineMiddleware({
  name: 'history',
  options: z.strictObject({
    turns: z.int().min(0).max(1000).default(20).describe('How many earlier turns, a question and an answer each.'),
  }),
  create: ({ turns }, { bot, store }) => {
    async function* withHistory(turn: Turn, next: Respond): Parts<HubEvent> {
      const untold = bot.manifest.remembers === true && !bot.history
      const earlier = await store.history(turn.conversation.id, { limit: turns * 2, before: turn.id, untold })
      yield next({ ...turn, history: earlier })
    }
    return (turn, next) => (turn.message.history ? next(turn) : inParts(() => withHistory(turn, next)))
  },
})
