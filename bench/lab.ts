import { checkedOut, contenders } from './contenders.ts'
import type { Contender } from './contenders.ts'
import type { Figure, Round } from './figures.ts'
import { figuresOf } from './figures.ts'
import { makeFolder, startFreshHub, startHub } from './hub.ts'
import type { Folder } from './hub.ts'
import type { LoadTasks } from './load/index.ts'
import { startServer, startWorker } from './process.ts'
import type { Server, Worker } from './process.ts'
import { Profiler } from './profile.ts'
import type { Sizes } from './sizes.ts'

/** How a run is done. */
export interface LabOptions {
  readonly sizes: Sizes
  /** Names of contenders; all by default. */
  readonly only?: readonly string[]
  /** The folder of another checkout, whose hub takes part as `before`. */
  readonly against?: string
  /** Takes a CPU profile of the hub in `paced` and `burst`. */
  readonly profile?: boolean
  readonly say: (progress: string) => void
}

/**
 * Where workloads are run: the upstream, the load generator and the servers, each a process, started when the first
 * workload needs it.
 */
export class Lab implements AsyncDisposable {
  readonly sizes: Sizes
  readonly say: (progress: string) => void
  readonly load: Worker<LoadTasks> = startWorker<LoadTasks>(new URL('load/index.ts', import.meta.url))
  readonly #options: LabOptions
  readonly #servers = new Map<unknown, Promise<Server>>()
  readonly #folder: Folder = makeFolder()
  #upstream: Promise<Server> | undefined

  constructor(options: LabOptions) {
    this.#options = options
    this.sizes = options.sizes
    this.say = options.say
  }

  async upstream(): Promise<string> {
    this.#upstream ??= startServer(process.execPath, [new URL('upstream.ts', import.meta.url).pathname])
    return (await this.#upstream).url
  }

  /** The hub, on a store that fills up from workload to workload. */
  hub(): Promise<Server> {
    return this.#once('hub', async () => {
      const options = this.#options.profile ? ['--inspect=127.0.0.1:0'] : []
      return startHub(this.#folder.path, await this.upstream(), options)
    })
  }

  async server({ start }: Pick<Contender, 'start'>): Promise<Server> {
    if (start === 'hub') return this.hub()
    const upstream = await this.upstream()
    if (start) return this.#once(start, () => start(upstream, this.#folder.path))
    return { url: upstream, pid: 0, cpuMs: () => 0, rssKiB: () => 0, async [Symbol.asyncDispose]() {} }
  }

  /** A hub that has done nothing yet, on a store of its own. */
  freshHub(): Promise<Server> {
    return this.freshServer({ start: 'hub' })
  }

  /** One that has done nothing yet, on a store of its own. */
  async freshServer(contender: Pick<Contender, 'start'>): Promise<Server> {
    const { start } = contender
    if (!this.sizes.fresh) return { ...(await this.server(contender)), async [Symbol.asyncDispose]() {} }
    const upstream = await this.upstream()
    return typeof start === 'function' ? start(upstream, this.#folder.path) : startFreshHub(upstream)
  }

  #once(key: unknown, start: () => Promise<Server>): Promise<Server> {
    const known = this.#servers.get(key) ?? start()
    this.#servers.set(key, known)
    return known
  }

  /** Those of these names that are wanted and can take part, `hub` standing for all of its forms. */
  contenders(...names: readonly string[]): readonly Contender[] {
    const { only, against } = this.#options
    const all = against === undefined ? contenders : [...contenders, checkedOut(against)]
    const wanted = all.filter(({ name }) => names.length === 0 || names.includes(name))
    return wanted.filter(({ name, missing }) => {
      if (only && !only.includes(name)) return false
      if (missing) this.say(`${name} does not take part: ${missing}`)
      return missing === undefined
    })
  }

  /** Rounds of all subjects in turn, A B A B, behind one that does not count where `warmUp` says so. */
  async rounds<Subject>(
    workload: string,
    subjects: ReadonlyMap<string, Subject>,
    measure: (subject: Subject) => Promise<Round>,
    { warmUp = this.sizes.warmUp }: { readonly warmUp?: boolean } = {},
  ): Promise<Figure[]> {
    const done = new Map<string, Round[]>(Array.from(subjects.keys(), (name) => [name, []]))
    for (let round = warmUp ? 0 : 1; round <= this.sizes.rounds; round++) {
      for (const [name, subject] of subjects) {
        this.say(`${workload}: ${name}, ${round === 0 ? 'warming up' : `round ${round} of ${this.sizes.rounds}`}`)
        const measured = await measure(subject)
        if (round > 0) done.get(name)!.push(measured)
      }
    }
    return [...done].flatMap(([name, rounds]) => figuresOf(workload, name, rounds))
  }

  /** Does something with the hub while its processor time is noted down, where that was asked for. */
  async profiled<Result>(workload: string, server: Server, work: () => Promise<Result>): Promise<Result> {
    if (!server.inspector) return work()
    const profiler = await Profiler.attach(server.inspector)
    const result = await work()
    this.say(await profiler.finish(workload))
    return result
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.load[Symbol.asyncDispose]()
    const started = await Promise.allSettled(this.#servers.values())
    const running = started.flatMap((each) => (each.status === 'fulfilled' ? [each.value] : []))
    await Promise.all(running.map((server) => server[Symbol.asyncDispose]()))
    await (await this.#upstream)?.[Symbol.asyncDispose]()
    this.#folder[Symbol.dispose]()
  }
}
