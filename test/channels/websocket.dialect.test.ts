import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { clientFrame } from '../../channels/websocket/frames.ts'
import { rowsUnder } from '../support/dialects.ts'

describe('docs/dialects.md', () => {
  const rows = rowsUnder('websocket: frames of a client')

  it('has a row for every frame of a client, and no other', () => {
    const types = clientFrame.options.map((option) => option.shape.type.value)
    expect(rows).toHaveLength(types.length)
    expect(new Set(rows.map(([type]) => type))).toEqual(new Set<string>(types))
  })

  it.each(rows)('names the fields of %s', (type, fields) => {
    const { shape } = clientFrame.options.find((option) => option.shape.type.value === type)!
    const known = Object.keys(shape).filter((field) => !['type', 'stream', 'events'].includes(field))
    expect(
      fields
        .match(/\w+(?=\??(?:,|\)|$| \())/g)
        ?.filter((word) => word !== 'or')
        .toSorted() ?? [],
    ).toEqual(known.toSorted())
  })

  it('explains every way a socket is closed', () => {
    const own = ['index.ts', 'connection.ts'].flatMap((file) =>
      Array.from(
        readFileSync(new URL(`../../channels/websocket/${file}`, import.meta.url), 'utf8').matchAll(
          /\.close\((\d{4})/g,
        ),
        ([, code]) => Number(code),
      ),
    )
    // These three are those of the protocol itself.
    const all = new Set([...own, 1002, 1007, 1009])
    const codes = rowsUnder('websocket: what closes a socket').map(([code]) => Number(code))
    expect(codes).toEqual([...all].toSorted((a, b) => a - b))
  })
})
