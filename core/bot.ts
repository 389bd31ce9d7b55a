import type { Language } from './errors.ts'
import type { Gate } from './gate.ts'
import type { Provider, ProviderManifest } from './plugin.ts'
import type { Respond } from './turn.ts'

/** How a bot presents itself where bots are listed. */
export interface Profile {
  readonly name?: string | undefined
  readonly description?: string | undefined
  /** URL of a picture. */
  readonly avatar?: string | undefined
  /** What it says before anybody has said a word. */
  readonly welcome?: string | undefined
  /** Questions to begin with. */
  readonly starters?: readonly string[] | undefined
  /** The language it fails in. */
  readonly language?: Language | undefined
}

/** A bot of the config, built: its provider with all middleware around it. */
export interface Bot {
  readonly name: string
  readonly profile: Profile
  readonly manifest: ProviderManifest
  readonly provider: Provider
  readonly respond: Respond
  /** Earlier messages reach its model: the upstream does not remember by itself, or is sent them all the same. */
  readonly takesHistory: boolean
  /** Keep raw upstream events in every turn. */
  readonly raw: boolean
  /** How many messages may wait behind the live turn of a conversation. */
  readonly queueLimit: number
  /** How long consent or tool outputs may be waited for, in ms. */
  readonly answerWithinMs: number
  /** How long a turn may take in all, waiting not counted, in ms. */
  readonly deadlineMs: number
  /** What happens to a message while a turn of its conversation is live. */
  readonly whenBusy: 'queue' | 'reject' | 'interrupt'
  /** What happens to a message while a turn of its conversation waits for an answer. */
  readonly whenWaiting: 'refuse' | 'deny'
  /** How long a turn goes on that nobody listens to, in ms; undefined: to its end. */
  readonly abandonAfterMs: number | undefined
  readonly gate: Gate
}

/** A bot as clients see it. */
export interface BotItem extends Profile {
  readonly bot: string
  readonly supports: readonly string[]
  readonly simulated: boolean
}

/** Shows a bot to clients: its profile, what its provider can do and whether its upstream is simulated. */
export const toBotItem = (bot: Bot): BotItem => ({
  bot: bot.name,
  ...bot.profile,
  supports: abilities.filter((ability) => bot.manifest[ability]),
  simulated: bot.provider.simulated ?? false,
})

const abilities = [
  'consent',
  'feedback',
  'files',
  'nudges',
  'passthrough',
  'remembers',
  'resumes',
  'suggests',
  'toolOutputs',
] as const
