import { execFileSync } from 'node:child_process'
import { cpSync, globSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join } from 'node:path'

// `npm run build`: the package, in `dist/`, which is what is packed: npm pack ./dist
// Node runs no TypeScript below `node_modules`, so that the published hub is JavaScript with declarations beside it.
// Every file keeps its place, so that what finds another by its path finds it there too; only `test/` is called
// `testing/`, for it is no test of the package but what others test with.

const root = join(import.meta.dirname, '..')
const dist = join(root, 'dist')

interface Manifest {
  readonly exports: Readonly<Record<string, string>>
  readonly dependencies: Readonly<Record<string, string>>
  readonly devDependencies: Readonly<Record<string, string>>
  readonly [field: string]: unknown
}

/** Beside what is exported: what is started by its path. */
const started = ['cli/index.ts', 'plugins/local/isolated-worker.ts']

/** What is read as it is: by people, by browsers, and by `bothub new` and `bothub init --demo`. */
const copied = [
  'README.md',
  'README.zh-Hant.md',
  'README.zh-Hans.md',
  'CHANGELOG.md',
  'LICENSE',
  'docs',
  'channels/console/page/style.css',
  'channels/console/page/icon.svg',
  'hub.config.ts',
  'examples',
]

/**
 * Packed along, without what nobody runs: their own tests, pages, maps and other builds take more room than the hub
 * does. What plugins share with the hub (zod) or tell apart by its class is not among them.
 */
const bundled = [
  '@opentelemetry/api',
  'bintrees',
  'fast-xml-parser',
  'marked',
  'pino',
  'pino-pretty',
  'prom-client',
  'tdigest',
]
const unneeded =
  /\/node_modules\/(@[\w-]+\/)?[\w-]+\/(test|specs|examples|benchmarks|dist|docs|docsify|man|build\/(esm|esnext))$|(\.map|\.min\.js)$/

/** For those who write plugins and test them; who only runs a hub needs none of it. */
const forPlugins = ['fast-check', 'vitest']

const placed = (path: string): string => path.replace(/^(\.\/)?test\//, '$1testing/')

function compile(name: string, base: string, options: object, which: object): void {
  const project = join(dist, `${name}.json`)
  const compilerOptions = {
    noEmit: false,
    outDir: '.',
    rootDir: '..',
    rewriteRelativeImportExtensions: true,
    ...options,
  }
  writeFileSync(project, JSON.stringify({ extends: `../${base}`, compilerOptions, ...which }))
  const tsc = createRequire(import.meta.url)
    .resolve('typescript/package.json')
    .replace('package.json', 'bin/tsc')
  execFileSync(process.execPath, [tsc, '-p', project], { stdio: 'inherit' })
  rmSync(project)
}

const manifestIn = (folder: string): Manifest =>
  JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8')) as Manifest

/** npm installs for a package that is packed along only what the package around it asks for. */
const dependenciesOfBundled = (): Manifest['dependencies'] =>
  Object.fromEntries(
    bundled
      .flatMap((name) => Object.entries(manifestIn(join(root, 'node_modules', name)).dependencies ?? {}))
      .filter(([name]) => !bundled.includes(name)),
  )

/** The package's own `package.json`. */
function published(): object {
  const { name, version, description, license, author, bin, type, exports, dependencies, devDependencies } = manifest
  return {
    name,
    version,
    description,
    license,
    author,
    type,
    bin,
    exports: Object.fromEntries([
      ...Object.entries(exports).map(([entry, path]) => [
        entry,
        { types: placed(path).replace(/ts$/, 'd.ts'), default: placed(path).replace(/ts$/, 'js') },
      ]),
      ['./package.json', './package.json'],
    ]),
    dependencies: { ...dependenciesOfBundled(), ...dependencies },
    bundleDependencies: bundled.filter((each) => each in dependencies),
    engines: { node: '>=24' },
    peerDependencies: Object.fromEntries(forPlugins.map((each) => [each, devDependencies[each]])),
    peerDependenciesMeta: Object.fromEntries(forPlugins.map((each) => [each, { optional: true }])),
  }
}

const manifest = manifestIn(root)
rmSync(dist, { recursive: true, force: true })
mkdirSync(dist)
compile('page', 'channels/console/page/tsconfig.json', {}, { include: ['../channels/console/page/*.ts'] })
compile(
  'hub',
  'tsconfig.json',
  { declaration: true },
  {
    include: [],
    files: [...Object.values(manifest.exports), ...started].map((path) => join('..', path)),
  },
)
renameSync(join(dist, 'test'), join(dist, 'testing'))
// Pictures are for those who read the pages on a screen of their own.
const isText = (path: string) => !path.endsWith('.png')
for (const path of copied) cpSync(join(root, path), join(dist, path), { recursive: true, filter: isText })
// Not to be taken for tests of the package, neither by people nor by Vitest.
for (const path of globSync('test/examples/*.ts', { cwd: root })) {
  cpSync(join(root, path), join(dist, `${placed(path)}.txt`))
}
for (const name of bundled) {
  const place = join('node_modules', name)
  cpSync(join(root, place), join(dist, place), { recursive: true, filter: (source) => !unneeded.test(source) })
}
const bin = readFileSync(join(root, 'bin/bothub.mjs'), 'utf8')
mkdirSync(join(dist, 'bin'))
writeFileSync(join(dist, 'bin/bothub.mjs'), bin.replace('../cli/index.ts', '../cli/index.js'), { mode: 0o755 })
writeFileSync(join(dist, 'package.json'), `${JSON.stringify(published(), null, 2)}\n`)
