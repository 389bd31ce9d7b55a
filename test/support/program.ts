import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll } from 'vitest'

/** The repository's own folder. */
export const root = fileURLToPath(new URL('../../', import.meta.url))

/** The config that `npm start` runs. */
export const ownConfig = "export { default } from '../../hub.config.ts'\n"

/** A folder of a deployment: its config file, and its state once it ran. */
export interface Deployment extends Disposable {
  readonly folder: string
  /** Path of its `hub.config.ts`. */
  readonly config: string
}

/**
 * Makes a deployment inside the repository, so that its config finds `bothub`; not under `node_modules`, where Node
 * would not run its TypeScript. `data/` is what git leaves alone.
 */
export function deploy(config = ownConfig): Deployment {
  mkdirSync(join(root, 'data'), { recursive: true })
  const folder = mkdtempSync(join(root, 'data/test-'))
  writeFileSync(join(folder, 'hub.config.ts'), config)
  return {
    folder,
    config: join(folder, 'hub.config.ts'),
    [Symbol.dispose]: () => rmSync(folder, { recursive: true, force: true }),
  }
}

/** The program, from its start to its exit. */
export interface Run {
  readonly pid: number
  /** Everything it has printed so far, on both outputs. */
  output(): string
  /** Resolves with the exit code when it has ended; null when a signal ended it. */
  readonly exited: Promise<number | null>
  signal(name: NodeJS.Signals): void
  /** Types lines into it; without any, that was all. */
  type(...lines: readonly string[]): void
  /** Presses keys, one after the other. */
  press(...keys: readonly string[]): void
  /** Resolves with the match when what was printed fits; rejects when the program ends without. */
  printed(pattern: RegExp): Promise<RegExpExecArray>
}

export interface RunOptions {
  readonly env?: Readonly<Record<string, string>>
  /** Default: the Node that runs the tests. */
  readonly node?: string
}

/** Runs `bothub` with these arguments and nothing in its environment but what is given. */
export const run = (args: readonly string[], { env = {}, node = process.execPath }: RunOptions = {}): Run =>
  launch(node, [join(root, 'bin/bothub.mjs'), ...args], { PATH: process.env['PATH'] ?? '', ...env })

/** Runs any command, in the repository unless it says where. */
export function launch(
  command: string,
  args: readonly string[],
  env: Readonly<Record<string, string>>,
  cwd = root,
): Run {
  const child = spawn(command, args, { cwd, env, stdio: ['pipe', 'pipe', 'pipe'] })
  let output = ''
  const heard = new Set<() => void>()
  const hear = (text: string) => {
    output += text
    for (const each of heard) each()
  }
  child.stdout.setEncoding('utf8').on('data', hear)
  child.stderr.setEncoding('utf8').on('data', hear)
  // Not `exit`, which may come before the last of the output.
  const exited = once(child, 'close').then(([code]) => code as number | null)
  return {
    pid: child.pid ?? 0,
    output: () => output,
    exited,
    signal: (name) => void child.kill(name),
    type(...lines) {
      for (const line of lines) child.stdin.write(`${line}\n`)
      if (lines.length === 0) child.stdin.end()
    },
    press(...keys) {
      for (const key of keys) child.stdin.write(key)
    },
    async printed(pattern) {
      const found = Promise.withResolvers<RegExpExecArray>()
      const look = () => {
        const match = pattern.exec(output)
        if (match) found.resolve(match)
      }
      heard.add(look)
      look()
      const ended = exited.then((code) => {
        throw new Error(`${command} ended with ${code} before it printed ${pattern}:\n${output}`)
      })
      try {
        return await Promise.race([found.promise, ended])
      } finally {
        heard.delete(look)
      }
    },
  }
}

/** A hub in a process of its own, listening. */
export interface Program extends Run, AsyncDisposable {
  /** `http://127.0.0.1:40123` */
  readonly url: string
  /** The hub's HTTP surface: `api('/bots')` is `GET /api/v1/bots`; a body makes it a POST. */
  api(path: string, body?: unknown, headers?: Readonly<Record<string, string>>): Promise<Response>
  /** Stops it as Ctrl-C does, and gives its exit code. */
  stop(signal?: NodeJS.Signals): Promise<number | null>
}

/** Starts the hub of a deployment on a free port, and resolves when it says where it listens. */
export async function startProgram({ config }: Deployment, options: RunOptions = {}): Promise<Program> {
  const running = run(['start', '--port', '0', '--config', config], options)
  const [, url] = await running.printed(/listens on (http:\S+)[^]*?\n\n/)
  return {
    ...running,
    url: url!,
    api: (path, body, headers = {}) =>
      fetch(`${url}/api/v1${path}`, {
        ...(body === undefined ? {} : { method: 'POST', body: JSON.stringify(body) }),
        headers: { ...(body === undefined ? {} : { 'content-type': 'application/json' }), ...headers },
      }),
    stop(signal = 'SIGTERM') {
      running.signal(signal)
      return running.exited
    },
    async [Symbol.asyncDispose]() {
      running.signal('SIGKILL')
      await running.exited
    },
  }
}

/** One program for all tests of a file or a group: started before the first of them, stopped after the last. */
export function sharedProgram(): { readonly program: Program } {
  let deployment: Deployment
  let running: Program
  beforeAll(async () => {
    deployment = deploy()
    running = await startProgram(deployment)
  })
  afterAll(async () => {
    await running[Symbol.asyncDispose]()
    deployment[Symbol.dispose]()
  })
  return {
    get program() {
      return running
    },
  }
}
