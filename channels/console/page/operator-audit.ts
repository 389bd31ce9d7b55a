import { h } from './dom.ts'
import { admin } from './operator-hub.ts'
import type { AuditItem, Page } from './operator-hub.ts'
import { choice, placeLink, quietly } from './operator-parts.ts'
import type { Part } from './operator-parts.ts'
import { PagedList } from './paged-list.ts'
import { moment } from './times.ts'
import { word } from './words.ts'

/** What the audit table tells of, in the hub's own words. */
const deeds = [
  'credential refused',
  'consent decided',
  'consent allowed',
  'consent bypassed',
  'conversation deleted',
  'user exported',
  'user erased',
  'message changed',
  'message deleted',
  'outbox retried',
  'conversation handed over',
  'conversation given back',
  'operator spoke',
  'admin read',
]

/** Who did what. */
export function auditPart(): Part {
  const list = new PagedList<AuditItem>({
    label: word('audit'),
    load: (before) => admin<Page<AuditItem>>('audit', { what: what.value, before }),
    keyOf: ({ id }) => id,
    row: auditRow,
    empty: word('nothingFound'),
  })
  const what = choice(word('what'), [['', word('allDeeds')], ...deeds.map((each) => [each, each] as const)], () =>
    quietly(list.restart()),
  )
  return {
    element: h(
      'div',
      { class: 'part' },
      h('div', { class: 'heading' }, h('h2', {}, word('audit')), what),
      list.element,
    ),
    refresh: () => list.refresh(),
  }
}

function auditRow({ at, what, by, bot, turn, details }: AuditItem): readonly Node[] {
  return [
    h(
      'div',
      { class: 'row-plain' },
      h('span', { class: 'line' }, h('strong', {}, what), h('span', { class: 'space' }), moment(at)),
      h(
        'span',
        { class: 'line soft' },
        h('span', {}, word('byKey', by)),
        bot !== undefined && h('span', {}, bot),
        turn !== undefined && placeLink(`turns/${turn}`, word('turn')),
        details !== undefined && h('code', {}, JSON.stringify(details)),
      ),
    ),
  ]
}
