import { describe, expect, it } from 'vitest'
import { demoPieces, demoWord, languageOf, smallTalk } from '../../core/demo.ts'

describe('small talk', () => {
  it.each([
    ['en', 'my name is Ada', 'what is my name?', 'Your name is Ada.'],
    ['zh-Hans', '我叫小明', '我叫什么名字?', '你的名字是小明。'],
    ['zh-Hant', '我的名字是雅婷', '你還記得我叫什麼名字嗎?', '你的名字是雅婷。'],
  ])('remembers a name in %s', (_, told, asked, answer) => {
    expect(smallTalk(told, []).join('')).toContain(/\p{L}+$/u.exec(told)![0].replace(/^(我叫|我的名字是)/, ''))
    expect(smallTalk(asked, [told, 'something else']).join('')).toBe(answer)
    expect(smallTalk(asked, []).join('')).not.toContain('Ada')
  })

  it.each([
    ['en', 'How are you?'],
    ['zh-Hans', '今天天气怎么样'],
    ['zh-Hant', '今天天氣怎麼樣'],
  ])('answers in the language of the question, %s, in at least three pieces', (language, text) => {
    expect(languageOf(text)).toBe(language)
    const pieces = smallTalk(text, [])
    expect(pieces.length).toBeGreaterThanOrEqual(3)
    expect(languageOf(pieces.join('').replace(text, ''))).toBe(language)
  })
})

describe('demo words', () => {
  it('are taken only when they stand alone', () => {
    expect([demoWord('/long'), demoWord(' /long\n'), demoWord('say /long'), demoWord('/longer')]).toEqual([
      '/long',
      '/long',
      undefined,
      undefined,
    ])
  })

  it('have as many pieces as the documents say', () => {
    expect([demoPieces('/long').length, demoPieces('/slow').length, demoPieces('/fail').length]).toEqual([300, 10, 3])
  })
})
