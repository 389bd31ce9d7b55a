import type { Figure, Round } from '../figures.ts'
import { figuresOf } from '../figures.ts'
import { askBot, later, makeFolder, startHub } from '../hub.ts'
import type { Lab } from '../lab.ts'
import type { Server } from '../process.ts'
import { fillStore } from '../fill.ts'

/** A page of a long conversation and a message into it, with more and more stored beside them. */
export async function history(lab: Lab): Promise<Figure[]> {
  const { messages, samples } = lab.sizes.history
  using folder = makeFolder()
  const figures: Figure[] = []
  let turns = 0
  for (const count of messages) {
    await fillStore(folder.path, { from: turns, to: count / 2, say: lab.say })
    turns = count / 2
    await using hub = await startHub(folder.path, await lab.upstream())
    const found = await lab.rounds('history', new Map([[`hub, ${count} messages`, samples]]), (asked) =>
      readAndWrite(lab, hub, asked),
    )
    figures.push(...found)
  }
  return figures
}

async function readAndWrite({ load }: Lab, hub: Server, samples: number): Promise<Round> {
  const page = { url: `${hub.url}/api/v1/bots/echo/conversations/c0/messages?limit=50` }
  const read = await load.ask('times', page, samples)
  const cpuBefore = hub.cpuMs()
  const written = await load.ask('times', later(askBot(hub.url, 'echo', 'hello', { conversation: 'c0' })), samples)
  const cpuMs = (hub.cpuMs() - cpuBefore) / samples
  return { 'page p99, ms': read.p99, 'append p50, ms': written.p50, 'CPU an append, ms': cpuMs }
}

/** From the start of the program to the moment it listens, with an empty store and with a full one. */
export async function start(lab: Lab): Promise<Figure[]> {
  const figures: Figure[] = []
  for (const turns of lab.sizes.start.turns) {
    using folder = makeFolder()
    await fillStore(folder.path, { from: 0, to: turns, say: lab.say })
    const rounds: Round[] = []
    while (rounds.length < lab.sizes.rounds) {
      const from = performance.now()
      await using hub = await startHub(folder.path, await lab.upstream())
      rounds.push({ 'start, ms': performance.now() - from, 'RSS, MiB': hub.rssKiB() / 1024 })
    }
    figures.push(...figuresOf('start', `hub, ${turns} turns stored`, rounds))
  }
  return figures
}
