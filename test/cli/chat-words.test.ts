import { describe, expect, it } from 'vitest'
import { eventLine, plain } from '../../cli/chat-words.ts'

describe('what a terminal is shown', () => {
  it.each([
    ['# A *title*\n\tand a list', '# A *title*\n\tand a list'],
    ['\u001B[2Jgone', '[2Jgone'],
    ['\u009B31mred\u0007', '31mred'],
    ['one\r\ntwo\rthree', 'one\ntwothree'],
  ])('of %j is %j', (text, shown) => {
    expect(plain(text)).toBe(shown)
  })

  it('is no control character of a tool’s input either', () => {
    expect(eventLine({ seq: 1, type: 'tool.started', call: 'c', tool: 'x\u001B]0;', input: {} })).toBe('[runs x]0; {}]')
  })
})
