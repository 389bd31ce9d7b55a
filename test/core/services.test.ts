import { describe, expect, it } from 'vitest'
import { Services, token } from '../../core/services.ts'

const number = token<number>('number')

describe('services', () => {
  it('makes a service once, when it is first asked for, and lets the first registration win', () => {
    const services = new Services()
    let made = 0
    services.provide(number, () => ++made).provide(number, () => 99)
    expect(made).toBe(0)
    expect([services.get(number), services.get(number)]).toEqual([1, 1])
  })

  it('names the token that nobody provided', () => {
    expect(() => new Services().get(number)).toThrow(/number/)
  })

  it('keeps two containers apart', () => {
    const one = new Services().provide(number, () => 1)
    const two = new Services().provide(number, () => 2)
    expect([one.get(number), two.get(number)]).toEqual([1, 2])
  })

  it('closes in reverse order, all of it, also when one fails', async () => {
    const services = new Services()
    const closed: string[] = []
    services.defer(() => void closed.push('opened first'))
    services.defer(() => {
      throw new Error('stuck')
    })
    services.defer(async () => void closed.push('opened last'))
    await expect(services[Symbol.asyncDispose]()).rejects.toThrow('stuck')
    expect(closed).toEqual(['opened last', 'opened first'])
  })
})
