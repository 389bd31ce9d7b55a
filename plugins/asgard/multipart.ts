/** What can be read to its end once, chunk by chunk: a Node stream, a web stream, a generator, or bytes at hand. */
export type FileSource =
  | AsyncIterable<Uint8Array | string>
  | Iterable<Uint8Array | string>
  | ReadableStream<Uint8Array>
  | Uint8Array
  | Blob

/** A file to send. It is streamed, whatever its size. */
export interface FileUpload {
  readonly stream: FileSource
  readonly filename: string
  /** Left out, it goes as bytes of no known type, and Asgard looks for itself. */
  readonly mime?: string | undefined
}

/** A form on its way out. */
export interface MultipartForm {
  readonly contentType: string
  readonly chunks: AsyncIterable<Uint8Array>
  /** Why the file could not be read to its end; it, and not the request that broke off with it, is the failure. */
  readonly sourceError: () => { readonly error: unknown } | undefined
}

/**
 * Encodes text fields and one file, in this order, as `multipart/form-data`. `onChunk` is told of progress, and throws
 * when there is no use in going on.
 */
export function multipart(
  fields: Readonly<Record<string, string>>,
  file: FileUpload | undefined,
  onChunk: () => void,
): MultipartForm {
  const boundary = `----bothub${crypto.randomUUID()}`
  let failed: { readonly error: unknown } | undefined
  async function* chunks(): AsyncGenerator<Uint8Array> {
    for (const [name, value] of Object.entries(fields))
      yield utf8.encode(`${head(boundary, `name="${escapeName(name)}"`)}\r\n${value}\r\n`)
    if (file) {
      const type = `Content-Type: ${safeType(file.mime)}\r\n`
      yield utf8.encode(`${head(boundary, `name="file"; filename="${escapeName(file.filename)}"`)}${type}\r\n`)
      try {
        for await (const chunk of chunksOf(file.stream)) {
          onChunk()
          yield chunk
        }
      } catch (error) {
        failed = { error }
        throw error
      }
      yield utf8.encode('\r\n')
    }
    yield utf8.encode(`--${boundary}--\r\n`)
  }
  return {
    contentType: `multipart/form-data; boundary=${boundary}`,
    chunks: chunks(),
    sourceError: () => failed,
  }
}

const utf8 = new TextEncoder()

const head = (boundary: string, disposition: string): string =>
  `--${boundary}\r\nContent-Disposition: form-data; ${disposition}\r\n`

async function* chunksOf(source: FileSource): AsyncGenerator<Uint8Array> {
  if (source instanceof Uint8Array) return yield source
  if (source instanceof Blob) return yield* source.stream()
  for await (const chunk of source) yield typeof chunk === 'string' ? utf8.encode(chunk) : chunk
}

// As browsers write it, so that a name cannot end its line or its quotes.
const escapeName = (name: string) =>
  name.replaceAll('\n', '%0A').replaceAll('\r', '%0D').replaceAll('"', '%22').replaceAll('\0', '')
const safeType = (mime = '') =>
  /^[\w.+-]+\/[\w.+-]+(?:; ?[\w-]+=[\w.-]+)*$/.test(mime) ? mime : 'application/octet-stream'
