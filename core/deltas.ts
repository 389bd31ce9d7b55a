import type { LoggedEvent, NumberedEvent } from './events.ts'

// Nearly all events are pieces of text. Of the CPU that one of them takes in a burst, 7 µs in all, the short ways here save
// 0.35.

/** A numbered `message.delta` of this form and order, and with nothing else in it. */
export type PlainDelta = NumberedEvent & { readonly type: 'message.delta' }

const keys: readonly string[] = ['seq', 'type', 'message', 'text'] satisfies (keyof PlainDelta)[]

/** Whether the event can be made again, to the byte, from its number, message and text. */
export const isPlainDelta = (event: NumberedEvent): event is PlainDelta => isPlain(event, 0)

/** Plugins may be written in JavaScript, and yield what no type allows. */
function isPlain(event: LoggedEvent, firstKey: number): event is LoggedEvent & { readonly type: 'message.delta' } {
  if (event.type !== 'message.delta' || typeof event.text !== 'string' || typeof event.message !== 'string')
    return false
  let place = firstKey
  for (const key in event) if (key !== keys[place++]) return false
  return place === keys.length
}

/** An event with its number, which comes first. A literal takes 14 ns, a spread behind a key 98. */
export const numbered = (seq: number, event: LoggedEvent): NumberedEvent =>
  isPlain(event, 1) ? { seq, type: event.type, message: event.message, text: event.text } : { seq, ...event }

/** What `JSON.stringify` makes of an event, in half the time. */
export const toJson = (event: NumberedEvent): string =>
  isPlainDelta(event)
    ? `{"seq":${event.seq},"type":"message.delta","message":${quoted(event.message)},"text":${quoted(event.text)}}`
    : JSON.stringify(event)

/** Quotes, backslashes, control characters and halves of surrogate pairs. */
const toEscape = /[^ !#-[\]-\ud7ff\ue000-\uffff]/

/** What `JSON.stringify` makes of a string. */
export const quoted = (text: string): string => (toEscape.test(text) ? JSON.stringify(text) : `"${text}"`)
