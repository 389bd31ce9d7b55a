import { h } from './dom.ts'
import type { Phase, TurnTimeline } from './operator-hub.ts'
import { lasting } from './times.ts'
import { statusWord, word } from './words.ts'

/** A stretch of time with its place in the picture, in hundredths of its width. */
interface Stretch {
  readonly from: number
  readonly to: number
  readonly left: number
  readonly width: number
}

/** Shorter stretches are drawn as if they were that long, so that they are to be seen. */
const shortestMs = 50
/** Narrower stretches have no room for words, or for a number, in hundredths of the width. */
const roomy = 16
const roomyForOne = 5

/** Draws how a turn went: a line of its phases, with first words, stalls and end, and the same in words. */
export function drawTimeline(turn: TurnTimeline): HTMLElement {
  const now = Date.parse(turn.now)
  const stretches = layOut(turn.phases, now)
  const last = stretches.at(-1)
  if (!last) return h('p', { class: 'hint' }, word('noTimes'))
  const first = turn.firstDeltaAt === undefined ? undefined : Date.parse(turn.firstDeltaAt)
  const total = lasting(last.to - stretches[0]!.from)
  return h(
    'figure',
    { class: 'timeline' },
    h(
      'div',
      { class: 'track', role: 'img', 'aria-label': word('timelineOf', word(statusWord(turn.status)), total) },
      ...turn.phases.map((phase, index) => bar(phase, stretches[index]!)),
      ...turn.stalls.map(({ from, to }) =>
        placed(h('span', { class: 'stall' }), stretches, Date.parse(from), to ? Date.parse(to) : now),
      ),
      first !== undefined && placed(h('span', { class: 'first' }), stretches, first),
      turn.endedAt !== undefined && h('span', { class: 'end', 'data-status': turn.status }),
    ),
    h('div', { class: 'axis', 'aria-hidden': 'true' }, h('span', {}, '0'), h('span', {}, total)),
    h('figcaption', {}, steps(turn, stretches[0]!.from, now)),
  )
}

function layOut(phases: readonly Phase[], now: number): readonly Stretch[] {
  const spans = phases.map(({ phase, from, to }) => {
    const start = Date.parse(from)
    const end = Math.max(start, to ? Date.parse(to) : now)
    return { phase, from: start, to: end, ms: Math.max(end - start, shortestMs) }
  })
  // A wait longer than all the rest is drawn as long as the rest: of a day of waiting one would see nothing else.
  const rest = spans.reduce((sum, { phase, ms }) => (phase === 'waiting' ? sum : sum + ms), 0)
  const drawn = spans.map(({ phase, ms }) => (phase === 'waiting' ? Math.min(ms, Math.max(rest, shortestMs)) : ms))
  const total = drawn.reduce((sum, ms) => sum + ms, 0)
  let left = 0
  return spans.map(({ from, to }, index) => {
    const width = (100 * drawn[index]!) / total
    const stretch = { from, to, left, width }
    left += width
    return stretch
  })
}

function bar(phase: Phase, { from, to, left, width }: Stretch): HTMLElement {
  const words = width < roomy ? width > roomyForOne && phase.attempt : nameOf(phase)
  const element = h(
    'span',
    { class: `phase ${phase.phase}${phase.error ? ' failed' : ''}`, title: `${nameOf(phase)}: ${lasting(to - from)}` },
    h('span', {}, words),
  )
  return at(element, left, width)
}

const nameOf = ({ phase, attempt }: Phase): string =>
  phase === 'attempt' ? word('attemptNumber', attempt ?? 1) : word(phaseWords[phase])

const phaseWords = { queued: 'queued', backoff: 'backoff', waiting: 'waitingForUser' } as const

/** Puts something where its time is. */
function placed(element: HTMLElement, stretches: readonly Stretch[], from: number, to = from): HTMLElement {
  const left = placeOf(stretches, from)
  return at(element, left, Math.max(0, placeOf(stretches, to) - left))
}

/** The policy of the page lets scripts set styles, but no attribute. */
function at(element: HTMLElement, left: number, width: number): HTMLElement {
  element.style.left = `${left}%`
  if (width > 0) element.style.width = `${width}%`
  return element
}

function placeOf(stretches: readonly Stretch[], time: number): number {
  const stretch = stretches.find(({ to }) => time <= to) ?? stretches.at(-1)!
  const part = stretch.to === stretch.from ? 1 : (time - stretch.from) / (stretch.to - stretch.from)
  return stretch.left + stretch.width * Math.min(1, Math.max(0, part))
}

interface Step {
  readonly at: number
  readonly kind: string
  readonly words: string
  readonly length?: number | undefined
  readonly code?: string | undefined
}

/** The same as a list, for whoever wants to read it. */
function steps(turn: TurnTimeline, start: number, now: number): HTMLElement {
  const lengthOf = (from: string, to: string | undefined) => (to ? Date.parse(to) : now) - Date.parse(from)
  const list: Step[] = [
    ...turn.phases.map((phase) => ({
      at: Date.parse(phase.from),
      kind: phase.error ? `${phase.phase} failed` : phase.phase,
      words: nameOf(phase),
      length: lengthOf(phase.from, phase.to),
      code: phase.error,
    })),
    ...(turn.firstDeltaAt ? [{ at: Date.parse(turn.firstDeltaAt), kind: 'first', words: word('firstWords') }] : []),
    ...turn.stalls.map(({ from, to, after }) => ({
      at: Date.parse(from),
      kind: 'stall',
      words: word('stallAfter', after),
      length: lengthOf(from, to),
    })),
    ...(turn.endedAt
      ? [{ at: Date.parse(turn.endedAt), kind: `end ${turn.status}`, words: word(statusWord(turn.status)) }]
      : []),
  ]
  const ordered = list.toSorted((one, other) => one.at - other.at)
  return h(
    'ol',
    { class: 'steps' },
    ...ordered.map((step) =>
      h(
        'li',
        {},
        h('time', {}, `+${((step.at - start) / 1000).toFixed(3)}`),
        h('span', { class: `mark ${step.kind}` }),
        h('span', {}, step.words, step.code !== undefined && ' ', step.code !== undefined && h('code', {}, step.code)),
        step.length === undefined ? h('span', {}) : h('span', { class: 'length' }, lasting(step.length)),
      ),
    ),
  )
}
