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

/** Spelled out it is searched for in steps of its length: 52 ns in an event of a stream in place of 346 for `\d{16}`. */
const longNumber = new RegExp(String.raw`\d`.repeat(16))
const keepDigits = (_key: string, value: unknown, context?: { readonly source?: string }): unknown =>
  typeof value === 'number' && !Number.isSafeInteger(value) && /^-?\d+$/.test(context?.source ?? '')
    ? context!.source
    : value
