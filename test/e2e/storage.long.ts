import { spawnSync } from 'node:child_process'
import { mkdirSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import Database from 'better-sqlite3'
import { describe, expect, it } from 'vitest'
import type { NumberedEvent } from '../../index.ts'
import type { Deployment, Program } from '../support/program.ts'
import { deploy, launch, root, run, startProgram } from '../support/program.ts'

// What happens to messages when the disk fails. Nothing here may ever be acknowledged and then missing.

const config = `import { defineConfig, echo, rest, sqlite, sse } from 'bothub'
export default defineConfig({
  store: sqlite({ file: 'disk/hub.db' }),
  bots: { echo: echo() },
  channels: { rest: rest(), sse: sse() },
})
`

/** A small disk of its own, where the machine lets us have one. */
function tinyDisk({ folder }: Deployment, kibibytes: number): Disposable | undefined {
  const disk = join(folder, 'disk')
  mkdirSync(disk)
  const mounted = spawnSync('mount', ['-t', 'tmpfs', '-o', `size=${kibibytes}k`, 'tmpfs', disk])
  if (mounted.status !== 0) return undefined
  return { [Symbol.dispose]: () => void spawnSync('umount', ['-l', disk]) }
}

const canMount = (() => {
  using deployment = deploy('')
  using disk = tinyDisk(deployment, 64)
  return disk !== undefined
})()
const hasStrace = spawnSync('strace', ['-V']).status === 0

interface Sent {
  readonly id: string
  readonly status: number
  readonly turn: string | undefined
}

async function send(program: Program, count: number, text: string): Promise<Sent[]> {
  const sent: Sent[] = []
  for (let index = 0; index < count; index++) {
    const id = `m-${crypto.randomUUID()}`
    const response = await program.api(
      '/bots/echo/messages',
      { text, id, conversation: id },
      { prefer: 'respond-async' },
    )
    const body = (await response.json()) as { turn?: string; error?: { code: string } }
    if (response.status !== 202) expect([response.status, body.error?.code]).toEqual([503, 'store_unavailable'])
    sent.push({ id, status: response.status, turn: body.turn })
  }
  return sent
}

/** Every turn that was acknowledged is there and comes to an end. */
async function expectKept(program: Program, sent: readonly Sent[]): Promise<void> {
  for (const { turn, id } of sent.filter(({ status }) => status === 202)) {
    const response = await program.api(`/turns/${turn}?wait=20`)
    expect(response.status).toBe(200)
    expect(await response.json()).toMatchObject({
      message: id,
      status: expect.stringMatching(/^(completed|interrupted|failed)$/),
    })
  }
}

describe.skipIf(!canMount)('a disk that is full (skipped where no tmpfs can be mounted)', { timeout: 60_000 }, () => {
  it('is a 503 and no loss: what was acknowledged is there after a restart, and the hub goes on when there is room', async () => {
    using deployment = deploy(config)
    using _disk = tinyDisk(deployment, 4096)
    const ballast = join(deployment.folder, 'disk', 'ballast')
    const sent: Sent[] = []
    {
      await using program = await startProgram(deployment)
      sent.push(...(await send(program, 5, 'hello')))
      // Fills the disk but for a little.
      for (let bytes = 4096 * 1024; bytes > 4096; bytes = Math.floor(bytes / 2)) {
        try {
          writeFileSync(ballast, Buffer.alloc(bytes), { flag: 'a' })
        } catch {
          continue
        }
      }
      expect(statSync(ballast).size).toBeGreaterThan(1_000_000)
      sent.push(...(await send(program, 40, 'x'.repeat(20_000))))
      expect(sent.some(({ status }) => status === 503)).toBe(true)
      expect((await fetch(`${program.url}/healthz`)).status).toBe(200)
      rmSync(ballast)
      const after = await send(program, 5, 'room again')
      expect(after.map(({ status }) => status)).toEqual(after.map(() => 202))
      sent.push(...after)
    }
    await using again = await startProgram(deployment)
    await expectKept(again, sent)
    const refused = sent.filter(({ status }) => status === 503)
    const stored = new Database(join(deployment.folder, 'disk', 'hub.db'), { readonly: true })
    const known = new Set(
      stored
        .prepare<[], { message_id: string }>('SELECT message_id FROM turns')
        .all()
        .map((row) => row.message_id),
    )
    stored.close()
    expect(refused.filter(({ id }) => known.has(id))).toEqual([])
  })
})

describe.skipIf(!hasStrace)('a disk that cannot flush (skipped where there is no strace)', { timeout: 60_000 }, () => {
  it('is a 503, with nothing of the message kept', async () => {
    using deployment = deploy(config)
    mkdirSync(join(deployment.folder, 'disk'))
    // The first flushes pass, so that the hub starts; a few in the middle fail.
    const args = [
      '-f',
      '-qq',
      '-o',
      '/dev/null',
      '-e',
      'trace=fdatasync,fsync',
      '-e',
      'inject=fdatasync,fsync:error=EIO:when=30..60',
    ]
    const hub = [process.execPath, join(root, 'bin/bothub.mjs'), 'start', '--port', '0', '--config', deployment.config]
    const running = launch('strace', [...args, ...hub], { PATH: process.env['PATH'] ?? '' })
    const [, url] = await running.printed(/listens on (http:\S+)/)
    const program = {
      api: (path: string, body: unknown, headers: Record<string, string> = {}) =>
        fetch(`${url}/api/v1${path}`, {
          method: 'POST',
          body: JSON.stringify(body),
          headers: { 'content-type': 'application/json', ...headers },
        }),
    } as Program
    const sent: Sent[] = []
    while (sent.filter(({ status }) => status === 503).length === 0 && sent.length < 200)
      sent.push(...(await send(program, 1, 'hello')))
    expect(sent.some(({ status }) => status === 503)).toBe(true)
    while (sent.at(-1)!.status === 503 && sent.length < 400) sent.push(...(await send(program, 1, 'hello')))
    expect(sent.at(-1)!.status).toBe(202)
    // The hub itself: its tracer would leave it running.
    spawnSync('pkill', ['-KILL', '-P', String(running.pid)])
    await running.exited
    await using again = await startProgram(deployment)
    await expectKept(again, sent)
  })
})

describe('a start that is broken off', { timeout: 60_000 }, () => {
  it('inside a migration leaves the file as it was, and the next start makes it whole', async () => {
    for (const count of [1, 2, 4]) {
      using deployment = deploy(config)
      mkdirSync(join(deployment.folder, 'disk'))
      const broken = run(['start', '--port', '0', '--config', deployment.config], {
        env: { HUB_FAULT_POINT: `migration.inside:${count}` },
      })
      expect(await broken.exited).toBeNull()
      await using program = await startProgram(deployment)
      const response = await program.api('/bots/echo/messages', { text: 'hello' }, { accept: 'text/event-stream' })
      const events = (await response.text()).matchAll(/^data: (.*)$/gm)
      expect(Array.from(events, ([, data]) => (JSON.parse(data!) as NumberedEvent).type).at(-1)).toBe('turn.completed')
    }
  })
})
