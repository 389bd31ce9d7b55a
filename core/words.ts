import { HubError } from './errors.ts'
import type { HubEvent } from './events.ts'
import { flatMap, inParts } from './flow.ts'
import type { Flow, Parts } from './flow.ts'

/**
 * Words become one message, which is whole when something else happens or all is said; what only accompanies it does
 * not end it. `before` is how many messages the turn has shown already.
 * @throws HubError `bot_failed` for what is neither words nor an event
 */
export const wordsToEvents = (said: AsyncIterable<string | HubEvent>, before: number): Flow<HubEvent> =>
  inParts(() => eventsOf(said, before))

async function* eventsOf(said: AsyncIterable<string | HubEvent>, before: number): Parts<HubEvent> {
  // A turn that goes on after an answer says new messages, not more of those it has finished.
  let count = before
  let words: string[] = []
  function close(): HubEvent[] {
    const text = words.join('')
    words = []
    return text === '' ? [] : [{ type: 'message.completed', message: `message-${count}`, text }]
  }
  yield flatMap(said, (piece): HubEvent[] => {
    if (typeof piece === 'string') {
      if (piece === '') return []
      if (words.length === 0) count += 1
      words.push(piece)
      return [{ type: 'message.delta', message: `message-${count}`, text: piece }]
    }
    if (typeof piece === 'object' && piece !== null && typeof piece.type === 'string')
      return beside.has(piece.type) ? [piece] : [...close(), piece]
    throw new HubError('bot_failed', { cause: new TypeError(`a bot yields strings and events, not ${typeof piece}`) })
  })
  yield close()
}

const beside: ReadonlySet<HubEvent['type']> = new Set(['usage', 'raw', 'upstream'])
