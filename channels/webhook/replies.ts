import { z } from 'zod'
import type { Principal } from '../../core/auth.ts'
import type { ChannelContext } from '../../core/channel.ts'
import type { NumberedEvent } from '../../core/events.ts'
import { isTerminal } from '../../core/events.ts'
import { digest } from '../../core/ids.ts'
import { OneAtATime } from '../../core/one-at-a-time.ts'
import { DeliveryPostponed } from '../../core/outbox.ts'
import type { TurnDelivery, TurnRow } from '../../core/store.ts'
import { isEnded } from '../../core/store.ts'
import { Transcript } from '../../core/transcript.ts'
import { untilAborted } from '../../core/until-aborted.ts'
import type { Destination, WebhookScheme } from './scheme.ts'
import { sentencesOf } from './sentences.ts'
import { splitText } from './split.ts'

/** How long the first words wait for more, so that a short answer is one message and no edit. */
const firstPauseMs = 500
/** How often a typing sign is shown again, since platforms take it away after some seconds. */
const typingMs = 4000
/** How long a call to the platform may go on when the hub stops. */
const closeMs = 2000

/** What survives a restart of the delivery of one turn: which messages there are, and what they say. */
const progressShape = z.object({
  /** How much of the turn's text was told before, with a question behind it. */
  from: z.int().nonnegative(),
  /** The platform's id of each message, in their order, and a digest of its text. */
  posted: z.array(z.object({ id: z.string(), text: z.string() })),
  /** The delivery that asked the question. */
  asked: z.string().exactOptional(),
  /** Until when the platform wants to be left alone, ms since the epoch. */
  quietUntil: z.number().exactOptional(),
})

type Progress = z.output<typeof progressShape>

/** What replies are written with. */
export interface RepliesOptions {
  readonly scheme: WebhookScheme
  readonly context: Pick<ChannelContext, 'hub' | 'bots' | 'clock' | 'logger' | 'progress'>
  /** Whom the channel acts as. */
  readonly principal: Principal
}

/**
 * Writes answers onto a platform. While one streams it is posted and edited, as well as that goes. What counts is
 * `deliver`, which the outbox calls: it goes on where the stream, or an earlier process, has got to.
 */
export class Replies {
  readonly #options: RepliesOptions
  readonly #turns = new OneAtATime()
  readonly #streams = new Map<string, { readonly stop: AbortController; readonly done: Promise<void> }>()
  readonly #closing = new AbortController()
  readonly #calls = new AbortController()

  constructor(options: RepliesOptions) {
    this.#options = options
  }

  /** Shows the answer of a turn that was just accepted, for as long as it streams. */
  stream(turn: TurnRow): void {
    const { scheme, context } = this.#options
    if (this.#closing.signal.aborted || isEnded(turn.status) || !(scheme.edits || scheme.showTyping)) return
    const stop = new AbortController()
    const done = this.#show(turn, AbortSignal.any([stop.signal, this.#closing.signal]))
      .catch((error: unknown) =>
        context.logger.info({ err: error, turn: turn.id }, 'an answer is not shown as it streams'),
      )
      .finally(() => this.#streams.delete(turn.id))
    this.#streams.set(turn.id, { stop, done })
  }

  /** Brings the end or the question of a turn: what is not there is posted, and what is there otherwise is edited. */
  async deliver(delivery: TurnDelivery, signal: AbortSignal): Promise<void> {
    const turn = await this.#options.context.hub.turn(this.#options.principal, delivery.turn)
    this.#streams.get(turn.id)?.stop.abort()
    await untilAborted(
      this.#turns.run(turn.id, () => this.#bring(delivery, turn, signal)),
      signal,
    )
  }

  /** Stops what streams; what is being posted may go on for two seconds. */
  async close(): Promise<void> {
    this.#closing.abort()
    const timer = setTimeout(() => this.#calls.abort(), closeMs)
    await Promise.all(Array.from(this.#streams.values(), ({ done }) => done))
    clearTimeout(timer)
  }

  async #bring(delivery: TurnDelivery, turn: TurnRow, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted()
    const { hub, bots, clock, progress } = this.#options.context
    const view = await hub.view(turn.id)
    // Somebody answered before this could be delivered: the question is no longer one.
    if (delivery.type === 'turn.waiting' && view.status !== 'waiting') return
    const before = await this.#progressOf(turn.id)
    if (before.asked === delivery.id) return
    const pauseMs = (before.quietUntil ?? 0) - clock.now()
    if (pauseMs > 0) throw new DeliveryPostponed('the platform wants to be left alone', pauseMs)
    const language = bots.get(turn.bot)?.profile.language ?? 'en'
    const parts = this.#split(sentencesOf(view, view.text.slice(before.from), language))
    // An answer that turned out shorter than it streamed cannot take messages back.
    while (parts.length < before.posted.length) parts.push('…')
    await this.#write(turn, parts, before, signal)
    if (delivery.type !== 'turn.waiting') return
    // What comes after the question belongs behind it.
    await progress.keep(turn.id, { from: view.text.length, posted: [], asked: delivery.id })
  }

  async #show(turn: TurnRow, stop: AbortSignal): Promise<void> {
    const { clock } = this.#options.context
    const { edits } = this.#options.scheme
    const to = destinationOf(turn)
    const listening = new Listening(turn.id, this.#options.context.hub, stop)
    try {
      await this.#showTyping(to, listening)
      if (!edits) return
      const pauseMs = edits.everyMs(to)
      await clock.sleep(Math.min(firstPauseMs, pauseMs), listening.signal)
      for (let written = 0; written <= (edits.atMost ?? Number.POSITIVE_INFINITY); written++) {
        const text = listening.take()
        await this.#turns.run(turn.id, () => this.#writeSoFar(turn, text, listening.signal))
        await clock.sleep(pauseMs, listening.signal)
        await listening.more()
      }
    } catch (error) {
      if (!listening.signal.aborted) throw error
    } finally {
      await listening.close()
    }
  }

  /** Until there are words. */
  async #showTyping(to: Destination, listening: Listening): Promise<void> {
    const { scheme, context } = this.#options
    const words = listening.more()
    const spoken = new AbortController()
    const note = () => spoken.abort()
    void words.then(note, note)
    while (!spoken.signal.aborted && scheme.showTyping) {
      // A sign that cannot be shown is no reason not to show the answer.
      await scheme.showTyping(to, this.#calls.signal).catch(note)
      await context.clock.sleep(typingMs, spoken.signal).catch(() => {})
    }
    await words
  }

  async #writeSoFar(turn: TurnRow, text: string, signal: AbortSignal): Promise<void> {
    // It ended or waits since: what is delivered then is the whole, and is not to be overwritten.
    if (signal.aborted || (await this.#rests(turn.id))) return
    const before = await this.#progressOf(turn.id)
    await this.#write(turn, this.#split(text.slice(before.from)), before, this.#calls.signal)
  }

  async #rests(id: string): Promise<boolean> {
    const { status } = await this.#options.context.hub.turn(this.#options.principal, id)
    return isEnded(status) || status === 'waiting'
  }

  async #write(turn: TurnRow, parts: readonly string[], before: Progress, signal: AbortSignal): Promise<void> {
    const { clock, progress } = this.#options.context
    let now = before
    try {
      for (const [index, text] of parts.entries()) {
        const mark = digest(text).slice(0, 16)
        if (now.posted[index]?.text === mark) continue
        const id = await this.#put(turn, now, index, text, signal)
        now = { ...now, posted: now.posted.toSpliced(index, 1, { id, text: mark }) }
        await progress.keep(turn.id, now)
      }
    } catch (error) {
      if (error instanceof DeliveryPostponed) {
        await progress.keep(turn.id, { ...now, quietUntil: clock.now() + error.retryAfterMs })
      }
      throw error
    }
  }

  /** One message, edited where that is possible and posted where it is not. */
  async #put(turn: TurnRow, { from, posted }: Progress, index: number, text: string, signal: AbortSignal) {
    const { scheme } = this.#options
    const to = destinationOf(turn)
    const known = posted[index]?.id
    if (known !== undefined && (await scheme.edits?.edit(to, known, text, signal))) return known
    const key = digest(turn.id, String(from), String(index), known ?? '', text).slice(0, 32)
    return scheme.post(to, text, key, signal)
  }

  #split(text: string): string[] {
    const { scheme } = this.#options
    return splitText(text, scheme.maxLength, scheme.measure)
  }

  async #progressOf(turn: string): Promise<Progress> {
    return progressShape.safeParse(await this.#options.context.progress.of(turn)).data ?? { from: 0, posted: [] }
  }
}

/** What a turn has said so far, for a writer that takes it now and then. */
class Listening {
  readonly #said = new Transcript({ debug: false })
  readonly #stop = new AbortController()
  readonly #over = new AbortController()
  readonly #reading: Promise<void>
  #news = Promise.withResolvers<void>()
  /** Aborts when the turn ends or waits, or nobody is to listen any more. */
  readonly signal: AbortSignal

  constructor(turn: string, hub: Pick<ChannelContext['hub'], 'follow'>, stop: AbortSignal) {
    const ending = AbortSignal.any([this.#stop.signal, stop])
    this.signal = AbortSignal.any([ending, this.#over.signal])
    this.#reading = this.#read(hub.follow(turn, 0, ending))
      // The end of the turn is delivered by the outbox; a stream that cannot be read is only not shown.
      .catch(() => {})
      .finally(() => this.#over.abort())
  }

  async #read(follow: AsyncIterable<readonly NumberedEvent[]>): Promise<void> {
    for await (const events of follow) {
      this.#said.replay(events)
      if (events.some(({ type }) => type === 'message.delta' || type === 'message.completed')) this.#news.resolve()
      if (events.some((event) => isTerminal(event) || event.type === 'turn.waiting')) return
    }
  }

  /** All it has said; `more` resolves when it says something after this. */
  take(): string {
    this.#news = Promise.withResolvers()
    return this.#said.text
  }

  /** @throws the reason of `signal` */
  more(): Promise<void> {
    return untilAborted(this.#news.promise, this.signal)
  }

  async close(): Promise<void> {
    this.#stop.abort()
    await this.#reading
  }
}

const destinationOf = ({ conversation, message }: TurnRow): Destination => {
  const replyTo = message.metadata?.['replyTo']
  return { conversation: conversation.name, ...(typeof replyTo === 'string' ? { replyTo } : {}) }
}
