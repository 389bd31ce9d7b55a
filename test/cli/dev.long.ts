import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it, vi } from 'vitest'
import type { TurnObject } from '../../index.ts'
import { deploy, launch, root, run } from '../support/program.ts'

// Programs are started here, several one after the other, on a machine that may be busy.
vi.setConfig({ testTimeout: 120_000 })

const config = `
import { defineConfig, local, rest } from 'bothub'
import { bot } from './bot.ts'
export default defineConfig({ bots: { bot: local(bot) }, channels: { rest: rest() } })`

/** A bot that says its name, and, when it is asked to, waits for a file before. */
const botCalled = (name: string) => `
import { existsSync, watch } from 'node:fs'
import { join } from 'node:path'
const done = join(import.meta.dirname, 'data', 'go')
export async function* bot({ message }: { message: { text: string } }) {
  yield '${name} '
  if (message.text !== 'slowly') return
  const watcher = watch(join(import.meta.dirname, 'data'))
  while (!existsSync(done)) await new Promise((resolve) => watcher.once('change', resolve))
  watcher.close()
  yield 'is done'
}`

async function started(folder: string, configFile: string) {
  const dev = run(['dev', '--port', '0', '--config', configFile])
  const [, url] = await dev.printed(/listens on (http:\S+)/)
  const ask = async (text: string): Promise<string> => {
    const response = await fetch(`${url}/api/v1/bots/bot/messages`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ text }),
    })
    return ((await response.json()) as TurnObject).text
  }
  const save = (source: string) => writeFileSync(join(folder, 'bot.ts'), source)
  return { dev, ask, save }
}

describe('bothub dev', () => {
  it('starts the hub again on a save, at the same address, once a live answer is whole', async () => {
    using deployment = deploy(config)
    writeFileSync(join(deployment.folder, 'bot.ts'), botCalled('one'))
    const { dev, ask, save } = await started(deployment.folder, deployment.config)
    expect(await ask('hello')).toBe('one ')
    const slow = ask('slowly')
    save(botCalled('two'))
    // Whoever asks meanwhile is answered as before.
    expect(await ask('hello')).toBe('one ')
    writeFileSync(join(deployment.folder, 'data', 'go'), '')
    expect(await slow).toBe('one is done')
    await dev.printed(/bot\.ts saved: a new hub after/)
    await dev.printed(/listens on [^]*listens on/)
    expect(await ask('hello')).toBe('two ')
    writeFileSync(join(deployment.folder, '.env'), 'A_KEY=another\n')
    await dev.printed(/\.env saved: a new hub after/)
    await dev.printed(/(?:listens on [^]*){3}/)
    dev.signal('SIGTERM')
    expect(await dev.exited).toBe(0)
  })

  it('keeps the hub that runs when what was saved is broken, and takes it when it is mended', async () => {
    using deployment = deploy(config)
    writeFileSync(join(deployment.folder, 'bot.ts'), botCalled('one'))
    const { dev, ask, save } = await started(deployment.folder, deployment.config)
    save('export const bot = (')
    await dev.printed(
      /bot\.ts saved, and something is wrong\. The hub goes on as it was\.\n.*cannot be loaded: .*bot\.ts:1/,
    )
    expect(await ask('hello')).toBe('one ')
    save(botCalled('two'))
    await dev.printed(/listens on [^]*listens on/)
    expect(await ask('hello')).toBe('two ')
    dev.signal('SIGINT')
    expect(await dev.exited).toBe(0)
  })

  it.each([
    ['it is killed', (args: readonly string[]) => run(args)],
    [
      'the shell that npm has put before it is killed',
      (args: readonly string[]) =>
        launch('sh', ['-c', '"$0" "$@"; exit', process.execPath, join(root, 'bin/bothub.mjs'), ...args], {
          PATH: process.env['PATH'] ?? '',
          npm_command: 'exec',
        }),
    ],
  ])('leaves no hub behind when %s', async (_, start) => {
    using deployment = deploy(config)
    writeFileSync(join(deployment.folder, 'bot.ts'), botCalled('one'))
    const dev = start(['dev', '--port', '0', '--config', deployment.config])
    await dev.printed(/listens on/)
    dev.signal('SIGKILL')
    // The hub has the same output, which is closed when the last of them has ended.
    expect(await dev.exited).toBeNull()
    expect(dev.output()).toContain('Stopping: ')
  })

  it('leaves no hub behind when it is killed while the hub says where it listens', async () => {
    using deployment = deploy(`${config}
const write = process.stdout.write.bind(process.stdout)
process.stdout.write = (text, ...rest) => {
  const { ppid } = process
  if (text.includes('listens on')) {
    process.kill(ppid, 'SIGKILL')
    while (process.ppid === ppid);
  }
  return write(text, ...rest)
}`)
    writeFileSync(join(deployment.folder, 'bot.ts'), botCalled('one'))
    const dev = run(['dev', '--port', '0', '--config', deployment.config])
    expect(await dev.exited).toBeNull()
    expect(dev.output()).toContain('Stopping: ')
  })

  it('waits for the next save when the hub cannot start', async () => {
    using deployment = deploy(config)
    writeFileSync(join(deployment.folder, 'bot.ts'), 'export const bot = 1')
    const dev = run(['dev', '--port', '0', '--config', deployment.config])
    await dev.printed(/The hub ended with 78\. It starts again when hub\.config\.ts or a file beside it is saved\./)
    writeFileSync(join(deployment.folder, 'bot.ts'), botCalled('one'))
    await dev.printed(/listens on/)
    dev.signal('SIGTERM')
    expect(await dev.exited).toBe(0)
  })
})
