import { createServer, request } from 'node:http'
import type { ServerResponse } from 'node:http'
import { join } from 'node:path'
import { setImmediate, setTimeout } from 'node:timers'
import Database from 'better-sqlite3'
import { createParser } from 'eventsource-parser'
import { directAgents, readDirectly } from '../../core/direct-agent.ts'
import { announce } from './announce.ts'

// The steps of the hub's path with nothing around them, to see what each must cost: bytes of the upstream are parsed, what
// they say is numbered, committed and synced to the disk if it is to be, and only then said again. As in the hub, many
// streams are served together, every 3 ms. There are no conversations, no messages that are kept, no second reader, nothing that
// ends in time, nothing that could be tried again, and no bound for a client that does not read.

const [, , upstream, folder, upTo] = process.argv
const everyMs = 3
const { plain: agent } = directAgents({ keepAlive: true })
const log = upTo === 'logged' ? openLog() : undefined

interface Stream {
  readonly turn: number
  readonly response: ServerResponse
  seq: number
  said: { readonly seq: number; readonly type: string; readonly message: string; readonly text: string }[]
  hasEnded: boolean
}

let turns = 0
let toServe = new Set<Stream>()
let lastBeat = 0

announce(
  createServer((incoming, response) => {
    const { method = 'GET', url = '/', headers } = incoming
    const outgoing = request(upstream + url, { method, headers, agent }, (answer) => {
      response.writeHead(200, { 'content-type': 'text/event-stream' })
      response.flushHeaders()
      response.socket?.setNoDelay(true)
      const stream: Stream = { turn: ++turns, response, seq: 0, said: [], hasEnded: false }
      const parser = createParser({ onEvent: ({ data }) => hear(stream, data) })
      const decoder = new TextDecoder()
      const isRead = readDirectly(answer, (bytes, from, to) =>
        parser.feed(decoder.decode(bytes.subarray(from, to), { stream: true })),
      )
      if (!isRead) throw new Error('the upstream does not answer in chunks')
      answer.on('end', () => {
        stream.hasEnded = true
        serveSoon(stream)
      })
    })
    outgoing.on('error', () => response.destroy())
    response.on('close', () => outgoing.destroy())
    incoming.pipe(outgoing)
  }),
)

function hear(stream: Stream, data: string): void {
  if (data === '[DONE]') return
  const { choices } = JSON.parse(data) as { choices: readonly { readonly delta: { readonly content?: string } }[] }
  const text = choices[0]?.delta.content
  if (!text) return
  stream.said.push({ seq: ++stream.seq, type: 'message.delta', message: 'answer-1', text })
  serveSoon(stream)
}

function serveSoon(stream: Stream): void {
  const isFirst = toServe.size === 0
  toServe.add(stream)
  if (!isFirst) return
  const waitMs = lastBeat + everyMs - performance.now()
  if (waitMs >= 1) setTimeout(serve, waitMs)
  else setImmediate(serve)
}

function serve(): void {
  const streams = toServe
  toServe = new Set()
  lastBeat = performance.now()
  log?.run(JSON.stringify(Array.from(streams, ({ turn, said }) => [turn, ...said])))
  for (const stream of streams) say(stream)
}

/** A chunk of HTTP as one string, as the hub writes it. */
function say({ turn, response, said, hasEnded }: Stream): void {
  const frames = said.map(
    (event) => `id: ${turn}/${event.seq}\nevent: ${event.type}\ndata: ${JSON.stringify(event)}\n\n`,
  )
  said.length = 0
  const text = frames.join('')
  if (text !== '') response.socket?.write(`${Buffer.byteLength(text).toString(16)}\r\n${text}\r\n`)
  if (hasEnded) response.end()
}

function openLog(): Database.Statement {
  const database = new Database(join(folder!, `steps-${process.pid}.db`))
  database.pragma('journal_mode = WAL')
  database.pragma('synchronous = FULL')
  database.exec('CREATE TABLE log (number INTEGER PRIMARY KEY, body TEXT NOT NULL)')
  return database.prepare('INSERT INTO log (body) VALUES (?)')
}
