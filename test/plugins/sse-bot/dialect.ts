import type { JsonObject } from '../../../core/message.ts'
import { sseBot } from '../../../plugins/sse-bot/index.ts'
import type { ProviderSubject } from '../../suites/provider.ts'
import type { Dialect, UpstreamRequest } from '../../suites/scripted.ts'

const frame = (event: string, content: unknown) => `event: ${event}\ndata: ${JSON.stringify(content)}\n\n`

const askedIn = ({ json }: UpstreamRequest) =>
  json as JsonObject & {
    readonly message: string
    readonly user: string
    readonly history: readonly { readonly content: string }[]
  }

const dialect: Dialect = {
  secret: 'sse-bot-token-4d1b7c20',
  isMessage: ({ method, path }) => method === 'POST' && path === '/chat',
  speak: () => (step) => {
    switch (step.type) {
      case 'begin':
        return ': welcome\n'
      case 'say':
        return frame('message', { content: step.text })
      case 'finish':
        return ''
      case 'fail':
        return frame('error', { code: 'melted', message: step.words })
      case 'end':
        return 'event: done\ndata: [DONE]\n\n'
      default:
        throw new Error(`The plain format has no word for "${step.type}"`)
    }
  },
  refuse: (status, words) => ({ body: JSON.stringify({ code: status, message: words }) }),
  noise: [
    ': a comment\n\n',
    frame('weather', { celsius: 21 }),
    frame('message', { content: 7 }),
    frame('message', null),
    frame('message', ['content']),
    'event: message\ndata: {"content":\n\n',
    'event: message\n\n',
    'data: hello\n\n',
    'nonsense\n\n',
  ],
  textOf: (request) => askedIn(request).message,
  userOf: (request) => askedIn(request).user,
  historyOf: (request) => askedIn(request).history.map(({ content }) => content),
}

const target = (upstream: string) => ({ url: new URL('/chat', upstream).href, token: dialect.secret })

/** The provider for plain streams before an upstream that speaks the plain format. */
export const sseBotSubject: ProviderSubject & { readonly dialect: Dialect } = {
  manifest: sseBot(target('http://127.0.0.1')).manifest,
  create: (upstream) => sseBot(target(upstream)),
  impatient: (upstream) => sseBot({ ...target(upstream), idleTimeoutMs: 100 }),
  dialect,
}
