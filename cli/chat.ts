import { createInterface } from 'node:readline'
import { styleText } from 'node:util'
import { Command } from 'commander'
import type { Answer, ConsentDecision, HubClient, NumberedEvent, ToolOutput } from '../client/index.ts'
import { didYouMean, sentence } from '../core/config.ts'
import type { TurnObject } from '../core/wire.ts'
import { CommandFailed } from './failure.ts'
import type { HubFlags } from './hub-flags.ts'
import { askHub, hubFlags, hubKey, HubRefused, hubUrl } from './hub-flags.ts'
import { eventLine, plain } from './chat-words.ts'

/** `bothub chat main`: a conversation in the terminal, with a hub that runs. */
export const chatCommand = (): Command =>
  hubFlags(new Command('chat'))
    .description('talk to a bot of a running hub')
    .argument('[bot]', 'its name in the config; the first one by default')
    .option('--conversation <name>', 'go on with this one; a new one by default')
    .option('--user <name>', 'for whom a trusted key asks')
    .option('--resume <place>', 'read on behind an event that was shown, as "turn_…/12"')
    .addHelpText('after', '\nA broken connection is taken up again by itself. Ctrl-C says how to go on later.')
    .action(chat)

interface ChatFlags extends HubFlags {
  readonly conversation?: string
  readonly user?: string
  readonly resume?: string
}

/** A conversation, and the terminal it happens in. */
interface Talk {
  readonly flags: HubFlags
  readonly hub: HubClient
  readonly bot: string
  readonly conversation: string
  readonly user: { readonly user?: string }
  readonly terminal: Terminal
}

async function chat(wanted: string | undefined, flags: ChatFlags): Promise<void> {
  const { hubClient, HubClientError } = await import('../client/index.ts')
  const key = hubKey()
  using hub = hubClient({ url: hubUrl(flags), ...(key ? { key } : {}) })
  const place = flags.resume === undefined ? undefined : placeOf(flags.resume)
  const turn = place && (await askHub<TurnObject>(flags, `/turns/${place.turn}`))
  const bot = turn?.bot ?? (await botOf(flags, wanted))
  const conversation = turn?.conversation ?? flags.conversation ?? `chat-${crypto.randomUUID().slice(0, 8)}`
  using terminal = openTerminal()
  const user = flags.user === undefined ? {} : { user: flags.user }
  const talk = { flags, hub, bot, conversation, user, terminal }
  terminal.note(`${bot} at ${hubUrl(flags)}, conversation ${conversation}. Ctrl-C or an empty line leaves.`)
  try {
    if (place) await show(talk, hub.follow(place.turn, { after: place.after, signal: terminal.left }))
    for (;;) {
      const text = await terminal.line('you> ')
      if (!text?.trim()) return
      await show(talk, hub.ask(bot, text, { conversation, ...user, signal: terminal.left }))
    }
  } catch (error) {
    if (terminal.left.aborted) return
    if (error instanceof HubClientError) throw new HubRefused(error)
    throw error
  }
}

function placeOf(text: string): { readonly turn: string; readonly after: number } {
  const [, turn, after] = /^(turn_\w+)(?:\/(\d+))?$/.exec(text) ?? []
  if (turn === undefined) throw new CommandFailed(`"${text}" is no place in a turn. It looks like "turn_…/12".`)
  return { turn, after: Number(after ?? 0) }
}

/** Asks before anybody types, so that an address, a key or a name that is wrong shows at once. */
async function botOf(flags: HubFlags, wanted: string | undefined): Promise<string> {
  const known = await botsOf(flags)
  if (!known && wanted !== undefined) return wanted
  if (!known) throw new CommandFailed('This hub does not list its bots: it has no `rest()`. Say which one you mean.')
  if (known[0] === undefined) throw new CommandFailed('This key may use no bot.')
  if (wanted === undefined || known.includes(wanted)) return wanted ?? known[0]
  throw new CommandFailed(sentence(`There is no bot "${wanted}" for you here${didYouMean(wanted, known)}`))
}

/** Undefined where the hub has no `rest`, which lists them. */
async function botsOf(flags: HubFlags): Promise<readonly string[] | undefined> {
  try {
    const { bots } = await askHub<{ readonly bots: readonly { readonly bot: string }[] }>(flags, '/bots')
    return bots.map(({ bot }) => bot)
  } catch (error) {
    if (error instanceof HubRefused && error.code === 'not_found') return undefined
    throw error
  }
}

/** Shows an answer as it comes, and asks what it waits for. Says how to go on when it is left before its end. */
async function show(talk: Talk, answer: Answer): Promise<void> {
  const { terminal, bot } = talk
  // The place to come back to: a pause that was not settled is shown again.
  let shown = answer.seq
  let isOver = false
  const unsaid = new Set<string>()
  terminal.begin(`${bot}> `)
  try {
    for await (const event of answer) {
      if (event.type === 'turn.waiting') await settle(talk, answer)
      else write(terminal, event, unsaid)
      shown = event.seq
      isOver = /^turn\.[cfi]/.test(event.type)
    }
  } finally {
    if (!isOver && answer.turn) sayHowToGoOn(talk, `${answer.turn}/${shown}`)
  }
}

/** `unsaid`: messages that have begun and have had no words yet. Some come whole. */
function write(terminal: Terminal, event: NumberedEvent, unsaid: Set<string>): void {
  if (event.type === 'message.started') {
    terminal.endLine()
    unsaid.add(event.message)
  }
  if (event.type === 'message.delta' || (event.type === 'message.completed' && unsaid.has(event.message))) {
    terminal.say(plain(event.text))
    unsaid.delete(event.message)
  }
  const line = eventLine(event)
  if (line !== undefined) terminal.note(line)
}

function sayHowToGoOn({ flags, user: { user }, bot, conversation, terminal }: Talk, place: string): void {
  const command = `npx bothub chat ${bot}${flags.url === undefined ? '' : ` --url ${flags.url}`}`
  const forUser = user === undefined ? '' : ` --user ${user}`
  terminal.note(`The answer is not over. Read on with: ${command} --resume ${place}`)
  terminal.note(`Or say something else in this conversation with: ${command}${forUser} --conversation ${conversation}`)
}

/** Decides about each call that still waits, or gives its output, by what the person at the terminal says. */
async function settle({ terminal, flags }: Talk, answer: Answer): Promise<void> {
  // Somebody else may have answered meanwhile, or long ago.
  const { waiting } = await askHub<TurnObject>(flags, `/turns/${answer.turn}`)
  const decisions: ConsentDecision[] = []
  const outputs: ToolOutput[] = []
  for (const { call, tool, input } of waiting?.calls ?? []) {
    const asked = `${plain(tool)} ${plain(JSON.stringify(input))}`
    if (waiting?.for === 'consent') decisions.push({ call, result: await decisionOf(terminal, asked) })
    else outputs.push({ call, output: await wordsOf(terminal, `What does ${asked} give? `) })
  }
  if (decisions.length > 0) await answer.decide(decisions)
  if (outputs.length > 0) await answer.giveOutputs(outputs)
}

async function decisionOf(terminal: Terminal, asked: string): Promise<ConsentDecision['result']> {
  for (;;) {
    const said = await wordsOf(terminal, `May it run ${asked}? [y]es, [a]lways, [n]o: `)
    const found = answers.find(([pattern]) => pattern.test(said.trim()))
    if (found) return found[1]
  }
}

const answers = [
  [/^y(es)?$/i, 'allow_once'],
  [/^a(lways)?$/i, 'allow_always'],
  [/^no?$/i, 'deny_once'],
] as const

async function wordsOf(terminal: Terminal, question: string): Promise<string> {
  const said = await terminal.line(question)
  if (said === undefined) throw new CommandFailed('Nobody is there to answer, so the turn goes on waiting.')
  return said
}

/** The lines of a person, and what is shown to them. */
interface Terminal extends Disposable {
  /** Aborts at Ctrl-C. */
  readonly left: AbortSignal
  /** The next line; undefined when there is none any more. */
  line(question: string): Promise<string | undefined>
  /** What the next words are shown behind. */
  begin(prefix: string): void
  say(text: string): void
  endLine(): void
  /** A line about the conversation and not of it. */
  note(text: string): void
}

function openTerminal(): Terminal {
  const { stdin, stdout } = process
  const left = new AbortController()
  const isTerminal = stdin.isTTY && stdout.isTTY
  const reader = createInterface({ input: stdin, ...(isTerminal ? { output: stdout } : {}) })
  const lines = reader[Symbol.asyncIterator]()
  const leave = () => {
    left.abort()
    reader.close()
  }
  reader.on('SIGINT', leave)
  process.once('SIGINT', leave)
  let isMidLine = false
  let prefix = ''
  const endLine = () => {
    if (isMidLine) stdout.write('\n')
    isMidLine = false
  }
  return {
    left: left.signal,
    async line(question) {
      endLine()
      reader.setPrompt(question)
      if (isTerminal) reader.prompt()
      const { done, value } = await lines.next()
      if (!isTerminal && !done) stdout.write(`${question}${value}\n`)
      return done ? undefined : value
    },
    endLine,
    begin(text) {
      prefix = styleText('cyan', text)
    },
    say(text) {
      if (text === '') return
      stdout.write(isMidLine ? text : prefix + text)
      isMidLine = !text.endsWith('\n')
      prefix = ''
    },
    note(text) {
      endLine()
      stdout.write(`${styleText('dim', text)}\n`)
    },
    [Symbol.dispose]() {
      endLine()
      process.off('SIGINT', leave)
      reader.close()
      stdin.unref?.()
    },
  }
}
