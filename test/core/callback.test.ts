import { once } from 'node:events'
import { createServer } from 'node:http'
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import ipaddr from 'ipaddr.js'
import { array, assert, asyncProperty, boolean, constantFrom, integer, nat } from 'fast-check'
import { describe, expect, it } from 'vitest'
import { CallbackFailed, checkTaken, isPublic, postCallback } from '../../core/callback.ts'
import standard from '../fixtures/url-standard-addresses.json' with { type: 'json' }
import { DeliveryPostponed, DeliveryRefused } from '../../core/outbox.ts'

/** A server on every address of this machine that counts who connects. */
async function listener(answer: (request: IncomingMessage, response: ServerResponse) => void = (_, to) => to.end()) {
  const server = createServer((request, response) => answer(request, response))
  let connections = 0
  server.on('connection', () => (connections += 1))
  server.listen(0, '0.0.0.0')
  await once(server, 'listening')
  return {
    port: (server.address() as AddressInfo).port,
    connections: () => connections,
    async [Symbol.asyncDispose]() {
      server.close()
      server.closeAllConnections()
    },
  }
}

const post = (url: string, { allowPrivate = false, signal = AbortSignal.timeout(10_000) } = {}) =>
  postCallback(url, {}, '{}', { allowPrivate, signal })

/** The first address of every range that ipaddr.js has a name for. */
const special = [ipaddr.IPv4.prototype, ipaddr.IPv6.prototype].flatMap((prototype) =>
  Object.values({ ...(Reflect.get(prototype, 'SpecialRanges') as object) })
    .flat(2)
    .flatMap((part: unknown) => (part instanceof ipaddr.IPv4 || part instanceof ipaddr.IPv6 ? part.toString() : [])),
)

const inUrl = (address: string): string => (address.includes(':') ? `[${address}]` : address)

/** How the URL standard's own tests write 127.0.0.1, and what else its parser takes for it. */
const loopbackSpellings = [
  '127.0.0.1',
  '127.0.0.1.',
  '127.1',
  '127.0.1',
  '127.255.255.254',
  '0x7f.0.0.1',
  '0x7f.1',
  '0X7F000001',
  '0x7f000001',
  '2130706433',
  '017700000001',
  '0177.0.0.1',
  '0177.0.0.0x1',
  '00000177.00000.0.1',
  '%31%32%37.0.0.1',
  '%30%78%37%66.1',
  '１２７.０.０.１',
  '０ｘ７ｆ.1',
  '127。0。0。1',
  '⑫7.0.0.1',
  'localhost',
  'LOCALHOST',
  'localhost.',
  'ｌｏｃａｌｈｏｓｔ',
  '%6c%6f%63%61%6c%68%6f%73%74',
  '0',
  '0.0.0.0',
  '0x0',
  '[::1]',
  '[0:0:0:0:0:0:0:1]',
  '[0000:0000:0000:0000:0000:0000:0000:0001]',
  '[::]',
  '[::127.0.0.1]',
  '[::ffff:127.0.0.1]',
  '[::ffff:7f00:1]',
  '[0:0:0:0:0:FFFF:7F00:0001]',
  '[64:ff9b::127.0.0.1]',
  '[2002:7f00:1::]',
]

/** Where nobody from outside may send the hub: the first address, and the bits that are the same in all of them. */
const ranges = [
  [0x7f00_0000, 8],
  [0x0a00_0000, 8],
  [0x0000_0000, 8],
  [0xac10_0000, 12],
  [0xc0a8_0000, 16],
  [0xa9fe_0000, 16],
  [0x6440_0000, 10],
  [0xa9fe_a9fe, 32],
] as const

const dotted = (address: number): string => [24, 16, 8, 0].map((shift) => (address >>> shift) & 255).join('.')

/** In one to four parts, the last of which takes what is left, each decimal, octal or hexadecimal. */
function spell(address: number, parts: number, bases: readonly number[]): string {
  const octets = [24, 16, 8].slice(0, parts - 1).map((shift) => (address >>> shift) & 255)
  const rest = parts === 1 ? address : address & (0xffff_ffff >>> (8 * (parts - 1)))
  const prefixes: Readonly<Record<number, string>> = { 8: '0', 10: '', 16: '0x' }
  return [...octets, rest >>> 0].map((part, index) => prefixes[bases[index]!]! + part.toString(bases[index])).join('.')
}

describe('where a callback may go', () => {
  it.each(loopbackSpellings)('is not http://%s/, and no connection is made', async (host) => {
    await using server = await listener()
    await expect(post(`http://${host}:${server.port}/`)).rejects.toBeInstanceOf(CallbackFailed)
    expect(server.connections()).toBe(0)
  })

  it('is none of the ranges that ipaddr.js knows', async () => {
    expect(special.length).toBeGreaterThan(20)
    for (const address of special) {
      expect([address, isPublic(address)]).toEqual([address, false])
      await expect(post(`http://${inUrl(address)}:9/`)).rejects.toThrow('is not a public address')
    }
    const metadata = ['169.254.169.254', '100.100.100.200', 'fd00:ec2::254', '::ffff:169.254.169.254', '168.63.129.16']
    // The last is Azure's, in the middle of the public ones: nothing tells it from them.
    expect(metadata.filter((address) => isPublic(address))).toEqual(['168.63.129.16'])
    expect(['8.8.8.8', '2606:4700::1111', '1.1.1.1'].filter((address) => !isPublic(address))).toEqual([])
  })

  it("is no address of the URL standard's own tests but for the public ones", async () => {
    const reached: string[] = []
    for (const input of standard.inputs) {
      const { hostname } = new URL(input)
      if (isPublic(hostname.replaceAll(/[[\]]/g, ''))) reached.push(hostname)
      else await expect(post(input)).rejects.toThrow('is not a public address')
    }
    expect(reached).toEqual(['1.2.3.4', '1.2.3.4', '59.154.201.255', '59.154.201.255'])
  })

  it('is no such range in any other spelling that the URL standard takes for an address', async () => {
    await assert(
      asyncProperty(
        constantFrom(...ranges),
        nat(0xffff_ffff),
        integer({ min: 1, max: 4 }),
        array(constantFrom(10, 8, 16), { minLength: 4, maxLength: 4 }),
        array(boolean(), { minLength: 16, maxLength: 16 }),
        async ([start, bits], host, parts, bases, escaped) => {
          const address = (start | (bits === 32 ? 0 : host >>> bits)) >>> 0
          const spelling = spell(address, parts, bases)
          const written = Array.from(spelling, (character, index) =>
            escaped[index % 16] ? `%${character.codePointAt(0)!.toString(16)}` : character,
          ).join('')
          // The standard's parser is what decides where a request would go.
          expect(new URL(`http://${written}/`).hostname).toBe(dotted(address))
          await expect(post(`http://${written}:9/`)).rejects.toThrow('is not a public address')
        },
      ),
      { numRuns: 300 },
    )
  })

  it('may be any of them where the config allows it', async () => {
    await using server = await listener()
    expect(await post(`http://127.1:${server.port}/`, { allowPrivate: true })).toMatchObject({ status: 200 })
    expect(server.connections()).toBe(1)
  })
})

describe('what a receiver answers', () => {
  it('is not read beyond 64 KiB, not followed elsewhere, and not waited for when the hub stops', async () => {
    await using large = await listener((_, response) => response.end('x'.repeat(100_000)))
    await expect(post(`http://127.0.0.1:${large.port}/`, { allowPrivate: true })).rejects.toBeInstanceOf(CallbackFailed)
    await using elsewhere = await listener()
    await using moved = await listener((_, response) =>
      response.writeHead(308, { location: `http://127.0.0.1:${elsewhere.port}/` }).end(),
    )
    expect(await post(`http://127.0.0.1:${moved.port}/`, { allowPrivate: true })).toMatchObject({ status: 308 })
    expect(elsewhere.connections()).toBe(0)
    const asked = Promise.withResolvers<void>()
    await using silent = await listener(() => asked.resolve())
    const stop = new AbortController()
    const hanging = post(`http://127.0.0.1:${silent.port}/`, { allowPrivate: true, signal: stop.signal })
    await asked.promise
    stop.abort()
    await expect(hanging).rejects.toBeInstanceOf(CallbackFailed)
  })

  it('is yes, no more, later or no', () => {
    const given =
      (status: number, retryAfter: string | null = null) =>
      () =>
        checkTaken({ status, retryAfter }, 0)
    for (const status of [200, 202, 204]) expect(given(status)).not.toThrow()
    expect(given(410)).toThrow(DeliveryRefused)
    expect(given(429, '90')).toThrow(expect.objectContaining({ retryAfterMs: 90_000 }))
    expect(given(503, new Date(5000).toUTCString())).toThrow(DeliveryPostponed)
    for (const status of [301, 308, 400, 404, 429, 500]) expect(given(status)).toThrow(`answered ${status}`)
  })
})
