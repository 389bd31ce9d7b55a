import type { ClientRecord, ConnectionRecord, FrameRecord, Records, StoredTurn } from './records.ts'

/** What can be wrong, in the words of the promise it breaks. */
export const violationKinds = [
  'lost',
  'repeated upstream start',
  'started before it was kept',
  'repeated answer',
  'second turn',
  'gap',
  'repeat',
  'difference',
  'unended',
  'second end',
  'wrong words',
  'undelivered',
  'denied',
] as const
export type ViolationKind = (typeof violationKinds)[number]

/** One broken promise, with where to look. */
export interface Violation {
  readonly kind: ViolationKind
  readonly where: string
  readonly detail: string
}

/** Holds the records of clients, upstreams, callbacks and store against each other. Nothing is wrong when it is empty. */
export function check(records: Records): readonly Violation[] {
  return [
    ...checkTurns(records),
    ...checkStarts(records),
    ...checkClients(records),
    ...checkDialects(records),
    ...checkWords(records),
    ...checkDeliveries(records),
  ]
}

const finals = new Set(['completed', 'failed', 'cancelled', 'interrupted'])
const typeOf = (body: string): string => (JSON.parse(body) as { type: string }).type
const isEnd = (type: string): boolean => type.startsWith('turn.') && finals.has(type.slice('turn.'.length))

/** The log of each turn: dense, and with one end, the last. */
function* checkTurns({ store }: Records): Generator<Violation> {
  const messages = new Map<string, string>()
  for (const { id, bot, conversation, message, status, seq, events } of store.turns) {
    const key = JSON.stringify([bot, conversation, message])
    if (messages.has(key)) yield { kind: 'second turn', where: id, detail: `${message} has ${messages.get(key)} too` }
    messages.set(key, id)
    if (!finals.has(status)) yield { kind: 'unended', where: id, detail: `is ${status}` }
    yield* checkNumbers(id, 0, events)
    if (events.at(-1)?.seq !== seq)
      yield { kind: 'gap', where: id, detail: `its log ends with ${events.at(-1)?.seq}, the turn with ${seq}` }
    const ends = events.map(({ body }) => typeOf(body)).filter(isEnd)
    if (ends.length > 1) yield { kind: 'second end', where: id, detail: ends.join(', ') }
    if (finals.has(status) && typeOf(events.at(-1)?.body ?? '{"type":""}') !== `turn.${status}`)
      yield { kind: 'unended', where: id, detail: `is ${status}, but its log ends with something else` }
  }
}

function* checkNumbers(where: string, after: number, list: readonly { readonly seq: number }[]): Generator<Violation> {
  let last = after
  for (const { seq } of list) {
    if (seq > last + 1) yield { kind: 'gap', where, detail: `${seq} comes after ${last}` }
    if (seq <= last) yield { kind: 'repeat', where, detail: `${seq} comes after ${last}` }
    last = seq
  }
}

/** No upstream was asked twice for the same, nor for what was never kept. */
function* checkStarts({ upstream, store }: Records): Generator<Violation> {
  const kept = new Set(store.turns.map(({ message }) => message))
  const starts = new Map<string, number>()
  const answers = new Map<string, number>()
  for (const { kind, message, calls, outcome } of upstream) {
    if (kind === 'start' && message !== undefined && !kept.has(message))
      yield { kind: 'started before it was kept', where: message, detail: 'the store has no turn for it' }
    // One that was never answered may have begun all the same.
    if (kind === 'start' && outcome !== 'refused') count(starts, message ?? '')
    // Answers may be handed in again where the upstream can be asked whether it has them, which makes those it took count.
    if (kind === 'answer' && outcome === 'taken') for (const call of calls ?? []) count(answers, call)
  }
  for (const [message, times] of starts)
    if (times > 1) yield { kind: 'repeated upstream start', where: message, detail: `${times} times` }
  for (const [call, times] of answers)
    if (times > 1) yield { kind: 'repeated answer', where: call, detail: `${times} times` }
}

const count = (counts: Map<string, number>, key: string): void => void counts.set(key, (counts.get(key) ?? 0) + 1)

/** What each client was promised, and got. */
function* checkClients({ clients, store }: Records): Generator<Violation> {
  const turns = new Map(store.turns.map((turn) => [turn.id, turn]))
  const turnsOf = new Map<string, Set<string>>()
  for (const client of clients) {
    const told = turnsOf.get(client.message) ?? new Set()
    turnsOf.set(client.message, told)
    for (const id of client.turns) {
      told.add(id)
      const turn = turns.get(id)
      if (!turn) yield { kind: 'lost', where: id, detail: `${client.name} was told of it, the store does not have it` }
      else yield* checkClient(client, turn)
    }
    if (!client.end) yield { kind: 'unended', where: client.name, detail: `never saw the end of ${client.message}` }
    if (client.end?.type === 'refused')
      yield {
        kind: 'denied',
        where: client.name,
        detail: `${client.end.status} ${client.end.code} for ${client.message}`,
      }
  }
  for (const [message, told] of turnsOf)
    if (told.size > 1) yield { kind: 'second turn', where: message, detail: [...told].join(', ') }
}

function* checkClient(client: ClientRecord, turn: StoredTurn): Generator<Violation> {
  const { name, dialect, connections, end, object } = client
  for (const { after, frames } of connections) {
    if (dialect === 'sse' || dialect === 'socket-events') yield* checkNumbers(`${name} ${turn.id}`, after, frames)
    for (const { seq, event } of frames) {
      const stored = turn.events[seq - 1]
      if (!stored) yield { kind: 'lost', where: turn.id, detail: `${name} saw ${seq}, the store does not have it` }
      else if (event !== undefined && event !== stored.body)
        yield { kind: 'difference', where: turn.id, detail: `${name} saw ${event}, the store has ${stored.body}` }
    }
  }
  if (end?.type === 'ended' && finals.has(end.status) && end.status !== turn.status)
    yield { kind: 'difference', where: turn.id, detail: `${name} saw it ${end.status}, the store has ${turn.status}` }
  const text = object === undefined ? turn.text : (JSON.parse(object) as { text: string }).text
  if (text !== turn.text) yield { kind: 'difference', where: turn.id, detail: `${name} read another text` }
}

/** Clients of one dialect see the same bytes under the same number, and none of them misses one that another saw. */
function* checkDialects({ clients }: Records): Generator<Violation> {
  const shown = new Map<string, Map<number, string>>()
  const framesOf = (client: ClientRecord): Map<number, string> => {
    const key = `${client.dialect} ${client.turns[0]}`
    const known = shown.get(key) ?? new Map<number, string>()
    shown.set(key, known)
    return known
  }
  const objects = new Map<string, string>()
  for (const client of clients) {
    const known = framesOf(client)
    const where = `${client.name} ${client.turns[0]}`
    for (const { seq, bytes } of client.connections.flatMap(({ frames }) => frames)) {
      const other = known.get(seq)
      if (other !== undefined && other !== bytes)
        yield { kind: 'difference', where, detail: `${bytes} here, ${other} elsewhere` }
      known.set(seq, bytes)
    }
    if (client.object === undefined) continue
    const other = objects.get(client.turns[0]!)
    if (other !== undefined && other !== client.object)
      yield { kind: 'difference', where, detail: `${client.object} here, ${other} elsewhere` }
    objects.set(client.turns[0]!, client.object)
  }
  for (const client of clients) {
    const all = [...framesOf(client).keys()].toSorted((one, other) => one - other)
    for (const connection of client.connections)
      yield* checkComplete(`${client.name} ${client.turns[0]}`, connection, all)
  }
}

function* checkComplete(
  where: string,
  { after, frames }: ConnectionRecord,
  all: readonly number[],
): Generator<Violation> {
  const last = frames.at(-1)?.seq ?? after
  const seen = frames.map(({ seq }) => seq)
  const due = all.filter((seq) => seq > after && seq <= last)
  const missing = due.filter((seq) => !seen.includes(seq))
  if (missing.length > 0) yield { kind: 'gap', where, detail: `without ${missing.join(', ')}, which others saw` }
  const twice = seen.filter((seq, index) => seen.indexOf(seq) !== index || seq <= after)
  if (twice.length > 0) yield { kind: 'repeat', where, detail: `${twice.join(', ')} came again` }
}

interface Said {
  readonly type: string
  readonly message?: string
  readonly text?: string
}

/** The words: pieces add up to messages, messages to the answer, and the answer is the one the bot gives. */
function* checkWords({ messages, clients, store }: Records): Generator<Violation> {
  const sent = new Map(messages.map((message) => [message.id, message]))
  for (const turn of store.turns) {
    const whole = sent.get(turn.message)?.whole
    if (whole === undefined) continue
    const fits = turn.status === 'completed' ? turn.text === whole : whole.startsWith(turn.text)
    if (!fits) yield { kind: 'wrong words', where: turn.id, detail: `${turn.status} with ${brief(turn.text)}` }
    yield* checkPieces(turn)
  }
  const turns = new Map(store.turns.map((turn) => [turn.id, turn]))
  for (const client of clients) {
    const turn = turns.get(client.turns[0] ?? '')
    if (client.dialect !== 'socket-words' || turn?.status !== 'completed' || client.end?.type !== 'ended') continue
    const words = wordsOf(client)
    if (words !== turn.text) yield { kind: 'wrong words', where: client.name, detail: `heard ${brief(words)}` }
  }
}

function* checkPieces({ id, events }: StoredTurn): Generator<Violation> {
  const said = new Map<string, string>()
  for (const { body } of events) {
    const { type, message = '', text = '' } = JSON.parse(body) as Said
    if (type === 'message.delta') said.set(message, `${said.get(message) ?? ''}${text}`)
    if (type === 'message.completed' && said.get(message) !== text)
      yield { kind: 'wrong words', where: id, detail: `${brief(said.get(message) ?? '')} became ${brief(text)}` }
  }
}

/** Everything a client heard, each frame once. */
function wordsOf({ connections }: ClientRecord): string {
  const frames = new Map<number, FrameRecord>()
  for (const frame of connections.flatMap((connection) => connection.frames)) frames.set(frame.seq, frame)
  return [...frames.values()]
    .toSorted((one, other) => one.seq - other.seq)
    .map(({ words = '' }) => words)
    .join('')
}

const brief = (text: string): string =>
  JSON.stringify(text.length > 120 ? `${text.slice(0, 60)} … ${text.slice(-60)}` : text)

/** Every end that is owed to a webhook was taken by it, each delivery with the same body every time. */
function* checkDeliveries({ store, deliveries, clients }: Records): Generator<Violation> {
  const turns = new Map(store.turns.map((turn) => [turn.id, turn]))
  const taken = new Set(deliveries.filter((each) => each.taken).map(({ id }) => id))
  const bodies = new Map<string, string>()
  for (const { id, body, type } of deliveries) {
    const other = bodies.get(id)
    if (type !== 'turn.waiting' && other !== undefined && other !== body)
      yield { kind: 'difference', where: id, detail: `${body} here, ${other} before` }
    bodies.set(id, body)
  }
  for (const { id, type, state } of store.outbox)
    if (type !== 'turn.waiting' && !taken.has(id))
      yield { kind: 'undelivered', where: id, detail: `is ${state}, and never came` }
  for (const { turn, lane } of store.owed) {
    const end = `turn.${turns.get(turn)?.status}`
    if (!store.outbox.some((each) => each.turn === turn && each.lane === lane && each.type === end))
      yield { kind: 'undelivered', where: turn, detail: `${lane} is owed ${end}` }
  }
  const owed = new Set(store.owed.map(({ turn, lane }) => `${turn} ${lane}`))
  for (const { dialect, turns: told, name } of clients) {
    const bot = turns.get(told[0] ?? '')?.bot
    if (dialect === 'webhook' && bot !== undefined && !owed.has(`${told[0]} channel:hook-${bot}`))
      yield { kind: 'undelivered', where: told[0]!, detail: `nothing is owed to ${name}` }
  }
}
