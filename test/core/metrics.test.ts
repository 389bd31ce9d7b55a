import { once } from 'node:events'
import { describe, expect, it } from 'vitest'
import { apiKey, echo, HubError, local } from '../../index.ts'
import { startHub } from '../support/hub.ts'

const values = (text: string): Map<string, number> =>
  new Map(
    text
      .split('\n')
      .filter((line) => line !== '' && !line.startsWith('#'))
      .map((line) => [line.slice(0, line.lastIndexOf(' ')), Number(line.slice(line.lastIndexOf(' ') + 1))]),
  )

describe('metrics', () => {
  it('count turns, deltas, attempts, streams, commits and what waits', async () => {
    const opened = Promise.withResolvers<void>()
    let failures = 1
    const bots = {
      echo: echo(),
      slow: local(async () => {
        await opened.promise
        return 'done'
      }),
      shy: local(() => {
        if (failures-- > 0) throw new HubError('upstream_unreachable', { notStarted: true })
        return 'here'
      }),
      bad: local(() => {
        throw new Error('x')
      }),
    }
    await using hub = await startHub({ bots })
    const read = async () => values(await (await fetch(`${hub.url}/metrics`)).text())
    await hub.ask('echo', 'one two three')
    await hub.ask('shy', 'x')
    await hub.ask('bad', 'x')
    const stream = await hub.api(
      '/bots/slow/messages',
      { text: 'a', conversation: 'c' },
      { accept: 'text/event-stream' },
    )
    await hub.api('/bots/slow/messages', { text: 'b', conversation: 'c' }, { prefer: 'respond-async' })
    const { WebSocket } = await import('ws')
    const socket = new WebSocket(`${hub.url.replace('http', 'ws')}/api/v1/ws`)
    await once(socket, 'open')
    const during = await read()
    expect(
      Object.fromEntries([...during].filter(([name]) => /^bothub_\w+(total|streams|depth|pending)/.test(name))),
    ).toEqual({
      'bothub_turns_total{bot="echo",channel="rest",status="completed"}': 1,
      'bothub_turns_total{bot="shy",channel="rest",status="completed"}': 1,
      'bothub_turns_total{bot="bad",channel="rest",status="failed"}': 1,
      bothub_deltas_total: 4,
      'bothub_attempts_total{outcome="completed"}': 2,
      'bothub_attempts_total{outcome="failed"}': 1,
      'bothub_attempts_total{outcome="retried"}': 1,
      'bothub_open_streams{channel="rest"}': 0,
      'bothub_open_streams{channel="sse"}': 1,
      'bothub_open_streams{channel="websocket"}': 1,
      bothub_queue_depth: 1,
      bothub_outbox_pending: 0,
    })
    expect(during.get('bothub_turn_duration_seconds_count')).toBe(3)
    expect(during.get('bothub_first_delta_seconds_count')).toBe(2)
    expect(during.get('bothub_store_commit_seconds_count')).toBeGreaterThan(2)
    expect(during.get('process_cpu_user_seconds_total')).toBeGreaterThan(0)
    opened.resolve()
    await stream.text()
    socket.close()
    await once(socket, 'close')
    await expect
      .poll(async () =>
        [...(await read())].filter(([name]) => /open_streams|queue_depth/.test(name)).map(([, value]) => value),
      )
      .toEqual([0, 0, 0, 0])
  })

  it('are for admins where there are keys', async () => {
    await using hub = await startHub({
      auth: [
        apiKey({ name: 'user', key: 'key-of-a-user-0123' }),
        apiKey({ name: 'admin', key: 'key-of-an-admin-01', admin: true }),
      ],
      bots: { echo: echo() },
    })
    const status = async (key?: string) =>
      (await fetch(`${hub.url}/metrics`, key ? { headers: { authorization: `Bearer ${key}` } } : {})).status
    expect([await status(), await status('key-of-a-user-0123'), await status('key-of-an-admin-01')]).toEqual([
      401, 403, 200,
    ])
  })

  it('may have a listener of their own, which needs no key and gives nothing else', async () => {
    await using hub = await startHub({
      auth: [apiKey({ name: 'user', key: 'key-of-a-user-0123' })],
      metrics: { port: 0 },
      bots: { echo: echo() },
    })
    const own = await fetch(hub.hub.metricsUrl!)
    expect([own.status, own.headers.get('content-type')]).toEqual([200, expect.stringContaining('text/plain')])
    expect((await fetch(new URL('/api/v1/bots', hub.hub.metricsUrl))).status).toBe(404)
    expect((await fetch(`${hub.url}/metrics`)).status).toBe(404)
  })
})
