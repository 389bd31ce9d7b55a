import { checkConfig, defineConfig, HubError, rest } from 'bothub'
import { redact } from '../../core/settings.ts'
import { startHub } from '../support/hub.ts'
import { checks, Skipped } from './checks.ts'
import { Line } from './line.ts'
import { isVendor, vendors } from './vendors.ts'
import type { Vendor } from './vendors.ts'

/** How long one check may take; a platform under load is slow. */
const patienceMs = 120_000

interface Result {
  readonly title: string
  readonly outcome: 'passed' | 'skipped' | 'FAILED'
  readonly seconds: number
  readonly note: string
}

/** Tries a platform with the key that the environment holds, tells what it finds, and gives the exit code. */
export async function live(name: string, tell: (text: string) => void): Promise<number> {
  if (isVendor(name)) return tryVendor(name, vendors[name], tell)
  tell(`Name the platform to try: npm run live -- ${Object.keys(vendors).join(' | ')}\n`)
  return 64
}

async function tryVendor(title: string, vendor: Vendor, tell: (text: string) => void): Promise<number> {
  const problem = problemOf(vendor)
  if (problem !== undefined) {
    tell(`${problem}\n${vendor.optional}\n`)
    return 78
  }
  const line = new Line(vendor)
  await using hub = await startHub({ bots: { bot: vendor.bot(), wrong: vendor.withWrongKey() } }, { fetch: line.fetch })
  const results: Result[] = []
  for (const check of checks) {
    const result = await resultOf(check.title, () => check.run({ hub, line, longQuestion: longQuestion() }), hub.log)
    results.push(result)
    tell(`${row(result)}\n`)
  }
  tell(`\n${summary(title, results)}\n`)
  return results.some(({ outcome }) => outcome === 'FAILED') ? 1 : 0
}

/** What the check of a config says of the bot, whose variables may not be set. */
function problemOf(vendor: Vendor): string | undefined {
  try {
    checkConfig(defineConfig({ bots: { bot: vendor.bot() }, channels: { rest: rest() } }))
    return undefined
  } catch (error) {
    if (!(error instanceof HubError)) throw error
    return error.message
  }
}

const longQuestion = () =>
  process.env['LIVE_LONG_QUESTION'] ?? 'Write a story of about two thousand words about a lighthouse.'

type Log = readonly Record<string, unknown>[]

async function resultOf(title: string, run: () => Promise<string | void>, log: Log): Promise<Result> {
  const startedAt = performance.now()
  const logged = log.length
  const seconds = () => (performance.now() - startedAt) / 1000
  try {
    const note = await inTime(run())
    return { title, outcome: 'passed', seconds: seconds(), note: note ?? '' }
  } catch (error) {
    if (error instanceof Skipped) return { title, outcome: 'skipped', seconds: seconds(), note: error.message }
    return {
      title,
      outcome: 'FAILED',
      seconds: seconds(),
      note: [wordsOf(error), ...reasonsIn(log.slice(logged))].join('\n'),
    }
  }
}

async function inTime<T>(promise: Promise<T>): Promise<T> {
  const late = Promise.withResolvers<never>()
  const timer = setTimeout(() => late.reject(new Error(`took longer than ${patienceMs / 1000} s`)), patienceMs)
  try {
    return await Promise.race([promise, late.promise])
  } finally {
    clearTimeout(timer)
  }
}

/** The first line: what assertions print below it compares the two sides once more. */
const wordsOf = (error: unknown): string => (error instanceof Error ? error.message : String(error)).split('\n')[0]!

/** What the hub's log says went wrong meanwhile, which may be the platform's own words; no secret is in it. */
const reasonsIn = (log: Log): string[] =>
  log
    .filter(({ level }) => typeof level === 'number' && level >= 40)
    .map(({ msg, code, err }) => redact(`log: ${[msg, code, messageOf(err)].filter(Boolean).join(', ')}`))

const messageOf = (error: unknown): unknown =>
  typeof error === 'object' && error !== null && 'message' in error ? error.message : undefined

const widest = Math.max(...checks.map(({ title }) => title.length))

function row({ title, outcome, seconds, note }: Result): string {
  const [first = '', ...more] = note.split('\n')
  const head = `${title.padEnd(widest)}  ${outcome.padEnd(7)}  ${seconds.toFixed(1).padStart(6)} s  ${first}`.trimEnd()
  return [head, ...more.map((each) => `    ${each}`)].join('\n')
}

function summary(title: string, results: readonly Result[]): string {
  const count = (outcome: Result['outcome']) => results.filter((result) => result.outcome === outcome).length
  return `${title}: ${count('passed')} passed, ${count('skipped')} skipped, ${count('FAILED')} failed, of ${results.length}`
}
