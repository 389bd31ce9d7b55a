import { HubError } from '../../core/errors.ts'
import type { EventResponse } from '../../core/sse.ts'
import { AsgardError, lossOf, refusalOf } from './errors.ts'
import { errorDetailOf, objectOf, readAnswer, readEvent, runFailure } from './wire.ts'
import type { AsgardEvent, AsgardEventType, AsgardFacts, factKeys } from './wire.ts'

/** The facts of an event: that of its own type is there, the others are null or absent. */
export type AsgardFact = {
  readonly [Type in AsgardEventType as (typeof factKeys)[Type]]?: AsgardFacts[Type] | null
}

/**
 * One event of a run. `eventType` is one of the `SseEventType…` constants, or one that a later Asgard brings. What is
 * inside `fact` is typed as Asgard documents it and is not checked.
 */
export interface GenericBotSseEvent extends Omit<AsgardEvent, 'fact'> {
  readonly fact: AsgardFact
}

/**
 * The events of a run, for one `for await`. The loop ends after `run.done` and throws otherwise: an `AsgardError` when
 * the run fails, the connection is lost or silent, or the signal's reason. Close it when you are done; that leaves the
 * run alone, which goes on upstream until it ends or is suspended.
 */
export class BotProviderStreamer implements AsyncIterable<GenericBotSseEvent>, Disposable {
  /** `X-Trace-Id` of the answer. */
  readonly traceId: string | undefined
  readonly #response: EventResponse
  readonly #signal: AbortSignal | undefined
  readonly #events: AsyncGenerator<GenericBotSseEvent, void, undefined>
  #lastEventId: string | undefined
  #error: unknown
  #closed = false

  constructor(response: EventResponse, signal: AbortSignal | undefined) {
    this.traceId = response.headers.get('x-trace-id') ?? undefined
    this.#response = response
    this.#signal = signal
    this.#events = this.#read()
  }

  /** Where to go on after a lost connection: the `lastEventId` option of another stream. */
  get lastEventId(): string | undefined {
    return this.#lastEventId
  }

  /** What the loop threw, the same object; undefined while there is nothing, and after an end that is none. */
  err(): unknown {
    return this.#error
  }

  /** Closes the connection. A loop that is waiting ends quietly. */
  close(): void {
    this.#closed = true
    this.#response.close()
  }

  [Symbol.asyncIterator](): AsyncGenerator<GenericBotSseEvent, void, undefined> {
    return this.#events
  }

  [Symbol.dispose](): void {
    this.close()
  }

  async *#read(): AsyncGenerator<GenericBotSseEvent, void, undefined> {
    const { status, headers } = this.#response
    const refuse = (body: string) => {
      if (readAnswer(body)?.isSuccess === false) throw refusalOf({ status, headers, body })
    }
    try {
      for await (const { id, data } of this.#response.events(refuse)) {
        if (id !== undefined) this.#lastEventId = id
        const event = readEvent(data)
        if (event.eventType === 'asgard.run.error') throw runError(event)
        // Documented, and not checked: a wrong type in one field must not cost the event.
        yield event
        if (this.#closed || event.eventType === 'asgard.run.done') return
      }
      throw new HubError('upstream_cut')
    } catch (error) {
      if (this.#closed) return
      this.#error = this.#signal?.aborted ? this.#signal.reason : lossOf(error)
      throw this.#error
    } finally {
      this.#response.close()
    }
  }
}

function runError({ fact }: AsgardEvent): AsgardError {
  const error = objectOf(objectOf(fact['runError'])['error'])
  const detail = errorDetailOf(error)
  return new AsgardError(detail?.message || 'The run failed and gave no reason.', {
    errorCode: detail?.code ?? '',
    detail,
    cause: runFailure(error),
  })
}
