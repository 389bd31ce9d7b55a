import { readFileSync } from 'node:fs'
import type { LoggedEvent, NumberedEvent } from '../../core/events.ts'
import { newId } from '../../core/ids.ts'

const page = readFileSync(new URL('../../docs/dialects.md', import.meta.url), 'utf8')

/** Rows of a table of `docs/dialects.md`, by its heading: cells without backticks. */
export const rowsUnder = (heading: string): readonly (readonly string[])[] =>
  (page.split(`\n## ${heading}\n`)[1] ?? '')
    .split(/\n## /)[0]!
    .split('\n')
    .filter((line) => line.startsWith('| `'))
    .map((line) =>
      line
        .split('|')
        .slice(1, -1)
        .map((cell) => cell.replaceAll('`', '').trim()),
    )

const turn = newId('turn')
const call = { call: 'call-1', toolset: 'mail', tool: 'send_mail', input: { to: 'ada' } }
const error = { code: 'upstream_cut', message: 'It broke off.', retryable: true, upstream: { code: 'E7' } }

/** One of every event there is; another kind does not compile before it is here. */
export const sampleEvents: { readonly [Type in LoggedEvent['type']]: LoggedEvent & { readonly type: Type } } = {
  'turn.started': { type: 'turn.started', turn, bot: 'bot', conversation: 'c', message: 'm' },
  'message.started': { type: 'message.started', message: 'a' },
  'message.delta': { type: 'message.delta', message: 'a', text: 'Hi' },
  'message.completed': { type: 'message.completed', message: 'a', text: 'Hi', payload: { a: 1 } },
  'reasoning.delta': { type: 'reasoning.delta', message: 'r', text: 'Hm' },
  'reasoning.completed': { type: 'reasoning.completed', message: 'r', text: 'Hm' },
  'canvas.delta': { type: 'canvas.delta', message: 'v', text: '<p>' },
  'canvas.completed': { type: 'canvas.completed', message: 'v', text: '<p>' },
  'tool.started': { type: 'tool.started', ...call },
  'tool.completed': { type: 'tool.completed', call: 'call-1', output: 'sent', isError: false },
  'agent.started': { type: 'agent.started', agent: 'g', parent: 'p', kind: 'k', description: 'd' },
  'agent.completed': { type: 'agent.completed', agent: 'g', status: 'failed', summary: 's' },
  'sandbox.started': { type: 'sandbox.started', name: 'n', blueprint: 'b' },
  'sandbox.ready': { type: 'sandbox.ready', name: 'n', blueprint: 'b' },
  'conversation.updated': { type: 'conversation.updated', title: 't', status: 'COMPLETED' },
  'consent.requested': { type: 'consent.requested', calls: [{ ...call, alreadyAllowed: false }] },
  'consent.answered': { type: 'consent.answered', decisions: [{ call: 'call-1', result: 'allow_once' }], by: 'user' },
  'tool.outputs_requested': { type: 'tool.outputs_requested', calls: [call] },
  suggestion: { type: 'suggestion', text: 'More?' },
  usage: { type: 'usage', inputTokens: 1, outputTokens: 2, totalTokens: 3, model: 'x' },
  'attempt.failed': { type: 'attempt.failed', attempt: 1, error, retryInMs: 1 },
  raw: { type: 'raw', source: 'vendor', name: 'event', data: { a: 1 } },
  'turn.waiting': { type: 'turn.waiting', for: 'consent' },
  'turn.completed': { type: 'turn.completed', text: 'Hi' },
  'turn.failed': { type: 'turn.failed', text: '', error },
  'turn.cancelled': { type: 'turn.cancelled', text: '', by: 'client' },
  'turn.interrupted': { type: 'turn.interrupted', text: '', error },
}

/** The names of all events. */
export const eventTypes = Object.keys(sampleEvents) as readonly LoggedEvent['type'][]

/** The samples of these types as they would stand in a log. */
export const numbered = (types: readonly LoggedEvent['type'][]): readonly NumberedEvent[] =>
  types.map((type, index) => ({ seq: index + 1, ...sampleEvents[type] }))
