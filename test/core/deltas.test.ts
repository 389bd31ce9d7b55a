import { describe, expect, it } from 'vitest'
import { isPlainDelta, numbered, toJson } from '../../core/deltas.ts'
import type { LoggedEvent, NumberedEvent } from '../../core/events.ts'

const texts = [
  '',
  'a word ',
  'quotes " and \\ backslashes',
  'line\nbreaks\r\tand \u0000\u001f\u007f\u2028\u2029',
  '字\u{1f600}é',
  // Halves of a pair, as a model that cuts its words anywhere yields them.
  '\ud83d',
  '\ude00 behind',
]
const plain = texts.map((text): LoggedEvent => ({ type: 'message.delta', message: `m${text}`, text }))
const others = [
  { type: 'message.delta', message: 'm', text: 'x', more: 1 },
  { type: 'message.delta', text: 'x', message: 'm' },
  { type: 'message.delta', message: 'm' },
  // As a bot written in JavaScript may say it.
  { type: 'message.delta', message: 'm', text: 5 },
  { type: 'message.delta', message: null, text: 'x' },
  { type: 'reasoning.delta', message: 'm', text: 'x' },
  { type: 'message.completed', message: 'm', text: 'x', payload: { seq: 3 } },
] as unknown as readonly LoggedEvent[]

describe('an event of the log', () => {
  it.each([...plain, ...others])('has its number first, and all that it had behind it: %j', (event) => {
    expect(JSON.stringify(numbered(7, event))).toBe(JSON.stringify({ seq: 7, ...event }))
  })

  it.each([...plain, ...others])('is the same JSON as by JSON.stringify: %j', (event) => {
    const given = { seq: 7, ...event } as NumberedEvent
    expect(toJson(given)).toBe(JSON.stringify(given))
  })

  it('is a plain delta when number, message and text are all there is to know of it', () => {
    expect(plain.map((event) => isPlainDelta(numbered(1, event)))).toEqual(plain.map(() => true))
    expect(others.map((event) => isPlainDelta(numbered(1, event)))).toEqual(others.map(() => false))
  })
})
