import { createServer } from 'node:http'
import type { IncomingMessage, Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { Duplex } from 'node:stream'
import { Router } from '@koa/router'
import Koa from 'koa'
import { z } from 'zod'
import type { Principal } from './auth.ts'
import { localPrincipal } from './auth.ts'
import { check } from './body.ts'
import type { Channel, RequestContext, Route } from './channel.ts'
import { asHubError, HubError } from './errors.ts'
import type { Logger } from './log.ts'
import { clientName } from './wire.ts'

/** A channel as it is mounted. */
export interface Mounted {
  readonly name: string
  readonly channel: Channel
  /** Undefined: loopback origins and the hub's own. */
  readonly origins: readonly string[] | undefined
}

export interface ServerOptions {
  readonly host: string
  readonly port: number
  readonly channels: readonly Mounted[]
  readonly logger: Logger
  /** For `GET /readyz`. */
  readonly ready: () => boolean
}

export interface HubServer {
  /** `http://127.0.0.1:9527` */
  readonly url: string
  /** Takes no new connections, ends those that are idle, and the rest after `graceMs`. */
  close(graceMs: number): Promise<void>
}

/** Serves the routes and upgrades of all channels on one address. */
export async function startServer(options: ServerOptions): Promise<HubServer> {
  const app = new Koa()
  // Clients that leave mid-stream raise this; it is no error of ours.
  app.on('error', (error: unknown) => options.logger.debug({ err: error }, 'a connection ended badly'))
  const router = mount(options.channels)
  app.use(answerErrors(options.logger))
  app.use(guardHost(options.host))
  app.use(allowOrigins(router, options.channels))
  app.use(health(options))
  app.use(identify)
  app.use(router.routes())
  app.use(router.allowedMethods())

  const answer = app.callback()
  const server = createServer(
    // An upload may take long; bodies have clocks of their own.
    { headersTimeout: 5000, requestTimeout: 0, connectionsCheckingInterval: 1000, keepAliveTimeout: 65_000 },
    (request, response) => void answer(request, response),
  )
  server.on('upgrade', (request, socket, head) => upgrade(options, request, socket, head))
  await listen(server, options)
  const { address, port, family } = server.address() as AddressInfo
  return {
    url: `http://${family === 'IPv6' ? `[${address}]` : address}:${port}`,
    close: (graceMs) => closeServer(server, graceMs),
  }
}

function listen(server: Server, { host, port }: ServerOptions): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) =>
      reject(
        error.code === 'EADDRINUSE'
          ? new HubError('config_invalid', {
              message: `Port ${port} on ${host} is taken. Stop the other program, or choose a port: npm start -- --port ${port + 1}`,
              cause: error,
            })
          : error,
      ),
    )
    server.listen(port, host, resolve)
  })
}

async function closeServer(server: Server, graceMs: number): Promise<void> {
  const closed = new Promise<void>((resolve) => server.close(() => resolve()))
  server.closeIdleConnections()
  const timer = setTimeout(() => server.closeAllConnections(), graceMs)
  await closed
  clearTimeout(timer)
}

/** Puts the routes of all channels on one router; those that differ only in what they accept share a path. */
function mount(channels: readonly Mounted[]): Router {
  const router = new Router()
  const shared = Map.groupBy(
    channels.flatMap(({ channel }) => channel.routes ?? []),
    (route) => `${route.method} ${route.path}`,
  )
  for (const routes of shared.values()) {
    const { method, path } = routes[0]!
    router.register(path, [method], async (ctx) => {
      await choose(ctx as unknown as RequestContext, routes).handle(ctx as unknown as RequestContext)
    })
  }
  return router
}

function choose(ctx: RequestContext, routes: readonly Route[]): Route {
  // JSON unless events are preferred: `*/*`, or an answer nobody here gives, gets JSON.
  const wanted = ctx.accepts('json', 'text/event-stream') === 'text/event-stream' ? 'events' : 'json'
  const route = routes.find((each) => each.accepts === undefined || each.accepts === wanted)
  if (!route) throw new HubError('not_acceptable')
  return route
}

/** Every failure becomes `{ error: { code, message, retryable … } }`, also those of the router. */
const answerErrors =
  (logger: Logger): Koa.Middleware =>
  async (ctx, next) => {
    try {
      await next()
      if (ctx.status === 404 && ctx.body === undefined && ctx.respond !== false) throw new HubError('not_found')
      if (ctx.status === 405 || ctx.status === 501) throw new HubError('method_not_allowed')
    } catch (cause) {
      const error = asHubError(cause)
      if (error.code === 'internal') logger.error({ err: cause, path: ctx.path }, 'a request failed')
      if (ctx.headerSent || !ctx.writable) {
        ctx.respond = false
        ctx.res.destroy()
        return
      }
      answerError(ctx, error)
    }
  }

function answerError(ctx: Koa.Context, error: HubError): void {
  ctx.status = error.failure.status
  if (error.retryAfterMs !== undefined) ctx.set('retry-after', String(Math.ceil(error.retryAfterMs / 1000)))
  // What is left of the body is not waited for.
  if (!ctx.req.complete) ctx.set('connection', 'close')
  ctx.body = { error: { ...error.public(), ...(error.turn ? { turn: error.turn } : {}) } }
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

/** By default a page may call from loopback or from the hub's own address. */
export function isAllowedOrigin(origin: string, host: string, allowed: readonly string[] | undefined): boolean {
  if (allowed) return allowed.includes('*') || allowed.includes(origin)
  if (!URL.canParse(origin)) return false
  const url = new URL(origin)
  return loopback.test(url.hostname) || url.host === host
}

const allowOrigins =
  (router: Router, channels: readonly Mounted[]): Koa.Middleware =>
  async (ctx, next) => {
    const origin = ctx.get('origin')
    if (!origin) return next()
    ctx.vary('Origin')
    const method = ctx.method === 'OPTIONS' ? ctx.get('access-control-request-method') : ctx.method
    const paths = new Set(router.match(ctx.path, method).pathAndMethod.map((layer) => layer.path))
    const owner = channels.find(({ channel }) => channel.routes?.some((route) => paths.has(route.path)))
    if (!owner || !isAllowedOrigin(origin, ctx.host, owner.origins)) return next()
    ctx.set('access-control-allow-origin', origin)
    ctx.set('access-control-expose-headers', 'Location, Retry-After')
    if (ctx.method !== 'OPTIONS' || !method) return next()
    ctx.set('access-control-allow-methods', method)
    ctx.set('access-control-allow-headers', ctx.get('access-control-request-headers'))
    ctx.set('access-control-max-age', '600')
    ctx.status = 204
  }

/** Who asks, and for whom: `?user=` or `X-Hub-User`, for a trusted key. */
const identify: Koa.Middleware = (ctx, next) => {
  Object.assign(ctx, { principal: principalOf(ctx.req) })
  return next()
}

function principalOf(request: IncomingMessage): Principal {
  const { searchParams } = new URL(request.url ?? '/', 'http://hub')
  return localPrincipal(check(userName, searchParams.get('user') ?? request.headers['x-hub-user'] ?? ''))
}

const userName = z.union([z.literal('').transform(() => undefined), clientName])

const health =
  ({ ready }: ServerOptions): Koa.Middleware =>
  async (ctx, next) => {
    if (ctx.path !== '/healthz' && ctx.path !== '/readyz') return next()
    if (ctx.method !== 'GET' && ctx.method !== 'HEAD') {
      ctx.set('allow', 'GET, HEAD')
      throw new HubError('method_not_allowed')
    }
    if (ctx.path === '/readyz' && !ready()) throw new HubError('shutting_down')
    ctx.body = { status: 'ok' }
  }

function upgrade(options: ServerOptions, request: IncomingMessage, socket: Duplex, head: Buffer): void {
  socket.on('error', () => socket.destroy())
  try {
    checkHost(request, options.host)
    const { pathname } = new URL(request.url ?? '/', 'http://hub')
    for (const { channel, origins } of options.channels) {
      const door = channel.upgrades?.find(({ path }) => path === pathname)
      if (!door) continue
      const { origin, host = '' } = request.headers
      if (origin !== undefined && !isAllowedOrigin(origin, host, origins)) throw new HubError('forbidden_origin')
      if (!options.ready()) throw new HubError('shutting_down', { retryAfterMs: 5000 })
      door.handle(request, socket, head, principalOf(request))
      return
    }
    throw new HubError('not_found')
  } catch (error) {
    refuseUpgrade(socket, asHubError(error))
  }
}

function refuseUpgrade(socket: Duplex, error: HubError): void {
  const body = JSON.stringify({ error: error.public() })
  socket.end(
    `HTTP/1.1 ${error.failure.status} ${error.code}\r\nContent-Type: application/json\r\nContent-Length: ${Buffer.byteLength(body)}\r\nConnection: close\r\n\r\n${body}`,
  )
}
