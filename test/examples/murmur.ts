import type { Dialect, ProviderSubject, UpstreamRequest } from 'bothub/testing'
import { murmur } from '../../examples/made-up-vendor.ts'

/** What Murmur's `POST /v1/answers` is sent. */
interface Question {
  readonly user: string
  readonly said: readonly { readonly by: string; readonly text: string }[]
}

const questionIn = ({ json }: UpstreamRequest) => json as unknown as Question
const frame = (event: string, content: unknown) => `event: ${event}\ndata: ${JSON.stringify(content)}\n\n`

const dialect: Dialect = {
  secret: 'murmur-key-1f0c9a7e',
  isMessage: ({ method, path }) => method === 'POST' && path === '/v1/answers',
  speak: () => (step) => {
    switch (step.type) {
      case 'begin':
        return ': hello\n'
      case 'say':
        return frame('word', { text: step.text })
      case 'finish':
        return ''
      case 'fail':
        return frame('error', { code: 'melted', reason: step.words })
      case 'end':
        return frame('end', {})
      default:
        throw new Error(`Murmur has no word for "${step.type}"`)
    }
  },
  refuse: (status, words) => ({ body: JSON.stringify({ code: `E${status}`, reason: words }) }),
  noise: [
    ': a comment\n\n',
    frame('weather', { celsius: 21 }),
    frame('word', { text: 7 }),
    frame('word', null),
    'event: word\ndata: {"text":\n\n',
    'event: word\n\n',
    'data: {"text":"of no event"}\n\n',
    'nonsense\n\n',
  ],
  textOf: (request) => questionIn(request).said.at(-1)!.text,
  userOf: (request) => questionIn(request).user,
  historyOf: (request) =>
    questionIn(request)
      .said.slice(0, -1)
      .map(({ text }) => text),
}

/** The provider of `examples/made-up-vendor.ts`. */
export const murmurSubject: ProviderSubject & { readonly dialect: Dialect } = {
  manifest: murmur({ key: dialect.secret }).manifest,
  create: (url) => murmur({ url, key: dialect.secret }),
  impatient: (url) => murmur({ url, key: dialect.secret, idleTimeoutMs: 100 }),
  dialect,
}
