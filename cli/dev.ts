import { fork } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { basename, dirname, relative, resolve, sep } from 'node:path'
import { text } from 'node:stream/consumers'
import { fileURLToPath } from 'node:url'
import { styleText } from 'node:util'
import { Command } from 'commander'
import type { ListenFlags } from './start.ts'
import { stopWhenIdle, withHubOptions } from './start.ts'

const program = fileURLToPath(new URL('../bin/bothub.mjs', import.meta.url))
/** How long a save is waited for that comes right behind another, as editors and formatters make them. */
const settleMs = 100
/** What a hub is made of; folders that programs write to are none of it. */
const isSource = (path: string): boolean => /\.(?:[cm]?[jt]s|json)$/.test(path) || basename(path) === environment
/** What `loadConfig` reads beside a config. */
const environment = '.env'
const ignored: ReadonlySet<string> = new Set(['node_modules', 'data', 'dist', 'coverage'])

/** `bothub dev`: the hub of a config file, started again when a file beside the config is saved. */
export const devCommand = (): Command =>
  withHubOptions(
    new Command('dev').description('run the hub, and start it again on every save, without ending live answers'),
  ).action(dev)

interface DevOptions extends ListenFlags {
  readonly config: string
}

async function dev(options: DevOptions): Promise<void> {
  const { watch } = await import('chokidar')
  const config = resolve(options.config)
  const folder = dirname(config)
  const hub = new Supervised(config, options)
  const watcher = watch(folder, {
    ignoreInitial: true,
    ignored: (path, stats) => isIgnored(relative(folder, path)) || (stats?.isFile() === true && !isSource(path)),
  })
  const saved = new Set<string>()
  let timer: NodeJS.Timeout | undefined
  watcher.on('all', (_event, path) => {
    saved.add(relative(folder, path))
    clearTimeout(timer)
    timer = setTimeout(() => {
      hub.replace([...saved])
      saved.clear()
    }, settleMs)
  })
  const stop = () => {
    clearTimeout(timer)
    void watcher.close()
    hub.stop()
  }
  process.on('SIGINT', stop)
  process.on('SIGTERM', stop)
  whenNpmIsGone(stop)
  // Whatever is saved from the first start on is seen.
  await once(watcher, 'ready')
  process.exitCode = await hub.run()
  stop()
}

/** How soon it shows that npm is gone. */
const parentMs = 500

/** npm puts a shell before its program, and a signal to npm ends the shell alone. */
function whenNpmIsGone(stop: () => void): void {
  if (process.env['npm_command'] === undefined) return
  const parent = process.ppid
  const timer = setInterval(() => {
    if (process.ppid === parent) return
    clearInterval(timer)
    stop()
  }, parentMs)
  timer.unref()
}

const isIgnored = (path: string): boolean =>
  path !== environment && path.split(sep).some((name) => ignored.has(name) || (name.startsWith('.') && name !== '.'))

/** One hub after the other, each in a process of its own: the store and the port are one hub's at a time. */
class Supervised {
  readonly #config: string
  readonly #flags: ListenFlags
  readonly #over = Promise.withResolvers<number>()
  #child: ChildProcess | undefined
  /** Where the first one listens: the ones after it do too. */
  #port: number | undefined
  #working: Promise<void> = Promise.resolve()
  #stopping = false

  constructor(config: string, flags: ListenFlags) {
    this.#config = config
    this.#flags = flags
  }

  /** Starts the first hub, and resolves with an exit code when the last one has ended. */
  run(): Promise<number> {
    this.#start()
    return this.#over.promise
  }

  /** Starts the next hub when the files are sound and the present one answers nobody. */
  replace(files: readonly string[]): void {
    this.#working = this.#working.then(() => this.#replace(files))
  }

  stop(): void {
    if (this.#stopping) return
    this.#stopping = true
    if (this.#child) this.#child.kill('SIGTERM')
    else this.#over.resolve(0)
  }

  async #replace(files: readonly string[]): Promise<void> {
    if (this.#stopping) return
    const startedAt = performance.now()
    const problem = await problemOf(this.#config)
    const names = files.length > 3 ? `${files.length} files` : files.join(', ')
    if (problem !== undefined) {
      const still = this.#child ? 'The hub goes on as it was.' : 'Save again when it is mended.'
      return say('red', `${names} saved, and something is wrong. ${still}\n${problem}`)
    }
    await this.#retire()
    if (this.#stopping) return
    this.#start()
    say('green', `${names} saved: a new hub after ${((performance.now() - startedAt) / 1000).toFixed(1)} s.`)
  }

  /** Ends the hub at a moment when it answers nobody. */
  async #retire(): Promise<void> {
    const child = this.#child
    if (!child) return
    this.#child = undefined
    const exited = once(child, 'exit')
    // Until then it answers as ever. One that has ended just now cannot be told, and its exit is seen all the same.
    child.send(stopWhenIdle, () => {})
    await exited
  }

  #start(): void {
    const { host } = this.#flags
    const port = this.#port ?? this.#flags.port
    const child = fork(program, [
      'start',
      '--config',
      this.#config,
      ...(host === undefined ? [] : ['--host', host]),
      ...(port === undefined ? [] : ['--port', String(port)]),
    ])
    this.#child = child
    child.on('message', (message) => {
      this.#port = portIn(message) ?? this.#port
    })
    child.once('exit', (code) => {
      if (this.#stopping) return this.#over.resolve(code ?? 1)
      // One that was replaced has been let go before.
      if (this.#child !== child) return
      this.#child = undefined
      say(
        'red',
        `The hub ended with ${code ?? 'a signal'}. It starts again when ${basename(this.#config)} or a file beside it is saved.`,
      )
    })
  }
}

const portIn = (message: unknown): number | undefined =>
  typeof message === 'object' && message !== null && 'port' in message && typeof message.port === 'number'
    ? message.port
    : undefined

/** What `bothub check` has against a config; undefined where it has nothing. */
async function problemOf(config: string): Promise<string | undefined> {
  const child = fork(program, ['check', '--config', config], { stdio: ['ignore', 'ignore', 'pipe', 'ipc'] })
  const [words, [code]] = await Promise.all([text(child.stderr!), once(child, 'exit')])
  return code === 0 ? undefined : words.trim()
}

const say = (colour: 'green' | 'red', words: string): void =>
  void process.stdout.write(`${styleText(colour, 'dev')}  ${words}\n`)
