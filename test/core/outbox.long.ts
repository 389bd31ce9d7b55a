import { createServer } from 'node:http'
import type { IncomingHttpHeaders, ServerResponse } from 'node:http'
import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import { Webhook } from 'standardwebhooks'
import { describe, expect, it, vi } from 'vitest'
import { echo, rest, webhook } from '../../index.ts'
import { startHub } from '../support/hub.ts'
import { deploy, run, startProgram } from '../support/program.ts'

// Programs are started here, and a limit of 20 s is waited for.
vi.setConfig({ testTimeout: 90_000 })

const secret = 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw'

/** A receiver that keeps what it is sent, and answers as it is told. */
async function receiver(answer: (response: ServerResponse, count: number) => void) {
  const received: { readonly headers: IncomingHttpHeaders; readonly body: string }[] = []
  const server = createServer((request, response) => {
    let body = ''
    request.on('data', (chunk: Buffer) => (body += chunk.toString()))
    request.on('end', () => answer(response, received.push({ headers: request.headers, body })))
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/`,
    received,
    ids: () => received.map(({ headers }) => headers['webhook-id']),
    async [Symbol.asyncDispose]() {
      server.close()
      server.closeAllConnections()
    },
  }
}

const sign = (body: string, id: string) => ({
  'content-type': 'application/json',
  'webhook-id': id,
  'webhook-timestamp': String(Math.floor(Date.now() / 1000)),
  'webhook-signature': new Webhook(secret).sign(id, new Date(), body),
})

const send = (url: string, channel: string, text: string) => {
  const body = JSON.stringify({ text })
  return fetch(`${url}/api/v1/webhooks/${channel}`, { method: 'POST', body, headers: sign(body, `msg_${text}`) })
}

describe('a callback', () => {
  it('is sent again, under its id, by the next process when this one is killed between the answer and the mark', async () => {
    await using crm = await receiver((response) => response.writeHead(204).end())
    using deployment = deploy(`import { defineConfig, echo, webhook } from 'bothub'
export default defineConfig({
  bots: { bot: echo() },
  channels: { crm: webhook({ bot: 'bot', secret: '${secret}', callback: '${crm.url}', allowPrivate: true }) },
})
`)
    await using first = await startProgram(deployment, { env: { HUB_FAULT_POINT: 'delivery.before-mark' } })
    expect((await send(first.url, 'crm', 'hello')).status).toBe(202)
    await first.exited
    expect(crm.received).toHaveLength(1)
    await using second = await startProgram(deployment)
    await vi.waitFor(() => expect(crm.received).toHaveLength(2), { timeout: 30_000 })
    const [one, other] = crm.received
    expect(one!.headers['webhook-id']).toMatch(/^turn_\w+_crm$/)
    expect(other!.headers['webhook-id']).toBe(one!.headers['webhook-id'])
    expect(JSON.parse(other!.body)).toEqual(JSON.parse(one!.body))
    // It was marked then: nothing is left that could come a third time.
    await vi.waitFor(async () => expect(await (await second.api('/outbox')).json()).toEqual({ items: [], closed: [] }))
  })

  it('is given up for now after 20 s of silence, is sent again under its id, and holds up nobody else', async () => {
    await using silent = await receiver((response, count) => void (count > 1 && response.writeHead(204).end()))
    await using crm = await receiver((response) => response.writeHead(204).end())
    const to = (callback: string) => webhook({ bot: 'bot', secret, callback, allowPrivate: true })
    await using hub = await startHub({
      bots: { bot: echo() },
      channels: { rest: rest(), silent: to(silent.url), crm: to(crm.url) },
    })
    const from = Date.now()
    await send(hub.url, 'silent', 'one')
    await vi.waitFor(() => expect(silent.received).toHaveLength(1), { timeout: 10_000 })
    await send(hub.url, 'crm', 'two')
    await vi.waitFor(() => expect(crm.received).toHaveLength(1), { timeout: 10_000 })
    await vi.waitFor(() => expect(silent.received).toHaveLength(2), { timeout: 60_000 })
    expect(Date.now() - from).toBeGreaterThan(24_900)
    expect(silent.ids()[1]).toBe(silent.ids()[0])
    await vi.waitFor(async () => expect(await (await hub.api('/outbox')).json()).toEqual({ items: [], closed: [] }))
  })
})

describe('bothub outbox', () => {
  it('lists and retries from the command line, with nothing running', async () => {
    using deployment = deploy(`import { defineConfig, echo, rest } from 'bothub'
export default defineConfig({ listen: { port: 1 }, bots: { bot: echo() }, channels: { rest: rest() } })
`)
    const { config: file } = deployment
    const list = run(['outbox', 'list', '--config', file])
    expect([await list.exited, list.output()]).toEqual([0, 'Nothing waits to be delivered.\n'])
    const retry = run(['outbox', 'retry', '--config', file, '--lane', 'channel:crm'])
    expect([await retry.exited, retry.output()]).toEqual([0, '0 to be tried again\n'])
  })
})
