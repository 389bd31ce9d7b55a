import { z } from 'zod'
import { HubError } from '../../core/errors.ts'
import type { NumberedEvent } from '../../core/events.ts'
import { clientName } from '../../core/ids.ts'
import { decisionsBody, messageBody, outputsBody } from '../../core/wire.ts'

/** How a client wants its answer. */
const form = { stream: z.boolean().default(true), events: z.boolean().default(false) }

const optionalName = z.union([z.literal('').transform(() => undefined), clientName]).optional()

/** What is asked about a turn; `id` is the client's own name for the frame, for the answer to it. */
const aboutTurn = { id: optionalName, turn: clientName }

const { user, files, payload, debug, bypassConsent } = messageBody.shape

/** A frame of a client, as `docs/dialects.md` describes it. Fields it does not know are ignored. */
export const clientFrame = z.discriminatedUnion('type', [
  z.object({ type: z.literal('ping') }),
  z.object({ type: z.literal('auth'), id: optionalName, key: z.string() }),
  z
    .object({
      type: z.literal('chat'),
      agentId: clientName.optional(),
      sessionId: optionalName,
      id: optionalName,
      message: z.string().optional(),
      /** What other dialects of the platform call `message`. */
      content: z.string().optional(),
      user,
      files,
      payload,
      debug,
      bypassConsent,
      ...form,
    })
    .refine((frame) => frame.message !== undefined || frame.content !== undefined, {
      path: ['message'],
      message: 'say something: a `chat` needs a `message`',
    }),
  z.object({ type: z.literal('resume'), ...aboutTurn, after: z.int().nonnegative().default(0), ...form }),
  z.object({ type: z.literal('leave'), ...aboutTurn }),
  z.object({ type: z.literal('cancel'), ...aboutTurn }),
  z.object({ type: z.literal('consent'), ...aboutTurn, ...decisionsBody.shape, ...form }),
  z.object({ type: z.literal('tool-outputs'), ...aboutTurn, ...outputsBody.shape, ...form }),
])
/** See `clientFrame`. */
export type ClientFrame = z.output<typeof clientFrame>
/** How a client wants its answer: `stream` and `events`. */
export type Form = Pick<Extract<ClientFrame, { type: 'resume' }>, 'stream' | 'events'>

/** A frame of the hub, before it is JSON. */
export type ServerFrame = Readonly<Record<string, unknown>>

/** What of a client's frame names the exchange it belongs to, whatever else is wrong with it: an error echoes it. */
export function echoOf(frame: unknown): ServerFrame {
  if (typeof frame !== 'object' || frame === null) return {}
  const { id, sessionId, agentId } = frame as Record<string, unknown>
  const named = Object.entries({ agentId, sessionId, id })
  return Object.fromEntries(named.filter(([, value]) => typeof value === 'string'))
}

/** The frames that an event becomes. It remembers what came before, so it is shown every event of a turn from the first. */
export type Frames = (event: NumberedEvent) => readonly ServerFrame[]

/** A new encoder of one turn for a client that wants it in this form. */
export const framesIn = ({ stream, events }: Form): Frames =>
  events ? eventFrames() : stream ? streamFrames() : wholeFrames()

/** `events: true`: every event as it is. */
const eventFrames = (): Frames => (event) => [{ type: 'event', event }]

/** The words as they come; their sum is the text of the turn. */
function streamFrames(): Frames {
  const other = pauses()
  const said = new Map<string, string>()
  let any = false
  const say = (message: string, text: string) => {
    if (text === '') return []
    const gap = any && !said.has(message) ? '\n\n' : ''
    any = true
    said.set(message, `${said.get(message) ?? ''}${text}`)
    return [{ type: 'stream', content: `${gap}${text}`, done: false }]
  }
  return (event) => {
    if (event.type === 'message.delta') return say(event.message, event.text)
    if (event.type === 'message.completed') {
      const before = said.get(event.message) ?? ''
      return event.text.startsWith(before) ? say(event.message, event.text.slice(before.length)) : []
    }
    if (event.type === 'turn.completed') return [{ type: 'stream', content: '', done: true }]
    return other(event)
  }
}

/** `stream: false`: the whole answer in one frame. */
const wholeFrames = (): Frames => {
  const other = pauses()
  return (event) =>
    event.type === 'turn.completed' ? [{ type: 'message', content: event.text, done: true }] : other(event)
}

/** How a turn that is not complete says so: it waits for answers, or it ended without being whole. */
function pauses(): Frames {
  let calls: readonly unknown[] = []
  return (event) => {
    switch (event.type) {
      case 'consent.requested':
      case 'tool.outputs_requested':
        calls = event.calls
        return []
      case 'turn.waiting':
        return [{ type: 'waiting', for: event.for, calls }]
      case 'turn.failed':
      case 'turn.interrupted':
        return [{ type: 'error', ...event.error }]
      case 'turn.cancelled':
        return [{ type: 'error', ...new HubError('cancelled').public(), by: event.by }]
      default:
        return []
    }
  }
}
