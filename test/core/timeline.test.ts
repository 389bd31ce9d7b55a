import { describe, expect, it } from 'vitest'
import type { LoggedEvent } from '../../core/events.ts'
import type { TurnRow } from '../../core/store.ts'
import { TimelineReader, upstreamNames } from '../../core/timeline.ts'

const turn = (changes: Partial<TurnRow> = {}): TurnRow => ({
  id: 'turn_1',
  bot: 'bot',
  key: 'local',
  conversation: { id: 'conv_1', name: 'c' },
  message: { id: 'm', text: 'hello', files: [] },
  status: 'running',
  channel: 'rest',
  debug: false,
  bypassConsent: false,
  detached: false,
  compacted: false,
  seq: 1,
  epoch: 1,
  ranMs: 0,
  createdAt: 0,
  startedAt: 0,
  ...changes,
})

/** What a reader tells at `now` of events with their times. */
function timelineOf(row: TurnRow, events: readonly (readonly [at: number, event: LoggedEvent])[], now: number) {
  const reader = new TimelineReader(row)
  for (const [index, [at, event]] of events.entries()) reader.add({ event: { seq: index + 2, ...event }, at })
  return reader.read(now)
}

const delta: LoggedEvent = { type: 'message.delta', message: 'm', text: 'so' }
const done: LoggedEvent = { type: 'turn.completed', text: 'so' }
const error = { code: 'upstream_busy', message: 'Busy.', retryable: true }
const failed: LoggedEvent = { type: 'attempt.failed', attempt: 1, error, retryInMs: 500 }
const call = { call: 'one', tool: 'mail', input: {}, alreadyAllowed: false }

describe('a timeline', () => {
  it('has a stall wherever nothing came for more than a second, but not before the first', () => {
    const told = timelineOf(
      turn(),
      [
        [5000, delta],
        [6000, delta],
        [7001, delta],
        [9500, done],
      ],
      9500,
    )
    expect(told).toEqual({
      phases: [{ phase: 'attempt', from: 0, to: 9500, attempt: 1 }],
      firstDeltaAt: 5000,
      stalls: [
        { from: 6000, to: 7001, after: 3 },
        { from: 7001, to: 9500, after: 4 },
      ],
    })
  })

  it('has an open stall of a turn that is silent now', () => {
    expect(timelineOf(turn(), [[10, delta]], 900).stalls).toEqual([])
    expect(timelineOf(turn(), [[10, delta]], 2000).stalls).toEqual([{ from: 10, after: 2 }])
  })

  it('takes a pause before the next attempt for no stall, and one that is still to come for a pause', () => {
    expect(timelineOf(turn(), [[100, failed]], 300).phases).toEqual([
      { phase: 'attempt', from: 0, to: 100, attempt: 1, error: 'upstream_busy' },
      { phase: 'backoff', from: 100 },
    ])
    expect(timelineOf(turn(), [[100, failed]], 5000)).toMatchObject({
      phases: [{}, { phase: 'backoff', from: 100, to: 600 }, { phase: 'attempt', from: 600, attempt: 2 }],
      stalls: [],
    })
  })

  it('ends a pause with the turn, where that ends in it', () => {
    const cancelled: LoggedEvent = { type: 'turn.cancelled', text: '', by: 'client' }
    const { phases } = timelineOf(
      turn(),
      [
        [100, failed],
        [200, cancelled],
      ],
      9000,
    )
    expect(phases.at(-1)).toEqual({ phase: 'backoff', from: 100, to: 200 })
  })

  it('has an attempt that began a little before its time, and failed', () => {
    const { phases } = timelineOf(
      turn({ status: 'failed', endedAt: 599 }),
      [
        [100, failed],
        [599, { type: 'turn.failed', text: '', error }],
      ],
      9000,
    )
    expect(phases.slice(1)).toEqual([
      { phase: 'backoff', from: 100, to: 599 },
      { phase: 'attempt', from: 599, to: 599, attempt: 2, error: 'upstream_busy' },
    ])
    expect(
      timelineOf(
        turn(),
        [
          [100, failed],
          [400, delta],
        ],
        9000,
      ).phases.slice(1),
    ).toEqual([
      { phase: 'backoff', from: 100, to: 400 },
      { phase: 'attempt', from: 400, attempt: 2 },
    ])
  })

  it('waits until every call has its answer', () => {
    const { phases, stalls } = timelineOf(
      turn(),
      [
        [10, { type: 'consent.requested', calls: [call, { ...call, call: 'two' }] }],
        [10, { type: 'turn.waiting', for: 'consent' }],
        [4000, { type: 'consent.answered', decisions: [{ call: 'one', result: 'allow_once' }], by: 'user' }],
        [8000, { type: 'consent.answered', decisions: [{ call: 'two', result: 'deny_once' }], by: 'user' }],
        [9500, delta],
      ],
      9600,
    )
    expect(phases).toEqual([
      { phase: 'attempt', from: 0, to: 10, attempt: 1 },
      { phase: 'waiting', from: 10, to: 8000 },
      { phase: 'attempt', from: 8000, attempt: 1 },
    ])
    expect(stalls).toEqual([])
  })

  it('tells of a turn without times when it was queued, and when it began and ended', () => {
    const { startedAt: _, ...old } = turn({ status: 'failed', endedAt: 700 })
    const reader = new TimelineReader(old)
    reader.add({ event: { seq: 2, type: 'turn.failed', text: '', error } })
    expect(reader.read(900)).toEqual({ phases: [{ phase: 'attempt', from: 0, to: 700, attempt: 1 }], stalls: [] })
    const queued = timelineOf(turn({ startedAt: 300, status: 'completed', endedAt: 900 }), [[900, done]], 1000)
    expect(queued.phases).toEqual([
      { phase: 'queued', from: 0, to: 300 },
      { phase: 'attempt', from: 300, to: 900, attempt: 1 },
    ])
  })

  it('names what the upstream calls it, and nothing that was said', () => {
    expect(
      upstreamNames(
        turn({
          thread: { conversationId: '73' },
          cursor: { chatId: '74', seen: ['a'], input: 'x'.repeat(300), calls: [{ call: 'secret' }] },
        }),
      ),
    ).toEqual({ conversationId: '73', chatId: '74' })
    expect(upstreamNames(turn())).toEqual({})
  })
})
