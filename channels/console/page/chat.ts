import { HubClientError } from 'bothub/client'
import type { Answer } from 'bothub/client'
import { h } from './dom.ts'
import { EventList, EventsPane } from './events-pane.ts'
import { newName, openLine, Refusal, request } from './hub.ts'
import type { BotItem, Line, RecordItem } from './hub.ts'
import { TurnView } from './turn-view.ts'
import { word } from './words.ts'

/** Where a chat is. */
export interface Place {
  readonly bot: string
  /** Absent until the first message, when it gets a name. */
  readonly conversation?: string
}

/** A file that the bot has got. */
interface Attachment {
  readonly id: string
  readonly name: string
}

/** As many of the latest exchanges are shown when a conversation is opened. */
const recordsShown = 40

/** The chat with its events pane. `onPlace` is told when the conversation gets its name. */
export class Chat {
  readonly element: HTMLElement
  readonly #bot: BotItem
  readonly #onPlace: (place: Place) => void
  readonly #pane = new EventsPane()
  readonly #log = h('div', { class: 'log', role: 'log', 'aria-label': word('chat'), tabindex: 0 })
  readonly #input = h('textarea', {
    rows: 1,
    id: 'message',
    'aria-label': word('message'),
    placeholder: word('placeholder'),
    onkeydown: (event) => this.#onKey(event as KeyboardEvent),
    oninput: () => this.#fit(),
  })
  readonly #files = h('div', { class: 'attached' })
  readonly #problem = h('p', { class: 'problem', role: 'alert', hidden: true })
  readonly #leaving = new AbortController()
  readonly #attachments: Attachment[] = []
  #conversation: string | undefined
  #shown: Exchange | undefined

  constructor(bot: BotItem, conversation: string | undefined, onPlace: (place: Place) => void) {
    this.#bot = bot
    this.#conversation = conversation
    this.#onPlace = onPlace
    this.element = h(
      'main',
      { class: 'chat', 'data-tab': 'talk' },
      this.#tabs(),
      h(
        'section',
        { class: 'talk', 'aria-label': word('chat') },
        h('h2', { class: 'visually-hidden' }, word('chat')),
        this.#log,
        h('div', { class: 'composer' }, this.#problem, this.#files, this.#form()),
      ),
      this.#pane.element,
    )
    if (conversation) void this.#restore(conversation)
    else this.#greet()
  }

  /** Leaves the answers that are being read; their turns go on. */
  close(): void {
    this.#leaving.abort()
  }

  /** Only a phone shows these: there is room for one of the two. */
  #tabs(): HTMLElement {
    const tab = (name: 'talk' | 'events', label: string) =>
      h(
        'button',
        {
          type: 'button',
          'data-tab': name,
          'aria-pressed': String(name === 'talk'),
          onclick: () => {
            this.element.dataset['tab'] = name
            for (const each of tabs.children)
              each.setAttribute('aria-pressed', String(each === tabs.querySelector(`[data-tab=${name}]`)))
          },
        },
        label,
      )
    const tabs = h(
      'div',
      { class: 'tabs', role: 'group' },
      tab('talk', word('messages')),
      tab('events', word('events')),
    )
    return tabs
  }

  #form(): HTMLElement {
    const takesFiles = this.#bot.supports.includes('files')
    const picker = h('input', { type: 'file', multiple: true, hidden: true, id: 'files', 'aria-label': word('attach') })
    picker.addEventListener('change', () => void this.#attach(picker))
    const form = h(
      'form',
      { class: 'box' },
      takesFiles && picker,
      takesFiles &&
        h(
          'button',
          {
            type: 'button',
            class: 'quiet',
            title: word('attach'),
            'aria-label': word('attach'),
            onclick: () => picker.click(),
          },
          '+',
        ),
      this.#input,
      h('button', { type: 'submit', class: 'primary' }, word('send')),
    )
    form.addEventListener('submit', (event) => {
      event.preventDefault()
      this.#send()
    })
    return form
  }

  #onKey(event: KeyboardEvent): void {
    // While an input method composes, Enter chooses a character.
    if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return
    event.preventDefault()
    this.#send()
  }

  #fit(): void {
    this.#input.style.height = 'auto'
    this.#input.style.height = `${this.#input.scrollHeight}px`
  }

  #send(): void {
    const text = this.#input.value.trim()
    if (!text) return
    this.#input.value = ''
    this.#fit()
    this.say(text)
  }

  /** Sends a message. */
  say(text: string): void {
    const conversation = this.#named()
    this.#log.querySelector('.greeting')?.remove()
    const files = this.#attachments.splice(0)
    this.#files.replaceChildren()
    const id = newName()
    const question = { conversation, id, ...(files.length > 0 && { files: files.map((file) => file.id) }) }
    const exchange = this.#exchange(
      text,
      question,
      files.map(({ name }) => name),
    )
    void exchange.read((client, signal) => client.ask(this.#bot.bot, text, { ...question, signal }))
    this.#log.scrollTop = this.#log.scrollHeight
  }

  #named(): string {
    if (this.#conversation) return this.#conversation
    this.#conversation = newName()
    this.#onPlace({ bot: this.#bot.bot, conversation: this.#conversation })
    return this.#conversation
  }

  #exchange(text: string, question: Asked, files: readonly string[] = []): Exchange {
    const exchange = new Exchange({
      bot: this.#bot.bot,
      text,
      files,
      question,
      signal: this.#leaving.signal,
      say: (said) => this.say(said),
      inspect: () => this.#inspect(exchange, true),
      onChange: () => this.#shown === exchange && this.#pane.update(exchange),
      beforeGrowth: () => this.#keepEnd(),
    })
    this.#log.append(exchange.view.element)
    this.#inspect(exchange, false)
    return exchange
  }

  #inspect(exchange: Exchange, asked: boolean): void {
    this.#shown = exchange
    this.#pane.show(exchange.events, exchange)
    this.#pane.update(exchange)
    if (asked) this.element.querySelector<HTMLButtonElement>('.tabs [data-tab=events]')?.click()
  }

  /** Stays at the end while the answer grows, unless its reader has scrolled up. */
  #keepEnd(): void {
    const log = this.#log
    if (log.scrollHeight - log.scrollTop - log.clientHeight > 120) return
    requestAnimationFrame(() => {
      log.scrollTop = log.scrollHeight
    })
  }

  #greet(): void {
    const { bot, name = bot, description, welcome, simulated } = this.#bot
    const { starters = simulated ? demoWords : [] } = this.#bot
    this.#log.append(
      h(
        'div',
        { class: 'greeting' },
        h('h3', {}, name),
        description && h('p', {}, description),
        h('p', { class: 'hint' }, welcome ?? word(starters.length > 0 ? 'welcome' : 'saySomething')),
        h(
          'div',
          { class: 'choices' },
          ...starters.map((text) => h('button', { type: 'button', onclick: () => this.say(text) }, text)),
        ),
      ),
    )
  }

  /** Shows a conversation again, its live turn going on where it is. */
  async #restore(conversation: string): Promise<void> {
    try {
      const { items } = await request<{ readonly items: readonly RecordItem[] }>(
        `/api/v1/bots/${encodeURIComponent(this.#bot.bot)}/conversations/${encodeURIComponent(conversation)}/messages?limit=${recordsShown}`,
      )
      const said = items.filter(({ role }) => role === 'user')
      for (const [index, { text, turn }] of said.entries()) {
        const fallback = items.find((item) => item.turn === turn && item.role === 'bot')?.text ?? ''
        const exchange = this.#exchange(text, { conversation })
        const done = exchange.read((client, signal) => client.follow(turn, { signal }), fallback)
        // One connection at a time; only the last turns may still be going on.
        if (index < said.length - liveAtMost) await done
      }
      this.#log.scrollTop = this.#log.scrollHeight
    } catch (error) {
      // It has a name, and nothing was said in it yet.
      if (error instanceof Refusal && error.status === 404) this.#greet()
      else this.#complain(error)
    }
  }

  async #attach(picker: HTMLInputElement): Promise<void> {
    const conversation = this.#named()
    for (const file of picker.files ?? []) {
      const form = new FormData()
      form.set('conversation', conversation)
      form.set('file', file)
      try {
        const { id } = await request<{ readonly id: string }>(
          `/api/v1/bots/${encodeURIComponent(this.#bot.bot)}/files`,
          form,
        )
        this.#addAttachment({ id, name: file.name })
      } catch (error) {
        this.#complain(error)
      }
    }
    picker.value = ''
  }

  #addAttachment(attachment: Attachment): void {
    this.#attachments.push(attachment)
    const chip = h(
      'button',
      {
        type: 'button',
        class: 'small',
        'aria-label': `${word('remove')} ${attachment.name}`,
        onclick: () => {
          this.#attachments.splice(this.#attachments.indexOf(attachment), 1)
          chip.remove()
        },
      },
      `${attachment.name} ×`,
    )
    this.#files.append(chip)
  }

  #complain(error: unknown): void {
    this.#problem.hidden = false
    this.#problem.replaceChildren(error instanceof Refusal ? error.message : word('unreachable'))
  }
}

/** A browser opens six connections to a hub; the page needs some for its buttons. */
const liveAtMost = 3

/** What shows the paths through the hub, on simulated platforms, which know these words. */
const demoWords = ['hello', '/long', '/think', '/tools', '/consent', '/card', '/slow', '/fail']

interface Asked {
  readonly conversation: string
  /** Known where it was asked here; else the first event tells. */
  readonly id?: string
  readonly files?: readonly string[]
}

interface ExchangeOptions {
  readonly bot: string
  readonly text: string
  readonly files: readonly string[]
  readonly question: Asked
  readonly signal: AbortSignal
  readonly say: (text: string) => void
  readonly inspect: () => void
  readonly onChange: () => void
  readonly beforeGrowth: () => void
}

/** One question with its answer: what is shown of it, its events, and what can be done to it. */
class Exchange {
  readonly view: TurnView
  readonly events = new EventList()
  readonly #options: ExchangeOptions
  readonly #line: Line
  #answer: Answer | undefined
  #id: string | undefined
  #isLive = true
  /** A stream ends where its turn begins to wait; the next one is no reconnecting. */
  #justWaits = false

  constructor(options: ExchangeOptions) {
    this.#options = options
    this.#id = options.question.id
    this.#line = openLine((count) => this.#onOpen(count))
    this.view = new TurnView(
      options.text,
      {
        say: options.say,
        inspect: options.inspect,
        decide: async (decisions) => this.#answer?.decide(decisions),
        giveOutputs: async (outputs) => this.#answer?.giveOutputs(outputs),
      },
      options.files,
    )
  }

  get isLive(): boolean {
    return this.#isLive
  }

  get turn(): string {
    return this.#answer?.turn ?? ''
  }

  get #seq(): number {
    return this.#answer?.seq ?? 0
  }

  /** Reads the answer to its end. `fallback` is shown when its events are gone. */
  async read(open: (client: Line['client'], signal: AbortSignal) => Answer, fallback?: string): Promise<void> {
    const { signal, beforeGrowth, onChange } = this.#options
    this.#answer = open(this.#line.client, signal)
    try {
      for await (const event of this.#answer) {
        if (event.type === 'turn.started') this.#id = event.message
        this.#justWaits = event.type === 'turn.waiting'
        beforeGrowth()
        this.events.add(event)
        this.view.add(event)
        if (event.seq === 1) onChange()
      }
    } catch (error) {
      this.#fail(error, fallback)
    } finally {
      this.#isLive = false
      onChange()
    }
  }

  #onOpen(count: number): void {
    if (count > 1 && !this.#justWaits) this.events.note(word('back', this.#seq))
    this.#justWaits = false
  }

  #fail(error: unknown, fallback: string | undefined): void {
    if (this.#options.signal.aborted) return
    const isGone = error instanceof HubClientError && error.code === 'events_expired'
    if (isGone) this.events.note(word('expired'))
    if (isGone && fallback !== undefined) this.view.showText(fallback)
    else this.view.fail(error instanceof Error ? error.message : String(error))
  }

  /** Breaks the connection, as a bad network would. */
  cut(): void {
    this.events.note(word('wasCut', this.#seq))
    this.#line.cut()
  }

  /** Sends the same message again, and says what came of it. */
  async duplicate(): Promise<void> {
    const { bot, text, question, signal } = this.#options
    const known = this.#seq
    this.events.note(word('sentAgain'))
    const again = openLine().client.ask(bot, text, { ...question, ...(this.#id && { id: this.#id }), signal })
    let count = 0
    try {
      for await (const event of again) {
        count += 1
        if (again.turn !== this.turn || event.type === 'turn.waiting' || event.seq >= known) break
      }
      const isSame = again.turn === this.turn
      this.events.note(
        isSame ? word('sameTurn', count, Math.max(0, count - this.#seq)) : word('otherTurn', again.turn ?? ''),
      )
    } catch (error) {
      this.events.note(error instanceof Error ? error.message : String(error))
    }
  }

  async cancel(): Promise<void> {
    try {
      await this.#answer?.cancel()
    } catch (error) {
      this.events.note(error instanceof Error ? error.message : String(error))
    }
  }
}
