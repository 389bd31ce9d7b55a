import { lookup as lookUp } from 'node:dns'
import { request as requestHttp } from 'node:http'
import type { RequestOptions } from 'node:http'
import { request as requestHttps } from 'node:https'
import type { LookupFunction } from 'node:net'
import ipaddr from 'ipaddr.js'
import { DeliveryPostponed, DeliveryRefused } from './outbox.ts'
import { retryAfterMs } from './sse.ts'

const timeoutMs = 20_000
const maxAnswerBytes = 65_536

/** Where a callback may not go, or did not arrive. */
export class CallbackFailed extends Error {
  override readonly name = 'CallbackFailed'
}

/** What a receiver answered. `retryAfter` is the header as it came, `body` the text, of 64 KiB at most. */
export interface CallbackAnswer {
  readonly status: number
  readonly retryAfter: string | null
  readonly body: string
}

/** How a callback is sent. */
export interface CallbackOptions {
  readonly allowPrivate: boolean
  readonly signal: AbortSignal
  /** POST by default. A GET has no body. */
  readonly method?: 'GET' | 'POST' | 'PUT' | undefined
}

/**
 * POSTs to an address that a config or a client named: 20 s at most, no redirects, 64 KiB of answer, and unless
 * `allowPrivate` no address but a public one. It is the address connected to that is checked, so a name cannot change
 * its mind between the check and the use.
 * @throws CallbackFailed
 */
export function postCallback(
  target: string | URL,
  headers: Readonly<Record<string, string>>,
  body: string,
  options: CallbackOptions,
): Promise<CallbackAnswer> {
  const url = new URL(target)
  if (!options.allowPrivate && isPrivate(url)) {
    return Promise.reject(new CallbackFailed(`${url.hostname} is not a public address; see \`allowPrivate\``))
  }
  const request = url.protocol === 'https:' ? requestHttps : requestHttp
  const settings: RequestOptions = {
    method: options.method ?? 'POST',
    headers: { ...headers, ...(options.method === 'GET' ? {} : describe(body)) },
    signal: AbortSignal.any([options.signal, AbortSignal.timeout(timeoutMs)]),
    agent: false,
    ...(options.allowPrivate ? {} : { lookup: lookUpPublic }),
  }
  return new Promise((resolve, reject) => {
    const failed = (error: unknown) => reject(new CallbackFailed(`${url.host} did not take it`, { cause: error }))
    const outgoing = request(url, settings, (answer) => {
      const chunks: Buffer[] = []
      let bytes = 0
      answer.on('data', (chunk: Buffer) => {
        chunks.push(chunk)
        bytes += chunk.length
        if (bytes > maxAnswerBytes) answer.destroy(new Error('the answer is larger than 64 KiB'))
      })
      answer.on('end', () =>
        resolve({
          status: answer.statusCode ?? 0,
          retryAfter: answer.headers['retry-after'] ?? null,
          body: Buffer.concat(chunks).toString(),
        }),
      )
      answer.on('error', failed)
    })
    outgoing.on('error', failed)
    outgoing.end(options.method === 'GET' ? undefined : body)
  })
}

const describe = (body: string) => ({
  'content-type': 'application/json',
  'content-length': String(Buffer.byteLength(body)),
})

/**
 * Whether a receiver took what it was sent: 2xx is yes, and everything else is thrown, so that the outbox knows when to
 * come again, or that it is not to.
 * @throws DeliveryRefused for 410, DeliveryPostponed where the answer says when, Error
 */
export function checkTaken({ status, retryAfter }: Omit<CallbackAnswer, 'body'>, nowMs: number): void {
  if (status >= 200 && status < 300) return
  if (status === 410) throw new DeliveryRefused('the receiver is gone (410)')
  const pause = retryAfterMs(retryAfter, nowMs)
  if (pause !== undefined) throw new DeliveryPostponed(`the receiver answered ${status}`, pause)
  throw new Error(`the receiver answered ${status}`)
}

/** Of all addresses of IPv6 only these are given out for the public network, and the rest may lead anywhere. */
const globalUnicast = ipaddr.IPv6.parseCIDR('2000::/3')

/** Neither loopback, private, link-local, metadata, multicast nor one of the ranges that lead to those. */
export function isPublic(address: string): boolean {
  const parsed = ipaddr.process(address)
  if (parsed.range() !== 'unicast') return false
  return !(parsed instanceof ipaddr.IPv6) || parsed.match(globalUnicast)
}

/** Whether an address says by itself, without anybody being asked for it, that it is no public one. */
export function isPrivate({ hostname }: URL): boolean {
  if (/^(.+\.)?localhost\.?$/.test(hostname)) return true
  const literal = hostname.replace(/^\[|\]$/g, '')
  return ipaddr.isValid(literal) && !isPublic(literal)
}

const lookUpPublic: LookupFunction = (hostname, options, callback) => {
  lookUp(hostname, { ...options, all: true }, (error, addresses) => {
    if (error) return callback(error, [])
    const allowed = addresses.filter(({ address }) => isPublic(address))
    if (allowed.length === 0) return callback(new CallbackFailed(`${hostname} has no public address`), [])
    if (options.all) return callback(null, allowed)
    callback(null, allowed[0]!.address, allowed[0]!.family)
  })
}
