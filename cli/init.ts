import { existsSync, mkdirSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join, relative, resolve } from 'node:path'
import { Command } from 'commander'
import { CommandFailed } from './failure.ts'
import type { Choices } from './first-config.ts'
import { botKinds, channelKinds, firstBot, firstConfig } from './first-config.ts'

/** `bothub init`: writes a config that starts. */
export const initCommand = (): Command =>
  new Command('init')
    .description('write a config that starts')
    .argument('[folder]', 'where to', '.')
    .option('-y, --yes', 'ask nothing: a bot of your own, over HTTP and WebSocket')
    .action(init)

async function init(folder: string, { yes }: { readonly yes?: boolean }): Promise<void> {
  const at = resolve(folder)
  const config = join(at, 'hub.config.ts')
  if (existsSync(config)) throw new CommandFailed(`${config} is there already, and was left as it is.`)
  if (!yes && !process.stdin.isTTY)
    throw new CommandFailed('There is no terminal to ask at. Add --yes to be asked nothing.')
  const choices = yes ? defaults : await ask()
  if (!choices) throw new CommandFailed('Nothing was written.')
  const isInstalled = isInstalledFor(at)
  const written = write(at, {
    'hub.config.ts': firstConfig(choices),
    ...(choices.bots.includes('own') ? { 'my-bot.ts': firstBot } : {}),
    // Where `bothub` is found already, another package would hide it.
    ...(isInstalled ? {} : { 'package.json': `${JSON.stringify({ private: true, type: 'module' }, null, 2)}\n` }),
    '.gitignore': 'node_modules/\ndata/\n',
  })
  process.stdout.write(`Written: ${written.join(', ')}\n\n${nextSteps(at, isInstalled)}`)
}

const defaults: Choices = { bots: ['own'], channels: ['websocket'] }

async function ask(): Promise<Choices | undefined> {
  const { isCancel, multiselect } = await import('@clack/prompts')
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

function nextSteps(folder: string, isInstalled: boolean): string {
  const enter = folder === resolve('.') ? '' : `  cd ${relative('.', folder)}\n`
  return `Next:\n${enter}${isInstalled ? '' : '  npm install bothub\n'}  npx bothub check\n  npx bothub start\n  npx bothub chat\n`
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
