import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { startServer } from './process.ts'
import type { Server } from './process.ts'

const here = fileURLToPath(new URL('..', import.meta.url))

/** A folder inside the repository, so that a config in it finds `bothub`. */
export interface Folder extends Disposable {
  readonly path: string
}

/** A folder for a hub, of this checkout or another; it goes when it is disposed of. */
export function makeFolder(root = here): Folder {
  mkdirSync(join(root, 'data'), { recursive: true })
  const path = mkdtempSync(join(root, 'data', 'bench-'))
  return { path, [Symbol.dispose]: () => rmSync(path, { recursive: true, force: true }) }
}

/** Starts the hub as its users do, all promises on: its store, `history`, `retry` and `consent`. */
export async function startHub(
  folder: string,
  upstream: string,
  nodeOptions: readonly string[] = [],
  root = here,
): Promise<Server> {
  const config = join(folder, 'hub.config.ts')
  writeFileSync(config, configFor(upstream))
  const args = [...nodeOptions, join(root, 'bin', 'bothub.mjs'), 'start', '--port', '0', '--config', config]
  return { ...(await startServer(process.execPath, args)), isHub: true }
}

/** Starts a hub on a store of its own, which goes with it. */
export async function startFreshHub(upstream: string, root = here): Promise<Server> {
  const folder = makeFolder(root)
  const server = await startHub(folder.path, upstream, [], root)
  return {
    ...server,
    async [Symbol.asyncDispose]() {
      await server[Symbol.asyncDispose]()
      folder[Symbol.dispose]()
    },
  }
}

const configFor = (upstream: string): string => `
import * as hub from 'bothub'

const asked = (provider) => ({ provider, use: [hub.consent({ allow: ['get_weather'] })] })

export default hub.defineConfig({
  store: hub.sqlite({ file: 'hub.db' }),
  bots: {
    asgard: asked(hub.asgard({
      edgeServerHost: '${upstream}', namespace: 'bench', botProviderName: 'bench', apiKey: 'bench',
    })),
    coze: asked(hub.coze({ baseUrl: '${upstream}', token: 'bench', botId: '7500000000000000002' })),
    openai: asked(hub.openai({ baseUrl: '${upstream}/v1', apiKey: 'bench', model: 'bench' })),
    echo: { provider: hub.echo(), onAbandon: 'continue' },
  },
  channels: {
    rest: hub.rest(),
    sse: hub.sse(),
    websocket: hub.websocket({ bot: 'openai' }),
    openai: hub.openaiApi(),
    crm: hub.webhook({ bot: 'echo', secret: '${webhookSecret}' }),
  },
})
`

/** Of the webhook `crm`. */
export const webhookSecret = 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw'

/** The request that says something to a bot and streams what it says. */
export const askBot = (url: string, bot: string, text: string, more: Readonly<Record<string, string>> = {}) => ({
  url: `${url}/api/v1/bots/${bot}/messages`,
  headers: { accept: 'text/event-stream', 'content-type': 'application/json' },
  body: JSON.stringify({ text, ...more }),
})

/** The same, for a client that does not stay. */
export const later = (ask: ReturnType<typeof askBot>) => ({
  ...ask,
  headers: { 'content-type': 'application/json', prefer: 'respond-async' },
})

/** Sends what `later` made, and gives its turn. */
export async function turnOf({ url, ...ask }: ReturnType<typeof later>): Promise<string> {
  const answer = await fetch(url, { method: 'POST', ...ask })
  return ((await answer.json()) as { readonly turn: string }).turn
}

/** A number of `GET /metrics`, all its labels together. */
export async function metric(url: string, name: string): Promise<number> {
  const text = await (await fetch(`${url}/metrics`)).text()
  const values = text.split('\n').filter((line) => line.startsWith(name))
  return values.reduce((sum, line) => sum + Number(line.split(' ').at(-1)), 0)
}
