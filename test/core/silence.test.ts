import { afterEach, beforeEach, expect, it, vi } from 'vitest'
import { Silence } from '../../core/silence.ts'

beforeEach(() => void vi.useFakeTimers())
afterEach(() => void vi.useRealTimers())

it('calls back after each silence of its length, until it is ended', () => {
  let count = 0
  const silence = new Silence(100, () => (count += 1))
  vi.advanceTimersByTime(99)
  expect(count).toBe(0)
  vi.advanceTimersByTime(1)
  expect(count).toBe(1)
  vi.advanceTimersByTime(200)
  expect(count).toBe(3)
  silence.end()
  vi.advanceTimersByTime(1000)
  expect(count).toBe(3)
})

it('counts from the last sign of life', () => {
  let count = 0
  const silence = new Silence(100, () => (count += 1))
  for (const pause of [50, 99, 1, 99]) {
    vi.advanceTimersByTime(pause)
    silence.heard()
  }
  vi.advanceTimersByTime(99)
  expect(count).toBe(0)
  vi.advanceTimersByTime(1)
  expect(count).toBe(1)
  silence.end()
})

it('may be ended by whom it calls back', () => {
  let count = 0
  const silence: Silence = new Silence(100, () => {
    count += 1
    silence.end()
  })
  vi.advanceTimersByTime(1000)
  expect(count).toBe(1)
  expect(vi.getTimerCount()).toBe(0)
})
