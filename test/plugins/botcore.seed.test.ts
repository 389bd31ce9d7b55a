import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { local } from '../../index.ts'
import type { RecordItem } from '../../core/store.ts'
import { jsonOf, startHub } from '../support/hub.ts'
import type { TestHub } from '../support/hub.ts'

const fixtures = new URL('../fixtures/seeds/', import.meta.url)

/** What has to be put right in each example of the page for it to be JavaScript that runs; and what is left out there. */
const repairs: Readonly<Record<string, readonly (readonly [wrong: string, right: string])[]>> = {
  'my-bot': [],
  'my-bot-records': [
    [
      'getRecordList() {',
      `async sendMessage() {
         const { data } = await this.getRecordList()
         this.sseSender.send({ data: { content: String(data.records.length) } })
         this.sseSender.end()
       }
       getRecordList() {`,
    ],
  ],
  'my-bot-pair': [
    ['sendMessage({ msg }) {', 'async sendMessage({ msg }) {'],
    ['of stream)', 'of chatCompletion)'],
  ],
  'my-bot-history': [
    ['sendMessage({ msg }) {', 'async sendMessage({ msg }) {'],
    ['of stream)', 'of chatCompletion)'],
  ],
}

let hub: TestHub
let folder: string
const seen: unknown[] = []
const server = createServer((request, response) => {
  let body = ''
  request.on('data', (chunk: Buffer) => (body += String(chunk)))
  request.on('end', () => {
    seen.push({ path: request.url, ...(JSON.parse(body) as object) })
    response.writeHead(200, { 'content-type': 'text/event-stream' })
    for (const content of ['This is', ' a test', '.']) {
      response.write(`data: ${JSON.stringify({ choices: [{ index: 0, delta: { content } }] })}\n\n`)
    }
    response.end('data: [DONE]\n\n')
  })
})

beforeAll(async () => {
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  vi.stubEnv('OPENAI_API_KEY', 'sk-of-a-test')
  vi.stubEnv('OPENAI_BASE_URL', `http://127.0.0.1:${(server.address() as AddressInfo).port}/v1`)
  folder = mkdtempSync(join(tmpdir(), 'bothub-seed-'))
  const modules = Object.keys(repairs).map((name) => [name, moduleOf(name)] as const)
  hub = await startHub({
    bots: Object.fromEntries(
      modules.flatMap(([name, module]) => [
        [name, local(module)],
        [`${name}-isolated`, local(module, { isolate: true })],
      ]),
    ),
  })
})
afterAll(async () => {
  vi.unstubAllEnvs()
  await hub[Symbol.asyncDispose]()
  server.close()
  server.closeAllConnections()
  rmSync(folder, { recursive: true, force: true })
})

/** The example as a module, outside of the repository as a user's bot would be. */
function moduleOf(name: string): URL {
  let code = readFileSync(new URL(`${name}.js.txt`, fixtures), 'utf8')
  for (const [wrong, right] of repairs[name]!) {
    expect(code).toContain(wrong)
    code = code.replace(wrong, right)
  }
  const imports = code
    .replace("from 'openai'", `from '${import.meta.resolve('openai')}'`)
    .replace(/^/, `import { BotCore } from '${import.meta.resolve('bothub/botcore')}'\n`)
  const file = join(folder, `${name}.mjs`)
  writeFileSync(file, `${imports}\nexport { MyBot }\n`)
  return pathToFileURL(file)
}

describe.each(['', '-isolated'])("the bots of the framework's own page%s", (suffix) => {
  const records = async (bot: string, conversation: string) =>
    (await jsonOf<{ items: RecordItem[] }>(await hub.api(`/bots/${bot}/conversations/${conversation}/messages`))).items

  it('stream a text letter by letter', async () => {
    const events = await hub.stream(`my-bot${suffix}`, 'x', { conversation: 'a' })
    expect(events.filter(({ type }) => type === 'message.delta')).toHaveLength(12)
    expect(events.at(-1)).toMatchObject({ type: 'turn.completed', text: '这是一条流式传输的内容。' })
    expect(await records(`my-bot${suffix}`, 'a')).toHaveLength(2)
  })

  it('list their records', async () => {
    const bot = `my-bot-records${suffix}`
    expect((await hub.ask(bot, 'one', { conversation: 'a' })).text).toBe('1')
    expect((await hub.ask(bot, 'two', { conversation: 'a' })).text).toBe('3')
  })

  it('store the exchange they had with a model', async () => {
    const bot = `my-bot-pair${suffix}`
    expect(await hub.ask(bot, 'hello', { conversation: 'a' })).toMatchObject({
      status: 'completed',
      text: 'This is a test.',
    })
    expect(await records(bot, 'a')).toMatchObject([
      { role: 'user', text: 'hello' },
      { role: 'bot', text: 'This is a test.' },
    ])
  })

  it('show a model what was said before', async () => {
    const bot = `my-bot-history${suffix}`
    await hub.ask(bot, 'one', { conversation: 'a' })
    seen.length = 0
    expect((await hub.ask(bot, 'two', { conversation: 'a' })).text).toBe('This is a test.')
    expect(seen).toMatchObject([
      {
        path: '/v1/chat/completions',
        messages: [
          { role: 'user', content: 'one' },
          { role: 'assistant', content: 'This is a test.' },
          { role: 'user', content: 'Say this is a test' },
        ],
      },
    ])
    expect(await records(bot, 'a')).toHaveLength(4)
  })
})
