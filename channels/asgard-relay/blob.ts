import { createReadStream } from 'node:fs'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { ChannelContext, RequestContext } from '../../core/channel.ts'
import { HubError } from '../../core/errors.ts'
import { clientName } from '../../core/ids.ts'
import type { Upload } from '../../core/plugin.ts'
import { receiveUpload } from '../../core/upload.ts'
import type { AsgardBlob } from '../../plugins/asgard/wire.ts'
import { toBlob } from './encode.ts'

/**
 * Takes the file of `POST /blob` to the bot's upstream. The front end's form says only behind the file to which channel
 * it belongs; until then it is kept on disk.
 * @throws HubError as `receiveUpload` and `Conversations.upload` do
 */
export const receiveBlob = (ctx: RequestContext, context: ChannelContext, bot: string): Promise<AsgardBlob> =>
  receiveUpload(ctx, async (file, fields, signal, whole) => {
    const store = async (stored: Upload) => {
      const channel = clientName.safeParse(fields['customChannelId'])
      if (!channel.success) {
        throw new HubError('invalid_request', { message: 'customChannelId: name the channel in a field of the form.' })
      }
      return toBlob(await context.conversations.upload(ctx.principal, bot, channel.data, stored, signal))
    }
    if (fields['customChannelId'] !== undefined) return store(file)
    const folder = await mkdtemp(join(tmpdir(), 'bothub-blob-'))
    try {
      const kept = join(folder, 'file')
      await writeFile(kept, file.stream, { mode: 0o600, signal })
      await whole
      return await store({ ...file, stream: createReadStream(kept) })
    } finally {
      await rm(folder, { recursive: true, force: true })
    }
  })
