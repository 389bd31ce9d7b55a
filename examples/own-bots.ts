import { BotCore, defineConfig, local, rest, sqlite, sse } from 'bothub'

// Bots written in this process. Start it: npm start -- --config examples/own-bots.ts

/** A class with CloudBase's interface: it sends its answer piece by piece. */
class Spelling extends BotCore {
  override sendMessage({ msg }: { msg: string }) {
    for (const letter of msg) this.sseSender.send({ data: { content: `${letter}.` } })
    this.sseSender.end()
  }
}

export default defineConfig({
  store: sqlite({ file: ':memory:' }),
  bots: {
    // A function that returns its answer …
    parrot: local(({ message }) => `You said: ${message.text}`),
    // … or yields it as it comes, and sees what was said before.
    counter: local(async function* ({ history }) {
      yield 'Messages so far: '
      yield String(history.length)
    }),
    spelling: local(Spelling),
  },
  channels: { rest: rest(), sse: sse() },
})
