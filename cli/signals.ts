/** The first signal drains; another one, at least a second later, ends the process at once. */
export function stopOnSignals(stoppable: { stop(): Promise<void> }): void {
  let first: number | undefined
  const onSignal = () => {
    if (first === undefined) {
      first = performance.now()
      process.stdout.write('Stopping: live answers have 20 s to end. Press Ctrl-C again to stop at once.\n')
      stoppable.stop().then(
        () => process.exit(0),
        (error: unknown) => {
          process.stderr.write(`${String(error)}\n`)
          process.exit(1)
        },
      )
      // A terminal's Ctrl-C arrives twice within milliseconds, from the terminal and from npm.
    } else if (performance.now() - first >= 1000) process.exit(130)
  }
  process.on('SIGTERM', onSignal)
  process.on('SIGINT', onSignal)
}
