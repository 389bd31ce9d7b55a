import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pino } from 'pino'
import { checkConfig, createHub, defineConfig, rest, sse, sqlite, websocket } from '../../index.ts'
import type { HubConfig, NumberedEvent, TurnObject } from '../../index.ts'
import { fetchToken, loggerToken } from '../../core/hub.ts'
import type { Hub } from '../../core/hub.ts'
import { Services } from '../../core/services.ts'

/** A hub on a free port, with every channel, whose log is kept line by line. */
export interface TestHub extends AsyncDisposable {
  readonly url: string
  readonly hub: Hub
  readonly folder: string
  /** Lines of the log, parsed. */
  readonly log: readonly Record<string, unknown>[]
  /** The hub's HTTP surface: `api('/bots')` is `GET /api/v1/bots`; a body makes it a POST. */
  api(path: string, body?: unknown, headers?: Record<string, string>): Promise<Response>
  /** Takes away what is no longer kept, as the hub does now and then. */
  sweep(): Promise<void>
  /** Sends a message and gives the turn object. */
  ask(bot: string, text: string, more?: Record<string, unknown>): Promise<TurnObject>
  /** Sends a message and gives the events of its stream. */
  stream(bot: string, text: string, more?: Record<string, unknown>): Promise<NumberedEvent[]>
}

export interface TestHubOptions {
  /** Use this folder again, as a restart does; else a new one is made and removed. */
  readonly folder?: string
  readonly fetch?: typeof fetch
}

export async function startHub(
  config: Partial<HubConfig> & Pick<HubConfig, 'bots'>,
  options: TestHubOptions = {},
): Promise<TestHub> {
  const folder = options.folder ?? mkdtempSync(join(tmpdir(), 'bothub-'))
  const log: Record<string, unknown>[] = []
  const logger = pino({ level: 'info' }, { write: (line: string) => void log.push(JSON.parse(line)) })
  const services = new Services().provide(loggerToken, () => logger)
  if (options.fetch) services.provide(fetchToken, () => options.fetch!)
  const checked = checkConfig(
    defineConfig({
      listen: { port: 0 },
      store: sqlite({ file: 'hub.db' }),
      channels: { rest: rest(), sse: sse(), websocket: websocket() },
      // Who tests the page asks for it.
      console: false,
      ...config,
    }),
  )
  const hub = await createHub(checked, { folder, services })
  const api: TestHub['api'] = (path, body, headers = {}) =>
    fetch(`${hub.url}/api/v1${path}`, {
      ...(body === undefined ? {} : { method: 'POST', body: JSON.stringify(body) }),
      headers: { ...(body === undefined ? {} : { 'content-type': 'application/json' }), ...headers },
    })
  return {
    url: hub.url,
    hub,
    folder,
    log,
    api,
    sweep: () => hub.sweep(),
    async ask(bot, text, more = {}) {
      const response = await api(`/bots/${bot}/messages`, { text, ...more })
      return (await response.json()) as TurnObject
    },
    async stream(bot, text, more = {}) {
      return readEvents(await api(`/bots/${bot}/messages`, { text, ...more }, { accept: 'text/event-stream' }))
    },
    async [Symbol.asyncDispose]() {
      await hub.stop(0)
      if (!options.folder) rmSync(folder, { recursive: true, force: true })
    },
  }
}

/** All events of a stream, until it ends. */
export const readEvents = async (response: Response): Promise<NumberedEvent[]> =>
  (await response.text())
    .split('\n')
    .filter((line) => line.startsWith('data: '))
    .map((line) => JSON.parse(line.slice('data: '.length)) as NumberedEvent)

/** The parsed body, of the type the test expects. */
export const jsonOf = async <T>(response: Response): Promise<T> => (await response.json()) as T
