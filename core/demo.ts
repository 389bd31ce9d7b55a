import type { Language } from './errors.ts'

/**
 * What the three demonstration bots say. The words are the same whether a bot of this process says them or an
 * upstream simulator spells them in its vendor's dialect.
 */

/** A message that is exactly one of these words shows a path; `docs/demo-bots.md` says what each bot does. */
export const demoWords = ['/long', '/slow', '/fail', '/busy', '/cut', '/consent', '/tools', '/think', '/card'] as const
/** One of `demoWords`. */
export type DemoWord = (typeof demoWords)[number]

/** The word a message consists of, spaces around it aside; undefined for ordinary words. */
export const demoWord = (text: string): DemoWord | undefined => demoWords.find((word) => word === text.trim())

/** The language of a text, by its characters; a few common ones tell the two Chinese scripts apart. */
export function languageOf(text: string): Language {
  if (!/\p{Script=Han}/u.test(text)) return 'en'
  return /[們個這來說話嗎麼為會時對學過還沒樣體讓點開關係裡請問題應該無與東車長門見語]/u.test(text)
    ? 'zh-Hant'
    : 'zh-Hans'
}

/** An answer to ordinary words, in their language, in at least three pieces; `earlier` is what the user said before. */
export function smallTalk(text: string, earlier: readonly string[]): string[] {
  const language = languageOf(text)
  const say = phrases[language]
  const told = nameIn(text)
  if (told) return say.nice(told)
  if (asksName.test(text)) {
    const known = earlier.map(nameIn).findLast((name) => name !== undefined)
    return known ? say.known(known) : say.unknown
  }
  return say.echo(text)
}

/** The pieces of an answer to one of the words that only speak: 300 for `/long`, 10 for `/slow`, 3 for `/fail`. */
export function demoPieces(word: '/long' | '/slow' | '/fail'): string[] {
  if (word === '/fail') return ['This answer ', 'is going ', 'to fail ']
  return Array.from({ length: word === '/long' ? 300 : 10 }, (_, index) => `word ${index + 1} `)
}

/** The pause before each piece, in ms. */
export const demoPauseMs = { '/long': 10, '/slow': 1000, '/fail': 0 } as const

const namePatterns = [
  /\bmy name is\s+([\p{L}\p{M}'’-]+)/iu,
  /(?:我的名字是|我的名字叫|我叫做|我叫)\s*([\p{L}\p{M}]{1,20})/u,
]
const asksName = /what(?:'s|’s| is) my name|(?:我叫|我的名字|我是)(?:做|叫|是)?(?:什么|什麼|甚麼|谁|誰)|who am i/iu

function nameIn(text: string): string | undefined {
  if (asksName.test(text)) return undefined
  for (const pattern of namePatterns) {
    const name = pattern.exec(text)?.[1]
    if (name) return name
  }
  return undefined
}

interface Phrases {
  nice(name: string): string[]
  known(name: string): string[]
  readonly unknown: string[]
  echo(text: string): string[]
}

const phrases: Record<Language, Phrases> = {
  en: {
    nice: (name) => ['Nice to ', 'meet you, ', `${name}. `, 'I will remember that.'],
    known: (name) => ['Your name ', 'is ', `${name}.`],
    unknown: ['You have not ', 'told me ', 'your name yet.'],
    echo: (text) => ['You said: ', `“${text}”. `, 'Try one of ', `${demoWords.join(', ')}.`],
  },
  'zh-Hant': {
    nice: (name) => ['很高興', '認識你，', `${name}。`, '我會記住的。'],
    known: (name) => ['你的名字', '是', `${name}。`],
    unknown: ['你還沒有', '告訴我', '你的名字。'],
    echo: (text) => ['你說：', `「${text}」。`, '試試看 ', `${demoWords.join(' ')}。`],
  },
  'zh-Hans': {
    nice: (name) => ['很高兴', '认识你，', `${name}。`, '我会记住的。'],
    known: (name) => ['你的名字', '是', `${name}。`],
    unknown: ['你还没有', '告诉我', '你的名字。'],
    echo: (text) => ['你说：', `“${text}”。`, '试试看 ', `${demoWords.join(' ')}。`],
  },
}
