import { Webhook } from 'standardwebhooks'
import type { TurnObject } from '../../core/wire.ts'
import { rest, webhook } from '../../index.ts'
import { doorName } from '../suites/channel.ts'
import type { Answer, ChannelSubject, Client } from '../suites/channel.ts'
import type { Receiver } from '../suites/receiver.ts'
import { codeIn, connectRest, requester, whole } from './clients.ts'
import type { Caller } from './clients.ts'

/** The signed webhook: its client POSTs messages, is called back with the answers, and decides by REST. */
export const webhookSubject: ChannelSubject = {
  mount(options, door) {
    if (!door) throw new Error('a webhook is mounted for one bot')
    const { bot, caller, callback } = door
    const as = caller ? { as: caller.name } : {}
    return webhook({ ...options, ...as, bot, callback, secret: secretOf(caller)!, allowPrivate: true })
  },
  streams: false,
  callsBack: true,
  beside: { rest: rest() },
  refusesStrangers: 'bad_signature',
  connect: connectWebhook,
}

/** A caller's key signs too; one who has none to show cannot sign. Without callers there is one secret for all. */
function secretOf(caller: Caller): string | undefined {
  const key = caller ? caller.key : 'secret-of-a-hub-without-keys'
  return key === undefined ? undefined : `whsec_${Buffer.from(key).toString('base64')}`
}

async function connectWebhook(url: string, caller?: Caller, receiver?: Receiver): Promise<Client> {
  if (!receiver) throw new Error('a webhook calls its client back')
  const secret = secretOf(caller)
  const signer = secret === undefined ? undefined : new Webhook(secret)
  // No key goes with the messages: their signature alone says who sends them.
  const http = requester(url, undefined)
  const beside = await connectRest(url, caller)
  const inbox = open(receiver, signer, http.gone.signal)

  const post = (bot: string, body: string) =>
    http.send(`/api/v1/webhooks/${doorName(bot, caller)}`, 'application/json', body, signer && signed(signer, body))

  return {
    async *ask(bot, text, options = {}) {
      const response = await post(bot, JSON.stringify({ text, ...options }))
      const body = await http.text(response)
      if (!response.ok) return yield { type: 'failed', code: codeIn(body) }
      if (response.status !== 202) throw new Error(`a message is acknowledged with 202, not with ${response.status}`)
      yield* whole(await inbox.latest((JSON.parse(body) as { readonly turn: string }).turn))
    },
    resume: beside.resume,
    async *decide(turn, decisions): Answer {
      const { length } = inbox.of(turn)
      for await (const said of beside.decide(turn, decisions)) if (said.type === 'failed') return yield said
      yield* whole(await inbox.latest(turn, length))
    },
    sendRaw: async (body) => codeIn(await http.text(await post('parrot', body))),
    stall: () => Promise.reject(new Error('answers come whole here')),
    received: () => [http.received(), beside.received(), ...receiver.callbacks.map(({ body }) => body)].join('\n'),
    vanish() {
      http.gone.abort()
      beside.vanish()
    },
  }
}

function signed(signer: Webhook, body: string): Record<string, string> {
  const id = `msg_${crypto.randomUUID()}`
  const at = new Date()
  return {
    'webhook-id': id,
    'webhook-timestamp': String(Math.floor(at.getTime() / 1000)),
    'webhook-signature': signer.sign(id, at, body),
  }
}

/** Checks the callbacks as they come, and sorts them by their turn. */
function open(receiver: Receiver, signer: Webhook | undefined, signal: AbortSignal) {
  const byTurn = new Map<string, TurnObject[]>()
  const seen = new Set<string>()
  let read = 0
  const of = (turn: string): readonly TurnObject[] => {
    for (; read < receiver.callbacks.length; read++) {
      const { headers, body } = receiver.callbacks[read]!
      const { type, data } = signer!.verify(body, headers) as { readonly type: string; readonly data: TurnObject }
      if (type !== `turn.${data.status}`) throw new Error(`${type} is not what became of a turn that is ${data.status}`)
      // At least once means that one may come again.
      if (seen.has(headers['webhook-id']!)) continue
      seen.add(headers['webhook-id']!)
      byTurn.set(data.turn, [...(byTurn.get(data.turn) ?? []), data])
    }
    return byTurn.get(turn) ?? []
  }
  return {
    of,
    /** What was called back last of a turn, behind the first `after` callbacks of it. */
    async latest(turn: string, after = 0): Promise<TurnObject> {
      for (;;) {
        const came = of(turn)
        if (came.length > after) return came.at(-1)!
        await receiver.moreThan(read, signal)
      }
    },
  }
}
