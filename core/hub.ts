import { adminRoutes } from './admin-routes.ts'
import { Audit } from './audit.ts'
import type { Authenticate, AuthSpec } from './auth.ts'
import { gatekeeper, principalOfKey, shortKeyNotices } from './auth.ts'
import type { Bot } from './bot.ts'
import type { Channel, ChannelContext } from './channel.ts'
import type { Clock } from './clock.ts'
import { systemClock } from './clock.ts'
import type { Checked, CheckedBot, CheckedConfig } from './config.ts'
import { Bots } from './bots.ts'
import { Conversations, delivererTo } from './conversations.ts'
import { Dispatcher } from './dispatcher.ts'
import { Gate } from './gate.ts'
import { Retention } from './retention.ts'
import { HubError } from './errors.ts'
import type { Logger } from './log.ts'
import { createLogger } from './log.ts'
import { Metrics } from './metrics.ts'
import { Outbox } from './outbox.ts'
import { outboxRoutes } from './outbox-routes.ts'
import type { Deliverer } from './outbox.ts'
import type { MiddlewareContext, MiddlewareSpec, PluginContext } from './plugin.ts'
import type { HubServer, Mounted } from './server.ts'
import { startServer } from './server.ts'
import type { Store } from './store.ts'
import { isHook, namingFailures } from './store.ts'
import type { Lane, TurnDelivery } from './store.ts'
import { Services, token } from './services.ts'
import { tracing } from './tracing.ts'
import { TurnRunner } from './turn-runner.ts'
import type { Middleware } from './turn.ts'
import { compose } from './turn.ts'
import { UserData } from './user-data.ts'
import { userRoutes } from './user-routes.ts'
import type { CheckedHook } from './turn-hooks.ts'
import { delivererToHook } from './turn-hooks.ts'

/** How long live turns have to end when the hub stops. */
const drainMs = 20_000
/** How long their readers have after that. */
const closeMs = 2000

/** The services that plugins share and tests replace. */
export const clockToken = token<Clock>('clock')
/** Where the hub and its plugins log. */
export const loggerToken = token<Logger>('logger')
/** What requests to upstreams are made with. */
export const fetchToken = token<typeof fetch>('fetch')

/** A running hub. Disposing it drains and stops it. */
export interface Hub extends AsyncDisposable {
  /** `http://127.0.0.1:9527` */
  readonly url: string
  /** `http://127.0.0.1:9464/metrics`, when the config gives metrics a listener of their own. */
  readonly metricsUrl: string | undefined
  readonly dispatcher: Dispatcher
  readonly audit: Audit
  /** Name and door of each channel, for the lines at the start. */
  readonly doors: readonly { readonly channel: string; readonly door: string }[]
  /** What a person should read, such as a secret that is shown once. */
  readonly notices: readonly string[]
  /** Takes away now what is no longer kept; else it happens every ten minutes. */
  sweep(): Promise<void>
  /** Resolves at a moment when no turn runs. */
  idle(): Promise<void>
  /** Drains: new work is refused, live turns have `graceMs` (20 s) to end. Then everything is closed. */
  stop(graceMs?: number): Promise<void>
}

/** What a hub needs beside its config. */
export interface HubOptions {
  /** What relative paths in the config are relative to. */
  readonly folder: string
  /** With a test's own clock, log or fetch in it. */
  readonly services?: Services
}

/**
 * Builds everything a config names, goes on with what an earlier process left, and listens.
 * @throws HubError `config_invalid`, `store_unavailable`
 */
export async function createHub(
  config: CheckedConfig,
  { folder, services = new Services() }: HubOptions,
): Promise<Hub> {
  provideDefaults(services)
  try {
    return await build(config, folder, services)
  } catch (error) {
    await services[Symbol.asyncDispose]()
    throw error
  }
}

/** A hub that was built and does not run: what `bothub check` looks at. Disposing it closes what it has opened. */
export interface BuiltHub extends AsyncDisposable {
  readonly dispatcher: Dispatcher
  readonly conversations: Conversations
  readonly users: UserData
  readonly bots: ReadonlyMap<string, Bot>
  readonly channels: readonly { readonly name: string; readonly channel: Channel }[]
}

/**
 * Builds everything a config names, so that what only shows then is found, and neither listens nor goes on with
 * anything. Give it a store that keeps nothing, or, to look after what is in one, leave to the next start what it owes.
 * @throws HubError `config_invalid`, `store_unavailable`
 */
export async function buildHub(
  config: CheckedConfig,
  { folder, services = new Services(), delivers = true }: HubOptions & { readonly delivers?: boolean },
): Promise<BuiltHub> {
  provideDefaults(services)
  const close = () => services[Symbol.asyncDispose]()
  try {
    const { bots, runner, dispatcher, conversations, mounted, outbox, store, audit } = await assemble(
      config,
      folder,
      services,
      { isTrial: true, delivers },
    )
    return {
      bots,
      dispatcher,
      conversations,
      users: new UserData({ store, conversations, audit }),
      channels: mounted,
      async [Symbol.asyncDispose]() {
        outbox.wake()
        await runner.drain(0)
        await outbox.stop(closeMs)
        await Promise.all(mounted.map(async ({ channel }) => channel.close?.()))
        await close()
      },
    }
  } catch (error) {
    await close()
    throw error
  }
}

const provideDefaults = (services: Services) =>
  services
    .provide(clockToken, () => systemClock)
    .provide(loggerToken, () => createLogger())
    .provide(fetchToken, () => fetch)

/** Builds what a hub consists of, but for the server. */
async function assemble(
  config: CheckedConfig,
  folder: string,
  services: Services,
  { isTrial, delivers } = { isTrial: false, delivers: true },
) {
  const clock = services.get(clockToken)
  const logger = services.get(loggerToken)
  const contextFor = (name: string): PluginContext => ({
    name,
    folder,
    isTrial,
    clock,
    logger: logger.child({ plugin: name }),
    fetch: services.get(fetchToken),
  })

  const store = namingFailures(await config.store.create(config.store.options, contextFor('store')))
  services.defer(() => store.close())
  const metrics = new Metrics(() => store.backlog())
  const audit = new Audit(store, clock, logger)
  services.defer(() => audit.flush())
  const identify = gatekeeper(config.auth && (await Promise.all(config.auth.map(buildAuth))))
  const built = new Map<string, Bot>()
  for (const [name, bot] of config.bots) {
    built.set(
      name,
      await buildBot(name, bot, config.use, services, { ...contextFor(name), store, audit: audit.record }, metrics),
    )
  }

  const bots = new Bots(built)
  const mounted: Mounted[] = []
  const deliverer = (lane: Lane) =>
    delivers ? delivererOf(lane, { mounted, bots: built, hooks: config.onTurnEnd, store }) : undefined
  const outbox = new Outbox({ store, clock, logger, deliverer, onTried: metrics.delivery })
  const onOwed = () => outbox.wake()
  // What is only tried out costs nobody anything.
  const hooks = isTrial ? [] : config.onTurnEnd.map(({ name }) => `hook:${name}` as const)
  const runner = new TurnRunner({ bots, store, clock, logger, metrics, onOwed })
  const dispatcher = new Dispatcher({ bots, store, clock, logger, audit, metrics, onOwed, hooks, runner })
  const conversations = new Conversations({ bots, store, dispatcher, clock, logger, audit, onOwed })
  for (const [name, spec] of config.channels) {
    const { bots: offered, origins } = spec.options as { bots?: readonly string[]; origins?: readonly string[] }
    const context: ChannelContext = {
      ...contextFor(name),
      hub: dispatcher,
      bots,
      conversations,
      offers: (bot) => offered?.includes(bot) ?? true,
      openStreams: metrics.openStreams(name),
      progress: {
        of: (turn) => store.progress(turn, `channel:${name}`),
        keep: (turn, progress) => store.keepProgress(turn, `channel:${name}`, progress),
      },
      audit,
      actAs: (key) =>
        principalOfKey(
          config.auth?.filter((each) => typeof each !== 'function'),
          key,
        ),
    }
    mounted.push({ name, channel: await spec.create(spec.options, context), origins })
  }
  checkRoutes(mounted)
  return {
    clock,
    logger,
    store,
    metrics,
    audit,
    identify,
    bots: built,
    runner,
    dispatcher,
    conversations,
    outbox,
    mounted,
  }
}

async function build(config: CheckedConfig, folder: string, services: Services): Promise<Hub> {
  const { clock, logger, store, metrics, audit, identify, runner, dispatcher, conversations, outbox, mounted } =
    await assemble(config, folder, services)
  await runner.recover()
  const server = await startServer({
    ...config.listen,
    channels: mounted,
    identify,
    open: config.auth === undefined,
    metrics,
    metricsListener: config.metrics,
    audit,
    logger,
    ready: () => runner.ready,
    routes: [
      ...outboxRoutes({ store, clock, audit, wake: () => outbox.wake() }),
      ...adminRoutes({ store, clock, audit, attempt: (turn) => runner.attempt(turn) }),
      ...userRoutes(new UserData({ store, conversations, audit })),
    ],
  })

  outbox.wake()
  const retention = new Retention({ store, clock, logger, ...config.keep })
  services.defer(() => retention.stop())

  let stopped: Promise<void> | undefined
  const stop = (graceMs = drainMs) => (stopped ??= stopAll({ runner, outbox, mounted, server, services }, graceMs))
  return {
    url: server.url,
    metricsUrl: server.metricsUrl,
    dispatcher,
    audit,
    doors: mounted.map(({ name, channel }) => ({ channel: name, door: channel.door })),
    notices: [...shortKeyNotices(config.auth ?? []), ...mounted.flatMap(({ channel }) => channel.notices ?? [])],
    sweep: () => retention.sweep(),
    idle: () => runner.idle(),
    stop,
    [Symbol.asyncDispose]: () => stop(0),
  }
}

interface Running {
  readonly runner: TurnRunner
  readonly outbox: Outbox
  readonly mounted: readonly Mounted[]
  readonly server: HubServer
  readonly services: Services
}

async function stopAll({ runner, outbox, mounted, server, services }: Running, graceMs: number): Promise<void> {
  await runner.drain(graceMs)
  await outbox.stop(Math.min(graceMs, closeMs))
  await Promise.all(mounted.map(async ({ channel }) => channel.close?.()))
  await server.close(Math.min(graceMs, closeMs))
  await services[Symbol.asyncDispose]()
}

interface Receivers {
  readonly mounted: readonly Mounted[]
  readonly bots: ReadonlyMap<string, Bot>
  readonly hooks: readonly CheckedHook[]
  readonly store: Store
}

function delivererOf(lane: Lane, { mounted, bots, hooks, store }: Receivers): Deliverer | undefined {
  const name = lane.slice(lane.indexOf(':') + 1)
  if (isHook(lane)) {
    const hook = hooks.find((each) => each.name === name)
    return hook && delivererToHook(hook, store)
  }
  if (lane.startsWith('bot:')) {
    const bot = bots.get(name)
    return bot && delivererTo(bot)
  }
  const channel = mounted.find((each) => each.name === name)?.channel
  return channel?.deliver && (async (delivery, signal) => channel.deliver!(delivery as TurnDelivery, signal))
}

async function buildBot(
  name: string,
  config: CheckedBot,
  outer: CheckedConfig['use'],
  services: Services,
  context: Omit<MiddlewareContext, 'bot' | 'store'> & { readonly store: Store },
  metrics: Metrics,
): Promise<Bot> {
  const { provider: spec, use, history, onAbandon, maxConcurrent, rate, ...settings } = config
  const provider = await spec.create(spec.options, { ...context, records: context.store })
  services.defer(() => provider.close?.())
  const { manifest } = spec
  const middleware = [tracing(spec.name, context.clock), metrics.watch(context.clock)]
  for (const each of [...outer, ...use]) {
    middleware.push(
      isSpec(each) ? await each.create(each.options, { ...context, bot: { name, history, manifest } }) : each,
    )
  }
  const gate = new Gate({ maxConcurrent, rate }, context.clock)
  const respond = compose([...middleware, gate.middleware], (turn) => provider.respond(turn))
  const abandonAfterMs = onAbandon === 'continue' ? undefined : onAbandon.cancelAfter
  const takesHistory = history || !manifest.remembers
  return { name, manifest, provider, respond, gate, abandonAfterMs, takesHistory, ...settings }
}

const buildAuth = async (each: Checked<AuthSpec> | Authenticate): Promise<Authenticate> =>
  typeof each === 'function' ? each : each.create(each.options, undefined)

const isSpec = (each: Checked<MiddlewareSpec> | Middleware): each is Checked<MiddlewareSpec> =>
  typeof each !== 'function'

/** Two channels may share a path only when they answer in different forms. */
function checkRoutes(channels: readonly Mounted[]): void {
  const owners = new Map<string, string>()
  const problems: string[] = []
  for (const { name, channel } of channels) {
    const doors = [
      ...(channel.routes ?? []).map(
        (route) => `${route.method} ${route.path.replaceAll(/:\w+/g, '{}')} ${route.accepts ?? 'any form'}`,
      ),
      ...(channel.upgrades ?? []).map((door) => `upgrade ${door.path}`),
    ]
    for (const door of doors) {
      const owner = owners.get(door)
      if (owner)
        problems.push(
          `  - channels.${name}: ${door} is already served by channels.${owner}; give one of them another \`path\``,
        )
      else owners.set(door, name)
    }
  }
  if (problems.length > 0) {
    throw new HubError('config_invalid', { message: `Channels collide:\n${problems.join('\n')}` })
  }
}
