import { collectDefaultMetrics, Counter, Gauge, Histogram, Registry } from 'prom-client'
import type { Clock } from './clock.ts'
import type { HubEvent } from './events.ts'
import { inParts, tap } from './flow.ts'
import type { Parts } from './flow.ts'
import type { Backlog, DeliveryState, Lane, TurnStatus } from './store.ts'
import type { Middleware, Respond, Turn } from './turn.ts'

const seconds = [0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 300, 1800]
const shortSeconds = [0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 2]

// Of the process and not of a hub: registered once, however many hubs a test starts.
let processMetrics: Registry | undefined

/** What Prometheus is told, at `GET /metrics`. Durations are in seconds. */
export class Metrics {
  readonly #registry = new Registry()
  readonly #turns = new Counter({
    name: 'bothub_turns_total',
    help: 'Turns that ended.',
    labelNames: ['bot', 'channel', 'status'],
    registers: [this.#registry],
  })
  readonly #turnDuration = new Histogram({
    name: 'bothub_turn_duration_seconds',
    help: 'From the acceptance of a message to the end of its turn.',
    buckets: seconds,
    registers: [this.#registry],
  })
  readonly #firstDelta = new Histogram({
    name: 'bothub_first_delta_seconds',
    help: 'From the acceptance of a message to the first words of its answer.',
    buckets: seconds,
    registers: [this.#registry],
  })
  readonly #deltas = new Counter({
    name: 'bothub_deltas_total',
    help: 'Pieces of answers.',
    registers: [this.#registry],
  })
  readonly #attempts = new Counter({
    name: 'bothub_attempts_total',
    help: 'Tries at an answer: completed, failed, or failed and to be retried.',
    labelNames: ['outcome'],
    registers: [this.#registry],
  })
  readonly #deliveries = new Counter({
    name: 'bothub_deliveries_total',
    help: 'Tries of the outbox: delivered, pending (failed, to be tried again), failed or refused.',
    labelNames: ['lane', 'outcome'],
    registers: [this.#registry],
  })
  readonly #openStreams = new Gauge({
    name: 'bothub_open_streams',
    help: 'Event streams and sockets that are open.',
    labelNames: ['channel'],
    registers: [this.#registry],
  })
  readonly #commits = new Histogram({
    name: 'bothub_store_commit_seconds',
    help: 'One commit of the turn log.',
    buckets: shortSeconds,
    registers: [this.#registry],
  })

  constructor(backlog: () => Promise<Backlog>) {
    const gauge = (name: string, help: string, of: (waiting: Backlog) => number) =>
      new Gauge({
        name,
        help,
        registers: [this.#registry],
        async collect() {
          this.set(of(await backlog()))
        },
      })
    gauge('bothub_queue_depth', 'Turns behind the live one of their conversation.', (waiting) => waiting.queued)
    gauge('bothub_outbox_pending', 'Deliveries that have not arrived.', (waiting) => waiting.outbox)
    if (processMetrics) return
    processMetrics = new Registry()
    collectDefaultMetrics({ register: processMetrics })
  }

  /** `durationMs`: from the acceptance of its message to its end. */
  turnEnded(turn: { readonly bot: string; readonly channel: string }, status: TurnStatus, durationMs: number): void {
    this.#turns.inc({ bot: turn.bot, channel: turn.channel, status })
    this.#turnDuration.observe(durationMs / 1000)
  }

  /** Watches what bots say, as the outermost middleware. */
  watch(clock: Clock): Middleware {
    return (turn, next) => inParts(() => this.#watched(clock, turn, next))
  }

  async *#watched(clock: Clock, turn: Turn, next: Respond): Parts<HubEvent> {
    let silent = turn.shown.length === 0
    try {
      yield tap(next(turn), ({ type }) => {
        if (type === 'attempt.failed') this.#attempts.inc({ outcome: 'retried' })
        if (type !== 'message.delta') return
        this.#deltas.inc()
        if (silent) this.#firstDelta.observe((clock.now() - turn.acceptedAt) / 1000)
        silent = false
      })
      this.#attempts.inc({ outcome: 'completed' })
    } catch (error) {
      this.#attempts.inc({ outcome: 'failed' })
      throw error
    }
  }

  /** Counts a commit of the turn log, and how long it took. */
  commit(durationMs: number): void {
    this.#commits.observe(durationMs / 1000)
  }

  /** Counts a try of the outbox, and what became of it. */
  readonly delivery = (lane: Lane, outcome: DeliveryState['state']): void => {
    this.#deliveries.inc({ lane, outcome })
  }

  /** Counts the open streams of a channel. */
  openStreams(channel: string): { inc(): void; dec(): void } {
    const gauge = this.#openStreams.labels(channel)
    gauge.set(0)
    return gauge
  }

  /** In the text format of Prometheus. */
  async text(): Promise<string> {
    return `${await this.#registry.metrics()}${await processMetrics!.metrics()}`
  }

  readonly contentType = Registry.PROMETHEUS_CONTENT_TYPE
}
