import { live } from './live.ts'

/**
 * Tries a provider of the hub against its real platform, with a real key from the environment:
 * `npm run live -- coze`. Exit code 0 when every check passed or did not apply, 1 when one failed, 78 when something is
 * not set, 64 when the platform is not known.
 */
const [name = ''] = process.argv.slice(2)
process.exitCode = await live(name, (text) => void process.stdout.write(text))
