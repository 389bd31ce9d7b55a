import { z } from 'zod'
import type { ConsentDecision, HubEvent, PendingCall, ToolCall } from '../../core/events.ts'
import { flatMap, inParts } from '../../core/flow.ts'
import type { Parts } from '../../core/flow.ts'
import { defineMiddleware } from '../../core/plugin.ts'
import type { Respond, Turn } from '../../core/turn.ts'

/**
 * Decides which tools of a bot ask before they run. Without it, tools of the config run at once and an upstream's own
 * pauses go to the client. With it every tool asks, but for those named here: `allow` answers for the user and shows
 * it, `bypass` never asks and writes the audit log. `bypass: ['*']` is also passed on as the upstream's own switch.
 */
export const consent = defineMiddleware({
  name: 'consent',
  options: z.strictObject({
    allow: z.array(z.string().min(1)).default([]).describe('Tools that are allowed without asking, shown as such.'),
    bypass: z.array(z.string().min(1)).default([]).describe('Tools that never ask; `*` is all of them.'),
  }),
  create: ({ allow, bypass }, { bot, audit }) => {
    const record = (turn: Turn, what: 'consent allowed' | 'consent bypassed', call?: ToolCall) =>
      audit({
        what,
        by: 'policy',
        bot: bot.name,
        turn: turn.id,
        ...(call ? { details: { tool: call.tool, call: call.call } } : {}),
      })
    const recordFree = (turn: Turn, call: ToolCall) =>
      record(turn, names(bypass, call.tool) ? 'consent bypassed' : 'consent allowed', call)
    const isFree = (call: PendingCall) => call.alreadyAllowed || names(allow, call.tool) || names(bypass, call.tool)

    async function* decided(turn: Turn, next: Respond): Parts<HubEvent> {
      const bypassConsent = turn.bypassConsent || bypass.includes('*')
      if (bypassConsent && !turn.bypassConsent) record(turn, 'consent bypassed')
      let current: Turn = {
        ...turn,
        bypassConsent,
        asksConsent(call) {
          const free = bypassConsent || names(allow, call.tool) || names(bypass, call.tool)
          if (free) recordFree(turn, call)
          return !free
        },
      }
      for (;;) {
        let settled: readonly PendingCall[] | undefined
        let cursor: Partial<Turn> = {}
        yield flatMap(next(current), (event): HubEvent[] => {
          if (event.type === 'upstream') {
            cursor = { resume: event.cursor, ...(event.thread === undefined ? {} : { thread: event.thread }) }
          }
          if (event.type !== 'consent.requested') return [event]
          const free = event.calls.filter(isFree)
          for (const call of free) recordFree(turn, call)
          if (free.length === event.calls.length) settled = event.calls
          if (event.calls.every((call) => names(bypass, call.tool))) return []
          if (free.length === 0) return [event]
          return [event, { type: 'consent.answered', decisions: free.map(allowed), by: 'policy' }]
        })
        if (!settled) return
        current = {
          ...current,
          ...cursor,
          answers: { type: 'consent', calls: settled, decisions: settled.map(allowed) },
        }
      }
    }
    return (turn, next) => inParts(() => decided(turn, next))
  },
})

const allowed = ({ call }: PendingCall): ConsentDecision => ({ call, result: 'allow_once' })

const names = (list: readonly string[], tool: string): boolean => list.includes(tool) || list.includes('*')
