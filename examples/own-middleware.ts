import type { Middleware } from 'bothub'
import { defineConfig, echo, history, HubError, rest, retry, sqlite, sse } from 'bothub'

// A middleware wraps the stream of everything below it. Start it: npm start -- --config examples/own-middleware.ts

/** Changes events on their way up. */
const shout: Middleware = async function* (turn, next) {
  for await (const event of next(turn)) {
    const speaks = event.type === 'message.delta' || event.type === 'message.completed'
    yield speaks ? { ...event, text: event.text.toUpperCase() } : event
  }
}

/** Refuses a message before its bot sees it. */
const noShouting: Middleware = (turn, next) => {
  if (/[A-Z]{3}/.test(turn.message.text))
    throw new HubError('upstream_refused_content', { message: 'Please do not shout.' })
  return next(turn)
}

export default defineConfig({
  store: sqlite({ file: ':memory:' }),
  bots: { echo: { provider: echo(), use: [noShouting, shout] } },
  use: [history(), retry()],
  channels: { rest: rest(), sse: sse() },
})
