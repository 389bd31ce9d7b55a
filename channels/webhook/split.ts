/** Where a text is best cut, the best first: between paragraphs, lines, sentences, words. */
const seams: readonly RegExp[] = [/\n\s*\n/g, /\n/g, /[.!?…]["')\]]?\s|[。！？][」』”’）]?/g, /\s/g]

/**
 * Cuts a text into messages of at most `maxLength`, at a sensible place of each one's second half. What is cut off in
 * front stays the same when the text gets longer, so that a text that streams is cut where the whole one will be.
 */
export function splitText(
  text: string,
  maxLength: number,
  measure: (text: string) => number = (part) => part.length,
): string[] {
  const parts: string[] = []
  let rest = text.trim()
  for (;;) {
    const room = roomIn(rest, maxLength, measure)
    if (room === rest.length) return rest === '' ? parts : [...parts, rest]
    const end = cutOf(rest.slice(0, room))
    parts.push(rest.slice(0, end).trimEnd())
    rest = rest.slice(end).trimStart()
  }
}

/** How many UTF-16 units of the text fit, whole characters only, and one at least. */
function roomIn(text: string, maxLength: number, measure: (text: string) => number): number {
  let taken = 0
  let end = 0
  for (const character of text) {
    taken += measure(character)
    if (taken > maxLength && end > 0) return end
    end += character.length
  }
  return end
}

function cutOf(text: string): number {
  for (const seam of seams) {
    const ends = Array.from(text.matchAll(seam), (match) => match.index + match[0].length)
    const end = ends.findLast((each) => each > text.length / 2)
    if (end !== undefined) return end
  }
  return text.length
}
