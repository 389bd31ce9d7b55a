import type { NumberedEvent } from 'bothub'
import { codeIn, reader, requester } from 'bothub/testing'
import type { Answer, Caller, ChannelSubject, Client } from 'bothub/testing'
import { lines } from '../../examples/made-up-channel.ts'

const type = 'application/x-ndjson'

async function connect(url: string, caller?: Caller): Promise<Client> {
  const http = requester(url, caller)
  async function* answer(path: string, body?: object): Answer {
    const response = await http.send(path, type, body && JSON.stringify(body))
    if (!response.ok) return yield { type: 'failed', code: codeIn(await http.text(response)) }
    const said = reader()
    let turn = ''
    let rest = ''
    const decoder = new TextDecoder()
    for await (const chunk of http.chunks(response)) {
      const ready = (rest + decoder.decode(chunk, { stream: true })).split('\n')
      rest = ready.pop()!
      for (const line of ready) {
        const event = JSON.parse(line) as NumberedEvent
        if (event.type === 'turn.started') turn = event.turn
        yield* said(event, turn || path.split('/')[3]!)
      }
    }
  }
  return {
    ask: (bot, text, options = {}) => answer(`/lines/${bot}`, { text, ...options }),
    resume: (turn, after) => answer(`/lines/turns/${turn}?after=${after}`),
    decide: (turn, decisions) => answer(`/lines/turns/${turn}/decisions`, decisions),
    sendRaw: async (body) => codeIn(await http.text(await http.send('/lines/parrot', type, body))),
    stall: (bot, text) => http.stall(`/lines/${bot}`, type, JSON.stringify({ text })),
    received: http.received,
    vanish: () => http.gone.abort(),
  }
}

/** The channel of `examples/made-up-channel.ts`. */
export const linesSubject: ChannelSubject = { mount: (options) => lines(options), streams: true, connect }
