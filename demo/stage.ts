import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { json } from 'node:stream/consumers'
import { styleText } from 'node:util'
import type { TurnObject } from 'bothub'
import { startAsgardSimulator } from '../plugins/asgard/simulator.ts'
import type { HubProcess } from './hub-process.ts'
import { startHubProcess } from './hub-process.ts'

type Colour = 'cyan' | 'green' | 'red' | 'yellow' | 'bold' | 'dim'

/** What the hub of the demonstration stands among, none of which dies with it: a platform, a receiver, a terminal. */
export interface Stage extends AsyncDisposable {
  readonly webhookSecret: string
  startHub(port?: number): Promise<HubProcess>
  /** How often the platform was sent a message; to read on is none. */
  upstreamAsks(): number
  /** Resolves when the answer of a turn was delivered to the webhook's callback. */
  delivered(turn: string): Promise<TurnObject>
  title(text: string): void
  note(text: string): void
  line(text: string): void
  /** A piece of an answer, broken into lines. */
  word(text: string, colour: Colour): void
  endWords(): void
  /** Colours where there is a terminal, and the plain text elsewhere. */
  paint(colour: Colour, text: string): string
}

const width = 100

/** Sets everything up but the hub. */
export async function setStage(): Promise<Stage> {
  const folder = mkdtempSync(join(tmpdir(), 'bothub-demo-'))
  const platform = await startAsgardSimulator()
  const receiver = await receive()
  const webhookSecret = `whsec_${Buffer.from(crypto.getRandomValues(new Uint8Array(24))).toString('base64')}`
  const env = {
    DEMO_STORE: join(folder, 'hub.db'),
    DEMO_UPSTREAM: platform.url,
    DEMO_NAMESPACE: platform.namespace,
    DEMO_BOT: platform.botProviderName,
    DEMO_KEY: platform.apiKey,
    DEMO_SECRET: webhookSecret,
    DEMO_CALLBACK: receiver.url,
  }
  let running: HubProcess | undefined
  return {
    webhookSecret,
    async startHub(port) {
      running = await startHubProcess(env, port)
      return running
    },
    upstreamAsks: () =>
      platform.requests.filter(({ path, headers }) => path === '/message/sse' && !headers['last-event-id']).length,
    delivered: receiver.of,
    ...terminal(),
    async [Symbol.asyncDispose]() {
      await running?.kill()
      await platform.close()
      receiver.close()
      rmSync(folder, { recursive: true, force: true })
    },
  }
}

/** Takes the webhook's callbacks. */
async function receive() {
  const turns = new Map<string, PromiseWithResolvers<TurnObject>>()
  const slot = (turn: string) => {
    const made = turns.get(turn) ?? Promise.withResolvers<TurnObject>()
    turns.set(turn, made)
    return made
  }
  const server = createServer((request, response) => {
    void json(request).then((body) => {
      const turn = (body as { readonly data: TurnObject }).data
      slot(turn.turn).resolve(turn)
      response.end()
    })
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/answers`,
    of: (turn: string) => slot(turn).promise,
    close() {
      server.close()
      server.closeAllConnections()
    },
  }
}

function terminal() {
  let column = 0
  const breakLine = () => {
    if (column > 0) process.stdout.write('\n')
    column = 0
  }
  const line = (text: string) => {
    breakLine()
    process.stdout.write(`${text}\n`)
  }
  const paint = (colour: Colour, text: string) => styleText(colour, text)
  return {
    line,
    paint,
    title: (text: string) => line(`\n${paint('bold', text)}\n`),
    note: (text: string) => line(`\n  ${paint('yellow', text)}\n`),
    endWords: () => line(''),
    word(text: string, colour: Colour) {
      for (const piece of text.match(/word \d+ |\S+\s*/g) ?? []) {
        if (column + piece.length > width) breakLine()
        const indent = column === 0 ? '  ' : ''
        process.stdout.write(indent + paint(colour, piece))
        column += indent.length + piece.length
      }
    },
  }
}
