import { h } from './dom.ts'
import { language } from './words.ts'

/** A length of time in words: `340 ms`, `1.2 s`, `3 min 20 s`. */
export function lasting(ms: number): string {
  if (ms < 1000) return `${Math.max(0, Math.round(ms))} ms`
  if (ms < 60_000) return `${(ms / 1000).toFixed(1)} s`
  const seconds = Math.round(ms / 1000)
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${seconds % 60} s`
  const minutes = Math.round(seconds / 60)
  if (minutes < 1440) return `${Math.floor(minutes / 60)} h ${minutes % 60} min`
  return `${Math.floor(minutes / 1440)} d ${Math.floor((minutes % 1440) / 60)} h`
}

/** Milliseconds between two ISO times. */
export const between = (from: string, to: string): number => Date.parse(to) - Date.parse(from)

/** A moment; of another day than today with its date. */
export function moment(iso: string): HTMLTimeElement {
  const at = new Date(iso)
  const isToday = at.toDateString() === new Date().toDateString()
  const clock = at.toLocaleTimeString(language, { hour12: false })
  const shown = isToday ? clock : `${at.toLocaleDateString(language)} ${clock}`
  return h('time', { datetime: iso, title: at.toLocaleString(language) }, shown)
}

/** How long ago something began; `tellAges` keeps it true. */
export const age = (iso: string): HTMLTimeElement =>
  h('time', { datetime: iso, 'data-age': true }, lasting(sinceOf(iso)))

/** Tells the ages in an element as they are now. */
export function tellAges(element: Element): void {
  for (const each of element.querySelectorAll<HTMLTimeElement>('time[data-age]')) {
    each.textContent = lasting(sinceOf(each.dateTime))
  }
}

const sinceOf = (iso: string): number => Date.now() - Date.parse(iso)
