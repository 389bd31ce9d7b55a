import { join } from 'node:path'
import { expect, it } from 'vitest'
import { launch, root } from '../support/program.ts'

it('kills the hub half-way, shows where the halves join, sends four copies, and counts none lost and none doubled', async () => {
  const demo = launch(process.execPath, [join(root, 'demo/run.ts')], { PATH: process.env['PATH'] ?? '' })
  expect(await demo.exited, demo.output()).toBe(0)
  const said = demo.output()
  expect(said).toMatch(/word 120[^]*kill -9 of the hub[^]*word 300/)
  const [, before, after, last, next] =
    /halves join: {2}… word \d+ word (\d+) \| word (\d+) word \d+ …\n {2}event (\d+) was .*, event (\d+) the first/.exec(
      said,
    ) ?? []
  expect(Number(before)).toBeGreaterThanOrEqual(120)
  expect([Number(after), Number(next)]).toEqual([Number(before) + 1, Number(last) + 1])
  expect(said).toContain('300 words of 300')
  expect(said.match(/the platform was asked once/g)).toHaveLength(2)
  for (const channel of ['rest', 'sse', 'websocket', 'webhook']) {
    expect(said).toMatch(new RegExp(`^ {2}${channel} +turn_\\w+ {2}Nice to meet you, Ada`, 'm'))
  }
  expect(said).toMatch(/\n0 lost, 0 doubled\n$/)
  // Colours are for terminals.
  expect(said).not.toContain('\u001B')
})
