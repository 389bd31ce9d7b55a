import type { z } from 'zod'

/**
 * What is said behind the name of a field that is missing or of the wrong kind; for the `error` of a parse. Everything
 * else, and what a schema says by itself, stays as it is.
 */
export function issueWords({ code, input, ...issue }: z.core.$ZodRawIssue): string | undefined {
  if (input === undefined && (code === 'invalid_type' || code === 'invalid_value')) return 'is missing'
  const kind = code === 'invalid_type' && kinds.get(String(issue['expected']))
  return kind ? `must be ${kind}` : undefined
}

const kinds: ReadonlyMap<string, string> = new Map([
  ['string', 'a string'],
  ['number', 'a number'],
  ['int', 'a whole number'],
  ['boolean', '`true` or `false`'],
  ['array', 'an array'],
  ['object', 'an object'],
  ['record', 'an object'],
])
