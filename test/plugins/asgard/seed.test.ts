import { execFile } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join, relative } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { startAsgardSimulator } from '../../../plugins/asgard/simulator.ts'
import type { AsgardSimulator } from '../../../plugins/asgard/simulator.ts'

/*
 * The Node examples of the vendor's guide, unchanged but for the package they import from, as a program of their own:
 * compiled, and run by Node against the simulator. Where they leave room for a reader's code, `reached` stands in it.
 */

const root = join(import.meta.dirname, '../../..')
const run = promisify(execFile)

const blockOf = (name: string) =>
  readFileSync(join(root, `test/fixtures/seeds/asgard-sdk-${name}.ts.txt`), 'utf8').trimEnd()

/** A block's imports, and the rest as the body of a function that gives back one of its names. */
function moduleOf(block: string, parameters: string, result = 'undefined'): string {
  const [imports = ''] = /^(?:import [^;]+;\n)*/.exec(block) ?? []
  const given = parameters
    ? `import type { BotProviderClient as Client, GenericBotMessage as Message } from 'bothub/asgard'\n`
    : ''
  return `${imports}${given}
export default async function block(${parameters}) {
${block.slice(imports.length)}
return ${result}
}
`
}

/** Replaces what must be there exactly once. */
function put(code: string, place: string | RegExp, replacement: string): string {
  const places = typeof place === 'string' ? code.split(place).slice(1) : [...code.matchAll(new RegExp(place, 'gm'))]
  expect(places).toHaveLength(1)
  return code.replace(place, replacement)
}

const stream = put(
  put(blockOf('stream'), 'switch (event.eventType) {', 'reached(event.eventType)\nswitch (event.eventType) {'),
  '{ /* ... */ }',
  '{ reached([e.message, e.errorCode, e === streamer.err()]) }',
)
const asked = (text: string, code = stream) => put(code, "text: 'Hello'", `text: '${text}'`)
const [, withOptions = ''] = /^\/\/ (const streamer = .*)$/m.exec(stream) ?? []
const errors = put(
  put(put(blockOf('errors'), /\/\/ HTTP 412.*/, "reached('412')"), /\/\/ HTTP 404.*/, "reached('404')"),
  /(?<=err\.errorCode;).*/,
  'reached([code, serverErrCode])',
)
const streamParameters = 'bpClient: Client, reached: (what: unknown) => void'

const modules = {
  'client.ts': `${blockOf('client')}\nexport { bpClient, edgeServerHost, namespace, botProviderName, botProviderApiKey }\n`,
  'stream.ts': moduleOf(stream, streamParameters, 'msg'),
  'stream-failing.ts': moduleOf(asked('/fail'), streamParameters),
  'stream-tools.ts': moduleOf(asked('/tools'), streamParameters),
  'stream-usage.ts': moduleOf(asked('!usage'), streamParameters),
  'stream-options.ts': moduleOf(
    asked('/consent', put(stream, /^const streamer = .*$/m, withOptions)),
    streamParameters,
  ),
  'upload.ts': moduleOf(blockOf('upload'), 'bpClient: Client, channelId: string', 'blob'),
  'send.ts': moduleOf(blockOf('send'), 'bpClient: Client, msg: Message', 'reply'),
  'http.ts': `import { BotProviderClient } from 'bothub/asgard'
import { edgeServerHost, namespace, botProviderName, botProviderApiKey } from './client.ts'
${blockOf('http')}
export { bpClient }
`,
  'errors.ts': moduleOf(errors, 'bpClient: Client, sandboxName: string, reached: (what: unknown) => void'),
  'main.ts': `import * as sdk from 'bothub/asgard'
import { bpClient } from './client.ts'
import { bpClient as traced } from './http.ts'
import errors from './errors.ts'
import send from './send.ts'
import stream from './stream.ts'
import streamFailing from './stream-failing.ts'
import streamOptions from './stream-options.ts'
import streamTools from './stream-tools.ts'
import streamUsage from './stream-usage.ts'
import upload from './upload.ts'

const report: Record<string, unknown[]> = {}
const reached = (name: string) => (what: unknown) => void (report[name] ??= []).push(what)
const msg = await stream(bpClient, reached('stream'))
await streamFailing(bpClient, reached('failing'))
await streamTools(bpClient, reached('tools'))
await streamUsage(bpClient, reached('usage'))
await streamOptions(bpClient, reached('options'))
reached('blob')(await upload(bpClient, msg.customChannelId))
reached('reply')(await send(bpClient, msg))
reached('traced')(await send(traced, msg))
await errors(bpClient, 'not-running', reached('not running'))
const other = { edgeServerHost: process.env.EDGE_SERVER_HOST!, namespace: process.env.NAMESPACE! }
const nowhere = new sdk.BotProviderClient({ ...other, botProviderName: 'none', botProviderApiKey: 'k' })
await errors(nowhere, 'any', reached('nowhere'))
const stranger = new sdk.BotProviderClient({ ...other, botProviderName: process.env.BOT_PROVIDER_NAME!, botProviderApiKey: 'k' })
await errors(stranger, 'any', reached('stranger'))
for (const status of [400, 401, 403, 404, 409, 412, 500]) {
  const error = await bpClient.sendMessage({ ...msg, text: '!error-' + status }).catch((each: unknown) => each)
  const holds = [sdk.isBadRequest, sdk.isUnauthorized, sdk.isForbidden, sdk.isNotFound, sdk.isConflict, sdk.isPreconditionFailed]
  reached('predicates')([sdk.statusCodeOf(error), holds.filter((each) => each(error)).map((each) => each.name).join()])
}
console.log(JSON.stringify(report))
`,
} satisfies Record<string, string>

let folder: string
let edge: AsgardSimulator
let report: Record<string, unknown[]>

beforeAll(async () => {
  // Inside the repository, so that they find `bothub/asgard` as the reader's files do; `data/` is what git leaves alone.
  mkdirSync(join(root, 'data'), { recursive: true })
  folder = mkdtempSync(join(root, 'data/seed-'))
  edge = await startAsgardSimulator()
  for (const [name, text] of Object.entries(modules)) writeFileSync(join(folder, name), text)
  writeFileSync(join(folder, 'filename.png'), 'not much of a picture')
  // The examples import more than they use.
  const compilerOptions = { noUnusedLocals: false, noUnusedParameters: false }
  const config = { extends: '../../tsconfig.json', compilerOptions, include: ['*.ts'] }
  writeFileSync(join(folder, 'tsconfig.json'), JSON.stringify(config))
  const { stdout } = await run(process.execPath, ['main.ts'], {
    cwd: folder,
    env: {
      EDGE_SERVER_HOST: edge.url,
      NAMESPACE: edge.namespace,
      BOT_PROVIDER_NAME: edge.botProviderName,
      BOT_PROVIDER_API_KEY: edge.apiKey,
    },
  })
  report = JSON.parse(stdout) as Record<string, unknown[]>
})
afterAll(async () => {
  await edge.close()
  rmSync(folder, { recursive: true, force: true })
})

it('compiles', async () => {
  const compiler = join(root, 'node_modules/typescript/bin/tsc')
  const { stdout } = await run(process.execPath, [compiler, '-p', folder], { cwd: root }).catch(
    (error: { stdout: string }) => error,
  )
  // What is wrong elsewhere is found by `npm run check:types`.
  const ours = relative(root, folder).replaceAll('\\', '/')
  expect(stdout.split('\n').filter((line) => line.startsWith(ours) || line.startsWith('error '))).toEqual([])
})

it('streams a message from the run’s start to its end', () => {
  const seen = report['stream']!
  expect(seen[0]).toBe('asgard.run.init')
  expect(seen).toContain('asgard.message.delta')
  expect(seen.slice(-2)).toEqual(['asgard.message.complete', 'asgard.run.done'])
  expect(edge.requests[0]).toMatchObject({
    path: '/message/sse',
    query: {},
    body: {
      customChannelId: 'channel-abc-123',
      customMessageId: 'msg-001',
      text: 'Hello',
      action: 'NONE',
      payload: { user_id: 'user-456' },
    },
  })
})

it('reaches every case of the switch', () => {
  expect(report['tools']).toContain('asgard.tool_call.complete')
  expect(report['usage']).toContain('asgard.completion_model.usage')
})

it('throws the error of a run into the catch, and keeps it', () => {
  expect(report['failing']!.at(-1)).toEqual(['the demo failed as asked', 'INTERNAL', true])
  expect(report['failing']).not.toContain('asgard.run.error')
})

it('passes debug and bypass on', () => {
  expect(report['options']).not.toContain('asgard.tool_call.consent')
  expect(report['options']).toContain('asgard.tool_call.complete')
  expect(edge.requests.map(({ query }) => query)).toContainEqual({
    is_debug: 'true',
    bypass_tool_call_consent: 'true',
  })
})

it('uploads a file', () => {
  expect(report['blob']).toMatchObject([
    { blobId: expect.any(String) as string, fileName: 'filename.png', size: 21, mime: 'image/png' },
  ])
})

it('sends a message and has the whole reply', () => {
  expect(report['reply']).toMatchObject([
    { messages: [{ text: expect.stringContaining('Hello') as string }], errorDetail: null },
  ])
})

it('carries the headers of its config', () => {
  expect(report['traced']).toHaveLength(1)
  expect(edge.requests.map(({ headers }) => headers['x-trace-id'])).toContain('abc-123')
})

it('tells failures apart', () => {
  expect(report['not running']).toEqual(['412'])
  expect(report['nowhere']).toEqual(['404'])
  expect(report['stranger']).toEqual([[401, 'UNAUTHENTICATED']])
  expect(report['predicates']).toEqual([
    [400, 'isBadRequest'],
    [401, 'isUnauthorized'],
    [403, 'isForbidden'],
    [404, 'isNotFound'],
    [409, 'isConflict'],
    [412, 'isPreconditionFailed'],
    [500, ''],
  ])
})
