import { describe, expect, it } from 'vitest'
import { apiKey, checkConfig, consolePage, defineConfig, echo, rest, sse } from '../../index.ts'
import { auditedDeeds } from '../../core/store.ts'
import { startHub } from '../support/hub.ts'

describe('the console', () => {
  it('serves every module that its page imports, as JavaScript under a policy that lets nothing else in', async () => {
    await using hub = await startHub({ bots: { echo: echo() }, console: consolePage() })
    const page = await fetch(hub.url)
    expect(page.headers.get('content-security-policy')).toMatch(/^default-src 'none'; script-src 'self' 'sha256-\S+';/)
    const html = await page.text()
    const { imports } = JSON.parse(/<script type="importmap">(?<map>.*)<\/script>/.exec(html)!.groups!['map']!) as {
      imports: Record<string, string>
    }
    const seen = new Set<string>()
    const load = async (path: string): Promise<void> => {
      if (seen.has(path)) return
      seen.add(path)
      const response = await fetch(`${hub.url}${path}`)
      expect(`${path} ${response.status} ${response.headers.get('content-type')}`).toBe(
        `${path} 200 text/javascript; charset=utf-8`,
      )
      for (const [, from] of (await response.text()).matchAll(/^(?:import|export) [^'\n]*'(?<from>[^'\n]+)'$/gm)) {
        await load(imports[from!] ?? new URL(from!, `http://hub${path}`).pathname)
      }
    }
    await load(/<script type="module" src="(?<src>[^"]+)"/.exec(html)!.groups!['src']!)
    expect([...seen]).toEqual(expect.arrayContaining(['/console/page/words.ts', ...Object.values(imports)]))
  })

  it('offers to look for everything that is audited', async () => {
    await using hub = await startHub({ bots: { echo: echo() }, console: consolePage() })
    const part = await (await fetch(`${hub.url}/console/page/operator-audit.ts`)).text()
    for (const deed of auditedDeeds) expect(part).toContain(`'${deed}'`)
  })

  it('serves nothing but its own parts', async () => {
    await using hub = await startHub({ bots: { echo: echo() }, console: consolePage() })
    for (const path of [
      'page/tsconfig.json',
      'page/..%2findex.ts',
      'page/none.ts',
      'core/hub.ts',
      '..%2f..%2fcore/hub.ts',
    ]) {
      expect((await fetch(`${hub.url}/console/${path}`)).status).toBe(404)
    }
  })

  it('is at the path it is given', async () => {
    await using hub = await startHub({ bots: { echo: echo() }, console: consolePage({ path: '/hub' }) })
    const html = await (await fetch(`${hub.url}/hub`)).text()
    expect(html).toContain('src="/hub/console/page/main.ts"')
    expect((await fetch(`${hub.url}/hub/console/page/main.ts`)).status).toBe(200)
    expect((await fetch(hub.url)).status).toBe(404)
  })

  it('lets in admins only, where there are keys', async () => {
    await using hub = await startHub({
      bots: { echo: echo() },
      console: consolePage(),
      auth: [
        apiKey({ name: 'admin', key: 'the-key-of-an-admin', admin: true }),
        apiKey({ name: 'somebody', key: 'the-key-of-somebody' }),
      ],
    })
    const session = (key?: string) =>
      fetch(`${hub.url}/console/session`, { headers: key ? { authorization: `Bearer ${key}` } : {} })
    expect((await session()).status).toBe(401)
    expect((await session('the-key-of-somebody')).status).toBe(403)
    expect((await session('the-key-of-an-admin')).status).toBe(200)
  })

  it('is there by default, and not with `console: false`', () => {
    const config = { bots: { echo: echo() }, channels: { rest: rest(), sse: sse() } }
    expect([...checkConfig(defineConfig(config)).channels.keys()]).toEqual(['rest', 'sse', 'console'])
    expect([...checkConfig(defineConfig({ ...config, console: false })).channels.keys()]).toEqual(['rest', 'sse'])
  })

  it('keeps its name to itself', () => {
    const config = { bots: { echo: echo() }, channels: { console: rest() } }
    expect(() => checkConfig(defineConfig(config))).toThrow('"console" is the name of the page')
  })
})
