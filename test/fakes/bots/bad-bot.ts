import { setTimeout as sleep } from 'node:timers/promises'
import { BotCore } from 'bothub/botcore'
import type { SendMessageInput } from 'bothub/botcore'

/** A bot with every bad habit; its message says which. */
export default class BadBot extends BotCore {
  override async sendMessage({ msg }: SendMessageInput): Promise<void> {
    const [habit, given] = msg.split(' ', 2)
    this.sseSender.send({ data: { content: 'so' } })
    switch (habit) {
      case 'throw':
        throw new Error('canary-of-the-bot')
      case 'hang':
        return new Promise(() => {})
      case 'block':
        await sleep(1)
        hold(Number(given))
        break
      case 'block-for-ever':
        await sleep(1)
        hold(Infinity)
        break
      case 'stray':
        // Nobody waits for it, so nobody can catch it.
        setTimeout(() => {
          throw new Error('canary-of-the-bot')
        })
        return new Promise(() => {})
      case 'exit':
        return process.exit(0)
      case 'flood':
        for (;;) this.sseSender.send({ data: { content: 'x'.repeat(1_048_576) } })
      case 'after-end':
        this.sseSender.end()
        await sleep(1)
        this.sseSender.send({ data: { content: 'too late' } })
        return
      case 'no-end':
        return
      default:
    }
    this.sseSender.end()
  }
}

function hold(ms: number): void {
  const until = performance.now() + ms
  while (performance.now() < until);
}
