import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { z } from 'zod'
import { botShape, configShape } from '../core/config.ts'
import * as hub from '../index.ts'

const root = join(import.meta.dirname, '..')

/** What of a JSON Schema the page shows. */
interface Node {
  readonly type?: string
  readonly const?: unknown
  readonly enum?: readonly unknown[]
  readonly default?: unknown
  readonly description?: string
  readonly minimum?: number
  readonly maximum?: number
  readonly pattern?: string
  readonly properties?: Readonly<Record<string, Node>>
  readonly required?: readonly string[]
  readonly additionalProperties?: Node | boolean
  readonly items?: Node
  readonly anyOf?: readonly Node[]
  readonly oneOf?: readonly Node[]
}

interface Spec {
  readonly schema: z.ZodType
}

/** Where the words of a factory's options are that its schema has none for: the doc comments beside them. */
const factories: Readonly<Record<string, readonly (readonly [name: string, file: string, spec: Spec])[]>> = {
  Providers: [
    ['asgard', 'plugins/asgard/index.ts', hub.asgard({ simulated: true })],
    ['coze', 'plugins/coze/index.ts', hub.coze()],
    ['openai', 'plugins/openai/index.ts', hub.openai()],
    ['local', 'plugins/local/index.ts', hub.local(() => '')],
    ['sseBot', 'plugins/sse-bot/index.ts', hub.sseBot({ url: '' })],
    ['echo', 'plugins/echo/index.ts', hub.echo()],
  ],
  Middleware: [
    ['history', 'plugins/history/index.ts', hub.history()],
    ['retry', 'plugins/retry/index.ts', hub.retry()],
    ['consent', 'plugins/consent/index.ts', hub.consent()],
  ],
  Channels: [
    ['rest', 'channels/rest.ts', hub.rest()],
    ['sse', 'channels/sse.ts', hub.sse()],
    ['websocket', 'channels/websocket/index.ts', hub.websocket()],
    ['webhook', 'channels/webhook/index.ts', hub.webhook({ bot: '' })],
    ['asgardRelay', 'channels/asgard-relay/index.ts', hub.asgardRelay()],
    ['cozeApi', 'channels/coze-api/index.ts', hub.cozeApi()],
    ['cloudbaseApi', 'channels/cloudbase-api/index.ts', hub.cloudbaseApi()],
    ['openaiApi', 'channels/openai-api/index.ts', hub.openaiApi()],
    ['consolePage', 'channels/console/index.ts', hub.consolePage()],
  ],
  'Schemes of webhooks': [
    ['slack', 'channels/webhook/schemes/slack.ts', hub.slack({ signingSecret: '', token: '' })],
    ['telegram', 'channels/webhook/schemes/telegram.ts', hub.telegram({ token: '', secret: '' })],
    ['feishu', 'channels/webhook/schemes/feishu.ts', hub.feishu({ appId: '', appSecret: '', verificationToken: '' })],
    [
      'wecom',
      'channels/webhook/schemes/wecom.ts',
      hub.wecom({ corpId: '', agentId: 0, secret: '', token: '', encodingAesKey: '' }),
    ],
  ],
  'Who may ask': [
    ['apiKey', 'core/auth.ts', hub.apiKey({ name: '', key: '' })],
    ['jwt', 'core/auth.ts', hub.jwt({})],
  ],
  Stores: [['sqlite', 'plugins/sqlite/index.ts', hub.sqlite()]],
}

/** What plugins and functions are in a config, for which JSON Schema has no word. */
const ofHub: Readonly<Record<string, string>> = {
  auth: 'a function, or a list of functions and of what stands below under [who may ask](#who-may-ask)',
  store: 'a [store](#stores)',
  bots: 'by name: a [provider](#providers), or [a bot with more](#a-bot-with-more)',
  use: 'list of [middleware](#middleware) and functions',
  console: 'a [channel](#consolepage), or `false`',
  channels: 'by name: a [channel](#channels)',
  provider: 'a [provider](#providers)',
  'onTurnEnd[].run': 'a function',
}
const ofPlugins: Readonly<Record<string, string>> = {
  scheme: 'a [scheme](#schemes-of-webhooks)',
  tools: 'by name: `tool({ … })`',
  request: 'a function',
  map: 'a function',
  'clientTools.{name}.parameters': 'a zod schema',
}
/** Elsewhere `bot` is a name. */
const ofLocal: Readonly<Record<string, string>> = { ...ofPlugins, bot: 'a function, a class, or the URL of a module' }
/** What `defineConfig` adds. */
const defaults: Readonly<Record<string, string>> = {
  store: '`sqlite()`',
  use: '`[history(), retry()]`',
  console: '`consolePage()`',
}

/** The text of `docs/configuration.md`, made of the schemas that a config is checked with. */
export function configurationPage(): string {
  const config = readFileSync(join(root, 'core/config.ts'), 'utf8')
  const own = (name: string) => sourceOf(config, `export interface ${name}`)
  return [
    '# Configuration',
    '',
    '<!-- Made by `npm run docs` of the schemas that a config is checked with; a test holds it to them. -->',
    '',
    'The default export of `hub.config.ts`. The compiler knows all of it too; the words here are those that an editor shows.',
    'Text options marked _setting_ take a string, `env(NAME)` or `secretFile(PATH)`; those that are secret are never printed.',
    'A _time_ is a number of milliseconds or text such as `500ms`, `10s`, `5m`, `24h`, `7d`.',
    '',
    '## The hub',
    '',
    ...table(jsonSchemaOf(configShape), own('HubConfig'), ofHub, defaults),
    '## A bot with more',
    '',
    'What stands under a bot’s name may be its provider alone, or this:',
    '',
    ...table(jsonSchemaOf(botShape), own('BotConfig') + readFileSync(join(root, 'core/bot.ts'), 'utf8'), ofHub),
    ...Object.entries(factories).flatMap(([title, all]) => [`## ${title}`, '', ...all.flatMap(section)]),
    '## The environment',
    '',
    'Flags beat these, and these beat the config. They may also stand in a file `.env` beside the config, one `NAME=value` to a',
    'line, as may all that the config takes with `env(NAME)`; what is set already is left as it is.',
    '',
    '| Variable | What it is |',
    '| --- | --- |',
    '| `HUB_HOST`, `HUB_PORT` | where `bothub start` listens, and where the other commands look for it |',
    '| `HUB_URL`, `HUB_KEY` | for `bothub chat` and `bothub outbox`: where the hub is, and a key of it |',
    '| `HUB_LOG_LEVEL` | `debug`, `info` (default), `warn`, `error` or `silent` |',
    '',
  ].join('\n')
}

function section([name, file, { schema }]: readonly [string, string, Spec]): readonly string[] {
  const source = readFileSync(join(root, file), 'utf8')
  const kinds = name === 'local' ? ofLocal : ofPlugins
  return [`### ${name}`, '', ...table(jsonSchemaOf(schema), source, kinds, parsedDefaults(schema))]
}

/** Defaults of options that are given in another form than they are used in; JSON Schema has only those of the first. */
function parsedDefaults(schema: z.ZodType): Words {
  if (!(schema instanceof z.ZodObject)) return {}
  const { properties = {} } = jsonSchemaOf(schema)
  return Object.fromEntries(
    Object.entries<z.ZodType>(schema.shape).flatMap(([name, option]) => {
      const { data } = properties[name]?.default === undefined ? option.safeParse(undefined) : {}
      return typeof data === 'number' || typeof data === 'string' ? [[name, `\`${data}\``]] : []
    }),
  )
}

/** From where something is declared to the end of it. */
function sourceOf(source: string, start: string): string {
  const from = source.indexOf(start)
  return from === -1 ? '' : source.slice(from, source.indexOf('\n}\n', from))
}

const jsonSchemaOf = (schema: z.ZodType): Node =>
  z.toJSONSchema(schema, { io: 'input', unrepresentable: 'any', reused: 'inline' }) as Node

type Words = Readonly<Record<string, string>>

function table(node: Node, source: string, kinds: Words = ofPlugins, given: Words = {}): readonly string[] {
  const rows = rowsOf(node, '').map(({ path, option, isRequired }) => [
    `\`${path}\``,
    kinds[path] ?? takes(option),
    given[path] ?? (isRequired ? 'required' : defaultOf(option)),
    option.description ?? commentOn(/\w+$/.exec(path)![0], source) ?? '',
  ])
  return [
    '| Option | Takes | Default | What it is |',
    '| --- | --- | --- | --- |',
    ...rows.map((cells) => `| ${cells.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |`),
    '',
  ]
}

interface Row {
  /** `listen.port`, `onTurnEnd[].name`. */
  readonly path: string
  readonly option: Node
  readonly isRequired: boolean
}

/** Options of an object, and below each those inside it; of alternatives, those of all. */
function rowsOf(node: Node, prefix: string): readonly Row[] {
  const objects = [node, ...(node.anyOf ?? []), ...(node.oneOf ?? [])].filter((each) => each.properties)
  const names = [...new Set(objects.flatMap(({ properties = {} }) => Object.keys(properties)))]
  return names.flatMap((name) => {
    const holders = objects.flatMap(({ properties = {} }) => properties[name] ?? [])
    const option = holders.length === 1 ? holders[0]! : { ...holders[0]!, const: undefined, anyOf: holders }
    const isRequired = objects.every(({ required = [] }) => required.includes(name)) && option.default === undefined
    const path = `${prefix}${name}`
    return [
      { path, option, isRequired },
      ...(isSetting(option) ? [] : rowsOf(option, `${path}.`)),
      ...rowsOf(option.items ?? {}, `${path}[].`),
      ...(typeof option.additionalProperties === 'object' && !isSetting(option.additionalProperties)
        ? rowsOf(option.additionalProperties, `${path}.{name}.`)
        : []),
    ]
  })
}

/** The doc comment right above an option. */
function commentOn(name: string, source: string): string | undefined {
  const comments = source.matchAll(/\/\*\*((?:(?!\*\/)[\s\S])*)\*\/\s+(?:readonly )?(\w+)\??:/g)
  const found = Array.from(comments).find(([, , named]) => named === name)?.[1]
  return found
    ?.replaceAll(/^\s*\* ?/gm, '')
    .replaceAll(/\s+/g, ' ')
    .trim()
}

const isSetting = ({ anyOf = [] }: Node): boolean =>
  anyOf.some(({ properties }) => properties?.['from']?.enum?.includes('env'))
const isTime = ({ anyOf = [] }: Node): boolean => anyOf.some(({ pattern }) => pattern?.includes('ms|s|m|h|d'))

function takes(node: Node): string {
  if (isSetting(node)) return 'setting'
  if (isTime(node)) return 'time'
  const several = node.anyOf ?? node.oneOf
  if (several) return eitherOf([...new Set(several.map((each) => takes(each)))])
  if (node.enum) return node.enum.map((each) => `\`${JSON.stringify(each)}\``).join(', ')
  if (node.const !== undefined) return `\`${JSON.stringify(node.const)}\``
  if (node.type === 'array') return `list of ${takes(node.items ?? {})}`
  if (node.type === 'object') return node.properties ? 'object' : 'object, by name'
  return (
    { string: 'text', boolean: '`true` or `false`', integer: 'whole number', number: 'number' }[node.type ?? ''] ??
    'any'
  )
}

const eitherOf = (all: readonly string[]): string =>
  all.join(' or ') === '`false` or `true`' ? '`true` or `false`' : all.join(' or ')

function defaultOf({ default: value }: Node): string {
  if (value === undefined || (typeof value === 'object' && value !== null && Object.keys(value).length === 0)) return ''
  const { from, name, fallback } = value as {
    readonly from?: string
    readonly name?: string
    readonly fallback?: string
  }
  if (from === 'env') return `\`${name}\` of the environment${fallback === undefined ? '' : `, else \`${fallback}\``}`
  return `\`${JSON.stringify(value)}\``
}
