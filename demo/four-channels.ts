import { hubClient } from 'bothub/client'
import type { TurnObject } from 'bothub'
import { Secret } from '../core/settings.ts'
import { signWebhook } from '../core/signature.ts'
import type { HubProcess } from './hub-process.ts'
import type { Tally } from './killed-half-way.ts'
import type { Stage } from './stage.ts'

const question = { id: 'the-same-message', conversation: 'four', text: 'my name is Ada' }
const bot = 'storyteller'

/** What one channel answered. */
interface Said {
  readonly text: string
  readonly turn: string
}

/** Sends one message over four channels at once, and counts turns, answers and what the platform was asked. */
export async function fourChannels(stage: Stage, { url }: HubProcess): Promise<Tally> {
  stage.title('The same message over four channels at once')
  const asksBefore = stage.upstreamAsks()
  const asked = {
    rest: overRest(url),
    sse: overSse(url),
    websocket: overWebSocket(url),
    webhook: overWebhook(stage, url),
  }
  const answers = await Promise.all(
    Object.entries(asked).map(async ([channel, answer]) => ({ channel, ...(await answer) })),
  )
  for (const { channel, text, turn } of answers) {
    stage.line(`  ${channel.padEnd(10)} ${stage.paint('dim', turn)}  ${stage.paint('green', text)}`)
  }
  const asks = stage.upstreamAsks() - asksBefore
  const turns = new Set(answers.map(({ turn }) => turn)).size
  const expected = answers[0]!.text
  const lost = answers.filter(({ text }) => text === '' || text !== expected).length
  stage.line(
    `  ${answers.length} answers of ${turns} turn${turns === 1 ? '' : 's'}; the platform was asked ${asks === 1 ? 'once' : `${asks} times`}`,
  )
  return { lost, doubled: turns - 1 + asks - 1 }
}

async function overRest(url: string): Promise<Said> {
  const response = await fetch(`${url}/api/v1/bots/${bot}/messages`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(question),
  })
  return (await response.json()) as TurnObject
}

async function overSse(url: string): Promise<Said> {
  using client = hubClient({ url })
  const { text, ...more } = question
  const answer = client.ask(bot, text, more)
  return { text: await answer.text(), turn: answer.turn ?? '' }
}

/** By hand, in the channel's own dialect: `stream` frames until one is `done`. */
async function overWebSocket(url: string): Promise<Said> {
  const socket = new WebSocket(`${url.replace('http', 'ws')}/api/v1/ws`)
  const { id, conversation, text } = question
  const done = Promise.withResolvers<Said>()
  let said = ''
  socket.addEventListener('open', () =>
    socket.send(JSON.stringify({ type: 'chat', agentId: bot, sessionId: conversation, id, message: text })),
  )
  socket.addEventListener('error', () => done.reject(new Error('The WebSocket broke.')))
  socket.addEventListener('message', ({ data }) => {
    const frame = JSON.parse(String(data)) as { content?: string; done?: boolean; turn: string }
    said += frame.content ?? ''
    if (frame.done) done.resolve({ text: said, turn: frame.turn })
  })
  try {
    return await done.promise
  } finally {
    socket.close()
  }
}

async function overWebhook(stage: Stage, url: string): Promise<Said> {
  const body = JSON.stringify(question)
  const headers = signWebhook(new Secret(stage.webhookSecret), question.id, Date.now(), body)
  const response = await fetch(`${url}/api/v1/webhooks/webhook`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...headers },
    body,
  })
  const { turn } = (await response.json()) as { turn: string }
  return stage.delivered(turn)
}
