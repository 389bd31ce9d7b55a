import type { Language } from '../../core/errors.ts'
import type { TurnObject } from '../../core/wire.ts'

/** What people are told, as one text, of a turn that has ended or waits; empty where there is nothing to tell. */
export function sentencesOf(turn: TurnObject, said: string, language: Language): string {
  return [said.trim(), remarkOn(turn, language)].filter((text) => text !== '').join('\n\n')
}

function remarkOn({ waiting, error, status }: TurnObject, language: Language): string {
  if (waiting) return questionOf(waiting, language)
  return error?.message ?? (status === 'cancelled' ? stopped[language] : '')
}

function questionOf(waiting: NonNullable<TurnObject['waiting']>, language: Language): string {
  if (waiting.for === 'tool_outputs') return elsewhere[language]
  const tools = [...new Set(waiting.calls.map(({ tool }) => tool))].join(', ')
  const reasons = waiting.calls.flatMap(({ reason }) => (reason ? [reason] : []))
  return [asks[language](tools), ...reasons].join('\n')
}

const asks: Readonly<Record<Language, (tools: string) => string>> = {
  en: (tools) => `May the bot use this: ${tools}? It waits until somebody allows or denies it.`,
  'zh-Hant': (tools) => `是否允許機器人使用：${tools}？它會等到有人允許或拒絕為止。`,
  'zh-Hans': (tools) => `是否允许机器人使用：${tools}？它会等到有人允许或拒绝为止。`,
}

const stopped: Readonly<Record<Language, string>> = {
  en: 'The answer was stopped.',
  'zh-Hant': '回答已停止。',
  'zh-Hans': '回答已停止。',
}

const elsewhere: Readonly<Record<Language, string>> = {
  en: 'The bot waits for something that has to be done elsewhere first.',
  'zh-Hant': '機器人正在等待其他地方先完成一項工作。',
  'zh-Hans': '机器人正在等待其他地方先完成一项工作。',
}
