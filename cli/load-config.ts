import { existsSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { HubError } from '../core/errors.ts'

/** Where a config is looked for. */
export const defaultConfig = 'hub.config.ts'

/**
 * The default export of a config file, unchecked. A `.env` beside it is read into the environment first, where nothing
 * is set already.
 * @throws HubError `config_invalid`
 */
export async function loadConfig(path: string): Promise<unknown> {
  if (!existsSync(path)) {
    throw new HubError('config_invalid', {
      message: `There is no config file at ${path}. Write one with \`bothub init\`, or name another: --config FILE`,
    })
  }
  loadEnvironment(join(dirname(path), '.env'))
  let module: { readonly default?: unknown }
  try {
    module = (await import(pathToFileURL(path).href)) as typeof module
  } catch (error) {
    throw new HubError('config_invalid', {
      message: `${path} cannot be loaded: ${error instanceof Error ? `${error.message}${placeOf(error)}` : String(error)}${remedyOf(error)}`,
      cause: error,
    })
  }
  if (module.default === undefined) {
    throw new HubError('config_invalid', {
      message: `${path} has no default export. End it with: export default defineConfig({ … })`,
    })
  }
  return module.default
}

function loadEnvironment(path: string): void {
  if (!existsSync(path)) return
  try {
    process.loadEnvFile(path)
  } catch (error) {
    throw new HubError('config_invalid', {
      message: `${path} cannot be read. Make it a file of lines such as NAME=value that this user may read.`,
      cause: error,
    })
  }
}

/** Which file and line it came from, where that is known: the config, or something it imports. */
function placeOf({ stack = '' }: Error): string {
  const place = /file:\/\/[^\s:]+:\d+/.exec(stack)?.[0]
  return place === undefined ? '' : `, at ${fileURLToPath(place)}`
}

/** What `npm init` leaves is a package of CommonJS, which Node takes at its word. */
const remedyOf = (error: unknown): string =>
  error instanceof SyntaxError && /outside a module|Unexpected token 'export'/.test(error.message)
    ? '. Say in its package.json that it is one: npm pkg set type=module'
    : ''
