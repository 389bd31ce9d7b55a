import { Worker } from 'node:worker_threads'
import { HubError } from '../../core/errors.ts'
import type { HubEvent } from '../../core/events.ts'
import type { Json, JsonObject } from '../../core/message.ts'
import type { ProviderContext, SuggestionRequest } from '../../core/plugin.ts'
import type { Turn } from '../../core/turn.ts'
import { Queue } from '../../core/flow.ts'
import { recordsOf } from './bot-host.ts'
import type { BotRecords } from './bot-host.ts'
import type { RunningBot } from './index.ts'
import { fromPlainError, toPlainError } from './isolation.ts'
import type { FromWorker, ToWorker } from './isolated-worker.ts'
import type { HubCall, Job, PlainAsked, WorkerStart } from './isolation.ts'
import type { Asked } from './run-bot.ts'
import { runTool } from './tools.ts'
import type { BotTools } from './tools.ts'

/** How often it is looked whether the thread still gives way, while it may be blocked. */
const looks = 5

/** What an isolated bot is made of. */
export interface IsolationOptions {
  readonly module: URL
  readonly export: string | undefined
  readonly tools: BotTools
  readonly blockedTimeoutMs: number
}

/** One job of the worker, on this side. */
interface Run {
  readonly said: Queue<string | HubEvent>
  readonly records: BotRecords
  value: Json | undefined
}

/**
 * A class on BotCore in a worker thread of its own. One that holds its thread is ended with it; the next turn gets a
 * new one. So is one that the bot's stray exceptions have ended.
 */
export class IsolatedBot implements RunningBot {
  readonly #options: IsolationOptions
  readonly #context: ProviderContext
  readonly #runs = new Map<number, Run>()
  #methods: ReadonlySet<string> = new Set()
  #worker: Promise<Worker> | undefined
  #count = 0

  private constructor(options: IsolationOptions, context: ProviderContext) {
    this.#options = options
    this.#context = context
  }

  /**
   * Starts the worker, which loads the module.
   * @throws HubError `config_invalid`
   */
  static async start(options: IsolationOptions, context: ProviderContext): Promise<IsolatedBot> {
    const bot = new IsolatedBot(options, context)
    await bot.#alive()
    return bot
  }

  get methods(): ReadonlySet<string> {
    return this.#methods
  }

  answer(asked: Asked & { readonly turn: Turn }): AsyncIterable<string | HubEvent> {
    return this.#run(asked, { type: 'answer' })
  }

  suggest(asked: Asked, request: SuggestionRequest): AsyncIterable<string | HubEvent> {
    return this.#run(asked, { type: 'suggest', request })
  }

  async invoke(asked: Asked, call: { name: string; input: JsonObject }): Promise<Json | undefined> {
    const run = this.#newRun(asked)
    for await (const _ of this.#run(asked, { type: 'invoke', ...call }, run));
    return run.value
  }

  async close(): Promise<void> {
    const worker = this.#worker
    this.#worker = undefined
    await (await worker?.catch(() => undefined))?.terminate()
  }

  async *#run(asked: Asked, job: Job, run = this.#newRun(asked)): AsyncGenerator<string | HubEvent> {
    const number = ++this.#count
    const worker = await this.#alive()
    this.#runs.set(number, run)
    post(worker, { type: 'run', run: number, asked: toPlain(asked), job })
    const abort = () => post(worker, { type: 'abort', run: number, error: toPlainError(asked.signal.reason) })
    if (asked.signal.aborted) abort()
    else asked.signal.addEventListener('abort', abort, { once: true })
    try {
      yield* run.said
    } finally {
      asked.signal.removeEventListener('abort', abort)
      if (this.#runs.delete(number)) abort()
    }
  }

  #newRun({ owner }: Asked): Run {
    const { records, clock } = this.#context
    return { said: new Queue(), records: recordsOf(records, owner, clock), value: undefined }
  }

  /** The worker, a new one where the last has ended. */
  #alive(): Promise<Worker> {
    return (this.#worker ??= this.#startWorker())
  }

  async #startWorker(): Promise<Worker> {
    const beats = new SharedArrayBuffer(Int32Array.BYTES_PER_ELEMENT)
    const start: WorkerStart = { module: this.#options.module.href, export: this.#options.export, beats }
    // The sources are TypeScript, and JavaScript where they were compiled.
    const file = new URL(`./isolated-worker${import.meta.url.slice(import.meta.url.lastIndexOf('.'))}`, import.meta.url)
    const worker = new Worker(file, { workerData: start })
    const ready = Promise.withResolvers<void>()
    const stopLooking = this.#lookAfter(worker, beats)
    worker.on('message', (message: FromWorker) => {
      if (message.type === 'unusable') ready.reject(fromPlainError(message.error))
      if (message.type === 'ready') {
        this.#methods = new Set(message.methods)
        ready.resolve()
      }
      this.#take(worker, message)
    })
    worker.on('error', (error: unknown) => this.#end(worker, new HubError('bot_failed', { cause: error })))
    worker.on('exit', () => {
      stopLooking()
      const error = new HubError('bot_failed', { cause: new Error('the thread of the bot has ended') })
      this.#end(worker, error)
      ready.reject(error)
    })
    try {
      await ready.promise
      return worker
    } catch (error) {
      this.#worker = undefined
      void worker.terminate()
      throw error
    }
  }

  /** Ends the thread when it does not give way for too long. A thread that is starting or idle is not looked at. */
  #lookAfter(worker: Worker, beats: SharedArrayBuffer): () => void {
    const { blockedTimeoutMs } = this.#options
    const counter = new Int32Array(beats)
    let last = -1
    let same = 0
    const timer = setInterval(() => {
      const now = Atomics.load(counter, 0)
      same = now === last && this.#runs.size > 0 ? same + 1 : 0
      last = now
      if (same <= looks) return
      const { name, logger } = this.#context
      const ms = Math.round((same * blockedTimeoutMs) / looks)
      logger.warn({ bot: name, blockedMs: ms }, `the bot ${name} held its own thread for ${ms} ms, which was ended`)
      this.#end(worker, new HubError('bot_blocked'))
    }, blockedTimeoutMs / looks)
    timer.unref()
    return () => clearInterval(timer)
  }

  /** All that it was doing fails; the next job starts another worker. */
  #end(worker: Worker, error: HubError): void {
    void worker.terminate()
    void this.#worker?.then(
      (current) => {
        if (current !== worker) return
        this.#worker = undefined
        for (const { said } of this.#runs.values()) said.fail(error)
        this.#runs.clear()
      },
      () => {},
    )
  }

  #take(worker: Worker, message: FromWorker): void {
    switch (message.type) {
      case 'said':
        return this.#runs.get(message.run)?.said.push(message.piece)
      case 'done':
      case 'failed': {
        const run = this.#runs.get(message.run)
        this.#runs.delete(message.run)
        if (!run) return
        if (message.type === 'failed') return run.said.fail(fromPlainError(message.error))
        run.value = message.value
        return run.said.end()
      }
      case 'log':
        return this.#context.logger[message.level](message.fields, message.message)
      case 'call':
        return void this.#call(this.#runs.get(message.run), message).then(
          (value) => post(worker, { type: 'returned', call: message.call, value }),
          (error: unknown) => post(worker, { type: 'threw', call: message.call, error: toPlainError(error) }),
        )
      default:
    }
  }

  async #call(run: Run | undefined, { of, name, given }: HubCall): Promise<unknown> {
    if (!run) throw new Error('this turn of the bot is over')
    if (of === 'tools') return runTool(this.#options.tools, name, given)
    // The other side took it from the same interface.
    const method = run.records[name] as (...given: readonly unknown[]) => Promise<unknown>
    return method(...given)
  }
}

const post = (worker: Worker, message: ToWorker): void => worker.postMessage(message, [])

function toPlain(given: Asked): PlainAsked {
  const { signal: _, turn, ...asked } = given
  if (!turn) return asked
  const { signal: _signal, asksConsent: _asks, ...plain } = turn
  return { ...asked, turn: plain }
}
