import { createHmac, createPrivateKey, createPublicKey, sign, timingSafeEqual, verify } from 'node:crypto'
import type { KeyObject } from 'node:crypto'
import type { IncomingHttpHeaders } from 'node:http'
import { HubError } from './errors.ts'
import type { Secret } from './settings.ts'

/** How far a timestamp may be from now, either way. */
const toleranceMs = 5 * 60_000
const maxSignatures = 20

/** The three headers of the Standard Webhooks specification (standardwebhooks.com, version 1). */
export interface SignatureHeaders {
  readonly 'webhook-id': string
  /** Seconds since the epoch. */
  readonly 'webhook-timestamp': string
  readonly 'webhook-signature': string
}

/**
 * Signs a body: with HMAC-SHA256, or with Ed25519 where the secret is a private key (`whsk_…`). With several secrets it
 * has several signatures, so that receivers can go from one to the next in their own time; public keys sign nothing.
 */
export function signWebhook(
  secret: Secret | readonly Secret[],
  id: string,
  atMs: number,
  body: string | Uint8Array,
): SignatureHeaders {
  const timestamp = String(Math.floor(atMs / 1000))
  const signatures = [secret].flat().flatMap((each) => {
    const kind = kindOf(each)
    if (kind === 'public') return []
    if (kind === 'shared') return `v1,${hmac(each, id, timestamp, body).toString('base64')}`
    return `v1a,${sign(null, signedBytes(id, timestamp, body), privateKeyOf(each)).toString('base64')}`
  })
  return { 'webhook-id': id, 'webhook-timestamp': timestamp, 'webhook-signature': signatures.join(' ') }
}

/** Whether a secret can sign, or, as a public key (`whpk_…`), only verify. */
export const canSign = (secret: Secret): boolean => kindOf(secret) !== 'public'

/** What is wrong with a secret, as a sentence; undefined where nothing is. */
export function flawOf(secret: Secret): string | undefined {
  const kind = kindOf(secret)
  if (kind === 'shared') return undefined
  const { length } = bytesOf(secret)
  const fits = length === 32 || (kind === 'private' && length === 64)
  return fits ? undefined : 'is no Ed25519 key: behind whsk_ or whpk_ stand its 32 bytes in base64'
}

/**
 * Checks the signature of a body, exactly as it came, and returns its `webhook-id`. Any of the secrets will do, so that
 * one can be replaced while both are in use.
 * @throws HubError `bad_signature`
 */
export function verifyWebhook(
  secrets: readonly Secret[],
  headers: IncomingHttpHeaders,
  body: Uint8Array,
  nowMs: number,
): string {
  const { 'webhook-id': id, 'webhook-timestamp': timestamp, 'webhook-signature': given } = headers
  if (typeof id !== 'string' || typeof timestamp !== 'string' || typeof given !== 'string' || id === '') {
    throw refused('Send the headers webhook-id, webhook-timestamp and webhook-signature.')
  }
  if (!/^\d{1,12}$/.test(timestamp) || Math.abs(nowMs - Number(timestamp) * 1000) > toleranceMs) {
    throw refused('The timestamp is more than five minutes off.')
  }
  const signatures = given.split(' ', maxSignatures)
  const ofVersion = (version: string) =>
    signatures
      .filter((signature) => signature.startsWith(version))
      .map((signature) => Buffer.from(signature.slice(version.length), 'base64'))
  const matches = secrets.some((secret) => {
    if (kindOf(secret) !== 'shared') {
      const key = publicKeyOf(secret)
      return ofVersion('v1a,').some((signature) => verify(null, signedBytes(id, timestamp, body), key, signature))
    }
    const mac = hmac(secret, id, timestamp, body)
    return ofVersion('v1,').some((signature) => mac.length === signature.length && timingSafeEqual(mac, signature))
  })
  if (!matches) throw refused('The signature does not match the body.')
  return id
}

const kindOf = (secret: Secret): 'shared' | 'private' | 'public' => {
  const text = secret.reveal()
  return text.startsWith('whsk_') ? 'private' : text.startsWith('whpk_') ? 'public' : 'shared'
}

const bytesOf = (secret: Secret): Buffer => Buffer.from(secret.reveal().slice('whsk_'.length), 'base64')

const signedBytes = (id: string, timestamp: string, body: string | Uint8Array): Buffer =>
  Buffer.concat([Buffer.from(`${id}.${timestamp}.`), Buffer.from(body)])

/** What stands before the 32 bytes of a key in its DER form (RFC 8410). */
const derPrefix = { private: '302e020100300506032b657004220420', public: '302a300506032b6570032100' } as const

/** The first 32 bytes are the key; libraries that follow NaCl put the public one behind it. */
const privateKeyOf = (secret: Secret): KeyObject =>
  createPrivateKey({
    key: Buffer.concat([Buffer.from(derPrefix.private, 'hex'), bytesOf(secret).subarray(0, 32)]),
    format: 'der',
    type: 'pkcs8',
  })

const publicKeyOf = (secret: Secret): KeyObject =>
  kindOf(secret) === 'private'
    ? createPublicKey(privateKeyOf(secret))
    : createPublicKey({
        key: Buffer.concat([Buffer.from(derPrefix.public, 'hex'), bytesOf(secret)]),
        format: 'der',
        type: 'spki',
      })

const refused = (message: string): HubError => new HubError('bad_signature', { message })

const hmac = (secret: Secret, id: string, timestamp: string, body: string | Uint8Array): Buffer =>
  createHmac('sha256', keyOf(secret)).update(`${id}.${timestamp}.`).update(body).digest()

/** `whsec_` and base64, base64 alone, or, for what is neither, the text itself. */
function keyOf(secret: Secret): Buffer {
  const text = secret.reveal().replace(/^whsec_/, '')
  const decoded = Buffer.from(text, 'base64')
  const isBase64 = decoded.length >= 8 && decoded.toString('base64').replace(/=+$/, '') === text.replace(/=+$/, '')
  return isBase64 ? decoded : Buffer.from(text)
}
