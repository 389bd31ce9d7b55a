import { spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('..', import.meta.url))

/** A folder for a hub, inside the repository so that its config finds `bothub`; it goes when the process does. */
export function makeFolder(): string {
  mkdirSync(join(root, 'data'), { recursive: true })
  const folder = mkdtempSync(join(root, 'data', 'bench-'))
  process.on('exit', () => rmSync(folder, { recursive: true, force: true }))
  return folder
}

/** A hub in a process of its own. */
export interface RunningHub extends AsyncDisposable {
  readonly url: string
  /** Resident memory, KiB. */
  rss(): number
  /** Processor time so far. */
  cpuMs(): number
}

/** Starts the hub of the `hub.config.ts` in a folder on a free port, and resolves when it says where it listens. */
export async function startHub(folder: string): Promise<RunningHub> {
  const program = join(root, 'bin', 'bothub.mjs')
  const args = [program, 'start', '--port', '0', '--config', join(folder, 'hub.config.ts')]
  const hub: ChildProcess = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] })
  const exited = once(hub, 'exit')
  const lines = createInterface(hub.stdout!)
  for await (const line of lines) {
    const url = /listens on (http:\S+)/.exec(line)?.[1]
    if (!url) continue
    hub.stdout!.resume()
    return {
      url,
      rss: () => Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${hub.pid}/status`, 'utf8'))?.[1]),
      cpuMs() {
        const [user, system] = readFileSync(`/proc/${hub.pid}/stat`, 'utf8').split(') ')[1]!.split(' ').slice(11, 13)
        // In ticks of 10 ms.
        return (Number(user) + Number(system)) * 10
      },
      async [Symbol.asyncDispose]() {
        hub.kill('SIGTERM')
        await exited
      },
    }
  }
  throw new Error('the hub did not start')
}
