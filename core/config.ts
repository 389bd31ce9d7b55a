import { closest, distance } from 'fastest-levenshtein'
import { z } from 'zod'
import type { Authenticate, AuthSpec } from './auth.ts'
import type { Profile } from './bot.ts'
import { HubError } from './errors.ts'
import { issuesOf, issueWords } from './issue-words.ts'
import type { MiddlewareSpec, ProviderSpec, StoreSpec } from './plugin.ts'
import { isFactory } from './plugin-spec.ts'
import type { PluginSpec } from './plugin-spec.ts'
import type { ChannelSpec } from './channel.ts'
import type { Duration } from './settings.ts'
import { duration } from './settings.ts'
import type { Middleware } from './turn.ts'
import type { CheckedHook, TurnHook } from './turn-hooks.ts'

/** A bot with more than its provider. */
export interface BotConfig {
  readonly provider: ProviderSpec
  readonly profile?: Profile
  /** Middleware of this bot alone, inside the hub's own, the first outermost. */
  readonly use?: readonly (MiddlewareSpec | Middleware)[]
  /** Send earlier messages along although the upstream remembers them itself. */
  readonly history?: boolean
  /** Keep upstream events the hub has no word for, as `raw`, in every turn. */
  readonly raw?: boolean
  /** How many messages may wait behind the live turn of a conversation. Default 100. */
  readonly queueLimit?: number
  /** How long consent or tool outputs are waited for, in ms. Default 24 hours. */
  readonly answerWithinMs?: number
  /** How long a turn may take in all, waiting not counted, in ms. Default 30 minutes. */
  readonly deadlineMs?: number
  /**
   * A message while a turn of its conversation is live: it waits its turn, is refused with 409 `turn_running`, or ends
   * the live one. Default `queue`.
   */
  readonly whenBusy?: 'queue' | 'reject' | 'interrupt'
  /**
   * A message while a turn of its conversation waits for consent: it is refused with 409 `turn_waiting`, or counts as a
   * no. Default `refuse`.
   */
  readonly whenWaiting?: 'refuse' | 'deny'
  /** A turn that nobody listens to any more. Default `{ cancelAfter: '10s' }`; 202 and webhook turns always go on. */
  readonly onAbandon?: 'continue' | { readonly cancelAfter: Duration }
  /** How many turns may be at the upstream at once; the others wait in line. Default: all. */
  readonly maxConcurrent?: number
  /** How many turns may begin at the upstream in a time. Default: all. */
  readonly rate?: { readonly turns: number; readonly per: Duration }
}

/** What a deployment runs: the default export of `hub.config.ts`. */
export interface HubConfig<Bot extends string = string> {
  /** Default 127.0.0.1:9527. Beyond loopback the hub needs `auth`. */
  readonly listen?: { readonly host?: string; readonly port?: number }
  /**
   * Who is let in: keys, tokens, or a function of your own; the first that knows the caller decides. Without it
   * everybody on this machine is, and nobody else.
   */
  readonly auth?: readonly (AuthSpec<NoInfer<Bot>> | Authenticate)[] | Authenticate
  /** Serves `GET /metrics` on an address of its own, without a key; else it is where everything is, for admins. */
  readonly metrics?: { readonly host?: string; readonly port: number }
  /**
   * How long after its end a turn can be replayed event by event, and how long its message's id is known. Default 24
   * hours and 7 days.
   */
  readonly keep?: { readonly events?: Duration; readonly messageIds?: Duration }
  /** Default: `sqlite()`, in `data/` beside the config file. */
  readonly store?: StoreSpec
  /** By name, which is what clients call them: letters, digits, `.`, `_` and `-`, at most 64. */
  readonly bots: { readonly [Name in Bot]?: ProviderSpec | BotConfig }
  /** Middleware around every bot, the first outermost. Default: `[history(), retry()]`. */
  readonly use?: readonly (MiddlewareSpec | Middleware)[]
  /** The page at `/` for people, which is there by default; `false` turns it off. */
  readonly console?: ChannelSpec | false
  /**
   * What is to happen elsewhere when a turn has ended: metering, credits, a CRM, an audit system. Each is run at least
   * once for every turn that begins while it is in the config, out of the way of the answer, and tried again for days.
   */
  readonly onTurnEnd?: readonly TurnHook[]
  /** By name: it is the channel's label in logs and at the start. */
  readonly channels: Readonly<Record<string, ChannelSpec<NoInfer<Bot>>>>
}

/** A config after all checks: every plugin with its parsed options. */
export interface CheckedConfig {
  readonly listen: { readonly host: string; readonly port: number }
  readonly auth: readonly (Checked<AuthSpec> | Authenticate)[] | undefined
  readonly metrics: { readonly host: string; readonly port: number } | undefined
  readonly keep: { readonly eventsMs: number; readonly messageIdsMs: number }
  readonly store: Checked<StoreSpec>
  readonly bots: ReadonlyMap<string, CheckedBot>
  readonly use: readonly (Checked<MiddlewareSpec> | Middleware)[]
  readonly channels: ReadonlyMap<string, Checked<ChannelSpec>>
  readonly onTurnEnd: readonly CheckedHook[]
}

/** A bot of the config after all checks: defaults filled in, durations in ms. */
export interface CheckedBot extends Required<
  Omit<BotConfig, 'provider' | 'use' | 'onAbandon' | 'maxConcurrent' | 'rate'>
> {
  readonly onAbandon: 'continue' | { readonly cancelAfter: number }
  readonly maxConcurrent: number | undefined
  readonly rate: { readonly turns: number; readonly perMs: number } | undefined
  readonly provider: Checked<ProviderSpec>
  readonly use: readonly (Checked<MiddlewareSpec> | Middleware)[]
}

/** A plugin whose `options` are the output of its schema. */
export type Checked<Spec> = Spec & { readonly checked: true }

type Problem = string

const examples: Record<string, string> = {
  provider: '`echo()`',
  channel: '`rest()`',
  store: '`sqlite()`',
  middleware: '`history()`',
  auth: '`apiKey({ … })`',
}

const botName = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/

/** What `checkConfig` checks a config with, before its plugins. */
export const configShape = z.strictObject({
  listen: z
    .strictObject({
      host: z.string().min(1).default('127.0.0.1').describe('The address; `0.0.0.0` is all of IPv4.'),
      port: z.int().min(0).max(65_535).default(9527).describe('0 is any free one.'),
    })
    .prefault({}),
  metrics: z
    .strictObject({
      host: z
        .string()
        .refine((host) => isLoopback(host), 'has no keys, so it listens on loopback only')
        .default('127.0.0.1')
        .describe('On loopback.'),
      port: z.int().min(0).max(65_535).describe('0 is any free one.'),
    })
    .optional(),
  auth: z
    .union([functionOf<Authenticate>(), z.array(authentication()).min(1)], {
      error: 'must be a list such as `[apiKey({ … })]`, or a function `(request) => …`',
    })
    .optional(),
  keep: z
    .strictObject({
      events: duration().prefault('24h').describe('The events; of older turns the messages stay.'),
      messageIds: duration().prefault('7d').describe('The ids by which a message that is sent again is known.'),
    })
    .prefault({})
    .refine(({ events, messageIds }) => messageIds >= events, '`messageIds` cannot be shorter than `events`')
    .transform(({ events, messageIds }) => ({ eventsMs: events, messageIdsMs: messageIds })),
  store: plugin<StoreSpec>('store'),
  bots: z.record(z.string(), z.unknown()).refine((bots) => Object.keys(bots).length > 0, 'name at least one bot'),
  use: z.array(middleware()).default([]),
  console: z
    .union([z.literal(false), plugin<ChannelSpec>('channel')], { error: 'must be `consolePage()` or `false`' })
    .default(false),
  onTurnEnd: z
    .array(
      z.strictObject({
        name: z
          .string()
          .regex(botName, 'has letters, digits, ".", "_" and "-", at most 64')
          .describe('What is owed to it is owed by this name.'),
        run: functionOf<TurnHook['run']>().describe('Is given the turn, and has done its work when it returns.'),
        timeout: duration().prefault('30s').describe('Then it is taken to have failed, and tried again.'),
      }),
    )
    .default([])
    .refine(
      (hooks) => new Set(hooks.map(({ name }) => name)).size === hooks.length,
      'has two of one name; what is owed to a hook is owed by its name',
    ),
  channels: z
    .record(z.string(), plugin<ChannelSpec>('channel'))
    .refine((channels) => Object.keys(channels).length > 0, 'name at least one channel, such as `rest: rest()`')
    .refine((channels) => !('console' in channels), '"console" is the name of the page; it stands beside `channels`'),
})

/** What it checks a bot with that is more than its provider. */
export const botShape = z.strictObject({
  provider: plugin<ProviderSpec>('provider').describe('Where the bot is.'),
  profile: z
    .strictObject({
      name: z.string().optional().describe('What people call it.'),
      description: z.string().optional().describe('What it is for.'),
      avatar: z.string().optional(),
      welcome: z.string().optional(),
      starters: z.array(z.string()).optional(),
      language: z.enum(['en', 'zh-Hant', 'zh-Hans']).optional(),
    })
    .default({})
    .describe('What clients are told of it, at `GET /api/v1/bots`.'),
  use: z.array(middleware()).default([]),
  history: z.boolean().default(false),
  raw: z.boolean().default(false),
  queueLimit: z.int().min(0).max(10_000).default(100),
  answerWithinMs: z.int().positive().max(2_147_483_647).default(86_400_000),
  deadlineMs: z.int().positive().max(2_147_483_647).default(1_800_000),
  whenBusy: z.enum(['queue', 'reject', 'interrupt']).default('queue'),
  whenWaiting: z.enum(['refuse', 'deny']).default('refuse'),
  onAbandon: z
    .union(
      [
        z.literal('continue'),
        z.strictObject({ cancelAfter: duration().describe('How long it waits for somebody to come back.') }),
      ],
      { error: "must be 'continue' or, for example, { cancelAfter: '10s' }" },
    )
    .prefault({ cancelAfter: '10s' }),
  maxConcurrent: z.int().positive().optional(),
  rate: z
    .strictObject({
      turns: z.int().positive().describe('How many.'),
      per: duration().describe('In what time.'),
    })
    .transform(({ turns, per }) => ({ turns, perMs: per }))
    .optional(),
})

function plugin<Spec extends { readonly kind: string }>(kind: Spec['kind']) {
  return z.custom<Spec>(
    (value) => typeof value === 'object' && value !== null && 'kind' in value && value.kind === kind,
    `must be a ${kind}: call its factory, for example ${examples[kind]}`,
  )
}

function functionOf<F>() {
  return z.custom<F>((value) => typeof value === 'function' && !isFactory(value), 'must be a function')
}

function authentication() {
  return z.union([functionOf<Authenticate>(), plugin<AuthSpec>('auth')], {
    error: 'must be `apiKey({ … })`, `jwt({ … })` or a function `(request) => …`',
  })
}

function middleware() {
  return z.union([functionOf<Middleware>(), plugin<MiddlewareSpec>('middleware')], {
    error: 'must be a middleware: a function `(turn, next) => …` or a factory call such as `history()`',
  })
}

/**
 * Checks a config: its shape, every plugin's options, names that refer to bots, and where it listens.
 * @throws HubError `config_invalid`, with every problem, where it is and what was probably meant
 */
export function checkConfig(config: unknown, changes: { host?: string; port?: number } = {}): CheckedConfig {
  const problems: Problem[] = []
  const top = parse(configShape, config, '', problems) ?? salvage(config)
  const bots = new Map<string, CheckedBot>()
  for (const [name, value] of Object.entries(top.bots)) {
    const bot = checkBot(name, value, problems)
    if (bot) bots.set(name, bot)
  }
  const channels = new Map<string, Checked<ChannelSpec>>()
  const mounted = top.console ? { ...top.channels, console: top.console } : top.channels
  for (const [name, spec] of Object.entries(mounted)) {
    const channel = checkPlugin(spec, `channels.${name}`, problems)
    checkBotNames(channel?.options, `channels.${name}`, Object.keys(top.bots), problems)
    checkKeyName(channel?.options, `channels.${name}`, top.auth, problems)
    if (channel) channels.set(name, channel)
  }
  const auth = checkAuth(top.auth, Object.keys(top.bots), problems)
  const store = top.store && checkPlugin(top.store, 'store', problems)
  const use = checkMiddleware(top.use, 'use', problems)
  const listen = { ...top.listen, ...changes }
  if (!top.auth) checkListen(listen.host, problems)
  if (problems.length > 0 || !store) throw invalid(problems)
  const { metrics, keep, onTurnEnd } = top
  return { listen, auth, metrics, keep, store, bots, use, channels, onTurnEnd }
}

/** The parts of a misshapen config that can be checked all the same. */
function salvage(config: unknown) {
  const given: Readonly<Record<string, unknown>> = typeof config === 'object' && config !== null ? { ...config } : {}
  const { auth, metrics, store, bots, channels, use, onTurnEnd } = configShape.shape
  return {
    listen: { host: '127.0.0.1', port: 0 },
    keep: { eventsMs: 0, messageIdsMs: 0 },
    metrics: metrics.safeParse(given['metrics']).data,
    auth: auth.safeParse(given['auth']).data,
    store: store.safeParse(given['store']).data,
    bots: bots.safeParse(given['bots']).data ?? {},
    channels: channels.safeParse(given['channels']).data ?? {},
    use: use.safeParse(given['use']).data ?? [],
    console: false as const,
    onTurnEnd: onTurnEnd.safeParse(given['onTurnEnd']).data ?? [],
  }
}

function checkBot(name: string, value: unknown, problems: Problem[]): CheckedBot | undefined {
  const place = `bots.${name}`
  if (!botName.test(name)) {
    problems.push(
      `${place}: a bot's name has letters, digits, ".", "_" and "-", at most 64, and begins with a letter or digit`,
    )
  }
  const alone = plugin<ProviderSpec>('provider').safeParse(value)
  if (!alone.success && typeof value === 'object' && value !== null && 'kind' in value) {
    problems.push(`${place}: ${alone.error.issues[0]!.message}`)
    return undefined
  }
  const bot = parse(botShape, alone.success ? { provider: alone.data } : value, place, problems)
  if (!bot) return undefined
  const provider = checkPlugin(bot.provider, alone.success ? place : `${place}.provider`, problems)
  const use = checkMiddleware(bot.use, `${place}.use`, problems)
  const { maxConcurrent, rate } = bot
  return provider && { ...bot, provider, use, maxConcurrent, rate }
}

const checkMiddleware = (
  use: readonly (MiddlewareSpec | Middleware)[],
  place: string,
  problems: Problem[],
): readonly (Checked<MiddlewareSpec> | Middleware)[] =>
  use.flatMap((each, index) =>
    typeof each === 'function' ? each : (checkPlugin(each, `${place}[${index}]`, problems) ?? []),
  )

function checkPlugin<Spec extends PluginSpec<string, never, unknown>>(
  spec: Spec,
  place: string,
  problems: Problem[],
): Checked<Spec> | undefined {
  const before = problems.length
  const options = parse(spec.schema, spec.options, `${place}: ${spec.name}()`, problems)
  return problems.length > before ? undefined : { ...spec, options, checked: true }
}

function checkBotNames(options: unknown, place: string, bots: readonly string[], problems: Problem[]): void {
  if (typeof options !== 'object' || options === null) return
  const { bot, bots: list } = options as { bot?: unknown; bots?: unknown }
  for (const name of [bot, ...(Array.isArray(list) ? (list as unknown[]) : [])]) {
    if (typeof name !== 'string' || bots.includes(name)) continue
    problems.push(`${place}: there is no bot called ${JSON.stringify(name)}${didYouMean(name, bots)}`)
  }
}

function checkAuth(
  auth: Authenticate | readonly (AuthSpec | Authenticate)[] | undefined,
  bots: readonly string[],
  problems: Problem[],
): CheckedConfig['auth'] {
  if (auth === undefined) return undefined
  const names = new Set<string>()
  return (typeof auth === 'function' ? [auth] : auth).flatMap((each, index) => {
    if (typeof each === 'function') return each
    const place = `auth[${index}]`
    const checked = checkPlugin(each, place, problems)
    if (!checked) return []
    checkBotNames(checked.options, place, bots, problems)
    const { name } = checked.options as { readonly name: string }
    if (names.has(name))
      problems.push(`${place}: the name ${JSON.stringify(name)} is taken; whoever has it owns what it made`)
    names.add(name)
    return checked
  })
}

const isLoopback = (host: string): boolean => /^(localhost|127(\.\d{1,3}){3}|::1)$/.test(host)

/** A channel that checks its senders itself acts as one of the keys. */
function checkKeyName(
  options: unknown,
  place: string,
  auth: Authenticate | readonly (AuthSpec | Authenticate)[] | undefined,
  problems: Problem[],
): void {
  if (!auth || typeof options !== 'object' || options === null || !('as' in options)) return
  const keys = (typeof auth === 'function' ? [] : auth).flatMap((each) =>
    typeof each !== 'function' && each.name === 'apiKey' ? [(each.options as { readonly name: string }).name] : [],
  )
  const { as } = options
  if (typeof as !== 'string') {
    problems.push(`${place}: say which API key it acts as, for example as: ${JSON.stringify(keys[0] ?? 'crm')}`)
  } else if (!keys.includes(as)) {
    problems.push(`${place}: there is no API key called ${JSON.stringify(as)}${didYouMean(as, keys)}`)
  }
}

function checkListen(host: string, problems: Problem[]): void {
  if (isLoopback(host)) return
  problems.push(
    `listen.host: ${JSON.stringify(host)} is reachable from other machines, and this hub has no \`auth\`. Give it some, for example auth: [apiKey({ name: 'crm', key: env('CRM_KEY') })], or listen on 127.0.0.1.`,
  )
}

function parse<Schema extends z.ZodType>(
  schema: Schema,
  value: unknown,
  place: string,
  problems: Problem[],
): z.output<Schema> | undefined {
  const result = schema.safeParse(value, { error: issueWords })
  if (result.success) return result.data
  for (const issue of issuesOf(result.error)) problems.push(...describe(issue, schema, place))
  return undefined
}

function describe(issue: z.core.$ZodIssue, schema: z.ZodType, place: string): Problem[] {
  const path = issue.path.map(String)
  const at = [place, path.join('.')].filter((part) => part !== '').join(place.endsWith(')') ? ': ' : '.')
  if (issue.code !== 'unrecognized_keys') return [`${at || 'the config'}: ${issue.message}`]
  const known = keysAt(schema, path)
  return issue.keys.map((key) => `${at || 'the config'}: unknown option "${key}"${didYouMean(key, known)}`)
}

/** The keys an object schema knows at a path, read from its JSON Schema so that wrappers and unions do not matter. */
function keysAt(schema: z.ZodType, path: readonly string[]): string[] {
  let nodes = [jsonSchemaOf(schema)]
  for (const step of path) {
    nodes = nodes.flatMap(alternatives).flatMap((node) => {
      const next = node.properties?.[step] ?? node.additionalProperties ?? node.items
      return typeof next === 'object' ? [next] : []
    })
  }
  return [...new Set(nodes.flatMap(alternatives).flatMap((node) => Object.keys(node.properties ?? {})))]
}

/** A schema whose defaults are no JSON, such as a function, has none; what is wrong is said all the same. */
function jsonSchemaOf(schema: z.ZodType): JsonSchemaNode {
  try {
    return z.toJSONSchema(schema, { unrepresentable: 'any', io: 'input' }) as JsonSchemaNode
  } catch {
    return {}
  }
}

interface JsonSchemaNode {
  readonly properties?: Readonly<Record<string, JsonSchemaNode>>
  readonly additionalProperties?: boolean | JsonSchemaNode
  readonly items?: JsonSchemaNode
  readonly anyOf?: readonly JsonSchemaNode[]
  readonly oneOf?: readonly JsonSchemaNode[]
}

const alternatives = (node: JsonSchemaNode): readonly JsonSchemaNode[] => [
  node,
  ...[...(node.anyOf ?? []), ...(node.oneOf ?? [])].flatMap(alternatives),
]

/** `; did you mean "x"?`, when something known is near enough. */
export function didYouMean(name: string, known: readonly string[]): string {
  if (known.length === 0) return ''
  const nearest = closest(name, [...known])
  const near = distance(name.toLowerCase(), nearest.toLowerCase()) <= Math.max(2, Math.floor(name.length / 3))
  return near ? `; did you mean "${nearest}"?` : `; known: ${known.join(', ')}`
}

/** With a full stop, where it does not end as a question. */
export const sentence = (words: string): string => (words.endsWith('?') ? words : `${words}.`)

function invalid(problems: readonly Problem[]): HubError {
  const count = problems.length === 1 ? 'one problem' : `${problems.length} problems`
  return new HubError('config_invalid', {
    message: `The config has ${count}:\n${problems.map((problem) => `  - ${problem}`).join('\n')}`,
  })
}
