import { readdirSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import type { HubConfig } from '../../index.ts'
import { startHub } from '../support/hub.ts'

/** What each example is asked, and what it answers. */
const conversations: Record<string, readonly (readonly [bot: string, text: string, answer: string])[]> = {
  'own-bots.ts': [
    ['parrot', 'hello', 'You said: hello'],
    ['counter', 'hello', 'Messages so far: 0'],
    ['counter', 'again', 'Messages so far: 2'],
    ['spelling', 'abc', 'a.b.c.'],
  ],
  'own-middleware.ts': [
    ['echo', 'quietly', 'QUIETLY'],
    ['echo', 'LOUD', ''],
  ],
}

/** Those that are plugins and not configs: they have a suite of their own. */
const plugins = ['made-up-channel.ts', 'made-up-simulator.ts', 'made-up-vendor.ts']

describe('the examples', () => {
  const folder = new URL('../../examples/', import.meta.url)

  it('are all tried here', () => {
    const names = [...Object.keys(conversations), ...plugins].toSorted((a, b) => a.localeCompare(b))
    expect(readdirSync(folder).filter((name) => name.endsWith('.ts'))).toEqual(names)
  })

  it.each(Object.keys(conversations))('%s answers as it says', async (name) => {
    const { default: config } = (await import(new URL(name, folder).href)) as { default: HubConfig }
    await using hub = await startHub({ ...config, listen: { port: 0 } })
    for (const [bot, text, answer] of conversations[name]!) {
      const turn = await hub.ask(bot, text, { conversation: '1' })
      expect([turn.status, turn.text]).toEqual([answer === '' ? 'failed' : 'completed', answer])
    }
  })
})
