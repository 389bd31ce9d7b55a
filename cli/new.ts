import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { Argument, Command } from 'commander'
import { CommandFailed } from './failure.ts'

/** `bothub new provider NAME`: a plugin that passes its suite at once, in a project or in the hub's own repository. */
export const newCommand = (): Command =>
  new Command('new')
    .description('begin a provider or a channel, with its simulator and its suite')
    .addArgument(new Argument('<kind>', 'what').choices(['provider', 'channel']))
    .argument('<name>', 'such as `murmur`: what configs will call')
    .option('--in <folder>', "your project, or a clone of the hub's repository", '.')
    .action(begin)

/** A file that is made of one of the repository's examples. */
interface Copy {
  readonly from: string
  readonly to: string
}

interface Kind {
  /** The name that stands in the examples for the new one. */
  readonly example: string
  readonly files: (name: string) => readonly Copy[]
  /** The line of `index.ts` that gives it to configs, and the one it goes in front of. */
  readonly exported: (name: string) => string
  readonly before: string
  readonly page: string
}

const kinds: Readonly<Record<'provider' | 'channel', Kind>> = {
  provider: {
    example: 'murmur',
    files: (name) => [
      { from: 'examples/made-up-vendor.ts', to: `plugins/${name}/index.ts` },
      { from: 'examples/made-up-simulator.ts', to: `plugins/${name}/simulator.ts` },
      { from: 'test/examples/murmur.ts', to: `test/plugins/${name}.subject.ts` },
      { from: 'test/examples/made-up-vendor.suite.test.ts', to: `test/plugins/${name}.suite.test.ts` },
      { from: 'test/examples/made-up-vendor.test.ts', to: `test/plugins/${name}.test.ts` },
    ],
    exported: (name) => `export { ${name} } from './plugins/${name}/index.ts'\n`,
    before: "export { retry } from './plugins/retry/index.ts'\n",
    page: 'docs/writing-a-provider.md',
  },
  channel: {
    example: 'lines',
    files: (name) => [
      { from: 'examples/made-up-channel.ts', to: `channels/${name}.ts` },
      { from: 'test/examples/lines.ts', to: `test/channels/${name}.subject.ts` },
      { from: 'test/examples/made-up-channel.suite.test.ts', to: `test/channels/${name}.suite.test.ts` },
    ],
    exported: (name) => `export { ${name} } from './channels/${name}.ts'\n`,
    before: "export { rest } from './channels/rest.ts'\n",
    page: 'docs/writing-a-channel.md',
  },
}

async function begin(kindName: keyof typeof kinds, name: string, options: { readonly in: string }): Promise<void> {
  const root = resolve(options.in)
  const kind = kinds[kindName]
  const copies = kind.files(name)
  refuse(root, name, copies)
  const index = indexOfClone(root)
  for (const { from, to } of copies) {
    mkdirSync(dirname(join(root, to)), { recursive: true })
    writeFileSync(join(root, to), rewritten(exampleText(from), { from, to, name, kind, copies, index }))
  }
  if (index !== undefined) {
    writeFileSync(join(root, 'index.ts'), index.replace(kind.before, kind.exported(name) + kind.before))
  }
  const written = copies.map(({ to }) => to)
  const tests = written.filter((path) => path.endsWith('.test.ts'))
  const shared = written.filter((path) => !tests.includes(path))
  const place = index === undefined ? `import { ${name} } from './${copies[0]!.to}'` : 'Exported from index.ts.'
  const before = index === undefined ? installing(root) : 'npm run format && '
  process.stdout.write(`${copies.map(({ to }) => `Written: ${to}\n`).join('')}${place}

It is a working ${kindName} of a made-up dialect, told from its example by its name alone. Make the dialect yours, step by step.
These files share it, so change them together:
${shared.map((path) => `  ${path}\n`).join('')}Keep it green:
  ${before}npx vitest run ${tests.join(' ')}
${index === undefined ? 'node_modules/bothub/' : ''}${kind.page} goes through it.
`)
}

/** What a project lacks of what the plugin and its suite import. */
const installing = (root: string): string =>
  [
    // It is found beside the hub, and may be gone with another version of it.
    ...(asksFor('zod', root) ? [] : ['npm install zod && ']),
    ...(isFound('vitest', root) ? [] : ['npm install --save-dev vitest && ']),
  ].join('')

function asksFor(name: string, root: string): boolean {
  const manifest = join(root, 'package.json')
  if (!existsSync(manifest)) return false
  const { dependencies = {} } = JSON.parse(readFileSync(manifest, 'utf8')) as { readonly dependencies?: object }
  return name in dependencies
}

function isFound(name: string, root: string): boolean {
  return (createRequire(join(root, 'package.json')).resolve.paths(name) ?? []).some((folder) =>
    existsSync(join(folder, name)),
  )
}

/** The text of `index.ts`, which says where everything of `bothub` comes from; undefined in a project of its user. */
function indexOfClone(root: string): string | undefined {
  const isClone = existsSync(join(root, 'index.ts')) && existsSync(join(root, 'test/suites/index.ts'))
  return isClone ? readFileSync(join(root, 'index.ts'), 'utf8') : undefined
}

/** Where the examples are: in the package their tests have another name, for they are none of it. */
const examplesHome = fileURLToPath(new URL('..', import.meta.url))
function exampleText(path: string): string {
  const packed = join(examplesHome, `${path.replace(/^test\//, 'testing/')}.txt`)
  return readFileSync(existsSync(packed) ? packed : join(examplesHome, path), 'utf8')
}

function refuse(root: string, name: string, copies: readonly Copy[]): void {
  if (!/^[a-z][a-zA-Z0-9]*$/.test(name)) {
    throw new CommandFailed(
      `"${name}" is no name for a function. Begin with a small letter, and use letters and digits only.`,
    )
  }
  if (indexOfClone(root) === undefined && !isFound('bothub', root)) {
    throw new CommandFailed(
      `There is no bothub in ${root}. Go to a project that has it, or to a clone of its repository, or name one: --in FOLDER`,
    )
  }
  const taken = copies.find(({ to }) => existsSync(join(root, to)))
  if (taken) throw new CommandFailed(`${taken.to} is there already. Choose another name.`)
}

interface Rewriting extends Copy {
  readonly name: string
  readonly kind: Kind
  readonly copies: readonly Copy[]
  /** The text of a clone's `index.ts`; elsewhere everything is imported from the package. */
  readonly index: string | undefined
}

/** The text of an example in its new place: other names, and imports that lead from there. */
function rewritten(text: string, rewriting: Rewriting): string {
  const { name, kind, copies } = rewriting
  const capital = (word: string) => word[0]!.toUpperCase() + word.slice(1)
  return text
    .replace(/^\/\/ examples\/.*\n/, '')
    .replaceAll(/^import (type )?\{([^}]*)\} from 'bothub'\n/gm, (all, type: string | undefined, names: string) =>
      rewriting.index === undefined ? all : importsOf(names, type ?? '', rewriting.index, rewriting.to),
    )
    .replaceAll(/from '(\.[^']+)'/g, (_, target: string) => `from '${moved(target, rewriting)}'`)
    .replaceAll(new RegExp(`(?<![A-Za-z])${kind.example}`, 'g'), name)
    .replaceAll(capital(kind.example), capital(name))
    .replace(' docs/writing-a-provider.md goes through it.', '')
    .replaceAll(/`((?:test\/)?examples\/[^`]+)`/g, (all, path: string) => {
      const copy = copies.find(({ from }) => from === path)
      return copy ? `\`${copy.to}\`` : all
    })
}

/** `import { a, b } from 'bothub'` as imports of the files that `index.ts` exports these from. */
function importsOf(names: string, type: string, index: string, to: string): string {
  const up = '../'.repeat(to.split('/').length - 1)
  const homes = Map.groupBy(
    names
      .split(',')
      .map((each) => each.trim())
      .filter(Boolean),
    (each) => new RegExp(`^export (?:type )?\\{[^}]*\\b${each}\\b[^}]*\\} from '\\./(.*)'$`, 'm').exec(index)?.[1],
  )
  return Array.from(homes, ([home, each]) => `import ${type}{ ${each.join(', ')} } from '${up}${home}'\n`).join('')
}

/** Where a relative import leads to now. */
function moved(target: string, { from, to, copies }: Rewriting): string {
  const path = join(dirname(from), target)
  const copy = copies.find((each) => each.from === path)
  // Rewritten from `bothub` a moment ago, and right already.
  if (!copy) return target
  const wanted = copy.to.split('/')
  const here = dirname(to).split('/')
  const common = here.findIndex((part, index) => part !== wanted[index])
  const shared = common === -1 ? here.length : common
  const up = '../'.repeat(here.length - shared) || './'
  return up + wanted.slice(shared).join('/')
}
