import { fromDecimal, fromNumbered, toDecimal, toNumbered } from '../../core/ids.ts'

/*
 * Coze's ids are decimal strings. These are read back without a table: a chat's and a conversation's are those of the
 * turn and the conversation, a message's is its chat's and a number.
 */

/** What kind of message a number stands for, so that no two messages of a chat have the same one. */
export type MessageKind = 'question' | 'answer' | 'note' | 'finish' | 'call' | 'output'

const kinds: readonly MessageKind[] = ['question', 'answer', 'note', 'finish', 'call', 'output']
const kindSize = 1_000_000_000

/** A message of a turn: which one of its kind. */
export interface MessagePlace {
  readonly turn: string
  readonly kind: MessageKind
  readonly number: number
}

/** The id of a message. */
export const toMessageId = ({ turn, kind, number }: MessagePlace): string =>
  toNumbered(turn, kinds.indexOf(kind) * kindSize + number)

/** The record of a message that no chat has said; undefined for what is no such message's id. */
export const recordOf = (id: string): string | undefined => fromDecimal('record', id)

/** The message of a chat that an id names; undefined for what is no such message's id. */
export function fromMessageId(id: string): MessagePlace | undefined {
  const place = fromNumbered('turn', id)
  const kind = place && kinds[Math.floor(place.number / kindSize)]
  return kind && { turn: place.id, kind, number: place.number % kindSize }
}

/** The id of a turn's chat, of a conversation or a file. */
export const toCozeId = toDecimal

/** The turn whose chat has this id. */
export const turnOfChat = (id: string): string | undefined => fromDecimal('turn', id)

/** The hub's id of a conversation. */
export const conversationOf = (id: string): string | undefined => fromDecimal('conv', id)

/** The hub's id of a file. */
export const fileOf = (id: string): string | undefined => fromDecimal('file', id)

/** The id of a section of a conversation. */
export const toSectionId = (conversation: string, section: number): string => toNumbered(conversation, section)
