import { describe, expect, it } from 'vitest'
import { tryIt } from '../../cli/try-it.ts'
import type { HubConfig } from '../../index.ts'
import { apiKey, checkConfig, echo, rest, sqlite, sse, websocket } from '../../index.ts'

const said = (config: Partial<HubConfig>): string | undefined =>
  tryIt(
    checkConfig({ store: sqlite(), bots: { one: echo(), two: echo() }, channels: { rest: rest() }, ...config }),
    'http://127.0.0.1:9527',
  )

describe('the request that a hub shows at its start', () => {
  it('asks for events where there is `sse`, wherever it is, for a bot that it lets in to', () => {
    const line = said({ channels: { rest: rest(), events: sse({ path: '/x', bots: ['two'] }) } })
    expect(line).toContain('curl -N http://127.0.0.1:9527/x/api/v1/bots/two/messages ')
    expect(line).toContain("-H 'accept: text/event-stream'")
    expect(line).not.toContain('HUB_KEY')
  })

  it('takes JSON where there is `rest` alone', () => {
    const line = said({})
    expect(line).toContain('Try it:\n  curl http://127.0.0.1:9527/api/v1/bots/one/messages ')
    expect(line).not.toContain('text/event-stream')
  })

  it('shows a key where there is `auth`, and never one of the config', () => {
    const line = said({ auth: [apiKey({ name: 'crm', key: 'a-key-of-the-config' })] })
    expect(line).toContain('-H "authorization: Bearer $HUB_KEY"')
    expect(line).not.toContain('a-key-of-the-config')
  })

  it('is left out where no channel answers one', () => {
    expect(said({ channels: { ws: websocket() } })).toBeUndefined()
  })
})
