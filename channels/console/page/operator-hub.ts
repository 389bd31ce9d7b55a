import { ask } from './hub.ts'
import type { RecordItem } from './hub.ts'

/** Part of a list that is read from its end, oldest first. */
export interface Page<Item> {
  readonly items: readonly Item[]
  readonly before?: string
}

/** A turn in a list of everybody's; times are ISO 8601. */
export interface TurnItem {
  readonly turn: string
  readonly bot: string
  readonly key: string
  readonly user?: string
  readonly conversation: { readonly id: string; readonly name: string }
  readonly by?: 'operator'
  readonly channel: string
  readonly status: 'queued' | 'running' | 'waiting' | 'completed' | 'failed' | 'cancelled' | 'interrupted'
  readonly createdAt: string
  readonly endedAt?: string
  readonly error?: string
  readonly attempt?: number
}

/** A stretch of a turn; without `to` it is not over. */
export interface Phase {
  readonly phase: 'queued' | 'attempt' | 'backoff' | 'waiting'
  readonly from: string
  readonly to?: string
  readonly attempt?: number
  readonly error?: string
}

/** One turn, and how it went. */
export interface TurnTimeline extends TurnItem {
  readonly now: string
  readonly events: number
  readonly compacted: boolean
  readonly upstream: Readonly<Record<string, string>>
  readonly phases: readonly Phase[]
  readonly firstDeltaAt?: string
  readonly stalls: readonly { readonly from: string; readonly to?: string; readonly after: number }[]
}

/** An event, and when it was written. */
export interface TimedEvent {
  readonly at?: string
  readonly event: { readonly seq: number; readonly type: string }
}

/** A conversation of anybody. */
export interface ConversationItem {
  readonly id: string
  readonly name: string
  readonly title?: string
  readonly bot?: string
  readonly key: string
  readonly user?: string
  readonly takenBy?: string
  readonly createdAt: string
  readonly updatedAt: string
}

/** One thing that was said, with its place in the conversation. */
export interface SaidItem extends RecordItem {
  readonly id: string
  readonly at: string
  readonly partial?: boolean
}

/** Something that has not been delivered. */
export interface OutboxItem {
  readonly id: string
  readonly lane: string
  readonly type: string
  readonly turn?: string
  readonly state: 'pending' | 'failed'
  readonly attempts: number
  readonly at: string
  readonly nextAt?: string
  readonly error?: string
}

/** An entry of the audit table. */
export interface AuditItem {
  readonly id: string
  readonly at: string
  readonly what: string
  readonly by: string
  readonly bot?: string
  readonly turn?: string
  readonly details?: Readonly<Record<string, unknown>>
}

/** What a search is narrowed to; empty values are left out. */
export type Query = Readonly<Record<string, string | number | boolean | undefined>>

/** Reads what the operator's routes answer: `admin('turns', { live: true })`. */
export const admin = <Answer>(path: string, query: Query = {}): Promise<Answer> =>
  ask(`/api/v1/admin/${path}${search(query)}`, { ofHub: true })

/** What has not been delivered, and the lanes that are closed. */
export const outbox = (query: Query): Promise<Page<OutboxItem> & { readonly closed: readonly string[] }> =>
  ask(`/api/v1/outbox${search(query)}`, { ofHub: true })

/** Has deliveries tried again now. */
export const retry = (which: { readonly ids?: readonly string[]; readonly lane?: string }): Promise<unknown> =>
  ask('/api/v1/outbox/retry', { ofHub: true, method: 'POST', json: which })

/** Takes a conversation from its bot, or gives it back. */
export const handOver = (conversation: string, to: 'operator' | 'bot'): Promise<unknown> =>
  ask(`/api/v1/conversations/${encodeURIComponent(conversation)}/handover`, {
    method: to === 'operator' ? 'POST' : 'DELETE',
  })

/** Says something to the user of a conversation that was taken; under the same id it is said once. */
export const speak = (conversation: string, text: string, id: string): Promise<unknown> =>
  ask(`/api/v1/conversations/${encodeURIComponent(conversation)}/messages`, { method: 'POST', json: { text, id } })

function search(query: Query): string {
  const given = Object.entries(query).filter(([, value]) => value !== undefined && value !== '' && value !== false)
  return given.length === 0 ? '' : `?${new URLSearchParams(given.map(([name, value]) => [name, String(value)]))}`
}
