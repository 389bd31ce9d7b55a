import { createHash, timingSafeEqual } from 'node:crypto'
import type { IncomingMessage } from 'node:http'
import { createRemoteJWKSet, errors, importSPKI, jwtVerify } from 'jose'
import type { JWTVerifyGetKey } from 'jose'
import { z } from 'zod'
import { HubError } from './errors.ts'
import { noted } from './plugin-spec.ts'
import type { PluginSpec } from './plugin-spec.ts'
import { secret, setting } from './settings.ts'
import { clientName } from './ids.ts'

/**
 * Who is asking. The key owns what it creates; the user is the person a trusted key speaks for, and separates the
 * names that clients choose. Channels carry a principal, only the dispatcher decides what it may see.
 */
export interface Principal {
  /** An API key's name, `jwt:` and a token's subject, or `local`. */
  readonly key: string
  readonly user?: string
  /** Somebody's server: its word for `user` and `debug` counts. */
  readonly trusted: boolean
  /** May see and do what belongs to nobody: metrics, the console, the outbox; and take conversations. */
  readonly admin: boolean
  /** May send messages whose tools ask nobody. */
  readonly bypassConsent: boolean
  /** The bots it may use; all when absent. */
  readonly bots?: readonly string[]
}

/** What an own `auth` function returns: a principal, with everything it does not say denied. */
export interface Caller {
  readonly key: string
  readonly user?: string
  readonly trusted?: boolean
  readonly admin?: boolean
  readonly bypassConsent?: boolean
  readonly bots?: readonly string[]
}

/** Says who sends a request, or undefined when it cannot tell. */
export type Authenticate = (request: IncomingMessage) => Caller | undefined | Promise<Caller | undefined>

/** One entry of `auth` in the config, as `apiKey()` and `jwt()` leave it: checked and built when the hub loads. */
export interface AuthSpec<Bot extends string = string> extends PluginSpec<'auth', undefined, Authenticate> {
  /** The bots its options name; for the compiler only. */
  readonly bots?: Bot
}

const rights = {
  bots: z.array(z.string()).min(1).exactOptional().describe('The bots it may use; all by default.'),
  trusted: z
    .boolean()
    .default(false)
    .describe('It is a server, and says for which user it asks: `user` in the body, `?user=` or `X-Hub-User`.'),
}

const apiKeyOptions = z.strictObject({
  name: z
    .string()
    .regex(/^[\w.-]{1,64}$/, 'a key\'s name has letters, digits, ".", "_" and "-", at most 64')
    .refine((name) => name !== 'local', '"local" is the key of a hub without auth; choose another name')
    .describe('Owns what is made with the key, so keep it when the key itself changes.'),
  key: secret().describe(
    '`env(…)` or `secretFile(…)`; make one with `openssl rand -base64 24`. Under 16 characters the start says so.',
  ),
  ...rights,
  admin: z
    .boolean()
    .default(false)
    .describe(
      'It may read metrics, use the console (the page at `/`), see the turns and conversations of all keys and the audit table, look after the outbox, and take conversations from their bots.',
    ),
  bypassConsent: z.boolean().default(false).describe('Its messages may say `bypassConsent: true`.'),
})

type WithBots<Options, Bot extends string> = Omit<Options, 'bots'> & { bots?: readonly Bot[] }

/**
 * Lets in whoever sends the key, as `Authorization: Bearer KEY` or `X-API-Key: KEY`.
 * @example apiKey({ name: 'crm', key: env('CRM_KEY'), trusted: true })
 */
export const apiKey = noted(
  <const Bot extends string = never>(options: WithBots<z.input<typeof apiKeyOptions>, Bot>): AuthSpec<Bot> => ({
    kind: 'auth',
    name: 'apiKey',
    options,
    schema: apiKeyOptions,
    create(parsed) {
      const { name, key, ...granted } = parsed as z.output<typeof apiKeyOptions>
      const expected = sha256(key.reveal())
      return (request) => {
        const given = credentialOf(request)
        // Digests have one length, so that neither length nor content of the key can be told by time.
        return given !== undefined && timingSafeEqual(sha256(given), expected) ? { key: name, ...granted } : undefined
      }
    },
  }),
)

const jwtOptions = z.strictObject({
  name: z
    .string()
    .regex(/^[\w.-]{1,64}$/)
    .default('jwt')
    .describe('Keeps the subjects of two issuers apart.'),
  jwks: z
    .url({ protocol: /^https?$/ })
    .exactOptional()
    .describe("Where the issuer's public keys are."),
  publicKey: setting()
    .exactOptional()
    .describe("The issuer's public key, PEM (SPKI); `algorithm` says what it is for."),
  secret: secret().exactOptional().describe('The shared secret of HS256 tokens.'),
  algorithm: z.string().default('RS256').describe('Of `publicKey`.'),
  issuer: z.string().exactOptional().describe('Required `iss`.'),
  audience: z.string().exactOptional().describe('Required `aud`.'),
  ...rights,
})

/**
 * Lets in whoever sends a valid token as `Authorization: Bearer TOKEN`: its subject is the key and the user.
 * @example jwt({ jwks: 'https://login.example.com/.well-known/jwks.json', audience: 'hub' })
 */
export const jwt = noted(
  <const Bot extends string = never>(options: WithBots<z.input<typeof jwtOptions>, Bot>): AuthSpec<Bot> => ({
    kind: 'auth',
    name: 'jwt',
    options,
    schema: jwtOptions.refine(
      (given) => [given.jwks, given.publicKey, given.secret].filter((each) => each !== undefined).length === 1,
      'needs one of `jwks`, `publicKey` and `secret`',
    ),
    create: (parsed) => verifier(parsed as z.output<typeof jwtOptions>),
  }),
)

async function verifier(options: z.output<typeof jwtOptions>): Promise<Authenticate> {
  const { name, issuer, audience, trusted, bots } = options
  const key = await verificationKey(options)
  const checks = {
    requiredClaims: ['sub'],
    ...(issuer === undefined ? {} : { issuer }),
    ...(audience === undefined ? {} : { audience }),
  }
  return async (request) => {
    const token = credentialOf(request)
    if (token?.split('.').length !== 3) return undefined
    try {
      const { payload } = await jwtVerify(token, key, checks)
      const subject = payload.sub
      if (!subject) return undefined
      return { key: `${name}:${subject}`, user: subject, trusted, ...(bots ? { bots } : {}) }
    } catch (error) {
      // Whatever is wrong with a token, it is not let in; only a key server that cannot be reached is our trouble.
      if (error instanceof errors.JOSEError && !(error instanceof errors.JWKSTimeout)) return undefined
      throw new HubError('auth_unavailable', { cause: error })
    }
  }
}

async function verificationKey(options: z.output<typeof jwtOptions>): Promise<JWTVerifyGetKey> {
  if (options.jwks !== undefined) return createRemoteJWKSet(new URL(options.jwks))
  const fixed = options.secret
    ? new TextEncoder().encode(options.secret.reveal())
    : await importSPKI(options.publicKey!, options.algorithm).catch((error: unknown) => {
        throw new HubError('config_invalid', {
          message: `auth: jwt(): \`publicKey\` must be a public key in PEM (SPKI) that is good for ${options.algorithm}, which \`algorithm\` says.`,
          cause: error,
        })
      })
  const algorithm = options.secret ? 'HS256' : options.algorithm
  return async (header) => {
    // A public key must never be taken for the secret of an HS256 token.
    if (header.alg !== algorithm) throw new errors.JOSEAlgNotAllowed(`"${header.alg}" is not "${algorithm}"`)
    return fixed
  }
}

/** The principal of a hub without `auth`: one trusted key on loopback. */
export const localPrincipal = (user?: string): Principal => ({
  key: 'local',
  trusted: true,
  admin: true,
  bypassConsent: true,
  ...(user ? { user } : {}),
})

/**
 * Makes the function that tells who sends a request. The first of `auth` that knows the caller decides; without any,
 * everybody is `local`.
 */
export const gatekeeper =
  (auth: readonly Authenticate[] | undefined) =>
  /** @throws HubError `unauthorized`, `invalid_request`, `auth_unavailable` */
  async (request: IncomingMessage): Promise<Principal> => {
    if (!auth) return speakingFor(localPrincipal(), userOf(request))
    for (const authenticate of auth) {
      const caller: unknown = await authenticate(request)
      if (caller) return speakingFor(toPrincipal(checked(caller)), userOf(request))
    }
    throw new HubError('unauthorized', hasCredential(request) ? { message: unknownCredential } : {})
  }

/** Functions of a config may be written in JavaScript, and nobody is let in by mistake. */
function checked(caller: unknown): Caller {
  const { key } = caller as Partial<Caller>
  if (typeof key === 'string' && key !== '') return caller as Caller
  throw new HubError('internal', {
    message: 'A function of `auth` gave something that is no caller. It returns { key: "…" }, or undefined for nobody.',
  })
}

const unknownCredential =
  'This hub does not know the key or token that was sent. Check it: `Authorization: Bearer KEY` or `X-API-Key: KEY`.'

/** The principal that somebody with an API key of that name would be. */
export function principalOfKey(
  auth: readonly { readonly options: unknown }[] | undefined,
  name: string | undefined,
): Principal {
  if (!auth) return localPrincipal()
  const spec = auth.map(({ options }) => options as z.output<typeof apiKeyOptions>).find((key) => key.name === name)
  if (!spec) throw new HubError('internal', { message: `There is no API key called "${name}".` })
  const { key: _, name: key, ...granted } = spec
  return toPrincipal({ key, ...granted })
}

/** A sentence for each API key that is short enough to be guessed. */
export const shortKeyNotices = (
  auth: readonly ({ readonly name: string; readonly options: unknown } | Authenticate)[],
) =>
  auth.flatMap((each) => {
    if (typeof each === 'function' || each.name !== 'apiKey') return []
    const { name, key } = each.options as z.output<typeof apiKeyOptions>
    if (key.reveal().length >= shortestSafeKey) return []
    return `auth: the key of "${name}" has fewer than ${shortestSafeKey} characters and could be guessed. Make one with: openssl rand -base64 24`
  })

/** In characters: what `openssl rand -base64 12` prints. */
const shortestSafeKey = 16

/** Tells who sends a request, or throws: `unauthorized` when nobody of `auth` knows the caller. */
export type Gatekeeper = ReturnType<typeof gatekeeper>

/** Puts a key or token that came another way where every kind of `auth` looks for it. */
export function showCredential(request: IncomingMessage, credential: string): void {
  request.headers.authorization = `Bearer ${credential}`
}

/** Whether the request carries something that could have been meant as a key. */
export const hasCredential = (request: IncomingMessage): boolean => credentialOf(request) !== undefined

const toPrincipal = ({
  key,
  user,
  trusted = false,
  admin = false,
  bypassConsent = false,
  bots,
}: Caller): Principal => ({
  key,
  trusted,
  admin,
  bypassConsent,
  ...(user ? { user } : {}),
  ...(bots ? { bots } : {}),
})

/** The principal of a trusted key that says for whom it asks; from anybody else the word does not count. */
export const speakingFor = (caller: Principal, user: string | undefined): Principal =>
  user && caller.trusted ? { ...caller, user } : caller

/** Whether the principal may use a bot. */
export const mayUse = (principal: Principal, bot: string): boolean => principal.bots?.includes(bot) ?? true

/** `?user=` or `X-Hub-User`. */
function userOf(request: IncomingMessage): string | undefined {
  const { searchParams } = new URL(request.url ?? '/', 'http://hub')
  const user = searchParams.get('user') ?? request.headers['x-hub-user'] ?? ''
  if (user === '') return undefined
  const parsed = clientName.safeParse(user)
  if (parsed.success) return parsed.data
  throw new HubError('invalid_request', { message: `user: ${parsed.error.issues[0]!.message}.` })
}

function credentialOf(request: IncomingMessage): string | undefined {
  const { authorization, 'x-api-key': key } = request.headers
  const bearer = authorization === undefined ? undefined : /^bearer +(\S+) *$/i.exec(authorization)?.[1]
  return bearer ?? (typeof key === 'string' && key !== '' ? key : undefined)
}

const sha256 = (text: string): Buffer => createHash('sha256').update(text).digest()
