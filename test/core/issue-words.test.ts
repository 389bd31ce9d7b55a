import { expect, it } from 'vitest'
import { z } from 'zod'
import { check } from '../../core/body.ts'

const shape = z.object({
  name: z.string().min(1).max(3),
  port: z.int().min(1).max(9).default(1),
  above: z.number().gt(0).lt(1).default(0.5),
  parts: z.array(z.boolean()).min(2).max(3).optional(),
  tags: z.array(z.string()).min(1).optional(),
  mode: z.enum(['fast', 'slow']).optional(),
  home: z.url().optional(),
  content: z.union([z.string(), z.array(z.object({ text: z.string() }))]).optional(),
  when: z.union([z.literal('now'), z.object({ at: z.number() }), z.object({ after: z.number() })]).optional(),
  nested: z.union([z.null(), z.union([z.string().max(2), z.object({})])]).optional(),
  rows: z.union([z.boolean(), z.array(z.number()).min(2)]).optional(),
  time: z.union([z.int(), z.string().regex(/^\d+$/)]).optional(),
  strict: z.union([z.literal('all'), z.strictObject({ url: z.string() })]).optional(),
  title: z.union([z.literal('').transform(() => undefined), z.string().min(1)]).optional(),
  code: z.string().length(4).optional(),
  large: z.literal([1n, 2n]).optional(),
  seen: z.set(z.string()).min(2).optional(),
})

it.each([
  [{}, 'name: is missing.'],
  [{ name: 5 }, 'name: must be a string.'],
  [{ name: '' }, 'name: must not be empty.'],
  [{ name: 'four' }, 'name: must have at most 3 characters.'],
  [{ name: 'a', port: 0 }, 'port: must be at least 1.'],
  [{ name: 'a', port: 10 }, 'port: must be at most 9.'],
  [{ name: 'a', port: 1.5 }, 'port: must be a whole number.'],
  [{ name: 'a', above: 0 }, 'above: must be more than 0.'],
  [{ name: 'a', above: 1 }, 'above: must be less than 1.'],
  [{ name: 'a', parts: [true] }, 'parts: must have at least 2 items.'],
  [{ name: 'a', parts: [true, false, 1] }, 'parts.2: must be `true` or `false`.'],
  [{ name: 'a', tags: [] }, 'tags: must not be empty.'],
  [{ name: 'a', mode: 'late' }, 'mode: must be "fast" or "slow".'],
  [{ name: 'a', home: 'here' }, 'home: must be a URL.'],
  [{ name: 'a', content: 5 }, 'content: must be a string or an array.'],
  [{ name: 'a', content: [{ text: 5 }, {}] }, 'content.0.text: must be a string; content.1.text: is missing.'],
  [{ name: 'a', when: true }, 'when: must be "now" or an object.'],
  [{ name: 'a', when: { at: 'x' } }, 'when: at must be a number, or after is missing.'],
  [{ name: 'a', rows: 5 }, 'rows: must be `true` or `false` or an array.'],
  [{ name: 'a', rows: [5] }, 'rows: must have at least 2 items.'],
  [{ name: 'a', time: 'noon' }, 'time: must match /^\\d+$/.'],
  [{ name: 'a', strict: { ulr: 'x' } }, 'strict.url: is missing; strict: Unrecognized key: "ulr".'],
  [{ name: 'a', title: 5 }, 'title: must be a string.'],
  [{ name: 'a', title: [] }, 'title: must be a string.'],
  [{ name: 'a', code: 'abcdef' }, 'code: must have exactly 4 characters.'],
  [{ name: 'a', large: 3 }, 'large: must be 1 or 2.'],
  [{ name: 'a', seen: new Set() }, 'seen: Too small: expected set to have >=2 items.'],
  [{ name: 'a', nested: 5 }, 'nested: must be `null` or a string or an object.'],
  [{ name: 'a', nested: 'long' }, 'nested: must have at most 2 characters.'],
  [5, 'The body must be an object.'],
])('says of %j what is to be done', (value, message) => {
  expect(() => check(shape, value)).toThrow(expect.objectContaining({ code: 'invalid_request', message }))
})

it.each([
  [{}, 'kind: is missing.'],
  [{ kind: 'c' }, 'kind: must be "a" or "b".'],
  [{ kind: 'b' }, 'size: is missing.'],
])('says of %j which kind of thing it could be', (value, message) => {
  const kinds = z.discriminatedUnion('kind', [
    z.object({ kind: z.literal('a') }),
    z.object({ kind: z.literal('b'), size: z.number() }),
  ])
  expect(() => check(kinds, value)).toThrow(expect.objectContaining({ message }))
})

it('says that one is missing which could be of several kinds', () => {
  const either = z.object({ id: z.union([z.string(), z.number()]) })
  expect(() => check(either, {})).toThrow(expect.objectContaining({ message: 'id: is missing.' }))
})

it('names what else of a request it is', () => {
  const message = 'X-Session-Id must have at most 3 characters.'
  expect(() => check(z.string().max(3), 'four', 'X-Session-Id')).toThrow(expect.objectContaining({ message }))
})

it('names the body where it could be one of several things, and is none', () => {
  const either = z.union([z.object({ a: z.string() }), z.array(z.string())])
  expect(() => check(either, 5)).toThrow(
    expect.objectContaining({ message: 'The body must be an object or an array.' }),
  )
})
