/**
 * bothub/client: asks the bots of a hub from a browser or from Node, and loses no event of an answer, whatever becomes
 * of the connection.
 */
import type { ConsentDecision, NumberedEvent, ToolOutput } from '../core/events.ts'
import { overSse } from './sse.ts'
import type { HubClientOptions, Place, Question, Request, Transport } from './transport.ts'
import { HubClientError, newName, ownError } from './transport.ts'
import { overWebSocket } from './websocket.ts'

export { HubClientError } from './transport.ts'
export type { HubClientOptions } from './transport.ts'
export type { ConsentDecision, NumberedEvent, ToolCall, ToolOutput } from '../core/events.ts'

/** What may be said beside the words; as in `POST /api/v1/bots/{bot}/messages`. */
export interface AskOptions extends Partial<Omit<Question, 'bot' | 'text'>> {
  /** Ends the reading, and not the turn; see `cancel`. */
  readonly signal?: AbortSignal
}

/**
 * The answer to a message, as its numbered events: each of them once and in order, until the turn ends. The message
 * goes out when the reading begins. Who leaves the loop leaves the answer, and may go on with another loop; a turn that
 * nobody reads is cancelled after a while, unless its bot says otherwise. Read a turn in one place at a time.
 */
export interface Answer extends AsyncIterable<NumberedEvent> {
  /** `turn_…`, known with the first event. With `seq` it is the place to come back to, see `HubClient.follow`. */
  readonly turn?: string
  /** Number of the last event that was given out; 0 before the first. */
  readonly seq: number
  /**
   * Reads to the end.
   * @returns the whole text of a turn that was completed
   * @throws HubClientError with the code of the failure, or `cancelled`
   */
  text(): Promise<string>
  /** Decides about calls that wait for consent; resolves when the hub has taken it. */
  decide(decisions: readonly ConsentDecision[]): Promise<void>
  /** Gives the outputs of calls that wait for them. */
  giveOutputs(outputs: readonly ToolOutput[]): Promise<void>
  /** Stops the turn, which then ends with `turn.cancelled`. */
  cancel(): Promise<void>
}

/** A way to a hub. */
export interface HubClient extends Disposable {
  /** Says something to a bot. Without a `conversation` it is the first thing in a new one. */
  ask(bot: string, text: string, options?: AskOptions): Answer
  /** Goes on with a turn behind an event of it, as a page does that was loaded again. */
  follow(turn: string, options?: { readonly after?: number; readonly signal?: AbortSignal }): Answer
  /** Closes the socket that is kept for the next question; answers that are being read open another one. */
  close(): void
}

/**
 * Makes a client of a hub.
 * @example
 * const hub = hubClient({ url: 'http://localhost:9527' })
 * for await (const event of hub.ask('main', 'hello')) {
 *   if (event.type === 'message.delta') console.log(event.text)
 * }
 */
export function hubClient(options: HubClientOptions): HubClient {
  const transport = options.transport === 'websocket' ? overWebSocket(options) : overSse(options)
  const close = () => transport.close()
  const read = (from: MovingPlace, signal = new AbortController().signal) => answer(transport, options, from, signal)
  return {
    ask: (bot, text, { signal, ...more } = {}) =>
      read({ seq: 0, question: { id: newName(), conversation: newName(), ...more, bot, text } }, signal),
    follow: (turn, { after = 0, signal } = {}) => read({ seq: after, turn }, signal),
    close,
    [Symbol.dispose]: close,
  }
}

/** Moves with its reader. */
type MovingPlace = { -readonly [Field in keyof Place]: Place[Field] }

function answer(transport: Transport, options: HubClientOptions, place: MovingPlace, given: AbortSignal): Answer {
  async function ask(request: Request): Promise<void> {
    if (!place.turn) throw new TypeError('Read the first event before.')
    const signal = AbortSignal.any([given])
    const { wait } = patience(options, signal)
    for (let isRepeated = false; ; isRepeated = true) {
      try {
        return await transport.ask(place.turn, request, signal)
      } catch (error) {
        // It had arrived the first time; what was lost is the answer to it.
        if (isRepeated && error instanceof HubClientError && error.code === 'already_decided') return
        await wait(error)
      }
    }
  }
  return Object.assign(place, {
    async *[Symbol.asyncIterator](): AsyncGenerator<NumberedEvent, void> {
      const left = new AbortController()
      const signal = AbortSignal.any([given, left.signal])
      const { wait, renew } = patience(options, signal)
      try {
        for (;;) {
          let last: string | undefined
          try {
            signal.throwIfAborted()
            for await (const { turn, event } of transport.read(place, signal, renew)) {
              if (!event) return
              if (event.seq <= place.seq) continue
              place.turn = turn
              place.seq = event.seq
              last = event.type
              yield event
              // Completed, failed, cancelled or interrupted; neither started nor waiting.
              if (/^turn\.[cfi]/.test(last)) return
            }
            // A request is answered when its turn waits; how it goes on is another one.
            if (last !== 'turn.waiting') await wait()
          } catch (error) {
            await wait(error)
          }
        }
      } finally {
        left.abort()
      }
    },
    async text(this: Answer) {
      for await (const event of this) {
        if (event.type === 'turn.completed') return event.text
        if ('error' in event && event.type !== 'attempt.failed') throw new HubClientError(event.error)
      }
      throw ownError('cancelled', 'The turn was cancelled.')
    },
    decide: (decisions: readonly ConsentDecision[]) => ask({ type: 'consent', decisions }),
    giveOutputs: (outputs: readonly ToolOutput[]) => ask({ type: 'tool-outputs', outputs }),
    cancel: () => ask({ type: 'cancel' }),
  })
}

/** How long to wait for a hub that cannot be reached, and when to give up. */
function patience({ giveUpAfterMs = 60_000 }: HubClientOptions, signal: AbortSignal) {
  /** When the hub was first missed, ms since the epoch. */
  let since = 0
  return {
    /** The hub has answered. */
    renew: () => {
      since = 0
    },
    /** Resolves when it is time to try again; throws what that cannot mend, or has not mended for too long. */
    wait: async (broken?: unknown) => {
      signal.throwIfAborted()
      const error = broken instanceof HubClientError ? broken : lost(broken)
      since ||= Date.now()
      const elapsedMs = Date.now() - since
      if (!passing.test(error.code) || elapsedMs > giveUpAfterMs) throw error
      // Soon at first, and never all clients at once: a turn does not wait long for its reader.
      const waitMs = (error.retryAfterMs ?? 0) + Math.random() * Math.min(4000, 200 + elapsedMs)
      await new Promise((resolve) => {
        setTimeout(resolve, waitMs)
        signal.addEventListener('abort', resolve)
      })
    },
  }
}

const passing = /^(unreachable|shutting_down|(store|auth)_unavailable)$/

const lost = (cause: unknown) =>
  ownError('unreachable', 'The hub was not reached: check address, origins, network.', cause)
