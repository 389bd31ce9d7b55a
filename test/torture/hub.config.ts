import {
  asgard,
  consent,
  coze,
  defineConfig,
  demoBot,
  local,
  rest,
  sqlite,
  sse,
  tool,
  webhook,
  websocket,
} from 'bothub'
import { z } from 'zod'

// The hub under torture. What differs from run to run comes in one environment variable.
const { store, edge, studio, callback, secret } = z
  .object({
    store: z.string(),
    edge: z.object({
      edgeServerHost: z.string(),
      namespace: z.string(),
      botProviderName: z.string(),
      apiKey: z.string(),
    }),
    studio: z.object({ baseUrl: z.string(), token: z.string(), botId: z.string() }),
    callback: z.string(),
    secret: z.string(),
  })
  .parse(JSON.parse(process.env['TORTURE'] ?? '{}'))

const tools = {
  get_weather: tool({ run: () => 'It is sunny.' }),
  send_mail: tool({ run: () => 'The mail was sent.' }),
}
// Far below the defaults, so that a silent upstream is found out while the run lasts.
const times = { idleTimeoutMs: 1500, timeoutMs: 10_000 }
const hook = { secret, callback, allowPrivate: true }

export default defineConfig({
  store: sqlite({ file: store }),
  bots: {
    main: { provider: local(demoBot), use: [consent({ allow: ['get_weather'] })] },
    asgard: { provider: asgard({ ...edge, ...times }) },
    coze: { provider: coze({ ...studio, ...times, tools }), use: [consent({ allow: ['get_weather'] })] },
  },
  channels: {
    rest: rest(),
    sse: sse(),
    websocket: websocket({ bot: 'main' }),
    'hook-main': webhook({ ...hook, bot: 'main' }),
    'hook-asgard': webhook({ ...hook, bot: 'asgard' }),
    'hook-coze': webhook({ ...hook, bot: 'coze' }),
  },
})
