import { Chat } from './chat.ts'
import type { Place } from './chat.ts'
import { h } from './dom.ts'
import { adminKey, Refusal, request } from './hub.ts'
import type { BotItem } from './hub.ts'
import { OperatorView } from './operator.ts'
import { language, languages, word } from './words.ts'
import type { Word } from './words.ts'

const themes = ['auto', 'light', 'dark'] as const

document.documentElement.lang = language
setTheme(localStorage.getItem('theme') ?? 'auto')
void enter()

/** Asks for a key where one is needed, and shows the page. */
export async function enter(): Promise<void> {
  try {
    await request('/console/session')
    const { bots } = await request<{ readonly bots: readonly BotItem[] }>('/api/v1/bots')
    start(bots)
  } catch (error) {
    if (error instanceof Refusal && (error.status === 401 || error.status === 403)) askForKey()
    else show(h('main', { class: 'gate' }, h('h1', {}, 'bothub'), h('p', { role: 'alert' }, messageOf(error))))
  }
}

const messageOf = (error: unknown): string =>
  error instanceof Refusal && error.status === 404 ? word('noRest') : word('unreachable')

function askForKey(): void {
  const input = h('input', { type: 'password', id: 'key', autocomplete: 'off', required: true })
  const form = h(
    'form',
    { class: 'card' },
    h('h1', {}, 'bothub'),
    h('p', {}, word('keyHint')),
    adminKey.get() !== '' && h('p', { class: 'problem', role: 'alert' }, word('wrongKey')),
    h('label', { for: 'key' }, word('key')),
    input,
    h('button', { type: 'submit', class: 'primary' }, word('enter')),
  )
  form.addEventListener('submit', (event) => {
    event.preventDefault()
    adminKey.set(input.value)
    void enter()
  })
  show(h('main', { class: 'gate' }, form))
  input.focus()
}

function start(bots: readonly BotItem[]): void {
  let view: Chat | OperatorView | undefined
  const open = (place: Place) => {
    const bot = bots.find((each) => each.bot === place.bot) ?? bots[0]
    if (!bot) return
    const chat = new Chat(bot, place.conversation, goTo)
    picker.value = bot.bot
    turnTo(chat, links.chat)
  }
  const operate = () => {
    if (!(view instanceof OperatorView)) turnTo(new OperatorView(bots), links.operator)
    if (view instanceof OperatorView) view.open(location.hash.split('/').slice(1).map(decoded))
  }
  const turnTo = (next: Chat | OperatorView, link: HTMLAnchorElement) => {
    view?.close()
    view = next
    for (const each of Object.values(links)) each.removeAttribute('aria-current')
    link.setAttribute('aria-current', 'page')
    for (const each of ofChat) each.hidden = next instanceof OperatorView
    skipLink.href = next instanceof OperatorView ? '#main' : '#message'
    show(bar, next.element)
  }
  const go = () => {
    if (isOperator(location.hash)) return operate()
    open(placeOf(location.hash))
  }
  const links = {
    chat: h('a', { href: '#/' }, word('chat')),
    operator: h('a', { href: '#operator' }, word('operator')),
  }
  const picker = select(
    word('bot'),
    bots.map(({ bot, name = bot, simulated }) => [bot, simulated ? `${name} · ${word('simulated')}` : name]),
    (bot) => leaveTo({ bot }),
  )
  const leaveTo = (place: Place) => {
    goTo(place)
    open(place)
  }
  const fresh = h(
    'button',
    { type: 'button', class: 'fresh', onclick: () => leaveTo({ bot: picker.value }) },
    word('fresh'),
  )
  const ofChat = [picker, fresh]
  for (const each of ofChat) each.classList.add('of-chat')
  const skipLink = h('a', { class: 'skip', href: '#message', onclick: skip }, word('skip'))
  const bar = h(
    'header',
    { class: 'bar' },
    skipLink,
    h('h1', { class: 'brand' }, 'bothub'),
    h('nav', { class: 'views', 'aria-label': word('views') }, links.chat, links.operator),
    ...ofChat,
    h('span', { class: 'space' }),
    select(
      word('language'),
      languages.map(({ code, name }) => [code, name]),
      (code) => {
        localStorage.setItem('language', code)
        location.reload()
      },
      language,
    ),
    select(
      word('theme'),
      themes.map((theme) => [theme, word(theme satisfies Word)]),
      setTheme,
      currentTheme(),
    ),
  )
  addEventListener('hashchange', ({ oldURL }) => {
    const { hash } = new URL(oldURL)
    if (!isOperator(hash)) links.chat.href = hash || '#/'
    go()
  })
  go()
}

/** Whether an address is of the operator's view; bots come behind `#/`. */
const isOperator = (hash: string): boolean => /^#operator(\/|$)/.test(hash)

/** The fragment of the address belongs to the place in the hub. */
function skip(event: Event): void {
  event.preventDefault()
  document.querySelector<HTMLElement>('#message, #main')?.focus()
}

function select(
  label: string,
  options: readonly (readonly [value: string, label: string])[],
  onChoice: (value: string) => void,
  value?: string,
): HTMLSelectElement {
  const element = h(
    'select',
    { 'aria-label': label, title: label },
    ...options.map(([each, words]) => h('option', { value: each, selected: each === value }, words)),
  )
  element.addEventListener('change', () => onChoice(element.value))
  return element
}

function currentTheme(): string {
  return document.documentElement.dataset['theme'] ?? 'auto'
}

function setTheme(chosen: string): void {
  localStorage.setItem('theme', chosen)
  document.documentElement.dataset['theme'] = chosen
}

/** Reads `#/{bot}/{conversation}`. */
function placeOf(hash: string): Place {
  const [, bot = '', conversation] = hash.split('/').map(decoded)
  return { bot, ...(conversation && { conversation }) }
}

/** Somebody may have typed an address that is no encoding of anything. */
function decoded(part: string): string {
  try {
    return decodeURIComponent(part)
  } catch {
    return part
  }
}

/** Keeps the place in the address, so that a page that is loaded again shows the same. */
function goTo({ bot, conversation }: Place): void {
  const path = [bot, ...(conversation ? [conversation] : [])].map(encodeURIComponent).join('/')
  history.replaceState(null, '', `#/${path}`)
}

function show(...parts: readonly Node[]): void {
  document.body.replaceChildren(...parts)
}
