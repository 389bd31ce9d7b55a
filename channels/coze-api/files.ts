import { createReadStream } from 'node:fs'
import { mkdir, readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'
import type { ChannelContext } from '../../core/channel.ts'
import type { Clock } from '../../core/clock.ts'
import { HubError } from '../../core/errors.ts'
import { newId } from '../../core/ids.ts'
import type { FileRef } from '../../core/message.ts'
import type { Principal } from '../../core/auth.ts'
import type { Upload } from '../../core/plugin.ts'
import { fileOf } from './ids.ts'

const label = z.object({
  id: z.string(),
  key: z.string(),
  name: z.string(),
  mime: z.string(),
  bytes: z.number(),
  at: z.number(),
})

/** A file that was uploaded, and whose it is; `at` in ms since the epoch. */
export type KeptFile = z.output<typeof label>

/** Where uploaded files are, how long they are kept and how many bytes of them. */
export interface ShelfOptions {
  readonly folder: string
  readonly keepMs: number
  readonly maxBytes: number
  readonly clock: Clock
}

/**
 * Files that wait for the chat that names them: Coze's clients upload a file before they say to which bot, and use it as
 * often as they like. A file is on the disk with a label beside it, which is written last.
 */
export class FileShelf {
  readonly #options: ShelfOptions

  constructor(options: ShelfOptions) {
    this.#options = options
  }

  /** @throws HubError what the upload throws, such as `payload_too_large` */
  async keep(key: string, { name, mime, stream }: Upload, signal: AbortSignal): Promise<KeptFile> {
    const { folder, clock } = this.#options
    await mkdir(folder, { recursive: true, mode: 0o700 })
    const at = clock.now()
    const id = newId('file', at)
    const path = join(folder, id)
    try {
      await writeFile(path, stream, { mode: 0o600, flush: true, signal })
      const kept: KeptFile = { id, key, name, mime, bytes: (await stat(path)).size, at }
      await writeFile(`${path}.new`, JSON.stringify(kept), { mode: 0o600, flush: true })
      await rename(`${path}.new`, `${path}.json`)
      await this.#tidy(id)
      return kept
    } catch (error) {
      await this.#remove(id)
      throw error
    }
  }

  /** @throws HubError `unknown_file`, also for another key's */
  async find(key: string, cozeId: string): Promise<KeptFile> {
    const id = fileOf(cozeId)
    const kept = id === undefined ? undefined : await this.#label(id)
    if (kept?.key !== key || !(await this.#isWhole(kept))) {
      throw new HubError('unknown_file', { message: 'There is no such file. Upload it first.' })
    }
    return kept
  }

  /** The file, to be sent on. */
  open({ id, name, mime }: KeptFile): Upload {
    return { name, mime, stream: createReadStream(join(this.#options.folder, id)) }
  }

  async #isWhole({ id, bytes }: KeptFile): Promise<boolean> {
    const found = await stat(join(this.#options.folder, id)).catch(() => undefined)
    return found?.size === bytes
  }

  async #label(id: string): Promise<KeptFile | undefined> {
    const text = await readFile(join(this.#options.folder, `${id}.json`), 'utf8').catch(() => undefined)
    return text === undefined ? undefined : label.parse(JSON.parse(text))
  }

  /** Takes away what is too old, and the oldest where there is too much; never the newest. */
  async #tidy(newest: string): Promise<void> {
    const { folder, keepMs, maxBytes, clock } = this.#options
    const names = await readdir(folder)
    const ids = [...new Set(names.map((name) => name.replace(/\..*$/, '')))].toSorted().toReversed()
    let bytes = 0
    for (const id of ids) {
      const found = await stat(join(folder, id)).catch(() => undefined)
      bytes += found?.size ?? 0
      const isOld = !found || found.mtimeMs < clock.now() - keepMs
      if (id !== newest && (isOld || bytes > maxBytes)) await this.#remove(id)
    }
  }

  async #remove(id: string): Promise<void> {
    const path = join(this.#options.folder, id)
    // The label first: a file without one is no file.
    for (const each of [`${path}.json`, `${path}.new`, path]) await rm(each, { force: true })
  }
}

/** Whose files go to which bot, in which conversation. */
export interface Addressee {
  readonly principal: Principal
  readonly bot: string
  readonly conversation: string
}

/**
 * Hands files to the bot's upstream, each once to a conversation, and gives the ids they have there.
 * @throws HubError `unknown_file`, `files_unsupported`, `unknown_conversation`, or what the provider throws
 */
export async function handOver(
  { conversations }: ChannelContext,
  shelf: FileShelf,
  cozeIds: readonly string[],
  { principal, bot, conversation }: Addressee,
  signal: AbortSignal,
): Promise<readonly string[]> {
  const kept: KeptFile[] = []
  for (const id of cozeIds) kept.push(await shelf.find(principal.key, id))
  const handed: FileRef[] = []
  for (const file of kept) {
    handed.push(await conversations.upload(principal, bot, conversation, shelf.open(file), signal, file.id))
  }
  return handed.map(({ id }) => id)
}
