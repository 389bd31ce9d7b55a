import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, describe, expect, it, vi } from 'vitest'
import { loadConfig } from '../../cli/load-config.ts'

/** A folder with a config that says which variables it met. */
function project() {
  const folder = mkdtempSync(join(tmpdir(), 'bothub-env-'))
  const config = join(folder, 'hub.config.mjs')
  writeFileSync(config, 'export default [process.env.BOTHUB_ONE, process.env.BOTHUB_TWO]')
  return { folder, config, [Symbol.dispose]: () => rmSync(folder, { recursive: true }) }
}

afterEach(() => vi.unstubAllEnvs())

describe('a `.env` beside the config', () => {
  it('is in the environment before the config is, and beats nothing that was set', async () => {
    using own = project()
    vi.stubEnv('BOTHUB_ONE', undefined)
    vi.stubEnv('BOTHUB_TWO', 'of the shell')
    writeFileSync(join(own.folder, '.env'), 'BOTHUB_ONE="of the file"\nBOTHUB_TWO=of the file\n')
    expect(await loadConfig(own.config)).toEqual(['of the file', 'of the shell'])
  })

  it('is not needed, and is named when it cannot be read', async () => {
    using own = project()
    vi.stubEnv('BOTHUB_ONE', undefined)
    vi.stubEnv('BOTHUB_TWO', undefined)
    expect(await loadConfig(own.config)).toEqual([undefined, undefined])
    mkdirSync(join(own.folder, '.env'))
    await expect(loadConfig(own.config)).rejects.toMatchObject({
      code: 'config_invalid',
      message: expect.stringContaining(`${join(own.folder, '.env')} cannot be read`),
    })
  })
})
