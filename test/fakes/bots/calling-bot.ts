import { BotCore } from 'bothub/botcore'
import type { SendMessageInput } from 'bothub/botcore'

/** One call of a method of the bot: `['chatRecord.list', { … }]`. `'$0.data.id'` is a result of an earlier step, `'$msg'` the message. */
export type Call = readonly [path: string, ...given: unknown[]]

/** A bot that is told in its message which of its methods to call, and answers with what they gave, as JSON. */
export default class CallingBot extends BotCore {
  override async sendMessage({ msg }: SendMessageInput): Promise<void> {
    const results: unknown[] = []
    for (const [path, ...given] of JSON.parse(msg) as readonly Call[]) {
      const filled = given.map((each) => fill(each, Object.assign([...results], { msg })))
      results.push(await this.#call(path, filled))
    }
    this.sseSender.send({ data: { content: JSON.stringify(results) } })
    this.sseSender.end()
  }

  async #call(path: string, given: readonly unknown[]): Promise<unknown> {
    try {
      const names = path.split('.')
      const owner = names.slice(0, -1).reduce<unknown>((at, name) => Reflect.get(Object(at), name), this)
      const member: unknown = Reflect.get(Object(owner), names.at(-1)!)
      return typeof member === 'function' ? await Reflect.apply(member, owner, given) : member
    } catch (error) {
      return { threw: error instanceof Error ? error.message : 'no error' }
    }
  }

  async getRecommendQuestions({ msg }: { readonly [field: string]: unknown }): Promise<void> {
    this.sseSender.send({ data: { content: `What else about ${String(msg)}?\nWho` } })
    this.sseSender.send({ data: { content: ' are you?\n\n' } })
    this.sseSender.end()
  }

  getBotInfo(input: { readonly [field: string]: unknown }): unknown {
    return { botId: this.botId, name: 'Calling', asked: input, conversation: this.context.host.conversation?.name }
  }

  async wxSendMessage(): Promise<void> {
    await this.chatRecord.create({ data: { content: 'from outside', conversation: 'wx', image: 'a.png' } })
  }
}

function fill(given: unknown, results: object): unknown {
  if (typeof given === 'string' && given.startsWith('$')) {
    return given
      .slice(1)
      .split('.')
      .reduce<unknown>((at, name) => Reflect.get(Object(at), name), results)
  }
  if (Array.isArray(given)) return given.map((each) => fill(each, results))
  if (typeof given !== 'object' || given === null) return given
  return Object.fromEntries(Object.entries(given).map(([name, each]) => [name, fill(each, results)]))
}
