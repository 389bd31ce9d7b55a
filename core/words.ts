import { HubError } from './errors.ts'
import type { HubEvent } from './events.ts'

/**
 * Words become one message, which is whole when something else happens or all is said; what only accompanies it does
 * not end it. `before` is how many messages the turn has shown already.
 * @throws HubError `bot_failed` for what is neither words nor an event
 */
export async function* wordsToEvents(said: AsyncIterable<string | HubEvent>, before: number): AsyncGenerator<HubEvent> {
  // A turn that goes on after an answer says new messages, not more of those it has finished.
  let count = before
  let words: string[] = []
  function* close(): Generator<HubEvent> {
    if (words.length > 0) yield { type: 'message.completed', message: `message-${count}`, text: words.join('') }
    words = []
  }
  for await (const each of said) {
    if (typeof each === 'string') {
      if (each === '') continue
      if (words.length === 0) count += 1
      words.push(each)
      yield { type: 'message.delta', message: `message-${count}`, text: each }
    } else if (typeof each === 'object' && each !== null && typeof each.type === 'string') {
      if (!beside.has(each.type)) yield* close()
      yield each
    } else {
      throw new HubError('bot_failed', { cause: new TypeError(`a bot yields strings and events, not ${typeof each}`) })
    }
  }
  yield* close()
}

const beside: ReadonlySet<HubEvent['type']> = new Set(['usage', 'raw', 'upstream'])
