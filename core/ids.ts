import { createHash, randomBytes } from 'node:crypto'
import { z } from 'zod'

/** A new id such as `turn_0mg3k…`: letters and digits only, and ids made later sort later. */
export const newId = (kind: 'turn' | 'conv' | 'msg' | 'file' | 'record' | 'call', now = Date.now()): string =>
  `${kind}_${now.toString(36).padStart(9, '0')}${BigInt(`0x${randomBytes(10).toString('hex')}`)
    .toString(36)
    .padStart(16, '0')}`

/** The kinds of ids whose letters can be written as one decimal number. */
type Countable = 'turn' | 'conv' | 'file' | 'record'

const lettersForm = /^[a-z]+_(?<letters>[0-9a-z]{25})$/

/**
 * An id of the hub's own as a decimal number, for dialects whose ids are digits. It needs no table to be read, keeps the
 * order of the ids, and is larger than 64 bits: it stays a string.
 */
export function toDecimal(id: string): string {
  const letters = lettersForm.exec(id)?.groups?.['letters'] ?? ''
  let number = 0n
  for (const letter of letters) number = number * 36n + BigInt(Number.parseInt(letter, 36))
  return String(number)
}

/** Ids begin with the time, so that the numbers of all that were made since 1972 have at least 36 digits. */
const decimalForm = /^[1-9]\d{35,39}$/

/** The id of a kind that a decimal number names; undefined for what no id of the hub can be. */
export function fromDecimal(kind: Countable, digits: string): string | undefined {
  if (!decimalForm.test(digits)) return undefined
  const letters = BigInt(digits).toString(36).padStart(25, '0')
  return letters.length === 25 ? `${kind}_${letters}` : undefined
}

/** Digits of the part of a decimal id that counts what the id has. */
const countDigits = 10

/** What is number so and so of a turn or a conversation, such as an event, as one decimal number; it grows with both. */
export const toNumbered = (id: string, number: number): string =>
  `${toDecimal(id)}${String(number).padStart(countDigits, '0')}`

/** The id and the number in what `toNumbered` made; undefined for what it cannot have made. */
export function fromNumbered(
  kind: Countable,
  digits: string,
): { readonly id: string; readonly number: number } | undefined {
  const number = digits.slice(-countDigits)
  const id = /^\d{10}$/.test(number) ? fromDecimal(kind, digits.slice(0, -countDigits)) : undefined
  return id === undefined ? undefined : { id, number: Number(number) }
}

/** The same digest for the same parts, whatever stands in them: for names that must not tell what they were made of. */
export const digest = (...parts: readonly string[]): string =>
  createHash('sha256').update(JSON.stringify(parts)).digest('hex')

/** Whether a name is an id of the hub's own rather than one that a client chose. */
export const isConversationId = (name: string): boolean => name.startsWith('conv_')

/** An id or a name that a client chose: 1 to 256 characters, none of them a control character. */
export const clientName = z
  .string()
  .min(1)
  .max(256)
  .regex(/^[^\p{Cc}]*$/u, 'must not contain control characters')
