import { createHash, randomBytes } from 'node:crypto'
import { z } from 'zod'

/** A new id such as `turn_0mg3k…`: letters and digits only, and ids made later sort later. */
export const newId = (kind: 'turn' | 'conv' | 'msg' | 'file', now = Date.now()): string =>
  `${kind}_${now.toString(36).padStart(9, '0')}${BigInt(`0x${randomBytes(10).toString('hex')}`)
    .toString(36)
    .padStart(16, '0')}`

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
