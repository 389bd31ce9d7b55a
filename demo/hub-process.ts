import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'

const root = join(import.meta.dirname, '..')

/** A hub in a process of its own, listening. */
export interface HubProcess {
  readonly url: string
  readonly port: number
  /** SIGKILL: it gets no chance to write anything down. */
  kill(): Promise<void>
}

/** Starts the hub of the demonstration; port 0 is a free one. */
export async function startHubProcess(env: Readonly<Record<string, string>>, port = 0): Promise<HubProcess> {
  const child = spawn(
    process.execPath,
    [join(root, 'bin/bothub.mjs'), 'start', '--port', String(port), '--config', join(root, 'demo/hub.config.ts')],
    { env: { PATH: process.env['PATH'], ...env }, stdio: ['ignore', 'pipe', 'pipe'] },
  )
  const exited = once(child, 'exit')
  let said = ''
  const url = await new Promise<string>((resolve, reject) => {
    const hear = (text: string) => {
      said += text
      const [, found] = /listens on (http:\S+)/.exec(said) ?? []
      if (found) resolve(found)
    }
    child.stdout.setEncoding('utf8').on('data', hear)
    child.stderr.setEncoding('utf8').on('data', hear)
    child.once('exit', (code) => reject(new Error(`The hub ended with ${code} before it listened:\n${said}`)))
  })
  return {
    url,
    port: Number(new URL(url).port),
    async kill() {
      child.kill('SIGKILL')
      await exited
    },
  }
}
