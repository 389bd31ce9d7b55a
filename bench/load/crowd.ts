import { once } from 'node:events'
import { Agent } from 'node:http'
import { WebSocket } from 'ws'
import { MarkReader } from '../delta.ts'
import { percentiles, send } from './requests.ts'
import type { Ask, Waits } from './requests.ts'

/** Clients that stream at the same time. */
export interface CrowdOptions {
  readonly ask: Ask
  readonly clients: number
  /** What each of them is to hear. */
  readonly deltas: number
  /** Whoever has heard it all asks again, until the crowd is dismissed. */
  readonly again?: boolean
}

/** What a crowd has heard since it was last asked, and how long deltas were under way. */
export interface Heard extends Waits {
  readonly deltas: number
}

/** How many may be on their way in at once. */
const entering = 500
/** Whoever has not heard the end by then, after the upstream was silenced, leaves. */
const patienceMs = 15_000

/** Many clients of one kind, and what they hear together. */
export class Crowd {
  readonly #options: CrowdOptions
  readonly #agent = new Agent({ keepAlive: false })
  readonly #clients: Promise<void>[] = []
  readonly #leave = new AbortController()
  #latencies: number[] = []
  #deltas = 0
  #failed = 0
  #isDismissed = false

  constructor(options: CrowdOptions) {
    this.#options = options
  }

  /** Resolves when everybody has heard the first delta. */
  async gather(): Promise<void> {
    const { clients } = this.#options
    for (let begun = 0; begun < clients; begun += entering) {
      await Promise.all(Array.from({ length: Math.min(entering, clients - begun) }, () => this.#enter()))
    }
  }

  hear(): Heard {
    const heard = { deltas: this.#deltas, ...percentiles(this.#latencies), failed: this.#failed }
    this.#latencies = []
    this.#deltas = 0
    return heard
  }

  /** Silences the upstream, and resolves when all answers have come to their end. */
  async dismiss(upstream: string): Promise<Heard> {
    this.#isDismissed = true
    await (await fetch(`${upstream}/hush`)).text()
    const timer = setTimeout(() => this.#leave.abort(), patienceMs)
    await Promise.all(this.#clients)
    clearTimeout(timer)
    this.#agent.destroy()
    return this.hear()
  }

  /** Resolves at the client's first delta, or when it has failed. */
  #enter(): Promise<void> {
    const first = Promise.withResolvers<void>()
    this.#clients.push(this.#stay(first.resolve).finally(first.resolve))
    return first.promise
  }

  async #stay(onFirst: () => void): Promise<void> {
    const { ask, deltas, again } = this.#options
    for (;;) {
      const reader = new MarkReader(deltas, (latencyMs) => {
        this.#deltas += 1
        if (reader.count === 1) onFirst()
        if (latencyMs !== undefined) this.#latencies.push(latencyMs)
      })
      try {
        const { signal } = this.#leave
        await (ask.url.startsWith('ws') ? listen(ask, reader, signal) : read(ask, this.#agent, reader, signal))
      } catch {
        this.#failed += 1
        return
      }
      if (reader.count < deltas && !this.#isDismissed) this.#failed += 1
      if (!again || this.#isDismissed) return
    }
  }
}

async function read(ask: Ask, agent: Agent, reader: MarkReader, signal: AbortSignal): Promise<void> {
  const answer = await send(ask, agent)
  if (answer.statusCode !== 200) throw new Error(`status ${answer.statusCode}`)
  answer.on('data', (chunk: Buffer) => reader.read(chunk))
  await once(answer, 'end', { signal }).finally(() => answer.destroy())
}

async function listen({ url, body }: Ask, reader: MarkReader, signal: AbortSignal): Promise<void> {
  const socket = new WebSocket(url, { perMessageDeflate: false })
  socket.on('message', (bytes: Buffer) => {
    reader.read(bytes)
    if (bytes.includes('"done":true')) socket.close()
  })
  await once(socket, 'open')
  socket.send(body!)
  await once(socket, 'close', { signal }).finally(() => socket.terminate())
}
