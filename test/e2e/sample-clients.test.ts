import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { describe, expect, it, vi } from 'vitest'
import { inChromium } from '../support/chromium.ts'
import { launch, sharedProgram } from '../support/program.ts'

// Programs are started here, on a machine that may be busy.
vi.setConfig({ testTimeout: 60_000, hookTimeout: 60_000 })

const published = (name: string): string => readFileSync(new URL(`../fixtures/seeds/${name}`, import.meta.url), 'utf8')

const address = 'localhost:9527'
const python = '/usr/bin/python3'

function hasPythonLibrary(): boolean {
  try {
    execFileSync(python, ['-c', 'import websocket'], { stdio: 'ignore' })
    return true
  } catch {
    return false
  }
}

describe('the sample clients of the WebSocket page', () => {
  const shared = sharedProgram()

  /** The published code, with nothing but the port changed. */
  function withPort(code: string): string {
    expect(code.split(address)).toHaveLength(2)
    return code.replace(address, `localhost:${new URL(shared.program.url).port}`)
  }

  /** Runs a client, which never ends by itself, until it has printed the end of an answer. */
  async function outputOf(command: string, args: readonly string[], env: Record<string, string>, end: RegExp) {
    const client = launch(command, args, { PATH: process.env['PATH'] ?? '', ...env })
    try {
      await client.printed(end)
      return client.output()
    } finally {
      client.signal('SIGKILL')
      await client.exited
    }
  }

  it('the JavaScript one gets a streamed answer from main', async () => {
    const code = withPort(published('websocket-client.js.txt'))
    const output = await outputOf(process.execPath, ['-e', code], {}, /done: true/)
    expect(output).toMatch(/^WebSocket connected\nReceived: \{\n {2}type: 'stream',\n/)
    const pieces = Array.from(output.matchAll(/content: '(.*)'/g), ([, piece]) => piece!)
    expect(pieces.length).toBeGreaterThanOrEqual(4)
    expect(pieces.at(-1)).toBe('')
    expect(pieces.join('')).toContain('你好')
    expect(output.match(/done: true/g)).toHaveLength(1)
    expect(output).not.toMatch(/error/i)
  })

  inChromium('in Chromium', (browser) => {
    it('the JavaScript one gets a streamed answer from main', async () => {
      await using opened = await browser.open()
      const lines: string[] = []
      const done = Promise.withResolvers<void>()
      opened.page.on('console', async (line) => {
        lines.push(line.text())
        const [, received] = await Promise.all(line.args().map((arg) => arg.jsonValue()))
        if ((received as { done?: boolean } | undefined)?.done) done.resolve()
      })
      await opened.page.addScriptTag({ content: withPort(published('websocket-client.js.txt')) })
      await done.promise
      expect(lines[0]).toBe('WebSocket connected')
      expect(lines.length).toBeGreaterThanOrEqual(5)
      expect(opened.problems).toEqual([])
    })
  })

  it.skipIf(!hasPythonLibrary())(
    'the Python one gets a streamed answer from main (skipped where python3-websocket is not installed)',
    async () => {
      const code = withPort(published('websocket-client.py.txt'))
      const env = { PYTHONUNBUFFERED: '1', PYTHONIOENCODING: 'utf-8' }
      const output = await outputOf(python, ['-c', code], env, /'done': True/)
      expect(output).toMatch(/^Connected\nReceived: \{'type': 'stream', /)
      const pieces = Array.from(output.matchAll(/'content': '(.*?)'/g), ([, piece]) => piece!)
      expect(pieces.length).toBeGreaterThanOrEqual(4)
      expect(pieces.at(-1)).toBe('')
      expect(pieces.join('')).toContain('你好')
      expect(output.match(/'done': True/g)).toHaveLength(1)
      expect(output).not.toMatch(/error/i)
    },
  )

  it('the Python one differs from the published text only by its indentation', () => {
    const flat = published('websocket-client.py.txt').replaceAll(/^ +/gm, '')
    expect(flat).toBe(published('websocket-client.flat.py.txt'))
  })
})
