import { createServer } from 'node:http'
import type { IncomingMessage, Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { Duplex } from 'node:stream'
import { Router } from '@koa/router'
import Koa from 'koa'
import { z } from 'zod'
import type { Audit } from './audit.ts'
import type { Gatekeeper, Principal } from './auth.ts'
import { hasCredential, showCredential } from './auth.ts'
import type { Channel, RequestContext, Route, Upgrade, Visitor } from './channel.ts'
import { asHubError, HubError } from './errors.ts'
import type { Logger } from './log.ts'
import type { Metrics } from './metrics.ts'
import { respondsAsync } from './native.ts'
import { openApi } from './openapi.ts'

/** A channel as it is mounted. */
export interface Mounted {
  readonly name: string
  readonly channel: Channel
  /** Undefined: loopback origins and the hub's own. */
  readonly origins: readonly string[] | undefined
}

/** Where to listen, and for whom. */
export interface ServerOptions {
  readonly host: string
  readonly port: number
  readonly channels: readonly Mounted[]
  readonly logger: Logger
  /** Says who asks. */
  readonly identify: Gatekeeper
  /** Whether everybody is let in, as the config has no `auth`. */
  readonly open: boolean
  readonly audit: Audit
  readonly metrics: Metrics
  /** Where metrics are served without a key; undefined: with everything else. */
  readonly metricsListener: { readonly host: string; readonly port: number } | undefined
  /** For `GET /readyz`. */
  readonly ready: () => boolean
  /** What the hub serves beside its channels and what is here. */
  readonly routes: readonly Route[]
}

/** A server that listens. */
export interface HubServer {
  /** `http://127.0.0.1:9527` */
  readonly url: string
  /** Where metrics are, when they have a listener of their own. */
  readonly metricsUrl?: string | undefined
  /** Takes no new connections, ends those that are idle, and the rest after `graceMs`. */
  close(graceMs: number): Promise<void>
}

/** Serves the routes and upgrades of all channels on one address. */
export async function startServer(options: ServerOptions): Promise<HubServer> {
  const app = new Koa()
  // Clients that leave mid-stream raise this; it is no error of ours.
  app.on('error', (error: unknown) => options.logger.debug({ err: error }, 'a connection ended badly'))
  const router = mount(options)
  app.use(answerErrors(options))
  app.use(joinSlashes)
  if (options.open) app.use(guardHost(options.host))
  app.use(allowOrigins(router, options))
  app.use(ownRouter(options).routes())
  app.use(router.routes())
  app.use(router.allowedMethods())

  const answer = app.callback()
  const server = createServer(
    // An upload may take long; bodies have clocks of their own.
    { headersTimeout: 5000, requestTimeout: 0, connectionsCheckingInterval: 1000, keepAliveTimeout: 65_000 },
    (request, response) => void answer(request, response),
  )
  server.on('upgrade', (request, socket, head) => upgrade(options, request, socket, head))
  await listen(server, options, `choose a port: npx bothub start --port ${nextPort(options.port)}`)
  const metrics = await listenForMetrics(options)
  return {
    url: urlOf(server),
    metricsUrl: metrics ? `${metrics.url}/metrics` : undefined,
    async close(graceMs) {
      await Promise.all([closeServer(server, graceMs), metrics?.close(graceMs)])
    },
  }
}

function urlOf(server: Server): string {
  const { address, port, family } = server.address() as AddressInfo
  return `http://${family === 'IPv6' ? `[${address}]` : address}:${port}`
}

function listen(
  server: Server,
  { host, port }: { readonly host: string; readonly port: number },
  remedy: string,
): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) =>
      reject(
        error.code === 'EADDRINUSE'
          ? new HubError('config_invalid', {
              message: `Port ${port} on ${host} is taken. Stop the other program, or ${remedy}`,
              cause: error,
            })
          : error,
      ),
    )
    server.listen(port, host, resolve)
  })
}

const nextPort = (port: number): number => (port < 65_535 ? port + 1 : port - 1)

async function closeServer(server: Server, graceMs: number): Promise<void> {
  const closed = new Promise<void>((resolve) => server.close(() => resolve()))
  server.closeIdleConnections()
  const timer = setTimeout(() => server.closeAllConnections(), graceMs)
  await closed
  clearTimeout(timer)
}

/** Puts the routes of all channels on one router; those that differ only in what they accept share a path. */
function mount(options: ServerOptions): Router {
  const router = new Router()
  const register = registering(router, options)
  const shared = Map.groupBy(
    options.channels.flatMap(({ channel }) => channel.routes ?? []),
    (route) => `${route.method} ${route.path}`,
  )
  for (const routes of shared.values()) register(routes)
  return router
}

const registering =
  (router: Router, options: ServerOptions) =>
  (routes: readonly Route[]): void => {
    const { method, path } = routes[0]!
    router.register(path, [method], async (context) => {
      const ctx = context as unknown as RequestContext
      await answerRoute(options, ctx, choose(ctx, routes))
    })
  }

/** @throws HubError `unauthorized`; a wrong key is written down, a missing one is not */
async function letIn({ identify, audit }: ServerOptions, request: IncomingMessage): Promise<Principal> {
  try {
    return await identify(request)
  } catch (error) {
    if (error instanceof HubError && error.code === 'unauthorized' && hasCredential(request)) {
      audit.refused('wrong key or token', request.socket.remoteAddress ?? 'unknown')
    }
    throw error
  }
}

function choose(ctx: RequestContext, routes: readonly Route[]): Route {
  // JSON unless events are preferred: `*/*`, or an answer nobody here gives, gets JSON.
  // A client that takes a 202 now reads the answer later, whatever it accepts.
  const prefersEvents = ctx.accepts('json', 'text/event-stream') === 'text/event-stream' && !respondsAsync(ctx)
  const wanted = prefersEvents ? 'events' : 'json'
  const route = routes.find((each) => each.accepts === undefined || each.accepts === wanted)
  if (!route) throw notAcceptable(wanted, ctx)
  return route
}

/** Names the one form that is there, and what would add the other. */
const notAcceptable = (wanted: 'events' | 'json', ctx: RequestContext): HubError =>
  new HubError('not_acceptable', {
    message:
      wanted === 'events'
        ? 'This hub answers here in application/json alone. Ask for that, or add `sse()` to the channels of its config.'
        : `This hub answers here in text/event-stream alone. Ask for that${respondsAsync(ctx) ? ' without `Prefer: respond-async`' : ''}, or add \`rest()\` to the channels of its config.`,
  })

/** Where a client's base URL ends with a slash, its paths begin with two. */
const joinSlashes: Koa.Middleware = (ctx, next) => {
  if (ctx.path.startsWith('//')) ctx.path = ctx.path.replace(/^\/+/, '/')
  return next()
}

/** Every failure becomes `{ error: { code, message, retryable … } }` or its channel's own form, also those of the router. */
const answerErrors =
  ({ logger, channels }: ServerOptions): Koa.Middleware =>
  async (ctx, next) => {
    try {
      await next()
      if (ctx.status === 404 && ctx.body === undefined && ctx.respond !== false) throw new HubError('not_found')
      if (ctx.status === 405 || ctx.status === 501) throw new HubError('method_not_allowed')
    } catch (cause) {
      const error = asHubError(cause)
      if (error.code === 'internal' || error.code === 'store_unavailable')
        logger.error({ err: cause, path: ctx.path }, 'a request failed')
      if (ctx.headerSent || !ctx.writable) {
        ctx.respond = false
        ctx.res.destroy()
        return
      }
      answerError(ctx, error, channels)
    }
  }

function answerError(ctx: Koa.Context, error: HubError, channels: readonly Mounted[]): void {
  let own: ReturnType<NonNullable<Channel['encodeError']>>
  for (const { channel } of channels) own ??= channel.encodeError?.(error, ctx.path)
  ctx.status = own?.status ?? error.failure.status
  ctx.set({ ...own?.headers })
  if (error.code === 'unauthorized') ctx.set('www-authenticate', 'Bearer')
  if (error.retryAfterMs !== undefined) ctx.set('retry-after', String(Math.ceil(error.retryAfterMs / 1000)))
  // What is left of the body is not waited for.
  if (!ctx.req.complete) ctx.set('connection', 'close')
  ctx.body = own ? own.body : { error: { ...error.public(), ...(error.turn ? { turn: error.turn } : {}) } }
}

const loopback = /^(localhost|127(\.\d{1,3}){3}|\[::1\])$/i

const hostName = (host: string): string => host.replace(/:\d+$/, '')

/** Without `auth` a page of another site must not reach the hub by a name that resolves to loopback. */
const guardHost =
  (own: string): Koa.Middleware =>
  (ctx, next) => {
    checkHost(ctx.req, own)
    return next()
  }

function checkHost(request: IncomingMessage, own: string): void {
  const name = hostName(request.headers.host ?? '')
  if (!loopback.test(name) && name !== own && name !== `[${own}]`) throw new HubError('forbidden_host')
}

/** By default a page may call from the hub's own address, and without `auth` from loopback. */
function isAllowedOrigin(origin: string, host: string, allowed: readonly string[] | undefined, open: boolean): boolean {
  if (allowed) return allowed.includes('*') || allowed.includes(origin)
  if (!URL.canParse(origin)) return false
  const url = new URL(origin)
  return url.host === host || (open && loopback.test(url.hostname))
}

const allowOrigins =
  (router: Router, { channels, open }: ServerOptions): Koa.Middleware =>
  async (ctx, next) => {
    const origin = ctx.get('origin')
    if (!origin) return next()
    ctx.vary('Origin')
    const method = ctx.method === 'OPTIONS' ? ctx.get('access-control-request-method') : ctx.method
    const paths = new Set(router.match(ctx.path, method).pathAndMethod.map((layer) => layer.path))
    const owner = channels.find(({ channel }) => channel.routes?.some((route) => paths.has(route.path)))
    if (!owner || !isAllowedOrigin(origin, ctx.host, owner.origins, open)) return next()
    ctx.set('access-control-allow-origin', origin)
    const exposed = ['Location', 'Retry-After', ...(owner.channel.exposedHeaders ?? [])]
    ctx.set('access-control-expose-headers', exposed.join(', '))
    if (ctx.method !== 'OPTIONS' || !method) return next()
    ctx.set('access-control-allow-methods', method)
    ctx.set('access-control-allow-headers', ctx.get('access-control-request-headers'))
    ctx.set('access-control-max-age', '600')
    ctx.status = 204
  }

/** What the hub answers beside its channels. */
function ownRoutes(options: ServerOptions): readonly Route[] {
  const sane = { 'application/json': z.object({ status: z.literal('ok') }) } as const
  let document: string | undefined
  const routes: readonly Route[] = [
    {
      method: 'GET',
      path: '/healthz',
      anonymous: true,
      describe: { summary: 'Whether the hub is sane', answers: { 200: { description: 'It is.', content: sane } } },
      handle: (ctx) => void (ctx.body = { status: 'ok' }),
    },
    {
      method: 'GET',
      path: '/readyz',
      anonymous: true,
      describe: { summary: 'Whether the hub takes work', answers: { 200: { description: 'It does.', content: sane } } },
      handle(ctx) {
        if (!options.ready()) throw new HubError('shutting_down')
        ctx.body = { status: 'ok' }
      },
    },
    {
      method: 'GET',
      path: '/openapi.json',
      anonymous: true,
      describe: {
        summary: 'This document',
        answers: { 200: { description: 'OpenAPI 3.1.', content: { 'application/json': z.looseObject({}) } } },
      },
      handle(ctx) {
        document ??= JSON.stringify(
          openApi({
            routes: [...options.channels.flatMap(({ channel }) => channel.routes ?? []), ...routes],
            upgrades: options.channels.flatMap(({ channel }) => channel.upgrades ?? []).map(({ path }) => path),
            open: options.open,
          }),
        )
        ctx.type = 'json'
        ctx.body = document
      },
    },
    ...(options.metricsListener ? [] : [metricsRoute(options)]),
    ...options.routes,
  ]
  return routes
}

const metricsRoute = ({ metrics }: ServerOptions): Route => ({
  method: 'GET',
  path: '/metrics',
  describe: {
    summary: 'Counts and times for Prometheus',
    description: 'Where keys are needed, for one with `admin: true`.',
    answers: { 200: { description: 'Prometheus text.', content: { 'text/plain': z.string() } } },
  },
  async handle(ctx) {
    if (!ctx.principal.admin) throw new HubError('forbidden')
    ctx.type = metrics.contentType
    ctx.body = await metrics.text()
  },
})

function ownRouter(options: ServerOptions): Router {
  const router = new Router()
  const register = registering(router, options)
  for (const route of ownRoutes(options)) register([route])
  return router
}

async function answerRoute(options: ServerOptions, ctx: RequestContext, route: Route): Promise<void> {
  if (!route.anonymous) Object.assign(ctx, { principal: await letIn(options, ctx.req) })
  await route.handle(ctx)
}

/** Metrics on an address of their own, so that a scraper needs no key and no way in for users. */
async function listenForMetrics(options: ServerOptions): Promise<HubServer | undefined> {
  const { metricsListener, metrics } = options
  if (!metricsListener) return undefined
  const server = createServer({ headersTimeout: 5000, requestTimeout: 10_000 }, (request, response) => {
    if (request.url !== '/metrics') return void response.writeHead(404).end()
    metrics.text().then(
      (text) => response.writeHead(200, { 'content-type': metrics.contentType }).end(text),
      (error: unknown) => {
        options.logger.error({ err: error }, 'metrics could not be collected')
        response.writeHead(500).end()
      },
    )
  })
  await listen(server, metricsListener, `give \`metrics\` another port, such as ${nextPort(metricsListener.port)}`)
  return { url: urlOf(server), close: (graceMs) => closeServer(server, graceMs) }
}

function upgrade(options: ServerOptions, request: IncomingMessage, socket: Duplex, head: Buffer): void {
  socket.on('error', () => socket.destroy())
  enter(options, request).then(
    ({ door, visitor }) => door.handle(request, socket, head, visitor),
    (error: unknown) => refuseUpgrade(socket, asHubError(error)),
  )
}

async function enter(
  options: ServerOptions,
  request: IncomingMessage,
): Promise<{ readonly door: Upgrade; readonly visitor: Visitor }> {
  if (options.open) checkHost(request, options.host)
  const { pathname } = new URL(request.url ?? '/', 'http://hub')
  for (const { channel, origins } of options.channels) {
    const door = channel.upgrades?.find(({ path }) => path === pathname)
    if (!door) continue
    const { origin, host = '' } = request.headers
    if (origin !== undefined && !isAllowedOrigin(origin, host, origins, options.open)) {
      throw new HubError('forbidden_origin')
    }
    if (!options.ready()) throw new HubError('shutting_down', { retryAfterMs: 5000 })
    return { door, visitor: await visit(options, door, request) }
  }
  throw new HubError('not_found')
}

/** @throws HubError `unauthorized`; a wrong key is refused also where strangers are let in */
async function visit(options: ServerOptions, door: Upgrade, request: IncomingMessage): Promise<Visitor> {
  const identify = (credential: string) => {
    showCredential(request, credential)
    return letIn(options, request)
  }
  const credential = door.credentialOf?.(request)
  if (credential !== undefined) return { principal: await identify(credential), identify }
  try {
    return { principal: await letIn(options, request), identify }
  } catch (error) {
    const isStranger = error instanceof HubError && error.code === 'unauthorized' && !hasCredential(request)
    if (!isStranger || !door.takesStrangers) throw error
    return { principal: undefined, identify }
  }
}

function refuseUpgrade(socket: Duplex, error: HubError): void {
  const body = JSON.stringify({ error: error.public() })
  const head = [
    `HTTP/1.1 ${error.failure.status} ${error.code}`,
    'Content-Type: application/json',
    `Content-Length: ${Buffer.byteLength(body)}`,
    'Connection: close',
    ...(error.code === 'unauthorized' ? ['WWW-Authenticate: Bearer'] : []),
    ...(error.retryAfterMs === undefined ? [] : [`Retry-After: ${Math.ceil(error.retryAfterMs / 1000)}`]),
  ]
  socket.end(`${head.join('\r\n')}\r\n\r\n${body}`)
}
