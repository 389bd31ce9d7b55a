import { execFile, spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import type { AddressInfo } from 'node:net'
import { once } from 'node:events'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { describe, expect, it } from 'vitest'
import { apiKey, asgard, demoBot, local } from '../../index.ts'
import { gatedBot } from '../fakes/gated-bot.ts'
import { startHub } from '../support/hub.ts'
import { launch, root } from '../support/program.ts'
import { connectSocket } from '../support/socket.ts'

// What docs/deploying.md says, run with the programs that it is for.

const page = readFileSync(join(root, 'docs/deploying.md'), 'utf8')
const block = (language: string): string => new RegExp(`^\`\`\`${language}\\n([\\s\\S]*?)^\`\`\`$`, 'm').exec(page)![1]!

const key = 'key-of-the-crm-0123456789'
const auth = [apiKey({ name: 'crm', key, trusted: true })]
const headers = { authorization: `Bearer ${key}` }

const hasNginx = spawnSync('nginx', ['-v']).status === 0
const hasSystemd = spawnSync('systemd-analyze', ['--version']).status === 0

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  server.close()
  await once(server, 'close')
  return port
}

/** nginx with the page's snippet in front of a hub, and everything else as it comes: it buffers. */
async function startNginx(hub: string) {
  const port = await freePort()
  const folder = mkdtempSync(join(tmpdir(), 'bothub-nginx-'))
  const snippet = block('nginx')
    .replace('127.0.0.1:9527', new URL(hub).host)
    .replace('listen 80;', `listen 127.0.0.1:${port};`)
  const places = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map(
    (each) => `${each}_temp_path ${folder}/${each};`,
  )
  writeFileSync(
    join(folder, 'nginx.conf'),
    `${process.getuid?.() === 0 ? 'user root;\n' : ''}daemon off;
pid ${folder}/nginx.pid;
worker_processes 1;
events {}
http {
access_log off;
${places.join('\n')}
${snippet}
}
`,
  )
  const nginx = launch('nginx', ['-p', folder, '-e', 'stderr', '-c', 'nginx.conf'], { PATH: process.env['PATH'] ?? '' })
  const url = `http://127.0.0.1:${port}`
  await expect
    .poll(
      () =>
        fetch(`${url}/readyz`).then(
          ({ status }) => status,
          () => nginx.output(),
        ),
      { timeout: 20_000 },
    )
    .toBe(200)
  return {
    url,
    async [Symbol.asyncDispose]() {
      nginx.signal('SIGTERM')
      await nginx.exited
      rmSync(folder, { recursive: true, force: true })
    },
  }
}

describe.skipIf(!hasNginx)('nginx with the snippet of the page, buffering (skipped where there is none)', () => {
  it('hands each word on as it is said', async () => {
    const gated = gatedBot()
    await using hub = await startHub({ auth, bots: { gated: gated.provider } })
    await using nginx = await startNginx(hub.url)
    const answer = await fetch(`${nginx.url}/api/v1/bots/gated/messages`, {
      method: 'POST',
      headers: { ...headers, 'content-type': 'application/json', accept: 'text/event-stream' },
      body: '{"text":"hello"}',
    })
    expect(answer.status).toBe(200)
    let text = ''
    for await (const chunk of answer.body!.pipeThrough(new TextDecoderStream())) {
      text += chunk
      // The bot says no more until somebody has read its first words.
      if (text.includes('"text":"So: "')) gated.finish('hello')
    }
    expect(text).toContain('event: turn.completed\ndata: ')
    expect(text).toContain('So: hello.')
  })

  it('takes WebSockets, and files of many megabytes', async () => {
    await using hub = await startHub({ auth, bots: { main: local(demoBot), files: asgard({ simulated: true }) } })
    await using nginx = await startNginx(hub.url)
    using socket = await connectSocket(nginx.url, { headers })
    const frames = await socket.chat({ agentId: 'main', message: 'hello' })
    expect(frames.at(-1)).toMatchObject({ type: 'stream', done: true })
    const form = new FormData()
    form.append('conversation', 'c')
    form.append('file', new Blob([new Uint8Array(5_000_000)]), 'five-megabytes.bin')
    const upload = await fetch(`${nginx.url}/api/v1/bots/files/files`, { method: 'POST', headers, body: form })
    expect(await upload.json()).toMatchObject({ bytes: 5_000_000 })
  })
})

describe('the container of the page', () => {
  it('starts what the package has for its program, and tells whether it is ready', async () => {
    const { name, bin } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as {
      readonly name: string
      readonly bin: { readonly bothub: string }
    }
    const dockerfile = block('dockerfile')
    expect(JSON.parse(/^CMD (.*)$/m.exec(dockerfile)![1]!)).toEqual([
      'node',
      `node_modules/${name}/${bin.bothub}`,
      'start',
    ])
    const [, flag, script] = JSON.parse(/^HEALTHCHECK CMD (.*)$/m.exec(dockerfile)![1]!) as [string, string, string]
    const run = (url: string) =>
      promisify(execFile)(process.execPath, [flag, script.replace('http://127.0.0.1:9527', url)])
    await using hub = await startHub({ auth, bots: { main: local(demoBot) } })
    await run(hub.url)
    await expect(run(`http://127.0.0.1:${await freePort()}`)).rejects.toMatchObject({ code: 1 })
  })
})

describe.skipIf(!hasSystemd)('the unit of the page (skipped where there is no systemd-analyze)', () => {
  it('is one that systemd understands', () => {
    const folder = mkdtempSync(join(tmpdir(), 'bothub-unit-'))
    const unit = join(folder, 'hub.service')
    writeFileSync(unit, block('ini').replace('/srv/hub/node_modules/.bin/node', process.execPath))
    const { stdout, stderr } = spawnSync('systemd-analyze', ['verify', unit], { encoding: 'utf8' })
    rmSync(folder, { recursive: true })
    expect((stdout + stderr).split('\n').filter((line) => line.includes('hub.service'))).toEqual([])
  })
})
