import { fileURLToPath } from 'node:url'
import type { HubError } from '../../../core/errors.ts'
import type { HubEvent } from '../../../core/events.ts'
import type { Json } from '../../../core/message.ts'
import { startCozeSimulator } from '../../../plugins/coze/simulator.ts'
import type { CozeSimulatorOptions } from '../../../plugins/coze/simulator.ts'
import { coze } from '../../../plugins/coze/index.ts'
import { hastyClock } from '../../fakes/hasty-clock.ts'
import { buildProvider, pluginContext } from '../../fakes/turn.ts'

/** The folder of documented streams. */
export const samples = fileURLToPath(new URL('../../fixtures/coze/', import.meta.url))

type Options = NonNullable<Parameters<typeof coze>[0]>

/** The provider before a simulator on a real socket; it waits between its looks at a chat for milliseconds only. */
export async function rig(
  options: Options = {},
  simulatorOptions: CozeSimulatorOptions = {},
  /** Answers in the simulator's place, where it gives an answer. */
  intercept: (url: string) => Response | undefined = () => undefined,
) {
  const simulator = await startCozeSimulator({ samples, ...simulatorOptions })
  const clock = hastyClock()
  const provider = await buildProvider(
    coze({
      ...(options.workflowId ? {} : { botId: simulator.botId }),
      ...(options.oauth ? {} : { token: simulator.token }),
      baseUrl: simulator.url,
      ...options,
    }),
    pluginContext({
      clock,
      fetch: async (input, init) =>
        intercept(input instanceof Request ? input.url : input.toString()) ?? fetch(input, init),
    }),
  )
  const requests = (method: string, path: string) =>
    simulator.requests.filter((request) => request.method === method && request.path === path)
  return {
    simulator,
    provider,
    sleeps: clock.sleeps,
    requests,
    /** Puts the provider's clock forward. */
    pass: (ms: number) => clock.pass(ms),
    /** How many chats were asked for. */
    posts: () => requests('POST', '/v3/chat').length,
    async [Symbol.asyncDispose]() {
      await provider.close?.()
      await simulator.close()
    },
  }
}

/** What a client would see, with ids numbered in the order of their appearance: `m1`, `c1`. */
export function visible(events: readonly HubEvent[]): unknown[] {
  const names = new Map<string, string>()
  const name = (id: string, letter: string) => {
    if (!names.has(id)) names.set(id, letter + (names.size + 1))
    return names.get(id)!
  }
  return events.flatMap((event): unknown[] => {
    switch (event.type) {
      case 'upstream':
      case 'raw':
      case 'usage':
        return []
      case 'tool.started':
        return [{ ...event, call: name(event.call, 'c') }]
      case 'tool.completed':
        return [{ ...event, call: name(event.call, 'c') }]
      case 'consent.requested':
      case 'tool.outputs_requested':
        return [{ ...event, calls: event.calls.map((call) => ({ ...call, call: name(call.call, 'c') })) }]
      default:
        return ['message' in event ? { ...event, message: name(event.message, 'm') } : event]
    }
  })
}

/** The whole texts of the answers, in order. */
export const answers = (events: readonly HubEvent[]): string[] =>
  events.flatMap((event) => (event.type === 'message.completed' ? [event.text] : []))

/** What the deltas of a leg add up to. */
export const spoken = (events: readonly HubEvent[]): string =>
  events.map((event) => (event.type === 'message.delta' ? event.text : '')).join('')

/** The cursor a runner would hold after these events. */
export const cursorAfter = (events: readonly HubEvent[]): Json => {
  const last = events.findLast((event) => event.type === 'upstream')
  if (!last) throw new Error('no cursor arrived')
  return last.cursor
}

/** What a runner would keep with the conversation. */
export const threadAfter = (events: readonly HubEvent[]): Json => {
  const last = events.findLast((event) => event.type === 'upstream' && event.thread !== undefined)
  if (last?.type !== 'upstream' || last.thread === undefined) throw new Error('no thread arrived')
  return last.thread
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
