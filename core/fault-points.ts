/**
 * Places where a test can have the process die, to see what survives. `HUB_FAULT_POINT=end.before-commit:3` kills it
 * (SIGKILL) as it passes that place for the third time; without the variable passing a place does nothing.
 */
export const faultPoints = [
  'accept.before-commit',
  'accept.after-commit',
  'append.before-commit',
  'append.after-commit',
  'end.before-commit',
  'end.after-commit',
  'upstream.before-request',
  'upstream.after-first-event',
  'delivery.before-mark',
  'migration.inside',
] as const
/** One of `faultPoints`. */
export type FaultPoint = (typeof faultPoints)[number]

const [armed, count = '1'] = process.env['HUB_FAULT_POINT']?.split(':', 2) ?? []
let left = Number(count)

/** Marks a place of the program by its name. */
export const faultPoint: (name: FaultPoint) => void =
  armed === undefined
    ? () => {}
    : (name) => {
        if (name === armed && --left === 0) process.kill(process.pid, 'SIGKILL')
      }
