import { readFile } from 'node:fs/promises'
import { createRequire, stripTypeScriptTypes } from 'node:module'
import { dirname } from 'node:path'
import { fileURLToPath } from 'node:url'

/** A file as a browser gets it. */
export interface Asset {
  /** Its media type. */
  readonly type: string
  readonly body: string
}

/** Where the folders of the page's address are. */
const folders: ReadonlyMap<string, string> = new Map([
  ['page', fileURLToPath(new URL('page', import.meta.url))],
  ['client', fileURLToPath(new URL('../../client', import.meta.url))],
  ['marked', dirname(createRequire(import.meta.url).resolve('marked'))],
])

const types: Readonly<Record<string, string>> = {
  ts: 'text/javascript; charset=utf-8',
  js: 'text/javascript; charset=utf-8',
  css: 'text/css; charset=utf-8',
  svg: 'image/svg+xml',
}

const cache = new Map<string, Asset>()

/** A file of the page, its types taken off; undefined for what the page has no such part of. */
export async function assetOf(folder: string, file: string): Promise<Asset | undefined> {
  const name = `${folder}/${file}`
  const known = cache.get(name)
  if (known) return known
  const asset = await readAsset(folder, file)
  if (asset) cache.set(name, asset)
  return asset
}

async function readAsset(folder: string, file: string): Promise<Asset | undefined> {
  const directory = folders.get(folder)
  const extension = /^[a-z][a-z.-]*\.(?<extension>ts|js|css|svg)$/.exec(file)?.groups?.['extension']
  const type = extension && types[extension]
  if (!directory || !type) return undefined
  const path = `${directory}/${file}`
  const source = await readFile(path, 'utf8').catch(() => undefined)
  if (source !== undefined) return { type, body: extension === 'ts' ? withoutTypes(source) : source }
  // In the published package the same modules are there compiled.
  const compiled = extension === 'ts' && (await readFile(path.replace(/ts$/, 'js'), 'utf8').catch(() => undefined))
  return compiled ? { type, body: compiled } : undefined
}

/** As Node runs the hub itself; it warns that this function is new, which is nothing to whoever runs a hub. */
function withoutTypes(source: string): string {
  const warn = process.emitWarning.bind(process)
  process.emitWarning = () => {}
  try {
    return stripTypeScriptTypes(source)
  } finally {
    process.emitWarning = warn
  }
}
