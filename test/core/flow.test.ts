import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { flatMap, flowOf, forEach, inParts, oneByOne, Queue, tap } from '../../core/flow.ts'
import type { Flow } from '../../core/flow.ts'
import { Pulse } from '../../core/pulse.ts'

/** Items as any stream gives them, and then perhaps a failure. */
async function* stream<T>(items: Iterable<T>, failure?: Error): AsyncGenerator<T> {
  for (const item of items) yield item
  if (failure) throw failure
}

type Look<T> = (item: T) => void

/** Both ways to read a stream: the second one takes the short way through layers wherever there is one. */
const readers: readonly (readonly [string, <T>(items: AsyncIterable<T>, look: Look<T>) => Promise<void>])[] = [
  [
    'for await',
    async (items, look) => {
      for await (const item of items) look(item)
    },
  ],
  ['forEach', forEach],
]

/** What a stream gives and what it fails with. */
async function allOf<T>(
  items: AsyncIterable<T>,
  read = readers[0]![1],
): Promise<{ readonly items: T[]; readonly error?: unknown }> {
  const seen: T[] = []
  try {
    await read(items, (item) => void seen.push(item))
    return { items: seen }
  } catch (error) {
    return { items: seen, error }
  }
}

/** A stream that notes when it is left. */
function noted(log: string[], name: string): AsyncGenerator<number> {
  return (async function* () {
    try {
      for (let item = 1; ; item++) yield item
    } finally {
      log.push(`${name} left`)
    }
  })()
}

const failure = new Error('it broke')

describe('a flow of any stream', () => {
  it('gives its items, its end and its failure', async () => {
    expect(await allOf(flowOf(stream([1, 2])))).toEqual({ items: [1, 2] })
    expect(await allOf(flowOf(stream([1, 2], failure)))).toEqual({ items: [1, 2], error: failure })
  })

  it('is over when it has failed', async () => {
    const flow = flowOf(stream([], failure))
    expect(flow.take()).toEqual([])
    await flow.ready()
    expect(() => flow.take()).toThrow(failure)
    expect(flow.take()).toBeUndefined()
  })

  it('asks the stream for one item at a time, and for none before it is asked itself', async () => {
    let asked = 0
    const flow = flowOf(
      (async function* () {
        for (;;) yield ++asked
      })(),
    )
    expect(asked).toBe(0)
    expect(flow.take()).toEqual([])
    await flow.ready()
    expect(flow.take()).toEqual([1])
    await Promise.resolve()
    expect(asked).toBe(1)
  })

  it('is itself where it is one already', () => {
    const queue = new Queue<number>()
    expect(flowOf(queue)).toBe(queue)
  })
})

describe('a queue', () => {
  it('gives at once all that was pushed, and says when it was taken', () => {
    let taken = 0
    const queue = new Queue<number>({ onTaken: () => taken++ })
    for (const item of [1, 2, 3]) queue.push(item)
    expect(queue.take()).toEqual([1, 2, 3])
    expect(queue.take()).toEqual([])
    expect(taken).toBe(1)
  })

  it('fails behind what was pushed, and takes nothing after', async () => {
    const queue = new Queue<number>()
    queue.push(1)
    queue.fail(failure)
    queue.push(2)
    queue.fail(new Error('another'))
    expect(await allOf(queue)).toEqual({ items: [1], error: failure })
  })

  it.each([
    ['an item', (queue: Queue<number>) => queue.push(1), [1]],
    ['the end', (queue: Queue<number>) => queue.end(), undefined],
  ])('wakes whoever waits for it with %s', async (_, come, given) => {
    const queue = new Queue<number>()
    expect(queue.take()).toEqual([])
    const ready = queue.ready()
    come(queue)
    await ready
    expect(queue.take()).toEqual(given)
  })

  it('with a pulse wakes those who wait for it and its like together', async () => {
    const pulse = new Pulse(() => 0)
    const queues = [new Queue<number>({ pulse }), new Queue<number>({ pulse })]
    const waits = queues.map(async (queue) => {
      await queue.ready()
      return queue.take()
    })
    for (const [index, queue] of queues.entries()) {
      queue.push(index)
      queue.push(index + 10)
    }
    expect(await Promise.all(waits)).toEqual([
      [0, 10],
      [1, 11],
    ])
  })

  it('that was left holds nothing', async () => {
    const queue = new Queue<number>()
    queue.push(1)
    await queue.close()
    queue.push(2)
    expect(queue.take()).toBeUndefined()
  })
})

describe('flatMap', () => {
  it('says nothing, one thing or several in the place of an item', async () => {
    const flow = flatMap(stream([0, 1, 2, 3]), (count) => Array.from({ length: count }, () => count))
    expect(await allOf(flow)).toEqual({ items: [1, 2, 2, 3, 3, 3] })
  })

  it('gives what was said before it fails, of items that came together', async () => {
    const queue = new Queue<number>()
    for (const item of [1, 2, 3]) queue.push(item)
    const flow = flatMap(queue, (item) => {
      if (item === 3) throw failure
      return [item]
    })
    expect(await allOf(flow)).toEqual({ items: [1, 2], error: failure })
  })

  it('fails with its source', async () => {
    expect(await allOf(flatMap(stream([1], failure), (item) => [item]))).toEqual({ items: [1], error: failure })
  })

  it('that stops gives nothing of what came together behind it, and leaves the source', async () => {
    const log: string[] = []
    const flow = flatMap(noted(log, 'source'), (item, stop) => {
      if (item === 2) stop()
      return [item]
    })
    expect(await allOf(flow)).toEqual({ items: [1, 2] })
    expect(log).toEqual(['source left'])
    const queue = new Queue<number>()
    for (const item of [1, 2, 3]) queue.push(item)
    expect(
      await allOf(
        flatMap(queue, (item, stop) => {
          if (item === 2) stop()
          return [item]
        }),
      ),
    ).toEqual({ items: [1, 2] })
  })
})

describe('forEach', () => {
  it('takes one item after the other, and waits where there is something to wait for', async () => {
    const done: string[] = []
    await forEach(stream([1, 2, 3]), (item) => {
      done.push(`begun ${item}`)
      if (item !== 2) return
      return Promise.resolve().then(() => void done.push(`waited for ${item}`))
    })
    expect(done).toEqual(['begun 1', 'begun 2', 'waited for 2', 'begun 3'])
  })

  it('leaves the stream where it is stopped, where the work fails and where the stream does', async () => {
    const log: string[] = []
    await forEach(noted(log, 'stopped'), (_, stop) => stop())
    const failing = forEach(noted(log, 'failed'), () => {
      throw failure
    })
    await expect(failing).rejects.toBe(failure)
    await expect(forEach(stream([1], failure), () => {})).rejects.toBe(failure)
    expect(log).toEqual(['stopped left', 'failed left'])
  })

  it('does nothing with what came together with the item it was stopped at', async () => {
    const queue = new Queue<number>()
    for (const item of [1, 2, 3]) queue.push(item)
    const seen: number[] = []
    await forEach(queue, (item, stop) => {
      seen.push(item)
      if (item === 2) stop()
    })
    expect(seen).toEqual([1, 2])
  })
})

describe('tap', () => {
  it('shows every item as it is taken, and changes none', async () => {
    const seen: number[] = []
    expect(await allOf(tap(stream([1, 2], failure), (item) => seen.push(item)))).toEqual({
      items: [1, 2],
      error: failure,
    })
    expect(seen).toEqual([1, 2])
  })
})

describe('a stream in parts', () => {
  it('is its parts one after the other, whatever they are', async () => {
    const flow = inParts<number>(async function* () {
      yield [1, 2]
      yield []
      yield stream([3, 4])
      yield inParts<number>(async function* () {
        yield [5]
      })
      await Promise.resolve()
      yield [6]
    })
    expect(await allOf(flow)).toEqual({ items: [1, 2, 3, 4, 5, 6] })
  })

  it('goes on behind a part only when all of it was taken', async () => {
    const log: string[] = []
    const flow = inParts<string>(async function* () {
      yield ['one', 'two']
      log.push('after the items')
      yield stream(['three'])
      log.push('after the stream')
    })
    for await (const item of flow) log.push(item)
    expect(log).toEqual(['one', 'two', 'after the items', 'three', 'after the stream'])
  })

  it('throws the failure of a part where it was yielded, so that another can take its place', async () => {
    const flow = inParts<number>(async function* () {
      try {
        yield stream([1], failure)
      } catch (error) {
        expect(error).toBe(failure)
        yield [2]
      }
    })
    expect(await allOf(flow)).toEqual({ items: [1, 2] })
  })

  it('fails with what its generator throws, behind what it gave', async () => {
    const flow = inParts<number>(async function* () {
      yield [1]
      throw failure
    })
    expect(await allOf(flow)).toEqual({ items: [1], error: failure })
  })

  it('that is left leaves its part first, and then cleans up', async () => {
    const log: string[] = []
    const flow = inParts<number>(async function* () {
      try {
        yield noted(log, 'part')
      } finally {
        log.push('cleaned up')
      }
    })
    for await (const item of flow) if (item === 3) break
    expect(log).toEqual(['part left', 'cleaned up'])
  })

  it('cleans up also where a part cannot be left in peace', async () => {
    const log: string[] = []
    const flow = inParts<number>(async function* () {
      try {
        yield {
          [Symbol.asyncIterator]: () => ({
            next: async () => ({ value: 1, done: false }),
            return: () => Promise.reject(failure),
          }),
        }
      } finally {
        log.push('cleaned up')
      }
    })
    const reading = (async () => {
      for await (const _ of flow) break
    })()
    await expect(reading).rejects.toBe(failure)
    expect(log).toEqual(['cleaned up'])
  })

  it('that was never begun does nothing when it is left', async () => {
    const log: string[] = []
    const flow = inParts<number>(async function* () {
      log.push('begun')
      yield [1]
    })
    await flow.close()
    expect(log).toEqual([])
    expect(flow.take()).toBeUndefined()
  })

  it('hands on what another generator yields one by one, and keeps what it returns', async () => {
    let result = ''
    const flow = inParts<number>(async function* () {
      result = yield* oneByOne(
        (async function* () {
          yield 1
          yield 2
          return 'done'
        })(),
      )
    })
    expect(await allOf(flow)).toEqual({ items: [1, 2] })
    expect(result).toBe('done')
  })
})

describe.each(readers)('layers of flows that are read with %s', (_, read) => {
  /** Pushes what comes together, and goes on a moment later. */
  async function push<T>(queue: Queue<T>, batches: readonly (readonly T[])[], end?: Error): Promise<void> {
    for (const batch of batches) {
      for (const item of batch) queue.push(item)
      await Promise.resolve()
    }
    if (end) queue.fail(end)
    else queue.end()
  }
  const batches = fc.array(fc.array(fc.nat(20)))

  it('give the same items as layers of generators', async () => {
    const doubled = (item: number) => (item % 5 === 0 ? [] : item % 3 === 0 ? [item, item] : [item])
    async function* generator(items: AsyncIterable<number>): AsyncGenerator<number> {
      for await (const item of items) yield* doubled(item)
    }
    const flow = (items: AsyncIterable<number>): Flow<number> =>
      inParts(async function* () {
        yield tap(flatMap(items, doubled), () => {})
      })
    await fc.assert(
      fc.asyncProperty(batches, fc.boolean(), async (given, fails) => {
        const end = fails ? failure : undefined
        const queue = new Queue<number>()
        const pushing = push(queue, given, end)
        const through = await allOf(flow(flow(queue)), read)
        await pushing
        expect(through).toEqual(await allOf(generator(generator(stream(given.flat(), end)))))
      }),
    )
  })

  it('end, fail and go on with another part at the very item', async () => {
    const last = 7
    await fc.assert(
      fc.asyncProperty(
        batches,
        batches,
        fc.constantFrom('stops', 'throws', 'is looked at'),
        async (one, other, how) => {
          const queues = [new Queue<number>(), new Queue<number>()] as const
          const pushing = [push(queues[0], one), push(queues[1], other, failure)]
          const seen: number[] = []
          const check = (item: number) => {
            if (item === last) throw new Error('enough')
          }
          const cut = flatMap(queues[0], (item, stop) => {
            if (how === 'stops' && item === last) stop()
            if (how === 'throws') check(item)
            return [item]
          })
          const parts = inParts<number>(async function* () {
            try {
              yield how === 'is looked at' ? tap(cut, check) : cut
            } catch {
              yield [-1]
            }
            yield tap(queues[1], (item) => seen.push(item))
          })
          const all = await allOf(
            tap(parts, () => {}),
            read,
          )
          await Promise.all(pushing)
          const place = one.flat().indexOf(last)
          const first = place < 0 ? one.flat() : one.flat().slice(0, place)
          const behind = place < 0 ? [] : how === 'stops' ? [last] : [-1]
          expect(all).toEqual({ items: [...first, ...behind, ...other.flat()], error: failure })
          expect(seen).toEqual(other.flat())
        },
      ),
    )
  })

  it('leave a source behind that would say more, or nothing at all any more', async () => {
    for (const more of [[3, 4], []]) {
      const queue = new Queue<number>()
      const parts = inParts<number>(async function* () {
        yield flatMap(queue, (item, stop) => {
          if (item === 2) stop()
          return [item]
        })
        yield [5]
      })
      const seen: number[] = []
      const reading = read(parts, (item) => {
        seen.push(item)
        if (item === 2) for (const each of more) queue.push(each)
      })
      queue.push(1)
      await expect.poll(() => seen).toEqual([1])
      queue.push(2)
      await reading
      expect(seen).toEqual([1, 2, 5])
    }
  })
})
