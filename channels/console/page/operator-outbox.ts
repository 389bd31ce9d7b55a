import { h } from './dom.ts'
import { outbox, retry } from './operator-hub.ts'
import type { OutboxItem } from './operator-hub.ts'
import { deed, placeLink, reasonOf } from './operator-parts.ts'
import type { Part } from './operator-parts.ts'
import { PagedList } from './paged-list.ts'
import { moment } from './times.ts'
import { word } from './words.ts'

/** What has not been delivered, and buttons that have it tried again. */
export function outboxPart(): Part {
  const problem = h('p', { class: 'problem', role: 'alert', hidden: true })
  const lanes = h('div', { class: 'lanes' })
  let closed = ''
  const list = new PagedList<OutboxItem>({
    label: word('outbox'),
    async load(before) {
      const page = await outbox({ before })
      showLanes(page.closed)
      return page
    },
    keyOf: ({ id }) => id,
    row: (item) => outboxRow(item, again),
    empty: word('allDelivered'),
  })
  const again = (label: string, which: Parameters<typeof retry>[0], kind = '') =>
    deed(
      label,
      async () => {
        await retry(which)
        problem.hidden = true
        await list.refresh()
      },
      (error) => {
        problem.hidden = false
        problem.replaceChildren(reasonOf(error))
      },
      kind,
    )
  const showLanes = (names: readonly string[]) => {
    if (closed === JSON.stringify(names)) return
    closed = JSON.stringify(names)
    lanes.replaceChildren(
      ...names.map((lane) =>
        h('p', { class: 'notice' }, word('closedLane', lane), ' ', again(word('openLane'), { lane }, 'small')),
      ),
    )
  }
  return {
    element: h(
      'div',
      { class: 'part' },
      h(
        'div',
        { class: 'heading' },
        h('h2', {}, word('outbox')),
        h('span', { class: 'space' }),
        again(word('retryAll'), {}),
      ),
      problem,
      lanes,
      list.element,
    ),
    refresh: () => list.refresh(),
  }
}

function outboxRow(
  item: OutboxItem,
  again: (label: string, which: { readonly ids: readonly string[] }, kind: string) => HTMLElement,
): readonly Node[] {
  return [
    h(
      'div',
      { class: 'row-plain' },
      h(
        'span',
        { class: 'line' },
        h(
          'span',
          { class: 'status', 'data-status': item.state === 'failed' ? 'ended' : 'queued' },
          word(item.state === 'failed' ? 'gaveUp' : 'pending'),
        ),
        h('strong', {}, item.lane),
        h('code', {}, item.type),
        h('span', { class: 'space' }),
        again(word('retryNow'), { ids: [item.id] }, 'small'),
      ),
      h(
        'span',
        { class: 'line soft' },
        moment(item.at),
        h('span', {}, word('tries', item.attempts)),
        item.nextAt !== undefined && h('span', {}, `${word('nextTry')} `, moment(item.nextAt)),
        item.turn !== undefined && placeLink(`turns/${item.turn}`, word('turn')),
      ),
      item.error !== undefined && h('code', { class: 'soft' }, item.error),
    ),
  ]
}
