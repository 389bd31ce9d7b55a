import { context, SpanKind, SpanStatusCode, trace } from '@opentelemetry/api'
import type { Attributes, Context, Span } from '@opentelemetry/api'
import type { Clock } from './clock.ts'
import { asHubError } from './errors.ts'
import type { HubEvent } from './events.ts'
import { Flow, flowOf, inParts, tap } from './flow.ts'
import type { Parts } from './flow.ts'
import type { Middleware, Respond, Turn } from './turn.ts'

/**
 * A span for every turn, as the outermost middleware, in the words of OpenTelemetry's conventions for GenAI; of a turn
 * that waited, one for each part. What the provider does runs inside it, so that spans of its requests are children.
 * Where nobody has brought an SDK the stream is left as it is. No span has a word of a message or the name of a user.
 */
export function tracing(provider: string, clock: Clock): Middleware {
  const tracer = trace.getTracer('bothub')
  return (turn, next) => {
    const span = tracer.startSpan(`invoke_agent ${turn.bot}`, {
      kind: SpanKind.CLIENT,
      attributes: attributesOf(turn, provider),
    })
    return span.isRecording() ? inParts(() => traced(turn, next, span, clock)) : next(turn)
  }
}

const attributesOf = (turn: Turn, provider: string): Attributes => ({
  'gen_ai.operation.name': 'invoke_agent',
  'gen_ai.provider.name': provider,
  'gen_ai.agent.name': turn.bot,
  'gen_ai.conversation.id': turn.conversation.id,
  'bothub.turn.id': turn.id,
})

async function* traced(turn: Turn, next: Respond, span: Span, clock: Clock): Parts<HubEvent> {
  const inside = trace.setSpan(context.active(), span)
  const state = { attempts: 1, hasSpoken: turn.shown.length > 0 }
  const events = new InContext(inside, () => next(turn))
  try {
    yield tap(events, (event) => note(event, span, state, () => clock.now() - turn.acceptedAt))
  } catch (error) {
    const { code } = asHubError(error, 'bot_failed')
    span.setAttribute('error.type', code)
    span.setStatus({ code: SpanStatusCode.ERROR, message: code })
    throw error
  } finally {
    span.setAttribute('bothub.attempts', state.attempts)
    span.end()
  }
}

/** A stream whose work is done in a context: what makes it runs in the context of whoever takes from it. */
class InContext<T> extends Flow<T> {
  readonly #inside: Context
  readonly #source: Flow<T>

  constructor(inside: Context, open: () => AsyncIterable<T>) {
    super()
    this.#inside = inside
    this.#source = context.with(inside, () => flowOf(open()))
  }

  take(): readonly T[] | undefined {
    return context.with(this.#inside, () => this.#source.take())
  }

  override get hasItems(): boolean {
    return this.#source.hasItems
  }

  whenReady(wake: () => void): void {
    this.#source.whenReady(wake)
  }

  close(): Promise<void> {
    return context.with(this.#inside, () => this.#source.close())
  }
}

function note(
  event: HubEvent,
  span: Span,
  state: { attempts: number; hasSpoken: boolean },
  sinceAcceptedMs: () => number,
): void {
  switch (event.type) {
    case 'attempt.failed':
      state.attempts++
      span.addEvent('attempt.failed', { 'error.type': event.error.code, 'bothub.retry_in_ms': event.retryInMs })
      return
    case 'message.delta':
      if (state.hasSpoken) return
      state.hasSpoken = true
      span.addEvent('first_token', { 'bothub.since_accepted_ms': sinceAcceptedMs() })
      return
    case 'usage':
      span.setAttribute('gen_ai.usage.input_tokens', event.inputTokens)
      span.setAttribute('gen_ai.usage.output_tokens', event.outputTokens)
      if (event.model) span.setAttribute('gen_ai.response.model', event.model)
  }
}
