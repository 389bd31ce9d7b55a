import { parentPort, workerData } from 'node:worker_threads'
import { HubError } from '../../core/errors.ts'
import type { HubEvent } from '../../core/events.ts'
import type { Json } from '../../core/message.ts'
import type { Turn } from '../../core/turn.ts'
import type { BotClass } from './bot-core.ts'
import type { BotLogger, BotRecords } from './bot-host.ts'
import { fromPlainError, toPlainError } from './isolation.ts'
import type { HubCall, Job, LogLevel, PlainAsked, PlainError, WorkerStart } from './isolation.ts'
import { loadBot } from './load-bot.ts'
import { answer, invoke, isBotClass, methodsOf, suggest } from './run-bot.ts'
import type { BotServices } from './run-bot.ts'

/** What the hub tells a worker; `run` numbers the jobs, `call` what a job asks of the hub. */
export type ToWorker =
  | { readonly type: 'run'; readonly run: number; readonly asked: PlainAsked; readonly job: Job }
  | { readonly type: 'abort'; readonly run: number; readonly error: PlainError }
  | { readonly type: 'returned'; readonly call: number; readonly value: unknown }
  | { readonly type: 'threw'; readonly call: number; readonly error: PlainError }

/** What a worker tells the hub. */
export type FromWorker =
  | { readonly type: 'ready'; readonly methods: readonly string[] }
  | { readonly type: 'unusable'; readonly error: PlainError }
  | { readonly type: 'said'; readonly run: number; readonly piece: string | HubEvent }
  | { readonly type: 'done'; readonly run: number; readonly value?: Json | undefined }
  | { readonly type: 'failed'; readonly run: number; readonly error: PlainError }
  | { readonly type: 'log'; readonly level: LogLevel; readonly fields: object; readonly message: string | undefined }
  | ({ readonly type: 'call'; readonly run: number; readonly call: number } & HubCall)

// The thread of an isolated bot: its objects are made and run here, and what they need of the hub is asked for.

const beatMs = 50

const port = parentPort!
const start = workerData as WorkerStart
const post = (message: FromWorker): void => port.postMessage(message)
const aborts = new Map<number, AbortController>()
const calls = new Map<number, PromiseWithResolvers<unknown>>()
let callCount = 0

const counter = new Int32Array(start.beats)
setInterval(() => Atomics.add(counter, 0, 1), beatMs)

port.on('message', (message: ToWorker) => {
  switch (message.type) {
    case 'run':
      return void loading.then((Bot) => run(Bot, message.run, message.asked, message.job))
    case 'abort':
      return aborts.get(message.run)?.abort(fromPlainError(message.error))
    case 'returned':
      return settled(message.call)?.resolve(message.value)
    case 'threw':
      return settled(message.call)?.reject(fromPlainError(message.error))
    default:
  }
})

const loading = load()
loading.then(
  (Bot) => post({ type: 'ready', methods: [...methodsOf(Bot)] }),
  (error: unknown) => post({ type: 'unusable', error: toPlainError(error) }),
)

async function load(): Promise<BotClass> {
  const bot = await loadBot(new URL(start.module), start.export)
  if (isBotClass(bot)) return bot
  throw new HubError('config_invalid', {
    message: `${start.module}: only a class on BotCore can be isolated. Leave out \`isolate\`, or make the function a class.`,
  })
}

async function run(Bot: BotClass, number: number, plain: PlainAsked, job: Job): Promise<void> {
  const abort = new AbortController()
  aborts.set(number, abort)
  try {
    const value = await work(Bot, number, plain, job, abort.signal)
    post({ type: 'done', run: number, value })
  } catch (error) {
    post({ type: 'failed', run: number, error: toPlainError(error) })
  } finally {
    aborts.delete(number)
  }
}

async function work(
  Bot: BotClass,
  number: number,
  { turn: plain, ...rest }: PlainAsked,
  job: Job,
  signal: AbortSignal,
) {
  const services = servicesFor(number)
  const asked = { ...rest, signal }
  if (job.type === 'invoke') return invoke(Bot, { ...asked, ...turnOf(plain, signal) }, job, services)
  const said =
    job.type === 'suggest'
      ? suggest(Bot, asked, job.request, services)
      : answer(Bot, { ...asked, turn: { ...plain!, signal } }, services)
  for await (const piece of said) post({ type: 'said', run: number, piece })
  return undefined
}

const turnOf = (plain: PlainAsked['turn'], signal: AbortSignal): { readonly turn?: Turn } =>
  plain ? { turn: { ...plain, signal } } : {}

function servicesFor(number: number): BotServices {
  const ask = (call: HubCall): Promise<unknown> => {
    const id = ++callCount
    const waiting = Promise.withResolvers<unknown>()
    calls.set(id, waiting)
    post({ type: 'call', run: number, call: id, ...call })
    return waiting.promise
  }
  const records =
    <Name extends keyof BotRecords>(name: Name) =>
    (...given: Parameters<BotRecords[Name]>) =>
      // The hub calls the method of that name on the same interface.
      ask({ of: 'records', name, given }) as ReturnType<BotRecords[Name]>
  return {
    records: { find: records('find'), add: records('add'), change: records('change'), delete: records('delete') },
    callTool: (name, given) => ask({ of: 'tools', name, given }) as ReturnType<BotServices['callTool']>,
    logger: { debug: log('debug'), info: log('info'), warn: log('warn'), error: log('error') } satisfies BotLogger,
  }
}

const log = (level: LogLevel) => (fields: object, message?: string) => {
  try {
    post({ type: 'log', level, fields, message })
  } catch {
    // A function, say, cannot be moved.
    post({ type: 'log', level, fields: {}, message })
  }
}

function settled(call: number): PromiseWithResolvers<unknown> | undefined {
  const waiting = calls.get(call)
  calls.delete(call)
  return waiting
}
