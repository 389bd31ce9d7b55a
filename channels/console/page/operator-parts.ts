import { h } from './dom.ts'
import type { Child } from './dom.ts'
import { Refusal } from './hub.ts'
import type { TurnItem } from './operator-hub.ts'
import { statusWord, word } from './words.ts'

/** A part of the operator's view, which is asked now and then to show what is new. */
export interface Part {
  readonly element: HTMLElement
  refresh(): Promise<void>
}

/** The address of a place in the operator's view. */
const addressOf = (place: string): string => `#operator/${place.split('/').map(encodeURIComponent).join('/')}`

/** A link within the operator's view. */
export const placeLink = (place: string, ...words: readonly Child[]): HTMLAnchorElement =>
  h('a', { href: addressOf(place) }, ...words)

/** A row that leads somewhere. */
export function rowLink(place: string, ...lines: readonly Child[]): HTMLAnchorElement {
  const row = placeLink(place, ...lines)
  row.className = 'row-link'
  if (location.hash === addressOf(place)) row.setAttribute('aria-current', 'true')
  return row
}

/** A status with its colour. */
export const status = (of: TurnItem['status']): HTMLElement =>
  h('span', { class: 'status', 'data-status': of }, word(statusWord(of)))

/** The user and the key that asks for them. */
export const whose = ({ key, user }: { readonly key: string; readonly user?: string }): string =>
  user === undefined ? key : `${user} · ${key}`

/** What is known of something, in two columns. */
export const facts = (known: readonly (readonly [name: string, value: Child])[]): HTMLElement =>
  h(
    'dl',
    { class: 'facts' },
    ...known
      .filter(([, value]) => value !== false && value !== undefined && value !== '')
      .flatMap(([name, value]) => [h('dt', {}, name), h('dd', {}, value)]),
  )

/** A choice of one; `onChoice` is called when it changes. */
export function choice(
  label: string,
  options: readonly (readonly [value: string, label: string])[],
  onChoice: () => void,
): HTMLSelectElement {
  const element = h(
    'select',
    { 'aria-label': label, title: label },
    ...options.map(([value, words]) => h('option', { value }, words)),
  )
  element.addEventListener('change', onChoice)
  return element
}

/** A button that does something with the hub; while it does, it cannot be pressed again. */
export function deed(
  label: string,
  act: () => Promise<unknown>,
  onFailure: (error: unknown) => void,
  kind = '',
): HTMLButtonElement {
  const button = h('button', { type: 'button', class: kind }, label)
  button.addEventListener('click', () => {
    button.disabled = true
    void act()
      .catch(onFailure)
      .finally(() => {
        button.disabled = false
      })
  })
  return button
}

/** Why something did not work, in the hub's own words. */
export const reasonOf = (error: unknown): string => (error instanceof Refusal ? error.message : word('unreachable'))

/** Does what may fail without a word: the hub is asked again in a moment, and that says what is wrong. */
export const quietly = (work: Promise<unknown>): void => void work.catch(() => {})
