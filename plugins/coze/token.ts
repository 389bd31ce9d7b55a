import { createPrivateKey, randomUUID } from 'node:crypto'
import type { KeyObject } from 'node:crypto'
import { SignJWT } from 'jose'
import { z } from 'zod'
import type { Clock } from '../../core/clock.ts'
import { expiringTokens } from '../../core/expiring-tokens.ts'
import type { GivenToken, TokenSource } from '../../core/expiring-tokens.ts'
import { parseExactJson } from '../../core/json.ts'
import { HubError } from '../../core/errors.ts'
import type { Secret } from '../../core/settings.ts'
import { secret, setting } from '../../core/settings.ts'
import { connectionError } from '../../core/sse.ts'
import { mayPass, repeatable } from './failures.ts'
import { cozeError } from './wire.ts'

/** Options of an OAuth app of the kind "JWT", as Coze's console shows them. */
export const oauthOptions = z.strictObject({
  appId: setting().describe("The app's id."),
  publicKeyId: setting().describe('The fingerprint that the console shows for the public key.'),
  privateKey: secret()
    .transform((pem, context) => {
      const key = rsaKey(pem)
      if (key) return key
      context.addIssue({ code: 'custom', message: 'must be an RSA private key in PEM, as Coze gave it to you' })
      return z.NEVER
    })
    .describe('The private key that belongs to it, PEM; `secretFile(…)` reads it from a file.'),
  accountId: setting()
    .optional()
    .describe("An account of the organisation, where the token is not to be for the app's own."),
  durationSeconds: z.int().min(120).max(86_399).default(900).describe('How long a token is asked for, in seconds.'),
})

function rsaKey(pem: Secret): KeyObject | undefined {
  try {
    const key = createPrivateKey(pem.reveal())
    return key.asymmetricKeyType === 'rsa' ? key : undefined
  } catch {
    return undefined
  }
}

/** A personal or service token: always the same, until somebody changes the config. */
export const fixedToken = (token: Secret): TokenSource => ({ take: async () => token, refused: () => false })

/** Where an app gets its tokens, and with what patience. */
export interface AppTokens {
  readonly app: z.output<typeof oauthOptions>
  /** Such as `https://api.coze.cn`, without a slash at its end. */
  readonly baseUrl: string
  readonly fetch: typeof fetch
  readonly clock: Clock
  readonly timeoutMs: number
}

/**
 * The tokens of an OAuth app: https://www.coze.cn/open/docs/developer_guides/oauth_jwt. What goes wrong on the way to
 * one happens before anything else was asked for, so passing failures are `notStarted`.
 */
export const appTokens = (options: AppTokens): TokenSource =>
  expiringTokens(
    () =>
      askForToken(options).catch((error: unknown) => {
        throw repeatable(error)
      }),
    options.clock,
    mayPass,
  )

async function askForToken({ app, baseUrl, fetch, clock, timeoutMs }: AppTokens): Promise<GivenToken> {
  const account = app.accountId === undefined ? '' : `/account/${encodeURIComponent(app.accountId)}`
  const assertion = await assertionOf(app, new URL(baseUrl).host, clock)
  let status: number
  let body: string
  try {
    const response = await fetch(`${baseUrl}/api/permission/oauth2${account}/token`, {
      method: 'POST',
      headers: { authorization: `Bearer ${assertion}`, 'content-type': 'application/json' },
      body: JSON.stringify({ grant_type: jwtBearer, duration_seconds: app.durationSeconds }),
      redirect: 'manual',
      signal: AbortSignal.timeout(timeoutMs),
    })
    status = response.status
    body = await response.text()
  } catch (error) {
    throw connectionError(error)
  }
  const given = tokenAnswer.safeParse(parseExactJson(body)).data
  if (status !== 200 || !given) throw refusal(status, body)
  return { token: given.access_token, lifeMs: lifeOf(given.expires_in, clock) }
}

const jwtBearer = 'urn:ietf:params:oauth:grant-type:jwt-bearer'
const tokenAnswer = z.object({ access_token: z.string().min(1), expires_in: z.number().positive() })
const tokenFailure = z.object({ error_code: z.string(), error_message: z.string() }).partial()

/** Coze's `expires_in` is a time, in seconds since the epoch; a small one can only be the duration its name says. */
const lifeOf = (expiresIn: number, clock: Clock): number =>
  expiresIn > 1e9 ? expiresIn * 1000 - clock.now() : expiresIn * 1000

function refusal(status: number, body: string): HubError {
  const { error_code: code, error_message: message } = tokenFailure.safeParse(parseExactJson(body)).data ?? {}
  if (status < 400 || status === 429 || status >= 500) {
    return cozeError(
      { status, message: message ?? body.slice(0, 1000), ...(code === undefined ? {} : { code }) },
      false,
    )
  }
  return new HubError('upstream_auth', {
    cause: new Error(message ?? body.slice(0, 1000)),
    upstream: { status, ...(code === undefined ? {} : { code }) },
  })
}

const assertionOf = (app: AppTokens['app'], audience: string, clock: Clock): Promise<string> => {
  const now = Math.floor(clock.now() / 1000)
  return new SignJWT()
    .setProtectedHeader({ alg: 'RS256', typ: 'JWT', kid: app.publicKeyId })
    .setIssuer(app.appId)
    .setAudience(audience)
    .setIssuedAt(now)
    .setExpirationTime(now + 600)
    .setJti(randomUUID())
    .sign(app.privateKey)
}
