import type { NumberedEvent, PublicError } from '../core/events.ts'
import type { Arrival, HubClientOptions, Transport } from './transport.ts'
import { addressOf, HubClientError, keyOf, ownError } from './transport.ts'

/** The hub breaks silence every 5 s; a connection that is silent for longer than this is dead. */
const silenceMs = 20_000

/** Reads answers as server-sent events, and asks by requests: the channels `sse` and `rest`. */
export function overSse(options: HubClientOptions): Transport {
  async function request(path: string, signal: AbortSignal, body?: object, prefer?: string) {
    const key = await keyOf(options)
    const response = await (options.fetch ?? fetch)(addressOf(options, path), {
      headers: {
        accept: 'text/event-stream',
        ...(prefer && { prefer }),
        ...(body && { 'content-type': 'application/json' }),
        ...(key && { authorization: `Bearer ${key}` }),
      },
      ...(body && { method: 'POST', body: JSON.stringify(body) }),
      signal,
    })
    if (response.ok) return response
    throw await refusalOf(response)
  }
  return {
    async *read({ question, turn, seq }, signal, heard) {
      const silence = new AbortController()
      let timer: ReturnType<typeof setTimeout> | undefined
      const wait = () => {
        clearTimeout(timer)
        timer = setTimeout(() => silence.abort(), silenceMs)
      }
      try {
        wait()
        const response = await request(
          turn ? `/turns/${turn}/events?after=${seq}` : `/bots/${encodeURIComponent(question!.bot)}/messages`,
          AbortSignal.any([signal, silence.signal]),
          turn ? undefined : question,
        )
        heard()
        if (response.status === 204) yield { turn: turn! }
        else yield* arrivals(response.body!, wait)
      } finally {
        clearTimeout(timer)
      }
    },
    async ask(turn, { type, ...body }, signal) {
      const response = await request(`/turns/${turn}/${type}`, signal, body, 'respond-async')
      await response.text()
    },
    close() {},
  }
}

/** Frames as they come; one that is cut off is none. */
async function* arrivals(body: ReadableStream<Uint8Array>, heard: () => void): AsyncGenerator<Arrival> {
  const reader = body.getReader()
  const decoder = new TextDecoder()
  let rest = ''
  for (;;) {
    const { done, value } = await reader.read()
    if (done) return
    heard()
    const frames = (rest + decoder.decode(value, { stream: true })).split('\n\n')
    rest = frames.pop()!
    for (const frame of frames) {
      const [, turn, json] = /^id: (.*)\/\d+$[^]*^data: (.*)/m.exec(frame) ?? []
      if (turn && json) yield { turn, event: JSON.parse(json) as NumberedEvent }
    }
  }
}

async function refusalOf(response: Response): Promise<HubClientError> {
  const { status } = response
  // This one is answered with the turn as it ended.
  if (status === 410) return ownError('events_expired', 'Its events are gone.')
  try {
    return new HubClientError(((await response.json()) as { readonly error: PublicError }).error)
  } catch (error) {
    return ownError(status > 501 ? 'unreachable' : 'not_a_hub', `Status ${status}: is this a hub?`, error)
  }
}
