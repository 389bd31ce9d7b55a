import { hubClient } from 'bothub/client'
import type { HubClient } from 'bothub/client'

/** The path of the page, which is the path of the channels; empty at the root. */
const base = document.documentElement.dataset['base'] ?? ''
const keyName = 'bothub-key'

/** The key that was shown in this tab. */
export const adminKey = {
  get: (): string => sessionStorage.getItem(keyName) ?? '',
  set: (key: string): void => sessionStorage.setItem(keyName, key),
}

/** A bot as `GET /api/v1/bots` lists it. */
export interface BotItem {
  readonly bot: string
  readonly name?: string
  readonly description?: string
  readonly welcome?: string
  readonly starters?: readonly string[]
  readonly supports: readonly string[]
  readonly simulated: boolean
}

/** One thing that was said. */
export interface RecordItem {
  readonly role: 'user' | 'bot' | 'operator'
  readonly text: string
  readonly turn: string
}

/** What the hub refused, with its status. */
export class Refusal extends Error {
  readonly status: number

  constructor(status: number, message: string) {
    super(message)
    this.status = status
  }
}

/**
 * Asks the hub: `request('/api/v1/bots')`; with a body it is a POST.
 * @throws Refusal with the hub's own sentence
 */
export async function request<Answer>(path: string, body?: BodyInit): Promise<Answer> {
  return send(`${base}${path}`, body === undefined ? {} : { method: 'POST', body })
}

/** How something is asked of the hub. */
export interface Asking {
  readonly method?: 'GET' | 'POST' | 'DELETE'
  readonly json?: unknown
  /** It is a path of the hub itself, which is the same wherever the page is. */
  readonly ofHub?: boolean
}

/**
 * Asks the hub in JSON; an answer without a body is undefined.
 * @throws Refusal with the hub's own sentence
 */
export const ask = <Answer>(path: string, { method = 'GET', json, ofHub = false }: Asking = {}): Promise<Answer> =>
  send(`${ofHub ? '' : base}${path}`, {
    method,
    ...(json === undefined ? {} : { body: JSON.stringify(json), headers: { 'content-type': 'application/json' } }),
  })

async function send<Answer>(url: string, init: RequestInit): Promise<Answer> {
  const headers = new Headers(init.headers)
  if (adminKey.get()) headers.set('authorization', `Bearer ${adminKey.get()}`)
  const response = await fetch(url, { ...init, headers })
  const text = await response.text()
  const answer = (text ? JSON.parse(text) : undefined) as Answer & { readonly error?: { readonly message: string } }
  if (!response.ok) throw new Refusal(response.status, answer?.error?.message ?? `${response.status}`)
  return answer
}

/** A client whose connection can be cut, as a bad network does. */
export interface Line {
  readonly client: HubClient
  /** Breaks off what is being read; the client comes back by itself. */
  cut(): void
}

/** Makes a client for one answer; `onOpen` is called with each connection that it opens to read, from 1. */
export function openLine(onOpen: (count: number) => void = () => {}): Line {
  let wire = new AbortController()
  let count = 0
  const client = hubClient({
    url: `${location.origin}${base}`,
    key: adminKey.get,
    fetch: (input, init) => {
      // A decision or a cancelling is no reading, and nothing to cut.
      const url = input instanceof Request ? input.url : input.toString()
      if (init?.method === 'POST' && !url.endsWith('/messages')) return fetch(input, init)
      wire = new AbortController()
      onOpen(++count)
      return fetch(input, { ...init, signal: AbortSignal.any([wire.signal, ...(init?.signal ? [init.signal] : [])]) })
    },
  })
  return { client, cut: () => wire.abort(new Error('cut')) }
}

/** A name nobody else has chosen; `crypto.randomUUID` is not there where a page is not secure. */
export const newName = (): string =>
  Array.from(crypto.getRandomValues(new Uint32Array(3)), (part) => part.toString(36)).join('')
