import { pino } from 'pino'
import { localPrincipal } from '../../core/auth.ts'
import { systemClock } from '../../core/clock.ts'
import type { HubEvent } from '../../core/events.ts'
import type { Provider, ProviderContext, ProviderSpec } from '../../core/plugin.ts'
import type { Turn } from '../../core/turn.ts'

/** A turn as the runner would hand it to a provider. */
export const turnOf = (text: string, changes: Partial<Turn> = {}): Turn => ({
  id: `turn_${crypto.randomUUID().replaceAll('-', '')}`,
  bot: 'bot',
  principal: localPrincipal('ada'),
  conversation: { id: 'conv_1', name: '1' },
  message: { id: `m-${crypto.randomUUID()}`, text, files: [] },
  acceptedAt: Date.now(),
  history: [],
  attempt: 1,
  debug: false,
  bypassConsent: false,
  shown: [],
  signal: new AbortController().signal,
  ...changes,
})

const noStore = async (): Promise<never> => {
  throw new Error('there is no store in this test')
}
const noRecords: ProviderContext['records'] = {
  findRecords: noStore,
  addRecords: noStore,
  changeRecords: noStore,
  deleteRecords: noStore,
}

/** What a plugin gets when it is built, with a silent log. */
export const pluginContext = (changes: Partial<ProviderContext> = {}): ProviderContext => ({
  name: 'bot',
  logger: pino({ level: 'silent' }),
  clock: systemClock,
  fetch,
  folder: process.cwd(),
  records: noRecords,
  ...changes,
})

/** Builds a provider from the factory call a config would hold. */
export const buildProvider = async (spec: ProviderSpec, context = pluginContext()): Promise<Provider> =>
  spec.create(spec.schema.parse(spec.options), context)

/** All events of one leg, and the error it ended with. */
export async function collect(events: AsyncIterable<HubEvent>): Promise<{ events: HubEvent[]; error?: unknown }> {
  const collected: HubEvent[] = []
  try {
    for await (const event of events) collected.push(event)
  } catch (error) {
    return { events: collected, error }
  }
  return { events: collected }
}
