import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it, vi } from 'vitest'
import { root, run, startProgram } from '../support/program.ts'

// Programs are started here, on a machine that may be busy.
vi.setConfig({ testTimeout: 60_000 })

/** Inside the repository, so that a config finds `bothub`; `data/` is what git leaves alone. */
function emptyFolder() {
  mkdirSync(join(root, 'data'), { recursive: true })
  const folder = mkdtempSync(join(root, 'data/init-'))
  return { folder, [Symbol.dispose]: () => rmSync(folder, { recursive: true, force: true }) }
}

describe.concurrent('bothub init', () => {
  it('writes a config that starts, with a bot that answers', async () => {
    using empty = emptyFolder()
    const init = run(['init', empty.folder, '--yes'])
    expect(await init.exited, init.output()).toBe(0)
    expect(readdirSync(empty.folder).toSorted()).toEqual(['.gitignore', 'hub.config.ts', 'my-bot.ts', 'tsconfig.json'])
    expect(init.output()).toContain('npx bothub start')
    expect(init.output()).not.toMatch(/npm install \S*bothub/)
    const deployment = { folder: empty.folder, config: join(empty.folder, 'hub.config.ts'), [Symbol.dispose]() {} }
    await using program = await startProgram(deployment)
    const answer = await program.api('/bots/mine/messages', { text: 'hi' })
    expect(await answer.json()).toMatchObject({ status: 'completed', text: 'Hello! You said: hi' })
  })

  it('begins a package where nothing finds `bothub`, and says how to install it', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'bothub-init-'))
    const init = run(['init', folder, '--yes'])
    expect(await init.exited, init.output()).toBe(0)
    expect(JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'))).toMatchObject({ type: 'module' })
    expect(init.output()).toMatch(/npm install \/path\/to\/bothub-[\d.]+\.tgz node@24/)
    rmSync(folder, { recursive: true })
  })

  it('begins a package of modules in a folder of a project that has none', async () => {
    using project = emptyFolder()
    writeFileSync(join(project.folder, 'package.json'), '{"name": "shop", "type": "commonjs"}')
    mkdirSync(join(project.folder, 'node_modules'))
    symlinkSync(root, join(project.folder, 'node_modules/bothub'))
    const folder = join(project.folder, 'hub')
    const init = run(['init', folder, '--yes'])
    expect(await init.exited, init.output()).toBe(0)
    expect(init.output()).not.toMatch(/npm install \S*bothub|type=module/)
    const check = run(['check', '--config', join(folder, 'hub.config.ts')])
    expect(await check.exited, check.output()).toBe(0)
    expect(readFileSync(join(project.folder, 'package.json'), 'utf8')).toContain('commonjs')
  })

  it('leaves a config alone that is there, and asks nobody where nobody is', async () => {
    using empty = emptyFolder()
    const unasked = run(['init', empty.folder])
    expect(await unasked.exited).toBe(1)
    expect(unasked.output()).toContain('--yes')
    writeFileSync(join(empty.folder, 'hub.config.ts'), 'mine')
    const second = run(['init', empty.folder, '--yes'])
    expect(await second.exited).toBe(1)
    expect(second.output()).toContain('was left as it is')
    expect(readFileSync(join(empty.folder, 'hub.config.ts'), 'utf8')).toBe('mine')
  })
})
