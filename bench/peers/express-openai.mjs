import express from 'express'
import OpenAI from 'openai'

// What people write by hand: Express, the vendor's own package, and every delta said again.

const client = new OpenAI({ baseURL: `${process.argv[2]}/v1`, apiKey: 'bench' })
const app = express()
app.use(express.json())

app.post('/v1/chat/completions', (request, response) => {
  answer(request.body, response).catch(() => response.destroy())
})

async function answer({ model, messages }, response) {
  response.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-cache' })
  response.flushHeaders()
  const stream = await client.chat.completions.create({ model, messages, stream: true })
  for await (const chunk of stream) {
    const text = chunk.choices[0]?.delta?.content
    if (text) response.write(`data: ${JSON.stringify({ text })}\n\n`)
  }
  response.end('data: [DONE]\n\n')
}

const server = app.listen(0, '127.0.0.1', () => {
  process.stdout.write(`listens on http://127.0.0.1:${server.address().port}\n`)
})
