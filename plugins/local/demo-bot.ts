import { demoPauseMs, demoPieces, demoWord, languageOf, smallTalk } from '../../core/demo.ts'
import { HubError } from '../../core/errors.ts'
import type { HubEvent } from '../../core/events.ts'
import { systemClock } from '../../core/clock.ts'
import { settleCalls, tool } from '../../core/tools.ts'
import type { Turn } from '../../core/turn.ts'

/** The bot `main` of the repository's own config: small talk, and a path for each of the demonstration words. */
export async function* demoBot(turn: Turn): AsyncGenerator<string | HubEvent> {
  const { text } = turn.message
  const word = demoWord(text)
  switch (word) {
    case undefined:
      yield* smallTalk(
        text,
        turn.history.filter((each) => each.role === 'user').map((each) => each.text),
      )
      return
    case '/long':
    case '/slow':
    case '/fail':
      for (const piece of demoPieces(word)) {
        await systemClock.sleep(demoPauseMs[word], turn.signal)
        yield piece
      }
      if (word === '/fail') throw new Error('the demonstration bot was asked to fail')
      return
    case '/busy':
      if (turn.attempt <= 2) throw new HubError('upstream_rate_limited', { notStarted: true, retryAfterMs: 1000 })
      yield* ['It was busy twice, ', 'and here is ', 'the answer.']
      return
    case '/cut':
      yield* ['This bot runs inside the hub ', 'and has no upstream ', 'whose connection could be cut.']
      return
    case '/consent':
      yield* callTool(turn, 'send_mail', { to: 'ada@example.com', subject: 'Hello' })
      return
    case '/tools':
      yield* callTool(turn, 'get_weather', { city: languageOf(text) === 'en' ? 'Oslo' : '台北' })
      return
    case '/think':
      yield { type: 'reasoning.delta', message: 'thoughts', text: 'They want to see me think. ' }
      yield { type: 'reasoning.delta', message: 'thoughts', text: 'So I do.' }
      yield { type: 'reasoning.completed', message: 'thoughts', text: 'They want to see me think. So I do.' }
      yield* ['I have ', 'thought ', 'about it.']
      return
    case '/card':
      yield { type: 'message.completed', message: 'card', text: 'Two ways to go on', template: card }
  }
}

/** A tool of the bot itself; whether it asks first is up to the `consent` middleware of its config. */
async function* callTool(
  turn: Turn,
  name: string,
  input: { readonly [key: string]: string },
): AsyncGenerator<string | HubEvent> {
  const { outputs, settled } = yield* settleCalls(turn, tools, [{ call: 'call-1', tool: name, input }])
  if (settled) yield* ['The tool ', 'says: ', JSON.stringify(outputs[0]!.output)]
}

const tools = {
  get_weather: tool<{ city: string }>({ run: ({ city }) => `It is sunny in ${city}.` }),
  send_mail: tool<{ to: string }>({ run: ({ to }) => `The mail to ${to} was sent.` }),
}

const card = {
  type: 'BUTTON',
  title: 'Two ways to go on',
  text: 'Choose one.',
  buttons: [
    { label: 'Say hello', action: { type: 'MESSAGE', text: 'hello' } },
    { label: 'Think', action: { type: 'MESSAGE', text: '/think' } },
  ],
} as const
