/** An earlier message in CloudBase's words: `assistant` is the bot. */
export interface ChatMessage {
  readonly role: 'user' | 'assistant'
  readonly content: string
}

/**
 * Earlier messages as a model takes them: it starts with the user, alternates, holds nothing empty, and ends with the
 * bot unless `removeLastUser` is false. Of several in a row by the same side the last one stays.
 */
export function toHistoryMessages(said: readonly ChatMessage[], removeLastUser: boolean): ChatMessage[] {
  const alternating: ChatMessage[] = []
  for (const { role, content } of said) {
    if (content === '') continue
    if (alternating.at(-1)?.role === role) alternating.pop()
    if (alternating.length > 0 || role === 'user') alternating.push({ role, content })
  }
  if (removeLastUser && alternating.at(-1)?.role === 'user') alternating.pop()
  return alternating
}
