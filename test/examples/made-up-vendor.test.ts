import { startHub } from 'bothub/testing'
import { expect, it } from 'vitest'
import { startMurmurSimulator } from '../../examples/made-up-simulator.ts'
import { murmur } from '../../examples/made-up-vendor.ts'

it('answers through its simulator, and is refused with another key', async () => {
  const simulator = await startMurmurSimulator()
  const { url, key } = simulator
  await using hub = await startHub({ bots: { right: murmur({ url, key }), wrong: murmur({ url, key: 'another' }) } })
  const { status, text, error } = await hub.ask('right', 'one two')
  // With its error, which says what to look at.
  expect({ status, text, error }).toEqual({ status: 'completed', text: 'one two' })
  expect(await hub.ask('wrong', 'one two')).toMatchObject({ status: 'failed', error: { code: 'upstream_auth' } })
  await simulator.close()
})
