import { expectTypeOf } from 'vitest'
import { z } from 'zod'
import type { HubConfig, Middleware, Turn } from '../index.ts'
import {
  asgard,
  BotCore,
  consent,
  coze,
  defineConfig,
  defineProvider,
  echo,
  env,
  history,
  local,
  openai,
  openaiApi,
  rest,
  retry,
  secretFile,
  sqlite,
  sse,
  tool,
  websocket,
} from '../index.ts'

// What the compiler promises to people who write a hub.config.ts. Run by `npm run check:types`.

class MyBot extends BotCore {
  override sendMessage() {
    this.sseSender.send({ data: { content: 'hello' } })
    this.sseSender.end()
  }
}

const passThrough: Middleware = (turn, next) => next(turn)

const config = defineConfig({
  listen: { host: '127.0.0.1', port: 9527 },
  store: sqlite({ file: 'data/hub.db' }),
  bots: {
    support: { provider: asgard({ apiKey: secretFile('/run/secrets/asgard') }), profile: { name: '客服' } },
    sales: {
      provider: coze({ botId: '7', token: env('COZE_API_TOKEN') }),
      use: [consent({ allow: ['search'], bypass: ['lookup_order'] })],
    },
    own: local(MyBot),
    quick: local(({ message }) => `You said ${message.text}`),
    streamed: local(async function* ({ message }: Turn) {
      yield 'You said '
      yield message.text
    }),
  },
  use: [history({ turns: 20 }), retry({ retries: 5 }), passThrough],
  channels: { rest: rest(), sse: sse(), ws: websocket({ bot: 'support', bots: ['support', 'own'] }) },
})
expectTypeOf(config).toEqualTypeOf<HubConfig<'support' | 'sales' | 'own' | 'quick' | 'streamed'>>()

defineConfig({
  bots: {
    // @ts-expect-error a model has a name
    llama: openai({ model: 7 }),
    gpt: openai({ model: 'gpt-5', parameters: { temperature: 0.2 }, clientTools: { read_sensor: {} } }),
  },
  // @ts-expect-error there is no bot called gtp
  channels: { openai: openaiApi({ bots: ['gtp'] }) },
})

// The six lines a newcomer writes.
defineConfig({ bots: { support: asgard() }, channels: { rest: rest(), sse: sse() } })

defineConfig({
  bots: { support: echo() },
  channels: {
    // @ts-expect-error there is no bot called suport
    ws: websocket({ bot: 'suport' }),
  },
})

defineConfig({
  bots: { support: echo() },
  channels: {
    // @ts-expect-error there is no bot called sales
    rest: rest({ bots: ['support', 'sales'] }),
  },
})

// @ts-expect-error an option is misspelt
asgard({ apikey: 'x' })
// @ts-expect-error an option has the wrong type
retry({ retries: 'five' })
// @ts-expect-error a channel has no such option
websocket({ bott: 'support' })
// @ts-expect-error a store is no bot
defineConfig({ bots: { support: sqlite() }, channels: {} })
// @ts-expect-error a bot's option is misspelt
defineConfig({ bots: { support: { provider: echo(), prifile: {} } }, channels: {} })
// @ts-expect-error the config's own option is misspelt
defineConfig({ bots: { support: echo() }, chanels: {} })
// @ts-expect-error a middleware is no channel
defineConfig({ bots: { support: echo() }, channels: { rest: retry() } })
// @ts-expect-error a bot's answer is text or a stream
local(() => 42)

const vendor = defineProvider({
  manifest: { name: 'vendor' },
  options: z.strictObject({ url: z.string(), model: z.string().default('small') }),
  create(options) {
    expectTypeOf(options).toEqualTypeOf<{ url: string; model: string }>()
    return { async *respond() {} }
  },
})
vendor({ url: 'https://example.com' })
// @ts-expect-error url has no default, so the options cannot be left out
vendor()

tool({
  parameters: z.object({ city: z.string() }),
  run(input) {
    expectTypeOf(input).toEqualTypeOf<{ city: string }>()
    return `Sunny in ${input.city}`
  },
})
