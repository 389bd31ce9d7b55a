import type { Json } from './message.ts'

/**
 * Parses a vendor's JSON without losing digits: an integer beyond 2^53, as some vendors' ids are, comes as a string.
 * Undefined when the text is no JSON.
 */
export function parseExactJson(text: string): Json | undefined {
  try {
    return (longNumber.test(text) ? JSON.parse(text, keepDigits) : JSON.parse(text)) as Json
  } catch {
    return undefined
  }
}

const longNumber = /\d{16}/
const keepDigits = (_key: string, value: unknown, context?: { readonly source?: string }): unknown =>
  typeof value === 'number' && !Number.isSafeInteger(value) && /^-?\d+$/.test(context?.source ?? '')
    ? context!.source
    : value
