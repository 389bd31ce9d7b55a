import { HubError } from '../../core/errors.ts'
import { flatMap, inParts } from '../../core/flow.ts'
import type { Flow, Parts } from '../../core/flow.ts'
import type { Json } from '../../core/message.ts'
import type { EventResponse } from '../../core/sse.ts'
import { AsgardError, lossOf, refusalOf } from './errors.ts'
import { errorDetailOf, factKeys, isEventType, objectOf, readAnswer, readEvent, runFailure } from './wire.ts'
import type { AsgardEvent, AsgardEventType, AsgardFacts } from './wire.ts'

/** The facts of an event: that of its own type, unless it was malformed, and of the others none. */
export type AsgardFact = {
  readonly [Type in AsgardEventType as (typeof factKeys)[Type]]?: AsgardFacts[Type] | null
}

/**
 * One event of a run. `eventType` is one of the `SseEventType…` constants, or one that a later Asgard brings. A fact is
 * typed as Asgard documents it; only what makes it useful is checked, not every field.
 */
export interface GenericBotSseEvent extends Omit<AsgardEvent, 'fact'> {
  readonly fact: AsgardFact
}

/** An event and the `lastEventId` behind it. */
export interface PlacedEvent {
  readonly event: GenericBotSseEvent
  readonly lastEventId: string | undefined
}

/**
 * The events of a run, for one `for await`. The loop ends after `run.done` and throws otherwise: an `AsgardError` when
 * the run fails, the connection is lost or silent, or the signal's reason. Close it when you are done; that leaves the
 * run alone, which goes on upstream until it ends or is suspended.
 */
export class BotProviderStreamer implements AsyncIterable<GenericBotSseEvent>, Disposable {
  /** `X-Trace-Id` of the answer. */
  readonly traceId: string | undefined
  /**
   * The events with their places, as many at once as have come: for whoever reads them in place of the loop.
   * @internal
   */
  readonly placed: Flow<PlacedEvent>
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
    this.placed = inParts(() => this.#read())
    this.#events = this.#one()
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

  async *#one(): AsyncGenerator<GenericBotSseEvent, void, undefined> {
    for await (const { event, lastEventId } of this.placed) {
      this.#lastEventId = lastEventId
      yield event
      if (this.#closed) return
    }
  }

  async *#read(): Parts<PlacedEvent> {
    const { status, headers } = this.#response
    const refuse = (body: string) => {
      if (readAnswer(body)?.isSuccess === false) throw refusalOf({ status, headers, body })
    }
    let lastEventId: string | undefined
    let isDone = false
    try {
      yield flatMap(this.#response.events(refuse), ({ id, data }, stop): PlacedEvent[] => {
        lastEventId = id ?? lastEventId
        const event = readEvent(data)
        if (event.eventType === 'asgard.run.error') throw runError(event)
        isDone = event.eventType === 'asgard.run.done'
        if (isDone) stop()
        return [{ event: sound(event), lastEventId }]
      })
      if (!isDone) throw new HubError('upstream_cut')
    } catch (error) {
      if (this.#closed) return
      this.#error = this.#signal?.aborted ? this.#signal.reason : lossOf(error)
      throw this.#error
    } finally {
      this.#response.close()
    }
  }
}

/** The event, without its fact where that is not what its type says. */
function sound(event: AsgardEvent): AsgardEvent {
  const key = isEventType(event.eventType) ? factKeys[event.eventType] : ''
  const fact = event.fact[key]
  if (fact === undefined || fact === null || fits(event.eventType, fact)) return event
  return { ...event, fact: { ...event.fact, [key]: null } }
}

function fits(type: string, value: Json): boolean {
  if (typeof value !== 'object' || Array.isArray(value)) return false
  const fact = objectOf(value)
  const { messageId, text } = objectOf(fact['message'])
  if (/^asgard\.message\.(?!user$|feedback$)/.test(type))
    return typeof messageId === 'string' && typeof text === 'string'
  if (type === 'asgard.tool_call.consent') return Array.isArray(fact['pendingCalls'])
  return !type.startsWith('asgard.tool_call.') || typeof objectOf(fact['toolCall'])['toolName'] === 'string'
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
