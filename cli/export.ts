import { once } from 'node:events'
import { Command } from 'commander'
import type { UserFlags } from './user-data.ts'
import { withUserOptions, withUsers } from './user-data.ts'

/** `bothub export --user U`: everything that is kept of a user. */
export const exportCommand = (): Command =>
  withUserOptions(new Command('export').description('everything that is kept of a user, a line of JSON each')).action(
    exportUser,
  )

const exportUser = (flags: UserFlags): Promise<void> =>
  withUsers(flags, async (reach) => {
    let isEmpty = true
    for await (const text of reach.export(flags)) {
      isEmpty = false
      if (!process.stdout.write(text)) await once(process.stdout, 'drain')
    }
    if (isEmpty) process.stderr.write(`Nothing is kept of a user "${flags.user}".\n`)
  })
