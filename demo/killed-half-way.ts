import { hubClient } from 'bothub/client'
import type { Answer, NumberedEvent } from 'bothub/client'
import type { HubProcess } from './hub-process.ts'
import type { Stage } from './stage.ts'

/** The answer that is told: `word 1` to `word 300`, in about three seconds. */
const words = 300
const killAfter = 120

/** What was lost and what came twice; both are counted, never assumed. */
export interface Tally {
  readonly lost: number
  readonly doubled: number
}

/** What was received of an answer, and behind which event the hub was killed. */
interface Received {
  readonly events: readonly NumberedEvent[]
  readonly killedAfter: number
}

/** Kills the hub in the middle of an answer, starts another one on its port, and counts what the reader got. */
export async function killedHalfWay(stage: Stage, first: HubProcess): Promise<Tally & { readonly hub: HubProcess }> {
  stage.title('A long answer, and the hub is killed half-way')
  let hub = first
  const restart = async () => {
    await hub.kill()
    stage.note(`kill -9 of the hub. Another one starts on port ${hub.port} …`)
    hub = await stage.startHub(hub.port)
  }
  const connections = { count: 0 }
  using client = hubClient({ url: first.url, fetch: counting(connections) })
  const answer = client.ask('storyteller', '/long', { conversation: 'long' })
  const received = await read(stage, answer, connections, restart)
  const tally = await count(stage, received, `${hub.url}/api/v1/turns/${answer.turn}/events`)
  return { ...tally, hub }
}

/** A connection is read to its end before there is another one, so its number says from which hub an event came. */
const counting =
  (connections: { count: number }): typeof fetch =>
  async (...request) => {
    const response = await fetch(...request)
    if (response.ok) connections.count += 1
    return response
  }

async function read(
  stage: Stage,
  answer: Answer,
  connections: { readonly count: number },
  restart: () => Promise<void>,
): Promise<Received> {
  const events: NumberedEvent[] = []
  let restarted: Promise<void> | undefined
  let killedAfter = 0
  for await (const event of answer) {
    if (connections.count > 1 && killedAfter === 0) killedAfter = events.at(-1)?.seq ?? 0
    events.push(event)
    if (event.type === 'message.delta') stage.word(event.text, killedAfter === 0 ? 'cyan' : 'green')
    if (events.filter(({ type }) => type === 'message.delta').length === killAfter) restarted ??= restart()
  }
  await restarted
  stage.endWords()
  return { events, killedAfter }
}

async function count(stage: Stage, { events, killedAfter }: Received, replayUrl: string): Promise<Tally> {
  const said = wordsIn(events)
  const expected = Array.from({ length: words }, (_, index) => `word ${index + 1}`)
  const lost = expected.filter((word) => !said.includes(word)).length
  const doubled = said.length - new Set(said).size + stage.upstreamAsks() - 1
  const before = wordsIn(events.filter(({ seq }) => seq <= killedAfter))
  const after = wordsIn(events.filter(({ seq }) => seq > killedAfter))
  stage.line(
    `  the halves join:  … ${stage.paint('cyan', before.slice(-2).join(' '))} ${stage.paint('bold', '|')} ${stage.paint('green', after.slice(0, 2).join(' '))} …`,
  )
  stage.line(
    `  event ${killedAfter} was the last before the kill, event ${events.find(({ seq }) => seq > killedAfter)?.seq} the first after it`,
  )
  stage.line(
    `  ${said.length} words of ${words} in ${events.length} events; the platform was asked ${times(stage.upstreamAsks())}`,
  )
  const replayed = await replay(replayUrl)
  const isSame = JSON.stringify(replayed) === JSON.stringify(events)
  stage.line(
    `  a replay of the turn from its beginning is ${isSame ? 'the same, event by event' : 'NOT the same'}; it ended with ${events.at(-1)?.type}`,
  )
  return { lost: lost + (isSame ? 0 : 1), doubled }
}

const wordsIn = (events: readonly NumberedEvent[]): string[] =>
  events
    .map((event) => (event.type === 'message.delta' ? event.text : ''))
    .join('')
    .match(/word \d+/g) ?? []

async function replay(url: string): Promise<NumberedEvent[]> {
  const text = await (await fetch(url)).text()
  return Array.from(text.matchAll(/^data: (.*)$/gm), ([, json]) => JSON.parse(json!) as NumberedEvent)
}

const times = (asks: number): string => (asks === 1 ? 'once' : `${asks} times`)
