import { globSync, readFileSync } from 'node:fs'
import { join, posix } from 'node:path'
import { describe, expect, it } from 'vitest'

const root = join(import.meta.dirname, '..')

/** A file of the program, as the rules see it: its path from the root, with `/`. */
interface SourceFile {
  readonly path: string
  readonly source: string
}

interface Import {
  /** As written: `../core/turn.ts`, `koa`. */
  readonly from: string
  /** `import type` or `export type`: gone when the program runs. */
  readonly typeOnly: boolean
}

/** A package that is behind one file or folder, so that replacing it is a change in one place. */
const keepers: Readonly<Record<string, { readonly home: string | readonly string[] }>> = {
  tsyringe: { home: 'core/services.ts' },
  'reflect-metadata': { home: 'core/services.ts' },
  'better-sqlite3': { home: 'plugins/sqlite/' },
  'eventsource-parser': { home: 'core/sse.ts' },
  jose: { home: ['core/auth.ts', 'plugins/coze/'] },
  '@opentelemetry/api': { home: 'core/tracing.ts' },
  'prom-client': { home: 'core/metrics.ts' },
  koa: { home: 'core/server.ts' },
  '@koa/router': { home: 'core/server.ts' },
}

const vendors = /asgard|coze|openai|cloudbase|tpclaw/i

/** What is wrong with a file, a sentence each. */
function trespasses({ path, source }: SourceFile): string[] {
  const found: string[] = []
  for (const { from, typeOnly } of importsOf(source)) {
    if (from.startsWith('node:') && !path.startsWith('client/')) continue
    if (from.startsWith('.')) {
      const target = posix.join(posix.dirname(path), from)
      if (!mayImport(path, target, typeOnly)) found.push(`${path} imports ${target}`)
      continue
    }
    const name = packageName(from)
    if (path.startsWith('client/')) found.push(`${path} imports ${name}, and has to do without packages`)
    // The page is a client of the hub like any other, and is told where the client is by its browser.
    if (from === 'bothub/client' && path.startsWith('channels/console/page/')) continue
    if (name === 'bothub' && path !== 'hub.config.ts' && !path.startsWith('examples/')) {
      found.push(`${path} imports bothub, which is made of it`)
    }
    const keeper = Object.hasOwn(keepers, name) ? keepers[name] : undefined
    const homes = [keeper?.home ?? []].flat()
    if (keeper && !homes.some((home) => path.startsWith(home))) {
      found.push(`${path} imports ${name}, which is kept in ${homes.join(' and ')}`)
    }
  }
  const vendor = path.startsWith('core/') ? vendors.exec(withoutComments(source))?.[0] : undefined
  if (vendor) found.push(`${path} names ${vendor}`)
  return found
}

/** `hub.config.ts → index.ts → channels, plugins → core`, never the other way and never sideways. */
function mayImport(path: string, target: string, typeOnly: boolean): boolean {
  const [area, name] = path.split('/') as [string, string | undefined]
  if (target.startsWith('../')) return false
  switch (area) {
    case 'core':
      return target.startsWith('core/')
    case 'plugins':
      return target.startsWith('core/') || target.startsWith(`plugins/${name}/`)
    case 'channels':
      return (
        target.startsWith('core/') ||
        target.startsWith(`channels/${name}/`) ||
        // Frames, types and pure codecs of a vendor, for the channel that speaks its dialect.
        /^plugins\/[^/]+\/wire\.ts$/.test(target)
      )
    case 'client':
      // For browsers: of the program it takes types alone, and so no code.
      return target.startsWith('client/') || (typeOnly && target.startsWith('core/'))
    case 'index.ts':
      return /^(core|plugins|channels)\//.test(target)
    case 'bin':
      return target === 'cli/index.ts'
    case 'cli':
      return target === 'index.ts' || /^(cli|client|core)\//.test(target)
    default:
      return false
  }
}

function importsOf(source: string): Import[] {
  const code = withoutComments(source)
  const statements = code.matchAll(
    /^\s*(?:import|export)\s+(?<clause>(?:type\s+)?(?:[\w$]+\s*,?\s*)?(?:\{[^}]*\}|\*(?:\s+as\s+[\w$]+)?)?)\s*(?:\bfrom\s*)?(?<quote>['"])(?<from>[^'"]+)\k<quote>/gm,
  )
  const calls = code.matchAll(/\bimport\(\s*(?<quote>['"`])(?<from>[^'"`]+)\k<quote>\s*[,)]/g)
  return [
    ...Array.from(statements, ({ groups }) => ({
      from: groups!['from']!,
      typeOnly: /^type\s+(?!from\b)/.test(groups!['clause']!),
    })),
    ...Array.from(calls, ({ groups }) => ({ from: groups!['from']!, typeOnly: false })),
  ]
}

const packageName = (from: string): string => from.split('/', from.startsWith('@') ? 2 : 1).join('/')

/** Comments as this code base writes them: alone on their lines, or after a space behind the code. */
const withoutComments = (source: string): string =>
  source.replaceAll(/^\s*\/\*[\s\S]*?\*\//gm, '').replaceAll(/(^|\s)\/\/ .*$/gm, '$1')

const program: readonly SourceFile[] = globSync(
  [
    'hub.config.ts',
    'index.ts',
    'bin/*.mjs',
    'cli/**/*.ts',
    'core/**/*.ts',
    'plugins/**/*.ts',
    'channels/**/*.ts',
    'client/**/*.ts',
    'examples/**/*.ts',
  ],
  { cwd: root },
).map((path) => ({ path: path.replaceAll('\\', '/'), source: readFileSync(join(root, path), 'utf8') }))

describe('boundaries', () => {
  it('holds in every file: hub.config.ts → index.ts → channels, plugins → core', () => {
    const areas = new Set(program.map(({ path }) => path.split('/')[0]))
    expect([...areas]).toEqual(
      expect.arrayContaining(['hub.config.ts', 'index.ts', 'bin', 'core', 'plugins', 'channels', 'client']),
    )
    expect(program.flatMap(trespasses)).toEqual([])
  })

  it('sees every import of the program, so that none passes unread', () => {
    const counts = program.map(({ path, source }) => ({
      path,
      specifiers: source.match(/^(?:import |(?:import|export|\}).*\bfrom )'[^']+'$/gm)?.length ?? 0,
    }))
    const read = program.map(({ path, source }) => ({
      path,
      specifiers: importsOf(source.replaceAll(/\bimport\(/g, 'load(')).length,
    }))
    expect(read).toEqual(counts)
  })
})

describe('the rules themselves', () => {
  it.each([
    ['core/dispatcher.ts', "import { echo } from '../plugins/echo/index.ts'"],
    ['core/dispatcher.ts', "import type { Options } from '../plugins/echo/index.ts'"],
    ['core/hub.ts', "export { rest } from '../channels/rest.ts'"],
    ['core/hub.ts', "export * from '../index.ts'"],
    ['core/hub.ts', "const all = await import('../index.ts')"],
    ['core/hub.ts', "import { defineConfig } from 'bothub'"],
    ['core/hub.ts', "import { thing } from '../../elsewhere.ts'"],
    ['core/hub.ts', "import {\n  one,\n  two,\n} from '../plugins/retry/index.ts'"],
    ['core/log.ts', "const vendor = 'Asgard'"],
    ['core/log.ts', 'const cozeUrl = 1 // fine'],
    ['core/turn.ts', "import { container } from 'tsyringe'"],
    ['core/turn.ts', "import type { DependencyContainer } from 'tsyringe'"],
    ['core/turn.ts', "import 'reflect-metadata/lite'"],
    ['core/store.ts', "import type Database from 'better-sqlite3'"],
    ['core/hub.ts', "import Koa from 'koa'"],
    ['core/channel.ts', "import type { ParameterizedContext } from 'koa'"],
    ['core/server.ts', "import { jwtVerify } from 'jose'"],
    ['core/hub.ts', "import { Router } from '@koa/router'"],
    ['plugins/retry/index.ts', "import { history } from '../history/index.ts'"],
    ['plugins/asgard/index.ts', "import type { Frame } from '../coze/wire.ts'"],
    ['plugins/coze/client.ts', "import { createParser } from 'eventsource-parser'"],
    ['plugins/local/index.ts', "import { rest } from '../../channels/rest.ts'"],
    ['plugins/local/index.ts', "import { defineConfig } from '../../index.ts'"],
    ['plugins/local/index.ts', "const { default: open } = await import('better-sqlite3')"],
    ['channels/rest.ts', "import { sse } from './sse.ts'"],
    ['channels/console/index.ts', "import { hubClient } from 'bothub/client'"],
    ['channels/console/page/main.ts', "import { rest } from 'bothub'"],
    ['channels/relay/index.ts', "import { asgard } from '../../plugins/asgard/index.ts'"],
    ['channels/relay/index.ts', "import { start } from '../../plugins/asgard/simulator.ts'"],
    ['client/index.ts', "import { isTerminal } from '../core/events.ts'"],
    ['client/index.ts', "import type { TurnObject } from '../index.ts'"],
    ['client/sse.ts', "import { z } from 'zod'"],
    ['client/sse.ts', "import { once } from 'node:events'"],
    ['core/hub.ts', "import { hubClient } from '../client/index.ts'"],
    ['index.ts', "export { fake } from './test/fakes/turn.ts'"],
    ['hub.config.ts', "import { echo } from './plugins/echo/index.ts'"],
    ['bin/bothub.mjs', "await import('../core/hub.ts')"],
    ['cli/start.ts', "import { echo } from '../plugins/echo/index.ts'"],
    ['core/hub.ts', "import { run } from '../cli/index.ts'"],
  ])('refuse %s: %s', (path, source) => {
    expect(trespasses({ path, source })).toHaveLength(1)
  })

  it.each([
    ['core/hub.ts', "import { compose } from './turn.ts'\nimport { once } from 'node:events'\nimport { z } from 'zod'"],
    ['core/services.ts', "import 'reflect-metadata/lite'\nimport { container } from 'tsyringe'"],
    ['core/sse.ts', "import { createParser } from 'eventsource-parser'"],
    ['core/server.ts', "import Koa from 'koa'\nimport { Router } from '@koa/router'"],
    [
      'core/message.ts',
      "/** As Asgard's `blobId`; see `import x from '../plugins/asgard/wire.ts'`. */\nexport type A = 1",
    ],
    ['core/message.ts', 'export const text = 1 // what Coze calls a chat'],
    ['plugins/sqlite/store.ts', "import type Database from 'better-sqlite3'\nimport { x } from '../../core/store.ts'"],
    ['plugins/coze/index.ts', "import { cozeClient } from './client.ts'"],
    [
      'channels/relay/index.ts',
      "import { encode } from './encode.ts'\nimport { x } from '../../plugins/asgard/wire.ts'",
    ],
    ['client/index.ts', "import type { NumberedEvent } from '../core/events.ts'\nimport { overSse } from './sse.ts'"],
    ['channels/rest.ts', "import { HubError } from '../core/errors.ts'"],
    ['channels/console/page/hub.ts', "import { hubClient } from 'bothub/client'"],
    ['index.ts', "export { echo } from './plugins/echo/index.ts'\nexport { rest } from './channels/rest.ts'"],
    ['hub.config.ts', "import { echo } from 'bothub'\nimport { z } from 'zod'"],
    ['bin/bothub.mjs', "await import('../cli/index.ts')"],
    ['cli/chat.ts', "import { rest } from '../index.ts'\nimport { hubClient } from '../client/index.ts'"],
  ])('let %s be: %s', (path, source) => {
    expect(trespasses({ path, source })).toEqual([])
  })
})
