import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it, vi } from 'vitest'
import { deploy, run, startProgram } from '../support/program.ts'
import type { Deployment } from '../support/program.ts'

// Programs are started here, on a machine that may be busy.
vi.setConfig({ testTimeout: 60_000 })

const config = `import { apiKey, consent, defineConfig, demoBot, echo, local, rest } from 'bothub'
export default defineConfig({
  auth: [
    apiKey({ name: 'narrow', key: 'a-key-of-a-narrow-admin', admin: true, bots: ['other'] }),
    apiKey({ name: 'ops', key: 'a-key-of-an-operator', admin: true, trusted: true }),
  ],
  bots: { echo: echo(), other: echo(), demo: { provider: local(demoBot), use: [consent()] } },
  channels: { rest: rest() },
})
`
const key = { authorization: 'Bearer a-key-of-an-operator' }

/** Runs a command to its end. */
async function command(deployment: Deployment, ...args: readonly string[]): Promise<readonly [number | null, string]> {
  const running = run([...args, '--config', deployment.config])
  const code = await running.exited
  return [code, running.output()]
}

const nothing = (user: string) => `Nothing is kept of a user "${user}".\n`

/** What was said, out of an export. */
const words = (output: string): readonly string[] =>
  output
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as { readonly type: string; readonly text: string; readonly role: string })
    .filter(({ type, role }) => type === 'record' && role === 'user')
    .map(({ text }) => text)

describe.concurrent('bothub export and bothub erase', () => {
  it('reach the hub that runs, and its store when it does not', async () => {
    using deployment = deploy(config)
    {
      await using program = await startProgram(deployment)
      const port = new URL(program.url).port
      for (const user of ['ada', 'bob', 'cleo']) {
        await program.api('/bots/echo/messages', { text: `of ${user}`, user, conversation: 'c' }, key)
      }
      const [code, output] = await command(deployment, 'export', '--user', 'ada', '--port', port)
      expect([code, words(output)]).toEqual([0, ['of ada']])
      const erased = await command(deployment, 'erase', '--user', 'ada', '--yes', '--port', port)
      expect(erased).toEqual([0, '1 conversation deleted\n'])
      expect(await command(deployment, 'export', '--user', 'ada', '--port', port)).toEqual([0, nothing('ada')])
      // Where the hub is not found, its store is held by it, and nothing is done.
      const [refused, why] = await command(deployment, 'erase', '--user', 'bob', '--yes', '--port', '1')
      expect([refused, why]).toEqual([1, expect.stringContaining('Another hub has')])
      expect(await program.stop()).toBe(0)
    }
    const [code, output] = await command(deployment, 'export', '--user', 'bob')
    expect([code, words(output)]).toEqual([0, ['of bob']])
    expect(await command(deployment, 'erase', '--user', 'bob', '--yes')).toEqual([0, '1 conversation deleted\n'])
    expect(await command(deployment, 'export', '--user', 'bob')).toEqual([0, nothing('bob')])
    expect(words((await command(deployment, 'export', '--user', 'cleo'))[1])).toEqual(['of cleo'])
    // Nothing is left of it in the file either, where SQLite leaves what it has only marked as free.
    const file = readFileSync(join(deployment.folder, 'data/hub.db'))
    expect(['ada', 'bob', 'cleo'].map((user) => file.includes(`of ${user}`))).toEqual([false, false, true])
  })

  it('erase what a hub that was killed has left under way', async (test) => {
    using deployment = deploy(config)
    {
      await using program = await startProgram(deployment)
      const later = { ...key, prefer: 'respond-async' }
      for (const [conversation, text] of [
        ['slow', '/slow'],
        ['slow', 'and behind it'],
        ['waits', '/consent'],
      ]) {
        await program.api('/bots/demo/messages', { text, user: 'ada', conversation }, later)
      }
      const statuses = async () => {
        const answer = await program.api('/admin/turns?live=true', undefined, key)
        const { items } = (await answer.json()) as { readonly items: readonly { readonly status: string }[] }
        return items.map(({ status }) => status)
      }
      await test.expect.poll(statuses, { timeout: 15_000 }).toEqual(['running', 'queued', 'waiting'])
      program.signal('SIGKILL')
      await program.exited
    }
    expect(await command(deployment, 'erase', '--user', 'ada', '--yes')).toEqual([0, '2 conversations deleted\n'])
    expect(await command(deployment, 'export', '--user', 'ada')).toEqual([0, nothing('ada')])
    await using again = await startProgram(deployment)
    const live = await again.api('/admin/turns', undefined, key)
    expect(await live.json()).toEqual({ items: [] })
  })

  it('ask whether to erase is meant, and want to know whom', async () => {
    using deployment = deploy(config)
    const [code, output] = await command(deployment, 'erase', '--user', 'ada')
    expect([code, output]).toEqual([1, expect.stringContaining('add --yes')])
    const [none, said] = await command(deployment, 'export')
    expect([none, said]).toEqual([1, expect.stringContaining('--user')])
  })
})
