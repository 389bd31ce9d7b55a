import { existsSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import type { AddressInfo } from 'node:net'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { join } from 'node:path'
import type { Ask } from './load/requests.ts'
import { askBot, startFreshHub } from './hub.ts'
import { startServer, startServerOn } from './process.ts'
import type { Server } from './process.ts'
import { nginxConfig } from './servers/nginx.ts'

/** What stands between a client and the upstream. */
export interface Contender {
  readonly name: string
  /** What it costs to have no server at all is the latency of the machine itself. */
  readonly start?: 'hub' | ((upstream: string, folder: string) => Promise<Server>)
  /** How a client asks for an answer. */
  readonly ask: (url: string, text: string) => Ask
  /** Why it cannot take part here. */
  readonly missing?: string
}

const here = (path: string): string => fileURLToPath(new URL(path, import.meta.url))
const peers = here('peers/node_modules')

const openaiAsk = (url: string, text: string, model = 'bench'): Ask => ({
  url: `${url}/v1/chat/completions`,
  headers: { authorization: 'Bearer bench' },
  body: JSON.stringify({ model, stream: true, messages: [{ role: 'user', content: text }] }),
})

const module = (path: string) => (upstream: string) => startServer(process.execPath, [here(path), upstream])

const steps = (upTo: string) => (upstream: string, folder: string) =>
  startServer(process.execPath, [here('servers/steps.ts'), upstream, folder, upTo])

const peer = (contender: Contender): Contender =>
  existsSync(peers) ? contender : { ...contender, missing: 'run `npm ci --prefix bench/peers` first' }

/** Everybody, from the floor to the hub. */
export const contenders: readonly Contender[] = [
  { name: 'direct', ask: openaiAsk },
  {
    name: 'nginx',
    ask: openaiAsk,
    start: startNginx,
    ...(existsSync('/usr/sbin/nginx') ? {} : { missing: 'nginx is not installed' }),
  },
  { name: 'pipe', ask: openaiAsk, start: module('servers/pipe.ts') },
  { name: 'koa', ask: openaiAsk, start: module('servers/koa.ts') },
  { name: 'parsed', ask: openaiAsk, start: steps('parsed') },
  { name: 'parsed + logged', ask: openaiAsk, start: steps('logged') },
  peer({ name: 'portkey', ask: portkeyAsk, start: startPortkey }),
  peer({ name: 'express + openai', ask: openaiAsk, start: module('peers/express-openai.mjs') }),
  peer({ name: 'ai sdk', ask: openaiAsk, start: module('peers/ai-sdk.mjs') }),
  { name: 'hub', start: 'hub', ask: (url, text) => askBot(url, 'openai', text) },
  { name: 'hub: OpenAI to WebSocket', start: 'hub', ask: webSocketAsk },
  { name: 'hub: OpenAI to OpenAI', start: 'hub', ask: (url, text) => openaiAsk(url, text, 'openai') },
  { name: 'hub: Coze to SSE', start: 'hub', ask: (url, text) => askBot(url, 'coze', text) },
  { name: 'hub: Asgard to SSE', start: 'hub', ask: (url, text) => askBot(url, 'asgard', text) },
]

/** The hub of another checkout, for the figures of a change. */
export const checkedOut = (folder: string): Contender => ({
  name: 'before',
  ask: (url, text) => askBot(url, 'openai', text),
  start: (upstream) => startFreshHub(upstream, folder),
})

function webSocketAsk(url: string, text: string): Ask {
  return { url: `${url.replace('http', 'ws')}/api/v1/ws`, body: JSON.stringify({ type: 'chat', message: text }) }
}

/** Portkey is told with every request where its upstream is. */
function portkeyAsk(url: string, text: string): Ask {
  const { headers, ...ask } = openaiAsk(url, text)
  return {
    ...ask,
    headers: { ...headers, 'x-portkey-provider': 'openai', 'x-portkey-custom-host': `${portkeyUpstream}/v1` },
  }
}
let portkeyUpstream = ''

async function startPortkey(upstream: string): Promise<Server> {
  portkeyUpstream = upstream
  const port = await freePort()
  const program = join(peers, '@portkey-ai/gateway/build/start-server.js')
  return startServerOn(port, process.execPath, [program, `--port=${port}`, '--headless'])
}

async function startNginx(upstream: string, folder: string): Promise<Server> {
  const port = await freePort()
  const config = join(folder, 'nginx.conf')
  writeFileSync(config, nginxConfig(folder, port, upstream))
  return startServerOn(port, '/usr/sbin/nginx', ['-c', config])
}

/** For servers that take no 0. */
async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  server.close()
  return port
}
