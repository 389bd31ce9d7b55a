import OpenAI from 'openai'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { startOpenaiSimulator } from '../../../plugins/openai/simulator.ts'
import type { OpenaiSimulator } from '../../../plugins/openai/simulator.ts'

let simulator: OpenaiSimulator
let client: OpenAI
beforeAll(async () => {
  simulator = await startOpenaiSimulator()
  client = new OpenAI({ baseURL: simulator.url, apiKey: simulator.apiKey, maxRetries: 0 })
})
afterAll(() => simulator.close())

const asking = (content: string) => ({
  model: simulator.model,
  messages: [{ role: 'user' as const, content }],
})
const weather = {
  type: 'function' as const,
  function: { name: 'get_weather', parameters: { type: 'object', properties: { city: { type: 'string' } } } },
}

describe('the official client, before the simulator', () => {
  it('gets an answer whole', async () => {
    const completion = await client.chat.completions.create(asking('my name is Ada'))
    expect(completion).toMatchObject({ object: 'chat.completion', model: simulator.model, usage: { total_tokens: 15 } })
    expect(completion.choices).toMatchObject([
      { index: 0, finish_reason: 'stop', message: { role: 'assistant', content: expect.stringContaining('Ada') } },
    ])
  })

  it('gets it in pieces, with its cost where it asks for it', async () => {
    const stream = await client.chat.completions.create({
      ...asking('hello'),
      stream: true,
      stream_options: { include_usage: true },
    })
    const chunks = await Array.fromAsync(stream)
    const words = chunks.map((chunk) => chunk.choices[0]?.delta.content ?? '')
    expect(words.filter((word) => word !== '').length).toBeGreaterThanOrEqual(3)
    expect(words.join('')).toContain('hello')
    expect(chunks.at(-2)?.choices[0]?.finish_reason).toBe('stop')
    expect(chunks.at(-1)).toMatchObject({ choices: [], usage: { total_tokens: 15 } })
  })

  it('accumulates thoughts, words and calls with its own helper', async () => {
    const runner = client.chat.completions.stream({ ...asking('/tools'), tools: [weather] })
    const message = await runner.finalMessage()
    expect(message.tool_calls).toMatchObject([
      { type: 'function', function: { name: 'get_weather', arguments: '{"city":"Taipei"}' } },
    ])
    const [call] = message.tool_calls!
    const completion = await client.chat.completions.create({
      ...asking('/tools'),
      messages: [
        ...asking('/tools').messages,
        message,
        { role: 'tool', tool_call_id: call!.id, content: 'It is raining.' },
      ],
      tools: [weather],
    })
    expect(completion.choices[0]!.message.content).toBe('I looked at the weather in Taipei: It is raining.')
  })

  it('runs tools with its own runner', async () => {
    const runner = client.chat.completions.runTools({
      ...asking('!rounds'),
      tools: [
        {
          type: 'function',
          function: {
            ...weather.function,
            description: 'The weather of a city.',
            parse: (input: string) => JSON.parse(input) as { city: string },
            function: ({ city }: { city: string }) => `Sunny in ${city}`,
          },
        },
      ],
    })
    expect(await runner.finalContent()).toBe('Sunny in Oslo and Sunny in Bergen')
  })

  it('sees each failure as its own kind of error', async () => {
    const refused = (word: string) => client.chat.completions.create(asking(word)).catch((error: unknown) => error)
    expect(await refused('!error-429')).toBeInstanceOf(OpenAI.RateLimitError)
    expect(await refused('!error-400')).toBeInstanceOf(OpenAI.BadRequestError)
    expect(await refused('!error-500')).toBeInstanceOf(OpenAI.InternalServerError)
    expect(await refused('/fail')).toBeInstanceOf(OpenAI.InternalServerError)
    const stranger = new OpenAI({ baseURL: simulator.url, apiKey: 'sk-of-nobody', maxRetries: 0 })
    await expect(stranger.models.list()).rejects.toBeInstanceOf(OpenAI.AuthenticationError)
    await expect(client.chat.completions.create({ ...asking('hello'), model: 'gpt-0' })).rejects.toMatchObject({
      status: 404,
      code: 'model_not_found',
    })
    const stream = await client.chat.completions.create({ ...asking('/fail'), stream: true })
    await expect(Array.fromAsync(stream)).rejects.toBeInstanceOf(OpenAI.APIError)
  })

  it('is refused messages that no model would take', async () => {
    const unasked = [...asking('hello').messages, { role: 'tool' as const, tool_call_id: 'x', content: 'y' }]
    await expect(client.chat.completions.create({ ...asking('hello'), messages: unasked })).rejects.toBeInstanceOf(
      OpenAI.BadRequestError,
    )
    await expect(client.chat.completions.create({ ...asking('hello'), messages: [] })).rejects.toMatchObject({
      status: 400,
    })
  })

  it('lists the one model', async () => {
    const models = await Array.fromAsync(client.models.list())
    expect(models.map(({ id }) => id)).toEqual([simulator.model])
    expect(await client.models.retrieve(simulator.model)).toMatchObject({ object: 'model' })
  })
})
