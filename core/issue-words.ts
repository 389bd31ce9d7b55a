import type { z } from 'zod'

type Issue = z.core.$ZodIssue

/**
 * What is said behind the name of a field that is missing or wrong; for the `error` of a parse. What a schema says by
 * itself stays as it is.
 */
export function issueWords(issue: z.core.$ZodRawIssue): string | undefined {
  switch (issue.code) {
    case 'invalid_type':
      return mustBe(issue.input, kinds.get(issue.expected))
    case 'invalid_value':
      return mustBe(issue.input, oneOf(issue.values))
    case 'invalid_union':
      return unionWords(issue)
    case 'too_small':
      return leastWords(issue)
    case 'too_big':
      return mostWords(issue)
    case 'invalid_format':
      return formats.get(issue.format)
    default:
      return undefined
  }
}

const mustBe = (input: unknown, what: string | undefined): string | undefined => {
  if (input === undefined) return 'is missing'
  return what && `must be ${what}`
}

const kinds: ReadonlyMap<string, string> = new Map([
  ['string', 'a string'],
  ['number', 'a number'],
  ['int', 'a whole number'],
  ['boolean', '`true` or `false`'],
  ['array', 'an array'],
  ['object', 'an object'],
  ['record', 'an object'],
  ['null', '`null`'],
])

const formats: ReadonlyMap<string, string> = new Map([
  ['url', 'must be a URL'],
  ['email', 'must be an email address'],
])

const oneOf = (values: readonly unknown[]): string =>
  either(values.filter((value) => value !== undefined).map((value) => JSON.stringify(value)))

const either = (words: readonly string[]): string =>
  [words.slice(0, -1).join(', '), words.at(-1)].filter(Boolean).join(' or ')

function unionWords(issue: z.core.$ZodRawIssue<z.core.$ZodIssueInvalidUnion>): string | undefined {
  const { input, discriminator, options, errors } = issue
  if (Array.isArray(options)) return mustBe((input as Record<string, unknown>)[String(discriminator)], oneOf(options))
  if (input === undefined) return 'is missing'
  const words = [...new Set(errors.flat().map(({ message }) => message))]
  // It is several things at once.
  if (words.length === 0) return undefined
  const forms = words.map((each) => /^must be (?<form>.+)$/.exec(each)?.groups?.['form'])
  return forms.every((form) => form !== undefined) ? `must be ${either(forms)}` : words.join(', or ')
}

const counted: ReadonlyMap<string, string> = new Map([
  ['string', 'character'],
  ['array', 'item'],
])

const count = (number: number | bigint, thing: string): string => `${number} ${thing}${Number(number) === 1 ? '' : 's'}`

function leastWords({ origin, minimum, inclusive }: z.core.$ZodRawIssue<z.core.$ZodIssueTooSmall>): string {
  const thing = counted.get(origin)
  if (!thing) return `must be ${inclusive ? 'at least' : 'more than'} ${minimum}`
  return Number(minimum) === 1 ? 'must not be empty' : `must have at least ${count(minimum, thing)}`
}

function mostWords({ origin, maximum, inclusive }: z.core.$ZodRawIssue<z.core.$ZodIssueTooBig>): string {
  const thing = counted.get(origin)
  return thing
    ? `must have at most ${count(maximum, thing)}`
    : `must be ${inclusive ? 'at most' : 'less than'} ${maximum}`
}

/**
 * The issues of a parse, where one of a union stands for those of its forms: of the form that was meant, where only one has
 * something wrong inside of it rather than as a whole.
 */
export const issuesOf = ({ issues }: { readonly issues: readonly Issue[] }): readonly Issue[] =>
  issues.flatMap((issue) => {
    if (issue.code !== 'invalid_union') return issue
    const forms = issue.errors.map((errors) => issuesOf({ issues: errors }))
    const [meant, ...others] = forms.filter((form) => form.every(isInside))
    if (!meant || others.length > 0) return issue
    return meant.map((each) => ({ ...each, path: [...issue.path, ...each.path] }))
  })

const isInside = ({ path, code }: Issue): boolean => path.length > 0 || code === 'too_small' || code === 'too_big'
