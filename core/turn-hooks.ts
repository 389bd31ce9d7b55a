import type { Deliverer } from './outbox.ts'
import type { Duration } from './settings.ts'
import type { Store, TurnEnd } from './store.ts'
import { untilAborted } from './until-aborted.ts'

/** A turn that has ended, as a hook is told of it. */
export interface EndedTurn extends TurnEnd {
  /** What was answered; absent where the turn was deleted before the hook was told. */
  readonly text?: string
}

/** Something that is done elsewhere for every turn that has ended. */
export interface TurnHook {
  /** What is owed to it is kept under this name, so keep it. */
  readonly name: string
  /** How long one try may take. Default 30 s; then it is tried again, so heed `signal`. */
  readonly timeout?: Duration
  /**
   * Is called at least once for every ended turn, in no order; throwing has it called again, for days. `turn.turn` is
   * the same each time: write under that key, so that twice is once.
   * @example
   * async run({ turn, key, usage }, signal) {
   *   await db.query('INSERT INTO costs VALUES ($1, $2, $3) ON CONFLICT DO NOTHING', [turn, key, usage?.totalTokens])
   * }
   */
  run(turn: EndedTurn, signal: AbortSignal): unknown
}

/** A hook of the config after all checks; `timeout` in ms. */
export interface CheckedHook extends TurnHook {
  readonly timeout: number
}

/** Tells a hook what the outbox holds for it. */
export const delivererToHook =
  (hook: CheckedHook, store: Pick<Store, 'result'>): Deliverer =>
  async ({ payload }, stopping) => {
    // The store gives back what `toTurnEnd` made.
    const end = payload as unknown as TurnEnd
    const result = await store.result(end.turn)
    const signal = AbortSignal.any([stopping, AbortSignal.timeout(hook.timeout)])
    // Whatever it throws, and however.
    const run = async () => hook.run({ ...end, ...(result ? { text: result.text } : {}) }, signal)
    await untilAborted(run(), signal)
  }
