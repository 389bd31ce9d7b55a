import type { HubEvent } from '../../core/events.ts'
import type { Middleware, Turn } from '../../core/turn.ts'
import { compose } from '../../core/turn.ts'
import type { Figure } from '../figures.ts'
import type { Lab } from '../lab.ts'

const passOn: Middleware = async function* (turn, next) {
  yield* next(turn)
}

/** Events through middlewares that pass everything on, in this process. */
export function layers(lab: Lab): Promise<Figure[]> {
  const { events } = lab.sizes.layers
  async function* deltas(): AsyncGenerator<HubEvent> {
    for (let count = events; count > 0; count--) yield { type: 'message.delta', message: 'm', text: 'word ' }
  }
  const stacks = [0, 1, 3, 10].map((depth) => {
    const stack = Array.from({ length: depth }, () => passOn)
    return [`${depth} layers`, compose(stack, deltas)] as const
  })
  return lab.rounds('layers', new Map(stacks), async (respond) => {
    const from = performance.now()
    let count = 0
    for await (const _ of respond({} as Turn)) count += 1
    return { 'an event, µs': ((performance.now() - from) * 1000) / count }
  })
}
