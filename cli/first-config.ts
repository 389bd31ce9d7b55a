/** Bots that `bothub init` offers; each starts without a key, and uses one when its variables are set. */
export const botKinds = {
  own: { label: 'a function of my own, in TypeScript', imports: ['local'], entry: 'mine: local(myBot),' },
  asgard: {
    label: 'Asgard',
    imports: ['asgard'],
    entry: `// A simulated one until NAMESPACE, BOT_PROVIDER_NAME and BOT_PROVIDER_API_KEY are set.
    asgard: process.env['BOT_PROVIDER_API_KEY'] ? asgard() : asgard({ simulated: true }),`,
  },
  coze: {
    label: 'Coze',
    imports: ['coze'],
    entry: `// A simulated one until COZE_API_TOKEN and COZE_BOT_ID are set.
    coze: process.env['COZE_API_TOKEN'] ? coze() : coze({ simulated: true }),`,
  },
  openai: {
    label: 'OpenAI, or a server that speaks the same, such as Ollama',
    imports: ['echo', 'openai'],
    entry: `// It repeats what it is told until OPENAI_API_KEY is set.
    openai: process.env['OPENAI_API_KEY'] ? openai({ model: 'gpt-5' }) : echo(),`,
  },
} as const

/** Channels that `bothub init` offers beside `rest` and `sse`. */
export const channelKinds = {
  websocket: { label: 'WebSocket' },
  webhook: { label: 'signed webhooks' },
  openaiApi: { label: 'the API of OpenAI' },
  cozeApi: { label: 'the API of Coze' },
  cloudbaseApi: { label: 'the API of Tencent CloudBase' },
  asgardRelay: { label: 'the front-end SDK of Asgard' },
} as const

/** What somebody has chosen. */
export interface Choices {
  readonly bots: (keyof typeof botKinds)[]
  readonly channels: (keyof typeof channelKinds)[]
}

/** The text of a config. */
export function firstConfig({ bots, channels }: Choices): string {
  const first = bots[0] === 'own' ? 'mine' : bots[0]
  const imports = ['defineConfig', 'rest', 'sse', ...channels, ...bots.flatMap((bot) => botKinds[bot].imports)]
  const own = bots.includes('own') ? ["import { myBot } from './my-bot.ts'"] : []
  const doors = channels.map(
    (channel) => `    ${channel}: ${channel}(${channel === 'webhook' ? `{ bot: '${first}' }` : ''}),`,
  )
  return lines(
    `import { ${[...new Set(imports)].toSorted().join(', ')} } from 'bothub'`,
    ...own,
    '',
    '// Without `auth` the hub is for this machine alone.',
    'export default defineConfig({',
    '  bots: {',
    ...bots.map((bot) => `    ${botKinds[bot].entry}`),
    '  },',
    '  channels: {',
    '    rest: rest(),',
    '    sse: sse(),',
    ...doors,
    '  },',
    '})',
  )
}

const lines = (...all: readonly string[]): string => all.map((line) => `${line}\n`).join('')

/** The text of a bot that runs in the hub. */
export const firstBot = lines(
  "import type { Turn } from 'bothub'",
  '',
  '/** Yields its answer piece by piece; `history` is what was said before. */',
  'export async function* myBot({ message, history }: Turn) {',
  "  yield history.length === 0 ? 'Hello! ' : 'Hello again! '",
  '  yield `You said: ${message.text}`',
  '}',
)

/** The text of a `tsconfig.json`, with which `npx tsc` checks what Node runs as it is. */
export const firstTypeScriptConfig = `${JSON.stringify(
  {
    compilerOptions: {
      target: 'esnext',
      lib: ['esnext'],
      module: 'nodenext',
      types: ['node'],
      strict: true,
      erasableSyntaxOnly: true,
      verbatimModuleSyntax: true,
      allowImportingTsExtensions: true,
      noEmit: true,
    },
  },
  null,
  2,
)}\n`
