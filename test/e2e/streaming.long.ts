import { spawn } from 'node:child_process'
import { createEventSource } from 'eventsource-client'
import { describe, expect, it, vi } from 'vitest'
import type { TurnObject } from '../../index.ts'
import { startCuttingProxy } from '../fakes/cutting-proxy.ts'
import { gatedBot } from '../fakes/gated-bot.ts'
import { jsonOf, startHub } from '../support/hub.ts'
import { launch, sharedProgram } from '../support/program.ts'

// Programs are started here, on a machine that may be busy.
vi.setConfig({ testTimeout: 60_000, hookTimeout: 60_000 })

const shared = sharedProgram()

// Both groups wait a lot, and they wait together.
describe.concurrent('a stream', () => {
  describe('to curl', () => {
    it('gets an answer by the line that the program prints at its start, as it is printed', async () => {
      const line = /^ {2}(curl .*)$/m.exec(shared.program.output())![1]!
      const curl = launch('bash', ['-c', line], { PATH: process.env['PATH'] ?? '' })
      expect(await curl.exited).toBe(0)
      expect(curl.output()).toContain('event: turn.completed\n')
    })

    it.each(['asgard-demo', 'coze-demo'])(
      'gets each frame of %s as it is said: the first word while the last is not thought of',
      async (bot) => {
        const url = `${shared.program.url}/api/v1/bots/${bot}/messages`
        const headers = ['-H', 'content-type: application/json', '-H', 'accept: text/event-stream']
        const curl = spawn('curl', ['-sN', url, ...headers, '-d', '{"text":"/long"}'])
        let received = ''
        let early: TurnObject | undefined
        for await (const chunk of curl.stdout as AsyncIterable<Buffer>) {
          received += chunk.toString()
          if (early || !received.includes('event: message.delta\n')) continue
          const turn = /^id: (turn_\w+)\/1$/m.exec(received)![1]
          early = await jsonOf<TurnObject>(await shared.program.api(`/turns/${turn}`))
        }
        expect(early).toMatchObject({ status: 'running' })
        expect(early!.text).not.toContain('word 300')
        const numbers = Array.from(received.matchAll(/^id: turn_\w+\/(\d+)$/gm), ([, seq]) => Number(seq))
        expect(numbers).toEqual(numbers.map((_, index) => index + 1))
        expect(received.match(/^event: message\.delta$/gm)).toHaveLength(300)
        expect(received).toMatch(/event: turn\.completed\ndata: .*"text":"word 1 .* word 300 "/)
      },
    )
  })

  describe('to eventsource-client', () => {
    it.each(['main', 'asgard-demo', 'coze-demo'])(
      'goes on with Last-Event-ID after it was cut, in an answer of %s, without gap or repeat, and stops at the end',
      async (bot) => {
        const accepted = await shared.program.api(
          `/bots/${bot}/messages`,
          { text: '/long' },
          { prefer: 'respond-async' },
        )
        const { turn } = await jsonOf<TurnObject>(accepted)
        await using proxy = await startCuttingProxy(shared.program.url, [4000, 9000])
        const stopped = Promise.withResolvers<void>()
        const asked: (string | undefined)[] = []
        let merged = ''
        const source = createEventSource({
          url: `${proxy.url}/api/v1/turns/${turn}/events`,
          onMessage: ({ id, event, data }) => (merged += `id: ${id}\nevent: ${event}\ndata: ${data}\n\n`),
          async fetch(url, init) {
            asked.push(new Headers(init?.headers).get('last-event-id') ?? undefined)
            // A pooled connection would be counted as the one before it.
            const response = await fetch(url, { ...init, headers: { ...init?.headers, connection: 'close' } })
            if (response.status === 204) stopped.resolve()
            return response
          },
        })
        await stopped.promise
        source.close()

        expect(proxy.cuts()).toBe(2)
        expect(asked).toHaveLength(4)
        expect(asked[0]).toBeUndefined()
        for (const cursor of asked.slice(1)) expect(cursor).toMatch(new RegExp(`^${turn}/\\d+$`))
        const uncut = await (await shared.program.api(`/turns/${turn}/events`)).text()
        expect(uncut).toContain('event: turn.completed\n')
        expect(merged).toBe(uncut.replaceAll(/^:.*\n/gm, ''))
        const numbers = Array.from(merged.matchAll(/^id: turn_\w+\/(\d+)$/gm), ([, seq]) => Number(seq))
        expect(numbers).toEqual(numbers.map((_, index) => index + 1))
      },
    )
  })

  it('of a silent bot has a comment of one line every 5 s', async () => {
    const gated = gatedBot()
    await using hub = await startHub({ bots: { gated: gated.provider } })
    const answer = await hub.api('/bots/gated/messages', { text: 'hello' }, { accept: 'text/event-stream' })
    let received = ''
    for await (const chunk of answer.body!.pipeThrough(new TextDecoderStream())) {
      received += chunk
      if (/^:/m.test(received)) gated.finish('hello')
    }
    expect(received).toMatch(/"text":"So: "\}\n\n: ?\nid: turn_\w+\/4\n/)
    expect(received).toContain('event: turn.completed\n')
  })
})
