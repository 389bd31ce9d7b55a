/** How many connections a hub should have room for, at the least: a stream that a platform answers takes two. */
const enough = 2000
/** What the hub itself has open. */
const own = 100

/** How many files and connections this process may have open; undefined where the system does not say. */
export function openFilesLimit(): number | undefined {
  // Looks nobody up by name, as the report would by default.
  Object.assign(process.report, { excludeNetwork: true })
  const { userLimits } = process.report.getReport() as {
    readonly userLimits?: { readonly open_files?: { readonly soft?: unknown } }
  }
  const soft = userLimits?.open_files?.soft
  return typeof soft === 'number' ? soft : undefined
}

/** What is said of it at the start: how many streams there is room for, and what to do where that is not many. */
export function openFilesLine(limit: number): string {
  const streams = Math.max(0, Math.floor((limit - own) / 2))
  const room = `Room for about ${streams.toLocaleString('en')} streams at once: ${limit.toLocaleString('en')} open files (ulimit -n).`
  return streams < enough ? `${room} Raise it to 65536 where the hub is started: docs/deploying.md.` : room
}
