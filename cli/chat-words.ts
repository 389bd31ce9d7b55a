import type { NumberedEvent } from '../core/events.ts'

/** A bot's words as they are, Markdown and all, without the characters by which a terminal is told what to do. */
export const plain = (text: string): string => text.replaceAll('\r\n', '\n').replaceAll(/(?![\n\t])\p{Cc}/gu, '')

/** What is said about an event that is no words of an answer; undefined for those that go without saying. */
export function eventLine(event: NumberedEvent): string | undefined {
  const line = wordsFor(event)
  return line === undefined ? undefined : plain(line)
}

function wordsFor(event: NumberedEvent): string | undefined {
  switch (event.type) {
    case 'message.completed':
      return event.template && `[card: ${JSON.stringify(event.template)}]`
    case 'reasoning.completed':
      return `[thinks: ${event.text}]`
    case 'tool.started':
      return `[runs ${event.tool} ${JSON.stringify(event.input)}]`
    case 'tool.completed':
      return `[${event.isError ? 'failed' : 'done'}: ${JSON.stringify(event.output)}]`
    case 'suggestion':
      return `[you might ask: ${event.text}]`
    case 'attempt.failed':
      return `[busy: tries again in ${(event.retryInMs / 1000).toFixed(1)} s]`
    case 'turn.cancelled':
      return `[cancelled: ${event.by}]`
    case 'turn.failed':
    case 'turn.interrupted':
      return `[${event.error.code}: ${event.error.message}]`
    default:
      return undefined
  }
}
