import { createServer } from 'node:http'
import { createOpenAICompatible } from '@ai-sdk/openai-compatible'
import { streamText } from 'ai'

// The Vercel AI SDK behind node:http as its documentation sets it up: `streamText`, piped as a stream of interface messages.

const model = createOpenAICompatible({ name: 'bench', baseURL: `${process.argv[2]}/v1`, apiKey: 'bench' })('bench')

const server = createServer((request, response) => {
  answer(request, response).catch(() => response.destroy())
})

async function answer(request, response) {
  const chunks = await Array.fromAsync(request)
  const { messages } = JSON.parse(Buffer.concat(chunks).toString())
  await streamText({ model, messages }).pipeUIMessageStreamToResponse(response)
}

server.listen(0, '127.0.0.1', () => {
  process.stdout.write(`listens on http://127.0.0.1:${server.address().port}\n`)
})
