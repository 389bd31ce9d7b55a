import { fold, h, link, pretty } from './dom.ts'
import type { Child } from './dom.ts'
import { word } from './words.ts'

type Fields = Readonly<Record<string, unknown>>

/** Rich content of a message. `say` sends what a button says. What has no form here is shown as it came. */
export function card(template: Fields, say: (text: string) => void): HTMLElement {
  const columns = listOf(template['columns'])
  const bodies = columns.length > 0 ? columns.map((column) => face(column, say)) : [face(template, say)]
  const replies = listOf(template['quickReplies']).map((reply) => button(textOf(reply['text']), say))
  return h(
    'div',
    { class: 'cards' },
    h('div', { class: 'row' }, ...bodies),
    replies.length > 0 && h('div', { class: 'choices' }, ...replies),
  )
}

function face(fields: Fields, say: (text: string) => void): HTMLElement {
  const questions = listOf(fields['questions'])
  const parts: Child[] = [
    textOf(fields['title']) && h('strong', {}, textOf(fields['title'])),
    textOf(fields['text']) && h('p', {}, textOf(fields['text'])),
    ...picturesOf(fields),
    ...listOf(fields['attachments']).map((each) => action(textOf(each['title']), objectOf(each['defaultAction']), say)),
    ...questions.map((each) => question(each, say)),
    rowsOf(fields),
    buttonsOf(fields, say),
  ].filter((part) => part !== '' && part !== undefined)
  if (parts.length === 0 || fields['chartOptions'] || fields['canvas']) parts.push(source(fields))
  return h('section', { class: 'card' }, ...parts)
}

const source = (fields: Fields) =>
  fold([textOf(fields['type']) || word('card')], h('pre', { tabindex: 0 }, pretty(fields)))

/** Nothing is fetched from elsewhere until somebody follows the link. */
const picturesOf = (fields: Fields): Child[] =>
  ['originalContentUrl', 'thumbnailImageUrl'].flatMap((name) => {
    const address = textOf(fields[name])
    return address ? [h('p', {}, link(address, `${word('media')}: ${address}`))] : []
  })

function buttonsOf(fields: Fields, say: (text: string) => void): Child {
  const buttons = listOf(fields['buttons'])
  if (buttons.length === 0) return undefined
  return h(
    'div',
    { class: 'choices' },
    ...buttons.map((each) => action(textOf(each['label']), objectOf(each['action']), say)),
  )
}

function action(label: string, fields: Fields, say: (text: string) => void): HTMLElement {
  const address = textOf(fields['uri'])
  return address ? link(address, label) : button(label, say, textOf(fields['text']) || label)
}

const button = (label: string, say: (text: string) => void, said = label): HTMLElement =>
  h('button', { type: 'button', onclick: () => say(said) }, label)

const question = (fields: Fields, say: (text: string) => void): HTMLElement =>
  h(
    'div',
    {},
    h('p', {}, textOf(fields['question'])),
    h('div', { class: 'choices' }, ...listOf(fields['options']).map((option) => button(textOf(option['label']), say))),
  )

function rowsOf(fields: Fields): Child {
  const { columns, data } = objectOf(fields['table'])
  const headers = listOf(columns)
  if (headers.length === 0 || !Array.isArray(data)) return undefined
  const cell = (row: unknown, index: number) =>
    pretty(Array.isArray(row) ? (row as unknown[])[index] : objectOf(row)[textOf(headers[index]?.['key'])]) ?? ''
  return h(
    'div',
    { class: 'scroll', tabindex: 0 },
    h(
      'table',
      {},
      h('thead', {}, h('tr', {}, ...headers.map((each) => h('th', { scope: 'col' }, textOf(each['header']))))),
      h('tbody', {}, ...data.map((row) => h('tr', {}, ...headers.map((_, index) => h('td', {}, cell(row, index)))))),
    ),
  )
}

const textOf = (value: unknown): string => (typeof value === 'string' ? value : '')
const isObject = (value: unknown): value is Fields => typeof value === 'object' && value !== null
const objectOf = (value: unknown): Fields => (isObject(value) ? value : {})
const listOf = (value: unknown): readonly Fields[] => (Array.isArray(value) ? value.filter(isObject) : [])
