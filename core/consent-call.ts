import { z } from 'zod'
import type { ConsentDecision, PendingCall, ToolCall } from './events.ts'

/*
 * Consent in dialects that have no word for it, but for tools that their clients run: a call that waits for consent is a
 * call of a function of the hub's, and what the client gives as its output is the decision. The function is not the tool,
 * so that no client runs a tool that nobody has allowed.
 */

/** The function that is called in place of a tool that waits for consent. */
export const consentFunction = 'hub_consent'

/** What the function is called with, as JSON: the tool, what it would be called with, and why. */
export const consentArguments = ({ tool, toolset, input, reason, alreadyAllowed }: ToolCall & Partial<PendingCall>) =>
  JSON.stringify({
    tool,
    ...(toolset === undefined ? {} : { toolset }),
    input,
    ...(reason === undefined ? {} : { reason }),
    ...(alreadyAllowed ? { already_allowed: true } : {}),
  })

const results = {
  allow: 'allow_once',
  allow_once: 'allow_once',
  allow_always: 'allow_always',
  deny: 'deny_once',
  deny_once: 'deny_once',
} as const
const reasoned = z.object({ result: z.string(), reason: z.string().max(8192).nullish() })

/**
 * The decision that a client gave as the function's output: a word, or `{ "result", "reason" }` as JSON. Undefined for
 * everything else: what is not clearly a yes or a no is neither.
 */
export function readConsent(call: string, output: string): ConsentDecision | undefined {
  const { result: said, reason } = reasoned.safeParse(jsonIn(output)).data ?? { result: output }
  const word = said.trim().toLowerCase()
  if (!isResult(word)) return undefined
  return { call, result: results[word], ...(reason ? { reason } : {}) }
}

const isResult = (word: string): word is keyof typeof results => Object.hasOwn(results, word)

function jsonIn(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}
