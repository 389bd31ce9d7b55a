import { createHmac, timingSafeEqual } from 'node:crypto'
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

/** Signs a body with HMAC-SHA256. */
export function signWebhook(secret: Secret, id: string, atMs: number, body: string | Uint8Array): SignatureHeaders {
  const timestamp = String(Math.floor(atMs / 1000))
  return {
    'webhook-id': id,
    'webhook-timestamp': timestamp,
    'webhook-signature': `v1,${hmac(secret, id, timestamp, body).toString('base64')}`,
  }
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
  const expected = secrets.map((secret) => hmac(secret, id, timestamp, body))
  const signatures = given
    .split(' ', maxSignatures)
    .filter((signature) => signature.startsWith('v1,'))
    .map((signature) => Buffer.from(signature.slice(3), 'base64'))
  const matches = signatures.some((signature) =>
    expected.some((mac) => mac.length === signature.length && timingSafeEqual(mac, signature)),
  )
  if (!matches) throw refused('The signature does not match the body.')
  return id
}

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
