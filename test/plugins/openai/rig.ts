import type { Clock } from '../../../core/clock.ts'
import { systemClock } from '../../../core/clock.ts'
import type { HubError } from '../../../core/errors.ts'
import type { HubEvent } from '../../../core/events.ts'
import type { Json, JsonObject } from '../../../core/message.ts'
import { openai } from '../../../plugins/openai/index.ts'
import { startOpenaiSimulator } from '../../../plugins/openai/simulator.ts'
import { buildProvider, pluginContext } from '../../fakes/turn.ts'

type Options = NonNullable<Parameters<typeof openai>[0]>

/** The provider before a simulator on a real socket; its pauses pass quickly. */
export async function rig(options: Options = {}) {
  const simulator = await startOpenaiSimulator()
  const sleeps: number[] = []
  const clock: Clock = {
    now: () => systemClock.now(),
    sleep(ms, signal) {
      sleeps.push(ms)
      return systemClock.sleep(1, signal)
    },
  }
  const provider = await buildProvider(
    openai({ baseUrl: simulator.url, apiKey: simulator.apiKey, model: simulator.model, ...options }),
    pluginContext({ clock }),
  )
  return {
    simulator,
    provider,
    /** How long it waited between its tries; it did for milliseconds only. */
    sleeps,
    /** The bodies of the requests for an answer. */
    asked: (): JsonObject[] => simulator.requests.map(({ body }) => body as JsonObject),
    async [Symbol.asyncDispose]() {
      await provider.close?.()
      await simulator.close()
    },
  }
}

/** What a client would see, with the ids of calls numbered in the order of their appearance: `c1`. */
export function visible(events: readonly HubEvent[]): unknown[] {
  const names = new Map<string, string>()
  const name = (id: string) => {
    if (!names.has(id)) names.set(id, `c${names.size + 1}`)
    return names.get(id)!
  }
  return events.flatMap((event): unknown[] => {
    if (event.type === 'upstream' || event.type === 'usage') return []
    if ('call' in event) return [{ ...event, call: name(event.call) }]
    if (event.type !== 'consent.requested' && event.type !== 'tool.outputs_requested') return [event]
    return [{ ...event, calls: event.calls.map((call) => ({ ...call, call: name(call.call) })) }]
  })
}

/** The whole texts of the answers, in order. */
export const answers = (events: readonly HubEvent[]): string[] =>
  events.flatMap((event) => (event.type === 'message.completed' ? [event.text] : []))

/** What the deltas of a leg add up to. */
export const spoken = (events: readonly HubEvent[]): string =>
  events.map((event) => (event.type === 'message.delta' ? event.text : '')).join('')

/** The cursor a runner would hold after these events, as it comes back from the store. */
export const cursorAfter = (events: readonly HubEvent[]): Json => {
  const last = events.findLast((event) => event.type === 'upstream')
  if (!last) throw new Error('no cursor arrived')
  return JSON.parse(JSON.stringify(last.cursor)) as Json
}

/** What matters of an error. */
export const failure = (error: unknown) => {
  const { code, notStarted, retryAfterMs, upstream } = error as HubError
  return {
    code,
    notStarted,
    ...(retryAfterMs === undefined ? {} : { retryAfterMs }),
    ...(upstream === undefined ? {} : { upstream }),
  }
}
