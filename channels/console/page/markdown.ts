import { lexer } from 'marked'
import type { Token, Tokens } from 'marked'
import { h, link } from './dom.ts'
import { word } from './words.ts'

/**
 * Markdown as nodes. The parser only takes the text apart; everything is built here out of elements and text, so that
 * HTML in it is shown as it is written, pictures are links, and a link leads to a web or mail address or nowhere.
 */
export const markdown = (text: string): readonly Node[] => blocks(lexer(text))

const blocks = (tokens: readonly Token[] = []): Node[] => tokens.flatMap((token) => block(token))

function block(token: Token): Node | Node[] {
  const given = token as Tokens.Generic
  switch (token.type) {
    case 'space':
    case 'def':
      return []
    case 'heading':
      // The page has its own first headings.
      return h(headings[(token as Tokens.Heading).depth - 1] ?? 'h6', {}, ...inline(given.tokens))
    case 'paragraph':
      return h('p', {}, ...inline(given.tokens))
    case 'code':
      return code(token as Tokens.Code)
    case 'blockquote':
      return h('blockquote', {}, ...blocks(given.tokens))
    case 'list':
      return list(token as Tokens.List)
    case 'table':
      return table(token as Tokens.Table)
    case 'hr':
      return h('hr')
    case 'text':
      return given.tokens ? inline(given.tokens) : document.createTextNode(decoded(given['text'] as string))
    default:
      return inline([token])
  }
}

const headings = ['h3', 'h4', 'h5', 'h6', 'h6', 'h6'] as const

function code({ text, lang = '' }: Tokens.Code): HTMLElement {
  const copy = h('button', { type: 'button', class: 'quiet small' }, word('copy'))
  copy.addEventListener('click', () => {
    void navigator.clipboard?.writeText(text).then(() => copy.replaceChildren(word('copied')))
  })
  return h(
    'figure',
    { class: 'code' },
    h('figcaption', {}, h('span', {}, lang || word('code')), copy),
    h('pre', { tabindex: 0 }, h('code', {}, text)),
  )
}

function list({ ordered, start, items }: Tokens.List): HTMLElement {
  const children = items.map((item) =>
    h(
      'li',
      {},
      item.task && `${item.checked ? '☑' : '☐'} `,
      ...blocks(item.tokens.filter(({ type }) => type !== 'checkbox')),
    ),
  )
  return ordered ? h('ol', { start: start === '' ? 1 : start }, ...children) : h('ul', {}, ...children)
}

const table = ({ header, rows }: Tokens.Table): HTMLElement =>
  h(
    'div',
    { class: 'scroll', tabindex: 0 },
    h(
      'table',
      {},
      h('thead', {}, h('tr', {}, ...header.map((cell) => h('th', { scope: 'col' }, ...inline(cell.tokens))))),
      h('tbody', {}, ...rows.map((row) => h('tr', {}, ...row.map((cell) => h('td', {}, ...inline(cell.tokens)))))),
    ),
  )

const inline = (tokens: readonly Token[] = []): Node[] => tokens.map((token) => inlineNode(token))

function inlineNode(token: Token): Node {
  const given = token as Tokens.Generic
  switch (token.type) {
    case 'strong':
    case 'em':
    case 'del':
      return h(token.type, {}, ...inline(given.tokens))
    case 'codespan':
      return h('code', {}, given['text'] as string)
    case 'br':
      return h('br')
    case 'link':
      return link(given['href'] as string, ...inline(given.tokens))
    case 'image':
      return link(given['href'] as string, `${word('picture')}: ${(given['text'] as string) || given['href']}`)
    case 'text':
    case 'escape':
      return given.tokens
        ? h('span', {}, ...inline(given.tokens))
        : document.createTextNode(decoded(given['text'] as string))
    default:
      return document.createTextNode(token.raw)
  }
}

const entities: Readonly<Record<string, string>> = {
  '&amp;': '&',
  '&lt;': '<',
  '&gt;': '>',
  '&quot;': '"',
  '&#39;': "'",
  '&nbsp;': '\u00A0',
}
const decoded = (text: string): string =>
  text.replaceAll(/&(?:amp|lt|gt|quot|#39|nbsp);/g, (entity) => entities[entity] ?? entity)
