import { existsSync, readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it, vi } from 'vitest'
import { checkConfig, createHub, defineConfig, echo, rest, sqlite } from '../../index.ts'
import { deploy, run, startProgram } from '../support/program.ts'

// Programs are started here, on a machine that may be busy.
vi.setConfig({ testTimeout: 60_000 })

const config = `import { defineConfig, echo, rest } from 'bothub'
export default defineConfig({ bots: { echo: echo() }, channels: { rest: rest() } })
`

describe.concurrent('bothub backup', () => {
  it('copies the store of a hub that runs and writes, and a hub goes on from the copy', async () => {
    using deployment = deploy(config)
    await using program = await startProgram(deployment)
    await program.api('/bots/echo/messages', { text: 'kept', conversation: 'first' })
    const writing = { isOver: false }
    const writer = (async () => {
      while (!writing.isOver) await program.api('/bots/echo/messages', { text: 'busy' })
    })()
    const backup = run(['backup', join(deployment.folder, 'copy.db'), '--config', deployment.config])
    const code = await backup.exited
    writing.isOver = true
    await writer
    expect(code, backup.output()).toBe(0)
    expect(Number(/with (\d+) turns?; it was read back/.exec(backup.output())?.[1])).toBeGreaterThan(0)
    expect(readdirSync(deployment.folder).filter((name) => name.startsWith('copy.db'))).toEqual(['copy.db'])

    const restored = checkConfig(
      defineConfig({
        listen: { port: 0 },
        store: sqlite({ file: 'copy.db' }),
        bots: { echo: echo() },
        channels: { rest: rest() },
      }),
    )
    await using hub = await createHub(restored, { folder: deployment.folder })
    const records = await fetch(`${hub.url}/api/v1/bots/echo/conversations/first/messages`)
    expect(await records.json()).toMatchObject({ items: [{ text: 'kept' }, { text: 'kept' }] })
  })

  it('overwrites nothing, and says so where there is no store yet', async () => {
    using deployment = deploy(config)
    const there = join(deployment.folder, 'there.db')
    writeFileSync(there, 'mine')
    const over = run(['backup', there, '--config', deployment.config])
    expect(await over.exited).toBe(1)
    expect(over.output()).toContain('was left as it is')
    const none = run(['backup', join(deployment.folder, 'copy.db'), '--config', deployment.config])
    expect(await none.exited).toBe(1)
    expect(none.output()).toContain('There is no store at')
    expect(existsSync(join(deployment.folder, 'data'))).toBe(false)
  })
})
