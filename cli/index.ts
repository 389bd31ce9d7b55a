import { Command } from 'commander'
import { didYouMean, sentence } from '../core/config.ts'
import { HubError } from '../core/errors.ts'
import { backupCommand } from './backup.ts'
import { chatCommand } from './chat.ts'
import { checkCommand } from './check.ts'
import { devCommand } from './dev.ts'
import { eraseCommand } from './erase.ts'
import { exportCommand } from './export.ts'
import { CommandFailed } from './failure.ts'
import { initCommand } from './init.ts'
import { newCommand } from './new.ts'
import { outboxCommand } from './outbox.ts'
import { simulateCommand } from './simulate.ts'
import { startCommand } from './start.ts'

/** The config cannot be used: sysexits' EX_CONFIG. */
const exitConfig = 78

/**
 * Runs the command line. A command's own file says what it takes, and loads what it works with when it runs, so that
 * `--help` waits for nothing. Exit codes: 0, 78 for a config that cannot be used, 1 for everything else.
 */
export async function run(argv: readonly string[]): Promise<void> {
  const program = new Command('bothub')
    .description('A hub between bots on any platform and users on any channel.')
    .showHelpAfterError('Add --help to see what it takes.')
  program.addCommand(startCommand(), { isDefault: true })
  const commands = [
    initCommand,
    devCommand,
    checkCommand,
    chatCommand,
    newCommand,
    backupCommand,
    outboxCommand,
    exportCommand,
    eraseCommand,
    simulateCommand,
  ]
  for (const command of commands) program.addCommand(command())
  try {
    refuseUnknown(program, argv[2])
    await program.parseAsync(argv)
  } catch (error) {
    if (!(error instanceof HubError || error instanceof CommandFailed)) throw error
    process.stderr.write(`${error.message}\n`)
    process.exitCode = error instanceof HubError && error.code === 'config_invalid' ? exitConfig : 1
  }
}

/** Without this, a misspelt command would be an argument too many of `start`. */
function refuseUnknown(program: Command, first: string | undefined): void {
  if (first === undefined || first.startsWith('-')) return
  const known = [...program.commands.map((command) => command.name()), 'help']
  if (known.includes(first)) return
  throw new CommandFailed(sentence(`There is no command "${first}"${didYouMean(first, known)}`))
}
