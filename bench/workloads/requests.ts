import { signWebhook } from '../../core/signature.ts'
import { Secret } from '../../core/settings.ts'
import type { Figure } from '../figures.ts'
import { orderText } from '../delta.ts'
import { askBot, later, metric, turnOf, webhookSecret } from '../hub.ts'
import type { Lab } from '../lab.ts'
import type { Ask } from '../load/requests.ts'

/** Messages at an even rate, each acknowledged once it is durable. */
export function accept(lab: Lab): Promise<Figure[]> {
  const { perSecond } = lab.sizes.accept
  return lab.rounds('accept', new Map([[`hub, ${perSecond} messages/s`, perSecond]]), async () => {
    const hub = await lab.hub()
    const count = Math.ceil(perSecond * lab.sizes.seconds)
    const cpuBefore = hub.cpuMs()
    const commitsBefore = await metric(hub.url, 'bothub_store_commit_seconds_count')
    const { p50, p99, failed } = await lab.load.ask(
      'knock',
      [later(askBot(hub.url, 'echo', 'hello'))],
      count,
      perSecond,
    )
    const cpuMs = (hub.cpuMs() - cpuBefore) / count
    const commits = (await metric(hub.url, 'bothub_store_commit_seconds_count')) - commitsBefore
    return {
      'p50, ms': p50,
      'p99, ms': p99,
      'CPU a message, ms': cpuMs,
      'commits a message': commits / count,
      refused: failed,
    }
  })
}

/** A long turn that has ended, from its first event to its last. */
export function replay(lab: Lab): Promise<Figure[]> {
  const { events } = lab.sizes.replay
  let ready: Promise<Ask> | undefined
  return lab.rounds('replay', new Map([[`hub, ${events} events`, events]]), async () => {
    const hub = await lab.hub()
    ready ??= endedTurn(hub.url, events)
    const { p50 } = await lab.load.ask('times', await ready, 1)
    return { 'whole turn, ms': p50 }
  })
}

async function endedTurn(url: string, events: number): Promise<Ask> {
  const turn = await turnOf(later(askBot(url, 'openai', orderText({ deltas: events, everyMs: 0 }))))
  const ended = /"status":"completed"/
  while (!ended.test(await (await fetch(`${url}/api/v1/turns/${turn}?wait=30`)).text()));
  return { url: `${url}/api/v1/turns/${turn}/events` }
}

/** WebSockets that say nothing: what one of them takes. */
export function sockets(lab: Lab): Promise<Figure[]> {
  const { clients, settleSeconds } = lab.sizes.sockets
  const settled = () => new Promise((resolve) => setTimeout(resolve, settleSeconds * 1000))
  return lab.rounds(
    'sockets',
    new Map([[`hub, ${clients} idle WebSockets`, clients]]),
    async () => {
      await using hub = await lab.freshHub()
      // What the first of everything takes is no cost of a socket.
      await lab.load.ask('openSockets', `${hub.url}/api/v1/ws`, 20)
      await lab.load.ask('wake')
      await settled()
      const before = hub.rssKiB()
      await lab.load.ask('openSockets', `${hub.url}/api/v1/ws`, clients)
      await settled()
      const grown = hub.rssKiB() - before
      return { 'RSS each, KiB': grown / clients, open: await lab.load.ask('wake') }
    },
    { warmUp: false },
  )
}

/** A burst of signed messages, as a platform sends them that comes back after an outage; none may be lost. */
export function webhooks(lab: Lab): Promise<Figure[]> {
  const { messages } = lab.sizes.webhooks
  const sent = 'bothub_turns_total{bot="echo",channel="crm",status="completed"}'
  let round = 0
  return lab.rounds('webhooks', new Map([[`hub, ${messages} in a second`, messages]]), async (count) => {
    const hub = await lab.hub()
    round += 1
    const asks = Array.from({ length: count }, (_, index) => signed(hub.url, `message-${round}-${index}`))
    const before = await metric(hub.url, sent)
    const { p50, p99, failed } = await lab.load.ask('knock', asks, count, count)
    const until = performance.now() + 10_000
    while ((await metric(hub.url, sent)) - before < count - failed && performance.now() < until);
    const lost = count - failed - ((await metric(hub.url, sent)) - before)
    return { 'p50, ms': p50, 'p99, ms': p99, refused: failed, lost }
  })
}

function signed(url: string, id: string): Ask {
  const body = JSON.stringify({ text: 'hello', conversation: id })
  const signature = signWebhook(new Secret(webhookSecret), id, Date.now(), body)
  return {
    url: `${url}/api/v1/webhooks/crm`,
    headers: { ...signature, 'content-type': 'application/json' },
    body,
  }
}
