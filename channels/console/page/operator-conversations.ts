import { h } from './dom.ts'
import { newName } from './hub.ts'
import type { BotItem } from './hub.ts'
import { markdown } from './markdown.ts'
import { admin, handOver, speak } from './operator-hub.ts'
import type { ConversationItem, Page, SaidItem } from './operator-hub.ts'
import { choice, deed, facts, placeLink, quietly, reasonOf, rowLink, whose } from './operator-parts.ts'
import type { Part } from './operator-parts.ts'
import { PagedList } from './paged-list.ts'
import { moment } from './times.ts'
import { word } from './words.ts'

/** The conversations of all keys. */
export function conversationsPart(bots: readonly BotItem[]): Part {
  const list = new PagedList<ConversationItem>({
    label: word('conversations'),
    load: (before) =>
      admin<Page<ConversationItem>>('conversations', {
        bot: bot.value,
        key: key.value.trim(),
        of: user.value.trim(),
        taken: taken.checked,
        before,
      }),
    keyOf: ({ id }) => id,
    row: conversationRow,
    empty: word('nothingFound'),
  })
  const search = () => quietly(list.restart())
  const field = (label: string) =>
    h('input', { type: 'search', 'aria-label': label, placeholder: label, maxlength: 256, onchange: search })
  const bot = choice(
    word('bot'),
    [['', word('allBots')], ...bots.map((each) => [each.bot, each.name ?? each.bot] as const)],
    search,
  )
  const [key, user] = [field(word('ofKey')), field(word('ofUser'))]
  const taken = h('input', { type: 'checkbox', onchange: search })
  return {
    element: h(
      'div',
      { class: 'part' },
      h('h2', { class: 'visually-hidden' }, word('conversations')),
      h(
        'form',
        { class: 'heading', onsubmit: (event) => event.preventDefault() },
        bot,
        key,
        user,
        h('label', { class: 'check' }, taken, word('takenOnly')),
      ),
      list.element,
    ),
    refresh: () => list.refresh(),
  }
}

function conversationRow(item: ConversationItem): readonly Node[] {
  return [
    rowLink(
      `conversations/${item.id}`,
      h(
        'span',
        { class: 'line' },
        h('strong', {}, item.title ?? item.name),
        item.takenBy !== undefined && h('span', { class: 'badge' }, word('takenBy', item.takenBy)),
        h('span', { class: 'space' }),
        moment(item.updatedAt),
      ),
      h('span', { class: 'line soft' }, `${item.bot ?? '–'} · ${whose(item)}`),
    ),
  ]
}

/** One conversation: what was said, and the operator's word in it. */
export function conversationDetail(id: string): Part {
  const view = new ConversationView(id)
  return { element: view.element, refresh: () => view.refresh() }
}

class ConversationView {
  readonly element: HTMLElement
  readonly #id: string
  readonly #head = h('div', { class: 'detail' })
  readonly #problem = h('p', { class: 'problem', role: 'alert', hidden: true })
  readonly #said: PagedSaid
  readonly #input = h('textarea', { rows: 2, 'aria-label': word('asOperator'), placeholder: word('asOperator') })
  readonly #form: HTMLFormElement
  #drawn = ''

  constructor(id: string) {
    this.#id = id
    this.#said = new PagedSaid(id)
    this.#form = h(
      'form',
      { class: 'box', hidden: true },
      this.#input,
      h('button', { type: 'submit', class: 'primary' }, word('send')),
    )
    this.#form.addEventListener('submit', (event) => {
      event.preventDefault()
      void this.#speak()
    })
    this.element = h(
      'div',
      { class: 'held' },
      this.#head,
      h('div', { class: 'pane-body', tabindex: 0, role: 'region', 'aria-label': word('said') }, this.#said.element),
      h('div', { class: 'speak' }, this.#problem, this.#form),
    )
  }

  async refresh(): Promise<void> {
    const [conversation] = await Promise.all([
      admin<ConversationItem>(`conversations/${encodeURIComponent(this.#id)}`),
      this.#said.refresh(),
    ])
    this.#show(conversation)
  }

  #show(conversation: ConversationItem): void {
    this.#form.hidden = conversation.takenBy === undefined
    const drawn = JSON.stringify(conversation)
    if (drawn === this.#drawn) return
    this.#drawn = drawn
    const { takenBy, bot, title, name } = conversation
    const hold = (to: 'operator' | 'bot') => () => this.#handOver(to)
    const fail = (error: unknown) => this.#complain(error)
    const button =
      takenBy === undefined
        ? deed(word('takeOver'), hold('operator'), fail, 'primary')
        : deed(word('giveBack'), hold('bot'), fail)
    const hadFocus = this.#head.contains(document.activeElement)
    this.#head.replaceChildren(
      facts([
        [word('conversation'), title ?? name],
        [word('bot'), bot],
        [word('whose'), whose(conversation)],
        [word('heldBy'), takenBy ?? word('itsBot')],
      ]),
      h('div', { class: 'choices' }, bot !== undefined && button),
    )
    if (hadFocus) button.focus()
  }

  async #handOver(to: 'operator' | 'bot'): Promise<void> {
    await handOver(this.#id, to)
    this.#problem.hidden = true
    await this.refresh()
    if (to === 'operator') this.#input.focus()
  }

  async #speak(): Promise<void> {
    const text = this.#input.value.trim()
    if (!text) return
    try {
      await speak(this.#id, text, newName())
      this.#input.value = ''
      this.#problem.hidden = true
      await this.refresh()
    } catch (error) {
      this.#complain(error)
    }
  }

  #complain(error: unknown): void {
    this.#problem.hidden = false
    this.#problem.replaceChildren(reasonOf(error))
  }
}

/** What was said, the latest at the end. */
class PagedSaid {
  readonly element: HTMLElement
  readonly #path: string
  readonly #list = h('ol', { class: 'said-list' })
  readonly #earlier = h('button', { type: 'button', class: 'older', hidden: true }, word('earlier'))
  #items: readonly SaidItem[] = []
  #before: string | undefined
  #isLong = false

  constructor(id: string) {
    this.#path = `conversations/${encodeURIComponent(id)}/messages`
    this.#earlier.addEventListener('click', () => quietly(this.#goBack()))
    this.element = h('div', {}, this.#earlier, this.#list)
  }

  async refresh(): Promise<void> {
    const { items, before } = await admin<Page<SaidItem>>(this.#path)
    const known = new Set(items.map(({ id }) => id))
    const earlier = this.#isLong ? this.#items.filter(({ id }) => !known.has(id)) : []
    if (!this.#isLong) this.#before = before
    const isNew = items.at(-1)?.id !== this.#items.at(-1)?.id
    this.#draw([...earlier, ...items])
    const pane = this.element.parentElement
    if (isNew && pane) pane.scrollTop = pane.scrollHeight
  }

  async #goBack(): Promise<void> {
    const { items, before } = await admin<Page<SaidItem>>(this.#path, { before: this.#before })
    this.#isLong = true
    this.#before = before
    this.#draw([...items, ...this.#items])
  }

  #draw(items: readonly SaidItem[]): void {
    this.#earlier.hidden = this.#before === undefined
    if (JSON.stringify(items) === JSON.stringify(this.#items)) return
    this.#items = items
    this.#list.replaceChildren(...items.map(saidRow))
  }
}

const roles = { user: 'user', bot: 'bot', operator: 'operator' } as const

function saidRow({ role, text, turn, at, partial }: SaidItem): HTMLElement {
  return h(
    'li',
    { class: `by-${role}` },
    h(
      'header',
      {},
      h('strong', {}, word(roles[role])),
      partial === true && h('span', { class: 'badge' }, word('partial')),
      moment(at),
      placeLink(`turns/${turn}`, word('turn')),
    ),
    role === 'bot' ? h('div', { class: 'prose' }, ...markdown(text)) : h('p', { class: 'words' }, text),
  )
}
