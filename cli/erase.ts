import { Command } from 'commander'
import { CommandFailed } from './failure.ts'
import type { UserFlags } from './user-data.ts'
import { withUserOptions, withUsers } from './user-data.ts'

/** `bothub erase --user U --yes`: deletes everything that is kept of a user. */
export const eraseCommand = (): Command =>
  withUserOptions(new Command('erase').description('delete everything that is kept of a user, upstream too'))
    .option('--yes', 'yes, delete it; there is no way back')
    .action(eraseUser)

async function eraseUser(flags: UserFlags & { readonly yes?: boolean }): Promise<void> {
  if (!flags.yes) {
    throw new CommandFailed(
      `This deletes every conversation of ${JSON.stringify(flags.user)}, here and upstream, and there is no way back. Keep a copy with \`bothub export\` if you need one, then add --yes.`,
    )
  }
  await withUsers(flags, async (reach) => {
    const conversations = await reach.erase(flags)
    process.stdout.write(`${conversations} ${conversations === 1 ? 'conversation' : 'conversations'} deleted\n`)
  })
}
