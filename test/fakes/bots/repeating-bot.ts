import { BotCore } from 'bothub/botcore'
import type { SendMessageInput } from 'bothub/botcore'

/** Says what it is told, word by word. */
export default class RepeatingBot extends BotCore {
  override sendMessage({ msg }: SendMessageInput): void {
    for (const content of msg.split(/(?<=\s)/)) this.sseSender.send({ data: { content } })
    this.sseSender.end()
  }
}

/** Never says a word. */
export class SilentBot extends BotCore {
  override sendMessage(): Promise<void> {
    return new Promise(() => {})
  }
}

/** A bot that is no class. */
export const asFunction = (): string => 'from a function'
