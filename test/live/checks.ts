import assert from 'node:assert/strict'
import { randomInt } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import type { NumberedEvent, TurnObject } from 'bothub'
import type { TestHub } from '../support/hub.ts'
import { jsonOf } from '../support/hub.ts'
import type { Line } from './line.ts'

/** What a check works with: a hub whose `bot` is the real one, and the line between them. */
export interface Stage {
  readonly hub: TestHub
  readonly line: Line
  /** A question whose answer takes a while. */
  readonly longQuestion: string
}

/** Something every bot on a real platform should do, whatever it is told to be. */
export interface Check {
  readonly title: string
  /** Throws when the platform, or the hub before it, does something else; may return what is worth knowing. */
  run(stage: Stage): Promise<string | void>
}

/** The check says nothing about this bot. */
export class Skipped extends Error {}

/** The name that one user tells and the other must not know: no model guesses it. */
const secretName = Array.from({ length: 8 }, () => String.fromCharCode(97 + randomInt(26))).join('')
const room = (name: string) => `live-${secretName}-${name}`

export const checks: readonly Check[] = [
  {
    title: 'answers a question',
    async run({ hub }) {
      const turn = await ask(hub, 'Hello! Who are you?', room('hello'))
      assert.notEqual(turn.text.trim(), '', 'the answer has no words')
      return turn.usage ? `${turn.usage.totalTokens} tokens` : 'no usage was reported'
    },
  },
  {
    title: 'says it in pieces that add up, no character broken',
    async run({ hub }) {
      const events = await hub.stream('bot', '请用中文从一数到二十。🙂', { conversation: room('pieces') })
      assert.equal(events.at(-1)?.type, 'turn.completed', failureIn(events))
      const deltas = events.filter((event) => event.type === 'message.delta')
      assert.ok(deltas.length > 0, 'no delta came')
      for (const whole of events.filter((event) => event.type === 'message.completed')) {
        const pieces = deltas.filter(({ message }) => message === whole.message).map(({ text }) => text)
        if (pieces.length > 0) assert.equal(pieces.join(''), whole.text)
      }
      const said = deltas.map(({ text }) => text).join('')
      assert.ok(!said.includes('\uFFFD'), 'a character was broken')
      assert.match(said, /\p{Script=Han}/u)
      return `${deltas.length} pieces`
    },
  },
  {
    title: 'remembers a conversation',
    async run({ hub }) {
      await ask(hub, `My name is ${secretName}. Please remember it.`, room('shared'), { user: 'ada' })
      const turn = await ask(hub, 'What is my name?', room('shared'), { user: 'ada' })
      assert.ok(turn.text.toLowerCase().includes(secretName), 'the name was not remembered')
    },
  },
  {
    title: 'keeps two users apart',
    async run({ hub }) {
      const turn = await ask(hub, 'What is my name?', room('shared'), { user: 'bob' })
      assert.ok(!turn.text.toLowerCase().includes(secretName), 'one user was told what another one said')
    },
  },
  {
    title: 'answers a repeated message without asking again',
    async run({ hub, line }) {
      const before = line.messages
      const id = room('once')
      const first = await ask(hub, 'Say one word.', room('once'), { id })
      const second = await ask(hub, 'Say one word.', room('once'), { id })
      assert.deepEqual(second, first)
      assert.equal(line.messages - before, 1, 'the platform was not asked once')
    },
  },
  {
    title: 'brings the rest of an answer whose connection was cut',
    async run({ hub, line }) {
      const before = { messages: line.messages, cuts: line.cuts }
      line.cutNext()
      const events = await hub.stream('bot', 'Count from 1 to 30, in words.', { conversation: room('cut') })
      if (line.cuts === before.cuts) throw new Skipped('the answer came without pieces, so there was nothing to cut')
      assert.equal(events.at(-1)?.type, 'turn.completed', failureIn(events))
      assert.equal(line.messages - before.messages, 1, 'the message was sent again')
    },
  },
  {
    title: 'stops when it is cancelled, and the conversation goes on',
    async run({ hub, longQuestion }) {
      const conversation = room('cancel')
      const end = await cancelled(hub, longQuestion, conversation)
      if (end === 'turn.completed') throw new Skipped('the answer was whole before it could be cancelled')
      assert.equal(end, 'turn.cancelled')
      await ask(hub, 'What is two and two?', conversation)
    },
  },
  {
    title: 'takes a file',
    async run({ hub }) {
      const form = new FormData()
      form.set('conversation', room('file'))
      form.set('file', new Blob(['The lighthouse is green.'], { type: 'text/plain' }), 'lighthouse.txt')
      const response = await fetch(`${hub.url}/api/v1/bots/bot/files`, { method: 'POST', body: form })
      assert.equal(response.status, 201, await response.text())
    },
  },
  {
    title: 'forgets a conversation at the platform too',
    async run({ hub, line }) {
      await ask(hub, 'Hello', room('forget'))
      const before = line.deletions.length
      const path = `${hub.url}/api/v1/bots/bot/conversations/${room('forget')}`
      assert.ok((await fetch(path, { method: 'DELETE' })).ok, 'the hub did not delete the conversation')
      const until = Date.now() + 30_000
      while (line.deletions.length === before && Date.now() < until) await sleep(50)
      const status = line.deletions[before]
      assert.ok(status !== undefined, 'the platform was not told within 30 s')
      assert.ok(status < 300, `the platform answered the deletion with ${status}`)
    },
  },
  {
    title: 'says whose fault a wrong key is',
    async run({ hub }) {
      const turn = await hub.ask('wrong', 'Hello', { conversation: room('wrong') })
      assert.equal(turn.error?.code, 'upstream_auth', `the turn is ${turn.status}, with ${turn.error?.code}`)
    },
  },
]

/** The turn of a message that must be answered. */
async function ask(hub: TestHub, text: string, conversation: string, more: object = {}): Promise<TurnObject> {
  const turn = await hub.ask('bot', text, { conversation, ...more })
  assert.equal(turn.status, 'completed', `the turn is ${turn.status}: ${JSON.stringify(turn.error)}`)
  return turn
}

const failureIn = (events: readonly NumberedEvent[]): string => `the stream ended with ${JSON.stringify(events.at(-1))}`

/** Cancels a turn at its first words, and gives the event it ended with. */
async function cancelled(hub: TestHub, text: string, conversation: string): Promise<string | undefined> {
  const response = await hub.api('/bots/bot/messages', { text, conversation }, { prefer: 'respond-async' })
  const { turn } = await jsonOf<TurnObject>(response)
  const stream = await hub.api(`/turns/${turn}/events`)
  let seen = ''
  let asked = false
  for await (const chunk of stream.body!.pipeThrough(new TextDecoderStream())) {
    seen += chunk
    if (asked || !seen.includes('event: message.delta')) continue
    asked = true
    await hub.api(`/turns/${turn}/cancel`, {})
  }
  return /event: (turn\.(?:completed|failed|cancelled|interrupted))\n/.exec(seen)?.[1]
}
