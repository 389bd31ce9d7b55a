import { execFileSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { configurationPage } from './configuration.ts'

// `npm run docs`: the pages that are made of the program.
const page = join(import.meta.dirname, '../docs/configuration.md')
writeFileSync(page, configurationPage())
const oxfmt = createRequire(import.meta.url)
  .resolve('oxfmt/package.json')
  .replace('package.json', 'bin/oxfmt')
execFileSync(process.execPath, [oxfmt, page])
