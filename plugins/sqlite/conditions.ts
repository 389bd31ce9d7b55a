import type { Json } from '../../core/message.ts'
import { isFieldName } from '../../core/records.ts'
import type { RecordCondition, RecordProperty } from '../../core/records.ts'

/** A piece of SQL with the values of its question marks. */
export interface Fragment {
  readonly sql: string
  readonly values: readonly unknown[]
}

/** What a record has to be like, as a SQL expression that is 0 or 1, never null. */
export function conditionSql(condition: RecordCondition): Fragment {
  switch (condition.type) {
    case 'all':
      return joined(condition.of.map(conditionSql), 'AND', '1')
    case 'any':
      return joined(condition.of.map(conditionSql), 'OR', '0')
    case 'not':
      return build`NOT ${conditionSql(condition.of)}`
    case 'equal':
      return build`(${operandOf(condition.property).json} = ${value(JSON.stringify(condition.value))})`
    case 'in': {
      const values = JSON.stringify(condition.values.map((each) => JSON.stringify(each)))
      return build`(${operandOf(condition.property).json} IN (SELECT value FROM json_each(${value(values)})))`
    }
    case 'greater':
    case 'less': {
      const { plain, typed } = operandOf(condition.property)
      const than: Fragment = { sql: condition.type === 'greater' ? '>' : '<', values: [] }
      return build`(${typed(typeof condition.value)} AND ${plain} ${than} ${value(condition.value)})`
    }
    case 'contains': {
      const { plain, typed } = operandOf(condition.property)
      return condition.ignoreCase
        ? build`(${typed('string')} AND instr(fold(${plain}), ${value(condition.text.toLowerCase())}) > 0)`
        : build`(${typed('string')} AND instr(${plain}, ${value(condition.text)}) > 0)`
    }
  }
}

/** A property as a value that can be sorted by. */
export const orderSql = (property: RecordProperty): Fragment => operandOf(property).plain

/** A property in the forms that expressions take it in. */
interface Operand {
  /** As JSON text: equal values have equal texts, and null is a value. */
  readonly json: Fragment
  readonly plain: Fragment
  /** Whether its value is of that type. */
  readonly typed: (type: string) => Fragment
}

type OwnProperty = Extract<RecordProperty, string>

const columns: Readonly<Record<OwnProperty, { readonly sql: string; readonly type: 'string' | 'number' | 'boolean' }>> =
  {
    number: { sql: 'records.number', type: 'number' },
    id: { sql: 'records.record_id', type: 'string' },
    conversation: { sql: 'c.name', type: 'string' },
    turn: { sql: 'records.turn', type: 'string' },
    role: { sql: 'records.role', type: 'string' },
    text: { sql: 'records.text', type: 'string' },
    reply: { sql: 'records.reply', type: 'string' },
    partial: { sql: 'records.partial', type: 'boolean' },
    at: { sql: 'records.at', type: 'number' },
    updatedAt: { sql: 'records.updated_at', type: 'number' },
  }

function operandOf(property: RecordProperty): Operand {
  return typeof property === 'string' ? columnOperand(property) : fieldOperand(property.field, property.absent)
}

function columnOperand(property: OwnProperty): Operand {
  const { sql, type } = columns[property]
  const plain: Fragment = { sql, values: [] }
  return {
    json: { sql: type === 'boolean' ? `iif(${sql}, 'true', 'false')` : `json_quote(${sql})`, values: [] },
    plain,
    typed: (wanted) => ({ sql: wanted === type ? `${sql} IS NOT NULL` : '0', values: [] }),
  }
}

function fieldOperand(field: string, absent: Json = null): Operand {
  if (!isFieldName(field)) throw new TypeError(`${JSON.stringify(field)} is no name of a field`)
  const json = build`COALESCE(records.fields -> ${value(`$."${field}"`)}, ${value(JSON.stringify(absent))})`
  return {
    json,
    plain: build`(${json} ->> '$')`,
    typed: (wanted) =>
      wanted === 'number' ? build`json_type(${json}) IN ('integer', 'real')` : build`json_type(${json}) = 'text'`,
  }
}

const value = (given: unknown): Fragment => ({ sql: '?', values: [given] })

const joined = (parts: readonly Fragment[], by: 'AND' | 'OR', none: '0' | '1'): Fragment => ({
  sql: parts.length === 0 ? none : `(${parts.map((part) => part.sql).join(` ${by} `)})`,
  values: parts.flatMap((part) => part.values),
})

/** SQL with fragments in it. */
function build(text: TemplateStringsArray, ...parts: readonly Fragment[]): Fragment {
  return {
    sql: text.reduce((sql, piece, index) => `${sql}${parts[index - 1]!.sql}${piece}`),
    values: parts.flatMap((part) => part.values),
  }
}
