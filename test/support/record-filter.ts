import type { Json } from '../../core/message.ts'
import type { RecordCondition, RecordProperty, StoredRecord } from '../../core/records.ts'

/** Whether a record meets a condition: as plainly as it can be said, to hold stores to. */
export function meets(record: StoredRecord, condition: RecordCondition): boolean {
  switch (condition.type) {
    case 'all':
      return condition.of.every((each) => meets(record, each))
    case 'any':
      return condition.of.some((each) => meets(record, each))
    case 'not':
      return !meets(record, condition.of)
    case 'equal':
      return same(valueOf(record, condition.property), condition.value)
    case 'in':
      return condition.values.some((each) => same(valueOf(record, condition.property), each))
    case 'greater':
      return compare(valueOf(record, condition.property), condition.value) === 1
    case 'less':
      return compare(valueOf(record, condition.property), condition.value) === -1
    case 'contains': {
      const value = valueOf(record, condition.property)
      if (typeof value !== 'string') return false
      return condition.ignoreCase
        ? value.toLowerCase().includes(condition.text.toLowerCase())
        : value.includes(condition.text)
    }
  }
}

function valueOf(record: StoredRecord, property: RecordProperty): Json {
  if (typeof property === 'object') {
    const own = Object.hasOwn(record.fields, property.field) ? record.fields[property.field] : property.absent
    return own ?? null
  }
  if (property === 'conversation') return record.conversation.name
  if (property === 'partial') return record.partial ?? false
  return record[property] ?? null
}

const same = (one: Json, other: Json): boolean => JSON.stringify(one) === JSON.stringify(other)

/** 1, 0 or -1 of values of one type; undefined of others. */
export function compare(one: Json, other: Json): number | undefined {
  if (typeof one === 'number' && typeof other === 'number') return Math.sign(one - other)
  if (typeof one === 'string' && typeof other === 'string') return Buffer.compare(Buffer.from(one), Buffer.from(other))
  return undefined
}
