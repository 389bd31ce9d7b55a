import { demoPieces, demoWord, smallTalk } from '../../core/demo.ts'
import type { Random } from './random.ts'
import type { Dialect, SentMessage } from './records.ts'

/** One message, and what its senders do with it. */
export interface Errand extends SentMessage {
  readonly conversation: string
  /** Who sends it: the first at once, the others a little later, each the same message. */
  readonly senders: readonly Sender[]
}

/** How one client behaves. */
export interface Sender {
  readonly dialect: Dialect
  readonly delayMs: number
  /** Cancels the turn when it has seen so many frames. */
  readonly cancelsAfter?: number
  /** Goes away for good when it has seen so many frames. */
  readonly leavesAfter?: number
  /** A REST client that takes a 202 and reads the turn later. */
  readonly async: boolean
  /** What it says when it is asked for consent. */
  readonly decision: 'allow_once' | 'allow_always' | 'deny_once'
  /** Sends its message again after a lost connection, though it knows the turn. */
  readonly insists: boolean
}

const dialects = { rest: 3, sse: 4, 'socket-events': 3, 'socket-words': 2, webhook: 3 } as const

/** What is said to each bot, and how often. The words with `!` make an upstream misbehave. */
const words = {
  main: { hello: 8, '/long': 5, '/fail': 1, '/busy': 1, '/consent': 3, '/tools': 1, '/think': 1, '/card': 1 },
  asgard: {
    hello: 8,
    '/long': 8,
    '/cut': 4,
    '/fail': 1,
    '/busy': 2,
    '/consent': 4,
    '/tools': 1,
    '/think': 1,
    '/card': 1,
    '!steady': 3,
    '!multi': 1,
    '!consent-two': 1,
    '!consent-again': 1,
    '!consent-cut': 1,
    '!drop-before-cursor': 1,
    '!drop-after-cursor': 1,
    '!no-terminal': 1,
    '!no-idx': 1,
    '!unknown-event': 1,
    '!wrong-types': 1,
    '!crlf': 1,
    '!split': 1,
    '!bom': 1,
    '!heartbeats': 1,
    '!heartbeats-only': 0.3,
    '!after-end': 1,
    '!hang': 0.3,
    '!hang-mid': 0.3,
    '!oversized': 0.3,
    '!error-400': 0.3,
    '!error-409': 0.3,
    '!error-500': 0.5,
    '!error-503': 0.5,
    '!error-html': 0.3,
    '!json-200': 0.3,
  },
  coze: {
    hello: 8,
    '/long': 8,
    '/cut': 4,
    '/fail': 1,
    '/busy': 2,
    '/consent': 4,
    '/tools': 2,
    '/think': 1,
    '/card': 1,
    '!multi': 1,
    '!cloud-tool': 1,
    '!client-tool': 2,
    '!mixed-tools': 1,
    '!cut-after-tools': 1,
    '!cut-at-submit': 1,
    '!busy-submit': 1,
    '!cut-at-tools': 1,
    '!drop': 1,
    '!drop-before-first': 1,
    '!drop-unseen': 0.5,
    '!half-event': 1,
    '!idle': 0.5,
    '!done-only': 0.5,
    '!cut-failed': 0.5,
    '!cut-canceled': 0.5,
    '!failed-a': 0.3,
    '!busy-event': 0.3,
    '!error-event': 0.3,
    '!error-503': 0.5,
    '!json-200': 0.3,
    '!split': 1,
    '!crlf': 1,
    '!bom': 1,
    '!no-done': 1,
    '!open-end': 0.5,
    '!unknown-event': 1,
    '!wrong-types': 1,
    '!after-end': 1,
    '!oversized': 0.3,
  },
} as const satisfies Record<string, Readonly<Record<string, number>>>
type Bot = keyof typeof words

/** How often a bot is talked to. */
const bots = { main: 3, asgard: 5, coze: 5 } as const satisfies Record<Bot, number>
/** Conversations that many messages meet in, so that they queue. */
const sharedConversations = 3

/** Makes up the next message; the same ones for the same seed. */
export function nextErrand(random: Random, run: string, number: number): Errand {
  const bot = random.weighted(bots)
  const word: string = random.weighted<string>(words[bot])
  const text = word === 'hello' ? `hello ${number}` : word
  const whole = wholeAnswer(bot, text)
  const isShared = random.chance(0.25) && !stubborn.has(text)
  const count = random.weighted({ one: 14, two: 4, three: 2 })
  return {
    id: `${run}-${number}`,
    bot,
    text,
    ...(whole === undefined ? {} : { whole }),
    conversation: isShared ? `shared-${random.between(1, sharedConversations)}` : `${run}-c${number}`,
    senders: Array.from({ length: counts[count] }, (_, index) => nextSender(random, index, isShared)),
  }
}

/** A hub that is killed every other second never gives up on these, and what is behind them would wait for ever. */
const stubborn = new Set(['/busy', '!hang', '!hang-mid', '!heartbeats-only', '!no-terminal', '!idle', '!drop-unseen'])
const counts = { one: 1, two: 2, three: 3 } as const

function nextSender(random: Random, index: number, isShared: boolean): Sender {
  const cancels = random.chance(0.06)
  return {
    dialect: random.weighted(dialects),
    delayMs: index === 0 ? 0 : random.between(0, 300),
    ...(cancels ? { cancelsAfter: random.between(1, 40) } : {}),
    // A conversation whose turn waits for somebody who has left would keep all its other messages waiting.
    ...(!cancels && !isShared && random.chance(0.05) ? { leavesAfter: random.between(1, 40) } : {}),
    async: random.chance(0.4),
    decision: random.pick(['allow_once', 'allow_once', 'allow_always', 'deny_once']),
    insists: random.chance(0.3),
  }
}

const asgardCut = 'This answer is cut in the middle, and yet it comes to its end.'

/** Where every complete answer to a text is the same; undefined where it depends on what was said or decided. */
function wholeAnswer(bot: Bot, text: string): string | undefined {
  if (text === '/long') return demoPieces('/long').join('')
  if (!text.startsWith('/') && !text.startsWith('!')) return smallTalk(text, []).join('')
  if (demoWord(text) === undefined && text !== '!drop-after-cursor') return undefined
  if (bot === 'asgard' && text === '/cut') return asgardCut
  if (bot === 'asgard' && text === '!drop-after-cursor') return `All of this is kept.\n\n${asgardCut}`
  if (bot === 'coze' && text === '/cut') return 'This half arrives on the stream, this one after asking again.'
  return undefined
}
