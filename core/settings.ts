import { readFileSync } from 'node:fs'
import { z } from 'zod'

const secrets = new Set<string>()

/** Takes every secret the hub knows out of a text. */
export const redact = (text: string): string => {
  let clean = text
  for (const secret of secrets) if (clean.includes(secret)) clean = clean.replaceAll(secret, '[secret]')
  return clean
}

/** A value that never prints itself. */
export class Secret {
  readonly #value: string

  constructor(value: string) {
    this.#value = value
    // Shorter ones would turn half the log into [secret].
    if (value.length >= 6) secrets.add(value)
  }

  reveal(): string {
    return this.#value
  }

  /** The value is worth nothing any more, as that of a token that has run out; texts need not be searched for it. */
  expire(): void {
    secrets.delete(this.#value)
  }

  toString(): string {
    return '[secret]'
  }

  toJSON(): string {
    return '[secret]'
  }

  [Symbol.for('nodejs.util.inspect.custom')](): string {
    return '[secret]'
  }
}

/** A setting that is looked up when the config is loaded. */
export interface SettingRef {
  readonly from: 'env' | 'file'
  readonly name: string
  readonly fallback?: string
}

/** Takes a setting from an environment variable. Without a fallback, an unset or empty one is a config problem. */
export const env = (name: string, fallback?: string): SettingRef => ({
  from: 'env',
  name,
  ...(fallback === undefined ? {} : { fallback }),
})

/** Takes a setting from a file, such as a mounted secret; a final newline is not part of it. */
export const secretFile = (name: string): SettingRef => ({ from: 'file', name })

/** An option that is a string, `env(…)` or `secretFile(…)`. */
export const setting = () =>
  z
    .union([z.string().min(1), settingRef], {
      error: ({ input }) => (input === undefined ? 'is missing' : 'must be a string, `env(…)` or `secretFile(…)`'),
    })
    .transform(resolve)

/** The same for an option whose value must never be printed. */
export const secret = () => setting().transform((value) => new Secret(value))

const settingRef = z.object({ from: z.enum(['env', 'file']), name: z.string().min(1), fallback: z.string().optional() })

function resolve(value: string | z.infer<typeof settingRef>, context: z.RefinementCtx): string {
  if (typeof value === 'string') return value
  const found = value.from === 'env' ? process.env[value.name] || value.fallback : readSecretFile(value.name)
  if (found) return found
  context.addIssue({
    code: 'custom',
    message:
      value.from === 'env'
        ? `the environment variable ${value.name} is not set. Set it, or write it into \`.env\` beside the config, and start the hub again.`
        : `the file ${value.name} cannot be read or is empty. Write the secret into it and start the hub again.`,
  })
  return z.NEVER
}

function readSecretFile(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8').replace(/\r?\n$/, '')
  } catch {
    return undefined
  }
}

const units = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 } as const

/** An option that is a time: a number of ms, or `500ms`, `10s`, `5m`, `24h`, `7d`. Its value is in ms. */
export const duration = () =>
  z
    .union([z.int().nonnegative(), z.templateLiteral([z.number().nonnegative(), z.enum(['ms', 's', 'm', 'h', 'd'])])], {
      error: ({ input }) =>
        input === undefined ? 'is missing' : "must be whole ms or, for example, '30s', '5m' or '7d'",
    })
    .transform((given) => {
      if (typeof given === 'number') return given
      const [, count, unit] = /^([\d.]+)(ms|s|m|h|d)$/.exec(given)!
      return Math.round(Number(count) * units[unit as keyof typeof units])
    })

/** What `duration()` takes: ms, or a number with a unit. */
export type Duration = number | `${number}${keyof typeof units}`
