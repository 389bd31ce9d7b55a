import { z } from 'zod'
import { defineProvider } from '../../core/plugin.ts'

/** A bot without an upstream: it says what it was told, word by word. For examples and first tests. */
export const echo = defineProvider({
  manifest: { name: 'echo' },
  options: z.strictObject({
    prefix: z.string().default('').describe('Said before the words.'),
    pauseMs: z.int().nonnegative().default(0).describe('Between two words.'),
  }),
  create: ({ prefix, pauseMs }, { clock }) => ({
    async *respond({ message, signal }) {
      const words = `${prefix}${message.text}`.split(/(?<=\s)/)
      for (const word of words) {
        if (pauseMs > 0) await clock.sleep(pauseMs, signal)
        yield { type: 'message.delta', message: 'echo', text: word }
      }
      yield { type: 'message.completed', message: 'echo', text: words.join('') }
    },
  }),
})
