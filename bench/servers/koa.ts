import { createServer, request } from 'node:http'
import { PassThrough } from 'node:stream'
import { createParser } from 'eventsource-parser'
import Koa from 'koa'
import { announce } from './announce.ts'

// A relay without a log: Koa, every event parsed and said again in other words, nothing kept.

const upstream = process.argv[2]!
const app = new Koa()

app.use((ctx) => {
  const client = new PassThrough()
  ctx.type = 'text/event-stream'
  ctx.body = client
  let seq = 0
  const parser = createParser({
    onEvent({ data }) {
      const text = data === '[DONE]' ? undefined : textOf(JSON.parse(data))
      if (text) client.write(`id: ${++seq}\nevent: message.delta\ndata: ${JSON.stringify({ seq, text })}\n\n`)
    },
  })
  const outgoing = request(upstream + ctx.url, { method: ctx.method, headers: ctx.headers }, (answer) => {
    answer.setEncoding('utf8')
    answer.on('data', (text: string) => parser.feed(text))
    answer.on('end', () => client.end())
  })
  outgoing.on('error', () => client.destroy())
  ctx.res.on('close', () => outgoing.destroy())
  ctx.req.pipe(outgoing)
})

const textOf = (chunk: { readonly choices: readonly { readonly delta: { readonly content?: string } }[] }) =>
  chunk.choices[0]?.delta.content

const handle = app.callback()
announce(createServer((incoming, response) => void handle(incoming, response)))
