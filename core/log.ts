import { pino } from 'pino'
import type { DestinationStream, Logger } from 'pino'
import pretty from 'pino-pretty'
import { redact } from './settings.ts'

export type { Logger } from 'pino'

/** The hub's log: readable in a terminal, JSON lines elsewhere, never with a secret's value in it. */
export const createLogger = (
  destination: DestinationStream = process.stdout.isTTY
    ? pretty({ colorize: true, ignore: 'pid,hostname', translateTime: 'SYS:HH:MM:ss.l', sync: true })
    : pino.destination({ dest: 1, sync: true }),
  level = process.env['HUB_LOG_LEVEL'] ?? 'info',
): Logger =>
  pino(
    { level, base: null, timestamp: pino.stdTimeFunctions.isoTime },
    // A line is redacted as a whole, so that a secret is found wherever it stands: a header, a URL, a stack.
    { write: (line: string) => destination.write(redact(line)) },
  )
