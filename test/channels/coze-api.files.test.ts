import { mkdtempSync, readdirSync, rmSync, truncateSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { FileShelf } from '../../channels/coze-api/files.ts'
import type { ShelfOptions } from '../../channels/coze-api/files.ts'
import { toCozeId } from '../../channels/coze-api/ids.ts'
import { systemClock } from '../../core/clock.ts'
import { HubError } from '../../core/errors.ts'

const dayMs = 86_400_000
const upload = (text: string, name = 'a.txt') => ({
  name,
  mime: 'text/plain',
  stream: (async function* () {
    yield Buffer.from(text)
  })(),
})

describe('files that wait for their chat', () => {
  let folder: string
  let now: number
  beforeEach(() => {
    folder = join(mkdtempSync(join(tmpdir(), 'bothub-shelf-')), 'files')
    now = systemClock.now()
  })
  afterEach(() => rmSync(join(folder, '..'), { recursive: true }))

  const shelf = (options: Partial<ShelfOptions> = {}) =>
    new FileShelf({
      folder,
      keepMs: 90 * dayMs,
      maxBytes: 1000,
      clock: { now: () => now, sleep: () => Promise.resolve() },
      ...options,
    })
  const keep = (on: FileShelf, text: string) => on.keep('ada', upload(text), AbortSignal.timeout(5000))
  const textOf = async (on: FileShelf, id: string): Promise<string> => {
    const { stream } = on.open(await on.find('ada', toCozeId(id)))
    return Buffer.concat(await Array.fromAsync(stream)).toString()
  }

  it('are there for their key, as often as it likes, and after a restart', async () => {
    const kept = await keep(shelf(), 'some words')
    expect(kept).toMatchObject({ name: 'a.txt', mime: 'text/plain', bytes: 10, at: now })
    for (const _ of [1, 2]) expect(await textOf(shelf(), kept.id)).toBe('some words')
    await expect(shelf().find('bob', toCozeId(kept.id))).rejects.toMatchObject({ code: 'unknown_file' })
  })

  it.each(['', '1', '../../etc/passwd', '9'.repeat(38)])('are not found as %j', async (id) => {
    await keep(shelf(), 'some words')
    await expect(shelf().find('ada', id)).rejects.toMatchObject({ code: 'unknown_file' })
  })

  it('leave nothing behind when they do not arrive whole', async () => {
    const broken = async function* () {
      yield Buffer.from('half a ')
      throw new HubError('payload_too_large')
    }
    const half = { name: 'a', mime: 'text/plain', stream: broken() }
    await expect(shelf().keep('ada', half, AbortSignal.timeout(5000))).rejects.toMatchObject({
      code: 'payload_too_large',
    })
    expect(readdirSync(folder)).toEqual([])
  })

  it('that a crash has cut short are not sent on', async () => {
    const kept = await keep(shelf(), 'some words')
    truncateSync(join(folder, kept.id), 3)
    await expect(shelf().find('ada', toCozeId(kept.id))).rejects.toMatchObject({ code: 'unknown_file' })
  })

  it('make room for newer ones when there is too much of them', async () => {
    const on = shelf({ maxBytes: 25 })
    const kept: string[] = []
    for (const text of ['0123456789', '1234567890', '2345678901']) {
      kept.push((await keep(on, text)).id)
      now += 1
    }
    await expect(on.find('ada', toCozeId(kept[0]!))).rejects.toMatchObject({ code: 'unknown_file' })
    expect(await textOf(on, kept[1]!)).toBe('1234567890')
    expect(await textOf(on, kept[2]!)).toBe('2345678901')
    // One that is larger than all that may be kept is kept by itself.
    const large = await keep(on, 'x'.repeat(30))
    expect(await textOf(on, large.id)).toBe('x'.repeat(30))
    expect(readdirSync(folder)).toHaveLength(2)
  })

  it('go when they are old', async () => {
    const old = await keep(shelf(), 'old')
    now += 91 * dayMs
    const young = await keep(shelf(), 'young')
    await expect(shelf().find('ada', toCozeId(old.id))).rejects.toMatchObject({ code: 'unknown_file' })
    expect(readdirSync(folder).toSorted()).toEqual([young.id, `${young.id}.json`].toSorted())
  })
})
