import { closest } from 'fastest-levenshtein'
import type { Json } from '../../core/message.ts'
import { anyRecord } from '../../core/records.ts'
import type { RecordCondition, RecordProperty } from '../../core/records.ts'
import { propertyOf, roleOf, roleWords } from './wire.ts'
import type { RecordOwner } from './wire.ts'

/** What a field has to be like. A plain value stands for `$eq`; several operators have to hold at once. */
export type FieldCondition = Json | Partial<Record<Operator, Json>>

/**
 * Which records: conditions on fields, all of which have to hold, and `$and` and `$or` of such. The operators are those
 * of CloudBase's data models.
 * @example { role: { $eq: 'user' }, createdAt: { $gt: Date.now() - 86_400_000 } }
 */
export type Where = { readonly $and?: readonly Where[]; readonly $or?: readonly Where[] } & {
  readonly [field: string]: FieldCondition | readonly Where[] | undefined
}

const maxDepth = 50

const operators = {
  $eq: (property, value) => equal(property, value),
  $neq: (property, value) => not(equal(property, value)),
  $gt: (property, value) => compared('greater', property, value),
  $gte: (property, value) => either(compared('greater', property, value), equal(property, value)),
  $lt: (property, value) => compared('less', property, value),
  $lte: (property, value) => either(compared('less', property, value), equal(property, value)),
  $in: (property, value) => ({ type: 'in', property, values: listOf('$in', value) }),
  $nin: (property, value) => not({ type: 'in', property, values: listOf('$nin', value) }),
  $search: (property, value) => contains(property, value),
  $nsearch: (property, value) => not(contains(property, value)),
  $search_ci: (property, value) => contains(property, value, true),
  $nsearch_ci: (property, value) => not(contains(property, value, true)),
  $empty: (property, value) => (value ? equal(property, null) : not(equal(property, null))),
  $nempty: (property, value) => (value ? not(equal(property, null)) : equal(property, null)),
} satisfies Record<string, (property: RecordProperty, value: Json) => RecordCondition>

type Operator = keyof typeof operators

/**
 * A filter's `where` as the store takes it.
 * @throws TypeError for an operator that is none, or an operand of the wrong type
 */
export function toCondition(where: unknown, owner: RecordOwner, depth = 0): RecordCondition {
  if (where === undefined || where === null) return anyRecord
  if (typeof where !== 'object' || Array.isArray(where)) throw new TypeError('`where` is an object of fields')
  if (depth > maxDepth) throw new TypeError(`\`where\` is nested more than ${maxDepth} deep`)
  return {
    type: 'all',
    of: Object.entries(where)
      .filter(([, condition]) => condition !== undefined)
      .map(([field, condition]): RecordCondition => {
        if (field === '$and' || field === '$or') {
          if (!Array.isArray(condition)) throw new TypeError(`${field} takes an array of conditions`)
          const of = condition.map((each: unknown) => toCondition(each, owner, depth + 1))
          return { type: field === '$and' ? 'all' : 'any', of }
        }
        if (field.startsWith('$')) throw new TypeError(unknownOperator(field, ['$and', '$or']))
        return fieldCondition(field, condition, owner)
      }),
  }
}

function fieldCondition(field: string, condition: unknown, owner: RecordOwner): RecordCondition {
  const asked = isOperators(condition) ? Object.entries(condition) : [['$eq', condition] as const]
  return {
    type: 'all',
    of: asked.map(([name, given]) => {
      if (!Object.hasOwn(operators, name)) throw new TypeError(unknownOperator(name, Object.keys(operators)))
      return oneCondition(field, name as Operator, toJson(given), owner)
    }),
  }
}

/** Some fields have other values in the store than bots see. */
function oneCondition(field: string, operator: Operator, value: Json, owner: RecordOwner): RecordCondition {
  const apply: (property: RecordProperty, value: Json) => RecordCondition = operators[operator]
  if (field === 'role') return roleCondition(apply('role', value))
  if (field === '_id') return apply('number', Array.isArray(value) ? value.map(numberOf) : numberOf(value))
  return apply(propertyOf(field, owner), value)
}

/** There are three roles only: those whose words meet the condition. */
function roleCondition(condition: RecordCondition): RecordCondition {
  const words = Object.values(roleWords).filter((word) => meets(word, condition))
  return { type: 'in', property: 'role', values: words.map((word) => roleOf(word)!) }
}

function meets(word: string, condition: RecordCondition): boolean {
  switch (condition.type) {
    case 'all':
      return condition.of.every((each) => meets(word, each))
    case 'any':
      return condition.of.some((each) => meets(word, each))
    case 'not':
      return !meets(word, condition.of)
    case 'equal':
      return condition.value === word
    case 'in':
      return condition.values.includes(word)
    case 'greater':
      return typeof condition.value === 'string' && word > condition.value
    case 'less':
      return typeof condition.value === 'string' && word < condition.value
    case 'contains':
      return condition.ignoreCase ? word.includes(condition.text.toLowerCase()) : word.includes(condition.text)
  }
}

/** A record's `_id` is its number, as text. */
const numberOf = (value: Json): Json =>
  typeof value === 'string' ? (/^[1-9]\d{0,14}$/.test(value) ? Number(value) : -1) : value === null ? null : -1

const equal = (property: RecordProperty, value: Json): RecordCondition => ({ type: 'equal', property, value })
const not = (of: RecordCondition): RecordCondition => ({ type: 'not', of })
const either = (...of: RecordCondition[]): RecordCondition => ({ type: 'any', of })

function compared(type: 'greater' | 'less', property: RecordProperty, value: Json): RecordCondition {
  if (typeof value === 'number' || typeof value === 'string') return { type, property, value }
  throw new TypeError('$gt, $gte, $lt and $lte compare with a number or a string')
}

function contains(property: RecordProperty, text: Json, ignoreCase = false): RecordCondition {
  if (typeof text !== 'string') throw new TypeError('$search and its kind look for a string')
  return { type: 'contains', property, text, ignoreCase }
}

function listOf(operator: string, value: Json): readonly Json[] {
  if (Array.isArray(value)) return value
  throw new TypeError(`${operator} takes an array of values`)
}

const isOperators = (condition: unknown): condition is Record<string, unknown> =>
  typeof condition === 'object' &&
  condition !== null &&
  !Array.isArray(condition) &&
  Object.keys(condition).some((key) => key.startsWith('$'))

const unknownOperator = (name: string, known: readonly string[]): string =>
  `\`where\` has no operator ${name}; did you mean ${closest(name, known)}?`

const toJson = (value: unknown): Json => (value === undefined ? null : (JSON.parse(JSON.stringify(value)) as Json))
