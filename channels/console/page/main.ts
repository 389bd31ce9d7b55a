import { Chat } from './chat.ts'
import type { Place } from './chat.ts'
import { h } from './dom.ts'
import { adminKey, Refusal, request } from './hub.ts'
import type { BotItem } from './hub.ts'
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
  let chat: Chat | undefined
  const open = (place: Place) => {
    const bot = bots.find((each) => each.bot === place.bot) ?? bots[0]
    if (!bot) return
    chat?.close()
    chat = new Chat(bot, place.conversation, goTo)
    picker.value = bot.bot
    show(bar, chat.element)
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
  const bar = h(
    'header',
    { class: 'bar' },
    h('a', { class: 'skip', href: '#message', onclick: focusMessage }, word('skip')),
    h('h1', { class: 'brand' }, 'bothub'),
    picker,
    h('button', { type: 'button', class: 'fresh', onclick: () => leaveTo({ bot: picker.value }) }, word('fresh')),
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
  addEventListener('hashchange', () => open(placeOf(location.hash)))
  open(placeOf(location.hash))
}

/** The fragment of the address belongs to the place in the hub. */
function focusMessage(event: Event): void {
  event.preventDefault()
  document.querySelector<HTMLElement>('#message')?.focus()
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
