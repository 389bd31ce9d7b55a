import fc from 'fast-check'
import type { Json } from '../../core/message.ts'
import type { RecordCondition, RecordProperty } from '../../core/records.ts'

// Records and questions about them, as fast-check thinks them up.

export { fc }

const someText = fc.constantFrom(
  '',
  'a',
  'A',
  'ab',
  'ß',
  'É',
  'é',
  '1',
  'null',
  'true',
  '😀',
  '\uFFFD',
  '"',
  "'",
  '%',
  '\0',
)
const someValue: fc.Arbitrary<Json> = fc.oneof(
  someText,
  fc.constantFrom(0, 1, -1, 1.5, 2, 1e21),
  fc.boolean(),
  fc.constant(null),
  fc.constantFrom<Json>([], ['a'], {}, { a: 1 }),
)
const someField = fc.constantFrom('one', 'two', 'a.b', "it's", 'event')
export const someRecord = fc.record({
  role: fc.constantFrom('user', 'bot', 'operator'),
  text: someText,
  fields: fc.dictionary(someField, someValue, { maxKeys: 3 }),
})
const someProperty: fc.Arbitrary<RecordProperty> = fc.oneof(
  fc.constantFrom<RecordProperty>('role', 'text', 'reply', 'conversation', 'at', 'partial', 'turn'),
  fc.record({ field: someField }),
  fc.record({ field: someField, absent: someValue }),
)
const comparable = fc.oneof(someText, fc.constantFrom(0, 1, 1.5, 5))
export const { condition: someCondition } = fc.letrec<{ condition: RecordCondition }>((tie) => ({
  condition: fc.oneof(
    { maxDepth: 3 },
    fc.record({ type: fc.constant('equal'), property: someProperty, value: someValue }),
    fc.record({ type: fc.constantFrom('greater', 'less'), property: someProperty, value: comparable }),
    fc.record({ type: fc.constant('in'), property: someProperty, values: fc.array(someValue, { maxLength: 3 }) }),
    fc.record({ type: fc.constant('contains'), property: someProperty, text: someText, ignoreCase: fc.boolean() }),
    fc.record({ type: fc.constant('not'), of: tie('condition') }),
    fc.record({ type: fc.constantFrom('all', 'any'), of: fc.array(tie('condition'), { maxLength: 3 }) }),
  ),
}))
export const someOrder = fc.array(fc.record({ property: someProperty, direction: fc.constantFrom('asc', 'desc') }), {
  maxLength: 3,
})
