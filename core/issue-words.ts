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
      return issue.format === 'regex' ? `must match ${issue.pattern}` : formats.get(issue.format)
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

const oneOf = (values: readonly unknown[]): string | undefined =>
  either(values.filter((value) => value !== undefined).map(literal))

const literal = (value: unknown): string => (typeof value === 'bigint' ? String(value) : JSON.stringify(value))

const either = (words: readonly string[]): string | undefined =>
  [words.slice(0, -1).join(', '), words.at(-1)].filter(Boolean).join(' or ') || undefined

const counted: ReadonlyMap<string, string> = new Map([
  ['string', 'character'],
  ['array', 'item'],
])
const numbers = new Set(['number', 'int', 'bigint'])

const count = (number: number | bigint, thing: string): string => `${number} ${thing}${Number(number) === 1 ? '' : 's'}`

function leastWords({ origin, minimum, inclusive, exact }: z.core.$ZodRawIssue<z.core.$ZodIssueTooSmall>) {
  if (numbers.has(origin)) return `must be ${inclusive ? 'at least' : 'more than'} ${minimum}`
  const thing = counted.get(origin)
  if (!exact && Number(minimum) === 1) return thing && 'must not be empty'
  return thing && `must have ${exact ? 'exactly' : 'at least'} ${count(minimum, thing)}`
}

function mostWords({ origin, maximum, inclusive, exact }: z.core.$ZodRawIssue<z.core.$ZodIssueTooBig>) {
  if (numbers.has(origin)) return `must be ${inclusive ? 'at most' : 'less than'} ${maximum}`
  const thing = counted.get(origin)
  return thing && `must have ${exact ? 'exactly' : 'at most'} ${count(maximum, thing)}`
}

function unionWords(issue: z.core.$ZodRawIssue<z.core.$ZodIssueInvalidUnion>): string | undefined {
  const { input, discriminator, options, errors } = issue
  if (Array.isArray(options)) return mustBe((input as Record<string, unknown>)[String(discriminator)], oneOf(options))
  if (input === undefined) return 'is missing'
  const words = [...new Set(nearest(errors).map(formInWords))]
  const kindsOf = words.map((each) => /^must be (?<kind>.+)$/.exec(each)?.groups?.['kind'])
  const kind = kindsOf.every((each) => each !== undefined) && either(kindsOf)
  return kind ? `must be ${kind}` : words.join(', or ') || undefined
}

/** What is of another kind may be too short besides. */
const formInWords = (form: readonly Issue[]): string => {
  const otherKind = form.find(({ code, path }) => code === 'invalid_type' && path.length === 0)
  return (otherKind ? [otherKind] : form).map(inWords).join(' and ')
}

const inWords = ({ path, message }: Issue): string => [path.join('.'), message].filter(Boolean).join(' ')

/** The forms with something wrong inside of them, or else those that could have been meant as a whole. */
function nearest(forms: readonly (readonly Issue[])[]): readonly (readonly Issue[])[] {
  const near = forms.filter((form) => form.every(isInside))
  return near.length > 0 ? near : forms.filter((form) => !form.every(isNone))
}

const ofTheKind = new Set(['too_small', 'too_big', 'unrecognized_keys'])
const isInside = (issue: Issue): boolean =>
  issue.path.length > 0 ||
  ofTheKind.has(issue.code) ||
  (issue.code === 'invalid_format' && issue.format !== 'template_literal')

/** An empty string stands for none, and is nothing to offer. */
const isNone = (issue: Issue): boolean => issue.code === 'invalid_value' && issue.values.includes('')

/**
 * The issues of a parse, where those of the one form of a union that was meant, as something is wrong inside of it rather
 * than as a whole, stand for that of the union.
 */
export const issuesOf = ({ issues }: { readonly issues: readonly Issue[] }): readonly Issue[] =>
  issues.flatMap((issue) => {
    if (issue.code !== 'invalid_union') return issue
    const [meant, ...others] = nearest(issue.errors.map((errors) => issuesOf({ issues: errors })))
    if (!meant || others.length > 0 || !meant.every(isInside)) return issue
    return meant.map((each) => ({ ...each, path: [...issue.path, ...each.path] }))
  })
