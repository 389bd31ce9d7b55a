import type { CheckedConfig } from './config.ts'
import { buildHub, loggerToken } from './hub.ts'
import type { HubReach } from './hub-reach.ts'
import { reachHub } from './hub-reach.ts'
import { createLogger } from './log.ts'
import { Services } from './services.ts'
import type { UserOf } from './user-data.ts'
import { textOf, userErased, userPath } from './user-routes.ts'

/** What is kept of users, as an operator reaches it from the command line. */
export interface UserReach extends AsyncDisposable {
  /** In pieces of lines of JSON. */
  export(of: UserOf): AsyncIterable<string>
  /** How many conversations there were. */
  erase(of: UserOf): Promise<number>
}

/**
 * Goes to the hub where its config says it listens, as one of its admins; where nothing listens, to its store.
 * @throws HubError `forbidden`, `store_unavailable`, or what the hub answers
 */
export async function reachUsers(config: CheckedConfig, folder: string): Promise<UserReach> {
  const hub = await reachHub(config)
  return hub ? ofHub(hub) : ofStore(config, folder)
}

const ofHub = (hub: HubReach): UserReach => ({
  async *export(of) {
    const { body } = await hub.ask(addressOf(of))
    if (body) yield* body.pipeThrough(new TextDecoderStream())
  },
  async erase(of) {
    const answer = await hub.ask(addressOf(of), { method: 'DELETE' })
    return userErased.parse(await answer.json()).conversations
  },
  async [Symbol.asyncDispose]() {},
})

const addressOf = ({ user, key }: UserOf): string =>
  `${userPath.replace(':person', encodeURIComponent(user))}${key === undefined ? '' : `?key=${encodeURIComponent(key)}`}`

/** The bots are built, as what they keep upstream is told of with what they made of it; nothing listens or goes on. */
async function ofStore(config: CheckedConfig, folder: string): Promise<UserReach> {
  const services = new Services().provide(loggerToken, () => createLogger(process.stderr, 'silent'))
  const hub = await buildHub(config, { folder, services, delivers: false })
  const by = 'command line'
  return {
    export: (of) => textOf(hub.users.export(of, by)),
    erase: (of) => hub.users.erase(of, by),
    [Symbol.asyncDispose]: () => hub[Symbol.asyncDispose](),
  }
}
