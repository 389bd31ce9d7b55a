import { context, SpanKind, SpanStatusCode, trace } from '@opentelemetry/api'
import { AsyncLocalStorageContextManager } from '@opentelemetry/context-async-hooks'
import { BasicTracerProvider, InMemorySpanExporter, SimpleSpanProcessor } from '@opentelemetry/sdk-trace-base'
import type { ReadableSpan } from '@opentelemetry/sdk-trace-base'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { systemClock } from '../../core/clock.ts'
import type { HubEvent } from '../../core/events.ts'
import { tracing } from '../../core/tracing.ts'
import { HubError, local } from '../../index.ts'
import { turnOf } from '../fakes/turn.ts'
import { startHub } from '../support/hub.ts'

const exporter = new InMemorySpanExporter()

const spanOf = (name: string): ReadableSpan => {
  const spans = exporter.getFinishedSpans().filter((span) => span.name === name)
  expect(spans).toHaveLength(1)
  return spans[0]!
}

describe('without an SDK', () => {
  it('a turn is handed on as it is', () => {
    const events: AsyncIterable<HubEvent> = (async function* () {})()
    expect(tracing('local', systemClock)(turnOf('hello'), () => events)).toBe(events)
  })
})

describe('with an SDK', () => {
  beforeAll(() => {
    context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable())
    trace.setGlobalTracerProvider(new BasicTracerProvider({ spanProcessors: [new SimpleSpanProcessor(exporter)] }))
  })
  afterEach(() => exporter.reset())
  afterAll(() => {
    trace.disable()
    context.disable()
  })

  it('a turn is one span, with its attempts, its first words and what it used, and none of its words', async () => {
    let failures = 1
    const bot = local(async function* () {
      if (failures-- > 0) throw new HubError('upstream_unreachable', { notStarted: true })
      trace.getTracer('test').startSpan('request upstream').end()
      yield 'a secret '
      trace.getTracer('test').startSpan('later request').end()
      yield 'answer'
      yield { type: 'usage', inputTokens: 12, outputTokens: 3, totalTokens: 15, model: 'model-1' }
    })
    await using hub = await startHub({ bots: { support: bot } })
    const { turn, conversation } = await hub.ask('support', 'a secret question', { user: 'ada' })
    const span = spanOf('invoke_agent support')
    expect(span.kind).toBe(SpanKind.CLIENT)
    expect(span.status.code).toBe(SpanStatusCode.UNSET)
    expect(span.attributes).toEqual({
      'gen_ai.operation.name': 'invoke_agent',
      'gen_ai.provider.name': 'local',
      'gen_ai.agent.name': 'support',
      'gen_ai.conversation.id': conversation,
      'gen_ai.usage.input_tokens': 12,
      'gen_ai.usage.output_tokens': 3,
      'gen_ai.response.model': 'model-1',
      'bothub.turn.id': turn,
      'bothub.attempts': 2,
    })
    expect(span.events.map(({ name, attributes }) => ({ name, attributes }))).toEqual([
      {
        name: 'attempt.failed',
        attributes: { 'error.type': 'upstream_unreachable', 'bothub.retry_in_ms': expect.any(Number) },
      },
      { name: 'first_token', attributes: { 'bothub.since_accepted_ms': expect.any(Number) } },
    ])
    for (const child of ['request upstream', 'later request']) {
      expect(spanOf(child).parentSpanContext?.spanId).toBe(span.spanContext().spanId)
    }
    expect(JSON.stringify([span.attributes, span.events])).not.toMatch(/secret|ada/)
  })

  it('a turn that fails says by which code', async () => {
    const bot = local(() => {
      throw new HubError('upstream_auth', { cause: new Error('the vendor said something') })
    })
    await using hub = await startHub({ bots: { support: bot } })
    await hub.ask('support', 'hello')
    const span = spanOf('invoke_agent support')
    expect(span.status).toEqual({ code: SpanStatusCode.ERROR, message: 'upstream_auth' })
    expect(span.attributes['error.type']).toBe('upstream_auth')
    expect(span.events).toEqual([])
  })

  it('a stream that nobody reads to its end is closed, and its span ended', async () => {
    let isClosed = false
    const respond = tracing('local', systemClock)(turnOf('hello'), async function* (): AsyncGenerator<HubEvent> {
      try {
        for (;;) yield { type: 'message.delta', message: 'm', text: 'x' }
      } finally {
        isClosed = true
      }
    })
    for await (const event of respond) {
      expect(event.type).toBe('message.delta')
      break
    }
    expect(isClosed).toBe(true)
    expect(exporter.getFinishedSpans()).toHaveLength(1)
  })
})
