import { writeFileSync } from 'node:fs'
import { once } from 'node:events'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { WebSocket } from 'ws'

const folder = fileURLToPath(new URL('../data', import.meta.url))
/** How many functions are printed. */
const topLength = 30

interface ProfileNode {
  readonly id: number
  readonly callFrame: { readonly functionName: string; readonly url: string; readonly lineNumber: number }
}

interface Profile {
  readonly nodes: readonly ProfileNode[]
  readonly samples: readonly number[]
}

/** Takes a CPU profile of another process through its inspector. */
export class Profiler {
  readonly #socket: WebSocket
  #asked = 0

  constructor(socket: WebSocket) {
    this.#socket = socket
  }

  /** Begins at once. */
  static async attach(inspector: string): Promise<Profiler> {
    const socket = new WebSocket(inspector)
    await once(socket, 'open')
    const profiler = new Profiler(socket)
    await profiler.#ask('Profiler.enable')
    await profiler.#ask('Profiler.setSamplingInterval', { interval: 200 })
    await profiler.#ask('Profiler.start')
    return profiler
  }

  /** Writes the profile into `data/`, and tells what took most of the time itself. */
  async finish(name: string): Promise<string> {
    const { profile } = (await this.#ask('Profiler.stop')) as { readonly profile: Profile }
    this.#socket.close()
    const file = join(folder, `${name.replaceAll(/[^\w]+/g, '-')}.cpuprofile`)
    writeFileSync(file, JSON.stringify(profile))
    return `${file}\n${topOf(profile)}\n`
  }

  async #ask(method: string, params: object = {}): Promise<unknown> {
    const id = ++this.#asked
    this.#socket.send(JSON.stringify({ id, method, params }))
    for (;;) {
      const [message] = (await once(this.#socket, 'message')) as [Buffer]
      const answer = JSON.parse(message.toString()) as { readonly id?: number; readonly result?: unknown }
      if (answer.id === id) return answer.result
    }
  }
}

/** Functions by the time they took themselves, as shares of the time in which the process was not idle. */
function topOf({ nodes, samples }: Profile): string {
  const names = new Map(nodes.map(({ id, callFrame }) => [id, nameOf(callFrame)]))
  const counts = new Map<string, number>()
  for (const sample of samples) counts.set(names.get(sample)!, (counts.get(names.get(sample)!) ?? 0) + 1)
  counts.delete('(idle)')
  const busy = [...counts.values()].reduce((sum, count) => sum + count, 0)
  return [...counts]
    .toSorted(([, one], [, other]) => other - one)
    .slice(0, topLength)
    .map(([name, count]) => `${((count / busy) * 100).toFixed(1).padStart(5)} %  ${name}`)
    .join('\n')
}

function nameOf({ functionName, url, lineNumber }: ProfileNode['callFrame']): string {
  const place = url.replace(/^.*\/(?=(?:core|plugins|channels|node_modules)\/)/, '')
  return `${functionName || '(anonymous)'}${place ? `  ${place}:${lineNumber + 1}` : ''}`
}
