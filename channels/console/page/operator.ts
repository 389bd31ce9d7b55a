import { h } from './dom.ts'
import type { BotItem } from './hub.ts'
import { auditPart } from './operator-audit.ts'
import { conversationDetail, conversationsPart } from './operator-conversations.ts'
import { outboxPart } from './operator-outbox.ts'
import { placeLink, reasonOf } from './operator-parts.ts'
import type { Part } from './operator-parts.ts'
import { turnDetail, turnsPart } from './operator-turns.ts'
import { word } from './words.ts'

/** How often the hub is asked what is new, while somebody looks. */
const everyMs = 2000

const partNames = ['turns', 'conversations', 'outbox', 'audit'] as const
type PartName = (typeof partNames)[number]

/** The operator's view: lists of what everybody does, and beside them one turn or conversation. */
export class OperatorView {
  readonly element: HTMLElement
  readonly #bots: readonly BotItem[]
  readonly #tabs: Readonly<Record<PartName, HTMLAnchorElement>>
  readonly #list = h('section', { class: 'lists', 'aria-label': word('operatorView') })
  readonly #pane = h('aside', { class: 'pane', 'aria-label': word('details') })
  readonly #problem = h('p', { class: 'problem', role: 'alert', hidden: true })
  readonly #timer: ReturnType<typeof setInterval>
  readonly #onShown = () => void this.#refresh()
  #name: PartName | undefined
  #part: Part | undefined
  #detail: Part | undefined
  #isBusy = false

  constructor(bots: readonly BotItem[]) {
    this.#bots = bots
    const tab = (name: PartName) => placeLink(name, word(name))
    this.#tabs = {
      turns: tab('turns'),
      conversations: tab('conversations'),
      outbox: tab('outbox'),
      audit: tab('audit'),
    }
    this.element = h(
      'main',
      { class: 'operator', id: 'main', tabindex: -1 },
      h(
        'div',
        { class: 'side' },
        h('nav', { class: 'parts', 'aria-label': word('operatorView') }, ...Object.values(this.#tabs)),
        this.#problem,
        this.#list,
      ),
      this.#pane,
    )
    this.#timer = setInterval(() => void this.#refresh(), everyMs)
    document.addEventListener('visibilitychange', this.#onShown)
  }

  /** Shows `[part, id]` of an address, such as `['turns', 'turn_…']`. */
  open([wanted = 'turns', id]: readonly string[]): void {
    const name = partNames.find((each) => each === wanted) ?? 'turns'
    if (name !== this.#name) {
      this.#name = name
      this.element.dataset['part'] = name
      this.#part = makePart(name, this.#bots)
      this.#list.replaceChildren(this.#part.element)
      for (const each of partNames) {
        if (each === name) this.#tabs[each].setAttribute('aria-current', 'page')
        else this.#tabs[each].removeAttribute('aria-current')
      }
    }
    this.#mark()
    this.#show(name, id)
    void this.#refresh(true)
  }

  #show(name: PartName, id: string | undefined): void {
    this.#detail = id ? makeDetail(name, id) : undefined
    this.element.toggleAttribute('data-detail', this.#detail !== undefined)
    this.#pane.replaceChildren(
      h(
        'header',
        {},
        h('h2', {}, this.#detail ? word(name === 'turns' ? 'turn' : 'conversation') : word('details')),
        this.#detail && h('code', { class: 'turn-id' }, id),
        this.#detail && h('a', { class: 'back', href: `#operator/${name}` }, word('close')),
      ),
      this.#detail?.element ?? h('p', { class: 'hint' }, word('chooseOne')),
    )
  }

  /** Says which row is the one beside. */
  #mark(): void {
    for (const row of this.#list.querySelectorAll<HTMLAnchorElement>('.row-link')) {
      if (row.hash === location.hash) row.setAttribute('aria-current', 'true')
      else row.removeAttribute('aria-current')
    }
  }

  close(): void {
    clearInterval(this.#timer)
    document.removeEventListener('visibilitychange', this.#onShown)
  }

  async #refresh(isAsked = false): Promise<void> {
    if (!isAsked && (document.hidden || this.#isBusy)) return
    this.#isBusy = true
    try {
      await Promise.all([this.#part?.refresh(), this.#detail?.refresh()])
      this.#problem.hidden = true
    } catch (error) {
      this.#problem.hidden = false
      this.#problem.replaceChildren(reasonOf(error))
    } finally {
      this.#isBusy = false
    }
  }
}

function makePart(name: PartName, bots: readonly BotItem[]): Part {
  switch (name) {
    case 'turns':
      return turnsPart(bots)
    case 'conversations':
      return conversationsPart(bots)
    case 'outbox':
      return outboxPart()
    case 'audit':
      return auditPart()
  }
}

function makeDetail(name: PartName, id: string): Part | undefined {
  if (name === 'turns') return turnDetail(id)
  return name === 'conversations' ? conversationDetail(id) : undefined
}
