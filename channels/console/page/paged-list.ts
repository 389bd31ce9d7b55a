import { h } from './dom.ts'
import { tellAges } from './times.ts'
import { quietly } from './operator-parts.ts'
import { word } from './words.ts'
import type { Page } from './operator-hub.ts'

/** What a list is made of. */
export interface PagedListOptions<Item> {
  /** Names the list to those who do not see it. */
  readonly label: string
  readonly load: (before: string | undefined) => Promise<Page<Item>>
  readonly keyOf: (item: Item) => string
  /** What stands in the row of an item. */
  readonly row: (item: Item) => readonly Node[]
  /** What is said when there is nothing. */
  readonly empty: string
}

/** A list that begins with the newest, is refreshed in place, and goes back as far as somebody asks. */
export class PagedList<Item> {
  readonly element: HTMLElement
  readonly #options: PagedListOptions<Item>
  readonly #list = h('ul', { class: 'rows' })
  readonly #empty: HTMLElement
  readonly #older = h('button', { type: 'button', class: 'older', hidden: true }, word('older'))
  #items: readonly Item[] = []
  #before: string | undefined
  #isLong = false
  #drawn = ''
  #reads = 0

  constructor(options: PagedListOptions<Item>) {
    this.#options = options
    this.#list.setAttribute('aria-label', options.label)
    this.#empty = h('p', { class: 'hint', hidden: true }, options.empty)
    this.#older.addEventListener('click', () => quietly(this.#goBack()))
    this.element = h('div', { class: 'paged' }, this.#list, this.#empty, this.#older)
  }

  /** Reads the newest again; what was read before them stays. */
  async refresh(): Promise<void> {
    const read = ++this.#reads
    const { items, before } = await this.#options.load(undefined)
    // Somebody looks for something else by now.
    if (read !== this.#reads) return
    const newest = items.toReversed()
    const known = new Set(newest.map(this.#options.keyOf))
    const rest = this.#isLong ? this.#items.filter((item) => !known.has(this.#options.keyOf(item))) : []
    if (!this.#isLong) this.#before = before
    this.#draw([...newest, ...rest])
  }

  /** Begins anew, for another search. */
  async restart(): Promise<void> {
    this.#isLong = false
    await this.refresh()
  }

  async #goBack(): Promise<void> {
    this.#older.disabled = true
    try {
      const { items, before } = await this.#options.load(this.#before)
      this.#isLong = true
      this.#before = before
      this.#draw([...this.#items, ...items.toReversed()])
    } finally {
      this.#older.disabled = false
    }
  }

  #draw(items: readonly Item[]): void {
    this.#items = items
    this.#older.hidden = this.#before === undefined
    this.#empty.hidden = items.length > 0
    const drawn = JSON.stringify(items)
    if (drawn !== this.#drawn) {
      this.#drawn = drawn
      const focus = this.#focus()
      this.#list.replaceChildren(
        ...items.map((item) => h('li', { 'data-key': this.#options.keyOf(item) }, ...this.#options.row(item))),
      )
      focus()
    }
    tellAges(this.#list)
  }

  /** Whoever walks through the list by keyboard stays where they are. */
  #focus(): () => void {
    const row = document.activeElement?.closest<HTMLElement>('[data-key]')
    if (!row || !this.#list.contains(row)) return () => {}
    const place = stops(row).indexOf(document.activeElement as HTMLElement)
    return () => {
      const again = [...this.#list.children].find((each) => (each as HTMLElement).dataset['key'] === row.dataset['key'])
      if (again) stops(again)[place]?.focus()
    }
  }
}

const stops = (row: Element): readonly HTMLElement[] => [...row.querySelectorAll<HTMLElement>('a, button')]
