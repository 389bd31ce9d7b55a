import type { TestHub } from './hub.ts'

/** Where a message for the bot `echo` is sent. */
export const echoPath = '/api/v1/bots/echo/messages'

/** A request by hand: its head, and as much of its body as is given. */
export const rawPost = (hub: TestHub, headers: Record<string, string | number>, body = ''): string =>
  [
    `POST ${echoPath} HTTP/1.1`,
    `Host: ${new URL(hub.url).host}`,
    ...Object.entries({ 'Content-Type': 'application/json', ...headers }).map(([name, value]) => `${name}: ${value}`),
    '',
    body,
  ].join('\r\n')

/** The status of an answer as it came. */
export const statusOf = (answer: string): number => Number(/^HTTP\/1.1 (\d{3})/.exec(answer)?.[1])
