import type { NumberedEvent } from 'bothub/client'
import { h } from './dom.ts'
import { word } from './words.ts'

/** As many rows stay; a turn may have tens of thousands of events. */
const maxRows = 1000

/** The events of one turn as they arrived here. */
export class EventList {
  readonly element: HTMLOListElement = h('ol', { class: 'events' })
  #first = 0

  /** Adds an event, with the time since the first one. */
  add(event: NumberedEvent): void {
    const now = Date.now()
    this.#first ||= now
    const { seq, type, ...rest } = event
    const clock = new Date(now).toLocaleTimeString(undefined, { hour12: false, fractionalSecondDigits: 3 })
    this.#append(
      h(
        'li',
        { 'data-seq': seq },
        h(
          'details',
          {},
          h(
            'summary',
            {},
            h('span', { class: 'seq' }, seq),
            h('time', { title: clock }, `+${((now - this.#first) / 1000).toFixed(3)}`),
            h('span', { class: `type ${family(type)}` }, type),
            h('span', { class: 'brief' }, brief(rest)),
          ),
          h('pre', { tabindex: 0 }, JSON.stringify(event, null, 2)),
        ),
      ),
    )
  }

  /** Adds a line about the connection. */
  note(text: string): void {
    this.#append(h('li', { class: 'note' }, text))
  }

  #append(row: HTMLLIElement): void {
    const list = this.element
    const pane = list.parentElement
    const isAtEnd = pane ? pane.scrollHeight - pane.scrollTop - pane.clientHeight < 60 : false
    list.append(row)
    if (list.childElementCount > maxRows) list.firstElementChild?.remove()
    if (pane && isAtEnd) pane.scrollTop = pane.scrollHeight
  }
}

const family = (type: string): string =>
  type.startsWith('turn.') ? 'turn' : type.endsWith('.delta') ? 'delta' : 'other'

function brief(fields: object): string {
  const { text, tool, error, calls, turn } = fields as Readonly<Record<string, unknown>>
  if (typeof text === 'string' && text) return JSON.stringify(text)
  if (typeof tool === 'string') return tool
  if (typeof error === 'object' && error && 'code' in error) return String(error.code)
  if (Array.isArray(calls)) return calls.map((call: { readonly tool: string }) => call.tool).join(', ')
  return typeof turn === 'string' ? turn : ''
}

/** What a visitor can do to the turn whose events are shown. */
export interface Actions {
  cut(): void
  duplicate(): void
  cancel(): void
}

/** The pane beside the chat: the events of a turn, and buttons that try what the hub promises. */
export class EventsPane {
  readonly element: HTMLElement
  readonly #body = h('div', { class: 'pane-body', tabindex: 0, role: 'region', 'aria-label': word('events') })
  readonly #title = h('code', { class: 'turn-id' })
  readonly #buttons: Readonly<Record<keyof Actions, HTMLButtonElement>>
  #actions: Actions | undefined

  constructor() {
    const make = (name: keyof Actions, label: string) =>
      h(
        'button',
        { type: 'button', disabled: true, 'data-action': name, onclick: () => this.#actions?.[name]() },
        label,
      )
    this.#buttons = {
      cut: make('cut', word('cut')),
      duplicate: make('duplicate', word('duplicate')),
      cancel: make('cancel', word('stop')),
    }
    this.element = h(
      'aside',
      { class: 'pane', 'aria-label': word('events') },
      h('header', {}, h('h2', {}, word('events')), this.#title),
      h('div', { class: 'tools' }, ...Object.values(this.#buttons)),
      this.#body,
    )
    this.clear()
  }

  clear(): void {
    this.#actions = undefined
    this.#title.replaceChildren()
    this.#body.replaceChildren(h('p', { class: 'hint' }, word('noEvents')))
    this.update({ isLive: false, turn: '' })
  }

  show(list: EventList, actions: Actions): void {
    this.#actions = actions
    this.#body.replaceChildren(list.element)
    this.#body.scrollTop = this.#body.scrollHeight
  }

  /** Enables what makes sense now. */
  update({ isLive, turn }: { readonly isLive: boolean; readonly turn: string }): void {
    this.#title.replaceChildren(turn)
    this.#buttons.cut.disabled = !isLive
    this.#buttons.cancel.disabled = !isLive || !turn
    this.#buttons.duplicate.disabled = !turn
  }
}
