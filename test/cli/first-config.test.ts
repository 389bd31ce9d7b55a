import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { describe, expect, it } from 'vitest'
import { botKinds, channelKinds, firstBot, firstConfig } from '../../cli/first-config.ts'
import { checkConfig } from '../../index.ts'
import { root } from '../support/program.ts'

/** Inside the repository, so that a config finds `bothub`; `data/` is what git leaves alone. */
function emptyFolder() {
  mkdirSync(join(root, 'data'), { recursive: true })
  const folder = mkdtempSync(join(root, 'data/init-'))
  return { folder, [Symbol.dispose]: () => rmSync(folder, { recursive: true, force: true }) }
}

const bots = Object.keys(botKinds) as (keyof typeof botKinds)[]
const channels = Object.keys(channelKinds) as (keyof typeof channelKinds)[]

describe('the config it writes', () => {
  it.each([{ bots, channels }, ...bots.map((bot) => ({ bots: [bot], channels: [] }))])(
    'needs nothing set: $bots, $channels',
    async (choices) => {
      using empty = emptyFolder()
      writeFileSync(join(empty.folder, 'my-bot.ts'), firstBot)
      writeFileSync(join(empty.folder, 'hub.config.ts'), firstConfig(choices))
      const module = (await import(pathToFileURL(join(empty.folder, 'hub.config.ts')).href)) as { default: unknown }
      expect(checkConfig(module.default).bots.size).toBe(choices.bots.length)
    },
  )
})
