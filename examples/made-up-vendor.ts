// examples/made-up-vendor.ts
import { defineProvider, HubError, requestEvents, retryAfterMs, secret, setting } from 'bothub'
import type { HubEvent, SourceEvent, Turn } from 'bothub'
import { z } from 'zod'

/**
 * A bot at Murmur, a vendor that does not exist: `POST /v1/answers` with a bearer key is answered with server-sent
 * events, `word` for each piece, then `end` or `error`. docs/writing-a-provider.md goes through it.
 */
export const murmur = defineProvider({
  manifest: { name: 'murmur' },
  options: z.strictObject({
    url: setting().prefault('https://api.murmur.example'),
    key: secret(),
    /** Longest silence, in ms. */
    idleTimeoutMs: z.int().positive().default(60_000),
  }),
  create: ({ url, key, idleTimeoutMs }, { fetch }) => ({
    async *respond(turn) {
      const response = await requestEvents({
        fetch,
        url: new URL('/v1/answers', url),
        headers: { authorization: `Bearer ${key.reveal()}`, accept: 'text/event-stream' },
        body: requestOf(turn),
        signal: turn.signal,
        idleTimeoutMs,
      })
      const { status, headers, mediaType } = response
      if (status !== 200 || mediaType !== 'text/event-stream') throw refusal(status, headers, await response.text())
      yield* read(response.events())
    },
  }),
})

/** Murmur remembers nothing: it is told all that was said, and by whom. */
const requestOf = ({ principal, history, message }: Turn) => ({
  user: JSON.stringify([principal.key, principal.user ?? null]),
  said: [
    ...history.map(({ role, text }) => ({ by: role === 'user' ? 'user' : 'bot', text })),
    { by: 'user', text: message.text },
  ],
})

async function* read(events: AsyncIterable<SourceEvent>): AsyncGenerator<HubEvent> {
  let whole = ''
  for await (const { event, data } of events) {
    const { text } = parse(data)
    if (event === 'error') throw new HubError('upstream_failed', detailsOf(data))
    if (event === 'end') return yield { type: 'message.completed', message: 'answer', text: whole }
    if (event !== 'word' || !text) continue // What is not understood must not break the turn.
    whole += text
    yield { type: 'message.delta', message: 'answer', text }
  }
  throw new HubError('upstream_cut') // Only `end` says that the answer is whole.
}

function refusal(status: number, headers: Headers, body: string): HubError {
  const { cause, upstream } = detailsOf(body)
  const wait = retryAfterMs(headers.get('retry-after'))
  const details = { cause, upstream: { ...upstream, status }, ...(wait === undefined ? {} : { retryAfterMs: wait }) }
  if (status === 429) return new HubError('upstream_rate_limited', { ...details, notStarted: true })
  if (status === 401 || status === 403) return new HubError('upstream_auth', details)
  return new HubError(status >= 400 && status < 500 ? 'upstream_rejected' : 'upstream_failed', details)
}

/** Clients may see Murmur's code; its words are for the log. */
function detailsOf(body: string) {
  const { code, reason } = parse(body)
  return { cause: new Error(reason ?? body.slice(0, 200)), upstream: code === undefined ? {} : { code } }
}

const fields = z.object({ text: z.string(), code: z.string(), reason: z.string() }).partial()
function parse(json: string): z.infer<typeof fields> {
  try {
    return fields.parse(JSON.parse(json))
  } catch {
    return {}
  }
}
