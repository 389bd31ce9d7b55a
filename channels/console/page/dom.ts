/** What an element is made of: attributes, and listeners under `onclick` and the like. */
export type Attributes = Readonly<Record<string, string | number | boolean | undefined | ((event: Event) => void)>>

/** What stands in an element. */
export type Child = Node | string | number | false | undefined

/** Makes an element. Text is only ever text; there is no way to give markup. */
export function h<Tag extends keyof HTMLElementTagNameMap>(
  tag: Tag,
  attributes: Attributes = {},
  ...children: readonly Child[]
): HTMLElementTagNameMap[Tag] {
  const element = document.createElement(tag)
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === 'function') element.addEventListener(name.slice(2), value)
    else if (value !== undefined && value !== false) element.setAttribute(name, value === true ? '' : String(value))
  }
  element.append(...shown(children))
  return element
}

/** The children that are there. */
export const shown = (children: readonly Child[]): (Node | string)[] =>
  children
    .filter((child) => child !== false && child !== undefined)
    .map((child) => (typeof child === 'number' ? String(child) : child))

/** A link that leaves the page; anything but a web or mail address is only its words. */
export function link(address: string, ...words: readonly Child[]): HTMLElement {
  const isSafe = URL.canParse(address) && /^(https?|mailto):$/.test(new URL(address).protocol)
  if (!isSafe) return h('span', {}, ...words)
  return h('a', { href: address, target: '_blank', rel: 'noopener noreferrer nofollow' }, ...words)
}

/** Something that is folded away until somebody asks for it. */
export const fold = (summary: readonly Child[], ...children: readonly Child[]): HTMLDetailsElement =>
  h('details', { class: 'fold' }, h('summary', {}, ...summary), ...children)

/** A value as text to read. */
export const pretty = (value: unknown): string => (typeof value === 'string' ? value : JSON.stringify(value, null, 2))
