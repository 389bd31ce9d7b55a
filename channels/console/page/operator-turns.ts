import { h } from './dom.ts'
import type { BotItem } from './hub.ts'
import { admin } from './operator-hub.ts'
import type { Page, TimedEvent, TurnItem, TurnTimeline } from './operator-hub.ts'
import { choice, facts, placeLink, quietly, rowLink, status, whose } from './operator-parts.ts'
import type { Part } from './operator-parts.ts'
import { PagedList } from './paged-list.ts'
import { drawTimeline } from './timeline.ts'
import { age, between, lasting, moment } from './times.ts'
import { endStatuses, statusWord, word } from './words.ts'

/** As many events are read at once. */
const eventsAtOnce = 200

/** What lives, and what has ended. */
export function turnsPart(bots: readonly BotItem[]): Part {
  const live = new PagedList<TurnItem>({
    label: word('liveTurns'),
    load: (before) => admin<Page<TurnItem>>('turns', { live: true, before }),
    keyOf: ({ turn }) => turn,
    row: turnRow,
    empty: word('noLive'),
  })
  const recent = new PagedList<TurnItem>({
    label: word('recentTurns'),
    async load(before) {
      const page = await admin<Page<TurnItem>>('turns', { bot: bot.value, status: wanted.value, before })
      // What lives is in the list above.
      return { ...page, items: page.items.filter(({ endedAt }) => endedAt !== undefined) }
    },
    keyOf: ({ turn }) => turn,
    row: turnRow,
    empty: word('nothingFound'),
  })
  const search = () => quietly(recent.restart())
  const bot = choice(
    word('bot'),
    [['', word('allBots')], ...bots.map((each) => [each.bot, each.name ?? each.bot] as const)],
    search,
  )
  const wanted = choice(
    word('status'),
    [['', word('allStatuses')], ...endStatuses.map((each) => [each, word(statusWord(each))] as const)],
    search,
  )
  return {
    element: h(
      'div',
      { class: 'part' },
      h('h2', {}, word('liveTurns')),
      live.element,
      h('div', { class: 'heading' }, h('h2', {}, word('recentTurns')), bot, wanted),
      recent.element,
    ),
    async refresh() {
      await Promise.all([live.refresh(), recent.refresh()])
    },
  }
}

function turnRow(turn: TurnItem): readonly Node[] {
  const time = turn.endedAt
    ? h('span', {}, moment(turn.createdAt), ` · ${lasting(between(turn.createdAt, turn.endedAt))}`)
    : age(turn.createdAt)
  return [
    rowLink(
      `turns/${turn.turn}`,
      h(
        'span',
        { class: 'line' },
        status(turn.status),
        h('strong', {}, turn.bot),
        turn.attempt !== undefined &&
          turn.attempt > 1 &&
          h('span', { class: 'badge' }, word('attemptNumber', turn.attempt)),
        turn.error !== undefined && h('code', { class: 'error' }, turn.error),
        h('span', { class: 'space' }),
        time,
      ),
      h('span', { class: 'line soft' }, whose(turn), ` · ${turn.channel} · ${turn.conversation.name}`),
    ),
  ]
}

/** One turn: what is known of it, how it went, and its events. */
export function turnDetail(id: string): Part {
  const body = h('div', { class: 'detail' })
  const events = new EventLog(id)
  let ended = false
  return {
    element: h(
      'div',
      { class: 'pane-body', tabindex: 0, role: 'region', 'aria-label': word('turn') },
      body,
      events.element,
    ),
    async refresh() {
      if (ended) return
      const turn = await admin<TurnTimeline>(`turns/${encodeURIComponent(id)}`)
      body.replaceChildren(h('h3', {}, word('howItWent')), drawTimeline(turn), factsOf(turn))
      await events.grow(turn)
      ended = turn.endedAt !== undefined
    },
  }
}

function factsOf(turn: TurnTimeline): HTMLElement {
  return facts([
    [word('status'), status(turn.status)],
    [word('error'), turn.error !== undefined && h('code', { class: 'error' }, turn.error)],
    [word('bot'), turn.bot],
    [word('whose'), whose(turn)],
    [word('channel'), turn.channel],
    [word('conversation'), placeLink(`conversations/${turn.conversation.id}`, turn.conversation.name)],
    [word('accepted'), moment(turn.createdAt)],
    ...Object.entries(turn.upstream).map(
      ([name, value]) => [`${word('upstream')} ${name}`, h('code', {}, value)] as const,
    ),
    [word('events'), turn.compacted ? `${turn.events} · ${word('expired')}` : turn.events],
  ])
}

/** The log of a turn, with the time since its beginning; deltas that follow each other are one row. */
class EventLog {
  readonly element: HTMLElement
  readonly #id: string
  readonly #list = h('ol', { class: 'events' })
  readonly #more = h('button', { type: 'button', class: 'older', hidden: true }, word('moreEvents'))
  #after = 0
  #reading: Promise<void> | undefined
  #start: string | undefined
  #run: { readonly type: string; readonly first: number; readonly brief: HTMLElement } | undefined

  constructor(id: string) {
    this.#id = id
    this.#more.addEventListener('click', () => quietly(this.#read()))
    this.element = h('div', {}, h('h3', {}, word('events')), this.#list, this.#more)
  }

  /** Reads what is new, but no more than the first page unless somebody asks. */
  async grow(turn: TurnTimeline): Promise<void> {
    this.#start ??= turn.createdAt
    if (this.#more.hidden) await this.#read()
  }

  async #read(): Promise<void> {
    this.#reading ??= this.#readMore().finally(() => {
      this.#reading = undefined
    })
    await this.#reading
  }

  async #readMore(): Promise<void> {
    const { items, after } = await admin<{ readonly items: readonly TimedEvent[]; readonly after?: number }>(
      `turns/${encodeURIComponent(this.#id)}/events`,
      { after: this.#after, limit: eventsAtOnce },
    )
    for (const each of items) this.#add(each)
    this.#after = items.at(-1)?.event.seq ?? this.#after
    this.#more.hidden = after === undefined
  }

  #add({ at, event }: TimedEvent): void {
    if (this.#run?.type === event.type) return this.#lengthen(event.seq)
    const brief = h('span', { class: 'brief' }, briefOf(event))
    const time = at && this.#start ? `+${(between(this.#start, at) / 1000).toFixed(3)}` : '–'
    const isTurn = event.type.startsWith('turn.')
    const summary = h(
      'summary',
      {},
      h('span', { class: 'seq' }, event.seq),
      h('time', {}, time),
      h('span', { class: `type ${isTurn ? 'turn' : 'other'}` }, event.type),
      brief,
    )
    this.#list.append(h('li', {}, h('details', {}, summary, h('pre', { tabindex: 0 }, JSON.stringify(event, null, 2)))))
    this.#run = event.type.endsWith('.delta') ? { type: event.type, first: event.seq, brief } : undefined
  }

  #lengthen(last: number): void {
    const { first, brief } = this.#run!
    brief.replaceChildren(`× ${last - first + 1}`)
  }
}

function briefOf(event: object): string {
  const { text, tool, error, by } = event as Readonly<Record<string, unknown>>
  if (typeof text === 'string' && text) return JSON.stringify(text)
  if (typeof error === 'object' && error && 'code' in error) return String(error.code)
  return typeof tool === 'string' ? tool : typeof by === 'string' ? by : ''
}
