import { posix } from 'node:path'
import type { JsonObject } from '../../core/message.ts'

const maxBytes = 16_777_216

interface Entry {
  /** Undefined for a folder. */
  readonly content: Buffer | undefined
  readonly mtimeUnix: number
  readonly mode: number
}

export interface SandboxChange {
  readonly op: 'CREATE' | 'WRITE' | 'REMOVE' | 'RENAME'
  readonly path: string
  readonly mtimeUnix: number
}

/** Why a call on the files of a sandbox is refused; `status` and `code` are what the Edge Server answers. */
export class SandboxRefusal extends Error {
  readonly status: number
  readonly code: string

  constructor(status: number, code: string, message: string) {
    super(message)
    this.status = status
    this.code = code
  }
}

/** The files of one simulated sandbox, in memory. */
export class SandboxFiles {
  readonly #entries = new Map<string, Entry>([['/', folder()]])
  readonly #watchers = new Set<(change: SandboxChange) => void>()

  list(path: string): JsonObject {
    const at = this.#folder(path)
    const inside = [...this.#entries].filter(([each]) => each !== '/' && posix.dirname(each) === at)
    return {
      entries: inside.map(([each, entry]) => ({ name: posix.basename(each), ...attributesOf(entry) })),
      truncated: false,
    }
  }

  stat(path: string): JsonObject {
    const entry = this.#entries.get(clean(path))
    if (!entry) return { exists: false, isDir: false, sizeBytes: 0, mtimeUnix: 0, mode: 0 }
    return { exists: true, ...attributesOf(entry), etag: `"${entry.mtimeUnix}-${entry.content?.length ?? 0}"` }
  }

  /** A part of a file, and the size of the whole. */
  read(path: string, offset: number, limit: number): { readonly part: Buffer; readonly total: number } {
    const { content } = this.#entry(path)
    if (!content) throw invalid('path is a directory')
    return { part: content.subarray(offset, offset + limit), total: content.length }
  }

  write(path: string, content: Buffer, options: { readonly mode: number; readonly createOnly: boolean }): JsonObject {
    const at = clean(path)
    const existing = this.#entries.get(at)
    if (existing && options.createOnly) throw exists(at)
    if (existing && !existing.content) throw invalid('path is a directory')
    if (content.length > maxBytes) throw new SandboxRefusal(413, 'INVALID_ARGUMENT', 'file is too large')
    this.#folders(posix.dirname(at))
    this.#entries.set(at, { content, mtimeUnix: now(), mode: options.mode })
    this.#tell(existing ? 'WRITE' : 'CREATE', at)
    return { bytesWritten: content.length }
  }

  mkdir(path: string): void {
    this.#folders(clean(path))
  }

  remove(path: string, all: boolean): void {
    const at = clean(path)
    this.#entry(at)
    const inside = [...this.#entries.keys()].filter((each) => isBelow(each, at))
    if (inside.length > 0 && !all) throw new SandboxRefusal(409, 'CONFLICT', 'directory is not empty')
    for (const each of [...inside, at]) this.#entries.delete(each)
    this.#tell('REMOVE', at)
  }

  copy(from: string, to: string, overwrite: boolean): JsonObject {
    const { content, mode } = this.#entry(from)
    if (!content) throw invalid('src is a directory')
    this.write(to, content, { mode, createOnly: !overwrite })
    return { bytesCopied: content.length }
  }

  move(from: string, to: string, overwrite: boolean): void {
    this.copy(from, to, overwrite)
    this.#entries.delete(clean(from))
    this.#tell('RENAME', clean(from))
  }

  /** Tells of every change below a path until the function it returns is called. */
  watch(path: string, recursive: boolean, listener: (change: SandboxChange) => void): () => void {
    const at = clean(path)
    const watcher = (change: SandboxChange) => {
      const concerns = recursive ? isBelow(change.path, at) : posix.dirname(change.path) === at
      if (concerns || change.path === at) listener(change)
    }
    this.#watchers.add(watcher)
    return () => this.#watchers.delete(watcher)
  }

  #tell(op: SandboxChange['op'], path: string): void {
    for (const watcher of this.#watchers) watcher({ op, path, mtimeUnix: now() })
  }

  #entry(path: string): Entry {
    const entry = this.#entries.get(clean(path))
    if (!entry) throw new SandboxRefusal(404, 'NOT_FOUND', 'no such file or directory')
    return entry
  }

  #folder(path: string): string {
    if (this.#entry(path).content) throw invalid('path is not a directory')
    return clean(path)
  }

  #folders(path: string): void {
    if (this.#entries.get(path)?.content) throw exists(path)
    if (this.#entries.has(path)) return
    this.#folders(posix.dirname(path))
    this.#entries.set(path, folder())
    this.#tell('CREATE', path)
  }
}

const now = (): number => Math.floor(Date.now() / 1000)
const folder = (): Entry => ({ content: undefined, mtimeUnix: now(), mode: 0o755 })
const isBelow = (path: string, above: string): boolean => path.startsWith(above === '/' ? '/' : `${above}/`)
const invalid = (message: string) => new SandboxRefusal(400, 'INVALID_ARGUMENT', message)
const exists = (path: string) => new SandboxRefusal(409, 'CONFLICT', `${path} exists`)

function clean(path: string): string {
  if (!path || path.split('/').includes('..')) throw invalid('path leaves the sandbox')
  const whole = posix.normalize(`/${path}`)
  return whole === '/' ? whole : whole.replace(/\/$/, '')
}

const attributesOf = ({ content, mtimeUnix, mode }: Entry): JsonObject => ({
  isDir: content === undefined,
  sizeBytes: content?.length ?? 0,
  mtimeUnix,
  mode,
})
