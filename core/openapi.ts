import { z } from 'zod'
import { errorAnswer } from './answers.ts'
import type { Content, Route, RouteDescription } from './channel.ts'
import { clientName } from './ids.ts'
import type { Json, JsonObject } from './message.ts'

/** What an OpenAPI document is made of. */
export interface OpenApiOptions {
  /** Those of the channels and of the hub itself. */
  readonly routes: readonly Route[]
  /** Paths where connections become WebSockets; OpenAPI has no place for them but its text. */
  readonly upgrades: readonly string[]
  /** Nobody needs a key. */
  readonly open: boolean
}

/**
 * Describes what a hub serves as an OpenAPI 3.1 document, with the schemas its routes check with. Routes that share a
 * path and a method, as one in JSON and one in events do, are one operation.
 */
export function openApi({ routes, upgrades, open }: OpenApiOptions): JsonObject {
  const schemas = toJsonSchemas([errorAnswer, ...routes.flatMap(descriptionsOf).flatMap(schemasOf)])
  const paths: Record<string, Record<string, Json>> = {}
  for (const shared of Map.groupBy(routes, ({ method, path }) => `${method} ${path}`).values()) {
    const { method, path } = shared[0]!
    const operations = (paths[templateOf(path)] ??= {})
    operations[method.toLowerCase()] = toOperation(shared, schemas, open)
  }
  return {
    openapi: '3.1.0',
    info: { title: 'bothub', version: '1', description: introduction(upgrades) },
    paths,
    components: {
      schemas: schemas.named,
      responses: { Error: toAnswer(failed, schemas) },
      ...(open ? {} : { securitySchemes }),
    },
    ...(open ? {} : { security: Object.keys(securitySchemes).map((scheme) => ({ [scheme]: [] })) }),
  }
}

const securitySchemes = {
  bearer: { type: 'http', scheme: 'bearer', description: 'An API key or a token.' },
  apiKey: { type: 'apiKey', in: 'header', name: 'X-API-Key' },
} as const

const failed = {
  description: 'It failed, with the status of its code and, where it is known when to try again, `Retry-After`.',
  content: { 'application/json': errorAnswer },
} as const

/** Every caller may say this; it counts from a trusted key. */
const spokenFor = 'For whom a trusted key asks.'
const speaker = {
  query: z.object({ user: clientName.optional().describe(spokenFor) }),
  headers: z.object({ 'X-Hub-User': clientName.optional().describe(`${spokenFor} \`?user=\` wins.`) }),
} as const

const pathParameters: Readonly<Record<string, string>> = {
  bot: 'A name out of `GET /api/v1/bots`.',
  conversation: 'Its name or its `conv_…` id.',
  turn: '`turn_…`',
}

function introduction(upgrades: readonly string[]): string {
  const text = 'A hub between bots and people: every bot on every channel, in one vocabulary of events.'
  if (upgrades.length === 0) return text
  const doors = upgrades.map((path) => `\`${path}\``).join(', ')
  const link = '[WebSocket](https://developer.mozilla.org/docs/Web/API/WebSocket)'
  return `${text}\n\nThis document has no words for ${link}, which is served at ${doors}: see \`README.md\` of the hub.`
}

/** `/turns/:turn` as `/turns/{turn}`. */
const templateOf = (path: string): string => path.replaceAll(/:(\w+)/g, '{$1}')

/** What a route says of itself, and what goes for every route whose caller the hub tells. */
const descriptionsOf = ({ describe, anonymous }: Route): readonly Partial<RouteDescription>[] => [
  ...(describe ? [describe] : []),
  ...(anonymous ? [] : [speaker]),
]

const schemasOf = ({ body = {}, query, headers, answers = {} }: Partial<RouteDescription>): readonly z.ZodType[] => [
  ...Object.values(body),
  ...fieldsOf(query),
  ...fieldsOf(headers),
  ...Object.values(answers).flatMap(({ content = {} }) => Object.values(content)),
]

const fieldsOf = (schema: z.ZodObject | undefined): readonly z.ZodType[] =>
  Object.values<z.ZodType>(schema?.shape ?? {})

function toOperation(routes: readonly Route[], schemas: JsonSchemas, open: boolean): JsonObject {
  const { method, path, anonymous = false } = routes[0]!
  const descriptions = routes.flatMap(descriptionsOf)
  const body = Object.assign({}, ...descriptions.map((each) => each.body ?? {})) as Content
  const text = join(descriptions.map((each) => each.description))
  return {
    summary: descriptions.find((each) => each.summary !== undefined)?.summary ?? `${method} ${templateOf(path)}`,
    ...(text ? { description: text } : {}),
    parameters: [...inPath(path), ...inRequest(descriptions, schemas)],
    ...(Object.keys(body).length > 0 ? { requestBody: { required: true, content: toContent(body, schemas) } } : {}),
    responses: toAnswers(descriptions, schemas),
    ...(anonymous && !open ? { security: [] } : {}),
  }
}

const inPath = (path: string): readonly JsonObject[] =>
  Array.from(path.matchAll(/:(\w+)/g), ([, name = '']) => ({
    name,
    in: 'path',
    required: true,
    ...(pathParameters[name] ? { description: pathParameters[name] } : {}),
    schema: { type: 'string' },
  }))

/** Parameters of the query and headers, each once. */
function inRequest(descriptions: readonly Partial<RouteDescription>[], schemas: JsonSchemas): readonly JsonObject[] {
  const found = new Map<string, JsonObject>()
  for (const { query, headers } of descriptions) {
    for (const [place, fields] of [['query', query] as const, ['header', headers] as const]) {
      for (const [name, field] of Object.entries<z.ZodType>(fields?.shape ?? {})) {
        const { description, ...schema } = schemas.of(field)
        found.set(`${place} ${name}`, {
          name,
          in: place,
          required: !field.safeParse(undefined).success,
          ...(description === undefined ? {} : { description }),
          schema,
        })
      }
    }
  }
  return [...found.values()]
}

function toAnswers(descriptions: readonly Partial<RouteDescription>[], schemas: JsonSchemas): JsonObject {
  const byStatus = Map.groupBy(
    descriptions.flatMap(({ answers = {} }) => Object.entries(answers)),
    ([status]) => status,
  )
  const answers = Array.from(byStatus, ([status, shared]) => {
    const content = Object.assign({}, ...shared.map(([, answer]) => answer.content ?? {})) as Content
    return [status, toAnswer({ description: join(shared.map(([, answer]) => answer.description)), content }, schemas)]
  })
  return { ...Object.fromEntries(answers), default: { $ref: '#/components/responses/Error' } }
}

const toAnswer = (
  { description, content }: { readonly description: string; readonly content: Content },
  schemas: JsonSchemas,
): JsonObject => ({
  description,
  ...(Object.keys(content).length > 0 ? { content: toContent(content, schemas) } : {}),
})

const toContent = (content: Content, schemas: JsonSchemas): JsonObject =>
  Object.fromEntries(Object.entries(content).map(([type, schema]) => [type, { schema: schemas.of(schema) }]))

/** A paragraph for each text, and none twice. */
const join = (texts: readonly (string | undefined)[]): string =>
  [...new Set(texts.filter((text) => text !== undefined))].join('\n\n')

interface JsonSchemas {
  /** Those with an id, by it, and what they refer to. */
  readonly named: JsonObject
  /** A schema, or a reference to it where it has an id. */
  of(schema: z.ZodType): JsonObject
}

/** All at once, so that what several schemas share is there once. */
function toJsonSchemas(schemas: readonly z.ZodType[]): JsonSchemas {
  const places = new Map(Array.from(new Set(schemas), (schema, index) => [schema, String(index)]))
  const all = z.object(Object.fromEntries(Array.from(places, ([schema, place]) => [place, schema])))
  const converted = JSON.parse(
    JSON.stringify(z.toJSONSchema(all, { io: 'input', unrepresentable: 'any' })),
    (key, value: unknown) =>
      key === '$ref' && typeof value === 'string' ? value.replace('#/$defs/', '#/components/schemas/') : value,
  ) as { readonly properties: Readonly<Record<string, JsonObject>>; readonly $defs?: JsonObject }
  return {
    named: converted.$defs ?? {},
    of: (schema) => converted.properties[places.get(schema)!]!,
  }
}
