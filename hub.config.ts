import {
  asgard,
  asgardRelay,
  cloudbaseApi,
  consent,
  coze,
  cozeApi,
  defineConfig,
  demoBot,
  local,
  openaiApi,
  rest,
  sse,
  tool,
  webhook,
  websocket,
} from 'bothub'
import { z } from 'zod'

// Three bots that need no account, key or network: one that runs in the hub, and two that go through the real Asgard
// and Coze providers to simulated upstreams. Real upstreams join them when their environment variables are set.
const tools = {
  get_weather: tool({
    description: 'The weather of a city.',
    parameters: z.object({ city: z.string() }),
    run: ({ city }) => `It is sunny in ${city}.`,
  }),
  send_mail: tool({
    description: 'Sends a mail.',
    parameters: z.object({ to: z.string(), subject: z.string() }),
    run: ({ to }) => `The mail to ${to} was sent.`,
  }),
}

/** Words that `demoBot` shows a path for, as simulated platforms do. */
const starters = ['hello', '/long', '/think', '/tools', '/consent', '/card', '/slow', '/fail']

const { NAMESPACE, BOT_PROVIDER_NAME, BOT_PROVIDER_API_KEY, COZE_API_TOKEN, COZE_BOT_ID } = process.env

export default defineConfig({
  bots: {
    main: {
      provider: local(demoBot),
      profile: { name: 'Main', description: 'Runs inside the hub.', starters },
      use: [consent({ allow: ['get_weather'] })],
    },
    'asgard-demo': {
      provider: asgard({ simulated: true }),
      profile: { name: 'Asgard demo', description: 'A simulated Asgard bot provider.' },
    },
    'coze-demo': {
      provider: coze({ simulated: true, tools }),
      profile: { name: 'Coze demo', description: 'A simulated Coze bot.' },
      use: [consent({ allow: ['get_weather'] })],
    },
    ...(NAMESPACE && BOT_PROVIDER_NAME && BOT_PROVIDER_API_KEY ? { asgard: asgard() } : {}),
    ...(COZE_API_TOKEN && COZE_BOT_ID ? { coze: coze() } : {}),
  },
  channels: {
    rest: rest(),
    sse: sse(),
    websocket: websocket({ bot: 'main' }),
    webhook: webhook({ bot: 'main' }),
    asgard: asgardRelay(),
    coze: cozeApi(),
    openai: openaiApi(),
    cloudbase: cloudbaseApi(),
  },
})
