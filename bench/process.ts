import { fork, spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { createInterface } from 'node:readline'

/** How long a process may take to stop before it is killed. */
const stopWithinMs = 10_000
/** Of the clock in `/proc/PID/stat`. */
const tickMs = 10

/** A server in a process of its own. */
export interface Server extends AsyncDisposable {
  readonly url: string
  readonly pid: number
  /** Processor time so far, of all its threads, user and system. */
  cpuMs(): number
  /** Resident memory. */
  rssKiB(): number
  /** It has the hub's metrics. */
  readonly isHub?: true
  /** What Node says about its inspector, where it was started with one. */
  readonly inspector?: string
}

/** Starts a process and resolves when it says, on its standard output, where it listens. */
export async function startServer(command: string, args: readonly string[]): Promise<Server> {
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'] })
  let errors = ''
  child.stderr.on('data', (chunk: Buffer) => (errors = (errors + chunk.toString()).slice(-4000)))
  for await (const line of createInterface(child.stdout)) {
    const url = /listens? on (http:\S+)/.exec(line)?.[1]
    if (!url) continue
    child.stdout.resume()
    const inspector = /ws:\/\/\S+/.exec(errors)?.[0]
    return { ...serverOf(child, url), ...(inspector ? { inspector } : {}) }
  }
  throw new Error(`${command} ${args.join(' ')} did not start: ${errors}`)
}

/** Starts a process that does not say when it listens on the port it was given. */
export async function startServerOn(port: number, command: string, args: readonly string[]): Promise<Server> {
  const child = spawn(command, args, { stdio: 'ignore' })
  const url = `http://127.0.0.1:${port}`
  const until = performance.now() + stopWithinMs
  while (!(await answers(url))) {
    if (child.exitCode !== null || performance.now() > until) throw new Error(`${command} did not start`)
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
  return serverOf(child, url)
}

const answers = (url: string): Promise<boolean> =>
  fetch(url).then(
    () => true,
    () => false,
  )

const serverOf = (child: ChildProcess, url: string): Server => ({ url, ...usageOf(child.pid!), ...stopping(child) })

const usageOf = (pid: number): Pick<Server, 'pid' | 'cpuMs' | 'rssKiB'> => ({
  pid,
  cpuMs() {
    const [user, system] = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]!.split(' ').slice(11, 13)
    return (Number(user) + Number(system)) * tickMs
  },
  rssKiB: () => Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]),
})

const stopping = (child: ChildProcess): AsyncDisposable => ({
  async [Symbol.asyncDispose]() {
    if (child.exitCode !== null || child.signalCode !== null) return
    const exited = once(child, 'exit')
    child.kill('SIGTERM')
    const timer = setTimeout(() => child.kill('SIGKILL'), stopWithinMs)
    await exited
    clearTimeout(timer)
  },
})

/** A Node module in a process of its own that does what it is asked, one answer to each request. */
export interface Worker<Requests extends object> extends AsyncDisposable {
  ask<Name extends keyof Requests>(
    name: Name,
    ...input: Parameters<Extract<Requests[Name], AnyTask>>
  ): Promise<Awaited<ReturnType<Extract<Requests[Name], AnyTask>>>>
}

type AnyTask = (...input: never[]) => unknown

/** Starts a module that calls `serveTasks`. */
export function startWorker<Requests extends object>(module: URL): Worker<Requests> {
  const child = fork(module, { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] })
  const waiting = new Map<number, PromiseWithResolvers<never>>()
  let asked = 0
  child.on('message', ({ id, result, error }: { id: number; result?: never; error?: string }) => {
    const { resolve, reject } = waiting.get(id)!
    waiting.delete(id)
    if (error === undefined) resolve(result!)
    else reject(new Error(error))
  })
  child.once('exit', () => {
    for (const { reject } of waiting.values()) reject(new Error('the load generator has stopped'))
  })
  return {
    async ask(name, ...input) {
      const answer = Promise.withResolvers<never>()
      waiting.set(++asked, answer)
      child.send({ id: asked, name, input })
      return answer.promise
    },
    ...stopping(child),
  }
}

/** Answers the requests of the process that started this one. */
export function serveTasks(tasks: Readonly<Record<string, (...input: never[]) => unknown>>): void {
  process.on('message', ({ id, name, input }: { id: number; name: string; input: never[] }) => {
    void (async () => {
      try {
        process.send!({ id, result: await tasks[name]!(...input) })
      } catch (error) {
        process.send!({ id, error: String(error) })
      }
    })()
  })
  process.on('disconnect', () => process.exit())
}
