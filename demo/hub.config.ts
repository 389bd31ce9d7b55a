import { asgard, defineConfig, env, rest, sqlite, sse, webhook, websocket } from 'bothub'

/** The hub of `npm run demo`, in a process of its own: the demonstration says in its environment where all is. */
export default defineConfig({
  store: sqlite({ file: process.env['DEMO_STORE'] ?? 'data/demo.db' }),
  bots: {
    storyteller: asgard({
      edgeServerHost: env('DEMO_UPSTREAM'),
      namespace: env('DEMO_NAMESPACE'),
      botProviderName: env('DEMO_BOT'),
      apiKey: env('DEMO_KEY'),
    }),
  },
  channels: {
    rest: rest(),
    sse: sse(),
    websocket: websocket(),
    webhook: webhook({
      bot: 'storyteller',
      secret: env('DEMO_SECRET'),
      callback: env('DEMO_CALLBACK'),
      allowPrivate: true,
    }),
  },
})
