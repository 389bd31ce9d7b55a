import { describe, expect, it } from 'vitest'
import { untilSilent } from '../../core/until-silent.ts'

const never = new Promise<never>(() => {})

describe('untilSilent', () => {
  it('passes everything on and cleans up the source', async () => {
    let cleaned = false
    async function* source() {
      try {
        yield 1
        yield 2
      } finally {
        cleaned = true
      }
    }
    expect(await Array.fromAsync(untilSilent(source(), 1000, 'bot_silent', new AbortController().signal))).toEqual([
      1, 2,
    ])
    expect(cleaned).toBe(true)
  })

  it('ends a source that hangs, with the code it was given', async () => {
    async function* source() {
      yield 1
      await never
    }
    const seen: number[] = []
    const reading = (async () => {
      for await (const each of untilSilent(source(), 20, 'bot_silent', new AbortController().signal)) seen.push(each)
    })()
    await expect(reading).rejects.toMatchObject({ code: 'bot_silent' })
    expect(seen).toEqual([1])
  })

  it('ends at once when the signal aborts, though the source does not heed it', async () => {
    async function* source() {
      yield 1
      await never
    }
    const abort = new AbortController()
    const reading = (async () => {
      for await (const _ of untilSilent(source(), 60_000, 'bot_silent', abort.signal)) abort.abort(new Error('stop'))
    })()
    await expect(reading).rejects.toThrow('stop')
  })
})
