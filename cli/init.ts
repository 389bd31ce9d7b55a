import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join, relative, resolve } from 'node:path'
import { Command } from 'commander'
import { CommandFailed } from './failure.ts'
import type { Choices } from './first-config.ts'
import { botKinds, channelKinds, firstBot, firstConfig, firstTypeScriptConfig } from './first-config.ts'

/** `bothub init`: writes a config that starts. */
export const initCommand = (): Command =>
  new Command('init')
    .description('write a config that starts')
    .argument('[folder]', 'where to', '.')
    .option('-y, --yes', 'ask nothing: a bot of your own, over HTTP and WebSocket')
    .option('--demo', 'ask nothing: the three bots of the README, on every channel')
    .action(init)

async function init(folder: string, { yes, demo }: { readonly yes?: boolean; readonly demo?: boolean }): Promise<void> {
  const at = resolve(folder)
  const config = join(at, 'hub.config.ts')
  if (existsSync(config)) throw new CommandFailed(`${config} is there already, and was left as it is.`)
  const files = demo ? { 'hub.config.ts': readFileSync(demoConfig, 'utf8') } : await chosenFiles(yes === true)
  const isInstalled = isInstalledFor(at)
  beginModules(at)
  const written = write(at, {
    ...files,
    // Where `bothub` is found already, another package could hide it, as in its own repository.
    ...(isInstalled && isAmongModules(at)
      ? {}
      : { 'package.json': `${JSON.stringify({ private: true, type: 'module' }, null, 2)}\n` }),
    'tsconfig.json': firstTypeScriptConfig,
    '.gitignore': 'node_modules/\ndata/\n.env\n',
  })
  process.stdout.write(`Written: ${written.join(', ')}\n\n${nextSteps(at, isInstalled, isAmongModules(at))}`)
}

const { version } = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8')) as {
  readonly version: string
}

/** What `npm start` runs in the repository. */
const demoConfig = new URL('../hub.config.ts', import.meta.url)

async function chosenFiles(yes: boolean): Promise<Readonly<Record<string, string>>> {
  if (!yes && !process.stdin.isTTY)
    throw new CommandFailed('There is no terminal to ask at. Add --yes to be asked nothing.')
  const choices = yes ? defaults : await ask()
  if (!choices) throw new CommandFailed('Nothing was written.')
  return {
    'hub.config.ts': firstConfig(choices),
    ...(choices.bots.includes('own') ? { 'my-bot.ts': firstBot } : {}),
  }
}

/** Has what `npm init` or `npm install` has just made be a package of modules; one with code in it is left as it is. */
function beginModules(folder: string): void {
  const manifest = manifestIn(folder)
  if (!manifest || manifest.type === 'module') return
  if (readdirSync(folder).some((name) => /\.[cm]?[jt]sx?$/.test(name))) return
  writeFileSync(join(folder, 'package.json'), `${JSON.stringify({ ...manifest, type: 'module' }, null, 2)}\n`)
}

/** Whether Node will take a config there for a module: the nearest package says so, which may be one above. */
function isAmongModules(folder: string): boolean {
  const manifest = manifestIn(folder)
  if (manifest) return manifest.type === 'module'
  return dirname(folder) !== folder && isAmongModules(dirname(folder))
}

function manifestIn(folder: string): { readonly type?: string } | undefined {
  const path = join(folder, 'package.json')
  return existsSync(path) ? (JSON.parse(readFileSync(path, 'utf8')) as { readonly type?: string }) : undefined
}

const defaults: Choices = { bots: ['own'], channels: ['websocket'] }

async function ask(): Promise<Choices | undefined> {
  const { isCancel, multiselect } = await import('@clack/prompts')
  giveRoom(process.stdout)
  const bots = await multiselect({ message: 'Which bots?', options: options(botKinds), initialValues: defaults.bots })
  if (isCancel(bots)) return undefined
  const channels = await multiselect({
    message: 'Plain HTTP and server-sent events are there. What else do your clients speak?',
    options: options(channelKinds),
    initialValues: defaults.channels,
    required: false,
  })
  return isCancel(channels) ? undefined : { bots, channels }
}

/** Some terminals say that they have no columns, and get a letter to a line. */
function giveRoom(terminal: NodeJS.WriteStream): void {
  terminal.columns ||= 80
  terminal.rows ||= 24
}

const options = <Kind extends string>(kinds: Readonly<Record<Kind, { readonly label: string }>>) =>
  (Object.keys(kinds) as Kind[]).map((value) => ({ value, label: kinds[value].label }))

/** Leaves alone what is there. */
function write(folder: string, files: Readonly<Record<string, string>>): string[] {
  mkdirSync(folder, { recursive: true })
  return Object.entries(files).flatMap(([name, text]) => {
    const path = join(folder, name)
    if (existsSync(path)) return []
    writeFileSync(path, text)
    return relative('.', path)
  })
}

function nextSteps(folder: string, isInstalled: boolean, isModule: boolean): string {
  const steps = [
    ...(folder === resolve('.') ? [] : [`cd ${relative('.', folder)}`]),
    ...(isModule ? [] : ['npm pkg set type=module']),
    // It is not on npm yet; the README says how the file is made.
    ...(isInstalled ? [] : [`npm install /path/to/bothub-${version}.tgz node@24`]),
    'npx bothub check',
    'npx bothub start',
    'npx bothub chat',
  ]
  const compiler = 'npm install --save-dev typescript @types/node && npx tsc'
  return `Next:\n${steps.map((step) => `  ${step}\n`).join('')}\nTo have names and options checked by the compiler:\n  ${compiler}\n`
}

/** Whether a config there finds `bothub`. */
function isInstalledFor(folder: string): boolean {
  try {
    createRequire(join(folder, 'hub.config.ts')).resolve('bothub')
    return true
  } catch {
    return false
  }
}
