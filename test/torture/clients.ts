import { setTimeout as sleep } from 'node:timers/promises'
import { Webhook } from 'standardwebhooks'
import { WebSocket } from 'ws'
import type { Receiver } from './receiver.ts'
import type { ClientEnd, ClientRecord, ConnectionRecord, Dialect, FrameRecord } from './records.ts'
import type { Errand, Sender } from './script.ts'

/** Where the hub is, whether it lives or not, and how long clients go on trying. */
export interface Place {
  readonly url: string
  readonly receiver: Receiver
  readonly secret: string
  /** Aborted when the run is over: who is still waiting then has waited in vain. */
  readonly signal: AbortSignal
}

const retryMs = 60
const requestMs = 12_000

/** Sends an errand's message as one client, comes back after every lost connection, and writes down what it got. */
export async function runClient(place: Place, errand: Errand, sender: Sender, name: string): Promise<ClientRecord> {
  const client = new Client(place, errand, sender, name)
  await sleep(sender.delayMs, undefined, { signal: place.signal }).catch(() => {})
  while (!client.end && !place.signal.aborted) {
    try {
      await dialects[sender.dialect](client)
    } catch (error) {
      if (!isLost(error)) throw error
      client.lost += 1
    }
    if (!client.end) await sleep(retryMs, undefined, { signal: place.signal }).catch(() => {})
  }
  return client.record()
}

/** What one client knows. */
class Client {
  readonly place: Place
  readonly errand: Errand
  readonly sender: Sender
  readonly name: string
  readonly connections: ConnectionRecord[] = []
  readonly turns = new Set<string>()
  end: ClientEnd | undefined
  object: string | undefined
  lost = 0
  #frames = 0
  #cancelled = false

  constructor(place: Place, errand: Errand, sender: Sender, name: string) {
    this.place = place
    this.errand = errand
    this.sender = sender
    this.name = name
  }

  get turn(): string | undefined {
    return this.turns.values().next().value
  }

  /** Number of the last event it has of what it would go on with. */
  get last(): number {
    const newest = this.connections.at(-1)
    return newest?.frames.at(-1)?.seq ?? newest?.after ?? 0
  }

  connect(after: number): FrameRecord[] {
    const frames: FrameRecord[] = []
    this.connections.push({ after, frames })
    return frames
  }

  /** Notes a frame and does what it had in mind. True when it leaves. */
  async seen(frames: FrameRecord[], frame: FrameRecord): Promise<boolean> {
    frames.push(frame)
    this.#frames += 1
    const { cancelsAfter, leavesAfter } = this.sender
    if (cancelsAfter !== undefined && this.#frames >= cancelsAfter) await this.cancel()
    if (leavesAfter === undefined || this.#frames < leavesAfter) return false
    this.end = { type: 'left' }
    return true
  }

  async cancel(): Promise<void> {
    if (this.#cancelled || !this.turn) return
    this.#cancelled = true
    await this.post(`/turns/${this.turn}/cancel`, {}).then(
      (response) => response.text(),
      () => (this.#cancelled = false),
    )
  }

  post(path: string, body: unknown, headers: Record<string, string> = {}): Promise<Response> {
    return fetch(`${this.place.url}/api/v1${path}`, {
      method: 'POST',
      body: JSON.stringify(body),
      headers: { 'content-type': 'application/json', ...headers },
      signal: this.limit(),
    })
  }

  get(path: string, headers: Record<string, string> = {}): Promise<Response> {
    return fetch(`${this.place.url}/api/v1${path}`, { headers, signal: this.limit() })
  }

  limit(ms = requestMs): AbortSignal {
    return AbortSignal.any([this.place.signal, AbortSignal.timeout(ms)])
  }

  /** Whether to go on with the response: a refusal for now is tried again later, one for good ends the client. */
  async taken(response: Response): Promise<boolean> {
    if (response.ok) return true
    const { error } = (await response.json()) as { error?: { code?: string } }
    const code = error?.code ?? ''
    if (passing.has(code)) return false
    this.end = { type: 'refused', status: response.status, code }
    return false
  }

  /** Answers the calls that a turn waits for; false when it does not (any more). */
  async answer(waiting: Waiting): Promise<Response> {
    const { decision } = this.sender
    return waiting.for === 'consent'
      ? this.post(`/turns/${this.turn}/consent`, {
          decisions: waiting.calls.map(({ call }) => ({ call, result: decision })),
        })
      : this.post(`/turns/${this.turn}/tool-outputs`, {
          outputs: waiting.calls.map(({ call }) => ({ call, output: 'the door is open' })),
        })
  }

  record(): ClientRecord {
    return {
      name: this.name,
      dialect: this.sender.dialect,
      message: this.errand.id,
      turns: [...this.turns],
      connections: this.connections,
      ...(this.object === undefined ? {} : { object: this.object }),
      ...(this.end ? { end: this.end } : {}),
    }
  }
}

/** Refusals after which a client tries again. */
const passing = new Set([
  'shutting_down',
  'turn_waiting',
  'queue_full',
  'store_unavailable',
  'bot_unavailable',
  'already_decided',
  'not_waiting',
])

interface Waiting {
  readonly for: string
  readonly calls: readonly { readonly call: string }[]
}
interface TurnObject {
  readonly turn: string
  readonly status: string
  readonly waiting?: Waiting
}

/** A connection that broke off, or never came to be: what happens to clients of a hub that is killed. */
function isLost(error: unknown): boolean {
  if (error instanceof SyntaxError || error instanceof TypeError) return true
  return error instanceof Error && (error.name === 'AbortError' || error.name === 'TimeoutError' || 'code' in error)
}

const ended = (status: string) => /^(completed|failed|cancelled|interrupted)$/.test(status)
const messageOf = ({ id, text, conversation }: Errand) => ({ id, text, conversation })

/** One connection each; called again until the client has come to an end. */
const dialects: Readonly<Record<Dialect, (client: Client) => Promise<void>>> = {
  async rest(client) {
    const { errand, sender, turn } = client
    const response =
      turn !== undefined && !sender.insists
        ? await client.get(`/turns/${turn}?wait=5`)
        : await client.post(
            `/bots/${errand.bot}/messages`,
            messageOf(errand),
            sender.async ? { prefer: 'respond-async' } : {},
          )
    if (!(await client.taken(response))) return
    await readObject(client, await response.text())
  },

  async sse(client) {
    const { errand, sender, turn, last } = client
    const goesOn = turn !== undefined && !(sender.insists && last > 0 && client.connections.length % 3 === 0)
    const response = goesOn
      ? await client.get(`/turns/${turn}/events`, last > 0 ? { 'last-event-id': `${turn}/${last}` } : {})
      : await client.post(`/bots/${errand.bot}/messages`, messageOf(errand), { accept: 'text/event-stream' })
    if (!(await client.taken(response))) return
    if (response.status === 204) {
      await readObject(client, await (await client.get(`/turns/${turn}`)).text(), false)
      return
    }
    if (goesOn) answerAgain(client)
    await readEvents(client, response, client.connect(goesOn ? last : 0))
  },

  'socket-events': (client) => readSocket(client, { events: true }),
  'socket-words': (client) => readSocket(client, {}),

  async webhook(client) {
    const { errand, place } = client
    const body = JSON.stringify(messageOf(errand))
    const at = new Date()
    const id = `in-${client.name}`
    const response = await fetch(`${place.url}/api/v1/webhooks/hook-${errand.bot}`, {
      method: 'POST',
      body,
      headers: {
        'content-type': 'application/json',
        'webhook-id': id,
        'webhook-timestamp': String(Math.floor(at.getTime() / 1000)),
        'webhook-signature': new Webhook(place.secret).sign(id, at, body),
      },
      signal: client.limit(),
    })
    if (!(await client.taken(response))) return
    const { turn } = (await response.json()) as TurnObject
    client.turns.add(turn)
    await awaitDelivery(client, turn, '')
  },
}

/** Acts on a turn object: done with it, or with answers where it waits for them. */
async function readObject(client: Client, text: string, keep = true): Promise<void> {
  const object = JSON.parse(text) as TurnObject
  client.turns.add(object.turn)
  if (client.sender.cancelsAfter !== undefined) await client.cancel()
  if (ended(object.status)) {
    if (keep) client.object = text
    client.end = { type: 'ended', status: object.status }
  } else if (object.waiting) {
    const response = await client.answer(object.waiting)
    if (await client.taken(response)) await readObject(client, await response.text(), keep)
  }
}

interface Event {
  readonly seq: number
  readonly type: string
  readonly turn?: string
  readonly for?: string
  readonly calls?: Waiting['calls']
}

async function readEvents(client: Client, response: Response, frames: FrameRecord[]): Promise<void> {
  let unread = ''
  let calls: Waiting['calls'] = []
  for await (const chunk of response.body!.pipeThrough(new TextDecoderStream())) {
    unread = `${unread}${chunk}`.replaceAll(/^: \n/gm, '')
    for (;;) {
      const end = unread.indexOf('\n\n')
      if (end < 0) break
      const bytes = unread.slice(0, end + 2)
      unread = unread.slice(end + 2)
      const event = eventIn(bytes)
      if (event.type === 'turn.started') client.turns.add(event.turn!)
      calls = event.calls ?? calls
      const seq = Number(/^id: [^/]+\/(\d+)$/m.exec(bytes)![1])
      if (await client.seen(frames, { seq, bytes, event: jsonIn(bytes), at: Date.now() })) {
        await response.body!.cancel().catch(() => {})
        return
      }
      if (event.type === 'turn.waiting') {
        const waiting = { for: event.for!, calls: calls.length > 0 ? calls : await callsOf(client) }
        if (waiting.calls.length > 0) await (await client.answer(waiting)).text()
      }
      if (ended(event.type.replace('turn.', '')) && event.type.startsWith('turn.')) {
        client.end = { type: 'ended', status: event.type.replace('turn.', '') }
        return
      }
    }
  }
}

const jsonIn = (frame: string): string => /^data: (.*)$/m.exec(frame)![1]!
const eventIn = (frame: string): Event => JSON.parse(jsonIn(frame)) as Event

/**
 * A question that was answered while the hub died may still be open, and is not asked again on a connection that goes on
 * behind it. Tried until a hub has heard it, for that connection may be the last one.
 */
function answerAgain(client: Client): void {
  const answer = async () => {
    const { waiting } = (await (await client.get(`/turns/${client.turn}`)).json()) as TurnObject
    if (waiting) await (await client.answer(waiting)).text()
  }
  const { signal } = client.place
  const insist = (): Promise<void> =>
    answer().catch(async () => {
      await sleep(retryMs, undefined, { signal })
      if (!client.end) await insist()
    })
  insist().catch(() => {})
}

async function callsOf(client: Client): Promise<Waiting['calls']> {
  const response = await client.get(`/turns/${client.turn}`)
  const { waiting } = (await response.json()) as TurnObject
  return waiting?.calls ?? []
}

interface SocketFrame {
  readonly type: string
  readonly turn?: string
  readonly seq?: number
  readonly code?: string
  readonly content?: string
  readonly done?: boolean
  readonly event?: Event
  readonly for?: string
  readonly calls?: Waiting['calls']
}

async function readSocket(client: Client, form: { readonly events?: boolean }): Promise<void> {
  const { errand, turn, last, place } = client
  const socket = new WebSocket(`${place.url.replace('http', 'ws')}/api/v1/ws`)
  const over = Promise.withResolvers<void>()
  const stop = () => socket.terminate()
  place.signal.addEventListener('abort', stop, { once: true })
  socket.on('error', () => {})
  socket.on('close', () => over.resolve())
  let frames: FrameRecord[] = []
  let calls: Waiting['calls'] = []
  socket.on('open', () => {
    frames = client.connect(turn === undefined ? 0 : last)
    const greeting =
      turn === undefined
        ? { type: 'chat', agentId: errand.bot, sessionId: errand.conversation, id: errand.id, message: errand.text }
        : { type: 'resume', turn, after: last }
    socket.send(JSON.stringify({ ...greeting, ...form }))
    if (greeting.type === 'resume') answerAgain(client)
  })
  const read = async (text: string): Promise<void> => {
    const frame = JSON.parse(text) as SocketFrame
    if (frame.turn && frame.seq !== undefined) client.turns.add(frame.turn)
    if (frame.type === 'error' && frame.seq === undefined) {
      if (!passing.has(frame.code ?? '')) client.end = { type: 'refused', status: 0, code: frame.code ?? '' }
      return socket.close()
    }
    const { id: _, ...shown } = JSON.parse(text) as Record<string, unknown>
    const leaves = await client.seen(frames, {
      seq: frame.seq ?? 0,
      bytes: JSON.stringify(shown),
      at: Date.now(),
      ...(frame.event ? { event: JSON.stringify(frame.event) } : {}),
      ...(frame.type === 'stream' ? { words: frame.content ?? '' } : {}),
    })
    if (leaves) return socket.close()
    calls = frame.event?.calls ?? frame.calls ?? calls
    const wait =
      frame.type === 'waiting' ? frame.for : frame.event?.type === 'turn.waiting' ? frame.event.for : undefined
    if (wait) {
      const known = calls.length > 0 ? calls : await callsOf(client)
      if (wait === 'consent' && known.length > 0) {
        const decisions = known.map(({ call }) => ({ call, result: client.sender.decision }))
        socket.send(JSON.stringify({ type: 'consent', turn: frame.turn, decisions, ...form }))
      } else await (await client.answer({ for: wait, calls: known })).text()
    }
    const status = endOf(frame)
    if (!status) return
    client.end = { type: 'ended', status }
    socket.close()
  }
  let reading = Promise.resolve()
  socket.on('message', (bytes: Buffer) => {
    reading = reading.then(() => (client.end ? undefined : read(bytes.toString()))).catch(() => socket.terminate())
  })
  await over.promise
  await reading
  place.signal.removeEventListener('abort', stop)
}

/** Status of the turn whose end a frame is. */
function endOf({ type, done, event, code }: SocketFrame): string | undefined {
  const status = event?.type.startsWith('turn.') ? event.type.replace('turn.', '') : undefined
  if (status && ended(status)) return status
  if (done) return 'completed'
  return type === 'error' ? `error ${code}` : undefined
}

/** Waits for the callbacks of a turn, answers where it waits, until it has ended. */
async function awaitDelivery(client: Client, turn: string, after: string): Promise<void> {
  const { receiver, signal } = client.place
  const known = new Set([after])
  for (;;) {
    const delivery = await receiver.delivered((each) => each.turn === turn && !known.has(each.id), signal)
    known.add(delivery.id)
    const object = (JSON.parse(delivery.body) as { data: TurnObject }).data
    if (delivery.type !== 'turn.waiting') {
      client.end = { type: 'ended', status: object.status }
      return
    }
    while (object.waiting) {
      const response = await client.answer(object.waiting).catch(() => undefined)
      await response?.text().catch(() => {})
      // Taken, or somebody else was first; a hub that stops says 503, and one that is dead nothing.
      if (response && response.status < 500) break
      await sleep(retryMs, undefined, { signal })
    }
  }
}
