import { AsyncLocalStorage, createHook } from 'node:async_hooks'
import type { Logger } from '../../core/log.ts'

/** Held for longer than this, in ms, the thread is blocked: every other bot and client waited. */
const blockedMs = 200

/** Whose code runs. */
interface Running {
  readonly bot: string
  readonly logger: Logger
}

const running = new AsyncLocalStorage<Running>()

/** When each piece of work under way began, innermost last; 0 for what is no bot's. */
const began: number[] = []
const hook = createHook({
  before() {
    began.push(running.getStore() ? performance.now() : 0)
  },
  after() {
    const from = began.pop()
    const who = from ? running.getStore() : undefined
    if (from && who) warnOf(who, performance.now() - from)
  },
})
/** Answers under way; the hook costs 2 µs for each continuation, so it is there only with them. */
let answers = 0

/** Runs a bot's stream, and says in its log when and for how long it held the thread, also after an await. */
export async function* watched<T>(who: Running, source: () => AsyncIterable<T>): AsyncGenerator<T> {
  answers += 1
  hook.enable()
  try {
    const iterator = timed(who, () => source()[Symbol.asyncIterator]())
    try {
      for (;;) {
        const step = await timed(who, () => iterator.next())
        if (step.done) return
        yield step.value
      }
    } finally {
      void timed(who, () => iterator.return?.())?.catch(() => {})
    }
  } finally {
    answers -= 1
    if (answers === 0) hook.disable()
  }
}

function timed<T>(who: Running, work: () => T): T {
  return running.run(who, () => {
    const from = performance.now()
    try {
      return work()
    } finally {
      warnOf(who, performance.now() - from)
    }
  })
}

function warnOf({ bot, logger }: Running, heldMs: number): void {
  if (heldMs <= blockedMs) return
  const ms = Math.round(heldMs)
  logger.warn(
    { bot, blockedMs: ms },
    `the bot ${bot} held the event loop for ${ms} ms, and everybody waited; do its work in pieces, or isolate it`,
  )
}
